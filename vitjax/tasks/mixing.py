"""Mixed and erased images on the device: mixup, CutMix, random erasing, MixToken's box.

Everything is a function of a key. Partners are neighbours: samples 2i and 2i+1 mix with each other,
so that nothing crosses devices whose share of the batch is even, and no host needs to know another.
(The order of the samples is random already.)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_ATTEMPTS = 10
_QUANTILES = 4096


class Mixing(NamedTuple):
    """What is done to a batch; the zeros do nothing. DeiT: 0.8, 1.0, 1.0, 0.5, erase 0.25.

    Attributes:
      mixup: alpha of mixup's Beta distribution (Zhang et al., arXiv:1710.09412).
      cutmix: alpha of CutMix's (Yun et al., arXiv:1905.04899).
      prob: probability that a group is mixed.
      switch_prob: share of CutMix where both are on.
      group_size: samples that share a draw of weight, box and choice; 0 for the whole batch, 1
        for each its own (timm's "elem"). timm's "batch" is that of one process: 64 to 256.
      erase: probability that a rectangle of an image becomes noise (Zhong et al.,
        arXiv:1708.04896).
      mixtoken: alpha of MixToken's (Jiang et al., arXiv:2104.10858), for models with logits of
        tokens.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    prob: float = 1.0
    switch_prob: float = 0.5
    group_size: int = 0
    erase: float = 0.0
    mixtoken: float = 0.0

    @property
    def mixes(self) -> bool:
        """Whether it does anything to labels."""
        return (self.mixup > 0 or self.cutmix > 0) and self.prob > 0


NONE = Mixing()


def partner(x: Float[Array, "B ..."] | Bool[Array, "B ..."]) -> Array:
    """Each sample's partner: those of 0, 1, 2 and 3 are 1, 0, 3 and 2.

    Raises:
      ValueError: the batch is odd.
    """
    if x.shape[0] % 2:
        raise ValueError(
            f"A batch of {x.shape[0]} has no pairs to mix; choose an even batch size (or mixup=0 "
            f"and cutmix=0)."
        )
    return x.reshape(x.shape[0] // 2, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def box_mask(key: Array, share: Float[Array, ""], height: int, width: int) -> Bool[Array, "H W"]:
    """Draw a CutMix box (arXiv:1905.04899, eq. 2): its centre is anywhere.

    Args:
      key: draws the centre.
      share: of the area that the box covers before it is cut at the border, 1 - λ.
      height, width: of the map.

    Returns:
      True outside of the box.
    """
    y, x = jnp.floor(jax.random.uniform(key, (2,)) * jnp.array([height, width]))
    return box_around(y, x, share, height, width)


def box_around(
    y: Float[Array, ""], x: Float[Array, ""], share: Float[Array, ""], height: int, width: int
) -> Bool[Array, "H W"]:
    """Make the mask of a box with the map's proportions, True outside of it.

    Along an axis of n cells it has s = ⌊n √share⌋ from c - ⌊s / 2⌋ on, cut at the border: timm
    1.0.31's (`rand_bbox`, timm/data/mixup.py); before, one less where s is odd.

    Args:
      y, x: the centre, whole numbers.
    """

    def inside(centre: Array, side: int) -> Array:
        length, at = jnp.floor(jnp.sqrt(share) * side), jnp.arange(side)
        low = centre - jnp.floor(length / 2)
        return (at >= low) & (at < low + length)

    return ~(inside(y, height)[:, None] & inside(x, width)[None])


def symmetric_beta(key: Array, alpha: float) -> Float[Array, ""]:
    """A number from Beta(alpha, alpha), by its quantile function, to about 1e-3.

    `jax.random.beta` rejects in loops, which take a minute to compile for TPU and, drawn for each
    sample, end when the last device's does. With x = sin²(t) the density of t is
    (sin t · cos t)^(2 alpha - 1).
    """
    edges = np.linspace(0, np.pi / 2, _QUANTILES + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    mass = (np.sin(middle) * np.cos(middle)) ** (2 * alpha - 1)
    below = np.concatenate([[0.0], np.cumsum(mass)]) / mass.sum()
    u = jax.random.uniform(key)
    return jnp.sin(jnp.interp(u, jnp.asarray(below), jnp.asarray(edges))) ** 2


def own_weight(key: Array, mixing: Mixing, height: int, width: int) -> Float[Array, "H W"]:
    """How much of each pixel stays an image's own; its mean is how much of the label does.

    Mixup gives one value everywhere, CutMix 0 in a box and 1 outside.
    """
    apply_key, switch_key, mixup_key, cutmix_key, box_key = jax.random.split(key, 5)
    shape = (height, width)
    weight = jnp.ones(shape)
    if mixing.mixup > 0:
        alpha = mixing.mixup
        weight = jnp.broadcast_to(symmetric_beta(mixup_key, alpha), shape)
    if mixing.cutmix > 0:
        alpha = mixing.cutmix
        kept = symmetric_beta(cutmix_key, alpha)
        cut = box_mask(box_key, 1 - kept, *shape).astype(jnp.float32)
        both = mixing.mixup > 0
        switch = jax.random.uniform(switch_key) < (mixing.switch_prob if both else 1.0)
        weight = jnp.where(switch, cut, weight)
    applied = jax.random.uniform(apply_key) < mixing.prob
    return jnp.where(applied, weight, 1.0)


def by_group(draw: Callable[[Array], Array], key: Array, mixing: Mixing, count: int) -> Array:
    """Draw once for each group of `mixing.group_size` samples: `[count, …]`, or `[1, …]` for all.

    Raises:
      ValueError: the group does not divide the batch.
    """
    size = mixing.group_size
    if not size:
        return draw(key)[None]
    if size < 0 or count % size:
        raise ValueError(
            f"mixing.group_size={size} does not divide the {count} samples that are mixed at once "
            f"(the batch, or an accumulated part of it); choose a divisor, or 0 for all."
        )
    return jnp.repeat(jax.vmap(draw)(jax.random.split(key, count // size)), size, axis=0)


def mix(
    key: Array,
    mixing: Mixing,
    images: Float[Array, "B H W c"],
    targets: Float[Array, "B K"],
    mask: Float[Array, "B"],
) -> tuple[Float[Array, "B H W c"], Float[Array, "B K"]]:
    """Images and targets mixed with their partners'; those whose partner has mask 0 stay."""
    count, height, width, _ = images.shape
    weight = by_group(lambda k: own_weight(k, mixing, height, width), key, mixing, count)
    weight = jnp.where(partner(mask)[:, None, None] > 0, weight, 1.0)
    label = weight.mean(axis=(1, 2))[:, None]
    pixel = weight[..., None].astype(images.dtype)
    mixed = pixel * images + (1 - pixel) * partner(images)
    return mixed, label * targets + (1 - label) * partner(targets)


def erase(
    key: Array,
    images: Float[Array, "B H W c"],
    prob: float,
    *,
    area: tuple[float, float] = (0.02, 1 / 3),
    ratio: tuple[float, float] = (0.3, 10 / 3),
) -> Float[Array, "B H W c"]:
    """Random erasing: a rectangle becomes Gaussian noise, pixel by pixel.

    Args:
      key: draws all.
      images: normalised to about unit variance.
      prob: of each image.
      area: range of the rectangle's share of the image.
      ratio: range of height over width, log-uniform; ten draws, of which the first that fits is
        taken.
    """
    count, height, width, _ = images.shape
    noise_key, box_key = jax.random.split(key)

    def kept(key: Array) -> Bool[Array, "H W"]:
        draws = jax.random.uniform(key, (_ATTEMPTS + 1, 2))
        applied, corner = draws[0, 0] < prob, jax.random.uniform(jax.random.fold_in(key, 1), (2,))
        size = (area[0] + (area[1] - area[0]) * draws[1:, 0]) * height * width
        low, high = jnp.log(ratio[0]), jnp.log(ratio[1])
        shape = jnp.exp(low + (high - low) * draws[1:, 1])
        h, w = jnp.round(jnp.sqrt(size * shape)), jnp.round(jnp.sqrt(size / shape))
        fits = (h < height) & (w < width)
        first = jnp.argmax(fits)
        h, w = h[first], w[first]
        top, left = jnp.floor(corner * jnp.array([height - h + 1, width - w + 1]))
        y, x = jnp.arange(height), jnp.arange(width)
        inside = ((y >= top) & (y < top + h))[:, None] & ((x >= left) & (x < left + w))[None]
        return ~(inside & applied & fits.any())

    keep = jax.vmap(kept)(jax.random.split(box_key, count))[..., None]
    return jnp.where(keep, images, jax.random.normal(noise_key, images.shape, images.dtype))


def kept_tokens(
    key: Array, mixing: Mixing, grid: tuple[int, int], mask: Float[Array, "B"]
) -> Bool[Array, "B h w"]:
    """MixToken's M (arXiv:2104.10858, section 3.3): which tokens stay an image's own.

    The box is CutMix's, on the grid of the last map. Images whose partner has mask 0 stay whole.

    Raises:
      ValueError: groups of an odd size, in which partners would have two boxes.
    """
    if mixing.group_size % 2:
        raise ValueError(
            f"mixing.group_size={mixing.group_size}: MixToken exchanges the tokens of two images, "
            f"which share a box; choose an even size, or 0 for the whole batch."
        )

    def keep(key: Array) -> Bool[Array, "h w"]:
        apply_key, share_key, box_key = jax.random.split(key, 3)
        inside = box_mask(box_key, 1 - symmetric_beta(share_key, mixing.mixtoken), *grid)
        return inside | ~(jax.random.uniform(apply_key) < mixing.prob)

    return by_group(keep, key, mixing, len(mask)) | ~(partner(mask) > 0)[:, None, None]


def mix_token(keep: Bool[Array, "*#B h w"], x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """MixToken (Jiang et al., arXiv:2104.10858, eq. 6): tokens outside `keep` are the partner's.

    It undoes itself: applied to the tokens after the stem, and to the outputs of the dense head,
    each image's tokens are back with it.

    Args:
      keep: on the grid of the last map.
      x: a map whose sides are multiples of the grid's.
    """
    rows, columns = (side // cells for side, cells in zip(x.shape[1:3], keep.shape[-2:]))
    if (rows * keep.shape[-2], columns * keep.shape[-1]) != x.shape[1:3]:
        raise ValueError(
            f"MixToken exchanges whole tokens of the last map, {keep.shape[-2:]}, and the first "
            f"has {x.shape[1:3]}; choose an image_size that halves without rest, such as 224."
        )
    fine = jnp.repeat(jnp.repeat(keep, rows, axis=-2), columns, axis=-1)[..., None]
    return jnp.where(fine, x, partner(x))
