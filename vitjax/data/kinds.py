"""Kinds of fields: how an image, a label or a map is cropped, moved, and stored in a batch.

The crop and each change of geometry are drawn once for a sample, and the kind of each field applies
them. Kinds are small frozen values that pickle; they hold no data.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float16, Int, UInt8, UInt16

from vitjax.data.channels import LUMA, RGB, by_planes
from vitjax.data.codecs.image import Box, Picture
from vitjax.data.codecs.maps import IGNORE
from vitjax.data.source import UNLABELLED, DataInfo
from vitjax.data.transforms.crops import Window, crop_and_resize, show_window
from vitjax.data.transforms.moves import Colour, Flip, Move, Turn, View

Size = tuple[int, int]
"""Height and width."""
Placed = tuple[Any, int, int]
"""Crop in a mosaic, and the left and top of its place (`transforms.mosaic`)."""


class ArraySpec(NamedTuple):
    """Row of a batch's array: shape, dtype, and the fill value of a row without a sample."""

    shape: tuple[int, ...]
    dtype: Any
    fill: float = 0


@runtime_checkable
class Kind(Protocol):
    """Protocol of a kind, which converts one field of a sample to a part of a batch.

    A kind that takes a part of an opened value before the crop, as clips take frames of a video,
    has `draw(value, rng)` too; in evaluation there is no generator.
    """

    def spec(self) -> dict[str, ArraySpec]:
        """List the arrays of the field, by the suffix of its name ("" for a single array)."""
        ...

    def open(self, value: Any) -> Any:
        """Convert a source's value to one that can be cropped."""
        ...

    def extent(self, value: Any) -> tuple[Size, Size] | None:
        """Return the size of an opened value and of its crops; None if it does not determine it."""
        ...

    def view(self, value: Any, view: View) -> Any:
        """Crop and resize an opened value."""
        ...

    def move(self, value: Any, move: Move) -> Any:
        """Move a cropped value."""
        ...

    def encode(self, value: Any) -> dict[str, Any]:
        """Encode a value as a row of each array of `spec`; ValueError if it is invalid."""
        ...


Kinds = Mapping[str, Kind]
"""Field → kind."""


def batch_spec(kinds: Kinds) -> dict[str, ArraySpec]:
    """List the arrays of a batch by name, with the spec of a row: those of `kinds`, and `mask`."""
    arrays = {"mask": ArraySpec((), np.float32)}
    for field, kind in kinds.items():
        arrays |= {_name(field, key): spec for key, spec in kind.spec().items()}
    return arrays


def image_and_label(info: DataInfo, size: int | Size, channels: int = RGB) -> dict[str, Kind]:
    """Build the kinds of classification: images cropped to a size, and their classes."""
    return {
        "image": Image(size, channels=channels),
        "label": Label(len(info.classes), info.multi_label),
    }


def encode(sample: Mapping[str, Any], kinds: Kinds) -> dict[str, Any]:
    """Encode a sample as a row of each array of a batch."""
    return {
        _name(field, key): array
        for field, kind in kinds.items()
        for key, array in kind.encode(sample[field]).items()
    }


def _name(field: str, key: str) -> str:
    return f"{field}_{key}" if key else field


