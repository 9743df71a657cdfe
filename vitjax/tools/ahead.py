"""Work that runs ahead: reading files while devices compute, computing while results are used."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(
    function: Callable[[T], R], items: Iterable[T], num_threads: int, ahead: int
) -> Iterator[R]:
    """Yield function(item) for each item in order; threads run up to `ahead` items ahead."""
    pool = ThreadPoolExecutor(num_threads)
    queue: collections.deque[Future[R]] = collections.deque()
    try:
        for item in items:
            queue.append(pool.submit(function, item))
            if len(queue) > ahead:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def one_behind(results: Iterable[T]) -> Iterator[T]:
    """Yield each result after the next is started, so that devices work while one is used."""
    last: list[T] = []
    for result in results:
        yield from last
        last = [result]
    yield from last
