"""Average pooling as a token mixer (PoolFormer, arXiv:2111.11418, eq. 4). It has no parameters."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.layers.maps import require_map


def pooling(x: Float[Array, "B H W C"], *, pool_size: int) -> Float[Array, "B H W C"]:
    """Compute the mean over `pool_size` × `pool_size` minus x; padding is not counted.

    x is subtracted because the block adds it again.
    """
    require_map(x)
    window = (pool_size, pool_size)
    mean = nn.avg_pool(x, window, (1, 1), "SAME", count_include_pad=False)
    return mean.astype(x.dtype) - x


class Pooling(nn.Module):
    """`pooling` as a token mixer.

    Attributes:
      pool_size: side of the neighbourhood, odd.
    """

    pool_size: int = 3
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B H W C"]:
        return pooling(x.astype(self.dtype or x.dtype), pool_size=self.pool_size)
