"""A picture file as an array."""

import cv2
import numpy as np
from jaxtyping import UInt8

from vitjax.data.source import BadImage

JPEG = ("jpg", "jpeg", "jpe", "jfif")
NETPBM = ("pbm", "pgm", "pnm", "ppm")
OTHERS = ("avif", "bmp", "dib", "gif", "jp2", "png", "tif", "tiff", "webp")
EXTENSIONS = frozenset((*JPEG, *NETPBM, *OTHERS))
"""Of the files that count as images, in lower case."""

# BadImage reports what cannot be decoded, by name; OpenCV's own lines would only repeat it.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_image(path: str, name: str | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes a file to 8-bit RGB, turned upright as its EXIF data says; alpha is dropped.

    A file that ends early or is no image is refused; bytes changed inside a JPEG are not noticed.

    Args:
      path: the file.
      name: what an error calls it, if not by its path.

    Raises:
      BadImage: the file cannot be read or decoded.
    """
    name = name or path
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BadImage(name, error.strerror or str(error)) from error
    if not data:
        raise BadImage(name, "the file is empty")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise BadImage(name, f"OpenCV refuses it ({error.err})") from error
    if image is None:
        raise BadImage(name, "it is truncated, damaged or in no format that OpenCV reads")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
