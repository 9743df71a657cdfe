"""Preprocessing of weights in a file, as stated beside them or implied by their layout.

Beside a file, or in its repository, timm writes `config.json` (with `pretrained_cfg`), transformers
`preprocessor_config.json`, open_clip `open_clip_config.json`, and a run of ours `config.json`.
"""

import logging
import os
import types
from collections.abc import Mapping
from typing import Any

from vitjax import models, weights
from vitjax.models import create_model, model_spec, preprocessing_of
from vitjax.models.preprocessing import CLIP_TOWER, Preprocessing
from vitjax.names import check_choice
from vitjax.weights import libraries
from vitjax.weights.files import beside

log = logging.getLogger(__name__)

FILES = ("config.json", "preprocessor_config.json", "open_clip_config.json")
_PILLOW = {
    "bicubic": "bicubic",
    "bilinear": "antialias",
    "box": "area",
    3: "bicubic",
    2: "antialias",
    4: "area",
}
"""Pillow's kernels, by timm's names and by Pillow's numbers → ours. "box" is what our own runs are
exported with; "area" counts parts of pixels where Pillow's counts whole ones.
"""


def published_preprocessing(
    name: str,
    source: str | os.PathLike[str] = "",
    arrays: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] = types.MappingProxyType({}),
) -> Preprocessing:
    """Find the preprocessing of a model with these weights, and log it.

    The first of these that states it: a file beside the weights, another library's name of the
    model (`vitjax.models.preprocessing.NAMED`), the layout of the arrays, the model's family. The
    size of the images may also be that of a ViT's position table.

    Args:
      name: of the model, as in `create_model`.
      source: of the weights, as `load_pretrained` takes it; empty for none.
      arrays: what `files.read` gave for it; None to leave the layout out.
      options: hyperparameters of the model, as for `create_model`; its image size is that of the
        images where nothing else says one.

    Raises:
      ValueError: a file beside the weights cannot be read, or says what is not possible here.
    """
    family, size = weights.FAMILIES[model_spec(name).factory], None
    layout: Mapping[str, Preprocessing] = {}
    if arrays is not None and "params" not in arrays:
        google = any("/" in key for key in arrays)
        layout = (
            getattr(family, "GOOGLE_PREPROCESSING", {})
            if google
            else libraries.layout(getattr(family, "LIBRARIES", ()), arrays)
        )
        if hasattr(family, "published_size"):
            size = family.published_size(arrays, create_model(name, **options))
    stated = options.get("image_size")
    found = preprocessing_of(name, layout, size or (stated if isinstance(stated, int) else None))
    if source:
        found = _beside(name, os.fspath(source), found) or found
    log.warning("%s wants its images so: %s (%s).", name, found, found.source)
    return found


def _beside(name: str, source: str, default: Preprocessing) -> Preprocessing | None:
    """Read the preprocessing stated beside the weights."""
    for file in FILES:
        if (content := beside(source, file)) is None:
            continue
        where = f"{file} beside {source}"
        try:
            found = READERS[file](name, content, default._replace(source=where))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(
                f"{where} does not say how images are prepared in a form that is known "
                f"({type(error).__name__}: {error}); mend it, or load the weights from elsewhere."
            ) from error
        if found is not None:
            return found
    return None


def _of_config(name: str, content: Any, default: Preprocessing) -> Preprocessing | None:
    """Read timm's `config.json`, or that of a run of ours; others state no preprocessing."""
    if isinstance(content.get("data"), Mapping) and "mean" in content["data"]:
        d = content["data"]
        return _checked(
            default, d["image_size"], d["eval_crop"], d["interpolation"], d["mean"], d["std"]
        )
    c = content.get("pretrained_cfg") or (content if "input_size" in content else None)
    if c is None:
        return None
    other = str(content.get("architecture", ""))
    if other in models.ALIASES and model_spec(other).factory != model_spec(name).factory:
        log.warning("%s is for %s, and not for %s: left out.", default.source, other, name)
        return None
    mode = c.get("crop_mode") or "center"
    check_choice(f"crop_mode of {default.source}", mode, ("center", "squash"))
    crop = c["crop_pct"] or 0.875
    if mode == "squash" and crop == 1:
        crop = 0.0
    elif mode == "squash":
        log.warning(
            "%s squeezes images before it crops them; here they keep their proportions.",
            default.source,
        )
    kernel = _kernel(c["interpolation"], default)
    return _checked(default, c["input_size"][1:], crop, kernel, c["mean"], c["std"])


