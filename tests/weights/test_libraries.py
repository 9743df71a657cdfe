"""Weights in the names of other libraries give their logits.

`libraries.npz` has tiny models of transformers 5.24, torchvision 0.28 and timm 1.0: keys, those of
the saved file where they differ, shapes, and logits in float64. Arrays and image follow the rules
below. Norms of ViT and of PVT there were given the epsilon that ours have.
"""

import json
import pathlib
import re
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import vitjax
from tests.weights.test_options import assert_same, random_variables
from vitjax import weights
from vitjax.models import MODELS
from vitjax.models.aliases import ALIASES

VIT: dict[str, Any] = dict(width=16, depth=2, num_heads=2, image_size=32, patch_size=8)
with np.load(pathlib.Path(__file__).parent / "libraries.npz") as _file:
    CASES = {name: _file[name] for name in _file.files}


def array(i: int, shape: tuple[int, ...], key: str) -> np.ndarray:
    """The i-th array of a model: a sine, around 1 for norms and around 2 for a logit scale."""
    n = int(np.prod(shape))
    values = np.sin(np.arange(n) * (0.7 + 0.013 * i) + i) * 0.3
    if key.endswith("logit_scale"):
        values = values + 2
    elif len(shape) == 1 and re.search(r"(norm|ln_|layernorm|ln)\w*\.(\d\.)?weight$", key):
        values = 1 + values
    return values.reshape(shape).astype(np.float32)


def image(side: int) -> np.ndarray:
    n = np.arange(side * side * 3)
    pixels = np.sin(n * 0.37) + np.cos(n * 0.011)
    return pixels.reshape(1, side, side, 3).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted({name.split("/")[0] for name in CASES}))
