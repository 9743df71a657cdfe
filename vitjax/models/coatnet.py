"""CoAtNet (Dai et al., arXiv:2106.04803).

New there: relative attention, a softmax over content plus a static bias for each displacement,
which makes convolution and attention two ends of one family (section 2.1, eq. 3); and a pyramid of
two stages of inverted bottlenecks before two of transformers (section 2.2). Any stage takes any
mixer here: `mixer="mbconv ; mbconv ; mbconv ; full(position_bias=True)"` is the paper's C-C-C-T.

No code of the authors is public. Sizes, heads of 32, expansion 4, kernel 3 and squeeze 0.25 are
table 3 and its caption; pre-activation, BatchNorm in bottlenecks, GELU, max pooling and the branch
of a bottleneck that begins a stage, whose first 1×1 convolution has stride 2, are appendix A.1. Not
said there: where a stage begins, expansion and squeeze count channels of the result, and attention
widens before it attends; the head has a hidden layer with tanh. That is how timm reads the paper,
and so read the sizes have 25.0, 42.2, 74.7, 167.0 and 275.4 million parameters; published are 25,
42, 75, 168 and 275. Without these three they have 23.9, 41.7, 73.9, 165.3 and 279.1. Assumed, too:
pooling is 2×2, SiLU inside of squeeze, epsilons of 1e-5 in BatchNorm and 1e-6 in LayerNorm.

`coatnet_nano_rw` is timm's: average pooling, in bottlenecks too, SiLU in stem and bottlenecks, a
narrower first convolution, `widen_first=False`, no hidden layer. Maps of odd sides round up; timm
drops their last row and column.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention import MIXERS, block_parts, fill_mixers, parse_mixers
from vitjax.attention.mbconv import MBConvMixer
from vitjax.layers.activations import ACTIVATIONS
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.drop_path import drop_path, drop_path_schedule
from vitjax.layers.init import Init, fan_out_normal, glorot_uniform, torch_default
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import batch_norm, layer_norm, normalize
from vitjax.layers.spec import Spec, fields, spec
from vitjax.models.family import I21K, Family
from vitjax.models.preprocessing import HALF, IMAGENET, Preprocessing
from vitjax.models.pyramid import Block, Pyramid
from vitjax.names import check_choice

_D0: dict[str, Any] = dict(dims=(96, 192, 384, 768), stem_width=(64, 64))
_D2: dict[str, Any] = dict(dims=(128, 256, 512, 1024), stem_width=(128, 128))
_D3: dict[str, Any] = dict(dims=(192, 384, 768, 1536), stem_width=(192, 192))
VARIANTS = {  # table 3; stochastic depth: of the runs on ImageNet-1k (appendix A.2)
    "0": dict(_D0, depths=(2, 3, 5, 2)),
    "1": dict(_D0, depths=(2, 6, 14, 2), drop_path_rate=0.3),
    "2": dict(_D2, depths=(2, 6, 14, 2), drop_path_rate=0.5),
    "3": dict(_D3, depths=(2, 6, 14, 2), drop_path_rate=0.7),
    "4": dict(_D3, depths=(2, 12, 28, 2)),
    "nano_rw": dict(
        dims=(64, 128, 256, 512), stem_width=(32, 64), depths=(3, 4, 6, 3), pool="average",
        conv_pool="average", conv_act="silu", widen_first=False, hidden_head=False,
    ),
}  # fmt: skip


def _of_mlp(fan_in: int, fan_out: int) -> dict[str, Any]:
    return {**glorot_uniform(fan_in, fan_out), "bias_init": nn.initializers.normal(1e-6)}


INIT = Init(dense=glorot_uniform, mlp=_of_mlp, conv=fan_out_normal, head=torch_default)
"""The paper says nothing of first weights; these are timm's (maxxvit.py)."""

MENU = {**MIXERS, "mbconv": spec(MBConvMixer)}
"""The mixers of the menu, and inverted bottlenecks."""


def _strided(x: Array) -> Array:
    return x[:, ::2, ::2]


def _max_pool(x: Array) -> Array:
    return nn.max_pool(x, (2, 2), (2, 2), "SAME")


def _average_pool(x: Array) -> Array:
    return nn.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False)


POOLS = {"max": _max_pool, "average": _average_pool, "stride": _strided}
"""Halvings of a map. A 1×1 convolution of stride 2 reads every second row and column."""


