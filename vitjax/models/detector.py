"""`Detector`: a backbone of the menu and a head that finds objects."""

from typing import Any, ClassVar

from jaxtyping import Array, Float, Int

from vitjax.detection.results import Detections, LossParts, Targets
from vitjax.models.dense import DenseModel


class Detector(DenseModel):
    """Backbone and head of a detector: parameters `backbone`, `head`.

    The head is called with the maps, and computes what it predicts at each anchor or query; its
    methods `loss` and `detect` make a loss, or detections, of the same maps.
    """

    output: ClassVar[str] = "boxes"

    @property
    def has_masks(self) -> bool:
        """Return whether detections have masks, and the loss needs those of objects."""
        return bool(dict(self.head.kwargs).get("with_masks", False))

    @property
    def aligned(self) -> bool:
        """Return whether masks are read at the centres of pixels; see `roi_align`."""
        return bool(dict(self.head.kwargs).get("aligned", False))

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Any:  # type: ignore[override]
        """Compute what the head predicts, before any selection."""
        return self.decode(self.backbone.features(images, train), train)

    def loss(
        self,
        images: Float[Array, "B H W c"],
        targets: Targets,
        mask: Float[Array, "B"],
        train: bool = False,
    ) -> LossParts:
        """Compute the loss of images with their objects.

        Args:
          mask: 1 for images that count.
        """
        maps = self.backbone.features(images, train)
        size = (images.shape[1], images.shape[2])
        return self.decode.loss(maps, size, targets, mask, train)

    def detect(self, images: Float[Array, "B H W c"], extent: Int[Array, "B 2"]) -> Detections:
        """Detect objects.

        Args:
          extent: height and width of each image; the rest, at right and bottom, is padding.
        """
        size = (images.shape[1], images.shape[2])
        return self.decode.detect(self.backbone.features(images), size, extent)
