"""Schedules at known points, optimizers against hand-computed first steps, rules by path."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden.compare import FOLDER
from vitjax.train.layer_decay import layer_factors
from vitjax.train.optimizer import (
    OptimizerConfig,
    ScheduleConfig,
    fitting_rules,
    make_optimizer,
    make_schedule,
    match_rules,
)

_WARMUP = dict(warmup_steps=100, start_factor=1e-3)
SCHEDULES = {
    "sch_deit": dict(_WARMUP, warmup_prefix=False, hold_steps=20),
    "sch_noprefix": dict(_WARMUP, warmup_prefix=False),
    "sch_swin": _WARMUP,
}
PARAMS = {"a": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}}
GRADS = {"a": {"kernel": jnp.array([0.5, -0.25]), "bias": jnp.array([2.0])}}


def first_step(name: str, **options) -> dict:
    tx = make_optimizer(OptimizerConfig(name, **options), lambda _: 0.1, PARAMS)
    updates, _ = jax.jit(tx.update)(GRADS, tx.init(PARAMS), PARAMS)
    return jax.tree.map(np.asarray, updates)["a"]


@pytest.mark.parametrize(
    ("name", "middle", "end"),
    [
        ("cosine", 0.5, 0.0),
        ("linear", 0.5, 0.0),
        ("polynomial", 0.5**0.9, 0.0),
        ("constant", 1.0, 1.0),
    ],
)
def test_schedules_pass_through_known_points(name: str, middle: float, end: float) -> None:
    s = make_schedule(ScheduleConfig(name, 2.0, warmup_steps=10), 110)
    assert s(0) == 0.0
    np.testing.assert_allclose(s(5), 1.0)
    np.testing.assert_allclose(s(10), 2.0)
    np.testing.assert_allclose(s(60), 2.0 * middle, atol=1e-6)
    np.testing.assert_allclose(s(110), 2.0 * end, atol=1e-6)


def test_reciprocal_square_root_then_cooldown() -> None:
    s = make_schedule(
        ScheduleConfig("rsqrt", 1.0, warmup_steps=100, cooldown_steps=100, timescale=300), 1000
    )
    np.testing.assert_allclose(s(100), 1.0)
    np.testing.assert_allclose(s(100 + 300), 1 / np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(s(950), 1 / np.sqrt(1 + 850 / 300) / 2, rtol=1e-5)
    np.testing.assert_allclose(s(1000), 0.0, atol=1e-7)


def test_end_factor_is_where_the_decay_ends() -> None:
    s = make_schedule(ScheduleConfig("cosine", 2.0, end_factor=0.1), 100)
    np.testing.assert_allclose(s(100), 0.2, rtol=1e-6)


def test_the_steps_of_detectors() -> None:
    """Twelve epochs of 100 steps: a tenth of the rate after the eighth and eleventh."""
    config = ScheduleConfig(
        "step",
        2.0,
        warmup_steps=50,
        start_factor=1e-3,
        warmup_prefix=False,
        milestones=(8 / 12, 11 / 12),
    )
    s = make_schedule(config, 1200)
    np.testing.assert_allclose(s(0), 2e-3, rtol=1e-4)
    found = [float(s(t)) for t in (50, 799, 801, 1099, 1101)]
    np.testing.assert_allclose(found, [2, 2, 0.2, 0.2, 0.02], rtol=1e-6)


def test_the_schedule_by_epoch_is_timms() -> None:
    # timm's CosineLRScheduler(t_initial=30, warmup_t=5, warmup_lr_init=1e-6, lr_min=1e-5) with a
    # rate of 1e-3, read once an epoch of 7 steps.
    config = ScheduleConfig(
        "cosine", 1e-3, warmup_steps=35, start_factor=1e-3, end_factor=0.01, warmup_prefix=False,
        hold_steps=7,
    )  # fmt: skip
    s = make_schedule(config, 210)
    for epoch in range(30):
        want = 1e-6 + epoch * (1e-3 - 1e-6) / 5
        if epoch >= 5:
            want = 1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + np.cos(np.pi * epoch / 30))
        for step in (7 * epoch, 7 * epoch + 6):
            np.testing.assert_allclose(s(jnp.int32(step)), want, rtol=1e-5)


def test_schedules_are_timms_and_swins() -> None:
    """600 steps of timm's CosineLRScheduler: DeiT's by epoch, by step without and with prefix."""
    with np.load(FOLDER / "losses.npz") as file:
        wanted = {name: file[name] for name in file.files if name.startswith("sch_")}
    for name, options in SCHEDULES.items():
        s = make_schedule(ScheduleConfig("cosine", 1e-3, end_factor=0.01, **options), 600)
        found = [float(s(jnp.int32(step))) for step in range(0, 600, 7)]
        np.testing.assert_allclose(found, wanted[name][::7], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_without_prefix_the_decay_begins_at_step_0(name: str) -> None:
    config = ScheduleConfig(name, 2.0, cooldown_steps=10)
    whole = make_schedule(config, 110)
    s = make_schedule(dataclasses.replace(config, warmup_steps=10, warmup_prefix=False), 110)
    assert s(5) == 1.0
    for step in (10, 57, 99, 105, 110):
        np.testing.assert_allclose(s(step), whole(step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("constant", dict(end_factor=0.1), "'constant' does not read end_factor=0.1"),
        ("cosine", dict(timescale=7), "'cosine' does not read timescale=7"),
        ("cosine", dict(start_factor=0.1), "need a warm-up"),
        ("cosine", dict(hold_steps=0), "hold_steps is at least 1"),
        ("cosine", dict(gamma=0.2), "'cosine' does not read gamma=0.2"),
        ("step", dict(milestones=(0.9, 0.5)), "in rising order"),
    ],
)
def test_what_a_schedule_does_not_read_is_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_schedule(ScheduleConfig(name, 1.0, **options), 100)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sgd", dict(b2=0.99), "'sgd' does not read b2=0.99; of its own it reads b1, nesterov"),
        ("adafactor", dict(eps=1e-6), "'adafactor' does not read eps=1e-06"),
        ("lion", dict(eps=1e-6), "'lion' does not read eps=1e-06"),
        ("adamw", dict(nesterov=True), "'adamw' does not read nesterov=True"),
        ("sgd", dict(nesterov=True, b1=0.0), "needs a momentum"),
        ("sgd", dict(layer_decay=1.5), "above 0 and at most at 1"),
        ("sgd", dict(layer_decay=0.5), "needs a model of blocks; this one has the parts a"),
    ],
)
def test_what_an_optimizer_does_not_read_is_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_optimizer(OptimizerConfig(name, **options), lambda _: 0.1, PARAMS)


def test_nesterov_looks_ahead_as_in_pytorch() -> None:
    tx = make_optimizer(OptimizerConfig("sgd", nesterov=True), lambda _: 1.0, PARAMS)
    state, velocity = tx.init(PARAMS), 0.0
    for _ in range(3):
        updates, state = tx.update(GRADS, state, PARAMS)
        velocity = 0.9 * velocity + 2.0
        np.testing.assert_allclose(updates["a"]["bias"], [-(2.0 + 0.9 * velocity)], rtol=1e-6)


def test_adafactor_factors_kernels_of_heads_and_its_beta2_stops() -> None:
    params = {"qkv": {"kernel": jnp.ones((64, 3, 2, 32)), "bias": jnp.ones((64,))}}
    tx = make_optimizer(OptimizerConfig("adafactor", mu_dtype="bfloat16"), lambda _: 1.0, params)
    sizes = {leaf.shape for leaf in jax.tree.leaves(tx.init(params)) if leaf.ndim}
    assert (64, 3, 2) in sizes and (3, 2, 32) in sizes  # the rows' and the columns' means
    # A gradient of 1 until a late step, then of 10: its square gets the weight 1 - b2.
    for b2 in (0.999, 0.9):
        tx = make_optimizer(
            OptimizerConfig("adafactor", b1=0.0, b2=b2), lambda _: 1.0, {"b": jnp.ones(1)}
        )
        state = jax.tree.map(
            lambda x: jnp.asarray(20_000, x.dtype) if x.dtype == jnp.int32 else jnp.ones_like(x),
            tx.init({"b": jnp.ones(1)}),
        )
        update, _ = tx.update({"b": jnp.full(1, 10.0)}, state, {"b": jnp.ones(1)})
        np.testing.assert_allclose(update["b"], -10 / np.sqrt(b2 + (1 - b2) * 100), rtol=1e-4)


def tree(*paths: str) -> dict:
    import flax.traverse_util as t

    return t.unflatten_dict({p: jnp.zeros((2, 3)) for p in paths}, sep="/")


def test_layers_before_the_head_learn_more_slowly() -> None:
    """Depth 2: patches are layer 0, blocks 1 and 2, the head 3 (timm's and MAE's param groups)."""
    vit = tree("pos_embed", "patch_embed/proj/kernel", "block_0/norm1/bias", "block_1/mlp/fc1/bias",
               "norm/scale", "head/kernel")  # fmt: skip
    for style, norm in (("timm", 0.5), ("mae", 1.0)):
        assert layer_factors(vit, 0.5, style) == {
            "pos_embed": 0.125,
            "patch_embed": {"proj": {"kernel": 0.125}},
            "block_0": {"norm1": {"bias": 0.25}},
            "block_1": {"mlp": {"fc1": {"bias": 0.5}}},
            "norm": {"scale": norm},
            "head": {"kernel": 1.0},
        }


def test_what_stands_before_a_stage_belongs_to_its_first_block() -> None:
    pyramid = tree("stem/proj/kernel", "stage_0/block_0/a", "stage_0/block_1/a", "norm_0/scale",
                   "downsample_1/reduction/kernel", "stage_1/block_0/a", "post_0/a",
                   "aux_head/bias", "norm/scale", "head/bias")  # fmt: skip
    f = layer_factors(pyramid, 0.5)
    assert f["stem"]["proj"]["kernel"] == 0.5**5
    assert [f["stage_0"][b]["a"] for b in ("block_0", "block_1")] == [0.5**4, 0.5**3]
    assert f["norm_0"]["scale"] == 0.5**3
    assert f["downsample_1"]["reduction"]["kernel"] == f["stage_1"]["block_0"]["a"] == 0.5**2
    assert f["post_0"]["a"] == f["norm"]["scale"] == 0.5
    assert f["head"]["bias"] == f["aux_head"]["bias"] == 1.0


def test_scanned_blocks_get_a_factor_for_each_layer() -> None:
    f = layer_factors({"blocks": {"a": jnp.zeros((3, 5, 7))}, "head": {"bias": jnp.zeros(2)}}, 0.5)
    np.testing.assert_allclose(f["blocks"]["a"].ravel(), [0.125, 0.25, 0.5])
    assert f["blocks"]["a"].shape == (3, 1, 1) and f["head"]["bias"] == 1.0


def test_a_familys_rules_may_name_what_a_model_lacks() -> None:
    rules = ((".*/rpb", 1.0), (".*/kernel", 1.0), (".*", 0.0))
    assert fitting_rules(PARAMS, rules) == rules[1:]


def test_a_schedule_longer_than_the_run_is_refused() -> None:
    with pytest.raises(
        ValueError, match="warmup_steps=80 and cooldown_steps=30 exceed the run's 100"
    ):
        make_schedule(ScheduleConfig("cosine", 1.0, warmup_steps=80, cooldown_steps=30), 100)


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
    tx = make_optimizer(OptimizerConfig("sgd"), lambda _: 1.0, PARAMS)
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
    tx = make_optimizer(OptimizerConfig("adamw", mu_dtype="bfloat16"), lambda _: 0.1, PARAMS)
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(tx.init(PARAMS)) if leaf.ndim}
    assert dtypes == {"bfloat16", "float32"}


def test_rules_take_each_parameter_once_and_refuse_gaps_and_idle_patterns() -> None:
    tree = match_rules(PARAMS, ((".*bias", 2.0), ("a/.*", 3.0)), "weight_decay_rules")
    assert tree == {"a": {"kernel": 3.0, "bias": 2.0}}
    with pytest.raises(ValueError, match="no rule matches a/kernel; end the list with"):
        match_rules(PARAMS, ((".*bias", 2.0),), "weight_decay_rules")
    with pytest.raises(ValueError, match=r"the rule '\.\*gamma' is never used"):
        match_rules(PARAMS, ((".*gamma", 2.0), (".*", 1.0)), "weight_decay_rules")
