"""Mixed and erased images on the device: mixup, CutMix, random erasing, MixToken's box.

Everything is a function of a key. Partners are neighbours: samples 2i and 2i+1 mix with each other.
So no data crosses between devices whose share of the batch is even, or between hosts. (The order of
the samples is random already.)
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_ATTEMPTS = 10
_QUANTILES = 4096


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Section `mixing`: mixing and erasing of training images on the device; 0 turns a part off.

    DeiT uses mixup 0.8, cutmix 1.0, prob 1.0, switch_prob 0.5, erase 0.25.

    Attributes:
      mixup: alpha of mixup's Beta distribution (Zhang et al., arXiv:1710.09412).
      cutmix: alpha of CutMix's (Yun et al., arXiv:1905.04899).
      prob: probability that a group is mixed.
      switch_prob: probability of CutMix if both are on.
      group_size: number of samples that share a draw of weight, box and choice; 0 for the whole
        batch, 1 for a draw per sample (timm's "elem"). timm's "batch" is the batch of one process:
        64 to 256.
      erase: probability that a rectangle of an image becomes noise (Zhong et al.,
        arXiv:1708.04896).
      mixtoken: alpha of MixToken's Beta distribution (Jiang et al., arXiv:2104.10858), for models
        with logits of tokens.
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
        """Whether mixup or CutMix is on, which change labels."""
        return (self.mixup > 0 or self.cutmix > 0) and self.prob > 0


def partner(x: Float[Array, "B ..."] | Bool[Array, "B ..."]) -> Array:
    """Swap each sample with its partner: the order 0, 1, 2, 3 becomes 1, 0, 3, 2.

    Raises:
      ValueError: the batch size is odd.
    """
    if x.shape[0] % 2:
        raise ValueError(
            f"A batch of {x.shape[0]} has no pairs to mix; choose an even batch size (or mixup=0 "
            f"and cutmix=0)."
        )
    return x.reshape(x.shape[0] // 2, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def box_mask(key: Array, share: Float[Array, ""], height: int, width: int) -> Bool[Array, "H W"]:
    """Draw a CutMix box (arXiv:1905.04899, eq. 2), with its centre anywhere in the map.

    Args:
      key: key of the centre.
      share: share of the area that the box covers before it is cut at the border, 1 - λ.
      height, width: size of the map.

    Returns:
      True outside of the box.
    """
    y, x = jnp.floor(jax.random.uniform(key, (2,)) * jnp.array([height, width]))
    return box_around(y, x, share, height, width)


def box_around(
    y: Float[Array, ""], x: Float[Array, ""], share: Float[Array, ""], height: int, width: int
) -> Bool[Array, "H W"]:
    """Build the mask of a box with the map's proportions, True outside of it.

    Along an axis of n cells the box has s = ⌊n √share⌋ cells from c - ⌊s / 2⌋ on, cut at the
    border, as in timm 1.0.31 (`rand_bbox`, timm/data/mixup.py); in earlier versions of timm it has
    one cell less if s is odd.

    Args:
      y, x: the centre, as integers.
    """

    def inside(centre: Array, side: int) -> Array:
        length, at = jnp.floor(jnp.sqrt(share) * side), jnp.arange(side)
        low = centre - jnp.floor(length / 2)
        return (at >= low) & (at < low + length)

    return ~(inside(y, height)[:, None] & inside(x, width)[None])


def symmetric_beta(key: Array, alpha: float) -> Float[Array, ""]:
    """Draw a number from Beta(alpha, alpha), by its quantile function, accurate to about 1e-3.

    `jax.random.beta` samples by rejection in loops. These take a minute to compile for TPU and, in
    a draw per sample, run until the last device is done. With x = sin²(t) the density of t is
    (sin t · cos t)^(2 alpha - 1).
    """
    edges = np.linspace(0, np.pi / 2, _QUANTILES + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    mass = (np.sin(middle) * np.cos(middle)) ** (2 * alpha - 1)
    below = np.concatenate([[0.0], np.cumsum(mass)]) / mass.sum()
    u = jax.random.uniform(key)
    return jnp.sin(jnp.interp(u, jnp.asarray(below), jnp.asarray(edges))) ** 2


def own_weight(key: Array, mixing: Mixing, height: int, width: int) -> Float[Array, "H W"]:
    """Draw the weight of an image's own pixels; its mean is the weight of its own label.

    For mixup the weight is constant, for CutMix it is 0 in a box and 1 outside.
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
    images: Float[Array, "B *T H W c"],
    targets: Float[Array, "B K"],
    mask: Float[Array, "B"],
) -> tuple[Float[Array, "B *T H W c"], Float[Array, "B K"]]:
    """Mix images and targets with their partners'; those whose partner has mask 0 stay.

    All frames of a clip are mixed alike.
    """
    count, (height, width) = len(images), images.shape[-3:-1]
    weight = by_group(lambda k: own_weight(k, mixing, height, width), key, mixing, count)
    weight = jnp.where(partner(mask)[:, None, None] > 0, weight, 1.0)
    label = weight.mean(axis=(1, 2))[:, None]
    pixel = _for_frames(weight, images).astype(images.dtype)
    mixed = pixel * images + (1 - pixel) * partner(images)
    return mixed, label * targets + (1 - label) * partner(targets)


