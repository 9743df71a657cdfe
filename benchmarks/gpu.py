"""vitjax against timm (PyTorch) on one GPU: `python benchmarks/gpu.py --json=gpu.json`.

Prints a Markdown table and writes every number; `--smoke` tries the script on a CPU. A side whose
packages are missing is left out, aloud.

A training step is forward, backward and AdamW on a batch of uint8 images that lies on the device:
vitjax's own step with model.dtype=bfloat16; timm's model under torch.autocast, channels_last, with
fused AdamW. Both normalise the pixels, smooth the labels by 0.1 and have stochastic depth of 0.1.
Inference has weights and images in bfloat16. timm is measured eager and under torch.compile in its
default mode.

Each side of each model is a process of its own. All compile first, up to `--parallel` of PyTorch's
beside one of JAX's, so compile times are those of a busy machine (0: one after the other). Then
one process at a time computes, in turns: A B C, A B C, … A rate is the median of the rounds. FLOP
are twice the multiply-adds of vitjax.analysis.cost, and three times that for a training step.
Memory is the peak that the framework's allocator gave out.
"""

import argparse
import copy
import importlib.util
import json
import logging
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

ROOT, START = pathlib.Path(__file__).resolve().parents[1], time.perf_counter()
MODELS = {"deit_tiny": "deit_tiny_patch16_224", "vit_s16": "vit_small_patch16_224",
          "swin_tiny": "swin_tiny_patch4_window7_224", "pvt_v2_b2": "pvt_v2_b2",
          "volo_d1": "volo_d1_224"}  # fmt: skip
"""Name in vitjax → name in timm."""
SIDES = {"vitjax": ("jax", "flax"), "eager": ("torch", "timm"), "compiled": ("torch", "timm")}
"""Side → the packages that it needs."""
TASKS = {"inference": 1, "training": 3}
"""Task → forward passes that it costs. In this order: JAX's peak of memory only grows."""
CLASSES, SMOOTHING, DECAY, DROP_PATH = 1000, 0.1, 0.05, 0.1


class Side(NamedTuple):
    """One model on one side: what is known of it, and its tasks, which run asynchronously."""

    info: dict[str, Any]
    steps: dict[str, Callable[[], Any]]
    wait: Callable[[Any], Any]
    peak: Callable[[], int | None]
    free: Callable[[], Any]


HELD: list[Side] = []
"""Of a worker process: its side."""


