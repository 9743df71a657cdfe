"""EfficientFormer: Vision Transformers at MobileNet Speed (Li et al., arXiv:2206.01191).

New there: a pyramid whose parts were chosen by their latency on a phone: blocks of pooling and
1×1 convolutions with BatchNorm (MB4D, section 4.1), and attention, with LayerNorm, in the last
blocks of the last stage alone (MB3D). Depths and widths come from a search.

The paper does not say that the authors' code has two heads on the same pooled features, one for
the labels and one for a teacher's, whose mean is the prediction. Their table of attention biases is
for maps of 7×7; here it is interpolated for others.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention import fill_mixers, parse_mixers
from vitjax.layers.downsample import ConvNorm, ConvStem
from vitjax.layers.init import Init, normal_02
from vitjax.layers.mlp import Mlp, NormMlp
from vitjax.layers.norm import batch_norm, layer_norm
from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.pyramid import Block, Pyramid

VARIANTS = {
    "l1": dict(dims=(48, 96, 224, 448), depths=(3, 2, 6, 4), num_attention=1),
    "l3": dict(dims=(64, 128, 320, 512), depths=(4, 4, 12, 6), num_attention=4),
    "l7": dict(dims=(96, 192, 384, 768), depths=(6, 6, 18, 8), num_attention=8),
}
INIT = Init(dense=normal_02, table=nn.initializers.zeros)
"""As the authors' code draws them (snap-research/EfficientFormer, models/efficientformer.py)."""


class EfficientFormer(Pyramid):
    """A `Pyramid` with a second head, which learns from a teacher (`head_dist`)."""

    def setup(self) -> None:
        super().setup()
        if self.num_classes:
            init = self.param_init.of_head(self.dims[-1], self.num_classes)
            self.head_dist = nn.Dense(self.num_classes, **init, dtype=self.dtype)

    def class_and_distillation_logits(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B K"], Float[Array, "B K"]]:
        """Compute the logits that learn the labels and those that learn a teacher's.

        With `num_classes=0` both are the pooled features.
        """
        x = jnp.mean(self.head_features(images, train), axis=(1, 2))
        return (self.head(x), self.head_dist(x)) if self.num_classes else (x, x)

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Compute the mean of `class_and_distillation_logits`, as at inference."""
        labels, teacher = self.class_and_distillation_logits(images, train)
        return (labels + teacher) / 2


def efficientformer(
    *,
    dims: tuple[int, ...],
    depths: tuple[int, ...],
    num_attention: int,
    num_heads: tuple[int, ...] = (2, 4, 8, 8),
    mlp_ratio: float = 4.0,
    mixer: str = "pooling",
    late_mixer: str = "efficientformer",
    layer_scale_init: float | None = 1e-5,
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    remat: bool = False,
    scan: bool = False,
    dtype: Any = None,
) -> EfficientFormer:
    """Build an EfficientFormer.

    Args:
      num_attention: blocks at the end of the last stage that have attention, LayerNorm before each
        branch and a plain MLP.
      num_heads: of mixers with heads; the paper's attention has the last stage's.
      mixer: of the other blocks, which have BatchNorm inside of the MLP and none before the mixer.
      late_mixer: of the last `num_attention` blocks, which cycle through it.
      drop_rate: dropout of each late mixer's output and in the MLPs.

    Raises:
      ValueError: `num_attention` is negative, or more than the last stage's depth; `late_mixer`
        describes several stages.
    """
    last = depths[-1]
    if not 0 <= num_attention <= last:
        raise ValueError(
            f"num_attention={num_attention}: the last stage has {last} blocks; choose 0 to {last}."
        )
    if ";" in late_mixer:
        raise ValueError(
            f"late_mixer={late_mixer!r} describes several stages, and is of the last one alone; "
            f"leave ';' out."
        )
    drops = dict(drop_rate=drop_rate, attn_drop_rate=attn_drop_rate)
    early = fill_mixers(parse_mixers(mixer, len(dims)), **drops)
    side = (image_size, image_size) if isinstance(image_size, int) else image_size
    stride = 2 << len(dims)
    map_size = (tuple(-(-s // stride) for s in side),) * len(dims)  # a tuple has one of each stage
    late = fill_mixers(parse_mixers(late_mixer, len(dims)), **drops, map_size=map_size)[-1]
    options = dict(mlp_ratio=mlp_ratio, drop_rate=drop_rate)
    plain = spec(Block, layer_scale_init=layer_scale_init, norm=None, mlp=spec(NormMlp, **options))
    attending = plain.replace(norm=layer_norm(1e-5), mlp=spec(Mlp, **options))
    begin = last - num_attention
    cycle = [early[-1][i % len(early[-1])] for i in range(begin)]
    cycle += [late[i % len(late)] for i in range(num_attention)]
    blocks = ((plain,),) * (len(dims) - 1) + ((plain,) * begin + (attending,) * num_attention,)
    norm = batch_norm()
    return EfficientFormer(
        dims=dims, depths=depths, num_heads=num_heads, mixers=(*early[:-1], tuple(cycle)),
        stem=spec(ConvStem, norm=norm, act=nn.relu, last_act=True),
        downsample=spec(ConvNorm, kernel_size=3, stride=2, padding=1, norm=norm),
        block=blocks, norm=layer_norm(1e-5), num_classes=num_classes, image_size=image_size,
        drop_path_rate=drop_path_rate, remat=remat, scan=scan, param_init=INIT, dtype=dtype,
    )  # fmt: skip


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.95,
    interpolation="bicubic",
    source="timm's configurations of EfficientFormer",
)

FAMILY = Family(
    models={f"efficientformer_{v}": spec(efficientformer, **kw) for v, kw in VARIANTS.items()},
    weights={efficientformer: "efficientformer"},
    paper="[EfficientFormer](https://arxiv.org/abs/2206.01191)",
    code="snap-research/EfficientFormer, Apache-2.0",
    source="the paper, table 1",
    golden="l1: logits, stages, gradients",
    published={
        "efficientformer_l1": (12.3, 1.3, 79.2, "distilled"),
        "efficientformer_l3": (31.3, 3.9, 82.4, "distilled"),
        "efficientformer_l7": (82.1, 10.2, 83.3, "distilled"),
    },
    preprocessing={"*": PREPROCESSING},
)
