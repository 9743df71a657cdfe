"""RetinaNet's head (Lin et al., arXiv:1708.02002): classes and boxes of dense anchors.

Every function but the module's methods is of one image.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vitjax.detection import anchors as anchor
from vitjax.detection import boxes as box
from vitjax.detection import losses
from vitjax.detection.choice import top_k
from vitjax.detection.matching import NEGATIVE, ignore_crowds, match, overlaps
from vitjax.detection.nms import suppress
from vitjax.detection.results import Detections, LossParts, Targets
from vitjax.heads.blocks import at_least_float32, normal_001
from vitjax.heads.fpn import FPN
from vitjax.heads.neck import NECK_INIT, PYRAMID, MultiLevelNeck, lacks_pyramid
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.init import Init
from vitjax.layers.spec import spec

BOX_LOSSES = ("l1", "giou")
PRIOR = 0.01
"""First probability of every class (section 4.1)."""
Maps = tuple[Float[Array, "B _ _ _"], ...]


class DenseBoxes(NamedTuple):
    """Prediction for each anchor, level by level, row by row.

    Attributes:
      deltas: of boxes, as `boxes.encode` gives them.
      grids: height and width of each level.
    """

    logits: Float[Array, "B A K"]
    deltas: Float[Array, "B A 4"]
    grids: tuple[tuple[int, int], ...]


class RetinaNetHead(nn.Module):
    """A pyramid (`neck`, `extra_{i}`), and towers of convolutions that all of its levels share.

    They are `class_{i}`, `box_{i}`, and `class_logits`, `box_deltas` at their ends.

    Attributes:
      width: of pyramid and towers; `depth`: convolutions of a tower.
      strides: of the maps. Of one map alone, and of maps that share a stride, a pyramid is made
        first; see `MultiLevelNeck`.
      finest: stride of the first level; finer maps are not read.
      extra_levels: convolutions of stride 2 that go on from the coarsest map: the backbone's with
        `extra_from_backbone`, else the pyramid's.
      group_norm: the towers are normalised by GroupNorm of 32 groups.
      anchor_scale: side of a level's smallest square anchor, in strides; `octave_scales`: how many
        sizes there are up to twice that; `ratios`: heights / widths.
      positive, negative: IoU from which anchors are positive, below which they are negative.
      box_loss: "l1" of the encoded, or "giou" of decoded boxes.
      alpha, gamma: of the focal loss.
      score_threshold: least score of a detection; `candidates`: of each level, before suppression;
        `nms_threshold`: IoU from which the worse box of a class goes; `limit`: detections of an
        image.
    """

    num_classes: int
    width: int = 256
    depth: int = 4
    strides: tuple[int, ...] = PYRAMID
    finest: int = 8
    extra_levels: int = 2
    extra_from_backbone: bool = False
    group_norm: bool = False
    anchor_scale: float = 4.0
    octave_scales: int = 3
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    positive: float = 0.5
    negative: float = 0.4
    box_loss: str = "l1"
    alpha: float = 0.25
    gamma: float = 2.0
    score_threshold: float = 0.05
    candidates: int = 1000
    nms_threshold: float = 0.5
    limit: int = 100
    param_init: Init = Init(conv=normal_001)
    dtype: Any = None

    @nn.compact
    def __call__(self, maps: Maps, train: bool = False) -> DenseBoxes:
        """Compute logits and boxes of all anchors."""
        levels = self._pyramid(maps, train)
        each = self.octave_scales * len(self.ratios)
        conv = partial(
            nn.Conv, kernel_size=(3, 3), kernel_init=nn.initializers.normal(0.01), dtype=self.dtype
        )
        prior = nn.initializers.constant(-math.log((1 - PRIOR) / PRIOR))
        logits = conv(each * self.num_classes, bias_init=prior, name="class_logits")
        deltas = conv(each * 4, name="box_deltas")
        classes, boxes = self._tower("class"), self._tower("box")
        found: list[tuple[Array, Array]] = []
        for x in levels:
            y = z = x
            for a, b in zip(classes, boxes, strict=True):
                y, z = a(y, train), b(z, train)
            batch = x.shape[0]
            y = logits(y).reshape(batch, -1, self.num_classes)
            found.append((y, deltas(z).reshape(batch, -1, 4)))
        y, z = (at_least_float32(jnp.concatenate(part, axis=1)) for part in zip(*found))
        return DenseBoxes(y, z, tuple((x.shape[1], x.shape[2]) for x in levels))

    def _tower(self, name: str) -> list[ConvNorm]:
        norm = spec(nn.GroupNorm, num_groups=32, epsilon=1e-5, use_fast_variance=False)
        return [
            ConvNorm(
                self.width, 3, 1, 1, use_bias=not self.group_norm, act=nn.relu,
                norm=norm if self.group_norm else None, param_init=self.param_init,
                dtype=self.dtype, name=f"{name}_{i}",
            )
            for i in range(self.depth)
        ]  # fmt: skip

    def _pyramid(self, maps: Maps, train: bool) -> list[Array]:
        """Compute the levels, finest first."""
        strides = self.strides
        if lacks_pyramid(strides):
            maps = MultiLevelNeck(strides, dtype=self.dtype, name="resample")(maps, train)
            strides = PYRAMID
        maps = tuple(x for x, stride in zip(maps, strides, strict=True) if stride >= self.finest)
        levels = list(FPN(self.width, dtype=self.dtype, name="neck")(maps, train))
        x = maps[-1] if self.extra_from_backbone else levels[-1]
        for i in range(self.extra_levels):
            conv = ConvNorm(
                self.width, 3, 2, 1, param_init=NECK_INIT, dtype=self.dtype, name=f"extra_{i}"
            )
            x = conv(nn.relu(x) if i else x, train)
            levels.append(x)
        return levels

    def anchors(
        self, size: tuple[int, int], grids: tuple[tuple[int, int], ...]
    ) -> list[Float[Array, "_ 4"]]:
        """Compute the anchors of each level, for images of a size (height, width)."""
        smallest = self.anchor_scale * self.finest
        return [
            anchor.level_anchors(
                size, grid, anchor.octaves(smallest * 2**i, self.octave_scales), self.ratios
            )
            for i, grid in enumerate(grids)
        ]

    def loss(
        self, maps: Maps, size: tuple[int, int], targets: Targets, mask: Array, train: bool = False
    ) -> LossParts:
        """Compute the loss of images of a size, divided by the number of positive anchors."""
        del mask  # sums of each image
        found = self(maps, train)
        every = jnp.concatenate(self.anchors(size, found.grids))

        def one(
            logits: Array, deltas: Array, boxes: Array, classes: Array, wanted: Array, crowds: Array
        ) -> tuple[Array, Array, Array]:
            matched = assign(every, boxes, wanted, crowds, self.positive, self.negative)
            return anchor_losses(
                logits, deltas, every, matched, boxes, classes,
                alpha=self.alpha, gamma=self.gamma, box_loss=self.box_loss,
            )  # fmt: skip

        t = targets
        classes, boxes, positives = jax.vmap(one)(
            found.logits, found.deltas, t.boxes, t.classes, t.wanted, t.crowds
        )
        return LossParts({"class_loss": classes, "box_loss": boxes}, positives)

    def detect(self, maps: Maps, size: tuple[int, int], extent: Int[Array, "B 2"]) -> Detections:
        """Detect objects in images of a size, whose part `extent` is no padding."""
        found = self(maps)
        levels = self.anchors(size, found.grids)

        def one(logits: Array, deltas: Array, extent: Array) -> Detections:
            return select(
                logits, deltas, levels, extent, score_threshold=self.score_threshold,
                candidates=self.candidates, nms_threshold=self.nms_threshold, limit=self.limit,
            )  # fmt: skip

        return jax.vmap(one)(found.logits, found.deltas, extent)


def assign(
    anchors: Float[Array, "A 4"],
    boxes: Float[Array, "L 4"],
    wanted: Bool[Array, "L"],
    crowds: Bool[Array, "L"],
    positive: float,
    negative: float,
) -> Int[Array, "A"]:
    """Assign anchors to objects; each object has one at least. Those in crowds are ignored."""
    matched = match(overlaps(boxes, wanted, anchors), positive, negative, low_quality=True)
    return ignore_crowds(matched, boxes, crowds, anchors)


def anchor_losses(
    logits: Float[Array, "A K"],
    deltas: Float[Array, "A 4"],
    anchors: Float[Array, "A 4"],
    matched: Int[Array, "A"],
    boxes: Float[Array, "L 4"],
    classes: Int[Array, "L"],
    *,
    alpha: float,
    gamma: float,
    box_loss: str,
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Sum the losses of classes and of boxes over anchors; and count positive anchors."""
    positive = matched >= 0
    own = jnp.maximum(matched, 0)
    goal = jax.nn.one_hot(jnp.where(positive, classes[own], -1), logits.shape[1])
    focal = losses.sigmoid_focal_loss(logits, goal, alpha, gamma).sum(axis=1)
    # Anchors of negatives stand in for boxes that nothing is compared with.
    wanted = jnp.where(positive[:, None], boxes[own], anchors)
    if box_loss == "giou":
        each = losses.giou_loss(box.decode(deltas, anchors), wanted)
    else:
        each = losses.smooth_l1(deltas, box.encode(wanted, anchors), 0).sum(axis=1)
    counted = positive | (matched == NEGATIVE)
    return (
        jnp.where(counted, focal, 0).sum(),
        jnp.where(positive, each, 0).sum(),
        positive.sum().astype(jnp.float32),
    )


def select(
    logits: Float[Array, "A K"],
    deltas: Float[Array, "A 4"],
    levels: list[Float[Array, "_ 4"]],
    extent: Int[Array, "2"],
    *,
    score_threshold: float,
    candidates: int,
    nms_threshold: float,
    limit: int,
) -> Detections:
    """Decode the best pairs of anchor and class of each level, and suppress among all levels."""
    parts, start, classes = [], 0, logits.shape[1]
    for level in levels:
        rows = slice(start, start + len(level))
        scores = jax.nn.sigmoid(logits[rows]).reshape(-1)
        top, index = top_k(scores, candidates)
        own = index // classes
        found = box.clip(box.decode(deltas[rows][own], level[own]), extent)
        parts.append((found, top, index % classes))
        start += len(level)
    boxes, scores, labels = (jnp.concatenate(part) for part in zip(*parts))
    return suppress(boxes, scores, labels, scores > score_threshold, nms_threshold, limit)
