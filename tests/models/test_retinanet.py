"""RetinaNet against torchvision's numbers, on other backbones, and its limits."""

import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import vitjax
from tests.golden import detectors
from tests.golden.compare import check_stages
from tests.models.test_pvt import noisy, run
from vitjax import weights
from vitjax.detection.results import Targets
from vitjax.heads import retinanet as head

STAGES: dict[str, tuple[str, ...]] = {
    **{f"backbone.body.layer{i + 1}": ("backbone", f"stage_{i}") for i in range(4)},
    **{f"backbone.fpn.{n}.0": ("head", "neck", o) for n, o in (("layer_blocks", "fpn_0"),)},
    "head.classification_head.conv": ("head", "class_3"),
    "head.regression_head.conv": ("head", "box_3"),
}
LEVELS = {
    "fpn_0": ("neck", "fpn_0"),
    "fpn_1": ("neck", "fpn_1"),
    "fpn_2": ("neck", "fpn_2"),
    "fpn_p6": ("extra_0",),
    "fpn_p7": ("extra_1",),
}
TINY: dict[str, Any] = dict(
    backbone="resnet50(depths=(1, 1), frozen_statistics=True)",
    width=16, depth=1, extra_levels=1, image_size=64, candidates=37, limit=11,
)  # fmt: skip


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize(("version", "name"), [("v1", "resnet50"), ("v2", "resnet50_v2")])
def test_retinanet_is_that_of_torchvision(version: str, name: str) -> None:
    check(f"retinanet_r50_fpn_{version}", f"retinanet_{name}", gradients=version == "v2")


def check(case_name: str, name: str, gradients: bool) -> None:
    """Hold a form against its golden case, in the precision that is set."""
    case = detectors.Case(case_name)
    options: dict[str, Any] = dict(image_size=case.size, candidates=60, limit=25)
    if name == "retinanet_resnet50":
        options["backbone"] = "resnet50(frozen_statistics=True)"  # with the usual epsilon
    model: Any = vitjax.create_model(name, score_threshold=0.5, **options)
    variables = weights.from_torch(name, case.state, **options)
    targets = case.targets(0)
    wanted = {("head",), *STAGES.values(), *(("head", *path) for path in LEVELS.values())}
    ones = jnp.ones(len(case.images))

    def losses(params, x):
        loss, sown = model.apply(
            {**variables, "params": params},
            x,
            targets,
            ones,
            method="loss",
            mutable=["intermediates"],
            capture_intermediates=lambda m, method: method == "__call__" and m.path in wanted,
        )
        sown = sown["intermediates"]
        outputs = {n: at(sown["head"], path)[-1] for n, path in LEVELS.items()}
        found = sown["head"]["__call__"][0]
        outputs |= {"cls_logits": found.logits, "bbox_regression": found.deltas}
        each = tuple((v / jnp.maximum(loss.weight, 1)).mean() for v in loss.parts.values())
        del sown["head"]["__call__"]  # with sizes, which are no arrays
        return sum(each), (outputs, sown, each)

    found = (jax.jit(losses)(variables["params"], case.images)[1], None)
    if gradients:
        found = detectors.gradient(losses, variables["params"], case.images)
    (outputs, sown, each), grads = found
    case.check_outputs(**outputs)
    check_stages(
        case.data, first_calls(sown), {k: v for k, v in STAGES.items() if k in case.stages}
    )
    case.check_losses(each)
    if gradients:
        case.check_gradients(weights.to_torch(name, {"params": grads}, **options))
    check_selection(case, model, outputs)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == case.meta.get("num_params_with_frozen_bn_affine", case.meta["num_params"])


def check_selection(case: detectors.Case, model: Any, outputs: dict[str, Any]) -> None:
    """Compare anchors, matches and detections, made of the outputs."""
    own = model.head.offer(num_classes=91).build()
    grids = tuple(outputs[level].shape[1:3] for level in LEVELS)
    levels = own.anchors(case.size, grids)
    case.check_refs(anchors=np.concatenate(levels), num_anchors_per_level=[len(a) for a in levels])
    t, every = case.targets(0), jnp.concatenate(levels)

    def one(logits, deltas, boxes, wanted, crowds):
        kw: Any = dict(score_threshold=0.5, candidates=60, nms_threshold=0.5, limit=25)
        extent = jnp.array(case.size)
        return (
            head.assign(every, boxes, wanted, crowds, own.positive, own.negative),
            head.select(logits, deltas, levels, extent, **kw),
        )

    given = (outputs["cls_logits"], outputs["bbox_regression"])
    matched, found = jax.jit(jax.vmap(one))(*given, t.boxes, t.wanted, t.crowds)
    for i in range(len(case.images)):
        case.check_refs(
            **{
                f"matched_idxs{i}": matched[i],
                f"det_boxes{i}": found.boxes[i],
                f"det_scores{i}": found.scores[i],
                f"det_labels{i}": found.classes[i],
            }
        )


