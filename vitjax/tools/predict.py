"""What a trained run says of image files."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vitjax.data.codecs.image import Picture, read_file
from vitjax.data.transforms.augment import evaluation
from vitjax.runs import open_run
from vitjax.task import Presentation
from vitjax.tasks import task_from_config


def predict(
    workdir: pathlib.Path, images: Sequence[pathlib.Path], step: int | None = None
) -> tuple[int, list[Presentation]]:
    """Apply a run's model to image files, each as evaluation sees it.

    Args:
      step: of the checkpoint; the latest if None.

    Returns:
      The step, and what the task presents of each image.

    Raises:
      ValueError: no such run, or an image cannot be read.
    """
    run = open_run(workdir)
    step, variables = run.variables(step)
    task = task_from_config(run.config, run.info, abstract=True)
    d = run.config.data
    view, kinds = evaluation(d.eval_crop, d.interpolation), {"image": task.eval_kinds["image"]}

    @jax.jit
    def ask(batch: Any) -> Any:
        return task.predict(variables, batch)

    shown = []
    for path in images:
        sample = {"image": Picture(read_file(str(path)), str(path))}
        image = kinds["image"].encode(view(sample, kinds, None)["image"])[""]
        batch = {"image": image[None], "mask": np.ones(1, np.float32)}
        prediction = jax.tree.map(lambda x: np.asarray(x[0]), ask(batch))
        shown.append(task.present(prediction, sample))
    return step, shown
