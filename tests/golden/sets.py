"""Holds detectors that predict sets against their authors' numbers, of padded images."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vitjax
from tests.golden import detectors
from tests.golden.compare import check_stages
from vitjax import weights
from vitjax.detection.boxes import to_center
from vitjax.detection.results import Targets
from vitjax.heads.set_prediction import Goals, layer_losses, match, select
from vitjax.layers.maps import inside
from vitjax.weights.detr import translate
from vitjax.weights.libraries import rename

LOSSES = ("class", "box", "overlap")


class Case(detectors.Case):
    """A golden case, whose images fill a part of their canvas."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.extent = jnp.array(self.meta["kwargs"]["valid_sizes"])
        self.pixels = inside(self.extent, self.size)
        self.images = jnp.where(self.pixels[..., None], self.images, 0)

    def objects(self, room: int) -> Targets:
        """Give the objects in pixels, padded to so many."""
        boxes, classes = np.zeros((2, room, 4)), np.full((2, room), -1)
        for i, (height, width) in enumerate(np.asarray(self.extent)):
            own = self.data[f"in::boxes{i}"].astype(np.float64)
            corners = np.concatenate([own[:, :2] - own[:, 2:] / 2, own[:, :2] + own[:, 2:] / 2], 1)
            boxes[i, : len(own)] = corners * [width, height, width, height]
            classes[i, : len(own)] = self.data[f"in::labels{i}"]
        valid = jnp.asarray(classes >= 0)
        return Targets(
            jnp.asarray(boxes, self.dtype), jnp.asarray(classes, jnp.int32), ~valid & False, valid,
            extent=self.extent,
        )  # fmt: skip


def check(
    case: Case, name: str, stages: dict[str, tuple[str, ...]], top: int, *seen: tuple[str, ...]
) -> Any:
    """Hold a model against its case: outputs, stages, matches, losses, gradients, detections.

    Args:
      stages: their module → ours, whose calls are compared.
      top: detections that are stored.
      seen: other modules of ours.

    Returns:
      What these and the stages give.
    """
    model: Any = vitjax.create_model(name, image_size=case.size)
    variables = weights.from_torch(name, case.state, image_size=case.size)
    params = variables.pop("params")
    head, wanted = model.head.offer(num_classes=91).build(), {*stages.values(), *seen}
    targets, ones = case.objects(room=5), jnp.ones(2)

    def losses(params: Any, images: Any) -> tuple[Any, Any]:
        def predict(model: Any, images: Any) -> Any:
            return model.decode(model.backbone.features(images), False, case.pixels)

        found, sown = model.apply(
            {"params": params, **variables}, images, method=predict, mutable=["intermediates"],
            capture_intermediates=lambda m, method: (
                method in ("__call__", "sample") and m.path in wanted
            ),
        )  # fmt: skip
        each = layer_losses(found, targets, case.extent, ones, head.criterion)
        count = targets.valid.sum()
        means = {key: part.sum(axis=0) / count for key, part in each.items()}
        total = sum(w * means[k].sum() for w, k in zip(head.loss_weights, LOSSES))
        return total, (found, sown["intermediates"], means)

    (found, sown, means), grads = detectors.gradient(losses, params, case.images)
    outputs = {}
    for i in range(6):
        kind = "pred" if i == 5 else f"aux{i}"
        outputs |= {f"{kind}_logits": found.logits[:, i], f"{kind}_boxes": found.boxes[:, i]}
    case.check_outputs(**outputs)
    sown = jax.tree.map(lambda calls: calls[:1], sown, is_leaf=lambda x: isinstance(x, tuple))
    check_stages(case.data, sown, stages)
    order = (5, *range(5))
    case.check_losses(tuple(means[k][i] for i in order for k in LOSSES))
    dumped = weights.to_torch(name, {"params": grads}, image_size=case.size)
    case.check_gradients(joined(dumped), lambda keys: canonical(keys, name))
    check_selection(case, head, found, targets, top)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == case.meta["num_params_with_frozen_bn_affine"]
    return sown


