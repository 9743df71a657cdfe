"""What benchmarks/data.py measures besides speed: ceiling, memory, waiting, resuming."""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

import cv2
import numpy as np


def ceiling(folder: str, options: argparse.Namespace) -> dict[str, float]:
    """Images per second of one process where decoding costs nothing: what Python itself allows."""
    from vitjax.data import open_source
    from vitjax.data.pipeline import train_batches

    found = {}
    for name, uri in (
        ("tiny images in memory", "synthetic://?size=50000&height=8&width=8"),
        ("tiny JPEG files in memory", "synthetic://?size=50000&height=8&width=8&jpeg=1"),
    ):
        batches = train_batches(
            open_source(uri, "train"), batch_size=128, image_size=8, augment="crop_flip",
            num_threads=2,
        )  # fmt: skip
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
    """Resident megabytes after each epoch over many small files, in a fresh process."""
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
from vitjax.data import open_source
from vitjax.data.pipeline import train_batches

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

source = open_source({str(root)!r}, "train")
batches = train_batches(source, batch_size=128, image_size=32, augment="crop_flip", num_threads=2)
for epoch in range({options.epochs}):
    for _ in range(len(source) // 128):
        next(batches)
    print(resident(), flush=True)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    values = [float(line) for line in out.stdout.split()]
    return {
        "first_epoch_mb": values[0],
        "last_epoch_mb": values[-1],
        "growth_percent": 100 * (values[-1] / values[0] - 1),
        "images": options.files * options.epochs,
    }


def wait(folder: str, options: argparse.Namespace) -> dict[str, float]:
    """Share of the time that a loop waits whose step takes as long as a batch takes to make.

    The step sleeps, as a host does while an accelerator works; one thread, on one core, decodes.
    """
    from vitjax.data import open_source
    from vitjax.data.pipeline import train_batches

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    source = open_source(f"tfds://photos?data_dir={folder}", "train")
    augment = "crop(interpolation='bilinear') | flip"
    found: dict[str, float] = {}
    for name, slack in (("step equal to decoding", 1.0), ("step 10 % longer", 1.1)):
        batches = train_batches(
            source, batch_size=128, image_size=224, augment=augment, num_threads=2
        )
        next(batches)
        begin = time.perf_counter()
        for _ in range(20):
            next(batches)
        step = slack * (time.perf_counter() - begin) / 20
        waited, begin = 0.0, time.perf_counter()
        for _ in range(60):
            time.sleep(step)
            asked = time.perf_counter()
            next(batches)
            waited += time.perf_counter() - asked
        found[name] = 100 * waited / (time.perf_counter() - begin)
        batches.close()
    os.sched_setaffinity(0, cores)
    return found


def resume(folder: str, options: argparse.Namespace) -> dict[str, float]:
    """Seconds to the first batch at step 100,000 of ImageNet's size, and at step 0."""
    from vitjax.data import open_source
    from vitjax.data.pipeline import train_batches

    source = open_source("synthetic://?size=1281167&classes=1000&height=64&width=64", "train")
    found = {}
    for step in (0, 100_000):
        times = []
        for _ in range(options.rounds):
            begin = time.perf_counter()
            batches = train_batches(
                source, batch_size=1024, image_size=64, augment="crop_flip", start_step=step
            )
            next(batches)
            times.append(time.perf_counter() - begin)
            batches.close()
        found[f"step {step}"] = statistics.median(times)
    return found
