"""Section `data` of a run's config."""

import dataclasses
from typing import TYPE_CHECKING

from vitjax.data.channels import MOST

if TYPE_CHECKING:
    ImageSize = int | tuple[int, int]
else:  # another number of sides is refused below, in a sentence, and not by its type
    ImageSize = int | tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Section `data`.

    Raises:
      ValueError: sizes, channels and normalisation do not fit each other.
    """

    train: str = "digits://"
    test: str = ""  # empty: the test split of `train`
    train_split: str = "train"
    test_split: str = "test"
    image_size: ImageSize = 224  # of a square, or rows and columns: (32, 64)
    channels: int = 3  # of an image: 1 is gray, 3 RGB, up to 16 as the files have them
    batch_size: int = 128
    eval_batch_size: int = 256
    augment: str = "none"  # a name or a line such as "crop | flip | randaugment(m=9)"
    repeats: int = 1  # visits of an image in an epoch (repeated augmentation)
    sampling: str = "shuffle"  # each image once an epoch; or "balanced": each class equally often
    # Side of the central square that evaluation sees, of the short side: 0.875 is usual for
    # ImageNet; beyond 1 the image stands in black; 0 squeezes the whole image into the square.
    eval_crop: float = 1.0
    # Of evaluation: area, bilinear, bicubic or antialias; training's is said in `augment`.
    interpolation: str = "area"
    num_threads: int = 4  # that decode
    num_processes: int = 0  # that decode, instead of threads: for hosts of many cores
    on_bad_image: str = "fail"  # or "skip"
    max_bad_images: int = -1  # different ones that "skip" tolerates; -1: any number
    # Of pixels, a number for each channel, in shares of the full range; (): what `init`, or the
    # model's published weights, were made for. Other channels than 3 have 0.5s unless given.
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        sides = (self.image_size,) if isinstance(self.image_size, int) else self.image_size
        several = isinstance(self.image_size, int) or len(sides) == 2
        if not several or not all(type(side) is int and side > 0 for side in sides):
            raise ValueError(
                f"config.data.image_size={self.image_size} must be the side of a square, or rows "
                f"and columns, in pixels: 224, or '(32, 64)'."
            )
        if not 1 <= self.channels <= MOST:
            raise ValueError(
                f"config.data.channels={self.channels} must be 1 (gray), 3 (RGB) or another number "
                f"up to {MOST}."
            )
        if self.max_bad_images >= 0 and self.on_bad_image == "fail":
            raise ValueError(
                f"config.data.max_bad_images={self.max_bad_images} is of images that are skipped; "
                f"give --config.data.on_bad_image=skip, or leave it at -1."
            )
        if not all(number > 0 for number in self.std):
            raise ValueError(
                f"config.data.std={self.std} must be above 0; pixels are divided by it."
            )
        for key, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (0, self.channels):
                some = ", ".join(["0.5"] * self.channels) + "," * (self.channels == 1)
                raise ValueError(
                    f"config.data.{key}={numbers} has {len(numbers)} numbers, and "
                    f"config.data.channels={self.channels}; give one for each channel, such as "
                    f"--config.data.{key}='({some})'."
                )
