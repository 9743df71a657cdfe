"""Token labels: every patch has a label of its own (Jiang et al., arXiv:2104.10858; used by VOLO).

A label map holds, for each cell of a coarse grid over the whole image, the few classes that an
annotator found most probable there. A training crop reads the part of the map below its rectangle.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Integer


def dense_labels(
    classes: Integer[Array, "k h w"], scores: Float[Array, "k h w"], num_classes: int
) -> Float[Array, "h w K"]:
    """A stored map, the k best classes of each cell with their scores, as a weight for each class.

    The scores are normalised to sum to one.
    """
    scores = scores / jnp.maximum(scores.sum(axis=0), 1e-9)
    shares = (s[..., None] * jax.nn.one_hot(c, num_classes) for c, s in zip(classes, scores))
    return functools.reduce(jnp.add, shares)  # no array [k, h, w, K]: elementwise, it fuses


def crop_labels(
    labels: Float[Array, "h w K"],
    box: Float[Array, "4"],
    grid: tuple[int, int],
    mirrored: Array | bool = False,
) -> Float[Array, "H W K"]:
    """The label map of a crop on the tokens' grid, bilinear between the map's cells.

    Args:
      labels: of the whole image.
      box: top, left, height, width of the crop as shares of the image.
      grid: tokens along each axis.
      mirrored: whether the crop was flipped left and right.
    """

    def tent(start: Array, length: Array, cells: int, tokens: int) -> Float[Array, "t n"]:
        at = (start + length * (jnp.arange(tokens) + 0.5) / tokens) * cells - 0.5
        at = jnp.clip(at, 0, cells - 1)
        return jnp.maximum(0.0, 1.0 - jnp.abs(at[:, None] - jnp.arange(cells)))

    rows = tent(box[0], box[2], labels.shape[0], grid[0])
    columns = tent(box[1], box[3], labels.shape[1], grid[1])
    columns = jnp.where(mirrored, columns[::-1], columns)
    return jnp.einsum("yh,xw,hwk->yxk", rows, columns, labels)


def token_targets(
    batch: dict[str, Array],
    targets: Float[Array, "B K"],
    grid: tuple[int, int],
    label_smoothing: float = 0.0,
) -> Float[Array, "B h w K"]:
    """A label for each token: that of the map below it, or the image's where there is none.

    Args:
      batch: with `map_classes`, `map_scores`, `box` and `mirrored`, or without maps.
      targets: of the images, smoothed.
      grid: tokens along each axis.
      label_smoothing: share of a map's label that is spread over all classes, as of the images'.
    """
    whole = targets[:, None, None]
    if "map_classes" not in batch:
        return jnp.broadcast_to(whole, (len(targets), *grid, targets.shape[1]))

    def of_tokens(classes: Array, scores: Array, box: Array, mirrored: Array) -> Array:
        scores = scores.astype(targets.dtype)
        return crop_labels(dense_labels(classes, scores, targets.shape[1]), box, grid, mirrored)

    names = ("map_classes", "map_scores", "box", "mirrored")
    dense = jax.vmap(of_tokens)(*(batch[name] for name in names))
    seen = dense.sum(axis=-1, keepdims=True)  # 0 in an empty cell
    return (
        (1 - label_smoothing) * dense
        + label_smoothing * seen / targets.shape[1]
        + (1 - seen) * whole
    )


def token_label_loss(
    class_logits: Float[Array, "B K"],
    token_logits: Float[Array, "B h w K"],
    class_targets: Float[Array, "B K"],
    token_targets: Float[Array, "B h w K"],
    weight: float = 0.5,
) -> Float[Array, "B"]:
    """Cross-entropy of the class token, plus `weight` times the mean of the patches' (eq. 4)."""
    own = optax.softmax_cross_entropy(class_logits.astype(jnp.float32), class_targets)
    dense = optax.softmax_cross_entropy(token_logits.astype(jnp.float32), token_targets)
    return own + weight * dense.mean(axis=(1, 2))
