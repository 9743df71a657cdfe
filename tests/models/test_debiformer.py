"""DeBiFormer against the numbers of the official implementation, its sizes, what it accepts."""

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

SMALL: dict[str, Any] = dict(
    dims=(32, 32, 64, 64), depths=(2, 2, 2, 2), offset_groups=(1, 1, 2, 2), num_classes=10
)
STAGES = {"stem": "stem", "norm": "norm"}
STAGES |= {f"stage{i + 1}": f"stage_{i}" for i in range(4)}
STAGES |= {f"down{i + 1}": f"downsample_{i}" for i in (1, 2, 3)}
STAGES |= {f"s1b0_attn{half + 1}": f"stage_0/block_{half}/mixer" for half in (0, 1)}
STAGES |= {
    "s4b0_attn1": "stage_3/block_0/mixer",
    "stages.3.0.attn1.mlp": "stage_3/block_0/mixer/mlp",
}
ROUTES = {}
for i, j in [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3), (3, 0)]:
    theirs, ours = f"stages.{i}.{j}", [f"stage_{i}/block_{2 * j + half}" for half in (0, 1)]
    STAGES |= {theirs: ours[1], f"{theirs}.attn2.mlp": f"{ours[1]}/mixer/mlp"}
    STAGES |= {f"{theirs}.mlp{half + 1}": f"{ours[half]}/mlp" for half in (0, 1)}
    STAGES |= {f"{theirs}.attn2": f"{ours[1]}/mixer"} if i else {}
    STAGES |= {f"{theirs}.attn1": f"{ours[0]}/mixer"} if 0 < i < 3 else {}
    ROUTES |= {
        f"{theirs}.attn{half + 1}.router": f"{ours[half]}/mixer/router/routes" for half in (0, 1)
    }


@pytest.mark.golden
def test_debiformer_is_the_official_one() -> None:
    check_case("debiformer_tiny", "debiformer_tiny", STAGES, routes=ROUTES)


def parameters(name: str, **overrides: Any) -> int:
    leaves = jax.tree.leaves(weights.abstract_variables(create_model(name, **overrides))["params"])
    return sum(math.prod(leaf.shape) for leaf in leaves)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_sizes_are_the_official_ones(size: str) -> None:
    published = json.loads((FOLDER / "param_counts.json").read_text())
    assert parameters(f"debiformer_{size}") == published[f"debiformer_{size}"]["params"]


@pytest.mark.slow
def test_weights_there_and_back() -> None:
    _, _, state_dict = load_golden.load(FOLDER / "debiformer_tiny.npz")
    back = weights.to_torch("debiformer_tiny", weights.from_torch("debiformer_tiny", state_dict))
    assert set(back) == set(state_dict)
    for key, array in state_dict.items():
        np.testing.assert_array_equal(back[key], array, err_msg=key)


@pytest.mark.slow
def test_position_tables_are_resized() -> None:
    _, _, state_dict = load_golden.load(FOLDER / "debiformer_tiny.npz")
    options = dict(table_size=(64, 32, 16, 8))
    variables = weights.from_torch("debiformer_tiny", state_dict, **options)
    table = variables["params"]["stage_0"]["block_1"]["mixer"]["bias"]["table"]
    assert table.shape == (2, 127, 127)
    theirs = state_dict["stages.0.0.attn2.rpe_table"]
    np.testing.assert_allclose(table[:, 63, 63], theirs[:, 55, 55], atol=1e-6)  # no displacement


def test_both_halves_of_a_block_drop_alike() -> None:
    model = create_model("debiformer_tiny", drop_path_rate=0.3)
    rates = np.repeat(np.linspace(0, 0.3, 7), 2)
    np.testing.assert_allclose(model.drop_path_rate, rates)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        dict(offset_channels=2, offset_range_factor=2.0, scale=32**-0.5),
        dict(offset_groups=None, agent_mlp_ratio=(3.0, 3.0, 3.0, 1.0), mlp_ratio=2.0),
        dict(kv_downsample="ada_maxpool", kv_size=1, lepe_kernel_size=0, cpe_kernel_size=0),
        dict(param_routing=True, diff_routing=True, mul_weight="soft"),
        dict(pre_norm=False, layer_scale_init=0.5, remat=True),
        dict(mixer="bra(topk=4)"),
        dict(mixer="dbra"),
        dict(mixer="deformable"),
        dict(mixer="bra | deformable"),
    ],
    ids=lambda options: ",".join(map(str, options.items())),
)
def test_options_and_ablations_reach_the_model(options: dict) -> None:
    own = {k: v for k, v in SMALL.items() if k != "offset_groups"}
    small = own if options.get("mixer") == "bra(topk=4)" else SMALL  # which has no offsets
    model = create_model("debiformer_tiny", **{**small, **options})
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    maps, _ = jax.eval_shape(
        lambda x: model.init_with_output(keys, x, True, method="features"),
        jnp.zeros((1, 130, 97, 3)),
    )
    assert [m.shape[1:3] for m in maps] == [(33, 25), (17, 13), (9, 7), (5, 4)]


@pytest.mark.slow
def test_any_image_in_both_precisions() -> None:
    model = create_model("debiformer_tiny", **SMALL)
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
    with pytest.raises(ValueError, match="topk=16: a region can be routed to 1 … 9"):
        parameters("debiformer_tiny", n_win=3)
    with pytest.raises(ValueError, match="offset_groups must divide"):
        parameters("debiformer_tiny", offset_groups=(1, 3, 4, 8))
