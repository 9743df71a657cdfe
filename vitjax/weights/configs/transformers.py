"""Hyperparameters of transformers' `config.json`, converted to ours.

A value that ours cannot express is refused by name. Rates of dropout affect training alone, and are
not read.
"""

from collections.abc import Callable

from vitjax.layers.rope import Rope
from vitjax.weights.configs.fields import ACTS, Fields, Model, Options, nearest, ratios, side


def _encoder(f: Fields) -> Options:
    """Read the options that ViT, DeiT, DINOv2, CLIP and SigLIP have in common."""
    options = dict(
        width=f["hidden_size"],
        depth=f["num_hidden_layers"],
        num_heads=f["num_attention_heads"],
        norm_epsilon=f["layer_norm_eps"],
        image_size=side(f["image_size"]),
        patch_size=f["patch_size"],
    )
    if "intermediate_size" in f.content:
        options["mlp_ratio"] = f["intermediate_size"] / f["hidden_size"]
    if "qkv_bias" in f.content:
        options["qkv_bias"] = f["qkv_bias"]
    return options


def _vit(f: Fields) -> Model:
    return nearest("vit_*", dict(_encoder(f), act=f.choice("hidden_act", ACTS)))


def _deit(f: Fields) -> Model:
    wanted = ["DeiTForImageClassificationWithTeacher", "DeiTModel"]
    for name in f.content.get("architectures") or ():
        if name not in wanted:
            raise f.refuse("architectures", name, " or ".join(wanted))
    options = dict(_encoder(f), act=f.choice("hidden_act", ACTS))
    return nearest("deit_*_distilled", options)


