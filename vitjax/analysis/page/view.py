"""What the page shows of one image and one model."""

import base64
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from vitjax.analysis.attention import Capture, Layer
from vitjax.analysis.distance import distance
from vitjax.analysis.page.pack import COARSE, FINE, Grid, Store, choose_steps, pack_rows, quantize
from vitjax.analysis.rollout import rollout, rollouts

MEGABYTES = 6.0
"""Of a view on the page, its attention and its image, unless more are asked for."""
BEST = 5
MOST_PAIRS = 60_000_000
"""Pairs of query and key, of all layers, up to which each query of the last layer is rolled out."""


class View(NamedTuple):
    """One image as one model sees it.

    Attributes:
      said: what the page reads, apart from the arrays.
      arrays: compressed.
    """

    said: dict[str, Any]
    arrays: bytes


def make_view(
    seen: Capture,
    pixels: UInt8[np.ndarray, "H W c"],
    *,
    model: str,
    image: str,
    classes: Sequence[str] | None = None,
    multi_label: bool = False,
    note: str = "",
    megabytes: float = MEGABYTES,
) -> View:
    """Make what the page shows of one image.

    Args:
      seen: capture of this image alone.
      pixels: the image as the model was shown it, before normalisation.
      model, image: their names on the page.
      classes: names of the classes; None for their numbers.
      multi_label: an image may have several classes, each with a probability of its own.
      note: a sentence on the model, such as where its weights come from.
      megabytes: that the view may take. Where more would be needed, some layers keep each second
        query along both sides, or third …, which the page says.

    Raises:
      ValueError: the capture is of several images, or the classes have other names than logits.
    """
    if (batch := seen.layers[0].rows.weights.shape[0]) != 1:
        raise ValueError(f"A capture of {batch} images: a view is of one, so capture them singly.")
    picture = _picture(pixels)
    room = int(1e6 * megabytes) - len(picture) - 40_000  # of the page's text and program
    rolled, maps = _rollout(seen, choose_steps(seen.layers, room)[-1])
    # As base64, weights of six bits take a character each: the last try always fits. Most weights
    # take less, so that more queries may fit.
    layers, arrays, tried = [], b"", None
    for share, levels in ((2.5, FINE), (1.6, FINE), (1, FINE), (1, COARSE)):
        steps = choose_steps(seen.layers, int(share * room))
        if (steps, levels) == tried:
            continue
        tried, store = (steps, levels), Store()
        layers = [_layer(layer, s, levels, store) for layer, s in zip(seen.layers, steps)]
        if maps is not None:
            whole, scale = quantize(maps, levels)
            rolled = {**rolled, "maps": store.add(whole), **scale}
        arrays = store.compressed()
        if len(arrays) * 4 / 3 <= room:
            break
    said = {
        "model": model, "image": image, "note": note, "size": seen.layers[0].image_size,
        "picture": picture, "classes": _best(seen, classes, multi_label), "layers": layers,
        "rollout": rolled, "reads": "class token" if seen.reads_token else "mean of the map",
    }  # fmt: skip
    return View(said, arrays)


def _layer(layer: Layer, step: int, levels: int, store: Store) -> dict[str, Any]:
    rows = layer.rows
    away = distance(layer).tolist() if rows.queries.height else None
    said = pack_rows(rows, step, levels, store)
    return {"name": layer.name, "stride": layer.stride, "distances": away,
            "top": _largest_on_map(layer, said["most"]), **said}  # fmt: skip


def _largest_on_map(layer: Layer, most: float) -> float:
    """Return where the colours of a layer's linear scale end: a bound of its pixels' weights.

    For points, whose shares may add up, and agents it is the largest of some queries.
    """
    rows = layer.rows
    if rows.agents is None and rows.boxes is None:
        return most
    if rows.agents is None:
        low, high = np.split(np.asarray(rows.where), 2, axis=-1)
        return most / float(np.min(np.prod(high - low, axis=-1)))
    some = np.unique(np.linspace(0, rows.queries.length - 1, 64).astype(int))
    weights = dataclasses.replace(rows, weights=rows.weights[:, :, some]).dense()
    return float(np.max(np.asarray(weights)))


def _rollout(seen: Capture, step: int) -> tuple[dict[str, Any], np.ndarray | None]:
    """Compute the rollout of what the head reads, and of the last layer's queries.

    Returns:
      What the page reads of it, and the maps; without maps the reason.
    """
    place = seen.layers[-1].rows.queries
    grid = Grid(place, step)
    pairs = sum(a.rows.queries.length * a.rows.keys.length for a in seen.layers)
    each = pairs <= MOST_PAIRS
    try:
        if each:
            reads, own = rollouts(seen, grid.numbers())
            maps = np.concatenate([reads, own[:, 0]])
        else:
            maps = rollout(seen)
    except ValueError as error:
        return {"none": str(error)}, None
    return {"size": maps.shape[1:], "stride": seen.layers[0].stride, "queries": place,
            "each": each, "step": step, "kept": grid.size}, maps  # fmt: skip


def _best(seen: Capture, classes: Sequence[str] | None, multi_label: bool) -> list[Any]:
    """List the most probable classes; none for models that give no classes."""
    if seen.output.ndim != 2:
        return []
    logits = np.asarray(seen.output[0], np.float32)
    if classes is not None and len(classes) != len(logits):
        raise ValueError(f"{len(classes)} names of classes, and the model has {len(logits)}.")
    odds = np.asarray(jax.nn.sigmoid(logits) if multi_label else jax.nn.softmax(logits))
    order = np.argsort(-odds, kind="stable")[:BEST]
    names = [classes[i] if classes is not None else f"class {i}" for i in order]
    return [[name, float(odds[i])] for name, i in zip(names, order)]


def _picture(pixels: UInt8[np.ndarray, "H W c"]) -> str:
    """Encode the image as a data URI; of images that have no colours, their mean as gray."""
    import cv2

    if pixels.shape[-1] != 3:
        pixels = np.rint(pixels.mean(axis=-1, keepdims=True)).astype(np.uint8).repeat(3, axis=-1)
    small = max(pixels.shape) <= 96  # whose pixels are to be seen
    kind, options = ("png", []) if small else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, 90])
    _, content = cv2.imencode(f".{kind}", np.ascontiguousarray(pixels[..., ::-1]), options)
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"
