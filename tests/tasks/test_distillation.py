import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.golden.compare import FOLDER
from tests.tasks.test_mixing import Linear, batch
from vitjax.runs import Trained
from vitjax.task import Keys
from vitjax.tasks.classification import classification
from vitjax.tasks.distillation import Distillation, DistillationConfig, distillation_loss


def test_hard_and_soft_losses():
    student, teacher = jnp.array([[1.0, 2.0, 0.5]]), jnp.array([[0.0, 3.0, 1.0]])
    hard = distillation_loss(student, teacher, "hard", 3.0)
    np.testing.assert_allclose(hard, -jax.nn.log_softmax(student)[:, 1], rtol=1e-6)
    p, q = (np.exp(x / 3) / np.exp(x / 3).sum() for x in (np.array(teacher), np.array(student)))
    soft = distillation_loss(student, teacher, "soft", 3.0)
    np.testing.assert_allclose(soft, 9 * (p * np.log(p / q)).sum(), rtol=1e-5)
    np.testing.assert_allclose(distillation_loss(teacher, teacher, "soft", 3.0), 0, atol=1e-6)


def test_losses_are_those_of_the_authors_code():
    """DeiT's DistillationLoss with alpha ½ and τ = 3, whose soft form averages over elements."""
    with np.load(FOLDER / "losses.npz") as file:
        r = {name: jnp.asarray(file[name]) for name in file.files}
    target = optax.smooth_labels(jax.nn.one_hot(r["y"], 10), 0.1)
    own = optax.softmax_cross_entropy(r["o"], target).mean()
    np.testing.assert_allclose(own, r["ls"], rtol=1e-6)

    def loss(kind):
        return distillation_loss(r["okd"], r["te"], kind, 3.0).mean()

    np.testing.assert_allclose((own + loss("hard")) / 2, r["dist_hard"], rtol=1e-6)
    np.testing.assert_allclose((own + loss("soft_mean")) / 2, r["dist_soft"], rtol=1e-6)
    np.testing.assert_allclose(loss("soft"), r["kl_batchmean"], rtol=1e-6)


class TwoHeads(nn.Module):
    def setup(self):
        self.a, self.b = nn.Dense(3), nn.Dense(3)

    def class_and_distillation_logits(self, x, train=False):
        x = x.reshape(len(x), -1)
        return self.a(x), self.b(x)

    def __call__(self, x, train=False):
        return sum(self.class_and_distillation_logits(x)) / 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("student", [Linear(), TwoHeads()])
def test_the_second_head_learns_from_the_teacher(kind, student):
    model = Linear()
    variables = model.init(jax.random.key(9), jnp.zeros((1, 4, 4, 3)))
    same = ((0.5,) * 3, (0.5,) * 3)
    learn = {}
    for name, mean, std in (("same", *same), ("other", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))):
        teacher = Trained(model, variables, mean, std, 4)
        distilled = Distillation(teacher, DistillationConfig("", kind, 0.25, 2.0))
        task = classification(student, num_classes=3, image_size=4, distilled=distilled)
        init = task.init(jax.random.key(0))
        assert init.keys() == {"params"}, "the teacher is no part of the student"
        keys = Keys(jax.random.key(1))
        loss = jax.jit(task.loss)(init["params"], {}, batch(), keys, task.frozen)
        assert loss.collections == {}
        learn[name] = loss.value
        assert task.predict(init, batch()).shape == (4, 3)
    x = (batch()["image"] / 255 - 0.5) / 0.5
    taught = model.apply(variables, x)
    both = isinstance(student, TwoHeads)
    method = "class_and_distillation_logits" if both else None
    logits = student.apply({"params": init["params"]}, x, method=method)
    own, imitation = logits if both else (logits, logits)
    plain = -jnp.take_along_axis(jax.nn.log_softmax(own), batch()["label"][:, None], 1)[:, 0]
    expected = 0.75 * plain + 0.25 * distillation_loss(imitation, taught, kind, 2.0)
    np.testing.assert_allclose(learn["same"], expected, rtol=1e-4)
    assert kind == "hard" or not np.allclose(learn["other"], expected)
