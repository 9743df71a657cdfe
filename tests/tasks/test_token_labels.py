import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden.compare import FOLDER
from tests.tasks.test_mixing import batch
from vitjax.models import create_model
from vitjax.task import Keys
from vitjax.tasks import mixing
from vitjax.tasks.classification import LossConfig, classification
from vitjax.tasks.mixing import Mixing, mix_token
from vitjax.tasks.token_labels import (
    TokenLabels,
    class_targets,
    crop_labels,
    dense_labels,
    token_label_loss,
    token_targets,
)


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


def roi_align(feature, box, grid):
    """Average bilinear samples as arXiv:1703.06870 describes: a plain loop of one axis each."""
    k, cells = feature.shape[-1], feature.shape[:2]
    out = np.zeros((*grid, k))
    size = [box[2 + a] * cells[a] / grid[a] for a in (0, 1)]
    counts = [int(np.ceil(s)) for s in size]
    for y, x in np.ndindex(*grid):
        for j, i in np.ndindex(*counts):
            at = [
                box[a] * cells[a] + size[a] * (cell + (sample + 0.5) / counts[a]) - 0.5
                for a, cell, sample in ((0, y, j), (1, x, i))
            ]
            at = [min(max(value, 0), n - 1) for value, n in zip(at, cells)]
            low = [min(int(value), n - 2) for value, n in zip(at, cells)]
            for dy, dx in np.ndindex(2, 2):
                weight = abs(1 - dy - (at[0] - low[0])) * abs(1 - dx - (at[1] - low[1]))
                out[y, x] += weight * feature[low[0] + dy, low[1] + dx] / (counts[0] * counts[1])
    return out


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.13, 0.41, 0.37, 0.53), (0.9, 0.0, 0.1, 0.07)])
@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (14, 14)])
def test_crops_are_read_as_roi_align_does(box, grid):
    feature = np.random.default_rng(0).normal(size=(13, 11, 2))
    found = crop_labels(jnp.asarray(feature, jnp.float32), jnp.array(box, jnp.float32), grid)
    np.testing.assert_allclose(found, roi_align(feature, box, grid), atol=1e-5)


def test_losses_are_those_of_the_authors_code():
    """TokenLabelCrossEntropy with and without label maps and a box of MixToken."""
    with np.load(FOLDER / "losses.npz") as file:
        r = {name: jnp.asarray(file[name]) for name in file.files}
    maps, logits = r["tgt"][:, :, 1], r["aux"].reshape(8, 7, 7, 10)
    dense = r["tgt"][:, :, 2:].transpose(0, 2, 1).reshape(8, 7, 7, 10)
    _, without = token_targets({}, maps, (7, 7))
    for box, share in (("whole", 1.0), ("box", 1 - 16 / 49)):
        target = share * maps + (1 - share) * maps[::-1]
        for name, tokens in (("tl", dense), ("tl2", without)):
            loss = token_label_loss(r["o"], logits, target, tokens, 0.5).mean()
            np.testing.assert_allclose(loss, r[f"{name}_{box}"], rtol=2e-6, err_msg=name + box)


def test_class_targets():
    label, maps = jnp.eye(3)[jnp.array([0, 1])], jnp.array([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2]])
    both = class_targets("both", label, maps)
    np.testing.assert_allclose(both, [[0.8, 0.15, 0.05], [0.45, 0.37, 0.18]], atol=1e-6)
    np.testing.assert_array_equal(class_targets("maps", label, maps), maps)
    np.testing.assert_array_equal(class_targets("label", label, maps), label)


@pytest.mark.slow
def test_maps_of_logits_become_probabilities_after_pooling():
    rng = np.random.default_rng(3)
    classes = jnp.asarray(rng.permuted(np.tile(np.arange(7), (2, 4, 4, 1)), axis=3)[..., :5])
    values = jnp.asarray(rng.uniform(0, 9, (2, 4, 4, 5)), jnp.float32).at[1].set(0.0)
    targets = jnp.full((2, 7), 1 / 7).at[1, 2].set(5.0)
    given = {
        "map_classes": classes.transpose(0, 3, 1, 2),
        "map_scores": values.transpose(0, 3, 1, 2),
        "map_box": jnp.tile(jnp.array([0.25, 0.5, 0.5, 0.5]), (2, 1)),
        "map_flipped": jnp.array([False, False]),
    }
    logits = np.zeros((4, 4, 7))
    np.put_along_axis(logits, np.asarray(classes[0]), np.asarray(values[0]), axis=2)
    part = logits[1:3, 2:]

    def smooth(z):
        return 0.9 * np.exp(z) / np.exp(z).sum(-1, keepdims=True) + 0.1 / 7

    whole, tokens = token_targets(given, targets, (2, 2), 0.1, "logits")
    np.testing.assert_allclose(tokens[0], smooth(part), atol=1e-6)
    np.testing.assert_allclose(whole[0], smooth(part.mean((0, 1))), atol=1e-6)
    np.testing.assert_allclose(whole[1], targets[1])  # no scores at all: the image's own label
    np.testing.assert_allclose(tokens[1], np.broadcast_to(targets[1], (2, 2, 7)))


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


