"""The work folder: one run's, and one at a time."""

import fcntl
import json
import os
import pathlib
import socket
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from vitjax.train.config import CADENCE, DEFAULTS, FREE, ConfigError, flat_config, read_run_config


def check_same_run(config: Any, path: pathlib.Path, defaults: Mapping[str, Any] = DEFAULTS) -> None:
    """Compare with the config that the work folder was started with.

    Args:
      defaults: of fields that are newer than the run.

    Raises:
      ConfigError: names the fields that differ, with both values.
    """
    here = flat_config(config)
    there = {**flat_config(defaults), **flat_config(read_run_config(path))}
    free = set(FREE) - set(CADENCE if config.on_divergence.action == "rollback" else ())
    differing = [
        f"{key} (there {there.get(key, 'unset')!r}, now {here.get(key, 'unset')!r})"
        for key in sorted(here.keys() | there.keys())
        if here.get(key) != there.get(key) and key not in free
    ]
    if differing:
        raise ConfigError(
            f"The work folder {path.parent} holds another run: {'; '.join(differing)}. "
            "Give the same values to go on with it, or another --workdir."
        )


def claim_workdir(
    config: Any,
    workdir: pathlib.Path,
    class_names: Sequence[str],
    data: Mapping[str, Mapping[str, Any]],
    defaults: Mapping[str, Any] = DEFAULTS,
) -> IO[str]:
    """Makes the work folder, or finds in it the same run; it then holds config, classes and data.

    Args:
      data: name → what it was when the run began: its "fingerprint" and number of "images".
      defaults: see `check_same_run`.

    Returns:
      The folder's lock, which is held until it is closed or the process ends.

    Raises:
      ConfigError: it holds another run, or cannot be written.
      LockedError: another run is at work there.
    """
    path, names, facts = (workdir / f"{n}.json" for n in ("config", "classes", "data"))
    try:
        if path.exists():
            check_same_run(config, path, defaults)
            _check_same_data(workdir, list(class_names), data)
        claim = lock(workdir)
        _write_json(names, list(class_names))
        _write_json(facts, data)
        _write_json(path, config.to_dict())
    except OSError as error:
        raise ConfigError(
            f"The work folder {workdir} cannot be written: {error.strerror}. Choose another "
            f"--workdir."
        ) from error
    return claim


def _check_same_data(
    workdir: pathlib.Path, classes: list[str], data: Mapping[str, Mapping[str, Any]]
) -> None:
    advice = "Give it the data that it had, or another --workdir."
    there = json.loads((workdir / "classes.json").read_text())
    if there != classes:
        raise ConfigError(
            f"The run in {workdir} has {len(there)} classes ({_some(there)}), and the data now has "
            f"{len(classes)} ({_some(classes)}). {advice}"
        )
    path = workdir / "data.json"
    before = json.loads(path.read_text()) if path.exists() else data
    for split, now in data.items():
        then = before.get(split, now)
        if then["fingerprint"] != now["fingerprint"]:
            counts = (
                f"{then['images']:,} images then and {now['images']:,} now"
                if then["images"] != now["images"]
                else f"{now['images']:,} images as before, of other names, sizes or labels"
            )
            raise ConfigError(
                f"The {split} data of the run in {workdir} has changed: {counts} (fingerprint "
                f"{then['fingerprint']}, now {now['fingerprint']}). {advice}"
            )


class LockedError(ValueError):
    """Another run is at work in the folder."""


def lock(workdir: pathlib.Path) -> IO[str]:
    """Locks the folder until the file that is returned is closed, or the process ends, however.

    Raises:
      LockedError: says who holds it, and since when.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    file = (workdir / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        text = file.read()
        file.close()
        owner = json.loads(text) if text.startswith("{") else {"who": "unknown", "since": "?"}
        raise LockedError(
            f"A run is at work in {workdir}: {owner['who']}, since {owner['since']}. Wait for it, "
            "stop it, or choose another --workdir."
        ) from None
    except OSError:
        return file  # a file system without locks
    file.truncate(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    file.write(json.dumps({"who": f"process {os.getpid()} on {socket.gethostname()}",
                           "since": since}))  # fmt: skip
    file.flush()
    return file


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _write_json(path: pathlib.Path, value: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    temporary.replace(path)  # whole or not at all
