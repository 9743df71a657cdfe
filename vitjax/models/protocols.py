"""What a model can do besides logits; ask with `isinstance(model, GivesTokenLogits)`."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float


@runtime_checkable
class Backbone(Protocol):
    """Gives maps of an image, for dense tasks."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of each map, finest first."""
        ...

    def features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B _ _ _"], ...]:
        """Give the maps of `strides`."""
        ...


@runtime_checkable
class GivesHeadFeatures(Protocol):
    """Has a head that reads the mean of a map."""

    def head_features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> Float[Array, "B h w C"]:
        """Give the last map as the head reads it, which it does averaged over positions."""
        ...


@runtime_checkable
class GivesTokenLogits(Protocol):
    """Has a head for each token, which token labels teach (arXiv:2104.10858)."""

    def token_logits(
        self,
        images: Float[Array, "B H W c"],
        train: bool = False,
        mix: Callable[[Array], Array] = lambda x: x,
    ) -> tuple[Float[Array, "B K"], Float[Array, "B h w K"]]:
        """Give the logits of the class token and of every patch; `mix` swaps tokens and back."""
        ...


@runtime_checkable
class GivesDistillationLogits(Protocol):
    """Has a head that learns from a teacher (arXiv:2012.12877, section 4)."""

    def class_and_distillation_logits(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B K"], Float[Array, "B K"]]:
        """Give the logits that learn the labels, and those that learn the teacher's."""
        ...
