"""Device mesh and shardings of arrays; models do not depend on either."""

import dataclasses
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")
"""The axes over which a batch is split: FSDP is data parallelism whose parameters are split too."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Section `mesh`: devices along each axis; one axis may be -1, all remaining devices."""

    data: int = -1  # the batch is split
    fsdp: int = 1  # the batch and the parameters are
    tensor: int = 1  # heads and hidden channels are
    slices: int = 1  # between which the network is slow; divides `data`


class MeshError(ValueError):
    """Error: the devices cannot form the mesh."""


def make_mesh(mesh: MeshConfig = MeshConfig(), devices: Sequence[Any] | None = None) -> Mesh:
    """Build the mesh of devices with the axes `data`, `fsdp` and `tensor`.

    Axes are Auto: linen modules fail under Explicit ones.

    Args:
      mesh: devices along each axis; `slices` is the number of slices (or, on GPUs, hosts) between
        which the network is slow: only `data` crosses it.
      devices: devices of a described topology; None for those present.

    Raises:
      MeshError: the product of the axes is not the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    shape, slices = mesh_shape(mesh, len(devices)), mesh.slices
    if slices > 1:
        grid = _hybrid(shape, slices, devices)
    elif devices[0].platform == "cpu":
        grid = np.array(devices, object).reshape(shape)
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def mesh_shape(mesh: MeshConfig, devices: int) -> tuple[int, ...]:
    """Compute the sizes of the axes, with -1 resolved; errors as in `make_mesh`."""
    asked = [mesh.data, mesh.fsdp, mesh.tensor]
    words = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, asked))
    if asked.count(-1) > 1 or any(size < 1 and size != -1 for size in asked):
        raise MeshError(
            f"config.mesh has {words}: each must be a positive number of devices; at most one may "
            f"be -1, for all that remain of the {devices}."
        )
    known = math.prod(size for size in asked if size != -1)
    sizes = [devices // known if size == -1 else size for size in asked]
    if math.prod(sizes) != devices:
        fits = tuple(_nearest(sizes, devices))
        near = " ".join(f"--config.mesh.{a}={n}" for a, n in zip(AXES, fits))
        raise MeshError(
            f"config.mesh has {words}, which takes {'a multiple of ' if -1 in asked else ''}"
            f"{known} devices; there are {devices}. The nearest that works: {near}."
        )
    if mesh.slices < 1 or sizes[0] % mesh.slices:
        raise MeshError(
            f"config.mesh.slices={mesh.slices} must divide the axis data, {sizes[0]}: only data "
            "crosses from slice to slice."
        )
    return tuple(sizes)


def _nearest(sizes: Sequence[int], devices: int) -> list[int]:
    """Find axis sizes whose product is `devices`, with tensor and fsdp as near as possible."""
    left, found = devices, []
    for size in reversed(sizes[1:]):
        divisors = [n for n in range(1, left + 1) if left % n == 0]
        found.append(min(divisors, key=lambda n: (abs(math.log(n / max(size, 1))), n)))
        left //= found[-1]
    return [left, *reversed(found)]


def _hybrid(shape: tuple[int, ...], slices: int, devices: Sequence[Any]) -> np.ndarray:
    by_slice = {getattr(d, "slice_index", None) for d in devices}
    processes = {d.process_index for d in devices}
    if len(by_slice) != slices and len(processes) != slices:
        raise MeshError(
            f"config.mesh.slices={slices}: these {len(devices)} devices form {len(by_slice)} "
            f"slices on {len(processes)} hosts; give one of these numbers."
        )
    return mesh_utils.create_hybrid_device_mesh(
        (shape[0] // slices, *shape[1:]),
        (slices, 1, 1),
        devices,
        process_is_granule=len(by_slice) != slices,
        allow_split_physical_axes=devices[0].platform != "cpu",
    )


def describe(mesh: Mesh) -> str:
    """Describe the mesh in words: "8 × TPU v3 (data 4 × tensor 2), 2 processes"."""
    axes = " × ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1)
    text = f"{mesh.size} × {mesh.devices.flat[0].device_kind}"
    text += f" ({axes})" if batch_parts(mesh) < mesh.size or mesh.shape["fsdp"] > 1 else ""
    return text + (f", {jax.process_count()} processes" if jax.process_count() > 1 else "")


def batch_parts(mesh: Mesh) -> int:
    """Return the number of parts into which a batch is split."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array that is whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: the first axis is split over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def constrain_activations(
    function: Callable[..., Any], mesh: Mesh, residual: str
) -> Callable[..., Any]:
    """Wrap a function so that the residual stream of its linen modules keeps the batch's sharding.

    Without this constraint, the compiler may leave the parameters split under FSDP and move the
    activations, which are larger. The models need no change.

    Depthwise convolutions are split over `tensor` by their channels. If that axis holds copies of
    the map instead, XLA (in jax 0.10 and 0.12) sums the gradient of the kernel over the copies too,
    and it is `tensor` times too large; a test covers this.

    Args:
      residual: regular expression of the modules' names.
    """
    if batch_parts(mesh) == mesh.size and mesh.shape["fsdp"] == 1:
        return function  # nothing to choose from: every parameter is whole

    def constrain(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module, path = context.module, context.module.path
        if isinstance(module, nn.Conv) and module.feature_group_count > 1 and tensor > 1:
            if module.features % tensor == 0:
                return hold(call(hold(args[0], channels)), channels)
            raise MeshError(
                f"config.mesh.tensor={tensor} does not divide the {module.features} channels of "
                f"the depthwise convolution {'/'.join(path)}; choose a divisor."
            )
        y = call(*args, **kwargs)
        if context.method_name == "__call__" and path and held.fullmatch(path[-1]):
            return jax.tree.map(lambda a: hold(a, split) if np.ndim(a) else a, y)
        return y

    held = re.compile(residual)
    hold, tensor = jax.lax.with_sharding_constraint, mesh.shape["tensor"]
    split = batch_sharding(mesh)
    channels = NamedSharding(mesh, PartitionSpec(BATCH, None, None, "tensor"))

    def constrained(*args: Any) -> Any:
        with nn.intercept_methods(constrain):
            return function(*args)

    return constrained


def own_rows(sharding: NamedSharding, size: int) -> list[int]:
    """List the rows of a batch of `size` that this process's devices hold, in ascending order."""
    pieces = sharding.addressable_devices_indices_map((size,)).values()
    return sorted({row for piece in pieces if piece for row in range(size)[piece[0]]})


def to_devices(
    batches: Iterable[Mapping[str, Any]], sharding: NamedSharding, size: int, ahead: int = 2
) -> Iterator[Any]:
    """Copy this process's rows of each batch to its devices, `ahead` batches in advance.

    A thread does this, so that a batch on the devices does not wait for one that is still being
    decoded.

    Args:
      batches: arrays of the rows `own_rows(sharding, size)`.
      size: rows of the batch of all processes.
    """
    place = {row: i for i, row in enumerate(own_rows(sharding, size))}

    def piece(array: np.ndarray, index: Any) -> np.ndarray:
        rows = range(size)[index[0]]
        begin = place[rows[0]]  # a device's rows are neighbours here too
        return array[begin : begin + len(rows)]

    def put(array: np.ndarray) -> jax.Array:
        shape = (size, *array.shape[1:])
        return jax.make_array_from_callback(shape, sharding, lambda index: piece(array, index))

    def move() -> Any:
        batch = next(stream, None)
        return batch and {k: put(v) for k, v in batch.items()}

    stream, pool = iter(batches), ThreadPoolExecutor(1)
    queue = deque(pool.submit(move) for _ in range(ahead + 1))
    try:
        while batch := queue.popleft().result():
            queue.append(pool.submit(move))
            yield batch
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
