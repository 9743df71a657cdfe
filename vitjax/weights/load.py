"""Published weights from files: `load_pretrained`, and a reader for each format."""

import argparse
import logging
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file

from vitjax import weights
from vitjax.models import create_model, model_spec
from vitjax.models.encoder import unstack_layers
from vitjax.weights import table

log = logging.getLogger(__name__)

FORMATS = (
    ".pth, .pt, .bin or .ckpt (PyTorch), .safetensors, .npz (Google's names), a folder (orbax), "
    "hf://owner/repo[/file]"
)
WRAPPERS = ("model_ema", "state_dict_ema", "model", "state_dict")
"""Under which training scripts keep a state dict; averaged weights, the evaluated ones, first."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers of the whole module (DataParallel, compile, Lightning) put before every key."""
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What `hf://owner/repo` looks for, in this order."""

_PROBE_CLASSES = 7919  # no model is as wide: an axis of this length belongs to a head


def load_pretrained(
    name: str, source: str | os.PathLike[str], num_classes: int | None = None, **overrides: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """A model of the menu and its variables from published weights.

    PyTorch state dicts may be the authors' or timm's, bare or wrapped (`model`, `model_ema`,
    `module.` …); `.npz` files have Google's names (ViT, AugReg, R+ViT, BiT). Tables tied to another
    image or window size are interpolated (2-D bicubic).

    Args:
      source: path of a `.pth`, `.pt`, `.bin`, `.ckpt`, `.safetensors` or `.npz` file, of a folder
        that orbax wrote (variables, parameters, or a run's checkpoints), or
        `hf://owner/repo[/file]`.
      num_classes: None for the checkpoint's; with another number the head is new, and the log says
        so.
      **overrides: hyperparameters of the model, as for `create_model`.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: the format needs a package of an optional extra.
      ValueError: the format is unknown, or the weights do not fit: every missing, unused and
        misshapen key is listed.
    """
    family = weights.FAMILIES[model_spec(name).factory]
    rows, arrays = _by_table(name, family, read(source))
    # Half precision widens before tables are interpolated.
    state_dict = {k: v.astype(np.float32) if v.itemsize < 4 else v for k, v in arrays.items()}
    probe = create_model(name, _PROBE_CLASSES, **overrides)
    state_dict = weights.adapt(family, state_dict, probe)
    shapes: dict[Any, Any] = traverse_util.flatten_dict(weights.abstract_variables(probe))
    heads = [path for path, leaf in shapes.items() if _PROBE_CLASSES in leaf.shape]
    keys = {link.key for link in table.link(rows, heads).values()}
    # A head's bias has an entry a class; a checkpoint without one has no head.
    found = next((v.size for k in keys if (v := state_dict.get(k)) is not None and v.ndim == 1), 0)
    wanted = found if num_classes is None else num_classes
    model = create_model(name, wanted, **overrides)
    fresh = {}
    if heads and wanted != found:
        state_dict = {k: v for k, v in state_dict.items() if k not in keys}
        fresh = _initial(model, heads) if wanted else {}
        log.warning(
            "%s: %s classes are asked for and %s has %s; %s, all else is loaded.", name, wanted,
            source, found or "no head", "the head is new" if wanted else "the head is left out",
        )  # fmt: skip
    variables = weights.convert(family, rows, state_dict, model, fresh)
    return model, jax.tree.map(jnp.asarray, variables)


def read(source: str | os.PathLike[str]) -> dict[str, Any]:
    """A file's arrays by name; a folder's as the tree that it holds, `{"params": …}`.

    Raises: as `load_pretrained`.
    """
    text = os.fspath(source)
    path = pathlib.Path(_download(text) if text.startswith("hf://") else text).expanduser()
    if path.is_dir():
        return _read_orbax(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {text!r} to load weights from.")
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz}
    readers |= dict.fromkeys((".pth", ".pt", ".bin", ".ckpt", ".tar"), _read_torch)
    if path.suffix not in readers:
        raise ValueError(f"Weights {text!r} have no known format; what can be read: {FORMATS}.")
    try:
        return readers[path.suffix](path)
    except (EOFError, RuntimeError, zipfile.BadZipFile, SafetensorError) as error:
        raise ValueError(f"{text!r} is broken or no {path.suffix} file: {error}") from error


def _download(source: str) -> str:
    """The local path of `hf://owner/repo[/file]`."""
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            f"{source!r} needs huggingface_hub: pip install 'vitjax[hf]', or download the file "
            f"yourself and give its path."
        ) from None
    match = re.fullmatch(r"hf://([^/]+/[^/]+)(?:/(.+)|/?)", source)
    if match is None:
        raise ValueError(f"{source!r} names no repository; write hf://owner/repo[/file].")
    repo, file = match.groups()
    files = (file,) if file else HUB_FILES
    for file in files:
        try:
            return huggingface_hub.hf_hub_download(repo, file)
        except huggingface_hub.errors.LocalEntryNotFoundError:
            raise  # offline, which says nothing of what the repository holds
        except huggingface_hub.errors.EntryNotFoundError:
            continue
    raise FileNotFoundError(
        f"{repo} on the Hugging Face hub has no {' or '.join(files)}; name one of its files: "
        f"hf://{repo}/file."
    )


def _read_torch(path: pathlib.Path) -> dict[str, Any]:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            f"Reading {str(path)!r} needs PyTorch: pip install 'vitjax[torch]'; .safetensors files "
            f"can be read without it."
        ) from None
    try:
        # Training scripts keep their arguments beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{str(path)!r} is no PyTorch file, or holds objects other than tensors, which could "
            f"run code when read; save the state dict alone (torch.save(model.state_dict(), …))."
        ) from error
    return {
        key: (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        for key, value in _unwrap(content).items()
    }


def _unwrap(content: Any) -> dict[str, Any]:
    """The state dict's tensors, out of a training script's checkpoint."""
    content = content if isinstance(content, Mapping) else {}
    while inner := [content[k] for k in WRAPPERS if isinstance(content.get(k), Mapping)]:
        content = next(filter(None, inner), {})
    found = {key: value for key, value in content.items() if hasattr(value, "shape")}
    if not found:
        raise ValueError(
            "The file holds no state dict: neither tensors by name nor one of "
            f"{', '.join(WRAPPERS)}."
        )
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in found)), ""):
        found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found


def _read_safetensors(path: pathlib.Path) -> dict[str, Any]:
    return _unwrap(load_file(path))


def _read_npz(path: pathlib.Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):  # which numpy would call pickled data
        raise zipfile.BadZipFile("it is no zip archive.")
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    # numpy writes bfloat16 as two bytes of no type.
    bfloat16 = jnp.dtype(jnp.bfloat16)
    return {k: v.view(bfloat16) if v.dtype == np.dtype("V2") else v for k, v in arrays.items()}


def _read_orbax(path: pathlib.Path) -> dict[str, Any]:
    """What is in a folder: a tree, a step with one (`state`, `default`), steps, of which the last
    counts, or a run's work folder, whose averaged parameters count if it has them.
    """
    import orbax.checkpoint as ocp

    path = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    steps = sorted((int(p.name), p) for p in path.iterdir() if p.is_dir() and p.name.isdigit())
    step = steps[-1][1] if steps else path
    folders = [step, step / "state", step / "default"]
    folder = next((f for f in folders if (f / "_METADATA").exists()), None)
    if folder is None:
        raise ValueError(
            f"The folder {str(path)!r} is no orbax checkpoint; what can be read: {FORMATS}."
        )
    with ocp.PyTreeCheckpointer() as reader:
        saved = reader.metadata(folder.absolute()).item_metadata.tree
        if "params" in saved:  # the optimizer's state is not read
            params = "ema" if saved.get("ema") else "params"
            if "rest" in saved:
                raise ValueError(
                    f"The run in {str(path)!r} was written by vitjax 0.1, whose checkpoints this "
                    f"version does not read; save its weights with that version."
                )
            parts = (params, "batch_stats", "collections", "ema_collections")
            saved = {k: saved[k] for k in parts if saved.get(k)}
        # As numpy: the devices that wrote it need not be those that read it.
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        arguments = ocp.args.PyTreeRestore(saved, restore_args=how, partial_restore=True)
        tree = reader.restore(folder.absolute(), args=arguments)
    if not {"params", "ema"} & tree.keys():
        return {"params": tree}
    params = tree.pop("ema", None) or tree.pop("params")
    return {
        "params": params,
        **tree.pop("collections", {}),
        **tree.pop("ema_collections", {}),
        **tree,
    }


def _by_table(
    name: str, family: Any, content: dict[str, Any]
) -> tuple[tuple[table.Row, ...], dict[str, Any]]:
    """The table of these names, and the arrays by the names in it."""
    if isinstance(content.get("params"), Mapping):
        return family.TABLE, _ours(family, content)
    if not any("/" in key for key in content):
        return family.TABLE, content
    if not hasattr(family, "GOOGLE"):
        raise ValueError(
            f"The arrays have the names of Google's JAX files ({next(iter(content))!r} …), and "
            f"{name!r} was not published in these; give a PyTorch file."
        )
    return family.GOOGLE, _google(content)


def _ours(family: Any, variables: dict[str, Any]) -> dict[str, Any]:
    """Our variables under their names; leaves that the family does not have keep ours."""
    variables = {**variables, "params": unstack_layers(variables["params"])}
    state_dict = {}
    for path, leaf in traverse_util.flatten_dict(variables).items():
        try:
            state_dict |= table.dump(family.TABLE, {path: leaf})
        except KeyError:
            state_dict["/".join(path)] = leaf
    return state_dict


def _google(arrays: dict[str, Any]) -> dict[str, Any]:
    """Google's arrays without what stands before their names, and q, k, v stacked as ours are."""
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


def _initial(model: nn.Module, paths: list[tuple[str, ...]]) -> dict[tuple[str, ...], Any]:
    """These leaves as the model initialises them."""

    def init(key: jax.Array) -> list[jax.Array]:
        size = model.image_size  # type: ignore[attr-defined]
        height, width = (size, size) if isinstance(size, int) else size
        variables: Any = model.init(key, jnp.zeros((1, height, width, 3)))
        leaves: dict[Any, Any] = traverse_util.flatten_dict(variables)
        return [leaves[path] for path in paths]

    # The compiler drops what these leaves do not depend on: the model is not run.
    return dict(zip(paths, jax.jit(init)(jax.random.key(0)), strict=True))
