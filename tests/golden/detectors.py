"""Holds detectors against torchvision's numbers: outputs, references, losses, their gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.golden import load_golden
from tests.golden.compare import FOLDER
from vitjax.detection.results import Targets
from vitjax.weights.torchvision_detection import adapt_backbone

GRADIENT_RTOL = 2e-2
"""Of a ResNet-50 in float32, whose ReLUs flip by rounding (QUIRKS)."""


class Case:
    """A golden case, in float32, or in float64 where that is enabled."""

    def __init__(self, name: str) -> None:
        self.data, self.meta, self.state = load_golden.load(FOLDER / f"{name}.npz")
        self.double = bool(jax.config.jax_enable_x64)
        self.dtype = jnp.float64 if self.double else jnp.float32
        if self.double:
            self.state = {k: v.astype(np.float64) for k, v in self.state.items()}
        images = load_golden.inputs(self.meta).transpose(0, 2, 3, 1)
        self.images = jnp.asarray(images, self.dtype)
        self.stages = set(self.data["stage_names"].tolist())
        self.size: tuple[int, int] = tuple(self.meta["input_shape"][2:])

    def given(self, name: str) -> np.ndarray:
        """Stack an input of each image."""
        return np.stack([self.data[f"in::{name}{i}"] for i in range(len(self.images))])

    def targets(self, first_class: int) -> Targets:
        """Give the objects; our class is theirs less `first_class`."""
        boxes, classes = self.given("gt_boxes"), self.given("gt_labels") - first_class
        some = np.ones(classes.shape, bool)
        return Targets(
            jnp.asarray(boxes, self.dtype),
            jnp.asarray(classes, jnp.int32),
            jnp.asarray(~some),
            jnp.asarray(some),
        )

    def check_outputs(self, **outputs: Any) -> None:
        """Compare outputs in torch's order; a map is `[B, H, W, C]`."""
        assert set(outputs) == {o["name"] for o in self.meta["outputs"]}
        for entry in self.meta["outputs"]:
            ours = in_torch_order(outputs[entry["name"]]).reshape(entry["full_shape"])
            self.close(entry["name"], load_golden.stored(np.asarray(ours), entry), entry)

    def check_refs(self, **refs: Any) -> None:
        """Compare references; integers must be equal."""
        entries = {r["name"]: r for r in self.meta["refs"]}
        for name, ours in refs.items():
            entry = entries[name]
            ours = np.asarray(ours)[:: entry["stride"]].reshape(entry["stored_shape"])
            self.close(name, ours, entry, "ref::")

    def close(self, name: str, ours: np.ndarray, entry: dict[str, Any], kind: str = "") -> None:
        theirs = self.data.get(f"{kind}{name}_f64", self.data[f"{kind}{name}"])
        if theirs.dtype.kind == "i":
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
            return
        # References that rounding does not change are stored in float32 alone.
        least = 1e-9 if theirs.dtype == np.float64 else 1e-6
        bound = least * np.abs(theirs).max() if self.double else 5 * entry["f32_noise"] + 1e-6
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound, err_msg=name)

    def check_losses(self, found: tuple[Any, ...]) -> None:
        """Compare the training losses, in their order."""
        rtol = 1e-7 if self.double else 1e-5  # theirs computes one in float32 in both runs
        np.testing.assert_allclose(found, self.data["train_loss_f64"], rtol=rtol)

    def check_gradients(self, grads: dict[str, Any], adapt: Any = adapt_backbone) -> None:
        """Compare the norms of the losses' gradients by parameter.

        Args:
          grads: in the names of our table. Theirs has none for a BatchNorm that does not train.
          adapt: translates their names.
        """
        bound = 1e-6 if self.double else GRADIENT_RTOL
        norms = self.data["grad_norm_train_f64"]
        theirs = adapt(dict(zip(self.data["keys"].tolist(), norms, strict=True)))
        floor = 1e-6 * max(n for n in theirs.values() if np.isfinite(n))
        assert set(grads) <= set(theirs)
        for key, norm in theirs.items():
            if np.isfinite(norm):
                ours = np.linalg.norm(grads[key].astype(np.float64))
                np.testing.assert_allclose(
                    ours, max(norm, 0), rtol=bound, atol=10 * floor, err_msg=key
                )


def in_torch_order(x: Any) -> Any:
    """Put the channels of a map first."""
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x


def gradient(
    losses: Callable[[Any, Any], tuple[Any, Any]], params: Any, images: Any
) -> tuple[Any, Any]:
    """Compute what `(params, images) → (loss, rest)` gives, and the gradient of the parameters."""
    with jax.default_matmul_precision("highest"):
        step = jax.jit(jax.value_and_grad(losses, has_aux=True))
        (_, rest), grads = step(params, images)
    return rest, grads
