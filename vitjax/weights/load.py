"""Published weights from files: `load_pretrained`."""

import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vitjax import weights
from vitjax.layers.spec import fields, spec
from vitjax.models import create_model, model_spec
from vitjax.models.dense import DenseModel
from vitjax.models.detector import Detector
from vitjax.models.encoder import unstack_layers
from vitjax.weights import configs, table
from vitjax.weights.files import read

log = logging.getLogger(__name__)

_PROBE_CLASSES = 7919  # no model is as wide: an axis of this length belongs to a head


def load_pretrained(
    name: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    *,
    channels: int = 3,
    **overrides: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """Load a model of the menu and its variables from published weights.

    `load_pretrained("hf://owner/repo")`, or a path alone, chooses the model and its hyperparameters
    by the `config.json` (timm's, transformers', a run's) or `open_clip_config.json` there, and the
    log says which. A name that is given wins, and is compared with what such a file says.

    PyTorch state dicts may be the authors', timm's, torchvision's or those of transformers, bare
    or wrapped (`model`, `model_ema`, `module.` …), with other arrays beside them, which the log
    names; `.npz` files have Google's names (ViT, AugReg, R+ViT, BiT). Tables tied to another image
    or window size are interpolated (2-D bicubic).

    Args:
      name: of the model; or the source, to choose the model by the config beside it.
      source: path of a `.pth`, `.pt`, `.bin`, `.ckpt`, `.safetensors` or `.npz` file, of a folder
        that orbax wrote (variables, parameters, or a run's checkpoints) or that has a repository's
        files, or `hf://owner/repo[/file]`.
      num_classes: None for the checkpoint's; with another number the head is new, and the log says
        so.
      channels: of the model's images. Weights for others are adapted as timm's are, and the log
        says so: summed for 1, repeated and scaled for more (`vitjax.weights.inputs`).
      **overrides: hyperparameters of the model, as for `create_model`.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: the format needs a package of an optional extra.
      ValueError: the format is unknown, or the weights do not fit: every missing, unused and
        misshapen key is listed; no config chooses a model, or it describes one that is not
        expressed here, or another one than `name`.
    """
    if source is None:
        _check_source(os.fspath(name))
        source, chosen = name, configs.choose(name)
        name, overrides = chosen.name, {**chosen.options, **overrides}
        arrays = read(source)
    else:
        name = os.fspath(name)
        arrays = read(source)
        configs.compare(name, source, overrides)
    return load_arrays(name, arrays, source, num_classes, channels=channels, **overrides)


def _check_source(text: str) -> None:
    """Raise ValueError if the source is the name of a model and not weights."""
    if text.startswith("hf://") or pathlib.Path(text).expanduser().exists():
        return
    try:
        model_spec(text)
    except ValueError:
        raise FileNotFoundError(
            f"There is no file or folder {text!r} to load weights from."
        ) from None
    hub = f", 'hf://{text}'" if "/" in text else ""
    raise ValueError(
        f"{text!r} names a model, and not where its weights are: load_pretrained({text!r}, "
        f"SOURCE), or a source alone that has a config.json{hub}."
    )


def load_arrays(
    name: str,
    content: dict[str, Any],
    source: str | os.PathLike[str],
    num_classes: int | None = None,
    *,
    channels: int = 3,
    **overrides: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """Load a model from what `read` returned; `source` names it in messages."""
    family = weights.FAMILIES[model_spec(name).factory]
    several = "num_classes" in fields(model_spec(name).factory)
    probe: Any = create_model(name, _PROBE_CLASSES if several else None, **overrides)
    rows, arrays = _by_table(name, family, probe, content)
    # Half precision widens before tables are interpolated.
    state_dict = {k: v.astype(np.float32) if v.itemsize < 4 else v for k, v in arrays.items()}
    adapted = weights.adapt(family, state_dict, probe)
    of_backbone = [key.startswith("backbone.") for key in adapted]
    if isinstance(probe, DenseModel) and (not any(of_backbone) or all(of_backbone)):
        google = any("/" in key for key in state_dict)
        return _under_head(
            name, source, probe, state_dict, google, num_classes, channels, overrides
        )
    state_dict = adapted
    shapes = _leaves(weights.unrolled(probe), channels)
    weights.inputs.check_grid(os.fspath(source), probe.image_size, shapes)
    links = table.link(rows, list(shapes))
    heads = _heads(name, probe, shapes, channels, overrides) if several else {}
    keys = {links[path].key for path in heads}
    # The classes are counted by a head's bias; a checkpoint without one has no head.
    counts = (((state_dict.get(links[path].key)), *sizes) for path, sizes in heads.items())
    found = next(((b.size - n) // m for b, m, n in counts if b is not None and b.ndim == 1), 0)
    wanted = (found if num_classes is None else num_classes) if several else 0
    model = create_model(name, wanted, **overrides)
    fresh = {}
    if heads and wanted != found:
        state_dict = {k: v for k, v in state_dict.items() if k not in keys}
        fresh = _initial(model, list(heads), channels) if wanted else {}
        log.warning(
            "%s: %s classes are asked for and %s has %s; %s, all else is loaded.",
            name,
            wanted,
            source,
            found or "no head",
            "the head is new" if wanted else "the head is left out",
        )
    exits = [path for path in shapes if path[1].startswith("exit_")]
    if exits and not any(links[path].key in state_dict for path in exits):
        fresh |= _initial(model, exits, channels)
        log.warning("%s: %s has no early exits; they are new.", name, source)
    variables = weights.convert(family, rows, state_dict, model, fresh, channels)
    return model, jax.tree.map(jnp.asarray, variables)


def _under_head(
    name: str,
    source: str | os.PathLike[str],
    probe: DenseModel,
    state_dict: dict[str, Any],
    google: bool,
    num_classes: int | None,
    channels: int,
    overrides: dict[str, Any],
) -> tuple[nn.Module, dict[str, Any]]:
    """Build a dense model whose backbone has the weights of a classifier; all heads are new.

    Args:
      probe: the model, of any number of classes.
      state_dict: of the classifier, by the names of its family; `google`: by those of Google's
        JAX files.
    """
    model = create_model(name, num_classes, **overrides)
    family = weights.FAMILIES[probe.encoder.factory]
    own = {"dense", "layers_of_features", "pool", "num_classes", "dtype", "remat", "scan"}
    encoder = dict(probe.encoder.kwargs)
    plain = {key: value for key, value in encoder.items() if key not in own}
    if "pool" in fields(probe.encoder.factory):
        plain["pool"] = "token"  # as published
    classifier = spec(probe.encoder.factory, **plain, num_classes=_PROBE_CLASSES).build()
    state_dict = weights.adapt(family, state_dict, probe.encoder.build())
    published, inner = _leaves(classifier), family.GOOGLE if google else family.TABLE
    every, read_by_backbone = (
        {link.key for link in table.link(inner, list(leaves)).values()}
        for leaves in (published, _backbone_leaves(probe))
    )
    left_out = (every - read_by_backbone) & state_dict.keys()
    renamed = {f"backbone.{k}": v for k, v in state_dict.items() if k not in left_out}
    rows = weights.rows_of(weights.FAMILIES[model_spec(name).factory], model, inner)
    shapes = _leaves(model)
    links = table.link(rows, list(shapes))
    new = [
        path
        for path, link in links.items()
        if path[1] != "backbone"
        or ((path[0], *path[2:]) not in published and link.key not in renamed)
    ]
    log.warning(
        "%s: %s has the weights of a classifier; they are the backbone's, and the heads are new.",
        name,
        source,
    )
    fresh = _initial(model, new, channels)
    variables = weights.convert(family, rows, renamed, model, fresh, channels)
    return model, jax.tree.map(jnp.asarray, variables)


def _heads(
    name: str, probe: Any, shapes: dict[Any, Any], channels: int, overrides: dict[str, Any]
) -> dict[tuple[str, ...], tuple[int, int]]:
    """Find the leaves whose size depends on the number of classes.

    Returns:
      Path → entries of a bias for each class, and others: a detector has several anchors of each
      class, or a background besides.
    """
    if not isinstance(probe, Detector):
        return {path: (1, 0) for path, leaf in shapes.items() if _PROBE_CLASSES in leaf.shape}
    other = create_model(name, _PROBE_CLASSES + 1, **overrides)
    more = _leaves(weights.unrolled(other), channels)
    found = {}
    for path, leaf in shapes.items():
        each = sum(more[path].shape) - sum(leaf.shape)
        if each:
            found[path] = (each, leaf.size - each * _PROBE_CLASSES)
    return found


def _leaves(model: Any, channels: int = 3) -> dict[tuple[str, ...], Any]:
    """Compute the shapes of a model's variables."""
    return traverse_util.flatten_dict(weights.abstract_variables(model, channels))


def _backbone_leaves(model: DenseModel) -> dict[tuple[str, ...], Any]:
    """Compute the shapes of a dense model's backbone as a model, without its map norms."""
    return {
        (path[0], *path[2:]): leaf
        for path, leaf in _leaves(model).items()
        if path[1] == "backbone" and not path[2].startswith("feature_norm")
    }


def _by_table(
    name: str, family: Any, model: nn.Module, content: dict[str, Any]
) -> tuple[tuple[table.Row, ...], dict[str, Any]]:
    """Return the table of a model, and the arrays by the names in it."""
    rows = weights.rows_of(family, model)
    if isinstance(content.get("params"), Mapping):
        return rows, _ours(rows, content, _leaves(weights.unrolled(model)))
    if not any("/" in key for key in content):
        return rows, content
    if isinstance(model, DenseModel):  # a classifier's, for the backbone
        family = weights.FAMILIES[model.encoder.factory]
    if not hasattr(family, "GOOGLE"):
        raise ValueError(
            f"The arrays have the names of Google's JAX files ({next(iter(content))!r} …), and "
            f"{name!r} was not published in these; give a PyTorch file."
        )
    return family.GOOGLE, _google(content)


def _ours(
    rows: tuple[table.Row, ...], variables: dict[str, Any], wanted: dict[tuple[str, ...], Any]
) -> dict[str, Any]:
    """Rename our variables by the table.

    Leaves that neither the family nor the model has keep our names, which messages then show.
    """
    variables = {**variables, "params": unstack_layers(variables["params"])}
    leaves = traverse_util.flatten_dict(variables)
    state_dict = table.dump(rows, leaves)
    for path in leaves.keys() - wanted.keys():
        if (key := table.own(path).key) in state_dict:
            state_dict["/".join(path)] = state_dict.pop(key)
    return state_dict


def _google(arrays: dict[str, Any]) -> dict[str, Any]:
    """Strip the prefixes of Google's arrays, and stack q, k, v as ours are."""
    arrays = dict(arrays)
    for prefix in ("opt/target/", "target/", "params/"):
        if any(key.startswith(prefix) for key in arrays):
            arrays = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    for query in [key for key in arrays if "/query/" in key]:
        parts = [query.replace("/query/", f"/{part}/") for part in ("query", "key", "value")]
        if all(p in arrays and arrays[p].shape == arrays[query].shape for p in parts):
            # Kernels [C, h, d] → [C, 3, h, d], biases [h, d] → [3, h, d].
            stacked = np.stack([arrays.pop(p) for p in parts], axis=-3)
            arrays[query.replace("/query/", "/query+key+value/")] = stacked
    return arrays


def _initial(
    model: nn.Module, paths: list[tuple[str, ...]], channels: int
) -> dict[tuple[str, ...], Any]:
    """Initialise these leaves as the model does."""

    def init(key: jax.Array) -> list[jax.Array]:
        size = model.image_size  # type: ignore[attr-defined]
        height, width = (size, size) if isinstance(size, int) else size
        variables: Any = model.init(key, jnp.zeros((1, height, width, channels)))
        leaves: dict[Any, Any] = traverse_util.flatten_dict(variables)
        return [leaves[path] for path in paths]

    # The compiler drops what these leaves do not depend on: the model is not run.
    return dict(zip(paths, jax.jit(init)(jax.random.key(0)), strict=True))
