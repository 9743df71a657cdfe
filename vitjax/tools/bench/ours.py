"""Steps of our models for `vitjax.tools.bench.worker`: forward, and training."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import models
from vitjax.analysis.cost import trace
from vitjax.data.source import DataInfo
from vitjax.tasks import task_config, task_from_config
from vitjax.tools.bench.measure import split_options
from vitjax.train import sharding
from vitjax.train.compiler import compiler_options
from vitjax.train.config import resolve
from vitjax.train.program import compile_program

Step = tuple[Callable[[int], float], dict[str, Any], Callable[[], dict[str, Any]]]
Compiled = tuple[Callable[[], Any], Any, float]
"""Function that runs the step once, its program, and the seconds that compiling it took."""
CLASSES = {"classes": 1000, "map": 150, "image": 0}
TASKS = {"classes": "classification", "map": "segmentation", "image": "restoration"}
"""A model's output → the task that trains it."""


def device() -> Step:
    """Tell which device there is; its step does nothing."""
    found = jax.devices()[0]
    about = {"platform": found.platform, "device": found.device_kind}
    return lambda steps: 0.0, about, memory


def forward(model: str, batch: int, size: int, dtype: str) -> Step:
    """Build the forward pass of a model; see `forward_step`."""
    return told(model, batch, size, dtype, *forward_step(model, batch, size, dtype))


def train(model: str, batch: int, size: int, dtype: str) -> Step:
    """Build the training step of a model; see `train_step`."""
    return told(model, batch, size, dtype, *train_step(model, batch, size, dtype))


def forward_step(model: str, batch: int, size: int, dtype: str) -> Compiled:
    """Compile the forward pass of a model without training, its parameters in `dtype`."""
    module: Any = build(model, size, dtype)
    images = draw((batch, size, size, 3)).astype(dtype)
    variables = jax.jit(module.init)(jax.random.key(0), images[:1])
    variables = jax.tree.map(lambda x: x.astype(dtype), variables)
    begin = time.perf_counter()
    options = compiler_options(jax.devices()[:1])
    apply = jax.jit(module.apply, compiler_options=options).lower(variables, images).compile()
    return lambda: apply(variables, images), apply, time.perf_counter() - begin


def train_step(model: str, batch: int, size: int, dtype: str) -> Compiled:
    """Compile the training step of a model that `vitjax train` runs: loss, gradient, AdamW.

    The task is that of the model's output; the images are noise.
    """
    config = recipe(model, batch, size, dtype)
    output = next(k for k, task in TASKS.items() if task == config.task)
    classes = tuple(map(str, range(CLASSES[output])))
    task = task_from_config(config, DataInfo(classes, "", frozenset(("image", "target", "map"))))
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    program = compile_program(config, task, mesh, config.steps)
    key = jax.random.key(0)
    held: dict[str, Any] = {"state": program.init(key)}
    generator, high = np.random.default_rng(0), {"label": len(classes), "map": len(classes)}
    data = {
        name: generator.integers(0, high.get(name, 256), spec.shape).astype(spec.dtype)
        for name, spec in program.batch_spec.items()
    }
    data["mask"] = np.ones(batch, np.float32)
    data = jax.device_put(data, program.batch_sharding)
    begin = time.perf_counter()
    step = program.train_step.lower(held["state"], data, key).compile()
    seconds = time.perf_counter() - begin

    def once() -> Any:
        held["state"], metrics = step(held["state"], data, key)
        return metrics["loss"]

    return once, step, seconds


def told(
    model: str, batch: int, size: int, dtype: str, once: Callable[[], Any], program: Any,
    seconds: float,
) -> Step:  # fmt: skip
    """Return a compiled step as `worker` asks for it."""

    def run(steps: int) -> float:
        out = repeat(once, steps)
        return float(np.mean([np.mean(np.asarray(x, np.float32)) for x in jax.tree.leaves(out)]))

    return run, describe(model, batch, size, dtype, program, seconds), memory


def section(model: str, dtype: str) -> dict[str, Any]:
    """Return the section `model` of a config; see `split_options`."""
    name, options = split_options(model)
    return {"name": name, "dtype": dtype, **options}


def build(model: str, size: int, dtype: str) -> Any:
    """Build a module as a run's config does."""
    return models.from_config(section(model, dtype), None, size)


def recipe(model: str, batch: int, size: int, dtype: str) -> Any:
    """Return the config of a run that trains a model at a small constant rate."""
    output = getattr(build(model, size, dtype), "output", "classes")
    fields = dict(
        task=TASKS[output],
        steps=1000,
        model=section(model, dtype),
        data=dict(image_size=size, batch_size=batch, eval_batch_size=batch),
        optimizer=dict(name="adamw", weight_decay=0.05, clip_norm=1.0),
        schedule=dict(name="constant", learning_rate=1e-4),
    )
    return resolve(fields, "vitjax bench", {}, models.model_options, task_config)


def draw(shape: tuple[int, ...]) -> Any:
    """Draw images of noise."""
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))


def repeat(step: Callable[[], Any], times: int) -> Any:
    """Run a step several times, to the end of the last, and return its result.

    A CPU would run several at once, which no other device does.
    """
    each = jax.default_backend() == "cpu"
    out = None
    for _ in range(times):
        out = step()
        if each:
            jax.block_until_ready(out)
    return jax.block_until_ready(out)


def describe(
    model: str, batch: int, size: int, dtype: str, program: Any, seconds: float
) -> dict[str, Any]:
    """Tell what a row says besides times; `planned` is the compiler's count of bytes."""
    parameters, macs, _ = trace(build(model, size, dtype), (1, size, size, 3))
    m = program.memory_analysis()
    outputs = int(m.output_size_in_bytes - m.alias_size_in_bytes)
    device = jax.devices()[0]
    return {
        "batch": batch,
        "size": size,
        "dtype": dtype,
        "parameters": parameters,
        "macs": macs,
        "compile": seconds,
        "planned": int(m.argument_size_in_bytes + m.temp_size_in_bytes) + max(outputs, 0),
        "platform": device.platform,
        "device": device.device_kind,
        "version": f"jax {jax.__version__}",
    }


def memory() -> dict[str, Any]:
    """Return the bytes that the device's allocator counts; nothing on a CPU."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" not in stats:
        return {}
    return {"peak": stats["peak_bytes_in_use"], "used": stats["bytes_in_use"], "of": "the device"}
