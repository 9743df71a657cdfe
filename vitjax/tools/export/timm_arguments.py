"""Hyperparameters of our models as arguments of timm's classes."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from vitjax.models import ALIASES, MODELS
from vitjax.models.aliases import SAME_IN_TIMM
from vitjax.models.bit import BiT
from vitjax.models.cait import CaiT
from vitjax.models.coatnet import coatnet
from vitjax.models.convnext import convnext
from vitjax.models.deit import DistilledDeiT
from vitjax.models.efficientformer import efficientformer
from vitjax.models.efficientnet import EfficientNet
from vitjax.models.ghostnet import GhostNet
from vitjax.models.mlp_mixer import mlp_mixer
from vitjax.models.poolformer import poolformer
from vitjax.models.pvt_v2 import pvt_v2
from vitjax.models.swin import swin
from vitjax.models.swinv2 import swinv2
from vitjax.models.vit import ViT
from vitjax.models.volo import volo

Options = dict[str, Any]


def _size(options: Options) -> list[int]:
    size = options["image_size"]
    return [size, size] if isinstance(size, int) else list(size)


def _tuple(value: Any, count: int) -> list[Any]:
    return [value] * count if isinstance(value, int | float) else list(value)


def _without(options: Options, **needed: Any) -> str:
    """Find the first option without its required value; "" if all have it."""
    wrong = (k for k, v in needed.items() if options.get(k) != v)
    return next((f"{name}={options.get(name)!r}" for name in wrong), "")


def vit_arguments(options: Options) -> Options | str:
    """Convert options to timm's arguments of a ViT or DeiT, or return the option that it lacks."""
    o = options
    token = o["pool"] == "token"
    plain = dict(mixer="full", position="learned", representation_size=None, act="gelu",
                 mlp="plain", pre_norm=False, pool_norm=False, key_bias=True)  # fmt: skip
    if wrong := _without(o, **plain):
        return wrong
    if o["norm_epsilon"] > 1e-6:  # timm's is 1e-6, and a smaller one is the same in float32
        return f"norm_epsilon={o['norm_epsilon']!r}"
    if not token and o["class_token"]:
        return "class_token=True beside pool='gap'"
    if o["pool"] == "map":
        return "pool='map'"
    registers = o["num_registers"]
    if token and registers and o["class_position"] and not o["register_position"]:
        return "registers without position beside a class token with one"
    return {
        "img_size": _size(o), "patch_size": o["patch_size"], "embed_dim": o["width"],
        "depth": o["depth"], "num_heads": o["num_heads"], "mlp_ratio": o["mlp_ratio"],
        "qkv_bias": o["qkv_bias"], "qk_norm": o["qk_norm"], "init_values": o["layer_scale_init"],
        "class_token": token, "global_pool": "token" if token else "avg",
        "fc_norm": None if token else False,  # as here, the norm stands before the mean
        "no_embed_class": not (token and o["class_position"]), "reg_tokens": registers,
    }  # fmt: skip


def distilled_arguments(options: Options) -> Options | str:
    """Convert options to timm's arguments of a distilled DeiT.

    Its second token is no argument.
    """
    found = vit_arguments(options)
    if isinstance(found, str):
        return found
    return {k: v for k, v in found.items() if k != "reg_tokens"}


def swin_arguments(options: Options) -> Options | str:
    """Convert options to timm's arguments of a Swin, or return the option that it lacks."""
    dims, o = options["dims"], options
    first = "scale" in o  # the second version has no such option
    kind = "window" if first else "window_cosine"
    plain = dict(mixer=f"{kind} | {kind}(shift='half')", absolute_position=False, patch_norm=True)
    if wrong := _without(o, **plain, dense=False, **(dict(scale=None) if first else {})):
        return wrong
    if list(dims) != [dims[0] << i for i in range(len(dims))]:
        return f"dims={dims}"
    if not isinstance(o["window_size"], int):
        return f"window_size={o['window_size']}"
    found = {
        "img_size": _size(o), "patch_size": o["patch_size"], "embed_dim": dims[0],
        "depths": list(o["depths"]), "num_heads": list(o["num_heads"]),
        "window_size": o["window_size"], "mlp_ratio": o["mlp_ratio"], "qkv_bias": o["qkv_bias"],
    }  # fmt: skip
    if "pretrained_window_size" in o:
        found["pretrained_window_sizes"] = _tuple(o["pretrained_window_size"], len(dims))
    if wrong := _uneven(found):
        return wrong
    return found


def _uneven(found: Options) -> str:
    """Name the maps and windows that do not divide, whose padding timm does not mask.

    timm lets others attend to that padding.
    """
    rows, columns = (side / found["patch_size"] for side in found["img_size"])
    for i in range(len(found["depths"])):
        h, w = rows / 2**i, columns / 2**i
        window = min(found["window_size"], h, w)
        if h % window or w % window or h % 1 or w % 1:
            return f"maps of {h:g}×{w:g} in windows of {window:g}"
    return ""


