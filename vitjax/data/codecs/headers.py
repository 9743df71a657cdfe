"""Headers of picture files, read from their bytes without decoding.

A check is never stricter than the decoder that follows: where a header cannot be read, the result
is None, and the decoder decides.
"""

import re
import struct
import zlib

from vitjax.data.codecs.bands import NUMPY, read_npy
from vitjax.data.codecs.boxes import read_avif, read_jpeg2000
from vitjax.data.codecs.fields import UPRIGHT, Header, orientation
from vitjax.data.codecs.tiff import read_tiff

FORMATS = "JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF, JPEG 2000 and netpbm"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers that open a frame
_BARE = frozenset((0x00, 0x01, *range(0xD0, 0xD8)))  # JPEG markers that stand without a length
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PROFILE = b"Raw profile type exif\0"  # ImageMagick's place for EXIF data in PNG files
_LONGEST = 1 << 20  # of text that is unpacked


def read_header(data: bytes) -> Header | None:
    """Read the header of a file of one of FORMATS.

    The result is None where it is too short or too odd to tell; the decoder then decides. The
    header of a file of another format has a refusal.
    """
    for magic, read in _FORMATS:
        if re.match(magic, data, re.DOTALL):
            try:
                return read(data)
            except (IndexError, KeyError, ValueError, struct.error):
                return None
    return Header(
        0, 0, refusal=f"it is truncated, damaged or in no format that is read ({FORMATS})"
    )


def _jpeg(data: bytes) -> Header | None:
    at, height, width, cut, exif, xmp = 2, 0, 0, 0, b"", b""
    try:
        while True:
            if data[at] != 0xFF:  # the decoder skips what is none of a marker's
                at = data.index(b"\xff", at)
            marker = data[at + 1]
            if marker == 0xFF:  # padding
                at += 1
                continue
            if marker in _BARE:
                at += 2
                continue
            if marker in (0xDA, 0xD9):  # pixels, or the end
                break
            if marker in _FRAMES:
                height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
                cut = at + 5 if marker in (0xC0, 0xC1) else 0
            end = at + 2 + (data[at + 2] << 8 | data[at + 3])
            if marker == 0xE1:
                body = data[at + 4 : end]
                if body.startswith(b"Exif\0\0"):
                    exif += body[6:]  # what one segment cannot hold goes on in the next
                elif body.startswith(_XMP):
                    xmp = body
            at = end
    except (IndexError, ValueError):  # it ends early: the decoder says so
        pass
    if not height or not width:
        return None
    return Header(height, width, orientation(exif, xmp) if exif or xmp else UPRIGHT, cut)


def _png(data: bytes) -> Header | None:
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    exif, profile, xmp, patches, at = b"", b"", b"", (), 8
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = at + 8
        if kind == b"eXIf":
            exif = data[body : body + size]
        elif kind == b"acTL":
            # Of an animation the picture is shown that other readers see, by a name that OpenCV
            # does not know.
            renamed = b"acTl" + data[body : body + size]
            patches = ((at + 4, renamed + struct.pack(">I", zlib.crc32(renamed))),)
        elif kind in (b"iTXt", b"zTXt", b"tEXt"):
            text = data[body : body + size]
            if text.startswith(_PROFILE):
                profile = _text(text[len(_PROFILE) :], kind)
            elif text.startswith(b"XML:com.adobe.xmp\0"):
                xmp = _text(text[18:], kind)
        at = body + size + 4
    if profile and not exif:
        exif = bytes.fromhex(b"".join(profile.split(b"\n")[3:]).decode("ascii", "ignore"))
    return Header(height, width, orientation(exif, xmp), patches=patches)


def _text(data: bytes, kind: bytes) -> bytes:
    """Read the text of a chunk of a PNG file, after its keyword."""
    packed = kind == b"zTXt"
    if kind == b"tEXt":
        return data
    if kind == b"iTXt":
        packed, (_, _, rest) = data[0] == 1, data[2:].partition(b"\0")  # a language
        data = rest.partition(b"\0")[2]  # a keyword in it
    else:
        data = data[1:]
    try:
        return zlib.decompressobj().decompress(data, _LONGEST) if packed else data
    except zlib.error:
        return b""


