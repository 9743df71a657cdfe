"""Attention rollout: how much each place of the image reaches the output by way of attention alone
(Abnar and Zuidema, arXiv:2005.00928, section 3; figure 6 of ViT, arXiv:2010.11929).

A layer mixes its positions by (A + I) / 2, A the mean of its heads and I the residual; rollout
is the product over layers. It is the Jacobian of the model with its attention frozen and its MLPs,
norms and values replaced by the identity, divided by 2 for each layer. Between stages a pixel of
the coarser map is the mean of those that it covers, four at most. What attention spends outside
of the image (padding, points beyond the border) is lost, and so are learned tokens: the sum over
the image is at most 1.

Convolutions between and beside attention do not appear in it; nor does the sign of what is mixed.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vitjax.analysis.attention import Capture, Layer, Query, paint
from vitjax.attention.rows import Place, Rows


def rollout(capture: Capture, query: Query | None = None) -> Float[np.ndarray, "B y x"]:
    """Compute the rollout from the last layer to the pixels of the first layer's map.

    Args:
      query: of the last layer, whose rollout it is; None for what the head reads: the class token,
        or the mean of the map.

    Raises:
      ValueError: the model is no chain of self-attention on maps that do not grow.
    """
    return pull_back(capture, query)


def pull_back(
    capture: Capture, query: Query | None, *, raw: bool = False
) -> Float[np.ndarray, "B y x"]:
    """Carry the weights of a query's result from the last layer to the first one's map.

    Args:
      raw: a layer mixes by A + I with A as it is, and not by (A + I) / 2 with rows of sum 1.
    """
    place, state = _start(capture, query)
    found = _carry(capture.layers, place, state, raw)
    return np.asarray(found.reshape(-1, *capture.layers[0].map_size))


def rollouts(
    capture: Capture, queries: Int[np.ndarray, "q"]
) -> tuple[Float[np.ndarray, "B y x"], Float[np.ndarray, "q B y x"]]:
    """Compute `rollout` of what the head reads, and of many queries of the last layer.

    Args:
      queries: their numbers, tokens first.

    Raises:
      ValueError: as in `rollout`.
    """
    place, reads = _start(capture, None)
    one = jax.nn.one_hot(queries, place.length)[:, None]
    starts = jnp.concatenate([reads[None], jnp.broadcast_to(one, (len(one), *reads.shape))])
    found = np.asarray(_rollouts(capture.layers, starts))
    found = found.reshape(*found.shape[:2], *capture.layers[0].map_size)
    return found[0], found[1:]


@jax.jit
def _rollouts(layers: tuple[Layer, ...], starts: Float[Array, "q B Q"]) -> Float[Array, "q B M"]:
    place = layers[-1].rows.queries
    layers = tuple(
        dataclasses.replace(layer, rows=_mean_of_heads(layer.rows.normalized())) for layer in layers
    )
    return jax.lax.map(lambda state: _carry(layers, place, state, False), starts)


def _mean_of_heads(rows: Rows) -> Rows:
    """Return rows of one head for each group with keys of its own; those of agents as they are."""
    if rows.agents is not None:
        return rows
    groups = 1 if rows.boxes is None else rows.boxes.shape[1]
    batch, _, *rest = rows.weights.shape
    return dataclasses.replace(
        rows, weights=rows.weights.reshape(batch, groups, -1, *rest).mean(axis=2)
    )


def _carry(
    layers: tuple[Layer, ...], place: Place, state: Float[Array, "B Q"], raw: bool
) -> Float[Array, "B M"]:
    """Carry weights of the last layer's results to the positions of the first one's map."""
    for i, layer in reversed(list(enumerate(layers))):
        if i < len(layers) - 1:
            state = _between(state, place, layer, layers[i + 1])
        rows, last = layer.rows, i == len(layers) - 1
        place = rows.keys
        if rows.queries == place:
            state = _mix(state, rows, raw)
        elif rows.queries == Place(1) and place.tokens == 1:
            state = _mix_token(state, rows, raw)
        elif not rows.queries.height and last and not place.tokens:  # a query pools the map
            state = (rows if raw else rows.normalized()).pull(state)
        else:
            raise ValueError(
                f"Layer {layer.name!r} attends from {rows.queries.tokens} tokens to a map that "
                f"goes on beside them, and rollout follows self-attention alone; look at its rows."
            )
    return state[:, place.tokens :]


@functools.partial(jax.jit, static_argnums=2)
def _mix(state: Float[Array, "B Q"], rows: Rows, raw: bool) -> Float[Array, "B Q"]:
    """Compute stateᵀ (A + I) / 2 of a self-attention, from its results to its inputs."""
    part = 1.0 if raw else 0.5
    rows = rows if raw else rows.normalized()
    mixed = rows.pull(state)
    if rows.agents is not None:
        # Agents keep what they are sampled from beside what they gather: their residual.
        direct = dataclasses.replace(rows, agents=None)
        mixed = part * (mixed + direct.pull(state))
    return part * (state + mixed)


@functools.partial(jax.jit, static_argnums=2)
def _mix_token(state: Float[Array, "B N"], rows: Rows, raw: bool) -> Float[Array, "B M"]:
    """Compute the same of a class attention, which changes the token alone."""
    part = 1.0 if raw else 0.5
    if state.shape[1] == 1:  # of the last layer, whose result is the token
        state = jnp.pad(state, ((0, 0), (0, rows.keys.length - 1)))
    mixed = (rows if raw else rows.normalized()).pull(state[:, :1])
    return state.at[:, :1].multiply(part) + part * mixed


def rollout_on_image(capture: Capture, query: Query | None = None) -> Float[np.ndarray, "B H W"]:
    """Compute `rollout`, where each pixel of the image has the value of its map's pixel."""
    first = capture.layers[0]
    return paint(rollout(capture, query), first.stride, first.image_size)


