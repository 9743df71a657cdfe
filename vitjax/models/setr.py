"""SETR: Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with Transformers
(Zheng et al., arXiv:2012.15840).

New there: a plain ViT, whose maps have stride 16 in every block, takes the place of a convolutional
encoder, and three decoders read its blocks' outputs.

The authors' code takes square images only, and its heads resize the logits to the image; here
logits keep the decoder's own stride, 16 (naive), 2 (PUP) or 4 (MLA). The ViT of their MLA drops the
class token before the blocks, that of their other decoders after them.

mmsegmentation's decoders are other functions: the naive one enlarges its map fourfold before the
classes, that of MLA has a 1×1 classifier and no aligned corners. `decoder="mmsegmentation"` is
theirs, and reads their weights. Their ViT resizes its positions bilinearly, ours bicubically, to
images of another size than `image_size`.
"""

from jaxtyping import Array, Float

from vitjax.heads.blocks import DECODERS, MMSEG_INIT
from vitjax.heads.setr import LinearHead, MultiLevelHead, MultiLevelNeck, UpHead
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.spec import Spec, spec
from vitjax.models.dense import DenseModel, dense_model
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.vit import ViT
from vitjax.names import check_choice

NAIVE_LAYERS = (10, 15, 20)
PUP_LAYERS = (10, 15, 20, 24)
MLA_LAYERS = (6, 12, 18, 24)
"""Of 24 layers, from 1, those that auxiliary heads read, or the aggregation (section 4.1)."""


def scale_layers(layers: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Scale block indices of a ViT of 24 blocks to `depth`, rounded up; results count from 0.

    Of 12 blocks these are the authors' for PUP and MLA.
    """
    return tuple(-(-layer * depth // 24) - 1 for layer in layers)


class MultiLevelViT(ViT):
    """A ViT whose maps are aggregated from the last to the first (SETR-MLA, section 3.3).

    Attributes:
      mla_width: of the aggregated maps.

    The rest are those of `ViT`; there is no class token, and `layers_of_features` are the blocks
    that are aggregated.
    """

    pool: str = "gap"
    mla_width: int = 256

    def setup(self) -> None:
        super().setup()
        self.neck = MultiLevelNeck(self.mla_width, dtype=self.dtype)

    def features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B h w C"], ...]:
        """Compute the aggregated maps, all of stride `patch_size`."""
        return self.neck(super().features(images, train), train)


@dense_model
def setr_naive(
    *,
    backbone: Spec,
    auxiliary_layers: tuple[int, ...] | None = None,
    auxiliary_weight: float = 0.4,
    auxiliary_convs: int = 1,
    decoder: str = "authors",
    width: int = 256,
) -> DenseModel:
    """Build SETR with the naive decoder: logits of the ViT's stride, from its last block.

    Args:
      backbone: any ViT of the menu, "vit_l16" say.
      auxiliary_layers: blocks, from 0, that auxiliary heads read; None: the paper's, scaled to the
        backbone's depth.
      auxiliary_weight: of the loss of each auxiliary head.
      auxiliary_convs: convolutions of each, and enlargements; mmsegmentation's have 2, but on
        Cityscapes 1 in its naive model.
      decoder: the "authors", or that of "mmsegmentation".
      width: of the convolutions of the heads.

    The rest are those of `dense_model`.

    Raises:
      ValueError: the backbone is no ViT, or says itself which blocks it gives, or has no such
        block; or there is no such decoder.
    """
    theirs = _of_mmsegmentation(decoder)
    factor = 4 if theirs else 1
    head, helper = (
        spec(UpHead, factors=(factor,) * n, kernel_size=1, width=width, use_bias=not theirs)
        for n in (1, auxiliary_convs)
    )
    if auxiliary_layers is None:
        auxiliary_layers = scale_layers(NAIVE_LAYERS, _read(backbone).depth)
    return _decode_blocks(
        backbone, auxiliary_layers, head, helper, auxiliary_weight, MMSEG_INIT if theirs else NORMAL
    )


@dense_model
def setr_pup(
    *,
    backbone: Spec,
    auxiliary_layers: tuple[int, ...] | None = None,
    auxiliary_weight: float = 0.4,
    auxiliary_convs: int = 1,
    decoder: str = "authors",
    width: int = 256,
) -> DenseModel:
    """Build SETR with progressive upsampling: logits of an 8th of the ViT's stride.

    They are computed from its last block. Arguments and errors are those of `setr_naive`. The
    decoder of mmsegmentation differs by its convolutions, which have no bias, and by having no
    auxiliary head on the last block.
    """
    theirs = _of_mmsegmentation(decoder)
    if auxiliary_layers is None:
        layers = NAIVE_LAYERS if theirs else PUP_LAYERS
        auxiliary_layers = scale_layers(layers, _read(backbone).depth)
    head, helper = (
        spec(UpHead, factors=factors, width=width, use_bias=not theirs)
        for factors in ((2, 2, 2, 1), (4,) * auxiliary_convs)
    )
    return _decode_blocks(
        backbone, auxiliary_layers, head, helper, auxiliary_weight, MMSEG_INIT if theirs else NORMAL
    )


@dense_model
def setr_mla(
    *,
    backbone: Spec,
    layers: tuple[int, ...] | None = None,
    auxiliary: bool = True,
    auxiliary_weight: float = 0.4,
    decoder: str = "authors",
    mla_width: int = 256,
    width: int = 128,
) -> DenseModel:
    """Build SETR with multi-level feature aggregation: logits of a 4th of the ViT's stride.

    They are computed from several blocks.

    Args:
      backbone: any ViT of the menu that can do without its class token, "vit_l16" say.
      layers: blocks, from 0, that are aggregated; None: the paper's, scaled to the backbone's
        depth.
      auxiliary: whether each aggregated map has an auxiliary head.
      auxiliary_weight: of the loss of each auxiliary head.
      decoder: the "authors", or that of "mmsegmentation".
      mla_width: of the aggregated maps.
      width: of the convolutions of each map's stream in the head.

    The rest are those of `dense_model`.

    Raises:
      ValueError: the backbone is no such ViT, or says itself which blocks it gives, or has no such
        block; or there is no such decoder.
    """
    vit = _read(backbone)
    if backbone.factory is not ViT:
        raise ValueError(
            f"SETR-MLA's ViT has no class token, and a {backbone.name} needs its own; choose a "
            f"plain one as backbone, 'vit_l16' or 'deit_base' say."
        )
    layers = scale_layers(MLA_LAYERS, vit.depth) if layers is None else layers
    encoder = spec(
        MultiLevelViT, **dict(backbone.kwargs), layers_of_features=layers, mla_width=mla_width
    )
    theirs = _of_mmsegmentation(decoder)
    form = dict(kernel_size=1, align_corners=False) if theirs else {}
    helpers = tuple(spec(LinearHead, index=i, use_bias=theirs) for i in range(len(layers)))
    return DenseModel(
        encoder,
        spec(MultiLevelHead, width=width, **form),
        helpers if auxiliary else (),
        auxiliary_weight,
        param_init=MMSEG_INIT if theirs else NORMAL,
    )


def _of_mmsegmentation(decoder: str) -> bool:
    """Return whether a decoder is mmsegmentation's; raise ValueError for an unknown one."""
    check_choice("decoder", decoder, DECODERS)
    return decoder == "mmsegmentation"


def _decode_blocks(
    backbone: Spec,
    auxiliary_layers: tuple[int, ...],
    head: Spec,
    helper: Spec,
    weight: float,
    param_init: Init,
) -> DenseModel:
    """Build a model whose head reads the last block and auxiliary heads read the given ones."""
    layers = tuple(sorted({*auxiliary_layers, _read(backbone).depth - 1}))
    helpers = tuple(helper.replace(index=layers.index(layer)) for layer in auxiliary_layers)
    return DenseModel(
        backbone.replace(layers_of_features=layers), head, helpers, weight, param_init=param_init
    )


def _read(backbone: Spec) -> ViT:
    """Build the backbone; raise ValueError if SETR cannot choose its blocks."""
    vit = backbone.build()
    if not isinstance(vit, ViT):
        raise ValueError(
            f"SETR reads the blocks of a plain ViT, and a {backbone.name} is none; choose a "
            f"backbone such as 'vit_l16', 'vit_b16' or 'deit_base'."
        )
    if vit.layers_of_features:
        raise ValueError(
            f"The backbone says layers_of_features={vit.layers_of_features}, which SETR chooses; "
            f"set auxiliary_layers (naive, PUP) or layers (MLA) instead."
        )
    return vit


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.0,
    interpolation="bilinear",
    source="configs/cityscapes.py, after mmsegmentation's",
)

