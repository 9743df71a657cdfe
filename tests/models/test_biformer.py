"""BiFormer against the numbers of the official implementation, its sizes, and what it accepts."""

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import load_golden
from tests.golden.compare import FOLDER, check_case
from vitjax import weights
from vitjax.models import create_model

SMALL: dict[str, Any] = dict(dims=(32, 32, 64, 64), depths=(1, 1, 1, 1), num_classes=10)
BLOCKS = [(i, j) for i, depth in enumerate((2, 2, 8, 2)) for j in range(depth)]
STAGES = {"stem": "stem", "norm": "norm"}
STAGES |= {f"stage{i + 1}": f"stage_{i}" for i in range(4)}
STAGES |= {f"down{i + 1}": f"downsample_{i}" for i in (1, 2, 3)}
STAGES |= {f"stages.{i}.{j}": f"stage_{i}/block_{j}" for i, j in BLOCKS}
ROUTES = {
    f"stages.{i}.{j}.attn.router": f"stage_{i}/block_{j}/mixer/router/routes"
    for i, j in BLOCKS
    if i < 3
}


@pytest.mark.golden
def test_biformer_is_the_official_one() -> None:
    check_case("biformer_tiny", "biformer_tiny", STAGES, routes=ROUTES)


def parameters(name: str, **overrides: Any) -> int:
    leaves = jax.tree.leaves(weights.abstract_variables(create_model(name, **overrides))["params"])
    return sum(math.prod(leaf.shape) for leaf in leaves)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_sizes_are_the_official_ones(size: str) -> None:
    published = json.loads((FOLDER / "param_counts.json").read_text())
    assert parameters(f"biformer_{size}") == published[f"biformer_{size}"]["params"]


def test_swin_layout_has_the_size_of_the_paper() -> None:
    assert round(parameters("biformer_stl") / 1e6) == 28


@pytest.mark.slow
def test_weights_there_and_back() -> None:
    _, _, state_dict = load_golden.load(FOLDER / "biformer_tiny.npz")
    back = weights.to_torch("biformer_tiny", weights.from_torch("biformer_tiny", state_dict))
    assert set(back) == set(state_dict)
    for key, array in state_dict.items():
        np.testing.assert_array_equal(back[key], array, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        dict(qk_dim=(32, 32, 32, 32)),
        dict(scale=32**-0.5, n_win=(8, 7, 7, 7), lepe_kernel_size=3, cpe_kernel_size=0),
        dict(kv_downsample="ada_avgpool", kv_size=(2, 2, 1, 1)),
        dict(param_routing=True, diff_routing=True, mul_weight="soft"),
        dict(mlp_ratio=(4.0, 4.0, 3.0, 2.0), mlp_dwconv=True),
        dict(pre_norm=False, layer_scale_init=0.5),
        dict(mixer="bra"),
        dict(mixer="bra(topk=4) | full"),
        dict(overlap=False, remat=True),
    ],
    ids=lambda options: ",".join(options),
)
def test_options_reach_the_model(options: dict) -> None:
    model = create_model("biformer_tiny", **SMALL, **options)
    variables = weights.abstract_variables(model)
    images = jnp.zeros((1, 130, 97, 3))
    maps = jax.eval_shape(lambda v: model.apply(v, images, True, method="features",
                                                mutable=["batch_stats"],
                                                rngs={"dropout": jax.random.key(0)}),
                          variables)[0]  # fmt: skip
    assert [m.shape[1:3] for m in maps] == [(33, 25), (17, 13), (9, 7), (5, 4)]


@pytest.mark.slow
def test_any_image_in_both_precisions() -> None:
    model = create_model("biformer_tiny", **SMALL)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(1, 101, 67, 3)), jnp.float32)
    variables = jax.tree.map(
        lambda s: np.abs(rng.normal(0.1, 0.1, s.shape)).astype("f"),
        weights.abstract_variables(model),
    )
    full = jax.jit(model.apply)(variables, images)
    low = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, images)
    assert np.isfinite(full).all()
    assert np.abs(low.astype(jnp.float32) - full).max() < 3e-2 * np.abs(full).max()


def test_errors_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="topk=10: a region can be routed to 1 … 9"):
        parameters("biformer_tiny", n_win=3, mixer="bra(topk=10)")
    _, _, state_dict = load_golden.load(FOLDER / "biformer_tiny.npz")
    del state_dict["stages.0.0.attn.wo.bias"]
    with pytest.raises(ValueError, match=r"missing: stages\.0\.0\.attn\.wo\.bias"):
        weights.from_torch("biformer_tiny", state_dict)
