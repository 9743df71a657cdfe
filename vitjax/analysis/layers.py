"""Features of every block of a model: their similarity (CKA), and what the head would say of them.

The similarity is linear centred kernel alignment (Kornblith et al., arXiv:1905.00414, eq. 3), with
the unbiased estimate over batches of Nguyen et al. (arXiv:2010.15327, eq. 3).
"""

import functools
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vitjax.analysis.attention import Places, unrolled
from vitjax.layers.norm import normalize
from vitjax.models.encoder import Encoder
from vitjax.models.pyramid import Pyramid

BLOCK = re.compile(r"(block|post)_\d+")


class Similarity(NamedTuple):
    """CKA of the blocks of two models.

    Attributes:
      first, second: names of the blocks.
      cka: 1 for features that are equal up to rotation and scale, about 0 for unrelated ones.
    """

    first: list[str]
    second: list[str]
    cka: Float[np.ndarray, "a b"]


class Lens(NamedTuple):
    """What a model's norm and head say of the tokens of a block.

    Attributes:
      name: of the block.
      tokens: logits of tokens without a place.
      patches: logits of each patch, or pixel of the map.
      stride: pixels of the image along a side of a patch.
    """

    name: str
    tokens: Float[np.ndarray, "B t K"]
    patches: Float[np.ndarray, "B h w K"]
    stride: int


def block_features(model: nn.Module, variables: Any, images: Array) -> dict[str, Array]:
    """Compute the result of every block, by its path, first to last.

    Raises:
      ValueError: the model has no blocks.
    """
    found: dict[str, Array] = {}

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        result, path = call(*args, **kwargs), context.module.path
        if context.method_name == "__call__" and path and BLOCK.fullmatch(path[-1]):
            found["/".join(path)] = result[0] if isinstance(result, tuple) else result
        return result

    with nn.intercept_methods(note):
        model.apply(variables, images)
    # Blocks inside of blocks are parts of these.
    inner = {n for n in found for other in found if n.startswith(f"{other}/")}
    if not found:
        raise ValueError(
            f"A {type(model).__name__} has no blocks ('block_0', …), so there are no layers to "
            f"compare."
        )
    return {name: x for name, x in found.items() if name not in inner}


def compare(
    first: tuple[nn.Module, Any], second: tuple[nn.Module, Any], batches: Iterable[Array]
) -> Similarity:
    """Compute the CKA of every two blocks of two models, or of one given twice.

    Args:
      first, second: model and variables.
      batches: images that both models read, at least 4 in each batch.

    Raises:
      ValueError: there is no batch, a batch is too small, or a model has no blocks.
    """
    sums: list[Any] = []
    names: tuple[list[str], list[str]] = ([], [])
    for images in batches:
        if len(images) < 4:
            raise ValueError(
                f"A batch of {len(images)} images: the estimate of CKA needs at least 4."
            )
        grams = [_grams(*unrolled(*pair), jnp.asarray(images)) for pair in (first, second)]
        names = (list(grams[0]), list(grams[1]))
        a, b = (np.array(list(g.values()), np.float64) for g in grams)
        sums.append([_hsic(a, b), _hsic_own(a), _hsic_own(b)])
    if not sums:
        raise ValueError("There are no batches of images to compare the layers on.")
    joint, own_first, own_second = (np.mean(x, axis=0) for x in zip(*sums))
    scale = np.sqrt(np.maximum(np.outer(own_first, own_second), np.finfo(float).tiny))
    return Similarity(*names, (joint / scale).astype(np.float32))


def logit_lens(model: nn.Module, variables: Any, images: Array | np.ndarray) -> list[Lens]:
    """Compute the logits that the model's last norm and head give for every token of each block.

    They read blocks whose features are as wide as the last ones': of a pyramid those of the last
    stage. (The idea is nostalgebraist's, for language models, 2020.)

    Raises:
      ValueError: the model has no head of classes on features.
    """
    if not isinstance(model, Encoder | Pyramid) or not getattr(model, "num_classes", 0):
        raise ValueError(
            f"A {type(model).__name__} has no norm and head of classes that read one token alike, "
            f"so there is no lens; choose a ViT or a pyramid with classes."
        )
    model, variables = unrolled(model, variables)
    images = jnp.asarray(images)
    places = Places(model, variables, images)
    found = []
    for name, logits in _lens(model, variables, images).items():
        place = places.of(logits.shape, False)
        flat = np.asarray(logits).reshape(logits.shape[0], -1, logits.shape[-1])
        tokens, rest = np.split(flat, [place.tokens], axis=1)
        rest = rest.reshape(rest.shape[0], place.height, place.width, -1)
        found.append(Lens(name, tokens, rest, places.stride(place)))
    return found


@functools.partial(jax.jit, static_argnums=0)
def _lens(model: nn.Module, variables: Any, images: Array) -> dict[str, Array]:
    def read(own: Any, x: Array) -> Array:
        if isinstance(own, Pyramid):
            norm = own.stage_norms[-1] if own.stage_norm else own.final_norm
            return own.head(normalize(norm, x, False))
        x = own.fc_norm(x) if getattr(own, "pool_norm", False) else own.norm(x)
        hidden = getattr(own, "representation_size", None)
        return own.head(nn.tanh(own.representation(x)) if hidden else x)

    features = block_features(model, variables, images)
    width = next(reversed(features.values())).shape[-1]
    return {
        name: jnp.asarray(model.apply(variables, x, method=read))
        for name, x in features.items()
        if x.shape[-1] == width and _last_stage(name, list(features)[-1])
    }


def _last_stage(name: str, last: str) -> bool:
    """Return whether a block is of the last one's stage, or of a model without stages."""
    return "/" not in last or name.rpartition("/")[0] == last.rpartition("/")[0]


@functools.partial(jax.jit, static_argnums=0)
def _grams(model: nn.Module, variables: Any, images: Array) -> dict[str, Float[Array, "n n"]]:
    """Compute the products of every two images' features without their mean, of each block.

    The mean changes no HSIC, and would cost its digits.
    """
    features = block_features(model, variables, images)
    flat = {name: x.reshape(x.shape[0], -1) for name, x in features.items()}
    flat = {name: x - x.mean(axis=0) for name, x in flat.items()}
    # A common factor cancels, and keeps the sums small.
    return {name: x @ x.T / x.shape[1] for name, x in flat.items()}


def _hsic(a: Float[np.ndarray, "p n n"], b: Float[np.ndarray, "q n n"]) -> Float[np.ndarray, "p q"]:
    """Compute the unbiased HSIC of every two Gram matrices (Song et al., 2012, eq. 5).

    Its terms nearly cancel, so that it needs float64.
    """
    n = a.shape[-1]
    a, b = (x * (1 - np.eye(n)) for x in (a, b))
    product = np.einsum("pij,qij->pq", a, b)
    total = np.outer(a.sum(axis=(1, 2)), b.sum(axis=(1, 2))) / ((n - 1) * (n - 2))
    both = a.sum(axis=2) @ b.sum(axis=2).T * 2 / (n - 2)
    return (product + total - both) / (n * (n - 3))


def _hsic_own(a: Float[np.ndarray, "p n n"]) -> Float[np.ndarray, "p"]:
    return np.array([_hsic(x[None], x[None])[0, 0] for x in a])
