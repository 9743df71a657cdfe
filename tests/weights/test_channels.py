"""Weights of all families for images of other channels: the first convolution is as timm's."""

import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

import vitjax
from tests.weights.test_options import CASES
from vitjax import weights
from vitjax.models import model_spec
from vitjax.weights import table
from vitjax.weights.inputs import check_grid

DENSE = ("segformer_b0", "setr_naive", "setr_mla", "refinenet", "upernet", "semantic_fpn")
WALK = [name for name in CASES if name != "setr_pup"]  # a family of its own has one case
GOOGLE = ("vit_s16", "bit_r50x1")


def random_variables(name: str, own: dict[str, Any]) -> dict[str, Any]:
    shapes = weights.abstract_variables(vitjax.create_model(name, **own))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(np.float32), shapes)


def adapted(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Give what timm's `adapt_input_conv` gives of `[out, 3, h, w]`."""
    if channels == 1:
        return kernel.sum(axis=1, keepdims=True)
    return np.stack([kernel[:, i % 3] for i in range(channels)], axis=1) * (3 / channels)


def conv_of_images(name: str, theirs: dict[str, np.ndarray]) -> str:
    """Give the key of the only convolution that reads three channels, by shapes alone."""
    found = [k for k, v in theirs.items() if v.ndim >= 4 and v.shape[1] == 3 and v.shape[0] != 3]
    assert len(found) == 1, (name, found)
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", WALK)
def test_the_first_convolution_is_summed_or_repeated(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    own = CASES[name][0]
    variables = random_variables(name, own)
    theirs = weights.to_torch(name, variables, **own)
    stem = conv_of_images(name, theirs)
    said_of = {7: "repeated and scaled by 3/7", 1: "summed over its inputs"}
    for channels, said in said_of.items():
        if channels == 1 and name in DENSE:  # the stems of their backbones, which have their turn
            continue
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = weights.from_torch(name, theirs, channels=channels, **own)
        assert f"{stem} is {said}" in caplog.text
        back = weights.to_torch(name, found, **own)
        assert back.keys() == theirs.keys()
        np.testing.assert_allclose(back[stem], adapted(theirs[stem], channels), rtol=1e-6)
        of_images = {k for k in theirs if back[k].shape != theirs[k].shape} - {stem}
        assert len(of_images) == (2 if name == "uformer_t" else 0)
        for key in theirs.keys() - {stem}:
            whole = theirs[key]
            if key in of_images:  # the last convolution, and its bias
                several = whole[np.arange(7) % 3]
                whole = whole.mean(axis=0, keepdims=True) if channels == 1 else several
            np.testing.assert_allclose(back[key], whole, rtol=0, atol=1e-6)


OWN = dict(width=16, depth=1, num_heads=2, image_size=32, patch_size=8)


def saved(tmp_path: pathlib.Path, variables: Any) -> str:
    path = tmp_path / "vit.safetensors"
    save_file(weights.to_torch("vit_s16", variables, **OWN), path)
    return str(path)


@pytest.mark.slow
def test_a_gray_image_gives_the_logits_of_its_rgb(tmp_path: pathlib.Path) -> None:
    variables = random_variables("vit_s16", OWN)
    source = saved(tmp_path, variables)
    gray = np.random.default_rng(1).standard_normal((2, 32, 32, 1)).astype(np.float32)
    three, loaded = vitjax.load_pretrained("vit_s16", source, **OWN)
    expected: Any = three.apply(loaded, jnp.repeat(gray, 3, axis=-1))
    for channels in (1, 6):  # two times RGB, each at half of the weight
        model, loaded = vitjax.load_pretrained("vit_s16", source, channels=channels, **OWN)
        found: Any = model.apply(loaded, jnp.repeat(gray, channels, axis=-1))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_weights_of_one_channel_become_those_of_three(tmp_path: pathlib.Path) -> None:
    variables = random_variables("vit_s16", OWN)
    theirs = weights.to_torch("vit_s16", variables, **OWN)
    key = "patch_embed.proj.weight"
    one = weights.from_torch("vit_s16", {**theirs, key: theirs[key][:, :1]}, **OWN)
    kernel = one["params"]["patch_embed"]["proj"]["kernel"]
    np.testing.assert_allclose(kernel.sum(2), theirs[key][:, 0].transpose(1, 2, 0), rtol=1e-5)
    four = {**theirs, key: np.concatenate([theirs[key], theirs[key][:, :1]], axis=1)}
    with pytest.raises(
        ValueError, match=r"of 4 channels \(patch_embed.proj.weight\), and the mode"
    ):
        weights.from_torch("vit_s16", four, **OWN)
    summed = weights.from_torch("vit_s16", four, channels=1, **OWN)
    kernel = summed["params"]["patch_embed"]["proj"]["kernel"]
    np.testing.assert_allclose(kernel[:, :, 0], four[key].sum(1).transpose(1, 2, 0), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOGLE)
def test_googles_arrays_are_adapted_too(name: str) -> None:
    own, family = CASES[name][0], weights.FAMILIES[model_spec(name).factory]
    leaves = traverse_util.flatten_dict(random_variables(name, own))
    google, ours = table.dump(family.GOOGLE, leaves), table.dump(family.TABLE, leaves)
    model = vitjax.create_model(name, **own)
    found = weights.convert(family, family.GOOGLE, google, model, channels=5)
    expected = weights.convert(family, family.TABLE, ours, model, channels=5)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_other_misfits_are_still_listed() -> None:
    theirs = weights.to_torch("vit_s16", random_variables("vit_s16", OWN), **OWN)
    key = "patch_embed.proj.weight"
    with pytest.raises(ValueError, match=r"misshapen: patch_embed.proj.weight is \(16, 3, 4, 4\)"):
        weights.from_torch("vit_s16", {**theirs, key: theirs[key][..., :4, :4]}, **OWN)


def test_tables_of_rows_and_columns_are_not_taken_for_squares(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    shapes = {("params", "pos_embed"): np.zeros((1, 36, 8))}
    (tmp_path / "config.json").write_text('{"data": {"image_size": [32, 72]}}')
    check_grid(str(tmp_path), (32, 72), shapes)
    check_grid(str(tmp_path), 48, {("params", "kernel"): np.zeros((1, 36, 8))})
    with pytest.raises(ValueError, match="for images of 32×72, and the model's are 48×48"):
        check_grid(str(tmp_path), 48, shapes)
    # A mean of patches at 16×40: ten positions, which are not nine and a token's.
    own = OWN | dict(image_size=(16, 40), pool="gap")
    theirs = weights.to_torch("vit_s16", random_variables("vit_s16", own), **own)
    found = weights.from_torch("vit_s16", theirs, **own)
    np.testing.assert_array_equal(found["params"]["pos_embed"], theirs["pos_embed"])
    own = OWN | dict(image_size=(16, 64))
    theirs = weights.to_torch("vit_s16", random_variables("vit_s16", own), **own)
    with caplog.at_level(logging.WARNING):
        weights.from_torch("vit_s16", theirs, **own)
    assert "has 16 patches and is read as 2×8; if it was made for 4×4" in caplog.text
