"""Kinds of whole images and maps, for the evaluation of dense tasks.

Each is placed into a corner of an array of fixed size, and its own size is stored beside it.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from vitjax.data.channels import RGB
from vitjax.data.codecs.image import Picture
from vitjax.data.codecs.maps import IGNORE
from vitjax.data.kinds import ArraySpec, Size, check_frame, open_map
from vitjax.data.transforms.crops import resize
from vitjax.data.transforms.degrade import degrade
from vitjax.data.transforms.moves import Move, View


@dataclasses.dataclass(frozen=True)
class WholeImage:
    """Image, resized in proportion and placed into the top left corner of a canvas.

    Arrays: the canvas, and `extent`: height and width of the image in it.

    Attributes:
      canvas: height and width; a larger image is resized to fit.
      short_side: pixels of the image's short side; 0 keeps the size of an image that fits.
      divisor: sides are rounded up to multiples of it; the sides of the canvas must be multiples.
      mirror: pad with the mirror image instead of black.
      degradation: degradation of the image, see `vitjax.data.transforms.degrade`.
      option: config field of the canvas, if images are not resized and a larger one is an error.
      channels: see `kinds.Image`.
    """

    canvas: Size
    short_side: int = 0
    divisor: int = 1
    mirror: bool = False
    degradation: str = ""
    option: str = ""
    channels: int = RGB

    def spec(self) -> dict[str, ArraySpec]:
        extent = ArraySpec((2,), np.int32, 1)  # of a row without image one pixel, so that none is 0
        return {"": ArraySpec((*self.canvas, self.channels), np.uint8), "extent": extent}

    def open(self, value: Any) -> Picture:
        return value if isinstance(value, Picture) else Picture(value, channels=self.channels)

    def size(self, height: int, width: int) -> Size:
        """Compute the size on the canvas of an image of this size."""
        if self.option:
            if height > self.canvas[0] or width > self.canvas[1]:
                raise ValueError(
                    f"it has {height}×{width} pixels, and {self.option}={self.canvas} is less; "
                    f"make it as large as the largest image"
                )
            return height, width
        scale = self.short_side / min(height, width) if self.short_side else 1.0
        scale = min(scale, self.canvas[0] / height, self.canvas[1] / width)
        fitting = (
            min(max(round(side * scale), 1), limit)
            for side, limit in zip((height, width), self.canvas, strict=True)
        )
        return tuple(-(-n // self.divisor) * self.divisor for n in fitting)  # type: ignore[return-value]

    def extent(self, value: Picture) -> tuple[Size, Size]:
        frame = (value.height, value.width)
        return frame, self.size(*frame)

    def view(self, value: Picture, view: View) -> UInt8[np.ndarray, "h w c"]:
        height, width = value.height, value.width
        whole, size = value.whole(), self.size(height, width)
        whole = whole if size == (height, width) else resize(whole, size, view.interpolation)
        return degrade(self.degradation, whole)

    def move(self, value: Any, move: Move) -> Any:
        raise ValueError("A whole image is evaluated as it is, and not moved.")

    def encode(self, value: UInt8[np.ndarray, "h w c"]) -> dict[str, Any]:
        below, beside = (n - m for n, m in zip(self.canvas, value.shape))
        mode = "symmetric" if self.mirror else "constant"
        canvas = np.pad(value, ((0, below), (0, beside), (0, 0)), mode)
        return {"": canvas, "extent": np.array(value.shape[:2], np.int32)}


@dataclasses.dataclass(frozen=True)
class WholeMap:
    """Map of classes at its own size, in the top left corner of an array of IGNORE.

    Attributes:
      limit: height and width of the array.
      option: config field that an error about a larger map names.
    """

    limit: Size
    option: str

    def spec(self) -> dict[str, ArraySpec]:
        return {
            "": ArraySpec(self.limit, np.uint8, IGNORE),
            "extent": ArraySpec((2,), np.int32, 1),
        }

    def open(self, value: Any) -> Int[np.ndarray, "H W"]:
        return open_map(value)

    def extent(self, value: Any) -> None:
        return None

    def view(self, value: Int[np.ndarray, "H W"], view: View) -> Int[np.ndarray, "H W"]:
        check_frame(value, view)
        return value

    def move(self, value: Any, move: Move) -> Any:
        raise ValueError("A whole map is evaluated as it is, and not moved.")

    def encode(self, value: Int[np.ndarray, "H W"]) -> dict[str, Any]:
        height, width = value.shape
        if height > self.limit[0] or width > self.limit[1]:
            raise ValueError(
                f"its map has {height}×{width} pixels, and {self.option}={self.limit} is less; "
                f"make it as large as the largest map"
            )
        array = np.full(self.limit, IGNORE, np.uint8)
        array[:height, :width] = value
        return {"": array, "extent": np.array(value.shape, np.int32)}
