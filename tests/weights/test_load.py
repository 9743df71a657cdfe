"""`load_pretrained` from a real file of each format, and what it says when one does not fit."""

import argparse
import logging
import pathlib
import re
import subprocess
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from safetensors import flax as safetensors_flax
from safetensors.numpy import save_file

import vitjax
from tests.train.test_sharding import shallow
from vitjax import weights
from vitjax.layers.position import resize_positions
from vitjax.layers.spec import spec
from vitjax.models.hybrid import ResNetEmbed
from vitjax.train.checkpoint import Checkpoints
from vitjax.train.state import create_state
from vitjax.weights import table

NAME = "deit_tiny_distilled"
VIT = dict(width=32, depth=2, num_heads=2, image_size=64)
STEM = spec(ResNetEmbed, depths=(1, 2))
OWN = {
    "vit_s16": VIT,
    "deit_tiny": VIT,
    "deit_tiny_distilled": VIT,
    "r_vit_ti16": VIT,
    "r50_vit_b16": VIT | dict(stem=STEM),
    "bit_r50x1": dict(depths=(1, 2), image_size=64),
}


def random_variables(name: str, num_classes: int = 5, **overrides: Any) -> dict[str, Any]:
    shapes = weights.abstract_variables(vitjax.create_model(name, num_classes, **overrides))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.standard_normal(s.shape) / 4, s.dtype), shapes)


@pytest.fixture(scope="module")
def variables() -> dict[str, Any]:
    return random_variables(NAME, **VIT)


def assert_same(ours: Any, theirs: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_there_and_back_is_the_identity(name: str) -> None:
    given = random_variables(name, **OWN[name])
    state_dict = weights.to_torch(name, given)
    assert_same(weights.from_torch(name, state_dict, 5, **OWN[name]), given)
    again = weights.to_torch(name, weights.from_torch(name, state_dict, 5, **OWN[name]))
    assert_same(again, state_dict)


def write_safetensors(path: pathlib.Path, variables: dict[str, Any]) -> pathlib.Path:
    save_file(weights.to_torch(NAME, variables), path / "model.safetensors")
    return path / "model.safetensors"


def write_torch(path: pathlib.Path, variables: dict[str, Any]) -> pathlib.Path:
    torch = pytest.importorskip("torch")
    state_dict = weights.to_torch(NAME, variables)
    torch.save({k: torch.tensor(v) for k, v in state_dict.items()}, path / "weights.pth")
    return path / "weights.pth"


def write_npz(path: pathlib.Path, variables: dict[str, Any]) -> pathlib.Path:
    np.savez(path / "weights.npz", **weights.to_torch(NAME, variables))
    return path / "weights.npz"


def write_orbax(path: pathlib.Path, tree: dict[str, Any]) -> pathlib.Path:
    with ocp.StandardCheckpointer() as writer:
        writer.save(path / "orbax", tree)
    return path / "orbax"


def write_orbax_params(path: pathlib.Path, variables: dict[str, Any]) -> pathlib.Path:
    return write_orbax(path, variables["params"])


def write_run(path: pathlib.Path, variables: dict[str, Any], ema: bool = False) -> pathlib.Path:
    """A work folder with two steps, as training leaves it."""
    checkpoints = Checkpoints(path / "run" / "checkpoints")
    for step, scale in ((9, 2.0), (10, 1.0)):
        scaled = jax.tree.map(lambda p, scale=scale: p * np.float32(scale), variables)
        state = create_state(scaled, optax.adam(1e-3), ema)
        if ema:
            state = state.replace(params=jax.tree.map(jnp.zeros_like, state.params))
        checkpoints.save(step, state)
    checkpoints.wait()
    checkpoints.close()
    return path / "run"


@pytest.mark.slow
@pytest.mark.parametrize(
    "write",
    [write_safetensors, write_torch, write_npz, write_orbax, write_orbax_params, write_run],
)
def test_a_file_of_each_format(write, tmp_path: pathlib.Path, variables: dict[str, Any]) -> None:
    model, loaded = vitjax.load_pretrained(NAME, write(tmp_path, variables), **VIT)
    assert_same(loaded, variables)
    assert model.num_classes == 5
    images = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
    original = vitjax.create_model(NAME, 5, **VIT)
    logits = jax.jit(model.apply)(loaded, images)
    np.testing.assert_array_equal(logits, jax.jit(original.apply)(variables, images))


@pytest.mark.slow
@pytest.mark.parametrize("ema", [False, True])
def test_a_run_has_running_statistics_and_averages(tmp_path: pathlib.Path, ema: bool) -> None:
    own = dict(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), head_dim=8)
    given = random_variables("biformer_tiny", **own)
    assert given.keys() == {"params", "batch_stats"}
    _, loaded = vitjax.load_pretrained("biformer_tiny", write_run(tmp_path, given, ema), **own)
    assert_same(loaded, given)


