"""Small models of every family that attends, for images that are odd and not square."""

from collections.abc import Container, Iterable
from typing import Any

import jax
import pytest

import vitjax
from tests.drawn import variables_of
from vitjax.analysis.attention import Capture, capture

ODD = (45, 61)  # maps of 12×16 and 6×8, or 11×15 and 5×7
PATCHES = dict(width=16, depth=2, num_heads=2, patch_size=8, image_size=(24, 40))
ONE: dict[str, Any] = dict(dims=(8, 16), depths=(1, 1), num_heads=(1, 2), image_size=ODD)
TWO: dict[str, Any] = ONE | dict(depths=(2, 1), num_heads=(2, 2))
FAMILIES: dict[str, dict[str, Any]] = {
    "vit_ti16": PATCHES,
    "vit_ti16_reg4": dict(PATCHES, pool="map"),
    "r_vit_ti16": dict(depth=1),
    "deit_tiny_distilled": PATCHES,
    "cait_xxs24": PATCHES,
    "swin_tiny": dict(TWO, window_size=3),
    "swinv2_tiny_w8": dict(ONE, window_size=3),
    "pvt_tiny": dict(ONE, sr_ratio=(4, 1)),
    "pvt_v2_b0": ONE,
    "pvt_v2_b2_li": ONE,
    "dat_tiny": dict(TWO, window_size=3, mixer="window | deformable"),
    "dat_pp_tiny": dict(TWO, neighborhood_size=3, mixer="neighborhood | deformable"),
    "biformer_tiny": dict(dims=(16, 16), depths=(1, 1), head_dim=8, n_win=4,
                          mixer="bra(topk=2) ; bra"),
    "debiformer_tiny": dict(
        dims=(16, 16), depths=(2, 1), head_dim=8, n_win=3, image_size=ODD,
        mixer="bra(topk=2) | dbra(topk=2) ; dbra(topk=None, stride=2)",
    ),
    "volo_d1": dict(dims=(8, 16, 16, 16), depths=(1, 1, 1, 1), num_heads=(2, 2, 2, 2),
                    image_size=(40, 56)),
    "coatnet_0": dict(dims=(8, 8, 8, 8), depths=(1, 1, 1, 1), stem_width=(4, 4), head_dim=4),
    "efficientformer_l1": dict(
        dims=(8, 8, 8, 16), depths=(1, 1, 1, 2), num_heads=(1, 1, 1, 2), num_attention=1,
        image_size=ODD,
    ),
    "mobile_former_26m": dict(
        blocks=((2, 24, 8), (1, 24, 8), (2, 32, 16)), stem_width=4, lite=(8, 4, 1), num_tokens=3,
        token_dim=8, hidden_width=24, groups=2,
    ),
    "container": ONE,
    "resnet50_nonlocal": dict(depths=(1, 1, 1, 1)),
    "uformer_t": dict(width=4, depths=(1,) * 9, window_size=2),
    "segformer_b0": dict(backbone="mit_b0(dims=(8, 16), depths=(1, 1), num_heads=(2, 2))", width=8),
    "setr_naive": dict(backbone="vit_ti16(depth=1)", image_size=(32, 48)),
}  # fmt: skip
"""Name → hyperparameters."""


def small(name: str, **more: Any) -> tuple[Any, Any, jax.Array]:
    """A small model with random parameters, and two images for it."""
    options = FAMILIES[name] | more
    height, width = options.get("image_size", ODD)
    classes = () if name.startswith("uformer") else (5,)
    model = vitjax.create_model(name, *classes, **options)
    images = jax.random.normal(jax.random.key(0), (2, height, width, 3))
    return model, variables_of(model, images), images


def captured(name: str, **more: Any) -> Capture:
    """The attention of a small model."""
    return capture(*small(name, **more))


def fast_first(names: Iterable[str], fast: Container[str] = ("vit_ti16", "swin_tiny")) -> list[Any]:
    """Parameters of a test of which all but a few are slow."""
    return [n if n in fast else pytest.param(n, marks=pytest.mark.slow) for n in names]
