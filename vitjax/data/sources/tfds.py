"""Data sets of TensorFlow Datasets, prepared as ArrayRecord, read without TensorFlow.

`tfds.data_source` gives random access to the records; what it does not do is decode: a record is
taken apart by `records.parse_example`, and its image's bytes are decoded where the crop is known.
"""

import os
from typing import Any

import numpy as np

from vitjax.data.source import BadImage, DataInfo, Sample, short_sha256
from vitjax.data.sources import remote
from vitjax.data.sources.records import parse_example
from vitjax.names import unknown


class TfdsSource:
    """One split (or part of it, in TFDS's own words: `train[:99%]`) of a prepared data set."""

    def __init__(self, builder: Any, split: str, image: str, label: str):
        tfds = import_tfds()
        info = builder.info
        self._image, self._label, self._split = image, label, split
        classes, several = _classes(info, label)
        decoders = {image: tfds.decode.SkipDecoding()}
        self._records = builder.as_data_source(split=split, decoders=decoders).data_source
        self._name = info.full_name
        shards = info.splits[split.partition("[")[0]]
        text = f"{info.full_name} {split} {image} {label} {list(shards.shard_lengths)}"
        self.info = DataInfo(classes, short_sha256((text.encode(),)), multi_label=several)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> Sample:
        try:
            parts = parse_example(self._records[i], (self._image, self._label))
            (image,) = parts[self._image]
        except (RuntimeError, ValueError, KeyError) as error:
            raise BadImage(self.example_name(i), f"its record is damaged ({error})") from error
        label = np.asarray(parts.get(self._label, ()), np.int64).tolist()
        return {
            "image": bytes(image),
            "label": label if self.info.multi_label else label[0] if label else -1,
        }

    def example_name(self, i: int) -> str:
        return f"{self._name} {self._split} record {i}"


def open_tfds(
    path: str, split: str, data_dir: str = "", image: str = "", label: str = ""
) -> TfdsSource:
    """`tfds://imagenet2012`, `tfds://imagenet2012:5.1.0`, `tfds:///folder/of/one/version`.

    Args:
      path: the data set's name, with its configuration and version if any, or the folder that
        holds a version's `dataset_info.json`.
      split: as TFDS writes it.
      data_dir: where prepared data sets lie; empty for TFDS's own, `~/tensorflow_datasets`.
      image, label: which features; empty for those that the data set calls supervised.

    Raises:
      ValueError: no such data set or split, or it is not prepared as it must be; says how.
    """
    builder = open_builder(path, data_dir)
    info = builder.info
    where = f"{info.full_name} ({builder.data_dir})"
    if not info.splits:
        raise ValueError(f"{where} is not prepared: it has no splits. {_how_to_prepare(path)}")
    name = split.partition("[")[0]
    if name not in info.splits:
        raise ValueError(unknown(f"split of {info.full_name}", name, info.splits))
    try:
        count = info.splits[split].num_examples
    except Exception as error:  # TFDS raises several kinds
        raise ValueError(
            f"Split {split!r} of {info.full_name} does not parse; write 'train', 'train[:99%]' or "
            f"'train[100:200]'."
        ) from error
    if not count:
        raise ValueError(f"Split {split!r} of {where} is empty; choose another slice.")
    if info.file_format.value != "array_record":
        raise ValueError(
            f"{where} is prepared as {info.file_format.value}, which has no random access. Convert "
            f"it once: vitjax data prepare {builder.data_dir} --to FOLDER, then read "
            f"tfds://{path}?data_dir=FOLDER."
        )
    check_shards(info, name)
    keys = info.supervised_keys or (None, None)
    features = list(info.features)
    image, label = image or keys[0] or "image", label or keys[1] or "label"
    for key in (image, label):
        if key not in features:
            raise ValueError(unknown(f"feature of {info.full_name}", key, features))
    return TfdsSource(builder, split, image, label)


def import_tfds() -> Any:
    """The library, or an error that says how to have it."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ValueError(
            "tfds:// needs the extra: pip install 'vitjax[tfds]' (no TensorFlow)."
        ) from error
    return tensorflow_datasets


def open_builder(path: str, data_dir: str = "") -> Any:
    """TFDS's builder of a prepared data set, by name or folder.

    Raises:
      ValueError: there is none.
    """
    for place in filter(remote.is_remote, (path, data_dir)):
        remote.filesystem(place)  # says what is not installed
        if not place.startswith("gs://"):
            raise ValueError(
                f"ArrayRecord is read from disks and gs://, not from {place!r}: copy it, or mount "
                f"the bucket. folder:// and tar:// read other stores."
            )
    tfds = import_tfds()
    if not path:
        raise ValueError("tfds:// needs a name: tfds://imagenet2012, or tfds:///folder/of/version.")
    folder = os.path.expanduser(path)
    try:
        if os.path.isfile(os.path.join(folder, "dataset_info.json")):
            return tfds.builder_from_directory(folder)
        if os.path.isdir(folder) and path.startswith(("/", ".", "~")):
            raise ValueError(f"Folder {path!r} has no dataset_info.json; give that of a version.")
        return tfds.builder(
            path, **({"data_dir": os.path.expanduser(data_dir)} if data_dir else {})
        )
    except (tfds.core.registered.DatasetNotFoundError, ImportError) as error:
        known = _prepared(data_dir or os.path.join("~", "tensorflow_datasets"))
        raise ValueError(
            f"TFDS finds no data set {path!r} there. {unknown('prepared data set', path, known)} "
            f"{_how_to_prepare(path)}"
        ) from error


def check_shards(info: Any, split: str) -> None:
    """Raises ValueError, with the file's name, unless every shard is there and holds its records.

    It reads each file's index, not its records.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    shards = info.splits[split]
    for path, expected in zip(shards.filepaths, shards.shard_lengths, strict=True):
        if not path.exists():
            raise ValueError(f"Shard {str(path)!r} of {info.full_name} is missing; copy it again.")
        try:
            reader = ArrayRecordReader(str(path))
            count = reader.num_records()
            reader.close()
        except Exception as error:  # array_record raises RuntimeError or ValueError
            reason = str(error).partition("\n")[0][:200]
            raise ValueError(f"Shard {str(path)!r} is truncated or damaged: {reason}") from error
        if count != expected:
            raise ValueError(
                f"Shard {str(path)!r} holds {count} records, and dataset_info.json says {expected};"
                f" copy it again."
            )


def _classes(info: Any, label: str) -> tuple[tuple[str, ...], bool]:
    """Names of the classes, and whether an image may have several."""
    feature = info.features[label]
    inner = getattr(feature, "feature", None)
    names = getattr(inner or feature, "names", None)
    if names is None:
        raise ValueError(
            f"Feature {label!r} of {info.full_name} is {feature}, and no class or list of classes; "
            f"name another with ?label=…"
        )
    return tuple(names), inner is not None


def _prepared(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(os.path.expanduser(folder)))
    except OSError:
        return []


def _how_to_prepare(path: str) -> str:
    return (
        f"Where TensorFlow is installed, prepare it once: tfds build {path} "
        f"--file_format=array_record (ImageNet's archives in --manual_dir)."
    )
