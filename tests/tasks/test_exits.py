"""Early exits in the one classification loop: loss, measures, mistakes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vitjax.runs import Trained
from vitjax.task import Keys
from vitjax.tasks.classification import LossConfig, classification
from vitjax.tasks.distillation import Distillation, DistillationConfig, distillation_loss


class TwoExits(nn.Module):
    """Two linear classifiers, the second of the image after the first's bias."""

    num_exits: int = 2

    def setup(self) -> None:
        self.head = [nn.Dense(3), nn.Dense(3)]

    def run_part(self, k: int, state: Any, train: bool = False) -> tuple[Any, Any]:
        x = state.reshape(state.shape[0], -1)
        return self.head[k](x), x if k == 0 else None

    def exit_logits(self, images: Any, train: bool = False) -> tuple[Any, ...]:
        first, state = self.run_part(0, images, train)
        return first, self.run_part(1, state, train)[0]

    def __call__(self, images: Any, train: bool = False) -> Any:
        return self.exit_logits(images, train)[-1]


IMAGES = np.random.default_rng(0).integers(0, 255, (5, 2, 2, 3), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1])


def batch() -> dict[str, Any]:
    mask = np.array([1, 1, 1, 1, 0], np.float32)
    return {k: jnp.asarray(v) for k, v in dict(image=IMAGES, label=LABELS, mask=mask).items()}


def task_of(**options: Any) -> Any:
    return classification(TwoExits(), num_classes=3, image_size=2, **options)


def exits_of(task: Any) -> tuple[Any, Any]:
    variables = task.init(jax.random.key(0))
    pixels = jnp.asarray(IMAGES, jnp.float32) / 255 * 2 - 1
    return variables, TwoExits().apply(variables, pixels, method="exit_logits")


def test_the_loss_is_the_weighted_sum_of_the_exits() -> None:
    for given, weights in (((), (1.0, 1.0)), ((0.25, 2.0), (0.25, 2.0))):
        task = task_of(loss=LossConfig(exit_weights=given))
        variables, logits = exits_of(task)
        loss = task.loss(variables["params"], {}, batch(), Keys(jax.random.key(1)), None)
        each = [
            optax.softmax_cross_entropy_with_integer_labels(z, jnp.asarray(LABELS)) for z in logits
        ]
        want = weights[0] * each[0] + weights[1] * each[1]
        np.testing.assert_allclose(loss.value, want, rtol=1e-5)
        np.testing.assert_allclose(loss.terms["loss_exit1"], each[0], rtol=1e-5)


def test_every_exit_learns_from_a_teacher() -> None:
    class Flat(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dense(3)(x.reshape(x.shape[0], -1))

    teacher = Trained(Flat(), None, (0.5,) * 3, (0.5,) * 3, 2)
    frozen = teacher.model.init(jax.random.key(3), jnp.zeros((1, 2, 2, 3)))
    task = task_of(distilled=Distillation(teacher, DistillationConfig("", "soft", 0.3, 2.0)))
    variables, logits = exits_of(task)
    loss = task.loss(variables["params"], {}, batch(), Keys(jax.random.key(1)), frozen)
    pixels = jnp.asarray(IMAGES, jnp.float32) / 255 * 2 - 1
    taught: Any = teacher.model.apply(frozen, pixels)
    want = sum(
        0.7 * optax.softmax_cross_entropy_with_integer_labels(z, jnp.asarray(LABELS))
        + 0.3 * distillation_loss(z, taught, "soft", 2.0)
        for z in logits
    )
    np.testing.assert_allclose(loss.value, want, rtol=1e-5)


def test_measures_of_each_exit() -> None:
    """By hand: masked images do not count, and the model's own measures are the last exit's."""
    task = task_of()
    logits = np.full((5, 2, 3), -1.0, np.float32)
    for i, (first, last) in enumerate([(0, 0), (0, 1), (1, 1), (0, 2), (1, 1)]):
        logits[i, 0, first] = logits[i, 1, last] = 1
    found = task.summarize(task.measure(jnp.asarray(logits), batch()), None)
    assert found["images"] == 4
    assert found["top1_exit1"] == 2 / 4  # images 0 and 3
    assert found["top1_exit2"] == found["top1"] == 2 / 4  # images 0 and 1
    assert task.present(logits[2], {}).lines[0].endswith(" 1")


def test_predictions_have_all_exits() -> None:
    task = task_of()
    variables, logits = exits_of(task)
    np.testing.assert_allclose(task.predict(variables, batch()), np.stack(logits, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("weights", "message"),
    [((1.0,), "2 exits"), ((1.0, -1.0), "none below 0"), ((1.0, 0.0), "last one above 0")],
)
def test_weights_that_do_not_fit(weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_of(loss=LossConfig(exit_weights=weights))


def test_a_model_without_exits_takes_no_weights() -> None:
    loss = LossConfig(exit_weights=(1.0, 1.0))
    with pytest.raises(ValueError, match="needs a model with early exits"):
        classification(nn.Dense(3), num_classes=3, image_size=2, loss=loss)
