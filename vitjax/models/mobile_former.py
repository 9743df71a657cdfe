"""Mobile-Former: Bridging MobileNet and Transformer (Chen et al., arXiv:2108.05895).

New there: inverted bottlenecks (Mobile) and a transformer of six tokens or fewer (Former) side by
side. Tokens attend to the map and to each other, and set its activations; the map attends to them.

Details that the paper leaves open are those of its first author's code (AAboys/MobileFormer, for
timm 0.3.4, with weights of all seven sizes), which reproduces the published parameters:

- Former's attention projects queries alone, like the bridge that reads the map, has four heads and
  norms after its sums; its MLP is twice as wide, with GELU. Bridges have two heads.
- The update of a token from the map is multiplied by a gate, twice a hard sigmoid of the token.
- Dynamic ReLU is max(a₁ x, a₂ x), a₁ from 0 to 2 and a₂ from -1 to 1, of the first token by an MLP
  of a quarter of its width; there are no offsets (arXiv:2003.10027, eq. 3, has them).
- A block that halves the map has two pairs of a depthwise and a pointwise convolution; the second
  pair, four times as wide as its input, is a residual. The "lite bottleneck" is one such pair.
- After the last block the tokens attend to the map once more. The head's hidden layer has BatchNorm
  and hard swish; the mean over positions has hard swish too.
- 26M is 52M with pointwise convolutions in four groups, whose channels are shuffled between them.

Published multiply-adds include BatchNorm and dynamic ReLU, 2 % (508M) to 9 % (26M) of them.

`layout="slwang9353"` is an earlier third party's network, with three times the parameters:
convolutions with biases, Former with seven linear maps and no residuals, wide MLPs for dynamic
ReLU, which has offsets, and no last bridge. Its code does not register the blocks' parameters; here
they are trained. Its dropout of one half after every linear layer is left out.
"""

import itertools
import operator
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention import MIXERS, parse_mixers
from vitjax.attention.core import DotProductAttention
from vitjax.attention.light import LightAttention, LightQueries
from vitjax.kernels.depthwise import depthwise_conv_general_dilated
from vitjax.layers.init import Init, fan_out_normal, normal, zeros
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import batch_norm, layer_norm, normalize
from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import Block, DecayRules
from vitjax.names import check_choice

_SMALL = dict(
    stem_width=8, lite=(24, 12, 2), num_tokens=3, token_dim=128, hidden_width=1024,
    blocks=((1, 36, 12), (2, 72, 24), (1, 72, 24), (2, 144, 48), (1, 192, 48), (1, 288, 64),
            (2, 384, 96), (1, 576, 96)),
)  # fmt: skip


def _large(stem_width: int, hidden_width: int, *blocks: tuple[int, int, int]) -> dict[str, Any]:
    sizes = dict(stem_width=stem_width, lite=(2 * stem_width, stem_width, 1), blocks=blocks)
    return dict(sizes, hidden_width=hidden_width)


VARIANTS: dict[str, dict[str, Any]] = {  # stride, expansion and width of each block
    "26m": dict(_SMALL, groups=4),
    "52m": _SMALL,
    "96m": dict(num_tokens=4, token_dim=128, **_large(
        12, 1280, (2, 72, 16), (2, 96, 32), (1, 96, 32), (2, 192, 64), (1, 256, 64), (1, 384, 88),
        (2, 528, 128), (1, 768, 128))),
    "151m": _large(
        12, 1280, (2, 72, 16), (1, 48, 16), (2, 96, 32), (1, 96, 32), (2, 192, 64), (1, 256, 64),
        (1, 384, 88), (1, 528, 88), (2, 528, 128), (1, 768, 128), (1, 768, 128)),
    "214m": _large(
        12, 1600, (2, 72, 20), (1, 60, 20), (2, 120, 40), (1, 160, 40), (2, 240, 80), (1, 320, 80),
        (1, 480, 112), (1, 672, 112), (2, 672, 160), (1, 960, 160), (1, 960, 160)),
    "294m": _large(
        16, 1920, (2, 96, 24), (1, 96, 24), (2, 144, 48), (1, 192, 48), (2, 288, 96), (1, 384, 96),
        (1, 576, 128), (1, 768, 128), (2, 768, 192), (1, 1152, 192), (1, 1152, 192)),
    "508m": _large(
        24, 1920, (2, 144, 40), (1, 120, 40), (2, 240, 72), (1, 216, 72), (2, 432, 128),
        (1, 512, 128), (1, 768, 176), (1, 1056, 176), (2, 1056, 240), (1, 1440, 240),
        (1, 1440, 240)),
}  # fmt: skip
"""The sizes of the paper's tables of variants, as the first author's code has them."""