def _gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    palette, patches, behind = bool(flags & 0x80), [], 0
    at = 13 + (6 << (flags & 7) if palette else 0)
    while data[at] == 0x21:  # what stands before the first frame
        kind, at = data[at + 1], at + 2
        if kind == 0xF9 and data[at + 1] & 1:
            # A colour that counts as transparent is a colour all the same.
            patches.append((at + 1, bytes([data[at + 1] & 0xFE])))
            behind = data[at + 4]
        while data[at]:
            at += data[at] + 1
        at += 1
    refusal = ""
    if data[at] == 0x2C:
        left, top, columns, rows, own = struct.unpack_from("<HHHHB", data, at + 1)
        if (left, top, columns, rows) != (0, 0, width, height):
            patches.append((11, bytes([behind])))  # the colour around it
            if not palette or left + columns > width or top + rows > height:
                refusal = (
                    f"its first frame has {columns}×{rows} pixels at ({left}, {top}), and the "
                    f"whole has {width}×{height}"
                )
        elif not palette and not own & 0x80:
            refusal = "it has no palette"
    return Header(
        height, width, patches=tuple(patches), refusal=refusal and f"{refusal}. Save it as PNG"
    )


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:  # OS/2's
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        packing = 0
    else:
        width, height, _, bits, packing = struct.unpack_from("<iiHHI", data, 18)
    refusal = ""
    if bits == 16:
        refusal = "it is a BMP file with 16 bits a pixel, and 1, 4, 8, 24 and 32 are read"
    elif packing == 3 and any(
        mask not in (0xFF, 0xFF00, 0xFF0000, 0xFF000000)
        for mask in struct.unpack_from("<III", data, 54)
    ):
        refusal = "it is a BMP file whose colours are no bytes"
    return Header(abs(height), abs(width), refusal=refusal and f"{refusal}. Save it as PNG")


def _webp(data: bytes) -> Header | None:
    size, exif, xmp, at = None, b"", b"", 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        body = at + 8
        if kind == b"VP8X":
            width, height = (
                int.from_bytes(data[i : i + 3], "little") for i in (body + 4, body + 7)
            )
            size = size or (height + 1, width + 1)
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, body + 6)
            size = size or (height & 0x3FFF, width & 0x3FFF)
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, body + 1)
            size = size or ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
        elif kind == b"EXIF":
            exif = data[body : body + length]
        elif kind == b"XMP ":
            xmp = data[body : body + length]
        at = body + length + length % 2
    return Header(*size, orientation(exif, xmp)) if size else None


def _netpbm(data: bytes) -> Header | None:
    gap = rb"(?:\s|#[^\n]*\n)+"
    found = re.match(rb"P([1-6])" + gap + rb"(\d{1,10})" + gap + rb"(\d{1,10})", data)
    if not found:
        return None
    levels = None
    if found[1] not in b"14" and (top := re.compile(gap + rb"(\d{1,5})").match(data, found.end())):
        white = int(top[1])
        # OpenCV spreads the small numbers that are written out in digits, and no others.
        levels = (0, white) if white > 0 and (white > 255 or found[1] in b"56") else None
    return Header(int(found[3]), int(found[2]), levels=levels)


_FORMATS = (
    (rb"\xff\xd8", _jpeg),
    (rb"\x89PNG\r\n\x1a\n", _png),
    (rb"GIF8[79]a", _gif),
    (rb"BM", _bmp),
    (rb"RIFF....WEBP", _webp),
    (rb"II[*+]\0|MM\0[*+]", read_tiff),
    (rb"P[1-6][\s#]", _netpbm),
    (re.escape(NUMPY), read_npy),
    (rb"....ftypavi[fs]", read_avif),
    (rb"\0\0\0\x0cjP  \r\n\x87\n", read_jpeg2000),
)
