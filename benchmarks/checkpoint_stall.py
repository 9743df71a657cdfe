"""Measure how long a save blocks training: a ViT-L/16, 304 M parameters and AdamW's two moments.

`python benchmarks/checkpoint_stall.py --folder=runs/stall` takes a few steps, saves in the middle,
continues while the save is written in the background, and prints the time of a step, the time for
which `save` blocked the loop, their ratio, and the time until the save was complete.
"""

import argparse
import json
import pathlib
import shutil
import sys
import time

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from vitjax.models import from_config
from vitjax.tasks.classification import classification
from vitjax.train import sharding
from vitjax.train.checkpoint import Checkpoints
from vitjax.train.program import compile_program
from vitjax.training import load_config


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--model", default="vit_l16")
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    flags = {
        "model.name": options.model,
        "data.image_size": "224",
        "data.batch_size": str(options.batch),
        "epochs": "0",
        "steps": "100",
        "data.augment": "none",
        "model.scan": "True",  # compiles one block instead of all
    }
    config = load_config("configs/digits.py", flags)
    mesh = sharding.make_mesh(config.mesh)
    model = from_config(config.model, 1000, 224)
    program = compile_program(
        config, classification(model, num_classes=1000, image_size=224), mesh, 100
    )
    key = jax.random.key(0)
    state = program.init(key)
    rows = {
        "image": np.zeros((options.batch, 224, 224, 3), np.uint8),
        "label": np.zeros(options.batch, np.int32),
        "mask": np.ones(options.batch, np.float32),
    }
    (batch,) = sharding.to_devices([rows], program.batch_sharding, options.batch)

    def timed_step() -> float:
        nonlocal state
        begin = time.perf_counter()
        state, metrics = program.train_step(state, batch, key)
        jax.block_until_ready(metrics)
        return time.perf_counter() - begin

    checkpoints = Checkpoints(options.folder / "checkpoints")
    compiling = timed_step()
    checkpoints.save(1, state)  # compiles the fingerprint
    checkpoints.wait()
    steps = [timed_step() for _ in range(3)]
    begin = time.perf_counter()
    checkpoints.save(5, state)
    stall = time.perf_counter() - begin
    during = [timed_step()]
    checkpoints.wait()
    whole = time.perf_counter() - begin
    checkpoints.close()
    shutil.rmtree(options.folder)
    print(
        json.dumps(
            {
                "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
                "GB": round(sum(x.nbytes for x in jax.tree.leaves(state)) / 1e9, 2),
                "step_s": round(float(np.median(steps)), 2),
                "stall_s": round(stall, 2),
                "stall_steps": round(stall / float(np.median(steps)), 2),
                "step_while_writing_s": round(float(np.mean(during)), 2),
                "whole_after_s": round(whole, 1),
                "compile_s": round(compiling, 1),
                "devices": sharding.describe(mesh),
            }
        )
    )


if __name__ == "__main__":
    main()
