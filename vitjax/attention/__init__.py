"""The token mixers: MIXERS is the menu, `parse_mixers` reads the strings that configs use."""

import ast
from collections.abc import Mapping
from typing import Any

from vitjax.attention.bi_level_routing import BiLevelRoutingAttention
from vitjax.attention.container import ContainerMixer
from vitjax.attention.convnext import ConvNeXtMixer
from vitjax.attention.deformable import DeformableAttention
from vitjax.attention.deformable_bi_level_routing import DeformableBiLevelRoutingAttention
from vitjax.attention.dwconv import DepthwiseConvMixer
from vitjax.attention.full import FullAttention
from vitjax.attention.neighborhood import NeighborhoodAttention
from vitjax.attention.outlook import OutlookAttention
from vitjax.attention.pooling import Pooling
from vitjax.attention.spatial_reduction import SpatialReductionAttention
from vitjax.attention.window import WindowAttention
from vitjax.attention.window_cosine import WindowCosineAttention
from vitjax.layers.spec import Spec, fields, spec
from vitjax.names import unknown

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
    "convnext": spec(ConvNeXtMixer),
    "container": spec(ContainerMixer),
    "neighborhood": spec(NeighborhoodAttention),
    "window": spec(WindowAttention),
    "window_cosine": spec(WindowCosineAttention),
}
"""Name → mixer with its paper's defaults; a tuple means one value per stage."""

Mixers = tuple[tuple[Spec, ...], ...]
"""One tuple per stage, of the mixers through which its blocks cycle."""


def parse_mixers(text: str, num_stages: int, menu: Mapping[str, Spec] = MIXERS) -> Mixers:
    """Reads "window | window(shift=3) ; full": `|` blocks alternate, `;` next stage; one stage
    alone serves all.

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
    """Whether a mixer takes `[B, N, C]` too, as its `takes_sequences` declares.

    Where all do, tokens stay a sequence: on TPUs the rows of a map of 14×14 are padded to 16.
    """
    declared = getattr(mixer.factory, "takes_sequences", None)
    return declared is not None and declared(**dict(mixer.kwargs))


def fill_mixers(mixers: Mixers, **options: Any) -> Mixers:
    """Give each mixer the options of its model that it has and does not set itself.

    `create_model` refuses an option that a user sets and no mixer takes.
    """
    return tuple(tuple(mixer.offer(**options) for mixer in stage) for stage in mixers)


def _parse_one(text: str, menu: Mapping[str, Spec]) -> Spec:
    name, paren, _ = (text := text.strip()).partition("(")
    name = name.strip()
    if name not in menu:
        raise ValueError(unknown("token mixer", name, menu))
    base = menu[name]
    if not paren:
        return base
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError
        kwargs = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(
            f"Token mixer {text!r} does not parse; write a name, or a name with literal values: "
            f"'window(shift=3)'."
        ) from None
    for key in kwargs:
        if key not in fields(base.factory):
            raise ValueError(unknown(f"hyperparameter of {name!r}", key, fields(base.factory)))
    return base.replace(**kwargs)
