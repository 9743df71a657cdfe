"""Preprocessing of published models: normalisation, crop, interpolation, size.

Each family states its own in its file (`Family.preprocessing`), as its authors evaluate. Weights
under the same names that others trained otherwise are distinguished by other libraries' names of
them (NAMED), by the layout of a file, and by files beside it (`vitjax.weights.preprocessing`).
"""

import fnmatch
from collections.abc import Mapping
from typing import Any, NamedTuple


class Preprocessing(NamedTuple):
    """Preprocessing with which a model was evaluated.

    Attributes:
      mean, std: pixels become (pixel / 255 - mean) / std.
      crop: share of the short side that is seen, 0 for the whole image, squeezed; see
        `vitjax.data.transforms.crops.view`.
      interpolation: see `vitjax.data.transforms.crops.resize`.
      source: where that is said.
      image_size: side of the images; None for the model's own.
      large_crop: `crop` of images of 384 pixels and more, where it is another.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float
    interpolation: str
    source: str
    image_size: int | None = None
    large_crop: float | None = None

    def at(self, image_size: int) -> "Preprocessing":
        """Return the preprocessing at an image size, which replaces one that is stated."""
        crop = self.large_crop if self.large_crop is not None and image_size >= 384 else self.crop
        return self._replace(crop=crop, image_size=image_size, large_crop=None)

    def __str__(self) -> str:
        seen = f"crop {self.crop:.4g}" if self.crop else "the whole image, squeezed"
        size = f"{self.image_size} pixels, " if self.image_size else ""
        return f"{size}{seen}, {self.interpolation}, mean {self.mean}, std {self.std}"


IMAGENET: dict[str, Any] = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
HALF: dict[str, Any] = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
CLIP: dict[str, Any] = dict(
    mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)
"""Mean and standard deviation of ImageNet's pixels; -1 to 1; those of CLIP's."""


def by_name(table: Mapping[str, Preprocessing], name: str) -> Preprocessing | None:
    """Return the first entry whose shell pattern matches a name."""
    return next((p for pattern, p in table.items() if fnmatch.fnmatchcase(name, pattern)), None)


_SELF_SUPERVISED = Preprocessing(
    **IMAGENET,
    crop=0.875,
    interpolation="bicubic",
    source="evaluation code of facebookresearch/dino, mae and dinov2",
)
MAE = DINO = _SELF_SUPERVISED
DINOV2 = _SELF_SUPERVISED._replace(image_size=224)
DINOV3 = Preprocessing(
    **IMAGENET,
    crop=0.0,
    interpolation="antialias",
    source="facebookresearch/dinov3, README; transformers' DINOv3ViTImageProcessor",
)
_DINOV3_OF_SATELLITES = DINOV3._replace(mean=(0.430, 0.411, 0.296), std=(0.213, 0.156, 0.143))
CLIP_TOWER = Preprocessing(**CLIP, crop=1.0, interpolation="bicubic", source="openai/CLIP, clip.py")
SIGLIP = Preprocessing(
    **HALF, crop=0.0, interpolation="bicubic", source="transformers' SiglipImageProcessor"
)
GOOGLE = Preprocessing(
    **HALF,
    crop=0.0,
    interpolation="bilinear",
    source="google-research/vision_transformer, input_pipeline.py",
)


def _torchvision(size: int, resized: int, interpolation: str = "bicubic") -> Preprocessing:
    return Preprocessing(
        **IMAGENET,
        crop=size / resized,
        interpolation=interpolation,
        source="torchvision's transforms of the IMAGENET1K_V1 weights",
    )


TORCHVISION = {
    "vit_l16": _torchvision(224, 242, "antialias"),
    "vit_h14": Preprocessing(
        **IMAGENET,
        crop=1.0,
        interpolation="bicubic",
        image_size=518,
        source="torchvision's transforms of the SWAG weights",
    ),
    "vit_*": _torchvision(224, 256, "antialias"),
    "swin_tiny": _torchvision(224, 232),
    "swin_small": _torchvision(224, 246),
    "swin_base": _torchvision(224, 238),
    "swinv2_base*": _torchvision(256, 272),
    "swinv2_*": _torchvision(256, 260),
    "convnext_tiny": _torchvision(224, 236, "antialias"),
    "convnext_small": _torchvision(224, 230, "antialias"),
    "convnext_*": _torchvision(224, 232, "antialias"),
}
"""Our name of a model → how torchvision's weights of it were evaluated."""

NAMED = {
    "*siglip*": SIGLIP,
    "*clip*": CLIP_TOWER,
    "mixer_*.miil*": Preprocessing(
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), crop=0.875, interpolation="bilinear",
        source="timm's configurations of the Mixers of ImageNet-21K-P",
    ),
    "deit3_*": Preprocessing(
        **IMAGENET, crop=1.0, interpolation="bicubic",
        source="facebookresearch/deit, README_revenge.md",
    ),
    "vit_*dinov2*": Preprocessing(
        **IMAGENET, crop=1.0, interpolation="bicubic", source="timm's configurations of DINOv2"
    ),
    "facebook/dinov2*": DINOV2,
    "facebook/dinov3-*-sat493m": _DINOV3_OF_SATELLITES,
    "vit_*.dino*": DINO,
    "facebook/dino-*": DINO,
    "vit_*.mae*": MAE,
    "facebook/vit-mae-*": MAE,
    "google/vit-*": GOOGLE,
}  # fmt: skip
"""Other libraries' names of weights → what they want, where it is not what their family does."""
