"""Every option that adds parameters has names in PyTorch's files, and comes back from them.

One walk over all families: each option that changes a model's parameters, and all mixers.
"""

import math
import pathlib
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

import vitjax
from vitjax import weights
from vitjax.attention import MIXERS, VIDEO_MIXERS
from vitjax.attention.projections import Projections
from vitjax.layers.spec import fields
from vitjax.models import model_spec
from vitjax.models.deit import DistilledDeiT
from vitjax.models.encoder import stack_layers
from vitjax.models.protocols import input_shape
from vitjax.models.setr import MultiLevelViT
from vitjax.models.vit import ViT

# Maps of 8×8 and 4×4: larger than what is pooled or routed there.
_PYRAMID = dict(dims=(8, 16), depths=(1, 1), num_heads=(1, 2), image_size=32)
_HEADS = dict(dims=(8, 16), depths=(2, 2), head_dim=8, image_size=32, n_win=4)
_COATNET = dict(
    dims=(8, 16),
    depths=(1, 3),
    stem_width=(4, 8),
    head_dim=8,
    image_size=32,
    mixer="mbconv ; full(position_bias=True)",
)
_VIT = dict(width=16, depth=1, num_heads=2, image_size=32)
_DENSE = dict(
    backbone="swin_tiny(dims=(8,8,8,8),depths=(1,1,1,1),num_heads=(1,1,1,1))", image_size=32
)
_SETR = dict(backbone="vit_s16(width=16,depth=2,num_heads=2)", image_size=32, width=8)
_MMSEG = dict(decoder="mmsegmentation")
_MAPS = [dict(pool="gap", mixer=name) for name in MIXERS if name != "full"]
_ALL_MIXERS = [
    dict(mixer=" | ".join(half), depths=(len(half), 1))
    for half in (list(MIXERS)[::2], list(MIXERS)[1::2])
]
"""All mixers, in two models: each has half of them in its first stage."""
_OF_VIT = [
    dict(pool="gap", position="sincos2d"), dict(pool="map", representation_size=8),
    dict(class_position=False, num_registers=4), dict(num_registers=3, register_position=True),
    dict(pool="gap", class_token=True, pool_norm=True), dict(pre_norm=True, act="quick_gelu"),
    dict(mlp="swiglu", norm_epsilon=1e-5), dict(qk_norm=True, layer_scale_init=0.1),
    dict(position="rope", num_registers=2, key_bias=False), dict(key_bias=False, scan=True),
    dict(qkv_bias=False), dict(pool="map", scan=True), dict(depth=2, exits=(0,)),
    *_MAPS, dict(pool="gap", mixer="dwconv", scan=True),
]  # fmt: skip
_OF_SWIN = [
    dict(absolute_position=True, patch_norm=False),
    dict(qkv_bias=False, dense=True),
    *_ALL_MIXERS,
]
_OF_BRA = [
    dict(param_routing=True, diff_routing=True, mul_weight="soft", layer_scale_init=0.1),
    dict(kv_downsample="avgpool", kv_size=1, pre_norm=False, lepe_kernel_size=3),
    dict(cpe_kernel_size=0, dense=True),
    *_ALL_MIXERS,
]
CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "vit_s16": (_VIT, _OF_VIT),
    "deit_tiny_distilled": (
        _VIT, [dict(qk_norm=True, position="sincos2d"), dict(representation_size=8, scan=True)]
    ),
    "bit_r50x1": (dict(depths=(1, 1), image_size=32), [dict(width_factor=2)]),
    "resnet50": (
        dict(depths=(2, 1), image_size=32), [dict(bottleneck=False, width=8), dict(pool=False)]
    ),
    "resnet50_nonlocal": (
        dict(depths=(2, 1), image_size=32, inserted=((0, 1), ())),
        [dict(mixer="non_local(pairwise='concatenation', normalized=True) | full"),
         dict(mixer="non_local(pairwise='gaussian', sub_sample=False)"),
         dict(bottleneck=False, width=8, pool=False)],
    ),
    "efficientnet_b0": (
        dict(width_factor=0.1, depth_factor=0.3, image_size=32),
        [dict(padding="symmetric", norm_epsilon=1e-5)],
    ),
    "coatnet_0": (
        _COATNET,
        [dict(pool="average", conv_pool="average", conv_act="silu", widen_first=False),
         dict(hidden_head=False, qkv_bias=False), *_ALL_MIXERS],
    ),
    "swin_tiny": (_PYRAMID, _OF_SWIN),
    "swinv2_tiny_w8": (_PYRAMID, _OF_SWIN[:-1]),
    "pvt_tiny": (
        _PYRAMID | dict(sr_ratio=(2, 1)),
        [dict(qkv_bias=False), dict(dense=True)]
        + [dict(pool="gap", **mixers) for mixers in _ALL_MIXERS],
    ),
    "pvt_v2_b0": (_PYRAMID, [dict(linear=True), dict(qkv_bias=False, sr_ratio=2), *_ALL_MIXERS]),
    "mit_b0": (_PYRAMID, [dict(sr_ratio=2, qkv_bias=False), _ALL_MIXERS[0]]),
    "dat_tiny": (
        _PYRAMID | dict(mixer="deformable"),
        [dict(position_bias=("fixed", "log"), cpe_kernel_size=3, layer_scale_init=0.1),
         dict(position_bias=("conv", "none"), conv_mlp=True, overlap=True),
         dict(offsets=False, dense=True), dict(offset_groups=(1, 2), kernel_size=(3, 3)),
         dict(mixer="sra | deformable", sr_ratio=2), *_ALL_MIXERS],
    ),
    "ranet_cifar_3scale": (
        dict(scales=(1, 2), growth_factors=(2, 1), bottleneck_factors=(2, 1), blocks=1,
             block_step=1, stem_width=4, growth=4, layers=2, image_size=16),
        [dict(stem="imagenet"), dict(layer_mode="growing", reduction=0.25, compress=0.5)],
    ),
    "biformer_tiny": (
        _HEADS | dict(mixer="bra"),
        [dict(qk_dim=(8, 16), mlp_dwconv=True, overlap=False), *_OF_BRA],
    ),
    "debiformer_tiny": (
        _HEADS | dict(mixer="bra | dbra"),
        [dict(table_size=(4, 2), offset_channels=2, offset_groups=(1, 2)), *_OF_BRA],
    ),
    "volo_d1": (
        dict(dims=(8, 16), depths=(1, 1), num_heads=(1, 2), stem_width=8, image_size=32,
             downsample=(True, False), mixer="outlook ; full"),
        [dict(post_layers=("ca",), qkv_bias=True, kernel_size=5),
         dict(pool="gap", token_label=False), *_ALL_MIXERS],
    ),
    "mixer_s32": (
        _VIT | dict(patch_size=16),
        [dict(mixer="token_mlp(token_ratio=0.25) | full", depth=2, qkv_bias=False, qk_norm=True),
         dict(scan=True), dict(mixer="convnext")],
    ),
    "efficientformer_l1": (
        _PYRAMID | dict(depths=(1, 2), num_attention=1),
        [dict(layer_scale_init=None, late_mixer="full | efficientformer(key_dim=4)"),
         dict(num_attention=2, late_mixer="window"), dict(num_attention=0), *_ALL_MIXERS],
    ),
    "ghostnet_100": (
        dict(image_size=32, hidden_width=8, stages=(((3, 8, 8, False, 1), (5, 8, 8, True, 2)),)),
        [dict(width_factor=0.5)],
    ),
    "cait_xxs24": (
        dict(width=16, depth=2, num_heads=2, image_size=32),
        [dict(class_depth=1, qkv_bias=False), dict(layer_scale_init=None),
         dict(mixer="full", qk_norm=True, key_bias=False), dict(mlp="swiglu", norm_epsilon=1e-5),
         dict(act="quick_gelu")],
    ),
    "mobile_former_52m": (
        dict(image_size=32, hidden_width=8, stem_width=4, lite=(8, 4, 1), num_tokens=2, token_dim=8,
             neck_ratio=2, blocks=((2, 8, 8), (1, 16, 8))),
        [dict(groups=2), dict(mixer="full(qk_norm=True)"), dict(mixer="token_mlp"),
         dict(layout="slwang9353")],
    ),
    "container_light": (
        _PYRAMID | dict(mixer="dwconv ; container"),
        [dict(cpe_kernel_size=0, qkv_bias=False, kernel_size=3, gate_init=1.0), *_ALL_MIXERS],
    ),
    "poolformer_s12": (
        _PYRAMID, [dict(layer_scale_init=None, pool_size=5), dict(dense=True), _ALL_MIXERS[0]],
    ),
    "convnext_tiny": (
        _PYRAMID, [dict(layer_scale_init=None, window_size=5), dict(dense=True), _ALL_MIXERS[1]],
    ),
    "nat_mini": (
        _PYRAMID,
        [dict(layer_scale_init=0.1, qkv_bias=False, neighborhood_size=3), dict(dense=True),
         *_ALL_MIXERS],
    ),
    "segformer_b0": (_DENSE | dict(width=8), [_MMSEG]),
    "setr_naive": (_SETR, [dict(auxiliary_layers=(0,), auxiliary_convs=2), _MMSEG]),
    "setr_pup": (_SETR, [dict(auxiliary_layers=(0,), auxiliary_convs=2), _MMSEG]),
    "setr_mla": (_SETR, [dict(auxiliary=False), _MMSEG]),
    "refinenet": (_DENSE | dict(width=8, coarse_width=8), []),
    "uformer_t": (
        dict(width=8, depths=(1,) * 9, num_heads=(1,) * 9, image_size=32),
        [dict(modulator=True, qkv_bias=False, mixer="window | neighborhood")],
    ),
    "upernet": (_DENSE | dict(width=8), [dict(auxiliary_width=0), dict(pool_sizes=(1, 2))]),
    "swin3d_tiny": (
        _PYRAMID | dict(num_frames=4),
        [dict(qkv_bias=False, patch_norm=False, patch_frames=1, window_size_t=3),
         dict(mixer=" | ".join(VIDEO_MIXERS), depths=(len(VIDEO_MIXERS), 1))],
    ),
    "vivit_b16x2": (
        _VIT | dict(num_frames=4, patch_frames=2),
        [dict(qk_norm=True, layer_scale_init=0.1, act="gelu"), dict(key_bias=False, scan=True),
         dict(mlp="swiglu", act="gelu", norm_epsilon=1e-5), dict(qkv_bias=False, mixer="full")],
    ),
    "semantic_fpn": (_DENSE | dict(width=8, neck_width=8), [dict(fusion="iaff")]),
    "retinanet": (
        _DENSE | dict(width=32, depth=1),
        [dict(group_norm=True, extra_from_backbone=True, extra_levels=1),
         dict(finest=4, octave_scales=1, ratios=(1.0,))],
    ),
    "mask_rcnn": (
        _DENSE | dict(width=8, box_width=8),
        [dict(with_masks=False), dict(box_bins=3, ratios=(1.0,))],
    ),
    "detr": (_DENSE | dict(width=8, num_heads=2, encoder_depth=1, decoder_depth=1, num_queries=3),
             []),
    "deformable_detr": (
        _DENSE | dict(width=32, num_heads=2, encoder_depth=1, decoder_depth=2, num_queries=3),
        [dict(refine=True, num_points=1), dict(refine=True, two_stage=True),
         dict(finest=32, extra_levels=0)],
    ),
}  # fmt: skip
"""Model → tiny sizes, and options one by one."""
SIZES = frozenset({
    "width", "depth", "dims", "depths", "num_heads", "head_dim", "mlp_ratio", "patch_size",
    "image_size", "num_classes", "stem", "backbone", "stem_width", "coarse_width", "mla_width",
    "encoder_depth", "decoder_depth", "num_queries", "neck_width", "layers",
    "agent_mlp_ratio", "window_size", "num_attention", "hidden_width",
})  # fmt: skip
"""Options that change sizes or numbers of what every model of a family has."""
WITHOUT_PARAMETERS = frozenset({
    "drop_rate", "attn_drop_rate", "drop_path_rate", "auxiliary_weight", "remat", "scan", "dtype",
    "scale", "param_init", "decay_rules", "layers_of_features", "stride", "padding", "inset",
    "offset_range_factor", "neighborhood_size", "n_win", "pretrained_window_size",
    "frozen_statistics", "norm_pooled", "epsilon",
    "anchor_scale", "positive", "negative", "box_loss", "alpha", "gamma", "score_threshold",
    "candidates", "nms_threshold", "limit", "rpn_ious", "rpn_samples", "rpn_candidates", "rpn_nms",
    "proposals", "box_beta", "iou", "samples", "positive_share", "mask_bins", "sampling_ratio",
    "aligned", "loss_weights", "no_object",
})  # fmt: skip


