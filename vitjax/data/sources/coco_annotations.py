"""Content of COCO's annotation files, checked, as arrays (arXiv:1405.0312; cocodataset.org)."""

import itertools
import json
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int

from vitjax.data.codecs.masks import Mask, Polygons, RunLengths
from vitjax.data.objects import wrong_box


class MaskPool:
    """Masks of many annotations, as numbers: a million polygons cost their corners alone."""

    def __init__(self) -> None:
        self._points, self._ends, self._last = array("d"), array("q"), array("q")
        self._runs: dict[int, RunLengths] = {}

    def add(self, stored: Any) -> tuple[int, ...] | None:
        """Add the `segmentation` of the next annotation; None and [] are no mask.

        Returns:
          The size of the image that run lengths say; None of polygons.

        Raises:
          ValueError: it is neither polygons nor run lengths.
        """
        size = None
        if isinstance(stored, Mapping):
            counts, size = stored["counts"], tuple(stored["size"])
            counts = counts.encode() if isinstance(counts, str) else tuple(counts)
            self._runs[len(self._last)] = RunLengths(size, counts)
        else:
            for ring in stored or ():
                if len(ring) % 2:
                    raise ValueError("a polygon has an odd number of coordinates")
                if len(ring) >= 6:  # others have no area
                    self._points.extend(ring)
                    self._ends.append(len(self._points))
        self._last.append(len(self._ends))
        return size

    def __getitem__(self, i: int) -> Mask | None:
        if i in self._runs:
            return self._runs[i]
        first, last = self._last[i - 1] if i else 0, self._last[i]
        bounds = [self._ends[k - 1] if k else 0 for k in range(first, last + 1)]
        rings = (
            np.array(self._points[start:end]).reshape(-1, 2)
            for start, end in itertools.pairwise(bounds)
        )
        return Polygons(tuple(rings)) if last > first else None


class Annotations(NamedTuple):
    """Content of an annotation file, images by their ids.

    Attributes:
      classes: names, by the categories' ids.
      files: of the images, below their folder.
      sizes: height and width of each image.
      starts: number of each image's first annotation, and of all.
      rows: number of each annotation in the file.
      boxes, labels, crowd, areas: of the annotations, image by image.
      masks: by the number in the file.
    """

    classes: tuple[str, ...]
    files: list[str]
    sizes: Int[np.ndarray, "N 2"]
    starts: Int[np.ndarray, "M"]
    rows: Int[np.ndarray, "A"]
    boxes: Float64[np.ndarray, "A 4"]
    labels: Int[np.ndarray, "A"]
    crowd: Bool[np.ndarray, "A"]
    areas: Float64[np.ndarray, "A"]
    masks: MaskPool


def parse_annotations(data: bytes, name: str) -> Annotations:
    """Parse an annotation file.

    Args:
      name: what an error calls it.

    Raises:
      ValueError: it is not as it must be; says what.
    """
    content = _load(data, name)
    classes, number = _categories(content["categories"], name)
    images = sorted(content["images"], key=lambda image: _of(image, "id", "image", name))
    ids = [image["id"] for image in images]
    _check_twice("image", ids, name)
    files = [_of(image, "file_name", "image", name) for image in images]
    sizes = [[_of(image, side, "image", name) for side in ("height", "width")] for image in images]
    entries = content["annotations"]
    _check_twice("annotation", [entry["id"] for entry in entries if "id" in entry], name)
    row_of = {id: row for row, id in enumerate(ids)}
    boxes, columns, masks = array("d"), array("d"), MaskPool()
    for i, entry in enumerate(entries):
        called = f"annotation {entry.get('id', i)} of {name!r}"
        image, label = (_of(entry, key, called) for key in ("image_id", "category_id"))
        if image not in row_of:
            raise ValueError(f"The {called} is of image {image}, which is not listed.")
        if label not in number:
            raise ValueError(f"The {called} has category {label}; listed are {_some(number)}.")
        row, area = row_of[image], entry.get("area")
        boxes.extend(_add_shapes(masks, entry, tuple(sizes[row]), called))
        crowd = bool(entry.get("iscrowd", 0))
        columns.extend((row, number[label], crowd, np.nan if area is None else area))
    parts = _by_image(np.array(columns), np.array(boxes), len(images))
    shapes = np.array(sizes, int).reshape(-1, 2)
    table = Annotations(classes, files, shapes, **parts, masks=masks)
    _check_boxes(table, entries, name)
    return table


