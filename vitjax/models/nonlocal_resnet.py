"""ResNet-50 with non-local blocks (Wang et al., Non-local Neural Networks, arXiv:1711.07971).

New there: a block that relates all positions of a map. It is inserted into a trained network, which
it does not change at first, because the scale of its last norm starts at zero. One block is right
before the last bottleneck of res4, as in the paper's tables 2b and 2c and on COCO (section 6);
another `inserted` puts five or ten before every other or every bottleneck of res3 and res4
(table 2c).

The paper's networks for videos are 3-D; `vitjax.attention.nonlocal_block` takes videos too. No
weights of this network for images are published; torchvision's ResNet-50 can be loaded into it.
"""

from typing import Any

from vitjax.attention import parse_mixers
from vitjax.layers.init import Init, normal, zeros
from vitjax.layers.spec import Spec, spec
from vitjax.models.batchnorm_resnet import PREPROCESSING, BatchNormResNet
from vitjax.models.family import Family

FIVE = ((), (1, 3), (1, 3, 5), ())
TEN = ((), (0, 1, 2, 3), (0, 1, 2, 3, 4, 5), ())
"""`inserted` of ResNet-50 for five and ten blocks (section 5.1, "going deeper")."""


def _normal_001(fan_in: int, fan_out: int) -> dict[str, Any]:
    return dict(kernel_init=normal(0.01), bias_init=zeros)


BLOCK_INIT = Init(dense=_normal_001)
"""As the authors' code draws the blocks (facebookresearch/video-nonlocal-net, lib/core/config.py);
a bottleneck is as in ResNet."""


class NonLocalResNet(BatchNormResNet):
    """ResNet with token mixers before some of its bottlenecks, `stage_{i}/block_{j}/mixer`.

    Attributes:
      mixer: the mixer, whose output is added to x; by default a non-local block with a norm whose
        scale starts at zero. Another mixer has a head for each 64 channels.
      inserted: for each stage the bottlenecks that are preceded by a mixer; -1 is the last.
    """

    mixer: str = "non_local(normalized=True, zero_init=True)"
    inserted: tuple[tuple[int, ...], ...] = ((), (), (-1,), ())

    def __post_init__(self) -> None:
        sizes = list(zip(self.depths, self.inserted))
        if len(self.inserted) != len(self.depths) or any(
            not -depth <= i < depth for depth, own in sizes for i in own
        ):
            raise ValueError(
                f"inserted={self.inserted} does not fit depths={self.depths}; give a tuple for "
                f"each stage, of numbers of bottlenecks from 0, or -1 for the last."
            )
        parse_mixers(self.mixer, len(self.depths))
        super().__post_init__()

    def mixers_of(self, stage: int) -> tuple[tuple[int, Spec], ...]:
        """List (bottleneck, mixer) of a stage; several mixers take turns."""
        mixers, depth = parse_mixers(self.mixer, len(self.depths))[stage], self.depths[stage]
        numbers = sorted({i % depth for i in self.inserted[stage]})
        return tuple(
            (
                i,
                mixers[n % len(mixers)]
                .default(num_heads=self.width_before(stage, i) // 64)
                .offer(param_init=BLOCK_INIT),
            )
            for n, i in enumerate(numbers)
        )

    def width_before(self, stage: int, i: int) -> int:
        """Return the number of input channels of bottleneck i of a stage."""
        return self.width_of(stage if i else stage - 1) if i or stage else self.width


FAMILY = Family(
    models={"resnet50_nonlocal": spec(NonLocalResNet)},
    weights={NonLocalResNet: "nonlocal_resnet"},
    preprocessing={"*": PREPROCESSING},
    paper="[Non-local ResNet](https://arxiv.org/abs/1711.07971)",
    code="facebookresearch/video-nonlocal-net (Caffe2, for videos), Apache-2.0",
    source="none: the paper's networks are of videos and detectors",
    golden="the block, as AlexHex7/Non-local_pytorch has it: all forms, outputs, gradients",
    published={},
)