Shapes = dict[tuple[str, ...], tuple[int, ...]]


def random_variables(name: str, **options: Any) -> tuple[dict[str, Any], Shapes]:
    """Variables of a model, and the shapes that PyTorch's layers would have."""
    linear = set()

    def note(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, nn.Dense | nn.DenseGeneral | Projections):
            linear.add(context.module.path)
        return next_fun(*args, **kwargs)

    model = vitjax.create_model(name, **({"num_classes": 5} if _classes(name) else {}), **options)
    unrolled = weights.unrolled(model)
    image = jax.ShapeDtypeStruct(input_shape(model), np.float32)
    with nn.intercept_methods(note):
        shapes = jax.eval_shape(unrolled.init, jax.random.key(0), image)

    def theirs(path: tuple[str, ...], leaf: Any) -> tuple[int, ...]:
        shape = leaf.shape
        if path[-1] == "bias":
            return (math.prod(shape),)
        if path[-1] == "position_bias":
            return (math.prod(shape[:2]), shape[2])
        if path[-1] == "attention_biases":  # of positions in a row
            return shape[0], math.prod(shape[1:])
        if path[-1] == "gate" and name.startswith("container"):  # an array of one number
            return (1,)
        if path[-1] != "kernel":
            return shape
        if path[-2] == "fc_0" and len(shape) == 4:  # of a flattened map
            return (shape[3], math.prod(shape[:3]))
        if path[1:-1] in linear:
            return (math.prod(shape[1:]), shape[0])
        return (*shape[:-3:-1], *shape[:-2])

    rng = np.random.default_rng(0)
    flat: dict[Any, Any] = traverse_util.flatten_dict(shapes)
    arrays = {p: rng.standard_normal(s.shape).astype(np.float32) for p, s in flat.items()}
    variables = traverse_util.unflatten_dict(arrays)
    if unrolled is not model:
        variables = {"params": stack_layers(variables["params"])}
    return variables, {path: theirs(path, leaf) for path, leaf in flat.items()}


