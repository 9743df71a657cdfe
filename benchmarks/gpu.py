"""vitjax against timm (PyTorch) on one GPU: training steps and inference in bfloat16.

`python benchmarks/gpu.py --json=gpu.json` prints a Markdown table and writes every number; `--smoke`
tries the script within minutes on a CPU. A side whose packages are missing is skipped, aloud.

A training step is forward, backward and AdamW on a batch of uint8 images that lies on the device:
vitjax's own step (make_setup, model.dtype=bfloat16); timm's model under torch.autocast, in
channels_last, with fused AdamW. Both normalise the pixels, smooth the labels by 0.1 and have
stochastic depth of 0.1; vitjax's step also reports the norm of the gradient. Inference has weights
and images in bfloat16. timm is measured eager and with torch.compile in its default mode.

Each side of each model is a process of its own. All compile first, up to `--parallel` of PyTorch's
beside one of JAX's, so that compile times are those of a busy machine; `--parallel=0` compiles one
after the other. Then one process at a time uses the GPU, in turns: A B C, A B C, … A rate is the
median of the rounds. FLOP are twice the multiply-adds of vitjax.analysis.cost, three times that for
a training step. On a GPU, memory is the peak that the framework's allocator gave out.
"""

import argparse
import collections
import contextlib
import copy
import importlib.util
import json
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

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODELS = {
    "deit_tiny": "deit_tiny_patch16_224",
    "vit_s16": "vit_small_patch16_224",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "pvt_v2_b2": "pvt_v2_b2",
    "volo_d1": "volo_d1_224",
}
"""Name in vitjax → name in timm."""
SIDES = {"vitjax": ("jax", "flax"), "eager": ("torch", "timm"), "compiled": ("torch", "timm")}
"""Side → the packages that it needs."""
TASKS = ("inference", "training")  # in this order: JAX cannot reset its peak of memory
CLASSES, SMOOTHING, DECAY, DROP_PATH = 1000, 0.1, 0.05, 0.1


class Side(NamedTuple):
    """One model on one side, ready to be timed.

    Attributes:
      info: parameters, multiply-adds (vitjax), compile seconds by task, device and versions.
      steps: task → runs it once, asynchronously, and returns a result to wait for.
      wait: until a result is there.
      peak: bytes of the device that were in use at most; None where nobody counts.
      free: returns cached memory to the device, and begins a new peak where that is possible.
    """

    info: dict[str, Any]
    steps: dict[str, Callable[[], Any]]
    wait: Callable[[Any], Any]
    peak: Callable[[], int | None]
    free: Callable[[], Any]


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
        "data.image_size": f"{size}", "data.batch_size": f"{batch}", "data.augment": "none",
        "epochs": "0", "steps": "10000", "loss.label_smoothing": f"{SMOOTHING}",
        "optimizer.weight_decay": f"{DECAY}", "optimizer.clip_norm": "0", "optimizer.b2": "0.999",
    }  # fmt: skip
    # The digits' own hyperparameters are of another model, and dropped: no need to hear of it.
    with contextlib.redirect_stderr(None):
        config = load_config(str(ROOT / "configs/digits.py"), flags, model_options)
    model = from_config(config.model.to_dict(), CLASSES, size)
    mesh = sharding.make_mesh(config.mesh)
    setup = make_setup(config, classification.from_config(config, model, CLASSES), mesh, 10_000)
    key = jax.device_put(jax.random.key(0), setup.key.sharding)
    draw = np.random.default_rng(0)
    rows = {
        "image": draw.integers(0, 256, (batch, size, size, 3), np.uint8),
        "label": draw.integers(0, CLASSES, batch, np.int32),
        "mask": np.ones(batch, np.float32),
    }
    (inputs,) = sharding.to_devices([rows], setup.batch_sharding, batch)
    images = classification.normalize(inputs["image"], (0.5,) * 3, (0.5,) * 3)
    images = images.astype(jnp.bfloat16)
    state: Any = setup.init(key)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.variables())

    begin = time.perf_counter()
    forward: Any = jax.jit(model.apply).lower(half, images).compile()
    between = time.perf_counter()
    step = setup.train_step.lower(state, inputs, key).compile()
    compiling = {"inference": between - begin, "training": time.perf_counter() - between}

    def train() -> Any:
        nonlocal state
        state, metrics = step(state, inputs, key)
        return metrics

    device = jax.local_devices()[0]
    parameters, macs, _ = cost.trace(model, (1, size, size, 3))
    info = {"parameters": parameters, "macs": macs, "compile": compiling,
            "device": device.device_kind, "jax": jax.__version__}  # fmt: skip
    return Side(
        info,
        {"inference": lambda: forward(half, images), "training": train},
        jax.block_until_ready,
        lambda: (device.memory_stats() or {}).get("peak_bytes_in_use"),
        lambda: None,
    )


