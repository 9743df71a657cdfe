import dataclasses
import functools
import os
import subprocess
import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.golden.compare import FOLDER
from vitjax.task import Keys
from vitjax.tasks import mixing
from vitjax.tasks.classification import LossConfig, classification
from vitjax.tasks.mixing import (
    Mixing,
    box_around,
    box_mask,
    erase,
    kept_tokens,
    mix,
    own_weight,
    partner,
    symmetric_beta,
)


def images(count=4, side=8, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, side, side, 3)), jnp.float32)


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def test_partners_are_pairs():
    assert partner(jnp.arange(6.0)).tolist() == [1, 0, 3, 2, 5, 4]
    x = images(6)
    np.testing.assert_array_equal(partner(partner(x)), x)
    with pytest.raises(ValueError, match="A batch of 5 has no pairs"):
        partner(jnp.arange(5.0))


@pytest.mark.parametrize("group_size", [0, 1])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_have_the_shares_that_pixels_have(kind, group_size):
    settings = Mixing(**{kind: 1.0}, group_size=group_size)
    # Black and white partners: a mixed image's mean is its share of white.
    x = jnp.tile(jnp.array([0.0, 1.0]), 8)[:, None, None, None] * jnp.ones((16, 12, 12, 3))
    target = jax.nn.one_hot(jnp.arange(16) % 2, 2)
    run = jax.jit(lambda key: mix(key, settings, x, target, jnp.ones(16)))
    shares = []
    for key in keys(20):
        mixed, labels = run(key)
        np.testing.assert_allclose(mixed.mean((1, 2, 3)), labels[:, 1], atol=1e-5)
        np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
        values = np.unique(np.asarray(mixed).round(5))
        assert kind == "mixup" or set(values) <= {0.0, 1.0}
        shares.append(np.asarray(labels[::2, 0]))
    shares = np.stack(shares)
    assert (np.ptp(shares, axis=1) > 0.1).any() == (group_size == 1)
    assert shares.max() - shares.min() > 0.3  # a box that is cut at the border covers less
    if kind == "mixup":
        assert abs(shares.mean() - 0.5) < 0.15  # Beta(1, 1)


@pytest.mark.slow
def test_frames_of_a_clip_are_mixed_and_erased_alike():
    x, target, key = images(4), jnp.eye(4), jax.random.key(3)
    clips = jnp.repeat(x[:, None], 3, axis=1)
    settings = Mixing(mixup=0.8, cutmix=1.0, group_size=1)
    mixed, labels = mix(key, settings, clips, target, jnp.ones(4))
    one, same = mix(key, settings, x, target, jnp.ones(4))
    np.testing.assert_allclose(mixed, np.repeat(one[:, None], 3, axis=1), atol=1e-6)
    np.testing.assert_array_equal(labels, same)
    changed = np.asarray(erase(key, clips, 1.0) != clips)
    np.testing.assert_array_equal(changed, changed[:, :1].repeat(3, axis=1))
    assert changed.any((1, 2, 3, 4)).all() and not changed.all((1, 2, 3, 4)).any()


@pytest.mark.parametrize("settings", [Mixing(mixup=1.0), Mixing(cutmix=1.0)])
def test_groups_of_neighbours_share_a_draw(settings):
    x = jnp.tile(jnp.array([0.0, 1.0]), 6)[:, None, None, None] * jnp.ones((12, 29, 29, 3))
    target, mask = jax.nn.one_hot(jnp.arange(12) % 2, 2), jnp.ones(12)
    key = jax.random.key(5)
    whole = mix(key, settings, x, target, mask)
    one_group = mix(key, dataclasses.replace(settings, group_size=0), x, target, mask)
    np.testing.assert_array_equal(whole[0], one_group[0])
    mixed, labels = mix(key, dataclasses.replace(settings, group_size=4), x, target, mask)
    own = labels.reshape(3, 2, 2, 2)[..., 0]  # groups, pairs, partners
    np.testing.assert_array_equal(own[:, 0], own[:, 1])
    assert len(np.unique(np.asarray(own[:, 0, 0]))) == 3
    np.testing.assert_allclose(mixed.mean((1, 2, 3)), labels[:, 1], atol=1e-5)


def test_mix_token_draws_a_box_for_each_group():
    draw = functools.partial(kept_tokens, grid=(7, 7), mask=jnp.ones(12))
    keep = draw(jax.random.key(3), Mixing(mixtoken=1.0, group_size=4)).reshape(3, 4, 49)
    np.testing.assert_array_equal(keep, keep[:, :1].repeat(4, 1))
    assert len(np.unique(np.asarray(keep[:, 0]), axis=0)) == 3
    with pytest.raises(ValueError, match=r"group_size=3: MixToken .* choose an even size"):
        draw(jax.random.key(3), Mixing(mixtoken=1.0, group_size=3))


def test_a_group_that_does_not_divide_the_batch_is_refused():
    with pytest.raises(ValueError, match="group_size=8 does not divide the 12 samples"):
        mix(jax.random.key(0), Mixing(mixup=1.0, group_size=8), images(12), jnp.eye(12),
            jnp.ones(12))  # fmt: skip


