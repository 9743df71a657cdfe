"""Names of COCO's categories by their ids (arXiv:1405.0312), for detectors published without names.

Of the ids 1 to 90 eighty are used. Some detectors have an output for each id, and one for the
background or for id 0; their unused outputs are named too, so that every name is one class.
"""

_NAMES = """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
    fire hydrant, -, stop sign, parking meter, bench, bird, cat, dog, horse, sheep,
    cow, elephant, bear, zebra, giraffe, -, backpack, umbrella, -, -,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat,
    baseball glove, skateboard, surfboard, tennis racket, bottle, -, wine glass, cup, fork, knife,
    spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza,
    donut, cake, chair, couch, potted plant, bed, -, dining table, -, -,
    toilet, -, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven,
    toaster, sink, refrigerator, -, book, clock, vase, scissors, teddy bear, hair drier,
    toothbrush
"""
_BY_ID = ["-", *(name.strip() for name in _NAMES.split(","))]
UNUSED = "unused id"


def coco_classes(count: int) -> tuple[str, ...] | None:
    """Return the classes of a detector of COCO by the number of its outputs.

    91 are all ids from 0 on, 90 those from 1 on, 80 the used ones alone; None for another number.
    """
    names = [f"{UNUSED} {i}" if name == "-" else name for i, name in enumerate(_BY_ID)]
    used = [name for name in names if not name.startswith(UNUSED)]
    by_count = {len(names): names, len(names) - 1: names[1:], len(used): used}
    return tuple(by_count[count]) if count in by_count else None