class FirstBlock(nn.Module):
    """Halve the map and widen it: the first block of a stage (appendix A.1).

    The residual is Proj(Pool(x)), the branch Mixer(Pool(Norm(x))); an MLP follows as in `Block`. A
    mixer that cannot widen is followed by a linear layer, `expand`. Parameters are otherwise those
    of `Block`, and `shortcut` where the width changes.

    Attributes:
      pool: key of POOLS for the residual; `branch_pool`: for the branch.
      mixer, mlp, norm: see `Block`.
      drop_path_rate: stochastic depth.
    """

    width: int
    mixer: Spec
    pool: str
    branch_pool: str
    mlp: Spec | None = spec(Mlp)
    norm: Spec = layer_norm()
    drop_path_rate: float = 0.0
    param_init: Init = INIT
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        """Apply the block; the map has half the sides, rounded up."""
        parts = {"norm": self.norm, "mlp": self.mlp, **block_parts(self.mixer)}
        context: Any = dict(param_init=self.param_init, dtype=self.dtype)

        def norm(x: Array, name: str) -> Array:
            return normalize(parts["norm"].offer(dtype=self.dtype).build(name=name), x, train)

        def widen(x: Array, name: str) -> Array:
            if x.shape[-1] == self.width:
                return x
            init = self.param_init.dense(x.shape[-1], self.width)
            return nn.Dense(self.width, **init, dtype=self.dtype, name=name)(x)

        def add(x: Array, y: Array) -> Array:
            if train and self.drop_path_rate:
                y = drop_path(y, self.drop_path_rate, self.make_rng("dropout"))
            return x + y

        mixer = self.mixer.default(width=self.width, **context)
        y = mixer.build(name="mixer")(POOLS[self.branch_pool](norm(x, "norm1")), train)
        x = add(widen(POOLS[self.pool](x), "shortcut"), widen(y, "expand"))
        if parts["mlp"] is None:
            return x
        mlp = parts["mlp"].default(**context).build(name="mlp")
        return add(x, mlp(norm(x, "norm2"), train))


class Stem(nn.Module):
    """Two 3×3 convolutions, the first of stride 2 and normalised (S0), then the first block of the
    first stage, `block`.

    Attributes:
      first, second: channels of the convolutions.
      act: after the first one's norm.
    """

    width: int
    first: int
    second: int
    block: Spec
    act: Callable[[Array], Array]
    param_init: Init = INIT
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        """Compute the map of stride 4."""
        context: Any = dict(use_bias=False, param_init=self.param_init, dtype=self.dtype)
        norm: Any = dict(norm=batch_norm(), act=self.act)
        x = ConvNorm(self.first, 3, 2, 1, **norm, **context, name="conv_0")(x, train)
        x = ConvNorm(self.second, 3, 1, 1, **context, name="conv_1")(x, train)
        block = self.block.default(width=self.width, param_init=self.param_init, dtype=self.dtype)
        return block.build(name="block")(x, train)


class Head(nn.Module):
    """A layer with tanh, `hidden`, and the classifier, `out`."""

    num_classes: int
    param_init: Init = INIT
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B K"]:
        """Compute logits."""
        for name, size in (("hidden", x.shape[-1]), ("out", self.num_classes)):
            init = self.param_init.of_head(x.shape[-1], size)
            x = nn.Dense(size, **init, dtype=self.dtype, name=name)(x)
            x = jnp.tanh(x) if name == "hidden" else x
        return x


class CoAtNet(Pyramid):
    """A pyramid whose head may have a hidden layer."""

    hidden_head: bool = True

    def classifier(self) -> Any:
        """Build the head."""
        if not self.hidden_head:
            return super().classifier()
        return Head(self.num_classes, self.param_init, self.dtype, name="head")


