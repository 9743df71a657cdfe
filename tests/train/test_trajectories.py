"""100 steps in float64, through a run's own setup, against PyTorch: every loss and every parameter.

References: PyTorch with timm 1.0's ViT and Swin, torch.optim, timm's layer-wise decay, Lion as
published (arXiv:2302.06675, algorithm 2), and the authors' BiFormer; big_vision's Adafactor.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.golden.compare import FOLDER
from vitjax.data import DataInfo
from vitjax.layers import pixels
from vitjax.tasks import classification, task_from_config
from vitjax.train.optimizer import OptimizerConfig, make_optimizer
from vitjax.train.program import compile_program
from vitjax.train.sharding import make_mesh
from vitjax.train.state import with_variables
from vitjax.training import load_config
from vitjax.weights import from_torch, to_torch

STEPS = 100
LIMIT = 1e-11
VIT = dict(name="vit_ti8", width=16, depth=3, num_heads=2)
SWIN = dict(
    name="swin_tiny", dims=(8, 16), depths=(2, 2), num_heads=(2, 2), window_size=4, mlp_ratio=2.0,
    drop_path_rate=0.0,
)  # fmt: skip
BIFORMER = dict(
    name="biformer_tiny",
    dims=(8, 8, 16, 16),
    depths=(1, 1, 1, 1),
    head_dim=8,
    n_win=2,
    mlp_ratio=2.0,
    mixer="bra(topk=1) ; bra(topk=2) ; bra(topk=3) ; full_lepe(num_heads=8, qkv_bias=False)",
)


class Double:
    """jax.numpy whose float32 is float64: the loss and the pixels are float32 by choice."""

    float32 = jnp.float64

    def __getattr__(self, name: str):
        return getattr(jnp, name)


@contextlib.contextmanager
def float64(monkeypatch):
    jax.config.update("jax_enable_x64", True)
    for module in (classification, pixels):
        monkeypatch.setattr(module, "jnp", Double())
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


def wide(x):
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(jnp.float64)
    return x.astype(jnp.int64) if x.dtype == jnp.int32 else x


def run(folder, start, model, side, *, optimizer, loss=None):
    """Losses of the run, and the state after it.

    Args:
      start: the first weights, a PyTorch state dict.
    """
    schedule = dict(name="cosine", learning_rate=optimizer.pop("rate"), warmup_steps=10)
    fields = dict(
        steps=STEPS,
        model=model,
        loss=loss or {},
        schedule=schedule,
        data=dict(image_size=side, batch_size=8, eval_batch_size=8),
        optimizer=dict(optimizer, mu_dtype="float64"),
    )
    file = folder / "config.py"
    file.write_text(f"def get_config():\n    return {fields!r}\n")
    config = load_config(str(file), {})
    task = task_from_config(config, DataInfo(tuple("abcde"), ""))
    program = compile_program(config, task, make_mesh(config.mesh, jax.devices()[:1]), STEPS)
    options = {k: v for k, v in model.items() if k != "name"}
    variables = from_torch(model["name"], start, 5, image_size=side, **options)
    state = with_variables(jax.tree.map(wide, program.init(jax.random.key(0))), variables)
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (24, side, side, 3), np.uint8)
    labels, losses = rng.integers(0, 5, 24), []
    for _ in range(STEPS):
        at = rng.permutation(24)[:8]
        batch = dict(image=jnp.asarray(images[at]), label=jnp.asarray(labels[at]), mask=jnp.ones(8))
        state, metrics = program.train_step(state, batch, jax.random.key(0))
        losses.append(float(metrics["loss"]))
    return losses, state


def part(reference, prefix):
    return {k.removeprefix(prefix): v for k, v in reference.items() if k.startswith(prefix)}


def check(name, variables, wanted, limit=LIMIT):
    found = to_torch(name, jax.device_get(variables))
    for key, value in found.items():
        np.testing.assert_allclose(value, wanted[key], rtol=0, atol=limit, err_msg=key)


def reference(name):
    with np.load(FOLDER / f"trajectory_{name}.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.mark.slow
def test_vit_adamw_with_layer_decay_clipping_accumulation_and_average(tmp_path, monkeypatch):
    r = reference("vit")
    with float64(monkeypatch):
        optimizer = dict(
            name="adamw", rate=3e-3, b2=0.99, weight_decay=0.1, layer_decay=0.75, clip_norm=1.0,
            accumulate=2, ema=0.95,
        )  # fmt: skip
        losses, state = run(
            tmp_path, part(r, "init/"), VIT, 32, optimizer=optimizer, loss=dict(label_smoothing=0.1)
        )
        np.testing.assert_allclose(losses, r["loss"], rtol=0, atol=LIMIT)
        check("vit_ti8", {"params": state.params}, part(r, "final/"))
        check("vit_ti8", {"params": state.ema}, part(r, "ema/"))


OPTIMIZERS = {
    "sgd": dict(name="sgd", rate=0.05, b1=0.9, weight_decay=1e-2),
    "nesterov": dict(name="sgd", rate=0.05, b1=0.9, weight_decay=1e-2, nesterov=True),
    "adam": dict(name="adam", rate=2e-3, b2=0.99, weight_decay=1e-2),
    "lion": dict(name="lion", rate=1e-3, b2=0.99, weight_decay=0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_swin(name, tmp_path, monkeypatch):
    r = reference("swin")
    with float64(monkeypatch):
        optimizer = dict(OPTIMIZERS[name])
        losses, state = run(tmp_path, part(r, "init/"), SWIN, 32, optimizer=optimizer)
        np.testing.assert_allclose(losses, r[f"{name}/loss"], rtol=0, atol=LIMIT)
        wanted = authors_names(part(r, f"{name}/final/"))
        if name == "lion":
            state = state.replace(params=without_key_biases(state.params))
            wanted = {k: cut_key_bias(k, v) for k, v in wanted.items()}
        check("swin_tiny", {"params": state.params}, wanted)


def cut_key_bias(key, value):
    """Attention does not depend on the biases of its keys; of their gradient, 0 but for rounding,
    Lion takes the sign.
    """
    if not key.endswith("qkv.bias"):
        return value
    value = value.reshape(3, -1).copy()
    value[1] = 0
    return value.ravel()


def without_key_biases(params):
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x.at[1].set(0) if "qkv" in str(path) and "bias" in str(path) else x, params
    )


def authors_names(timm):
    """timm counts the downsampling with the stage after it, and its head has a name more."""
    names = {"layers.1.downsample": "layers.0.downsample", "head.fc": "head"}
    for old, new in names.items():
        timm = {k.replace(old, new): v for k, v in timm.items()}
    return timm


@pytest.mark.slow
def test_biformer_adamw_with_batch_norm(tmp_path, monkeypatch):
    """PyTorch's running variance is unbiased and ours is not: without the first value, of which
    0.9^100 is left, it is n / (n - 1) of ours, for n pixels of the batch.
    """
    r = reference("biformer")
    with float64(monkeypatch):
        optimizer = dict(name="adamw", rate=3e-3, b2=0.99, weight_decay=0.05)
        losses, state = run(tmp_path, part(r, "init/"), BIFORMER, 64, optimizer=optimizer)
        np.testing.assert_allclose(losses, r["loss"], rtol=0, atol=LIMIT)
        final, first = part(r, "final/"), 0.9**STEPS
        pixels = {"downsample_layers.0.1": 32, "downsample_layers.0.4": 16, "norm": 2}
        pixels |= {f"downsample_layers.{i}.1": 16 >> i for i in (1, 2, 3)}
        for name, side in pixels.items():
            n, key = 8 * side**2, f"{name}.running_var"
            final[key] = (final[key] - first) * (n - 1) / n + first
        # Biases before a batch norm have a gradient of 0, of whose rounding Adam makes a step.
        check("biformer_tiny", {"params": state.params, **state.collections}, final, limit=1e-9)


@pytest.mark.parametrize("start", [0, 20_000])
def test_adafactor_is_big_visions(start):
    r, shapes = reference("adafactor"), {}
    for name, leaf, shape in (
        ("qkv", "kernel", (64, 3, 2, 32)),
        ("mlp", "kernel", (64, 256)),
        ("b", "bias", (64,)),
        ("head", "kernel", (64, 10)),
    ):
        shapes[name] = (leaf, shape)
    params = {k: {n: jnp.asarray(r[f"init/{k}/{n}"])} for k, (n, _) in shapes.items()}
    o = OptimizerConfig(
        "adafactor",
        mu_dtype="bfloat16",
        weight_decay=0.3,
        weight_decay_rules=((".*/kernel", 1.0), (".*", 0.0)),
        clip_norm=1.0,
    )
    tx = make_optimizer(o, lambda step: 1e-3, params)

    def late(x):
        return jnp.asarray(start, x.dtype) if x.dtype == jnp.int32 and not x.ndim else x

    state, first = jax.tree.map(late, tx.init(params)), params
    rng, update = np.random.default_rng(1), jax.jit(tx.update)
    for step in range(20):
        grads = {}
        for name, (leaf, shape) in shapes.items():
            scale = (10 if step == 10 else 1) * 1e-2
            noise = rng.normal(size=shape) * scale * np.exp(rng.normal(size=shape[-1:]))
            grads[name] = {leaf: jnp.asarray(noise, jnp.float32)}
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    for name, (leaf, _) in shapes.items():
        wanted = r[f"{start}/{name}/{leaf}"]
        moved = np.abs(wanted - first[name][leaf]).max()
        assert np.abs(params[name][leaf] - wanted).max() < 1e-3 * moved