FAMILY = Family(
    models={
        "setr_naive": spec(setr_naive, backbone="vit_l16"),
        "setr_pup": spec(setr_pup, backbone="vit_l16"),
        "setr_mla": spec(setr_mla, backbone="vit_l16"),
        "setr_naive_vit_l16": spec(setr_naive, backbone="vit_l16"),
        "setr_pup_vit_l16": spec(setr_pup, backbone="vit_l16"),
        "setr_mla_vit_l16": spec(setr_mla, backbone="vit_l16"),
        # As the authors' configuration has it, evenly spread.
        "setr_naive_vit_b16": spec(setr_naive, backbone="vit_b16", auxiliary_layers=(2, 5, 8)),
        "setr_pup_vit_b16": spec(setr_pup, backbone="vit_b16"),
        "setr_mla_vit_b16": spec(setr_mla, backbone="vit_b16"),
    },
    weights={
        setr_naive: "setr", setr_pup: "setr", setr_mla: "setr", MultiLevelViT: "multi_level_vit",
    },
    paper="[SETR](https://arxiv.org/abs/2012.15840)",
    code="fudan-zvg/SETR, MIT",
    source=("parameters: the paper, table 2, for 19 classes and 768 pixels, without auxiliary "
        "heads; mIoU on ADE20K: the repository's README"),
    golden="all three, tiny: logits, auxiliary logits, stages, gradients",
    published={
            "setr_naive_vit_l16": (305.67, None, None, "mIoU 48.06 %"),
            "setr_pup_vit_l16": (318.31, None, None, "mIoU 48.62 %; the code has 309.6 M"),
            "setr_mla_vit_l16": (310.57, None, None, "mIoU 48.64 %"),
            "setr_naive_vit_b16": (87.69, None, None, ""),
            "setr_pup_vit_b16": (97.64, None, None, "the code has 91.0 M"),
            "setr_mla_vit_b16": (92.59, None, None, ""),
        },
    preprocessing={"*": PREPROCESSING},
)  # fmt: skip
