"""Token labels: a separate label for every patch (Jiang et al., arXiv:2104.10858; used by VOLO).

A label map holds, for each cell of a coarse grid over the whole image, the few classes that an
annotator found most probable there. A training crop reads the part of the map that it covers.
The authors' code is zihangJiang/TokenLabeling (`tlt/data/mixup.py`, `tlt/loss/cross_entropy.py`).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Integer

CLASS_TARGETS = ("label", "maps", "both")
SCORES = ("probabilities", "logits")


@dataclasses.dataclass(frozen=True)
class TokenLabels:
    """Section `token_labels`: targets of the tokens and of the class token (VOLO)."""

    maps: str = ""  # the folder of `vitjax token-labels`; empty: tokens have their image's label
    weight: float = 0.0  # of the tokens' loss, beside the class token's 1
    # Of the class token: the image's "label", what the "maps" say of the crop, or "both"; see
    # `class_targets`.
    class_target: str = "label"
    scores: str = "probabilities"  # what the maps hold; or "logits"; see `token_targets`


def dense_labels(
    classes: Integer[Array, "k h w"],
    scores: Float[Array, "k h w"],
    num_classes: int,
    normalised: bool = True,
) -> Float[Array, "h w K"]:
    """Spread a stored map, the k best classes of each cell with their scores, over all classes.

    Args:
      normalised: the scores of a cell are divided by their sum; not for logits.
    """
    if normalised:
        scores = scores / jnp.maximum(scores.sum(axis=0), 1e-9)
    shares = (s[..., None] * jax.nn.one_hot(c, num_classes) for c, s in zip(classes, scores))
    return functools.reduce(jnp.add, shares)  # no array [k, h, w, K]: elementwise, it fuses


def crop_labels(
    labels: Float[Array, "h w K"],
    box: Float[Array, "4"],
    grid: tuple[int, int],
    flipped: Array | bool = False,
) -> Float[Array, "H W K"]:
    """Read the label map of a crop on the tokens' grid, as RoI align does (arXiv:1703.06870).

    A token is the mean of bilinear samples of the map: along an axis as many as the cells that the
    token covers, rounded up, at equal distances. That is `torchvision.ops.roi_align` with its
    automatic `sampling_ratio`, which the authors of token labels use.

    Args:
      labels: label map of the whole image.
      box: top, left, height, width of the crop as shares of the image.
      grid: tokens along each axis; (1, 1) is the mean over the crop.
      flipped: whether the crop was flipped left and right.
    """

    def samples(start: Array, length: Array, cells: int, tokens: int) -> Float[Array, "t n"]:
        most = -(-cells // tokens)
        count = jnp.clip(jnp.ceil(length * cells / tokens), 1, most)
        steps = (jnp.arange(most) + 0.5) / count
        at = (start + length * (jnp.arange(tokens)[:, None] + steps) / tokens) * cells - 0.5
        at = jnp.clip(at, 0, cells - 1)[..., None]
        tents = jnp.maximum(0.0, 1.0 - jnp.abs(at - jnp.arange(cells)))
        return jnp.where(steps[:, None] < 1, tents, 0.0).sum(axis=1) / count

    rows = samples(box[0], box[2], labels.shape[0], grid[0])
    columns = samples(box[1], box[3], labels.shape[1], grid[1])
    columns = jnp.where(flipped, columns[::-1], columns)
    # Rounded to bfloat16 or TF32, logits of 10 would be off by 0.03.
    return jnp.einsum("yh,xw,hwk->yxk", rows, columns, labels, precision="highest")


def token_targets(
    batch: Mapping[str, Array],
    targets: Float[Array, "B K"],
    grid: tuple[int, int],
    label_smoothing: float = 0.0,
    scores: str = "probabilities",
) -> tuple[Float[Array, "B K"], Float[Array, "B h w K"]]:
    """Compute the targets of each crop and its tokens, from label maps or else from the label.

    With s = `label_smoothing` and K classes a target is (1 - s) p + s / K. For "probabilities" p is
    their mean over the token, normalised over the stored classes. For "logits" p is the softmax,
    over all K classes, of their mean, where a class that is not stored has logit 0, as in
    `get_label` of the authors' code. Its targets sum to 1 + s / K, and ours to 1.

    Args:
      batch: with `map_classes`, `map_scores`, `map_box` and `map_flipped`, or without maps.
      targets: smoothed targets of the images, also used for a cell (of logits: an image) without
        scores.
      grid: tokens along each axis.
      label_smoothing: share of a map's label that is spread over all classes, that of the images'
        labels.
      scores: kind of the maps' scores, one of SCORES.

    Returns:
      The target of the whole crop, and those of its tokens.
    """
    if "map_classes" not in batch:
        tokens = jnp.broadcast_to(targets[:, None, None], (len(targets), *grid, targets.shape[1]))
        return targets, tokens
    logits, sizes = scores == "logits", ((1, 1), grid)

    def look(classes: Array, values: Array, box: Array, flipped: Array, whole: Array) -> Any:
        values = values.astype(whole.dtype)
        labels = dense_labels(classes, values, len(whole), normalised=not logits)
        return tuple(of_grid(labels, box, g, flipped, whole, values.any()) for g in sizes)

    def of_grid(
        labels: Array, box: Array, grid: Any, flipped: Array, whole: Array, known: Bool[Array, ""]
    ) -> Float[Array, "h w K"]:
        found = crop_labels(labels, box, grid, flipped)
        if logits:
            found = jax.nn.softmax(found) * known
        seen = found.sum(axis=-1, keepdims=True)  # 0 in an empty cell
        smooth = (1 - label_smoothing) * found + label_smoothing * seen / len(whole)
        return smooth + (1 - seen) * whole

    maps = batch["map_classes"], batch["map_scores"]
    crop, tokens = jax.vmap(look)(*maps, batch["map_box"], batch["map_flipped"], targets)
    return crop[:, 0, 0], tokens


def class_targets(
    kind: str, labels: Float[Array, "B K"], maps: Float[Array, "B K"]
) -> Float[Array, "B K"]:
    """Choose the targets of the class token.

    Args:
      kind: "label": the image's label (y_cls of arXiv:2104.10858, eq. 4); "maps": the target of the
        crop from the maps, as in the authors' pretraining (`TokenLabelCrossEntropy`); "both":
        r maps + (1 - r) label, with r ½ where their best classes agree and 0.9 elsewhere, as in
        VOLO's fine-tuning (`TokenLabelGTCrossEntropy` of sail-sg/volo, `--ground-truth`).
      labels: labels of the images.
      maps: targets of their crops from the maps.
    """
    if kind == "label":
        return labels
    if kind == "maps":
        return maps
    agree = labels.argmax(axis=-1, keepdims=True) == maps.argmax(axis=-1, keepdims=True)
    ratio = jnp.where(agree, 0.5, 0.9)
    return ratio * maps + (1 - ratio) * labels


def token_label_loss(
    class_logits: Float[Array, "B K"],
    token_logits: Float[Array, "B h w K"],
    class_targets: Float[Array, "B K"],
    token_targets: Float[Array, "B h w K"],
    weight: float = 0.5,
    counts: tuple[Float[Array, "B"], Float[Array, "B h w"]] | None = None,
) -> Float[Array, "B"]:
    """Compute the class token's cross-entropy plus `weight` times the tokens' mean (eq. 4).

    The weight is β = 0.5 in the paper and in VOLO's code (`--dense-weight`); TokenLabeling's own
    code has 1.

    Args:
      counts: weights of the image and of each of its tokens; None for 1 each.
    """
    own = optax.softmax_cross_entropy(class_logits.astype(jnp.float32), class_targets)
    dense = optax.softmax_cross_entropy(token_logits.astype(jnp.float32), token_targets)
    if counts is not None:
        own, dense = counts[0] * own, counts[1] * dense
    return own + weight * dense.mean(axis=(1, 2))
