"""Boxes and masks of objects follow the pixels of their image."""

import logging

import numpy as np
import pytest

from vitjax.data import instances, pipeline
from vitjax.data.canvas import WholeImage
from vitjax.data.codecs.image import Box
from vitjax.data.codecs.masks import Bitmap, Polygons, RunLengths, decode, draw
from vitjax.data.codecs.masks import encode as encode_mask
from vitjax.data.crop_kinds import PaddedImage
from vitjax.data.instances import Instances, WholeInstances
from vitjax.data.kinds import Image, Label, SemanticMap, encode
from vitjax.data.objects import Objects
from vitjax.data.source import DataInfo
from vitjax.data.transforms.augment import evaluation, parse_augmentation
from vitjax.data.transforms.moves import Flip, Turn, View, affine, rotate

COLOURS = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)


def objects(boxes, masks=(), **more) -> Objects:
    count = len(boxes)
    return Objects(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.arange(count),
        np.zeros(count, bool),
        np.full(count, np.nan),
        masks,
        **more,
    )


def rectangle(x0, y0, x1, y1) -> Polygons:
    return Polygons((np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64),))


def scene(seed: int, size=(97, 131)) -> tuple[np.ndarray, Objects]:
    """Draw three rectangles of pure colours, side by side, on black: class = colour."""
    rng, image, boxes = np.random.default_rng(seed), np.zeros((*size, 3), np.uint8), []
    for k in range(3):
        x, y = int(rng.integers(44 * k, 44 * k + 12)), int(rng.integers(0, 40))
        w, h = int(rng.integers(16, 31)), int(rng.integers(20, 56))
        image[y : y + h, x : x + w] = COLOURS[k]
        boxes.append((x, y, x + w, y + h))
    return image, objects(boxes, tuple(rectangle(*box) for box in boxes))


def seen(image: np.ndarray, k: int) -> np.ndarray:
    """Where the image shows the colour of class k."""
    return image[..., k] > 125