def at(tree: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree["__call__"]


def first_calls(tree: Any) -> Any:
    """Keep what modules that all levels share gave for the first level."""
    return jax.tree.map(lambda calls: calls[:1], tree, is_leaf=lambda x: isinstance(x, tuple))


def objects(*boxes: tuple[float, ...], crowd: int | None = None) -> Targets:
    """Objects of one image, of classes 0, 1, …, of which one may be a crowd."""
    n = len(boxes)
    crowds = np.arange(n) == (-1 if crowd is None else crowd)
    return Targets(
        jnp.asarray([boxes], jnp.float32),
        jnp.arange(n)[None],
        jnp.asarray(crowds)[None],
        jnp.ones((1, n), bool),
    )


@pytest.mark.slow
def test_losses_and_gradients_are_finite() -> None:
    """Of objects without area, which are none, of a crowd, which counts neither way, and of one."""
    model: Any = vitjax.create_model("retinanet", 5, **TINY)
    variables, images = noisy(model)
    loss = jax.jit(jax.value_and_grad(lambda v, t: losses_of(model, v, images, t), has_aux=True))
    found = {
        "none": objects((9, 9, 9, 30), (5, 5, 5, 5)),
        "all": objects((0, 0, 64, 64), (5, 5, 5, 5), crowd=0),
        "one": objects((10, 12, 40, 44), (5, 5, 5, 5)),
    }
    values, weight, grads = {}, {}, {}
    for name, targets in found.items():
        (values[name], weight[name]), grads = loss(variables, targets)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads)), name
    head = grads["params"]["head"]
    assert all(np.abs(head[n]["kernel"]).max() > 0 for n in ("class_logits", "box_deltas"))
    assert weight["none"] == weight["all"] == 0 and weight["one"] > 0
    assert 0 < values["all"] < 0.5 * values["none"]  # of anchors that mostly lie outside alone


def losses_of(model: Any, variables: Any, images: Any, targets: Targets) -> tuple[Any, Any]:
    """Sum the parts of the loss, and the weights."""
    found = model.apply(variables, images, targets, jnp.ones(1), method="loss")
    return sum(part.sum() for part in found.parts.values()), found.weight.sum()


def test_detections_of_padded_images() -> None:
    model = vitjax.create_model("retinanet", 5, **TINY, score_threshold=0.0)
    variables, images = noisy(model, batch=2)
    extent = jnp.array([[64, 64], [40, 24]])
    found = run(model, variables, images, extent, method="detect")
    assert found.boxes.shape == (2, 11, 4) and (np.diff(found.scores) <= 0).all()
    assert (found.classes >= 0).all() and found.boxes.min() >= 0
    assert found.boxes[1, :, 2].max() <= 24 and found.boxes[1, :, 3].max() <= 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "depth", "official"),
    [
        ("retinanet_resnet50", 50, 34_068_119),
        ("retinanet_resnet50", 101, 53_060_247),
        ("retinanet_resnet50_v2", 50, 38_198_935),
        ("mask_rcnn_resnet50", 50, 44_454_513),
        ("mask_rcnn_resnet50", 101, 63_446_641),
        ("faster_rcnn_resnet50", 50, 41_808_406),
    ],
)
def test_sizes_are_the_official_ones(name: str, depth: int, official: int) -> None:
    """With what of a BatchNorm does not train there, which torchvision's figures leave out."""
    model = vitjax.create_model(name, backbone=f"resnet{depth}")
    params = weights.abstract_variables(model)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == official


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    ["vit_ti16(depth=1)", "swin_tiny(dims=(8, 16), depths=(1, 1), num_heads=(1, 2))"],
)
@pytest.mark.parametrize("name", ["retinanet", "mask_rcnn"])
def test_weights_there_and_back(name: str, backbone: str) -> None:
    """On a backbone of one map, of which a pyramid is made, and of two."""
    options: dict[str, Any] = dict(backbone=backbone, width=32, image_size=64)
    shapes = weights.abstract_variables(vitjax.create_model(name, 5, **options))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    state = weights.to_torch(name, zeros, **options)
    again = weights.from_torch(name, state, 5, **options)
    assert jax.tree.map(np.shape, again) == jax.tree.map(np.shape, zeros)


def test_older_files_and_other_classes(tmp_path: pathlib.Path) -> None:
    """Names without the modules around convolutions; of other classes the head is new."""
    options: dict[str, Any] = dict(
        backbone="resnet50(depths=(1, 1))", width=32, depth=2, image_size=32
    )
    shapes = weights.abstract_variables(vitjax.create_model("retinanet", 7, **options))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.random(x.shape, np.float32), shapes)
    state = weights.to_torch("retinanet", variables, **options)
    older = {}
    for key, array in state.items():
        key = re.sub(r"^(fpn\..*_blocks\.\d)\.0\.", r"backbone.\1.", key)
        key = re.sub(r"^backbone\.(?!fpn)", "backbone.body.", key)
        key = re.sub(r"^fpn\.", "backbone.fpn.", key)
        key = re.sub(r"(_head\.conv\.)(\d)\.0\.", lambda m: f"{m[1]}{2 * int(m[2])}.", key)
        older[key] = np.asarray(array)
    assert "head.regression_head.conv.2.weight" in older
    save_file(older, tmp_path / "older.safetensors")
    model, found = vitjax.load_pretrained("retinanet", tmp_path / "older.safetensors", **options)
    assert model.num_classes == 7  # type: ignore[attr-defined]
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    _, fewer = vitjax.load_pretrained("retinanet", tmp_path / "older.safetensors", 2, **options)
    head = fewer["params"]["head"]
    assert head["class_logits"]["bias"].shape == (18,)
    np.testing.assert_array_equal(
        head["box_deltas"]["kernel"], variables["params"]["head"]["box_deltas"]["kernel"]
    )


def test_an_unknown_loss_of_boxes_is_refused() -> None:
    with pytest.raises(ValueError, match="box_loss"):
        vitjax.create_model("retinanet", 5, **TINY, box_loss="iou")
