"""Run configs: fields with defaults, overridden by config files and then by flags."""

import ast
import dataclasses
import difflib
import importlib.util
import json
import logging
import pathlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from ml_collections import ConfigDict

from vitjax.train.defaults import RunConfig
from vitjax.train.divergence import ACTIONS
from vitjax.train.layer_decay import STYLES
from vitjax.train.optimizer import OPTIMIZERS, SCHEDULES
from vitjax.train.ways import Said, settle

log = logging.getLogger("vitjax")

Options = Callable[[str], Mapping[str, Any]]
Section = TypeVar("Section")
Run = TypeVar("Run", bound=RunConfig)
DTYPES = ("float32", "bfloat16")


class ConfigError(ValueError):
    """Error: a field, value or file of a config cannot be used."""


def load_config(
    path: str,
    overrides: Mapping[str, str],
    model_options: Options,
    task_config: Callable[[str], type[RunConfig]] = lambda name: RunConfig,
) -> RunConfig:
    """Resolve a config: defaults, the file's `get_config()`, then the command line.

    Args:
      path: a Python file; text after a colon is passed to its `get_config`.
      overrides: "optimizer.weight_decay" → the text given on the command line. A "model.name" that
        differs from the file's selects that model with the defaults of the menu: the file's
        hyperparameters are dropped with a warning. Also dropped are the sections of the file's task
        under another "task", the fields of its optimizer and schedule that another
        "optimizer.name" or "schedule.name" does not read, and alternative settings of the same
        thing, see `vitjax.train.ways`.
      model_options: model name → its hyperparameters with their defaults; they are fields of
        `config.model` too.
      task_config: task name → the class of its runs' configs, with its sections.

    Raises:
      ConfigError: the file is missing, a field is unknown (the nearest is named), or a value has
        the wrong type.
    """
    return resolve(call_file(path, "get_config"), path, overrides, model_options, task_config)


def resolve(
    fields: Mapping[str, Any],
    path: str,
    overrides: Mapping[str, str],
    model_options: Options,
    task_config: Callable[[str], type[RunConfig]] = lambda name: RunConfig,
) -> RunConfig:
    """Resolve a config from the fields that a file gives; see `load_config`.

    Args:
      fields: nested dicts of fields, as `get_config()` returns them.
      path: name of the file in messages.
    """
    file = fields.to_dict() if isinstance(fields, ConfigDict) else dict(fields)
    own = file.get("task", RunConfig.task)
    task = overrides.get("task", own)
    kind = task_config(task)
    fields, config = asdict(kind()), asdict(kind())
    if task != own:  # the file's sections of its own task are none of this one's
        foreign = (asdict(task_config(own)()).keys() & file.keys()) - fields.keys()
        _warn_dropped(path, foreign, own, task)
        file = {key: value for key, value in file.items() if key not in foreign}
    section = file.get("model", {})
    own = section.get("name", fields["model"]["name"])
    name = overrides.get("model.name", own)
    options = model_options(name)
    if name != own:  # the file's hyperparameters were chosen for its own model
        kept = {k: v for k, v in section.items() if k in fields["model"]}
        _warn_dropped(path, section.keys() - kept.keys(), own, name)
        file["model"] = kept
    for menu, reads in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        section = file.get(menu, {})
        own = section.get("name", fields[menu]["name"])
        name = overrides.get(f"{menu}.name", own)
        if name != own and name in reads:
            of_others = {key for keys in reads.values() for key in keys} - set(reads[name])
            _warn_dropped(path, section.keys() & of_others, own, name)
            file[menu] = {k: v for k, v in section.items() if k not in of_others}
    for key, value in _flatten(file, leaves=_flatten(fields)).items():
        _set(config, key, value, fields, options, where=path)
    for key, text in overrides.items():
        _set(config, key, _literal(text), fields, options, where="the command line", text=text)
    given = {*_flatten(file), *overrides}
    settle(Said(config, overrides, path, _flatten(fields)))
    for key in ("mean", "std"):
        if f"data.{key}" not in given:
            config["data"][key] = (0.5,) * config["data"]["channels"]
    return read(kind, config)


def read(kind: type[Section], found: Mapping[str, Any]) -> Section:
    """Build a config, or a section of one, from the nested dicts of a config file or a run.

    Missing fields get their defaults. Unknown keys are left out: those of a run may belong to a
    task, or to an older version of this code.
    """
    own: Any = kind()

    def value(default: Any, said: Any) -> Any:
        if dataclasses.is_dataclass(default):
            return read(type(default), said)
        return {**default, **said} if isinstance(default, Mapping) else _as_tuples(said)

    names = (field.name for field in dataclasses.fields(own) if field.name in found)
    return dataclasses.replace(own, **{k: value(getattr(own, k), found[k]) for k in names})


