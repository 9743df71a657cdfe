"""Boxes, matching, losses and anchors against torchvision's numbers and by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import load_golden
from tests.golden.compare import FOLDER
from vitjax.detection import anchors, boxes, losses, matching, nms


def case(name: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Arrays of a golden case, and the tolerance of each reference."""
    data, meta, _ = load_golden.load(FOLDER / f"{name}.npz")
    return data, {r["name"]: 5 * r.get("f32_noise", 0) + 1e-6 for r in meta["refs"]}


def check(data: dict[str, Any], tolerance: dict[str, float], **found: Any) -> None:
    """Compare results with references of their names."""
    for name, ours in found.items():
        theirs = data.get(f"ref::{name}_f64", data[f"ref::{name}"])
        ours = np.asarray(ours)
        if theirs.dtype.kind == "i":
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance[name], err_msg=name)


@pytest.mark.golden
def test_boxes_are_those_of_torchvision() -> None:
    data, tolerance = case("box_utils")
    a, b, deltas = (jnp.asarray(data[f"in::{n}"]) for n in ("boxes_a", "boxes_b", "deltas"))
    pairs = {n: getattr(boxes, n) for n in ("iou", "giou", "diou", "ciou")}
    n = len(a)
    check(
        data,
        tolerance,
        **{name: f(a[:, None], b) for name, f in pairs.items()},
        encode=boxes.encode(a, b[:n]),
        decode=boxes.decode(deltas, b),
        cxcywh=boxes.to_center(a),
        clipped=boxes.clip(b, jnp.array([120, 160])),
    )
    np.testing.assert_allclose(boxes.from_center(boxes.to_center(a)), a, atol=1e-4)


@pytest.mark.golden
def test_matches_and_suppression_are_those_of_torchvision() -> None:
    data, tolerance = case("box_utils")
    _, meta, _ = load_golden.load(FOLDER / "box_utils.npz")
    kw = meta["kwargs"]
    a, b = jnp.asarray(data["in::boxes_a"][:5]), jnp.asarray(data["in::boxes_b"])
    overlap = matching.overlaps(a, jnp.ones(5, bool), b)
    high, low = kw["matcher_high"], kw["matcher_low"]
    check(
        data,
        tolerance,
        match_strict=matching.match(overlap, high, low),
        match_lowq=matching.match(overlap, high, low, low_quality=True),
    )
    cand, scores, labels = (
        jnp.asarray(data[f"in::{n}"]) for n in ("cand", "cand_scores", "cand_labels")
    )
    for name, groups in (("nms", None), ("batched_nms", labels)):
        remain = nms.nms(cand, scores, kw["nms_iou"], groups=groups)
        index, some = nms.best(scores, remain, 99)
        check(data, tolerance, **{name: np.asarray(index)[np.asarray(some)]})


@pytest.mark.golden
def test_losses_are_those_of_torch() -> None:
    data, tolerance = case("det_losses")
    names = ("logits", "targets", "pred", "goal", "pboxes", "tboxes", "mlog", "mtgt")
    check(data, tolerance, **all_losses(*(jnp.asarray(data[f"in::{k}"]) for k in names)))


@jax.jit
def all_losses(x, t, pred, goal, p, q, m, n):
    """Losses and gradients by the names of the golden case."""

    def dice(m):
        return losses.dice_loss(m.reshape(9, -1), n.reshape(9, -1)) / 5

    def smooth(x):
        return losses.smooth_l1(x, goal, 1 / 9)

    def focal(x):
        return losses.sigmoid_focal_loss(x, t)

    several = {"focal": (focal, x), "smooth_l1": (smooth, pred)}
    overlaps = {n: getattr(losses, n) for n in ("giou_loss", "diou_loss", "ciou_loss")}
    several |= {n: (lambda p, f=f: f(p, q), p) for n, f in overlaps.items()}
    found = {name: f(at) for name, (f, at) in several.items()}
    found |= {
        f"{k}_grad": jax.grad(lambda x, f=f: f(x).sum())(at) for k, (f, at) in several.items()
    }
    return found | dict(
        focal_noalpha=losses.sigmoid_focal_loss(x, t, alpha=-1),
        l1=losses.smooth_l1(pred, goal, 0),
        smooth_l1_sum_over_n=smooth(pred).sum() / len(pred),
        dice_detr=dice(m).sum(),
        dice_detr_grad=jax.grad(lambda m: dice(m).sum())(m),
        focal_detr=focal(x).mean(axis=1).sum() / 5,
        bce=losses.binary_cross_entropy(m, n).mean(),
    )


