"""Names of other libraries: how their state dicts are recognised and translated to ours.

Each library has a file with its tables (`transformers.py`, `torchvision.py`, `pretraining.py`).
This file reads them. Everything that is recognised or left out is logged.
"""

import logging
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from vitjax.models.preprocessing import Preprocessing

log = logging.getLogger(__name__)


class Names(NamedTuple):
    """The names of one library for the models of one family.

    Attributes:
      library: as the log calls it; empty for what only looks at the keys.
      marker: regular expression that is found in a key of every such state dict, and in none with
        our names.
      rules: (regular expression, replacement), each applied to every key, one after the other.
      joined: (parts, name): arrays whose keys differ in one component, `attn.q.`, `attn.k.` and
        `attn.v.`, become one, `attn.qkv.`, along the first axis.
      left_out: regular expressions of whole keys that the model does not read.
      finish: a last change in place, of (state dict, model), for what names alone do not say; it
        gives the keys that it took out.
      preprocessing: our names, as shell patterns → how these weights want their images, where it is
        not as the family's do.
    """

    library: str
    marker: str
    rules: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = ()
    joined: tuple[tuple[tuple[str, ...], str], ...] = ()
    left_out: tuple[str, ...] = ()
    finish: Callable[[dict[str, Any], Any], list[str]] | None = None
    preprocessing: Mapping[str, Preprocessing] = types.MappingProxyType({})


QKV = ((("q", "k", "v"), "qkv"),)
KV = ((("k", "v"), "kv"),)

STEMS = (
    *(
        f"{model}.{stem}.weight"
        for model, stem in (
            (
                "(?:vit|vivit|deit|dinov2|dinov2_with_registers|swin|swinv2)",
                r"embeddings\.patch_embeddings\.projection",
            ),
            ("(?:pvt|segformer)", r"encoder\.patch_embeddings\.0\.proj(?:ection)?"),
            ("pvt_v2", r"encoder\.layers\.0\.patch_embedding\.proj"),
            ("bit", r"embedder\.convolution"),
            ("(?:nat|dinat)", r"embeddings\.patch_embeddings\.projection\.0"),
        )
    ),
    r"embeddings\.patch_embeddings\.(?:projection\.)?weight",
    r"encoder\.patch_embeddings\.0\.projection\.weight",
    r"encoder\.layers\.0\.patch_embedding\.proj\.weight",
    r"embedder\.convolution\.weight",
    r"embeddings\.patch_embeddings\.projection\.0\.weight",
    r"conv_proj\.weight",
    r"features\.0\.0\.weight",
    r"vision_model\.embeddings\.patch_embedding\.weight",
    r"embeddings\.patch_embedding\.weight",
    r"patch_embed1?\.proj(?:\.0)?\.weight",
    r"patch_embed\.projection\.weight",
    r"layers\.0\.0\.projection\.weight",
    r"patch_embed\.conv\.0\.weight",
    r"patch_embed\.backbone\.(?:stem\.)?conv\.weight",
    r"stem\.(?:proj|conv1)\.weight",
    r"conv_stem\.weight",
    r"patch_embed\.0\.weight",
    r"patch_proj\.0\.weight",
    r"downsample_layers\.0\.0\.weight",
    r"(?:stem|root)\.conv\.weight",
    r"stem\.(?:0|conv1)\.weight",
    r"class_embedding",
    r"conv1\.weight",
)
"""The first weights of every model that is known, by which a prefix of all names is found."""

BESIDE = ((r"^cls_head\.fc_cls\.", "backbone.head."),)
"""A classifier that mmaction keeps beside the backbone."""
LEFT_OUT = (r"(\w+_)?(criterion|loss|loss_fn)\..*",)
"""Losses with buffers, which training scripts save beside the model."""