def _for_frames(x: Array, images: Float[Array, "B *T H W c"]) -> Array:
    """Give maps `[b, H, W]` the axes of images or of clips."""
    return x.reshape(x.shape[0], *(1,) * (images.ndim - 4), *x.shape[1:], 1)


def pair_weights(key: Array, alpha: float, mask: Float[Array, "B"]) -> Float[Array, "B 1 1 1"]:
    """Draw each image's own weight from Beta(alpha, alpha); 1 if its partner has mask 0."""
    weights = jax.vmap(lambda k: symmetric_beta(k, alpha))(jax.random.split(key, len(mask)))
    return jnp.where(partner(mask) > 0, weights, 1.0)[:, None, None, None]


def mix_pairs(
    weight: Float[Array, "B 1 1 1"], images: Float[Array, "B H W c"]
) -> Float[Array, "B H W c"]:
    """Mix images with their partners' (arXiv:1710.09412, eq. 1): weight · own + rest · other."""
    return weight * images + (1 - weight) * partner(images)


def erase(
    key: Array,
    images: Float[Array, "B *T H W c"],
    prob: float,
    *,
    area: tuple[float, float] = (0.02, 1 / 3),
    ratio: tuple[float, float] = (0.3, 10 / 3),
) -> Float[Array, "B *T H W c"]:
    """Erase a random rectangle: its pixels become independent Gaussian noise.

    It is the same in all frames of a clip.

    Args:
      key: key of all draws.
      images: normalised to about unit variance.
      prob: probability for each image.
      area: range of the rectangle's share of the image.
      ratio: range of height over width, log-uniform; the first of ten draws that fits is used.
    """
    count, (height, width) = len(images), images.shape[-3:-1]
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

    keep = _for_frames(jax.vmap(kept)(jax.random.split(box_key, count)), images)
    return jnp.where(keep, images, jax.random.normal(noise_key, images.shape, images.dtype))


def kept_tokens(
    key: Array, mixing: Mixing, grid: tuple[int, int], mask: Float[Array, "B"]
) -> Bool[Array, "B h w"]:
    """Draw MixToken's mask M of the tokens that an image keeps (arXiv:2104.10858, section 3.3).

    The box is that of CutMix, on the grid of the last map. Images whose partner has mask 0 keep all
    tokens.

    Raises:
      ValueError: the group size is odd, so that two partners could have different boxes.
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
    """Swap the tokens outside `keep` with the partner's (Jiang et al., arXiv:2104.10858, eq. 6).

    The swap is its own inverse: applied to the tokens after the stem and again to the outputs of
    the dense head, it returns each image's tokens to it.

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
