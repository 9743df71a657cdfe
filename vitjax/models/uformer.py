"""Uformer (Wang et al., arXiv:2106.03106): degraded images in, restored images out.

New there: a U of transformer blocks that begins and ends at the image's own resolution, with
attention in windows (section 3.2); an MLP with a depthwise convolution, for detail of the
neighbourhood (LeFF); and in the decoder a learned table that is added to the tokens of each window,
the modulator (section 3.3). The model learns what has to be added to the image.

The paper counts T and S without modulator and B with it, which is how the menu has them; the
authors' code gives it to all. That code pads images with zeros to a square of a multiple of 128
pixels; here they are mirrored, and need not become square. It leaves out the shift in stages whose
map is no longer than a window at the size for which the model is made (`image_size`), whatever
images come later: at its 128 pixels that is the bottleneck. Its mask subtracts 100 from a logit;
here what is masked has no weight.
"""

import math
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention import MIXERS, Mixers, fill_mixers, parse_mixers
from vitjax.attention.window_modulated import ModulatedWindowAttention
from vitjax.layers.activations import gelu
from vitjax.layers.downsample import ConvNorm
from vitjax.layers.drop_path import drop_path_schedule
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.mlp import ConvMlp
from vitjax.layers.norm import layer_norm
from vitjax.layers.spec import Spec, spec
from vitjax.layers.upsample import Upsample
from vitjax.models.family import Family
from vitjax.models.preprocessing import Preprocessing
from vitjax.models.pyramid import Block, DecayRules, Stage

_B = dict(width=32, depths=(1, 2, 8, 8, 2, 8, 8, 2, 1))
VARIANTS = {
    "t": dict(width=16),
    "s": dict(width=32),
    "b": dict(_B, modulator=True),
    "t_modulator": dict(width=16, modulator=True),
    "s_modulator": dict(width=32, modulator=True),
    "b_plain": _B,
}
INIT = NORMAL
"""As the authors' code draws them (ZhendongWang6/Uformer, model.py)."""
DECAY: DecayRules = ((".*", 1.0),)
"""All parameters decay: the authors' training code gives AdamW no groups."""
LEVELS = 4
"""Halvings of the map: as many stages before the bottleneck as after it."""


class Uformer(nn.Module):
    """Restore images by stages of falling, then rising resolution, joined by skips (figure 2).

    Parameters are `stem`, `stage_{i}/block_{j}` (4 of the encoder, the bottleneck, 4 of the
    decoder), `downsample_{i}` and `upsample_{i}` before stage i, `head`. The decoder's maps are
    concatenated with the encoder's, and so twice as wide.

    Attributes:
      width: channels of the first map; each halving of the map doubles them.
      depths, num_heads: of each of the nine stages.
      mixers: one tuple per stage, as `parse_mixers` gives it.
      block: everything of `Block` but its mixer.
      multiple: pixels; images are mirrored at the right and bottom to a multiple, and the result
        is cropped.
      drop_rate: dropout of the first map.
      drop_path_rate: stochastic depth. It rises from 0 in the first block to this in the encoder's
        last, stays in the bottleneck, and falls to 0 in the decoder's last.
      remat, scan: see `Stage`.
      image_size: for which the model was made; images of any size work.
    """

    output: ClassVar[str] = "image"

    width: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    mixers: Mixers
    block: Spec
    multiple: int = 128
    image_size: int | tuple[int, int] = 128
    drop_rate: float = 0.0
    drop_path_rate: float = 0.1
    remat: bool = False
    scan: bool = False
    param_init: Init = NORMAL
    decay_rules: DecayRules = DECAY
    dtype: Any = None

    def drop_path_rates(self) -> tuple[float, ...]:
        """Compute the drop path rate of each block, from the first to the last."""
        down, up = self.depths[:LEVELS], self.depths[LEVELS + 1 :]
        rate = self.drop_path_rate
        rising, falling = (drop_path_schedule(rate, sum(part)) for part in (down, up))
        return rising + (rate,) * self.depths[LEVELS] + falling[::-1]

    def stage(self, i: int) -> Spec:
        """Return the spec of stage i."""
        begin = sum(self.depths[:i])
        return spec(
            Stage,
            block=self.block,
            mixers=tuple(m.at(i).default(num_heads=self.num_heads[i]) for m in self.mixers[i]),
            drop_path_rate=self.drop_path_rates()[begin : begin + self.depths[i]],
            remat=self.remat,
            scan=self.scan,
            param_init=self.param_init,
            dtype=self.dtype,
        )

    @nn.compact
    def __call__(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> Float[Array, "B H W c"]:
        """Compute the restored images: the images plus the output of the network.

        Args:
          images: from 0 to 1, as the authors train it; of any size. The result is not clipped, and
            with a narrower `dtype` the sum is still of the images' precision.
        """
        height, width, channels = images.shape[1:]
        context: Any = dict(param_init=self.param_init, dtype=self.dtype)
        x = mirror_to_multiple(images, self.multiple).astype(self.dtype or images.dtype)
        x = ConvNorm(self.width, 3, 1, 1, act=nn.leaky_relu, **context, name="stem")(x, train)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(x)
        stages = [self.stage(i).build(name=f"stage_{i}") for i in range(len(self.depths))]
        skips = []
        for i in range(LEVELS):
            x = stages[i](x, train)
            skips.append(x)
            down = ConvNorm(self.width << (i + 1), 4, 2, 1, **context, name=f"downsample_{i + 1}")
            x = down(x, train)
        x = stages[LEVELS](x, train)
        for i, skip in enumerate(reversed(skips), LEVELS + 1):
            x = Upsample(skip.shape[-1], **context, name=f"upsample_{i}")(x)
            x = stages[i](jnp.concatenate([x, skip], axis=-1), train)
        x = ConvNorm(channels, 3, 1, 1, **context, name="head")(x, train)
        return images + x[:, :height, :width]


def mirror_to_multiple(x: Float[Array, "B H W c"], multiple: int) -> Float[Array, "B h w c"]:
    """Mirror images in their last row and column until both sides are multiples."""
    bottom, right = (-side % multiple for side in x.shape[1:3])
    if not bottom and not right:
        return x
    return jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)), mode="reflect")


