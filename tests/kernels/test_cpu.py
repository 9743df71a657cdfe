"""Forms for CPUs: the plain ones' values and gradients, and no trace in programs for TPUs."""

import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from vitjax.abstract import abstract_init
from vitjax.attention import core, offsets, projections
from vitjax.kernels import cpu
from vitjax.kernels.depthwise import LAYOUT, depthwise_conv_general_dilated
from vitjax.layers import conv, mlp, norm


def draw(*shape: int, seed: int = 0, dtype: Any = jnp.float32) -> Any:
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def value_and_gradients(f: Callable[..., Any], *x: Any) -> list[Any]:
    out, pull = jax.vjp(jax.jit(f), *x)
    grad = jax.tree.map(lambda y: draw(*y.shape, seed=1, dtype=jnp.bfloat16).astype(y.dtype), out)
    return jax.tree.leaves((out, pull(grad)))


def assert_equal(ours: list[Any], plain: list[Any], tolerance: float = 1e-5) -> None:
    for a, b in zip(ours, plain, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        scale = float(jnp.abs(b.astype(jnp.float32)).max())
        np.testing.assert_allclose(
            a.astype(jnp.float32), b.astype(jnp.float32), rtol=0, atol=tolerance * scale
        )


def convolve(f: Any, strides: Any, padding: Any) -> Callable[..., Any]:
    def call(x: Any, kernel: Any) -> Any:
        groups = x.shape[-1]
        return f(x, kernel, strides, padding, feature_group_count=groups, dimension_numbers=LAYOUT)

    return call


@pytest.mark.parametrize(
    ("size", "kernel", "strides", "padding"),
    [
        ((13, 11), (3, 3), (1, 1), ((1, 1), (1, 1))),
        ((13, 11), (5, 5), (2, 2), ((2, 2), (2, 2))),
        ((12, 8), (4, 4), (4, 4), ((0, 0), (0, 0))),
        ((13, 11), (4, 4), (1, 1), ((1, 2), (1, 2))),
        ((10, 7), (3, 3), (2, 3), ((0, 0), (1, 0))),
        ((13, 13), (7, 3), (1, 2), ((3, 3), (0, 1))),
        ((5, 7), (1, 1), (1, 1), ((0, 0), (0, 0))),
        ((5, 7), (2, 2), (3, 3), ((0, 0), (0, 0))),
    ],
)
def test_depthwise_convolution(size: Any, kernel: Any, strides: Any, padding: Any) -> None:
    x, k = draw(3, *size, 17), draw(*kernel, 1, 17, seed=2)
    ours = value_and_gradients(convolve(depthwise_conv_general_dilated, strides, padding), x, k)
    plain = value_and_gradients(convolve(jax.lax.conv_general_dilated, strides, padding), x, k)
    assert_equal(ours, plain, 2e-6)


def test_depthwise_convolution_of_16_bits_sums_in_32() -> None:
    x, k = draw(3, 13, 11, 17, dtype=jnp.bfloat16), draw(5, 5, 1, 17, seed=2, dtype=jnp.bfloat16)
    case = (1, 1), ((2, 2), (2, 2))
    ours = value_and_gradients(convolve(depthwise_conv_general_dilated, *case), x, k)
    wide = [a.astype(jnp.float32) for a in (x, k)]
    plain = value_and_gradients(convolve(jax.lax.conv_general_dilated, *case), *wide)
    for a, b in zip(ours, plain, strict=True):
        assert a.dtype == jnp.bfloat16
        error = jnp.abs(a.astype(jnp.float32) - b).max() / jnp.abs(b).max()
        assert error < 2**-7  # one rounding of the result, and of the cotangent


def test_depthwise_convolution_twice_differentiated_batched_and_not_jitted() -> None:
    x, k = draw(2, 5, 7, 3), draw(3, 3, 1, 3, seed=2)
    case = (2, 2), ((1, 1), (1, 1))
    ours = convolve(depthwise_conv_general_dilated, *case)
    plain = convolve(jax.lax.conv_general_dilated, *case)

    def penalty(f: Any) -> Any:
        return lambda x, k: jnp.sum(jax.grad(lambda x, k: jnp.sum(f(x, k) ** 2), 1)(x, k) ** 2)

    assert_equal(jax.grad(penalty(ours), (0, 1))(x, k), jax.grad(penalty(plain), (0, 1))(x, k))
    xs = jnp.stack([x, 2 * x, -x])
    each = jax.vmap(jax.grad(lambda x, k: jnp.sum(ours(x, k) ** 2), 1), (0, None))(xs, k)
    for got, x in zip(each, xs, strict=True):
        assert_equal([got], [jax.grad(lambda x, k: jnp.sum(plain(x, k) ** 2), 1)(x, k)])


@pytest.mark.parametrize("given", [{"rhs_dilation": (2, 2)}, {"feature_group_count": 1}])
def test_a_convolution_that_is_not_depthwise_is_refused(given: Any) -> None:
    given = {"feature_group_count": 3, **given}
    with pytest.raises(ValueError, match=r"one output for each channel and no dilation; got"):
        depthwise_conv_general_dilated(
            draw(1, 5, 7, 3), draw(3, 3, 1, 3), (1, 1), ((1, 1), (1, 1)), **given
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dimension_numbers": ("NCHW", "OIHW", "NCHW")}, "The layout .* is not"),
        ({"precision": "highest"}, "precision=highest cannot be set here"),
    ],
)
def test_what_the_convolution_does_not_read_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        depthwise_conv_general_dilated(
            draw(1, 5, 7, 3),
            draw(3, 3, 1, 3),
            (1, 1),
            ((1, 1), (1, 1)),
            feature_group_count=3,
            **given,
        )


