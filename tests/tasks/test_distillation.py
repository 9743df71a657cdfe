import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks.test_mixing import Linear, batch
from vitjax.models import create_model
from vitjax.tasks import mixing
from vitjax.tasks.classification import classification
from vitjax.tasks.distillation import TEACHER, Distillation, Teacher, distillation_loss
from vitjax.tasks.token_labels import crop_labels, dense_labels, token_label_loss


def test_hard_and_soft_losses():
    student, teacher = jnp.array([[1.0, 2.0, 0.5]]), jnp.array([[0.0, 3.0, 1.0]])
    hard = distillation_loss(student, teacher, "hard", 3.0)
    np.testing.assert_allclose(hard, -jax.nn.log_softmax(student)[:, 1], rtol=1e-6)
    p, q = (np.exp(x / 3) / np.exp(x / 3).sum() for x in (np.array(teacher), np.array(student)))
    soft = distillation_loss(student, teacher, "soft", 3.0)
    np.testing.assert_allclose(soft, 9 * (p * np.log(p / q)).sum(), rtol=1e-5)
    np.testing.assert_allclose(distillation_loss(teacher, teacher, "soft", 3.0), 0, atol=1e-6)


class TwoHeads(nn.Module):
    def setup(self):
        self.a, self.b = nn.Dense(3), nn.Dense(3)

    def both_logits(self, x, train=False):
        x = x.reshape(len(x), -1)
        return self.a(x), self.b(x)

    def __call__(self, x, train=False):
        return sum(self.both_logits(x)) / 2


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("student", [Linear(), TwoHeads()])
def test_the_second_head_learns_from_the_teacher(kind, student):
    model = Linear()
    variables = model.init(jax.random.key(9), jnp.zeros((1, 4, 4, 3)))
    same = ((0.5,) * 3, (0.5,) * 3)
    learn = {}
    for name, mean, std in (("same", *same), ("other", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))):
        teacher = Teacher(model, variables, mean, std, 4)
        distilled = Distillation(teacher, kind, 0.25, 2.0)
        task = classification(student, num_classes=3, image_size=4, distilled=distilled)
        init = task.init(jax.random.key(0))
        rest = {TEACHER: init[TEACHER]}
        losses, after = jax.jit(task.loss)(init["params"], rest, batch(), jax.random.key(1))
        assert after.keys() == rest.keys()
        learn[name] = losses
        assert task.predict(init, batch()["image"]).shape == (4, 3)
    x = (batch()["image"] / 255 - 0.5) / 0.5
    taught = model.apply(variables, x)
    both = isinstance(student, TwoHeads)
    logits = student.apply({"params": init["params"]}, x, method="both_logits" if both else None)
    own, imitation = logits if both else (logits, logits)
    plain = -jnp.take_along_axis(jax.nn.log_softmax(own), batch()["label"][:, None], 1)[:, 0]
    expected = 0.75 * plain + 0.25 * distillation_loss(imitation, taught, kind, 2.0)
    np.testing.assert_allclose(learn["same"], expected, rtol=1e-4)
    assert kind == "hard" or not np.allclose(learn["other"], expected)


def test_label_maps():
    classes = jnp.array([[[0, 1], [2, 0]], [[1, 2], [0, 1]]])
    scores = jnp.array([[[3.0, 1.0], [1.0, 0.5]], [[1.0, 1.0], [1.0, 0.5]]])
    dense = dense_labels(classes, scores, 3)
    np.testing.assert_allclose(dense[0, 0], [0.75, 0.25, 0])
    np.testing.assert_allclose(dense.sum(-1), 1)
    whole = jnp.array([0.0, 0.0, 1.0, 1.0])
    np.testing.assert_allclose(crop_labels(dense, whole, (2, 2)), dense, atol=1e-6)
    np.testing.assert_allclose(crop_labels(dense, whole, (2, 2), True), dense[:, ::-1], atol=1e-6)
    corner = crop_labels(dense, jnp.array([0.5, 0.5, 0.5, 0.5]), (1, 1))
    np.testing.assert_allclose(corner[0, 0], dense[1, 1], atol=1e-6)
    middle = crop_labels(dense, whole, (1, 1))
    np.testing.assert_allclose(middle[0, 0], dense.mean((0, 1)), atol=1e-6)


@pytest.mark.slow
def test_token_labels_and_mix_token_in_volo():
    model = create_model(
        "volo_d1", num_classes=5, image_size=32, dims=(8, 16, 16, 16), num_heads=(1, 2, 2, 2),
        depths=(1, 1, 1, 1), stem_width=8, mlp_ratio=1.0, drop_path_rate=0.0,
    )  # fmt: skip
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 3)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    heads = {"head", "aux_head"}
    params = {
        name: jax.tree.map(lambda v: jax.random.normal(jax.random.key(1), v.shape), value)
        if name in heads
        else value
        for name, value in variables["params"].items()
    }
    variables = {**variables, "params": params}

    @jax.jit
    def logits(keep):
        mix = lambda m: mixing.mix_token(keep, m)  # noqa: E731
        return model.apply(variables, x, False, mix, method="token_logits")

    whole = jnp.ones((2, 2), bool)
    plain_class, plain_tokens = logits(whole)
    assert plain_tokens.shape == (4, 2, 2, 5)
    swapped = logits(~whole)  # all tokens are the partner's, and come back to it
    np.testing.assert_allclose(swapped[0], mixing.partner(plain_class), atol=1e-4)
    np.testing.assert_allclose(swapped[1], plain_tokens, atol=1e-4)
    targets = jax.nn.one_hot(jnp.arange(4), 5)
    dense = jnp.broadcast_to(targets[:, None, None], (4, 2, 2, 5))
    loss = token_label_loss(plain_class, plain_tokens, targets, dense)
    own = -(targets * jax.nn.log_softmax(plain_class)).sum(1)
    patches = -(dense * jax.nn.log_softmax(plain_tokens)).sum(-1).mean((1, 2))
    np.testing.assert_allclose(loss, own + 0.5 * patches, rtol=1e-5)
