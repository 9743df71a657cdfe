"""Kinds of objects with boxes, and masks perhaps, of training crops and of whole images.

Boxes are those of `objects.Objects`: (x0, y0, x1, y1), continuous and without +1.
"""

import dataclasses
import logging
import threading
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int

from vitjax.data.canvas import WholeImage
from vitjax.data.codecs import masks
from vitjax.data.codecs.image import Box
from vitjax.data.codecs.masks import Mask
from vitjax.data.kinds import ArraySpec, Placed, Size
from vitjax.data.objects import Boxes, Objects, absolute, areas, clip, in_pixels
from vitjax.data.transforms.crops import Window
from vitjax.data.transforms.moves import Colour, Flip, Move, Turn, View

_log = logging.getLogger(__name__)


class InCrop(NamedTuple):
    """Objects of a crop.

    Attributes:
      boxes: in pixels of the crop.
      classes, crowd, masks: as in `Objects`; `masks` has one entry for each object.
      matrices: from points of each mask to points of the crop.
      size: height and width of the crop.
    """

    boxes: Boxes
    classes: Int[np.ndarray, "n"]
    crowd: Bool[np.ndarray, "n"]
    masks: tuple[Mask | None, ...]
    matrices: Float64[np.ndarray, "n 2 3"]
    size: Size

    def take(self, kept: Bool[np.ndarray, "n"]) -> "InCrop":
        """Take some of the objects, in their order."""
        there = tuple(mask for mask, keep in zip(self.masks, kept) if keep)
        boxes, classes, crowd = (x[kept] for x in (self.boxes, self.classes, self.crowd))
        return InCrop(boxes, classes, crowd, there, self.matrices[kept], self.size)

    def moved(self, matrix: np.ndarray, size: Size) -> "InCrop":
        """Move boxes and masks by an affine map of the crop's points: boxes hold their corners."""
        x0, y0, x1, y1 = self.boxes.T
        corners = np.stack([x0, y0, x1, y0, x1, y1, x0, y1], -1).reshape(-1, 4, 2)
        corners = corners @ matrix[:, :2].T + matrix[:, 2]
        boxes = np.concatenate([corners.min(1), corners.max(1)], -1)
        matrices = matrix[:, :2] @ self.matrices
        matrices[:, :, 2] += matrix[:, 2]
        return self._replace(boxes=boxes, matrices=matrices, size=size)


