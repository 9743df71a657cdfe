"""Kinds of fields: how an image, a label or a map is cropped, moved, and laid into a batch.

A crop and each change of geometry is drawn once for a sample, and every field follows it as its
kind says. Kinds are small frozen values that pickle; they hold no data.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float16, Int, UInt8, UInt16

from vitjax.data.codecs.image import Box, Picture
from vitjax.data.source import UNLABELLED, DataInfo
from vitjax.data.transforms.crops import Window, crop_and_resize, show_window
from vitjax.data.transforms.moves import Colour, Flip, Move, View

Size = tuple[int, int]
"""Height and width."""


class ArraySpec(NamedTuple):
    """One row of a batch's array: shape, dtype, and what a row without a sample holds."""

    shape: tuple[int, ...]
    dtype: Any
    fill: float = 0


@runtime_checkable
class Kind(Protocol):
    """How one field of a sample becomes a part of a batch."""

    def spec(self) -> dict[str, ArraySpec]:
        """Give the arrays that the field becomes, by what is added to its name ("" for one)."""
        ...

    def open(self, value: Any) -> Any:
        """Give what is cropped, from what a source stores."""
        ...

    def extent(self, value: Any) -> tuple[Size, Size] | None:
        """Give the size of an opened value and that of its crops; None if it has no say in it."""
        ...

    def view(self, value: Any, view: View) -> Any:
        """Crop and resize an opened value."""
        ...

    def move(self, value: Any, move: Move) -> Any:
        """Move a cropped value."""
        ...

    def encode(self, value: Any) -> dict[str, Any]:
        """Give a row of each array of `spec`; ValueError where the value is none."""
        ...


Kinds = Mapping[str, Kind]
"""Field → kind."""


def batch_spec(kinds: Kinds) -> dict[str, ArraySpec]:
    """Give the arrays of a batch by name, one row of each: those of its kinds, and `mask`."""
    arrays = {"mask": ArraySpec((), np.float32)}
    for field, kind in kinds.items():
        arrays |= {_name(field, key): spec for key, spec in kind.spec().items()}
    return arrays


def image_and_label(info: DataInfo, size: int | Size) -> dict[str, Kind]:
    """Give the kinds of classification: images cropped to a size, and their classes."""
    return {"image": Image(size), "label": Label(len(info.classes), info.multi_label)}


def encode(sample: Mapping[str, Any], kinds: Kinds) -> dict[str, Any]:
    """Give a sample's row of each array of a batch."""
    return {
        _name(field, key): array
        for field, kind in kinds.items()
        for key, array in kind.encode(sample[field]).items()
    }


def _name(field: str, key: str) -> str:
    return f"{field}_{key}" if key else field


@dataclasses.dataclass(frozen=True)
class Image:
    """An RGB image of 8 bits.

    Attributes:
      size: height and width of its crops, or the side of a square.
    """

    size: int | Size

    @property
    def shape(self) -> Size:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def spec(self) -> dict[str, ArraySpec]:
        return {"": ArraySpec((*self.shape, 3), np.uint8)}

    def open(self, value: Any) -> Picture:
        return value if isinstance(value, Picture) else Picture(value)

    def extent(self, value: Picture) -> tuple[Size, Size]:
        return (value.height, value.width), self.shape

    def view(self, value: Picture, view: View) -> UInt8[np.ndarray, "H W 3"]:
        if isinstance(view.box, Window):
            return show_window(value, view.box, self.shape, view.interpolation)
        return crop_and_resize(value, view.box, self.shape, view.interpolation, exact=False)

    def move(self, value: UInt8[np.ndarray, "H W 3"], move: Move) -> UInt8[np.ndarray, "H W 3"]:
        if isinstance(move, Colour):
            return move.function(value)
        if isinstance(move, Flip):
            return cv2.flip(value, 1)
        flags = (cv2.INTER_CUBIC if move.cubic else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            value, move.matrix, value.shape[1::-1], flags=flags, borderValue=move.fill
        )

    def encode(self, value: UInt8[np.ndarray, "H W 3"]) -> dict[str, Any]:
        return {"": value}


@dataclasses.dataclass(frozen=True)
class Label:
    """One class of an image, or a weight for each; no crop changes it.

    Attributes:
      num_classes: how many there are.
      multi: an image may have several.
    """

    num_classes: int
    multi: bool = False

    def spec(self) -> dict[str, ArraySpec]:
        shape = (self.num_classes,) if self.multi else ()
        return {"": ArraySpec(shape, np.float32 if self.multi else np.int32)}

    def open(self, value: Any) -> Any:
        return value

    def extent(self, value: Any) -> None:
        return None

    def view(self, value: Any, view: View) -> Any:
        return value

    def move(self, value: Any, move: Move) -> Any:
        return value

    def encode(self, value: Any) -> dict[str, Any]:
        if type(value) is int and 0 <= value < self.num_classes and not self.multi:
            return {"": value}  # the usual case, without numpy
        return {"": self._target(value)}

    def _target(self, label: Any) -> int | Float[np.ndarray, "K"]:
        classes = self.num_classes
        if isinstance(label, np.ndarray) and label.dtype.kind == "f":
            if not self.multi or label.shape != (classes,):
                raise ValueError(
                    f"its label has {label.size} weights, and there are {classes} classes"
                )
            return label
        several = [int(c) for c in np.atleast_1d(np.asarray(label, np.int64))]
        wrong = [c for c in several if not (0 <= c < classes or c == UNLABELLED)]
        if wrong or (len(several) != 1 and not self.multi):
            raise ValueError(
                f"its label is {label}; "
                + (
                    f"classes are 0 to {classes - 1}"
                    if wrong
                    else "the data has one class an image"
                )
                + ". Repair the label, or say how many classes there are"
            )
        several = [c for c in several if c != UNLABELLED]
        if not self.multi:
            return several[0] if several else 0
        weights = np.zeros(classes, np.float32)
        weights[several] = 1
        return weights


