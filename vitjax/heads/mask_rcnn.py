"""Head of Mask R-CNN (He et al., arXiv:1703.06870): proposals, then classes, boxes and masks."""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vitjax.detection import anchors as anchor
from vitjax.detection.matching import Sample
from vitjax.detection.results import Detections, LossParts, Targets
from vitjax.detection.roi_align import level_of, multi_level_roi_align
from vitjax.heads import regions, rpn
from vitjax.heads.fpn import FPN
from vitjax.heads.neck import PYRAMID, MultiLevelNeck, lacks_pyramid
from vitjax.layers.init import NORMAL, Init

Maps = tuple[Float[Array, "B _ _ _"], ...]
Dense = tuple[list[Array], list[Array]]
"""Logits and deltas of the anchors of each level."""


class MaskRCNNHead(nn.Module):
    """A pyramid (`neck`), proposals (`rpn`), and heads of regions (`box_head`, `mask_head`).

    Pairs are of training, and of evaluation.

    Attributes:
      with_masks: False for Faster R-CNN, without `mask_head`.
      width: of the pyramid; `box_width`: of the linear layers.
      strides: see `RetinaNetHead`.
      anchor_scale: side of a level's square anchor, in strides; `ratios`: heights / widths.
      rpn_ious: of anchors, from which they are positive, and below which they are negative.
      rpn_samples: anchors drawn from an image, half of them positive at most.
      rpn_candidates: of each level, before suppression by `rpn_nms`; `proposals`: of an image.
      box_beta: of the smooth L1 losses of boxes; 0 for L1.
      iou: from which a region is positive; `samples`: regions drawn from an image,
        `positive_share` of them positive at most.
      box_bins, mask_bins: RoIAlign's; masks have twice as many pixels.
      sampling_ratio, aligned: see `roi_align`; `aligned` also of the masks that are learnt.
      score_threshold, candidates, nms_threshold, limit: of detections; see `RetinaNetHead`.
    """

    num_classes: int
    with_masks: bool = True
    width: int = 256
    box_width: int = 1024
    strides: tuple[int, ...] = PYRAMID
    anchor_scale: float = 8.0
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_ious: tuple[float, float] = (0.7, 0.3)
    rpn_samples: int = 256
    rpn_candidates: tuple[int, int] = (2000, 1000)
    rpn_nms: float = 0.7
    proposals: tuple[int, int] = (2000, 1000)
    box_beta: float = 1 / 9
    iou: float = 0.5
    samples: int = 512
    positive_share: float = 0.25
    box_bins: int = 7
    mask_bins: int = 14
    sampling_ratio: int = 2
    aligned: bool = False
    score_threshold: float = 0.05
    candidates: int = 2000
    nms_threshold: float = 0.5
    limit: int = 100
    param_init: Init = NORMAL
    dtype: Any = None

    def setup(self) -> None:
        dtype = self.dtype
        if lacks_pyramid(self.strides):
            self.resample = MultiLevelNeck(self.strides, dtype=dtype)
        self.neck = FPN(self.width, dtype=dtype)
        self.rpn = rpn.RPN(self.width, len(self.ratios), dtype)
        self.box_head = regions.BoxHead(self.num_classes + 1, self.box_width, dtype)
        if self.with_masks:
            self.mask_head = regions.MaskHead(self.num_classes + 1, self.width, dtype=dtype)

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of each level that regions are pooled from."""
        return PYRAMID if lacks_pyramid(self.strides) else self.strides

    def pyramid(self, maps: Maps, train: bool = False) -> list[Array]:
        """Compute the levels, finest first; of the last one no regions are pooled."""
        if lacks_pyramid(self.strides):
            maps = self.resample(maps, train)
        levels = self.neck(maps, train)
        return [*levels, levels[-1][:, ::2, ::2]]

    def __call__(self, maps: Maps, train: bool = False) -> Dense:
        """Compute logits and deltas of the anchors, from which proposals are made."""
        levels, dense = self.levels_and_anchors(maps, train)
        if self.is_initializing():
            for head, bins in self._region_heads():
                head(jnp.zeros((1, bins, bins, self.width), levels[0].dtype))
        return dense

    def levels_and_anchors(self, maps: Maps, train: bool = False) -> tuple[list[Array], Dense]:
        """Compute the levels, and logits and deltas of their anchors."""
        levels = self.pyramid(maps, train)
        return levels, self.rpn(levels, train)

    def _region_heads(self) -> list[tuple[nn.Module, int]]:
        masks = [(self.mask_head, self.mask_bins)] if self.with_masks else []
        return [(self.box_head, self.box_bins), *masks]

    def anchors(self, size: tuple[int, int], levels: list[Array]) -> list[Array]:
        """Compute the anchors of each level, for images of a size (height, width)."""
        smallest = self.anchor_scale * self.pyramid_strides[0]
        return [
            anchor.level_anchors(size, (x.shape[1], x.shape[2]), (smallest * 2**i,), self.ratios)
            for i, x in enumerate(levels)
        ]

    def pool(
        self, levels: list[Array], boxes: Float[Array, "B N 4"], bins: int
    ) -> Float[Array, "B N bins bins C"]:
        """Pool regions from the level that fits their size."""
        strides = self.pyramid_strides
        ends = (round(math.log2(strides[0])), round(math.log2(strides[-1])))

        def one(boxes: Array, *levels: Array) -> Array:
            return multi_level_roi_align(
                levels, strides, boxes, level_of(boxes, *ends), (bins, bins), self.sampling_ratio,
                self.aligned,
            )  # fmt: skip

        return jax.vmap(one)(boxes, *levels[: len(strides)])

    def propose(
        self, dense: Dense, anchors: list[Array], extent: Int[Array, "B 2"], train: bool
    ) -> tuple[Float[Array, "B R 4"], Bool[Array, "B R"]]:
        """Propose regions of each image, without a gradient."""
        which = 0 if train else 1

        def one(logits: list[Array], deltas: list[Array], extent: Array) -> tuple[Array, Array]:
            return rpn.propose(
                logits, deltas, anchors, extent, candidates=self.rpn_candidates[which],
                threshold=self.rpn_nms, limit=self.proposals[which],
            )  # fmt: skip

        return jax.vmap(one)(*jax.lax.stop_gradient(dense), extent)

    def loss(
        self, maps: Maps, size: tuple[int, int], targets: Targets, mask: Array, train: bool = False
    ) -> LossParts:
        """Compute the losses of images of a size; see `loss_of`."""
        return self.loss_of(*self.levels_and_anchors(maps, train), size, targets, mask)

    def loss_of(
        self,
        levels: list[Array],
        dense: Dense,
        size: tuple[int, int],
        targets: Targets,
        mask: Float[Array, "B"],
        drawn: tuple[Sample, Sample] | None = None,
        frames: Float[Array, "B L 4"] | None = None,
    ) -> LossParts:
        """Compute the losses, of which each is a mean over the batch's samples.

        Samples are drawn by the random stream "sample"; without one the first are taken.

        Args:
          levels, dense: as `levels_and_anchors` gives them.
          mask: 1 for images that count.
          drawn: anchors and regions instead, as masks `[B, …]`; see `draw_regions`.
          frames: boxes over which the targets' masks lie; None for their own.
        """
        t, batch = targets, len(mask)
        anchors = self.anchors(size, levels)
        every = jnp.concatenate(anchors)
        keys: list[Array | None] = [None, None]
        if self.has_rng("sample"):
            keys = [jax.random.split(self.make_rng("sample"), batch) for _ in range(2)]
        given = drawn or (None, None)

        def of_anchors(key, chosen, logits, deltas, boxes, wanted, crowds):
            matched, found = rpn.sample_anchors(
                every, boxes, wanted, crowds, key, ious=self.rpn_ious, count=self.rpn_samples
            )
            found = found if chosen is None else chosen
            return rpn.rpn_losses(logits, deltas, every, boxes, matched, found, self.box_beta)

        logits, deltas = (jnp.concatenate(part, axis=1) for part in dense)
        first = jax.vmap(of_anchors)(keys[0], given[0], logits, deltas, t.boxes, t.wanted, t.crowds)
        extent = jnp.tile(jnp.array(size), (batch, 1))
        proposals, some = self.propose(dense, anchors, extent, train=True)

        def draw(key, chosen, proposals, some, boxes, classes, wanted, crowds):
            return regions.draw_regions(
                proposals, some, boxes, classes, wanted, crowds, key, iou=self.iou,
                count=self.samples, share=self.positive_share, drawn=chosen,
            )  # fmt: skip

        chosen = jax.vmap(draw)(
            keys[1], given[1], proposals, some, t.boxes, t.classes, t.wanted, t.crowds
        )
        logits, deltas = self.box_head(self.pool(levels, chosen.boxes, self.box_bins))
        of_regions = partial(regions.box_losses, beta=self.box_beta)
        second = jax.vmap(of_regions)(logits, deltas, chosen, t.boxes)
        sums = {
            "objectness_loss": (first[0], first[2]),
            "proposal_loss": (first[1], first[2]),
            "class_loss": (second[0], second[2]),
            "box_loss": (second[1], second[2]),
        }
        if self.with_masks:
            frames = t.boxes if frames is None else frames
            sums["mask_loss"] = self._mask_loss(levels, chosen, t, frames)
        parts = {name: batch_mean(total, n, mask) for name, (total, n) in sums.items()}
        return LossParts(parts, jnp.ones(batch))

    def _mask_loss(
        self, levels: list[Array], chosen: regions.Regions, targets: Targets, frames: Array
    ) -> tuple[Array, Array]:
        """Sum the loss of the masks of positive regions, which come first, and count these."""
        count = min(int(self.samples * self.positive_share), chosen.boxes.shape[1])
        logits = self.mask_head(self.pool(levels, chosen.boxes[:, :count], self.mask_bins))
        masks = targets.masks
        if masks is None:
            raise ValueError("Mask R-CNN learns masks, and the targets have none.")

        losses = partial(regions.mask_losses, aligned=self.aligned)
        return jax.vmap(losses)(logits, chosen, masks, frames)

    def detect(self, maps: Maps, size: tuple[int, int], extent: Int[Array, "B 2"]) -> Detections:
        """Detect objects in images of a size, whose part `extent` is no padding."""
        return self.detections_of(*self.levels_and_anchors(maps), size, extent)

    def detections_of(
        self, levels: list[Array], dense: Dense, size: tuple[int, int], extent: Int[Array, "B 2"]
    ) -> Detections:
        """Detect objects; see `detect` and `levels_and_anchors`."""
        anchors = self.anchors(size, levels)
        proposals, some = self.propose(dense, anchors, extent, train=False)
        logits, deltas = self.box_head(self.pool(levels, proposals, self.box_bins))

        select = partial(
            regions.select_regions,
            score_threshold=self.score_threshold,
            candidates=self.candidates,
            nms_threshold=self.nms_threshold,
            limit=self.limit,
        )
        found = jax.vmap(select)(logits, deltas, proposals, some, extent)
        if not self.with_masks:
            return found
        logits = self.mask_head(self.pool(levels, found.boxes, self.mask_bins))
        return found._replace(masks=jax.vmap(regions.masks_of_classes)(logits, found.classes))


def batch_mean(
    sums: Float[Array, "B"], counts: Float[Array, "B"], mask: Float[Array, "B"]
) -> Float[Array, "B"]:
    """Scale sums so that their mean over images is the mean over the batch's samples."""
    total = jnp.maximum((counts * mask).sum(), 1)
    return sums * (mask.sum() / total)
