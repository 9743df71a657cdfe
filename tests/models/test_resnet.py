"""Standardised kernels and TensorFlow's padding; ResNets with BatchNorm."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.models.test_pvt import noisy
from vitjax import weights
from vitjax.models.batchnorm_resnet import ResidualBlock
from vitjax.models.resnet import ResNet, ResNetRoot, StdConv, standardize


def test_standardised_kernels_have_mean_0_and_variance_1_per_output() -> None:
    kernel = 3 + 2 * jax.random.normal(jax.random.key(0), (3, 3, 16, 8))
    w = standardize(kernel)
    np.testing.assert_allclose(w.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(jnp.square(w).mean((0, 1, 2)), 1, rtol=1e-5)
    assert standardize(kernel.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("side", [13, 14])
def test_same_padding_puts_the_odd_zero_last(side: int) -> None:
    conv = StdConv(8, kernel_size=3, stride=2, padding="SAME")
    x = jax.random.normal(jax.random.key(0), (1, side, side, 4))
    params = conv.init(jax.random.key(1), x)
    total = (-(-side // 2) - 1) * 2 + 3 - side
    pad = (total // 2, total - total // 2)
    by_hand = StdConv(8, kernel_size=3, stride=2)
    padded = jnp.pad(x, ((0, 0), pad, pad, (0, 0)))
    np.testing.assert_allclose(conv.apply(params, x), by_hand.apply(params, padded), atol=1e-5)


@pytest.mark.parametrize("pre_act", [False, True])
def test_maps_round_up(pre_act: bool) -> None:
    x = jnp.zeros((1, 45, 67, 3))
    net = ResNet((1, 1, 1), pre_act=pre_act)
    maps, _ = jax.eval_shape(net.init_with_output, jax.random.key(0), x)
    assert [m.shape[1:] for m in maps] == [(12, 17, 256), (6, 9, 512), (3, 5, 1024)]


def test_the_pre_activation_root_pools_with_zeros() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
    root = ResNetRoot(64, pre_act=True)
    y, _ = root.init_with_output(jax.random.key(1), x)
    assert (y[:, 0] >= 0).all() and (y[:, :, 0] >= 0).all() and (y < 0).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
    ],
)
def test_counts_are_those_of_torchvision(name: str, count: int) -> None:
    params = weights.abstract_variables(vitjax.create_model(name))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


@pytest.mark.parametrize(("stride", "width"), [(1, 5), (2, 7)])
def test_a_basic_block_is_two_convolutions_and_a_shortcut(stride: int, width: int) -> None:
    block: Any = ResidualBlock(width, stride, bottleneck=False)
    x = jax.random.normal(jax.random.key(0), (1, 7, 11, 5))
    variables = block.init(jax.random.key(1), x)
    params = variables["params"]

    def conv(x: Any, name: str, stride: int, pad: int) -> Any:
        y = jax.lax.conv_general_dilated(
            x, params[name]["conv"]["kernel"], (stride, stride), ((pad, pad),) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        return y / np.sqrt(1 + 1e-5)  # the first running statistics: mean 0, variance 1

    y = conv(jnp.maximum(conv(x, "conv_0", stride, 1), 0), "conv_1", 1, 1)
    shortcut = x if stride == 1 else conv(x, "shortcut", stride, 0)
    np.testing.assert_allclose(
        block.apply(variables, x), jnp.maximum(shortcut + y, 0), rtol=1e-5, atol=1e-5
    )


def test_without_pooling_the_stem_has_its_stride() -> None:
    net: Any = vitjax.create_model("resnet18", width=4, depths=(1, 1), pool=False, num_classes=0)
    x = jnp.zeros((1, 45, 67, 3))
    maps = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x, method="features"))[0]
    assert [m.shape[1:] for m in maps] == [(12, 17, 4), (6, 9, 8)] and net.strides == (4, 8)


@pytest.mark.slow
def test_frozen_statistics_are_those_of_evaluation() -> None:
    """In training the output is that of evaluation, statistics stay, scales have gradients."""
    options = dict(depths=(1, 1), image_size=32, remat=True)
    model, plain = (
        vitjax.create_model("resnet50", 5, frozen_statistics=frozen, **options)
        for frozen in (True, False)
    )
    variables, images = noisy(model, (32, 32), batch=2)

    def run(model, params, train):
        given = {**variables, "params": params}
        y, new = model.apply(given, images, train, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y)), (y, new.get("batch_stats"))

    @jax.jit
    def all_of_it(params):
        steps = jax.value_and_grad(lambda p: run(model, p, True), has_aux=True)(params)
        return steps, run(model, params, False)[1][0], run(plain, params, True)[1]

    ((_, (y, stats)), grads), evaluated, (moved_y, moved) = all_of_it(variables["params"])
    np.testing.assert_allclose(y, evaluated, rtol=1e-6, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])
    scale = grads["stage_1"]["block_0"]["conv_1"]["norm"]["scale"]
    assert np.isfinite(scale).all() and np.abs(scale).max() > 0
    assert np.abs(np.asarray(moved_y) - y).max() > 1e-3
    assert np.abs(moved["stem"]["norm"]["mean"] - stats["stem"]["norm"]["mean"]).max() > 0
