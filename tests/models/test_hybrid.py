"""R+ViT against the numbers of the official implementation."""

import jax
import jax.numpy as jnp
import pytest

import vitjax
from tests.drawn import variables_of
from tests.golden.compare import check_case
from vitjax import weights
from vitjax.layers.spec import spec
from vitjax.models.hybrid import ResNetEmbed

STAGES = {
    "patch_embed.backbone": "patch_embed/backbone",
    "patch_embed": "patch_embed",
    "norm": "norm",
    "head": "head",
} | {f"blocks.{i}": f"block_{i}" for i in range(12)}
COUNTS = {  # in millions, as published, but for those that golden/ counts
    "r_vit_ti16": 6.337704,
    "r26_vit_s32": 36.43,
    "r50_vit_b16": 97.890112 + 769 * 1000 / 1e6,
    "r50_vit_l32": 328.99,
}
SMALL = dict(width=32, depth=1, num_heads=2, image_size=64, num_classes=5)


@pytest.mark.golden
@pytest.mark.usefixtures("optimized")
def test_the_root_alone_is_the_official_one() -> None:
    check_case("vit_tiny_r_s16_p8_224", "r_vit_ti16", STAGES)


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_the_hybrid_is_the_official_one() -> None:
    # Ours is a tuple of maps at the backbone, and the case has no head.
    stages = {k: v for k, v in STAGES.items() if k not in ("head", "patch_embed.backbone")}
    check_case("vit_base_r50_s16_224", "r50_vit_b16", stages, grad_rtol=2e-2, num_classes=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", vitjax.list_models("r*_vit_*"))
def test_counts(name: str) -> None:
    params = weights.abstract_variables(vitjax.create_model(name))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    published = COUNTS[name]
    digits = 2 if round(published, 2) == published else 6
    assert round(count / 1e6, digits) == round(published, digits)


@pytest.mark.slow
@pytest.mark.parametrize(("depths", "patch_size"), [((), 32), ((1, 1), 8)])
def test_any_image(depths: tuple[int, ...], patch_size: int) -> None:
    stem = spec(ResNetEmbed, depths=depths)
    model = vitjax.create_model("r50_vit_b16", stem=stem, patch_size=patch_size, **SMALL)
    variables = variables_of(model, jnp.zeros((1, 64, 64, 3)))
    for height, width in ((64, 64), (75, 49)):
        x = jax.random.normal(jax.random.key(2), (2, height, width, 3))
        grad = jax.jit(jax.grad(lambda x: model.apply(variables, x).sum()))(x)
        assert jnp.isfinite(grad).all()
        (tokens,) = jax.eval_shape(lambda x: model.apply(variables, x, method="features"), x)
        p = model.patch_size
        assert tokens.shape == (2, -(-height // p), -(-width // p), 32)


def test_bfloat16() -> None:
    model = vitjax.create_model("r_vit_ti16", **SMALL)
    variables = variables_of(model, jnp.zeros((1, 64, 64, 3)))
    x = jax.random.normal(jax.random.key(2), (2, 64, 64, 3))
    exact = jax.jit(model.apply)(variables, x)
    half = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, x)
    assert half.dtype == jnp.bfloat16
    assert jnp.linalg.norm(half - exact) <= 3e-2 * jnp.linalg.norm(exact)


@pytest.mark.slow
def test_a_patch_covers_whole_pixels_of_the_map() -> None:
    model = vitjax.create_model("r50_vit_b16", patch_size=24, **SMALL)
    with pytest.raises(ValueError, match=r"patch_size=24: .* stride 16.* multiple of 16"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 96, 96, 3)))
