"""Kernels that a step compiled for GPUs became: library calls, Triton, XLA's own loops."""

import re

from vitjax.plan.hlo import Instruction, Program

CALLS = {  # beginning of a custom call's target → words
    "__cublas": "cuBLAS products",
    "__cudnn$conv": "cuDNN convolutions",
    "__cudnn$fmha": "cuDNN attention",
    "__cudnn": "other cuDNN kernels",
    "__gpu$xla.gpu.triton": "Pallas kernels",
    "__cub": "sorts",
}
ATTENTION = re.compile(r"/attend(_\w+)?/")
"""Scope of the module that computes attention; see `vitjax.attention.core`."""


def kernels(program: Program) -> dict[str, dict[str, int]]:
    """Count the kernels of a step by their kind, those of attention apart.

    Returns:
      "attention" and "rest" → kind → how many a step executes, the turns of loops counted.
    """
    found: dict[str, dict[str, int]] = {"attention": {}, "rest": {}}
    for name, times in program.loops().items():
        for i in program.computations[name].values():
            if kind := _kind(program, i):
                place = found["attention" if ATTENTION.search(i.attribute("metadata")) else "rest"]
                place[kind] = place.get(kind, 0) + times
    return {place: dict(sorted(kinds.items())) for place, kinds in found.items()}


def _kind(program: Program, i: Instruction) -> str:
    """Name the kind of kernel that an instruction is; empty for one that is none."""
    if i.opcode == "custom-call":
        target = i.attribute("custom_call_target").strip('"')
        return next((words for begin, words in CALLS.items() if target.startswith(begin)), target)
    if i.opcode == "fusion":
        if "triton" not in i.rest:
            return "XLA's own"
        inner = program.computations[i.attribute("calls").lstrip("%")].values()
        return "Triton products" if any(j.opcode == "dot" for j in inner) else "Triton fusions"
    return "XLA's own" if i.opcode in ("copy", "reduce", "sort", "scatter", "transpose") else ""


def describe(found: dict[str, int]) -> str:
    """Format kinds: "12 cuBLAS products, 3 XLA's own"."""
    return ", ".join(f"{count} {kind}" for kind, count in found.items()) or "none"
