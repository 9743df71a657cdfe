"""NAT and DiNAT against the authors' code.

`dinat_small_57x74.npz` and `dinat_s_small_66x77.npz` hold small models of
SHI-Labs/Neighborhood-Attention-Transformer with the kernels of NATTEN 0.14.6, by the rules of
`load_golden.py` (PyTorch 2.13). No side of a map is a multiple of its dilation, and the second
stage's is smaller than its neighbourhood. `hf_keys` are the names that transformers 4.40 gives the
same model, whose logits from there differ by `hf_error`.
"""

import json
from typing import Any

import chex
import jax
import numpy as np
import pytest

import vitjax
from tests.golden import load_golden
from tests.golden.compare import FOLDER, check_case
from tests.models.test_table import ROWS
from vitjax import weights
from vitjax.weights import configs

SMALL: dict[str, Any] = dict(
    dims=(8, 16, 32), depths=(3, 2, 2), num_heads=(2, 2, 4), neighborhood_size=3,
    mixer="neighborhood | neighborhood(dilation=(4, 3, 1))", layer_scale_init=1e-5,
    num_classes=10, image_size=(57, 74),
)  # fmt: skip
SMALL_S: dict[str, Any] = dict(
    dims=(8, 16),
    depths=(2, 2),
    num_heads=(2, 2),
    num_classes=10,
    image_size=(66, 77),
    mixer="neighborhood(neighborhood_size=5) | neighborhood(neighborhood_size=5, dilation=(3, 2))",
)
COUNTS = {  # of the authors' code
    "nat_mini": 19_984_174, "nat_tiny": 27_901_582, "nat_small": 50_743_297,
    "nat_base": 89_769_652, "dinat_mini": 19_984_174, "dinat_tiny": 27_901_582,
    "dinat_small": 50_719_681, "dinat_base": 89_769_652, "dinat_large": 200_943_514,
    "dinat_large_384": 200_943_514, "dinat_large_384_11x11": 201_144_250,
    "dinat_s_tiny": 28_288_354, "dinat_s_small": 49_606_258, "dinat_s_base": 87_768_224,
    "dinat_s_large": 196_532_476, "dinat_s_large_384": 196_532_476,
}  # fmt: skip


def blocks(theirs: str, depths: tuple[int, ...]) -> dict[str, str]:
    return {
        f"{theirs}.{i}.blocks.{j}": f"stage_{i}/block_{j}"
        for i, depth in enumerate(depths)
        for j in range(depth)
    }


@pytest.mark.golden
@pytest.mark.slow
def test_it_is_the_authors_one() -> None:
    stages = {"patch_embed": "stem", "norm": "norm", **blocks("levels", SMALL["depths"])}
    check_case("dinat_small_57x74", "dinat_mini", stages, **SMALL)


@pytest.mark.golden
@pytest.mark.slow
def test_the_one_like_swin_is_the_authors_one() -> None:
    stages = {"patch_embed": "stem", "norm": "norm", **blocks("layers", SMALL_S["depths"])}
    check_case("dinat_s_small_66x77", "dinat_s_tiny", stages, **SMALL_S)


@pytest.mark.slow
def test_counts_are_the_authors() -> None:
    assert {n: int(ROWS[n][1].replace(",", "")) for n in COUNTS} == COUNTS
    assert {*COUNTS} == {*vitjax.list_models("nat_*"), *vitjax.list_models("dinat_*")}
    for name in ("nat_mini", "dinat_s_tiny"):
        params = weights.abstract_variables(vitjax.create_model(name))["params"]
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "dilations"),
    [
        ("nat_tiny", [[1] * 3, [1] * 4, [1] * 18, [1] * 5]),
        ("dinat_mini", [[1, 8, 1], [1, 4] * 2, [1, 2] * 3, [1] * 5]),
        ("dinat_large_384", [[1, 13, 1], [1, 6] * 2, [1, 3] * 9, [1] * 5]),
        ("dinat_large_384_11x11", [[1, 8, 1], [1, 4] * 2, [1, 2] * 9, [1] * 5]),
        ("dinat_s_tiny", [[1, 8], [1, 4], [1, 2] * 3, [1] * 2]),
    ],
)
def test_dilations_are_the_published_ones(name: str, dilations: list[list[int]]) -> None:
    model: Any = vitjax.create_model(name)
    found = model.effective()[2]
    mixers = [[block["mixer"].build(parent=None) for block in stage] for stage in found]
    assert [[mixer.dilation for mixer in stage] for stage in mixers] == dilations
    sizes = {mixer.neighborhood_size for stage in mixers for mixer in stage}
    assert sizes == {11 if name.endswith("11x11") else 7}


