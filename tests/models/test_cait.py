"""CaiT and DeiT III against timm's numbers, and class attention's two blocks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.golden import load_golden
from tests.golden.compare import FOLDER
from vitjax import weights
from vitjax.abstract import abstract_init
from vitjax.attention.talking_heads import talking_heads_weights

SMALL: dict[str, Any] = dict(width=48, depth=3, num_heads=4, image_size=48)
COUNTS = {  # of timm 1.0, at 224 pixels
    "cait_xxs24": 11_956_264, "cait_xxs36": 17_299_720, "cait_s24": 46_916_200,
    "cait_xs24": 26_670_088 - 380 * 288, "cait_s36": 68_366_632 - 380 * 384,
    "cait_m36": 271_221_352 - 380 * 768, "cait_m48": 356_460_520 - 588 * 768,
    "deit3_small": 22_059_496, "deit3_medium": 38_849_512, "deit3_base": 86_585_320,
    "deit3_large": 304_374_760, "deit3_huge": 632_126_440,
}  # fmt: skip


@pytest.mark.golden
def test_a_small_cait_is_the_official_one() -> None:
    """Three blocks of width 48 at 48 pixels: logits, and the norm of each parameter's gradient.

    The weights are drawn by load_golden's rules, from seeds of their names.
    """
    case = np.load(FOLDER / "cait_small_48.npz")
    shapes = weights.abstract_variables(vitjax.create_model("cait_xxs24", 11, **SMALL))
    ours = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes)
    theirs = weights.to_torch("cait_xxs24", ours, **SMALL)
    rules = dict(zip(case["names"].tolist(), case["rules"].tolist(), strict=True))
    assert theirs.keys() == rules.keys()
    drawn = {key: load_golden.weight(key, theirs[key].shape, rule) for key, rule in rules.items()}
    variables = weights.from_torch("cait_xxs24", drawn, 11, **SMALL)
    rng = [np.random.Generator(np.random.PCG64(seed)) for seed in (7, 8)]
    images = rng[0].standard_normal((2, 3, 48, 48)).astype(np.float32).transpose(0, 2, 3, 1)
    probe = rng[1].standard_normal((2, 11)).astype(np.float32)
    model: Any = vitjax.create_model("cait_xxs24", 11, **SMALL)

    def loss(params: Any) -> Any:
        logits = model.apply({"params": params}, jnp.asarray(images))
        return jnp.sum(logits * probe), logits

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    with jax.default_matmul_precision("highest"):
        (_, logits), grads = step(variables["params"])
    np.testing.assert_allclose(logits, case["logits"], rtol=0, atol=5e-6)
    norms = weights.to_torch("cait_xxs24", {"params": jax.device_get(grads)}, **SMALL)
    for key, norm in zip(case["names"].tolist(), case["norms"].tolist(), strict=True):
        found = float(np.linalg.norm(norms[key].astype(np.float64)))
        np.testing.assert_allclose(found, norm, rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_timms(name: str) -> None:
    params = weights.abstract_variables(vitjax.create_model(name, scan=True))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == COUNTS[name]


def test_heads_that_are_not_mixed_are_plain_attention() -> None:
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.standard_normal((2, 5, 3, 4)), jnp.float32) for _ in "qk")
    plain = jax.nn.softmax(jnp.einsum("bnhd,bmhd->bnmh", q, k) / 2, axis=2)
    found = talking_heads_weights(q, k, lambda x: x, lambda x: x)
    np.testing.assert_allclose(found, plain, atol=1e-6)
    turned = talking_heads_weights(q, k, lambda x: x[..., ::-1], lambda x: x[..., ::-1])
    np.testing.assert_allclose(turned, plain, atol=1e-6)


def test_every_block_has_the_same_rate_of_stochastic_depth() -> None:
    model: Any = vitjax.create_model("cait_xxs24", drop_path_rate=0.25, depth=3)
    assert model.path_rates() == (0.25,) * 3
    x = jnp.zeros((1, 64, 96, 3))
    shapes = abstract_init(model.init, jax.random.key(0), x)
    (features,) = jax.eval_shape(lambda v: model.apply(v, x, method="features"), shapes)
    assert features.shape == (1, 4, 6, 192)


def test_deit3_takes_timms_names() -> None:
    model: Any = vitjax.create_model("deit3_small_patch16_384")
    assert model.image_size == 384 and not model.class_position
    assert vitjax.create_model("cait_m48_448").image_size == 448