def open_timm(name: str, options: argparse.Namespace, compiled: bool) -> Side:
    """Build timm's model; compile it where asked, which takes one run of each task."""
    torch: Any = importlib.import_module("torch")
    timm: Any = importlib.import_module("timm")
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32, as XLA's default
    fixed = {} if name.startswith("pvt") else {"img_size": options.size}  # a PVT v2 takes any size
    model = timm.create_model(
        MODELS[name], num_classes=CLASSES, drop_path_rate=DROP_PATH, **fixed
    ).to(device, memory_format=torch.channels_last)
    half = copy.deepcopy(model).eval().to(torch.bfloat16)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    adamw = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=DECAY, fused=True)
    shape, layout = (options.batch, 3, options.size, options.size), torch.channels_last
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    pixels = pixels.contiguous(memory_format=layout)
    labels = torch.randint(0, CLASSES, shape[:1], device=device)
    images = ((pixels.float() / 255 - 0.5) / 0.5).to(torch.bfloat16)

    def loss(pixels: Any, labels: Any) -> Any:
        x = (pixels.float() / 255 - 0.5) / 0.5
        with torch.autocast(device, torch.bfloat16):
            return criterion(model(x), labels)

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

    def wait(_: Any) -> None:
        if cuda:
            torch.cuda.synchronize()

    def free() -> None:
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    steps, compiling = {"inference": infer, "training": train}, {}
    for task, step in steps.items() if compiled else ():
        begin = time.perf_counter()
        wait(step())
        compiling[task] = time.perf_counter() - begin
    adamw.zero_grad(set_to_none=True)
    free()
    info = {"parameters": sum(p.numel() for p in model.parameters()), "compile": compiling,
            "device": torch.cuda.get_device_name() if cuda else "cpu", "torch": torch.__version__,
            "timm": timm.__version__}  # fmt: skip
    return Side(info, steps, wait, lambda: torch.cuda.max_memory_allocated() if cuda else None, free)


def measure(side: Side, task: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time a task for about `options.seconds`: images/s, steps timed, and peak bytes."""
    step = side.steps[task]
    for _ in range(2):
        side.wait(step())
    begin = time.perf_counter()
    side.wait([step() for _ in range(2)][-1])
    count = max(2, round(options.seconds / (time.perf_counter() - begin) * 2))
    begin, last = time.perf_counter(), None
    for _ in range(count):
        last = step()
    side.wait(last)
    rate = options.batch * count / (time.perf_counter() - begin)
    found = {"rate": rate, "steps": count, "peak": side.peak()}
    side.free()
    return found


def work(pipe: Any, kind: str, name: str, options: argparse.Namespace) -> None:
    """Serve one side of one model: send its info, then a measurement for each task received."""
    sys.path.insert(0, str(ROOT))

    def send(answer: Callable[[], dict[str, Any]]) -> bool:
        try:
            pipe.send(answer())
        except Exception as error:  # such as too little memory: the other sides go on
            pipe.send({"error": f"{type(error).__name__}: {str(error).strip()[:300]}"})
            return False
        return True

    opened: list[Side] = []

    def prepare() -> dict[str, Any]:
        vitjax = kind == "vitjax"
        side = open_vitjax(name, options) if vitjax else open_timm(name, options, kind == "compiled")
        opened.append(side)
        return side.info

    if send(prepare):
        for task in iter(pipe.recv, None):
            send(lambda task=task: measure(opened[0], task, options))


class Worker:
    """A process that holds one side of one model."""

    def __init__(self, kind: str, name: str, options: argparse.Namespace) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=work, args=(theirs, kind, name, options))
        self.process.start()
        theirs.close()

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next answer, or `{"error": …}` after which the process is ended."""
        try:
            if self.pipe.poll(max(seconds, 0)):
                return self.pipe.recv()
            error = f"no answer within {seconds:.0f} s"
        except EOFError:
            error = "the process ended"
        self.close()
        return {"error": error}

    def ask(self, task: str, seconds: float) -> dict[str, Any]:
        """A measurement."""
        with contextlib.suppress(OSError):
            self.pipe.send(task)
        return self.answer(seconds) if self.process.is_alive() else {"error": "the process ended"}

    def close(self) -> None:
        self.process.terminate()
        self.process.join(10)