def pvt_v2_arguments(options: Options) -> Options | str:
    """Convert options to timm's arguments of a PVT v2, or return the option that it lacks."""
    o, stages = options, len(options["dims"])
    if wrong := _without(o, mixer="sra", scale=None):
        return wrong
    ratios = (8, 4, 2, 1)[:stages] if o["sr_ratio"] is None else o["sr_ratio"]
    return {
        "embed_dims": list(o["dims"]),
        "depths": list(o["depths"]),
        "num_heads": list(o["num_heads"]),
        "sr_ratios": _tuple(ratios, stages),
        "mlp_ratios": _tuple(o["mlp_ratio"], stages),
        "qkv_bias": o["qkv_bias"],
        "linear": o["linear"],
    }


def volo_arguments(options: Options) -> Options | str:
    """Convert options to timm's arguments of a VOLO, or return the option that it lacks."""
    o = options
    plain = dict(kernel_size=3, stride=2, padding=None, scale=None, pool="token")
    if wrong := _without(o, **plain, mixer="outlook ; full ; full ; full", token_label=True):
        return wrong
    if not o["post_layers"]:
        return f"post_layers={o['post_layers']!r}"
    return {
        "img_size": _size(o), "layers": list(o["depths"]), "embed_dims": list(o["dims"]),
        "num_heads": list(o["num_heads"]), "mlp_ratio": o["mlp_ratio"],
        "patch_size": o["patch_size"], "stem_hidden_dim": o["stem_width"],
        "qkv_bias": o["qkv_bias"], "downsamples": list(o["downsample"]),
        "post_layers": list(o["post_layers"]),
    }  # fmt: skip


def bit_arguments(options: Options) -> Options | str:
    """Convert options to timm's arguments of a BiT."""
    return {"layers": list(options["depths"]), "width_factor": options["width_factor"]}


_WITHOUT_EFFECT = frozenset({
    "num_classes", "image_size", "drop_rate", "attn_drop_rate", "drop_path_rate", "remat", "scan",
    "dtype", "param_init", "decay_rules", "layers_of_features",
})  # fmt: skip
"""Options that change no logits of an image."""


def published_options(options: Options) -> Options:
    """Return the options that must be those of a published model, which are no arguments."""
    return {key: value for key, value in options.items() if key not in _WITHOUT_EFFECT}


def published_options_and_size(options: Options) -> Options:
    """Return them, and the image size as timm's argument."""
    return {"img_size": _size(options), **published_options(options)}


def published_options_of_one_size(options: Options) -> Options:
    """Return them, and the image size, which is no argument either."""
    return {"image_size": _size(options), **published_options(options)}


class InTimm(NamedTuple):
    """How timm has the models of a family.

    Attributes:
      arguments: converts our options to arguments of timm's class; or gives the option it lacks.
      fixed: arguments that timm's functions do not let be replaced; None: all but `img_size`.
      first: its first layer; `classifier`: its last one, or both last ones.
      any_size: whether its models take images of any size.
    """

    arguments: Callable[[Options], Options | str]
    fixed: frozenset[str] | None = frozenset()
    first: str = "patch_embed.proj"
    classifier: str | tuple[str, ...] = "head"
    any_size: bool = False

    def refused(self, differing: Options) -> set[str]:
        """Return the arguments among these that cannot be replaced."""
        fixed = differing.keys() - {"img_size"} if self.fixed is None else self.fixed
        return differing.keys() & fixed


_VOLO = frozenset({"layers", "embed_dims", "num_heads", "mlp_ratio", "stem_hidden_dim"})
IN_TIMM: dict[Any, InTimm] = {
    ViT: InTimm(vit_arguments),
    DistilledDeiT: InTimm(distilled_arguments, classifier=("head", "head_dist")),
    swin: InTimm(swin_arguments, classifier="head.fc"),
    swinv2: InTimm(swin_arguments, classifier="head.fc"),
    pvt_v2: InTimm(pvt_v2_arguments, any_size=True),
    volo: InTimm(volo_arguments, _VOLO, "patch_embed.conv.0", ("head", "aux_head")),
    BiT: InTimm(
        bit_arguments, frozenset({"layers", "width_factor"}), "stem.conv", "head.fc", any_size=True
    ),
    EfficientNet: InTimm(published_options, None, "conv_stem", "classifier", any_size=True),
    GhostNet: InTimm(published_options, None, "conv_stem", "classifier", any_size=True),
    convnext: InTimm(published_options, None, "stem.0", "head.fc", any_size=True),
    poolformer: InTimm(published_options, None, "stem.conv", "head.fc", any_size=True),
    coatnet: InTimm(published_options_and_size, None, "stem.conv1", "head.fc"),
    mlp_mixer: InTimm(published_options_and_size, None, "stem.proj"),
    CaiT: InTimm(published_options_and_size, None),
    efficientformer: InTimm(
        published_options_of_one_size, None, "stem.conv1", ("head", "head_dist")
    ),
}
"""Factory → how timm has its models."""

_TORCHVISION = re.compile(r"vit_[blh]_\d+|swin(_v2)?_[tsb]")
TIMM: dict[str, tuple[str, Options]] = {
    **{
        name: (ours, extra)
        for name, (ours, extra) in ALIASES.items()
        if (not extra or ours.startswith("cait"))
        and "/" not in name
        and not _TORCHVISION.fullmatch(name)
    },
    **{
        name: (name, {"norm_pooled": True} if name.startswith("poolformer") else {})
        for name in MODELS
        if name.startswith(SAME_IN_TIMM)
    },
}
"""timm's models → ours with the same hyperparameters, and options of ours besides."""
