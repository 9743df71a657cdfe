"""Protocols of what a model computes besides logits, for `isinstance(model, GivesTokenLogits)`."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float

OUTPUTS = {
    "classes": "logits of each image's classes",
    "map": "logits of each pixel",
    "image": "images",
    "boxes": "boxes of objects",
}
"""What a model gives, by its `output`; "classes" for a model without."""


def check_output(name: str, model: Any, task: str, expected: str, hint: str) -> None:
    """Check that a model computes what a task needs.

    Args:
      name: of the model.
      expected: a key of OUTPUTS.
      hint: which models do.

    Raises:
      ValueError: so it is.
    """
    given = getattr(model, "output", "classes")
    if given != expected:
        raise ValueError(
            f"The model {name!r} gives {OUTPUTS[given]}, and {task} needs {OUTPUTS[expected]}: "
            f"choose {hint}."
        )


def takes_clips(model: Any) -> bool:
    """Return whether a model sees clips `[B, T, H, W, c]`, and not images `[B, H, W, c]`."""
    return bool(getattr(model, "num_frames", 0))


def input_shape(
    model: Any, image_size: int | tuple[int, int] = 0, channels: int = 3
) -> tuple[int, ...]:
    """Return the shape of a batch of one sample that a model sees.

    Args:
      image_size: 0 for the model's own, and 224 pixels if it has none.
    """
    size = image_size or getattr(model, "image_size", 224)
    sides = (size, size) if isinstance(size, int) else size
    frames = (model.num_frames,) if takes_clips(model) else ()
    return (1, *frames, *sides, channels)


@runtime_checkable
class Backbone(Protocol):
    """Model that computes maps of an image, for dense tasks."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of each map, finest first."""
        ...

    def features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B _ _ _"], ...]:
        """Compute the maps of `strides`."""
        ...


@runtime_checkable
class GivesHeadFeatures(Protocol):
    """Model with a head that reads the mean of a map."""

    def head_features(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> Float[Array, "B h w C"]:
        """Compute the last map, which the head reads averaged over positions."""
        ...


@runtime_checkable
class GivesTokenLogits(Protocol):
    """Model with a head for each token, trained by token labels (arXiv:2104.10858)."""

    def token_logits(
        self,
        images: Float[Array, "B H W c"],
        train: bool = False,
        mix: Callable[[Array], Array] = lambda x: x,
    ) -> tuple[Float[Array, "B K"], Float[Array, "B h w K"]]:
        """Compute logits of the class token and every patch; `mix` swaps tokens and back."""
        ...


@runtime_checkable
class GivesDistillationLogits(Protocol):
    """Model with a head that learns from a teacher (arXiv:2012.12877, section 4)."""

    def class_and_distillation_logits(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B K"], Float[Array, "B K"]]:
        """Compute the logits that learn the labels, and those that learn the teacher's."""
        ...


@runtime_checkable
class GivesExits(Protocol):
    """Model with classifiers at several depths, its exits; the last one is the model's own.

    The model is `num_exits` parts. Part k reads the result of part k - 1, the first reads the
    images, and computes the logits of exit k. So the images of a batch that leave are not computed
    further.
    """

    @property
    def num_exits(self) -> int:
        """Number of exits."""
        ...

    def run_part(self, k: int, state: Any, train: bool = False) -> tuple[Float[Array, "B K"], Any]:
        """Run part k of the model.

        Args:
          k: from 0 to num_exits - 1.
          state: images `[B, H, W, 3]` if k is 0, else what part k - 1 left.

        Returns:
          Logits of exit k, and what part k + 1 reads: a tree of arrays `[B, …]`, None after the
          last.
        """
        ...

    def exit_logits(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B K"], ...]:
        """Compute the logits of all exits."""
        ...


@runtime_checkable
class GivesAuxiliaryLogits(Protocol):
    """Model with auxiliary heads that help training, as `DenseModel`s may have."""

    auxiliary_weight: float

    def all_logits(
        self, images: Float[Array, "B H W c"], train: bool = False
    ) -> tuple[Float[Array, "B h w K"], tuple[Float[Array, "B _ _ K"], ...]]:
        """Compute the head's logits, and those of each auxiliary head."""
        ...
