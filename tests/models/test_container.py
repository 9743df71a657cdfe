"""CONTAINER against the official numbers, and its sizes against the paper's."""

import json
from typing import Any

import chex
import jax
import numpy as np
import pytest

import vitjax
from tests.drawn import random_variables
from tests.golden.compare import FOLDER, check_case
from tests.models.test_table import ROWS
from vitjax import weights

DEPTHS = (3, 4, 8, 3)
STAGES = {
    **{f"patch_embed{i + 1}": f"downsample_{i}" if i else "stem" for i in range(4)},
    **{
        f"blocks{i + 1}.{j}": f"stage_{i}/block_{j}" for i, d in enumerate(DEPTHS) for j in range(d)
    },
    "norm": "norm",
}
TINY: dict[str, Any] = dict(
    dims=(8, 8, 16, 16), depths=(1, 1, 1, 2), num_heads=(1, 1, 2, 2), num_classes=5, image_size=64
)


def count(name: str, **options: Any) -> int:
    params = weights.abstract_variables(vitjax.create_model(name, **options))["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.golden
@pytest.mark.slow
def test_the_light_form_is_the_official_one() -> None:
    check_case("container_light_224", "container_light", STAGES)


@pytest.mark.slow
def test_sizes_are_the_official_ones_and_near_the_papers() -> None:
    official = json.loads((FOLDER / "param_counts.json").read_text())["container_v1_light"]
    assert count("container_light") == official["params"] == 20_633_643
    assert count("container_light", mlp_ratio=4.0) == pytest.approx(20.0e6, rel=2e-3)
    assert count("container") == pytest.approx(22.1e6, rel=0.015)
    macs = {n: float(ROWS[n][3].removesuffix(" G")) for n in ("container", "container_light")}
    assert macs["container_light"] == pytest.approx(official["macs"] / 1e9, rel=1e-3)
    assert macs["container"] == pytest.approx(8.1, rel=0.02)


def test_weights_there_and_back_with_other_mixers() -> None:
    for name, options in (
        ("container_light", {}),
        ("container", {}),
        ("container_light", dict(cpe_kernel_size=0, qkv_bias=False)),
    ):
        variables = random_variables(vitjax.create_model(name, **TINY, **options))
        state = weights.to_torch(name, variables)
        again = weights.from_torch(name, state, **TINY, **options)
        chex.assert_trees_all_equal(again, variables)
        if not options:
            assert state["blocks4.1.sa_weight"].shape == (1,)
            assert state["blocks4.1.conv1.weight"].shape == (48, 16, 1, 1)
            assert state["blocks4.1.conv.weight"].shape == (16, 1, 5, 5)
            assert ("blocks1.0.attn.weight" in state) == (name == "container_light")
    state["blocks1.0.attn.weight"] = state.pop("head.bias")
    with pytest.raises(ValueError, match="2 keys differ"):
        weights.from_torch("container_light", state, **TINY, cpe_kernel_size=0, qkv_bias=False)


@pytest.mark.slow
def test_shut_gates_leave_the_convolutions_and_maps_have_their_strides() -> None:
    """With the gates shut the full form is one whose stages have `dwconv` alone."""
    full: Any = vitjax.create_model("container", **TINY)
    static: Any = vitjax.create_model("container", mixer="dwconv", **TINY)
    state = weights.to_torch("container", random_variables(full))
    for key in [key for key in state if key.endswith("sa_weight")]:
        state[key] = np.full(1, -99.0, np.float32)
    shut = weights.from_torch("container", state, **TINY)
    for key, value in list(state.items()):  # values alone, which the convolutions read
        if ".conv1." in key:
            state[key] = value[2 * len(value) // 3 :]
        elif ".conv." in key:
            state[key.replace(".conv.", ".attn.")] = state.pop(key)
        elif key.endswith("sa_weight"):
            del state[key]
    plain = weights.from_torch("container", state, mixer="dwconv", **TINY)
    x = jax.random.normal(jax.random.key(0), (2, 70, 97, 3))
    run: Any = jax.jit(lambda m, v: m.apply(v, x, method="features"), static_argnums=0)
    maps = run(full, shut)
    assert [m.shape[1:3] for m in maps] == [(18, 25), (9, 13), (5, 7), (3, 4)]
    assert full.strides == (4, 8, 16, 32)
    for ours, expected in zip(maps, run(static, plain), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())
