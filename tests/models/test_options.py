"""Hyperparameters that a user sets and nothing would read: they are refused."""

from typing import Any

import pytest

import vitjax
from vitjax.attention import MIXERS
from vitjax.models import MODELS, model_options

IGNORED: list[tuple[str, dict[str, Any], str]] = [
    ("swin_tiny", dict(mixer="dbra", window_size=12), "window_size=12"),
    ("biformer_tiny", dict(mixer="full", n_win=8, mul_weight="soft"), "n_win=8"),
    ("biformer_tiny", dict(mixer="bra(n_win=4)", n_win=8), "n_win=8"),
    ("swinv2_tiny_w8", dict(mixer="full", pretrained_window_size=8), "pretrained_window_size=8"),
    ("pvt_v2_b0", dict(mixer="full", sr_ratio=2), "sr_ratio=2"),
    ("dat_tiny", dict(mixer="window", stride=2), "stride=2"),
    ("volo_d1", dict(mixer="full", kernel_size=5), "kernel_size=5"),
    ("vit_s16", dict(mixer="pooling", pool="gap", qkv_bias=False), "qkv_bias=False"),
    ("vit_s16", dict(mixer="pooling", pool="gap", attn_drop_rate=0.1), "attn_drop_rate=0.1"),
    ("swin_tiny", dict(mixer="convnext", mlp_ratio=2.0), "mlp_ratio=2.0"),
    ("mixer_s16", dict(qk_norm=True), "qk_norm=True"),
]


@pytest.mark.parametrize(("name", "options", "ignored"), IGNORED)
def test_what_no_part_takes_is_refused(name: str, options: dict[str, Any], ignored: str) -> None:
    with pytest.raises(ValueError, match="changes nothing") as error:
        vitjax.create_model(name, **options)
    assert str(error.value).startswith(ignored)


def test_the_error_names_who_would_take_it() -> None:
    with pytest.raises(ValueError, match=r"Token mixers with one: bra, dbra\."):
        vitjax.create_model("biformer_tiny", mixer="full", n_win=8)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("swin_tiny", dict(window_size=8, image_size=16)),  # cut to the map, as the default is
        ("swin_base_384", dict(mixer="dbra")),  # the variant's own window is nobody's wish
        ("volo_d1", dict(pool="gap", token_label=False)),  # neither goes without the other
        ("swin_tiny", dict(mixer="pooling", num_heads=(1, 2, 4, 8))),  # context
        ("swin_tiny", dict(mixer="dbra", window_size=7)),  # the default, said aloud
        ("vit_s16", dict(qk_norm=True, attn_drop_rate=0.1)),
    ],
)
def test_what_is_taken_is_not_refused(name: str, options: dict[str, Any]) -> None:
    vitjax.create_model(name, **options)


@pytest.mark.parametrize("name", MODELS)
def test_every_variant_takes_its_own_hyperparameters(name: str) -> None:
    own = {k: v for k, v in MODELS[name].kwargs if k in model_options(name)}
    vitjax.create_model(name, **own)


def test_a_mixer_knows_what_it_is_given() -> None:
    with pytest.raises(ValueError, match="did you mean 'window_size'"):
        MIXERS["window"].default(window_siz=8)
    assert MIXERS["pooling"].default(num_heads=3) == MIXERS["pooling"]