def _of_preprocessor(name: str, c: Any, default: Preprocessing) -> Preprocessing:
    """Read transformers' `preprocessor_config.json`."""
    del name
    resized, cropped = c.get("size"), c.get("crop_size")
    keeps = isinstance(resized, Mapping) and "shortest_edge" in resized
    sides = _sides(cropped if c.get("do_center_crop") else resized)
    if c.get("do_center_crop") and c.get("do_resize", True):
        crop = sides[0] / _sides(resized)[0]
        if isinstance(resized, Mapping) and not keeps and crop == 1:
            crop = 0.0
        elif isinstance(resized, Mapping) and not keeps:
            log.warning(
                "%s squeezes images before it crops them; here they keep their proportions.",
                default.source,
            )
    elif keeps or not c.get("do_resize", True):
        crop = c.get("crop_pct") or 1.0  # ConvNeXt's; a map of any width is cropped here
    else:
        crop = 0.0
    if c.get("do_rescale", True) and abs(c.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3:
        raise ValueError(
            f"{default.source} has rescale_factor={c['rescale_factor']}; here it is 1/255."
        )
    plain = not c.get("do_normalize", True)
    mean, std = ((0.0,) * 3, (1.0,) * 3) if plain else (c["image_mean"], c["image_std"])
    return _checked(default, sides, crop, _kernel(c.get("resample", 3), default), mean, std)


def _of_open_clip(name: str, content: Any, default: Preprocessing) -> Preprocessing:
    """Read open_clip's `open_clip_config.json`."""
    del name
    c, size = content["preprocess_cfg"], content["model_cfg"]["vision_cfg"]["image_size"]
    mode = c.get("resize_mode", "shortest")
    check_choice(f"resize_mode of {default.source}", mode, ("shortest", "squash"))
    kernel = _kernel(c.get("interpolation", "bicubic"), default)
    mean, std = c.get("mean", CLIP_TOWER.mean), c.get("std", CLIP_TOWER.std)
    return _checked(default, _sides(size), 0.0 if mode == "squash" else 1.0, kernel, mean, std)


READERS = dict(zip(FILES, (_of_config, _of_preprocessor, _of_open_clip), strict=True))


def _sides(size: Any) -> tuple[int, ...]:
    """Convert a size of these files to height and width."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        return (edge, edge) if edge else (size["height"], size["width"])
    return tuple(size)


def _kernel(name: Any, default: Preprocessing) -> str:
    """Translate the name of Pillow's kernel."""
    if name not in _PILLOW:
        raise ValueError(
            f"{default.source} resizes images by {name!r}, and here are bicubic, bilinear and box; "
            f"write one of them there."
        )
    return _PILLOW[name]


def _checked(
    default: Preprocessing, size: Any, crop: float, kernel: str, mean: Any, std: Any
) -> Preprocessing:
    """Build the preprocessing that a file states.

    Raises:
      ValueError: images are not square, or have other channels than three.
    """
    sides = _sides(size)
    if len(set(sides)) != 1 or len(mean) != 3 or len(std) != 3:
        raise ValueError(
            f"{default.source} is for images of {'×'.join(map(str, sides))} pixels and "
            f"{len(mean)} channels; here published models read squares of 3 channels."
        )
    return Preprocessing(
        tuple(mean), tuple(std), float(crop), kernel, default.source, int(sides[0])
    )
