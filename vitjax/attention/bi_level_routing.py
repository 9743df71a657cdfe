"""Bi-level routing attention (BiFormer, arXiv:2303.08810, section 3.2, algorithm 1).

Each position of a region attends to the `topk` regions that are most similar to its own region. In
a clip regions extend in time too ("bra3d"): the same with one axis more. With one frame it is that
of maps.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.core import Attend, DotProductAttention, dot_product_attention
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.routing import (
    Router,
    Routing,
    gather_regions,
    pool_regions,
    region_means,
    region_merge,
    region_partition,
    route_weights,
    routed_positions,
    sown_routing,
    take_regions,
    topk_routing,
)
from vitjax.attention.rows import Place, Rows, cell_boxes, rows_of_map, sown_weights
from vitjax.kernels.scopes import share_of
from vitjax.layers.conv import depthwise_conv
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import PerAxis, crop_to, pad_to_multiple, per_axis
from vitjax.names import check_choice


def bilevel_routing_attention(
    q: Float[Array, "B *S h d"],
    k: Float[Array, "B *K h d"],
    v: Float[Array, "B *K h e"],
    *,
    n_win: PerAxis,
    topk: int | None = None,
    scale: float | None = None,
    mul_weight: str = "none",
    kv_downsample: str = "identity",
    kv_size: int = 0,
    form: str = "auto",
    route: Callable[..., Routing] = topk_routing,
    gather: Callable[..., Array] = gather_regions,
    attend: Attend = dot_product_attention,
) -> Float[Array, "B *S h e"]:
    """Route regions to regions and attend within the routed regions (eq. 3-7, without LePE).

    Queries may be a map of their own (DeBiFormer's agents); both are cut into R = n_win² regions.
    For Q queries and P keys it costs R² · C + 2 · Q · (topk · P / R) · C multiply-adds: routing,
    then attention.

    Args:
      n_win: regions per side of maps; of clips their numbers along (t, y, x), whose product is R.
      topk: regions that each region sees; None for all, which is plain attention.
      scale: of routing and attention; None for 1/√(h·d), the full width, as the authors' code has.
      mul_weight: "none"; "soft": gathered keys and values are multiplied by the softmax of the
        routing scores; "hard": by one, with the gradient of "soft".
      kv_downsample, kv_size: see `pool_regions`; the routing sees all positions.
      form: "gather" the routed keys and values, which weighted or pooled ones must be; or attend to
        all and "mask" what is not routed, the same numbers. "auto" masks where the logits of all
        are fewer than the gathered elements: a map that is small for topk regions.
      route, gather: `topk_routing` or a `Router`; `gather_regions` or `take_regions`.

    Raises:
      ValueError: a side is no multiple of n_win, topk > R, an unknown mode or form, or a mask for
        keys and values that are weighted or pooled.
    """
    if mul_weight not in ("none", "soft", "hard"):
        raise ValueError(f"mul_weight={mul_weight!r}: choose 'none', 'soft' or 'hard'.")
    check_choice("form", form, ("auto", "gather", "mask"))
    scale = (q.shape[-2] * q.shape[-1]) ** -0.5 if scale is None else scale
    axes, number = len(per_axis(n_win)), math.prod(per_axis(n_win))
    topk = number if topk is None else topk
    maps, sides = (q, k, v), (q.shape[1:-2], k.shape[1:-2])
    q, k, v = (region_partition(x, n_win) for x in maps)
    routing = route(region_means(q), region_means(k), topk=topk, scale=scale)
    plain = mul_weight == "none" and kv_downsample == "identity"
    fewer = topk < number and math.prod(sides[0]) < topk * (k.shape[-1] + v.shape[-1])
    if form == "mask" and not plain:
        raise ValueError("form='mask' takes no mul_weight and no kv_downsample; use 'gather'.")
    if form == "mask" or (form == "auto" and plain and fewer):
        mask = routed_positions(routing.routes, n_win, *sides)
        tokens = (x.reshape(x.shape[0], -1, *x.shape[-2:]) for x in maps)
        with share_of(topk, number):
            out = attend(*tokens, mask=mask, scale=scale)
        return out.reshape(*maps[0].shape[:-1], -1)
    kv = pool_regions(jnp.concatenate([k, v], axis=-1), kv_downsample, kv_size, axes)
    lead = 1 if topk == number and mul_weight == "none" else 2
    if lead == 2:  # else every region sees all, and there is nothing to gather
        kv = gather(kv, routing.routes)  # [B, R, K, y, x, h, d + e]
    if mul_weight != "none":
        weights = route_weights(routing)
        if mul_weight == "hard":
            weights = 1 + weights - jax.lax.stop_gradient(weights)
        kv *= weights.reshape(*weights.shape, *(1,) * (axes + 2)).astype(kv.dtype)
    queries, kv = (x.reshape(*x.shape[:lead], -1, *x.shape[-2:]) for x in (q, kv))
    k, v = jnp.split(kv, [k.shape[-1]], axis=-1)
    out = attend(queries, k, v, scale=scale)
    return region_merge(out.reshape(*q.shape[:-1], out.shape[-1]), n_win)


def routed_rows(
    weights: Float[Array, "..."],
    routing: Routing,
    queries: Place,
    keys: Place,
    *,
    n_win: int,
    mul_weight: str = "none",
    kv_downsample: str = "identity",
    kv_size: int = 0,
) -> Rows:
    """Make rows of the weights of `bilevel_routing_attention`: each query sees its routed regions.

    Args:
      weights: `[B, R, h, n, M]`, or `[B, h, N, M]` where every region sees all, and both sequences
        are in the order of regions.
      queries, keys: places before padding.
    """
    sides = [-(-side // n_win) for side in keys[1:]]
    boxes = jnp.asarray(cell_boxes(*(n_win * side for side in sides)))
    boxes = region_partition(boxes[None], n_win)  # [1, R, y, x, 4]
    outward = jnp.asarray([-1, -1, 1, 1])  # the largest box of those that are pooled
    boxes = pool_regions(outward * boxes, kv_downsample.replace("avg", "max"), kv_size) * outward
    sides = [-(-side // n_win) for side in queries[1:]]
    if weights.ndim == 4:
        boxes = boxes.reshape(1, 1, 1, -1, 4)
        weights = jnp.swapaxes(weights, 1, 2)
    else:
        boxes = jnp.broadcast_to(boxes, (weights.shape[0], *boxes.shape[1:]))
        boxes = take_regions(boxes, routing.routes)
        boxes = boxes.reshape(*boxes.shape[:2], 1, 1, -1, 4)
        boxes = jnp.broadcast_to(boxes, (*boxes.shape[:2], *sides, *boxes.shape[4:]))
        boxes = region_merge(boxes, n_win)[:, : queries.height, : queries.width]
        if mul_weight == "soft":
            factor = jnp.repeat(
                route_weights(routing), boxes.shape[-2] // routing.routes.shape[2], axis=2
            )
            weights *= factor[:, :, None, None]
        weights = jnp.swapaxes(weights, 2, 3)
    weights = weights.reshape(weights.shape[0], n_win**2, *sides, *weights.shape[-2:])
    weights = region_merge(weights, n_win)[:, : queries.height, : queries.width]
    return rows_of_map(weights, boxes, keys, whole=kv_downsample == "identity")


def with_time(side: int, frames: int, n_win_t: int) -> PerAxis:
    """Return a side of a map, or with regions in time the lengths (t, y, x) of a clip."""
    return (frames, side, side) if n_win_t else side


def regions_of(x: Array, n_win: int, n_win_t: int) -> PerAxis:
    """Return the regions along each axis of a map, or of a clip if `n_win_t`."""
    return with_time(n_win, min(n_win_t, x.shape[1]), n_win_t)


class BiLevelRoutingAttention(nn.Module):
    """Bi-level routing attention with a depthwise convolution of v added (LePE, eq. 7).

    A map that is no multiple of n_win is zero-padded at its right and bottom before the projection,
    so that padding carries the biases and takes part, unmasked, as in the authors' code.

    Attributes:
      n_win: regions per side; `topk`: regions that each sees, None for all.
      n_win_t: regions along time of clips `[B, T, H, W, C]`, at most one a frame; 0 for maps
        `[B, H, W, C]`. `kernel_size_t`: frames of the kernel of LePE.
      qk_dim: width of q and k over all heads; None for that of x.
      scale: None for 1/√qk_dim, that of the authors' code; the paper's is 1/√head_dim.
      lepe_kernel_size: 0 for no LePE.
      kv_downsample: "identity", or a pooling of keys and values within regions with kv_size.
      param_routing, diff_routing, mul_weight: learned, differentiable, weighted; none in the paper.
    """

    num_heads: int
    n_win: int = 7
    topk: int | None = 4
    qk_dim: int | None = None
    scale: float | None = None
    qkv_bias: bool = True
    lepe_kernel_size: int = 5
    kv_downsample: str = "identity"
    kv_size: int = 0
    param_routing: bool = False
    diff_routing: bool = False
    mul_weight: str = "none"
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    n_win_t: int = 0
    kernel_size_t: int = 3
    param_init: Init = NORMAL
    dtype: Any = None

    def project(self, x: Float[Array, "B *S C"]) -> tuple[Array, ...]:
        """Project x to q, k `[B, *S, h, qk_dim / h]` and v `[B, *S, h, C / h]`."""
        width, heads = x.shape[-1], self.num_heads
        qk_dim = self.qk_dim or width
        if qk_dim == width:
            return project_heads(self, x, 3, "w_qkv")
        if qk_dim % heads or width % heads:
            raise ValueError(
                f"qk_dim={qk_dim} and a width of {width}: num_heads={heads} must divide both."
            )
        init = self.param_init.dense(width, 2 * qk_dim + width)
        project = nn.Dense(2 * qk_dim + width, self.qkv_bias, self.dtype, **init, name="w_qkv")
        parts = jnp.split(project(x), [qk_dim, 2 * qk_dim], axis=-1)
        return tuple(p.reshape(*p.shape[:-1], heads, -1) for p in parts)

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool = False) -> Float[Array, "B *S C"]:
        n_win = regions_of(x, self.n_win, self.n_win_t)
        padded = pad_to_multiple(x, n_win)
        q, k, v = self.project(padded)
        out = bilevel_routing_attention(
            q, k, v, n_win=n_win, topk=self.topk, scale=self.scale,
            mul_weight=self.mul_weight, kv_downsample=self.kv_downsample, kv_size=self.kv_size,
            route=Router(
                self.param_routing, self.diff_routing, self.param_init, self.dtype, name="router"
            ),
            gather=gather_regions if train else take_regions,
            form="gather" if self.is_mutable_collection("intermediates") else "auto",
            attend=DotProductAttention(self.attn_drop_rate, train, name="attend"),
        )  # fmt: skip
        if self.lepe_kernel_size:
            kernel = with_time(self.lepe_kernel_size, self.kernel_size_t, self.n_win_t)
            lepe = depthwise_conv(kernel, "lepe", self.param_init, self.dtype)
            out += lepe(v.reshape(padded.shape)).reshape(out.shape)
        return merge_heads(self, crop_to(out, x.shape[1:-1]), train, "w_o")

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of the sown weights; see `routed_rows`."""
        return routed_rows(
            sown_weights(sown), sown_routing(sown), place, place, n_win=self.n_win,
            mul_weight=self.mul_weight, kv_downsample=self.kv_downsample, kv_size=self.kv_size,
        )  # fmt: skip
