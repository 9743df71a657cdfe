"""A part of a JPEG file by libturbojpeg, where the system has it in version 3 or later.

OpenCV decodes whole rows; `tj3SetCroppingRegion` leaves out the columns and rows beside a
rectangle, and what it gives is the same to the last bit. No package of the index brings the library
with these functions, so it is used where it is found and missed nowhere else: systems, conda and
libjpeg-turbo's own packages have it. VITJAX_TURBOJPEG names its file, or is 0 to do without.
"""

import ctypes
import functools
import os
import sys
import threading

import numpy as np
from jaxtyping import UInt8

_DECOMPRESS, _RGB = 1, 0  # TJINIT_DECOMPRESS, TJPF_RGB
_WIDEST_MCU = 32  # columns of the widest unit, with 4:1:1 chroma
_MARGIN = 2  # pixels beside the rectangle from which its chroma is interpolated


class _Region(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("x", "y", "w", "h")]


class _Factor(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("num", "denom")]


_Handle = ctypes.c_void_p
_FUNCTIONS = {
    "tj3Init": (_Handle, [ctypes.c_int]),
    "tj3Destroy": (None, [_Handle]),
    "tj3DecompressHeader": (ctypes.c_int, [_Handle, ctypes.c_char_p, ctypes.c_size_t]),
    "tj3SetScalingFactor": (ctypes.c_int, [_Handle, _Factor]),
    "tj3SetCroppingRegion": (ctypes.c_int, [_Handle, _Region]),
    "tj3Decompress8": (
        ctypes.c_int,
        [_Handle, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int, ctypes.c_int],
    ),
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """Load the library, if the system has it.

    Raises:
      ValueError: VITJAX_TURBOJPEG names a file that is not this library, version 3 or later.
    """
    chosen = os.environ.get("VITJAX_TURBOJPEG", "")
    if chosen == "0":
        return None
    folders = ("", f"{sys.prefix}/lib/", "/opt/libjpeg-turbo/lib64/", "/opt/libjpeg-turbo/lib/")
    ending = "0.dylib" if sys.platform == "darwin" else "so.0"
    for name in [chosen] if chosen else [f"{folder}libturbojpeg.{ending}" for folder in folders]:
        try:
            loaded = ctypes.CDLL(name)
            for function, (result, arguments) in _FUNCTIONS.items():
                getattr(loaded, function).restype = result
                getattr(loaded, function).argtypes = arguments
            return loaded
        except (OSError, AttributeError) as error:  # not there, or of version 2
            if chosen:
                raise ValueError(
                    f"VITJAX_TURBOJPEG={chosen!r} is not libturbojpeg of version 3 or later "
                    f"({error}); give the path of its file, or 0 to do without it."
                ) from error
    return None


class _Decoder:
    """Decoder state that libturbojpeg keeps of a file."""

    def __init__(self, functions: ctypes.CDLL):
        self.functions, self.handle = functions, functions.tj3Init(_DECOMPRESS)

    def __del__(self):
        self.functions.tj3Destroy(self.handle)


_of_thread = threading.local()


def decode_part(
    data: bytes, size: tuple[int, int], rectangle: tuple[int, int, int, int], reduce: int = 1
) -> UInt8[np.ndarray, "h w 3"] | None:
    """Decode a rectangle of a JPEG file to RGB, with the interpreter's lock released.

    It stops below the rectangle, and does not notice a file that ends after that.

    Args:
      data: the file.
      size: height and width of the image, divided by `reduce` and rounded up.
      rectangle: top, left, height, width, in pixels of that size.
      reduce: the image is decoded at 1, ½, ¼ or ⅛ of its size.

    Returns:
      The pixels; None without the library, and for a file that it has anything to say about, were
      it only a warning: whoever decodes the whole file then says what it is worth.
    """
    tj = library()
    if tj is None:
        return None
    if not hasattr(_of_thread, "decoder"):
        _of_thread.decoder = _Decoder(tj)
    handle = _of_thread.decoder.handle
    (rows, columns), (top, left, height, width) = size, rectangle
    unit = _WIDEST_MCU // reduce
    y, x = max(top - _MARGIN, 0), max(left - _MARGIN, 0) // unit * unit
    below, right = min(top + height + _MARGIN, rows), min(left + width + _MARGIN, columns)
    part = np.empty((below - y, right - x, 3), np.uint8)
    if (
        tj.tj3DecompressHeader(handle, data, len(data))
        or tj.tj3SetScalingFactor(handle, _Factor(1, reduce))
        or tj.tj3SetCroppingRegion(handle, _Region(x, y, right - x, below - y))
        or tj.tj3Decompress8(handle, data, len(data), part.ctypes.data, 0, _RGB)
    ):
        return None
    return part[top - y : top - y + height, left - x : left - x + width]
