"""Mask R-CNN against torchvision's numbers, on other backbones, and its limits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.golden import detectors
from vitjax import weights
from vitjax.detection.matching import Sample
from vitjax.detection.results import Targets
from vitjax.detection.roi_align import level_of
from vitjax.heads import regions, rpn

GOLDEN: dict[str, Any] = dict(
    backbone="resnet50(frozen_statistics=True)",  # with the usual epsilon
    rpn_candidates=(600, 120), proposals=(200, 30), rpn_samples=20_000, nms_threshold=0.3, limit=16,
    samples=208, positive_share=0.08,  # more than there are, and 16 masks instead of 128
)  # fmt: skip


@pytest.mark.golden
@pytest.mark.slow
def test_mask_rcnn_is_that_of_torchvision() -> None:
    check()


def check() -> None:
    """Hold the model against the golden case, in the precision that is set."""
    case = detectors.Case("maskrcnn_r50_fpn")
    name, options = "mask_rcnn_resnet50", dict(GOLDEN, image_size=case.size)
    model: Any = vitjax.create_model(name, **options)
    variables = weights.from_torch(name, case.state, **options)
    # Their masks cover the image.
    whole = jnp.broadcast_to(jnp.array([0.0, 0, *case.size[::-1]]), (2, 4, 4))
    t = case.targets(1)._replace(masks=jnp.asarray(case.given("gt_masks")))
    rois, ones = jnp.asarray(case.given("rois"), case.dtype), jnp.ones(2)

    def losses(params, x):
        bound = model.bind({**variables, "params": params})
        maps, head = bound.backbone.features(x), bound.decode
        levels, dense = head.levels_and_anchors(maps)
        anchors = head.anchors(case.size, levels)
        pooled = [head.pool(levels, rois, n) for n in (7, 14)]
        logits, deltas = head.box_head(pooled[0])
        outputs = dict(zip((f"fpn_{i}" for i in ("0", "1", "2", "3", "pool")), levels))
        for n, kind in enumerate(("objectness", "deltas")):
            as_maps = (x.reshape(*m.shape[:3], -1) for x, m in zip(dense[n], levels))
            outputs |= {f"rpn_{kind}_{i}": x for i, x in enumerate(as_maps)}
        outputs |= {
            "box_roi_features": flat(pooled[0]),
            "box_cls_logits": flat(logits),
            "box_deltas": flat(deltas),
            "mask_roi_features": flat(pooled[1]),
            "mask_logits": flat(head.mask_head(pooled[1])),
        }
        extent = jnp.tile(jnp.array(case.size), (2, 1))
        rest = {
            "anchors": jnp.concatenate(anchors),
            "roi_levels": level_of(rois.reshape(-1, 4), 2, 5),
            "proposals": head.propose(dense, anchors, extent, train=False)[0],
            "train_proposals": head.propose(dense, anchors, extent, train=True)[0],
            "det": head.detections_of(levels, dense, case.size, extent),
        }
        loss = head.loss_of(levels, dense, case.size, t, ones, frames=whole)
        each = tuple(v.mean() for v in loss.parts.values())
        return sum(each), (outputs, rest, each)

    (outputs, rest, each), grads = detectors.gradient(losses, variables["params"], case.images)
    case.check_outputs(**outputs)
    case.check_losses(each)
    case.check_gradients(weights.to_torch(name, {"params": grads}, **options))
    check_references(case, rest, t)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == case.meta["num_params_with_frozen_bn_affine"]


def flat(x: Any) -> Any:
    """Join images and boxes; a map's channels come first."""
    x = x.reshape(-1, *x.shape[2:])
    return detectors.in_torch_order(x).reshape(len(x), -1)


def check_references(case: detectors.Case, rest: dict[str, Any], t: Targets) -> None:
    """Compare proposals, samples and detections."""
    case.check_refs(anchors=rest["anchors"], roi_levels=rest["roi_levels"])

    def assign(boxes, wanted, crowds):
        how: Any = dict(ious=(0.7, 0.3), count=20_000)
        return rpn.sample_anchors(rest["anchors"], boxes, wanted, crowds, None, **how)[0]

    def draw(proposals, boxes, classes, wanted, crowds):
        some = jnp.ones(len(proposals), bool)
        return regions.draw_regions(
            proposals, some, boxes, classes, wanted, crowds, None, iou=0.5, count=208, share=0.08
        )

    matched = np.asarray(jax.jit(jax.vmap(assign))(t.boxes, t.wanted, t.crowds))
    drawn = jax.jit(jax.vmap(draw))(rest["train_proposals"], t.boxes, t.classes, t.wanted, t.crowds)
    for i in range(2):
        labels = np.where(matched[i] >= 0, 1, np.where(matched[i] == -1, 0, -1))
        counts = [(labels == n).sum() for n in (1, 0, -1)]
        det = [np.asarray(x)[i] for x in rest["det"]]
        case.check_refs(**{
            f"proposals{i}": rest["proposals"][i],
            f"train_proposals{i}": rest["train_proposals"][i],
            f"rpn_labels{i}": labels, f"rpn_counts{i}": counts,
            f"det_boxes{i}": det[0], f"det_scores{i}": det[1], f"det_labels{i}": det[2] + 1,
            f"det_masks{i}": det[3][:, 1::3, 2::3],
        })  # fmt: skip
        # Theirs are in the order of the candidates, ours begin with the positive ones.
        every = np.concatenate([rest["train_proposals"][i], t.boxes[i]])
        ours: Any = regions.Regions(*(np.asarray(x)[i] for x in drawn))
        order = [int(np.abs(ours.boxes - one).sum(axis=1).argmin()) for one in every]
        case.check_refs(
            **{
                f"roi_labels{i}": ours.classes[order],
                f"roi_matched{i}": ours.matched[order],
                f"roi_sampled{i}": ours.boxes[order][-8:],
            }
        )


@pytest.mark.slow
def test_samples_may_be_given() -> None:
    """As masks over anchors, and over proposals and objects: 4 levels' and 11 + 2 of them."""
    model: Any = vitjax.create_model(
        "mask_rcnn", 5, backbone="resnet50(depths=(1, 1))", width=16, box_width=16,
        proposals=(11, 11), samples=8, image_size=32,
    )  # fmt: skip
    shapes = weights.abstract_variables(model)
    anchors = 3 * (8 * 8 + 4 * 4 + 2 * 2)
    some = jnp.ones((1, 2), bool)
    t = Targets(
        jnp.ones((1, 2, 4)), jnp.zeros((1, 2), int), ~some, some, jnp.ones((1, 2, 9, 9), "u1")
    )

    def loss(variables, images, first, second):
        bound = model.bind(variables)
        given = bound.decode.levels_and_anchors(bound.backbone.features(images))
        return bound.decode.loss_of(
            *given, (32, 32), t, jnp.ones(1), drawn=(Sample(first, first), Sample(second, second))
        )

    def masks(count: int) -> Any:
        return jax.ShapeDtypeStruct((1, count), bool)

    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    found = jax.eval_shape(loss, shapes, images, masks(anchors), masks(13))
    assert {part.shape for part in found.parts.values()} == {(1,)}
    with pytest.raises(ValueError, match="14 entries, and there are 11 proposals and 2 objects"):
        jax.eval_shape(loss, shapes, images, masks(anchors), masks(14))