@dataclasses.dataclass(frozen=True)
class Instances:
    """Objects of a training crop.

    A crop cuts their boxes, and drops those of which too little is left. A turn or shear gives the
    box of the moved mask, or of the moved corners of the box where there is none.

    Arrays: `boxes` `[L, 4]` in pixels of the crop, `classes` `[L]` (-1 where padded), `crowd` and
    `valid` `[L]`; with masks `masks` `[L, m, m]`: 1 inside of the object, a box's part that it
    covers stretched to m×m.

    Attributes:
      size: of the crops, that of the image's crops.
      limit: L; of more objects the largest are kept, and this is logged once.
      masks: m; 0 for none.
      min_side: pixels of a box's shorter side, below which an object is dropped.
      min_share: share of a box that must be left inside of the crop.
    """

    size: int | Size
    limit: int = 100
    masks: int = 0
    min_side: float = 1.0
    min_share: float = 0.0

    @property
    def shape(self) -> Size:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def spec(self) -> dict[str, ArraySpec]:
        arrays = _spec(self.limit)
        if self.masks:
            arrays["masks"] = ArraySpec((self.limit, self.masks, self.masks), np.uint8)
        return arrays

    def open(self, value: Objects) -> Objects:
        return value

    def extent(self, value: Any) -> None:
        return None

    def kept(self, value: Objects, box: Box | Window, frame: Size) -> float:
        """Compute the largest share of an object that a rectangle holds; 1 without objects."""
        boxes = in_pixels(value, frame)[~value.crowd]
        left, top = box.left, box.top
        inside = clip(boxes - (left, top) * 2, (box.height, box.width))
        some = areas(boxes) > 0
        shares = areas(inside)[some] / areas(boxes)[some]
        return float(shares.max()) if len(shares) else 1.0

    def view(self, value: Objects, view: View) -> InCrop:
        height, width = size = view.size or self.shape
        value, count = absolute(value, view.frame), len(value.boxes)
        placed = InCrop(
            value.boxes,
            value.classes,
            value.crowd,
            value.masks or (None,) * count,
            np.repeat(np.eye(2, 3)[None], count, axis=0),
            view.frame,
        )
        x, y = width / view.box.width, height / view.box.height
        shown = np.array([[x, 0, -x * view.box.left], [0, y, -y * view.box.top]])
        return self._cut(placed.moved(shown, size))

    def move(self, value: InCrop, move: Move) -> InCrop:
        height, width = value.size
        if isinstance(move, Colour):
            return value
        if isinstance(move, Flip):
            return value.moved(np.array([[-1.0, 0, width], [0, 1, 0]]), value.size)
        if isinstance(move, Turn):
            for _ in range(move.quarters % 4):
                height, width = value.size
                value = value.moved(np.array([[0.0, 1, 0], [-1, 0, width]]), (width, height))
            return value
        there = np.vstack([move.matrix, [0, 0, 1]])
        back = np.linalg.inv(there)[:2]  # from the input's pixels, (0, 0) the first one's centre
        back[:, 2] += 0.5 - back[:, :2] @ (0.5, 0.5)
        return self._cut(_fitted(_as_bitmaps(value).moved(back, value.size)))

    def combine(self, values: list[Placed], size: Size) -> InCrop:
        parts = [part.moved(_shift(left, top), size) for part, left, top in values]
        boxes, classes, crowd = (np.concatenate([part[i] for part in parts]) for i in range(3))
        there = tuple(mask for part in parts for mask in part.masks)
        return InCrop(
            boxes, classes, crowd, there, np.concatenate([part.matrices for part in parts]), size
        )

    def encode(self, value: InCrop) -> dict[str, Any]:
        if len(value.boxes) > self.limit:
            _tell_of_many(len(value.boxes), self.limit)
            largest = np.argsort(-areas(value.boxes), kind="stable")[: self.limit]
            value = value.take(np.isin(np.arange(len(value.boxes)), largest))
        arrays = _padded(self.limit, value.boxes, value.classes, value.crowd)
        if not self.masks:
            return arrays
        m = self.masks
        arrays["masks"] = np.zeros((self.limit, m, m), np.uint8)
        for i, (mask, matrix, box) in enumerate(zip(value.masks, value.matrices, value.boxes)):
            if mask is None:
                raise ValueError(_NO_MASK.format(i))
            scale = m / (box[2:] - box[:2])
            inside = matrix.copy()
            inside[:, 2] -= box[:2]
            arrays["masks"][i] = masks.draw(mask, inside * scale[:, None], (m, m))
        return arrays

    def _cut(self, placed: InCrop) -> InCrop:
        """Cut boxes to the crop, and drop those of which too little is left."""
        cut = clip(placed.boxes, placed.size)
        large = (cut[:, 2:] - cut[:, :2]).min(-1) >= max(self.min_side, 1e-6)
        enough = areas(cut) >= self.min_share * areas(placed.boxes)
        return placed._replace(boxes=cut).take(large & enough)


@dataclasses.dataclass(frozen=True)
class WholeInstances:
    """Objects of a whole image, for an evaluation.

    Arrays: `boxes`, `classes`, `crowd` and `valid` as of `Instances`, in pixels of the canvas;
    `original`: the boxes in pixels of the image, as annotated; `areas`: COCO's area of each;
    `size`: height and width of the image; `index`: the sample's number in its source. With
    `mask_bytes` also `rle`: the masks' compressed run lengths at the image's own size, each with a
    zero behind it.

    Attributes:
      image: kind of the image, which says where on the canvas it lies.
      limit: L. More objects are an error, as leaving some out would change what is measured.
      mask_bytes: length of `rle`; 0 for no masks.
      options: config fields of `limit` and `mask_bytes`, for errors.
    """

    image: WholeImage
    limit: int = 100
    mask_bytes: int = 0
    options: tuple[str, str] = ("limit", "mask_bytes")

    def spec(self) -> dict[str, ArraySpec]:
        arrays = _spec(self.limit) | {
            "original": ArraySpec((self.limit, 4), np.float32),
            "areas": ArraySpec((self.limit,), np.float32),
            "size": ArraySpec((2,), np.int32, 1),
            "index": ArraySpec((), np.int32, -1),
        }
        if self.mask_bytes:
            arrays["rle"] = ArraySpec((self.mask_bytes,), np.uint8)
        return arrays

    def open(self, value: Objects) -> Objects:
        return value

    def extent(self, value: Any) -> None:
        return None

    def view(self, value: Objects, view: View) -> Objects:
        return absolute(value, view.frame)

    def move(self, value: Any, move: Move) -> Any:
        raise ValueError("A whole image is evaluated as it is, and not moved.")

    def encode(self, value: Objects) -> dict[str, Any]:
        count, (height, width) = len(value.boxes), value.size or (1, 1)
        if count > self.limit:
            raise ValueError(
                f"it has {count} objects, and {self.options[0]}={self.limit} is less; make it as "
                f"large as the largest number of objects in an image"
            )
        shown = self.image.size(height, width)
        scale = np.array([shown[1] / width, shown[0] / height] * 2)
        arrays = _padded(self.limit, value.boxes * scale, value.classes, value.crowd)
        for name, rows in (("original", value.boxes), ("areas", value.areas)):
            arrays[name] = np.zeros((self.limit, *rows.shape[1:]), np.float32)
            arrays[name][:count] = rows
        unknown = np.isnan(arrays["areas"])
        arrays["areas"][unknown] = areas(arrays["original"])[unknown]
        arrays |= {"size": np.array((height, width), np.int32), "index": np.int32(value.number)}
        if self.mask_bytes:
            arrays["rle"] = self._run_lengths(value, (height, width))
        return arrays

    def _run_lengths(self, value: Objects, size: Size) -> np.ndarray:
        """Join the masks' run lengths, which have no zeros."""
        there = value.masks or (None,) * len(value.boxes)
        lacking = next((i for i, mask in enumerate(there) if mask is None), None)
        if lacking is not None:
            raise ValueError(_NO_MASK.format(lacking))
        joined = b"".join(masks.encode(mask, size) + b"\0" for mask in there if mask)
        if len(joined) > self.mask_bytes:
            raise ValueError(
                f"its masks take {len(joined)} bytes, and {self.options[1]}={self.mask_bytes} is "
                f"less; make it as large as the masks of an image"
            )
        return np.frombuffer(joined.ljust(self.mask_bytes, b"\0"), np.uint8)


