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
    return jpeg[:2] + segment(0xE1, exif(orientation)) + jpeg[2:]


def exif(orientation: int, order: str = ">", kind: int = 3, before: bytes = b"") -> bytes:
    """EXIF data with this one entry, of TIFF's type `kind`, behind `before`."""
    number = struct.pack(order + {1: "B", 3: "H", 4: "I", 8: "h", 9: "i"}[kind], orientation)
    head = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, 8 + len(before))
    entry = struct.pack(order + "HHHI", 1, 0x0112, kind, 1) + number.ljust(4, b"\0")
    return b"Exif\0\0" + head + before + entry + bytes(4)


def xmp(orientation: int) -> bytes:
    return b'<rdf:Description tiff:Orientation="%d"/>' % orientation


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG file."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(
    parts: list[bytes],
    size: tuple[int, int],
    bits: tuple[int, ...] = (8, 8, 8),
    colours: int = 2,
    *,
    order: str = "<",
    big: bool = False,
    first: bool = False,
    more: Iterable[tuple[int, int, tuple[int, ...] | bytes]] = (),
) -> bytes:
    """A TIFF or BigTIFF file of strips or planes; `first` puts its directory before them.

    `more` has entries besides, each a tag, a type and its values.
    """
    types = {1: "B", 3: "H", 4: "I", 16: "Q"}
    width, number, place = (8, "Q", 16) if big else (4, "I", 4)
    entries = {
        256: (4, (size[1],)), 257: (4, (size[0],)), 258: (3, bits), 259: (3, (1,)),
        262: (3, (colours,)), 277: (3, (len(bits),)), 278: (4, (size[0],)),
        273: (place, (0,) * len(parts)), 279: (place, tuple(map(len, parts))),
    }  # fmt: skip
    entries |= {tag: (kind, values) for tag, kind, values in more}
    head, length = 16 if big else 8, sum(map(len, parts))
    extent = (8 if big else 2) + (20 if big else 12) * len(entries) + width
    at, data_at = (head, head + extent) if first else (head + length + length % 2, head)
    behind_at = data_at + length + length % 2 if first else at + extent
    offsets = [data_at + sum(map(len, parts[:i])) for i in range(len(parts))]
    entries[273] = (place, tuple(offsets))
    directory, behind = struct.pack(order + ("Q" if big else "H"), len(entries)), b""
    for tag, (kind, values) in sorted(entries.items()):
        raw = values if isinstance(values, bytes) else b""
        raw = raw or struct.pack(f"{order}{len(values)}{types[kind]}", *values)
        if len(raw) > width:
            where, behind = behind_at + len(behind), behind + raw + bytes(len(raw) % 2)
            raw = struct.pack(order + number, where)
        directory += struct.pack(order + "HH" + number, tag, kind, len(values))
        directory += raw.ljust(width, b"\0")
    directory += bytes(width)
    mark = b"II" if order == "<" else b"MM"
    start = struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, at) if big else (42, at)))
    pixels = b"".join(parts) + bytes(length % 2)
    return mark + start + (directory + pixels if first else pixels + directory) + behind


def bmp(image: np.ndarray, bits: int, header: int, *, rest: bytes = b"", packing: int = 0) -> bytes:
    """A BMP file of rows of bytes `[H, n]`; its header has `header` bytes and then `rest`."""
    height, width = image.shape[0], image.shape[1] * 8 // bits
    padded = np.pad(image, ((0, 0), (0, -image.shape[1] % 4)))[::-1].tobytes()
    if header == 12:  # OS/2's
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        values = (header, width, height, 1, bits, packing, len(padded), 0, 0, 0, 0)
        info = struct.pack("<IiiHHIIiiII", *values)
    start = 14 + len(info + rest)
    return b"BM" + struct.pack("<IHHI", start + len(padded), 0, 0, start) + info + rest + padded


def palette_png(palette: np.ndarray, indices: np.ndarray) -> bytes:
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
