"""Label maps by a trained model, for training with token labels (arXiv:2104.10858).

The annotator sees each image once, whole, squeezed into a square, and of each cell of its last map
the k most probable classes are kept (section 3.2 there). Training reads the part that a crop shows.
"""

import contextlib
import io
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vitjax.console import clock
from vitjax.data import open_source, pipeline
from vitjax.data.kinds import Image
from vitjax.data.label_maps import ABOUT
from vitjax.models.protocols import GivesHeadFeatures, GivesTokenLogits
from vitjax.runs import Trained, forward, open_teacher, replicate
from vitjax.tools.ahead import one_behind
from vitjax.train import sharding
from vitjax.train.state import sha256
from vitjax.train.workdir import lock

FILES = {"classes": np.dtype("<u2"), "scores": np.dtype("<f2")}
_EVERY = 10.0  # seconds between two lines of progress


def cell_logits(model: nn.Module, images: Float[Array, "B H W c"]) -> Float[Array, "B h w K"]:
    """Compute the logits of each cell of the last map, as a `method` of `model.apply`.

    They are the tokens' own, or the head's of a model whose head reads the map's mean.
    """
    module: Any = model
    if isinstance(model, GivesTokenLogits):
        return module.token_logits(images)[1]
    if isinstance(model, GivesHeadFeatures):
        return module.head(module.head_features(images))
    return module.head(module.features(images)[-1])


