"""SegFormer (Xie et al., arXiv:2105.15203): MiT and a decoder of linear layers alone.

New there: an encoder that sees far without position tables lets the decoder be as simple as that
(section 3.2). The decoder, `vitjax.heads.segformer`, reads the maps of any backbone of the menu:
`create_model("segformer", backbone="debiformer_small")`.

mmsegmentation's decoder is another: each embedding has BatchNorm and ReLU, and the finest map comes
first in the concatenation. `decoder="mmsegmentation"` is that one, and reads its weights. Its MiT
has an epsilon of 1e-6 in all norms, where ours is the authors' (`vitjax.models.mit`).
"""

from vitjax.heads.blocks import DECODERS, MMSEG_INIT
from vitjax.heads.segformer import SegFormerHead
from vitjax.layers.init import Init, torch_default
from vitjax.layers.spec import Spec, spec
from vitjax.models.dense import DenseModel, dense_model
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.names import check_choice

VARIANTS = {
    f"b{i}": dict(backbone=f"mit_b{i}", width=width)
    for i, width in enumerate((256, 256, 768, 768, 768, 768))
}
INIT = Init(dense=torch_default)
"""Of the head. The paper says only that it begins at random; these are PyTorch's defaults."""


@dense_model
def segformer(
    *,
    backbone: Spec,
    width: int = 256,
    decoder: str = "authors",
    drop_rate: float = 0.1,
) -> DenseModel:
    """Build a SegFormer; its logits have the resolution of the backbone's finest map.

    Args:
      backbone: from its name; hyperparameters go with it, "mit_b0(drop_path_rate=0.2)".
      width: of the decoder.
      decoder: the "authors", which is the paper's, or that of "mmsegmentation".
      drop_rate: dropout before the classifier.

    The rest are those of `dense_model`.

    Raises:
      ValueError: there is no such decoder.
    """
    check_choice("decoder", decoder, DECODERS)
    theirs = decoder == "mmsegmentation"
    head = spec(SegFormerHead, width=width, drop_rate=drop_rate)
    if theirs:
        head = head.replace(norm_embeddings=True)
    return DenseModel(
        encoder=backbone,
        head=head,
        param_init=MMSEG_INIT if theirs else INIT,
    )


def _published(
    params: float, macs: float, miou: float, side: int
) -> tuple[float, float, None, str]:
    """Return a row of the paper's table 1."""
    return params, macs, None, f"published at {side}², 150 classes: {miou} % mIoU on ADE20K"


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.0,
    interpolation="bilinear",
    source="configs/ade20k.py, after mmsegmentation's",
)

FAMILY = Family(
    models={
        "segformer": spec(segformer, backbone="mit_b0"),
        **{f"segformer_{v}": spec(segformer, **kw) for v, kw in VARIANTS.items()},
    },
    weights={segformer: "segformer"},
    paper="[SegFormer](https://arxiv.org/abs/2105.15203)",
    code="NVlabs/SegFormer, non-commercial: ours is from the paper",
    source="the paper, table 1, single scale",
    golden="b0: logits, stages, gradients",
    published={
        "segformer_b0": _published(3.8, 8.4, 37.4, 512),
        "segformer_b1": _published(13.7, 15.9, 42.2, 512),
        "segformer_b2": _published(27.5, 62.4, 46.5, 512),
        "segformer_b3": _published(47.3, 79.0, 49.4, 512),
        "segformer_b4": _published(64.1, 95.7, 50.3, 512),
        "segformer_b5": _published(84.7, 183.3, 51.0, 640),
    },
    preprocessing={"*": PREPROCESSING},
)
