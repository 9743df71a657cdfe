"""Contestants of benchmarks/data.py, each in a separate process.

`python data_workers.py NAME FOLDER BATCH CORES` prints "ready", then for each input line "SECONDS"
the number of images delivered per second, and per second of processor time. Batches are 128 random
crops of 224×224, mirrored half of the time, 8 bits.
"""

import functools
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

SIZE = 224
DRAINED = 8  # batches before the clock starts: what stood ready while others had their turn


def training(source: Any, size: int, **options: Any) -> Iterator[Any]:
    """Iterate over training batches of images of a size, and their classes."""
    from vitjax.data.kinds import image_and_label
    from vitjax.data.pipeline import train_batches

    return train_batches(source, kinds=image_and_label(source.info, size), **options)


def vitjax(folder: str, batch: int, cores: int, interpolation: str) -> Iterator[Any]:
    """Iterate over batches of vitjax."""
    from vitjax.data import open_source

    source = open_source(f"tfds://photos?data_dir={folder}", "train")
    augment = f"crop(interpolation={interpolation!r}) | flip"
    return training(source, SIZE, batch_size=batch, augment=augment, num_threads=cores)


def pillow(folder: str, batch: int, cores: int) -> Iterator[Any]:
    """Iterate over batches of the same pipeline, in which Pillow decodes and resizes."""
    import io

    import numpy as np
    from PIL import Image

    from vitjax.data import open_source
    from vitjax.data.transforms import crops as transforms
    from vitjax.data.transforms.augment import Augmentation

    def crop(self: Any, sample: Any, kinds: Any, rng: Any) -> Any:
        fields, size = {name: kind.open(sample[name]) for name, kind in kinds.items()}, SIZE
        image = Image.open(io.BytesIO(fields["image"]._data))
        box = transforms.random_box(image.height, image.width, rng)
        corners = (box.left, box.top, box.left + box.width, box.top + box.height)
        small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, corners)
        if rng.random() < 0.5:
            small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return {**fields, "image": np.asarray(small)}

    setattr(Augmentation, "__call__", crop)  # noqa: B010, it is frozen for type checkers
    source = open_source(f"tfds://photos?data_dir={folder}", "train")
    return training(source, SIZE, batch_size=batch, num_threads=cores)


def tfdata(folder: str, batch: int, cores: int) -> Iterator[Any]:
    """Iterate over batches of the pipeline of TensorFlow's ImageNet recipes, without vitjax."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(cores)
    tf.config.threading.set_intra_op_parallelism_threads(cores)
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def load(record: Any) -> Any:
        example = tf.io.parse_single_example(record, features)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(example["image"]),
            tf.zeros([1, 0, 4]),
            area_range=(0.08, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], 0)
        image = tf.image.decode_and_crop_jpeg(example["image"], window, channels=3)
        image = tf.image.resize(image, (SIZE, SIZE))
        image = tf.image.random_flip_left_right(image)
        return tf.cast(image, tf.uint8), example["label"]

    data = tf.data.TFRecordDataset(f"{folder}/photos.tfrecord").repeat().shuffle(256)
    data = data.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    data = data.batch(batch, drop_remainder=True).prefetch(2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = cores
    return iter(data.with_options(options).as_numpy_iterator())


TURBO = ", libturbojpeg"
CONTESTANTS = {
    "vitjax": functools.partial(vitjax, interpolation="bilinear"),
    f"vitjax{TURBO}": functools.partial(vitjax, interpolation="bilinear"),
    "vitjax, area": functools.partial(vitjax, interpolation="area"),
    "vitjax, bicubic as Pillow's": functools.partial(vitjax, interpolation="bicubic"),
    f"vitjax, bicubic as Pillow's{TURBO}": functools.partial(vitjax, interpolation="bicubic"),
    "tf.data": tfdata,
    "Pillow": pillow,
}


def main(name: str, folder: str, batch: int, cores: int) -> None:
    """Deliver batches for the seconds of each input line, and print the rates."""
    if cores == 1:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    batches = CONTESTANTS[name](folder, batch, cores)
    for _ in range(4):
        next(batches)
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(DRAINED):
            next(batches)
        begin, cpu, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() < begin + float(line):
            next(batches)
            count += batch
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
        print(count / wall, count / cpu, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
