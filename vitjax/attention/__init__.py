"""Menus of token mixers (MIXERS, VIDEO_MIXERS) and the parser of the strings that configs use."""

from collections.abc import Mapping
from typing import Any

from vitjax.attention.bi_level_routing import BiLevelRoutingAttention
from vitjax.attention.container import ContainerMixer
from vitjax.attention.convnext import ConvNeXtMixer
from vitjax.attention.deformable import DeformableAttention
from vitjax.attention.deformable_bi_level_routing import DeformableBiLevelRoutingAttention
from vitjax.attention.dwconv import DepthwiseConvMixer
from vitjax.attention.efficientformer import EfficientFormerAttention
from vitjax.attention.full import FullAttention
from vitjax.attention.light import LightAttention
from vitjax.attention.msdeform import MultiScaleDeformableAttention
from vitjax.attention.neighborhood import NeighborhoodAttention
from vitjax.attention.nonlocal_block import NonLocal
from vitjax.attention.outlook import OutlookAttention
from vitjax.attention.pooling import Pooling
from vitjax.attention.spatial_reduction import SpatialReductionAttention
from vitjax.attention.talking_heads import TalkingHeadsAttention
from vitjax.attention.token_mlp import TokenMlp
from vitjax.attention.window import WindowAttention
from vitjax.attention.window3d import WindowAttention3d
from vitjax.attention.window_cosine import WindowCosineAttention
from vitjax.attention.window_modulated import ModulatedWindowAttention
from vitjax.layers.spec import Spec, fields, spec
from vitjax.names import parse_call, unknown

MIXERS: dict[str, Spec] = {
    "full": spec(FullAttention),
    "sra": spec(SpatialReductionAttention, sr_ratio=(8, 4, 2, 1)),
    "linear_sra": spec(SpatialReductionAttention, pooled_size=7),
    "outlook": spec(OutlookAttention),
    "dwconv": spec(DepthwiseConvMixer),
    "pooling": spec(Pooling),
    "full_lepe": spec(FullAttention, lepe_kernel_size=5),
    "bra": spec(BiLevelRoutingAttention, topk=(1, 4, 16, None)),
    "dbra": spec(
        DeformableBiLevelRoutingAttention,
        topk=(4, 8, 16, None),
        stride=(8, 4, 2, 1),
        kernel_size=(9, 7, 5, 3),
    ),
    "deformable": spec(DeformableAttention, stride=(8, 4, 2, 1), kernel_size=(9, 7, 5, 3)),
    "msdeform": spec(MultiScaleDeformableAttention),
    "convnext": spec(ConvNeXtMixer),
    "container": spec(ContainerMixer),
    "neighborhood": spec(NeighborhoodAttention),
    "non_local": spec(NonLocal),
    "light": spec(LightAttention),
    "talking_heads": spec(TalkingHeadsAttention),
    "token_mlp": spec(TokenMlp),
    "efficientformer": spec(EfficientFormerAttention),
    "window": spec(WindowAttention),
    "window_cosine": spec(WindowCosineAttention),
    "window_modulated": spec(ModulatedWindowAttention, modulator=True),
}
"""Name → mixer with its paper's defaults; a tuple means one value per stage."""

VIDEO_MIXERS: dict[str, Spec] = {
    "full": MIXERS["full"],
    "window3d": spec(WindowAttention3d),
    "bra3d": spec(BiLevelRoutingAttention, n_win_t=4, topk=(4, 16, 64, None)),
    "dbra3d": spec(
        DeformableBiLevelRoutingAttention,
        n_win_t=4,
        topk=(16, 32, 64, None),
        stride=(8, 4, 2, 1),
        stride_t=2,
        kernel_size=(9, 7, 5, 3),
        offset_channels=3,
    ),
    "non_local": MIXERS["non_local"],
}
"""The menu of clips `[B, T, H, W, C]`. There are `n_win_t` times as many regions as in a map, and
each sees as many times more of them."""

Mixers = tuple[tuple[Spec, ...], ...]
"""One tuple per stage, of the mixers through which its blocks cycle."""


def parse_mixers(text: str, num_stages: int, menu: Mapping[str, Spec] = MIXERS) -> Mixers:
    """Parse a mixer string such as "window | window(shift=3) ; full" into specs per stage.

    `|` separates mixers that blocks alternate, `;` separates stages; a single stage serves all.

    Values are Python literals; they replace the menu's defaults. A model that changes those of its
    own mixers gives its own menu.

    Raises:
      ValueError: the text does not parse, names no mixer or hyperparameter, or has another number
        of stages.
    """
    stages = [[_parse_one(mixer, menu) for mixer in stage.split("|")] for stage in text.split(";")]
    if len(stages) == 1:
        stages *= num_stages
    if len(stages) != num_stages:
        raise ValueError(
            f"Mixers {text!r} describe {len(stages)} stages, and the model has {num_stages}; write "
            f"one stage for all, "
            f"or {num_stages} separated by ';'."
        )
    return tuple(tuple(s.at(i) for s in stage) for i, stage in enumerate(stages))


def takes_sequences(mixer: Spec) -> bool:
    """Return whether a mixer accepts `[B, N, C]`, as its `takes_sequences` declares.

    If all mixers of a model do, its tokens stay a sequence: on TPUs the rows of a 14×14 map are
    padded to 16.
    """
    declared = getattr(mixer.factory, "takes_sequences", None)
    return declared is not None and declared(**dict(mixer.kwargs))


def block_parts(mixer: Spec) -> dict[str, Any]:
    """Return the block hyperparameters that a mixer overrides, as its `block_parts` declares.

    A mixer that is a complete branch, with norm and MLP inside, removes them from its block.
    """
    return getattr(mixer.factory, "block_parts", {})


def fill_mixers(mixers: Mixers, **options: Any) -> Mixers:
    """Set the options of the model on each mixer that accepts them and leaves them unset.

    `create_model` refuses an option that a user sets and no mixer takes.
    """
    return tuple(tuple(mixer.offer(**options) for mixer in stage) for stage in mixers)


def _parse_one(text: str, menu: Mapping[str, Spec]) -> Spec:
    name = text.partition("(")[0].strip()
    if name not in menu:
        raise ValueError(unknown("token mixer", name, menu))
    call = parse_call(text)
    if call is None:
        raise ValueError(
            f"Token mixer {text.strip()!r} does not parse; write a name, or a name with literal "
            f"values: 'window(shift=3)'."
        )
    known = fields(menu[name].factory)
    for key in call[1]:
        if key not in known:
            raise ValueError(unknown(f"hyperparameter of {name!r}", key, known))
    if widths := {"width", "heads_width"} & call[1].keys():
        raise ValueError(
            f"Token mixer {text.strip()!r}: a mixer gives as many channels as its block has, which "
            f"the model's own sizes say; leave {' and '.join(sorted(widths))} out."
        )
    return menu[name].replace(**call[1])
