"""Adaptive inference that computes only what is needed: images leave after their exit.

Each part of the model is compiled once, for batches of one size. Before each part but the first
stands a queue: images that stay after a part wait there, compacted, until a batch of them is full;
at the end the rest is computed in a smaller batch.
"""

import functools
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from vitjax.analysis import budget
from vitjax.analysis.budget import Point
from vitjax.data import open_source, pipeline
from vitjax.data.kinds import image_and_label
from vitjax.data.sets import with_classes
from vitjax.data.source import Source
from vitjax.layers.pixels import normalize_pixels
from vitjax.runs import Trained, forward, open_trained

REPEATS = 3
SECONDS = 1.0
"""Least number of times that are taken of each computation, and least sum of them on average."""
TIMED = budget.P[3::4]
"""Budgets that are timed: p = 0.2, 0.4 … 1.8."""


class Answers(NamedTuple):
    """Logits of the exit at which each image left, and the number of the exit."""

    logits: Float[np.ndarray, "N K"]
    exits: Int[np.ndarray, "N"]


class Timed(NamedTuple):
    """One budget as really computed.

    Attributes:
      p: of the budget.
      seconds: for all images.
      accuracy: share of images that are right.
      differing: how many images left elsewhere, or with another class, than simulated.
      shares: of images that left at each exit.
    """

    p: float | None
    seconds: float
    accuracy: float
    differing: int
    shares: tuple[float, ...]


class Queue(NamedTuple):
    """Images that wait for a part: the first rows of `state` belong to `images`."""

    state: Any
    images: Int[np.ndarray, "N"]


class Cascade:
    """A model with early exits, cut into its parts.

    Args:
      trained: the model.
      batch_size: of all parts.

    Raises:
      ValueError: the model has no early exits.
    """

    def __init__(self, trained: Trained, batch_size: int):
        model: Any = budget.check_exits("the model", trained.model)
        self.num_exits, self.batch_size = model.num_exits, batch_size
        self._variables = jax.device_put(trained.variables)

        def part(k: int, variables: Any, state: Any) -> tuple[jax.Array, Any]:
            if k == 0:
                state = normalize_pixels(state, trained.mean, trained.std)
            logits, state = model.apply(variables, k, state, method="run_part")
            return jnp.asarray(logits, jnp.float32), state

        self._parts = [jax.jit(functools.partial(part, k)) for k in range(self.num_exits)]
        self._pick = jax.jit(_pick)

    def __call__(
        self, images: UInt8[np.ndarray, "N H W c"], thresholds: tuple[float, ...]
    ) -> Answers:
        """Classify images, each by the first exit whose confidence reaches its threshold."""
        size, left = self.batch_size, []
        queues = [Queue(None, np.zeros(0, int)) for _ in range(self.num_exits)]

        def run(k: int, state: Any, who: Int[np.ndarray, "n"]) -> None:
            logits, state = self._parts[k](self._variables, state)
            logits = np.asarray(logits)[: len(who)]
            leave = budget.confidence(logits) >= thresholds[k]
            left.append((who[leave], logits[leave], k))
            if not leave.all():
                wait(k + 1, state, np.flatnonzero(~leave), who[~leave])

        def wait(k: int, state: Any, rows: Int[np.ndarray, "n"], who: Int[np.ndarray, "n"]) -> None:
            before = queues[k]
            have = len(before.images)
            rows, who = (
                np.concatenate(x) for x in ((np.arange(have), size + rows), (before.images, who))
            )
            first = before.state if have else state
            take = lambda rows: self._pick(first, state, _padded(rows, size))  # noqa: E731
            full, rest = rows[:size], rows[size:]
            if len(full) < size:
                queues[k] = Queue(take(full), who)
                return
            queues[k] = Queue(take(rest) if len(rest) else None, who[size:])
            run(k, state if not have else take(full), who[:size])

        for start in range(0, len(images), size):
            who = np.arange(start, min(start + size, len(images)))
            run(0, images[_padded(who, size)], who)
        for k in range(1, self.num_exits):
            state, who = queues[k]
            queues[k] = Queue(None, who[:0])
            if len(who):
                run(k, state, who)
        order = np.argsort(np.concatenate([who for who, _, _ in left]))
        exits = np.concatenate([np.full(len(who), k) for who, _, k in left])
        return Answers(np.concatenate([logits for _, logits, _ in left])[order], exits[order])


