"""timm's `config.json`: a model's name, and arguments of its class as our options."""

import fnmatch
from collections.abc import Mapping
from typing import Any

from vitjax.layers.spec import fields
from vitjax.models import ALIASES, MODELS, model_options, model_spec
from vitjax.models.aliases import SAME_IN_TIMM
from vitjax.models.bit import BiT
from vitjax.models.cait import CaiT
from vitjax.models.coatnet import coatnet
from vitjax.models.convnext import convnext
from vitjax.models.deit import DistilledDeiT
from vitjax.models.mlp_mixer import mlp_mixer
from vitjax.models.poolformer import poolformer
from vitjax.models.pvt_v2 import pvt_v2
from vitjax.models.swin import swin
from vitjax.models.swinv2 import swinv2
from vitjax.models.vit import ViT
from vitjax.models.volo import volo
from vitjax.names import unknown
from vitjax.weights.configs.fields import ACTS, Fields, Model, Options, ratios, same, side


def _either(value: Any) -> Any:
    return value or None


_SIZES = {"img_size": ("image_size", side), "patch_size": "patch_size", "qkv_bias": "qkv_bias",
          "num_heads": "num_heads", "mlp_ratio": "mlp_ratio"}  # fmt: skip
_PLAIN = {
    **_SIZES, "embed_dim": "width", "depth": "depth", "qk_norm": "qk_norm", "pre_norm": "pre_norm",
    "init_values": ("layer_scale_init", _either), "reg_tokens": "num_registers",
    "no_embed_class": ("class_position", lambda v: not v), "class_token": "class_token",
    "act_layer": "act",
}  # fmt: skip
_WINDOWS = {
    **_SIZES,
    "depths": "depths",
    "window_size": "window_size",
    "pretrained_window_sizes": ("pretrained_window_size", lambda v: v if any(v) else 0),
}
_TIMM: dict[Any, dict[str, Any]] = {
    ViT: _PLAIN, DistilledDeiT: _PLAIN, swin: _WINDOWS, swinv2: _WINDOWS,
    pvt_v2: {
        "embed_dims": "dims", "depths": "depths", "num_heads": "num_heads", "linear": "linear",
        "sr_ratios": ("sr_ratio", ratios), "mlp_ratios": "mlp_ratio", "qkv_bias": "qkv_bias",
    },
    volo: {
        **_SIZES, "layers": "depths", "embed_dims": "dims", "stem_hidden_dim": "stem_width",
        "downsamples": "downsample", "post_layers": "post_layers",
    },
    poolformer: {"depths": "depths", "dims": "dims"},
    convnext: {
        "depths": "depths", "dims": "dims", "kernel_sizes": "window_size",
        "ls_init_value": ("layer_scale_init", _either),
        "head_norm_first": ("norm_pooled", lambda v: not v),
    },
    BiT: {"layers": "depths", "width_factor": "width_factor"},
    **{factory: {"img_size": _SIZES["img_size"]} for factory in (coatnet, mlp_mixer, CaiT)},
}  # fmt: skip
"""Factory → argument of timm's class → our option, perhaps with how its value is changed."""
_WITHOUT = ("*drop*", "num_classes", "in_chans", "dynamic_img_size", "strict_img_size",
            "weight_init", "fix_init", "conv_mlp", "head_init_scale")  # fmt: skip
"""Arguments of training, or that the weights say."""


def timm_model(content: Mapping[str, Any], where: str) -> Model:
    """Read timm's `config.json`: architecture, tag, arguments of the model, pooling.

    Raises:
      ValueError: there is no such model here, or it has arguments that ours has not.
    """
    name, _, tag = str(content["architecture"]).partition(".")
    same_names = [known for known in MODELS if known.startswith(SAME_IN_TIMM)]
    if name not in ALIASES and name not in same_names:
        timm = [*(known for known in ALIASES if "/" not in known), *same_names]
        raise ValueError(f"{where}: {unknown('architecture of timm', name, timm)}")
    factory, own = model_spec(name).factory, model_options(name)
    f = Fields(content.get("model_args") or {}, f"model_args of {where}")
    names, options = _TIMM.get(factory, {}), {}
    for key in f.content:
        if any(fnmatch.fnmatchcase(key, pattern) for pattern in _WITHOUT):
            continue
        if key in names and key != "act_layer":
            ours, change = names[key] if isinstance(names[key], tuple) else (names[key], None)
            options[ours] = change(f[key]) if change else f[key]
        elif key == "embed_dim" and factory in (swin, swinv2):
            stages = len(f.content.get("depths", own["depths"]))
            options["dims"] = tuple(f[key] * 2**i for i in range(stages))
        elif key == "act_layer" and "act" in fields(factory):
            options["act"] = f.choice(key, ACTS)
        elif key not in ("global_pool", "fc_norm"):
            raise f.refuse(key, f[key], ", ".join(names) or "those of its name")
    if factory in (ViT, DistilledDeiT):
        _pool_of_timm(content, f, own, options)
    if factory is poolformer:
        options["norm_pooled"] = True
    tag = tag or (content.get("pretrained_cfg") or {}).get("tag")
    if tag and name in ALIASES:  # it may say how the weights want their images
        name = f"{name}.{tag}"
    return name, {k: v for k, v in options.items() if not same(k, own[k], v)}


def _pool_of_timm(content: Mapping[str, Any], f: Fields, own: Options, options: Options) -> None:
    """Convert the pooling and positions of a timm ViT to options."""
    pool = f.content.get("global_pool", content.get("global_pool"))
    if pool == "avg":
        f.only(fc_norm=[None, True, False])
        after = f.content.get("fc_norm")
        token = options.get("class_token", own["class_token"])
        options["class_token"] = (own["pool"] == "token") if token is None else token
        options.update(pool="gap", pool_norm=True if after is None else after)
    elif pool in ("token", "map"):
        f.only(fc_norm=[None, False])
        options["pool"] = pool
    elif pool:
        raise Fields(content, f.where).refuse("global_pool", pool, "token, avg or map")
    if options.get("class_token") is False:
        options.pop("class_position", None)  # none has one
    positions = options.get("class_position", own["class_position"])
    if options.get("num_registers") and positions and options.get("class_token", True) is not False:
        options["register_position"] = True  # there all tokens have one, or none
