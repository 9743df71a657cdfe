"""The config beside weights chooses their model."""

import json
import pathlib
import sys
import types
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import vitjax
from tests.models import test_dinov3 as dinov3
from tests.weights import test_libraries as libraries
from tests.weights import test_towers as towers
from vitjax.models import create_model, model_options, model_spec
from vitjax.runs import Trained, open_teacher, open_trained, published_weights
from vitjax.tools.evaluate import open_subject
from vitjax.tools.export.given import Given, open_given
from vitjax.tools.export.hub import timm_model
from vitjax.weights import configs, load

VIT = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
           patch_size=8, image_size=32)  # fmt: skip
DINO = {k: v for k, v in VIT.items() if k != "intermediate_size"}
SWIN: dict[str, Any] = dict(embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=4,
                            image_size=64)  # fmt: skip
STAGES: dict[str, Any] = dict(hidden_sizes=[8, 8, 16, 16], depths=[1, 2, 1, 1],
                              num_attention_heads=[1, 1, 2, 2], image_size=64)  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "hf_vit": dict(VIT, model_type="vit", layer_norm_eps=1e-6),
    "hf_mae": dict(VIT, model_type="vit_mae", layer_norm_eps=1e-6),
    "hf_deit": dict(VIT, model_type="deit", layer_norm_eps=1e-6),
    "hf_dinov2": dict(DINO, model_type="dinov2"),
    "hf_dinov2_registers": dict(DINO, model_type="dinov2_with_registers"),
    "hf_giant": dict(DINO, model_type="dinov2", use_swiglu_ffn=True),
    "hf_dinov3": dict(VIT, model_type="dinov3_vit", num_register_tokens=3),
    "hf_dinov3_gated": dict(
        VIT,
        model_type="dinov3_vit",
        num_register_tokens=3,
        intermediate_size=32,
        use_gated_mlp=True,
        hidden_act="silu",
        query_bias=False,
        value_bias=False,
    ),
    "hf_swin": dict(SWIN, model_type="swin"),
    "hf_swinv2": dict(SWIN, model_type="swinv2"),
    "hf_pvt": dict(STAGES, model_type="pvt", sequence_reduction_ratios=[4, 2, 2, 1]),
    "hf_pvt_v2": dict(STAGES, model_type="pvt_v2", sr_ratios=[4, 2, 2, 1], image_size=[64, 64]),
    "hf_bit": dict(model_type="bit", depths=[1, 2, 1, 1]),
    "hf_clip": dict(model_type="clip", vision_config=VIT),
    "hf_siglip": dict(VIT, model_type="siglip_vision_model"),
}
"""Of the models in libraries.npz, towers.npz and dinov3.npz; they leave out what is the default."""


def arrays_of(case: str) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """Our name and options for one of transformers' models, and its arrays, of zeros."""
    file = libraries.CASES | towers.CASES | dinov3.CASES
    given = json.loads(file[f"{case}/ours"].item())
    plain = "dinov3_s16" if case in ("hf_dinov3", "hf_dinov3_gated") else "vit_s8"
    name, options = given[:2] if isinstance(given, list) else (plain, given)
    shapes = [tuple(int(n) for n in shape if n) for shape in file[f"{case}/shapes"]]
    keys = [key.decode() for key in file[f"{case}/keys"]]
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    zeros = {k: np.zeros(s, np.float32) for k, s in zip(keys, shapes, strict=True)}
    return name, options, zeros


def write(folder: pathlib.Path, content: Any, file: str = "config.json") -> str:
    (folder / file).write_text(json.dumps(content))
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("case", TINY)
def test_each_type_of_transformers(case: str, tmp_path: pathlib.Path) -> None:
    """It is the model that the weights' tables were held against, and every key is used once."""
    name, options, arrays = arrays_of(case)
    chosen = configs.choose(write(tmp_path, TINY[case]))
    if case == "hf_bit":
        options.pop("image_size")  # theirs has none
    assert create_model(chosen.name, 5, **chosen.options) == create_model(
        name, 5, **options, **init_of(chosen.name)
    )
    load.load_arrays(chosen.name, arrays, "it", **chosen.options)


def init_of(name: str) -> dict[str, Any]:
    """Return the options that only affect initialisation and decay."""
    init = {"param_init", "decay_rules"} & model_options(name).keys()
    return {key: model_options(name)[key] for key in init}


