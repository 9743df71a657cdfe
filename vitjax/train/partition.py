"""Partitioning of arrays over mesh axes: rules by path, and FSDP on the remaining axes.

A rule is a pair (regular expression, words). The expression matches a whole path such as
"block_0/mixer/qkv/kernel"; the words name the array's *last* axes, so that one rule serves a layer
and a scanned stack of layers:

    "tensor"      the last axis is split over the mesh axis `tensor`
    "heads -"     the last axis but one is split; it counts heads, and no head is split
    "whole"       no axis is split, not even by FSDP
    ""            only FSDP

Of the remaining axes, FSDP splits the largest that `fsdp` divides; the smallest tensors stay whole
(see `small_size`). A module whose heads `tensor` does not divide, such as the first stage of a
pyramid, stays whole on that axis.
"""

import logging
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from vitjax.train.state import TrainState, named_leaves

log = logging.getLogger("vitjax")

Rules = Sequence[tuple[str, str]]
SLACK = 0.03
"""What tensors that stay whole may add to a chip's share, as a part of it."""


def partition_params(
    params: Any, mesh: Mesh | AbstractMesh, rules: Rules = (), model_rules: Rules = ()
) -> dict[str, PartitionSpec]:
    """Compute the partition spec of each parameter, by path.

    Args:
      params: the parameters' shapes.
      rules: rules of the run, tried first; each must match a parameter.
      model_rules: rules of the model; parameters that match none are left to FSDP.

    Raises:
      ValueError: a rule matches no parameter or does not fit one, or the model has heads and
        `tensor` divides those of no module.
    """
    leaves = named_leaves(params)
    words = _assign(leaves, rules, model_rules, mesh)
    kept = _undivided(leaves, words, mesh.shape["tensor"])
    shards = mesh.shape["fsdp"]
    axes = {}
    for path in leaves:
        off = path.rsplit("/", 2)[0] in kept
        axes[path] = [None if off else _axis(word, mesh) for word in words[path]]
    free = {p: _fsdp_axis(leaf.shape, axes[p], shards) for p, leaf in leaves.items()}
    small = small_size({p: leaf.size for p, leaf in leaves.items()}, free, shards)
    for path, axis in free.items():
        if axis is not None and leaves[path].size > small and "whole" not in words[path]:
            axes[path][axis] = "fsdp"
    return {path: PartitionSpec(*found) for path, found in axes.items()}


def small_size(sizes: dict[str, int], free: dict[str, int | None], shards: int) -> int:
    """Compute the largest number of elements, at most 2¹⁶, of tensors that FSDP leaves whole.

    Together these tensors add at most SLACK to a chip's share, so that memory falls as 1/n for any
    number of chips n.
    """
    budget = SLACK * sum(sizes.values()) / max(shards - 1, 1)
    budget -= sum(size for path, size in sizes.items() if free[path] is None)
    small = 0
    ordered = sorted(size for path, size in sizes.items() if free[path] is not None)
    for i, size in enumerate(ordered):
        budget -= size
        if budget < 0 or size > 2**16:
            return small
        if i + 1 == len(ordered) or ordered[i + 1] > size:  # equal sizes stay or go together
            small = size
    return small


def partition_state(
    state: TrainState, mesh: Mesh | AbstractMesh, rules: Rules = (), model_rules: Rules = ()
) -> TrainState:
    """Compute the shardings of the state: averages and moments like their parameters, rest whole.

    Args:
      state: the state's shapes.
      rules, model_rules: see `partition_params`.
    """
    specs = partition_params(state.params, mesh, rules, model_rules)
    leaves = named_leaves(state.params)

    def follow(path: Any, leaf: Any) -> NamedSharding:
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        for i in range(len(names)):
            own = "/".join(names[i:])
            if own in specs and leaves[own].shape == leaf.shape:
                return NamedSharding(mesh, specs[own])
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(follow, state)