def _add_shapes(
    masks: MaskPool, entry: Mapping, size: tuple[int, int], called: str
) -> tuple[float, ...]:
    """Add the mask of an annotation, and return its box: x0, y0, x1, y1."""
    box = _of(entry, "bbox", called)
    try:
        x, y, width, height = (float(n) for n in box)
        said = masks.add(entry.get("segmentation"))
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"The {called} has a box or mask that cannot be read ({error}); a box is "
            f"[x, y, width, height], a mask polygons [[x, y, x, y, …], …] or run lengths."
        ) from error
    if said not in (None, size):
        raise ValueError(
            f"The {called} has a mask of {said[0]}×{said[1]} pixels, and its image has "
            f"{size[0]}×{size[1]}."
        )
    return x, y, x + width, y + height


def _by_image(
    columns: Float64[np.ndarray, "_"], boxes: Float64[np.ndarray, "_"], count: int
) -> dict[str, Any]:
    """Sort annotations by their images: the fields of `Annotations` from `starts` to `areas`.

    Args:
      columns: image, class, crowd and area of each.
      count: of images.
    """
    owners = columns.reshape(-1, 4)[:, 0].astype(int)
    rows = np.argsort(owners, kind="stable")
    starts = np.searchsorted(owners[rows], np.arange(count + 1))
    _, labels, crowd, areas = columns.reshape(-1, 4)[rows].T
    return {
        "starts": starts,
        "rows": rows,
        "boxes": boxes.reshape(-1, 4)[rows],
        "labels": labels.astype(np.int64),
        "crowd": crowd > 0,
        "areas": areas,
    }


def _check_boxes(table: Annotations, annotations: Sequence[Mapping], name: str) -> None:
    """Check that no box is inverted or outside of its image."""
    owners = np.repeat(np.arange(len(table.files)), np.diff(table.starts))
    wrong = wrong_box(table.boxes, table.sizes[owners])
    if wrong is None:
        return
    row, image = int(table.rows[wrong]), owners[wrong]
    height, width = table.sizes[image]
    raise ValueError(
        f"The annotation {annotations[row].get('id', row)} of {name!r} has the box "
        f"{annotations[row]['bbox']} (x, y, width, height), which is inverted or outside of its "
        f"image {table.files[image]!r}, {width} wide and {height} high; repair or remove it."
    )


def _load(data: bytes, name: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{name!r} is no valid JSON: {error.msg} at line {error.lineno}, column {error.colno}; "
            f"copy it again."
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{name!r} is no JSON in UTF-8 ({error}).") from None
    for key in ("images", "annotations", "categories"):
        listed = content.get(key) if isinstance(content, dict) else None
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise ValueError(
                f"{name!r} has no list of {key}: a file of COCO's objects has images, annotations "
                f"and categories; instances_….json are such files."
            )
    return content


def _categories(listed: list[dict], name: str) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Return the names by id, and the class of each id."""
    by_id = sorted(listed, key=lambda category: _of(category, "id", "category", name))
    ids, names = (
        [_of(category, key, "category", name) for category in by_id] for key in ("id", "name")
    )
    _check_twice("category", ids, name)
    if len(set(names)) < len(names) or not names:
        twice = next((n for n in names if names.count(n) > 1), None)
        what = f"two categories called {twice!r}" if names else "no categories"
        raise ValueError(f"{name!r} has {what}; classes need names of their own.")
    return tuple(names), {id: k for k, id in enumerate(ids)}


def _of(entry: Mapping, key: str, called: str, name: str = "") -> Any:
    """Return a value of an entry, or say that it is missing."""
    if key not in entry:
        called = f"{called} of {name!r}" if name else called
        raise ValueError(f"The {called} has no {key!r}: {str(dict(entry))[:100]}.")
    return entry[key]


def _check_twice(what: str, ids: list[Any], name: str) -> None:
    if len(set(ids)) == len(ids):
        return
    seen: set[Any] = set()
    twice = next(id for id in ids if id in seen or seen.add(id))
    raise ValueError(f"{name!r} has two {what}s of the id {twice}; each needs one of its own.")


def _some(ids: Mapping) -> str:
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return ", ".join(map(str, list(ids)[:10])) + more
