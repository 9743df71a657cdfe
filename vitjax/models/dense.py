"""`DenseModel`: a backbone of the menu and a head that computes logits of each pixel.

A family of heads is a file of its own, whose factory states the head and the auxiliary heads:
`upernet`, `segformer`, `setr`. The backbone is any of the menu that returns maps (`Backbone`).
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from vitjax.layers.init import NORMAL, Init
from vitjax.layers.spec import Spec
from vitjax.models.pyramid import KERNELS, DecayRules

Maps = tuple[Float[Array, "B _ _ _"], ...]


class DenseModel(nn.Module):
    """Backbone, head, auxiliary heads: parameters `backbone`, `head`, `auxiliary_{i}`.

    Attributes:
      encoder: the backbone, with `num_classes=0`; `create_model` makes it of a name.
      head: called with the maps, finest first, and `train`; gives logits `[B, h, w, K]`. It is
        given `num_classes`, `strides` (of the maps) where it has them, `param_init` and `dtype`.
      auxiliary: heads alike, whose losses help training.
      auxiliary_weight: of the loss of each auxiliary head.
      align_corners: how logits are resized to labels, see `layers.resize`.
      image_size: that of the backbone's tables, if it has any; images of other sizes work too.
      param_init: of the heads.
    """

    output: ClassVar[str] = "map"

    encoder: Spec
    head: Spec
    auxiliary: tuple[Spec, ...] = ()
    auxiliary_weight: float = 0.4
    align_corners: bool = False
    num_classes: int = 150
    image_size: int | tuple[int, int] = 512
    param_init: Init = NORMAL
    dtype: Any = None

    def setup(self) -> None:
        self.backbone = self.encoder.build()
        context = dict(num_classes=self.num_classes, param_init=self.param_init, dtype=self.dtype)
        context["strides"] = self.backbone.strides
        self.decode = self.head.offer(**context).build(name="head")
        self.helpers = [
            helper.offer(**context).build(name=f"auxiliary_{i}")
            for i, helper in enumerate(self.auxiliary)
        ]

    @property
    def decay_rules(self) -> DecayRules:
        """Return the backbone's rules for its own parameters; of the heads, kernels decay."""
        own = getattr(self.encoder.build(), "decay_rules", KERNELS)
        return (*((f"backbone/(?:{pattern})", factor) for pattern, factor in own), *KERNELS)

    def effective(self) -> tuple[Any, ...]:
        """Return the hyperparameters in effect; see `create_model`."""
        return type(self), {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def __call__(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> Float[Array, "B h w K"]:
        """Compute logits `[B, h, w, num_classes]` at the head's resolution.

        That is a half or less of the image's in the papers.
        """
        maps = self.backbone.features(images, train)
        if self.is_initializing():  # the parameters of all heads
            for helper in self.helpers:
                helper(maps, train)
        return self.decode(maps, train)

    def all_logits(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B h w K"], tuple[Float[Array, "B _ _ K"], ...]]:
        """Compute the head's logits, and those of each auxiliary head."""
        maps = self.backbone.features(images, train)
        return self.decode(maps, train), tuple(helper(maps, train) for helper in self.helpers)


SHARED = dict(num_classes=150, image_size=512, remat=False, scan=False, dtype=None)
"""Hyperparameters of every dense model; `create_model` tells the backbone `remat` and `scan`."""


def dense_model(build: Callable[..., DenseModel]) -> Callable[..., DenseModel]:
    """Add the hyperparameters of SHARED to a function that builds a dense model.

    Those that are not the backbone's alone are fields of `DenseModel`.
    """

    @functools.wraps(build)
    def factory(**options: Any) -> DenseModel:
        shared = {key: options.pop(key, default) for key, default in SHARED.items()}
        del shared["remat"], shared["scan"]
        return build(**options).clone(**shared)

    own = inspect.signature(build)
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = [inspect.Parameter(key, keyword, default=value) for key, value in SHARED.items()]
    signature = own.replace(parameters=[*own.parameters.values(), *shared])
    factory.__dict__["__signature__"] = signature  # read by `layers.spec.fields`
    return factory
