"""A few steps of a tiny model on some mesh of eight virtual CPU devices; what came out, as JSON.

Run as `python -m tests.train.on_eight_devices MODEL…`: a process of its own, because a process has
one number of devices.
"""

import collections
import dataclasses
import json
import re
import sys
from typing import Any

import jax
import numpy as np

from vitjax.data.source import DataInfo
from vitjax.tasks import task_from_config
from vitjax.train import sharding
from vitjax.train.program import Program, compile_program
from vitjax.train.state import named_leaves
from vitjax.training import load_config

# Two stages, as each takes as long to compile; `tensor` divides the heads of the second alone.
PYRAMID = {"dims": "(16,32)", "num_heads": "(1,4)"}
MODELS: dict[str, dict[str, str]] = {
    "vit": dict(name="vit_ti4", width="32", depth="2", num_heads="4"),
    "scanned": dict(
        name="vit_ti4", width="32", depth="2", num_heads="4", scan="True", remat="True"
    ),
    "swin": dict(name="swin_tiny", depths="(1,2)", window_size="2", remat="True", **PYRAMID),
    "biformer": dict(  # batch norms
        name="biformer_tiny",
        depths="(1,1)",
        dims="(16,64)",
        head_dim="16",
        n_win="2",
        mixer="bra(topk=2);full_lepe(num_heads=4)",
    ),
    "pvt": dict(
        name="pvt_v2_b0", depths="(1,1)", dims="(16,32)", num_heads="(2,4)", mlp_ratio="(8.0,4.0)"
    ),
    "upernet": dict(  # batch norms, auxiliary head
        name="upernet",
        width="8",
        auxiliary_width="8",
        backbone="swin_tiny(dims=(16,32), num_heads=(1,4), depths=(1,1), window_size=2)",
    ),
    "uformer": dict(
        name="uformer_t",
        width="4",
        depths=str((1,) * 9),
        num_heads=str((1, 1, 1, 1, 2, 2, 2, 2, 2)),
        window_size="2",
        modulator="True",
    ),
    "retinanet": dict(  # divided by the positive anchors of all devices
        name="retinanet",
        width="8",
        depth="1",
        extra_levels="0",
        finest="4",
        anchor_scale="2.0",
        backbone="resnet18(depths=(1,), width=8)",
    ),
    "swin3d": dict(name="swin3d_tiny", dims="(16,)", num_heads="(4,)", depths="(1,)", mixer="full"),
    # The widest stage.
    "swin_base": dict(
        name="swin_base", dims="(1024,)", num_heads="(32,)", depths="(1,)", window_size="2"
    ),
    "debiformer_base": dict(
        name="debiformer_base",
        dims="(768,)",
        depths="(2,)",
        n_win="2",
        offset_groups="(6,)",
        table_size="(7,)",
        mixer="bra(topk=2) | dbra(topk=None)",
    ),
}
SIZE = {"vit": 16, "scanned": 16, "swin_base": 16, "debiformer_base": 16}
TASKS = {
    "upernet": "segmentation", "uformer": "restoration", "retinanet": "detection",
    "swin3d": "video",
}  # fmt: skip
OWN_FLAGS = {"retinanet": {"detection.limit": "2"}, "swin3d": {"clip.frames": "4"}}
MESHES: dict[str, dict[str, int]] = {
    "one": {},
    "dp": {"data": 8},
    "fsdp": {"fsdp": 8},
    "tp": {"tensor": 4},
    "all": {"data": 2, "fsdp": 2, "tensor": 2},
}
RULES = {
    "adamw": {"optimizer.name": "adamw", "optimizer.eps": "1e-3"},
    "sgd": {"optimizer.name": "sgd", "optimizer.weight_decay": "1e-4"},
}
BATCH = {"swin_base": 8, "debiformer_base": 8}  # 16 of the others


