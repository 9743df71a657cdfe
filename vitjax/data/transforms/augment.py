"""Augmentation of training images, written as one line: `crop | flip | randaugment(m=9)`.

The first part says which rectangle is cropped, the others what is done to the crop, in order:

  centre(fraction=1.0)  crop(area=(0.08, 1.0), ratio=(0.75, 1.33), interpolation='bicubic')
  simple_crop(pad=4)
  scaled_crop(scale=(0.5, 2.0), short_side=512, pad_last=True, max_share=0.75)
  multi_scale(short_sides=(480, 800, 32), long_side=1333, part=0.5)
  lsj(scale=(0.1, 2.0), interpolation='bilinear')  crop(keep=0.5)
  flip(p=0.5)  symmetry  affine(degrees=15, …)  jitter(brightness=0.4, …)
  photometric(brightness=32, …, p=(0.5, 0.5, 0.5, 0.5))  three_augment  autoaugment
  randaugment(n=2, m=9, mstd=0.5, p=0.5, interpolation='random')
  mosaic(p=0.5, centre=(0.25, 0.75))
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from vitjax.data.channels import RGB
from vitjax.data.codecs.image import Box
from vitjax.data.kinds import Kinds, Size
from vitjax.data.source import Sample, Source
from vitjax.data.transforms import crops, policies
from vitjax.data.transforms.crops import Part, Window
from vitjax.data.transforms.mosaic import Mosaic, parse_mosaic, side_by_side
from vitjax.data.transforms.moves import Flip, Move, Turn, View, random_affine
from vitjax.data.transforms.multi_scale import multi_scale
from vitjax.names import check_choice, parse_call, unknown

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


def symmetry(rng: np.random.Generator, size: Size) -> Iterator[Move]:
    """Draw one of the eight symmetries of a square: quarter turns, mirrored or not."""
    del size
    quarters, mirrored = divmod(int(rng.integers(8)), 2)
    if quarters:
        yield Turn(quarters)
    if mirrored:
        yield Flip()


CROPS = {
    "centre": crops.eval_window,
    "crop": _crop,
    "simple_crop": crops.shifted_box,
    "scaled_crop": crops.scaled_window,
    "multi_scale": multi_scale,
    "lsj": crops.large_scale_jitter,
}
OPS = {
    "flip": flip,
    "symmetry": symmetry,
    "affine": random_affine,
    "randaugment": policies.rand_augment,
    "autoaugment": policies.auto_augment,
    "three_augment": policies.three_augment,
    "jitter": policies.jitter,
    "photometric": policies.photometric,
}
OF_RGB = ("randaugment", "autoaugment", "three_augment")
"""Steps whose changes of colour are defined for RGB alone."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Pure function of (sample, kinds, generator): crops, then moves all fields alike.

    Attributes:
      crop: (height, width, generator, size) → the rectangle; see `View`.
      ops: (generator, size) → moves, one after the other.
      interpolation: see `crops.resize`.
      max_share: of one class among a crop's pixels; where it has more, another crop is drawn, ten
        times at most.
      keep: share of an object that a crop must hold, of one object at least; else another crop is
        drawn, ten times at most.
      mosaic: of four samples, instead of one; None for none.
      after: like `ops`, behind the mosaic.
    """

    crop: Callable[..., Box | Window | Part]
    ops: tuple[Callable[..., Iterable[Move]], ...] = ()
    interpolation: str = "area"
    max_share: float = 1.0
    keep: float = 0.0
    mosaic: Mosaic | None = None
    after: tuple[Callable[..., Iterable[Move]], ...] = ()

    def __call__(
        self, sample: Sample, kinds: Kinds, rng: Any, others: Source | None = None
    ) -> Sample:
        """Crop and move the fields of `kinds`; the first with an extent is the image.

        Args:
          others: samples of which a mosaic draws three.
        """
        if self.mosaic is not None and rng.random() < self.mosaic.p:
            part = functools.partial(self._part, kinds=kinds, rng=rng)
            fields, size = side_by_side(self.mosaic, part, sample, kinds, rng, others)
        else:
            fields, size = self._part(sample, None, kinds, rng)
        return _moved(self.after, fields, size, kinds, rng)[0]

    def _part(
        self, sample: Sample, size: Size | None, kinds: Kinds, rng: Any
    ) -> tuple[Sample, Size]:
        """Crop a sample and do what is done before a mosaic; return its size too.

        Args:
          size: of the crop; None for that of the kinds.
        """
        fields = {name: kind.open(sample[name]) for name, kind in kinds.items()}
        for name, kind in kinds.items():
            if hasattr(kind, "draw"):  # of a video, its frames
                fields[name] = kind.draw(fields[name], rng)  # type: ignore[attr-defined]
        extents = (kind.extent(fields[name]) for name, kind in kinds.items())
        frame, usual = next(filter(None, extents))
        box, shown = self._box(fields, kinds, rng, frame, size or usual), size
        if isinstance(box, Part):
            box, shown = box
        view = View(box, frame, self.interpolation, shown)
        fields = {name: kind.view(fields[name], view) for name, kind in kinds.items()}
        return _moved(self.ops, fields, shown or usual, kinds, rng)

    def _box(
        self, fields: Sample, kinds: Kinds, rng: Any, frame: Size, size: Size
    ) -> Box | Window | Part:
        """Draw a crop, and others while it shows too much of a class or too little of objects."""
        box = self.crop(*frame, rng, size)
        if self.max_share < 1 or self.keep > 0:
            for _ in range(crops.ATTEMPTS - 1):
                inner = box.box if isinstance(box, Part) else box
                plain = _dominance(fields, kinds, inner) > self.max_share
                if not plain and (not self.keep or _kept(fields, kinds, inner, frame) >= self.keep):
                    break
                box = self.crop(*frame, rng, size)
        return box


def _moved(
    ops: tuple[Callable[..., Iterable[Move]], ...],
    fields: Sample,
    size: Size,
    kinds: Kinds,
    rng: Any,
) -> tuple[Sample, Size]:
    """Do the steps of an augmentation, and return the size of the fields too."""
    for op in ops:
        for move in op(rng, size):
            fields = {name: kind.move(fields[name], move) for name, kind in kinds.items()}
            if isinstance(move, Turn) and move.quarters % 2:
                size = size[1], size[0]
    return fields, size


def _dominance(fields: Sample, kinds: Kinds, box: Box | Window) -> float:
    """Compute the largest share of a class in a crop of any of the fields."""
    maps = ((kind, fields[name]) for name, kind in kinds.items() if hasattr(kind, "dominance"))
    return max((kind.dominance(value, box) for kind, value in maps), default=0.0)  # type: ignore[attr-defined]


def _kept(fields: Sample, kinds: Kinds, box: Box | Window, frame: Size) -> float:
    """Compute the largest share of an object in a crop; 1 if the image has none."""
    some = [(kind, fields[name]) for name, kind in kinds.items() if hasattr(kind, "kept")]
    if not some:
        raise ValueError("keep= is of objects, and the task reads none; leave it out")
    return max(kind.kept(value, box, frame) for kind, value in some)  # type: ignore[attr-defined]


def evaluation(crop: float = 1.0, interpolation: str = "area") -> Augmentation:
    """Build the augmentation of evaluation: a central crop, see `crops.view`.

    Raises:
      ValueError: the crop is out of range, or the interpolation is unknown.
    """
    crops.check_crop(crop)
    check_choice("interpolation", interpolation, crops.INTERPOLATIONS)
    return Augmentation(functools.partial(crops.eval_window, fraction=crop), (), interpolation)


@functools.lru_cache(maxsize=16)
def parse_augmentation(text: str) -> Augmentation:
    """Parse a name of AUGMENTATIONS, or a line as this module's docstring shows.

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
    max_share = options.pop("max_share", 1.0)
    if not isinstance(max_share, int | float) or not 0 < max_share <= 1:
        raise ValueError(
            f"{name}(max_share={max_share!r}) must be a number above 0 and at most 1: the share of "
            f"one class among a crop's pixels, such as 0.75."
        )
    keep = options.pop("keep", 0.0)
    if not isinstance(keep, int | float) or not 0 <= keep <= 1:
        raise ValueError(
            f"{name}(keep={keep!r}) must be a number from 0 to 1: the share of an object that a "
            f"crop holds, of one at least, such as 0.5."
        )
    crop = _bind(CROPS[name], name, options)
    before, mosaic, after = parse_mosaic(others)
    for other, _ in (*before, *after):
        if other not in OPS:
            raise ValueError(unknown("step of an augmentation", other, [*OPS, "mosaic"]))
    first, last = (tuple(_bind(OPS[n], n, o) for n, o in steps) for steps in (before, after))
    return Augmentation(crop, first, interpolation, max_share, keep, mosaic, last)


