"""Images with other channels than gray and RGB: `.npy` arrays, TIFF files, colours with alpha."""

import io

import cv2
import numpy as np
from jaxtyping import Shaped

from vitjax.data.channels import MOST
from vitjax.data.codecs.fields import Header
from vitjax.data.source import BadImage

NUMPY = b"\x93NUMPY"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG, _WEBP = b"\x89PNG", b"RIFF"
_GRAY_AND_ALPHA = 4  # PNG's number of this type of colours
_SAID = (
    "gray and RGB are read of every format, a fourth channel of PNG, WebP and TIFF files, and any "
    f"number up to {MOST} of TIFF and .npy files"
)


def read_npy(data: bytes) -> Header:
    """Read the header of an array: its size, or the reason why it is no 8- or 16-bit image."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else (np.lib.format.read_array_header_2_0)
    )
    shape, _, dtype = read(file)
    if dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        refusal = (
            f"its numbers are {dtype}, and 8 or 16 bits without sign are read; scale them to 0 to "
            f"65535 and save them as uint16"
        )
    elif len(shape) not in (2, 3) or not min(shape) or (len(shape) == 3 and shape[2] > MOST):
        refusal = (
            f"its array has shape {shape}, and an image has height, width and 1 to {MOST} channels "
            f"in this order"
        )
    else:
        return Header(shape[0], shape[1])
    return Header(0, 0, refusal=refusal)


def decode_npy(data: bytes, name: str) -> Shaped[np.ndarray, "H W *c"]:
    """Decode the array of a file whose header was read."""
    try:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BadImage(name, f"it is truncated or damaged ({error})") from error
    return array.astype(array.dtype.newbyteorder("="))


def decode_bands(data: bytes, name: str, channels: int) -> Shaped[np.ndarray, "H W *c"]:
    """Decode all channels of a file without turning or scaling; alpha counts as a channel.

    Raises:
      BadImage: it cannot be decoded.
      ValueError: its format has no such number of channels, or tifffile is not installed.
    """
    if data.startswith(TIFF):
        return _tiff(data, name)
    kind = data[:4]
    if channels == 4 and kind in (_PNG, _WEBP):
        flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is None:
            raise BadImage(name, "it is truncated, damaged or in no format that OpenCV reads")
        four = image.ndim == 3 and image.shape[2] == 4
        return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA) if four else image
    if channels == 2 and kind == _PNG and data[25] == _GRAY_AND_ALPHA:
        return decode_bands(data, name, 4)[..., [0, 3]]
    whose = f"Image {name!r}: it" if name else "it"
    raise ValueError(
        f"{whose} has no {channels} channels, which data.channels={channels} asks for: {_SAID}"
    )


def _tiff(data: bytes, name: str) -> Shaped[np.ndarray, "H W *c"]:
    """Read the first page of a TIFF file, with the channels last."""
    try:
        import tifffile
    except ImportError:
        raise ValueError(
            "TIFF files of other channels than gray and RGB are read by tifffile: "
            "pip install 'vitjax[tiff]'."
        ) from None
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page: tifffile.TiffPage = file.pages[0]  # pyright: ignore[reportAssignmentType]
            axes, image = page.axes, page.asarray()
    except Exception as error:  # it raises several kinds
        raise BadImage(name, f"tifffile refuses it ({error})") from error
    if axes not in ("YX", "YXS", "SYX"):
        raise BadImage(name, f"its first page has the axes {axes}, and images have YX, YXS or SYX")
    return np.moveaxis(image, 0, -1) if axes == "SYX" else image
