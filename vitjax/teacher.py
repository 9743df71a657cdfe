"""The teacher of a distilled run: another run, or published weights."""

import json
import pathlib
from collections.abc import Sequence

from vitjax.tasks.distillation import Teacher

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""How published weights want their images; a run says so itself."""


def open_teacher(text: str, class_names: Sequence[str]) -> Teacher | None:
    """Reads the teacher's variables.

    Args:
      text: a run's folder, or `MODEL=SOURCE` as `load_pretrained` takes them; empty for none.
      class_names: the student's.

    Raises:
      ValueError: there is no such run, or it has other classes.
    """
    if not text:
        return None
    name, equals, source = text.partition("=")
    if equals:
        from vitjax.weights.load import load_pretrained

        model, variables = load_pretrained(name, source)
        count = getattr(model, "num_classes", None)
        if count != len(class_names):
            raise ValueError(
                f"The teacher {text!r} has {count} classes, and the data has {len(class_names)}; "
                f"choose weights with the data's classes."
            )
        size = getattr(model, "image_size", 224)
        side = size if isinstance(size, int) else size[0]
        return Teacher(model, variables, IMAGENET_MEAN, IMAGENET_STD, side)
    from vitjax.models import from_config
    from vitjax.train.checkpoint import SavedSteps
    from vitjax.train.config import read_config

    folder = pathlib.Path(text)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"The teacher {text!r} is no run's folder: it has no config.json. Give a --workdir "
            f"that train.py was given, or MODEL=SOURCE."
        )
    classes = json.loads((folder / "classes.json").read_text())
    if classes != list(class_names):
        raise ValueError(
            f"The teacher {text!r} knows {len(classes)} classes ({', '.join(classes[:5])} …), and "
            f"the data has {len(class_names)} ({', '.join(class_names[:5])} …); they must be the "
            f"same, in the same order."
        )
    config = read_config(folder / "config.json")
    d = config["data"]
    _, found = SavedSteps(folder / "checkpoints").read()
    variables = {"params": found["ema"] or found["params"], **found["rest"]}
    model = from_config(config["model"], len(classes), d["image_size"])
    return Teacher(model, variables, tuple(d["mean"]), tuple(d["std"]), d["image_size"])
