"""Published weights say how they want their images, once, and everything that asks hears it."""

import json
import pathlib
import sys
import types
from typing import Any

import numpy as np
import pytest

from tests.weights.test_options import random_variables
from vitjax import weights
from vitjax.data.transforms.crops import INTERPOLATIONS, check_crop
from vitjax.models import FAMILIES, MODELS, preprocessing_of
from vitjax.models.aliases import ALIASES
from vitjax.models.preprocessing import CLIP, HALF, IMAGENET
from vitjax.runs import abstract_teacher, load_weights, open_trained, published_pixels
from vitjax.tools.info import model_info
from vitjax.training import load_config
from vitjax.weights.preprocessing import published_preprocessing

MEANS = {IMAGENET["mean"]: "imagenet", HALF["mean"]: "half", CLIP["mean"]: "clip"}
STDS = {IMAGENET["std"]: "imagenet", HALF["std"]: "half", CLIP["std"]: "clip"}
FINETUNE = "finetune"


def short(found: Any) -> tuple[Any, ...]:
    assert MEANS[found.mean] == STDS[found.std]
    return MEANS[found.mean], found.image_size, round(found.crop, 3), found.interpolation


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_b16", ("half", 224, 0.9, "bicubic")),
        ("vit_base_patch16_384.augreg_in21k_ft_in1k", ("half", 384, 1.0, "bicubic")),
        ("vit_base_r50_s16_384", ("half", 384, 1.0, "bicubic")),
        ("vit_small_patch16_224.dino", ("imagenet", 224, 0.875, "bicubic")),
        ("vit_base_patch16_224.mae", ("imagenet", 224, 0.875, "bicubic")),
        ("vit_small_patch14_dinov2.lvd142m", ("imagenet", 518, 1.0, "bicubic")),
        ("facebook/dinov2-small", ("imagenet", 224, 0.875, "bicubic")),
        ("dinov3_b16", ("imagenet", 224, 0.0, "antialias")),
        ("facebook/dinov3-vits16-pretrain-lvd1689m", ("imagenet", 224, 0.0, "antialias")),
        ("google/vit-base-patch16-224", ("half", 224, 0.0, "bilinear")),
        ("deit3_small_patch16_384", ("imagenet", 384, 1.0, "bicubic")),
        ("deit_tiny_distilled", ("imagenet", 224, 0.875, "bicubic")),
        ("swin_tiny", ("imagenet", 224, 0.875, "bicubic")),
        ("swin_base_384", ("imagenet", 384, 0.0, "bicubic")),
        ("swinv2_base_w24", ("imagenet", 384, 0.0, "bicubic")),
        ("volo_d1", ("imagenet", 224, 0.96, "bicubic")),
        ("volo_d3_448", ("imagenet", 448, 1.0, "bicubic")),
        ("volo_d5", ("imagenet", 224, 1.15, "bicubic")),
        ("bit_r50x1", ("half", 224, 0.875, "antialias")),
        ("pvt_v2_b2", ("imagenet", 224, 0.875, "bicubic")),
        ("vit_ti20", ("half", 224, 0.9, "bicubic")),
    ],
)
def test_what_models_were_published_for(name: str, expected: tuple[Any, ...]) -> None:
    assert short(preprocessing_of(name)) == expected


def test_images_of_satellites_are_normalised_otherwise() -> None:
    found = preprocessing_of("facebook/dinov3-vitl16-pretrain-sat493m")
    assert (found.mean[0], found.std[0], found.crop) == (0.43, 0.213, 0.0)


def test_every_model_says_it() -> None:
    for name in (*MODELS, *ALIASES):
        found = preprocessing_of(name)
        check_crop(found.crop)
        assert found.source and found.interpolation in INTERPOLATIONS
    for family in FAMILIES:
        assert "*" in family.preprocessing


