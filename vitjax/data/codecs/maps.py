"""Label files: a PNG whose pixels are class numbers, in gray or by a palette's index."""

import io
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from vitjax.data.source import BadImage

IGNORE = 255
"""What stands in a map where no class is said; such pixels count nowhere."""
CHANNELS = ("red", "green", "blue")
"""Of a coloured file, in one of which its numbers may stand."""


class LabelFile(NamedTuple):
    """Label file that is not decoded yet, with the meaning of its numbers.

    Attributes:
      data: the file.
      name: what an error calls it.
      classes: how many there are.
      reduce_zero: 0 means that no class is said, and class k is stored as k + 1 (ADE20K).
      palette: that of the data set's first file, which all must have; None for grey files.
      channel: of a coloured file, in which the numbers stand; empty for grey files and palettes.
    """

    data: bytes
    name: str
    classes: int
    reduce_zero: bool = False
    palette: bytes | None = None
    channel: str = ""

    def read(self) -> Int[np.ndarray, "H W"]:
        """Decode the classes; IGNORE where a pixel has none.

        Raises:
          BadImage: the file cannot be decoded.
          ValueError: it is no map of classes, has a number beyond them, or another palette.
        """
        numbers, palette = decode_map(self.data, self.name, self.channel)
        if palette != self.palette:
            raise ValueError(
                f"the palette of its label file {self.name!r} is not that of the first file of "
                f"the data set, so that its numbers may mean other classes; write all with one "
                f"palette, or as grey"
            )
        labels = numbers.astype(np.int32)
        if self.reduce_zero:
            labels = np.where((labels == 0) | (labels == IGNORE), IGNORE, labels - 1)
        wrong = labels[(labels >= self.classes) & (labels != IGNORE)]
        if wrong.size:
            stored = int(wrong.max()) + self.reduce_zero
            raise ValueError(
                f"its label file {self.name!r} has the number {stored}, and there are "
                f"{self.classes} classes, stored as {int(self.reduce_zero)} to "
                f"{self.classes - 1 + self.reduce_zero}, and {IGNORE} for none"
            )
        return labels


def decode_map(data: bytes, name: str = "", channel: str = "") -> tuple[np.ndarray, bytes | None]:
    """Decode a label file to its numbers `[H, W]`, and the palette if it has one.

    Args:
      name: what an error calls it.
      channel: one of CHANNELS, of a file whose pixels are colours; grey files and palettes
        are read as they are.

    Raises:
      BadImage: it cannot be decoded.
      ValueError: its pixels are colours, or have 16 bits.
    """
    from PIL import Image, UnidentifiedImageError  # OpenCV gives a palette's colours alone

    try:
        with Image.open(io.BytesIO(data)) as file:
            file.load()
            if channel and file.mode in ("RGB", "RGBA"):
                return np.asarray(file)[..., CHANNELS.index(channel)], None
            if file.mode not in ("1", "L", "P"):
                kind = {"LA": "grey with transparency"}.get(file.mode, file.mode)
                kind = "16 bits a pixel" if file.mode.startswith("I") else f"pixels of {kind}"
                raise ValueError(
                    f"its label file {name!r} has {kind}; a label file is a PNG of 8 bits, grey "
                    f"or with a palette, whose pixels are class numbers"
                )
            palette = None if file.palette is None else bytes(file.palette.getdata()[1])
            return np.asarray(file).astype(np.uint8), palette
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise BadImage(name, f"it is no label file that can be decoded ({error})") from error
