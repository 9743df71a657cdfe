"""Parameters, multiply-adds and FLOPs of a model, and its layers' shapes; nothing is executed."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

from vitjax.abstract import abstract_init
from vitjax.kernels.platform import plain_form
from vitjax.kernels.scopes import counted


class Cost(NamedTuple):
    """Cost of the forward pass of one image.

    Attributes:
      parameters: trained numbers.
      macs: multiply-adds of convolutions and matrix products, padding included, as papers count;
        products that stand for a lookup (bilinear samples, one-hot selections) are not counted,
        as the gathers that they replace are not, and of products that tiles compute and mask only
        those that are asked for.
      flops: operations that the compiler counts in the compiled forward pass; element-wise too.
    """

    parameters: int
    macs: int
    flops: float


class Layer(NamedTuple):
    """One module: its path, class, output shape (the batch as 1) and own and inner parameters."""

    path: str
    kind: str
    shape: str
    parameters: int


def count(model: nn.Module, shape: tuple[int, ...]) -> Cost:
    """Count parameters, multiply-adds and FLOPs for one image of `shape` `[1, H, W, 3]`.

    The forward pass is traced and compiled, not run.
    """
    parameters, macs, forward = trace(model, shape)
    analysis = forward.lower().compile().cost_analysis()
    return Cost(parameters, macs, float(analysis["flops"]))  # type: ignore[index]


def trace(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int, Any]:
    """Count parameters and multiply-adds and trace the forward pass, without compiling."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = abstract_init(model.init, jax.random.key(0), images)
    parameters = sum(math.prod(p.shape) for p in jax.tree.leaves(variables["params"]))
    forward = jax.jit(lambda v, x: model.apply(v, x)).trace(variables, images)
    return parameters, multiply_adds(forward.jaxpr.jaxpr), forward


def per_sample(loss: Callable[..., Any], state: Any, batch: Any, key: Any) -> int:
    """Count the multiply-adds of a training loss for each sample; nothing is compiled.

    Args:
      loss: (state, batch, key) → anything, the forward pass of a step.
      state, batch, key: their shapes; `batch["mask"]` tells how many samples there are.
    """
    closed = jax.make_jaxpr(loss)(state, batch, key)
    return multiply_adds(closed.jaxpr) // batch["mask"].shape[0]


def multiply_adds(jaxpr: core.Jaxpr) -> int:
    """Count the multiply-adds of convolutions and matrix products, without lookups.

    Loops are unrolled.
    """
    total = 0
    for equation, times, scope in _equations(jaxpr, 1, ""):
        name = equation.primitive.name
        if name not in ("dot_general", "conv_general_dilated"):
            continue
        products = math.prod(equation.outvars[0].aval.shape)  # type: ignore[attr-defined]
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape  # type: ignore[attr-defined]
            products *= math.prod(left[i] for i in contracted)
        else:
            kernel = equation.invars[1].aval.shape  # type: ignore[attr-defined]
            outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            products = products * math.prod(kernel) // outputs
        total += times * counted(products, scope)
    return total


def _equations(jaxpr: core.Jaxpr, times: int, outer: str) -> Iterator[tuple[Any, int, str]]:
    """Yield the equations with how often each runs, and its scope.

    Programs inside of a program know their own scopes alone, which follow the `outer` ones.
    """
    for equation in jaxpr.eqns:
        scope = f"{outer}/{equation.source_info.name_stack}"
        plain = plain_form(equation)
        if plain is not None:
            yield from _equations(plain, times, scope)
            continue
        yield equation, times, scope
        length = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)  # a closed one holds it
                if isinstance(inner, core.Jaxpr):
                    yield from _equations(inner, times * length, scope)


def layers(model: nn.Module, shape: tuple[int, ...], depth: int = 2) -> list[Layer]:
    """List the modules down to `depth` levels below the model, in the order in which they run."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    rows: list[Layer] = []

    def watch(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        result = call(*arguments, **keywords)
        path = context.module.path
        if context.method_name == "__call__" and len(path) <= depth:
            shapes = [
                list(leaf.shape) for leaf in jax.tree.leaves(result) if hasattr(leaf, "shape")
            ]
            shown = " ".join("×".join(map(str, s)) for s in shapes)
            own = sum(
                math.prod(p.shape) for p in jax.tree.leaves(_inside(variables["params"], path))
            )
            rows.append(Layer("/".join(path), type(context.module).__name__, shown, own))
        return result

    variables = abstract_init(model.init, jax.random.key(0), images)
    with nn.intercept_methods(watch):
        jax.eval_shape(lambda v, x: model.apply(v, x), variables, images)
    return rows


def _inside(tree: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        tree = tree.get(part, {})
    return tree