KEYS = {
    "google": ("vit_b16", ["Transformer/encoder_norm/scale", "embedding/kernel"]),
    "bit": ("bit_r50x1", ["resnet/root_block/standardized_conv2d/kernel"]),
    "torchvision": ("vit_l16", ["conv_proj.weight", "encoder.ln.weight"]),
    "torchvision swin": ("swin_small", ["features.0.0.weight"]),
    "hf": ("vit_b16", ["vit.embeddings.patch_embeddings.projection.weight"]),
    "hf deit": ("deit_base", ["deit.embeddings.patch_embeddings.projection.weight"]),
    "hf dinov2": ("vit_b14", ["embeddings.patch_embeddings.projection.weight",
                              "encoder.layer.0.layer_scale1.lambda1"]),
    "hf dinov3": ("vit_b16", ["embeddings.patch_embeddings.weight"]),
    "hf mae": ("vit_b16", ["vit.embeddings.patch_embeddings.projection.weight",
                           "decoder.decoder_embed.weight"]),
    "dinov2": ("vit_b14", ["patch_embed.proj.weight", "mask_token"]),
    "dinov3": ("vit_b16", ["patch_embed.proj.weight", "mask_token", "storage_tokens"]),
    "mae": ("vit_b16", ["module.patch_embed.proj.weight", "module.decoder_embed.weight"]),
    "dino": ("vit_s16", ["backbone.patch_embed.proj.weight", "head.last_layer.weight_g"]),
    "siglip": ("vit_b16", ["visual.trunk.patch_embed.proj.weight",
                           "visual.trunk.attn_pool.latent"]),
    "plain": ("vit_b16", ["patch_embed.proj.weight", "head.weight"]),
    "deit": ("deit_base", ["patch_embed.proj.weight", "head.weight"]),
}  # fmt: skip
LAYOUTS = {
    "google": ("half", 224, 0.0, "bilinear"),
    "bit": ("half", 480, 0.0, "bilinear"),
    "torchvision": ("imagenet", 224, 0.926, "antialias"),
    "torchvision swin": ("imagenet", 224, 0.911, "bicubic"),
    "hf": ("half", 224, 0.0, "bilinear"),
    "hf deit": ("imagenet", 224, 0.875, "bicubic"),
    "hf dinov2": ("imagenet", 224, 0.875, "bicubic"),
    "hf dinov3": ("imagenet", 224, 0.0, "antialias"),
    "hf mae": ("imagenet", 224, 0.875, "bicubic"),
    "dinov2": ("imagenet", 224, 0.875, "bicubic"),
    "dinov3": ("imagenet", 224, 0.0, "antialias"),
    "mae": ("imagenet", 224, 0.875, "bicubic"),
    "dino": ("imagenet", 224, 0.875, "bicubic"),
    "siglip": ("half", 224, 0.0, "bicubic"),
    "plain": ("half", 224, 0.9, "bicubic"),
    "deit": ("imagenet", 224, 0.875, "bicubic"),
}


@pytest.mark.parametrize("layout", KEYS)
def test_layouts(layout: str, caplog: pytest.LogCaptureFixture) -> None:
    name, keys = KEYS[layout]
    found = published_preprocessing(name, arrays=dict.fromkeys(keys, np.zeros(1)))
    assert short(found) == LAYOUTS[layout]
    assert f"{name} wants its images so" in caplog.text and found.source in caplog.text


@pytest.mark.parametrize(
    ("length", "size"), [(196, 224), (197, 224), (198, 224), (576, 384), (577, 384), (7, 224)]
)
def test_the_size_of_a_position_table(length: int, size: int) -> None:
    for key in ("pos_embed", "Transformer/posembed_input/pos_embedding"):
        arrays = {key: np.zeros((1, length, 8)), "decoder_pos_embed": np.zeros((1, 50, 8))}
        assert published_preprocessing("vit_b16", arrays=arrays).image_size == size


TIMM = dict(
    architecture="vit_base_patch16_224",
    pretrained_cfg=dict(
        input_size=[3, 240, 240],
        interpolation="bilinear",
        crop_pct=0.95,
        crop_mode="center",
        mean=[0.1, 0.2, 0.3],
        std=[0.4, 0.5, 0.6],
    ),
)
HF = dict(do_resize=True, size=dict(height=240, width=240), resample=2, do_normalize=True,
          image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])  # fmt: skip
CLIP_HF = dict(HF, size=dict(shortest_edge=240), do_center_crop=True, resample=3,
               crop_size=dict(height=228, width=228))  # fmt: skip