def check_channels(text: str, channels: int) -> None:
    """Check that an augmentation defined for RGB alone is not used for other channels.

    Raises:
      ValueError: so it is.
    """
    if channels == RGB:
        return
    for name, options in (_part(part, text) for part in AUGMENTATIONS.get(text, text).split("|")):
        turns = name == "jitter" and (options.get("saturation", 0.4) or options.get("hue", 0.0))
        if turns or name in OF_RGB:
            raise ValueError(
                f"{name} in data.augment={text!r} is defined for RGB, and data.channels="
                f"{channels}. Crops, flip, affine and "
                f"jitter(saturation=0) are for any number of channels: leave {name} out."
            )


def _part(part: str, text: str) -> tuple[str, dict[str, Any]]:
    """Parse a name and its options, which are literals."""
    call = parse_call(part)
    if call is None:
        raise ValueError(
            f"Augmentation {text!r} does not parse at {part.strip()!r}; write parts such as "
            f"crop, flip(p=0.5) or randaugment(n=2, m=9), with '|' between them."
        )
    return call


def _bind(function: Callable[..., Any], name: str, options: dict[str, Any]) -> Callable[..., Any]:
    keywords = {
        p.name: p.default
        for p in inspect.signature(function).parameters.values()
        if p.default is not inspect.Parameter.empty
    }
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
    for option, value in options.items():
        if not _alike(value, keywords[option]):
            raise ValueError(
                f"{name}({option}={value!r}) does not fit; write a value such as "
                f"{keywords[option]!r}."
            )
    return functools.partial(function, **options) if options else function


def _alike(value: Any, default: Any) -> bool:
    """Return whether an option's value has the type of its default: a switch, a number, several."""
    if isinstance(default, tuple):
        return (
            isinstance(value, tuple)
            and len(value) == len(default)
            and all(map(_alike, value, default))
        )
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)
