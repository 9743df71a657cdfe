"""open_clip's `open_clip_config.json`, of which the tower of images is read."""

from collections.abc import Mapping
from typing import Any

from vitjax.weights.configs.fields import Fields, Model, Options, nearest, side
from vitjax.weights.configs.timm import timm_model


def open_clip_model(content: Mapping[str, Any], where: str) -> Model:
    """Read open_clip's `open_clip_config.json`: the tower of images.

    Raises:
      ValueError: it is a convolutional tower, or one that ours cannot express.
    """
    whole = content["model_cfg"]
    defaults: Options = dict(
        layers=12, width=768, head_width=64, mlp_ratio=4.0, patch_size=16, image_size=224
    )
    f = Fields(whole["vision_cfg"], f"vision_cfg of {where}", defaults)
    size = side(f["image_size"])
    if name := f.content.get("timm_model_name"):
        f.only(timm_pool=["", "map", "token"], timm_proj=["", "none", None])
        given = dict(architecture=name, model_args=dict(img_size=size))
        return timm_model(given, f.where)
    f.only(
        pool_type="tok", ls_init_value=None, attentional_pool=False, pos_embed_type="learnable",
        final_ln_after_pool=False, block_type=[None, "default"], qk_norm=False, scale_attn=False,
        scaled_cosine_attn=False, scale_heads=False, scale_attn_inner=False, scale_fc=False,
        input_patchnorm=False, global_average_pool=False,
    )  # fmt: skip
    if not isinstance(f["layers"], int):
        raise f.refuse("layers", f["layers"], "a number, of a transformer's")
    act = Fields(
        f.content.get("act_kwargs") or {}, f"act_kwargs of {where}", {"approximate": "none"}
    )
    norm = Fields(f.content.get("norm_kwargs") or {}, f"norm_kwargs of {where}", {"eps": 1e-5})
    named = act.choice("approximate", {"none": "gelu", "tanh": "gelu_tanh"})
    options = dict(
        width=f["width"], depth=f["layers"], num_heads=f["width"] // f["head_width"],
        mlp_ratio=f["mlp_ratio"], patch_size=f["patch_size"], image_size=size,
        pre_norm=not f.content.get("no_ln_pre", False), norm_epsilon=norm["eps"],
        act="quick_gelu" if whole.get("quick_gelu") else named,
    )  # fmt: skip
    return nearest("vit_*", options)