@dataclasses.dataclass(frozen=True)
class SemanticMap:
    """A class for each pixel of an image; crops take the nearest pixel, so that no class is mixed.

    Attributes:
      size: as the image's crops.
      ignore: what stands where the map says nothing, as outside of it.
    """

    size: int | Size
    ignore: int = 255

    @property
    def shape(self) -> Size:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def spec(self) -> dict[str, ArraySpec]:
        return {"": ArraySpec(self.shape, np.int32, self.ignore)}

    def open(self, value: Any) -> Int[np.ndarray, "H W"]:
        return value

    def extent(self, value: Any) -> None:
        return None

    def view(self, value: Int[np.ndarray, "H W"], view: View) -> Int[np.ndarray, "h w"]:
        if value.shape != view.frame:
            raise ValueError(
                f"its map has {value.shape[0]}×{value.shape[1]} pixels, and its image "
                f"{view.frame[0]}×{view.frame[1]}; they must be the same"
            )
        top, left, height, width = view.box
        # The pixel below each output pixel's centre, as cv2.INTER_NEAREST_EXACT takes it.
        rows = np.floor(top + (np.arange(self.shape[0]) + 0.5) * height / self.shape[0]).astype(int)
        columns = np.floor(left + (np.arange(self.shape[1]) + 0.5) * width / self.shape[1])
        columns = columns.astype(int)
        if isinstance(view.box, Box):  # outside lies the mirror image, as of the image
            rows, columns = (_reflect(i, n) for i, n in zip((rows, columns), value.shape))
            return value[rows[:, None], columns]
        inside = ((rows >= 0) & (rows < value.shape[0]))[:, None]
        inside = inside & (columns >= 0) & (columns < value.shape[1])
        rows, columns = (np.clip(i, 0, n - 1) for i, n in zip((rows, columns), value.shape))
        return np.where(inside, value[rows[:, None], columns], self.ignore)

    def move(self, value: Int[np.ndarray, "h w"], move: Move) -> Int[np.ndarray, "h w"]:
        if isinstance(move, Flip):
            return value[:, ::-1]
        if isinstance(move, Colour):
            return value
        x, y = np.meshgrid(np.arange(value.shape[1]), np.arange(value.shape[0]))
        columns, rows = np.floor(
            np.einsum("ij,jhw->ihw", move.matrix, np.stack([x, y, np.ones_like(x)])) + 0.5
        ).astype(int)
        height, width = value.shape
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        found = value[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
        return np.where(inside, found, self.ignore)

    def encode(self, value: Int[np.ndarray, "h w"]) -> dict[str, Any]:
        return {"": value}


def _reflect(index: Int[np.ndarray, "n"], size: int) -> Int[np.ndarray, "n"]:
    """Mirror an index at the edges, the first and last pixel once (cv2.BORDER_REFLECT_101)."""
    period = max(2 * size - 2, 1)
    index = index % period
    return np.where(index < size, index, period - index)


class Scores(NamedTuple):
    """A label map, and which part of it a crop shows.

    Attributes:
      classes, values: of the whole image, `[k, h, w]`.
      box: top, left, height, width of the crop, as shares of the image; beyond 0 to 1 it is its
        mirror image. Turns, shears and shifts are not told.
      flipped: left and right are exchanged.
    """

    classes: UInt16[np.ndarray, "k h w"]
    values: Float16[np.ndarray, "k h w"]
    box: tuple[float, ...] = (0.0, 0.0, 1.0, 1.0)
    flipped: Bool[np.ndarray, ""] | bool = False


@dataclasses.dataclass(frozen=True)
class TokenScores:
    """The label map of a whole image (see `label_maps`), with the place of the crop in it.

    The device reads the map's part, where the crop's tokens are known.

    Attributes:
      shape: k, h, w of the map.
    """

    shape: tuple[int, ...]

    def spec(self) -> dict[str, ArraySpec]:
        return {
            "classes": ArraySpec(self.shape, np.uint16),
            "scores": ArraySpec(self.shape, np.float16),
            "box": ArraySpec((4,), np.float32),
            "flipped": ArraySpec((), np.bool_),
        }

    def open(self, value: Any) -> Scores:
        return Scores(*value)

    def extent(self, value: Scores) -> None:
        return None

    def view(self, value: Scores, view: View) -> Scores:
        top, left, rows, columns = view.box
        height, width = view.frame
        return value._replace(box=(top / height, left / width, rows / height, columns / width))

    def move(self, value: Scores, move: Move) -> Scores:
        return value._replace(flipped=not value.flipped) if isinstance(move, Flip) else value

    def encode(self, value: Scores) -> dict[str, Any]:
        return dict(zip(self.spec(), value))