def test_logits(case: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    name, given, side = json.loads(CASES[f"{case}/ours"].item())
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    keys = [key.decode() for key in CASES[f"{case}/keys"]]
    shapes = [tuple(int(n) for n in shape if n) for shape in CASES[f"{case}/shapes"]]
    numbered = zip(CASES[f"{case}/index"], shapes, keys, strict=True)
    arrays = [array(int(i), shape, key) for i, shape, key in numbered]
    save_file(dict(zip(keys, arrays, strict=True)), tmp_path / "model.safetensors")
    model, variables = vitjax.load_pretrained(name, tmp_path / "model.safetensors", **options)
    library = {"hf": "Hugging Face", "tv": "torchvision", "timm": "timm"}[case.split("_")[0]]
    assert f"names of {library}" in caplog.text
    saved = [key.decode() for key in CASES.get(f"{case}/saved", ())]
    if saved:
        save_file(dict(zip(saved, arrays, strict=True)), tmp_path / "model.safetensors")
        _, again = vitjax.load_pretrained(name, tmp_path / "model.safetensors", **options)
        assert_same(again, variables)
    logits = jax.jit(model.apply)(variables, image(side))
    # A BiT of weights that vary little loses digits in float32; theirs does too, by as much.
    tolerance = 1e-3 if case == "hf_bit" else 1e-5
    np.testing.assert_allclose(logits, CASES[f"{case}/logits"], rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def vit() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A ViT with layer scale and registers: its variables, and its state dict."""
    options = dict(VIT, layer_scale_init=1.0, num_registers=4)
    variables, _ = random_variables("vit_s8", **options)
    return variables, weights.to_torch("vit_s8", variables)


def load(state_dict: dict[str, Any], num_classes: int | None = 5, **options: Any) -> Any:
    options = dict(VIT, layer_scale_init=1.0, num_registers=4) | options
    return weights.from_torch("vit_s8", state_dict, num_classes, **options)


def without_head(variables: dict[str, Any]) -> dict[str, Any]:
    return {"params": {k: v for k, v in variables["params"].items() if k != "head"}}


def test_dinov2(vit: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Its own names, and the same in chunks of blocks, as training writes them."""
    variables, state_dict = vit
    theirs = {k: v for k, v in state_dict.items() if not k.startswith("head.")}
    theirs["register_tokens"] = theirs.pop("reg_token")
    theirs["mask_token"] = np.zeros((1, 16), np.float32)
    chunks = {re.sub(r"^blocks\.(\d)\.", r"blocks.\1.\1.", k): v for k, v in theirs.items()}
    assert "blocks.1.1.ls2.gamma" in chunks
    teacher = {f"backbone.{k}": v for k, v in chunks.items()}
    teacher["dino_head.mlp.0.weight"] = np.zeros(3)
    for given in (theirs, chunks, teacher):
        caplog.clear()
        assert_same(load(given, 0), without_head(variables))
        assert "DINOv2" in caplog.text and "mask_token" in caplog.text
    assert "'backbone.'" in caplog.text and "dino_head.mlp" in caplog.text


def test_mae(caplog: pytest.LogCaptureFixture) -> None:
    variables, _ = random_variables("vit_s8", **VIT)
    state_dict = weights.to_torch("vit_s8", variables)
    theirs = {k: v for k, v in state_dict.items() if not k.startswith("head.")}
    theirs["mask_token"] = theirs["decoder_pos_embed"] = np.zeros((1, 1, 8))
    for name in ("embed", "blocks.0.attn.qkv", "norm", "pred"):
        theirs[f"decoder_{name}.weight"] = np.zeros(3)
    plain = dict(VIT)
    assert_same(weights.from_torch("vit_s8", theirs, 0, **plain), without_head(variables))
    assert "MAE's pretraining" in caplog.text and "decoder_blocks" in caplog.text
    tuned = {
        k.replace("norm.", "fc_norm.") if k.startswith("norm.") else k: v
        for k, v in state_dict.items()
    }
    with pytest.raises(ValueError, match=r"\('fc_norm.*pool='gap', class_token=True and pool_norm"):
        weights.from_torch("vit_s8", tuned, 5, **plain)


@pytest.mark.parametrize(
    "key",
    ["norm_pre.weight", "visual.trunk.norm_pre.weight"],
)
def test_clip_needs_options(key: str, vit: Any) -> None:
    prefix = key.partition("norm_pre")[0]
    with pytest.raises(ValueError, match="give the model pre_norm=True, norm_epsilon=1e-5"):
        load({**{f"{prefix}{k}": v for k, v in vit[1].items()}, key: np.zeros(16)})


@pytest.mark.parametrize("prefix", ["backbone.", "net.", "module.visual.trunk.", "model."])
def test_prefixes_beside_other_keys(
    prefix: str, vit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    variables, state_dict = vit
    given = {f"{prefix}{k}": v for k, v in state_dict.items()}
    given |= {"criterion.weight": np.zeros(5), "text.0.weight": np.zeros((2, 2))}
    assert_same(load(given), variables)
    assert repr(prefix) in caplog.text and "criterion, text" in caplog.text
    caplog.clear()
    assert_same(load({**state_dict, "criterion.weight": np.zeros(5)}), variables)
    assert "Left out, as the model does not read it: criterion." in caplog.text


def test_which_of_two_models_counts(vit: Any) -> None:
    variables, state_dict = vit
    zeros = {k: np.zeros_like(v) for k, v in state_dict.items()}
    pairs = (("model.", "model_ema.module."), ("student.", "teacher."), ("teacher.", "model."))
    for prefix, wanted in pairs:
        others = {f"{prefix}{k}": v for k, v in zeros.items()}
        averaged = {f"{wanted}{k}": v for k, v in state_dict.items()}
        assert_same(load({**others, **averaged}), variables)


def test_a_wrapped_teacher(vit: Any, tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    variables, state_dict = vit
    teacher = {f"backbone.{k}": torch.tensor(v) for k, v in state_dict.items()}
    content = {"student": {"backbone.cls_token": torch.zeros(1)}, "teacher": teacher, "epoch": 3}
    torch.save(content, tmp_path / "dino.pth")
    options: dict[str, Any] = dict(VIT, layer_scale_init=1.0, num_registers=4)
    _, loaded = vitjax.load_pretrained("vit_s8", tmp_path / "dino.pth", **options)
    assert_same(loaded, variables)


def test_damaged_weights_of_a_library_are_listed() -> None:
    keys = [key.decode() for key in CASES["hf_vit/keys"]]
    shapes = [tuple(int(n) for n in shape if n) for shape in CASES["hf_vit/shapes"]]
    state_dict = {k: np.zeros(s, np.float32) for k, s in zip(keys, shapes, strict=True)}
    del state_dict["vit.layers.1.attention.k_proj.weight"]
    with pytest.raises(ValueError, match="3 keys differ") as error:
        weights.from_torch("vit_s8", state_dict, 5, **VIT)
    assert "missing: blocks.1.attn.qkv.weight" in str(error.value)
    assert "unused: blocks.1.attn.q.weight (16, 16)" in str(error.value)


@pytest.mark.slow
def test_a_backbone_of_another_library_under_a_dense_head(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [key.decode() for key in CASES["hf_swin/keys"]]
    shapes = [tuple(int(n) for n in shape if n) for shape in CASES["hf_swin/shapes"]]
    arrays = {k: array(3, s, k) for k, s in zip(keys, shapes, strict=True)}
    options: dict[str, Any] = dict(
        backbone="swin_tiny(dims=(8,16),depths=(2,2),num_heads=(1,2),window_size=4)",
        image_size=64,
        width=8,
    )
    for prefix in ("", "backbone."):
        save_file({prefix + k: v for k, v in arrays.items()}, tmp_path / "swin.safetensors")
        _, loaded = vitjax.load_pretrained(
            "semantic_fpn", tmp_path / "swin.safetensors", 5, **options
        )
        assert "names of Hugging Face" in caplog.text and "weights of a classifier" in caplog.text
        patches = loaded["params"]["backbone"]["stem"]["embed"]["conv"]["kernel"]
        theirs = arrays["swin.embeddings.patch_embeddings.projection.weight"]
        np.testing.assert_array_equal(patches, theirs.transpose(2, 3, 1, 0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_classes", "count"),
    [
        ("vit_base_patch16_224", 1000, 86_567_656),
        ("vit_small_patch14_dinov2.lvd142m", 0, 22_056_192),
        ("deit3_small_patch16_224", 1000, 22_059_496),
        ("vit_giant_patch14_dinov2", 0, 1_136_479_232),
        ("vit_base_patch16_siglip_224", 0, 92_884_224),
        ("swin_tiny_patch4_window7_224", 1000, 28_288_354),
        ("volo_d1_224", 1000, 26_632_040),
        ("resnetv2_50x1_bit", 1000, 25_549_352),
        ("swinv2_tiny_window8_256", 1000, 28_347_154),
        ("google/vit-base-patch16-224", 1000, 86_567_656),
        ("facebook/deit-tiny-patch16-224", 1000, 5_717_416),
    ],
)
def test_other_names_of_models(name: str, num_classes: int, count: int) -> None:
    """Against the parameters that these libraries count."""
    shapes = weights.abstract_variables(vitjax.create_model(name, num_classes))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_every_other_name_is_a_model() -> None:
    for name, (ours, options) in ALIASES.items():
        assert name not in MODELS
        assert vitjax.create_model(name) == vitjax.create_model(ours, **options)
    with pytest.raises(ValueError, match="did you mean 'vit_base_patch16_224'"):
        vitjax.create_model("vit_base_patch16_244")
    with pytest.raises(ValueError, match="did you mean 'google/vit-base-patch16-224'"):
        vitjax.create_model("google/vit-bas-patch16-224")