def _dinov2(f: Fields) -> Model:
    options = dict(_encoder(f), layer_scale_init=f["layerscale_value"])
    registers = f["num_register_tokens"] if "num_register_tokens" in f.content else 0
    options |= dict(num_registers=registers, class_position=True)
    width, hidden = f["hidden_size"], int(f["hidden_size"] * f["mlp_ratio"])
    if f["use_swiglu_ffn"]:
        f.read.add("hidden_act")  # the gate has SiLU
        hidden = (hidden * 2 // 3 + 7) // 8 * 8
        options["mlp"] = "swiglu"
    else:
        options["act"] = f.choice("hidden_act", ACTS)
    return nearest("vit_*", dict(options, mlp_ratio=hidden / width))


def _dinov3(f: Fields) -> Model:
    f.only(proj_bias=True, mlp_bias=True, value_bias=f["query_bias"])
    f.only(key_bias=[False, f["query_bias"]])
    shift, jitter, rescale = (f[f"pos_embed_{name}"] for name in ("shift", "jitter", "rescale"))
    rope = Rope(float(f["rope_theta"]), *map(float, (shift or 0, jitter or 1, rescale or 1)))
    options = dict(
        _encoder(f),
        qkv_bias=f["query_bias"],
        key_bias=f["key_bias"],
        num_registers=f["num_register_tokens"],
        layer_scale_init=f["layerscale_value"],
        position=str(rope),
    )
    if f["use_gated_mlp"]:
        f.only(hidden_act="silu")
        return nearest("dinov3_*", dict(options, mlp="swiglu"))
    return nearest("dinov3_*", dict(options, act=f.choice("hidden_act", ACTS)))


def _clip(f: Fields) -> Model:
    options = dict(_encoder(f), act=f.choice("hidden_act", ACTS), pre_norm=True)
    return nearest("vit_*", options)


def _siglip(f: Fields) -> Model:
    f.only(vision_use_head=True)
    return nearest("vit_*", dict(_encoder(f), act=f.choice("hidden_act", ACTS), pool="map"))


def _swin(f: Fields) -> Model:
    f.only(hidden_act="gelu", layer_norm_eps=1e-5)
    depths = f["depths"]
    options = dict(
        dims=tuple(f["embed_dim"] * 2**i for i in range(len(depths))), depths=depths,
        num_heads=f["num_heads"], window_size=f["window_size"], mlp_ratio=f["mlp_ratio"],
        qkv_bias=f["qkv_bias"], patch_size=f["patch_size"], image_size=side(f["image_size"]),
        absolute_position=f["use_absolute_embeddings"],
    )  # fmt: skip
    if "pretrained_window_sizes" not in f.content:
        return nearest("swin_*", options)
    windows = f["pretrained_window_sizes"]
    return nearest("swinv2_*", dict(options, pretrained_window_size=windows if any(windows) else 0))


def _reduced(f: Fields, reductions: str) -> Options:
    """Read the options that PVT, PVT v2 and MiT have in common."""
    # Of their norms those after patches and reductions have 1e-5 here, the others 1e-6.
    f.only(hidden_act="gelu", layer_norm_eps=[1e-6, 1e-5])
    options = dict(
        dims=f["hidden_sizes"],
        depths=f["depths"],
        num_heads=f["num_attention_heads"],
        mlp_ratio=f["mlp_ratios"],
        sr_ratio=ratios(f[reductions]),
    )
    if "qkv_bias" in f.content:
        options["qkv_bias"] = f["qkv_bias"]
    return options


def _pvt(f: Fields) -> Model:
    options = _reduced(f, "sequence_reduction_ratios")
    first = f["patch_sizes"][0]
    patches = (first,) + (2,) * (len(options["dims"]) - 1)
    f.only(patch_sizes=patches, strides=patches)
    options |= dict(patch_size=first, image_size=side(f["image_size"]))
    return nearest("pvt_[!v]*", options)


def _overlapping(f: Fields) -> Options:
    options = _reduced(f, "sr_ratios")
    more = len(options["dims"]) - 1
    f.only(patch_sizes=(7,) + (3,) * more, strides=(4,) + (2,) * more)
    return options


def _pvt_v2(f: Fields) -> Model:
    options = dict(_overlapping(f), linear=f["linear_attention"])
    return nearest("pvt_v2_*", dict(options, image_size=side(f["image_size"])))


def _segformer(f: Fields) -> Model:
    f.only(reshape_last_stage=True)
    name, options = nearest("mit_*", _overlapping(f))
    f.read.add("image_size")  # nothing depends on it
    if "SegformerForSemanticSegmentation" not in (f.content.get("architectures") or ()):
        return name, options
    inside = ", ".join(f"{key}={value!r}" for key, value in options.items())
    backbone = f"{name}({inside})" if inside else name
    return nearest("segformer_*", dict(backbone=backbone, width=f["decoder_hidden_size"]))


def _bit(f: Fields) -> Model:
    f.only(
        layer_type="preactivation", hidden_act="relu", global_padding=None, num_groups=32,
        embedding_dynamic_padding=False, output_stride=32, embedding_size=64,
        hidden_sizes=tuple(256 * 2**i for i in range(len(f["depths"]))),
    )  # fmt: skip
    return nearest("bit_*", dict(depths=f["depths"], width_factor=f["width_factor"]))


def _nat(f: Fields) -> Model:
    f.only(hidden_act="gelu", layer_norm_eps=1e-5, patch_size=4)
    depths, scale = f["depths"], f["layer_scale_init_value"]
    options = dict(
        dims=tuple(f["embed_dim"] * 2**i for i in range(len(depths))),
        depths=depths,
        num_heads=f["num_heads"],
        neighborhood_size=f["kernel_size"],
        mlp_ratio=f["mlp_ratio"],
        qkv_bias=f["qkv_bias"],
        layer_scale_init=scale if scale > 0 else None,
    )
    if "dilations" not in f.content:
        return nearest("nat_*", options)
    return nearest("dinat_*", dict(options, mixer=_dilated(tuple(map(tuple, f["dilations"])))))


def _dilated(dilations: tuple[tuple[int, ...], ...]) -> str:
    """Write each block's dilation as a mixer, as our models do where every other block has one."""
    steps = tuple(([*stage, 1])[1] for stage in dilations)
    if all(
        d == (1, step)[i % 2]
        for stage, step in zip(dilations, steps, strict=True)
        for i, d in enumerate(stage)
    ):
        return f"neighborhood | neighborhood(dilation={steps})"
    return " ; ".join(
        " | ".join(f"neighborhood(dilation={d})" for d in stage) for stage in dilations
    )


_BASE = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, image_size=224)
_VIT = dict(_BASE, intermediate_size=3072, hidden_act="gelu", layer_norm_eps=1e-12, patch_size=16,
            qkv_bias=True)  # fmt: skip
