"""Multi-scale deformable attention: the authors' numbers, its limits, chunks, first offsets."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.drawn import variables_of
from tests.golden import load_golden
from tests.golden.compare import FOLDER
from vitjax.attention.msdeform import (
    MultiScaleDeformableAttention,
    multi_scale_deformable_attention,
)
from vitjax.attention.sampling import reference_points, sample_bilinear_gather

NAMES = {
    "sampling_offsets": "offset",
    "attention_weights": "weight",
    "value_proj": "v",
    "output_proj": "proj",
}


def parameters(state: dict[str, np.ndarray], heads: int) -> dict[str, Any]:
    """The authors' parameters in our layout."""
    params: dict[str, Any] = {}
    for key, array in state.items():
        theirs, leaf = key.split(".")
        ours = params.setdefault(NAMES[theirs], {})
        array = array.T if leaf == "weight" else array
        if theirs == "value_proj":
            array = array.reshape(*array.shape[:-1], 1, heads, -1)
        ours["kernel" if leaf == "weight" else "bias"] = jnp.asarray(array)
    return params


@pytest.mark.golden
def test_it_is_that_of_the_authors() -> None:
    """Outputs of module and function, and the gradients of their parameters, queries."""
    data, meta, state = load_golden.load(FOLDER / "msdeform_attn.npz")
    shapes, seed = data["in::shapes"].tolist(), meta["extra_inputs"][0]["seed"]
    rng = np.random.Generator(np.random.PCG64(seed))
    flat = rng.standard_normal((2, 147, 32)).astype(np.float32)
    cuts = np.cumsum([h * w for h, w in shapes])[:-1]

    def levels(array: np.ndarray) -> list[jax.Array]:
        parts = zip(np.split(array, cuts, axis=1), shapes)
        return [jnp.asarray(part.reshape(2, *shape, *part.shape[2:])) for part, shape in parts]

    module = MultiScaleDeformableAttention(num_heads=4, num_points=3)
    queries, (probe, of_core) = jnp.asarray(load_golden.inputs(meta)), load_golden.probes(meta)
    inside = levels(~data["in::padding"])
    given = (jnp.asarray(data["in::reference_points"]), levels(flat), inside)
    params = parameters(state, 4)

    def loss(params: Any, queries: jax.Array) -> Any:
        out: Any = module.apply({"params": params}, queries, *given, method="sample")
        core = multi_scale_deformable_attention(
            levels(flat.reshape(2, -1, 4, 8)),
            jnp.asarray(2 * data["in::core_loc"][..., ::-1] - 1),
            jnp.asarray(data["in::core_weights"]),
        ).reshape(2, 11, 32)
        return (out * probe).sum() + (core * of_core).sum(), (out, core)

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (total, outputs), (grads, of_queries) = step(params, queries)
    np.testing.assert_allclose(total, data["loss_f64"], rtol=1e-5)
    for ours, entry in zip(outputs, meta["outputs"], strict=True):
        bound = 5 * entry["f32_noise"] + 1e-6
        np.testing.assert_allclose(ours, data[f"{entry['name']}_f64"], rtol=0, atol=bound)
    bound = 5 * meta["grad_x_noise"] + 1e-6
    np.testing.assert_allclose(of_queries, data["grad_x"], rtol=0, atol=bound)
    norms = dict(zip(data["keys"].tolist(), data["grad_norm_f64"].tolist(), strict=True))
    for key, norm in norms.items():
        theirs, leaf = key.split(".")
        ours = grads[NAMES[theirs]]["kernel" if leaf == "weight" else "bias"]
        np.testing.assert_allclose(np.linalg.norm(ours), norm, rtol=1e-4, err_msg=key)
    assert sum(p.size for p in jax.tree.leaves(params)) == meta["num_params"]


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


MAPS = [drawn(2, 5, 7, 3, 4), drawn(2, 2, 3, 3, 4)]


