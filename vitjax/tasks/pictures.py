"""Pictures of predictions: class maps in colours, and images side by side."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

Pixels = UInt8[np.ndarray, "H W 3"]
Strip = UInt8[np.ndarray, "H _ 3"]
"""Of a height that it shares with others."""
WHITE = 255
LEGEND = 24
"""Classes that a legend names, the most frequent ones."""


def visible(image: UInt8[np.ndarray, "H W c"]) -> Pixels:
    """Convert an image for display: its first three channels, or the first of fewer as gray."""
    return image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)


def class_colours(count: int) -> UInt8[np.ndarray, "K 3"]:
    """Generate distinct colours: hues by the golden ratio, in three brightnesses."""
    golden = (5**0.5 - 1) / 2
    colours = [
        colorsys.hsv_to_rgb(k * golden % 1, (0.85, 0.6, 0.95)[k % 3], (0.95, 0.85, 0.6)[k % 3])
        for k in range(count)
    ]
    return np.rint(255 * np.asarray(colours)).astype(np.uint8).reshape(count, 3)


def segmentation_picture(
    image: Pixels, found: Int[np.ndarray, "H W"], names: tuple[str, ...], colours: np.ndarray
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Draw an image with its classes in colours over it, and a legend.

    Args:
      found: the class of each pixel.
      names, colours: names and colours of the classes.
    """
    scale = max(1, round(256 / min(image.shape[:2])))  # small images are enlarged
    image, found = (np.repeat(np.repeat(x, scale, axis=0), scale, axis=1) for x in (image, found))
    over = np.rint(0.4 * image + 0.6 * colours[found]).astype(np.uint8)
    counts = np.bincount(found.ravel(), minlength=len(names))
    shown = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]][:LEGEND]
    rows = [(names[k], tuple(int(c) for c in colours[k])) for k in shown]
    return beside([image, over, legend(rows, image.shape[0])])


def detection_picture(
    image: Pixels,
    boxes: Float[np.ndarray, "n 4"],
    labels: list[str],
    colours: UInt8[np.ndarray, "n 3"],
    masks: Sequence[Bool[np.ndarray, "H W"]] | None = None,
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Draw boxes with labels over an image, the first ones on top, and masks if there are any.

    Args:
      boxes: in pixels of the image.
    """
    scale = max(1, round(512 / min(image.shape[:2])))  # small images are enlarged
    drawn = np.repeat(np.repeat(image, scale, axis=0), scale, axis=1)
    tones = [tuple(int(c) for c in colour) for colour in colours]
    for mask, tone in zip(masks or (), tones):
        inside = np.repeat(np.repeat(mask, scale, axis=0), scale, axis=1)
        drawn[inside] = np.rint(0.5 * drawn[inside] + 0.5 * np.array(tone)).astype(np.uint8)
    for box, label, tone in reversed([*zip(boxes, labels, tones, strict=True)]):
        x0, y0, x1, y1 = (round(float(n) * scale) for n in box)
        cv2.rectangle(drawn, (x0, y0), (x1, y1), tone, 2)
        (width, height), _ = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        top = max(y0 - height - 6, 0)
        cv2.rectangle(drawn, (x0, top), (x0 + width + 4, top + height + 6), tone, -1)
        cv2.putText(drawn, label, (x0 + 2, top + height + 3), cv2.FONT_HERSHEY_SIMPLEX, 0.45,
                    (0, 0, 0), 1, cv2.LINE_AA)  # fmt: skip
    return drawn


def legend(rows: list[tuple[str, tuple[int, ...]]], height: int) -> Strip:
    """Draw names beside their colours, in columns of a height."""
    line = 22
    fit = max(1, height // line)
    columns = []
    for i in range(0, len(rows), fit):
        part = rows[i : i + fit]
        width = 40 + max(
            cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0] for name, _ in part
        )
        column = np.full((height, width, 3), WHITE, np.uint8)
        for j, (name, colour) in enumerate(part):
            top = j * line
            cv2.rectangle(column, (8, top + 4), (22, top + 18), colour, -1)
            cv2.putText(column, name, (30, top + 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1,
                        cv2.LINE_AA)  # fmt: skip
        columns.append(column)
    return np.concatenate(columns, axis=1)


def beside(images: list[Strip], gap: int = 4) -> Strip:
    """Put images of one height next to each other, with white between them."""
    white = np.full((images[0].shape[0], gap, 3), WHITE, np.uint8)
    parts = [part for image in images for part in (image, white)][:-1]
    return np.concatenate(parts, axis=1)