def _as_tuples(value: Any) -> Any:
    """Convert the lists of JSON back to tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def override(config: Run, overrides: Mapping[str, str]) -> Run:
    """Return a copy of a run's config with fields replaced from the command line.

    Args:
      overrides: "data.eval_crop" → the text given.

    Raises:
      ConfigError: a field is unknown, or a value has the wrong type.
    """
    found, fields = asdict(config), asdict(type(config)())
    for key, text in overrides.items():
        _set(found, key, _literal(text), fields, {}, where="the command line", text=text)
    return read(type(config), found)


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
    """Find a config file: the path as given, or a config that is part of the library."""
    if pathlib.Path(name).is_file():
        return name
    stem = name.removesuffix(".py")
    found = (folder / f"{stem}.py" for folder in CONFIGS if stem.isidentifier())
    return next((str(path) for path in found if path.is_file()), name)


def call_file(path: str, function: str) -> Any:
    """Return what a function of a config file returns.

    Args:
      path: a Python file, or the name of a config that is part of the library; text after a colon
        is passed to the function.

    Raises:
      ConfigError: there is no such file, or it has no such function.
    """
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
    if not hasattr(module, function):
        what = "return the run's fields" if function == "get_config" else "yield fields of runs"
        raise ConfigError(f"{file} has no function {function}(); it must {what}.")
    return getattr(module, function)(*([argument] if argument else []))


def _flatten(
    tree: Mapping[str, Any], prefix: str = "", leaves: Collection[str] = ()
) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        inner = isinstance(value, Mapping) and path not in leaves
        flat.update(_flatten(value, f"{path}.", leaves) if inner else {path: value})
    return flat


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return {"true": True, "false": False}.get(text.lower(), text)


def _set(
    config: dict[str, Any],
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
    several = key.startswith("model.") or key == "data.image_size"
    if isinstance(value, list) and (kind is tuple or (several and kind is int)):
        value = tuple(value)
    if isinstance(value, Mapping):  # as pairs: its keys are names, and no fields
        value = tuple(value.items())
    # A default of None leaves the type open; so may a model's hyperparameter that is one or
    # several.
    sizes = several and isinstance(value, int | tuple) and kind in (int, tuple)
    wrong = isinstance(value, tuple) and not _elements_fit(key, value, known[key])
    if wrong or (not isinstance(value, kind) and known[key] is not None and not sizes):
        raise ConfigError(
            f"Config field {key!r} in {where} takes {_article(kind)}"
            + (" or a tuple of rows and columns" if key == "data.image_size" else "")
            + f", such as {known[key]!r}; "
            f"got {value if text is None else text!r}."
        )
    if isinstance(value, bool) and kind is int:
        raise ConfigError(f"Config field {key!r} in {where} takes a whole number; got {value}.")
    section, _, leaf = key.rpartition(".")
    if leaf.endswith("rules") or leaf == "freeze":
        _check_expressions(key, value, where)
    (config[section] if section else config)[leaf] = value


def _check_expressions(key: str, value: Any, where: str) -> None:
    """Raise a ConfigError unless rules are pairs, and what selects parameters can be compiled."""
    pairs = key.endswith("rules")
    for rule in value:
        if pairs and not (isinstance(rule, list | tuple) and len(rule) == 2):
            raise ConfigError(
                f"Config field {key!r} in {where} has the rule {rule!r}; a rule is a regular "
                "expression of paths and its value, such as ('head/.*', 0.1)."
            )
        pattern: Any = rule[0] if pairs else rule
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ConfigError(
                f"Config field {key!r} in {where} has {pattern!r}, which is no regular expression "
                f"of paths ({error}); give one such as 'head/.*'."
            ) from None


def _elements_fit(key: str, value: tuple[Any, ...], default: Any) -> bool:
    """Return whether a tuple has elements of the type of a field's own, where that is stated."""
    if key == "data.image_size":
        return all(type(side) is int for side in value)
    if isinstance(default, tuple) and default and all(isinstance(x, float) for x in default):
        return all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)
    return True


def _article(kind: type) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        bool: "True or False",
        str: "a text",
        tuple: "a tuple",
    }
    return names.get(kind, f"a {kind.__name__}")


def check_field(key: str, value: str, allowed: Collection[str]) -> None:
    """Raise a ConfigError unless the value of a field is one of the allowed words."""
    if value not in allowed:
        near = difflib.get_close_matches(value, allowed, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ConfigError(f"config.{key}={value!r}{hint} Choose from: {', '.join(allowed)}.")


def check(config: RunConfig) -> None:
    """Raise a ConfigError unless every choice field has one of its allowed words."""
    optimizer = config.optimizer
    check_field("optimizer.name", optimizer.name, OPTIMIZERS)
    check_field("schedule.name", config.schedule.name, SCHEDULES)
    check_field("optimizer.layer_decay_style", optimizer.layer_decay_style, STYLES)
    check_field("optimizer.mu_dtype", optimizer.mu_dtype, DTYPES)
    check_field("model.dtype", config.model["dtype"], DTYPES)
    check_field("on_divergence.action", config.on_divergence.action, ACTIONS)


def read_run_config(path: pathlib.Path) -> dict[str, Any]:
    """Read the config of a run from its work folder."""
    return json.loads(path.read_text())


def flat_config(config: RunConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a config to full field names, with values as in JSON."""
    fields = config.to_dict() if isinstance(config, RunConfig) else config
    return _flatten(json.loads(json.dumps(fields)))


def count_steps(config: RunConfig, images: int) -> int:
    """Compute the optimizer steps of the run: `steps`, or `epochs` rounded to whole steps.

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


def check_batches(config: RunConfig, parts: int) -> None:
    """Raise a ConfigError if a batch does not divide over devices and accumulated parts.

    Args:
      parts: devices along the axes over which a batch is split.
    """
    d, accumulated = config.data, parts * config.optimizer.accumulate
    for key, value, divisor in (
        ("data.batch_size", d.batch_size, accumulated),
        ("data.eval_batch_size", d.eval_batch_size, parts),
    ):
        if value < 1 or value % divisor:
            near = max(1, round(value / divisor)) * divisor
            raise ConfigError(
                f"config.{key}={value} must be a multiple of {divisor} ({parts} devices along "
                "data and fsdp"
                + (f" × {divisor // parts} accumulated parts" if divisor > parts else "")
                + f"); {near} is."
            )
