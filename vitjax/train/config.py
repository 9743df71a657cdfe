"""Run configs: fields with their defaults, files and flags laid over them, clear refusals."""

import ast
import copy
import difflib
import importlib.util
import json
import logging
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from vitjax.train.divergence import ACTIONS
from vitjax.train.layer_decay import STYLES
from vitjax.train.optimizer import OPTIMIZERS, SCHEDULES

DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "epochs": 0.0,  # length of the run, in passes over the training images …
    "steps": 0,  # … or in optimizer steps
    "task": "classification",  # a name of vitjax.tasks.TASKS; its sections are fields too
    "init": "",  # weights to begin with: a file, an Orbax folder, another run's, hf://owner/repo
    "model": {"name": "vit_ti16", "dtype": "float32"},  # any hyperparameter of the model besides
    "data": {
        "train": "digits://",
        "test": "",  # empty: the test split of `train`
        "train_split": "train",
        "test_split": "test",
        "image_size": 224,
        "batch_size": 128,
        "eval_batch_size": 256,
        "augment": "none",  # a name or a line such as "crop | flip | randaugment(m=9)"
        "repeats": 1,  # visits of an image in an epoch (repeated augmentation)
        # Side of the central square that evaluation sees, of the short side: 0.875 is usual for
        # ImageNet; beyond 1 the image stands in black; 0 squeezes the whole image into the square.
        "eval_crop": 1.0,
        # Of evaluation: area, bilinear, bicubic or antialias; training's is said in `augment`.
        "interpolation": "area",
        "num_threads": 4,
        "num_processes": 0,  # that decode, instead of threads: for hosts of many cores
        "on_bad_image": "fail",
        "max_bad_images": -1,  # different ones that "skip" tolerates; -1: any number
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    },
    "evals": {},  # name → more data to measure on: --config.evals.v2='folder:///v2?split=test'
    "optimizer": {
        "name": "adamw",
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "nesterov": False,  # of "sgd"
        "mu_dtype": "float32",
        "weight_decay": 0.0,
        "weight_decay_rules": (),  # (regex, factor); empty: those of the model's family
        "learning_rate_rules": ((".*", 1.0),),
        "layer_decay": 1.0,  # factor of the learning rate from one layer to the one before it
        "layer_decay_style": "timm",  # or "mae"; see vitjax/train/layer_decay.py
        "clip_norm": 0.0,
        "accumulate": 1,
        "ema": 0.0,  # decay of the averaged weights; 0: none
        "ema_warmup": True,  # the decay is at most (1 + t) / (10 + t): 0.9996 at step 20,000
    },
    "schedule": {
        "name": "cosine",
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "cooldown_steps": 0,
        "timescale": 10_000,
        "start_factor": 0.0,  # of the learning rate, where the warm-up starts
        "end_factor": 0.0,  # of the learning rate, where the decay ends
        "warmup_prefix": True,  # False: the decay begins at step 0, as timm's does
        "hold_steps": 1,  # steps between changes; those of an epoch for a schedule by epoch
    },
    "mesh": {"data": -1, "fsdp": 1, "tensor": 1, "slices": 1},  # devices along each; -1: the rest
    "sharding_rules": (),  # (regex, words), before those that fit every model; train/partition.py
    "log_every": 50,  # steps
    "eval_every": 1000,  # steps; each evaluation also saves
    "checkpoint_every": 1000,  # steps
    "keep": 3,  # latest checkpoints; the best one is kept besides
    # A loss that is no number, or over `spike` × the usual (0: never): stop, or go back to the last
    # checkpoint and leave out the data since then, at most `max` times.
    "on_divergence": {"action": "stop", "spike": 0.0, "max": 3},
    "stall_seconds": 0.0,  # without a step, after which the run ends itself; 0: never
}
"""Every field of a run and its default, whose type is the field's type."""

FREE = (
    *("log_every", "eval_every", "checkpoint_every", "keep"),
    *("data.num_threads", "data.num_processes"),
    *("mesh.data", "mesh.fsdp", "mesh.tensor", "mesh.slices", "sharding_rules", "stall_seconds"),
)
"""Fields that may differ when a run is resumed: the parameters do not depend on them (on the mesh,
only in the order of sums)."""
CADENCE = ("eval_every", "checkpoint_every")
"""Of these, what a run that goes back to checkpoints does depend on."""

