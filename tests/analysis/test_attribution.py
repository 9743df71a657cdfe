"""Grad-CAM, gradient-weighted rollout, integrated gradients: cases by hand, targets of families."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.analysis.small import FAMILIES, fast_first, small
from vitjax.analysis.attention import capture, unrolled
from vitjax.analysis.attribution import (
    find_target,
    gradcam,
    gradient_rollout,
    integrated_gradients,
)
from vitjax.analysis.receptive_field import effective_receptive_field, side_of_share

TARGETS = {  # module, and whether its input is read
    "vit_ti16": ("block_1/mixer", True),
    "vit_ti16_reg4": ("norm", False),
    "r_vit_ti16": ("block_0/mixer", True),
    "deit_tiny_distilled": ("block_1/mixer", True),
    "cait_xxs24": ("post_1/mixer", True),
    "swin_tiny": ("norm", False),
    "swinv2_tiny_w8": ("norm", False),
    "pvt_tiny": ("stage_1/block_0/mixer", True),
    "pvt_v2_b0": ("norm_1", False),
    "pvt_v2_b2_li": ("norm_1", False),
    "dat_tiny": ("norm", False),
    "dat_pp_tiny": ("norm", False),
    "biformer_tiny": ("norm", False),
    "debiformer_tiny": ("norm", False),
    "volo_d1": ("post_1/mixer", True),
    "coatnet_0": ("norm", False),
    "efficientformer_l1": ("norm", False),
    "mobile_former_26m": ("neck", False),
    "container": ("norm", False),
    "resnet50_nonlocal": ("stage_3", False),
    "segformer_b0": (None, None),
    "setr_naive": (None, None),
    "uformer_t": (None, None),
}


class Toy(nn.Module):
    """A patch embedding, its mean, and a linear head."""

    strides = (2,)

    @nn.compact
    def features(self, images: jax.Array, train: bool = False) -> tuple[jax.Array]:
        return (nn.Conv(3, (2, 2), (2, 2), use_bias=False, name="stem")(images),)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        return nn.Dense(4, name="head")(self.features(images)[0].mean(axis=(1, 2)))


@pytest.fixture(scope="module")
def toy() -> tuple[Any, Any, jax.Array]:
    images = jax.random.normal(jax.random.key(0), (2, 6, 8, 3))
    return Toy(), Toy().init(jax.random.key(1), images), images


@pytest.mark.parametrize("kind", ["gradcam", "layercam"])
def test_class_activation_of_a_mean_and_a_linear_head(toy, kind: str) -> None:
    """The gradient of a feature is its weight in the head over the number of positions."""
    model, variables, images = toy
    features = model.apply(variables, images, method="features")[0]
    weights = np.asarray(variables["params"]["head"]["kernel"])[:, [1, 3]].T / 12  # [B, c]
    if kind == "layercam":
        weights = np.maximum(weights, 0)
    heat = np.maximum(np.einsum("bhwc,bc->bhw", features, weights), 0)
    expected = heat.repeat(2, axis=1).repeat(2, axis=2)
    found = gradcam(model, variables, images, np.array([1, 3]), kind=kind)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert expected.max() > 0.01


def test_integrated_gradients_of_a_linear_model_are_the_terms_of_its_sum(toy) -> None:
    model, variables, images = toy
    classes = jnp.array([1, 3])

    def score(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(model.apply(variables, x), classes[:, None], axis=1).sum()

    expected = (jax.grad(score)(images) * (images - 0.5)).sum(axis=-1)
    found = integrated_gradients(model, variables, images, classes, baseline=0.5, steps=3)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", fast_first(FAMILIES, ("vit_ti16", "swin_tiny", "uformer_t")))
def test_every_family_has_a_target(name: str) -> None:
    expected, of_input = TARGETS[name]
    model, variables, images = small(name)
    if expected is None:
        with pytest.raises(ValueError, match="choose a classifier"):
            gradcam(model, variables, images)
        return
    target = find_target(*unrolled(model, variables), images)
    assert ("/".join(target.path), target.of_input) == (expected, of_input)


@pytest.mark.slow
def test_attributions_of_a_vit() -> None:
    """Integrated gradients add up to the logit's difference; the others have their limits."""
    model, variables, images = small("vit_ti16", depth=1)
    heat = integrated_gradients(model, variables, images, np.array([0, 2]), steps=64)
    logits = np.asarray(model.apply(variables, images) - model.apply(variables, 0 * images))
    np.testing.assert_allclose(heat.sum(axis=(1, 2)), logits[[0, 1], [0, 2]], rtol=0.02)

    # One layer: the class token's row of attention times its gradient, by central differences.
    found = gradient_rollout(model, variables, images, np.array([0, 2]))[:, ::8, ::8]
    path = ("block_0", "mixer", "attend", "weights")
    rows = np.asarray(capture(model, variables, images)["block_0"].rows.weights)

    @jax.jit
    def score(offset: jax.Array) -> jax.Array:
        tree: Any = offset
        for key in reversed(path):
            tree = {key: tree}
        logits, _ = model.apply({**variables, "offsets": tree}, images, mutable=["intermediates"])
        return logits[jnp.arange(2), jnp.array([0, 2])]

    for y, x in ((0, 0), (1, 3), (2, 4)):
        step = np.zeros(rows.shape, np.float32)
        total = np.zeros(2)
        for head in range(2):
            at = (slice(None), head, 0, 1 + 5 * y + x)
            step[at] = 0.05
            slope = np.asarray(score(step) - score(-step)) / 0.1
            step[at] = 0
            total += np.maximum(slope * rows[at], 0) / 2
        np.testing.assert_allclose(found[:, y, x], total, rtol=0.02, atol=2e-5)
    assert found.max() > 0

    early = gradcam(model, variables, images, layer="patch_embed", kind="layercam")
    assert early.shape == (2, 24, 40) and early.max() > 0
    with pytest.raises(ValueError, match="did you mean 'patch_embed'"):
        gradcam(model, variables, images, layer="patch_embe")
    with pytest.raises(ValueError, match="Unknown kind of map 'cam'"):
        gradcam(model, variables, images, kind="cam")
    with pytest.raises(ValueError, match="at least 1 step"):
        integrated_gradients(model, variables, images, steps=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin_tiny", "debiformer_tiny", "cait_xxs24", "volo_d1"])
def test_gradient_rollout_of_other_mixers(name: str) -> None:
    model, variables, images = small(name)
    heat = gradient_rollout(model, variables, images)
    assert heat.shape == images.shape[:3] and np.isfinite(heat).all()
    assert (heat.min(axis=(1, 2)) >= 0).all() and (heat.max(axis=(1, 2)) > 0).all()


def test_a_receptive_field_without_mixing_is_one_patch() -> None:
    model, variables, images = small("vit_ti16", mixer="window(window_size=1)", pool="gap")
    field = effective_receptive_field(model, variables, images)
    expected = np.zeros((24, 40), bool)
    expected[8:16, 16:24] = True  # the middle one of 3×5 patches of 8×8
    assert (field > 0).sum() == 64 and (field > 0)[expected].all()
    assert field.sum() == pytest.approx(1, abs=1e-5)
    assert side_of_share(field, 0.999999) == 8
    with pytest.raises(ValueError, match="has 1 maps, 0 to 0"):
        effective_receptive_field(model, variables, images, level=1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        side_of_share(field, 2.0)


def test_half_of_a_uniform_field_is_a_square() -> None:
    assert side_of_share(np.full((9, 9), 1 / 81), 0.5) == 7  # 25 are too few, 49 of 81 enough
    assert side_of_share(np.full((8, 8), 1 / 64), 0.25) == 4
