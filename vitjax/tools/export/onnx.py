"""ONNX through jax2onnx, from a program of JAX's own primitives, compared with ONNX Runtime."""

import contextlib
import io
import json
import logging
import pathlib
from typing import Any

import jax
import numpy as np
from jax import export

from vitjax.kernels.platform import plain_forms
from vitjax.models.dense import DenseModel
from vitjax.tools.export.given import Given, description, program
from vitjax.tools.export.primitives import evaluate
from vitjax.tools.export.runners import runner

OPSET = 18
"""Read by ONNX Runtime from 1.14 on."""
BATCHES = (1, 7)
TOLERANCE = 1e-3
"""Share of the largest number by which ONNX Runtime may differ."""
_INLINE = 1 << 30
"""Bytes of weights beyond which they stand in a file beside: a protobuf has at most 2 GiB."""


def write(given: Given, folder: pathlib.Path) -> dict[str, Any]:
    """Write model.onnx, and run.py; the model computes in float32.

    Raises:
      ValueError: jax2onnx is not installed or does not convert the model, or ONNX Runtime gives
        other numbers.
    """
    for library in ("jax2onnx", "onnx_ir"):  # what they skip is none of the user's business
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        import jax2onnx  # pyright: ignore[reportMissingImports]
        import onnx_ir  # pyright: ignore[reportMissingImports]
        import onnxruntime  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"--to onnx needs the extra: pip install 'vitjax[onnx]' ({error})."
        ) from error
    given = given._replace(trained=given.trained._replace(model=in_float32(given.trained.model)))
    function, images = program(given), given.images(export.symbolic_shape("batch")[0])
    with plain_forms():
        traced = jax.make_jaxpr(function)(images)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it looks at
            model: Any = jax2onnx.to_onnx(
                lambda x: evaluate(traced.jaxpr, traced.consts, x)[0],
                [images],
                opset=OPSET,
                model_name=given.name,
                return_mode="ir",
                input_names=["images"],
                output_names=["output"],
            )
    except Exception as error:  # whatever a converter meets
        what = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"jax2onnx does not convert {given.name!r} ({type(error).__name__}: {what}); "
            f"give --to stablehlo."
        ) from error
    forget_shapes(model)
    about = description(given, "output")
    model.metadata_props["vitjax"] = json.dumps(about)
    model.metadata_props["classes"] = json.dumps(about["classes"])
    path = folder / "model.onnx"
    size = sum(x.nbytes for x in jax.tree.leaves(given.trained.variables))
    onnx_ir.save(model, path, external_data="model.onnx.data" if size > _INLINE else None)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    difference = compare(given, function, session)
    (folder / "run.py").write_text(runner(given, "onnx"))
    return {"opset": OPSET, "largest_difference": difference}


def compare(given: Given, function: Any, session: Any) -> float:
    """Compare ONNX Runtime's numbers with JAX's on random images, in batches of 1 and 7.

    Returns:
      The largest difference.

    Raises:
      ValueError: it is larger than TOLERANCE of the largest number.
    """
    shape = given.images(max(BATCHES)).shape
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with jax.default_matmul_precision("highest"):
        expected = np.asarray(jax.jit(function)(images))
    worst = 0.0
    for batch in BATCHES:
        (found,) = session.run(None, {"images": images[:batch]})
        worst = max(worst, float(np.abs(found - expected[:batch]).max()))
    largest = float(np.abs(expected).max())
    if not worst <= TOLERANCE * max(largest, 1.0):
        raise ValueError(
            f"ONNX Runtime's numbers for {given.name!r} differ by {worst:.2g} from JAX's, of which "
            f"the largest is {largest:.2g}; give --to stablehlo."
        )
    return worst


def forget_shapes(model: Any) -> None:
    """Remove the shapes of inner values, which ONNX Runtime infers itself.

    jax2onnx names the axis of windows times images after the batch, and ONNX Runtime then allocates
    a buffer of another size.
    """
    outputs = {id(value) for value in model.graph.outputs}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if id(value) not in outputs:
                value.shape = None


def in_float32(model: Any) -> Any:
    """Return the model that computes in its parameters' precision."""
    if isinstance(model, DenseModel):
        return model.clone(dtype=None, encoder=model.encoder.replace(dtype=None))
    return model.clone(dtype=None)