OPEN_CLIP = dict(
    preprocess_cfg=dict(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]),
    model_cfg=dict(vision_cfg=dict(image_size=240)),
)
RUN = dict(model=dict(name="vit_b16"), data=dict(
    image_size=240, eval_crop=0.7, interpolation="area", mean=[0.1, 0.2, 0.3],
    std=[0.4, 0.5, 0.6]))  # fmt: skip
TIMM_CFG: dict[str, Any] = TIMM["pretrained_cfg"]  # type: ignore[assignment]
BESIDE = {
    "timm": ("config.json", TIMM, (240, 0.95, "antialias")),
    "timm, old": ("config.json", dict(TIMM_CFG, crop_pct=None), (240, 0.875, "antialias")),
    "timm, squeezed": (
        "config.json",
        dict(pretrained_cfg=dict(TIMM_CFG, crop_mode="squash", crop_pct=1.0)),
        (240, 0.0, "antialias"),
    ),
    "hf": ("preprocessor_config.json", HF, (240, 0.0, "antialias")),
    "hf, old": ("preprocessor_config.json", dict(HF, size=240), (240, 0.0, "antialias")),
    "hf clip": ("preprocessor_config.json", CLIP_HF, (228, 0.95, "bicubic")),
    "hf deit": (
        "preprocessor_config.json",
        dict(HF, size=256, do_center_crop=True, crop_size=224),
        (224, 0.875, "antialias"),
    ),
    "open_clip": ("open_clip_config.json", OPEN_CLIP, (240, 1.0, "bicubic")),
}


@pytest.mark.parametrize("case", BESIDE)
def test_files_beside_win(case: str, tmp_path: pathlib.Path) -> None:
    file, content, (size, crop, interpolation) = BESIDE[case]
    (tmp_path / file).write_text(json.dumps(content))
    # Google's layout, and a table for 384: the file wins over both.
    arrays = {"Transformer/posembed_input/pos_embedding": np.zeros((1, 577, 8))}
    found = published_preprocessing("vit_b16", tmp_path / "model.safetensors", arrays)
    assert found[:2] == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (found.image_size, round(found.crop, 4), found.interpolation) == (
        size,
        crop,
        interpolation,
    )
    assert file in found.source


def test_a_run_as_weights(tmp_path: pathlib.Path) -> None:
    (tmp_path / "checkpoints" / "100").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(RUN))
    for source in (".", "checkpoints", "checkpoints/100"):
        found = published_preprocessing("vit_b16", tmp_path / source, {"params": {}})
        assert found[:4] == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.7, "area")
        assert found.image_size == 240


def test_files_that_say_nothing(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """Transformers' config.json, and that of another architecture in the same folder."""
    for content in (dict(model_type="vit", image_size=99), dict(TIMM, architecture="swin_t")):
        (tmp_path / "config.json").write_text(json.dumps(content))
        found = published_preprocessing("vit_b16", tmp_path / "x.pth", {})
        assert short(found) == ("half", 224, 0.9, "bicubic")
    assert "is for swin_t, and not for vit_b16" in caplog.text


def test_the_kernel_of_our_own_exports_is_read_again(tmp_path: pathlib.Path) -> None:
    config = dict(TIMM, pretrained_cfg=dict(TIMM_CFG, interpolation="box"))
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = published_preprocessing("vit_b16", tmp_path / "x.pth", {})
    assert found.interpolation == "area"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"config\.json is no JSON"),
        (json.dumps(dict(pretrained_cfg=dict(TIMM_CFG, mean=None))), "not say how images"),
        (json.dumps(dict(pretrained_cfg=dict(TIMM_CFG, interpolation="lanczos"))), "'lanczos'"),
        (json.dumps(dict(pretrained_cfg=dict(TIMM_CFG, crop_mode="border"))), "'border'"),
        (json.dumps(dict(pretrained_cfg=dict(TIMM_CFG, input_size=[3, 8, 9]))), "8×9 pixels"),
    ],
)
def test_files_that_cannot_be_followed(tmp_path: pathlib.Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        published_preprocessing("vit_b16", tmp_path / "x.pth", {})


def test_the_hub(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub: Any = types.ModuleType("huggingface_hub")
    entry = type("EntryNotFoundError", (Exception,), {})
    local = type("LocalEntryNotFoundError", (entry, FileNotFoundError), {})
    hub.errors = types.SimpleNamespace(EntryNotFoundError=entry, LocalEntryNotFoundError=local)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HF))

    def download(repo: str, file: str) -> str:
        if repo == "a/offline":
            raise local
        if file != ("sub/" if repo == "a/sub" else "") + "preprocessor_config.json":
            raise entry
        return str(tmp_path / "preprocessor_config.json")

    hub.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    for source in ("hf://a/b", "hf://a/b/model.safetensors", "hf://a/sub/sub/x.bin"):
        assert published_preprocessing("vit_b16", source, {}).image_size == 240
    assert short(published_preprocessing("vit_b16", "hf://a/offline", {}))[0] == "half"
    assert "cannot be asked for config.json of a/offline" in caplog.text


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Weights of `vit_ti96` for 384 pixels, by Google's names, bare."""
    folder = tmp_path_factory.mktemp("weights")
    from flax import traverse_util

    variables, _ = random_variables("vit_ti96", image_size=384)
    leaves = traverse_util.flatten_dict(variables)
    arrays = weights.table.dump(
        weights.FAMILIES[weights.model_spec("vit_ti96").factory].GOOGLE, leaves
    )
    split = {}
    for key, value in arrays.items():
        if "query+key+value" not in key:
            split[key] = value
            continue
        for part, array in zip(("query", "key", "value"), np.moveaxis(value, -3, 0), strict=True):
            split[key.replace("query+key+value", part)] = array
    np.savez(folder / "google.npz", **split)
    return folder / "google.npz"


