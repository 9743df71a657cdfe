"""Evaluation of a detector that needs no learning, in as many processes as the cluster has.

Run as `python -m tests.train.detect_in_processes FILE`: process 0 writes rows and metrics there.
"""

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.data import DataInfo
from vitjax.data.objects import Objects
from vitjax.data.pipeline import eval_batches
from vitjax.detection.results import Detections
from vitjax.tasks.detection import detection
from vitjax.train import processes, sharding
from vitjax.train.evaluate import add_up

SIDE, BATCH, COUNT = 16, 4, 5
"""Of five images in batches of four, the second batch of two processes has none for the second."""


class Rectangles:
    """Black images with a white rectangle each, of one class or the other."""

    info = DataInfo(("wide", "high"), "", frozenset(("image", "objects")))

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> dict[str, Any]:
        box = np.array([[1 + index, 2, 12, 5 + 2 * index]])
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        image[box[0, 1] : box[0, 3], box[0, 0] : box[0, 2]] = 255
        one = np.array([index % 2])
        objects = Objects(
            box.astype(np.float64),
            one,
            one > 1,
            np.array([np.nan]),
            size=(SIDE, SIDE),
            number=index,
        )
        return {"image": image, "objects": objects}

    def example_name(self, index: int) -> str:
        return str(index)


class Finder:
    """A detector of white rectangles, which it takes for the first class."""

    has_masks = aligned = False
    decay_rules = ()

    def apply(self, variables: Any, pixels: jax.Array, extent: Any, method: str) -> Detections:
        del variables, extent, method
        white, ends = pixels.mean(axis=-1) > 0, []
        for axis in (1, 2):  # columns, then rows
            lit = white.any(axis=axis)
            ends += [lit.argmax(axis=1), SIDE - lit[:, ::-1].argmax(axis=1)]
        box = jnp.stack([ends[0], ends[2], ends[1], ends[3]], axis=1).astype(jnp.float32)
        scores = box[:, :1] / SIDE
        return Detections(box[:, None], scores, jnp.zeros(scores.shape, jnp.int32))


def evaluate() -> dict[str, Any]:
    """Evaluate the detector; rows and metrics are those of all processes."""
    model: Any = Finder()
    task = detection(model, class_names=Rectangles.info.classes, image_size=(SIDE, SIDE))
    assert task.rows is not None
    rows_of = task.rows
    mesh = sharding.make_mesh()
    split = sharding.batch_sharding(mesh)

    def step(batch: Any) -> Any:
        found = task.predict({}, batch)
        return task.measure(found, batch), rows_of(found, batch)

    own = sharding.own_rows(split, BATCH)
    kinds: Any = task.eval_kinds
    source: Any = Rectangles()
    batches = eval_batches(source, kinds=kinds, batch_size=BATCH, rows=own, num_threads=0)
    compiled = jax.jit(step, out_shardings=(sharding.replicated(mesh), split))
    sums, rows = add_up(compiled, sharding.to_devices(batches, split, BATCH))
    found = {name: array.tolist() for name, array in rows["found"].items()}
    boxes = rows["truth"]["boxes"][:, 0].tolist()
    metrics = task.summarize(sums, rows)
    return {**found, "truth": rows["truth"]["index"].tolist(), "objects": boxes} | {
        "metrics": metrics,
        "processes": jax.process_count(),
        "own": len(own),
    }


if __name__ == "__main__":
    processes.start()
    result = evaluate()
    if processes.is_lead():
        with open(sys.argv[1], "w") as file:
            json.dump(result, file)