def gather_params(placed: Any, mesh: Mesh) -> Callable[[Any], Any]:
    """Build a function that gathers the parameters split by FSDP and re-splits their gradients.

    Without it the compiler may split a product along FSDP's axis instead, and move activations.

    Args:
      placed: the parameters' shardings.
    """
    if mesh.shape["fsdp"] == 1:
        return lambda params: params

    def whole(sharding: NamedSharding) -> NamedSharding:
        return NamedSharding(
            mesh, PartitionSpec(*(None if a == "fsdp" else a for a in sharding.spec))
        )

    @jax.custom_vjp
    def gather(params: Any) -> Any:
        return jax.lax.with_sharding_constraint(params, jax.tree.map(whole, placed))

    gather.defvjp(
        lambda params: (gather(params), None),
        lambda _, grads: (jax.lax.with_sharding_constraint(grads, placed),),
    )
    return gather


def _assign(
    leaves: dict[str, Any], rules: Rules, model_rules: Rules, mesh: Mesh | AbstractMesh
) -> dict[str, list[str]]:
    """Assign one word to each axis of each path, "whole" for all axes of a whole array."""
    found, used, every = {}, set(), (*rules, *model_rules, (".*", ""))
    for path, leaf in leaves.items():
        rank = len(leaf.shape)
        number = next(
            i
            for i, (pattern, words) in enumerate(every)
            if re.fullmatch(pattern, path)
            # Mixers may have other shapes under a name that the model's rules know.
            and (i < len(rules) or len(words.split()) <= rank)
        )
        used.add(number)
        words = every[number][1].split()
        if words == ["whole"]:
            words = ["whole"] * rank
        elif wrong := set(words) - {"heads", "-", *mesh.axis_names}:
            raise ValueError(
                f"sharding_rules: unknown word {wrong.pop()!r} in {every[number]!r}; allowed are "
                f"'heads', '-', {', '.join(map(repr, mesh.axis_names))}, or 'whole' alone."
            )
        if len(words) > rank and any(word != "-" for word in words[:-rank]):
            raise ValueError(
                f"sharding_rules: {every[number]!r} names {len(words)} axes, and {path} has "
                f"{rank}: {tuple(leaf.shape)}."
            )
        found[path] = ["-"] * (rank - len(words)) + words[max(0, len(words) - rank) :]
    if idle := [rules[i][0] for i in range(len(rules)) if i not in used]:
        raise ValueError(
            f"sharding_rules: the rule {idle[0]!r} is never used; no parameter matches it, or "
            "earlier rules match the same ones. `vitjax info MODEL` lists the paths."
        )
    return found


def _axis(word: str, mesh: Mesh | AbstractMesh) -> str | None:
    """Return the mesh axis over which a word splits; None if it splits nothing."""
    axis = "tensor" if word == "heads" else word
    return axis if mesh.shape.get(axis, 1) > 1 else None


def _undivided(leaves: dict[str, Any], words: dict[str, list[str]], tensor: int) -> set[str]:
    """Find the modules whose heads or hidden channels `tensor` does not divide."""
    kept, heads = set(), {}
    for path, leaf in leaves.items():
        group = path.rsplit("/", 2)[0]
        for size, word in zip(leaf.shape, words[path], strict=True):
            if word == "heads":
                heads[group] = size
            if word in ("heads", "tensor") and size % tensor:
                kept.add(group)
    if tensor > 1 and heads and heads.keys() <= kept:
        counts = sorted(set(heads.values()))
        fits = [n for n in range(2, max(counts) + 1) if any(h % n == 0 for h in counts)]
        raise ValueError(
            f"config.mesh.tensor={tensor} does not divide the model's heads, of which each block "
            f"has {' or '.join(map(str, counts))}, and heads are not split; "
            + (f"{', '.join(map(str, fits))} would do." if fits else "only 1 would do.")
        )
    if whole := sorted(kept & heads.keys()):
        log.warning(
            "mesh.tensor=%d does not divide the heads of %s%s; these stay whole on that axis.",
            tensor,
            ", ".join(whole[:3]),
            " …" if whole[3:] else "",
        )
    return kept


def _fsdp_axis(shape: tuple[int, ...], axes: list[str | None], shards: int) -> int | None:
    """Choose the largest axis that is free and divisible, the last of equal ones."""
    if shards == 1 or "fsdp" in axes:
        return None
    free = [i for i, size in enumerate(shape) if axes[i] is None and size % shards == 0]
    return max(free, key=lambda i: (shape[i], i)) if free and math.prod(shape) else None
