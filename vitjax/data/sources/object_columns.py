"""Objects in a feature of `tfds://` or a column of `hf://`, and what its boxes' numbers mean."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vitjax.data.objects import Objects
from vitjax.data.sources.map_columns import class_names
from vitjax.names import check_choice, unknown

FORMS = {
    "xywh": ("left, top, width, height (COCO)", (0, 1), (2, 3), "sides"),
    "xyxy": ("left, top, right, bottom", (0, 1), (2, 3), "corner"),
    "yxyx": ("top, left, bottom, right (TFDS)", (1, 0), (3, 2), "corner"),
    "cxcywh": ("centre, width, height (YOLO)", (0, 1), (2, 3), "centre"),
}
"""Name → what it means, where x and y of the first and second pair stand, and what they are."""
BOXES, LABELS = ("bbox", "boxes"), ("label", "category", "labels", "category_id")
CROWDS, AREAS = ("is_crowd", "iscrowd", "is_difficult"), ("area",)
"""Names of the fields of an object, the first one that is there. What VOC calls difficult counts
as a crowd: it is no target, and to find it is no error."""
BOTH = (
    "{} and options of objects are given, and a source has one of them: leave label=, map= and the "
    "like out, or objects=, boxes= and relative=."
)


class ObjectColumn(NamedTuple):
    """Column of objects, and where in it what stands.

    Attributes:
      column: its name.
      boxes, label, crowd, area: names of the fields in it; crowd and area may be empty.
      names: of the classes.
      form: of the boxes, one of FORMS.
      relative: whether they are shares of the image.
    """

    column: str
    boxes: str
    label: str
    crowd: str
    area: str
    names: tuple[str, ...]
    form: str
    relative: bool

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.boxes, self.label, self.crowd, self.area)))

    def objects(self, values: Mapping[str, Any], number: int) -> Objects:
        """Build the objects of a sample.

        Args:
          values: field → one entry for each object.
          number: of the sample.

        Raises:
          ValueError: the fields have other numbers of entries, or a class is not listed.
        """
        boxes = np.asarray(values[self.boxes], np.float64).reshape(-1, 4)
        labels, count = np.asarray(values[self.label]).reshape(-1), len(boxes)
        if len(labels) != count:
            raise ValueError(f"it has {count} boxes, and {len(labels)} classes")
        if count and labels.dtype.kind not in "iu":
            raise ValueError(f"its classes are {labels[0].item()!r}, …, and must be numbers")
        if count and not (labels.min() >= 0 and labels.max() < len(self.names)):
            wrong = next(n for n in labels.tolist() if not 0 <= n < len(self.names))
            raise ValueError(
                f"an object of it has class {wrong}, and there are {len(self.names)}, 0 to "
                f"{len(self.names) - 1}"
            )
        crowd = values[self.crowd] if self.crowd else np.zeros(count)
        areas = values[self.area] if self.area else np.full(count, np.nan)
        return Objects(
            self._corners(boxes),
            labels.astype(np.int64),
            np.asarray(crowd, bool).reshape(-1),
            np.asarray(areas, np.float64).reshape(-1),
            relative=self.relative,
            number=number,
        )

    def _corners(self, boxes: np.ndarray) -> np.ndarray:
        _, first, second, what = FORMS[self.form]
        start, end = boxes[:, first], boxes[:, second]
        if what == "centre":
            start = start - end / 2
        return np.concatenate([start, end if what == "corner" else start + end], axis=-1)


def describe_objects(
    column: str,
    inner: Mapping[str, Any],
    where: str,
    *,
    said: Mapping[str, Sequence[str]],
    boxes: str = "",
    relative: int | None = None,
    classes: str = "",
    usual: tuple[str, bool] = ("xywh", False),
) -> ObjectColumn:
    """Describe a column of objects.

    Args:
      inner: its fields, by name.
      where: what a message calls the data set.
      said: field → names of its classes, of the fields whose features say them.
      boxes, relative: form of the boxes; by default the `usual` one.
      classes: how many there are, or a file of their names; empty for what the features say.

    Raises:
      ValueError: it has no boxes or classes, or nobody says the classes' names.
    """
    check_choice("form of boxes", boxes or usual[0], FORMS)
    found = {
        what: next((name for name in names if name in inner), "")
        for what, names in (("boxes", BOXES), ("label", LABELS), ("crowd", CROWDS), ("area", AREAS))
    }
    for what, names in (("boxes", BOXES), ("label", LABELS)):
        if not found[what]:
            raise ValueError(unknown(f"field of {column!r} of {where}", names[0], inner))
    label = found["label"]
    if not classes and label not in said:
        raise ValueError(
            f"{where} does not say the names of the classes of {column!r}: add ?classes=80 for how "
            f"many, or ?classes=FILE for their names, one a line."
        )
    names = (
        class_names(classes, "say how many classes there are, or name a file of names.")
        if classes
        else tuple(said[label])
    )
    shares = usual[1] if relative is None else bool(relative)
    return ObjectColumn(column, **found, names=names, form=boxes or usual[0], relative=shares)


def choose_objects(columns: Mapping[str, Iterable[str]], wanted: str, where: str) -> str:
    """Choose the column of objects: the wanted one, or the only one that has boxes.

    Args:
      columns: nested columns → names of their fields.

    Raises:
      ValueError: there is no such column, or there are several.
    """
    found = [name for name, inner in columns.items() if any(box in inner for box in BOXES)]
    if wanted or len(found) != 1:
        if wanted in columns:
            return wanted
        several = f"{', '.join(found)} may be it" if found else "none has boxes"
        raise ValueError(
            unknown(f"column of objects of {where}", wanted, columns)
            if wanted
            else f"Which column of {where} has the objects? {several}; say it with ?objects=NAME."
        )
    return found[0]


def any_objects(columns: Mapping[str, Iterable[str]]) -> bool:
    """Return whether one of the nested columns has boxes."""
    return any(box in inner for inner in columns.values() for box in BOXES)
