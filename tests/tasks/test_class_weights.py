"""Class weights by hand, by scikit-learn's weighted log-loss, and with labels that are mixed."""

import logging
import warnings
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.utils.class_weight import compute_class_weight

from tests.tasks.test_mixing import batch
from tests.tasks.test_token_labels import Tokens
from tests.train.test_step import KEY, RATE, Linear
from tests.train.test_step import batch as small_batch
from vitjax.data.source import DataInfo
from vitjax.runs import Trained
from vitjax.task import Keys
from vitjax.tasks import mixing
from vitjax.tasks.accuracy import by_class, class_sums, summarize
from vitjax.tasks.class_weights import (
    balanced,
    class_weights,
    effective,
    weigh,
    weights_from_config,
)
from vitjax.tasks.classification import LossConfig, classification
from vitjax.tasks.distillation import Distillation, DistillationConfig
from vitjax.tasks.mixing import Mixing
from vitjax.tasks.token_labels import TokenLabels
from vitjax.train.state import create_state
from vitjax.train.step import make_train_step

NAMES = ("cat", "dog", "elk")
WEIGHTS = (0.25, 1.0, 7.0)
COUNTS = np.array([97, 11, 0, 3])


def test_weights_by_counts():
    labels = np.repeat(np.arange(4), COUNTS)
    found = np.array(balanced(COUNTS))
    known = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose(found[[0, 1, 3]], known, rtol=1e-12)
    assert found[2] == 1
    np.testing.assert_allclose(found[labels].mean(), 1, rtol=1e-12)
    # E_3 = 1 + 0.9 + 0.81 of a class of three, 1 of a class of one.
    by_hand = np.array([1 / 2.71, 1.0]) * 4 / (3 / 2.71 + 1)
    np.testing.assert_allclose(effective(np.array([3, 1]), 0.9), by_hand, rtol=1e-12)
    np.testing.assert_allclose(effective(COUNTS, 0.0), 1, rtol=1e-12)
    np.testing.assert_allclose(effective(COUNTS, 1 - 1e-9), found, rtol=1e-5)


def test_weights_are_given_in_several_ways():
    assert class_weights(None, NAMES, None) == class_weights("", NAMES, None) == ()
    assert class_weights([1, 2.5, 0], NAMES, None) == (1.0, 2.5, 0.0)
    pairs = (("elk", 3), ("cat", 0.5))
    assert class_weights(pairs, NAMES, None) == class_weights(dict(pairs), NAMES, None)
    assert class_weights(pairs, NAMES, None) == (0.5, 1.0, 3.0)
    counts = np.array([6, 3, 1])
    assert class_weights("balanced", NAMES, lambda: counts) == tuple(balanced(counts))
    assert class_weights("effective:0.9", NAMES, lambda: counts) == tuple(effective(counts, 0.9))
    assert class_weights("balanced", NAMES, None) == ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("balance", "Unknown config.loss.class_weights 'balance'; did you mean 'balanced'"),
        ("effective", "did you mean 'effective:0.999'"),
        ("effective:1", "at least 0 and below 1"),
        ("effective:much", "at least 0 and below 1"),
        ("even:0.5", "must be 'balanced', 'effective:0.999', a number for each class"),
        ((1.0, 2.0), "does not fit the 3 classes"),
        ((1.0, -2.0, 1.0), "each 0 or more"),
        ((0.0, 0.0, 0.0), "not all 0"),
        ((1.0, float("nan"), 1.0), "each 0 or more"),
        ((1.0, True, 1.0), "each 0 or more"),
        (2.0, "must be 'balanced'"),
        ((("cat", 1.0), ("doge", 2.0)), "Unknown class in .* 'doge'; did you mean 'dog'"),
        ((("cat", 1.0), ("cat", 2.0)), "lists class 'cat' twice"),
        ((("cat", "much"),), "does not fit the 3 classes"),
    ],
)
def test_other_weights_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        class_weights(value, NAMES, lambda: np.ones(3, int))


def weights(value, info, label_smoothing=0.0, sampling="shuffle", abstract=False):
    return weights_from_config(
        value, info, label_smoothing=label_smoothing, sampling=sampling, abstract=abstract
    )


