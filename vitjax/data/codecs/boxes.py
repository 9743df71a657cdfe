"""Headers of AVIF and JPEG 2000 files, which are boxes within boxes."""

import struct
from collections.abc import Iterator

from vitjax.data.codecs.fields import UPRIGHT, Header, orientation

Found = tuple[bytes, int, int]
"""Kind of a box, and where its content begins and ends."""

# (quarter turns to the left, whether and how it is mirrored then) → EXIF's number. Mirror 0
# exchanges top and bottom, 1 left and right.
_TURNS = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5,
}  # fmt: skip
_LIMITED = (16, 235)  # black and white of video
_GRAY_OR_RGB = (16, 17)  # JPEG 2000's numbers of sRGB and of gray


def read_avif(data: bytes) -> Header | None:
    """Read the properties of the primary picture; those of the container decide its turn."""
    meta = _find(data, (b"meta",))
    if meta is None:
        return None
    inner = dict(_content(data, meta[1] + 4, meta[2]))
    (_, at, end), (_, items, _) = inner[b"iprp"], inner[b"pitm"]
    item = struct.unpack_from(">I" if data[items] else ">H", data, items + 4)[0]
    parts = dict(_content(data, at, end))
    properties = list(_boxes(data, *parts[b"ipco"][1:]))
    own = [properties[i - 1] for i in _associated(data, parts[b"ipma"][1], item) if i]
    turn, mirror, size, mono, limited = 0, None, None, False, False
    for kind, start, _ in own:
        if kind == b"ispe":
            size = struct.unpack_from(">II", data, start + 4)
        elif kind == b"irot":
            turn = data[start] & 3
        elif kind == b"imir":
            mirror = data[start] & 1
        elif kind == b"av1C":
            mono = bool(data[start + 2] & 0x10)
        elif kind == b"colr" and data[start : start + 4] == b"nclx":
            limited = not data[start + 10] & 0x80
    if size is None:
        return None
    turned = _TURNS[turn, mirror]
    if turned == UPRIGHT and b"Exif" not in data[meta[1] : meta[2]]:
        turned = orientation(b"", data)  # XMP lies uncompressed in the file
    # OpenCV gives the numbers of a gray picture as they are.
    levels = _LIMITED if mono and limited else None
    return Header(size[1], size[0], turned, levels=levels)


def read_jpeg2000(data: bytes) -> Header | None:
    """Read the header box of a JP2 file."""
    outer = _find(data, (b"jp2h",))
    if outer is None:
        return None
    inner = dict(_content(data, *outer[1:]))
    height, width, _, bits = struct.unpack_from(">IIHB", data, inner[b"ihdr"][1])
    refusal = ""
    if b"pclr" in inner:
        refusal = "it has a palette, and JPEG 2000's are not read"
    elif bits not in (7, 15):
        many = "several" if bits == 255 else f"{(bits & 127) + 1} {'signed ' * (bits >> 7)}"
        refusal = f"it has {many.strip()} bits a sample; JPEG 2000 is read with 8 or 16"
    elif (colour := inner.get(b"colr")) and data[colour[1]] == 1:
        (kind,) = struct.unpack_from(">I", data, colour[1] + 3)
        if kind not in _GRAY_OR_RGB:
            refusal = f"its colours are of JPEG 2000's kind {kind}; gray and sRGB are read"
    return Header(height, width, refusal=refusal and f"{refusal}. Save it as PNG")


def _boxes(data: bytes, at: int, end: int) -> Iterator[Found]:
    """Yield the boxes between two places."""
    end = min(end, len(data))
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            head, (size,) = 16, struct.unpack_from(">Q", data, at + 8)
        stop = at + size if size else end
        if stop < at + head:
            return
        yield kind, at + head, min(stop, end)
        at = stop


def _content(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, Found]]:
    """Yield boxes by kind in reverse order, so that a dict keeps the first of a kind."""
    for box in reversed(list(_boxes(data, at, end))):
        yield box[0], box


def _find(data: bytes, kinds: tuple[bytes, ...]) -> Found | None:
    """Find the first box of these kinds in a file."""
    return next((box for box in _boxes(data, 0, len(data)) if box[0] in kinds), None)


def _associated(data: bytes, at: int, wanted: int) -> list[int]:
    """Read the numbers of an item's properties, from the content of an `ipma` box."""
    version, wide = data[at], data[at + 3] & 1
    (count,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(count):
        (item,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        several, at = data[at], at + 1
        layout = f">{several}{'H' if wide else 'B'}"
        if item == wanted:
            mask = 0x7FFF if wide else 0x7F
            return [number & mask for number in struct.unpack_from(layout, data, at)]
        at += struct.calcsize(layout)
    return []
