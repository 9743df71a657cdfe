"""A picture file as an array: the whole of it, or a part with no more work than that part needs."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from vitjax.data.codecs import turbo
from vitjax.data.codecs.headers import UPRIGHT, Header, read_header
from vitjax.data.source import BadImage
from vitjax.data.sources import remote

JPEG = ("jpg", "jpeg", "jpe", "jfif")
NETPBM = ("pbm", "pgm", "pnm", "ppm")
OTHERS = ("avif", "bmp", "dib", "gif", "jp2", "png", "tif", "tiff", "webp")
EXTENSIONS = frozenset((*JPEG, *NETPBM, *OTHERS))
"""Of the files that count as images, in lower case."""

MAX_PIXELS = 178_956_970
"""Larger images are refused by what their header says: half a gigabyte as RGB, as in Pillow."""

_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_COLOR_RGB,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | cv2.IMREAD_COLOR_RGB,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_COLOR_RGB,
}
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_MCU = 16  # rows that a JPEG decoder makes at once, at most

# BadImage reports what cannot be decoded, by name; OpenCV's own lines would only repeat it.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Box(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Picture:
    """An image whose size is known and of which any part may be had.

    A part of a JPEG file is decoded at the scale that it is needed at, and only down to its last
    row.

    Raises:
      BadImage: the file is empty, claims more than MAX_PIXELS, or cannot be decoded.
    """

    def __init__(self, image: UInt8[np.ndarray, "H W 3"] | bytes, name: str = ""):
        self._name, self._pixels, self._header = name, None, None
        if isinstance(image, np.ndarray):
            self._pixels = image
            self.height, self.width = image.shape[:2]
            return
        self._data = image
        header = read_header(image)
        if header and header.height * header.width > MAX_PIXELS:
            raise BadImage(
                name,
                f"its header says {header.width}×{header.height} pixels, and at most "
                f"{MAX_PIXELS:,} are decoded; shrink it, or remove it if it is a decompression "
                f"bomb",
            )
        if header and header.orientation == UPRIGHT and image.startswith(_JPEG_START):
            self._header, self.height, self.width = header, header.height, header.width
        else:
            self._pixels = decode(image, name)
            self.height, self.width = self._pixels.shape[:2]

    def part(self, box: Box, reduce: int = 1) -> UInt8[np.ndarray, "h w 3"]:
        """The rectangle, each side divided by `reduce` (1, 2, 4 or 8) and rounded."""
        if self._pixels is None:
            assert self._header is not None
            return self._decode_part(self._header, box, reduce)
        top, left, height, width = box
        pixels = self._pixels[top : top + height, left : left + width]
        if reduce == 1:
            return pixels
        size = max(round(width / reduce), 1), max(round(height / reduce), 1)
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)

    def _decode_part(self, header: Header, box: Box, reduce: int) -> UInt8[np.ndarray, "h w 3"]:
        data, rows = self._data, header.height
        top, left = box.top // reduce, box.left // reduce
        height, width = max(round(box.height / reduce), 1), max(round(box.width / reduce), 1)
        size = -(-rows // reduce), -(-header.width // reduce)
        whole = data.endswith(_JPEG_END)  # or else the decoder shall come to where it ends early
        if whole:
            part = turbo.decode_part(data, size, (top, left, height, width), reduce)
            if part is not None:
                return part
        # Chroma is interpolated between rows: the row below the box counts too.
        unit = _MCU * reduce
        below = -(-(box.top + box.height + reduce) // unit) * unit
        if header.cut and whole and below < rows:
            # The header now says that the image ends below the box, so that the decoder stops
            # there. Without its end marker the rest of the file counts as not yet arrived.
            rows = below
            end = rows.to_bytes(2, "big")
            data = b"".join((data[: header.cut], end, data[header.cut + 2 : -2]))
        image = decode(data, self._name, reduce)
        if image.shape[:2] != (-(-rows // reduce), size[1]):
            raise BadImage(self._name, "it is damaged: it has not the size that its header says")
        return image[top : top + height, left : left + width]


def decode(data: bytes, name: str = "", reduce: int = 1) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes a file's bytes to 8-bit RGB, turned upright as EXIF says; alpha is dropped.

    A file that ends early or is no image is refused; bytes changed inside a JPEG are not noticed.

    Args:
      data: the file.
      name: what an error calls it.
      reduce: 2, 4 or 8 for an image of that fraction of the size.

    Raises:
      BadImage: it cannot be decoded.
    """
    if not data:
        raise BadImage(name, "the file is empty")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _REDUCED[reduce])
    except cv2.error as error:
        raise BadImage(name, f"OpenCV refuses it ({error.err})") from error
    if image is None:
        raise BadImage(name, "it is truncated, damaged or in no format that OpenCV reads")
    return image


def read_file(path: str, name: str | None = None) -> bytes:
    """A file's bytes.

    Args:
      path: the file.
      name: what an error calls it, if not by its path.

    Raises:
      BadImage: it cannot be read, or is empty.
    """
    try:
        if remote.is_remote(path):
            data = remote.read(path)
        else:
            with open(path, "rb") as file:
                data = file.read()
    except OSError as error:
        raise BadImage(name or path, error.strerror or str(error)) from error
    if not data:
        raise BadImage(name or path, "the file is empty")
    return data


def read_image(path: str, name: str | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Reads and decodes a file; see `decode` and `Picture`.

    Raises:
      BadImage: the file cannot be read or decoded.
    """
    picture = Picture(read_file(path, name), name or path)
    return picture.part(Box(0, 0, picture.height, picture.width))
