"""Data sets of TensorFlow Datasets, prepared as ArrayRecord, read without TensorFlow.

`tfds.data_source` gives random access to the records, but does not decode without TensorFlow:
`records.parse_example` parses a record, and its image's bytes are decoded once the crop is known.
"""

import os
from typing import Any

import numpy as np

from vitjax.data.codecs.video import FrameFiles
from vitjax.data.source import BadImage, DataInfo, Sample, short_sha256
from vitjax.data.sources import map_columns, object_columns, remote
from vitjax.data.sources.map_columns import MapColumn
from vitjax.data.sources.object_columns import ObjectColumn
from vitjax.data.sources.records import parse_example
from vitjax.names import unknown


class TfdsSource:
    """One split (or part of it, in TFDS's own words: `train[:99%]`) of a prepared data set.

    Its samples have the image and, as `target` says, a label, a label map or objects. A feature
    that is a video gives a clip in place of the image.
    """

    def __init__(
        self, builder: Any, split: str, image: str, target: str | MapColumn | ObjectColumn
    ):
        tfds = import_tfds()
        info = builder.info
        self._image, self._split, self._map, self._objects = image, split, None, None
        self._target = target if isinstance(target, str) else target.column
        self._files = (image, target.column) if isinstance(target, MapColumn) else (image,)
        self._read = (image, self._target)
        self._video = is_video(info.features[image])
        decoders = {image: tfds.decode.SkipDecoding()}
        self._records = builder.as_data_source(split=split, decoders=decoders).data_source
        self._name = info.full_name
        shards = info.splits[split.partition("[")[0]]
        text = f"{info.full_name} {split} {image} {self._target} {list(shards.shard_lengths)}"
        if isinstance(target, str):
            classes, several = _classes(info, target)
            fields = frozenset(("clip" if self._video else "image", "label"))
            fingerprint = short_sha256((text.encode(),))
            self.info = DataInfo(classes, fingerprint, fields, multi_label=several)
            return
        if isinstance(target, ObjectColumn):
            self._objects, text = target, f"{text} {target}"
            self._read = (image, *(f"{target.column}/{field}" for field in target.fields))
            fields = frozenset(("image", "objects"))
            self.info = DataInfo(target.names, short_sha256((text.encode(),)), fields)
            return
        (data,) = self._parts(0)[self._target]
        self._map = target.beginning_with(bytes(data), self.example_name(0))
        text, fields = f"{text} {target}", frozenset(("image", "map"))
        self.info = DataInfo(target.names, short_sha256((text.encode(),)), fields)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> Sample:
        parts = self._parts(i)
        image: Any = FrameFiles(parts[self._image], self.example_name(i))
        if not self._video:
            image = bytes(parts[self._image][0])
        if self._map:
            name = self.example_name(i)
            return {"image": image, "map": self._map.file(bytes(parts[self._target][0]), name)}
        if self._objects:
            fields, read = self._objects.fields, self._read[1:]
            values = {field: parts.get(key, np.zeros(0, int)) for field, key in zip(fields, read)}
            return {"image": image, "objects": self._objects.objects(values, i)}
        label = np.asarray(parts.get(self._target, ()), np.int64).tolist()
        return {
            "clip" if self._video else "image": image,
            "label": label if self.info.multi_label else label[0] if label else -1,
        }

    def _parts(self, i: int) -> dict[str, Any]:
        try:
            parts = parse_example(self._records[i], self._read)
            for key in self._files:
                if not (self._video and len(parts[key])):
                    (_,) = parts[key]
        except (RuntimeError, ValueError, KeyError) as error:
            raise BadImage(self.example_name(i), f"its record is damaged ({error})") from error
        return parts

    def example_name(self, i: int) -> str:
        return f"{self._name} {self._split} record {i}"


