"""Label maps in a feature of `tfds://` or a column of `hf://`, and the meaning of their numbers."""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vitjax.data.codecs.image import read_file
from vitjax.data.codecs.maps import CHANNELS, IGNORE, LabelFile, decode_map
from vitjax.data.source import RenumberedMap
from vitjax.data.sources import remote
from vitjax.names import check_choice, unknown

_MAP = re.compile(r"annot|segment|semantic|mask|label|trimap|^map$")
_NO_MAP = re.compile(r"instance|panoptic|colou?r")

BOTH = (
    "label={!r} and options of a label map are given, and a source has the classes of one of them: "
    "leave label= out, or map=, classes=, reduce_zero= and channel=."
)
"""A message, for the name of the label's column."""


class MapColumn(NamedTuple):
    """Column of label maps, and the meaning of their numbers.

    Attributes:
      column: its name.
      names: of the classes.
      reduce_zero: 0 means that no class is said, and class k is stored as k + 1.
      numbers: the stored number of each class, of which others mean that none is said; empty for
        0, 1, 2, …
      channel: of coloured maps, in which the numbers stand: "red", "green" or "blue".
      palette: that of the first map, which all must have; None for maps without.
    """

    column: str
    names: tuple[str, ...]
    reduce_zero: bool = False
    numbers: tuple[int, ...] = ()
    channel: str = ""
    palette: bytes | None = None

    def beginning_with(self, data: bytes, name: str) -> "MapColumn":
        """Return the column with the palette of this file, the first one.

        Raises:
          ValueError: it is no map of classes, or cannot be decoded.
        """
        try:
            return self._replace(palette=decode_map(data, name, self.channel)[1])
        except ValueError as error:
            reason = str(error).rstrip(".")
            hint = "; ?channel=red reads one colour of such maps" if "of RGB" in reason else ""
            raise ValueError(
                f"Column {self.column!r} cannot be read as label maps: {reason}{hint}."
            ) from error

    def file(self, data: bytes, name: str) -> LabelFile | RenumberedMap:
        """Build an undecoded label file from the bytes of a map."""
        if not self.numbers:
            return LabelFile(
                data, name, len(self.names), self.reduce_zero, self.palette, self.channel
            )
        table = np.full(IGNORE, IGNORE)
        table[list(self.numbers)] = range(len(self.numbers))
        stored = LabelFile(data, name, IGNORE, False, self.palette, self.channel)
        return RenumberedMap(stored, table)


CITYSCAPES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)  # fmt: skip
"""The 19 classes that are evaluated (arXiv:1604.01685), in the order of their training numbers."""

WELL_KNOWN = {
    "cityscapes": MapColumn(
        "segmentation_label",
        CITYSCAPES,
        numbers=(7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
    ),
    "oxford_iiit_pet": MapColumn("segmentation_mask", ("pet", "background", "border"), True),
    "scene_parse150": MapColumn(
        "annotation", tuple(map(str, range(100))), reduce_zero=True, channel="red"
    ),
}
"""Data set of TFDS → its label maps, whose classes its features do not say.

Cityscapes stores `labelIds`. `scene_parse150` is ADE20K's instances: red is one of 100 objects, and
green counts them; the 150 classes are not in it.
"""


def choose_map(images: Sequence[str], wanted: str, where: str) -> str:
    """Choose the column of label maps among those that hold images.

    Args:
      images: names of the columns that hold images.
      wanted: the one that is asked for; empty for the only one that is called like a label map.
      where: what a message calls the data set.

    Raises:
      ValueError: there is none, or several.
    """
    if wanted:
        if wanted not in images:
            raise ValueError(unknown(f"label map of {where}", wanted, images))
        return wanted
    found = [name for name in images if _is_map(name)]
    if len(found) != 1:
        several = f"{', '.join(found)} may be it" if found else "none is"
        raise ValueError(
            f"Which column of {where} is the label map? By their names {several}. Say which with "
            f"?map=NAME; these hold images: {', '.join(images) or 'none'}."
        )
    return found[0]


def any_map(images: Sequence[str]) -> bool:
    """Return whether one of the columns of images has the name of a label map."""
    return any(_is_map(name) for name in images)


def _is_map(name: str) -> bool:
    return bool(_MAP.search(name.lower())) and not _NO_MAP.search(name.lower())


def choose_image(images: Sequence[str], column: str) -> str:
    """Choose the first column of images that is not one of label maps; "" if there is none."""
    others = [name for name in images if name != column]
    return next((name for name in others if not _is_map(name)), others[0] if others else "")


def describe_map(
    column: str,
    where: str,
    *,
    classes: str = "",
    reduce_zero: int = 0,
    channel: str = "",
    said: Sequence[str] = (),
    known: MapColumn | None = None,
) -> MapColumn:
    """Describe what the numbers of a column of label maps mean.

    Args:
      where: what a message calls the data set.
      classes: how many there are, or a file of their names.
      reduce_zero, channel: as in `MapColumn`.
      said: the names by the data set's own features.
      known: what is known of the data set, if it is a well-known one.

    Raises:
      ValueError: nobody says which classes there are, or the options do not fit.
    """
    if channel:
        check_choice("channel", channel, CHANNELS)
    if known is None or known.column != column:
        known = MapColumn(column, ())
    channel = channel or known.channel
    if classes:
        names = class_names(classes, "say how many classes there are, or name a file of names.")
        return MapColumn(column, names, bool(reduce_zero), channel=channel)
    if said:
        return MapColumn(column, tuple(said), bool(reduce_zero), channel=channel)
    if not known.names:
        raise ValueError(
            f"{where} does not say which classes its label map {column!r} has: add ?classes=150 "
            f"for how many, or ?classes=FILE for their names, one a line; and &reduce_zero=1 where "
            f"0 means no class."
        )
    if known.numbers and reduce_zero:
        raise ValueError(
            f"The numbers of the classes of {where} are known, and reduce_zero=1 would shift them; "
            f"leave it out, or say the classes with ?classes=."
        )
    return known._replace(reduce_zero=known.reduce_zero or bool(reduce_zero), channel=channel)


def class_names(classes: str, otherwise: str) -> tuple[str, ...]:
    """Read how many classes there are, or the file of their names, one a line.

    Args:
      otherwise: what to do if there is no such file, for the message.

    Raises:
      ValueError: there is no such file, it is empty, or has a name twice.
    """
    if classes.isdecimal() and int(classes):
        return tuple(map(str, range(int(classes))))
    file = os.path.expanduser(classes)
    if not remote.is_remote(file) and not os.path.isfile(file):
        raise ValueError(f"{file!r} does not exist: {otherwise}")
    names = [line.strip() for line in read_file(file).decode().splitlines() if line.strip()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise ValueError(
            f"{file!r} has {'the name ' + repr(twice[0]) + ' twice' if twice else 'no names'}; "
            f"write one name a line, each once."
        )
    return tuple(names)
