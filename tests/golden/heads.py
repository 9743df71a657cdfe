"""Holds dense heads against the numbers of their official implementations: several outputs, losses,
gradients of both.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from tests.golden import load_golden
from vitjax.abstract import abstract_init
from vitjax.layers.resize import resize
from vitjax.weights import table

IGNORED = 255
GRADIENT_RTOL = 1e-4
"""Of gradient norms; the bound that QUIRKS gives for models other than ResNet-50's."""


def extra_maps(meta: dict[str, Any]) -> list[np.ndarray]:
    """Give the maps besides the first one, `[B, H, W, C]`."""
    maps = []
    for entry in meta["extra_inputs"]:
        if entry["kind"] == "seeded":
            rng = np.random.Generator(np.random.PCG64(entry["seed"]))
            z = rng.standard_normal(tuple(entry["shape"])).astype(np.float32)
            maps.append(z.transpose(0, 2, 3, 1))
    return maps


def load_heads(rows: Any, state_dict: dict[str, np.ndarray], heads: dict[str, Any], maps: Any):
    """Give the variables of heads, `{collection: {name: …}}`, from a state dict of heads alone."""
    shapes: dict[str, Any] = {}
    for name, head in heads.items():
        for collection, tree in abstract_init(head.init, jax.random.key(0), maps).items():
            shapes.setdefault(collection, {})[name] = tree
    flat = traverse_util.flatten_dict(shapes)
    return traverse_util.unflatten_dict(table.load(rows, state_dict, flat))


def cross_entropy(logits: Any, labels: np.ndarray, count: str) -> Any:
    """Give the mean over pixels of the negative log-likelihood, logits resized to the labels.

    Args:
      count: "all" divides by all pixels, as mmsegmentation does; "labelled" by those with a class.
    """
    logits = resize(logits, labels.shape[1:])  # type: ignore[arg-type]
    labelled = labels != IGNORED
    picked = np.where(labelled, labels, 0)[..., None].astype(np.int32)
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), picked, axis=-1)[..., 0]
    return jnp.sum(nll * labelled) / (labels.size if count == "all" else labelled.sum())


def check_outputs(data: Any, meta: dict[str, Any], outputs: Sequence[Any]) -> None:
    """Compare every stored output, each within its own tolerance."""
    assert len(outputs) == len(meta["outputs"])
    for ours, entry in zip(outputs, meta["outputs"], strict=True):
        name, tolerance = entry["name"], 5 * entry["f32_noise"] + 1e-6
        cut = load_golden.stored(in_torch_order(ours, entry), entry)
        np.testing.assert_allclose(
            cut, data[f"{name}_f64"], rtol=0, atol=tolerance, err_msg=f"output {name}"
        )


def in_torch_order(x: Any, entry: dict[str, Any]) -> np.ndarray:
    """Give one of our maps as theirs, channels first, flattened where theirs is."""
    return np.asarray(x).transpose(0, 3, 1, 2).reshape(entry["full_shape"])


def probe_of(meta: dict[str, Any], outputs: Sequence[Any]) -> tuple[Any, ...]:
    """Give the probes, by which theirs weighs its outputs, in the shapes of our outputs."""
    probes = []
    for ours, probe in zip(outputs, load_golden.probes(meta), strict=True):
        batch, height, width, channels = ours.shape
        probes.append(probe.reshape(batch, channels, height, width).transpose(0, 2, 3, 1))
    return tuple(jnp.asarray(p) for p in probes)


def check_input_gradient(data: Any, meta: dict[str, Any], gradient: Any) -> None:
    """Compare the gradient of the first input, as `compare.check_case` does."""
    s = meta["grad_x_stride"]
    ours = np.asarray(gradient).transpose(0, 3, 1, 2)[:, :, ::s, ::s]
    atol = 10 * meta["grad_x_noise"] + 1e-5 * meta["grad_x_absmax"]
    np.testing.assert_allclose(ours, data["grad_x"], rtol=0, atol=atol, err_msg="input's gradient")


def check_norms(
    data: Any, which: str, grads: dict[str, Any], adapt: Callable[[dict[str, Any]], dict[str, Any]]
) -> float:
    """Compare the gradient norms of all parameters; returns the largest relative error.

    Args:
      which: "grad_norm" of the probe, "grad_norm_train" of the losses.
      grads: in the names of our tables.
      adapt: translates their names; where it stacks arrays, each part is compared.
    """
    norms = data[f"{which}_f64"]
    trained = {
        k: np.array([n]) for k, n in zip(data["keys"].tolist(), norms, strict=True) if n >= 0
    }
    theirs = {k: n for k, n in adapt(trained).items() if np.isfinite(n).all()}
    assert set(theirs) == set(grads), set(theirs) ^ set(grads)
    floor, worst = 1e-6 * norms[np.isfinite(norms)].max(), 0.0
    for key, wanted in theirs.items():
        parts = np.split(grads[key].astype(np.float64), len(wanted))
        for ours, norm in zip((np.linalg.norm(p.ravel()) for p in parts), wanted, strict=True):
            if norm > floor:
                worst = max(worst, abs(ours / norm - 1))
                np.testing.assert_allclose(ours, norm, rtol=GRADIENT_RTOL, err_msg=key)
            else:
                assert ours <= 10 * floor, (key, ours)
    return worst
