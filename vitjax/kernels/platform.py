"""Operations with a form for CPUs or GPUs, chosen when a program is lowered.

`jax.lax.platform_dependent` chooses by a number in the program. `jax.lax.scan` moves that number
out of a loop that is differentiated, and what is left inside is a conditional at run time, with the
residuals of all forms. A primitive with a lowering for each platform leaves no trace on the others.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

import jax
from jax._src import dispatch
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_PLAIN: dict[Any, Callable[..., Any]] = {}
_INSIDE_SCAN: ContextVar[bool] = ContextVar("inside_scan", default=False)
_TARGET: ContextVar[str | None] = ContextVar("target", default=None)
_PLAIN_FORMS: ContextVar[bool] = ContextVar("plain_forms", default=False)


@contextmanager
def inside_scan() -> Iterator[None]:
    """Mark the code traced in this context as the body of a scan."""
    token = _INSIDE_SCAN.set(True)
    try:
        yield
    finally:
        _INSIDE_SCAN.reset(token)


@contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Trace for devices of this platform; see `target_platform`. It decorates functions too."""
    token = _TARGET.set(platform)
    try:
        yield
    finally:
        _TARGET.reset(token)


def target_platform() -> str:
    """Return the platform for which the program is traced: jax's default, unless `traced_for`.

    It is for choices of shapes, which are made before lowering; a wrong one costs time alone.
    """
    return _TARGET.get() or jax.default_backend()


@contextmanager
def plain_forms() -> Iterator[None]:
    """Trace the plain forms alone, for converters that know only JAX's own primitives."""
    token = _PLAIN_FORMS.set(True)
    try:
        yield
    finally:
        _PLAIN_FORMS.reset(token)


def platform_dependent(*arrays: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """Call `jax.lax.platform_dependent`, or `default` alone inside the body of a scan."""
    if _INSIDE_SCAN.get() or _PLAIN_FORMS.get():
        return default(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=cpu, default=default)


def plain_form(equation: Any) -> Any:
    """Return the plain form's program of an equation of this module, or None for others."""
    plain = _PLAIN.get(equation.primitive)
    if plain is None:
        return None
    arguments = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
    return jax.make_jaxpr(partial(plain, **equation.params))(*arguments).jaxpr


def on_cpu(plain: Callable[..., Any], cpu: Callable[..., Any]) -> Callable[..., Any]:
    """Build a function of arrays and static keywords that is `cpu` on CPUs and `plain` elsewhere.

    Its derivatives and batching rules are those of `plain` on all platforms: to have others, use it
    in the forward and backward pass of a `jax.custom_vjp`, or see `linear_on_cpu`.

    Args:
      plain, cpu: equal up to rounding, from arrays to a tuple of arrays.
    """
    return _make(plain, cpu, "cpu")[1]


def on_gpu(plain: Callable[..., Any], gpu: Callable[..., Any]) -> Callable[..., Any]:
    """Build the same for NVIDIA's GPUs, where `gpu` may hold operations that JAX partitions."""
    primitive, bind = _make(plain, gpu, "cuda")
    # Those are lowered for the devices of a program, which JAX looks for in its operations.
    dispatch.prim_requires_devices_during_lowering.add(primitive)
    return bind


def linear_on_cpu(
    plain: Callable[..., Any], cpu: Callable[..., Any], transpose: Callable[..., Any]
) -> Callable[..., Any]:
    """Build a linear function as `on_cpu` does; its gradient is `transpose`.

    Args:
      transpose: cotangents, and the static keywords → a tuple of the arguments' cotangents.
    """
    primitive, bind = _make(plain, cpu, "cpu")

    def jvp(primals: Any, tangents: Any, **static: Any) -> Any:
        tangents = [ad.instantiate_zeros(t) for t in tangents]
        return bind(*primals, **static), bind(*tangents, **static)

    def transposed(cotangents: Any, *arguments: Any, **static: Any) -> Any:
        return transpose(*(ad.instantiate_zeros(c) for c in cotangents), **static)

    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transposed
    return bind


def _make(
    plain: Callable[..., Any], form: Callable[..., Any], platform: str
) -> tuple[Any, Callable[..., Any]]:
    primitive = Primitive(plain.__name__.strip("_"))
    primitive.multiple_results = True
    _PLAIN[primitive] = plain

    def bind(*arrays: Any, **static: Any) -> Any:
        if _PLAIN_FORMS.get():
            return plain(*arrays, **static)
        return tuple(primitive.bind(*arrays, **static))

    @cache
    def jitted(**static: Any) -> Any:
        return jax.jit(partial(bind, **static))

    def evaluate(*arrays: Any, **static: Any) -> Any:
        return jitted(**static)(*arrays)

    def shapes(*arrays: Any, **static: Any) -> Any:
        out = jax.eval_shape(partial(plain, **static), *arrays)
        return [ShapedArray(x.shape, x.dtype) for x in out]

    def jvp(primals: Any, tangents: Any, **static: Any) -> Any:
        tangents = tuple(ad.instantiate_zeros(t) for t in tangents)
        return jax.jvp(partial(plain, **static), tuple(primals), tangents)

    def batch(arrays: Any, axes: Any, **static: Any) -> Any:
        out = jax.vmap(partial(plain, **static), in_axes=tuple(axes))(*arrays)
        return out, (0,) * len(out)

    primitive.def_impl(evaluate)
    primitive.def_abstract_eval(shapes)
    ad.primitive_jvps[primitive] = jvp
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=True))
    mlir.register_lowering(primitive, mlir.lower_fun(form, multiple_results=True), platform)
    return primitive, bind
