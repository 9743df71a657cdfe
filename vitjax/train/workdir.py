"""Work folder of a run: it belongs to one run, and is locked by one process at a time."""

import fcntl
import json
import logging
import os
import pathlib
import socket
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from vitjax.train.config import ConfigError, count_steps, flat_config, read, read_run_config
from vitjax.train.defaults import FREE, RunConfig, free_fields

LOCATIONS = (
    *("data.train", "data.train_split", "data.test", "data.test_split"),
    *("token_labels.maps", "distillation.teacher"),
)
"""Fields, besides `evals`, that say where something lies; a fingerprint tells what it is."""
LENGTH = ("steps", "epochs")
TEACHER = "teacher"
"""Among the facts of a run's data: its teacher, whose checkpoints say more when it has changed."""
EXTENSIONS = "extensions.json"
Facts = Mapping[str, Mapping[str, Any]]

log = logging.getLogger("vitjax")


def check_same_run(
    config: RunConfig,
    path: pathlib.Path,
    data: Facts | None = None,
    extend: bool = False,
) -> None:
    """Check a config against the one that the work folder was started with.

    The same data may be in another place, which is logged. The same number of steps may be given as
    steps or as epochs.

    Args:
      data: see `claim_workdir`; None to compare the config alone.
      extend: a longer run counts as the same one.

    Raises:
      ConfigError: names the fields that differ, with both values.
    """
    here = flat_config(config)
    found = read_run_config(path)
    there = {
        **flat_config(type(config)()),
        **flat_config(found),
    }  # newer fields have their defaults
    free = free_fields(config)
    differing = [
        key
        for key in sorted(here.keys() | there.keys())
        if here.get(key) != there.get(key) and key not in free
    ]
    moved = [k for k in differing if k in LOCATIONS or k.startswith("evals.")]
    if moved and not (data and _is_same_data(path.parent, data)):
        moved = []
    before, now = (_steps(c, data) for c in (read(RunConfig, found), config))
    same_length = extend or (before == now and before > 0)
    other = [k for k in differing if k not in moved and not (same_length and k in LENGTH)]

    def shown(keys: Sequence[str]) -> str:
        values = ((k, there.get(k, "unset"), here.get(k, "unset")) for k in keys)
        return "; ".join(f"{key} (there {then!r}, now {value!r})" for key, then, value in values)

    if other:
        longer = set(other) <= set(LENGTH) and 0 < before < now
        hint = f" --extend goes on from {before:,} to {now:,} steps." if longer else ""
        raise ConfigError(
            f"The work folder {path.parent} holds another run: {shown(other)}. "
            f"Give the same values to go on with it, or another --workdir.{hint}"
        )
    if moved:
        log.warning(
            "The data has the fingerprint of the run in %s, and is in another place: %s.",
            path.parent,
            shown(moved),
        )


def check_branch(config: RunConfig, steps: int) -> None:
    """Check a run that goes on from `init_step` of another one, if it does.

    The two may differ in their schedules, lengths, evaluations, probes, and the fields FREE.

    Args:
      steps: of the run, those of the other one up to `init_step` included.

    Raises:
      ConfigError: there is no such run, or it is not the same up to that step.
    """
    folder = pathlib.Path(config.init)
    path, at = folder / "config.json", config.init_step
    if not at:
        return
    if not (config.init and path.is_file()):
        raise ConfigError(
            f"config.init_step={at} is a step of the run in config.init, and {config.init!r} is no "
            f"run's folder: it has no config.json. Give the folder, or leave init_step at 0."
        )
    if not 0 < at < steps:
        raise ConfigError(
            f"config.init_step={at} must be above 0, and below the run's {steps:,} steps, which "
            f"count from the beginning of the run in config.init."
        )
    if config.on_divergence.action == "rollback":
        raise ConfigError(
            f"config.init_step={at} does not go with config.on_divergence.action='rollback': the "
            f"steps to go back to may be those of another run. Leave it at 'stop'."
        )
    here, there = flat_config(config), flat_config(read_run_config(path))
    there = {**flat_config(type(config)()), **there}
    other = [
        f"{key} (there {there.get(key, 'unset')!r}, here {here.get(key, 'unset')!r})"
        for key in sorted(here.keys() | there.keys())
        if here.get(key) != there.get(key)
        and key not in {*FREE, *LENGTH, "init", "init_step"}
        and not key.startswith(("schedule.", "evals.", "probes."))
    ]
    if other:
        raise ConfigError(
            f"This run goes on from step {at} of {folder}, and differs from it in more than "
            f"schedule and length: {'; '.join(other)}. Give the same values."
        )