def open_tfds(
    path: str,
    split: str,
    data_dir: str = "",
    image: str = "",
    label: str = "",
    map: str = "",
    objects: str = "",
    boxes: str = "",
    relative: int | None = None,
    **numbers: Any,
) -> TfdsSource:
    """Open `tfds://imagenet2012`, `tfds://imagenet2012:5.1.0` or `tfds:///folder/of/one/version`.

    Args:
      path: the data set's name, with its configuration and version if any, or the folder that
        holds a version's `dataset_info.json`.
      split: as TFDS writes it.
      data_dir: where prepared data sets lie; empty for TFDS's own, `~/tensorflow_datasets`.
      image, label: which features; empty for those that the data set calls supervised.
      map: which feature is a label map, that samples have in place of a label; empty for the one
        that is called like one, if the data set has no label or `numbers` are given.
      **numbers: `classes`, `reduce_zero` and `channel` of the label map, see `describe_map`.

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
    asked = {"boxes": boxes, "relative": relative} | numbers
    target: str | MapColumn | ObjectColumn | None
    if (target := _objects(builder, objects, label or map, asked)) is not None:
        image = image or (info.supervised_keys or ("image",))[0]
        if image not in info.features:
            raise ValueError(unknown(f"feature of {info.full_name}", image, info.features))
        return TfdsSource(builder, split, image, target)
    image, target = _columns(builder, image, label, map, numbers)
    return TfdsSource(builder, split, image, target)


def _objects(builder: Any, objects: str, other: str, asked: dict[str, Any]) -> ObjectColumn | None:
    """Describe the feature of objects, if one is asked for or there is nothing else."""
    info, features = builder.info, builder.info.features
    nested = {}
    for name, feature in features.items():
        inner: Any = getattr(feature, "feature", None)
        if hasattr(inner, "items"):
            nested[name] = dict(inner.items())
    pictures = [k for k, f in features.items() if isinstance(f, import_tfds().features.Image)]
    labelled = "label" in features or info.supervised_keys
    alone = not (other or labelled or map_columns.any_map(pictures))
    if not (objects or asked["boxes"] or (alone and object_columns.any_objects(nested))):
        if asked["relative"] is not None:
            raise ValueError(
                f"relative={asked['relative']} is of boxes, and {info.full_name} is read without "
                f"objects."
            )
        return None
    if other or asked.keys() - {"boxes", "relative", "classes"}:
        raise ValueError(object_columns.BOTH.format("label=, map= or their options"))
    column = object_columns.choose_objects(nested, objects, info.full_name)
    said = {k: f.names for k, f in nested[column].items() if getattr(f, "num_classes", None)}
    return object_columns.describe_objects(
        column, nested[column], info.full_name, said=said, usual=("yxyx", True), **asked
    )


def is_video(feature: Any) -> bool:
    """Return whether a feature is a sequence of images, as TFDS's `Video` is too."""
    return isinstance(getattr(feature, "feature", None), import_tfds().features.Image)


def _columns(
    builder: Any, image: str, label: str, map: str, numbers: dict[str, Any]
) -> tuple[str, str | MapColumn]:
    """Find the feature of the images, and that of the labels or the column of label maps."""
    info, features = builder.info, builder.info.features
    pictures = [k for k, f in features.items() if isinstance(f, import_tfds().features.Image)]
    pictures.sort()  # their order in the file is arbitrary
    keys = info.supervised_keys or (None, None)
    if label and (map or numbers):
        raise ValueError(map_columns.BOTH.format(label))
    labels = [k for k in (keys[1], "label") if k and k not in pictures]
    has_label = label or any(k in list(features) for k in labels)
    if (has_label or not map_columns.any_map(pictures)) and not (map or numbers):
        image, label = image or keys[0] or "image", label or labels[0]
        for key in (image, label):
            if key not in features:
                raise ValueError(unknown(f"feature of {info.full_name}", key, features))
        return image, label
    map = map_columns.choose_map(pictures, map, info.full_name)
    image = image or map_columns.choose_image(pictures, map)
    if image not in pictures or image == map:
        raise ValueError(unknown(f"feature of images of {info.full_name}", image, pictures))
    feature = features[map]
    said = feature.names if getattr(feature, "num_classes", None) else ()
    known = map_columns.WELL_KNOWN.get(builder.name)
    return image, map_columns.describe_map(map, info.full_name, said=said, known=known, **numbers)


def import_tfds() -> Any:
    """Import the library, or raise an error that says how to install it."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ValueError(
            "tfds:// needs the extra: pip install 'vitjax[tfds]' (no TensorFlow)."
        ) from error
    return tensorflow_datasets


def open_builder(path: str, data_dir: str = "") -> Any:
    """Open TFDS's builder of a prepared data set, by name or folder.

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
        if getattr(error, "name", "") == "tensorflow":
            raise ValueError(
                f"{path!r} has a feature that TFDS describes by TensorFlow alone, such as Video: "
                f"pip install tensorflow, or prepare its videos as Sequence(Image)."
            ) from error
        known = _prepared(data_dir or os.path.join("~", "tensorflow_datasets"))
        raise ValueError(
            f"TFDS finds no data set {path!r} there. {unknown('prepared data set', path, known)} "
            f"{_how_to_prepare(path)}"
        ) from error


def check_shards(info: Any, split: str) -> None:
    """Raise ValueError, with the file's name, unless every shard has all its records.

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
    """Return the names of the classes, and whether an image may have several."""
    feature = info.features[label]
    inner = getattr(feature, "feature", None)
    names = getattr(inner or feature, "names", None)
    if names is None:
        raise ValueError(
            f"Feature {label!r} of {info.full_name} is {feature}, and no class or list of classes; "
            f"name another with ?label=…, or label maps with ?map=…"
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
