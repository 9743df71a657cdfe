"""A few steps of a tiny model on some mesh of eight virtual CPU devices; what came out, as JSON.

Run as `python -m tests.train.on_eight_devices MODEL…`: a process of its own, because a process has
one number of devices.
"""

import collections
import json
import re
import sys
from typing import Any

import jax
import numpy as np

from vitjax.models import from_config
from vitjax.tasks.classification import classification
from vitjax.train import sharding
from vitjax.train.program import compile_program
from vitjax.train.state import named_leaves
from vitjax.training import load_config

PYRAMID = {"dims": "(16,32,64,64)", "num_heads": "(1,2,4,4)"}
MODELS: dict[str, dict[str, str]] = {
    "vit": dict(name="vit_ti4", width="32", depth="2", num_heads="4"),
    "scanned": dict(
        name="vit_ti4", width="32", depth="2", num_heads="4", scan="True", remat="True"
    ),
    "swin": dict(name="swin_tiny", depths="(1,1,2,1)", window_size="2", remat="True", **PYRAMID),
    "biformer": dict(  # batch norms
        name="biformer_tiny",
        depths="(1,1,1,1)",
        dims="(16,32,64,64)",
        head_dim="16",
        n_win="2",
        mixer="bra(topk=1);bra(topk=2);bra(topk=4);full_lepe(num_heads=4)",
    ),
    "pvt": dict(name="pvt_v2_b0", depths="(1,1,1,1)", dims="(16,32,64,64)", num_heads="(2,2,4,4)"),
    # The widest two stages: each stage takes as long to compile.
    "swin_base": dict(
        name="swin_base", dims="(512,1024)", num_heads="(16,32)", depths="(1,2)", window_size="2"
    ),
    "debiformer_base": dict(
        name="debiformer_base",
        dims="(384,768)",
        depths="(1,1)",
        n_win="2",
        offset_groups="(3,6)",
        table_size="(14,7)",
        mixer="bra(topk=2);dbra(topk=None)",
    ),
}
SIZE = {"vit": 16, "scanned": 16, "biformer": 64}
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
BATCH = 16


def train(
    model: str, mesh: str, rule: str = "sgd", first: Any = None
) -> tuple[dict[str, Any], Any]:
    """What is compared: losses, bytes per device, collectives; the first and the last state.

    Args:
      first: the state to begin with; drawn on the mesh if None.
    """
    size = SIZE.get(model, 32)
    flags = {
        "epochs": "0", "steps": "10", "schedule.warmup_steps": "0",
        "schedule.learning_rate": "1e-2", "optimizer.ema": "0.9", "data.image_size": str(size),
        **{f"model.{k}": v for k, v in MODELS[model].items()}, **RULES[rule],
    }  # fmt: skip
    config = load_config("configs/digits.py", flags)
    axes = {"data": 1, **MESHES[mesh]}
    devices = sharding.make_mesh(axes, jax.devices()[: int(np.prod(list(axes.values())))])
    module = from_config(config.model.to_dict(), 10, size)
    task = classification(module, num_classes=10, image_size=size)
    config.data.batch_size = BATCH
    program = compile_program(config, task, devices, 10)
    rng = np.random.default_rng(0)
    batches = [
        {
            "image": rng.integers(0, 255, (BATCH, size, size, 3)).astype(np.uint8),
            "label": rng.integers(0, 10, BATCH).astype(np.int32),
            "mask": (np.arange(BATCH) != 3).astype(np.float32),
        }
        for _ in range(2 if model.endswith("_base") else 4)
    ]
    key = jax.random.key(0)
    if first is None:
        state = program.init(key)
    else:
        state = jax.device_put(first, jax.tree.map(lambda x: x.sharding, program.state))
    first = jax.device_get(state)
    per_device = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    step = program.train_step.lower(program.state, program.batch_spec, program.key).compile()
    kinds = re.findall(
        r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(",
        step.as_text(),
    )
    losses = []
    for batch in sharding.to_devices(batches, program.batch_sharding, BATCH):
        state, metrics = step(state, batch, key)
        losses.append(float(metrics["loss"]))
    found = {
        "losses": losses,
        "bytes": per_device,
        "collectives": dict(sorted(collections.Counter(kinds).items())),
    }
    return found, (first, jax.device_get(state))


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
            # Drawing takes as long to compile as a step: one model draws on every mesh.
            results[mesh], (_, other) = train(model, mesh, rule, None if model == "vit" else first)
            results[mesh]["difference"] = difference(state, other)
        print(json.dumps({model: results}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