@pytest.fixture(scope="module")
def small() -> tuple[dict[str, np.ndarray], list[str], Any]:
    """Weights of the golden case by the authors' names, transformers' names, and ours."""
    data, _, state = load_golden.load(FOLDER / "dinat_small_57x74.npz")
    return state, data["hf_keys"].tolist(), weights.from_torch("dinat_mini", state, **SMALL)


def of_transformers(state: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The same weights by transformers' names."""
    theirs: dict[str, np.ndarray] = {}
    for key, value in state.items():
        for ours, other in (
            ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
            ("patch_embed.norm.", "embeddings.norm."), ("levels.", "encoder.levels."),
            (".blocks.", ".layers."), (".norm1.", ".layernorm_before."),
            (".norm2.", ".layernorm_after."), (".mlp.fc1.", ".intermediate.dense."),
            (".mlp.fc2.", ".output.dense."), (".attn.rpb", ".attention.self.rpb"),
            (".attn.proj.", ".attention.output.dense."), (".attn.qkv.", ".attention.self.qkv."),
        ):  # fmt: skip
            key = key.replace(ours, other)
        key = f"layer{key}" if key.startswith("norm.") else key
        key = key.replace("head.", "classifier.") if key.startswith("head.") else prefix + key
        if ".qkv." in key:
            for part, array in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                theirs[key.replace("qkv", part)] = array
        else:
            theirs[key] = value
    for key in [key for key in theirs if key.endswith("gamma1")]:
        both = [theirs.pop(key), theirs.pop(key.replace("gamma1", "gamma2"))]
        theirs[key.replace("gamma1", "layer_scale_parameters")] = np.stack(both)
    return theirs


def test_weights_there_and_back_also_by_transformers_names(
    small: Any, caplog: pytest.LogCaptureFixture
) -> None:
    state, hf_keys, variables = small
    back = weights.to_torch("dinat_mini", variables)
    chex.assert_trees_all_equal(dict(back), state)
    theirs = of_transformers(state, "dinat.")
    assert {*theirs} == {*hf_keys}
    wrapped = {f"model.{key}": value for key, value in theirs.items()}
    for given in (theirs, wrapped, of_transformers(state, "")):
        caplog.clear()
        chex.assert_trees_all_equal(weights.from_torch("dinat_mini", given, **SMALL), variables)
        assert "names of Hugging Face" in caplog.text


def test_configs_of_transformers_choose_the_model(tmp_path: Any) -> None:
    options = {k: v for k, v in SMALL.items() if k not in ("num_classes", "image_size")}
    small = dict(model_type="dinat", embed_dim=8, depths=[3, 2, 2], num_heads=[2, 2, 4],
                 kernel_size=3, dilations=[[1, 4, 1], [1, 3], [1, 1]],
                 layer_scale_init_value=1e-5)  # fmt: skip
    for content, name, given in (
        (small, "dinat_mini", options),
        (dict(small, dilations=[[2, 1, 4], [3, 1], [1, 1]]), "dinat_mini", dict(options, mixer=(
            "neighborhood(dilation=2) | neighborhood(dilation=1) | neighborhood(dilation=4) ; "
            "neighborhood(dilation=3) | neighborhood(dilation=1) ; "
            "neighborhood(dilation=1) | neighborhood(dilation=1)"))),
        (dict(model_type="nat"), "nat_mini", {}),
        (dict(model_type="dinat"), "dinat_mini", {}),
        (dict(model_type="dinat", embed_dim=96, depths=[3, 4, 18, 5], num_heads=[3, 6, 12, 24],
              mlp_ratio=2.0, dilations=[[1, 8, 1], [1, 4] * 2, [1, 2] * 9, [1] * 5]),
         "dinat_small", {}),
    ):  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(content))
        found = configs.describe(str(tmp_path))
        assert found is not None
        ours = vitjax.create_model(found.name, 10, **found.options)
        assert ours == vitjax.create_model(name, 10, **given), content


def test_tables_of_another_neighborhood_are_interpolated(small: Any) -> None:
    """The middle of a table, a query's own position, stays where it is."""
    state, _, variables = small
    wide = weights.from_torch("dinat_mini", state, **{**SMALL, "neighborhood_size": 5})
    ours, given = (v["params"]["stage_1"]["block_1"]["mixer"]["rpb"] for v in (wide, variables))
    assert ours.shape == (2, 9, 9) and given.shape == (2, 5, 5)
    np.testing.assert_allclose(ours[:, 4, 4], given[:, 2, 2], atol=1e-6)
