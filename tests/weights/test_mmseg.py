"""Whole models of mmsegmentation, and a ResNet of torchvision, give their logits.

`mmseg.npz` has tiny models of mmsegmentation 1.2.2 (on mmcv 2.1) and torchvision 0.28: keys,
shapes, and every third logit in float64, resized to the image, of the head and the auxiliary heads.
Arrays and image follow the rules below. The norms of MiT behind patches and reductions have the
epsilon of the authors, 1e-5, and there also mmsegmentation's own, 1e-6 ("segformer/own_epsilon").
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import vitjax
from vitjax import weights
from vitjax.layers.resize import resize
from vitjax.names import parse_call

with np.load(pathlib.Path(__file__).parent / "mmseg.npz") as _file:
    CASES = {name: _file[name] for name in _file.files}
DENSE = ("setr_naive", "setr_pup", "setr_mla", "segformer", "upernet")


def array(i: int, shape: tuple[int, ...], key: str) -> np.ndarray:
    """The i-th array of a model: a normal draw, of 1 / fan-in for kernels, around 1 for norms."""
    z = np.random.Generator(np.random.PCG64(i)).standard_normal(shape).astype(np.float32)
    if len(shape) > 1:
        table = "token" in key or "pos" in key
        return z if table else (z / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    around_one = key.endswith(("weight", "var"))
    return (1 + 0.1 * np.abs(z) if around_one else 0.1 * z).astype(np.float32)


def image(side: int) -> np.ndarray:
    z = np.random.Generator(np.random.PCG64(7)).standard_normal((1, side, side, 3))
    return z.astype(np.float32)


def given(case: str) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """Our model of a case, its options, and its state dict."""
    name, options = json.loads(CASES[f"{case}/ours"].item())
    keys = [key.decode() for key in CASES[f"{case}/keys"]]
    shapes = [tuple(int(n) for n in shape if n) for shape in CASES[f"{case}/shapes"]]
    arrays = {k: array(i, s, k) for i, (k, s) in enumerate(zip(keys, shapes, strict=True))}
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return name, options, arrays


def check(ours: Any, theirs: np.ndarray, tolerance: float = 1e-5) -> None:
    """Compare within a share of the largest value."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


@pytest.mark.slow
@pytest.mark.parametrize("case", DENSE)
def test_logits(case: str, tmp_path: pathlib.Path) -> None:
    name, options, state_dict = given(case)
    buffers = {"decode_head.up_convs.0.0.bn.num_batches_tracked": np.zeros(1)}
    save_file({**state_dict, **buffers}, tmp_path / "model.safetensors")
    model, variables = vitjax.load_pretrained(name, tmp_path / "model.safetensors", **options)

    @jax.jit
    def run(variables: Any, images: Any) -> list[Any]:
        outputs: Any = model.apply(variables, images, method="all_logits")
        logits, auxiliary = outputs
        if case == "setr_mla":  # theirs count from the last map
            auxiliary = auxiliary[::-1]
        if case == "upernet":  # theirs reads another map, see `vitjax.models.upernet`
            auxiliary = ()
        return [resize(x, (64, 64))[:, ::3, ::3] for x in (logits, *auxiliary)]

    outputs = run(variables, image(64))
    assert f"{case}/logits_{len(outputs)}" not in CASES
    for i, ours in enumerate(outputs):
        check(ours, CASES[f"{case}/logits_{i}"])
    if case == "segformer":
        check(outputs[0], CASES[f"{case}/own_epsilon"], 3e-5)


@pytest.mark.slow
def test_torchvision_resnet(tmp_path: pathlib.Path) -> None:
    name, options, state_dict = given("resnet")
    save_file(state_dict, tmp_path / "model.safetensors")
    model, variables = vitjax.load_pretrained(name, tmp_path / "model.safetensors", **options)
    check(jax.jit(model.apply)(variables, image(67)), CASES["resnet/logits_0"])
    again = weights.to_torch(name, variables, **options)
    assert again.keys() == state_dict.keys()


@pytest.mark.parametrize("case", DENSE)
def test_every_key_is_read_once(case: str) -> None:
    """Also where names or places differ: each array with a value of its own is found once."""
    name, options, state_dict = given(case)
    apart = {k: np.full(v.shape, i + 1, np.float32) for i, (k, v) in enumerate(state_dict.items())}
    variables = weights.from_torch(name, apart, 5, **options)
    found = [float(v) for leaf in jax.tree.leaves(variables) for v in np.unique(leaf)]
    unread = {"backbone.cls_token"} if case == "setr_mla" else set()  # its blocks have no token
    wanted = [float(i + 1) for i, key in enumerate(apart) if key not in unread]
    joined = {v for v in found if found.count(v) > 1}  # MiT's q, k and v are two arrays here
    assert len(joined) == (4 if case == "segformer" else 0) * 2
    zeros = [0.0] * case.startswith(("setr", "upernet"))  # the bias of patches
    assert sorted({*found}) == sorted([*zeros, *wanted])
    surplus = {**state_dict, "decode_head.surplus": np.zeros(3)}
    with pytest.raises(ValueError, match=r"1 keys differ:\n  unused: decode_head\.surplus \(3,\)"):
        weights.from_torch(name, surplus, 5, **options)
    lost = next(key for key in state_dict if key.startswith("decode_head.") and "bn.bias" in key)
    with pytest.raises(ValueError, match=r"1 keys differ:\n  missing: "):
        weights.from_torch(name, {k: v for k, v in state_dict.items() if k != lost}, 5, **options)


@pytest.mark.parametrize("case", DENSE[:-1])
def test_the_authors_decoder_is_not_given_their_weights(case: str) -> None:
    name, options, state_dict = given(case)
    with pytest.raises(ValueError, match="set decoder='mmsegmentation'"):
        weights.from_torch(name, state_dict, 5, **{**options, "decoder": "authors"})
    with pytest.raises(ValueError, match="Unknown decoder 'mmseg'"):
        vitjax.create_model(name, **{**options, "decoder": "mmseg"})


@pytest.mark.parametrize(("case", "inside"), [("segformer", "mit_b0"), ("setr_pup", "vit_b16")])
def test_a_backbone_alone(case: str, inside: str) -> None:
    """As their converted ImageNet weights are."""
    _, options, state_dict = given(case)
    own = {
        k.removeprefix("backbone."): v for k, v in state_dict.items() if k.startswith("backbone.")
    }
    _, sizes = parse_call(options["backbone"]) or ("", {})
    for prefix in ("", "module."):
        theirs = {prefix + k: v for k, v in own.items()}
        if inside == "vit_b16":
            theirs |= {f"{prefix}ln1.weight": np.ones(16), f"{prefix}ln1.bias": np.zeros(16)}
        params = weights.from_torch(inside, theirs, 0, image_size=64, **sizes)["params"]
        assert len(jax.tree.leaves(params)) > 40
