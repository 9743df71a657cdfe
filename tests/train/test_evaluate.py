"""Evaluation adds sums of all batches, and holds few of them at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.test_step import Linear
from vitjax.task import Keys
from vitjax.tasks.classification import classification
from vitjax.train.evaluate import IN_FLIGHT, evaluate


def batches(sizes, masks=None):
    rng = np.random.default_rng(0)
    for i, n in enumerate(sizes):
        yield {
            "image": jnp.asarray(rng.integers(0, 256, (n, 2, 2, 3)), jnp.uint8),
            "label": jnp.asarray(rng.integers(0, 3, n), jnp.int32),
            "mask": jnp.asarray(masks[i] if masks else np.ones(n), jnp.float32),
        }


def task_and_step(rows=None):
    task = classification(Linear(), num_classes=3, image_size=2)._replace(rows=rows)
    variables = task.init(jax.random.key(0))

    @jax.jit
    def step(batch):
        prediction = task.predict(variables, batch)
        return task.measure(prediction, batch), rows(prediction, batch) if rows else None

    return task, variables, step


def test_sums_are_those_of_all_images() -> None:
    task, variables, step = task_and_step()
    masks = [np.ones(7), np.array([1, 0, 1, 1, 0, 0, 0])]
    found = evaluate(step, batches([7, 7], masks), task)
    right = images = 0
    for batch, mask in zip(batches([7, 7]), masks):
        logits = np.asarray(task.predict(variables, batch))
        right += ((logits.argmax(1) == np.asarray(batch["label"])) * mask).sum()
        images += mask.sum()
    assert found["images"] == images == 10
    np.testing.assert_allclose(found["top1"], right / 10)


def test_sums_are_exact_beyond_float32() -> None:
    """A count that float32 cannot hold, as of the pixels of a segmentation data set."""
    task, _, _ = task_and_step()

    def step(batch):
        return {"images": jnp.int32(2**24 + 1), "loss": jnp.float32(0)}, None

    found = evaluate(step, batches([2] * 9), task)
    assert found["images"] == 9 * (2**24 + 1)


def test_few_batches_are_on_the_devices_at_once() -> None:
    """Of a hundred batches no more than those in flight are dispatched and not yet measured."""
    task, _, step = task_and_step()
    dispatched, measured, most = 0, 0, 0

    def counted(batch):
        nonlocal dispatched, most
        dispatched += 1
        most = max(most, dispatched - measured)
        return step(batch)

    def alive():
        nonlocal measured
        measured += 1

    evaluate(counted, batches([5] * 100), task, alive)
    assert (dispatched, measured) == (100, 100)
    assert most == IN_FLIGHT + 1


def test_rows_are_gathered_without_what_is_masked() -> None:
    task, _, step = task_and_step(rows=lambda logits, batch: {"label": batch["label"]})
    seen = {}
    task = task._replace(summarize=lambda sums, rows: seen.update(rows) or {})
    masks = [np.array([1, 1, 0]), np.array([0, 1, 0])]
    evaluate(step, batches([3, 3], masks), task)
    labels = np.concatenate([b["label"] for b in batches([3, 3])])
    np.testing.assert_array_equal(seen["label"], labels[np.concatenate(masks) > 0])


def test_streams_are_functions_of_name_step_and_part() -> None:
    keys = Keys(jax.random.key(3), 5)
    others = [
        keys("dropout"),
        keys("mix"),
        keys("erase"),
        Keys(keys.root, 6)("mix"),
        keys._replace(part=1)("mix"),
        Keys(jax.random.key(4), 5)("mix"),
    ]
    drawn = [
        jax.random.key_data(k).tobytes() for k in map(jax.device_get, map(jnp.asarray, others))
    ]
    assert len(set(drawn)) == len(drawn)
    np.testing.assert_array_equal(
        jax.random.key_data(keys("mix")), jax.random.key_data(Keys(jax.random.key(3), 5)("mix"))
    )


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_divides_by_the_weights(parts: int) -> None:
    """A sample with twice the parts counts twice, and terms are means over samples."""
    import optax

    from vitjax.train.state import create_state
    from vitjax.train.step import make_train_step

    plain = classification(Linear(), num_classes=3, image_size=2)
    (batch,) = batches([4], [np.array([1.0, 1, 1, 0])])
    weight = jnp.array([2.0, 1.0, 1.0, 9.0])

    def loss(*given):
        found = plain.loss(*given)
        own = weight[: len(found.value)] if parts == 1 else given[2]["weight"]
        terms = {"own": found.value}
        return found._replace(value=found.value * own, weight=own, terms=terms)

    task, tx = plain._replace(loss=loss), optax.sgd(0.1)
    state = create_state(task.init(jax.random.key(0)), tx, ema=False)
    step = make_train_step(task, tx, optax.constant_schedule(0.1), accumulate=parts)
    given = batch | {"weight": weight} if parts > 1 else batch
    _, metrics = jax.jit(step)(state, given, jax.random.key(0))
    each = plain.loss(state.params, {}, batch, Keys(jax.random.key(0)), None).value
    np.testing.assert_allclose(metrics["loss"], (2 * each[0] + each[1] + each[2]) / 4, rtol=1e-6)
    np.testing.assert_allclose(metrics["own"], each[:3].mean(), rtol=1e-6)