def _classes(name: str) -> bool:
    """Whether a model has classes: image restoration has none."""
    return "num_classes" in fields(model_spec(name).factory)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A linear layer is a 1×1 convolution in some published code."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def assert_same(ours: Any, theirs: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_walk_has_every_option() -> None:
    covered: dict[Any, set[str]] = {}
    for name, (base, cases) in CASES.items():
        found = covered.setdefault(model_spec(name).factory, set())
        found |= base.keys() | {key for case in cases for key in case}
    # That of SETR-MLA, which no name of the menu has, is a ViT.
    assert weights.FAMILIES.keys() - covered.keys() == {MultiLevelViT}
    for factory, options in covered.items():
        if factory is DistilledDeiT:
            options = options | covered[ViT]
        missing = set(fields(factory)) - options - SIZES - WITHOUT_PARAMETERS
        assert not missing, f"{factory.__name__}: no case here has {sorted(missing)}"


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_options_there_and_back(name: str, tmp_path: pathlib.Path) -> None:
    base, cases = CASES[name]
    classes = 5 if _classes(name) else None
    given, options = {}, base
    for case in [{}, *cases]:
        options = base | case
        given, shapes = random_variables(name, **options)
        state_dict = weights.to_torch(name, given, **options)
        assert_same(weights.from_torch(name, state_dict, classes, **options), given)
        squeezed = sorted(
            v.shape[:2] if v.shape[2:] == (1, 1) else v.shape for v in state_dict.values()
        )
        wanted = sorted(s[:2] if s[2:] == (1, 1) else s for s in shapes.values())
        assert squeezed == wanted, case
    if name not in FROM_A_FOLDER:
        return
    # The last one, as `config.init` reads it; some rows hold only beside other leaves of its tree.
    with ocp.StandardCheckpointer() as writer:
        writer.save(tmp_path / "orbax", given)
    model, loaded = vitjax.load_pretrained(name, tmp_path / "orbax", **options)
    assert_same(loaded, given)
    assert getattr(model, "num_classes", None) == classes


FROM_A_FOLDER = ("vit_s16", "swin_tiny", "dat_tiny", "volo_d1", "setr_pup", "uformer_t", "upernet")


@pytest.mark.slow
def test_a_file_of_a_model_with_options(tmp_path: pathlib.Path) -> None:
    options: dict[str, Any] = dict(_VIT, pool="map")
    given, _ = random_variables("vit_s16", **options)
    state_dict = weights.to_torch("vit_s16", given, **options)
    assert state_dict["attention_pool.key.weight"].shape == (16, 16)
    save_file(state_dict, tmp_path / "model.safetensors")
    _, loaded = vitjax.load_pretrained("vit_s16", tmp_path / "model.safetensors", **options)
    assert_same(loaded, given)
    del state_dict["attention_pool.key.weight"]
    save_file(state_dict | {"stray": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="2 keys differ") as error:
        vitjax.load_pretrained("vit_s16", tmp_path / "model.safetensors", **options)
    assert "missing: attention_pool.key.weight (for params/attention_pool/key/kernel" in str(
        error.value
    )
    assert "unused: stray (3,)" in str(error.value)
