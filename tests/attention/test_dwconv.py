"""The depthwise mixer against its sum written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.attention.dwconv import DepthwiseConvMixer


@pytest.mark.parametrize("size", [(6, 5), (1, 7)])
def test_it_is_a_weighted_window_between_projections(size: tuple[int, int]) -> None:
    x = jax.random.normal(jax.random.key(0), (2, *size, 4))
    mixer = DepthwiseConvMixer(kernel_size=3)
    params = mixer.init(jax.random.key(1), x)["params"]
    out = mixer.apply({"params": params}, x)
    v = x @ params["v"]["kernel"] + params["v"]["bias"]
    padded = jnp.pad(v, ((0, 0), (1, 1), (1, 1), (0, 0)))
    window = params["dwconv"]["kernel"][:, :, 0]
    y = sum(padded[:, i : i + size[0], j : j + size[1]] * window[i, j] for i, j in np.ndindex(3, 3))
    y = (y + params["dwconv"]["bias"]) @ params["proj"]["kernel"] + params["proj"]["bias"]
    np.testing.assert_allclose(out, y, atol=1e-5)


def test_a_one_by_one_window_mixes_no_positions() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 3, 5, 4))
    mixer = DepthwiseConvMixer(kernel_size=1)
    params = mixer.init(jax.random.key(1), x)
    np.testing.assert_allclose(
        mixer.apply(params, x[:, ::-1]), mixer.apply(params, x)[:, ::-1], atol=1e-6
    )
