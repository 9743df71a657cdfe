"""Picture files as arrays: the whole picture, or a part at no more work than the part needs."""

import functools
import logging
import threading
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16

from vitjax.data.channels import RGB, by_planes, fit_channels, luma
from vitjax.data.codecs import turbo
from vitjax.data.codecs.bands import NUMPY, TIFF, decode_bands, decode_npy
from vitjax.data.codecs.fields import UPRIGHT, Header
from vitjax.data.codecs.headers import read_header
from vitjax.data.source import BadImage
from vitjax.data.sources import remote

JPEG = ("jpg", "jpeg", "jpe", "jfif")
NETPBM = ("pbm", "pgm", "pnm", "ppm")
OTHERS = ("avif", "bmp", "dib", "gif", "jp2", "png", "tif", "tiff", "webp")
EXTENSIONS = frozenset((*JPEG, *NETPBM, *OTHERS))
"""Of the files that count as images, in lower case."""
ARRAYS = frozenset(("npy",))
"""Of files that are read as images where they are asked for."""

MAX_PIXELS = 178_956_970
"""Larger images are refused by what their header says: half a gigabyte as RGB, as in Pillow."""

_AS_STORED = cv2.IMREAD_IGNORE_ORIENTATION  # EXIF is read here: OpenCV overlooks some of it
_JPEG = {
    1: _AS_STORED | cv2.IMREAD_COLOR_RGB,
    2: _AS_STORED | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: _AS_STORED | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: _AS_STORED | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
# As BGR: what OpenCV 5 gives as RGB is BGR all the same where an AVIF file has alpha.
_AVIF = _AS_STORED | cv2.IMREAD_COLOR_BGR
_OTHERS = _AVIF | cv2.IMREAD_ANYDEPTH
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_MCU = 16  # rows that a JPEG decoder makes at once, at most
_SHALLOW = 4096  # numbers of 16 bits below this may be of 12 bits or 8

# BadImage reports what cannot be decoded, by name; OpenCV's own lines would only repeat it.
_logger: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging  # OpenCV 4, and 5
_logger.setLogLevel(0)
_log = logging.getLogger(__name__)


class Box(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Picture:
    """Image whose size is known and of which any part can be read.

    A part of a JPEG file is decoded at the scale that it is needed at, and only down to its last
    row.

    Args:
      image: a file's bytes, or an array `[H, W, C]` or `[H, W]`.
      name: what an error calls it.
      channels: of the pixels. Of 3, gray is repeated and alpha dropped; of 1, RGB becomes its luma.

    Raises:
      BadImage: the file is empty, claims more than MAX_PIXELS, is of a kind that is not read, or
        cannot be decoded.
      ValueError: it has not these channels.
    """

    def __init__(
        self, image: UInt8[np.ndarray, "H W *c"] | bytes, name: str = "", channels: int = RGB
    ):
        self._name, self._pixels, self._header, self._channels = name, None, None, channels
        if isinstance(image, np.ndarray):
            fits = image.ndim == 3 and image.shape[2] == channels
            self._pixels = image if fits else fit_channels(image, channels, name)
            self.height, self.width = image.shape[:2]
            return
        self._data = image
        header = _checked_header(image, name, channels)
        lazy = channels in (1, RGB) and image.startswith(_JPEG_START)
        if lazy and header and header.orientation == UPRIGHT:
            self._header, self.height, self.width = header, header.height, header.width
        else:
            self._pixels = _decode(image, header, name, channels=channels)
            self.height, self.width = self._pixels.shape[:2]

    def whole(self) -> UInt8[np.ndarray, "H W c"]:
        """Decode the whole picture."""
        return self.part(Box(0, 0, self.height, self.width))

    def part(self, box: Box, reduce: int = 1) -> UInt8[np.ndarray, "h w c"]:
        """Decode the rectangle, each side divided by `reduce` (1, 2, 4 or 8) and rounded."""
        if self._pixels is None:
            assert self._header is not None
            part = self._decode_part(self._header, box, reduce)
            return part if self._channels == RGB else luma(part)
        top, left, height, width = box
        pixels = self._pixels[top : top + height, left : left + width]
        if reduce == 1:
            return pixels
        size = max(round(width / reduce), 1), max(round(height / reduce), 1)
        return by_planes(cv2.resize, pixels, size, interpolation=cv2.INTER_AREA)

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
        image = _opencv(data, _JPEG[reduce], self._name)
        if image.shape[:2] != (-(-rows // reduce), size[1]):
            raise BadImage(self._name, "it is damaged: it has not the size that its header says")
        return image[top : top + height, left : left + width]


def decode(data: bytes, name: str = "", reduce: int = 1) -> UInt8[np.ndarray, "H W 3"]:
    """Decode a file's bytes to 8-bit RGB, turned upright as the file says; alpha is dropped.

    The pixels are Pillow's; those of a JPEG file within 2 of 255. Numbers of 16 bits are divided
    by 257. Of several pictures the first counts. A file that ends early or is no image is refused;
    bytes changed inside a JPEG are not noticed.

    Args:
      data: the file.
      name: what an error calls it.
      reduce: 2, 4 or 8 for an image of that fraction of the size, of a JPEG file.

    Raises:
      BadImage: it cannot be decoded, or is of a kind that is not read.
    """
    return _decode(data, _checked_header(data, name), name, reduce)


def _checked_header(data: bytes, name: str, channels: int = RGB) -> Header | None:
    """Read a header, if it can be read.

    Args:
      channels: that are asked for; what OpenCV makes of a TIFF file counts for gray and RGB alone.

    Raises:
      BadImage: it claims more than MAX_PIXELS, or a kind of picture that is not read.
    """
    if not data:
        raise BadImage(name, "the file is empty")
    header = read_header(data)
    if header and header.height * header.width > MAX_PIXELS:
        raise BadImage(
            name,
            f"its header says {header.width}×{header.height} pixels, and at most "
            f"{MAX_PIXELS:,} are decoded; shrink it, or remove it if it is a decompression bomb",
        )
    by_opencv = channels in (1, RGB) or not data.startswith(TIFF)
    if header and header.refusal and by_opencv:
        raise BadImage(name, header.refusal)
    return header


def _decode(
    data: bytes, header: Header | None, name: str, reduce: int = 1, channels: int = RGB
) -> UInt8[np.ndarray, "H W c"]:
    """Decode a file whose header was read; None where it could not be."""
    if data.startswith(_JPEG_START) and channels in (1, RGB):
        image = _turned(_opencv(data, _JPEG[reduce], name), header)
        return image if channels == RGB else luma(image)
    if header and header.patches:
        changed = bytearray(data)
        for at, new in header.patches:
            changed[at : at + len(new)] = new
        data = bytes(changed)
    bgr = False
    if data.startswith(NUMPY):
        image = decode_npy(data, name)
    elif channels in (1, RGB):
        image, bgr = _colours(data, header, name), True
    else:
        image = decode_bands(data, name, channels)
    if image.dtype not in (np.uint8, np.uint16):
        raise BadImage(name, f"its pixels are {image.dtype}, and 8 or 16 bits are read")
    if header and image.shape[:2] != (header.height, header.width):
        raise BadImage(name, "it is damaged: it has not the size that its header says")
    black, white = (header and header.levels) or (0, np.iinfo(image.dtype).max)
    if white == 65535:
        _tell_of_shallow(image, name)
    if (black, white) != (0, 255):
        image = _to_eight_bits(black, white)[image]
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if bgr else image
    return _turned(fit_channels(image, channels, name), header)


def _colours(data: bytes, header: Header | None, name: str) -> np.ndarray:
    """Decode a file of another format than JPEG as BGR, of 8 bits or 16."""
    if header and header.premultiplied:
        return _divided(_opencv(data, cv2.IMREAD_UNCHANGED, name))
    return _opencv(data, _AVIF if data[4:8] == b"ftyp" else _OTHERS, name)


def _opencv(data: bytes, flags: int, name: str) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise BadImage(name, f"OpenCV refuses it ({error.err})") from error
    if image is None:
        raise BadImage(name, "it is truncated, damaged or in no format that OpenCV reads")
    return image


def _turned(image: UInt8[np.ndarray, "H W c"], header: Header | None) -> np.ndarray:
    """Turn an image upright, which EXIF stores in one of eight ways."""
    number = header.orientation if header else UPRIGHT
    if number == UPRIGHT:
        return image
    if number >= 5:
        image = image.swapaxes(0, 1)
    if number in (3, 4, 7, 8):
        image = image[::-1]
    if number in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _divided(image: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    """Divide colours by the alpha that they were multiplied by, as Pillow does."""
    colours, alpha = image[..., :3].astype(int), image[..., 3:].astype(int)
    return np.where(alpha, np.minimum(255 * colours // np.maximum(alpha, 1), 255), 0).astype(
        np.uint8
    )


@functools.lru_cache(maxsize=16)
def _to_eight_bits(black: int, white: int) -> UInt8[np.ndarray, "65536"]:
    """Build the table from numbers to 8 bits, rounded; 16 bits are divided by 257."""
    share = (np.arange(65536) - black) / (white - black)
    return np.rint(255 * share.clip(0, 1)).astype(np.uint8)


_told_of_shallow = threading.Event()


def _tell_of_shallow(image: UInt16[np.ndarray, "H W *c"], name: str) -> None:
    """Warn once about 16-bit values so small that they may be 12 or 8 bits wide.

    They may be a dark picture as well, which nothing in the file tells.
    """
    if _told_of_shallow.is_set():
        return
    most = int(image.max())
    if not 0 < most < _SHALLOW:
        return
    _told_of_shallow.set()
    bits = 8 if most < 256 else 12
    _log.warning(
        "Image %r has 16 bits a sample, and none above %d: it is read as a dark picture, with at "
        "most %d of 256 levels. If its numbers are of %d bits, multiply them by %d and save it "
        "again. Further images like it are not named.",
        name,
        most,
        round(most / 257) + 1,
        bits,
        65535 // (2**bits - 1),
    )


def read_file(path: str, name: str | None = None) -> bytes:
    """Read a file's bytes.

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
    """Read and decode a file; see `decode` and `Picture`.

    Raises:
      BadImage: the file cannot be read or decoded.
    """
    picture = Picture(read_file(path, name), name or path)
    return picture.part(Box(0, 0, picture.height, picture.width))
