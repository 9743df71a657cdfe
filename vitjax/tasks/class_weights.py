"""Class weights of the loss: given, by inverse frequency, or by the effective number of images.

An image of class k has the weight w_k. For a mixed label with shares u_k the loss is
Σ_k u_k w_k L(k), where L(k) is the loss of the label k, and the weight of the image is
c = Σ_k u_k w_k. Losses are linear in the label, so the loss is c times that of the label
u_k w_k / c, which `weigh` computes.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vitjax.data.source import DataInfo
from vitjax.names import check_choice, unknown

_log = logging.getLogger(__name__)

FIELD = "config.loss.class_weights"
NONE = (None, "", (), [])
_ALLOWED = (
    "'balanced', 'effective:0.999', a number for each class, or numbers by name such as "
    "{'cat': 2.0}"
)


def weights_from_config(
    value: Any, info: DataInfo, *, label_smoothing: float, sampling: str, abstract: bool = False
) -> tuple[float, ...]:
    """Compute the class weights of a run's config; see `class_weights`.

    A warning is logged if both weights and sampling compensate for rare classes.

    Args:
      value: `config.loss.class_weights`.
      info: info of the training data.
      label_smoothing, sampling: those of the run.
      abstract: do not count the images.

    Raises:
      ValueError: as in `class_weights`, or images have several classes, or the label smoothing
        leaves nothing of the labels.
    """
    if value in NONE:
        return ()
    if info.multi_label:
        raise ValueError(
            f"{FIELD} needs one class an image, and these images may have several; leave it out."
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"{FIELD} needs config.loss.label_smoothing at least 0 and below 1, and it is "
            f"{label_smoothing:g}; at 1 all targets are equal."
        )
    if isinstance(value, str) and sampling == "balanced":
        _log.warning(
            "%s=%r makes up for rare classes, and so does config.data.sampling='balanced': with "
            "both they count for more than the others.",
            FIELD,
            value,
        )
    if isinstance(value, str) and not abstract and info.class_counts is None:
        raise ValueError(
            f"{FIELD}={value!r} needs the number of training images of each class, which is not "
            f"known here; give the weights as numbers."
        )
    return class_weights(value, info.classes, None if abstract else info.class_counts)


def class_weights(
    value: Any, classes: Sequence[str], counts: Callable[[], Any] | None
) -> tuple[float, ...]:
    """Compute the weight of each class; empty if all images have the same weight.

    Args:
      value: None or empty for no weights; "balanced", see `balanced`; "effective:β", see
        `effective`; a weight for each class, in order; or weights by name, where missing names
        have 1.
      classes: names of the classes.
      counts: returns the number of training images of each class; None if the data is not
        available, and then weights by counts are left out.

    Raises:
      ValueError: the value has another form, or does not fit the classes.
    """
    if value in NONE:
        return ()
    if isinstance(value, str):
        share = _effective_share(value)
        if counts is None:
            return ()
        return tuple(effective(counts(), share) if share is not None else balanced(counts()))
    given: Any = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(given, list | tuple):
        raise ValueError(f"{FIELD}={value!r} must be {_ALLOWED}.")
    if all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in given):
        given = _by_name(given, classes)
    good = all(_is_weight(weight) for weight in given)
    if len(given) != len(classes) or not good or not any(given):
        raise ValueError(
            f"{FIELD}={value!r} does not fit the {len(classes)} classes: give {_ALLOWED}; each 0 "
            f"or more, and not all 0."
        )
    return tuple(float(weight) for weight in given)


def balanced(counts: Int[np.ndarray, "K"]) -> list[float]:
    """Compute weights inverse to the frequency of each class; the mean over images is 1.

    A class without images, which only a teacher's labels can contain, has 1.
    """
    return _normalised(1 / np.maximum(counts, 1), counts)


def effective(counts: Int[np.ndarray, "K"], share: float) -> list[float]:
    """Compute weights inverse to the effective number of images; the mean over images is 1.

    E_n = (1 - βⁿ) / (1 - β) (Cui et al., arXiv:1901.05555, eq. 2 and 3): uniform weights at β = 0,
    and `balanced` in the limit β → 1.
    """
    number = (1 - share ** np.maximum(counts, 1)) / (1 - share)
    return _normalised(1 / number, counts)


def _normalised(weights: np.ndarray, counts: np.ndarray) -> list[float]:
    scaled = weights * counts.sum() / max((weights * counts).sum(), 1e-30)
    return np.where(counts > 0, scaled, 1.0).tolist()


def weigh(
    target: Float[Array, "*S K"], weights: tuple[float, ...], smoothing: float = 0.0
) -> tuple[Float[Array, "*S K"], Float[Array, "*S"]]:
    """Multiply labels by class weights, and return them normalised with their weights.

    With u the label before smoothing, the weight is c = Σ u w and the new label is u w / c,
    smoothed.

    Args:
      target: (1 - s) u + s / K, where u sums to 1.
      weights: w of each class; empty for 1 each.
      smoothing: s, less than 1.

    Returns:
      The new targets, and c.
    """
    if not weights:
        return target, jnp.ones(target.shape[:-1])
    floor = smoothing / target.shape[-1]
    weighted = (target - floor) * jnp.asarray(weights) / (1 - smoothing)
    count = weighted.sum(axis=-1)
    label = weighted / jnp.where(count > 0, count, 1.0)[..., None]
    return (1 - smoothing) * label + floor, count


def _effective_share(text: str) -> float | None:
    """Parse β of "effective:β"; None for "balanced"."""
    name, separator, number = text.partition(":")
    if not separator:
        check_choice(FIELD, name, ("balanced", "effective:0.999"))
        if name == "balanced":
            return None
    try:
        share = float(number)
    except ValueError:
        share = math.nan
    if name != "effective" or not 0 <= share < 1:
        raise ValueError(
            f"{FIELD}={text!r} must be {_ALLOWED}; the number after 'effective:' is at least 0 and "
            f"below 1."
        )
    return share


def _by_name(pairs: Sequence[Any], classes: Sequence[str]) -> list[Any]:
    given: dict[str, Any] = {}
    for name, weight in pairs:
        if name not in classes:
            raise ValueError(unknown(f"class in {FIELD}", str(name), classes))
        if name in given:
            raise ValueError(f"{FIELD} lists class {name!r} twice; list it once.")
        given[name] = weight
    return [given.get(name, 1.0) for name in classes]


def _is_weight(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value < math.inf
