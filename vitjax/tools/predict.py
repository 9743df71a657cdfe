"""Predictions of a trained run for image files, or for videos."""

import collections
import glob
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np

from vitjax.data.codecs.image import EXTENSIONS, Picture, read_file
from vitjax.data.codecs.video import EXTENSIONS as VIDEOS
from vitjax.data.codecs.video import VideoFile
from vitjax.data.kinds import Kinds, batch_spec, encode
from vitjax.data.source import Sample
from vitjax.data.transforms.augment import evaluation
from vitjax.runs import open_run
from vitjax.task import Presentation, Task
from vitjax.tasks import read_config, task_from_config
from vitjax.tools.ahead import one_behind, read_ahead
from vitjax.tools.image_files import find_images, is_image
from vitjax.train import sharding

MOST_ROWS, MOST_THREADS = 64, 16
"""Of a batch, and that read files, unless more are asked for."""


class Shown(NamedTuple):
    """Result for one file.

    Attributes:
      path: the file.
      presented: what the task says of it; None if it could not be read.
      picture: where the task's picture was written, if it draws one.
      error: why it could not be read.
    """

    path: pathlib.Path
    presented: Presentation | None
    picture: pathlib.Path | None = None
    error: str = ""


class Predictions(NamedTuple):
    """Results for several files.

    Attributes:
      step: of the checkpoint.
      total: how many files there are.
      columns: see `Task`.
      every: what came of each file, in their order.
    """

    step: int
    total: int
    columns: tuple[str, ...]
    every: Iterator[Shown]


class _Read(NamedTuple):
    """A file that was read: its sample and its row of each array of a batch, or an error."""

    path: pathlib.Path
    sample: Sample
    arrays: dict[str, Any]
    error: str = ""


def predict(
    workdir: pathlib.Path,
    images: Sequence[str],
    step: int | None = None,
    references: pathlib.Path | None = None,
    pictures: pathlib.Path | None = None,
    batch_size: int = 0,
    num_threads: int = 0,
) -> Predictions:
    """Apply a run's model to image files, each as evaluation sees it.

    Files are read ahead by threads, and go to the devices in batches of one size, so that one
    program is compiled. A file that cannot be read costs its own row alone.

    Args:
      images: files, folders, patterns or "-"; see `find_images`.
      step: of the checkpoint; the latest if None.
      references: a folder of files with the images' names: what should come out, for tasks that
        compare with it.
      pictures: the folder of the pictures that the task draws; `predictions` in the run's if None.
      batch_size: rounded up to a multiple of the devices; 0 for the run's `data.eval_batch_size`,
        64 at most.
      num_threads: that read and decode files; 0 for one a core, 16 at most.

    Raises:
      ValueError: no such run, a folder or a pattern without images, or a number is negative.
    """
    if min(batch_size, num_threads) < 0:
        raise ValueError(
            f"batch_size={batch_size} and num_threads={num_threads} must be at least 1, or 0 for "
            f"what suits the run and the machine."
        )
    run = open_run(workdir)
    step, variables = run.variables(step)
    task, d = task_from_config(read_config(run.said), run.info, abstract=True), run.config.data
    field = "clip" if "clip" in task.eval_kinds else "image"
    files = find_images(images, VIDEOS if field == "clip" else EXTENSIONS)
    view, kinds = evaluation(d.eval_crop, d.interpolation), {field: task.eval_kinds[field]}
    num_threads = num_threads or min(os.cpu_count() or 1, MOST_THREADS)

    def read(path: pathlib.Path) -> _Read:
        try:
            sample: Any = {field: _open(path, field, d.channels)}
            if references is not None:
                sample["reference"] = _reference(references, path)
            if task.predict_image is None:
                return _Read(path, sample, encode(view(sample, kinds, None), kinds))
            sample["image"] = Picture(sample["image"].whole(), str(path), d.channels)
            return _Read(path, sample, {})
        except (OSError, ValueError) as error:  # BadImage is a ValueError
            return _Read(path, {}, {}, str(error))

    cv2.setNumThreads(1)  # the files are the parallelism
    if task.predict_image is None:
        size = min(batch_size or min(d.eval_batch_size, MOST_ROWS), len(files))
        found = _by_batch(task, variables, kinds, files, read, size, num_threads)
    else:
        found = _one_by_one(task.predict_image, variables, files, read, num_threads)
    show = _Shows(task.present, pictures or workdir / "predictions")
    return Predictions(step, len(files), task.columns, (show(*pair) for pair in found))