_DINOV2 = dict(_BASE, mlp_ratio=4, hidden_act="gelu", layer_norm_eps=1e-6, patch_size=14,
               qkv_bias=True, layerscale_value=1.0, use_swiglu_ffn=False)  # fmt: skip
_DINOV3: Options = dict(
    hidden_size=384, intermediate_size=1536, num_hidden_layers=12, num_attention_heads=6,
    hidden_act="gelu", layer_norm_eps=1e-5, patch_size=16, image_size=224, query_bias=True,
    key_bias=False, value_bias=True, layerscale_value=1.0, use_gated_mlp=False,
    num_register_tokens=0, rope_theta=100.0, pos_embed_shift=None, pos_embed_jitter=None,
    pos_embed_rescale=2.0,
)  # fmt: skip
_CLIP = dict(
    _BASE, intermediate_size=3072, hidden_act="quick_gelu", layer_norm_eps=1e-5, patch_size=32
)
_SIGLIP = dict(_CLIP, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6, patch_size=16)
_SWIN: Options = dict(
    image_size=224, patch_size=4, embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24),
    window_size=7, mlp_ratio=4.0, qkv_bias=True, use_absolute_embeddings=False,
)  # fmt: skip
_PVT: Options = dict(
    image_size=224, depths=(2, 2, 2, 2), hidden_sizes=(64, 128, 320, 512), qkv_bias=True,
    num_attention_heads=(1, 2, 5, 8), mlp_ratios=(8, 8, 4, 4), patch_sizes=(4, 2, 2, 2),
    sequence_reduction_ratios=(8, 4, 2, 1),
)  # fmt: skip
_PVT_V2: Options = dict(
    image_size=224, depths=(2, 2, 2, 2), hidden_sizes=(32, 64, 160, 256), qkv_bias=True,
    num_attention_heads=(1, 2, 5, 8), mlp_ratios=(8, 8, 4, 4), sr_ratios=(8, 4, 2, 1),
    linear_attention=False,
)  # fmt: skip
_SEGFORMER: Options = dict(
    depths=(2, 2, 2, 2),
    hidden_sizes=(32, 64, 160, 256),
    num_attention_heads=(1, 2, 5, 8),
    mlp_ratios=(4, 4, 4, 4),
    sr_ratios=(8, 4, 2, 1),
    decoder_hidden_size=256,
)
_NAT: Options = dict(
    patch_size=4, embed_dim=64, depths=(3, 4, 6, 5), num_heads=(2, 4, 8, 16), kernel_size=7,
    mlp_ratio=3.0, qkv_bias=True, hidden_act="gelu", layer_norm_eps=1e-5, layer_scale_init_value=0,
)  # fmt: skip
_DILATIONS = ((1, 8, 1), (1, 4, 1, 4), (1, 2, 1, 2, 1, 2), (1, 1, 1, 1, 1))
TRANSFORMERS: dict[str, tuple[Callable[[Fields], Model], Options]] = {
    "vit": (_vit, _VIT),
    "vit_mae": (_vit, _VIT),
    "deit": (_deit, _VIT),
    "dinov2": (_dinov2, _DINOV2),
    "dinov2_with_registers": (_dinov2, dict(_DINOV2, patch_size=16, num_register_tokens=4)),
    "dinov3_vit": (_dinov3, _DINOV3),
    "clip": (_clip, _CLIP),
    "clip_vision_model": (_clip, _CLIP),
    "siglip": (_siglip, _SIGLIP),
    "siglip_vision_model": (_siglip, _SIGLIP),
    "swin": (_swin, _SWIN),
    "swinv2": (_swin, dict(_SWIN, pretrained_window_sizes=(0, 0, 0, 0))),
    "pvt": (_pvt, _PVT),
    "pvt_v2": (_pvt_v2, _PVT_V2),
    "segformer": (_segformer, _SEGFORMER),
    "bit": (_bit, dict(depths=(3, 4, 6, 3), width_factor=1)),
    "nat": (_nat, _NAT),
    "dinat": (_nat, dict(_NAT, dilations=_DILATIONS)),
}
"""Model type of transformers → its reader, and the library's defaults."""
