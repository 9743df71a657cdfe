"""Worker process of one contestant of `benchmarks/cpu.py`.

It compiles, then runs one step for each line that it reads, and answers with its seconds.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

CLASSES = 1000
TIMM = {
    "deit_tiny": "deit_tiny_patch16_224",
    "vit_s16": "vit_small_patch16_224",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "pvt_v2_b2": "pvt_v2_b2",
    "volo_d1": "volo_d1_224",
}
"""Model → its name in timm."""
DENSE = {"segformer_b0": ("segmentation", 512), "uformer_t": ("restoration", 128)}
"""Model → its task, and the side of a training crop."""


class Contestant(NamedTuple):
    """Step of a contestant, and its versions; `program` is our compiled one."""

    step: Callable[[], Any]
    version: str
    program: Any = None


def images(batch: int) -> np.ndarray:
    """Draw random images `[batch, 224, 224, 3]`."""
    return np.random.default_rng(0).standard_normal((batch, 224, 224, 3), np.float32)


def vitjax_forward(name: str, batch: int) -> Contestant:
    """Build the forward pass of our model, compiled."""
    import jax

    import vitjax
    from vitjax.train.compiler import compiler_options

    model, x = vitjax.create_model(name), jax.numpy.asarray(images(batch))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    options = compiler_options(jax.devices())
    step = jax.jit(model.apply, compiler_options=options).lower(variables, x).compile()
    run = lambda: jax.block_until_ready(step(variables, x))  # noqa: E731
    return Contestant(run, f"jax {jax.__version__}", step)


def vitjax_train(name: str, batch: int) -> Contestant:
    """Build the training step that `train.py` runs, with AdamW."""
    import jax

    from vitjax.data import DataInfo
    from vitjax.tasks import task_from_config
    from vitjax.train import sharding
    from vitjax.train.program import compile_program
    from vitjax.training import load_config

    flags = {
        "model.name": name,
        "data.image_size": "224",
        "data.batch_size": str(batch),
    }
    digits = os.path.join(os.path.dirname(__file__), "../configs/digits.py")
    config = load_config(digits, flags)
    task = task_from_config(config, DataInfo(tuple(map(str, range(CLASSES))), ""))
    program = compile_program(config, task, sharding.make_mesh(config.mesh), 1000)
    key = jax.random.key(0)
    held = [program.init(key)]
    data = {
        "image": np.clip(128 + 64 * images(batch), 0, 255).astype(np.uint8),
        "label": np.arange(batch, dtype=np.int32),
        "mask": np.ones(batch, np.float32),
    }
    data = jax.device_put(data, program.batch_sharding)
    step = program.train_step.lower(held[0], data, key).compile()

    def run() -> None:
        held[0], metrics = step(held[0], data, key)
        jax.block_until_ready((held[0], metrics))

    return Contestant(run, f"jax {jax.__version__}", step)


def dense_train(name: str, batch: int) -> Contestant:
    """Build the training step of a dense task that `train.py` runs, with AdamW."""
    import jax

    from vitjax.data import DataInfo
    from vitjax.tasks import task_from_config
    from vitjax.train import sharding
    from vitjax.train.program import compile_program
    from vitjax.training import load_config

    task_name, side = DENSE[name]
    flags = {"model.name": name, "data.image_size": str(side), "data.batch_size": str(batch)}
    if task_name == "restoration":
        flags["restoration.degradation"] = ""  # the images are pairs
    config = load_config({"segmentation": "scenes", "restoration": "denoise"}[task_name], flags)
    classes = () if task_name == "restoration" else tuple(map(str, range(150)))
    fields = frozenset(("image", "target", "map"))
    task = task_from_config(config, DataInfo(classes, "", fields))
    program = compile_program(config, task, sharding.make_mesh(config.mesh), 1000)
    key = jax.random.key(0)
    held = [program.init(key)]
    data = {
        name: np.random.default_rng(0).integers(0, 150, spec.shape).astype(spec.dtype)
        for name, spec in program.batch_spec.items()
    }
    data["mask"] = np.ones(batch, np.float32)
    data = jax.device_put(data, program.batch_sharding)
    step = program.train_step.lower(held[0], data, key).compile()

    def run() -> None:
        held[0], metrics = step(held[0], data, key)
        jax.block_until_ready((held[0], metrics))

    return Contestant(run, f"jax {jax.__version__}", step)


def transformers_train(name: str, batch: int) -> Contestant:
    """Build the training step of transformers' SegFormer, eager, with our loss, clipping, AdamW."""
    import torch
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    config = transformers.SegformerConfig(num_labels=150)  # its defaults are B0
    model = transformers.SegformerForSemanticSegmentation(config).train()
    side = DENSE[name][1]
    x = torch.randn(batch, 3, side, side)
    labels = torch.randint(0, 150, (batch, side, side))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)

    def step() -> None:
        optimizer.zero_grad()
        model(pixel_values=x, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    version = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return Contestant(step, version)


def _timm(name: str) -> Any:
    import timm
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    return timm.create_model(TIMM[name], num_classes=CLASSES)


def _nchw(batch: int) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(images(batch).transpose(0, 3, 1, 2)))


def timm_forward(name: str, batch: int, compiled: bool = False) -> Contestant:
    """Build the forward pass of timm's model, eager."""
    import torch

    model, x = _timm(name).eval(), _nchw(batch)
    run = torch.compile(model) if compiled else model

    def step() -> None:
        with torch.inference_mode():
            run(x)

    return Contestant(step, f"torch {torch.__version__}")


def timm_compiled(name: str, batch: int) -> Contestant:
    """Build the forward pass of timm's model, compiled by `torch.compile`."""
    return timm_forward(name, batch, compiled=True)


def timm_train(name: str, batch: int) -> Contestant:
    """Build the training step of timm's model, eager, with our loss, clipping and AdamW."""
    import timm
    import torch

    model, x, labels = _timm(name).train(), _nchw(batch), torch.arange(batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return Contestant(step, f"torch {torch.__version__}, timm {timm.__version__}")


def onnx_forward(name: str, batch: int) -> Contestant:
    """Build the forward pass of timm's model, exported by PyTorch's tracing exporter."""
    import io
    import warnings

    import onnxruntime
    import torch

    model, x, file = _timm(name).eval(), _nchw(batch), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), file, input_names=["x"], opset_version=18, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    return Contestant(lambda: session.run(None, feed), f"onnxruntime {onnxruntime.__version__}")


CONTESTANTS = {
    "vitjax": {"forward": vitjax_forward, "train": vitjax_train, "dense": dense_train},
    "timm": {"forward": timm_forward, "train": timm_train},
    "compiled": {"forward": timm_compiled},
    "onnx": {"forward": onnx_forward},
    "transformers": {"dense": transformers_train},
}


def main() -> None:
    """Answer `ready` with the seconds to the end of the first step, then time steps."""
    contestant, direction, name, batch = sys.argv[1:5]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # exporters and compilers print
    begin = time.perf_counter()
    step, version, _ = CONTESTANTS[contestant][direction](name, int(batch))
    step()
    print(
        json.dumps({"first": time.perf_counter() - begin, "version": version}),
        file=answers,
        flush=True,
    )
    for _ in sys.stdin:
        begin = time.perf_counter()
        step()
        print(json.dumps(time.perf_counter() - begin), file=answers, flush=True)


if __name__ == "__main__":
    main()
