"""Artefacts: the same numbers without vitjax, and everything a reader needs beside them."""

import json
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from PIL import Image
from safetensors.numpy import load_file

from tests.drawn import variables_of
from vitjax.cli import main
from vitjax.data.transforms.crops import view
from vitjax.kernels.platform import _PLAIN, plain_forms
from vitjax.models import create_model, model_options
from vitjax.runs import Trained
from vitjax.tools.export import write
from vitjax.tools.export.given import Given, program
from vitjax.tools.export.hub import timm_model
from vitjax.tools.export.primitives import REWRITES, evaluate
from vitjax.tools.export.runners import runner
from vitjax.tools.export.timm_arguments import vit_arguments
from vitjax.weights import from_torch

_VIT = "vit_s16(width=16,depth=2,num_heads=2)"
MODELS = {
    "vit": ("vit_ti16", dict(width=16, depth=1, num_heads=2, image_size=32)),
    "windowed": (
        "swin_tiny",
        dict(dims=(8, 16), depths=(2, 1), num_heads=(1, 2), image_size=32, window_size=4),
    ),
    "routed": (
        "biformer_tiny",
        dict(dims=(8, 16), depths=(1, 1), head_dim=8, image_size=32, n_win=4, mixer="bra"),
    ),
    "pooled": ("poolformer_s12", dict(dims=(8, 16), depths=(1, 1), image_size=32)),
    "map": ("setr_naive", dict(backbone=_VIT, image_size=32, width=8)),
    "image": ("uformer_t", dict(width=8, depths=(1,) * 9, num_heads=(1,) * 9, image_size=128)),
}
MEAN, STD, CLASSES = (0.3, 0.4, 0.5), (0.2, 0.3, 0.4), ("ant", "bee", "cat", "dog", "elk")
FACTS = {"data": "photos/", "fingerprint": "abc", "step": 600, "metrics": {"top1": 0.875}}


def given(kind: str, **more) -> Given:
    """A model whose parameters are random numbers."""
    name, options = MODELS[kind]
    options = options | more
    size, classes = options["image_size"], None if kind == "image" else len(CLASSES)
    model = create_model(name, classes, **options)
    variables = variables_of(model, jnp.zeros((1, size, size, 3)))
    names = None if kind == "image" else CLASSES
    trained = Trained(model, variables, MEAN, STD, size, 0.875, "bicubic", names)
    return Given(f"runs/{kind}", name, options, trained, FACTS)


def images(size: int, batch: int = 7) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (batch, size, size, 3), np.uint8)


@pytest.fixture(scope="module", params=["vit", "windowed", "routed"])
def known(request):
    """A model, images, and its logits of them."""
    model = given(request.param)
    x = images(model.size[0])
    return model, x, np.asarray(jax.jit(program(model))(x))


@pytest.mark.slow
def test_the_program_normalises(known) -> None:
    model, x, logits = known
    pixels = (x / 255 - np.array(MEAN)) / np.array(STD)
    expected = jax.jit(model.trained.model.apply)(model.trained.variables, jnp.float32(pixels))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.slow