@dataclasses.dataclass(frozen=True)
class Image:
    """Image of 8 bits.

    Attributes:
      size: height and width of its crops, or the side of a square.
      channels: 3 for RGB, 1 for gray, or as many as the data has.
    """

    size: int | Size
    channels: int = dataclasses.field(default=RGB, kw_only=True)

    @property
    def shape(self) -> Size:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def spec(self) -> dict[str, ArraySpec]:
        return {"": ArraySpec((*self.shape, self.channels), np.uint8)}

    def open(self, value: Any) -> Picture:
        return value if isinstance(value, Picture) else Picture(value, channels=self.channels)

    def extent(self, value: Picture) -> tuple[Size, Size]:
        return (value.height, value.width), self.shape

    def view(self, value: Picture, view: View) -> UInt8[np.ndarray, "H W c"]:
        size = view.size or self.shape
        if isinstance(view.box, Window):
            return show_window(value, view.box, size, view.interpolation)
        return crop_and_resize(value, view.box, size, view.interpolation, exact=False)

    def move(self, value: UInt8[np.ndarray, "H W c"], move: Move) -> UInt8[np.ndarray, "h w c"]:
        if isinstance(move, Colour):
            return move.function(value)
        if isinstance(move, Flip):
            return by_planes(cv2.flip, value, 1)
        if isinstance(move, Turn):
            return np.ascontiguousarray(np.rot90(value, move.quarters))
        flags = (cv2.INTER_CUBIC if move.cubic else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
        size = value.shape[1::-1]
        if self.channels == RGB:  # the usual case, straight
            return cv2.warpAffine(value, move.matrix, size, flags=flags, borderValue=move.fill)
        fill = (round(float(np.dot(LUMA, move.fill))),) * RGB
        return by_planes(cv2.warpAffine, value, move.matrix, size, flags=flags, borderValue=fill)

    def combine(self, values: list[Placed], size: Size) -> UInt8[np.ndarray, "h w c"]:
        return side_by_side(values, np.zeros((*size, self.channels), np.uint8))

    def encode(self, value: UInt8[np.ndarray, "h w c"]) -> dict[str, Any]:
        return {"": pad(value, self.shape, 0)}


@dataclasses.dataclass(frozen=True)
class Label:
    """Class of an image, or a weight for each class; crops do not change it.

    Attributes:
      num_classes: number of classes.
      multi: whether an image may have several classes.
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
        if not several and not self.multi:
            raise ValueError(
                "it has no label, and every image needs a class; add a label, or remove the image. "
                "Splits called test often have none"
            )
        if not self.multi:
            return several[0]
        weights = np.zeros(classes, np.float32)
        weights[several] = 1
        return weights


@dataclasses.dataclass(frozen=True)
class SemanticMap:
    """Map with a class for each pixel; crops take the nearest pixel, so that classes do not mix.

    Attributes:
      size: size of the crops, that of the image's crops.
      ignore: value of pixels without a class, and of those outside the map.
    """

    size: int | Size
    ignore: int = IGNORE

    @property
    def shape(self) -> Size:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def spec(self) -> dict[str, ArraySpec]:
        return {"": ArraySpec(self.shape, np.uint8, self.ignore)}

    def open(self, value: Any) -> Int[np.ndarray, "H W"]:
        return open_map(value)

    def dominance(self, value: Int[np.ndarray, "H W"], box: Box | Window) -> float:
        """Compute the share of the most frequent class among a rectangle's labelled pixels."""
        top, left = max(int(box.top), 0), max(int(box.left), 0)
        part = value[top : int(box.top + box.height), left : int(box.left + box.width)]
        counts = np.bincount(part[part != self.ignore].ravel())
        return float(counts.max() / counts.sum()) if counts.sum() else 1.0

    def extent(self, value: Any) -> None:
        return None

    def view(self, value: Int[np.ndarray, "H W"], view: View) -> Int[np.ndarray, "h w"]:
        check_frame(value, view)
        top, left, height, width = view.box
        # The pixel below each output pixel's centre, as cv2.INTER_NEAREST_EXACT takes it.
        h, w = view.size or self.shape
        rows = np.floor(top + (np.arange(h) + 0.5) * height / h).astype(int)
        columns = np.floor(left + (np.arange(w) + 0.5) * width / w).astype(int)
        if isinstance(view.box, Box):  # outside lies the mirror image, as of the image
            rows, columns = (_reflect(i, n) for i, n in zip((rows, columns), value.shape))
            return value[rows[:, None], columns]
        inside = ((rows >= 0) & (rows < value.shape[0]))[:, None]
        inside = inside & (columns >= 0) & (columns < value.shape[1])
        rows, columns = (np.clip(i, 0, n - 1) for i, n in zip((rows, columns), value.shape))
        return np.where(inside, value[rows[:, None], columns], self.ignore)

    def move(self, value: Int[np.ndarray, "H W"], move: Move) -> Int[np.ndarray, "h w"]:
        if isinstance(move, Flip):
            return value[:, ::-1]
        if isinstance(move, Turn):
            return np.rot90(value, move.quarters)
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

    def combine(self, values: list[Placed], size: Size) -> Int[np.ndarray, "h w"]:
        return side_by_side(values, np.full(size, self.ignore))

    def encode(self, value: Int[np.ndarray, "h w"]) -> dict[str, Any]:
        return {"": pad(value, self.shape, self.ignore)}


def pad(value: np.ndarray, size: Size, fill: int) -> np.ndarray:
    """Pad a crop to its size at the right and bottom.

    Raises:
      ValueError: the crop is larger, such as a crop that is not square after a quarter turn.
    """
    height, width = value.shape[:2]
    if (height, width) == size:
        return value
    if height > size[0] or width > size[1]:
        raise ValueError(
            f"its crop has {height}×{width} pixels after a quarter turn (symmetry), and "
            f"config.data.image_size={size} is no square; make it one, or leave turns out"
        )
    beside = [(0, size[0] - height), (0, size[1] - width), (0, 0)]
    return np.pad(value, beside[: value.ndim], constant_values=fill)


def side_by_side(values: list[Placed], whole: np.ndarray) -> np.ndarray:
    """Write crops into an array, each at its left and top; what they leave stays."""
    for part, left, top in values:
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return whole


def open_map(value: Any) -> Int[np.ndarray, "H W"]:
    """Return a map of classes, decoded if it is a file (`codecs.maps.LabelFile`)."""
    return value.read() if hasattr(value, "read") else value


def check_frame(value: np.ndarray, view: View) -> None:
    """Check that a map has the size of its image.

    Raises:
      ValueError: the sizes differ.
    """
    if value.shape != view.frame:
        raise ValueError(
            f"its map has {value.shape[0]}×{value.shape[1]} pixels, and its image "
            f"{view.frame[0]}×{view.frame[1]}; they must be the same"
        )


def _reflect(index: Int[np.ndarray, "n"], size: int) -> Int[np.ndarray, "n"]:
    """Mirror an index at the edges, the first and last pixel once (cv2.BORDER_REFLECT_101)."""
    period = max(2 * size - 2, 1)
    index = index % period
    return np.where(index < size, index, period - index)


class Scores(NamedTuple):
    """Label map of an image, and the box of the crop in it.

    Attributes:
      classes, values: maps of the whole image, `[k, h, w]`.
      box: top, left, height, width of the crop, as shares of the image; beyond 0 to 1 lies its
        mirror image. Rotations, shears and shifts are not recorded.
      flipped: whether left and right are exchanged.
    """

    classes: UInt16[np.ndarray, "k h w"]
    values: Float16[np.ndarray, "k h w"]
    box: tuple[float, ...] = (0.0, 0.0, 1.0, 1.0)
    flipped: Bool[np.ndarray, ""] | bool = False


@dataclasses.dataclass(frozen=True)
class TokenScores:
    """Label map of a whole image (see `label_maps`), with the box of the crop in it.

    The device reads the crop's part of the map, because the token grid is known there.

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
        if view.size:
            raise ValueError("label maps do not follow padding; leave pad_last out")
        top, left, rows, columns = view.box
        height, width = view.frame
        return value._replace(box=(top / height, left / width, rows / height, columns / width))

    def move(self, value: Scores, move: Move) -> Scores:
        if isinstance(move, Turn):
            raise ValueError("label maps do not follow quarter turns; leave symmetry out")
        return value._replace(flipped=not value.flipped) if isinstance(move, Flip) else value

    def encode(self, value: Scores) -> dict[str, Any]:
        return dict(zip(self.spec(), value))
