"""Towers of image-text models, MAE's fine-tuned ViTs and DINOv2's gated MLP give their logits.

`tests/golden/towers.npz` has tiny models of timm 1.0.31, open_clip 3.3 and transformers 5.24 as
`tests/weights/libraries.npz` has others: keys, shapes, logits in float64.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import vitjax
from tests.weights.test_libraries import VIT, array, image
from tests.weights.test_options import assert_same, random_variables
from vitjax import weights
from vitjax.weights.preprocessing import published_preprocessing

with np.load(pathlib.Path(__file__).parents[1] / "golden" / "towers.npz") as _file:
    CASES = {name: _file[name] for name in _file.files}
CLIP, SIGLIP, IMAGENET = 0.48145466, 0.5, 0.485
MEANS = {
    "timm_mae": IMAGENET, "timm_clip": CLIP, "timm_siglip": SIGLIP, "timm_giant": SIGLIP,
    "oc_clip": CLIP, "hf_clip": CLIP, "hf_siglip": SIGLIP, "hf_giant": IMAGENET,
}  # fmt: skip
"""First channel's mean, of the layout alone; timm's DINOv2 has the layout of timm's ViTs."""


def state_dict(
    case: str, cases: dict[str, np.ndarray] = CASES
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    keys = [key.decode() for key in cases[f"{case}/keys"]]
    shapes = [tuple(int(n) for n in shape if n) for shape in cases[f"{case}/shapes"]]
    numbered = zip(cases[f"{case}/index"], shapes, keys, strict=True)
    arrays = [array(int(i), shape, key) for i, shape, key in numbered]
    return json.loads(cases[f"{case}/ours"].item()), dict(zip(keys, arrays, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", MEANS)
def test_logits(case: str, tmp_path: pathlib.Path) -> None:
    options, arrays = state_dict(case)
    # What the whole model holds besides.
    others = {
        "oc_clip": ("logit_scale", "transformer.resblocks.0.ln_1.weight", "text_projection"),
        "hf_siglip": ("logit_scale", "text_model.embeddings.token_embedding.weight"),
    }
    more = {key: np.zeros((2, 3), np.float32) for key in others.get(case, ())}
    save_file({**arrays, **more}, tmp_path / "model.safetensors")
    assert published_preprocessing("vit_s8", arrays=arrays).mean[0] == MEANS[case]
    model, variables = vitjax.load_pretrained("vit_s8", tmp_path / "model.safetensors", **options)
    logits = jax.jit(model.apply)(variables, image(32))
    np.testing.assert_allclose(logits, CASES[f"{case}/logits"], rtol=0, atol=1e-5)


def test_a_tower_without_biases() -> None:
    """Neither its patches nor its projection have any."""
    options: dict[str, Any] = dict(VIT, pre_norm=True, act="quick_gelu", norm_epsilon=1e-5)
    given, _ = random_variables("vit_s8", **options)
    for layer in (given["params"]["head"], given["params"]["patch_embed"]["proj"]):
        layer["bias"] = np.zeros_like(layer["bias"])
    theirs = weights.to_torch("vit_s8", given, **options)
    for key in ("head.bias", "patch_embed.proj.bias"):
        del theirs[key]  # theirs have none
    assert "norm_pre.weight" in theirs
    assert_same(weights.from_torch("vit_s8", theirs, 5, **options), given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(class_token=False), "there is nothing to read"),
        (dict(pool_norm=True), "choose pool='gap'"),
        (dict(pool="map", pool_norm=True), "pool_norm=True with pool='map'"),
        (dict(act="quickgelu"), "did you mean 'quick_gelu'"),
        (dict(mlp="swiglu", act="quick_gelu"), "mlp='swiglu' has SiLU"),
        (dict(mlp="gated"), "Unknown mlp 'gated'"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vitjax.create_model("vit_s8", 5, **VIT, **options)


def test_names_choose_the_options() -> None:
    tower: Any = vitjax.create_model("openai/clip-vit-large-patch14-336", 0)
    assert (tower.pre_norm, tower.act, tower.norm_epsilon) == (True, "quick_gelu", 1e-5)
    assert tower.image_size == 336 and tower.depth == 24
    giant: Any = vitjax.create_model("facebook/dinov2-giant", 0)
    assert (giant.mlp, giant.width, giant.num_heads) == ("swiglu", 1536, 24)
