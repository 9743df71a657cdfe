"""Picture files and sources that the tests make."""

import io
import struct
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from vitjax.data import DataInfo, Sample, pipeline
from vitjax.data.kinds import Image, image_and_label
from vitjax.data.transforms.augment import parse_augmentation


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw something like a photo: slow waves and fine texture, different in each channel."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(y / a) * np.cos(x / b) for a, b in ((23, 31), (47, 19), (29, 41))]
    smooth = 127.5 + 80 * np.stack(waves, -1)
    texture = np.random.default_rng(seed).integers(-40, 41, (height, width, 3))
    return np.clip(smooth + texture, 0, 255).astype(np.uint8)


def coordinates(height: int, width: int) -> np.ndarray:
    """The first channel is y and the second x, in 250ths of the image."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 250 / height, x * 250 / width, 0 * x], -1).astype(np.uint8)


def encoded(extension: str, image: np.ndarray) -> bytes:
    return cv2.imencode(extension, image)[1].tobytes()


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Puts an EXIF segment with this one entry behind the start marker."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def palette_png(palette: np.ndarray, indices: np.ndarray) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = indices.shape
    rows = b"".join(b"\0" + row.tobytes() for row in indices.astype(np.uint8))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", palette.astype(np.uint8).tobytes())
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def write_folders(root: Path, counts: dict[str, int]) -> str:
    """Writes `counts[folder]` pictures of different sizes and formats into each folder."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            extension = (".png", ".jpg", ".bmp")[i % 3]
            path = root / folder / f"{i:03d}{extension}"
            path.write_bytes(encoded(extension, noise(9 + i, 7 + 2 * i, i)))
    return str(root)


class Numbered:
    """`size` images of which number i has the label i."""

    def __init__(self, size: int):
        self.info = DataInfo(tuple(map(str, range(size))), "0" * 16)

    def __len__(self):
        return len(self.info.classes)

    def __getitem__(self, i: int) -> Sample:
        return {"image": noise(6 + i % 3, 8, i), "label": i}

    def example_name(self, i):
        return f"number {i}"


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    """An archive of named files; the path again."""
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def train_batches(source, *, image_size: int, **options):
    """Training batches of square images with their labels."""
    kinds = image_and_label(source.info, image_size)
    return pipeline.train_batches(source, kinds=kinds, **options)


def eval_batches(source, *, image_size: int, **options):
    kinds = image_and_label(source.info, image_size)
    return pipeline.eval_batches(source, kinds=kinds, **options)


def augmented(line: str, image, rng, size):
    """An image after an augmentation."""
    return parse_augmentation(line)({"image": image}, {"image": Image(size)}, rng)["image"]


def moved(move, image):
    return Image(image.shape[:2]).move(image, move)


def applied(op, image, rng, **options):
    """An image after the moves of one step of an augmentation."""
    for move in op(rng, image.shape[:2], **options):
        image = moved(move, image)
    return image
