"""Choice of a few among many, without sorting the many.

A sort of all anchors' scores takes a TPU's compiler long, and makes a large program. Here the least
value to choose is found by bisection over its bits, in one small loop; the chosen ones are then
compared each with each. Nothing is scattered. Functions are of one set.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt

BLOCK = 512
"""Values that are searched together for those that are chosen."""


def top_k(x: Float[Array, "N"], count: int) -> tuple[Float[Array, "n"], Int[Array, "n"]]:
    """Compute what `jax.lax.top_k` does, in its order: the largest values, and their places.

    Args:
      count: of values; of fewer all.
    """
    count = min(count, len(x))
    keys = as_keys(jax.lax.stop_gradient(x))
    index = places(largest(keys, count), count) if count < len(x) else jnp.arange(count)
    index = sort_by_rank(index, ranks(keys[index]), count)
    return x[index], index


def as_keys(x: Float[Array, "N"]) -> UInt[Array, "N"]:
    """Convert floats to integers of their order, in which -0 < 0 and inf < nan."""
    bits = jnp.finfo(x.dtype).bits
    code = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{bits}"))
    sign = jnp.array(1 << (bits - 1), code.dtype)
    return jnp.where(code >= sign, ~code, code | sign)


def largest(keys: UInt[Array, "N"], count: int | Int[Array, ""]) -> Bool[Array, "N"]:
    """Choose the `count` largest keys; of equal ones the first; all, if there are fewer."""
    least = nth_largest(keys, count)
    above, equal = keys > least, keys == least
    turn = jnp.where(equal, len(keys) - jnp.arange(len(keys)), 0).astype(jnp.uint32)
    return above | (equal & (turn >= nth_largest(turn, count - above.sum())))


def nth_largest(keys: UInt[Array, "N"], n: int | Int[Array, ""]) -> UInt[Array, ""]:
    """Find the n-th largest key, by bisection: 0 if there are fewer, all ones if n is 0."""
    bits = jnp.iinfo(keys.dtype).bits
    highest = jnp.array(1 << (bits - 1), keys.dtype)

    def settle(i: Array, found: Array) -> Array:
        """Set the next bit if n keys have it, or are larger."""
        raised = found | (highest >> i.astype(keys.dtype))
        return jnp.where((keys >= raised).sum() >= n, raised, found)

    return jax.lax.fori_loop(0, bits, settle, jnp.zeros((), keys.dtype))


def places(chosen: Bool[Array, "N"], count: int) -> Int[Array, "n"]:
    """List the places of the first `count` that are chosen, of at least so many."""
    blocks = jnp.pad(chosen, (0, -len(chosen) % BLOCK)).reshape(-1, BLOCK)
    number = jnp.arange(count)[:, None]
    until = jnp.cumsum(blocks.sum(axis=1))
    past = until <= number  # blocks that end before the place
    block, before = past.sum(axis=1), jnp.where(past, until, 0).max(axis=1, keepdims=True)
    # The block of each, as a product: whole numbers, and exact.
    own = jax.nn.one_hot(block, len(blocks), dtype=jnp.bfloat16) @ blocks.astype(jnp.bfloat16)
    found = jnp.cumsum(own.astype(jnp.int32), axis=1)
    return block * BLOCK + (found <= number - before).sum(axis=1)


def precedes(x: Shaped[Array, "N"]) -> Bool[Array, "N N"]:
    """Compare each value (rows) with each: whether it is larger, or equal and comes before."""
    place = jnp.arange(len(x))
    return (x[:, None] > x) | ((x[:, None] == x) & (place[:, None] < place))


def ranks(x: Shaped[Array, "N"]) -> Int[Array, "N"]:
    """Count how many values come before each."""
    return precedes(x).sum(axis=0)


def sort_by_rank(x: Int[Array, "N"], rank: Int[Array, "N"], count: int) -> Int[Array, "n"]:
    """Sort integers by their ranks, and keep the first `count`."""
    return jnp.where(rank == jnp.arange(count)[:, None], x, 0).sum(axis=1)