_224 = dict(image_size=224)
GOOGLE = dict(
    _224, model_type="vit", architectures=["ViTForImageClassification"], hidden_act="gelu",
    hidden_size=768, intermediate_size=3072, layer_norm_eps=1e-12, num_attention_heads=12,
    num_hidden_layers=12, patch_size=16, qkv_bias=True, num_channels=3,
    id2label={"1": "goldfish", "0": "tench", "2": "crane", "10": "crane"},
)  # fmt: skip
DINOV2 = dict(
    model_type="dinov2", architectures=["Dinov2Model"], hidden_act="gelu", hidden_size=768,
    image_size=518, layer_norm_eps=1e-6, layerscale_value=1.0, mlp_ratio=4, patch_size=14,
    num_attention_heads=12, num_hidden_layers=12, qkv_bias=True, use_swiglu_ffn=False,
    drop_path_rate=0.0,
)  # fmt: skip
DINOV3: dict[str, Any] = dict(
    _224, model_type="dinov3_vit", architectures=["DINOv3ViTModel"], attention_dropout=0.0,
    hidden_act="silu", hidden_size=384, intermediate_size=1536, key_bias=False, mlp_bias=True,
    layer_norm_eps=1e-5, layerscale_value=1.0, num_attention_heads=6, num_hidden_layers=12,
    num_register_tokens=4, patch_size=16, pos_embed_jitter=None, pos_embed_rescale=2.0,
    pos_embed_shift=None, proj_bias=True, query_bias=True, rope_theta=100.0, use_gated_mlp=True,
    value_bias=True, drop_path_rate=0.0, num_channels=3, apply_layernorm=True,
)  # fmt: skip
SWIN_T: dict[str, Any] = dict(
    _224, model_type="swin", architectures=["SwinForImageClassification"], depths=[2, 2, 6, 2],
    drop_path_rate=0.1, embed_dim=96, hidden_act="gelu", layer_norm_eps=1e-5, mlp_ratio=4.0,
    num_heads=[3, 6, 12, 24], patch_size=4, path_norm=True, qkv_bias=True, window_size=7,
    use_absolute_embeddings=False,
)  # fmt: skip
MIT_B0: dict[str, Any] = dict(
    _224, model_type="segformer", architectures=["SegformerForImageClassification"],
    depths=[2, 2, 2, 2], hidden_act="gelu", hidden_sizes=[32, 64, 160, 256],
    layer_norm_eps=1e-6, mlp_ratios=[4, 4, 4, 4], num_attention_heads=[1, 2, 5, 8],
    patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], strides=[4, 2, 2, 2],
    decoder_hidden_size=256, downsampling_rates=[1, 4, 8, 16], num_encoder_blocks=4,
)  # fmt: skip
DENSE = dict(MIT_B0, architectures=["SegformerForSemanticSegmentation"])
_B3 = dict(hidden_sizes=[64, 128, 320, 512], depths=[3, 4, 18, 3], decoder_hidden_size=768)
_TOWER = dict(image_size=224, layers=12, width=768, patch_size=32)
CHOICES: dict[str, tuple[dict[str, Any], str]] = {
    "google/vit-base-patch16-224": (GOOGLE, "vit_b16(norm_epsilon=1e-12)"),
    "facebook/dinov2-base": (DINOV2, "vit_b14(image_size=518, layer_scale_init=1.0)"),
    "facebook/dinov3-vits16plus": (DINOV3, "dinov3_s16plus(layer_scale_init=1.0)"),
    "dinov3, other positions": (
        dict(DINOV3, rope_theta=10, pos_embed_shift=0.5, pos_embed_rescale=None, key_bias=True),
        "dinov3_s16plus(key_bias=True, layer_scale_init=1.0, "
        "position='rope(theta=10.0, shift=0.5)')",
    ),
    "microsoft/swin-tiny-patch4-window7-224": (SWIN_T, "swin_tiny"),
    "nvidia/mit-b0": (MIT_B0, "mit_b0"),
    "a large swin": (
        dict(SWIN_T, embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32],
             window_size=12, image_size=384), "swin_base_384",
    ),
    "a fine-tuned swinv2": (
        dict(SWIN_T, model_type="swinv2", embed_dim=128, depths=[2, 2, 18, 2], image_size=256,
             num_heads=[4, 8, 16, 32], window_size=16, pretrained_window_sizes=[12, 12, 12, 6]),
        "swinv2_base_w16(pretrained_window_size=(12, 12, 12, 6))",
    ),
    "segformer": (DENSE, "segformer_b0"),
    "segformer b3": (dict(DENSE, **_B3), "segformer_b3"),
    "segformer, small": (
        dict(DENSE, depths=[1, 1, 1, 1], decoder_hidden_size=8),
        "segformer_b0(backbone='mit_b0(depths=(1, 1, 1, 1))', width=8)",
    ),
    "pvt": (dict(model_type="pvt", depths=[3, 4, 6, 3]), "pvt_small"),
    "pvt v2 b5": (
        dict(model_type="pvt_v2", depths=[3, 6, 40, 3], hidden_sizes=[64, 128, 320, 512],
             mlp_ratios=[4, 4, 4, 4]), "pvt_v2_b5",
    ),
    "google/bit-50": (dict(model_type="bit", layer_type="preactivation"), "bit_r50x1"),
    "openai/clip": (
        dict(model_type="clip", vision_config=dict(top_k=50, max_length=20, length_penalty=1.0),
             text_config={"hidden_size": 512}),
        "vit_b32(norm_epsilon=1e-05, act='quick_gelu', pre_norm=True)",
    ),
    "google/siglip": (
        dict(model_type="siglip", vision_config={"model_type": "siglip_vision_model"}),
        "vit_b16(act='gelu_tanh', pool='map')",
    ),
    "timm": (
        dict(architecture="vit_small_patch16_224", pretrained_cfg=dict(tag="dino")),
        "vit_small_patch16_224.dino",
    ),
    "timm, of our name": (
        dict(architecture="pvt_v2_b0", pretrained_cfg=dict(tag="in1k"), global_pool="avg"),
        "pvt_v2_b0",
    ),
    "timm, another size": (
        dict(architecture="swin_tiny_patch4_window7_224",
             model_args=dict(img_size=[256, 256], window_size=8, drop_path_rate=0.3)),
        "swin_tiny_patch4_window7_224(image_size=256, window_size=8)",
    ),
    "timm, mae": (
        dict(architecture="vit_base_patch16_224", global_pool="avg", num_classes=1000),
        "vit_base_patch16_224(class_token=True, pool='gap', pool_norm=True)",
    ),
    "open_clip": (
        dict(model_cfg=dict(vision_cfg=_TOWER)), "vit_b32(norm_epsilon=1e-05, pre_norm=True)",
    ),
    "open_clip, quick": (
        dict(model_cfg=dict(vision_cfg=_TOWER, quick_gelu=True)),
        "vit_b32(norm_epsilon=1e-05, act='quick_gelu', pre_norm=True)",
    ),
    "open_clip, timm": (
        dict(model_cfg=dict(vision_cfg=dict(
            timm_model_name="vit_base_patch16_siglip_224", timm_pool="map", timm_proj="none",
            image_size=224))),
        "vit_base_patch16_siglip_224",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHOICES)