def _start(capture: Capture, query: Query | None) -> tuple[Place, Float[Array, "B Q"]]:
    """Return the weights of the last layer's results in what is rolled out."""
    layer = capture.layers[-1]
    place, weights = layer.rows.queries, np.zeros(layer.rows.queries.length, np.float32)
    if query is not None:
        weights[layer.index(query)] = 1
    elif capture.reads_token:
        weights[0] = 1
    else:
        weights[place.tokens :] = 1 / (place.height * place.width)
    batch = layer.rows.weights.shape[0]
    return place, jnp.broadcast_to(jnp.asarray(weights), (batch, weights.size))


def _between(state: Array, place: Place, layer: Layer, after: Layer) -> Float[Array, "B M"]:
    """Carry the state from the inputs of a layer to the results of the one before it."""
    before = layer.rows.keys
    factor = after.stride // layer.stride
    if factor < 1 or not place.height:
        raise ValueError(
            f"The map grows between the layers {layer.name!r} and {after.name!r}, and rollout "
            f"follows classifiers, whose maps do not; look at the layers one by one."
        )
    tokens, state = jnp.split(state, [place.tokens], axis=1)
    if factor > 1:
        y, x = (_means(*sides, factor) for sides in zip(before[1:], place[1:], strict=True))
        state = state.reshape(-1, place.height, place.width)
        state = jnp.einsum("byx,yi,xj->bij", state, y, x).reshape(state.shape[0], -1)
    if before.tokens:
        missing = max(0, before.tokens - place.tokens)
        tokens = jnp.pad(tokens[:, : before.tokens], ((0, 0), (0, missing)))
        return jnp.concatenate([tokens, state], axis=1)
    return state


def _means(fine: int, coarse: int, factor: int) -> Float[np.ndarray, "c f"]:
    """Compute the weights of the fine pixels of an axis in each coarse one, their mean.

    Pixels that are left over, as by a convolution without padding, are in none.
    """
    owner = np.arange(fine) // factor
    inside = (owner == np.arange(coarse)[:, None]).astype(np.float32)
    return inside / inside.sum(axis=1, keepdims=True)