def uformer(
    *,
    width: int,
    depths: tuple[int, ...] = (2,) * 9,
    num_heads: tuple[int, ...] = (1, 2, 4, 8, 16, 16, 8, 4, 2),
    window_size: int = 8,
    modulator: bool = False,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    scale: float | None = None,
    mixer: str = "window | window(shift='half')",
    image_size: int | tuple[int, int] = 128,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.1,
    remat: bool = False,
    scan: bool = False,
    dtype: Any = None,
) -> Uformer:
    """Build a Uformer: pre-norm blocks of window attention and LeFF.

    Args:
      width, depths, num_heads: see `Uformer`.
      window_size: pixels of each stage's map.
      modulator: a table is added to the decoder's windows.
      scale: of the attention logits; 1/√head_dim if None.
      mixer: "window" is `ModulatedWindowAttention` here; one for all stages, or nine.
      image_size: decides which stages never shift their windows; see the top of this file.
      drop_rate: dropout of the first map, of what mixers give, and in the MLPs.

    Raises:
      ValueError: there are not nine stages.
    """
    stages = 2 * LEVELS + 1
    if not len(depths) == len(num_heads) == stages:
        raise ValueError(
            f"depths={depths} and num_heads={num_heads} must have {stages} values: {LEVELS} stages "
            f"of the encoder, the bottleneck, {LEVELS} stages of the decoder."
        )
    shortest = image_size if isinstance(image_size, int) else min(image_size)
    strides = tuple(1 << min(i, stages - 1 - i) for i in range(stages))
    mixers = fill_mixers(
        parse_mixers(mixer, stages, {**MIXERS, "window": spec(ModulatedWindowAttention)}),
        window_size=window_size,
        modulator=tuple(modulator and i > LEVELS for i in range(stages)),
        qkv_bias=qkv_bias,
        scale=scale,
        drop_rate=drop_rate,
        attn_drop_rate=attn_drop_rate,
    )
    settled, multiple = [], 1
    for own, stride in zip(mixers, strides, strict=True):
        windows = [dict(m.kwargs).get("window_size", 1) for m in own]
        multiple = math.lcm(multiple, *(stride * window for window in windows))
        settled.append(
            tuple(
                m.replace(shift=0)
                if "shift" in dict(m.kwargs) and shortest <= stride * window
                else m
                for m, window in zip(own, windows, strict=True)
            )
        )
    return Uformer(
        width=width, depths=depths, num_heads=num_heads, mixers=tuple(settled), multiple=multiple,
        block=spec(Block, norm=layer_norm(1e-5),
                   mlp=spec(ConvMlp, mlp_ratio=mlp_ratio, pre_act=gelu, drop_rate=drop_rate)),
        image_size=image_size, drop_rate=drop_rate, drop_path_rate=drop_path_rate, remat=remat,
        scan=scan, param_init=INIT, decay_rules=DECAY, dtype=dtype,
    )  # fmt: skip


PREPROCESSING = Preprocessing(
    (0.0,) * 3,
    (1.0,) * 3,
    crop=0.0,
    interpolation="bilinear",
    source="ZhendongWang6/Uformer, utils/loader.py: pixels from 0 to 1",
)
_AT_256 = "multiply-adds published for 256 pixels"
FAMILY = Family(
    models={f"uformer_{v}": spec(uformer, **kw) for v, kw in VARIANTS.items()},
    weights={uformer: "uformer"},
    paper="[Uformer](https://arxiv.org/abs/2106.03106)",
    code="ZhendongWang6/Uformer, MIT",
    source="the paper",
    golden="t_modulator and s_modulator: restored images, stages, gradients",
    published={
        "uformer_t": (5.23, 12.0, None, _AT_256),
        "uformer_s": (20.63, 43.86, None, _AT_256),
        "uformer_b": (50.88, 89.46, None, _AT_256),
    },
    preprocessing={"*": PREPROCESSING},
)