def _normal_001(fan_in: int, fan_out: int) -> dict[str, Any]:
    return dict(kernel_init=normal(0.01), bias_init=zeros)


INIT = Init(dense=_normal_001, conv=fan_out_normal, token=normal(1.0))
DECAY: DecayRules = ((".*/kernel", 1.0), ("tokens", 1.0), (".*", 0.0))
"""As the first author's code draws them, and as timm 0.3.4 decays them."""


def shuffled(x: Float[Array, "B H W C"], groups: int) -> Float[Array, "B H W C"]:
    """Reorder channels: the first of each group, then the second of each, and so on."""
    x = x.reshape(*x.shape[:-1], groups, -1).swapaxes(-1, -2)
    return x.reshape(*x.shape[:-2], -1)


class Conv(nn.Module):
    """Convolution with optional BatchNorm, ReLU6 and channel shuffle.

    Attributes:
      groups: groups of channels; "each" for a depthwise convolution, whose width is a multiple of
        x's.
      shuffle: groups of the result whose channels are shuffled (arXiv:1707.01083, figure 1).
    """

    width: int
    kernel_size: int
    stride: int = 1
    groups: int | str = 1
    use_bias: bool = False
    normalized: bool = True
    act: bool = False
    shuffle: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B h w C"]:
        k, channels = self.kernel_size, x.shape[-1]
        groups = channels if self.groups == "each" else int(self.groups)
        one_each = groups == channels == self.width
        fast: Any = {"conv_general_dilated": depthwise_conv_general_dilated} if one_each else {}
        init = INIT.conv(k * k * channels // groups, k * k * self.width)
        x = nn.Conv(
            self.width, (k, k), (self.stride,) * 2, ((k // 2, k // 2),) * 2,
            feature_group_count=groups, use_bias=self.use_bias, **init, **fast, dtype=self.dtype,
            name="conv",
        )(x)  # fmt: skip
        if self.normalized:
            x = normalize(batch_norm().build(dtype=self.dtype, name="norm"), x, train)
        return shuffled(nn.relu6(x) if self.act else x, self.shuffle)


class DynamicReLU(nn.Module):
    """Dynamic ReLU: the larger of two linear functions of each channel.

    An MLP computes their coefficients from a token (arXiv:2003.10027, eq. 1 to 3).

    Attributes:
      offsets: add offsets from -1/2 to 1/2 to the functions. The MLP is then 4, not 1/4 times as
        wide as the token, and normalised, and the sigmoid is not the hard one.
    """

    offsets: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], token: Float[Array, "B d"], train: bool = False
    ) -> Float[Array, "B H W C"]:
        def dense(y: Array, width: int, name: str) -> Array:
            init = INIT.dense(y.shape[-1], width)
            return nn.Dense(width, **init, dtype=self.dtype, name=name)(y)

        width = token.shape[-1]
        y = dense(token, 4 * width if self.offsets else width // 4, "fc1")
        y = nn.relu6(y) if self.offsets else nn.relu(y)
        y = dense(y, (4 if self.offsets else 2) * x.shape[-1], "fc2")
        if self.offsets:
            y = normalize(batch_norm().build(dtype=self.dtype, name="norm"), y, train)
        y = 2 * (nn.sigmoid if self.offsets else nn.hard_sigmoid)(y) - 1
        one, two, *offsets = jnp.split(y[:, None, None], 4 if self.offsets else 2, axis=-1)
        terms = [x * (1 + one), x * two]
        if self.offsets:
            terms = [term + 0.5 * b for term, b in zip(terms, offsets, strict=True)]
        return jnp.maximum(*terms)


class ThirdPartyFormer(nn.Module):
    """Former of the third party: attention with two projections in a row, norm, MLP, norm."""

    num_heads: int = 8
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B M d"], train: bool = False) -> Float[Array, "B M d"]:
        width, heads, norm = x.shape[-1], self.num_heads, layer_norm(1e-5)
        dense = partial(nn.DenseGeneral, **INIT.dense(width, width), dtype=self.dtype)
        q, k, v = (
            dense((width // heads, heads), name=f"{name}_heads")(part).swapaxes(-1, -2)
            for name, part in zip("qkv", jnp.split(dense(3 * width, name="qkv")(x), 3, axis=-1))
        )
        y = DotProductAttention(train=train, name="attend")(q, k, v).reshape(x.shape)
        y = norm.build(dtype=self.dtype, name="norm1")(dense(width, name="proj")(y))
        y = Mlp(2.0, nn.relu6, param_init=INIT, dtype=self.dtype, name="mlp")(y, train)
        return norm.build(dtype=self.dtype, name="norm2")(y)


class MobileFormerBlock(nn.Module):
    """Block of four parts: Mobile → Former, Former, Mobile, Former → Mobile.

    Parameters are `to_tokens` and `to_tokens_norm`, `former`, `conv_{k}` and `act_{k}`, `to_map`.
    Stride, expansion and width are those of Mobile; the other attributes are as in `MobileFormer`.
    """

    stride: int
    expansion: int
    width: int
    mixer: str = "light"
    groups: int = 1
    layout: str = "paper"
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W c"], z: Float[Array, "B M d"], train: bool = False
    ) -> tuple[Float[Array, "B h w C"], Float[Array, "B M d"]]:
        context: Any = dict(param_init=INIT, dtype=self.dtype)
        third = self.layout != "paper"
        heads: Any = dict(num_heads=1 if third else 2, **context)
        z = z + LightAttention(gated=not third, **heads, name="to_tokens")(z, train, x)
        if third:
            z = ThirdPartyFormer(dtype=self.dtype, name="former")(z, train)
        else:
            z = layer_norm(1e-5).build(dtype=self.dtype, name="to_tokens_norm")(z)
            mixer = parse_mixers(self.mixer, 1)[0][0].default(num_heads=4)
            block = Block(mixer, spec(Mlp, mlp_ratio=2.0), layer_norm(1e-5), "sum", **context,
                          name="former")  # fmt: skip
            z = block(z, train)
        x = self.mobile(x, z[:, 0], train)
        options: Any = dict(joined=True, scale=1.0) if third else {}
        return x + LightQueries(**heads, **options, name="to_map")(x, z, train), z

    def mobile(self, x: Array, token: Array, train: bool) -> Array:
        """Apply Mobile: the convolutions of the block."""
        hidden, width, channels = self.expansion, self.width, x.shape[-1]
        third = self.layout != "paper"
        conv = partial(Conv, use_bias=third, dtype=self.dtype)
        point = partial(conv, kernel_size=1, groups=self.groups)
        each = partial(conv, kernel_size=3, groups="each")

        def act(x: Array, name: str) -> Array:
            return DynamicReLU(third, self.dtype, name=name)(x, token, train)

        def shuffle(count: int) -> int:
            return count if self.groups > 1 else 1

        y, inner, mix = x, hidden, shuffle(self.groups)
        if self.stride > 1 and third:
            y = each(hidden, stride=self.stride, act=True, name="conv_down")(y, train)
            inner = channels
        elif self.stride > 1:
            y = each(hidden, stride=self.stride, shuffle=shuffle(channels), name="conv_0")(y, train)
            x = y = point(width, name="conv_1")(act(y, "act_0"), train)
            y = each(4 * width, shuffle=shuffle(width), name="conv_2")(y, train)
            return x + point(width, name="conv_3")(act(y, "act_2"), train)
        y = act(point(inner, shuffle=mix, name="conv_0")(y, train), "act_0")
        y = act(each(hidden, name="conv_1")(y, train), "act_1")
        y = point(width, shuffle=mix, name="conv_2")(y, train)
        return x + y if width == channels and not third else y


class MobileFormer(nn.Module):
    """Mobile-Former: stem, lite bottleneck, blocks, last bridge, and head.

    The head reads the mean of the map and the first token.

    Parameters are `stem`, `lite_{k}`, `tokens`, `block_{i}`, `attention_pool` and `norm`, `neck`,
    `representation` and `fc_norm`, `head`.

    Attributes:
      blocks: stride, expansion and width of each block.
      lite: expansion, width and stride of the lite bottleneck.
      num_tokens, token_dim: number of tokens, and their width.
      neck_ratio: channels of the head's map over those of the last block.
      hidden_width: width of the layer before the classifier.
      groups: groups of pointwise convolutions.
      mixer: token mixer of Former; it must accept sequences.
      layout: "paper", or "slwang9353" for the third party's network.
      image_size: side of the images that parameters are initialised with; other sizes work too.
      drop_rate: dropout before the head.
      remat: recompute blocks in the backward pass.
    """

    blocks: tuple[tuple[int, int, int], ...]
    stem_width: int = 16
    lite: tuple[int, int, int] = (32, 16, 1)
    num_tokens: int = 6
    token_dim: int = 192
    neck_ratio: int = 6
    hidden_width: int = 1920
    groups: int = 1
    mixer: str = "light"
    layout: str = "paper"
    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    drop_rate: float = 0.0
    remat: bool = False
    decay_rules: DecayRules = DECAY
    dtype: Any = None

    def __post_init__(self) -> None:
        check_choice("layout", self.layout, ("paper", "slwang9353"))
        (mixers,) = parse_mixers(self.mixer, 1)
        if mixers != (MIXERS["light"],) and self.layout != "paper":
            raise ValueError(
                f"mixer={self.mixer!r}: Former is fixed in layout={self.layout!r}; leave the mixer "
                f"out, or take layout='paper'."
            )
        if len(mixers) > 1:
            raise ValueError(f"mixer={self.mixer!r}: a block has one Former layer; give one mixer.")
        super().__post_init__()

    def setup(self) -> None:
        third, (expansion, width, stride) = self.layout != "paper", self.lite
        conv = partial(Conv, use_bias=third, dtype=self.dtype)
        self.stem = conv(self.stem_width, 3, 2, act=True)
        shuffle = self.stem_width if self.groups > 1 else 1
        self.lite_0 = conv(
            expansion, 3, stride, "each", normalized=not third, act=True, shuffle=shuffle
        )
        self.lite_1 = conv(width, 1, 1, self.groups)
        self.tokens = self.param("tokens", INIT.token, (self.num_tokens, self.token_dim))
        block: Any = MobileFormerBlock
        block = nn.remat(block, static_argnums=(3,)) if self.remat else block
        self.block = [
            block(*sizes, self.mixer, self.groups, self.layout, self.dtype) for sizes in self.blocks
        ]
        if not third:
            context: Any = dict(param_init=INIT, dtype=self.dtype)
            self.attention_pool = LightAttention(gated=True, **context)
            self.final_norm = layer_norm(1e-5).build(dtype=self.dtype, name="norm")
        width = self.neck_ratio * self.blocks[-1][2]
        self.neck = conv(width, 1, 1, self.groups, normalized=not third, act=not third)
        init = INIT.dense(width + self.token_dim, self.hidden_width)
        self.representation = nn.Dense(self.hidden_width, **init, dtype=self.dtype)
        self.fc_norm = batch_norm().build(dtype=self.dtype)
        self.drop = nn.Dropout(self.drop_rate)
        if self.num_classes:
            init = INIT.of_head(self.hidden_width, self.num_classes)
            self.head = nn.Dense(self.num_classes, **init, dtype=self.dtype)

    @property
    def _strides(self) -> list[int]:
        """Pixels of the image per pixel of each block's map."""
        factors = itertools.accumulate((factor for factor, *_ in self.blocks), operator.mul)
        return [2 * self.lite[2] * factor for factor in factors]

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of each map of `features`."""
        return tuple(dict.fromkeys(self._strides))

    def _streams(self, images: Array, train: bool) -> tuple[list[Array], Array]:
        """Compute the map after each block, and the last tokens."""
        x = self.stem(images.astype(self.dtype or images.dtype), train)
        y = self.lite_1(self.lite_0(x, train), train)
        x = x + y if x.shape == y.shape and self.layout == "paper" else y
        z = jnp.broadcast_to(jnp.asarray(self.tokens, x.dtype), (x.shape[0], *self.tokens.shape))
        maps = []
        for block in self.block:
            x, z = block(x, z, train)
            maps.append(x)
        return maps, z

    def features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B _ _ _"], ...]:
        """Compute the last map of each stride of the blocks, finest first."""
        return tuple(dict(zip(self._strides, self._streams(images, train)[0])).values())

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Compute logits `[B, num_classes]`, or the head's input vector if `num_classes` is 0."""
        (*_, x), z = self._streams(images, train)
        act = nn.hard_swish if self.layout == "paper" else lambda y: y
        if self.layout == "paper":
            z = self.final_norm(z + self.attention_pool(z, train, x))
            x = shuffled(x, self.groups)
        x = act(jnp.mean(self.neck(x, train), axis=(1, 2)))
        x = self.representation(jnp.concatenate([x, z[:, 0]], axis=-1))
        x = self.drop(act(normalize(self.fc_norm, x, train)), deterministic=not train)
        return self.head(x) if self.num_classes else x


PREPROCESSING = Preprocessing(
    **IMAGENET, crop=0.875, interpolation="antialias",
    source="AAboys/MobileFormer, mobile_former.py",
)  # fmt: skip

FAMILY = Family(
    models={
        **{f"mobile_former_{v}": spec(MobileFormer, **kw) for v, kw in VARIANTS.items()},
        "mobile_former_96m_slwang9353": spec(MobileFormer, layout="slwang9353", **VARIANTS["96m"]),
    },
    weights={MobileFormer: "mobile_former"},
    paper="[Mobile-Former](https://arxiv.org/abs/2108.05895)",
    code="AAboys/MobileFormer (the first author's), no license stated",
    source="README there, as the paper; multiply-adds with BatchNorm's and dynamic ReLU's",
    golden=("a small network and a third party's 96M: logits, stages, gradients; parameters and "
        "multiply-adds of all"),
    published={
        "mobile_former_26m": (3.2, 0.026, 64.0, ""), "mobile_former_52m": (3.5, 0.052, 68.7, ""),
        "mobile_former_96m": (4.6, 0.096, 72.8, ""), "mobile_former_151m": (7.6, 0.151, 75.2, ""),
        "mobile_former_214m": (9.4, 0.214, 76.7, ""), "mobile_former_294m": (11.4, 0.294, 77.9, ""),
        "mobile_former_508m": (14.0, 0.508, 79.3, ""),
    },
    preprocessing={"*": PREPROCESSING},
)  # fmt: skip