def box_of(pixels: np.ndarray) -> list[int]:
    rows, columns = (np.flatnonzero(pixels.any(axis)) for axis in (1, 0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


class Made:
    """Samples by a function of their number."""

    def __init__(self, count: int, sample):
        self._count, self._sample = count, sample
        self.info = DataInfo((), "", frozenset(sample(0)))

    def __len__(self):
        return self._count

    def __getitem__(self, i):
        return self._sample(i)

    def example_name(self, i):
        return f"number {i}"


@pytest.mark.parametrize(
    "line",
    [
        "centre",
        "crop(area=(0.3, 1.0)) | flip",
        "scaled_crop(scale=(0.4, 1.5), pad_last=True)",
        "scaled_crop(scale=(0.4, 1.5)) | flip",
        "lsj(scale=(0.3, 2.0)) | flip",
        "crop | symmetry",
        "centre(fraction=0.8) | affine(degrees=30)",
        "crop(keep=0.5) | jitter(brightness=0.1, contrast=0.0, saturation=0.1)",
        "lsj(scale=(0.5, 2.0)) | flip | mosaic(p=1.0) | flip",
    ],
)
@pytest.mark.parametrize("masks", [0, 28])
def test_boxes_follow_the_pixels(line: str, masks: int) -> None:
    kinds = {"image": PaddedImage(83), "objects": Instances(83, masks=masks, min_side=3.0)}

    scenes, compared = Made(12, lambda i: dict(zip(("image", "objects"), scene(i)))), 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        fields = parse_augmentation(line)(scenes[seed], kinds, rng, scenes)
        found = encode(fields, kinds)
        boxes, valid = found["objects_boxes"], found["objects_valid"]
        assert found["objects_classes"][valid].min(initial=0) >= 0
        assert not boxes[~valid].any() and (found["objects_classes"][~valid] == -1).all()
        for i in np.flatnonzero(valid):
            x0, y0, x1, y1 = boxes[i]
            pixels = seen(found["image"], found["objects_classes"][i])
            inner = np.zeros_like(pixels)  # a mosaic shows a colour in several places
            inner[max(int(y0) - 1, 0) : int(y1) + 2, max(int(x0) - 1, 0) : int(x1) + 2] = True
            same = valid & (found["objects_classes"] == found["objects_classes"][i])
            near = (boxes[same, :2] < (x1 + 3, y1 + 3)) & (boxes[same, 2:] > (x0 - 3, y0 - 3))
            if near.all(-1).sum() > 1:  # another one touches it
                continue
            np.testing.assert_allclose(box_of(pixels & inner), boxes[i], atol=1.2)
            compared += 1
            if masks and "affine" not in line:
                assert found["objects_masks"][i].mean() > 0.93  # a rectangle fills its box
            elif masks:
                area = found["objects_masks"][i].mean() * (x1 - x0) * (y1 - y0)
                assert area == pytest.approx((pixels & inner).sum(), rel=0.08, abs=12)
    assert compared > 20


def placed(kind: Instances, boxes, size, masks=()):
    view = View(Box(0, 0, *size), size, "area", size)
    return kind.view(objects(boxes, masks), view)


def test_a_crop_cuts_boxes_by_hand() -> None:
    value, kind = objects([(10, 20, 50, 40), (60, 0, 100, 10)]), Instances((30, 40))
    crop = kind.view(value, View(Box(10, 30, 15, 20), (50, 100)))  # twice as large as in the image
    found = kind.encode(crop)
    np.testing.assert_array_equal(found["boxes"][:2], [[0, 20, 40, 30], [0, 0, 0, 0]])
    assert found["valid"].sum() == 1 and found["classes"][:2].tolist() == [0, -1]
    assert found["boxes"].dtype == np.float32 and found["boxes"].shape == (100, 4)


@pytest.mark.parametrize(
    ("options", "count"),
    [(dict(min_share=0.12), 2), (dict(min_share=0.13), 1), (dict(min_side=6.0), 1), ({}, 2)],
)
def test_what_is_hardly_left_is_dropped(options: dict, count: int) -> None:
    """Of a box of 40×20 pixels, 20×5 are inside: 1/8 of it."""
    kind = Instances(100, **options)
    crop = kind.view(
        objects([(80, 95, 120, 115), (1, 1, 9, 9)]), View(Box(0, 0, 100, 100), (200, 200))
    )
    assert len(crop.boxes) == count


def test_moves_by_hand() -> None:
    kind = Instances((10, 20))
    crop = placed(kind, [(2, 1, 8, 4)], (10, 20))
    np.testing.assert_array_equal(kind.move(crop, Flip()).boxes, [[12, 1, 18, 4]])
    turned = kind.move(crop, Turn())  # counter-clockwise: the right side is above
    np.testing.assert_array_equal(turned.boxes, [[1, 12, 4, 18]])
    assert turned.size == (20, 10)
    np.testing.assert_allclose(kind.move(turned, Turn(3)).boxes, crop.boxes, atol=1e-12)
    shifted = kind.move(crop, affine((1, 0, -5, 0, 1, 2)))  # shows what is 5 to the left, 2 below
    np.testing.assert_allclose(shifted.boxes, [[7, 0, 13, 2]])


def test_a_turned_box_holds_its_mask() -> None:
    """A square of side 20 has a diagonal of 28.3, and so has its box after an eighth turn.

    A disc of diameter 20 keeps its box, if its mask is known.
    """
    size = (100, 100)
    y, x = np.mgrid[:100, :100] + 0.5
    disc = Bitmap((np.hypot(x - 50, y - 50) < 10).astype(np.uint8))
    kind, turn = Instances(100), rotate(45, size)
    boxes = [(40, 40, 60, 60)]
    corners = kind.move(placed(kind, boxes, size), turn).boxes
    np.testing.assert_allclose(corners, [[35.858, 35.858, 64.142, 64.142]], atol=1e-3)
    tight = kind.move(placed(kind, boxes, size, (disc,)), turn).boxes
    np.testing.assert_allclose(tight, boxes, atol=1.0)


def test_masks_are_drawn_by_half_a_pixel() -> None:
    unit = np.eye(2, 3)
    mask = draw(rectangle(1.4, 1.0, 3.6, 2.0), unit, (3, 5))  # 60 % of columns 1 and 3
    np.testing.assert_array_equal(mask, [[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    both = Polygons(rectangle(0, 0, 3, 3).rings + rectangle(1, 1, 5, 3).rings)  # they overlap
    assert draw(both, unit, (3, 5)).sum() == 9 + 4
    bitmap = Bitmap(np.array([[1, 0], [1, 1]], np.uint8), left=2, top=1)
    shown = draw(bitmap, np.array([[-2.0, 0, 10], [0, 2, 0]]), (6, 10))  # mirrored, twice as large
    assert box_of(shown > 0) == [2, 2, 6, 6] and shown.sum() == 12
    np.testing.assert_array_equal(shown[2:4, 2:6], [[0, 0, 1, 1]] * 2)


def test_a_mask_is_that_of_its_box() -> None:
    triangle = Polygons((np.array([[10, 10], [50, 10], [10, 30]], np.float64),))
    kind = Instances(100, masks=7)
    crop = placed(kind, [(10, 10, 50, 30)], (100, 100), (triangle,))
    (mask, *others) = kind.encode(crop)["masks"]
    np.testing.assert_array_equal(mask, np.tri(7, dtype=np.uint8)[::-1])
    assert not np.any(others)
    flipped = kind.encode(kind.move(crop, Flip()))["masks"][0]
    np.testing.assert_array_equal(flipped, mask[:, ::-1])
    with pytest.raises(ValueError, match=r"its object 0 .* has no mask; choose data with masks"):
        kind.encode(placed(kind, [(1, 1, 9, 9)], (100, 100)))


def test_shares_of_the_image_become_pixels() -> None:
    value = objects([(0.1, 0.2, 0.5, 0.6)], (rectangle(0.1, 0.2, 0.5, 0.6),), relative=True)
    view, kind = View(Box(0, 0, 50, 200), (50, 200), "area", (50, 200)), Instances(200, masks=5)
    found = kind.encode(kind.view(value, view))
    np.testing.assert_allclose(found["boxes"][0], [20, 10, 100, 30])
    assert found["masks"][0].all()


def test_of_many_objects_the_largest_are_kept(caplog) -> None:
    instances._told_of_many.clear()
    kind = Instances(100, limit=2)
    crop = placed(kind, [(0, 0, 30, 30), (0, 0, 5, 5), (9, 9, 60, 60)], (100, 100))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert kind.encode(crop)["classes"].tolist() == [0, 2]
    (said,) = caplog.messages
    assert "has 3 objects, and room for 2: the largest are kept" in said


def test_a_crop_holds_an_object_if_asked() -> None:
    image, small = np.zeros((200, 200, 3), np.uint8), objects([(90, 90, 110, 110)])
    kinds = {"image": Image(50), "objects": Instances(50, min_share=0.5)}
    counts = []
    for line in ("scaled_crop(scale=(1, 1))", "scaled_crop(scale=(1, 1), keep=0.5)"):
        augment = parse_augmentation(line)
        sample = {"image": image, "objects": small}
        found = [augment(sample, kinds, np.random.default_rng(i)) for i in range(60)]
        counts.append(sum(len(fields["objects"].boxes) for fields in found))
    assert counts[0] < 20 < counts[1]  # 7 and 49 expected
    with pytest.raises(ValueError, match="keep= is of objects, and the task reads none"):
        augment({"image": image}, {"image": Image(50)}, np.random.default_rng(0))


def test_large_scale_jitter_fits_the_image_at_factor_one() -> None:
    kinds = {"image": PaddedImage((60, 50)), "objects": Instances((60, 50))}
    image, value = np.full((40, 100, 3), 9, np.uint8), objects([(0, 0, 100, 40)])
    for scale, expected in ((1.0, [0, 0, 50, 20]), (0.5, [0, 0, 25, 10]), (4.0, [0, 0, 50, 60])):
        augment = parse_augmentation(f"lsj(scale=({scale}, {scale}))")
        fields = augment({"image": image, "objects": value}, kinds, np.random.default_rng(0))
        found = encode(fields, kinds)
        np.testing.assert_array_equal(found["objects_boxes"][0], expected)
        assert found["image_extent"].tolist() == expected[:1:-1]


def test_a_mosaic_has_four_samples_and_their_maps() -> None:
    def grey(i: int) -> dict:
        image = np.full((30, 40, 3), i, np.uint8)
        return {"image": image, "map": image[..., 0].astype(int), "objects": objects([])}

    greys = Made(50, grey)
    kinds = {"image": PaddedImage((41, 53)), "map": SemanticMap((41, 53))}
    kinds["objects"] = Instances((41, 53))
    batches = pipeline.train_batches(
        greys, kinds=kinds, batch_size=20, augment="crop | mosaic(p=1.0)", num_threads=0
    )
    batch = next(batches)
    np.testing.assert_array_equal(batch["image"][..., 0], batch["map"])
    assert (batch["image_extent"] == (41, 53)).all()
    seen = [len(set(classes.ravel())) for classes in batch["map"]]
    assert max(seen) == 4 and min(seen) > 1
    kinds["label"] = Label(2)
    with pytest.raises(ValueError, match=r"a mosaic is made of .* the task reads label; leave it"):
        parse_augmentation("crop | mosaic(p=1.0)")(
            {**greys[0], "label": 1}, kinds, np.random.default_rng(0), greys
        )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("crop | mosaic(p=2)", r"mosaic\(p=2\) must be a number from 0 to 1"),
        ("crop | mosaic(size=3)", "Unknown option of mosaic 'size'"),
        ("crop | mosaic(centre=(0.7, 0.2))", "the smaller one first, such as"),
        ("crop | mosaic | mosaic", "one mosaic at most"),
        ("crop | mosaik", "did you mean 'mosaic'"),
        ("crop(keep=3) | flip", "the share of an object that a crop holds"),
    ],
)
def test_wrong_lines_are_refused(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_augmentation(line)


@pytest.mark.parametrize(
    ("box", "more", "message"),
    [
        ((30, 0, 10, 9), {}, "object 1 .*, x 30 to 10 and y 0 to 9, is inverted or outside of the"),
        ((101, 0, 110, 9), {}, "the image, which is 100 wide and 80 high; repair it"),
        ((np.nan, 0, 10, 9), {}, "is inverted or outside"),
        ((1, 1, 9, 9), {"size": (100, 80)}, "its annotation is of 100×80 pixels, and the image"),
    ],
)
def test_wrong_boxes_are_refused(box, more, message: str) -> None:
    value, view = objects([(0, 0, 5, 5), box], **more), View(Box(0, 0, 80, 100), (80, 100))
    for kind in (Instances(100), WholeInstances(WholeImage((80, 100)))):
        with pytest.raises(ValueError, match=message):
            kind.view(value, view)


def test_whole_images_have_boxes_on_the_canvas_and_as_annotated() -> None:
    image = WholeImage((60, 64), short_side=30)
    kinds = {"image": image, "objects": WholeInstances(image, limit=5)}
    value = objects([(10, 20, 90, 60), (-3, 0, 4, 4)], number=7)._replace(
        areas=np.array([9, np.nan])
    )
    fields = evaluation()(
        {"image": np.zeros((60, 120, 3), np.uint8), "objects": value}, kinds, None
    )
    found = encode(fields, kinds)
    assert found["image_extent"].tolist() == [30, 60]
    np.testing.assert_allclose(found["objects_boxes"][:2], [[5, 10, 45, 30], [-1.5, 0, 2, 2]])
    np.testing.assert_array_equal(found["objects_original"][:2], value.boxes)
    assert found["objects_areas"][:3].tolist() == [9, 28, 0]
    assert found["objects_size"].tolist() == [60, 120] and found["objects_index"] == 7
    few = WholeInstances(image, limit=1, options=("config.detection.limit", ""))
    with pytest.raises(ValueError, match=r"has 2 objects, and config.detection.limit=1 is less"):
        few.encode(fields["objects"])


def test_masks_of_whole_images_are_exact() -> None:
    pytest.importorskip("pycocotools")
    there = (rectangle(0.1, 0.2, 0.5, 0.6), Bitmap(np.ones((3, 4), np.uint8), 2, 1))
    value = objects([(0.1, 0.2, 0.5, 0.6), (0.02, 0.02, 0.06, 0.08)], there, relative=True)
    image = WholeImage((50, 100))
    kind = WholeInstances(image, mask_bytes=120, options=("", "config.mask_bytes"))
    fields = kind.view(value, View(Box(0, 0, 50, 100), (50, 100)))
    first, second, *rest = bytes(kind.encode(fields)["rle"]).split(b"\0")
    decoded = [decode(RunLengths((50, 100), x)).pixels for x in (first, second)]
    assert box_of(decoded[0]) == [10, 10, 50, 30] and decoded[0].sum() == 800
    assert box_of(decoded[1]) == [2, 1, 6, 4] and decoded[1].sum() == 12 and not any(rest)
    small = WholeInstances(image, mask_bytes=9, options=("", "config.mask_bytes"))
    with pytest.raises(
        ValueError, match=r"its masks take .* bytes, and config.mask_bytes=9 is less"
    ):
        small.encode(fields)


def test_run_lengths_are_those_of_coco() -> None:
    functions = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for size in ((7, 11), (300, 500), (1, 1)):
        stripes = rng.random(size) < 0.5
        stripes[: size[0] // 2] = rng.random(size[1]) < 0.5  # long runs and short ones
        pixels = np.asfortranarray(stripes.astype(np.uint8))
        counts = functions.encode(pixels)["counts"]
        decoded = decode(RunLengths(size, counts)).pixels
        np.testing.assert_array_equal(decoded, pixels)
        assert encode_mask(Bitmap(decoded), size) == counts
    np.testing.assert_array_equal(decode(RunLengths((2, 2), (1, 3))).pixels, [[0, 1], [1, 1]])
    assert encode_mask(RunLengths((2, 2), (1, 3)), (2, 2)) == b"13"
    with pytest.raises(ValueError, match="make 4 pixels, and its image has 3×2"):
        decode(RunLengths((3, 2), (1, 3)))
