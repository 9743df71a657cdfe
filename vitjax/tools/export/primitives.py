"""A traced program, evaluated with fewer primitives: what jax2onnx converts for any batch size.

It is traced before jax2onnx is at work, which replaces functions of jax.numpy and flax by its own,
not all of which take every argument. What is rewritten was found with jax2onnx 0.13.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.extend.core import Literal

_CALLS = ("jaxpr", "call_jaxpr")
_LOOPS = ("scan", "while", "cond")


def evaluate(jaxpr: Any, constants: Sequence[Any], *arguments: Any) -> list[Any]:
    """Evaluate a program with its inner functions inlined; loops stay as they are."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        name, inputs = equation.primitive.name, [read(v) for v in equation.invars]
        inner = next((equation.params[key] for key in _CALLS if key in equation.params), None)
        with _at_once(equation, inputs):
            if name in REWRITES:
                out = [REWRITES[name](*inputs, **equation.params)]
            elif inner is not None and name not in _LOOPS:
                body, held = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
                out = evaluate(body, held, *inputs)
            else:
                out = equation.primitive.bind(*inputs, **equation.params)
                out = out if equation.primitive.multiple_results else [out]
        values.update(zip(equation.outvars, out, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _at_once(equation: Any, inputs: Sequence[Any]) -> contextlib.AbstractContextManager[Any]:
    """Compute values that depend on no image, such as masks, now.

    jax2onnx confuses their first axis with the batch where it broadcasts them.
    """
    static = all(isinstance(n, int) for v in equation.outvars for n in v.aval.shape)
    known = static and not any(isinstance(x, Tracer) for x in inputs)
    return jax.ensure_compile_time_eval() if known else contextlib.nullcontext()


def _stack(*arrays: Any, axis: int) -> Any:
    return lax.concatenate([lax.expand_dims(x, (axis,)) for x in arrays], axis)


def _pad(x: Any, value: Any, *, padding_config: Sequence[Sequence[Any]]) -> Any:
    """Pad by concatenation: jax2onnx needs a number for each side of the result."""
    for axis, (low, high, inside) in enumerate(padding_config):
        if inside:
            x = _spread(x, value, axis, inside)
        if low < 0 or high < 0:
            x = lax.slice_in_dim(x, max(-low, 0), x.shape[axis] - max(-high, 0), axis=axis)
        shapes = [(*x.shape[:axis], n, *x.shape[axis + 1 :]) for n in (low, high)]
        before, after = (
            [lax.broadcast_in_dim(value, shape, ())] if n > 0 else []
            for n, shape in zip((low, high), shapes)
        )
        parts = [*before, x, *after]
        x = lax.concatenate(parts, axis) if len(parts) > 1 else x
    return x


def _spread(x: Any, value: Any, axis: int, inside: int) -> Any:
    """Insert values between neighbours along an axis."""
    n, shape = x.shape[axis], x.shape
    between = lax.broadcast_in_dim(value, (*shape[: axis + 1], inside, *shape[axis + 1 :]), ())
    pairs = lax.concatenate([lax.expand_dims(x, (axis + 1,)), between], axis + 1)
    flat = lax.reshape(pairs, (*shape[:axis], n * (1 + inside), *shape[axis + 1 :]))
    return lax.slice_in_dim(flat, 0, n * (1 + inside) - inside, axis=axis)


def _window(
    reduce: Callable[[Any, Any], Any], first: float, x: Any, *, window_dimensions: Sequence[Any],
    window_strides: Sequence[Any], padding: Sequence[Sequence[Any]],
    base_dilation: Sequence[Any], window_dilation: Sequence[Any],
) -> Any:  # fmt: skip
    """Reduce windows axis by axis: ONNX Runtime pools three axes at most."""
    if {*base_dilation, *window_dilation} != {1}:
        raise NotImplementedError("windows with gaps")
    x = _pad(x, jnp.asarray(first, x.dtype), padding_config=[(*p, 0) for p in padding])
    for axis, (size, stride) in enumerate(zip(window_dimensions, window_strides)):
        if (size, stride) != (1, 1):
            last = (x.shape[axis] - size) // stride * stride + 1
            parts = [lax.slice_in_dim(x, i, i + last, stride, axis) for i in range(size)]
            x = functools.reduce(reduce, parts)
    return x


REWRITES: dict[str, Callable[..., Any]] = {
    "stack": _stack,
    "pad": _pad,
    "reduce_window_max": functools.partial(_window, lax.max, -jnp.inf),
    "reduce_window_sum": functools.partial(_window, lax.add, 0.0),
}
"""Primitive → the same in others."""
