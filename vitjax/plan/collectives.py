"""Collectives of a compiled step: kind, bytes, and the mesh axes that they cross."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vitjax.plan.hlo import Instruction, Program, arrays, num_bytes

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Collective(NamedTuple):
    """Collectives of one kind over the same axes.

    Attributes:
      kind: one of KINDS.
      axes: mesh axes whose devices take part together; empty where they are none of the mesh.
      group: devices in a group.
      count: how many a step executes, the turns of loops counted.
      bytes: of one device's whole operands in a step (an all-gather's: of its result).
    """

    kind: str
    axes: tuple[str, ...]
    group: int
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    bytes: int

    def seconds(self, links: float) -> float:
        """Compute the communication time without overlap: the bandwidth bound of a ring.

        Args:
          links: bytes a second that leave a device.
        """
        share = (self.group - 1) / self.group
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return factor * self.bytes / links


def collectives(program: Program, mesh: dict[str, int]) -> list[Collective]:
    """List the collectives of a program, summed by kind and axes.

    Args:
      mesh: axis → devices along it, in the order in which the program numbers them.
    """
    found: dict[tuple[str, tuple[str, ...], int], list[int]] = {}
    for name, times in program.loops().items():
        for i in program.computations[name].values():
            kind = i.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            groups = _groups(i, math.prod(mesh.values()))
            axes = _axes(groups, mesh)
            total = found.setdefault((kind, axes, len(groups[0])), [0, 0])
            total[0] += times
            total[1] += times * _bytes(i, kind, program.computations[name])
    return sorted(
        (Collective(*key, *total) for key, total in found.items()), key=lambda c: -c.bytes
    )


def _bytes(i: Instruction, kind: str, body: dict[str, Instruction]) -> int:
    if kind == "all-gather":
        if i.opcode.endswith("-start"):  # (operands, results)
            return num_bytes(i.shape) - sum(num_bytes(body[o].shape) for o in i.operands)
        return num_bytes(i.shape)
    return sum(num_bytes(body[o].shape) for o in i.operands if o in body)


def _groups(i: Instruction, devices: int) -> Sequence[Sequence[int]]:
    """Parse the groups of devices that communicate, in any of XLA's notations."""
    rest = i.rest
    if pairs := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)+)\}", rest):
        return [[int(a), int(b)] for a, b in re.findall(r"\{(\d+),(\d+)\}", pairs[1])]
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", rest):
        sizes = {n: int(s) for n, s in re.findall(r"'([^']+)'=(\d+)", named[1])}
        grid = np.arange(devices).reshape(*sizes.values())
        axes = [list(sizes).index(n) for n in re.findall(r"'([^']+)'", named[2])]
        moved = np.moveaxis(grid, axes, range(-len(axes), 0))
        return moved.reshape(-1, math.prod(grid.shape[a] for a in axes)).tolist()
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest):
        shape, sizes = ([int(n) for n in iota[k].split(",")] for k in (1, 2))
        grid = np.arange(math.prod(sizes)).reshape(sizes)
        if iota[3]:
            grid = grid.transpose([int(n) for n in iota[3].split(",")])
        return grid.reshape(shape).tolist()
    if listed := re.search(r"replica_groups=\{((?:\{[\d,]+\},?)+)\}", rest):
        return [[int(n) for n in g.split(",")] for g in re.findall(r"\{([\d,]+)\}", listed[1])]
    return [list(range(devices))]


def _axes(groups: Sequence[Sequence[int]], mesh: dict[str, int]) -> tuple[str, ...]:
    """Find the axes along which the members of a group differ."""
    shape = tuple(mesh.values())
    crossed: set[Any] = set()
    for group in groups:
        places = np.array(np.unravel_index(np.array(group), shape))
        crossed |= {n for n, row in zip(mesh, places, strict=True) if (row != row[0]).any()}
    return tuple(n for n in mesh if n in crossed)


def feature_moves(program: Program, least: int) -> list[Instruction]:
    """List gathers and scatters of more than `least` elements anywhere in a program.

    The size is that of a gather's result or a scatter's updates, not of the table.
    """
    found = []
    for body in program.computations.values():
        for i in body.values():
            if i.opcode == "gather":
                moved = i.shape
            elif i.opcode == "scatter" and len(i.operands) > 2 and i.operands[2] in body:
                moved = body[i.operands[2]].shape
            else:
                continue
            if sum(math.prod(sizes) for _, sizes in arrays(moved)) > least:
                found.append(i)
    return found
