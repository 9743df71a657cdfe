"""Data sets of the Hugging Face library (`datasets`), from the hub or from disk."""

import os
from typing import Any

import numpy as np
from jaxtyping import Int

from vitjax.data.codecs.image import read_file
from vitjax.data.source import UNLABELLED, BadImage, DataInfo, Sample, short_sha256
from vitjax.data.sources import map_columns, object_columns
from vitjax.data.sources.map_columns import MapColumn
from vitjax.data.sources.object_columns import ObjectColumn
from vitjax.names import unknown


class HuggingFace:
    """One split; images stay encoded until the crop is known.

    Its samples have the image and, as `target` says, a label, a label map or objects.
    """

    def __init__(self, data: Any, name: str, image: str, target: str | MapColumn | ObjectColumn):
        import datasets  # pyright: ignore[reportMissingImports]

        self._name, self._image, self._map, self._objects = name, image, None, None
        self._target = target if isinstance(target, str) else target.column
        data = data.select_columns([image, self._target])
        self._data = data.cast_column(image, datasets.Image(decode=False))
        fingerprint = data._fingerprint  # the library's own, of how the table came about
        text = f"{name} {fingerprint} {len(data)}"
        if isinstance(target, str):
            classes, several = _classes(data, target, name)
            self.info = DataInfo(classes, short_sha256((text.encode(),)), multi_label=several)
            return
        if isinstance(target, ObjectColumn):
            self._objects, text = target, f"{text} {target}"
            fields = frozenset(("image", "objects"))
            self.info = DataInfo(target.names, short_sha256((text.encode(),)), fields)
            return
        self._data = self._data.cast_column(self._target, datasets.Image(decode=False))
        first = self._file(self._data[0], self._target, 0)
        self._map = target.beginning_with(first, self.example_name(0))
        text, fields = f"{text} {target}", frozenset(("image", "map"))
        self.info = DataInfo(target.names, short_sha256((text.encode(),)), fields)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, i: int) -> Sample:
        row = self._data[i]
        image = self._file(row, self._image, i)
        if self._map:
            data = self._file(row, self._target, i)
            return {"image": image, "map": self._map.file(data, self.example_name(i))}
        if self._objects:
            values = _by_field(row[self._target], self._objects.fields)
            return {"image": image, "objects": self._objects.objects(values, i)}
        label = row[self._target]
        return {"image": image, "label": UNLABELLED if label is None else label}

    def _file(self, row: dict[str, Any], column: str, i: int) -> bytes:
        """Return the bytes of a column of images."""
        cell = row[column] or {}
        if (data := cell.get("bytes")) is not None:
            return data
        if not (path := cell.get("path")):
            what = "image" if column == self._image else "label map"
            raise BadImage(self.example_name(i), f"the row has no {what}")
        return read_file(path, self.example_name(i))

    def example_name(self, i: int) -> str:
        return f"{self._name} row {i}"

    def labels(self) -> Int[np.ndarray, "N"]:
        column = self._data.select_columns([self._target])[:][self._target]
        return np.array([UNLABELLED if label is None else label for label in column], np.int64)