def train(
    model: str, mesh: str, rule: str = "sgd", first: Any = None
) -> tuple[dict[str, Any], Any]:
    """Train, and return losses, bytes per device and collectives, and the first and last state.

    Args:
      first: the initial state, for another model than "vit"; None for any.
    """
    size, rows = SIZE.get(model, 32), BATCH.get(model, 16)
    task_name = TASKS.get(model, "classification")
    flags = {
        "task": task_name, "epochs": "0", "steps": "10", "schedule.warmup_steps": "0",
        "schedule.learning_rate": "1e-2", "optimizer.ema": "0.9", "data.image_size": str(size),
        "data.batch_size": str(rows),
        **{f"model.{k}": v for k, v in MODELS[model].items()}, **RULES[rule],
        **OWN_FLAGS.get(model, {}),
    }  # fmt: skip
    config = load_config("configs/digits.py", flags)
    axes = {"data": 1, **MESHES[mesh]}
    own = jax.devices()[: int(np.prod(list(axes.values())))]
    devices = sharding.make_mesh(sharding.MeshConfig(**axes), own)
    pairs = task_name == "restoration"
    classes = () if pairs else tuple("0123456789")
    kinds = frozenset(("image", "clip", "objects", "target" if pairs else "label"))
    info = DataInfo(classes, "", kinds)
    task = task_from_config(config, info)
    program = compile_program(config, task, devices, 10)
    rng = np.random.default_rng(0)
    image = (rows, size, size, 3)
    fields = {
        "image": lambda: rng.integers(0, 255, image).astype(np.uint8),
        "label": lambda: rng.integers(0, 10, rows).astype(np.int32),
        "map": lambda: rng.integers(0, 12, image[:3]).astype(np.uint8),  # 10 and 11 are no classes
        "target": lambda: rng.integers(0, 255, image).astype(np.uint8),
        "clip": lambda: rng.integers(0, 255, (rows, 4, *image[1:])).astype(np.uint8),
        "objects_boxes": lambda: some_boxes(rng, rows, size),
        "objects_classes": lambda: rng.integers(0, 10, (rows, 2)).astype(np.int32),
        "objects_crowd": lambda: np.zeros((rows, 2), bool),
        "objects_valid": lambda: rng.random((rows, 2)) < 0.7,
        "mask": lambda: (np.arange(rows) != 3).astype(np.float32),
    }
    extent = np.full((rows, 2), size, np.int32)
    fields |= dict.fromkeys(("image_extent", "map_extent", "target_extent"), extent.copy)
    batches = [
        {name: fields[name]() for name in program.batch_spec}
        for _ in range(2 if model.endswith("_base") else 4)
    ]
    key = jax.random.key(0)
    if model == "vit":  # drawing takes as long to compile as a step: one model does on every mesh
        state = program.init(key)
    else:
        state = noise_state(program) if first is None else placed(first, program)
    first = jax.device_get(state)
    per_device = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    step = program.train_step.lower(program.state, program.batch_spec, program.key).compile()
    collectives = re.findall(
        r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(",
        step.as_text(),
    )
    losses = []
    for batch in sharding.to_devices(batches, program.batch_sharding, rows):
        state, metrics = step(state, batch, key)
        losses.append(float(metrics["loss"]))
    found = {
        "losses": losses,
        "bytes": per_device,
        "collectives": dict(sorted(collections.Counter(collectives).items())),
    }
    return found, (first, jax.device_get(state))


def some_boxes(rng: np.random.Generator, rows: int, size: int) -> np.ndarray:
    """Draw two boxes for each of the images."""
    ends = np.sort(rng.uniform(0, size, (rows, 2, 2, 2)), axis=2)
    return ends.reshape(rows, 2, 4).astype(np.float32)


def placed(state: Any, program: Program) -> Any:
    """Place a state on a program's devices."""
    return jax.device_put(state, jax.tree.map(lambda x: x.sharding, program.state))


def noise_state(program: Program) -> Any:
    """Give a program's state: noise for parameters, one for norms, zero for all else."""
    rng = np.random.default_rng(0)

    def fill(path: Any, leaf: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith(("/scale", "/var")) and "opt_state" not in name:
            return np.ones(leaf.shape, leaf.dtype)
        if name.startswith("params/"):
            return rng.normal(0, 0.02, leaf.shape).astype(leaf.dtype)
        return np.zeros(leaf.shape, leaf.dtype)

    state = jax.tree_util.tree_map_with_path(fill, program.state)
    state = dataclasses.replace(state, ema=state.ema and jax.tree.map(np.copy, state.params))
    return placed(state, program)


def difference(state: Any, other: Any) -> float:
    """The largest difference of any parameter, average, moment or running statistic."""
    pairs = zip(named_leaves(state).values(), named_leaves(other).values(), strict=True)
    return max(float(np.max(np.abs(np.subtract(a, b, dtype=np.float64)))) for a, b in pairs)


def main(names: list[str]) -> None:
    for name in names:
        model, rule, *meshes = name.split(":")
        one, (first, state) = train(model, "one", rule)
        results = {"one": one}
        for mesh in meshes:
            results[mesh], (_, other) = train(model, mesh, rule, first)
            results[mesh]["difference"] = difference(state, other)
        print(json.dumps({model: results}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
