"""Sources of samples; `open_source` opens any of them by a URI."""

import difflib
import os
from collections.abc import Callable, Iterable
from urllib.parse import parse_qsl

from vitjax.data.source import Source
from vitjax.data.sources import (
    arrays,
    boxes,
    coco,
    collages,
    digits,
    hf,
    image_folder,
    map_folder,
    mixture,
    moving,
    photos,
    scenes,
    splits,
    tars,
    tfds,
    videos,
    yolo,
)
from vitjax.names import unknown


def open_source(uri: str, split: str) -> Source:
    """Open one split of a data set; docs/data.md shows every kind.

    Args:
      uri: `digits://`, `folder:///photos?test_fraction=0.2` or the path alone, `tfds://name`,
        `hf://name`, `tar:///shards-{000..099}.tar`, `maps:///ade20k`, `coco:///coco`,
        `yolo:///traffic`, `pairs:///sidd`, `kinetics:///tables`, `photos://`, `scenes://`,
        `boxes://`, `collages://`, `moving://`, `synthetic://?size=1000`; or a mixture of them,
        `0.75*URI + 0.25*URI`. The option `split=` stands before the argument.
      split: "train" or "test", or what else the data set calls its splits; or a slice of one by
        percent or count: "train[:80%]" and "train[80%:]" are disjoint and together all of "train".
        Slices of tfds:// are TFDS's own, in its order. Of the others a slice is one of a fixed
        permutation (PCG64 seeded with 0), so that it holds all classes in about their proportions.

    Raises:
      ValueError: no such source, option, path or split, or the data is not as it must be.
    """
    if parts := mixture.parse_mixture(uri):
        sources = [open_source(part, split) for _, part in parts]
        return mixture.Mixture(sources, [weight for weight, _ in parts])
    sizes: dict[str, type] = dict.fromkeys(
        ("size", "classes", "height", "width", "channels", "jpeg"), int
    )
    columns: dict[str, type] = {"image": str, "label": str}
    columns |= {"map": str, "classes": str, "reduce_zero": int, "channel": str}
    columns |= {"objects": str, "boxes": str, "relative": int}
    schemes: dict[str, tuple[Callable[..., Source], dict[str, type]]] = {
        "digits": (digits.open_digits, {}),
        "folder": (image_folder.open_folder, {"test_fraction": float, "files": str}),
        "tfds": (tfds.open_tfds, {"data_dir": str, **columns}),
        "hf": (hf.open_hf, {"config": str, **columns}),
        "tar": (tars.open_tars, {"classes": int}),
        "synthetic": (arrays.open_synthetic, sizes),
        "photos": (photos.open_photos, {"count": int}),
        "scenes": (scenes.open_scenes, {"size": int, "count": int}),
        "boxes": (
            boxes.open_boxes,
            dict.fromkeys(("size", "count", "digits", "seed"), int),
        ),
        "collages": (
            collages.open_collages,
            dict.fromkeys(("size", "count", "clutter", "noise", "seed"), int),
        ),
        "coco": (coco.open_coco, {"annotations": str, "images": str}),
        "yolo": (yolo.open_yolo, {}),
        "moving": (
            moving.open_moving,
            dict.fromkeys(("size", "frames", "count", "seed"), int),
        ),
        "kinetics": (videos.open_kinetics, {}),
        "maps": (map_folder.open_maps, {"classes": str, "reduce_zero": int}),
        "pairs": (map_folder.open_pairs, {}),
    }
    scheme, path, options = _parse_uri(uri, schemes)
    opener, types = schemes[scheme]
    split = options.pop("split", split)
    for key, value in options.items():
        if key not in types:
            raise ValueError(unknown(f"option of {scheme}://", key, [*types, "split"]))
        try:
            options[key] = types[key](value)
        except ValueError:
            raise ValueError(f"Option {key}={value!r} of {uri!r} is not a number.") from None
    if scheme == "tfds":
        return opener(path, split, **options)
    generated = ("digits", "photos", "scenes", "boxes", "collages", "moving", "synthetic")
    names = splits.SPLITS if scheme in generated else None
    part = splits.parse_split(split, names)
    return splits.take(opener(path, part.name, **options), part)


def _parse_uri(uri: str, schemes: Iterable[str]) -> tuple[str, str, dict]:
    scheme, separator, rest = uri.partition("://")
    path, _, query = (rest if separator else uri).partition("?")
    if not separator:
        if not os.path.exists(path) and difflib.get_close_matches(path, schemes, cutoff=0.7):
            raise ValueError(unknown("data source", uri, [f"{name}://" for name in schemes]))
        scheme = "folder"
    if scheme in ("gs", "s3"):
        raise ValueError(f"Say what lies there: folder://{uri}, or tar://{uri}/train-*.tar.")
    if scheme not in schemes:
        raise ValueError(unknown("data source", f"{scheme}://", [f"{name}://" for name in schemes]))
    return scheme, path, dict(parse_qsl(query, keep_blank_values=True))