def _pick(first: Any, second: Any, rows: jax.Array) -> Any:
    """Select rows of two concatenated batches."""
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y])[rows], first, second)


def _padded(rows: Int[np.ndarray, "n"], size: int) -> Int[np.ndarray, "B"]:
    """Pad a batch with its first row."""
    return np.concatenate([rows, np.full(size - len(rows), rows[0])])


def in_batches(
    function: Callable[[Any], Any], images: UInt8[np.ndarray, "N H W c"], size: int
) -> Float[np.ndarray, "N *s"]:
    """Apply a compiled function to batches of one size."""
    found = []
    for start in range(0, len(images), size):
        who = np.arange(start, min(start + size, len(images)))
        found.append(np.asarray(function(images[_padded(who, size)]))[: len(who)])
    return np.concatenate(found)


def read_images(
    trained: Trained, source: Source, num_threads: int = 4
) -> tuple[UInt8[np.ndarray, "N H W c"], Int[np.ndarray, "N"]]:
    """Read all images as evaluation sees them, and their classes, into memory."""
    if source.info.multi_label:
        raise ValueError("Early exits need one class an image, and these images have several.")
    batches = pipeline.eval_batches(
        source,
        kinds=image_and_label(source.info, trained.image_size),
        batch_size=64,
        crop=trained.crop,
        interpolation=trained.interpolation,
        num_threads=num_threads,
    )
    images, labels = zip(*((batch["image"], batch["label"]) for batch in batches))
    count = len(source)
    return np.concatenate(images)[:count], np.concatenate(labels)[:count]


def all_exits(
    trained: Trained, images: UInt8[np.ndarray, "N H W c"], size: int
) -> Float[np.ndarray, "N E K"]:
    """Compute the logits of all exits."""
    variables = jax.device_put(trained.variables)

    def every(variables: Any, images: Any) -> jax.Array:
        pixels = normalize_pixels(images, trained.mean, trained.std)
        logits: Any = trained.model.apply(variables, pixels, method="exit_logits")
        return jnp.stack(logits, axis=1).astype(jnp.float32)

    return in_batches(functools.partial(jax.jit(every), variables), images, size)


def seconds(functions: Sequence[Callable[[], Any]]) -> list[float]:
    """Measure the best times of functions that have run before, and now take turns.

    So other programs slow all of them down alike.
    """
    best, rounds, begin = [math.inf] * len(functions), 0, time.perf_counter()
    while rounds < REPEATS or time.perf_counter() - begin < SECONDS * len(functions):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            best[i] = min(best[i], time.perf_counter() - start)
        rounds += 1
    return best


