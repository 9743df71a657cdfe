"""Filters and positions: components of known filters, similarities of known positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from tests.analysis.small import fast_first, small
from tests.train.test_sharding import shallow
from vitjax.analysis.filters import filter_components, position_similarity


def test_components_of_filters_along_two_directions() -> None:
    """Filters ±3 u and ±1 v: the components are u and v, with 9/10 and 1/10 of the variance."""
    u, v = np.zeros((2, 2, 2, 3))
    u[0, 0, 0], v[1, 1, 2] = 1, -1
    kernel = np.stack([3 * u, -3 * u, v, -v], axis=-1).astype(np.float32)
    found = filter_components({"params": {"patch_embed": {"proj": {"kernel": kernel}}}}, 2)
    np.testing.assert_allclose(found.filters[0], u, atol=1e-6)
    np.testing.assert_allclose(found.filters[1], -v, atol=1e-6)
    np.testing.assert_allclose(found.variance, [0.9, 0.1], atol=1e-6)


STEMS = (  # one model for each way of naming the first layer
    "vit_ti16", "r_vit_ti16", "bit_r50x1", "coatnet_0", "swin_tiny", "pvt_tiny",
    "ranet_cifar_3scale", "volo_d1", "mobile_former_26m",
)  # fmt: skip


@pytest.mark.parametrize("name", fast_first(STEMS, ("vit_ti16", "coatnet_0")))
def test_the_filters_are_those_that_read_colours(name: str) -> None:
    side = 32 if "cifar" in name else 64
    shapes = jax.eval_shape(
        vitjax.create_model(name, **shallow(name, 1)).init,
        jax.random.key(0),
        jnp.zeros((1, side, side, 3)),
    )
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes["params"])
    assert filter_components({"params": params}, 1).filters.shape[-1] == 3


def test_similarity_of_positions() -> None:
    model, variables, _ = small("vit_ti16")
    table = np.zeros((1, 16, 16), np.float32)
    table[0, 1:, 0] = 1  # all alike
    table[0, 7] = 0
    table[0, 7, 0] = -2  # but the patch in row 1, column 1
    params = {**variables["params"], "pos_embed": table}
    found = position_similarity(model, {"params": params})
    assert found.shape == (3, 5, 3, 5)
    np.testing.assert_allclose(found[1, 1, 1, 1], 1)
    np.testing.assert_allclose(found[1, 1, 0, 0], -1)
    np.testing.assert_allclose(found[0, 0, 2, 4], 1)
    with pytest.raises(ValueError, match="no learned table"):
        position_similarity(*small("swin_tiny")[:2])
    with pytest.raises(ValueError, match="no patch filters"):
        filter_components({"params": {"head": {"kernel": np.zeros((3, 3))}}})