def test_what_published_configs_choose(
    case: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    content, expected = CHOICES[case]
    file = "open_clip_config.json" if "model_cfg" in content else "config.json"
    chosen = configs.choose(write(tmp_path, content, file))
    name, _, options = expected.partition("(")
    assert str(chosen).partition("(")[0] == name
    assert chosen.options == eval(f"dict({options}" if options else "{}")
    assert f"{file} beside {tmp_path} chooses the model {name}" in caplog.text
    assert "Not read" not in caplog.text


def test_names_of_classes(tmp_path: pathlib.Path) -> None:
    chosen = configs.choose(write(tmp_path, GOOGLE))
    assert chosen.classes == ("tench", "goldfish", "crane", "crane (3)")
    plain = dict(GOOGLE, id2label={"0": "LABEL_0", "1": "LABEL_1"})
    chosen = configs.choose(write(tmp_path, plain))
    assert (chosen.classes, chosen.num_classes) == (None, 2)
    timm = dict(architecture="vit_base_patch16_224", label_names=["a", "b"], num_classes=2)
    assert configs.choose(write(tmp_path, timm)).classes == ("a", "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dict(GOOGLE, hidden_act="relu"), "has hidden_act='relu', which models here do not have"),
        (dict(SWIN_T, hidden_act="relu"), "hidden_act='relu'"),
        (dict(DINOV3, hidden_act="gelu"), "hidden_act='gelu'"),
        (dict(DINOV3, value_bias=False), "value_bias=False"),
        (dict(DINOV3, query_bias=False, value_bias=False, key_bias=True), "key_bias=True"),
        (dict(DINOV3, pos_embed_jitter=0.5), "jitter=0.5 does not fit"),
        (dict(SWIN_T, layer_norm_eps=1e-6), "layer_norm_eps=1e-06"),
        (dict(MIT_B0, strides=[2, 2, 2, 2]), r"strides=\(2, 2, 2, 2\)"),
        (dict(GOOGLE, model_type="deit"), "architectures='ViTForImageClassification'"),
        (dict(model_type="bit", layer_type="bottleneck"), "layer_type='bottleneck'"),
        (dict(model_type="siglip_vision_model", vision_use_head=False), "vision_use_head=False"),
        (dict(GOOGLE, model_type="vitt"), "Unknown model_type .* 'vitt'; did you mean 'vit'"),
        (dict(architecture="vit_base_patch16_244"), "did you mean 'vit_base_patch16_224'"),
        (dict(architecture="vit_base_patch16_224", model_args=dict(norm_layer="x")),
         "norm_layer='x'"),
        (dict(architecture="vit_base_patch16_224", global_pool="max"), "global_pool='max'"),
        (dict(GOOGLE, hidden_size=None), "not describe a model in a form that is known"),
        (dict(a=1), "Which model are the weights"),
        (dict(model_cfg=dict(vision_cfg=dict(_TOWER, layers=[3, 4, 6, 3]))), "layers="),
        (dict(model_cfg=dict(vision_cfg=dict(_TOWER, pool_type="avg"))), "pool_type='avg'"),
        (dict(model_cfg=dict(vision_cfg=dict(_TOWER, act_kwargs=dict(approximate="x")))),
         "approximate='x'"),
    ],
)  # fmt: skip
def test_what_is_refused(content: Any, message: str, tmp_path: pathlib.Path) -> None:
    file = "open_clip_config.json" if "model_cfg" in content else "config.json"
    with pytest.raises(ValueError, match=message):
        configs.choose(write(tmp_path, content, file))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_ti16", dict(image_size=32, depth=3, num_registers=2, class_position=False)),
        ("vit_s16", dict(image_size=(32, 64), pool="gap", layer_scale_init=0.1)),
        ("deit_tiny_distilled", dict(image_size=32)),
        ("swin_tiny", dict(image_size=64, window_size=2, dims=(8, 16, 32, 64))),
        ("swinv2_tiny_w8", dict(image_size=64, pretrained_window_size=(2, 2, 2, 1))),
        ("pvt_v2_b0", dict(image_size=224, depths=(1, 1, 1, 1), mlp_ratio=(4.0, 4.0, 2.0, 2.0))),
        ("volo_d1", dict(image_size=64)),
        ("bit_r101x1", dict(image_size=224)),
        ("efficientnet_b0", dict(image_size=224)),
        ("ghostnet_050", dict(image_size=224)),
        ("convnext_atto", dict(image_size=224)),
        ("poolformer_s12", dict(image_size=224, norm_pooled=True)),
        ("coatnet_nano_rw", dict(image_size=192)),
        ("mixer_s32", dict(image_size=192)),
        ("cait_xxs24", dict(image_size=64)),
        ("cait_xs24", dict(image_size=384)),
        ("efficientformer_l1", dict(image_size=224)),
    ],
)
def test_what_vitjax_exports_for_timm(
    name: str, options: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    """The folder's config chooses the model that was exported."""
    size = options["image_size"]
    model = create_model(name, 5, **options)
    given = Given("", name, options, Trained(model, None, (0.0,) * 3, (1.0,) * 3, size), {})
    architecture, arguments = timm_model(given)
    content = dict(architecture=architecture, model_args=arguments, num_classes=5)
    chosen = configs.choose(write(tmp_path, content))
    own, found = {**model_options(name), **options}, model_options(chosen.name)
    found |= chosen.options
    assert model_spec(name).factory is model_spec(chosen.name).factory
    if name.startswith("vit"):  # None is decided by what is pooled
        own["class_token"] = found["class_token"] = None
    assert all(configs.same(key, own[key], found[key]) for key in own if key not in (
        "param_init", "drop_path_rate", *(() if "img_size" in arguments else ("image_size",)))
    )  # fmt: skip


LABELS = {str(i): name for i, name in enumerate(("ant", "bee", "cat", "dog", "elk"))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A repository of a tiny ViT by transformers' names."""
    folder = tmp_path_factory.mktemp("repo")
    save_file(arrays_of("hf_vit")[2], folder / "model.safetensors")
    write(folder, dict(TINY["hf_vit"], id2label=LABELS))
    return folder


@pytest.fixture
def hub(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`hf://someone/vit` is that folder."""
    fake: Any = types.ModuleType("huggingface_hub")
    entry = type("EntryNotFoundError", (Exception,), {})
    local = type("LocalEntryNotFoundError", (entry,), {})
    fake.errors = types.SimpleNamespace(EntryNotFoundError=entry, LocalEntryNotFoundError=local)

    def download(repo: str, file: str) -> str:
        if repo != "someone/vit" or not (folder / file).is_file():
            raise entry
        return str(folder / file)

    fake.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)


def test_weights_alone(folder: pathlib.Path, hub: None, caplog: pytest.LogCaptureFixture) -> None:
    for source in ("hf://someone/vit", folder, folder / "model.safetensors"):
        caplog.clear()
        model: Any = vitjax.load_pretrained(source)[0]
        assert (model.width, model.depth, model.patch_size, model.num_classes) == (16, 2, 8, 5)
        assert "chooses the model vit_" in caplog.text
    model = vitjax.load_pretrained(folder, num_classes=3, drop_rate=0.1)[0]
    assert (model.num_classes, model.drop_rate) == (3, 0.1)


def test_names_are_compared(
    folder: pathlib.Path, hub: None, caplog: pytest.LogCaptureFixture
) -> None:
    given = dict(libraries.VIT)
    vitjax.load_pretrained("vit_s8", "hf://someone/vit", **given, norm_epsilon=1e-5)
    assert "norm_epsilon" not in caplog.text  # said by hand
    with pytest.raises(ValueError, match=r"with act='gelu', and 'vit_base.* has act='quick_"):
        vitjax.load_pretrained("vit_base_patch32_clip_quickgelu_224", folder, pre_norm=False,
                               **given)  # fmt: skip
    with pytest.raises(ValueError, match=r"those of vit_\w+\(.* asked for is 'swin_tiny': leave"):
        vitjax.load_pretrained("swin_tiny", folder)
    with pytest.raises(ValueError, match="and 'vit_s8' has width=384"):
        open_trained(f"vit_s8={folder}")


def test_names_where_weights_should_be(tmp_path: pathlib.Path, hub: None) -> None:
    with pytest.raises(ValueError, match="'vit_b16' names a model, and not where its weights are"):
        vitjax.load_pretrained("vit_b16")
    with pytest.raises(ValueError, match="'hf://google/vit-base-patch16-224'"):
        vitjax.load_pretrained("google/vit-base-patch16-224")
    with pytest.raises(FileNotFoundError, match=r"no file or folder 'nowhere\.pth'"):
        vitjax.load_pretrained("nowhere.pth")
    np.savez(tmp_path / "w.npz", a=np.zeros(1))
    with pytest.raises(ValueError, match=r"Which model .* say it: MODEL=.*w\.npz"):
        vitjax.load_pretrained(tmp_path / "w.npz")
    with pytest.raises(ValueError, match=r"'nothing' is no run's folder.*hf://owner/repo"):
        open_trained("nothing")
    with pytest.raises(ValueError, match=r"'nothing' is no run's folder.*hf://owner/repo"):
        open_subject("nothing", None, {})


def test_wherever_weights_are_taken(folder: pathlib.Path, hub: None) -> None:
    for text in ("hf://someone/vit", str(folder), str(folder / "model.safetensors")):
        trained = open_trained(text)
        assert trained.classes == tuple(LABELS.values())
        assert trained.image_size == 32 and trained.mean == (0.5, 0.5, 0.5)
        assert open_trained(text, abstract=True).model == trained.model
    subject = open_subject(text, None, {"data.eval_crop": "1.0"})
    assert subject.classes == trained.classes and subject.num_classes == 5
    model = subject.config.model
    assert model["width"] == 16 and model["image_size"] == 32
    given = open_given("hf://someone/vit")
    assert create_model(given.name, 5, **given.options) == trained.model
    assert given.classes == trained.classes
    teacher = open_teacher("hf://someone/vit", tuple(LABELS.values()))
    assert teacher is not None and teacher.model == trained.model
    with pytest.raises(ValueError, match="must be the same, in the same order"):
        open_teacher("hf://someone/vit", ("bee", "ant", "cat", "dog", "elk"))


def test_folders_of_runs_are_no_weights(tmp_path: pathlib.Path) -> None:
    content = dict(model=dict(name="vit_s16", width=24), data=dict(image_size=[32, 48]))
    text = write(tmp_path, content)
    assert published_weights(text) is None
    assert published_weights("vit_b16=a=b.npz") == ("vit_b16", "a=b.npz")
    write(tmp_path, ["a", "b", "c"], "classes.json")
    chosen = configs.choose(text)
    assert chosen.name == "vit_s16" and chosen.classes == ("a", "b", "c")
    assert chosen.options == dict(width=24, image_size=(32, 48), dtype=None)
