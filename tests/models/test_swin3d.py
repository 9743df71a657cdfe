"""Video Swin: torchvision's numbers, sizes, other mixers, weights of images."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.drawn import random_variables
from tests.golden.compare import check_case
from vitjax import weights
from vitjax.analysis.cost import trace
from vitjax.attention import VIDEO_MIXERS
from vitjax.models.protocols import input_shape
from vitjax.weights.libraries import rename
from vitjax.weights.swin3d import TORCHVISION

STAGES = {"patch_embed": "stem", "norm": "norm"} | {
    f"features.{i}": f"downsample_{(i + 1) // 2}" if i % 2 else f"stage_{i // 2}" for i in range(7)
}
SMALL: dict[str, Any] = dict(
    dims=(8, 16), depths=(2, 1), num_heads=(2, 4), num_frames=4, image_size=24
)
WINDOWS: dict[str, Any] = dict(window_size=3, window_size_t=2)


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_video_swin_is_torchvisions() -> None:
    check_case(
        "swin3d_t_8x64x64",
        "swin3d_tiny",
        STAGES,
        num_frames=8,
        image_size=64,
        rename=lambda key: rename(key, TORCHVISION.rules),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "official"),
    [("swin3d_tiny", 28_158_070), ("swin3d_small", 49_816_678), ("swin3d_base", 88_048_984)],
)
def test_sizes_are_the_official_ones(name: str, official: int) -> None:
    params = weights.abstract_variables(vitjax.create_model(name))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == official


def test_multiply_adds_are_the_official_ones() -> None:
    model = vitjax.create_model("swin3d_tiny", num_frames=8, image_size=64)
    assert trace(model, (1, 8, 64, 64, 3))[1] == 1_906_034_688  # windows of padding included


@pytest.mark.parametrize("mixer", [
    "full", "non_local", "bra3d(n_win=2, n_win_t=2, topk=3) | window3d(window_size=3)",
    "dbra3d(n_win=2, n_win_t=2, topk=3, stride=2, kernel_size=3)",
])  # fmt: skip
def test_other_mixers_are_one_string(mixer: str) -> None:
    model: Any = vitjax.create_model("swin3d_tiny", 5, **SMALL, mixer=mixer)
    clip = jax.ShapeDtypeStruct(input_shape(model), jnp.float32)
    logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), clip)
    assert clip.shape == (1, 4, 24, 24, 3) and logits.shape == (1, 5)


def test_mixers_of_maps_are_not_on_the_menu() -> None:
    with pytest.raises(ValueError, match="did you mean 'window3d'"):
        vitjax.create_model("swin3d_tiny", mixer="window")
    with pytest.raises(ValueError, match=r"takes window_size, .*window3d\."):
        vitjax.create_model("swin3d_tiny", mixer="full", window_size=5)
    assert VIDEO_MIXERS.keys() >= {"window3d", "bra3d", "dbra3d"}


def test_weights_of_images_begin_it() -> None:
    """A clip that stands still has the logits of its frame: what is new in time cancels."""
    sizes = {k: v for k, v in (SMALL | WINDOWS).items() if k not in ("window_size_t", "num_frames")}
    flat = vitjax.create_model("swin_tiny", 5, **sizes)
    variables = random_variables(flat)
    state = weights.to_torch("swin_tiny", variables, **sizes)
    clips = vitjax.create_model("swin3d_tiny", 5, **SMALL, **WINDOWS)
    inflated = weights.from_torch("swin3d_tiny", state, 5, **SMALL, **WINDOWS)
    image = jnp.asarray(np.random.default_rng(1).standard_normal((1, 24, 24, 3), np.float32))
    still = jnp.repeat(image[:, None], 4, axis=1)
    expected = jax.jit(flat.apply)(variables, image)
    np.testing.assert_allclose(jax.jit(clips.apply)(inflated, still), expected, atol=1e-5)
