"""Weights of UPerNet in the names of mmsegmentation and of transformers, old and new."""

import re
from typing import Any

import numpy as np
import pytest

import vitjax
from tests.models.test_pvt import noisy
from tests.models.test_upernet import SMALL
from vitjax import weights


@pytest.mark.slow
def test_weights_there_and_back() -> None:
    variables, _ = noisy(vitjax.create_model("upernet", 5, **SMALL))
    state = weights.to_torch("upernet", variables, **SMALL)
    assert state["decode_head.psp_modules.3.1.bn.running_var"].shape == (16,)
    assert {"backbone.norm3.weight", "auxiliary_head.conv_seg.bias"} <= state.keys()
    merged = mmseg_names(state)
    assert merged.keys() != state.keys()
    buffer = {"backbone.layers.0.blocks.0.attn.relative_position_index": np.zeros((49, 49))}
    for theirs in ({**state, **buffer}, merged, old_transformers_names(state)):
        again = weights.to_torch(
            "upernet", weights.from_torch("upernet", theirs, 5, **SMALL), **SMALL
        )
        assert state.keys() == again.keys()
        for key in state:
            np.testing.assert_array_equal(state[key], again[key])
    without = {**SMALL, "auxiliary_width": 0}
    alone = weights.from_torch("upernet", state, 5, **without)
    assert set(alone["params"]) == {"backbone", "head"}


def mmseg_names(state: dict[str, Any]) -> dict[str, Any]:
    """Give a Swin the names of mmsegmentation, and patch merging its order: nn.Unfold's."""
    found = {}
    for key, value in state.items():
        if ".downsample." in key:
            four = value.shape[-1] // 4
            ours = [
                c + four * (row + 2 * column)
                for c in range(four)
                for row in (0, 1)
                for column in (0, 1)
            ]
            value = value[..., ours]
        key = key.replace("backbone.layers.", "backbone.stages.").replace(".attn.", ".attn.w_msa.")
        key = key.replace("patch_embed.proj.", "patch_embed.projection.")
        key = key.replace(".mlp.fc1.", ".ffn.layers.0.0.").replace(".mlp.fc2.", ".ffn.layers.1.")
        found[key] = value
    return found


def old_transformers_names(state: dict[str, Any]) -> dict[str, Any]:
    """Give the names of transformers before version 5, and the norm that nothing reads."""
    found = {"backbone.layernorm.weight": np.zeros(32), "backbone.layernorm.bias": np.zeros(32)}
    for key, value in state.items():
        key = re.sub(r"\.bn\.", ".batch_norm.", key).replace("conv_seg", "classifier")
        key = re.sub(
            r"^backbone\.norm(\d)",
            lambda m: f"backbone.hidden_states_norms.stage{int(m[1]) + 1}",
            key,
        )
        for new, old in (
            ("backbone.patch_embed.proj.", "backbone.embeddings.patch_embeddings.projection."),
            ("backbone.patch_embed.norm.", "backbone.embeddings.norm."),
            ("backbone.layers.", "backbone.encoder.layers."),
            (".norm1.", ".layernorm_before."),
            (".norm2.", ".layernorm_after."),
            (".mlp.fc1.", ".intermediate.dense."),
            (".mlp.fc2.", ".output.dense."),
            (".attn.proj.", ".attention.output.dense."),
            (".attn.relative", ".attention.self.relative"),
        ):
            key = key.replace(new, old)
        if match := re.fullmatch(r"(.*)\.attn\.qkv\.(\w+)", key):
            parts = zip(("query", "key", "value"), np.split(value, 3), strict=True)
            found |= {f"{match[1]}.attention.self.{n}.{match[2]}": part for n, part in parts}
        else:
            found[key] = value
    return found