def open_vitjax(name: str, options: argparse.Namespace) -> Side:
    """Compile a vitjax model's inference and training step; neither is run yet."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from vitjax.analysis import cost
    from vitjax.models import from_config, model_options
    from vitjax.tasks import classification
    from vitjax.train import sharding
    from vitjax.train.config import load_config
    from vitjax.train.setup import make_setup

    size, batch = options.size, options.batch
    flags = {
        "model.name": name, "model.dtype": "bfloat16", "model.drop_path_rate": f"{DROP_PATH}",
        "data.image_size": f"{size}", "data.batch_size": f"{batch}", "epochs": "0",
        "steps": "10000", "loss.label_smoothing": f"{SMOOTHING}", "optimizer.clip_norm": "0",
        "optimizer.weight_decay": f"{DECAY}", "optimizer.b2": "0.999",
    }  # fmt: skip
    logging.getLogger("vitjax").setLevel(logging.ERROR)  # the file's own model is not meant here
    config: Any = load_config(str(ROOT / "configs/digits.py"), flags, model_options)
    model = from_config(config.model.to_dict(), CLASSES, size)
    mesh = sharding.make_mesh(config.mesh)
    setup = make_setup(config, classification.from_config(config, model, CLASSES), mesh, 10_000)
    draw = np.random.default_rng(0)
    rows = {"image": draw.integers(0, 256, (batch, size, size, 3), np.uint8),
            "label": draw.integers(0, CLASSES, batch, np.int32),
            "mask": np.ones(batch, np.float32)}  # fmt: skip
    (inputs,) = sharding.to_devices([rows], setup.batch_sharding, batch)
    images = classification.normalize(inputs["image"], (0.5,) * 3, (0.5,) * 3)
    images = images.astype(jnp.bfloat16)
    key = jax.device_put(jax.random.key(0), setup.key.sharding)
    state: Any = setup.init(key)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.variables())

    begin = time.perf_counter()
    forward: Any = jax.jit(model.apply).lower(half, images).compile()
    between = time.perf_counter()
    step = setup.train_step.lower(state, inputs, key).compile()
    spent = {"inference": between - begin, "training": time.perf_counter() - between}

    def train() -> Any:
        nonlocal state
        state, metrics = step(state, inputs, key)
        return metrics

    device, (parameters, macs, _) = jax.devices()[0], cost.trace(model, (1, size, size, 3))
    return Side(
        dict(device=device.device_kind, jax=jax.__version__, parameters=parameters, macs=macs,
             compile=spent),
        {"inference": lambda: forward(half, images), "training": train},
        wait=jax.block_until_ready,
        peak=lambda: (device.memory_stats() or {}).get("peak_bytes_in_use"),
        free=lambda: None,
    )  # fmt: skip


def open_timm(name: str, kind: str, options: argparse.Namespace) -> Side:
    """Build timm's model; the side "compiled" compiles it, by one run of each task."""
    torch: Any = importlib.import_module("torch")
    timm: Any = importlib.import_module("timm")
    cuda, layout = torch.cuda.is_available(), torch.channels_last
    device = "cuda" if cuda else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32, XLA's default
    sized = {} if name.startswith("pvt") else {"img_size": options.size}  # a PVT takes any size
    model = timm.create_model(MODELS[name], num_classes=CLASSES, drop_path_rate=DROP_PATH, **sized)
    model = model.to(device, memory_format=layout).train()
    half = copy.deepcopy(model).eval().to(torch.bfloat16)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    adamw = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=DECAY, fused=True)
    shape = (options.batch, 3, options.size, options.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    pixels = pixels.contiguous(memory_format=layout)
    labels = torch.randint(0, CLASSES, shape[:1], device=device)
    images = (pixels.float() / 127.5 - 1).to(torch.bfloat16)

    def loss(pixels: Any, labels: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return criterion(model(pixels.float() / 127.5 - 1), labels)

    compiled = kind == "compiled"
    objective, forward = (torch.compile(loss), torch.compile(half)) if compiled else (loss, half)

    def train() -> Any:
        adamw.zero_grad(set_to_none=True)
        value = objective(pixels, labels)
        value.backward()
        adamw.step()
        return value

    def infer() -> Any:
        with torch.inference_mode():
            return forward(images)

    def free() -> None:
        adamw.zero_grad(set_to_none=True)
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    wait = torch.cuda.synchronize if cuda else lambda: None
    steps, spent = {"inference": infer, "training": train}, {}
    for task in TASKS if compiled else ():
        begin = time.perf_counter()
        steps[task]()
        wait()
        spent[task] = time.perf_counter() - begin
        free()
    return Side(
        dict(device=torch.cuda.get_device_name() if cuda else "cpu", torch=torch.__version__,
             timm=timm.__version__, parameters=sum(p.numel() for p in model.parameters()),
             compile=spent),
        steps,
        wait=lambda result: wait(),
        peak=lambda: torch.cuda.max_memory_allocated() if cuda else None,
        free=free,
    )  # fmt: skip


def prepare(kind: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """In a worker: open its side."""
    sys.path.insert(0, str(ROOT))
    vitjax = kind == "vitjax"
    HELD.append(open_vitjax(name, options) if vitjax else open_timm(name, kind, options))
    return HELD[0].info


def measure(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """In a worker: time a task for about `options.seconds`; images/s, steps and peak bytes."""
    (side,), count, spent = HELD, 1, 0.0
    # Warm up by one step; estimate by two; measure.
    for target in (lambda: 2, lambda: max(2, round(2 * options.seconds / spent)), lambda: 0):
        begin = time.perf_counter()
        results = [side.steps[task]() for _ in range(count)]
        side.wait(results[-1])
        spent, steps, count = time.perf_counter() - begin, count, target()
    found = dict(rate=options.batch * steps / spent, steps=steps, peak=side.peak())
    side.free()
    return found
