"""Holds a model against its official implementation's numbers (`*.npz`, see load_golden.py)."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vitjax
from tests.golden import load_golden
from vitjax import weights

FOLDER = pathlib.Path(__file__).parent


def check_case(
    case: str, name: str, stages: dict[str, str], *, routes: dict[str, str] | None = None,
    grad_rtol: float | None = None, rename: Callable[[str], str] = str,
    export: Callable[[dict[str, Any]], dict[str, Any]] = dict, **overrides: Any,
) -> None:  # fmt: skip
    """Outputs, stages and gradients of `create_model(name, **overrides)` against one golden case.

    Args:
      stages: their hooked module → our module path ("block_0", "stage_1/block_0/mixer").
      routes: their router → path of what we sow ("stage_0/block_0/mixer/routes"), compared as sets.
      grad_rtol: instead of 10 × the stated noise of the gradient norms, where QUIRKS gives another
        bound; it then bounds the relative error of the input's gradient as a whole too.
      rename: their parameters' names → those that our table dumps, where it reads several.
      export: what our table dumps → the same with their names, where they cut it otherwise.
    """
    data, meta, state_dict = load_golden.load(FOLDER / f"{case}.npz")
    data["keys"] = np.array([rename(key) for key in data["keys"].tolist()])
    stage_paths = {s: tuple(p.split("/")) for s, p in stages.items()}
    route_paths = {s: tuple(p.split("/")) for s, p in (routes or {}).items()}
    wanted = set(stage_paths.values())
    model = vitjax.create_model(name, **overrides)
    variables = weights.from_torch(name, state_dict, **overrides)
    images = jnp.asarray(np.moveaxis(load_golden.inputs(meta), 1, -1))
    (probe,) = load_golden.probes(meta)

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

    check_stages(data, sown, stage_paths)
    for router, path in route_paths.items():
        ours = np.sort(np.asarray(_at(sown, path)[0]), axis=-1)
        np.testing.assert_array_equal(
            ours, data[f"route::{router}"].reshape(ours.shape), err_msg=router
        )
    tolerance = 5 * meta["f32_noise"] + 1e-6
    np.testing.assert_allclose(logits, data["logits_f64"], rtol=0, atol=tolerance, err_msg="logits")
    s = meta.get("grad_x_stride", 1)
    ours = np.moveaxis(np.asarray(grad_x), -1, 1)[..., ::s, ::s]
    if grad_rtol is None:
        atol = 10 * meta["grad_x_noise"] + 1e-5 * meta["grad_x_absmax"]
        np.testing.assert_allclose(
            ours, data["grad_x"], rtol=0, atol=atol, err_msg="gradient of the input"
        )
    else:  # flipped ReLUs move single pixels by more than they move the whole
        error = np.linalg.norm(ours - data["grad_x"]) / np.linalg.norm(data["grad_x"])
        assert error <= grad_rtol, error
    dumped = export(weights.to_torch(name, {"params": grads}, **overrides))
    check_gradients(data, meta, dumped, grad_rtol)


def check_stages(data: dict[str, Any], sown: Any, paths: dict[str, tuple[str, ...]]) -> None:
    """Shape, mean, standard deviation, largest value and a crop of each named stage."""
    rows = {n: i for i, n in enumerate(data["stage_names"].tolist())}
    for stage, path in paths.items():
        i = rows[stage]
        shape = tuple(int(t) for t in data["stage_shapes"][i].split(","))
        ours = _as_torch(np.asarray(_at(sown, (*path, "__call__"))[0]), shape)
        scale = float(data["stage_absmax"][i])
        for measure, value, bound in (
            ("mean", ours.mean(), 1e-5),
            ("std", ours.std(), 1e-5),
            ("absmax", np.abs(ours).max(), 2e-5),  # a single number, like those of the crop
        ):
            theirs = data[f"stage_{measure}"][i]
            np.testing.assert_allclose(
                value, theirs, rtol=0, atol=bound * scale, err_msg=f"{measure} of {stage}"
            )
        if f"crop::{stage}" in data:
            crop = {
                5: (0, 0, slice(8), slice(4), slice(4)),
                4: (0, slice(8), slice(4), slice(4)),
                3: (0, slice(16), slice(8)),
                2: (0, slice(64)),
            }[len(shape)]
            np.testing.assert_allclose(
                ours[crop],
                data[f"crop::{stage}"],
                rtol=0,
                atol=2e-5 * scale,
                err_msg=f"crop of {stage}",
            )


def check_gradients(
    data: dict[str, Any], meta: dict[str, Any], grads: dict[str, Any], rtol: float | None
) -> None:
    """Norms of the gradients per parameter, within 10 × the stated noise."""
    bound = rtol or 10 * meta["grad_norm_max_rel_noise"]
    norms = dict(zip(data["keys"].tolist(), data["grad_norm_f64"].tolist(), strict=True))
    floor = 1e-6 * max(n for n in norms.values() if np.isfinite(n))
    trained = {k: n for k, n in norms.items() if np.isfinite(n)}
    assert set(trained) == set(grads), set(trained) ^ set(grads)
    for key, theirs in trained.items():
        ours = np.linalg.norm(grads[key].astype(np.float64).ravel())
        if theirs > floor:
            np.testing.assert_allclose(ours, theirs, rtol=bound, err_msg=f"gradient norm of {key}")
        else:  # -1: no gradient reaches it; otherwise rounding noise around zero
            assert ours <= 10 * floor, (key, ours)


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _as_torch(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Our map or sequence in the layout that the hooked module had: [B, C, H, W], [B, N, C], [B,
    H, W, C] or, of clips, [B, T, H, W, C].
    """
    if x.shape == shape:
        return x
    if x.ndim == 4 and len(shape) == 4:
        x = x.transpose(0, 3, 1, 2)
    return x.reshape(shape)
