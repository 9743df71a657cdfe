"""DETR: End-to-End Object Detection with Transformers (Carion et al., arXiv:2005.12872).

New there: a transformer whose queries each find an object or none, so that there are no anchors and
no suppression; what a query is to find, the loss asks the best assignment of objects to queries.

As in the authors' code the weights of losses are those of the costs of matching, positions are part
of queries and keys alone, and the image's padding is not attended to. Classes are the ids of COCO's
categories, of which 0 and some others are not used. Not here: the variants "DC5", with a dilated
last stage, and the head of panoptic segmentation.
"""

from vitjax.heads.detr import DETRHead
from vitjax.heads.queries import TRANSFORMER
from vitjax.layers.spec import Spec, spec
from vitjax.models.dense import dense_model
from vitjax.models.detector import Detector
from vitjax.models.family import Family
from vitjax.models.preprocessing import IMAGENET, Preprocessing
from vitjax.models.retinanet import COCO_IDS


@dense_model
def detr(
    *,
    backbone: Spec,
    width: int = 256,
    num_heads: int = 8,
    encoder_depth: int = 6,
    decoder_depth: int = 6,
    mlp_ratio: float = 8.0,
    num_queries: int = 100,
    drop_rate: float = 0.1,
    loss_weights: tuple[float, float, float] = (1.0, 5.0, 2.0),
    no_object: float = 0.1,
    limit: int = 100,
) -> Detector:
    """Build a DETR.

    Args:
      backbone: of the menu, by name: "swin_tiny(drop_path_rate=0.2)"; its last map is read.

    The rest are those of `DETRHead` and of `dense_model`.
    """
    options = dict(locals())
    del options["backbone"]
    head = spec(DETRHead, **options)
    return Detector(encoder=backbone, head=head, param_init=TRANSFORMER)


FROZEN = "{}(frozen_statistics=True)"
PREPROCESSING = Preprocessing(
    **IMAGENET,
    crop=0.0,
    interpolation="antialias",
    source="facebookresearch/detr: a short side of 800 pixels, a long one of 1333",
)

FAMILY = Family(
    models={
        "detr": spec(detr, backbone=FROZEN.format("resnet50")),
        **{
            f"detr_{name}": spec(detr, backbone=FROZEN.format(name), num_classes=COCO_IDS)
            for name in ("resnet50", "resnet101")
        },
    },
    weights={detr: "detr"},
    paper="[DETR](https://arxiv.org/abs/2005.12872)",
    code="facebookresearch/detr, Apache-2.0",
    source="the repository's table; box AP on COCO's validation images",
    golden="on ResNet-50, padded: outputs of all layers, matches, detections, losses, gradients",
    published={
        "detr_resnet50": (41.0, None, None, "AP 42.0"),
        "detr_resnet101": (60.0, None, None, "AP 43.5"),
    },
    preprocessing={"*": PREPROCESSING},
)