def test_stablehlo_gives_the_logits_of_any_batch(known, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("flatbuffers")
    model, x, logits = known
    write(model, "stablehlo", tmp_path / "a")
    stored = (tmp_path / "a" / "model.stablehlo").read_bytes()
    loaded = jax.export.deserialize(bytearray(stored))
    assert loaded.platforms == ("cpu", "cuda", "tpu")
    for batch in (1, 7):
        np.testing.assert_allclose(loaded.call(x[:batch]), logits[:batch], atol=1e-5)
    calls = set(re.findall(r"custom_call @([\w.]+)", loaded.mlir_module()))
    assert calls <= {"shape_assertion", "mhlo.topk", "mhlo.erf"}  # those that JAX promises to keep
    about = json.loads((tmp_path / "a" / "model.json").read_text())
    assert about["input"] == {"dtype": "uint8", "shape": ["batch", *x.shape[1:]]}
    assert about["classes"] == list(CLASSES) and about["trained"] == FACTS
    assert about["preprocessing"]["mean"] == list(MEAN)


@pytest.mark.slow
def test_onnx_runtime_gives_the_logits_of_any_batch(known, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("jax2onnx")
    ort = pytest.importorskip("onnxruntime")
    model, x, logits = known
    assert write(model, "onnx", tmp_path / "a")["largest_difference"] < 1e-4
    session = ort.InferenceSession(tmp_path / "a" / "model.onnx")
    for batch in (1, 7):
        (found,) = session.run(None, {"images": x[:batch]})
        np.testing.assert_allclose(found, logits[:batch], atol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize(("to", "library"), [("stablehlo", "flatbuffers"), ("onnx", "jax2onnx")])
def test_the_program_beside_it_needs_no_vitjax(to: str, library: str, tmp_path) -> None:
    pytest.importorskip(library)
    model = given("vit")
    write(model, to, tmp_path / "a")
    path = tmp_path / "b.png"
    picture = np.random.default_rng(2).integers(0, 256, (61, 47, 3), np.uint8)
    Image.fromarray(picture).save(path)
    code = (
        "import runpy, sys; sys.modules['vitjax'] = sys.modules['flax'] = None; "
        f"sys.argv[1:] = [{str(path)!r}]; "
        f"runpy.run_path({str(tmp_path / 'a' / 'run.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    file, *lines = done.stdout.split("\n  ")
    logits = np.asarray(program(model)(jnp.asarray(view(picture, 32, 0.875, "bicubic"))[None]))[0]
    assert file == str(path)
    assert [line.split()[0] for line in lines] == [CLASSES[k] for k in np.argsort(-logits)]
    shown = [float(line.split("(")[1].rstrip(")\n")) for line in lines]
    np.testing.assert_allclose(shown, np.sort(logits)[::-1], atol=1e-2)


@pytest.mark.parametrize("crop", [0, 0.875, 1.0, 1.5])
@pytest.mark.parametrize("interpolation", ["bicubic", "antialias", "bilinear", "area"])
@pytest.mark.parametrize("sides", [(61, 47), (29, 31)])
def test_the_programs_images_are_those_of_evaluation(
    interpolation: str, crop: float, sides: tuple[int, int], tmp_path: pathlib.Path
) -> None:
    smooth = np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8)
    picture = np.asarray(Image.fromarray(smooth).resize(sides[::-1], Image.Resampling.BICUBIC))
    Image.fromarray(picture).save(tmp_path / "a.png")
    model = given_images(32, crop, interpolation)
    text = runner(model, "stablehlo")
    names: dict = {}
    exec("import numpy as np\nfrom PIL import Image, ImageOps\n" + read_function(text), names)
    found = names["read"](tmp_path / "a.png").astype(int)
    expected = view(picture, 32, crop, interpolation).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (24 if interpolation == "area" else 2)
    assert np.abs(found - expected).mean() <= (3 if interpolation == "area" else 0.5)


def given_images(size: int, crop: float, interpolation: str) -> Given:
    model = create_model("vit_ti16", 5, image_size=size)
    return Given("", "vit_ti16", {}, Trained(model, None, MEAN, STD, size, crop, interpolation), {})


def read_function(text: str) -> str:
    return text[text.index("def read") : text.index("\nfor path")]


def test_other_numbers_of_channels_are_read_as_arrays() -> None:
    model = given_images(32, 1.0, "area")
    model = model._replace(trained=model.trained._replace(mean=(0.5,) * 5, std=(0.5,) * 5))
    assert "np.load(path)" in runner(model, "onnx")
    grey = model._replace(trained=model.trained._replace(mean=(0.5,), std=(0.5,)))
    assert 'convert("L")' in runner(grey, "onnx")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "shape"), [("map", (3, 32, 32, 5)), ("image", (3, 128, 128, 3))])
def test_dense_models_give_each_pixel_something(kind: str, shape: tuple[int, ...]) -> None:
    model = given(kind)
    assert jax.eval_shape(program(model), model.images(3)).shape == shape


@pytest.mark.slow
def test_a_dense_model_is_exported_whole(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("flatbuffers")
    model = given("map")
    write(model, "stablehlo", tmp_path / "a")
    loaded = jax.export.deserialize(bytearray((tmp_path / "a/model.stablehlo").read_bytes()))
    x = images(32, 2)
    expected = np.asarray(jax.jit(program(model))(x))
    np.testing.assert_allclose(loaded.call(x), expected, atol=1e-5)
    assert "classes.png" in (tmp_path / "a/run.py").read_text()


@pytest.mark.slow
def test_torch_names_come_back(tmp_path: pathlib.Path) -> None:
    for kind in ("vit", "windowed", "routed"):
        model = given(kind)
        write(model, "torch", tmp_path / kind)
        arrays = load_file(tmp_path / kind / "model.safetensors")
        back = from_torch(model.name, arrays, len(CLASSES), **model.options)
        jax.tree.map(np.testing.assert_array_equal, back, dict(model.trained.variables))
        about = json.loads((tmp_path / kind / "config.json").read_text())
        assert about["model"] == model.name and about["classes"] == list(CLASSES)


def test_a_hub_folder_has_timms_names_and_the_runs_figures(tmp_path: pathlib.Path) -> None:
    write(given("windowed"), "hub", tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["architecture"] == "swin_tiny_patch4_window7_224"
    assert config["label_names"] == list(CLASSES) and config["num_classes"] == 5
    assert config["model_args"] == {
        "img_size": [32, 32], "embed_dim": 8, "depths": [2, 1], "num_heads": [1, 2],
        "window_size": 4,
    }  # fmt: skip
    images_ = config["pretrained_cfg"]
    assert (images_["mean"], images_["std"]) == (list(MEAN), list(STD))
    assert (images_["crop_pct"], images_["interpolation"]) == (0.875, "bicubic")
    keys = load_file(tmp_path / "a" / "model.safetensors")
    assert {"head.fc.weight", "layers.1.downsample.norm.weight"} <= keys.keys()
    card = (tmp_path / "a" / "README.md").read_text()
    assert "top1 87.50%" in card and "`photos/`" in card and "ant, bee" in card
    write(given("windowed")._replace(facts={}), "hub", tmp_path / "b")
    assert "Nothing was measured" in (tmp_path / "b" / "README.md").read_text()


PUBLISHED = {
    "efficientnet_b0": ("tf_efficientnet_b0", {}, {}),
    "ghostnet_050": ("ghostnet_050", {}, {}),
    "convnext_atto": ("convnext_atto", {}, {}),
    "poolformer_s12": ("poolformer_s12", dict(norm_pooled=True), {}),
    "coatnet_nano_rw": ("coatnet_nano_rw_224", dict(image_size=96), dict(img_size=[96, 96])),
    "mixer_s32": ("mixer_s32_224", {}, {}),
    "cait_xxs24": ("cait_xxs24_224", dict(image_size=64), dict(img_size=[64, 64])),
    "cait_xs24": ("cait_xs24_384", dict(image_size=384), {}),
    "efficientformer_l1": ("efficientformer_l1", {}, {}),
    "deit3_small": ("deit3_small_patch16_224", dict(image_size=64), dict(img_size=[64, 64])),
}
"""Ours → timm's name, our options, and its arguments."""


def published(name: str) -> Given:
    """A whole model of the menu, without variables."""
    options = PUBLISHED[name][1]
    model = create_model(name, len(CLASSES), **options)
    size = options.get("image_size", 224)
    trained = Trained(model, None, MEAN, STD, size, 0.875, "bicubic", CLASSES)
    return Given(name, name, options, trained, FACTS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_timms_names(name: str) -> None:
    assert timm_model(published(name)) == (PUBLISHED[name][0], PUBLISHED[name][2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "more"),
    [("vit", {}), ("vit", dict(pool="gap", num_registers=2)), ("windowed", {})]
    + [(name, {}) for name in PUBLISHED if name != "cait_xs24"],
)
def test_timm_opens_it_with_equal_logits(kind: str, more, tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm")
    if kind in PUBLISHED:
        model = published(kind)
        variables = variables_of(model.trained.model, jnp.zeros((1, *model.size, 3)))
        model = model._replace(trained=model.trained._replace(variables=variables))
    else:
        model = given(kind, **more)
    write(model, "hub", tmp_path / "a")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'a'}", pretrained=True).eval()
    x = images(model.size[0])
    pixels = (x / 255 - np.array(MEAN)) / np.array(STD)
    with torch.no_grad():
        found = theirs(torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(found, jax.jit(program(model))(x), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("vit", dict(pool="map"), "have no pool='map' as 'vit_ti16'"),
        ("vit", dict(position="sincos2d"), "have no position='sincos2d'"),
        ("windowed", dict(mixer="window"), "have no mixer='window'"),
        ("windowed", dict(window_size=3), "have no maps of 8×8 in windows of 3"),
        ("windowed", dict(dims=(8, 24)), "have no dims=(8, 24)"),
        ("routed", {}, "no model of the family of 'biformer_tiny'"),
        ("pooled", {}, "no model with the depths, dims, norm_pooled of 'poolformer_s12'"),
        ("map", {}, "gives a class for each pixel, and --to hub has classifiers alone"),
        ("image", {}, "gives a colour for each pixel"),
    ],
)
def test_what_timm_does_not_have_is_refused(kind: str, more, message: str, tmp_path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        write(given(kind, **more), "hub", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []  # and nothing is left


def test_timms_models_are_found_by_their_hyperparameters() -> None:
    assert timm_model(Given("", "vit_ti16", {}, given_images(224, 1, "area").trained, {})) == (
        "vit_tiny_patch16_224",
        {},
    )
    larger = Given("", "vit_b16", {}, given_images(384, 1, "area").trained, {})
    assert timm_model(larger) == ("vit_base_patch16_224", {"img_size": [384, 384]})


def test_torch_refuses_dense_models(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="--to torch has classifiers alone"):
        write(given("map"), "torch", tmp_path / "a")


def test_mistakes_are_one_sentence(tmp_path: pathlib.Path, capsys) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for arguments, message in (
        (["runs/none", "--to=onxx", str(tmp_path / "a")], "Unknown format 'onxx'; did you mean"),
        (["runs/none", "--to=hub", str(tmp_path / "full")], "is there and not empty"),
        (["runs/none", "--to=hub", str(tmp_path / "full" / "file")], "is there and not empty"),
        (["runs/none", "--to=hub", str(tmp_path / "a")], "'runs/none' is no run's folder"),
        (["vit_ti17=a.npz", "--to=hub", str(tmp_path / "a")], "There is no file or folder 'a.npz'"),
        (["runs/none", str(tmp_path / "a")], "--to"),
    ):
        assert main(["export", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "a").exists()


def pools(x):
    padded = lax.pad(x, jnp.float32(2), ((0, 0, 0), (1, -1, 2), (0, 3, 0), (0, 0, 0)))
    most = lax.reduce_window(
        padded, -jnp.inf, lax.max, (1, 3, 2, 1), (1, 2, 1, 1), ((0, 0), (1, 1), (0, 1), (0, 0))
    )
    total = lax.reduce_window(padded, 0.0, lax.add, (1, 2, 3, 1), (1, 2, 2, 1), "VALID")
    return jnp.stack([most, -most], axis=2), total


def test_rewritten_primitives_give_the_same() -> None:
    x = jnp.asarray(np.random.default_rng(4).normal(size=(2, 7, 5, 3)), jnp.float32)
    traced = jax.make_jaxpr(pools)(x)
    assert REWRITES.keys() <= primitives(traced.jaxpr)
    again = jax.jit(lambda x: evaluate(traced.jaxpr, traced.consts, x))
    for found, expected in zip(again(x), jax.jit(pools)(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert not REWRITES.keys() & primitives(jax.make_jaxpr(again)(x).jaxpr)


def test_plain_forms_leave_no_primitive_of_ours() -> None:
    model = given("vit")
    ours = {p.name for p in _PLAIN} | {"platform_index"}
    assert ours & primitives(jax.make_jaxpr(program(model))(model.images(2)).jaxpr)
    with plain_forms():
        traced = jax.make_jaxpr(program(model))(model.images(2))
    assert not ours & primitives(traced.jaxpr)


def primitives(jaxpr) -> set[str]:
    """Names of all primitives of a program, inner ones included."""
    found = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            found |= primitives(inner) if hasattr(inner, "eqns") else set()
    return found


@pytest.mark.slow
def test_a_run_is_exported(tmp_path: pathlib.Path, capsys) -> None:
    import train

    flags = {
        "schedule.warmup_steps": 1,
        "steps": 2,
        "epochs": 0,
        "eval_every": 2,
        "model.width": 16,
        "model.depth": 1,
    }
    arguments = [f"--config.{name}={value}" for name, value in flags.items()]
    workdir = tmp_path / "run"
    assert train.main(["--config=configs/digits.py", f"--workdir={workdir}", *arguments]) == 0
    capsys.readouterr()
    folder = tmp_path / "out" / "digits"
    assert main(["export", str(workdir), "--to", "hub", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["format"] == "hub" and said["files"].keys() == {
        "config.json", "model.safetensors", "README.md", "run.py"
    }  # fmt: skip
    card = (folder / "README.md").read_text()
    assert "Step: 2" in card and "On the run's test data, at step 2:" in card and "top1" in card
    config = json.loads((folder / "config.json").read_text())
    assert config["label_names"] == [str(k) for k in range(10)]
    assert main(["export", str(workdir), "--to", "hub", str(folder)]) == 2


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (dict(act="quick_gelu"), "act='quick_gelu'"),
        (dict(pre_norm=True), "pre_norm=True"),
        (dict(norm_epsilon=1e-5), "norm_epsilon=1e-05"),
        (dict(pool="gap", class_token=True), "class_token=True"),
        (dict(pool="gap", pool_norm=True), "pool_norm=True"),
        (dict(mlp="swiglu"), "mlp='swiglu'"),
        (dict(key_bias=False), "key_bias=False"),
        (dict(position="rope"), "position='rope'"),
    ],
)
def test_options_of_a_vit_that_timm_does_not_have(option: dict, said: str) -> None:
    found = vit_arguments({**model_options("vit_ti16"), **option})
    assert isinstance(found, str) and said in found
