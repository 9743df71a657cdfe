"""Deformable bi-level routing attention (DeBiFormer, arXiv:2410.08582, section 3.3).

A few agents, sampled at learned points, attend to the regions that they are routed to; then every
position attends to the agents. In a clip ("dbra3d", which no paper has) agents move in (t, y, x)
and are routed to regions of space and time: the same with one axis more. With one frame it is that
of maps.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention.bi_level_routing import (
    bilevel_routing_attention,
    regions_of,
    routed_rows,
    with_time,
)
from vitjax.attention.core import Attend, DotProductAttention, dot_product_attention
from vitjax.attention.deformable import deformable_attention, sampled_boxes
from vitjax.attention.deformable_bias import DisplacementBias
from vitjax.attention.offsets import OffsetNetwork, sampling_points
from vitjax.attention.projections import merge_heads, project_heads
from vitjax.attention.routing import Router, gather_regions, sown_routing, take_regions
from vitjax.attention.rows import Place, Rows, sown_weights
from vitjax.attention.sampling import sample_groups
from vitjax.layers.conv import depthwise_conv
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.maps import crop_to, pad_to_multiple
from vitjax.layers.mlp import ConvMlp
from vitjax.layers.norm import layer_norm


def deformable_bilevel_routing_attention(
    q: Float[Array, "B *S h d"],
    k: Float[Array, "B *S h d"],
    v: Float[Array, "B *S h e"],
    agents: Float[Array, "B *A h d"],
    *,
    refine: Callable[[Array], tuple[Array, Array]],
    bias: Float[Array, "..."] | None = None,
    scale: float | None = None,
    attend: Attend = dot_product_attention,
    attend_agents: Attend = dot_product_attention,
    **routing: Any,
) -> Float[Array, "B *S h e"]:
    """Attend from agents to routed regions of the map, and from the map to the agents.

    For P positions and M agents it costs R² · C + 2 · M · (topk · P / R) · C + 2 · P · M · C
    multiply-adds: routing among R regions, the agents' attention, and that to the agents. Where
    full attention grows with P², this grows with P · M.

    Args:
      agents: queries of the agents, a map too; its sides are multiples of n_win.
      refine: from what the agents gathered, `[B, *A, h, e]`, to their keys and values
        `[B, M, h, …]`.
      bias: of the map's positions to the agents, added to the logits.
      scale: of routing and both attentions; None for 1/√(h·d), as the authors' code has.
      attend, attend_agents: the attention to the agents, and of the agents.
      **routing: n_win, topk, route, form … of `bilevel_routing_attention`.
    """
    scale = (q.shape[-2] * q.shape[-1]) ** -0.5 if scale is None else scale
    gathered = bilevel_routing_attention(agents, k, v, scale=scale, attend=attend_agents, **routing)
    agent_k, agent_v = refine(gathered)
    attend = functools.partial(attend, scale=scale)
    return deformable_attention(q, agent_k, agent_v, bias=bias, attend=attend)


class DeformableBiLevelRoutingAttention(nn.Module):
    """DBRA with offsets, projections, local term and agents' MLP. Sows `points` `[B, G, Y, X, 2]`.

    Of clips `[B, T, H, W, C]`, with `n_win_t`, they are `[B, G, T, Y, X, 3]`.

    Maps and grids of agents that are no multiple of n_win are zero-padded at their right and
    bottom, unmasked, as in the authors' code; padded agents lie at the map's centre.

    Attributes:
      n_win: regions per side; `topk`: regions that the agents of one region see, None for all.
      n_win_t: regions along time of clips, at most one a frame; 0 for maps `[B, H, W, C]`.
      scale: of the logits; None for 1/√C, that of the authors' code; the paper's is 1/√head_dim.
      stride: pixels of the map between agents; `kernel_size`: of the offset network.
      stride_t: frames between agents; `kernel_size_t`: frames of the kernels of offset network,
        local term and MLP.
      offset_groups: groups of channels and heads with own points; see `sampling_points`.
      offset_channels: 1 moves points diagonally, as the authors' code does; one for each axis, 2
        or of clips 3, is the paper's.
      agent_mlp_ratio: of the agents' MLP.
      lepe_kernel_size: of the depthwise convolution of v that agents add; 0 for none.
      offset_range_factor: see `displace`; `table_size`: see `DisplacementBias`; `kv_downsample` …
        `mul_weight`: see `BiLevelRoutingAttention`.
    """

    num_heads: int
    n_win: int = 7
    topk: int | None = None
    scale: float | None = None
    stride: int = 1
    kernel_size: int = 3
    offset_groups: int | None = None
    offset_channels: int = 1
    offset_range_factor: float = -1.0
    agent_mlp_ratio: float = 3.0
    lepe_kernel_size: int = 5
    table_size: tuple[int, ...] | None = None
    kv_downsample: str = "identity"
    kv_size: int = 0
    param_routing: bool = False
    diff_routing: bool = False
    mul_weight: str = "none"
    qkv_bias: bool = True
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    n_win_t: int = 0
    stride_t: int = 1
    kernel_size_t: int = 3
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool = False) -> Float[Array, "B *S C"]:
        sides, n_win = x.shape[1:-1], regions_of(x, self.n_win, self.n_win_t)
        stride = with_time(self.stride, self.stride_t, self.n_win_t)
        x = pad_to_multiple(x, n_win)
        if self.offset_channels not in (1, len(sides)):
            raise ValueError(
                f"offset_channels={self.offset_channels} for {len(sides)} axes: give 1, which "
                f"moves points along the diagonal, or {len(sides)}."
            )
        q, k, v = project_heads(self, x, 3, "qkv")
        network = OffsetNetwork(
            with_time(self.kernel_size, self.kernel_size_t, self.n_win_t),
            stride,
            self.offset_channels,
            False,
            self.param_init,
            self.dtype,
            name="offset",
        )
        points = sampling_points(
            q,
            network,
            groups=self.offset_groups,
            inset=0,
            offset_range_factor=self.offset_range_factor,
        )
        self.sow("intermediates", "points", points)
        agents = sample_groups(x, points.reshape(*points.shape[:2], -1, len(sides)))
        agents = pad_to_multiple(agents.reshape(x.shape[0], *points.shape[2:-1], -1), n_win)
        bias = DisplacementBias(
            "table",
            self.num_heads,
            self.table_size,
            self.stride,
            self.param_init,
            q.dtype,
            name="bias",
        )(_fit(points, (*points.shape[:2], *agents.shape[1:-1], len(sides))), x.shape[1:-1])

        def refine(gathered: Array) -> tuple[Array, Array]:
            if self.lepe_kernel_size:
                kernel = with_time(self.lepe_kernel_size, self.kernel_size_t, self.n_win_t)
                conv = depthwise_conv(kernel, "agent_lepe", self.param_init, self.dtype, stride)
                lepe = crop_to(conv(v.reshape(x.shape)), points.shape[2:-1])
                gathered += _fit(lepe, agents.shape).reshape(gathered.shape)
            y = agents + merge_heads(self, gathered, train, "unify")
            mlp = ConvMlp(
                self.agent_mlp_ratio,
                residual=True,
                drop_rate=self.drop_rate,
                kernel_size_t=self.kernel_size_t if self.n_win_t else 0,
                param_init=self.param_init,
                dtype=self.dtype,
                name="mlp",
            )
            norm1, norm2 = (layer_norm().build(dtype=self.dtype, name=f"norm{i}") for i in (1, 2))
            y = norm2(y + mlp(norm1(y), train))
            y = y.reshape(y.shape[0], -1, y.shape[-1])
            (key,), (value,) = (project_heads(self, y, 1, name) for name in ("k", "v"))
            return key, value

        out = deformable_bilevel_routing_attention(
            q, k, v, project_heads(self, agents, 1, "agent_q")[0],
            refine=refine, bias=bias, n_win=n_win, topk=self.topk, scale=self.scale,
            mul_weight=self.mul_weight, kv_downsample=self.kv_downsample, kv_size=self.kv_size,
            route=Router(
                self.param_routing, self.diff_routing, self.param_init, self.dtype, name="router"
            ),
            gather=gather_regions if train else take_regions,
            form="gather" if self.is_mutable_collection("intermediates") else "auto",
            attend=DotProductAttention(self.attn_drop_rate, train, name="attend"),
            attend_agents=DotProductAttention(self.attn_drop_rate, train, name="attend_agents"),
        )  # fmt: skip
        return merge_heads(self, crop_to(out, sides), train)

    def attention_rows(self, sown: Mapping[str, Any], place: Place) -> Rows:
        """Make rows of both sown weights: of the map to agents, and of the agents to the map."""
        height, width = (-(-side // self.n_win) * self.n_win for side in place[1:])
        boxes = sampled_boxes(sown["points"][0], height, width)
        agents = Place(0, *(-(-side // self.n_win) * self.n_win for side in boxes.shape[2:4]))
        # Agents that pad their grid sample nothing: their boxes lie outside of the map.
        missing = ((0, agents.height - boxes.shape[2]), (0, agents.width - boxes.shape[3]))
        outside = jnp.asarray([-2.0, -2.0, -1.0, -1.0])
        boxes = jnp.pad(boxes - outside, ((0, 0), (0, 0), *missing, (0, 0))) + outside
        boxes = boxes.reshape(*boxes.shape[:2], 1, -1, 4)
        weights = sown_weights(sown)
        weights = weights.reshape(*weights.shape[:2], height, width, -1)
        weights = weights[:, :, : place.height, : place.width]
        weights = weights.reshape(*weights.shape[:2], -1, weights.shape[-1])
        gathered = routed_rows(
            sown_weights(sown, "attend_agents"), sown_routing(sown), agents, place,
            n_win=self.n_win, mul_weight=self.mul_weight, kv_downsample=self.kv_downsample,
            kv_size=self.kv_size,
        )  # fmt: skip
        return Rows(weights, boxes, place, place, gathered)


def _fit(x: Array, shape: tuple[Any, ...]) -> Array:
    """Pad with zeros at the end of each axis that is shorter than in the given shape."""
    return jnp.pad(x, [(0, new - old) for old, new in zip(x.shape, shape, strict=True)])
