"""Readers of weight files, which return plain dictionaries of numpy arrays."""

import argparse
import json
import logging
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

log = logging.getLogger(__name__)

FORMATS = (
    ".pth, .pt, .bin or .ckpt (PyTorch), .safetensors, .npz (Google's names), a folder (orbax, or "
    "a repository's), hf://owner/repo[/file]"
)
WRAPPERS = ("model_ema", "state_dict_ema", "model", "state_dict", "module", "teacher")
"""Under which training scripts keep a state dict; averaged weights, the evaluated ones, first. A
teacher without a model is DINO's, an average too.
"""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers of the whole module (DataParallel, compile, Lightning) put before every key."""
HUB_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""What `hf://owner/repo`, or a folder with the same files, is searched for, in this order."""


def read(source: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file's arrays by name, or the tree of a folder, `{"params": …}`.

    Raises: as `load_pretrained`.
    """
    text = os.fspath(source)
    path = pathlib.Path(_download(text) if text.startswith("hf://") else text).expanduser()
    if path.is_dir():
        inside = next((path / file for file in HUB_FILES if (path / file).is_file()), None)
        if inside is None:
            return _read_orbax(path)
        path = inside
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
    """Download the file of `hf://owner/repo[/file]` and return its local path."""
    repo, file = hub_address(source)
    files = (file,) if file else HUB_FILES
    for file in files:
        if found := hub_file(source, repo, file):
            return found
    raise FileNotFoundError(
        f"{repo} on the Hugging Face hub has no {' or '.join(files)}; name one of its files: "
        f"hf://{repo}/file."
    )


def hub_address(source: str) -> tuple[str, str]:
    """Parse repository and file ("" for none) of `hf://owner/repo[/file]`."""
    match = re.fullmatch(r"hf://([^/]+/[^/]+)(?:/(.+)|/?)", source)
    if match is None:
        raise ValueError(f"{source!r} names no repository; write hf://owner/repo[/file].")
    return match[1], match[2] or ""


def hub_file(source: str, repo: str, file: str) -> str | None:
    """Return the local path of a repository's file; None if it has no such file."""
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            f"{source!r} needs huggingface_hub: pip install 'vitjax[hf]', or download the file "
            f"yourself and give its path."
        ) from None
    try:
        return huggingface_hub.hf_hub_download(repo, file)
    except huggingface_hub.errors.LocalEntryNotFoundError:
        raise  # offline, which says nothing of what the repository holds
    except huggingface_hub.errors.EntryNotFoundError:
        return None


def beside(source: str, file: str) -> Any:
    """Read a JSON file beside weights; None if there is none.

    Args:
      source: of the weights, as `read` takes it.

    Raises:
      ValueError: it is no JSON.
    """
    if source.startswith("hf://"):
        repo, weights_file = hub_address(source)
        folder = pathlib.PurePosixPath(weights_file).parent
        try:
            path = hub_file(source, repo, str(folder / file))
        except FileNotFoundError:  # the hub's, of what is not kept here while it cannot be asked
            log.warning("The hub cannot be asked for %s of %s: taken as absent.", file, repo)
            return None
    else:
        path = next((str(f / file) for f in _folders(source) if (f / file).is_file()), None)
    if path is None:
        return None
    try:
        return json.loads(pathlib.Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}. Mend it, or remove it.") from error


def _folders(source: str) -> list[pathlib.Path]:
    """List the folders that may hold configs of the weights: a checkpoint's and its run's."""
    path = pathlib.Path(source).expanduser()
    if not path.is_dir():
        return [path.parent]
    inside = [parent.parent for parent in (path, *path.parents[:2]) if parent.name == "checkpoints"]
    return [path, *inside]


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
    """Extract the tensors of the state dict from a training script's checkpoint."""
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
    """Read a folder that Orbax wrote.

    It is a tree, a step with one (`state`, `default`), steps, of which the last is read, or a run's
    work folder, whose averaged parameters are read if it has them.
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