def translate(tables: Iterable[Names], state_dict: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Translate a state dict to the names of our tables; one that has them already stays.

    Args:
      tables: those of the model's family; each that is recognised is applied.

    Raises:
      ValueError: the weights are of an architecture that the model cannot express.
    """
    found, dropped = without_prefix({rename(key, BESIDE): v for key, v in state_dict.items()})
    dropped += _take(found, LEFT_OUT)
    return rename_all(tables, found, model, dropped)


def rename_all(
    tables: Iterable[Names],
    state_dict: Mapping[str, Any],
    model: Any,
    dropped: Iterable[str] = (),
) -> dict[str, Any]:
    """Apply each table whose marker is found to a state dict without a prefix.

    Args:
      dropped: keys that were left out before, which the log names too.

    Raises: as `translate`.
    """
    found, dropped = dict(state_dict), list(dropped)
    for names in tables:
        if not any(re.search(names.marker, key) for key in found):
            continue
        if names.library:
            log.warning("The weights have the names of %s.", names.library)
        dropped += _take(found, names.left_out)
        found = {rename(key, names.rules): value for key, value in found.items()}
        for parts, name in names.joined:
            found = join(found, parts, name)
        if names.finish is not None:
            dropped += names.finish(found, model)
    if dropped:
        log.warning("Left out, as the model does not read it: %s.", _say(dropped))
    return found


def layout(tables: Iterable[Names], state_dict: Mapping[str, Any]) -> Mapping[str, Preprocessing]:
    """Return the preprocessing of weights of this layout, by our names; empty if unknown."""
    prefix = _prefix(state_dict) or ""
    keys = [*state_dict, *(k.removeprefix(prefix) for k in state_dict if k.startswith(prefix))]
    found: dict[str, Preprocessing] = {}
    for names in tables:
        if names.preprocessing and any(re.search(names.marker, key) for key in keys):
            found = {**names.preprocessing, **found, **names.preprocessing}  # the last come first
    return found


def _take(state_dict: dict[str, Any], patterns: tuple[str, ...]) -> list[str]:
    """Remove matching keys and return them."""
    keys = [k for k in state_dict if any(re.fullmatch(pattern, k) for pattern in patterns)]
    for key in keys:
        del state_dict[key]
    return keys


def _say(keys: list[str]) -> str:
    """List keys by the modules that have them, at most twelve."""
    modules = dict.fromkeys(re.sub(r"(?<=[a-z_])\.(\d+\..*|weight|bias)$", "", k) for k in keys)
    return ", ".join([*modules][:12]) + (
        f" and {len(modules) - 12} more" if len(modules) > 12 else ""
    )


def without_prefix(state_dict: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Strip the prefix of the model's names: `module.visual.trunk.`, `backbone.`.

    Of several models an averaged one is chosen, then one that is no student (whose teacher is an
    average), then the one with the shortest prefix.

    Returns:
      The model's arrays, and the keys of all others.
    """
    if not (prefix := _prefix(state_dict)):
        return state_dict, []
    log.warning("The model's weights are those under %r.", prefix)
    inside = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
    return inside, [key for key in state_dict if not key.startswith(prefix)]


def _prefix(state_dict: Mapping[str, Any]) -> str | None:
    """Find the prefix of the model's names; None where no model is known."""
    for stem in STEMS:
        pattern = re.compile(rf"((?:.*\.)?){stem}")
        prefixes = {m[1] for key in state_dict if (m := pattern.fullmatch(key))}
        if prefixes:
            break
    else:
        return None
    if "" in prefixes:
        return ""
    return min(
        prefixes, key=lambda p: (not re.search(r"(^|[._])ema[._]", p), "student" in p, len(p))
    )


def without_outer_prefix(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Strip the prefix before `backbone.` and `decode_head.` of a dense model."""
    prefixes = {key.partition("decode_head.")[0] for key in state_dict if "decode_head." in key}
    prefix = next(iter(prefixes)) if len(prefixes) == 1 else ""
    if not prefix or not any(key.startswith(f"{prefix}backbone.") for key in state_dict):
        return state_dict
    log.warning("The model's weights are those under %r; all others are left out.", prefix)
    return {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}


def count(before: str, after: str = "") -> Callable[[re.Match[str]], str]:
    """Build a replacement that counts the first group from 1: `block.0.` → `block1.`."""
    return lambda match: f"{before}{int(match[1]) + 1}{after}"


def rename(key: str, rules: Iterable[tuple[str, Any]]) -> str:
    """Apply rules to a key."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def join(state_dict: dict[str, Any], parts: tuple[str, ...], name: str) -> dict[str, Any]:
    """Concatenate arrays whose keys differ in one component, unless one is missing."""
    found = dict(state_dict)
    for key in state_dict:
        if not (match := re.fullmatch(rf"(.*\.(?:attn|mlp)\.){parts[0]}(\.\w+)", key)):
            continue
        keys = [f"{match[1]}{part}{match[2]}" for part in parts]
        if all(k in state_dict for k in keys):
            arrays = [np.asarray(found.pop(k)) for k in keys]
            found[f"{match[1]}{name}{match[2]}"] = np.concatenate(arrays)
    return found
