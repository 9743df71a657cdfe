"""Measure the data pipeline: images per second, memory, and the time to resume.

  python benchmarks/data.py
  --tf-python=PATH   a Python with tensorflow-cpu, to compare with tf.data
  --rounds=5 --seconds=3 --files=50000 --epochs=10
  --only=speed,processes,ceiling,memory,wait,resume

The images are ImageNet-like JPEGs, 500×375, quality 90: crops of scikit-learn's two photographs,
mirrored and enlarged at random, with Gaussian noise (σ 8), because enlarged photographs are too
smooth. The files have 75 KB on average.
libturbojpeg 3 is measured too where it is found (VITJAX_TURBOJPEG may name its file).
Needs the extras `tfds` and `dev`. Everything is printed as JSON at the end.
"""

import argparse
import functools
import io
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from data_workers import CONTESTANTS, DRAINED, TURBO, training

from vitjax.data.codecs import turbo

ROOT = pathlib.Path(__file__).parent.parent
BATCH, IMAGES = 128, 512


def photos(count: int) -> Iterator[bytes]:
    """Generate the benchmark's images."""
    from sklearn.datasets import load_sample_images

    rng = np.random.Generator(np.random.PCG64(0))
    sources = load_sample_images().images
    for i in range(count):
        photo = sources[i % 2]
        width = int(rng.uniform(0.5, 0.88) * photo.shape[1])
        height = width * 3 // 4
        top, left = (rng.integers(n - m + 1) for n, m in zip(photo.shape, (height, width)))
        image = photo[top : top + height, left : left + width, ::-1]
        image = cv2.resize(image, (500, 375), interpolation=cv2.INTER_CUBIC)
        image = image[:, ::-1] if rng.random() < 0.5 else image
        noisy = image + rng.normal(0, 8, image.shape)
        pixels = np.clip(noisy, 0, 255).astype(np.uint8)
        yield cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def write_photos(folder: str) -> float:
    """Write the images as a TFDS set of ArrayRecord and as TFRecord, and return their mean size."""
    import google_crc32c
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordReader

    class Photos(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            parts = {"image": tfds.features.Image(shape=(None, None, 3))}
            parts |= {"label": tfds.features.ClassLabel(num_classes=1000)}
            features = tfds.features.FeaturesDict(parts)
            keys = ("image", "label")
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=keys)

        def _split_generators(self, _: Any) -> Any:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[Any]:
            for i, jpeg in enumerate(photos(IMAGES)):
                yield i, {"image": io.BytesIO(jpeg), "label": i % 1000}

    tfds.disable_progress_bar()
    builder = Photos(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    sizes = []
    with open(f"{folder}/photos.tfrecord", "wb") as file:
        for path in builder.info.splits["train"].filepaths:
            reader = ArrayRecordReader(str(path))
            for record in reader.read(0, reader.num_records()):
                size = len(record).to_bytes(8, "little")
                for part in (size, bytes(record)):
                    crc = google_crc32c.value(part)
                    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
                    file.write(part + masked.to_bytes(4, "little"))
                sizes.append(len(record))
            reader.close()
    return float(np.mean(sizes))


class Worker:
    """Process of a contestant."""

    def __init__(self, name: str, folder: str, cores: int, python: str):
        script = str(ROOT / "benchmarks" / "data_workers.py")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
        if not name.endswith(TURBO):
            environment["VITJAX_TURBOJPEG"] = "0"
        self.process = subprocess.Popen(
            [python, script, name, folder, str(BATCH), str(cores)],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if self._line() != "ready":
            raise RuntimeError(f"{name} did not start; run it by hand: {python} {script}")

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def begin(self, seconds: float) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()

    def rates(self) -> tuple[float, float]:
        """Read images per second, and images per second of processor time."""
        wall, cpu = self._line().split()
        return float(wall), float(cpu)


def speed(folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure images per second of each contestant on one core, in rounds that take turns.

    Images per second of processor time do not depend on other load on the machine.
    """
    missing = {"tf.data": not options.tf_python}
    missing |= {n: turbo.library() is None for n in CONTESTANTS if n.endswith(TURBO)}
    names = [n for n in CONTESTANTS if not missing.get(n)]
    pythons = {"tf.data": options.tf_python}
    workers = {n: Worker(n, folder, 1, pythons.get(n, sys.executable)) for n in names}
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name, worker in workers.items():
            # The others wait with full buffers.
            worker.begin(options.seconds)
            rates[name].append(worker.rates())
    for worker in workers.values():
        worker.process.kill()
    found: dict[str, Any] = {}
    for name, pairs in rates.items():
        wall, cpu = zip(*pairs)
        found[name] = {"per_core": [statistics.median(cpu), min(cpu), max(cpu)]}
        found[name]["wall"] = statistics.median(wall)
    rate = {name: found[name]["per_core"][0] for name in names}
    found["ratios"] = {
        f"{own} / {other}": rate[own] / rate[other]
        for own in ("vitjax", f"vitjax{TURBO}")
        for other in ("tf.data", "Pillow")
        if own in rate and other in rate
    }
    found["left out"] = [name for name in CONTESTANTS if name not in names]
    return found


def grain_processes(images: Any, size: int, augment: str, count: int) -> Iterator[Any]:
    """Iterate over the same batches from Grain's worker processes."""
    import grain
    from absl import flags

    from vitjax.data.kinds import image_and_label
    from vitjax.data.order import epoch_order
    from vitjax.data.pipeline import _training

    kinds = image_and_label(images.info, size)
    order = functools.partial(epoch_order, 0, len(images), repeats=1)
    made: list[Any] = []

    def batch_at(step: int) -> Any:
        if not made:  # in each worker once
            made.append(_training(images, kinds, BATCH, augment, 0, order, range(BATCH)))
        return made[0](step, print)

    flags.FLAGS.mark_as_parsed()  # Grain's processes read some
    steps = grain.MapDataset.range(0, 1 << 40).map(batch_at)
    read = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    workers = grain.MultiprocessingOptions(num_workers=count)
    return iter(steps.to_iter_dataset(read).mp_prefetch(workers))


def processes(folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure images per second of threads and of processes on all cores, in rounds in turn.

    The result has the seconds from the start to the first batch too.
    """
    from vitjax.data import open_source

    crop = "crop(interpolation='bilinear') | flip"
    kinds = (
        ("photos", f"tfds://photos?data_dir={folder}", 224, crop),
        ("JPEG files of 8×8", "synthetic://?size=50000&height=8&width=8&jpeg=1", 8, crop),
        ("224×224, nothing to decode", "synthetic://?height=224&width=224", 224, "centre"),
    )
    found: dict[str, Any] = {}
    for kind, uri, size, augment in kinds:
        images = open_source(uri, "train")
        ours = functools.partial(training, images, size, batch_size=BATCH, augment=augment)
        contestants = {
            "2 threads": ours(num_threads=2),
            "1 process": ours(num_processes=1),
            "2 processes": ours(num_processes=2),
            "2 processes of Grain": grain_processes(images, size, augment, 2),
        }
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        first = {}
        for name, batches in contestants.items():
            begin = time.perf_counter()
            next(batches)
            first[name] = time.perf_counter() - begin
        for _ in range(options.rounds):
            for name, batches in contestants.items():
                for _ in range(DRAINED):
                    next(batches)
                begin, count = time.perf_counter(), 0
                while time.perf_counter() < begin + options.seconds:
                    next(batches)
                    count += BATCH
                rates[name].append(count / (time.perf_counter() - begin))
        for name, batches in contestants.items():
            batches.close()
            found[f"{kind}, {name}"] = [statistics.median(rates[name]), first[name]]
    return found


def main() -> None:
    """Run the measurements that --only names."""
    from data_costs import ceiling, memory, resume, wait

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tf-python", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", default="speed,processes,ceiling,memory,wait,resume")
    options = parser.parse_args()
    parts = [speed, processes, ceiling, memory, wait, resume]
    results: dict[str, Any] = {"cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory() as folder:
        results["mean_bytes"] = write_photos(folder)
        for part in parts:
            if part.__name__ in options.only.split(","):
                begin = time.perf_counter()
                results[part.__name__] = part(folder, options)
                print(part.__name__, f"{time.perf_counter() - begin:.0f} s", file=sys.stderr)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
