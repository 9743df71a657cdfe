"""Header of the first page of a TIFF file, and the pages that are decoded."""

from vitjax.data.codecs.fields import ORIENTATION, UPRIGHT, Directory, Header, orientation

_WIDTH, _HEIGHT, _BITS, _COLOURS, _SAMPLES = 0x0100, 0x0101, 0x0102, 0x0106, 0x0115
_PLANES, _PALETTE, _EXTRA, _TYPE, _XMP = 0x011C, 0x0140, 0x0152, 0x0153, 0x02BC
_WHITE_IS_ZERO, _GRAY, _RGB, _PALETTED, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_ASSOCIATED, _UNASSOCIATED = 1, 2  # kinds of alpha
_READ = "gray and RGB with 8 or 16 bits are read, palettes, black and white, and CMYK with 8"


def read_tiff(data: bytes) -> Header | None:
    """Read the first directory; None without a size."""
    page = Directory(data)
    if not page.numbers(_WIDTH) or not page.numbers(_HEIGHT):
        return None
    extra = page.numbers(_EXTRA)
    # libtiff multiplies colours by alpha, and would lose them. Of alpha that is not called alpha
    # it knows nothing.
    patches = [page.patch(_EXTRA, 0)] if extra[:1] == (_UNASSOCIATED,) else []
    if page.numbers(ORIENTATION):  # OpenCV turns TIFF files whether it is asked to or not
        patches.append(page.patch(ORIENTATION, UPRIGHT))
    return Header(
        page.numbers(_HEIGHT)[0],
        page.numbers(_WIDTH)[0],
        orientation(data, page.text(_XMP)),
        patches=tuple(patches),
        premultiplied=extra[:1] == (_ASSOCIATED,),
        refusal=_refusal(page),
    )


def _refusal(page: Directory) -> str:
    """Return why a page is not decoded: OpenCV reads it otherwise than Pillow, or neither does."""
    bits, (colours, *_) = page.numbers(_BITS, (1,)), page.numbers(_COLOURS, (_GRAY,))
    (samples, *_), (planes, *_) = page.numbers(_SAMPLES, (1,)), page.numbers(_PLANES, (1,))
    allowed = {_WHITE_IS_ZERO: (1, 8), _GRAY: (1, 8, 16), _RGB: (8, 16),
               _PALETTED: (1, 4, 8), _CMYK: (8,), _YCBCR: (8,)}  # fmt: skip
    if samples > 4:
        return (
            f"it has {samples} channels of {bits[0]} bits; set data.channels={samples} to read them"
        )
    if any(kind != 1 for kind in page.numbers(_TYPE, (1,))):
        found = "its numbers are signed or of floating point"
    elif colours not in allowed:
        found = f"its colours are of TIFF's kind {colours}"
    elif bits[0] not in allowed[colours] or len(set(bits)) > 1:
        found = f"it has {'/'.join(map(str, bits))} bits a sample in TIFF's colours {colours}"
    elif bits[0] == 16 and planes == 2:
        found = f"it has {samples} channels of 16 bits, in planes"
    elif page.numbers(_EXTRA)[:1] == (_ASSOCIATED,) and (
        (colours, bits[0], planes, samples) != (_RGB, 8, 1, 4)
    ):
        found = "its colours are multiplied by an alpha channel"
    elif colours == _PALETTED and max(page.numbers(_PALETTE), default=0) < 256:
        found = "its palette has 8 bits, and TIFF's have 16"
    else:
        return ""
    return f"{found}; {_READ}. Save it as PNG"
