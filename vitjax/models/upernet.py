"""UPerNet: Unified Perceptual Parsing for Scene Understanding (Xiao et al., arXiv:1807.10221).

New there: one network for scenes, objects, parts, materials and textures, on a feature pyramid
whose coarsest map has been pooled at four scales. Its object head is what transformers for dense
prediction are compared with; an auxiliary head on the map before the last helps training.

Auxiliary head, dropout and first weights are those of mmsegmentation. Backbones are as their
authors' segmentation code has them (`dense`): Swin, BiFormer, DeBiFormer and DAT with a norm on
each map. BiFormer and DeBiFormer divide a map into 8×8 regions there, for images of 512 pixels; in
DeBiFormer's last stage 49 of the 64 are routed to.

On a ViT the auxiliary head reads the block before the last; mmsegmentation's reads the last map of
the pyramid that is made of the blocks. Its weights load as well, and are to be trained further.
"""

from vitjax.heads.blocks import MMSEG_INIT
from vitjax.heads.fcn import FCNHead
from vitjax.heads.upernet import UPerNetHead
from vitjax.layers.spec import Spec, spec
from vitjax.models.dense import DenseModel, dense_model
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing

DEBIFORMER_MIXER = "bra(topk=1) | dbra ; bra(topk=4) | dbra ; bra(topk=16) | dbra ; dbra(topk=49)"
"""Of DeBiFormer's segmentation code, whose numbers of routed regions are those for 7×7."""
BACKBONES = {
    "swin_tiny": "drop_path_rate=0.3",
    "swin_small": "drop_path_rate=0.3",
    "swin_base": "drop_path_rate=0.3",
    "biformer_small": "n_win=8, drop_path_rate=0.3",
    "biformer_base": "n_win=8, drop_path_rate=0.4",
    "debiformer_small": f"n_win=8, mixer='{DEBIFORMER_MIXER}', drop_path_rate=0.3",
    "debiformer_base": f"n_win=8, mixer='{DEBIFORMER_MIXER}', drop_path_rate=0.4",
}
"""Backbone → its hyperparameters, as the authors' configurations for ADE20K have them."""


@dense_model
def upernet(
    *,
    backbone: Spec,
    width: int = 512,
    pool_sizes: tuple[int, ...] = (1, 2, 3, 6),
    auxiliary_width: int = 256,
    auxiliary_weight: float = 0.4,
    drop_rate: float = 0.1,
) -> DenseModel:
    """Build a UPerNet: logits `[B, h, w, num_classes]` at the finest map's resolution.

    Args:
      backbone: of the menu, by name: "swin_tiny", "biformer_small(n_win=8)".
      width: of the head's convolutions; `pool_sizes`: see `UPerNetHead`.
      auxiliary_width: of the auxiliary head's convolution; 0 for no auxiliary head.
      auxiliary_weight: of its loss.
      drop_rate: share of channels that training drops before each classifier.

    The rest are those of `dense_model`.
    """
    auxiliary = spec(FCNHead, width=auxiliary_width, drop_rate=drop_rate)
    return DenseModel(
        encoder=backbone,
        head=spec(UPerNetHead, width=width, pool_sizes=pool_sizes, drop_rate=drop_rate),
        auxiliary=(auxiliary,) if auxiliary_width else (),
        auxiliary_weight=auxiliary_weight,
        param_init=MMSEG_INIT,
    )


PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.0,
    interpolation="bilinear",
    source="configs/ade20k.py, after mmsegmentation's",
)

FAMILY = Family(
    models={
        "upernet": spec(upernet, backbone="swin_tiny"),
        **{f"upernet_{b}": spec(upernet, backbone=f"{b}({kw})") for b, kw in BACKBONES.items()},
    },
    weights={upernet: "upernet"},
    paper="[UPerNet](https://arxiv.org/abs/1807.10221)",
    code="open-mmlab/mmsegmentation, Apache-2.0",
    source=(
        "the README of each backbone's segmentation code; mIoU on ADE20K's validation images, "
        "one scale"
    ),
    golden="swin_tiny and the heads alone: maps, logits, auxiliary logits, losses, gradients",
    published={
        "upernet_swin_tiny": (60, None, None, "mIoU 44.5"),
        "upernet_swin_small": (81, None, None, "mIoU 47.6"),
        "upernet_swin_base": (121, None, None, "mIoU 48.1"),
        "upernet_biformer_small": (None, None, None, "mIoU 49.8"),
        "upernet_biformer_base": (None, None, None, "mIoU 51.0"),
    },
    preprocessing={"*": PREPROCESSING},
)
