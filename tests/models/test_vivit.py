"""ViViT: transformers' numbers, sizes, positions of other clips, weights of images."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.drawn import random_variables
from tests.golden.compare import check_case
from vitjax import weights
from vitjax.weights.libraries import rename
from vitjax.weights.transformers import VIT

GOLDEN: dict[str, Any] = dict(
    width=96, depth=3, num_heads=4, num_frames=8, image_size=64, num_classes=50
)
SMALL: dict[str, Any] = dict(
    width=16, depth=2, num_heads=2, patch_size=4, num_frames=4, image_size=12
)


def split_qkv(dumped: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The projections to q, k and v one by one, as transformers has them."""
    found = dict(dumped)
    for key in [key for key in dumped if ".attn.qkv." in key]:
        for part, array in zip("qkv", np.split(found.pop(key), 3), strict=True):
            found[key.replace(".attn.qkv.", f".attn.{part}.")] = array
    return found


@pytest.mark.golden
@pytest.mark.usefixtures("optimized")
def test_vivit_is_that_of_transformers() -> None:
    check_case(
        "vivit_small_8x64x64",
        "vivit_b16x2",
        {"vivit.embeddings.patch_embeddings": "patch_embed", "vivit.layernorm": "norm"},
        rename=lambda key: rename(key, VIT.rules),
        export=split_qkv,
        **GOLDEN,
    )


def test_size_is_the_official_one() -> None:
    params = weights.abstract_variables(vitjax.create_model("vivit_b16x2"))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 88_954_000


def test_clips_of_another_size_interpolate_positions() -> None:
    model: Any = vitjax.create_model("vivit_b16x2", 5, **SMALL)
    variables = random_variables(model)
    state = weights.to_torch("vivit_b16x2", variables, **SMALL)
    longer: dict[str, Any] = {**SMALL, "image_size": (16, 12)}
    loaded = weights.from_torch("vivit_b16x2", state, 5, **longer)
    assert loaded["params"]["pos_embed"].shape == (1, 1 + 2 * 4 * 3, 16)
    clip = jnp.asarray(np.random.default_rng(1).standard_normal((1, 4, 16, 12, 3), np.float32))
    wide: Any = vitjax.create_model("vivit_b16x2", 5, **longer)
    ours, theirs = (
        m.apply(v, clip, method="embed") for m, v in ((model, variables), (wide, loaded))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_clips_that_do_not_divide_are_refused() -> None:
    model = vitjax.create_model("vivit_b16x2", **SMALL)
    for shape, message in (
        ((1, 3, 12, 12, 3), "A clip of 3 frames cannot be cut into tubelets of 2"),
        ((1, 4, 13, 12, 3), "cannot be cut into patches of 4×4"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))


def test_weights_of_images_begin_it() -> None:
    """Tubelets read their middle frame; positions repeat over time; the rest is the image's."""
    sizes = {k: v for k, v in SMALL.items() if k != "num_frames"}
    flat: Any = vitjax.create_model("vit_b16", 5, **sizes, act="gelu_tanh")
    variables = random_variables(flat)
    state = weights.to_torch("vit_b16", variables, **sizes, act="gelu_tanh")
    params = weights.from_torch("vivit_b16x2", state, 5, **SMALL)["params"]
    kernel = params["patch_embed"]["proj"]["kernel"]
    np.testing.assert_array_equal(kernel[1], variables["params"]["patch_embed"]["proj"]["kernel"])
    assert not kernel[0].any()
    places = variables["params"]["pos_embed"]
    np.testing.assert_allclose(params["pos_embed"][:, 1:10], places[:, 1:])
    np.testing.assert_allclose(params["pos_embed"][:, 10:], places[:, 1:])
    one: Any = vitjax.create_model("vivit_b16x2", 5, **SMALL | dict(num_frames=2))
    loaded = weights.from_torch("vivit_b16x2", state, 5, **SMALL | dict(num_frames=2))
    image = jnp.asarray(np.random.default_rng(1).standard_normal((1, 12, 12, 3), np.float32))
    clip = jnp.stack([7 * image, image], axis=1)
    ours = one.apply(loaded, clip, method="embed")
    theirs, _ = flat.apply(variables, image, method="embed")
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    blocks = (
        {k: v for k, v in tree["params"].items() if k not in ("patch_embed", "pos_embed")}
        for tree in (loaded, variables)
    )
    jax.tree.map(np.testing.assert_array_equal, *blocks)