def measure(
    text: str,
    train_uri: str,
    test_uri: str,
    splits: tuple[str, str],
    *,
    tolerance: float = 0.005,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Measure both settings, and the time of the fastest budget that loses little accuracy.

    Args:
      text: a run's folder, or MODEL=WEIGHTS.
      train_uri, test_uri, splits: held-out images, which no training has seen, and those that are
        asked about.
      tolerance: the budget's accuracy on the held-out images may be so much below that of the last
        exit there.

    Returns:
      `anytime` and `budgeted` points, `chosen` of the latter; `timed`, a `Timed` of each of some
      budgets; of the chosen one `accuracy`, `seconds`, `shares` and `differing`, see `Timed`;
      `whole_accuracy` and `whole_seconds` of the whole model; `speedup`.

    Raises:
      ValueError: there is no such run or data, or the model has no early exits.
    """
    trained = open_trained(text)
    model: Any = budget.check_exits(text, trained.model)
    sources = [open_source(uri, split) for uri, split in zip((train_uri, test_uri), splits)]
    sources[1] = with_classes(sources[1], sources[0].info, "test_uri")
    (held, truth), (images, labels) = (read_images(trained, source) for source in sources)
    macs = budget.exit_macs(model, images.shape[1:])
    before, logits = (all_exits(trained, x, batch_size) for x in (held, images))
    budgets = budget.budgeted(before, logits, labels, macs)
    chosen = _choose(before, truth, macs, tolerance)
    points = [chosen, *(point for point in budgets if point.p in TIMED)]
    cascade = Cascade(trained, batch_size)
    whole = functools.partial(
        jax.jit(functools.partial(forward, trained)), jax.device_put(trained.variables)
    )
    answers = [cascade(images, point.thresholds) for point in points]
    last = in_batches(whole, images, batch_size)
    *times, plain = seconds(
        [
            *(functools.partial(cascade, images, point.thresholds) for point in points),
            lambda: in_batches(whole, images, batch_size),
        ]
    )
    found, *timed = (_held(*x, labels, logits) for x in zip(answers, points, times))
    return {
        "model": text, "images": len(images), "macs": macs,
        "anytime": budget.anytime(logits, labels, macs), "budgeted": budgets, "timed": timed,
        "chosen": budget.simulate(logits, labels, macs, chosen.thresholds, chosen.p),
        "accuracy": found.accuracy, "seconds": found.seconds, "shares": found.shares,
        "differing": found.differing,
        "whole_accuracy": float(np.mean(last.argmax(axis=-1) == labels)),
        "whole_seconds": plain, "speedup": plain / found.seconds,
    }  # fmt: skip


def _held(
    answers: Answers,
    point: Point,
    taken: float,
    labels: Int[np.ndarray, "N"],
    logits: Float[np.ndarray, "N E K"],
) -> Timed:
    """Hold what images that really exit got against the simulation.

    Args:
      taken: seconds.
      logits: of all exits, from which it is simulated.
    """
    exits = budget.leaves_at(budget.confidence(logits), point.thresholds)
    expected = logits[np.arange(len(labels)), exits].argmax(axis=-1)
    classes = answers.logits.argmax(axis=-1)
    shares = np.bincount(answers.exits, minlength=logits.shape[1]) / len(labels)
    return Timed(
        point.p,
        taken,
        float(np.mean(classes == labels)),
        int(np.sum((answers.exits != exits) | (classes != expected))),
        tuple(shares.tolist()),
    )


def report(found: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Give what `measure` found as plain values, and as lines to read."""
    lines = [
        f"{kind:9} {x.macs / 1e6:10.2f} M multiply-adds  {x.accuracy:7.2%}"
        + ("" if x.p is None else f"  p = {x.p:.2f}")
        for kind in ("anytime", "budgeted")
        for x in found[kind]
    ]
    chosen, images, whole = found["chosen"], found["images"], found["whole_seconds"]
    lines += [
        f"measured  {1e3 * x.seconds / images:10.3f} ms an image          {x.accuracy:7.2%}"
        f"  p = {x.p:.2f}, {whole / x.seconds:.2f} times as fast, {x.differing} of {images} images "
        f"other than simulated"
        for x in found["timed"]
    ]
    lines += [
        f"chosen on held-out images: p = {chosen.p:.2f}, {chosen.macs / 1e6:.2f} M multiply-adds",
        f"really exiting: {found['accuracy']:.2%} in {found['seconds']:.3f} s; the whole model: "
        f"{found['whole_accuracy']:.2%} in {whole:.3f} s; {found['speedup']:.2f} times as fast",
        f"leaving at each exit: {', '.join(f'{x:.0%}' for x in found['shares'])}; "
        f"{found['differing']} of {images} images other than simulated",
    ]
    rows = {kind: [x._asdict() for x in found[kind]] for kind in ("anytime", "budgeted", "timed")}
    return {**found, **rows, "chosen": chosen._asdict()}, "\n".join(lines)


def draw(path: pathlib.Path, found: dict[str, Any]) -> pathlib.Path:
    """Draw what `measure` found, see `vitjax.analysis.budget.draw`."""
    per_image = 1e3 / found["images"]
    times = [
        (found["seconds"], found["accuracy"]),
        *((x.seconds, x.accuracy) for x in found["timed"]),
    ]
    times.append((found["whole_seconds"], found["whole_accuracy"]))
    *measured, whole = ((seconds * per_image, accuracy) for seconds, accuracy in times)
    return budget.draw(
        path, found["model"], found["anytime"], found["budgeted"], found["chosen"], measured, whole
    )


def _choose(
    logits: Float[np.ndarray, "N E K"],
    labels: Int[np.ndarray, "N"],
    macs: tuple[int, ...],
    tolerance: float,
) -> Point:
    """Choose the cheapest budget that is as good as the last exit, within the tolerance.

    Raises:
      ValueError: none is.
    """
    points = budget.budgeted(logits, logits, labels, macs)
    enough = budget.anytime(logits, labels, macs)[-1].accuracy - tolerance
    good = [point for point in points if point.accuracy >= enough]
    if not good:
        raise ValueError(
            f"No budget reaches {enough:.2%} on the held-out images, {tolerance:.2%} below the "
            f"last exit; allow a larger tolerance."
        )
    return min(good, key=lambda point: point.macs)
