"""Kinds of training crops of dense tasks, which may be padded or degraded."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vitjax.data.kinds import ArraySpec, Image
from vitjax.data.transforms.degrade import degrade


@dataclasses.dataclass(frozen=True)
class PaddedImage(Image):
    """Image with the extent that it fills of its crop; the rest, at right and bottom, is padding.

    Arrays: the crop, and `extent`: height and width of the image in it.
    """

    def spec(self) -> dict[str, ArraySpec]:
        return super().spec() | {"extent": ArraySpec((2,), np.int32, 1)}

    def encode(self, value: UInt8[np.ndarray, "h w c"]) -> dict[str, Any]:
        return super().encode(value) | {"extent": np.array(value.shape[:2], np.int32)}


@dataclasses.dataclass(frozen=True)
class DegradedImage(Image):
    """Image that is degraded after crop and moves, for restoration.

    Attributes:
      degradation: degradations in a line, see `vitjax.data.transforms.degrade`.
    """

    degradation: str = ""

    def encode(self, value: UInt8[np.ndarray, "h w c"]) -> dict[str, Any]:
        return super().encode(degrade(self.degradation, value))