_NO_MASK = "its object {} (from 0) has no mask; choose data with masks, or a task without"


def _spec(limit: int) -> dict[str, ArraySpec]:
    return {
        "boxes": ArraySpec((limit, 4), np.float32),
        "classes": ArraySpec((limit,), np.int32, -1),
        "crowd": ArraySpec((limit,), np.bool_),
        "valid": ArraySpec((limit,), np.bool_),
    }


def _padded(
    limit: int, boxes: np.ndarray, classes: np.ndarray, crowd: np.ndarray
) -> dict[str, np.ndarray]:
    """Write the objects into the first rows of arrays of `limit` rows."""
    count = len(boxes)
    arrays = {
        name: np.full((limit, *spec.shape[1:]), spec.fill, spec.dtype)
        for name, spec in _spec(limit).items()
    }
    for name, rows in (("boxes", boxes), ("classes", classes), ("crowd", crowd), ("valid", True)):
        arrays[name][:count] = rows
    return arrays


def _shift(right: float, down: float) -> Float64[np.ndarray, "2 3"]:
    return np.array([[1.0, 0, right], [0, 1, down]])


def _as_bitmaps(placed: InCrop) -> InCrop:
    """Draw the masks at the crop's size: what lies outside of it now does not come in again."""
    height, width = placed.size
    drawn: list[Mask | None] = []
    for mask, matrix, box in zip(placed.masks, placed.matrices, placed.boxes):
        left, top, right, bottom = np.rint(box).astype(int)
        if mask is None:
            drawn.append(None)
            continue
        whole = masks.draw(mask, matrix, (height, width))
        drawn.append(masks.Bitmap(whole[top:bottom, left:right].copy(), int(left), int(top)))
    matrices = np.repeat(np.eye(2, 3)[None], len(drawn), axis=0)
    return placed._replace(masks=tuple(drawn), matrices=matrices)


def _fitted(placed: InCrop) -> InCrop:
    """Replace boxes of turned objects by those of their masks, where they have one."""
    boxes = placed.boxes.copy()
    for i, (mask, matrix) in enumerate(zip(placed.masks, placed.matrices)):
        if mask is not None:
            drawn = masks.draw(mask, matrix, placed.size)
            rows, columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
            if not len(rows):
                boxes[i] = 0  # nothing of it is left
                continue
            found = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            boxes[i, :2] = np.maximum(boxes[i, :2], found[:2])
            boxes[i, 2:] = np.minimum(boxes[i, 2:], found[2:])
    return placed._replace(boxes=boxes)


_told_of_many = threading.Event()


def _tell_of_many(count: int, limit: int) -> None:
    if not _told_of_many.is_set():
        _told_of_many.set()
        _log.warning(
            "A crop has %d objects, and room for %d: the largest are kept. Further crops like it "
            "are not named.",
            count,
            limit,
        )