def check_selection(case: Case, head: Any, found: Any, targets: Targets, top: int) -> None:
    """Compare the last layer's matches, and the best detections."""
    sides = jnp.tile(case.extent[:, ::-1], 2)[:, None]

    @jax.jit
    def choose(found: Any) -> tuple[Any, Any]:
        goals = Goals(to_center(targets.boxes / sides), targets.classes, targets.valid)
        last = jax.tree.map(lambda part: part[:, -1], found)
        queries = jax.vmap(partial(match, criterion=head.criterion))(last, goals)
        return queries, select(found, case.extent, head.limit, head.criterion.softmax)

    queries, detections = choose(found)
    for i in range(2):
        pairs = zip(case.data[f"ref::match_target{i}"], case.data[f"ref::match_query{i}"])
        ours = {(int(target), int(query)) for target, query in enumerate(queries[i]) if query >= 0}
        assert ours == {(int(target), int(query)) for target, query in pairs}
        refs = dict(scores=detections.scores, labels=detections.classes, boxes=detections.boxes)
        case.check_refs(**{f"post_{key}{i}": value[i, :top] for key, value in refs.items()})


def canonical(keys: dict[str, Any], name: str) -> dict[str, Any]:
    """Translate names of the authors' keys, joint projections left as they are."""
    rules = weights.FAMILIES[vitjax.models.model_spec(name).factory].RULES
    return translate(keys, rules)


def joined(grads: dict[str, Any]) -> dict[str, Any]:
    """Join projections to queries, keys and values, as PyTorch has them."""
    found = dict(grads)
    for key in grads:
        if match := re.fullmatch(r"(.*\.)q_proj\.(weight|bias)", key):
            parts = [found.pop(f"{match[1]}{part}_proj.{match[2]}") for part in "qkv"]
            found[f"{match[1]}in_proj_{match[2]}"] = np.concatenate(parts)
    return found


def of_transformers(state: dict[str, Any]) -> dict[str, Any]:
    """Rename the backbone as transformers' own ResNet, and layers as its version 5 does."""
    rules = (
        (r"^backbone\.", "model.backbone.conv_encoder.model."),
        (r"\.model\.conv1\.", ".model.embedder.embedder.convolution."),
        (r"\.model\.bn1\.", ".model.embedder.embedder.normalization."),
        (r"\.layer(\d)\.", lambda m: f".encoder.stages.{int(m[1]) - 1}.layers."),
        (r"\.downsample\.0\.", ".shortcut.convolution."),
        (r"\.downsample\.1\.", ".shortcut.normalization."),
        (r"(layers\.\d+)\.conv(\d)\.", lambda m: f"{m[1]}.layer.{int(m[2]) - 1}.convolution."),
        (r"(layers\.\d+)\.bn(\d)\.", lambda m: f"{m[1]}.layer.{int(m[2]) - 1}.normalization."),
        (r"\.out_proj\.", ".o_proj."),
        (r"(layers\.\d+)\.fc", r"\1.mlp.fc"),
    )
    return {rename(key, rules): value for key, value in state.items()}


def of_authors(state: dict[str, Any]) -> dict[str, Any]:
    """Rename as the authors do: joint projections, norms by their numbers."""
    sampled = any("sampling_offsets" in key for key in state)
    numbers = dict(self_attn=2, encoder_attn=1) if sampled else dict(self_attn=1, encoder_attn=2)
    rules = (
        (r"^backbone\.", "backbone.0.body."),
        (r"^model\.(encoder|decoder|level|reference|enc_|pos_)", r"transformer.\1"),
        (r"^model\.input_projection\.", "input_proj."),
        (r"^model\.(input_proj\.)", r"\1"),
        (r"^model\.query_position_embeddings\.", "query_embed."),
        (r"^class_labels_classifier\.", "class_embed."),
        (r"^bbox_predictor\.", "bbox_embed."),
        (r"(encoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.norm1."),
        (r"(encoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm2."),
        (r"\.(\w+_attn)_layer_norm\.", lambda m: f".norm{numbers[m[1]]}."),
        (r"\.final_layer_norm\.", ".norm3."),
        (r"\.encoder_attn\.", ".cross_attn." if sampled else ".multihead_attn."),
        (r"\.fc([12])\.", r".linear\1."),
        (r"\.decoder\.layernorm\.", ".decoder.norm."),
    )
    return {rename(key, rules): value for key, value in joined(state).items()}
