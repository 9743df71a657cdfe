"""StableHLO through `jax.export`: for CPUs, CUDA GPUs and TPUs, any batch size."""

import json
import pathlib
from typing import Any

import jax
from jax import export

from vitjax.tools.export.given import Given, description, program
from vitjax.tools.export.runners import runner

PLATFORMS = ("cpu", "cuda", "tpu")


def write(given: Given, folder: pathlib.Path) -> dict[str, Any]:
    """Write model.stablehlo, model.json and run.py.

    `jax.export` refuses a program with calls that later versions may not have.

    Raises:
      ValueError: flatbuffers is not installed, or the program has such a call.
    """
    try:
        import flatbuffers  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("--to stablehlo needs the extra: pip install 'vitjax[export]'.") from error
    exported = export.export(jax.jit(program(given)), platforms=PLATFORMS)(
        given.images(export.symbolic_shape("batch")[0])
    )
    (folder / "model.stablehlo").write_bytes(exported.serialize())
    said = {
        "platforms": list(PLATFORMS),
        "calling_convention_version": exported.calling_convention_version,
    }
    about = {**description(given, "output"), **said}
    (folder / "model.json").write_text(json.dumps(about, indent=2) + "\n")
    (folder / "run.py").write_text(runner(given, "stablehlo"))
    return said
