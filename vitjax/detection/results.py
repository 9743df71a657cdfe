"""What detectors are given and what they return: targets, detections, and the parts of a loss."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int, UInt8


class Targets(NamedTuple):
    """Labelled objects of a batch of images, padded to L each.

    Attributes:
      boxes: in pixels.
      classes: from 0; -1 where padded.
      crowd: whether a box holds many objects that are not told apart. It is no target, and what is
        found in it counts neither way.
      valid: False where padded.
      masks: of 0 and 1, each over its own box; None without.
      extent: height and width of each image, whose canvas is padded beyond; None: there is none.
    """

    boxes: Float[Array, "B L 4"]
    classes: Int[Array, "B L"]
    crowd: Bool[Array, "B L"]
    valid: Bool[Array, "B L"]
    masks: UInt8[Array, "B L m m"] | None = None
    extent: Int[Array, "B 2"] | None = None

    @property
    def wanted(self) -> Bool[Array, "B L"]:
        """Return which objects are to be found: no padding, no crowd, with an area."""
        sides = self.boxes[..., 2:] - self.boxes[..., :2]
        return self.valid & ~self.crowd & (sides > 0).all(axis=-1)

    @property
    def crowds(self) -> Bool[Array, "B L"]:
        """Return which boxes are crowds."""
        return self.valid & self.crowd


class Detections(NamedTuple):
    """What was found in a batch of images, best first, padded to N each.

    Attributes:
      boxes: in pixels of the model's images.
      scores: 0 where padded.
      classes: from 0; -1 where padded.
      masks: probabilities, each over its own box; None without.
    """

    boxes: Float[Array, "B N 4"]
    scores: Float[Array, "B N"]
    classes: Int[Array, "B N"]
    masks: Float[Array, "B N m m"] | None = None


class LossParts(NamedTuple):
    """Loss of a batch by its parts: Σ over parts and images / Σ `weight` is minimised.

    Attributes:
      parts: name → value of each image.
      weight: of each image.
    """

    parts: dict[str, Float[Array, "B"]]
    weight: Float[Array, "B"]
