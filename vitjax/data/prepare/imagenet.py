"""ImageNet-1k from the two archives of image-net.org, as TFDS would have it, without TensorFlow.

Classes are TFDS's: synsets in alphabetical order. The images of the validation archive are labelled
by the list that comes with TFDS, so that the development kit is not needed. Files are taken as they
are: 22 training images are CMYK and one is PNG, of which TFDS makes RGB JPEG files; they decode all
the same. The order is a random one, so that a slice such as `train[:1%]` has all classes.
"""

import hashlib
import importlib.resources
import io
import os
import pathlib
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from vitjax.data.prepare.tfrecord import Shard, write_shards
from vitjax.data.sources.tfds import import_tfds


class Archive(NamedTuple):
    """Archive of image-net.org, and the number of its shards."""

    file: str
    size: int
    sha256: str
    images: int
    shards: int


ARCHIVES = {
    "train": Archive(
        "ILSVRC2012_img_train.tar", 147_897_477_120,
        "b08200a27a8e34218a0e58fde36b0fe8f73bc377f4acea2d91602057c3ca45bb", 1_281_167, 1024,
    ),
    "validation": Archive(
        "ILSVRC2012_img_val.tar", 6_744_924_160,
        "c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0", 50_000, 64,
    ),
}  # fmt: skip


class Entry(NamedTuple):
    """An image of an archive: its file's name, where its bytes are, and its synset."""

    name: str
    offset: int
    size: int
    synset: str


def prepare_imagenet(
    archives: str, to: str, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Write `TO/imagenet2012/VERSION`, which `tfds://imagenet2012?data_dir=TO` reads.

    The same command goes on where an interrupted one stopped, and verifies what is there.

    Args:
      archives: the folder with ARCHIVES.
      to: the new data_dir.
      say: told of each archive and shard.

    Returns:
      As `prepare.prepare`.

    Raises:
      ValueError: an archive is missing or not the one of image-net.org, or the disk has no room.
    """
    tfds = import_tfds()
    builder = tfds.builder(
        "imagenet2012", data_dir=os.path.expanduser(to), file_format="array_record"
    )
    folder, info = pathlib.Path(str(builder.data_dir)), builder.info
    source = pathlib.Path(os.path.expanduser(archives))
    if missing := [a.file for a in ARCHIVES.values() if not (source / a.file).is_file()]:
        raise ValueError(
            f"{archives!r} has no {' and no '.join(missing)}. Both archives of ILSVRC 2012 are "
            f"needed, {' and '.join(a.file for a in ARCHIVES.values())}, and nothing else; "
            f"https://image-net.org/download-images hands them out."
        )
    groups: dict[str, list[Shard]] = {}
    templates = {
        split: tfds.core.ShardedFileTemplate(
            dataset_name="imagenet2012",
            data_dir=folder,
            split=split,
            filetype_suffix="array_record",
        )
        for split in ARCHIVES
    }
    for split, archive in ARCHIVES.items():
        path = source / archive.file
        _verify(path, archive, folder, say)
        entries = list(_train(path) if split == "train" else _validation(path))
        if len(entries) != archive.images:
            raise ValueError(
                f"{archive.file} holds {len(entries):,} images and not {archive.images:,}."
            )
        order = np.random.Generator(np.random.PCG64(0)).permutation(len(entries))
        targets = templates[split].sharded_filepaths(archive.shards)
        groups[split] = [
            _shard(info.features, path, pathlib.Path(target), [entries[i] for i in part])
            for target, part in zip(targets, np.array_split(order, archive.shards))
        ]
    result = write_shards([s for group in groups.values() for s in group], folder, say)
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard.records for shard in group],
            num_bytes=sum(shard.target.stat().st_size for shard in group),
            filename_template=templates[split],
        )
        for split, group in groups.items()
    ]
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(folder)
    return result


def _verify(
    path: pathlib.Path, archive: Archive, folder: pathlib.Path, say: Callable[[str], None]
) -> None:
    """Raise ValueError unless an archive has the expected bytes; a file is hashed once."""
    status = path.stat()
    if status.st_size != archive.size:
        raise ValueError(
            f"{str(path)!r} has {status.st_size:,} bytes and not {archive.size:,}; download it "
            f"again."
        )
    seen = folder / f"{archive.file}.verified"
    mark = f"{status.st_size} {status.st_mtime_ns}"
    if seen.exists() and seen.read_text() == mark:
        return
    say(f"{archive.file}: checking its SHA-256")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        raise ValueError(
            f"{str(path)!r} is damaged: its SHA-256 is {found} and not {archive.sha256}; download "
            f"it again."
        )
    folder.mkdir(parents=True, exist_ok=True)
    seen.write_text(mark)


def _train(path: pathlib.Path) -> Iterator[Entry]:
    """Yield the images of an archive of archives, one per synset."""
    with tarfile.open(path, "r:") as outer:
        for part in outer:
            file = cast(BinaryIO, outer.extractfile(part))
            with tarfile.open(fileobj=file, mode="r:") as inner:
                for m in inner:
                    synset = part.name.removesuffix(".tar")
                    yield Entry(m.name, part.offset_data + m.offset_data, m.size, synset)


def _validation(path: pathlib.Path) -> Iterator[Entry]:
    """Yield the images of a flat archive; the list has a synset for each number."""
    package = importlib.resources.files("tensorflow_datasets.datasets.imagenet2012")
    synsets = package.joinpath("validation_labels.txt").read_text().split()
    with tarfile.open(path, "r:") as archive:
        for m in archive:
            number = int(m.name.removesuffix(".JPEG").rpartition("_")[2])
            yield Entry(m.name, m.offset_data, m.size, synsets[number - 1])


def _shard(
    features: Any, source: pathlib.Path, target: pathlib.Path, entries: list[Entry]
) -> Shard:
    def read() -> Iterator[bytes]:
        images: dict[Entry, bytes] = {}
        with open(source, "rb") as file:
            for entry in sorted(entries, key=lambda e: e.offset):  # one way over the disk
                file.seek(entry.offset)
                images[entry] = file.read(entry.size)
        for entry in entries:
            image = io.BytesIO(images[entry])
            example = {"image": image, "label": entry.synset, "file_name": entry.name}
            yield features.serialize_example(features.encode_example(example))

    return Shard(source, target, len(entries), sum(e.size for e in entries), read)
