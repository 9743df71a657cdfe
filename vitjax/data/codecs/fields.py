"""Fields of picture headers, and the directories of numbers in TIFF and EXIF."""

import re
import struct
from typing import NamedTuple

UPRIGHT = 1  # EXIF's word for a picture that is stored as it is to be seen
ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q"}  # TIFF's types
_BYTE = 1  # no type for an orientation: Pillow and OpenCV pass over it
_MOST = 1024  # numbers of an entry that are read; a palette of 8 bits has 768


class Header(NamedTuple):
    """Header of a picture file.

    Attributes:
      height, width: in pixels, as stored, before any turning.
      orientation: how to turn it, in EXIF's numbers 1 (upright) to 8.
      cut: in a sequential JPEG file, where the two bytes of its height are; else 0.
      levels: the numbers that stand for black and white; None for all that the type has.
      patches: (position, bytes) to write over a copy before OpenCV reads it, where it would show
        something else than the first picture's colours.
      premultiplied: its colours are stored times its alpha.
      refusal: why it is not decoded; "" if it is.
    """

    height: int
    width: int
    orientation: int = UPRIGHT
    cut: int = 0
    levels: tuple[int, int] | None = None
    patches: tuple[tuple[int, bytes], ...] = ()
    premultiplied: bool = False
    refusal: str = ""


class Directory:
    """The first directory of a TIFF file (BigTIFF too), or of the EXIF data of another.

    Raises:
      ValueError, struct.error: this is none, or it ends early.
    """

    def __init__(self, data: bytes):
        order = {b"II": "<", b"MM": ">"}.get(data[:2])
        if order is None:
            raise ValueError("no TIFF data")
        self._data, self._order, self._entries = data, order, {}
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        size, number, width = (20, "Q", 8) if big else (12, "I", 4)
        (at,) = struct.unpack_from(order + number, data, 8 if big else 4)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        at += 8 if big else 2
        for start in range(at, at + size * min(count, 4096), size):
            if start + size > len(data):
                break
            tag, kind, length = struct.unpack_from(order + "HH" + number, data, start)
            place = start + 4 + width
            if length * struct.calcsize(_NUMBERS.get(kind, "B")) > width:
                (place,) = struct.unpack_from(order + number, data, place)
            self._entries[tag] = kind, length, place

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def kind(self, tag: int) -> int:
        """Read an entry's type."""
        return self._entries[tag][0]

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Read an entry's integers; the default where it is missing or of another type."""
        kind, length, place = self._entries.get(tag, (0, 0, 0))
        if kind not in _NUMBERS or not length:
            return default
        layout = f"{self._order}{min(length, _MOST)}{_NUMBERS[kind]}"
        return struct.unpack_from(layout, self._data, place)

    def text(self, tag: int) -> bytes:
        """Read an entry's bytes; none where it is missing."""
        _, length, place = self._entries.get(tag, (0, 0, 0))
        return self._data[place : place + length]

    def patch(self, tag: int, value: int) -> tuple[int, bytes]:
        """Build the patch that sets the first number of an entry."""
        kind, _, place = self._entries[tag]
        return place, struct.pack(self._order + _NUMBERS[kind], value)


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """Read the orientation of EXIF data, or else of XMP text; upright where neither has one."""
    exif = re.sub(rb"^(?:Exif\0\0){1,2}", b"", exif)
    try:
        directory = Directory(exif)
        if (found := directory.numbers(ORIENTATION)) and directory.kind(ORIENTATION) != _BYTE:
            return found[0] if UPRIGHT <= found[0] <= 8 else UPRIGHT
    except (ValueError, struct.error):
        pass
    found = _XMP_ORIENTATION.search(xmp)
    return int(found[1]) if found and b"1" <= found[1] <= b"8" else UPRIGHT
