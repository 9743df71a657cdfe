"""Data sets of the Hugging Face library (`datasets`), from the hub or from disk."""

import os
from typing import Any

from vitjax.data.source import BadImage, DataInfo, Sample, short_sha256
from vitjax.names import unknown


class HuggingFace:
    """One split; images stay encoded until the crop is known."""

    def __init__(self, data: Any, name: str, image: str, label: str):
        import datasets  # pyright: ignore[reportMissingImports]

        feature = data.features[label]
        inner = getattr(feature, "feature", None)
        names = getattr(inner or feature, "names", None)
        if names is None:
            raise ValueError(
                f"Column {label!r} of {name} is {feature}, and no class or list of classes; name "
                f"another with ?label=…"
            )
        data = data.select_columns([image, label])
        self._data = data.cast_column(image, datasets.Image(decode=False))
        self._name, self._image, self._label = name, image, label
        fingerprint = data._fingerprint  # the library's own, of how the table came about
        fingerprint = short_sha256((f"{name} {fingerprint} {len(data)}".encode(),))
        self.info = DataInfo(tuple(names), fingerprint, multi_label=inner is not None)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, i: int) -> Sample:
        row = self._data[i]
        image, label = row[self._image], row[self._label]
        data = (image or {}).get("bytes")
        if data is None:
            path = (image or {}).get("path")
            if not path:
                raise BadImage(self.example_name(i), "the row has no image")
            from vitjax.data.codecs.image import read_file

            data = read_file(path, self.example_name(i))
        return {"image": data, "label": -1 if label is None else label}

    def example_name(self, i: int) -> str:
        return f"{self._name} row {i}"


def open_hf(
    path: str, split: str, config: str = "", image: str = "", label: str = ""
) -> HuggingFace:
    """`hf://owner/name` from the hub or the cache; `hf:///folder` as `save_to_disk` writes it.

    Args:
      path: repository or folder.
      split: its name there.
      config: the data set's configuration.
      image, label: columns; empty for the first that holds images, and classes.

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
            raise ValueError(unknown(f"split of {path}", split, map(str, found)))
        table = found[split]
    if not len(table):
        raise ValueError(f"Split {split!r} of {path} is empty.")
    kinds = {name: type(feature).__name__ for name, feature in table.features.items()}
    image = image or _column(kinds, "Image", path)
    label = label or _column(kinds, "ClassLabel", path)
    for name in (image, label):
        if name not in kinds:
            raise ValueError(unknown(f"column of {path}", name, kinds))
    return HuggingFace(table, path, image, label)


def _column(kinds: dict[str, str], wanted: str, path: str) -> str:
    found = [name for name, kind in kinds.items() if kind == wanted]
    if not found:
        raise ValueError(
            f"{path} has no column of kind {wanted}: {kinds}. Name one: ?image=…&label=…"
        )
    return found[0]