def test_points_on_cells_read_them_and_weights_average() -> None:
    """A sample at a cell's centre is its value; outside of the map it is nothing."""
    centres = np.asarray(reference_points(5, 7)).reshape(1, 35, 1, 1, 1, 2)
    points = np.broadcast_to(centres, (2, 35, 3, 2, 1, 2))
    weights = np.broadcast_to(np.array([0.75, 0.0], np.float32)[:, None], (2, 35, 3, 2, 1))
    attend = jax.jit(multi_scale_deformable_attention)
    np.testing.assert_allclose(
        attend(MAPS, points, weights), 0.75 * MAPS[0].reshape(2, 35, 3, 4), atol=1e-5
    )
    assert not attend(MAPS, points + 4, weights).any()


def test_it_sums_samples_of_all_levels_also_by_chunks() -> None:
    points = 0.6 * drawn(2, 11, 3, 2, 5, 2)
    weights = drawn(2, 11, 3, 2, 5)

    def by_gather(points: jax.Array, weights: jax.Array) -> jax.Array:
        total = []
        for head in range(3):
            each = []
            for i, level in enumerate(MAPS):
                at = points[:, :, head, i].reshape(2, 55, 2)
                own = jnp.asarray(level[:, :, :, head])
                sample = sample_bilinear_gather(own, at, align_corners=False)
                weighted = sample.reshape(2, 11, 5, 4) * weights[:, :, head, i, :, None]
                each.append(weighted.sum(axis=2))
            total.append(each[0] + each[1])
        return jnp.stack(total, axis=2)

    def scalar(function: Any) -> Any:
        return jax.value_and_grad(lambda *given: jnp.sin(function(*given)).sum(), (0, 1))

    def attend(room: int) -> Any:
        return partial(multi_scale_deformable_attention, [*map(jnp.asarray, MAPS)], room=room)

    @jax.jit
    def all_forms(*given: jax.Array) -> list[Any]:
        # By chunks of four queries on the first map, and of ten on the second.
        return [scalar(f)(*given) for f in (by_gather, attend(2**20), attend(4 * 105))]

    expected, *found = all_forms(points, weights)
    for ours in found:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-5), ours, expected)


def test_zero_offsets_and_one_point_are_a_projection_of_each_position() -> None:
    x = drawn(2, 5, 7, 16)
    mixer = MultiScaleDeformableAttention(num_heads=4, num_points=1)
    params = dict(variables_of(mixer, x)["params"])
    params["offset"] = jax.tree.map(np.zeros_like, params["offset"])
    found = jax.jit(mixer.apply)({"params": params}, x)
    v, proj = (jax.tree.map(np.asarray, params[name]) for name in ("v", "proj"))
    values = x @ v["kernel"].reshape(16, 16) + v["bias"].reshape(16)
    np.testing.assert_allclose(found, values @ proj["kernel"] + proj["bias"], atol=1e-5)


def test_boxes_as_references_measure_offsets_in_their_sides() -> None:
    """Of P points, offset P is half a side: the border of the box."""
    level = drawn(1, 4, 6, 8)
    mixer = MultiScaleDeformableAttention(num_heads=2, num_points=2)
    given = (jnp.ones((1, 1, 8)), jnp.full((1, 1, 1, 4), 0.5), [jnp.asarray(level)])
    params = dict(variables_of(mixer, level)["params"])
    params["offset"] = jax.tree.map(np.zeros_like, params["offset"])
    params["offset"]["bias"] = params["offset"]["bias"] - 1

    @jax.jit
    def run(params: Any) -> Any:
        kw: Any = dict(method="sample", mutable=["intermediates"])
        return mixer.apply({"params": params}, *given, **kw)[1]

    points = run(params)["intermediates"]["points"][0]
    np.testing.assert_allclose(points, -0.25, atol=1e-6)  # 0.5 - 1/2 · 0.25, in [-1, 1]


def test_first_offsets_are_a_ring() -> None:
    x = np.zeros((1, 3, 3, 8), np.float32)
    params = jax.jit(MultiScaleDeformableAttention(num_heads=8).init)(jax.random.key(0), x)
    params = params["params"]
    offsets = np.asarray(params["offset"]["bias"]).reshape(8, 4, 2)  # (x, y)
    np.testing.assert_allclose(offsets[:3, 0], [[1, 0], [1, 1], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(offsets[:, 2], 3 * offsets[:, 0], atol=1e-5)
    assert not params["offset"]["kernel"].any() and not params["weight"]["kernel"].any()
