"""DINOv3 (Siméoni et al., arXiv:2508.10104): ViTs that learn without labels, at scale.

New in the network: rotary positions of the patches (`layers/rope.py`), which leave the class token
and four registers as they are. The keys have no bias, and the largest models a gated MLP. The
authors' code, whose license is their own, names these sizes (facebookresearch/dinov3,
hub/backbones.py); there is no head, and ours is as DeiT's. Positions are scaled by up to
`rescale=2.0` in training, as there: pass `position="rope"` for none of it.
"""

from typing import Any

from vitjax.layers.init import NORMAL
from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import DINOV3
from vitjax.models.pyramid import DecayRules
from vitjax.models.vit import VARIANTS as SIZES
from vitjax.models.vit import ViT

DECAY: DecayRules = ((".*/kernel", 1.0), (".*_token", 1.0), (".*", 0.0))
"""All but biases, norms and layer scale, as in the authors' code (train/param_groups.py)."""
SHARED: dict[str, Any] = dict(
    patch_size=16, position="rope(rescale=2.0)", num_registers=4, key_bias=False,
    layer_scale_init=1e-5, norm_epsilon=1e-5, param_init=NORMAL, decay_rules=DECAY,
)  # fmt: skip
_GATED = dict(mlp="swiglu", mlp_ratio=4.0)
VARIANTS: dict[str, dict[str, Any]] = {
    "s16": SIZES["s"],
    "s16plus": dict(SIZES["s"], **_GATED),
    "b16": SIZES["b"],
    "l16": SIZES["l"],
    "h16plus": dict(width=1280, depth=32, num_heads=20, **_GATED),
    "7b16": dict(width=4096, depth=40, num_heads=32, mlp="swiglu", mlp_ratio=2.0, qkv_bias=False),
}

FAMILY = Family(
    models={f"dinov3_{v}": spec(ViT, **SHARED, **kw) for v, kw in VARIANTS.items()},
    weights={ViT: "vit"},
    paper="[DINOv3](https://arxiv.org/abs/2508.10104)",
    code="facebookresearch/dinov3, DINOv3 License",
    source="the repository's README; parameters without a head",
    golden="small ones, as transformers computes them: tokens, gradients; parameters of all",
    published={
        "dinov3_s16": (21, None, None, ""),
        "dinov3_s16plus": (29, None, None, ""),
        "dinov3_b16": (86, None, None, ""),
        "dinov3_l16": (300, None, None, ""),
        "dinov3_h16plus": (840, None, None, ""),
        "dinov3_7b16": (6716, None, None, ""),
    },
    preprocessing={"*": DINOV3},
)
