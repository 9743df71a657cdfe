"""Measurements of benchmarks/data.py besides speed: ceiling, memory, waiting, resuming."""

import argparse
import itertools
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

import cv2
import numpy as np
from data_workers import training

from vitjax.data.source import DataInfo


def ceiling(folder: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure images per second of one process with free decoding: the limit of Python itself."""
    from vitjax.data import open_source

    found = {}
    for name, uri in (
        ("tiny images in memory", "synthetic://?size=50000&height=8&width=8"),
        ("tiny JPEG files in memory", "synthetic://?size=50000&height=8&width=8&jpeg=1"),
    ):
        batches = training(
            open_source(uri, "train"), 8, batch_size=128, augment="crop_flip", num_threads=2
        )
        rates = []
        for _ in range(options.rounds):
            begin = time.perf_counter()
            for _ in range(40):
                next(batches)
            rates.append(40 * 128 / (time.perf_counter() - begin))
        found[name] = statistics.median(rates)
        batches.close()
    return found


def memory(folder: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure resident megabytes after each epoch over many small files, in a fresh process."""
    root = pathlib.Path(folder, "many")
    images = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3), dtype=np.uint8)
    jpegs = [cv2.imencode(".jpg", image)[1].tobytes() for image in images]
    for i in range(options.files):
        path = root / f"train/{i % 100:03d}"
        if i < 100:
            path.mkdir(parents=True)
        (path / f"{i:06d}.jpg").write_bytes(jpegs[i % 64])
    code = f"""
import resource
from data_workers import training
from vitjax.data import open_source

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

source = open_source({str(root)!r}, "train")
batches = training(source, 32, batch_size=128, augment="crop_flip", num_threads=2)
for epoch in range({options.epochs}):
    for _ in range(len(source) // 128):
        next(batches)
    print(resident(), flush=True)
"""
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=pathlib.Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    values = [float(line) for line in out.stdout.split()]
    return {
        "first_epoch_mb": values[0],
        "last_epoch_mb": values[-1],
        "growth_percent": 100 * (values[-1] / values[0] - 1),
        "images": options.files * options.epochs,
    }


class Slow:
    """Source that sleeps on reading, for times that vary like the decoding of a batch."""

    info = DataInfo(("0",), "0" * 16)

    def __init__(self, seconds: float, variation: float):
        drawn = np.random.default_rng(0).standard_normal(16)
        times = seconds * (1 + variation * (drawn - drawn.mean()) / drawn.std())
        self._seconds = itertools.cycle(times.tolist())

    def __len__(self) -> int:
        return 1024

    def __getitem__(self, i: int) -> Any:
        time.sleep(next(self._seconds))
        return {"image": np.zeros((8, 8, 3), np.uint8), "label": 0}

    def example_name(self, i: int) -> str:
        return f"{i}"


def wait(folder: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure the share of time that a loop waits whose step takes as long as preparing a batch.

    The step sleeps, as a host does while an accelerator works. Photos are decoded by one process on
    one core, where other load on the machine counts as waiting. A source that sleeps (coefficient
    of variation 0.3, batches of one) shows the overhead of the pipeline itself.
    """
    from vitjax.data import open_source
    from vitjax.train import sharding

    source = open_source(f"tfds://photos?data_dir={folder}", "train")
    augment = "crop(interpolation='bilinear') | flip"
    photo = dict(source=source, batch_size=128, size=224, augment=augment, num_processes=1)
    slow = dict(source=Slow(0.05, 0.3), batch_size=1, size=8, num_threads=1)
    found: dict[str, float] = {}
    for kind, arguments in (("photos", photo), ("reading that sleeps", slow)):
        for slack in (1.0, 1.1):
            batches = training(**arguments)
            next(batches)
            begin = time.perf_counter()
            for _ in range(32):
                next(batches)
            step = slack * (time.perf_counter() - begin) / 32
            size = arguments["batch_size"]
            one = sharding.batch_sharding(sharding.make_mesh())
            moved = sharding.to_devices(batches, one, size)
            time.sleep(5 * step)
            next(moved)
            waited, begin = 0.0, time.perf_counter()
            for _ in range(80):
                time.sleep(step)
                asked = time.perf_counter()
                next(moved)
                waited += time.perf_counter() - asked
            found[f"{kind}, step × {slack}"] = 100 * waited / (time.perf_counter() - begin)
            moved.close()
    return found


def resume(folder: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure seconds to the first batch at step 100,000 of ImageNet's size, and at step 0."""
    from vitjax.data import open_source

    source = open_source("synthetic://?size=1281167&classes=1000&height=64&width=64", "train")
    found = {}
    for step in (0, 100_000):
        times = []
        for _ in range(options.rounds):
            begin = time.perf_counter()
            batches = training(source, 64, batch_size=1024, augment="crop_flip", start_step=step)
            next(batches)
            times.append(time.perf_counter() - begin)
            batches.close()
        found[f"step {step}"] = statistics.median(times)
    return found
