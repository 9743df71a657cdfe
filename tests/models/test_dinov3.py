"""DINOv3 against transformers' numbers, its names and counts, and what it adds to a ViT.

`tests/golden/dinov3.npz` has tiny models of transformers 5.24, as `towers.npz` has others: tokens
of an image of 24×40 pixels after the last norm, and the gradients of their product with a cosine,
all computed in float64.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import vitjax
from tests.drawn import random_variables
from tests.golden.compare import FOLDER
from tests.weights.test_libraries import image
from tests.weights.test_options import assert_same
from tests.weights.test_towers import state_dict
from vitjax import weights

with np.load(FOLDER / "dinov3.npz") as _file:
    CASES = {name: _file[name] for name in _file.files}
COUNTS = {  # of transformers' DINOv3ViTModel, without its mask token
    "vits16": 21_596_160,
    "vits16plus": 28_692_480,
    "vitb16": 85_659_648,
    "vitl16": 303_128_576,
    "vith16plus": 840_591_360,
    "vit7b16": 6_716_030_976,
}


@pytest.mark.golden
@pytest.mark.parametrize("case", ["hf_dinov3", "hf_dinov3_gated"])
def test_tokens_and_gradients_are_the_official_ones(case: str, tmp_path: Any, caplog: Any) -> None:
    options, arrays = state_dict(case, CASES)
    save_file(arrays, tmp_path / "model.safetensors")
    source = tmp_path / "model.safetensors"
    model, variables = vitjax.load_pretrained("dinov3_s16", source, 0, **options)
    assert "names of Hugging Face" in caplog.text and "mask_token" in caplog.text
    wanted = CASES[f"{case}/tokens"]
    probe = np.cos(np.arange(wanted.size) * 0.37).reshape(wanted.shape).astype(np.float32)

    def loss(params: Any, x: Any) -> Any:
        tokens, grid = model.apply({"params": params}, x, method="encode")
        assert grid == (3, 5)
        return jnp.sum(tokens * probe), tokens

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    with jax.default_matmul_precision("highest"):
        (_, tokens), (grads, grad) = step(variables["params"], image(40)[:, 8:32])
    np.testing.assert_allclose(tokens, wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(grad, CASES[f"{case}/grad_image"], rtol=0, atol=1e-5)
    flat, theirs = CASES[f"{case}/grads"], {}
    for key, value in arrays.items():  # gradients have the layout of what they are of
        theirs[key], flat = flat[: value.size].reshape(value.shape), flat[value.size :]
    converted = weights.from_torch("dinov3_s16", theirs, 0, **options)["params"]

    def check(path: Any, own: Any, other: Any) -> None:
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=2e-5, err_msg=str(path))

    jax.tree_util.tree_map_with_path(check, grads, converted)


def authors(arrays: dict[str, Any]) -> dict[str, Any]:
    """The same weights as the authors' code would save them, with biases of k that it masks."""
    rules = (
        (r"^embeddings\.(cls_token|mask_token)$", r"\1"),
        (r"^embeddings\.register_tokens$", "storage_tokens"),
        (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
        (r"^layer\.(\d+)\.", r"blocks.\1."),
        (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
        (r"\.attention\.o_proj\.", ".attn.proj."),
        (r"\.mlp\.gate_proj\.", ".mlp.w1."),
    )
    gated = any("gate_proj" in key for key in arrays)
    rules += ((r"\.up_proj\.", ".w2." if gated else ".fc1."),)
    rules += ((r"\.down_proj\.", ".w3." if gated else ".fc2."),)
    found: dict[str, Any] = {"rope_embed.periods": np.ones(2), "local_cls_norm.weight": np.ones(16)}
    for key, value in arrays.items():
        if "q_proj" in key:
            q, v = value, arrays[key.replace("q_proj", "v_proj")]
            k = arrays.get(key.replace("q_proj", "k_proj"), np.full_like(q, 7))
            key = re.sub(r"layer\.(\d+)\.attention\.q_proj", r"blocks.\1.attn.qkv", key)
            found[key] = np.concatenate([q, k, v])
            if key.endswith("bias"):
                found[f"{key}_mask"] = np.repeat([1.0, 0.0, 1.0], 16)
        elif not re.search(r"\.[kv]_proj\.", key):
            for pattern, replacement in rules:
                key = re.sub(pattern, replacement, key)
            found[key] = value
    return found


@pytest.mark.parametrize("case", ["hf_dinov3", "hf_dinov3_gated"])
def test_other_names_of_the_same_weights(case: str, caplog: pytest.LogCaptureFixture) -> None:
    options, arrays = state_dict(case, CASES)
    expected = weights.from_torch("dinov3_s16", arrays, 0, **options)
    in_memory = {re.sub(r"^layer\.", "model.layer.", k): v for k, v in arrays.items()}
    older = {f"dinov3_vit.{k}": v for k, v in arrays.items()}
    of_authors = authors(arrays)
    for given in (
        in_memory,
        older,
        of_authors,
        {f"teacher.backbone.{k}": v for k, v in of_authors.items()},
    ):
        assert_same(weights.from_torch("dinov3_s16", given, 0, **options), expected)
    assert "names of DINOv3's code" in caplog.text and "DINOv2" not in caplog.text
    if case == "hf_dinov3":
        with pytest.raises(ValueError, match=r"misshapen: blocks\.0\.attn\.qkv\.bias"):
            weights.from_torch("dinov3_s16", of_authors, 0, **options, key_bias=True)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_transformers(name: str) -> None:
    repository = f"facebook/dinov3-{name}-pretrain-lvd1689m"
    params = weights.abstract_variables(vitjax.create_model(repository, 0, scan=True))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == COUNTS[name]


TINY: dict[str, Any] = dict(width=16, depth=2, num_heads=2, image_size=16, patch_size=4)


@pytest.mark.slow
def test_scan_and_remat_change_no_number() -> None:
    """The angles of a loop over layers are those of the layers one by one."""
    x = jnp.asarray(image(20))
    plain: Any = vitjax.create_model("dinov3_s16", 5, **TINY)
    variables = random_variables(plain)
    (expected,) = jax.jit(lambda v: plain.apply(v, x, method="features"))(variables)
    shapes = weights.to_torch("dinov3_s16", variables)
    for options in (dict(remat=True), dict(scan=True), dict(scan=True, layers_of_features=(1,))):
        model: Any = vitjax.create_model("dinov3_s16", 5, **TINY, **options)
        own = weights.from_torch("dinov3_s16", shapes, 5, **TINY, **options)
        (found,) = jax.jit(lambda v, m=model: m.apply(v, x, method="features"))(own)
        if options.get("layers_of_features"):
            found = plain.bind(variables).norm(found)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_positions_vary_in_training_alone() -> None:
    """One draw moves the patches of all images, and neither the class token nor the registers."""
    model: Any = vitjax.create_model("dinov3_s16", 0, **TINY)
    variables = random_variables(model)

    def angles(train: bool, key: int = 0) -> np.ndarray:
        def call(m: Any) -> Any:
            return m.angles((2, 4), train)

        return np.asarray(
            model.apply(variables, rngs={"dropout": jax.random.key(key)}, method=call)
        )

    fixed = angles(False)
    drawn = np.array([angles(True, key) for key in range(8)])
    assert fixed.shape == (5 + 8, 4) and not fixed[:5].any() and not drawn[:, :5].any()
    factors = (drawn[:, 5:] / fixed[5:]).reshape(8, -1)
    np.testing.assert_allclose(factors, factors[:, :1].repeat(factors.shape[1], 1), rtol=1e-5)
    assert len(np.unique(factors[:, 0])) == 8
    assert 0.5 <= factors.min() < 1 < factors.max() <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(position="rope(theta=0)"),
            r"rope\(theta=0\)': theta=0 does not fit; its options are",
        ),
        (dict(position="rope(rescale=0.5)"), "jitter and rescale from 1"),
        (dict(position="rope(shift='a')"), "its options are numbers"),
        (dict(position="rope(scale=2)"), "option of position='rope' 'scale'; did you mean 'resca"),
        (dict(position="rope(2)"), "does not parse; write 'rope', or"),
        (dict(position="ropes"), "Unknown position 'ropes'; did you mean 'rope'"),
        (dict(mixer="pooling", pool="gap"), "Pooling does not turn its queries and keys"),
        (dict(depth=3, exits=(0,)), "positions other than 'rope'; here are ViT"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vitjax.create_model("dinov3_s16", 5, **{**TINY, **options})


def test_heads_that_do_not_divide_are_refused() -> None:
    model: Any = vitjax.create_model("dinov3_s16", 5, **{**TINY, "width": 12})
    with pytest.raises(ValueError, match="must be divisible by 4; got 6"):
        jax.eval_shape(model.init, jax.random.key(0), image(16))
