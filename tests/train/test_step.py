"""One training step on a linear model small enough to compute by hand."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vitjax
from vitjax.task import Keys
from vitjax.tasks.classification import LossConfig, classification
from vitjax.train.optimizer import OptimizerConfig, make_optimizer, trainable_params
from vitjax.train.state import EVERY, create_state, named_leaves, sha256
from vitjax.train.step import make_eval_step, make_train_step


class Linear(nn.Module):
    """Pixels to logits; `rate` drops pixels."""

    rate: float = 0.0

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(images.shape[0], -1)
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        return nn.Dense(3, name="head")(x)


RATE = optax.constant_schedule(0.1)
KEY = jax.random.key(0)


def batch(n: int = 6, mask: list[float] | None = None) -> dict:
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (n, 2, 2, 3)), jnp.uint8),
        "label": jnp.asarray(rng.integers(0, 3, n), jnp.int32),
        "mask": jnp.asarray(mask or [1.0] * n, jnp.float32),
    }


def setup(rate: float = 0.0, ema: bool = False, **options):
    task = classification(Linear(rate), num_classes=3, image_size=2, **options)
    tx = optax.sgd(0.1)
    return task, tx, create_state(task.init(jax.random.key(0)), tx, ema)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_the_gradient_is_that_of_the_mean_loss(loss: str) -> None:
    task, tx, state = setup(loss=LossConfig(loss, label_smoothing=0.1))
    b = batch()
    x = (np.asarray(b["image"], np.float64).reshape(6, -1) / 255 - 0.5) / 0.5
    head = state.params["head"]
    logits = x @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"], np.float64)
    target = np.eye(3)[np.asarray(b["label"])] * 0.9 + 0.1 / 3
    if loss == "softmax":
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        value = -(target * np.log(p)).sum(1).mean()
    else:
        p = 1 / (1 + np.exp(-logits))
        value = -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum(1).mean()
    new, metrics = jax.jit(make_train_step(task, tx, RATE))(state, b, KEY)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    want = np.asarray(head["kernel"]) - 0.1 * x.T @ (p - target) / 6
    np.testing.assert_allclose(new.params["head"]["kernel"], want, atol=1e-6)
    assert int(new.step) == 1


def test_a_masked_sample_does_not_count() -> None:
    task, tx, state = setup()
    step = jax.jit(make_train_step(task, tx, RATE))
    whole = batch(6, [1, 1, 0, 1, 0, 1])
    kept = {k: v[np.array([0, 1, 3, 5])] for k, v in whole.items()}
    (a, metrics), (b, _) = step(state, whole, KEY), step(state, kept, KEY)
    chex.assert_trees_all_close(a.params, b.params, atol=1e-7)
    assert metrics["skipped_images"] == 2


def test_accumulated_parts_are_the_whole_batch() -> None:
    task, tx, state = setup()
    b = batch(6, [1, 1, 0, 1, 1, 1])
    one, _ = jax.jit(make_train_step(task, tx, RATE))(state, b, KEY)
    for parts in (2, 3):
        many, _ = jax.jit(make_train_step(task, tx, RATE, accumulate=parts))(state, b, KEY)
        chex.assert_trees_all_close(one.params, many.params, atol=1e-6)


def test_randomness_is_a_function_of_seed_and_step() -> None:
    task, tx, state = setup(rate=0.5)
    step = jax.jit(make_train_step(task, tx, RATE))
    later, other = state.replace(step=state.step + 1), jax.random.key(8)
    draws = ((state, KEY), (state, KEY), (later, KEY), (state, other))
    a, b, c, d = (sha256(step(s, batch(), key)[0].params) for s, key in draws)
    assert a == b and len({b, c, d}) == 3


def test_the_average_forgets_the_start_quickly() -> None:
    task, tx, state = setup(ema=True)
    step = jax.jit(make_train_step(task, tx, RATE, ema_decay=0.9))
    first, _ = step(state, batch(), KEY)
    want = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, state.params, first.params)
    chex.assert_trees_all_close(first.ema, want, atol=1e-6)
    late, _ = step(first.replace(step=jnp.asarray(1000)), batch(), KEY)
    want = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, first.ema, late.params)
    chex.assert_trees_all_close(late.ema, want, atol=1e-6)
    assert late.variables()["params"] is late.ema


def test_without_warmup_the_average_is_timms() -> None:
    task, tx, state = setup(ema=True)
    step = make_train_step(task, tx, RATE, ema_decay=0.9, ema_warmup=False)
    first, _ = jax.jit(step)(state, batch(), KEY)
    want = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, state.params, first.params)
    chex.assert_trees_all_close(first.ema, want, atol=1e-6)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        x = nn.BatchNorm(momentum=0.9)(images, use_running_average=not train)
        return nn.Dense(3, name="head")(x.reshape(x.shape[0], -1))


def test_the_average_covers_running_statistics() -> None:
    task, tx = classification(Normed(), num_classes=3, image_size=2), optax.sgd(0.1)
    state = create_state(task.init(jax.random.key(0)), tx, ema=True)
    step = make_train_step(task, tx, RATE, ema_decay=0.9, ema_warmup=False)
    first, _ = jax.jit(step)(state, batch(), KEY)
    before, after = state.collections["batch_stats"], first.collections["batch_stats"]
    want = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, before, after)
    chex.assert_trees_all_close(first.variables()["batch_stats"], want, atol=1e-6)
    assert np.abs(after["BatchNorm_0"]["mean"]).max() > 0.01
    plain = create_state(task.init(jax.random.key(0)), tx, ema=False)
    assert plain.variables()["batch_stats"] is plain.collections["batch_stats"]


@pytest.mark.slow
def test_a_sigmoid_loss_of_many_classes_begins_small_with_a_head_bias() -> None:
    model, classes = vitjax.create_model("vit_ti2", 21_843, width=8, depth=1, num_heads=2), 21_843
    b = batch()

    def first_loss(bias: float) -> float:
        task = classification(
            model, num_classes=classes, image_size=2, loss=LossConfig("sigmoid", head_bias=bias)
        )
        variables = task.init(KEY)
        rest = {k: v for k, v in variables.items() if k != "params"}
        return float(task.loss(variables["params"], rest, b, Keys(KEY), None).value.mean())

    np.testing.assert_allclose(first_loss(0.0), classes * np.log(2), rtol=1e-5)
    want = classes * np.log1p(np.exp(-10.0)) + 10.0
    np.testing.assert_allclose(first_loss(-10.0), want, rtol=1e-4)
    assert 10 < want < 12
    headless = vitjax.create_model("vit_ti2", 0, width=8, depth=1, num_heads=2)
    loss = LossConfig(head_bias=-10.0)
    with pytest.raises(ValueError, match=r"loss.head_bias=-10 needs a model with a layer 'head'"):
        classification(headless, num_classes=3, image_size=2, loss=loss).init(KEY)


def test_evaluation_sums_over_real_samples() -> None:
    task, _, state = setup()
    b = batch(5, [1, 1, 1, 0, 0])
    logits = np.asarray(task.predict(state.variables(), b))
    right = (logits.argmax(1) == np.asarray(b["label"]))[:3].sum()
    sums, _ = make_eval_step(task)(state, b)
    assert sums["images"] == 3
    assert sums["top1"] == right


def test_sha256_is_of_the_bytes_in_path_order() -> None:
    import hashlib

    a, b = np.arange(3, dtype=np.float32), np.ones((2, 2), np.float32)
    want = hashlib.sha256(a.tobytes() + b.tobytes()).hexdigest()
    assert sha256({"x": {"z": b, "a": a}}) == want


class TwoLayers(nn.Module):
    """A layer whose gradients are a hundred times those of the head."""

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(images.shape[0], -1)
        large = 100 * nn.Dense(3, kernel_init=nn.initializers.normal(1e-3), name="first")(x)
        return nn.Dense(3, name="head")(x) + large


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_not_trained_takes_no_part(accumulate: int) -> None:
    """Neither in the clipped norm nor in moments or work: the head moves as if it were alone."""
    task = classification(TwoLayers(), num_classes=3, image_size=2)
    variables = task.init(jax.random.key(0))
    shapes = variables["params"]
    only = trainable_params(shapes, (("head/.*", 0.5), (".*", 0.0)))
    same = trainable_params(shapes, freeze=("first/.*",))
    assert only == same and only.paths == {"head/kernel", "head/bias"}

    def run(trainable, rules, params=shapes):
        o = OptimizerConfig(learning_rate_rules=rules, clip_norm=0.01, weight_decay=0.1)
        tx = make_optimizer(o, lambda _: 0.1, params, trainable=trainable)
        state = create_state({"params": params}, tx, False, trainable)
        step = make_train_step(task, tx, RATE, accumulate=accumulate, trainable=trainable)
        compiled = jax.jit(step).lower(state, batch(), KEY).compile()
        for _ in range(2):
            state, metrics = compiled(state, batch(), KEY)
        return state, metrics, compiled

    state, metrics, compiled = run(only, (("head/.*", 0.5), (".*", 0.0)))
    kept = named_leaves(state.params)
    for path, leaf in named_leaves(shapes).items():
        assert (kept[path] == leaf).all() == (path not in only.paths), path
    moments = {k for k in named_leaves(state.opt_state) if "first" in k}
    assert not moments
    _, everything, whole = run(EVERY, ((".*", 0.5),))
    assert float(metrics["grad_norm"]) < 0.02 * float(everything["grad_norm"])
    # By hand: the gradient of the head alone, clipped, in Adam's first two steps.
    x = (jnp.asarray(batch()["image"], jnp.float32).reshape(6, -1) / 255 - 0.5) / 0.5
    large = 100 * (x @ shapes["first"]["kernel"] + shapes["first"]["bias"])
    target = jax.nn.one_hot(batch()["label"], 3)

    def loss(head):
        logits = x @ head["kernel"] + head["bias"] + large
        return optax.softmax_cross_entropy(logits, target).mean()

    head = {"head": shapes["head"]}
    tx = make_optimizer(OptimizerConfig(clip_norm=0.01, weight_decay=0.1), lambda _: 0.05, head)
    own = tx.init(head)
    for _ in range(2):
        updates, own = tx.update({"head": jax.grad(loss)(head["head"])}, own, head)
        head = optax.apply_updates(head, updates)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        dict(state.params["head"]),
        dict(head["head"]),
    )
    cost, all_of_it = (c.cost_analysis()["flops"] for c in (compiled, whole))
    assert cost < 0.9 * all_of_it


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(freeze=("haed/.*",)), "freeze: no parameter matches 'haed/"),
        (dict(freeze=(".*",)), "leave nothing to train"),
    ],
)
def test_what_cannot_be_frozen_is_said(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainable_params({"head": {"bias": jnp.zeros(3)}}, **options)