def test_where_weights_mean_nothing(caplog):
    info = DataInfo(NAMES, "", class_counts=lambda: np.array([6, 3, 1]))
    even = "balanced"
    assert weights(even, info) == tuple(balanced(np.array([6, 3, 1])))
    assert weights(even, info._replace(class_counts=None), abstract=True) == ()
    assert weights(None, info) == ()
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        weights(even, info, sampling="balanced")
    assert "with both they count for more than the others" in caplog.text
    for smoothing, which, message in (
        (0.0, info._replace(multi_label=True), "these images may have several"),
        (
            0.0,
            info._replace(class_counts=None),
            "needs the number of training images of each class",
        ),
        (1.0, info, "at 1 all targets are equal"),
    ):
        with pytest.raises(ValueError, match=message):
            weights(even, which, smoothing)


def step(options, given, accumulate=1):
    task, tx = classification(Linear(), num_classes=3, image_size=2, **options), optax.sgd(0.1)
    state = create_state(task.init(jax.random.key(0)), tx, False)
    logits = task.predict(state.variables(), given)
    made = make_train_step(task, tx, RATE, accumulate=accumulate)
    return *jax.jit(made)(state, given, KEY), np.asarray(logits, np.float64)


@pytest.mark.slow
def test_the_loss_is_scikit_learns_weighted_log_loss():
    given = small_batch(6, [1, 1, 0, 1, 1, 1])
    state, metrics, logits = step(dict(class_weights=WEIGHTS), given)
    kept, labels = np.array([0, 1, 3, 4, 5]), np.asarray(given["label"])
    assert set(labels[kept]) == {0, 1, 2}
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    weight = np.array(WEIGHTS)[labels[kept]]
    known = log_loss(labels[kept], shares[kept], sample_weight=weight)
    np.testing.assert_allclose(metrics["loss"], known, rtol=1e-5)
    parts, _, _ = step(dict(class_weights=WEIGHTS), given, accumulate=3)
    chex.assert_trees_all_close(parts.params, state.params, atol=1e-6)
    tiny = tuple(w * 1e-4 for w in WEIGHTS)  # their scale does not matter
    scaled, metrics, _ = step(dict(class_weights=tiny), given)
    np.testing.assert_allclose(metrics["loss"], known, rtol=1e-5)
    chex.assert_trees_all_close(scaled.params, state.params, atol=1e-6)
    plain, _, _ = step({}, given)
    ones, _, _ = step(dict(class_weights=(1.0,) * 3), given)
    chex.assert_trees_all_close(ones.params, plain.params, atol=1e-7)


def test_labels_are_weighed_before_they_are_smoothed():
    u = np.array([[1, 0, 0, 0], [0.3, 0.7, 0, 0], [0, 0, 1, 0]])
    w = (0.25, 4.0, 0.0, 2.0)
    target, count = weigh(jnp.asarray(0.8 * u + 0.05, jnp.float32), w, 0.2)
    np.testing.assert_allclose(count, [0.25, 0.3 * 0.25 + 0.7 * 4, 0], atol=1e-6)
    np.testing.assert_allclose(target[0], 0.8 * u[0] + 0.05, atol=1e-6)
    share = 0.075 / 2.875
    np.testing.assert_allclose(
        target[1], [0.8 * share + 0.05, 0.8 * (1 - share) + 0.05, 0.05, 0.05], atol=1e-6
    )
    assert np.isfinite(target).all()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_mixed_image_counts_as_its_parts_do(loss, kind):
    """λ w_a L(a) + (1 - λ) w_b L(b), where L has smoothed labels."""
    options: Any = dict(num_classes=3, image_size=4, loss=LossConfig(loss, label_smoothing=0.1))
    mixed = Mixing(**{kind: 1.0}, group_size=1)
    task = classification(Linear(), **options, class_weights=WEIGHTS, mixed=mixed)
    params, given, key = task.init(jax.random.key(0))["params"], batch(), jax.random.key(4)
    found = jax.jit(task.loss)(params, {}, given, Keys(key), None)
    images = (given["image"] / 255 - 0.5) / 0.5
    images, shares = mixing.mix(Keys(key)("mix"), mixed, images, jnp.eye(4), given["mask"])
    logits = np.asarray(Linear().apply({"params": params}, images), np.float64)
    labels, own = np.asarray(given["label"]), np.diag(np.asarray(shares))
    other = labels[[1, 0, 3, 2]]
    assert (labels != other).any() and (own > 0.01).all() and (own < 0.99).any()

    def cost(label):
        target = np.eye(3)[label] * 0.9 + 0.1 / 3
        if loss == "softmax":
            shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            return -(target * np.log(shares)).sum(1)
        shares = 1 / (1 + np.exp(-logits))
        return -(target * np.log(shares) + (1 - target) * np.log(1 - shares)).sum(1)

    w = np.array(WEIGHTS)
    value = own * w[labels] * cost(labels) + (1 - own) * w[other] * cost(other)
    np.testing.assert_allclose(found.value, value, rtol=1e-4)
    np.testing.assert_allclose(found.weight, own * w[labels] + (1 - own) * w[other], rtol=1e-4)