@pytest.mark.parametrize("f", [cpu.keep, cpu.heads_first])
def test_hints_are_the_identity(f: Callable[..., Any]) -> None:
    x, grad = draw(2, 5, 3, 7), draw(2, 5, 3, 7, seed=1, dtype=jnp.bfloat16)
    assert_equal(value_and_gradients(f, x), [x, grad.astype(x.dtype)], 0)
    np.testing.assert_array_equal(jax.vmap(f, 1, 1)(draw(2, 5, 3, 7, 1)), draw(2, 5, 3, 7, 1))
    value, tangent = jax.jvp(f, (x,), (2 * x,))
    np.testing.assert_array_equal(tangent, 2 * value)


def test_cut_is_indexing() -> None:
    x = draw(2, 5, 3, 7, 11)
    plain = value_and_gradients(lambda x: tuple(x[..., i, :, :] for i in range(3)), x)
    assert_equal(value_and_gradients(cpu.cut, x), plain, 0)
    # Parts that nobody reads have no gradient.
    grads = jax.grad(lambda x: jnp.sum(cpu.cut(x)[1] ** 2))(x)
    assert_equal([grads], [jax.grad(lambda x: jnp.sum(x[..., 1, :, :] ** 2))(x)], 1e-6)


def plain_gelu(x: Any) -> Any:
    return mlp.gelu_once(x) if x.dtype.itemsize == 2 else jax.nn.gelu(x, approximate=False)


def test_gelu_with_one_erf() -> None:
    x = 5 * draw(31, 37)
    assert_equal(value_and_gradients(mlp.gelu, x), value_and_gradients(plain_gelu, x), 1e-6)


MODELS = [
    ("vit_ti16", dict(depth=2)),
    ("vit_ti16", dict(depth=3, scan=True)),
    ("vit_ti16", dict(depth=2, remat=True)),
    ("vit_ti16", dict(depth=2, dtype=jnp.bfloat16)),
    ("swin_tiny", dict(depths=(1, 2, 1, 1))),
    ("swin_tiny", dict(depths=(1, 1, 4, 1), scan=True)),
    ("pvt_v2_b0", dict(depths=(1, 1, 1, 1))),
    ("volo_d1", dict(depths=(1, 1, 1, 1))),
    ("dat_tiny", dict(depths=(1, 1, 2, 1))),
    ("debiformer_tiny", dict(depths=(1, 1, 1, 1))),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), MODELS)
def test_programs_for_tpus_have_the_operations_of_the_plain_forms(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tpu_operations(name, options)
    plain = jax.lax.conv_general_dilated
    monkeypatch.setattr(conv, "depthwise_conv_general_dilated", plain)
    monkeypatch.setattr(offsets, "depthwise_conv_general_dilated", plain)
    monkeypatch.setattr(norm, "LayerNorm", nn.LayerNorm)
    monkeypatch.setattr(mlp, "gelu", plain_gelu)
    for module in (core, projections, mlp):
        monkeypatch.setattr(module, "cpu", Plain)
    assert tpu_operations(name, options) == ours


class Plain:
    """Plain forms of the functions of `vitjax.kernels.cpu`."""

    keep = heads_first = staticmethod(lambda x: x)
    cut = staticmethod(lambda x: tuple(x[..., i, :, :] for i in range(x.shape[-3])))
    dot_general = staticmethod(jax.lax.dot_general)


def tpu_operations(name: str, options: dict[str, Any]) -> list[str]:
    """The operations of loss and gradient, lowered for TPUs: with types, without names, sorted."""
    from jax._src.lib.mlir import passmanager

    jax.clear_caches()
    model = vitjax.create_model(name, image_size=64, num_classes=7, **options)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    variables = abstract_init(model.init, jax.random.key(0), images)

    def loss(variables: Any, images: Any) -> Any:
        return model.apply(variables, images).sum().astype(jnp.float32)

    traced = jax.jit(jax.value_and_grad(loss)).trace(variables, images)
    module = traced.lower(lowering_platforms=("tpu",)).compiler_ir("stablehlo")
    with module.context:
        passes = "builtin.module(inline,canonicalize,cse,symbol-dce)"
        passmanager.PassManager.parse(passes).run(module.operation)
        text = module.operation.get_asm(enable_debug_info=False)
    return sorted(re.sub(r"[%@]\w+(#\d+)?", "%", line.strip()) for line in text.splitlines())