def _steps(config: RunConfig, data: Facts | None) -> int:
    """Count the steps of a run; 0 if the number of images is unknown."""
    images = (data or {}).get("training", {}).get("images", 0)
    return count_steps(config, images) if images else 0


def _is_same_data(workdir: pathlib.Path, data: Facts) -> bool:
    """Return whether all data, and the teacher, have unchanged fingerprints."""
    path = workdir / "data.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    now, then = ({k: v["fingerprint"] for k, v in facts.items()} for facts in (data, before))
    return now == then


def read_extensions(workdir: pathlib.Path) -> list[tuple[int, int]]:
    """Read the extensions of a run, as its numbers of steps before and after each."""
    path = workdir / EXTENSIONS
    return [tuple(pair) for pair in json.loads(path.read_text())] if path.exists() else []


def _extensions(config: RunConfig, workdir: pathlib.Path, data: Facts) -> list[tuple[int, int]]:
    """Compute the extensions of a run with a new one; repeating a command adds no extension.

    Raises:
      ConfigError: the run would not become longer.
    """
    there = read(RunConfig, read_run_config(workdir / "config.json"))
    before, now, done = _steps(there, data), _steps(config, data), read_extensions(workdir)
    if now > before:
        return [*done, (before, now)]
    if now == before and now in [steps for _, steps in done]:
        return done
    raise ConfigError(
        f"--extend makes a run longer: the run in {workdir} has {before:,} steps, and the config "
        f"says {now:,}. Give more --config.steps or --config.epochs, or leave --extend out."
    )


def claim_workdir(
    config: RunConfig,
    workdir: pathlib.Path,
    class_names: Sequence[str],
    data: Facts,
    extend: bool = False,
) -> IO[str]:
    """Create and lock the work folder, or check that it holds the same run.

    Afterwards it holds the config, the classes and the data's fingerprints.

    Args:
      data: name → its "fingerprint" and number of "images" at the start of the run.
      extend: make the existing run longer.

    Returns:
      The folder's lock, which is held until it is closed or the process ends.

    Raises:
      ConfigError: the folder holds another run, or cannot be written.
      LockedError: another process uses the folder.
    """
    path, names, facts = (workdir / f"{n}.json" for n in ("config", "classes", "data"))
    try:
        if path.exists():
            check_same_run(config, path, data, extend)
            _check_same_data(workdir, list(class_names), data)
        elif extend:
            raise ConfigError(
                f"--extend makes a run longer, and {workdir} holds none; leave it out to begin one."
            )
        extensions = _extensions(config, workdir, data) if extend else None
        claim = lock(workdir)
        if extensions:
            _write_json(workdir / EXTENSIONS, extensions)
        _write_json(names, list(class_names))
        _write_json(facts, data)
        _write_json(path, config.to_dict())
    except OSError as error:
        raise ConfigError(
            f"The work folder {workdir} cannot be written: {error.strerror}. Choose another "
            f"--workdir."
        ) from error
    return claim


def _check_same_data(workdir: pathlib.Path, classes: list[str], data: Facts) -> None:
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
        if split == TEACHER:
            continue
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
    """Error: another process uses the folder."""


def lock(workdir: pathlib.Path) -> IO[str]:
    """Lock the folder until the returned file is closed or the process ends in any way.

    Raises:
      LockedError: names the process that holds the lock, and since when.
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
    file.write(
        json.dumps({"who": f"process {os.getpid()} on {socket.gethostname()}", "since": since})
    )
    file.flush()
    return file


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _write_json(path: pathlib.Path, value: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    temporary.replace(path)  # whole or not at all