@pytest.mark.slow
def test_open_trained(tiny: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    trained = open_trained(f"vit_ti96={tiny}")
    assert (trained.mean, trained.std) == (HALF["mean"], HALF["std"])
    assert (trained.image_size, trained.crop, trained.interpolation) == (384, 0.0, "bilinear")
    assert trained.model.image_size == 384 and trained.model.num_classes == 5  # type: ignore[attr-defined]
    assert "vision_transformer, input_pipeline.py" in caplog.text
    teacher = abstract_teacher("swin_tiny=not_here.pth")
    assert teacher is not None and teacher.mean == IMAGENET["mean"] and teacher.crop == 0.875


def test_fine_tuning_reads_what_its_first_weights_want(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, tiny: pathlib.Path
) -> None:
    def pixels(**fields: str) -> Any:
        d = load_config(FINETUNE, {k.replace("__", "."): v for k, v in fields.items()}).data
        assert MEANS[tuple(d.mean)] == STDS[tuple(d.std)]
        return MEANS[tuple(d.mean)]

    assert pixels() == "half"
    assert pixels(model__name="swin_tiny") == "imagenet"
    assert pixels(model__name="vit_ti96", init=str(tiny)) == "half"
    assert (
        pixels(model__name="swin_tiny", data__mean="(0.5, 0.5, 0.5)", data__std="(0.5, 0.5, 0.5)")
        == "half"
    )
    (tmp_path / "config.json").write_text(
        json.dumps(dict(TIMM, pretrained_cfg=dict(TIMM_CFG, **IMAGENET)))
    )
    np.savez(tmp_path / "weights.npz", cls=np.zeros(1))
    assert pixels(init=str(tmp_path / "weights.npz")) == "imagenet"
    caplog.clear()
    assert pixels(init=str(tmp_path / "later.pth")) == "half"
    assert "no file or folder" in caplog.text
    assert published_pixels("volo_d1", "").crop == 0.96


def test_first_weights_of_another_normalisation_are_said(
    tiny: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = {
        "model.name": "vit_ti96",
        "data.mean": str(IMAGENET["mean"]),
        "data.std": str(IMAGENET["std"]),
        "data.image_size": "384",
    }
    load_weights(load_config(FINETUNE, overrides), str(tiny), 5)
    assert "pretrained weights expect mean (0.5, 0.5, 0.5)" in caplog.text
    caplog.clear()
    del overrides["data.mean"], overrides["data.std"]
    load_weights(load_config(FINETUNE, overrides), str(tiny), 5)
    assert "pretrained weights expect" not in caplog.text


def test_info_says_it() -> None:
    result, text = model_info("vit_ti96", 96, 1)
    assert result["preprocessing"]["mean"] == HALF["mean"]
    assert "published for" in text and "crop 0.9, bicubic" in text
