"""The size that a picture file claims to have, read from its first bytes without decoding."""

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

UPRIGHT = 1  # EXIF's word for a picture that is stored as it is to be seen
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers that open a frame
_BARE = frozenset((0x01, *range(0xD0, 0xD8)))  # JPEG markers that stand without a length


class Header(NamedTuple):
    """Height and width as stored, before any turning.

    Attributes:
      orientation: EXIF's, 1 for upright; read from JPEG files only.
      cut: in a sequential JPEG file, where the two bytes of its height are; else 0.
    """

    height: int
    width: int
    orientation: int = UPRIGHT
    cut: int = 0


_Reader = Callable[[bytes], Header | None]


def read_header(data: bytes) -> Header | None:
    """The header of a JPEG, PNG, GIF, BMP, WebP, TIFF, netpbm, AVIF or JPEG 2000 file.

    None where the file is of another format or too short to say; the decoder then decides.
    """
    try:
        for magic, read in _FORMATS:
            if re.match(magic, data, re.DOTALL):
                return read(data)
    except (IndexError, struct.error):
        pass
    return None


def _jpeg(data: bytes) -> Header | None:
    orientation, at = UPRIGHT, 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return Header(height, width, orientation, at + 5 if marker in (0xC0, 0xC1) else 0)
        else:
            length = data[at + 2] << 8 | data[at + 3]
            if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
                orientation = _orientation(data[at + 10 : at + 2 + length])
            at += 2 + length
    return None


def _orientation(exif: bytes) -> int:
    if found := _tiff_entries(exif, (0x0112,)):
        return found[0x0112]
    return UPRIGHT


def _tiff_entries(data: bytes, wanted: tuple[int, ...]) -> dict[int, int]:
    """Whole numbers of the first directory of a TIFF file, by tag."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return {}
    (at,) = struct.unpack_from(order + "I", data, 4)
    found = {}
    if at + 2 > len(data):
        return {}
    (count,) = struct.unpack_from(order + "H", data, at)
    for start in range(at + 2, min(at + 2 + 12 * count, len(data) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", data, start)
        if tag in wanted and kind in (3, 4):
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, start + 8)
    return found


def _tiff(data: bytes) -> Header | None:
    found = _tiff_entries(data, (0x0100, 0x0101))
    return Header(found[0x0101], found[0x0100]) if len(found) == 2 else None


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header(height & 0x3FFF, width & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
    return Header(height, width)


def _netpbm(data: bytes) -> Header | None:
    found = re.match(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)", data)
    return Header(int(found[2]), int(found[1])) if found else None


def _box(name: bytes, skip: int, order: str) -> _Reader:
    """Of the formats made of boxes: two numbers behind the first box of this name."""

    def read(data: bytes) -> Header | None:
        at = data.find(name, 0, 1 << 16)
        first, second = struct.unpack_from(">II", data, at + 4 + skip) if at >= 0 else (0, 0)
        return (
            (Header(first, second) if order == "hw" else Header(second, first)) if first else None
        )

    return read


def _fixed(layout: str, at: int, order: str) -> _Reader:
    def read(data: bytes) -> Header:
        first, second = map(abs, struct.unpack_from(layout, data, at))
        return Header(first, second) if order == "hw" else Header(second, first)

    return read


_FORMATS = (
    (rb"\xff\xd8", _jpeg),
    (rb"\x89PNG\r\n\x1a\n", _fixed(">II", 16, "wh")),
    (rb"GIF8[79]a", _fixed("<HH", 6, "wh")),
    (rb"BM", _fixed("<ii", 18, "wh")),
    (rb"RIFF....WEBP", _webp),
    (rb"II\*\0|MM\0\*", _tiff),
    (rb"P[1-6]\s", _netpbm),
    (rb"....ftypavi[fs]", _box(b"ispe", 4, "wh")),
    (rb"\0\0\0\x0cjP  ", _box(b"ihdr", 0, "hw")),
)