log = logging.getLogger("vitjax")

Options = Callable[[str], Mapping[str, Any]]


class ConfigError(ValueError):
    """A field, value or file of a config that cannot be used."""


def load_config(
    path: str,
    overrides: Mapping[str, str],
    model_options: Options,
    task_options: Options = lambda name: {},
) -> ConfigDict:
    """Resolve a config: defaults, the file's `get_config()`, then the command line.

    Args:
      path: a Python file; what follows a colon is given to its `get_config`.
      overrides: "optimizer.weight_decay" → the text given on the command line. Another
        "model.name" than the file's takes that model as it is on the menu: the file's
        hyperparameters are its own model's, and dropped with a warning. So are the sections of
        another "task" than the file's, and fields of the file's optimizer and schedule that another
        "optimizer.name" or "schedule.name" does not read.
      model_options: model name → its hyperparameters with their defaults; they are fields of
        `config.model` too.
      task_options: task name → its sections with their defaults.

    Raises:
      ConfigError: no such file, an unknown field (the nearest is named), or a value of wrong type.
    """
    file = _run_file(path)
    own = file.get("task", DEFAULTS["task"])
    task = overrides.get("task", own)
    fields = {**DEFAULTS, **task_options(task)}
    if task != own:  # the file's sections of its own task are none of this one's
        foreign = {key for key in task_options(own) if key in file and key not in fields}
        _warn_dropped(path, foreign, own, task)
        file = {key: value for key, value in file.items() if key not in foreign}
    config: Any = ConfigDict(copy.deepcopy(fields))
    section = file.get("model", {})
    own = section.get("name", config.model.name)
    name = overrides.get("model.name", own)
    options = model_options(name)
    if name != own:  # the file's hyperparameters were chosen for its own model
        kept = {k: v for k, v in section.items() if k in DEFAULTS["model"]}
        _warn_dropped(path, section.keys() - kept.keys(), own, name)
        file["model"] = kept
    for menu, reads in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        section = file.get(menu, {})
        own = section.get("name", DEFAULTS[menu]["name"])
        name = overrides.get(f"{menu}.name", own)
        if name != own and name in reads:
            of_others = {key for keys in reads.values() for key in keys} - set(reads[name])
            _warn_dropped(path, section.keys() & of_others, own, name)
            file[menu] = {k: v for k, v in section.items() if k not in of_others}
    for key, value in _flatten(file).items():
        _set(config, key, value, fields, options, where=path)
    for key, text in overrides.items():
        _set(config, key, _literal(text), fields, options, where="the command line", text=text)
    return config.lock()


def _warn_dropped(path: str, keys: Collection[str], own: str, name: str) -> None:
    if keys:
        listed = ", ".join(sorted(keys))
        log.warning("%s sets %s for %s; %s keeps its own values.", path, listed, own, name)


CONFIGS = tuple(
    folder
    for folder in (
        pathlib.Path(__file__).parents[1] / "configs",  # in a wheel
        pathlib.Path(__file__).parents[2] / "configs",  # in a checkout
    )
    if folder.is_dir()
)
"""Where a config is looked up by its name alone."""


def _find_file(name: str) -> str:
    """Give the path of a config: as it stands, or of one that comes along with the library."""
    if pathlib.Path(name).is_file():
        return name
    stem = name.removesuffix(".py")
    found = (folder / f"{stem}.py" for folder in CONFIGS if stem.isidentifier())
    return next((str(path) for path in found if path.is_file()), name)


def _run_file(path: str) -> dict[str, Any]:
    file, _, argument = path.partition(":")
    file = _find_file(file)
    if not pathlib.Path(file).is_file():
        folder = pathlib.Path(file).parent
        found = sorted(str(p) for p in folder.glob("*.py")) if folder.is_dir() else []
        found += [p.stem for known in CONFIGS for p in sorted(known.glob("*.py"))]
        near = difflib.get_close_matches(file, found, n=1, cutoff=0.0)
        raise ConfigError(
            f"No config file {file!r}." + (f" The nearest is {near[0]!r}." if near else "")
        )
    spec = importlib.util.spec_from_file_location("config_file", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{file} has no function get_config(); it must return the run's fields.")
    result = module.get_config(argument) if argument else module.get_config()
    return result.to_dict() if isinstance(result, ConfigDict) else dict(result)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat.update(_flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value})
    return flat


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return {"true": True, "false": False}.get(text.lower(), text)


