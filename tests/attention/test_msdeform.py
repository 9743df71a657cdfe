"""Multi-scale deformable attention: the authors' numbers, its limits, chunks, first offsets."""

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
    ring,
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

    def levels(array: np.ndarray) -> list[np.ndarray]:
        parts = zip(np.split(array, cuts, axis=1), shapes)
        return [jnp.asarray(part.reshape(2, *shape, *part.shape[2:])) for part, shape in parts]

    module = MultiScaleDeformableAttention(num_heads=4, num_points=3)
    queries, (probe, of_core) = jnp.asarray(load_golden.inputs(meta)), load_golden.probes(meta)
    inside = levels(~data["in::padding"])
    given = (jnp.asarray(data["in::reference_points"]), levels(flat), inside)
    params = parameters(state, 4)

    def loss(params: Any, queries: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        out = module.apply({"params": params}, queries, *given, method="sample")
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


def test_points_on_cells_read_them_and_weights_average() -> None:
    """A sample at a cell's centre is its value; outside of the map it is nothing."""
    maps = [
        jax.random.normal(jax.random.key(i), (2, *s, 3, 4)) for i, s in ((0, (5, 7)), (1, (2, 3)))
    ]
    rows = reference_points(5, 7).reshape(35, 2)
    points = jnp.broadcast_to(rows[None, :, None, None, None], (2, 35, 3, 2, 1, 2))
    weights = jnp.broadcast_to(jnp.array([0.75, 0.0])[:, None], (2, 35, 3, 2, 1))
    found = multi_scale_deformable_attention(maps, points, weights)
    np.testing.assert_allclose(found, 0.75 * maps[0].reshape(2, 35, 3, 4), atol=1e-5)
    assert not multi_scale_deformable_attention(maps, points + 4, weights).any()


def test_it_sums_samples_of_all_levels_also_by_chunks() -> None:
    maps = [
        jax.random.normal(jax.random.key(i), (2, *s, 3, 4)) for i, s in ((0, (5, 7)), (1, (2, 3)))
    ]
    points = jax.random.uniform(jax.random.key(2), (2, 11, 3, 2, 5, 2), minval=-1.2, maxval=1.2)
    weights = jax.nn.softmax(jax.random.normal(jax.random.key(3), (2, 11, 3, 10)))
    weights = weights.reshape(2, 11, 3, 2, 5)

    def by_gather(points: jax.Array, weights: jax.Array) -> jax.Array:
        total = jnp.zeros((2, 11, 3, 4))
        for i, level in enumerate(maps):
            for head in range(3):
                at = points[:, :, head, i].reshape(2, 55, 2)
                sample = sample_bilinear_gather(level[:, :, :, head], at, align_corners=False)
                each = sample.reshape(2, 11, 5, 4) * weights[:, :, head, i, :, None]
                total = total.at[:, :, head].add(each.sum(axis=2))
        return total

    def gradient(function: Any) -> Any:
        def scalar(points: jax.Array, weights: jax.Array) -> jax.Array:
            return jnp.sin(function(points, weights)).sum()

        return jax.jit(jax.value_and_grad(scalar, (0, 1)))(points, weights)

    expected = gradient(by_gather)
    for chunk in (11, 4):
        found = gradient(
            lambda p, w, n=chunk: multi_scale_deformable_attention(maps, p, w, chunk=n)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected)


def test_zero_offsets_and_one_point_are_a_projection_of_each_position() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 7, 16))
    mixer = MultiScaleDeformableAttention(num_heads=4, num_points=1)
    variables = variables_of(mixer, x)
    params = variables["params"] = dict(variables["params"])
    params["offset"] = jax.tree.map(jnp.zeros_like, params["offset"])
    found = mixer.apply(variables, x)
    values = x @ params["v"]["kernel"].reshape(16, 16) + params["v"]["bias"].reshape(16)
    out = values @ params["proj"]["kernel"] + params["proj"]["bias"]
    np.testing.assert_allclose(found, out, atol=1e-5)


def test_boxes_as_references_measure_offsets_in_their_sides() -> None:
    """Offset P is half a side: the border of the box, here of the map."""
    maps = (jnp.zeros((1, 4, 6, 8)).at[:, 0, 0].set(1.0),)
    mixer = MultiScaleDeformableAttention(num_heads=2, num_points=2)
    given = (jnp.ones((1, 1, 8)), jnp.array([[[[0.5, 0.5, 0.5, 0.5]]]]), maps)
    params = variables_of(mixer, maps[0])["params"]
    params["offset"] = jax.tree.map(jnp.zeros_like, params["offset"])
    params["offset"]["bias"] -= 1
    _, sown = mixer.apply({"params": params}, *given, method="sample", mutable=["intermediates"])
    points = sown["intermediates"]["points"][0]
    np.testing.assert_allclose(points, -0.25, atol=1e-6)  # 0.5 - 1 / 2 of 0.25, in [-1, 1]


def test_first_offsets_are_a_ring() -> None:
    offsets = np.asarray(ring(8, 1, 2)[:, 0])
    np.testing.assert_allclose(offsets[:3, 0], [[1, 0], [1, 1], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(offsets[:, 1], 2 * offsets[:, 0], atol=1e-6)
    params: Any = MultiScaleDeformableAttention(num_heads=8).init(
        jax.random.key(0), jnp.zeros((1, 3, 3, 8))
    )
    params = params["params"]
    np.testing.assert_allclose(params["offset"]["bias"], ring(8, 1, 4).reshape(-1))
    assert not params["offset"]["kernel"].any() and not params["weight"]["kernel"].any()
