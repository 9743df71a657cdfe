"""Schedules at known points, optimizers against hand-computed first steps, rules by path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.train.optimizer import make_optimizer, make_schedule, match_rules

PARAMS = {"a": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}}
GRADS = {"a": {"kernel": jnp.array([0.5, -0.25]), "bias": jnp.array([2.0])}}


def first_step(name: str, **options) -> dict:
    tx = make_optimizer(name, lambda _: 0.1, PARAMS, **options)
    updates, _ = jax.jit(tx.update)(GRADS, tx.init(PARAMS), PARAMS)
    return jax.tree.map(np.asarray, updates)["a"]


@pytest.mark.parametrize(
    ("name", "middle", "end"), [("cosine", 0.5, 0.0), ("linear", 0.5, 0.0), ("constant", 1.0, 1.0)]
)
def test_schedules_pass_through_known_points(name: str, middle: float, end: float) -> None:
    s = make_schedule(name, learning_rate=2.0, steps=110, warmup_steps=10)
    assert s(0) == 0.0
    np.testing.assert_allclose(s(5), 1.0)
    np.testing.assert_allclose(s(10), 2.0)
    np.testing.assert_allclose(s(60), 2.0 * middle, atol=1e-6)
    np.testing.assert_allclose(s(110), 2.0 * end, atol=1e-6)


def test_reciprocal_square_root_then_cooldown() -> None:
    s = make_schedule(
        "rsqrt", learning_rate=1.0, steps=1000, warmup_steps=100, cooldown_steps=100, timescale=300
    )
    np.testing.assert_allclose(s(100), 1.0)
    np.testing.assert_allclose(s(100 + 300), 1 / np.sqrt(2), rtol=1e-6)
    start = 1 / np.sqrt(1 + 800 / 300)
    np.testing.assert_allclose(s(950), start / 2, rtol=1e-5)
    np.testing.assert_allclose(s(1000), 0.0, atol=1e-7)


def test_end_factor_is_where_the_decay_ends() -> None:
    s = make_schedule("cosine", learning_rate=2.0, steps=100, end_factor=0.1)
    np.testing.assert_allclose(s(100), 0.2, rtol=1e-6)


def test_a_schedule_longer_than_the_run_is_refused() -> None:
    with pytest.raises(
        ValueError, match="warmup_steps=80 and cooldown_steps=30 exceed the run's 100"
    ):
        make_schedule("cosine", learning_rate=1.0, steps=100, warmup_steps=80, cooldown_steps=30)


def test_adamw_steps_by_the_learning_rate_and_decays_apart() -> None:
    step = first_step(
        "adamw", weight_decay=0.5, weight_decay_rules=((".*kernel", 1.0), (".*", 0.0))
    )
    np.testing.assert_allclose(step["kernel"], [-0.1 * (1 + 0.5), 0.1 * (1 + 1.0)], rtol=1e-5)
    np.testing.assert_allclose(step["bias"], [-0.1], rtol=1e-5)


def test_adam_regularises_through_the_gradient() -> None:
    # The gradient of the second weight, -0.25 + 0.5 · -2, keeps its sign; Adam's first step has
    # size 1.
    step = first_step("adam", weight_decay=0.5)
    np.testing.assert_allclose(step["kernel"], [-0.1, 0.1], rtol=1e-5)


def test_sgd_lion_and_adafactor_step_as_defined() -> None:
    np.testing.assert_allclose(first_step("sgd")["kernel"], [-0.05, 0.025], rtol=1e-6)
    step = first_step("sgd", weight_decay=0.5)
    np.testing.assert_allclose(step["kernel"], [-0.1 * (0.5 + 0.5), 0.1 * (0.25 + 1.0)], rtol=1e-6)
    np.testing.assert_allclose(first_step("lion")["kernel"], [-0.1, 0.1], rtol=1e-6)
    # Unfactored: g / sqrt(g²), of root mean square 1; the undebiased momentum takes a tenth of it.
    np.testing.assert_allclose(first_step("adafactor")["kernel"], [-0.01, 0.01], rtol=1e-4)


def test_sgd_momentum_accumulates() -> None:
    tx = make_optimizer("sgd", lambda _: 1.0, PARAMS, b1=0.9)
    state = tx.init(PARAMS)
    for expected in (1.0, 1.9, 2.71):
        updates, state = tx.update(GRADS, state, PARAMS)
        np.testing.assert_allclose(updates["a"]["bias"], [-2.0 * expected], rtol=1e-6)


def test_clipping_scales_the_whole_gradient() -> None:
    norm = np.sqrt(0.5**2 + 0.25**2 + 2.0**2)
    step = first_step("sgd", clip_norm=norm / 4)
    np.testing.assert_allclose(step["bias"], [-0.1 * 2.0 / 4], rtol=1e-5)


def test_learning_rate_rules_scale_single_parameters() -> None:
    step = first_step("sgd", learning_rate_rules=(("a/bias", 0.0), (".*", 0.5)))
    np.testing.assert_allclose(step["kernel"], [-0.025, 0.0125], rtol=1e-6)
    assert step["bias"] == 0.0


def test_the_first_moment_may_be_bfloat16() -> None:
    tx = make_optimizer("adamw", lambda _: 0.1, PARAMS, mu_dtype="bfloat16")
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(tx.init(PARAMS)) if leaf.ndim}
    assert dtypes == {"bfloat16", "float32"}


def test_rules_take_each_parameter_once_and_refuse_gaps_and_idle_patterns() -> None:
    tree = match_rules(PARAMS, ((".*bias", 2.0), ("a/.*", 3.0)), "weight_decay_rules")
    assert tree == {"a": {"kernel": 3.0, "bias": 2.0}}
    with pytest.raises(ValueError, match="no rule matches a/kernel; end the list with"):
        match_rules(PARAMS, ((".*bias", 2.0),), "weight_decay_rules")
    with pytest.raises(ValueError, match=r"no parameter takes the rule '\.\*gamma'"):
        match_rules(PARAMS, ((".*gamma", 2.0), (".*", 1.0)), "weight_decay_rules")