def _set(
    config: Any,
    key: str,
    value: Any,
    fields: Mapping[str, Any],
    options: Mapping[str, Any],
    where: str,
    text: str | None = None,
) -> None:
    known = _flatten(fields)
    if key.startswith("evals.") and key.count(".") == 1:
        known[key] = ""  # any name
    known.update({f"model.{name}": default for name, default in options.items() if name != "dtype"})
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
        section = key.rpartition(".")[0]
        within = [k for k in known if k.rpartition(".")[0] == section] or list(fields)
        raise ConfigError(
            f"Unknown config field {key!r} in {where}"
            + (f"; did you mean {near[0]!r}?" if near else ".")
            + f" Fields there: {', '.join(within)}."
        )
    kind = type(known[key])
    if kind is str and text is not None:
        value = text  # "10" is a fine name
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple and isinstance(value, list):
        value = tuple(value)
    # A default of None leaves the type open; so may a model's hyperparameter that is one or
    # several.
    sizes = key.startswith("model.") and isinstance(value, int | tuple) and kind in (int, tuple)
    if not isinstance(value, kind) and known[key] is not None and not sizes:
        raise ConfigError(
            f"Config field {key!r} in {where} takes {_article(kind)}, such as {known[key]!r}; "
            f"got {value if text is None else text!r}."
        )
    if isinstance(value, bool) and kind is int:
        raise ConfigError(f"Config field {key!r} in {where} takes a whole number; got {value}.")
    section, _, leaf = key.rpartition(".")
    (config[section] if section else config)[leaf] = value


def _article(kind: type) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        bool: "True or False",
        str: "a text",
        tuple: "a tuple",
    }
    return names.get(kind, f"a {kind.__name__}")


def check_field(config: Any, key: str, allowed: Collection[str]) -> None:
    """Raises a ConfigError if a field is none of the allowed words."""
    value = _flatten(config.to_dict())[key]
    if value not in allowed:
        near = difflib.get_close_matches(value, allowed, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ConfigError(f"config.{key}={value!r}{hint} Choose from: {', '.join(allowed)}.")


def check(config: Any) -> None:
    """Raise a ConfigError if a field that is a choice is none of its words."""
    for key, allowed in {
        "optimizer.name": OPTIMIZERS,
        "schedule.name": SCHEDULES,
        "optimizer.layer_decay_style": STYLES,
        "optimizer.mu_dtype": ("float32", "bfloat16"),
        "model.dtype": ("float32", "bfloat16"),
        "on_divergence.action": ACTIONS,
    }.items():
        check_field(config, key, allowed)


def read_run_config(path: pathlib.Path) -> dict[str, Any]:
    """The config of a run that was started before."""
    return json.loads(path.read_text())


def flat_config(config: Any) -> dict[str, Any]:
    """Give fields by their whole names, with values as JSON has them."""
    return _flatten(
        json.loads(json.dumps(config.to_dict() if isinstance(config, ConfigDict) else dict(config)))
    )


def count_steps(config: Any, images: int) -> int:
    """Optimizer steps of the run: `steps`, or `epochs` rounded to whole steps.

    Raises:
      ConfigError: neither or both are given.
    """
    if (config.steps > 0) == (config.epochs > 0):
        raise ConfigError(
            f"Give the length of the run once: config.epochs or config.steps (now "
            f"{config.epochs:g} "
            f"epochs and {config.steps} steps)."
        )
    return config.steps or max(1, round(config.epochs * images / config.data.batch_size))


def check_batches(config: Any, parts: int) -> None:
    """Raises a ConfigError if a batch does not divide over devices and accumulated parts.

    Args:
      parts: devices along the axes over which a batch is split.
    """
    divisors = {
        "data.batch_size": parts * config.optimizer.accumulate,
        "data.eval_batch_size": parts,
    }
    for key, divisor in divisors.items():
        value = config.data[key.removeprefix("data.")]
        if value < 1 or value % divisor:
            near = max(1, round(value / divisor)) * divisor
            raise ConfigError(
                f"config.{key}={value} must be a multiple of {divisor} ({parts} devices along "
                "data and fsdp"
                + (f" × {divisor // parts} accumulated parts" if divisor > parts else "")
                + f"); {near} is."
            )
