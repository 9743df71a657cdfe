"""DeiT: Training Data-Efficient Image Transformers (Touvron et al., arXiv:2012.12877).

New there: ViT trained on ImageNet alone, by strong augmentation, and a second learned token, the
distillation token, whose head imitates a convolutional teacher. Undistilled, the network is ViT.

DeiT III (Touvron et al., arXiv:2204.07118) is a ViT with layer scale and without a position of the
class token, trained with binary cross-entropy and three simple augmentations.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.layers.init import NORMAL
from vitjax.layers.spec import spec
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.vit import VARIANTS as SIZES
from vitjax.models.vit import ViT

VARIANTS = {
    "tiny": dict(patch_size=16, param_init=NORMAL, **SIZES["ti"]),
    "small": dict(patch_size=16, param_init=NORMAL, **SIZES["s"]),
    "base": dict(patch_size=16, param_init=NORMAL, **SIZES["b"]),
}
"""Their first weights are those of the authors' PyTorch code, and not those of ViT."""


class DistilledDeiT(ViT):
    """A ViT with a distillation token: a register with a position and its own head.

    See section 4, figure 2.

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
        """Compute the logits that learn the labels, and those that learn the teacher's (eq. 3).

        They are those of the heads of the class and the distillation token; with `num_classes=0`
        the two vectors.
        """
        x, _ = self.encode(images, train)
        if not self.num_classes:
            return x[:, 0], x[:, 1]
        return self.head(x[:, 0]), self.head_dist(x[:, 1])

    def __call__(self, images: Float[Array, "B H W c"], train: bool = False) -> Float[Array, "B K"]:
        """Compute the mean of `class_and_distillation_logits`, as at inference."""
        labels, teacher = self.class_and_distillation_logits(images, train)
        return (labels + teacher) / 2


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="bicubic",
    source="facebookresearch/deit, datasets.py",
)

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
        "deit_tiny": (5, None, 72.2, ""),
        "deit_small": (22, None, 79.9, ""),
        "deit_base": (86, None, 81.8, ""),
        "deit_tiny_distilled": (6, None, 74.5, ""),
        "deit_small_distilled": (22, None, 81.2, ""),
        "deit_base_distilled": (87, None, 83.4, ""),
    },
    preprocessing={"*": PREPROCESSING},
)

III = dict(layer_scale_init=1e-4, class_position=False, param_init=NORMAL)
"""As the authors' code has them (facebookresearch/deit, models_v2.py)."""
VARIANTS_III = {
    "small": dict(patch_size=16, **SIZES["s"], **III),
    "medium": dict(patch_size=16, width=512, depth=12, num_heads=8, **III),
    "base": dict(patch_size=16, **SIZES["b"], **III),
    "large": dict(patch_size=16, **SIZES["l"], **III),
    "huge": dict(patch_size=14, **SIZES["h"], **III),
}

FAMILY_III = Family(
    models={f"deit3_{v}": spec(ViT, **kw) for v, kw in VARIANTS_III.items()},
    weights={ViT: "vit"},
    paper="[DeiT III](https://arxiv.org/abs/2204.07118)",
    code="facebookresearch/deit, Apache-2.0",
    source="the repository's README_revenge, trained on ImageNet-1k at 224 pixels",
    golden="ViT's, with which it shares its parts; parameters of all",
    published={
        "deit3_small": (22.0, 4.6, 81.4, ""),
        "deit3_medium": (38.8, 8.0, 83.0, ""),
        "deit3_base": (86.6, 17.5, 83.8, ""),
        "deit3_large": (304.4, 61.6, 84.9, ""),
        "deit3_huge": (632.1, 167.4, 85.2, ""),
    },
    preprocessing={
        "*": Preprocessing(
            **IMAGENET,
            crop=1.0,
            interpolation="bicubic",
            source="facebookresearch/deit, datasets.py and README_revenge",
        ),
    },
)