def test_a_masked_partner_is_not_mixed_in():
    x, target = images(4), jnp.eye(4)
    mask = jnp.array([1.0, 0.0, 1.0, 1.0])
    mixed, labels = mix(jax.random.key(3), Mixing(mixup=1.0), x, target, mask)
    np.testing.assert_array_equal(mixed[0], x[0])
    np.testing.assert_array_equal(labels[0], target[0])
    assert (mixed[2] != x[2]).all()


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 2.0])
def test_beta_is_beta(alpha):
    drawn = jax.jit(jax.vmap(lambda key: symmetric_beta(key, alpha)))(keys(4000))
    assert stats.kstest(np.asarray(drawn), stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_probabilities():
    settings = Mixing(mixup=0.8, cutmix=1.0, prob=0.6, switch_prob=0.25)
    weights = jax.vmap(lambda key: own_weight(key, settings, 8, 8))(keys(1000))
    constant = np.ptp(np.asarray(weights), axis=(1, 2)) == 0
    whole = constant & (np.asarray(weights)[:, 0, 0] == 1)
    assert abs(whole.mean() - (0.4 + 0.6 * 0.25 * 0.05)) < 0.08
    assert abs((~constant).mean() - 0.6 * 0.25) < 0.04  # a few boxes are empty or everything


def test_the_box_has_the_asked_area_where_it_is_not_cut():
    masks = np.asarray(jax.vmap(lambda key: box_mask(key, jnp.array(0.25), 32, 32))(keys(200)))
    areas = (~masks).mean((1, 2))
    assert areas.max() == pytest.approx(0.25)
    assert areas.min() > 0.05
    rows = (~masks).any(2).sum(1)
    assert rows.max() == 16


def test_the_box_is_timms():
    with np.load(FOLDER / "losses.npz") as file:
        lam, y, x, box = (file[f"cm_{name}"] for name in ("lam", "cy", "cx", "box"))
    for share, row, column, (top, bottom, left, right) in zip(1 - lam, y, x, box):
        expected = np.ones((224, 224), bool)
        expected[top:bottom, left:right] = False
        found = box_around(*map(jnp.float32, (row, column, share)), 224, 224)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_erasing():
    x = jnp.full((400, 16, 16, 3), 7.0)
    erased = np.asarray(jax.jit(lambda key, x: erase(key, x, 0.25))(jax.random.key(1), x))
    holes = (erased != 7.0).any(3)
    hit = holes.any((1, 2))
    assert abs(hit.mean() - 0.25) < 0.07
    areas = holes[hit].mean((1, 2))
    assert areas.min() > 0.0 and areas.max() < 0.4
    for hole in holes[hit][:30]:  # a rectangle
        assert (hole == np.outer(hole.any(1), hole.any(0))).all()
    noise = erased[holes]
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05
    np.testing.assert_array_equal(erase(jax.random.key(1), x, 0.0), x)


def test_mix_token_undoes_itself_at_any_scale():
    keep = box_mask(jax.random.key(5), jnp.array(0.4), 4, 4)
    assert 0 < keep.sum() < 16
    for side in (4, 8):
        x = images(4, side)
        mixed = mixing.mix_token(keep, x)
        assert (mixed != x).any()
        np.testing.assert_array_equal(mixing.mix_token(keep, mixed), x)


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(x.reshape(len(x), -1))


def batch(count=4):
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (count, 4, 4, 3)), jnp.uint8),
        "label": jnp.arange(count) % 3,
        "mask": jnp.ones(count),
    }


@pytest.mark.slow
def test_the_loss_is_that_of_mixed_images_and_labels():
    settings = Mixing(mixup=0.8, cutmix=1.0, erase=0.5)
    options: Any = dict(num_classes=3, image_size=4, loss=LossConfig(label_smoothing=0.1))
    task = classification(Linear(), **options, mixed=settings)
    params, key, b = task.init(jax.random.key(0))["params"], jax.random.key(4), batch()
    losses = jax.jit(task.loss)(params, {}, b, Keys(key), None).value
    x = (b["image"] / 255 - 0.5) / 0.5
    target = jax.nn.one_hot(b["label"], 3) * 0.9 + 0.1 / 3
    erase_key, mix_key = Keys(key)("erase"), Keys(key)("mix")
    x = jax.jit(lambda x: erase(erase_key, x, 0.5))(x)
    x, target = jax.jit(lambda x, t: mix(mix_key, settings, x, t, b["mask"]))(x, target)
    logits = Linear().apply({"params": params}, x)
    expected = -(target * jax.nn.log_softmax(logits)).sum(1)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    plain = classification(Linear(), **options)
    assert not np.allclose(losses, plain.loss(params, {}, b, Keys(key), None).value)


def test_several_labels_an_image():
    task = classification(Linear(), num_classes=3, image_size=4, loss=LossConfig("sigmoid"))
    params, b = task.init(jax.random.key(0))["params"], batch()
    keys = Keys(jax.random.key(0))
    single = task.loss(params, {}, b, keys, None).value
    several = b | {"label": jax.nn.one_hot(b["label"], 3)}
    np.testing.assert_allclose(task.loss(params, {}, several, keys, None).value, single)
    logits = task.predict({"params": params}, b)
    one = task.measure(logits, b)
    for name, value in task.measure(logits, several).items():
        np.testing.assert_allclose(one[name], value, rtol=1e-6)
    everything = task.measure(logits, several | {"label": jnp.ones((4, 3))})
    assert everything["top1"] == 4


PROGRAM = """
import os, re
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from vitjax.tasks.mixing import Mixing, erase, mix

mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
split = NamedSharding(mesh, PartitionSpec("data"))
sizes = ((16, 8, 8, 3), (16, 3), (16,))
shapes = [jax.ShapeDtypeStruct(s, jnp.float32, sharding=split) for s in sizes]
key = jax.eval_shape(lambda: jax.random.key(0))
mixed = Mixing(0.8, 1.0, group_size=1)
run = lambda key, x, t, mask: mix(key, mixed, erase(key, x, 0.25), t, mask)
text = jax.jit(run, out_shardings=(split, split)).lower(key, *shapes).compile().as_text()
print(re.findall("all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter", text))
"""


@pytest.mark.slow
def test_nothing_crosses_devices():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
