"""Where arrays live: a mesh, and shardings as values."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh() -> Mesh:
    """All devices along the axis `data`. Axes are Auto: linen modules fail under Explicit ones."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split over `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def to_devices(
    batches: Iterable[Mapping[str, Any]], sharding: NamedSharding, ahead: int = 2
) -> Iterator[Any]:
    """Moves host batches to the devices, `ahead` of them before they are asked for."""
    queue: deque[Any] = deque()
    for batch in batches:
        queue.append(
            {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
        )
        if len(queue) > ahead:
            yield queue.popleft()
    yield from queue
