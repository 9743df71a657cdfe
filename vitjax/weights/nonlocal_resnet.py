"""ResNet with non-local blocks: torchvision's names, and in the blocks those of a PyTorch
implementation (AlexHex7/Non-local_pytorch), `layer3.5.nonlocal.`; that of the bottleneck behind.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from vitjax.weights import batchnorm_resnet, table
from vitjax.weights.libraries import Names


def block_rows(
    theirs: str, ours: str, sub_sample: bool = True, when: tuple[str, ...] = ()
) -> tuple[table.Row, ...]:
    """Give the rows of one non-local block.

    Args:
      theirs, ours: what stands before the names.
      sub_sample: keys and values are pooled, in a module behind theirs.
      when: see `table.Row`.
    """
    pooled = ".0" if sub_sample else ""
    rows = (
        (f"g{pooled}", "g", "conv_1x1"),
        ("theta", "theta", "conv_1x1"),
        (f"phi{pooled}", "phi", "conv_1x1"),
        ("concat_project.0", "concat", "conv_1x1"),
        ("W.0", "proj", "conv_1x1"),
        ("W.1", "norm", "batch_norm"),
    )
    return tuple((theirs + t, ours + o, kind, *when) for t, o, kind in rows)  # type: ignore[misc]


_THEIRS, _OURS = "layer{i+1}.{j}.nonlocal.", "stage_{i}/block_{j}/mixer/"
TABLE = (*batchnorm_resnet.TABLE, *block_rows(_THEIRS, _OURS, when=(_OURS + "g",)))

LIBRARIES = (
    Names("", r"\.nonlocal\.g\.weight$", ((r"(\.nonlocal\.(?:g|phi))\.(\w+)$", r"\1.0.\2"),)),
)
"""Without pooling, their g and φ stand alone."""

log = logging.getLogger(__name__)


def adapt(state_dict: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Give a ResNet's weights new blocks, which add nothing until they are trained."""
    if any(re.search(r"\.nonlocal\.|^stage_\d+\.block_\d+\.mixer\.", key) for key in state_dict):
        return dict(state_dict)
    new = {}
    for stage in range(len(model.depths)):
        for i, mixer in model.mixers_of(stage):
            module = mixer.build(parent=None)
            x = jnp.zeros((1, 8, 8, model.width_before(stage, i)))
            variables = jax.device_get(jax.jit(module.init)(jax.random.key(i), x))
            leaves = {
                (path[0], f"stage_{stage}", f"block_{i}", "mixer", *path[1:]): leaf
                for path, leaf in traverse_util.flatten_dict(variables).items()
            }
            new |= table.dump(TABLE, leaves)
    if new:
        log.warning("The weights have no blocks between bottlenecks; the model's begin anew.")
    return {**state_dict, **new}
