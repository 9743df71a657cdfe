"""A classifier's published weights under a dense head."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import vitjax
from vitjax import weights

SIZES: dict[str, Any] = dict(width=32, depth=4, num_heads=2, image_size=64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "new"), [("setr_mla", "neck"), ("setr_pup", ""), ("upernet", ""), ("semantic_fpn", "")]
)
def test_a_vit_begins_any_head(tmp_path: pathlib.Path, name: str, new: str) -> None:
    """The class token goes with its position where the blocks do not read it."""
    rng = np.random.default_rng(0)
    classifier = vitjax.create_model("vit_ti16", 7, **SIZES)
    given = jax.tree.map(
        lambda s: rng.standard_normal(s.shape).astype(s.dtype),
        weights.abstract_variables(classifier),
    )
    save_file(weights.to_torch("vit_ti16", given), tmp_path / "vit.safetensors")
    backbone = "vit_ti16(width=32, depth=4, num_heads=2)"
    model, found = vitjax.load_pretrained(
        name, tmp_path / "vit.safetensors", 5, backbone=backbone, image_size=64
    )
    theirs, ours = given["params"], found["params"]["backbone"]
    for block in ("block_0", "block_3"):
        jax.tree.map(np.testing.assert_array_equal, dict(ours[block]), dict(theirs[block]))
    np.testing.assert_array_equal(ours["pos_embed"][:, -16:], theirs["pos_embed"][:, 1:])
    assert ("cls_token" in ours) == (name != "setr_mla") and "head" not in ours
    assert new in {"", *ours}
    file = {**weights.to_torch("vit_ti16", given), "surplus": np.zeros(3, np.float32)}
    save_file(file, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"unused: backbone\.surplus"):
        vitjax.load_pretrained(
            name, tmp_path / "other.safetensors", 5, backbone=backbone, image_size=64
        )
    logits = jax.eval_shape(model.apply, found, jnp.zeros((1, 64, 96, 3)))
    assert logits.shape[-1] == 5