def _first_mixer(mixer: Spec, width: int, heads_width: int, head_dim: int) -> Spec:
    """Set a mixer's heads: those of the new width if it can widen, else those of its input."""
    keeps = dict(mixer.kwargs).get("lepe_kernel_size", 0)  # that term has the width of the input
    if keeps or "heads_width" not in fields(mixer.factory):
        return mixer.offer(num_heads=max(1, width // head_dim))
    return mixer.offer(num_heads=max(1, heads_width // head_dim), heads_width=heads_width)


def coatnet(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    stem_width: tuple[int, int],
    head_dim: int = 32,
    pool: str = "max",
    conv_pool: str = "stride",
    conv_act: str = "gelu",
    widen_first: bool = True,
    hidden_head: bool = True,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    mixer: str = "mbconv ; mbconv ; full(position_bias=True) ; full(position_bias=True)",
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.2,
    remat: bool = False,
    scan: bool = False,
    dtype: Any = None,
) -> Pyramid:
    """Build a CoAtNet: inverted bottlenecks, then transformer blocks with relative attention.

    The first block of a stage is `stem/block` or `downsample_{i}`, the others are in `stage_{i}`.

    Args:
      stem_width: channels of the two convolutions of the stem.
      head_dim: width of a head.
      pool: "max" or "average", of the residual where a map is halved, and of the attention branch.
      conv_pool: of the branch of inverted bottlenecks there: "stride" for that of their first 1×1
        convolution, as published, "max" or "average".
      conv_act: activation of stem and inverted bottlenecks, see `vitjax.layers.activations`.
      widen_first: in the first block of a stage attention has the heads of the new width, and
        bottlenecks expand and squeeze by it; False for those of the width before.
      hidden_head: a layer with tanh before the classifier.
      mixer: as for every model; "mbconv" besides is an inverted bottleneck.
      image_size: that of the tables of relative positions; others interpolate them.
      drop_rate: dropout of each mixer's output and in the MLPs.

    Raises:
      ValueError: a pooling or an activation that there is not, or sizes that do not fit together.
    """
    check_choice("pool", pool, ("max", "average"))
    check_choice("conv_pool", conv_pool, POOLS)
    check_choice("conv_act", conv_act, ACTIVATIONS)
    num = len(dims)
    if len(depths) != num or len(stem_width) != 2 or min(depths) < 1:
        raise ValueError(
            f"dims={dims}, depths={depths}, stem_width={stem_width}: a CoAtNet has a width and at "
            f"least one block for each stage, and two convolutions in its stem."
        )
    if any(width % head_dim for width in dims):
        raise ValueError(
            f"head_dim={head_dim} does not divide each of dims={dims}; choose one that does."
        )
    sides = (image_size,) * 2 if isinstance(image_size, int) else image_size
    maps = tuple((-(-sides[0] // s), -(-sides[1] // s)) for s in (4 << i for i in range(num)))
    mixers = fill_mixers(
        parse_mixers(mixer, num, MENU), map_size=maps, qkv_bias=qkv_bias, drop_rate=drop_rate,
        attn_drop_rate=attn_drop_rate, act=conv_act, of_input=not widen_first,
    )  # fmt: skip
    inputs = (stem_width[1], *dims[:-1])
    first = tuple(
        _first_mixer(stage[0].at(i), inputs[i], dims[i] if widen_first else inputs[i], head_dim)
        for i, stage in enumerate(mixers)
    )
    rates = drop_path_schedule(drop_path_rate, sum(depths))
    begins = [sum(depths[:i]) for i in range(num)]
    mlp = spec(Mlp, mlp_ratio=mlp_ratio, drop_rate=drop_rate)
    block = spec(
        FirstBlock,
        mixer=first,
        mlp=mlp,
        pool=pool,
        drop_path_rate=tuple(rates[b] for b in begins),
        branch_pool=tuple(conv_pool if m.factory is MBConvMixer else pool for m in first),
    )
    return CoAtNet(
        hidden_head=hidden_head, dims=dims, depths=tuple(depth - 1 for depth in depths),
        num_heads=tuple(width // head_dim for width in dims),
        mixers=tuple((*stage[1:], stage[0]) for stage in mixers),
        stem=spec(
            Stem, first=stem_width[0], second=stem_width[1], block=block.at(0),
            act=ACTIVATIONS[conv_act],
        ),
        downsample=block, block=spec(Block, mlp=mlp), num_classes=num_classes,
        image_size=image_size, remat=remat, scan=scan, param_init=INIT, dtype=dtype,
        drop_path_rate=tuple(r for i, r in enumerate(rates) if i not in begins),
    )  # fmt: skip


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="bicubic",
    source="assumed: the usual evaluation on ImageNet-1k, as the paper does not say",
)
TIMM = Preprocessing(
    **HALF, crop=0.9, interpolation="bicubic", source="timm's configuration of coatnet_nano_rw_224"
)

FAMILY = Family(
    models={f"coatnet_{v}": spec(coatnet, **kw) for v, kw in VARIANTS.items()},
    weights={coatnet: "coatnet"},
    paper="[CoAtNet](https://arxiv.org/abs/2106.04803)",
    code="none of the authors; `nano_rw` is huggingface/pytorch-image-models', Apache-2.0",
    source="the paper, table 4; `nano_rw`: timm's results",
    golden="nano_rw: logits, stages, gradients",
    published={
        "coatnet_0": (25, 4.2, 81.6, ""),
        "coatnet_1": (42, 8.4, 83.3, ""),
        "coatnet_2": (75, 15.7, 84.1, ""),
        "coatnet_3": (168, 34.7, 84.5, ""),
        "coatnet_4": (275, None, 87.9, f"{I21K} at 384 pixels"),
        "coatnet_nano_rw": (15.1, 2.4, 81.7, ""),
    },
    preprocessing={"coatnet_nano_rw": TIMM, "*": PREPROCESSING},
)