def test_wrapped_state_dicts(tmp_path: pathlib.Path, variables: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    bare = {k: torch.tensor(v) for k, v in weights.to_torch(NAME, variables).items()}
    other = {k: torch.zeros_like(v) for k, v in bare.items()}
    module = {f"module.{k}": v for k, v in bare.items()}
    arguments = argparse.Namespace(lr=1e-3)
    for content in (
        {"model": bare, "epoch": 3, "args": arguments},
        {"state_dict": module, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        {"model": other, "model_ema": module, "epoch": 3},
        {"model": {"state_dict": bare}, "model_ema": None},
        {f"module._orig_mod.{k}": v for k, v in bare.items()},
        {k: v.double() for k, v in bare.items()},
    ):
        torch.save(content, tmp_path / "checkpoint.pt")
        _, loaded = vitjax.load_pretrained(NAME, tmp_path / "checkpoint.pt", **VIT)
        assert_same(loaded, variables)


def test_half_precision_becomes_float32(tmp_path: pathlib.Path, variables: dict[str, Any]) -> None:
    state_dict = weights.to_torch(NAME, variables)
    half = {k: jnp.asarray(v, jnp.bfloat16) for k, v in state_dict.items()}
    rounded = {k: np.asarray(v, np.float32) for k, v in half.items()}
    want = weights.from_torch(NAME, rounded, 5, **VIT)
    safetensors_flax.save_file(half, tmp_path / "half.safetensors")
    np.savez(tmp_path / "half.npz", **{k: np.asarray(v) for k, v in half.items()})
    files = ["half.safetensors", "half.npz"]
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.save(
            {k: torch.tensor(v).bfloat16() for k, v in state_dict.items()}, tmp_path / "h.pt"
        )
        files.append("h.pt")
    for file in files:
        _, loaded = vitjax.load_pretrained(NAME, tmp_path / file, **VIT)
        assert_same(loaded, want)


@pytest.mark.slow
def test_scanned_layers(tmp_path: pathlib.Path, variables: dict[str, Any]) -> None:
    path = write_safetensors(tmp_path, variables)
    model, loaded = vitjax.load_pretrained(NAME, path, scan=True, **VIT)
    images = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
    original = vitjax.create_model(NAME, 5, **VIT)
    logits = jax.jit(model.apply)(loaded, images)
    np.testing.assert_allclose(logits, jax.jit(original.apply)(variables, images), atol=1e-5)
    assert_same(weights.to_torch(NAME, loaded), weights.to_torch(NAME, variables))
    folder = write_orbax(tmp_path, loaded)
    _, again = vitjax.load_pretrained(NAME, folder, **VIT)
    assert_same(again, variables)


def google_vit(state_dict: dict[str, np.ndarray], heads: int) -> dict[str, np.ndarray]:
    """The names and layouts of Google's ViT files, spelt out."""
    found = {}

    def put(key: str, theirs: str, leaf: str) -> None:
        weight = state_dict[f"{theirs}.weight"]
        # A vector, [out, in] → [in, out], or [out, in, h, w] → [h, w, in, out].
        axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[weight.ndim]
        found[f"{key}/{leaf}"] = weight.transpose(axes)
        found[f"{key}/bias"] = state_dict[f"{theirs}.bias"]

    found["cls"] = state_dict["cls_token"]
    found["Transformer/posembed_input/pos_embedding"] = state_dict["pos_embed"]
    put("embedding", "patch_embed.proj", "kernel")
    put("Transformer/encoder_norm", "norm", "scale")
    put("head", "head", "kernel")
    width = state_dict["cls_token"].shape[-1]
    for i in range(2):
        block, theirs = f"Transformer/encoderblock_{i}", f"blocks.{i}"
        put(f"{block}/LayerNorm_0", f"{theirs}.norm1", "scale")
        put(f"{block}/LayerNorm_2", f"{theirs}.norm2", "scale")
        put(f"{block}/MlpBlock_3/Dense_0", f"{theirs}.mlp.fc1", "kernel")
        put(f"{block}/MlpBlock_3/Dense_1", f"{theirs}.mlp.fc2", "kernel")
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part, weight, bias in zip(
            ("query", "key", "value"),
            np.split(state_dict[f"{theirs}.attn.qkv.weight"], 3),
            np.split(state_dict[f"{theirs}.attn.qkv.bias"], 3),
            strict=True,
        ):
            found[f"{attention}/{part}/kernel"] = weight.T.reshape(width, heads, -1)
            found[f"{attention}/{part}/bias"] = bias.reshape(heads, -1)
        out = state_dict[f"{theirs}.attn.proj.weight"].T
        found[f"{attention}/out/kernel"] = out.reshape(heads, -1, width)
        found[f"{attention}/out/bias"] = state_dict[f"{theirs}.attn.proj.bias"]
    return found


def test_google_vit(tmp_path: pathlib.Path) -> None:
    variables = random_variables("vit_s16", **VIT)
    arrays = google_vit(weights.to_torch("vit_s16", variables), heads=2)
    for prefix in ("", "opt/target/"):
        np.savez(tmp_path / "vit.npz", **{prefix + k: v for k, v in arrays.items()})
        model, loaded = vitjax.load_pretrained("vit_s16", tmp_path / "vit.npz", **VIT)
        assert model.num_classes == 5
        assert_same(loaded, variables)

    larger = VIT | dict(image_size=96)
    _, loaded = vitjax.load_pretrained("vit_s16", tmp_path / "vit.npz", **larger)
    positions = resize_positions(variables["params"]["pos_embed"], (6, 6), num_prefix=1)
    np.testing.assert_allclose(loaded["params"]["pos_embed"], positions, atol=1e-6)

    del arrays["Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/kernel"]
    arrays["Transformer/encoder_norm/scale"] = np.zeros(33, np.float32)
    arrays["pre_logits/kernel"] = np.zeros((32, 32), np.float32)
    np.savez(tmp_path / "vit.npz", **arrays)
    with pytest.raises(ValueError, match="do not fit") as error:
        vitjax.load_pretrained("vit_s16", tmp_path / "vit.npz", **VIT)
    for line in (
        "missing: Transformer/encoderblock_1/MultiHeadDotProductAttention_1/query+key+value/kernel",
        "misshapen: Transformer/encoder_norm/scale is (33,), this model needs (32,)",
        "unused: pre_logits/kernel (32, 32)",
    ):
        assert line in str(error.value)


@pytest.mark.parametrize("name", ["r_vit_ti16", "r50_vit_b16"])
def test_google_hybrid(name: str, tmp_path: pathlib.Path) -> None:
    variables = random_variables(name, **OWN[name])
    state_dict = weights.to_torch(name, variables)
    arrays = google_vit(state_dict, heads=2)
    stem = "patch_embed.backbone." + ("stem." if name != "r_vit_ti16" else "")
    places = {stem + "conv": "conv_root", stem + "norm": "gn_root"}
    for i, depth in enumerate((1, 2)):
        for j in range(depth):
            theirs, unit = (
                f"patch_embed.backbone.stages.{i}.blocks.{j}.",
                f"block{i + 1}/unit{j + 1}/",
            )
            for k in (1, 2, 3):
                places |= {f"{theirs}conv{k}": f"{unit}conv{k}", f"{theirs}norm{k}": f"{unit}gn{k}"}
            places[f"{theirs}downsample.conv"] = f"{unit}conv_proj"
            places[f"{theirs}downsample.norm"] = f"{unit}gn_proj"
    for theirs, place in places.items():
        weight, bias = (state_dict.get(f"{theirs}.{leaf}") for leaf in ("weight", "bias"))
        if weight is not None and weight.ndim == 4:
            arrays[f"{place}/kernel"] = weight.transpose(2, 3, 1, 0)
        elif weight is not None and bias is not None:  # with the axes that the map has
            arrays[f"{place}/scale"] = weight.reshape(1, 1, 1, -1)
            arrays[f"{place}/bias"] = bias.reshape(1, 1, 1, -1)
    np.savez(tmp_path / "hybrid.npz", **arrays)
    _, loaded = vitjax.load_pretrained(name, tmp_path / "hybrid.npz", **OWN[name])
    assert_same(loaded, variables)


def test_google_and_authors_bit(tmp_path: pathlib.Path) -> None:
    name, options = "bit_r50x1", OWN["bit_r50x1"]
    variables = random_variables(name, **options)
    tf, authors = {}, {}
    for key, value in weights.to_torch(name, variables).items():
        hwio = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        affine = "gamma" if key.endswith("weight") else "beta"
        leaf = key.rsplit(".", 1)[1]
        if match := re.match(r"stages\.(\d)\.blocks\.(\d)\.(conv|norm|downsample\.conv)(\d?)", key):
            i, j, part, k = int(match[1]) + 1, int(match[2]) + 1, match[3], match[4]
            unit, letter = f"resnet/block{i}/unit{j:02d}", "?abc"[int(k or 0)]
            body = f"body.block{i}.unit{j:02d}."
            if part == "norm":
                tf[f"{unit}/{letter}/group_norm/{affine}"] = hwio
                authors[f"{body}gn{k}.{leaf}"] = value
            elif part == "conv":
                tf[f"{unit}/{letter}/standardized_conv2d/kernel"] = hwio
                authors[f"{body}conv{k}.{leaf}"] = value
            else:
                tf[f"{unit}/a/proj/standardized_conv2d/kernel"] = hwio
                authors[f"{body}downsample.{leaf}"] = value
        elif key == "stem.conv.weight":
            tf["resnet/root_block/standardized_conv2d/kernel"] = hwio
            authors["root.conv.weight"] = value
        elif key.startswith("norm."):
            tf[f"resnet/group_norm/{affine}"] = hwio
            authors[f"head.gn.{leaf}"] = value
        else:
            tf[f"resnet/head/conv2d/{'kernel' if value.ndim == 4 else 'bias'}"] = hwio
            authors[f"head.conv.{leaf}"] = value
    np.savez(tmp_path / "bit.npz", **tf)
    save_file({k: np.ascontiguousarray(v) for k, v in authors.items()}, tmp_path / "b.safetensors")
    for file in ("bit.npz", "b.safetensors"):
        model, loaded = vitjax.load_pretrained(name, tmp_path / file, **options)
        assert model.num_classes == 5
        assert_same(loaded, variables)


@pytest.mark.slow
def test_another_image_size(tmp_path: pathlib.Path, variables: dict[str, Any]) -> None:
    for path in (write_safetensors(tmp_path, variables), write_orbax(tmp_path, variables)):
        model, loaded = vitjax.load_pretrained(NAME, path, **(VIT | dict(image_size=(96, 48))))
        positions = resize_positions(variables["params"]["pos_embed"], (6, 3), num_prefix=2)
        np.testing.assert_allclose(loaded["params"]["pos_embed"], positions, atol=1e-6)
        assert jnp.isfinite(jax.jit(model.apply)(loaded, jnp.ones((1, 96, 48, 3)))).all()


@pytest.mark.slow
def test_another_class_count(
    tmp_path: pathlib.Path, variables: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_safetensors(tmp_path, variables)
    with caplog.at_level(logging.WARNING):
        model, loaded = vitjax.load_pretrained(NAME, path, num_classes=7, **VIT)
    assert "7 classes are asked for" in caplog.text and "the head is new" in caplog.text
    fresh = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    assert_same(
        loaded["params"], variables["params"] | {k: fresh[k] for k in ("head", "head_dist")}
    )
    assert loaded["params"]["head"]["kernel"].shape == (32, 7)

    caplog.clear()
    with caplog.at_level(logging.WARNING):
        model, loaded = vitjax.load_pretrained(NAME, path, num_classes=0, **VIT)
    assert "the head is left out" in caplog.text
    assert not {"head", "head_dist"} & set(loaded["params"])
    assert jax.eval_shape(model.apply, loaded, jnp.ones((1, 64, 64, 3))).shape == (1, 32)

    headless = write_orbax(tmp_path, loaded)
    model, loaded = vitjax.load_pretrained(NAME, headless, **VIT)
    assert model.num_classes == 0
    model, loaded = vitjax.load_pretrained(NAME, headless, num_classes=3, **VIT)
    assert loaded["params"]["head_dist"]["bias"].shape == (3,)


@pytest.mark.slow
def test_one_error_lists_every_key(tmp_path: pathlib.Path, variables: dict[str, Any]) -> None:
    state_dict = weights.to_torch(NAME, variables)
    del state_dict["blocks.0.norm1.bias"], state_dict["dist_token"]
    state_dict["blocks.1.mlp.fc1.weight"] = np.zeros((7, 32), np.float32)
    state_dict["decoder.weight"] = np.zeros(3, np.float32)
    save_file(state_dict, tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match="4 keys differ") as error:
        vitjax.load_pretrained(NAME, tmp_path / "bad.safetensors", **VIT)
    for line in (
        "missing: blocks.0.norm1.bias (for params/block_0/norm1/bias, (32,))",
        "missing: dist_token",
        "misshapen: blocks.1.mlp.fc1.weight is (7, 32), this model needs (128, 32)",
        "unused: decoder.weight (3,)",
    ):
        assert line in str(error.value)

    params = {**variables["params"], "decoder": {"kernel": np.zeros(3, np.float32)}}
    del params["block_1"]
    folder = write_orbax(tmp_path, {"params": params})
    with pytest.raises(ValueError, match="unused: params/decoder/kernel") as error:
        vitjax.load_pretrained(NAME, folder, **VIT)
    assert "missing: blocks.1.attn.qkv.weight (for params/block_1/mixer/qkv/kernel" in str(
        error.value
    )


def test_what_cannot_be_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any]
) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file or folder 'nowhere\.npz'"):
        vitjax.load_pretrained(NAME, "nowhere.npz")
    (tmp_path / "weights.h5").touch()
    with pytest.raises(ValueError, match=r"no known format; what can be read: \.pth"):
        vitjax.load_pretrained(NAME, tmp_path / "weights.h5")
    with pytest.raises(ValueError, match="no orbax checkpoint"):
        vitjax.load_pretrained(NAME, tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.ModuleType("huggingface_hub"))
    with pytest.raises(ValueError, match="names no repository; write hf://owner/repo"):
        vitjax.load_pretrained(NAME, "hf://owner")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'vitjax\[hf\]'"):
        vitjax.load_pretrained(NAME, "hf://owner/repo")
    (tmp_path / "weights.pth").touch()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'vitjax\[torch\]'"):
        vitjax.load_pretrained(NAME, tmp_path / "weights.pth")
    for name in ("broken.npz", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"<html>")
        with pytest.raises(ValueError, match=f"{name}' is broken or no .{name.split('.')[1]} file"):
            vitjax.load_pretrained(NAME, tmp_path / name)
    np.savez(tmp_path / "google.npz", **{"Transformer/encoder_norm/scale": np.zeros(3)})
    with pytest.raises(ValueError, match="'deit_tiny_distilled' was not published in these"):
        vitjax.load_pretrained(NAME, tmp_path / "google.npz")


def test_pickles_that_are_more_than_tensors(tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"model": {"a": torch.zeros(1)}, "path": tmp_path}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="objects other than tensors"):
        vitjax.load_pretrained(NAME, tmp_path / "weights.pth")
    for broken in (b"", b"<html>", b"PK\x03\x04 no archive"):
        (tmp_path / "weights.pth").write_bytes(broken)
        with pytest.raises(ValueError, match=r"no PyTorch file|is broken or no \.pth file"):
            vitjax.load_pretrained(NAME, tmp_path / "weights.pth")
    torch.save({"epoch": 3}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        vitjax.load_pretrained(NAME, tmp_path / "weights.pth")


def test_the_hub(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any]
) -> None:
    hub: Any = types.ModuleType("huggingface_hub")
    hub.errors = types.SimpleNamespace(
        EntryNotFoundError=type("EntryNotFoundError", (Exception,), {})
    )
    hub.errors.LocalEntryNotFoundError = type("Local", (hub.errors.EntryNotFoundError,), {})
    file = write_safetensors(tmp_path, variables)
    asked = []

    def download(repo_id: str, filename: str) -> str:
        asked.append((repo_id, filename))
        if repo_id == "someone/offline":
            raise hub.errors.LocalEntryNotFoundError
        if filename not in ("model.safetensors", "sub/folder/x.safetensors"):
            raise hub.errors.EntryNotFoundError
        return str(file)

    hub.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    for source in (
        "hf://someone/deit",
        "hf://someone/deit/",
        "hf://someone/deit/sub/folder/x.safetensors",
    ):
        _, loaded = vitjax.load_pretrained(NAME, source, **VIT)
        assert_same(loaded, variables)
    assert asked[0] == ("someone/deit", "model.safetensors")
    assert ("someone/deit", "sub/folder/x.safetensors") in asked
    assert asked[-1] == ("someone/deit", "sub/folder/open_clip_config.json")
    with pytest.raises(FileNotFoundError, match=r"someone/deit .* has no other\.npz"):
        vitjax.load_pretrained(NAME, "hf://someone/deit/other.npz")
    with pytest.raises(hub.errors.LocalEntryNotFoundError):
        vitjax.load_pretrained(NAME, "hf://someone/offline")


def test_rows_that_count_from_one() -> None:
    rows = (("block{i+1}/unit{j+1:02d}/conv", "stage_{i}/block_{j}/conv", "flax"),)
    path = ("params", "stage_0", "block_11", "conv", "kernel")
    assert table.link(rows, [path])[path].key == "block1/unit12/conv/kernel"


@pytest.mark.slow
def test_importing_vitjax_imports_no_reader() -> None:
    code = (
        "import sys, vitjax\n"
        "heavy = {'torch', 'safetensors', 'orbax.checkpoint', 'vitjax.weights'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert callable(vitjax.load_pretrained) and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["biformer_tiny", "dat_tiny", "debiformer_tiny", "swin_tiny", "swinv2_tiny_w8",
             "pvt_tiny", "pvt_v2_b0", "volo_d1"],
)  # fmt: skip
def test_another_familys_weights_are_refused_and_listed(
    name: str, tmp_path: pathlib.Path, variables: dict[str, Any]
) -> None:
    path, options = write_safetensors(tmp_path, variables), shallow(name)
    with pytest.raises(ValueError, match=r"These weights do not fit; [0-9]+ keys differ"):
        vitjax.load_pretrained(name, path, **options)