def make_labels(
    teacher_text: str,
    uri: str,
    split: str,
    folder: pathlib.Path,
    *,
    k: int = 5,
    image_size: int | tuple[int, int] = 0,
    batch_size: int = 64,
    num_threads: int = 4,
    on_bad_image: str = "fail",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Annotate every image of a source; the same call resumes an interrupted one.

    Args:
      teacher_text: as in `open_trained`; its classes are the data's.
      uri, split: the images, as the training will read them.
      folder: gets `classes.npy` and `scores.npy` [N, k, h, w], and at the end a `labels.json` that
        says so.
      k: classes kept of each cell.
      image_size: side of the square that the annotator sees, or rows and columns; 0 for what it
        was trained with.
      batch_size: rounded up to a multiple of the devices.
      on_bad_image: "skip" leaves the maps of bad images empty.

    Raises:
      ValueError: the model has no logits of cells, the folder holds other maps, or there is no
        room.
    """
    source = open_source(uri, split)
    teacher = open_teacher(teacher_text, source.info.classes)
    if teacher is None:
        raise ValueError(
            "Which model annotates? Give a run's folder, MODEL=WEIGHTS or hf://owner/repo."
        )
    variables, placed, batch_size = replicate(teacher, batch_size)
    size, classes = image_size or teacher.image_size, len(source.info.classes)
    if classes > np.iinfo(FILES["classes"]).max:
        raise ValueError(f"Label maps hold classes up to 65,535; the data has {classes:,}.")

    @jax.jit
    def annotate(variables: Any, images: Array, mask: Array) -> tuple[Array, Array, Array]:
        logits = forward(teacher, variables, images, cell_logits)
        scores, best = jax.lax.top_k(jax.nn.softmax(logits), min(k, classes))
        scores *= mask[:, None, None, None]
        best, scores = (
            jnp.moveaxis(maps, 3, 1).astype(dtype)
            for maps, dtype in zip((best, scores), FILES.values())
        )
        return best, scores, logits.mean(axis=(1, 2))

    kind = Image(size, channels=len(teacher.mean))
    shape = (batch_size, *kind.shape, kind.channels)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    noise, mask = jax.device_put((noise, np.ones(batch_size, np.float32)), placed)
    maps, _, mean = annotate(variables, noise, mask)
    _check_cells(teacher, variables, noise, mean, teacher_text)
    about = {
        "data": uri, "split": split, "images": len(source), "fingerprint": source.info.fingerprint,
        "teacher": teacher_text, "teacher_sha256": sha256(teacher.variables),
        "image_size": size if isinstance(size, int) else list(size),
        "interpolation": teacher.interpolation, "shape": list(maps.shape[1:]),
    }  # fmt: skip
    with contextlib.ExitStack() as held:
        held.enter_context(lock(folder))
        start = done = _begin(folder, about, batch_size)
        begin = told = time.perf_counter()
        batches = pipeline.eval_batches(
            source,
            kinds={"image": kind},
            batch_size=batch_size,
            crop=0.0,
            num_threads=num_threads,
            start_step=-(-start // batch_size),
            interpolation=teacher.interpolation,
            on_bad_image=on_bad_image,
        )
        files = [held.enter_context((folder / f"{name}.npy").open("ab")) for name in FILES]
        results = (
            annotate(variables, batch["image"], batch["mask"])[:2]
            for batch in sharding.to_devices(batches, placed, batch_size)
        )
        for values in one_behind(results):
            rows = min(batch_size, len(source) - done)
            for file, array in zip(files, jax.device_get(values)):
                file.write(array[:rows].tobytes())
                file.flush()
                os.fsync(file.fileno())
            done += rows
            if (now := time.perf_counter()) - told > _EVERY:
                told, pace = now, (now - begin) / (done - start)
                eta = clock(pace * (len(source) - done))
                say(f"{done:,} of {len(source):,} images  {1 / pace:,.0f} images/s  ETA {eta}")
        _describe(folder, about, complete=True)
    return {
        "folder": str(folder),
        "images": len(source),
        "found": start,
        "shape": " × ".join(map(str, about["shape"])),
        "bytes": sum((folder / f"{name}.npy").stat().st_size for name in FILES),
    }


def _check_cells(teacher: Trained, variables: Any, images: Array, mean: Array, text: str) -> None:
    """Check that the head is linear: the mean of the cells is the image's logits."""
    if isinstance(teacher.model, GivesTokenLogits):
        return
    whole = np.asarray(jax.jit(lambda v, x: forward(teacher, v, x))(variables, images))
    if np.abs(np.asarray(mean) - whole).max() > 0.03 * max(np.abs(whole).max(), 1e-3):
        raise ValueError(
            f"The head of {text!r} does not read the mean of its last map, and so says nothing of "
            f"one cell. Choose a pyramid, a BiT, a ViT with pool='gap', or a VOLO, whose tokens "
            f"have a head of their own."
        )


def _begin(folder: pathlib.Path, about: dict[str, Any], batch_size: int) -> int:
    """Count the images annotated already, in whole batches, and cut the files there."""
    shape = (about["images"], *about["shape"])
    row = int(np.prod(shape[1:])) * 2  # both types have two bytes
    headers = {folder / f"{name}.npy": _header(shape, dtype) for name, dtype in FILES.items()}
    if not (folder / ABOUT).exists():
        needed, free = len(FILES) * row * shape[0], shutil.disk_usage(folder).free
        if needed > free:
            raise ValueError(
                f"{folder} has {free:,} bytes free, and {needed:,} are needed: make room, or "
                f"choose another folder with --to. Nothing was written."
            )
        for path, header in headers.items():
            path.write_bytes(header)
        _describe(folder, about, complete=False)
    there = json.loads((folder / ABOUT).read_text())
    told = ("data", "split", "teacher")  # what they hold is known by its digest
    if differing := [k for k, v in about.items() if there[k] != v and k not in told]:
        words = "; ".join(f"{k} (there {there[k]!r}, now {about[k]!r})" for k in differing)
        raise ValueError(f"{folder} holds other label maps: {words}. Choose another folder.")
    done = min((path.stat().st_size - len(header)) // row for path, header in headers.items())
    if done < shape[0]:
        done -= done % batch_size
    for path, header in headers.items():
        os.truncate(path, len(header) + done * row)
    return done


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    file = io.BytesIO()
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def _describe(folder: pathlib.Path, about: dict[str, Any], complete: bool) -> None:
    temporary = folder / f"{ABOUT}.tmp"
    temporary.write_text(json.dumps({"complete": complete, **about}, indent=2) + "\n")
    temporary.replace(folder / ABOUT)  # whole or not at all
