"""RefineNet: Multi-Path Refinement Networks for High-Resolution Semantic Segmentation (Lin et al.,
arXiv:1611.06612).

New there: a decoder that goes from the coarsest map of a ResNet to the finest by residual units
alone, so that gradients reach every map of the encoder by short paths, and chained pooling for
context.

The encoder is the paper's, a ResNet with BatchNorm, or any other backbone of the menu; with few
images per step BatchNorm may keep its statistics: `backbone="resnet50(frozen_statistics=True)"`.
After each pooling the authors' networks, as converted to PyTorch, have three residual units, where
the paper's figure has one.
"""

from vitjax.heads.refinenet import RefineNetHead
from vitjax.layers.spec import Spec, spec
from vitjax.models.dense import DenseModel, dense_model
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing

BACKBONES = ("resnet50", "resnet101", "resnet152")
"""Those of the paper (section 4)."""


@dense_model
def refinenet(
    *,
    backbone: Spec,
    width: int = 256,
    coarse_width: int = 512,
) -> DenseModel:
    """Build a RefineNet: logits of the stride of the backbone's finest map.

    Args:
      backbone: any of the menu that gives maps, "resnet50" say.
      width: of the decoder's blocks but the first.
      coarse_width: of the first, which reads the coarsest map.

    The rest are those of `dense_model`; first weights are PyTorch's of convolutions, as the paper
    says nothing of them.
    """
    head = spec(RefineNetHead, width=width, coarse_width=coarse_width)
    return DenseModel(backbone, head, align_corners=True)


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.0,
    interpolation="bilinear",
    source="assumed: the normalisation of its backbone's weights",
)

FAMILY = Family(
    models={
        "refinenet": spec(refinenet, backbone="resnet50"),
        **{f"refinenet_{b}": spec(refinenet, backbone=b) for b in BACKBONES},
    },
    weights={refinenet: "refinenet"},
    paper="[RefineNet](https://arxiv.org/abs/1611.06612)",
    code="DrSleep/refinenet-pytorch, for academic use: its numbers alone were used",
    source="none",
    golden="on ResNet-50: logits, stages, gradients",
    published={},
    preprocessing={"*": PREPROCESSING},
)