class Tokens(nn.Module):
    """Every pixel is a token, and a class is read off their mean."""

    @nn.compact
    def token_logits(self, x, train=False, mix=lambda x: x):
        x = mix(nn.Dense(5, name="stem")(x))
        return nn.Dense(3, name="head")(jnp.tanh(x).mean((1, 2))), mix(nn.Dense(3, name="aux")(x))

    def __call__(self, x, train=False):
        return self.token_logits(x)[0]


def with_maps():
    """Images whose maps are of the same grid, seen whole; the last has an empty cell."""
    rng = np.random.default_rng(1)
    scores = rng.uniform(0.1, 1, (4, 2, 4, 4)).astype(np.float16)
    scores[3, :, 0, 0] = 0
    return batch() | {
        "map_classes": jnp.asarray(
            rng.permuted(np.tile(np.arange(3), (4, 4, 4, 1)), axis=3)[..., :2].transpose(
                0, 3, 1, 2
            ),
            jnp.uint16,
        ),
        "map_scores": jnp.asarray(scores),
        "map_box": jnp.tile(jnp.array([0.0, 0.0, 1.0, 1.0]), (4, 1)),
        "map_flipped": jnp.array([False, True, False, False]),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("maps", "class_target"), [(False, "label"), (True, "label"), (True, "maps"), (False, "both")]
)
def test_the_loss_of_mixed_tokens(maps, class_target):
    learnt = TokenLabels(weight=0.5, class_target=class_target)
    task = classification(
        Tokens(),
        num_classes=3,
        image_size=4,
        loss=LossConfig(label_smoothing=0.1),
        tokens=learnt,
        mixed=Mixing(mixtoken=1.0),
    )
    b = with_maps() if maps else batch()
    b["mask"] = jnp.array([1.0, 1.0, 1.0, 0.0])  # the third keeps its tokens
    params = task.init(jax.random.key(0))["params"]
    images = (b["image"] / 255 - 0.5) / 0.5
    targets = np.asarray(jax.nn.one_hot(b["label"], 3) * 0.9 + 0.1 / 3)
    tokens = np.broadcast_to(targets[:, None, None], (4, 4, 4, 3)).copy()
    if maps:
        for i in range(4):
            for y in range(4):
                for x in range(4):
                    cell = np.zeros(3)
                    classes = np.asarray(b["map_classes"])[i, :, y, x]
                    cell[classes] = np.asarray(b["map_scores"], np.float64)[i, :, y, x]
                    if cell.sum():
                        at = 3 - x if b["map_flipped"][i] else x
                        tokens[i, y, at] = 0.9 * cell / cell.sum() + 0.1 / 3
    if class_target != "label":
        targets = tokens.mean((1, 2))

    @jax.jit
    def expected(key):
        mix_key = Keys(key)("mix")
        keep = mixing.kept_tokens(mix_key, Mixing(mixtoken=1.0), (4, 4), b["mask"])
        share = keep.mean((1, 2))[:, None]
        target = share * targets + (1 - share) * targets[np.array([1, 0, 3, 2])]
        mix = functools.partial(mix_token, keep)
        logits = Tokens().apply({"params": params}, images, True, mix, method="token_logits")
        return token_label_loss(*logits, target, jnp.asarray(tokens)), keep

    loss, shares = jax.jit(task.loss), set()
    for key in jax.random.split(jax.random.key(0), 10):
        losses, keep = expected(key)
        assert keep[2].all()
        shares.add(float(keep[0].mean()))
        found = loss(params, {}, b, Keys(key), None).value
        np.testing.assert_allclose(found[:3], losses[:3], rtol=2e-3 if maps else 1e-4)
    assert len(shares) > 1


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Dense(3), {}, "need a model with logits of its tokens, a VOLO"),
        (Tokens(), {"loss": LossConfig("sigmoid")}, "cannot be combined with loss 'sigmoid'"),
        (Tokens(), {"mixed": Mixing(mixup=0.2)}, "cannot be combined with mixup or cutmix"),
        (
            Tokens(),
            {"tokens": TokenLabels(class_target="map")},
            "did you mean 'maps'.*Choose from: label, maps, both",
        ),
        (Tokens(), {"tokens": TokenLabels(scores="odds")}, "Choose from: probabilities, logits"),
    ],
)
def test_parts_that_do_not_go_together(model, options, message):
    options = {"tokens": TokenLabels(weight=0.5), **options}
    with pytest.raises(ValueError, match=message):
        classification(model, num_classes=3, image_size=4, **options)


def test_a_map_that_is_no_multiple_of_the_grid():
    with pytest.raises(ValueError, match=r"\(2, 2\), and the first has \(5, 4\).*halves without"):
        mix_token(jnp.ones((2, 2), bool), jnp.ones((2, 5, 4, 1)))
