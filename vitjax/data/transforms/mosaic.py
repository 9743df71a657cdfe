"""Mosaics: four samples side by side in one crop (YOLOv4, arXiv:2004.10934, section 3.3).

The point where they meet is drawn; each sample is cropped to its quarter and moved on its own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from vitjax.data.kinds import Kinds, Size
from vitjax.data.source import BadImage, Sample, Source
from vitjax.names import unknown

Step = tuple[str, dict[str, Any]]
"""Name and options of a step of an augmentation."""


class Mosaic(NamedTuple):
    """Mosaic as a step of an augmentation.

    Attributes:
      p: probability of a mosaic; else the sample stays alone.
      centre: range of the point where the four meet, as a share of each side.
    """

    p: float = 0.5
    centre: tuple[float, float] = (0.25, 0.75)


def parse_mosaic(steps: Sequence[Step]) -> tuple[Sequence[Step], Mosaic | None, Sequence[Step]]:
    """Split the steps of an augmentation at its mosaic, if it has one.

    Raises:
      ValueError: it has several, or an option does not fit.
    """
    places = [i for i, (name, _) in enumerate(steps) if name == "mosaic"]
    if not places:
        return steps, None, ()
    if len(places) > 1:
        raise ValueError("An augmentation has one mosaic at most; leave the others out.")
    options = steps[places[0]][1]
    for option in options:
        if option not in Mosaic._fields:
            raise ValueError(unknown("option of mosaic", option, Mosaic._fields))
    mosaic = Mosaic(**options)
    if not isinstance(mosaic.p, int | float) or not 0 <= mosaic.p <= 1:
        raise ValueError(f"mosaic(p={mosaic.p!r}) must be a number from 0 to 1.")
    if not _is_range(mosaic.centre):
        raise ValueError(
            f"mosaic(centre={mosaic.centre!r}) must be two shares of a side above 0 and below 1, "
            f"the smaller one first, such as (0.25, 0.75)."
        )
    return steps[: places[0]], mosaic, steps[places[0] + 1 :]


def side_by_side(
    mosaic: Mosaic,
    part: Callable[[Sample, Size], tuple[Sample, Size]],
    sample: Sample,
    kinds: Kinds,
    rng: Any,
    others: Source | None,
) -> tuple[Sample, Size]:
    """Put a sample and three others into the quarters of a crop, in a random order.

    Args:
      part: (sample, size of a quarter) → its fields, and their size.

    Returns:
      The fields of the whole, and its size.

    Raises:
      ValueError: there are no other samples, a field cannot be combined, or a part is larger than
        its quarter.
    """
    lacking = [name for name, kind in kinds.items() if not hasattr(kind, "combine")]
    if lacking or others is None:
        what = f"the task reads {', '.join(lacking)}" if lacking else "there is one sample alone"
        raise ValueError(f"a mosaic is made of images, maps and objects, and {what}; leave it out")
    size = next(kind.shape for kind in kinds.values() if hasattr(kind, "shape"))  # type: ignore[attr-defined]
    quarters = _quarters(size, [rng.uniform(*mosaic.centre) for _ in range(2)])
    own = int(rng.integers(len(quarters)))
    parts = []
    for i, (top, left, height, width) in enumerate(quarters):
        number = None if i == own else int(rng.integers(len(others)))
        fields, shown = _part_of(part, sample, number, others, (height, width))
        if shown[0] > height or shown[1] > width:
            raise ValueError(
                "a quarter turn does not fit into a mosaic's quarter; write symmetry behind mosaic"
            )
        parts.append((fields, left, top))
    found = {
        name: kind.combine([(fields[name], left, top) for fields, left, top in parts], size)  # type: ignore[attr-defined]
        for name, kind in kinds.items()
    }
    return found, size


def _part_of(
    part: Callable[[Sample, Size], tuple[Sample, Size]],
    sample: Sample,
    number: int | None,
    others: Source,
    size: Size,
) -> tuple[Sample, Size]:
    """Make a part of the sample, or of another one, which errors then name."""
    if number is None:
        return part(sample, size)
    try:
        return part(others[number], size)
    except BadImage as error:
        raise BadImage(error.name or others.example_name(number), error.reason) from None
    except ValueError as error:
        name = others.example_name(number)
        raise ValueError(f"in a mosaic with {name!r}, of which {error}") from None


def _quarters(size: Size, centre: Sequence[float]) -> list[tuple[int, int, int, int]]:
    """Return top, left, height and width of each quarter of a crop."""
    row, column = (min(max(round(c * n), 1), n - 1) for c, n in zip(centre, size))
    rows = ((0, row), (row, size[0] - row))
    columns = ((0, column), (column, size[1] - column))
    return [(top, left, height, width) for top, height in rows for left, width in columns]


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(n, int | float) for n in value)
        and 0 < value[0] <= value[1] < 1
    )