def test_a_teachers_part_counts_as_the_image_does():
    model = Linear()
    teacher = Trained(model, model.init(KEY, jnp.zeros((1, 4, 4, 3))), (0.5,) * 3, (0.5,) * 3, 4)
    distilled = Distillation(teacher, DistillationConfig("", "soft", 0.25, 2.0))
    found = []
    for weights in ((), WEIGHTS):
        task = classification(
            model, num_classes=3, image_size=4, distilled=distilled, class_weights=weights
        )
        params = task.init(jax.random.key(1))["params"]
        found.append(task.loss(params, {}, batch(), Keys(KEY), task.frozen))
    count = np.array(WEIGHTS)[np.asarray(batch()["label"])]
    np.testing.assert_allclose(found[1].value, count * np.asarray(found[0].value), rtol=1e-5)
    np.testing.assert_allclose(found[1].weight, count)


@pytest.mark.slow
def test_tokens_count_by_their_own_labels():
    """With MixToken: the image by its mixed label, each of its tokens by its own image's."""
    mixed = Mixing(mixtoken=1.0)
    options: Any = dict(num_classes=3, image_size=4, mixed=mixed, tokens=TokenLabels(weight=0.5))
    task = classification(
        Tokens(), **options, class_weights=WEIGHTS, loss=LossConfig(label_smoothing=0.1)
    )
    params, given = task.init(jax.random.key(0))["params"], batch()
    images = (given["image"] / 255 - 0.5) / 0.5
    labels = np.asarray(given["label"])
    other, w = labels[[1, 0, 3, 2]], np.array(WEIGHTS)
    key = jax.random.key(11)
    keep = mixing.kept_tokens(Keys(key)("mix"), mixed, (4, 4), given["mask"])
    own = np.asarray(keep.mean((1, 2)))
    assert (own > 0).all() and (own < 1).all() and (labels != other).any()
    whole, tokens = Tokens().apply(
        {"params": params},
        images,
        True,
        lambda x: mixing.mix_token(keep, x),
        method="token_logits",
    )

    def cost(logits, label):
        target = np.eye(3)[label] * 0.9 + 0.1 / 3
        return -(target * np.asarray(jax.nn.log_softmax(logits))).sum(-1)

    of_image = own * w[labels] * cost(whole, labels) + (1 - own) * w[other] * cost(whole, other)
    of_tokens = w[labels] * cost(tokens, labels[:, None, None]).mean((1, 2))
    found = jax.jit(task.loss)(params, {}, given, Keys(key), None)
    np.testing.assert_allclose(found.value, of_image + 0.5 * of_tokens, rtol=1e-4)
    np.testing.assert_allclose(found.weight, own * w[labels] + (1 - own) * w[other], rtol=1e-4)


def test_accuracy_of_each_class_and_their_mean():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 3, 41), rng.integers(0, 3, 41)
    truth[truth == 1] = 0  # no image of class 1
    mask = np.r_[np.ones(37), np.zeros(4)]
    right = jnp.asarray(truth == guess, jnp.float32)
    sums = class_sums(right, jax.nn.one_hot(truth, 4), jnp.asarray(mask, jnp.float32))
    found = by_class({k: np.asarray(v) for k, v in sums.items()}, (*NAMES, "fox"))
    truth, guess = truth[:37], guess[:37]
    for number in (0, 2):
        asked = truth == number
        assert found[NAMES[number]]["images"] == asked.sum()
        np.testing.assert_allclose(found[NAMES[number]]["acc"], (guess[asked] == number).mean())
    assert found["dog"]["images"] == 0 and np.isnan(found["dog"]["acc"])
    metrics = summarize({**sums, "images": jnp.asarray(37.0), "loss": jnp.asarray(74.0)})
    seen = np.where(np.isin(guess, (0, 2)), guess, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 9 is no class of the truth
        known = balanced_accuracy_score(truth, seen)
    np.testing.assert_allclose(metrics["acc_mean"], known, rtol=1e-6)
    assert metrics["loss"] == 2 and metrics.keys() == {"loss", "acc_mean", "images"}
    assert by_class({"images": 3}, NAMES) == {}  # of images with several classes
