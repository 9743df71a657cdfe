"""A TFDS data set of TFRecord files, converted once to ArrayRecord, which has random access.

The records stay as they are; only what frames them changes, so that neither TensorFlow nor a
decoder is needed. A shard counts as done when it has been read back; the same command goes on where
an interrupted one stopped, and verifies what is there.
"""

import functools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from vitjax.data.sources.records import read_tfrecords
from vitjax.data.sources.tfds import open_builder

MANIFEST = "prepared.json"
_CHUNK = 128  # records that are read back at once


class Shard(NamedTuple):
    """A file to write.

    Attributes:
      source: the file that its records come from.
      target: its own path.
      records: how many it must hold.
      size: about how many bytes.
      read: gives them.
    """

    source: Any
    target: pathlib.Path
    records: int
    size: int
    read: Callable[[], Iterator[bytes]]


def prepare(
    path: str, to: str, data_dir: str = "", say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Convert all splits of a data set.

    Args:
      path: its name, or the folder with its `dataset_info.json`.
      to: the new data_dir; the data set then lies in TO/name/version.
      data_dir: where a name is looked up.
      say: told of each shard.

    Returns:
      `folder`, and the numbers of `shards`, `records`, `bytes`, and of shards `found` done.

    Raises:
      ValueError: there is no such data set, it has another format, a file is missing or damaged, or
        the disk has no room.
    """
    builder = open_builder(path, data_dir)
    info = builder.info
    if info.file_format.value != "tfrecord":
        raise ValueError(
            f"{info.full_name} in {builder.data_dir} is {info.file_format.value}; only TFRecord is "
            f"converted, and ArrayRecord is read as it is."
        )
    folder = pathlib.Path(os.path.expanduser(to)) / info.full_name
    sources = [path for split in info.splits.values() for path in split.filepaths]
    if missing := [str(path) for path in sources if not path.exists()]:
        raise ValueError(f"{len(missing)} shards are missing, such as {missing[0]!r}; copy them.")
    shards = list(_shards(info, folder))
    result = write_shards(shards, folder, say)
    _copy_description(pathlib.Path(str(builder.data_dir)), folder)
    return result


def write_shards(
    shards: list[Shard], folder: pathlib.Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Write the shards that are missing; return the summary of `prepare`."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / MANIFEST
    done = json.loads(manifest.read_text()) if manifest.exists() else {}
    done = {s.target.name: e for s in shards if (e := done.get(s.target.name)) and _same(s, e)}
    found = len(done)
    todo = [s for s in shards if s.target.name not in done]
    _check_room(folder, sum(s.size for s in todo))
    for number, shard in enumerate(todo, 1):
        done[shard.target.name] = _convert(shard)
        _write(manifest, json.dumps(done, indent=1))
        say(f"{found + number} of {len(shards)}: {shard.target.name}, {shard.records:,} records")
    return {
        "folder": str(folder),
        "shards": len(shards),
        "records": sum(s.records for s in shards),
        "bytes": sum(e["bytes"] for e in done.values()),
        "found": found,
    }


def _shards(info: Any, folder: pathlib.Path) -> Iterator[Shard]:
    for split in info.splits.values():
        for source, records in zip(split.filepaths, split.shard_lengths, strict=True):
            name = source.name.replace(".tfrecord-", ".array_record-")
            read = functools.partial(_records, source)
            yield Shard(source, folder / name, int(records), os.path.getsize(source), read)


def _records(source: Any) -> Iterator[bytes]:
    with open(source, "rb") as file:
        yield from read_tfrecords(file, str(source))


def _checksum(path: pathlib.Path) -> str:
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    return checksum.hexdigest().decode()


def _same(shard: Shard, entry: dict[str, Any]) -> bool:
    """Return whether a converted shard is intact and its source is unchanged."""
    return (
        shard.target.exists()
        and shard.target.stat().st_size == entry["bytes"]
        and os.path.getsize(shard.source) == entry["source_bytes"]
        and _checksum(shard.target) == entry["crc32c"]
    )


def _convert(shard: Shard) -> dict[str, Any]:
    temporary = shard.target.with_name(shard.target.name + ".tmp")
    try:
        count = _reframe(shard, temporary)
        entry = {
            "records": count,
            "bytes": temporary.stat().st_size,
            "crc32c": _checksum(temporary),
            "source_bytes": os.path.getsize(shard.source),
        }
        temporary.replace(shard.target)
    except (RuntimeError, OSError) as error:  # the writer's errors, and the system's
        reason = str(error).partition("\n")[0][:200]
        raise ValueError(
            f"Writing {str(shard.target)!r} failed ({reason}); {_free(shard.target.parent):,} "
            f"bytes are free there. Finished shards are kept: make room, and give the same command "
            f"again."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return entry


def _reframe(shard: Shard, target: pathlib.Path) -> int:
    """Write a shard's records, read them back, and return their number."""
    import google_crc32c
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    written, read, count = google_crc32c.Checksum(), google_crc32c.Checksum(), 0
    writer = ArrayRecordWriter(str(target), "group_size:1")
    for record in shard.read():
        writer.write(record)
        written.update(record)
        count += 1
    writer.close()
    if count != shard.records:
        raise ValueError(
            f"{str(shard.source)!r} holds {count} records, and {shard.records} are expected; copy "
            f"it again."
        )
    reader = ArrayRecordReader(str(target))
    if reader.num_records() == count:
        for start in range(0, count, _CHUNK):
            for record in reader.read(start, min(start + _CHUNK, count)):
                read.update(record)
    reader.close()
    if read.digest() != written.digest():
        raise ValueError(f"{target.name} reads back otherwise than it was written; try again.")
    return count


def _free(folder: pathlib.Path) -> int:
    return shutil.disk_usage(folder).free


def _check_room(folder: pathlib.Path, needed: int) -> None:
    free = _free(folder)
    if needed > free:
        raise ValueError(
            f"{folder} has {free:,} bytes free, and about {needed:,} are needed: make room, or "
            f"choose another folder with --to. Nothing was written."
        )


def _copy_description(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Copy everything but the shards, `dataset_info.json` last: it makes a data set complete."""
    for path in source.iterdir():
        if path.is_file() and ".tfrecord-" not in path.name and path.name != "dataset_info.json":
            shutil.copyfile(path, folder / path.name)
    info = json.loads((source / "dataset_info.json").read_text())
    info["fileFormat"] = "array_record"
    for split in info["splits"]:
        if template := split.get("filepathTemplate"):
            split["filepathTemplate"] = template.replace(".tfrecord-", ".array_record-")
    _write(folder / "dataset_info.json", json.dumps(info, indent=2))


def _write(path: pathlib.Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)  # whole or not at all
