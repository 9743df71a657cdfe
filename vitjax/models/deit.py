"""DeiT: Training Data-Efficient Image Transformers (Touvron et al., arXiv:2012.12877).

New there: ViT trained on ImageNet alone, by strong augmentation, and a second learned token, the
distillation token, whose head imitates a convolutional teacher. Undistilled, the network is ViT.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.layers.init import NORMAL
from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.vit import VARIANTS as SIZES
from vitjax.models.vit import ViT

VARIANTS = {
    "tiny": dict(patch_size=16, param_init=NORMAL, **SIZES["ti"]),
    "small": dict(patch_size=16, param_init=NORMAL, **SIZES["s"]),
    "base": dict(patch_size=16, param_init=NORMAL, **SIZES["b"]),
}
"""Their first weights are those of the authors' PyTorch code, and not those of ViT."""


class DistilledDeiT(ViT):
    """A ViT whose one register has a position and is read by a head of its own (section 4, figure
    2).

    Attributes: those of `ViT`.
    """

    num_registers: int = 1
    register_position: bool = True

    def __post_init__(self) -> None:
        if self.pool != "token" or self.num_registers != 1:
            raise ValueError(
                f"pool={self.pool!r}, num_registers={self.num_registers}: a distilled DeiT reads a "
                f"class token and one distillation token, pool='token' and num_registers=1."
            )
        super().__post_init__()

    def setup(self) -> None:
        super().setup()
        if self.num_classes:
            init = self.param_init.of_head(self.width, self.num_classes)
            self.head_dist = nn.Dense(self.num_classes, **init, dtype=self.dtype)

    def class_and_distillation_logits(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B K"], Float[Array, "B K"]]:
        """The logits of the class token's head, which learns the labels, and those of the
        distillation token's, which learns the teacher's (eq. 3); the two vectors with
        `num_classes=0`.
        """
        x, _ = self.encode(images, train)
        if not self.num_classes:
            return x[:, 0], x[:, 1]
        return self.head(x[:, 0]), self.head_dist(x[:, 1])

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """The mean of `class_and_distillation_logits`, as at inference."""
        labels, teacher = self.class_and_distillation_logits(images, train)
        return (labels + teacher) / 2


FAMILY = Family(
    models={
        f"deit_{v}{suffix}": spec(factory, **kw)
        for factory, suffix in ((ViT, ""), (DistilledDeiT, "_distilled"))
        for v, kw in VARIANTS.items()
    },
    weights={ViT: "vit", DistilledDeiT: "deit"},
    paper="[DeiT](https://arxiv.org/abs/2012.12877)",
    code="facebookresearch/deit, Apache-2.0",
    source="the repository's README",
    golden="tiny, distilled: logits, stages, gradients",
    published={
            "deit_tiny": (5, None, 72.2, ""), "deit_small": (22, None, 79.9, ""),
            "deit_base": (86, None, 81.8, ""), "deit_tiny_distilled": (6, None, 74.5, ""),
            "deit_small_distilled": (22, None, 81.2, ""),
            "deit_base_distilled": (87, None, 83.4, ""),
        },
)  # fmt: skip
