"""Attention in few bytes: 8 bits a weight, boxes once for all queries that share them.

A weight w becomes the integer nearest to levels · √(|w| / most), `most` the largest of its layer:
small weights, of which there are many, keep more of their digits than large ones. The page has
`most` of every layer, and shows it.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from vitjax.analysis.attention import Layer
from vitjax.attention.rows import Place, Rows

FINE, COARSE = 255, 63
"""Levels of a weight, and those where the page would be too large."""


class Grid(NamedTuple):
    """Queries that are kept: all tokens, and of the map each `step`-th along both sides."""

    place: Place
    step: int

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the queries that are kept."""
        rows, columns = (len(range(self.step // 2, side, self.step)) for side in self.place[1:])
        return rows, columns

    def numbers(self) -> Int[np.ndarray, "q"]:
        """Return the numbers of the queries that are kept, tokens first."""
        tokens, height, width = self.place
        y, x = (np.arange(self.step // 2, side, self.step) for side in (height, width))
        return np.concatenate([np.arange(tokens), (tokens + y[:, None] * width + x).reshape(-1)])


class Store:
    """Arrays, one after another, to be compressed together."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, array: Shaped[np.ndarray, "..."]) -> dict[str, Any]:
        """Add an array; the result says where it lies, in bytes, and what it holds."""
        content = np.ascontiguousarray(array).tobytes()
        content += b"\0" * (-len(content) % 4)  # the browser reads aligned numbers
        said = {"at": self._length, "length": array.size, "type": array.dtype.name}
        self._parts.append(content)
        self._length += len(content)
        return said

    def compressed(self) -> bytes:
        """Return all arrays, in zlib's format."""
        return zlib.compress(b"".join(self._parts), 6)


def quantize(
    weights: Float[np.ndarray, "..."], levels: int
) -> tuple[UInt8[np.ndarray, "..."], Any]:
    """Round weights to integers; see `restore` for the way back."""
    most = float(np.max(np.abs(weights), initial=0)) or 1.0
    signed = bool(np.min(weights, initial=0) < 0)
    zero = (levels + 1) // 2 if signed else 0
    size = np.sqrt(np.abs(weights) / most) * (levels - zero)
    whole = np.rint(np.copysign(size, weights)).astype(np.int16) + zero
    return whole.astype(np.uint8), {"most": most, "levels": levels, "zero": zero}


def restore(whole: UInt8[np.ndarray, "..."], scale: dict[str, Any]) -> Float[np.ndarray, "..."]:
    """Compute weights from what `quantize` made of them."""
    size = (whole.astype(np.float64) - scale["zero"]) / (scale["levels"] - scale["zero"])
    return scale["most"] * np.sign(size) * size**2


def count_weights(layer: Layer, step: int) -> int:
    """Count the weights of one image of a layer, where of the queries each `step`-th is kept."""
    rows = layer.rows
    agents = 0 if rows.agents is None else rows.agents.weights[0].size
    kept = len(Grid(rows.queries, step).numbers())
    return layer.heads * kept * rows.weights.shape[-1] + agents


def choose_steps(layers: Sequence[Layer], limit: int) -> list[int]:
    """Choose for each layer how many queries are kept, so that there are at most `limit` weights.

    The largest maps are thinned first; those of one size alike.
    """
    steps = [1] * len(layers)
    sizes = [layer.rows.queries for layer in layers]
    while sum(counts := [count_weights(a, s) for a, s in zip(layers, steps)]) > limit:
        # The queries that a map still has; a map of one query stays as it is.
        kept = [np.prod(Grid(p, s).size) for p, s in zip(sizes, steps)]
        if max(kept) <= 1:
            break
        heaviest = {p: sum(c for c, q in zip(counts, sizes) if q == p) for p in sizes}
        thin = max((p for p, k in zip(sizes, kept) if k > 1), key=lambda p: heaviest[p])
        steps = [s + 1 if p == thin else s for p, s in zip(sizes, steps)]
    return steps


def pack_rows(rows: Rows, step: int, levels: int, store: Store) -> dict[str, Any]:
    """Store the rows of one image, and say what the browser needs to spread them."""
    grid = Grid(rows.queries, step)
    kept = grid.numbers()
    weights = np.asarray(rows.weights[0] if step == 1 else rows.weights[0][:, kept])
    whole, scale = quantize(weights, levels)
    said = {
        "queries": grid.place, "keys": rows.keys, "step": step, "kept": grid.size,
        "heads": weights.shape[0], "count": weights.shape[-1], "weights": store.add(whole),
        "kind": kind_of(rows), "boxes": None, "agents": None, **scale,
    }  # fmt: skip
    if rows.boxes is not None:
        boxes = np.asarray(rows.boxes[0], np.float32)
        own = boxes.shape[1] > 1
        said["boxes"] = pack_boxes(boxes[:, kept] if own else boxes, grid, store)
    if rows.agents is not None:
        said["agents"] = pack_rows(rows.agents, 1, levels, store)
    return said


def kind_of(rows: Rows) -> str:
    """Say what the keys of a layer are: pixels, patches, regions, points or agents."""
    if rows.agents is not None:
        return "agents"
    if rows.boxes is None:
        return "pixels"
    if rows.boxes.shape[2] > 1:
        return "regions"
    boxes = np.asarray(rows.boxes)
    return "patches" if np.array_equal(boxes, np.rint(boxes)) else "points"


def pack_boxes(boxes: Float[np.ndarray, "g q k 4"], grid: Grid, store: Store) -> dict[str, Any]:
    """Store boxes, once for all queries that have the same, or the same around them."""
    groups, queries, count, _ = boxes.shape
    table, which = _distinct(boxes)
    around = False
    if queries > 1:
        y, x = np.divmod(grid.numbers() - grid.place.tokens, grid.place.width)
        centred, centred_which = _distinct(boxes - np.stack([y, x, y, x], -1)[:, None])
        if len(centred) < len(table):
            table, which, around = centred, centred_which, True
    return {
        "table": store.add(np.stack(table).astype(np.float32)),
        "which": store.add(which),
        "around": around,
        "groups": groups,
        "count": count,
    }


def _distinct(boxes: Float[np.ndarray, "g q k 4"]) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the boxes `[g, k, 4]` that differ, and for each query the number of its own."""
    found: dict[bytes, int] = {}
    table, which = [], np.empty(boxes.shape[1], np.uint32)
    for i, own in enumerate(np.moveaxis(boxes, 1, 0)):
        number = found.setdefault(own.tobytes(), len(found))
        if number == len(table):
            table.append(own)
        which[i] = number
    return table, which