def open_hf(
    path: str,
    split: str,
    config: str = "",
    image: str = "",
    label: str = "",
    map: str = "",
    objects: str = "",
    boxes: str = "",
    relative: int | None = None,
    **numbers: Any,
) -> HuggingFace:
    """Open `hf://owner/name` from the hub or the cache, or `hf:///folder` of `save_to_disk`.

    Args:
      path: repository or folder.
      split: its name there.
      config: the data set's configuration.
      image, label: columns; empty for the first that holds images, and classes.
      map: the column of label maps, that samples have in place of a label; empty for the one that
        is called like one, if no column holds classes or `numbers` are given.
      **numbers: `classes`, `reduce_zero` and `channel` of the label maps, see `describe_map`.

    Raises:
      ValueError: the library, data set, split or column is not there.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("hf:// needs the extra: pip install 'vitjax[datasets]'.") from error
    folder = os.path.expanduser(path)
    if os.path.isdir(folder):
        try:
            found = datasets.load_from_disk(folder)
        except FileNotFoundError:
            found = datasets.load_dataset(folder, config or None)
    elif path.startswith(("/", ".", "~")):
        raise ValueError(f"Folder {path!r} does not exist; check the path.")
    else:
        try:
            found = datasets.load_dataset(path, config or None)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"The library gives no data set {path!r}: {reason}") from error
    table: Any = found
    if isinstance(found, dict):
        if split not in found:
            raise ValueError(unknown(f"split of {path}", split, [str(name) for name in found]))
        table = found[split]
    if not len(table):
        raise ValueError(f"Split {split!r} of {path} is empty.")
    asked = {"boxes": boxes, "relative": relative}
    nested = _nested(table.features)
    if objects or boxes or _objects_alone(table, nested, label, map):
        if label or map or numbers.keys() - {"classes"}:
            raise ValueError(object_columns.BOTH.format("label=, map= or their options"))
        return HuggingFace(table, path, *_objects(table, path, image, objects, asked | numbers))
    if relative is not None:
        raise ValueError(f"relative={relative} is of boxes, and {path} is read without objects.")
    return HuggingFace(table, path, *_columns(table, path, image, label, map, numbers))


def _objects_alone(table: Any, nested: dict[str, Any], label: str, map: str) -> bool:
    """Return whether a table has objects, and neither labels nor label maps."""
    kinds = {name: type(feature).__name__ for name, feature in table.features.items()}
    pictures = [name for name, kind in kinds.items() if kind == "Image"]
    others = label or map or "ClassLabel" in kinds.values() or map_columns.any_map(pictures)
    return not others and object_columns.any_objects(nested)


def _nested(features: Any) -> dict[str, Any]:
    """Return the fields of each column that holds lists of them, or lists in fields."""
    found = {}
    for name, feature in features.items():
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, dict):
            found[name] = inner
    return found


def _objects(
    table: Any, path: str, image: str, objects: str, asked: dict[str, Any]
) -> tuple[str, ObjectColumn]:
    """Find the column of the images, and describe that of the objects."""
    nested = _nested(table.features)
    column = object_columns.choose_objects(nested, objects, path)
    kinds = {name: type(feature).__name__ for name, feature in table.features.items()}
    image = image or _column(kinds, "Image", path)
    if kinds.get(image) != "Image":
        raise ValueError(unknown(f"column of images of {path}", image, kinds))
    features = {k: getattr(f, "feature", f) for k, f in nested[column].items()}
    said = {k: f.names for k, f in features.items() if getattr(f, "names", None)}
    return image, object_columns.describe_objects(column, features, path, said=said, **asked)


def _by_field(cell: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    """Return lists by field, of such lists or of a list of objects."""
    if isinstance(cell, dict):
        return {name: cell[name] or [] for name in fields}
    return {name: [entry[name] for entry in cell or ()] for name in fields}


def _columns(
    table: Any, path: str, image: str, label: str, map: str, numbers: dict[str, Any]
) -> tuple[str, str | MapColumn]:
    """Find the column of the images, and that of the labels or of label maps."""
    kinds = {name: type(feature).__name__ for name, feature in table.features.items()}
    pictures = [name for name, kind in kinds.items() if kind == "Image"]
    if label and (map or numbers):
        raise ValueError(map_columns.BOTH.format(label))
    has_label = label or "ClassLabel" in kinds.values() or not map_columns.any_map(pictures)
    if has_label and not (map or numbers):
        image = image or _column(kinds, "Image", path)
        label = label or _column(kinds, "ClassLabel", path)
        for name in (image, label):
            if name not in kinds:
                raise ValueError(unknown(f"column of {path}", name, kinds))
        return image, label
    map = map_columns.choose_map(pictures, map, path)
    image = image or map_columns.choose_image(pictures, map)
    if image not in pictures or image == map:
        raise ValueError(unknown(f"column of images of {path}", image, pictures))
    return image, map_columns.describe_map(map, path, **numbers)


def _classes(data: Any, label: str, name: str) -> tuple[tuple[str, ...], bool]:
    """Return the names of the classes, and whether an image may have several."""
    feature = data.features[label]
    inner = getattr(feature, "feature", None)
    names = getattr(inner or feature, "names", None)
    if names is None:
        raise ValueError(
            f"Column {label!r} of {name} is {feature}, and no class or list of classes; name "
            f"another with ?label=…, or label maps with ?map=…"
        )
    return tuple(names), inner is not None


def _column(kinds: dict[str, str], wanted: str, path: str) -> str:
    found = [name for name, kind in kinds.items() if kind == wanted]
    if not found:
        raise ValueError(
            f"{path} has no column of kind {wanted}: {kinds}. Name one: ?image=…&label=…"
        )
    return found[0]
