"""SegFormer and its encoder MiT against the official numbers, on other backbones and any size."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.golden import compare, load_golden
from tests.models.test_pvt import ENTRIES, SMALL, noisy, run
from vitjax import weights
from vitjax.heads.segformer import SegFormerHead
from vitjax.layers.spec import spec

CASE = compare.FOLDER / "segformer_b0_128x160.npz"
UNUSED = "decode_head.conv_seg."
STAGES = {
    **{f"patch_embed{i + 1}": f"backbone/{entry}" for i, entry in enumerate(ENTRIES)},
    **{f"norm{i + 1}": f"backbone/norm_{i}" for i in range(4)},
    **{
        f"backbone.block{i + 1}.{j}": f"backbone/stage_{i}/block_{j}"
        for i in range(4)
        for j in range(2)
    },
    "linear_c4": "head/embed_3",
    "linear_fuse": "head/fuse",
}
TINY: dict[str, Any] = dict(  # SMALL and a head
    backbone="mit_b0(dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), num_heads=(1, 2, 3, 4))",
    width=12,
    num_classes=5,
)


@pytest.mark.golden
def test_segformer_is_the_official_one() -> None:
    data, meta, state = load_golden.load(CASE)
    model = vitjax.create_model("segformer_b0", 19)
    variables = weights.from_torch("segformer_b0", state, 19)
    images = jnp.asarray(load_golden.inputs(meta).transpose(0, 2, 3, 1))
    probe = load_golden.probes(meta)[0].transpose(0, 2, 3, 1)
    paths = {stage: tuple(path.split("/")) for stage, path in STAGES.items()}
    wanted = set(paths.values())
    assert set(paths) == set(data["stage_names"].tolist())

    def loss(params, x):
        logits, sown = model.apply(
            {**variables, "params": params},
            x,
            mutable=["intermediates"],
            capture_intermediates=lambda module, method: (
                method == "__call__" and module.path in wanted
            ),
        )
        return jnp.sum(logits * probe), (logits, sown["intermediates"])

    with jax.default_matmul_precision("highest"):
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        (_, (logits, sown)), (grads, grad_x) = step(variables["params"], images)

    compare.check_stages(data, sown, paths)
    ours = load_golden.stored(np.asarray(logits).transpose(0, 3, 1, 2), meta["outputs"][0])
    tolerance = 5 * meta["f32_noise"] + 1e-6
    np.testing.assert_allclose(ours, data["logits_f64"], rtol=0, atol=tolerance)
    s = meta["grad_x_stride"]
    ours = np.asarray(grad_x).transpose(0, 3, 1, 2)[:, :, ::s, ::s]
    atol = 10 * meta["grad_x_noise"] + 1e-5 * meta["grad_x_absmax"]
    np.testing.assert_allclose(ours, data["grad_x"], rtol=0, atol=atol)
    used = np.array([not key.startswith(UNUSED) for key in data["keys"]])
    assert np.sum(~used) == 2
    data = {**data, **{k: data[k][used] for k in ("keys", "grad_norm_f64")}}
    theirs = weights.to_torch("segformer_b0", {"params": grads})
    compare.check_gradients(data, meta, theirs, None)


@pytest.mark.slow
def test_counts_are_the_official_ones() -> None:
    counts = json.loads((compare.FOLDER / "param_counts.json").read_text())
    published = {"b0": 3.8, "b1": 13.7, "b2": 27.5, "b3": 47.3, "b4": 64.1, "b5": 84.7}  # table 1
    _, meta, state = load_golden.load(CASE, check=False)
    unused = sum(w.size for key, w in state.items() if key.startswith(UNUSED))
    for variant, millions in published.items():
        model = vitjax.create_model(f"segformer_{variant}", 150)
        params = weights.abstract_variables(model)["params"]
        sizes = {k: sum(p.size for p in jax.tree.leaves(tree)) for k, tree in params.items()}
        assert sizes["backbone"] == counts[f"mit_{variant}_backbone"]["params"], variant
        assert round(sum(sizes.values()) / 1e6, 1) == millions, variant
        if variant == "b0":
            more = (150 - 19) * (256 + 1)  # classes, each of width and bias
            assert sum(sizes.values()) - more == meta["num_params"] - unused


def test_on_maps_of_one_size_the_head_is_an_mlp_of_each_position() -> None:
    rng = np.random.default_rng(0)
    maps = tuple(jnp.asarray(rng.standard_normal((2, 3, 2, c)), jnp.float32) for c in (4, 6))
    head = SegFormerHead(num_classes=3, width=5)
    shapes = jax.eval_shape(head.init, jax.random.key(0), maps)
    variables = jax.tree.map(
        lambda leaf: 0.5 + rng.random(leaf.shape, np.float32) - 0.4 * (leaf.ndim > 1), shapes
    )
    p, stats = variables["params"], variables["batch_stats"]["fuse"]["norm"]
    deep, fine = (
        np.asarray(maps[i]) @ p[f"embed_{i}"]["kernel"] + p[f"embed_{i}"]["bias"] for i in (1, 0)
    )
    x = np.concatenate([deep, fine], axis=-1) @ p["fuse"]["conv"]["kernel"][0, 0]
    norm = p["fuse"]["norm"]
    x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * norm["scale"] + norm["bias"]
    assert (x < 0).any() and (x > 0).any()
    expected = np.maximum(x, 0) @ p["logits"]["kernel"] + p["logits"]["bias"]
    np.testing.assert_allclose(run(head, variables, maps), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (97, 131)])
def test_any_image_size(size: tuple[int, int]) -> None:
    model = vitjax.create_model("segformer", **TINY)
    variables, images = noisy(model, size)
    logits = run(model, variables, images)
    assert logits.shape == (1, -(-size[0] // 4), -(-size[1] // 4), 5)
    assert np.isfinite(logits).all() and logits.std() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "widths"),
    [
        ("debiformer_small", (64, 128, 256, 512)),
        ("swin_tiny", (96, 192, 384, 768)),
        ("mit_b2", (64, 128, 320, 512)),
    ],
)
def test_the_head_reads_any_backbone(backbone: str, widths: tuple[int, ...]) -> None:
    model = vitjax.create_model("segformer", 7, backbone=backbone, image_size=224)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    assert logits.shape == (1, 56, 56, 7)
    head = variables["params"]["head"]
    assert tuple(head[f"embed_{i}"]["kernel"].shape[0] for i in range(4)) == widths


def hugging_face(key: str, value: np.ndarray, version: int) -> dict[str, np.ndarray]:
    """Give a published array as transformers has it: 4 (as the files have it), or 5."""
    new = version == 5
    parts = {
        "norm1": "layernorm_before" if new else "layer_norm_1",
        "norm2": "layernorm_after" if new else "layer_norm_2",
        "attn.q": "attention.q_proj" if new else "attention.self.query",
        "attn.sr": "attention.sequence_reduction.sequence_reduction"
        if new
        else "attention.self.sr",
        "attn.norm": "attention.sequence_reduction.layer_norm"
        if new
        else "attention.self.layer_norm",
        "attn.proj": "attention.o_proj" if new else "attention.output.dense",
        "mlp.fc1": "mlp.fc1" if new else "mlp.dense1",
        "mlp.fc2": "mlp.fc2" if new else "mlp.dense2",
        "mlp.dwconv.dwconv": "mlp.dwconv.dwconv",
    }
    keys, values = (
        ("attention.k_proj", "attention.v_proj")
        if new
        else ("attention.self.key", "attention.self.value")
    )
    module, leaf = key.removeprefix("backbone.").rsplit(".", 1)
    if module.startswith("block"):
        stage, number, part = module.split(".", 2)
        s = int(stage.removeprefix("block")) - 1
        start = f"segformer.stages.{s}.blocks" if new else f"segformer.encoder.block.{s}"
        start = f"{start}.{number}"
        if part == "attn.kv":
            halves = zip((keys, values), np.split(value, 2), strict=True)
            return {f"{start}.{name}.{leaf}": half for name, half in halves}
        return {f"{start}.{parts[part]}.{leaf}": value}
    if module.startswith(("patch_embed", "norm")):
        name, *part = module.split(".")
        s = int(name[-1]) - 1
        part = [p.replace("norm", "layer_norm") for p in part]
        kind = "patch_embeddings" if part else "layer_norm"
        start = f"segformer.stages.{s}.{kind}" if new else f"segformer.encoder.{kind}.{s}"
        return {".".join([start, *part, leaf]): value}
    linear = "decode_head.linear_projections" if new else "decode_head.linear_c"
    heads = {
        "head": "classifier",
        "decode_head.linear_fuse.conv": "decode_head.linear_fuse",
        "decode_head.linear_fuse.bn": "decode_head.batch_norm",
        "decode_head.linear_pred": "decode_head.classifier",
        **{f"decode_head.linear_c{i + 1}.proj": f"{linear}.{i}.proj" for i in range(4)},
    }
    return {f"{heads[module]}.{leaf}": value}


@pytest.mark.parametrize(
    ("name", "options"),
    [("mit_b0", SMALL), ("segformer", TINY)],
)
def test_weights_there_and_back(name: str, options: dict[str, Any]) -> None:
    state = weights.to_torch(name, noisy(vitjax.create_model(name, **options))[0])
    prefix = "backbone." if name == "segformer" else ""
    assert f"{prefix}block1.0.attn.sr.weight" in state
    named = [state]
    for version in (4, 5):
        theirs: dict[str, np.ndarray] = {}
        for key, value in state.items():
            theirs.update(hugging_face(key, value, version))
        assert len(theirs) == len(state) + 2 * 5  # keys and values of five blocks
        named.append(theirs)
    if name == "segformer":
        unused = {f"{UNUSED}weight": np.ones((5, 6, 1, 1)), f"{UNUSED}bias": np.ones(5)}
        named.append({**state, **unused})
    for theirs in named:
        again = weights.to_torch(name, weights.from_torch(name, theirs, **options))
        assert state.keys() == again.keys()
        for key in state:
            np.testing.assert_array_equal(state[key], again[key])
    damaged = {k: v for k, v in named[1].items() if not k.endswith("self.value.bias")}
    with pytest.raises(ValueError, match="do not fit"):
        weights.from_torch(name, damaged, **options)


TWO_STAGES: dict[str, Any] = dict(
    backbone="mit_b0(dims=(8, 16), depths=(1, 1), num_heads=(1, 2), drop_path_rate=0.0)",
    width=12,
    num_classes=5,
)


@pytest.mark.slow
def test_bfloat16_is_close() -> None:
    variables, images = noisy(vitjax.create_model("segformer", **TWO_STAGES), batch=2)
    exact, half = (
        run(vitjax.create_model("segformer", **TWO_STAGES, dtype=dtype), variables, images)
        for dtype in (None, jnp.bfloat16)
    )
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, exact, atol=3e-2 * np.abs(exact).max())


@pytest.mark.slow
def test_training_mode() -> None:
    model = vitjax.create_model("segformer", **TWO_STAGES)
    variables, images = noisy(model, batch=2)

    def loss(params, key):
        logits, new = model.apply(
            {**variables, "params": params},
            images,
            True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        return jnp.mean(logits**2), new["batch_stats"]

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, stats), grads = step(variables["params"], jax.random.key(0))
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in jax.tree.leaves(grads))
    mean = stats["head"]["fuse"]["norm"]["mean"]
    assert np.abs(mean - variables["batch_stats"]["head"]["fuse"]["norm"]["mean"]).min() > 0
    assert step(variables["params"], jax.random.key(1))[0][0] != value  # the head's dropout


def test_dropout_drops_whole_channels() -> None:
    head = SegFormerHead(num_classes=4, width=4, drop_rate=0.5)
    maps = (jnp.ones((64, 2, 2, 3)),)
    eye = dict(kernel=jnp.eye(4), bias=jnp.zeros(4))
    params = {
        "embed_0": dict(kernel=jnp.zeros((3, 4)), bias=jnp.zeros(4)),
        "fuse": dict(
            conv=dict(kernel=jnp.zeros((1, 1, 4, 4))),
            norm=dict(scale=jnp.ones(4), bias=jnp.ones(4)),
        ),
        "logits": eye,
    }
    stats = dict(fuse=dict(norm=dict(mean=jnp.zeros(4), var=jnp.ones(4))))
    logits, _ = head.apply(
        dict(params=params, batch_stats=stats),
        maps,
        True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(0)},
    )
    logits = np.asarray(logits)
    assert set(np.unique(logits)) == {0.0, 2.0}
    assert (logits == logits[:, :1, :1]).all()  # one draw for all positions
    assert 0.3 < logits.mean() / 2 < 0.7


def test_the_encoder_takes_the_hyperparameters_of_its_menu_entry() -> None:
    model = vitjax.create_model("mit_b0", 3, drop_path_rate=0.0, sr_ratio=(4, 2, 1, 1))
    params = weights.abstract_variables(model)["params"]
    assert params["stage_0"]["block_0"]["mixer"]["reduce"]["conv"]["kernel"].shape[:2] == (4, 4)
    assert "reduce" not in params["stage_2"]["block_0"]["mixer"]
    text = "mit_b0(drop_path_rate=0.3)"
    encoder = vitjax.create_model("segformer", backbone=text, remat=True).encoder.build()
    assert (encoder.drop_path_rate, encoder.remat) == (0.3, True)
    assert vitjax.create_model("segformer_b1").encoder.build().drop_path_rate == 0.1
    assert vitjax.create_model("segformer_b1").head == spec(SegFormerHead, width=256, drop_rate=0.1)