def _open(path: pathlib.Path, field: str, channels: int) -> Any:
    """Open the file of a sample's field: an image, or a clip."""
    if field == "clip":
        return VideoFile(str(path))
    return Picture(read_file(str(path)), str(path), channels)


def _by_batch(
    task: Task, variables: Any, kinds: Kinds, files: Sequence[pathlib.Path],
    read: Callable[[pathlib.Path], _Read], size: int, num_threads: int,
) -> Iterator[tuple[_Read, Any]]:  # fmt: skip
    """Yield each file with its prediction, in batches of one size, the last one padded."""
    mesh = sharding.make_mesh()
    parts, placed = sharding.batch_parts(mesh), sharding.batch_sharding(mesh)
    size = -(-size // parts) * parts
    variables = jax.device_put(variables, sharding.replicated(mesh))
    ask = jax.jit(task.predict)
    groups: collections.deque[list[_Read]] = collections.deque()  # whose batches are under way

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for group in _groups(read_ahead(read, files, num_threads, size + num_threads), size):
            groups.append(group)
            yield _batch(group, kinds, size)

    results = (ask(variables, batch) for batch in sharding.to_devices(batches(), placed, size))
    for result in one_behind(results):
        values = jax.device_get(result)
        for row, one in enumerate(groups.popleft()):
            yield one, jax.tree.map(lambda array, row=row: array[row], values)


def _one_by_one(
    predict_image: Callable[[Any, Any], Any],
    variables: Any,
    files: Sequence[pathlib.Path],
    read: Callable[[pathlib.Path], _Read],
    num_threads: int,
) -> Iterator[tuple[_Read, Any]]:
    """Yield each file with its prediction, for images that keep their size."""
    variables = jax.device_put(variables)
    for one in read_ahead(read, files, num_threads, num_threads):
        if one.error:
            yield one, None
            continue
        try:
            yield one, predict_image(variables, one.sample["image"].whole())
        except ValueError as error:
            yield one._replace(error=f"Image {str(one.path)!r}: {error}"), None


def _groups(every: Iterable[_Read], size: int) -> Iterator[list[_Read]]:
    group: list[_Read] = []
    for one in every:
        group.append(one)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _batch(group: Sequence[_Read], kinds: Kinds, size: int) -> dict[str, np.ndarray]:
    batch = {
        name: np.full((size, *spec.shape), spec.fill, spec.dtype)
        for name, spec in batch_spec(kinds).items()
    }
    for row, one in enumerate(group):
        for name, array in one.arrays.items():
            batch[name][row] = array
        batch["mask"][row] = not one.error
    return batch


class _Shows:
    """Presenter of a task's results, which writes its pictures, each under its own name."""

    def __init__(self, present: Callable[[Any, Sample], Presentation], folder: pathlib.Path):
        self._present, self._folder = present, folder
        self._names: set[str] = set()

    def __call__(self, one: _Read, prediction: Any) -> Shown:
        if one.error:
            return Shown(one.path, None, error=one.error)
        try:
            presented = self._present(prediction, one.sample)
        except ValueError as error:
            return Shown(one.path, None, error=f"Image {str(one.path)!r}: {error}")
        if presented.picture is None:
            return Shown(one.path, presented)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._name(one.path.stem)}.png"
        pixels = np.ascontiguousarray(presented.picture[..., ::-1])
        if not cv2.imwrite(str(path), pixels):
            raise OSError(f"The picture {str(path)!r} cannot be written; is there room?")
        return Shown(one.path, presented, path)

    def _name(self, stem: str) -> str:
        """Return a file's own name, or one with a number if a file of another folder has it."""
        name, number = stem, 1
        while name in self._names:
            number += 1
            name = f"{stem}-{number}"
        self._names.add(name)
        return name


def _reference(folder: pathlib.Path, path: pathlib.Path) -> Any:
    """Read the file of the same name, whatever its extension, as it is stored."""
    found = [p for p in sorted(folder.glob(f"{glob.escape(path.stem)}.*")) if is_image(p)]
    if not found:
        raise ValueError(
            f"{str(folder)!r} has no file {path.stem}.* to compare {path.name!r} with."
        )
    return Picture(read_file(str(found[0])), str(found[0]))