def test_empty_boxes_have_finite_losses_and_gradients() -> None:
    point = jnp.array([[3.0, 3, 3, 3], [3, 3, 5, 3], [0, 0, 0, 0]])

    def total(p):
        pairs = (losses.giou_loss, losses.diou_loss, losses.ciou_loss)
        code = boxes.encode(p, point) + boxes.decode(p / 10, point)
        return sum(f(p, point).sum() for f in pairs) + code.sum() + boxes.iou(p, point).sum()

    value, grad = jax.jit(jax.value_and_grad(total))(point)
    assert np.isfinite(value) and np.isfinite(grad).all()
    np.testing.assert_array_equal(boxes.iou(point, point), 0)


def greedy(box: np.ndarray, scores: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Suppress by a loop over ranks, for many sets `[S, N]` at once."""
    sets, n = scores.shape
    order, each = np.argsort(-scores, axis=1, kind="stable"), np.arange(sets)
    remain = np.zeros((sets, n), bool)
    for rank in range(n):
        mine = box[each, order[:, rank]][:, None]
        low, high = np.maximum(mine[..., :2], box[..., :2]), np.minimum(mine[..., 2:], box[..., 2:])
        shared = np.maximum(high - low, 0).prod(-1)
        areas = [(b[..., 2:] - b[..., :2]).prod(-1) for b in (mine, box)]
        over = shared / np.maximum(areas[0] + areas[1] - shared, 1e-9) > threshold[:, None]
        remain[each, order[:, rank]] = ~(over & remain).any(axis=1)
    return remain


def test_suppression_is_greedy_on_ten_thousand_sets() -> None:
    """Of small whole boxes, so that scores, overlaps and thresholds tie often."""
    rng = np.random.default_rng(0)
    sets, n = 10_007, 13
    corner = rng.integers(0, 7, (sets, n, 2))
    box = np.concatenate([corner, corner + rng.integers(0, 7, (sets, n, 2))], axis=-1)
    box = box.astype(np.float32)
    scores = (rng.integers(0, 19, (sets, n)) / 19).astype(np.float32)
    threshold = rng.choice(np.arange(1, 10) / 10, sets).astype(np.float32)
    ours = jax.jit(jax.vmap(nms.nms))(box, scores, threshold)
    wanted = greedy(box, scores, threshold)
    np.testing.assert_array_equal(ours, wanted)
    assert 0.2 < wanted.mean() < 0.9
    chain = jnp.stack([jnp.array([i, 0, i + 3.0, 1]) for i in range(17)])  # each overlaps the next
    remain = nms.nms(chain, -jnp.arange(17.0), 0.4, valid=jnp.arange(17) > 0)
    np.testing.assert_array_equal(np.flatnonzero(remain), np.arange(1, 17, 2))


def test_crowds_and_invalid_objects_are_no_targets() -> None:
    objects = jnp.array([[0.0, 0, 4, 4], [10, 0, 20, 10], [0, 0, 4, 4]])
    reference = jnp.array([[0.0, 0, 4, 4], [11, 1, 13, 3], [30, 0, 34, 4], [0, 0, 4, 5]])
    valid, crowd = jnp.array([True, False, False]), jnp.array([False, True, False])
    matched = matching.match(matching.overlaps(objects, valid, reference), 0.9, 0.4)
    np.testing.assert_array_equal(matched, [0, -1, -1, -2])
    matched = matching.ignore_crowds(matched, objects, crowd, reference)
    np.testing.assert_array_equal(matched, [0, -2, -1, -2])
    none = matching.overlaps(objects, jnp.zeros(3, bool), reference)
    np.testing.assert_array_equal(matching.match(none, 0.5, 0.4, low_quality=True), -1)


@pytest.mark.parametrize(("count", "share", "drawn"), [(5, 0.4, (2, 3)), (7, 0.9, (4, 3))])
def test_samples_have_their_share_of_positives(count: int, share: float, drawn: Any) -> None:
    matched = jnp.array([0, -1, 1, -2, -1, 2, -1, -1, 0, -2, -1])
    for key in (None, jax.random.key(0), jax.random.key(1)):
        positive, negative = matching.sample(matched, count, share, key)
        assert (int(positive.sum()), int(negative.sum())) == drawn
        assert (matched[positive] >= 0).all() and (matched[negative] == -1).all()
    everything = matching.sample(matched, 1000, 0.5, None)
    assert (int(everything.positive.sum()), int(everything.negative.sum())) == (4, 5)


def test_anchors_by_hand() -> None:
    """One cell of 7 pixels: a side of 85 over 11 cells is rounded down."""
    found = anchors.level_anchors((85, 85), (11, 11), (32,), (0.5, 1, 2))
    np.testing.assert_array_equal(found[1], [-16, -16, 16, 16])
    np.testing.assert_array_equal(found[0], [-23, -11, 23, 11])
    np.testing.assert_array_equal(found[-1] - found[2], [70, 70, 70, 70])
    assert anchors.octaves(32, 3) == (32, 40, 50)
