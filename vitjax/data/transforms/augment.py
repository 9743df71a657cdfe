"""What training does to an image, written as one line: `crop | flip | randaugment(m=9)`.

The first part says which rectangle is cropped, the others what is done to the crop, in order:

  centre(fraction=1.0)  crop(area=(0.08, 1.0), ratio=(0.75, 1.33), interpolation='bicubic')
  simple_crop(pad=4)  flip(p=0.5)  affine(degrees=15, …)  three_augment  jitter(brightness=0.4, …)
  randaugment(n=2, m=9, mstd=0.5, p=0.5, interpolation='random')  autoaugment
"""

import ast
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from vitjax.data.codecs.image import Box
from vitjax.data.kinds import Kinds, Size
from vitjax.data.source import Sample
from vitjax.data.transforms import crops, policies
from vitjax.data.transforms.crops import Window
from vitjax.data.transforms.moves import Flip, Move, View, random_affine
from vitjax.names import check_choice, unknown

AUGMENTATIONS = {
    "none": "centre",  # as in evaluation with eval_crop=1.0, the default
    "digits": "centre | affine",  # for writing: neither mirrored nor cropped
    "crop_flip": "crop | flip",  # for photos
    "deit": "crop(interpolation='bicubic') | flip"
    " | randaugment(n=2, m=9, mstd=0.5, interpolation='bicubic')",
    "deit3": "simple_crop(interpolation='bicubic') | flip | three_augment"
    " | jitter(brightness=0.3, contrast=0.3, saturation=0.3)",
}
"""Name → what it is short for."""


def _crop(
    height: int,
    width: int,
    rng: np.random.Generator,
    size: Size,
    *,
    area: tuple = (0.08, 1.0),
    ratio: tuple = (3 / 4, 4 / 3),
) -> Box:
    del size
    return crops.random_box(height, width, rng, area, ratio)


def flip(rng: np.random.Generator, size: Size, *, p: float = 0.5) -> Iterator[Move]:
    """Exchange left and right with probability p."""
    del size
    if rng.random() < p:
        yield Flip()


CROPS = {"centre": crops.eval_window, "crop": _crop, "simple_crop": crops.shifted_box}
OPS = {
    "flip": flip,
    "affine": random_affine,
    "randaugment": policies.rand_augment,
    "autoaugment": policies.auto_augment,
    "three_augment": policies.three_augment,
    "jitter": policies.jitter,
}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """A pure function of (sample, kinds, generator): crops, then moves every field alike.

    Attributes:
      crop: (height, width, generator, size) → the rectangle; see `View`.
      ops: (generator, size) → moves, one after the other.
      interpolation: see `crops.resize`.
    """

    crop: Callable[..., Box | Window]
    ops: tuple[Callable[..., Iterable[Move]], ...] = ()
    interpolation: str = "area"

    def __call__(self, sample: Sample, kinds: Kinds, rng: Any) -> Sample:
        """Give the fields of `kinds`, cropped and moved; the first with an extent is the image."""
        fields = {name: kind.open(sample[name]) for name, kind in kinds.items()}
        extents = (kind.extent(fields[name]) for name, kind in kinds.items())
        frame, size = next(filter(None, extents))
        view = View(self.crop(*frame, rng, size), frame, self.interpolation)
        fields = {name: kind.view(fields[name], view) for name, kind in kinds.items()}
        for op in self.ops:
            for move in op(rng, size):
                fields = {name: kind.move(fields[name], move) for name, kind in kinds.items()}
        return fields


def evaluation(crop: float = 1.0, interpolation: str = "area") -> Augmentation:
    """What evaluation sees: a central crop, see `crops.view`.

    Raises:
      ValueError: the crop is out of range, or the interpolation is unknown.
    """
    crops.check_crop(crop)
    check_choice("interpolation", interpolation, crops.INTERPOLATIONS)
    return Augmentation(functools.partial(crops.eval_window, fraction=crop), (), interpolation)


@functools.lru_cache(maxsize=16)
def parse_augmentation(text: str) -> Augmentation:
    """Reads a name of AUGMENTATIONS, or a line as this module's docstring shows.

    Raises:
      ValueError: an unknown part or option (the nearest is named), or a line that does not parse.
    """
    if text.isidentifier() and text not in (*AUGMENTATIONS, *CROPS):
        raise ValueError(unknown("augmentation", text, [*AUGMENTATIONS, *CROPS]))
    first, *others = (_part(part, text) for part in AUGMENTATIONS.get(text, text).split("|"))
    name, options = first
    if name not in CROPS:
        raise ValueError(
            f"An augmentation begins with the rectangle that is cropped ({', '.join(CROPS)}); "
            f"{text!r} begins with {name!r}. Write 'crop | {name}'."
        )
    interpolation = options.pop("interpolation", "area")
    check_choice("interpolation", interpolation, crops.INTERPOLATIONS)
    crop = _bind(CROPS[name], name, options)
    for other, _ in others:
        if other not in OPS:
            raise ValueError(unknown("step of an augmentation", other, OPS))
    ops = tuple(_bind(OPS[name], name, options) for name, options in others)
    return Augmentation(crop, ops, interpolation)


def _part(part: str, text: str) -> tuple[str, dict[str, Any]]:
    """A name and its options, which are literals."""
    try:
        tree = ast.parse(part.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, {}
        assert isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.args
        return tree.func.id, {k.arg or "**": ast.literal_eval(k.value) for k in tree.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise ValueError(
            f"Augmentation {text!r} does not parse at {part.strip()!r}; write parts such as "
            f"crop, flip(p=0.5) or randaugment(n=2, m=9), with '|' between them."
        ) from None


def _bind(function: Callable[..., Any], name: str, options: dict[str, Any]) -> Callable[..., Any]:
    keywords = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is not inspect.Parameter.empty
    ]
    for option in options:
        if option not in keywords:
            raise ValueError(unknown(f"option of {name}", option, keywords))
    kind = options.get("interpolation", "random")  # a crop's is read before
    if kind not in policies.INTERPOLATIONS:
        raise ValueError(unknown(f"interpolation of {name}", str(kind), policies.INTERPOLATIONS))
    fraction = options.get("fraction", 1.0)
    if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise ValueError(
            f"{name}(fraction={fraction!r}) must be a number above 0 and at most 1, the share of "
            f"the short side that is shown, such as 0.875."
        )
    return functools.partial(function, **options) if options else function
