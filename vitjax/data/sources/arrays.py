"""Images in memory, and synthetic images for benchmarks."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Int

from vitjax.data.channels import MOST, RGB, by_planes
from vitjax.data.source import UNLABELLED, DataInfo, Sample, short_sha256
from vitjax.names import check_no_path


class Arrays:
    """Images and labels as arrays, or as files' bytes.

    Args:
      images: `[N, H, W, C]` or `[N, H, W]` of 8 bits, or a sequence of such images or of
        files' bytes.
      labels: classes `[N]`; weights `[N, K]` of a multi-label set; None for images without.
      class_names: one each; None numbers them.
    """

    def __init__(
        self,
        images: np.ndarray | Sequence[np.ndarray | bytes],
        labels: Sequence[int] | np.ndarray | None = None,
        class_names: Sequence[str] | None = None,
    ):
        marks: np.ndarray = np.asarray([UNLABELLED] * len(images) if labels is None else labels)
        if len(marks) != len(images):
            raise ValueError(f"{len(images)} images have {len(marks)} labels; give one each.")
        several = marks.ndim == 2
        if class_names is None:
            count = marks.shape[1] if several else int(marks.max(initial=-1)) + 1
            class_names = [str(i) for i in range(count)]
        classes = len(class_names)
        wrong = marks[(marks >= classes) | (marks < UNLABELLED)]
        if len(wrong) and not several:
            raise ValueError(
                f"Label {wrong[0]} is out of range: there are {classes} classes, 0 to "
                f"{classes - 1}."
            )
        self._images, self._labels = images, marks
        parts = (image if isinstance(image, bytes) else image.tobytes() for image in images)
        fingerprint = short_sha256((*parts, marks.tobytes()))
        fields = frozenset(("image",) if labels is None else ("image", "label"))
        self.info = DataInfo(tuple(class_names), fingerprint, fields, several)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> Sample:
        if "label" not in self.info.fields:
            return {"image": self._images[i]}
        label = self._labels[i]
        kept = label.astype(np.float32) if self.info.multi_label else int(label)
        return {"image": self._images[i], "label": kept}

    def example_name(self, i: int) -> str:
        return f"array {i}"

    def labels(self) -> Int[np.ndarray, "N"]:
        return self._labels


class Synthetic:
    """Noise with labels, a function of the index: `synthetic://?size=1281167&classes=1000`."""

    def __init__(
        self,
        split: str,
        size: int,
        classes: int,
        height: int,
        width: int,
        channels: int,
        jpeg: bool,
    ):
        self._size, self._classes = size, classes
        rng = np.random.Generator(np.random.PCG64([split == "train", height, width]))
        # A few images stand for all of them: making one takes longer than reading one does.
        shape = (16, height // 16 + 1, width // 16 + 1, channels)
        coarse = rng.integers(0, 256, shape, dtype=np.uint8)
        images = [
            by_planes(cv2.resize, c, (width, height), interpolation=cv2.INTER_CUBIC) for c in coarse
        ]
        self._images = [cv2.imencode(".jpg", i)[1].tobytes() if jpeg else i for i in images]
        text = f"{split} {size} {classes} {height} {width} {jpeg}"
        text += f" {channels}" if channels != RGB else ""
        self.info = DataInfo(tuple(map(str, range(classes))), short_sha256((text.encode(),)))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, i: int) -> Sample:
        return {"image": self._images[i % len(self._images)], "label": i % self._classes}

    def example_name(self, i: int) -> str:
        return f"synthetic {i}"

    def labels(self) -> Int[np.ndarray, "N"]:
        return np.arange(self._size) % self._classes


def open_synthetic(
    path: str,
    split: str,
    size: int = 1024,
    classes: int = 10,
    height: int = 64,
    width: int = 64,
    channels: int = RGB,
    jpeg: int = 0,
) -> Synthetic:
    """Generate a data set; the test split has a tenth of the size.

    Args:
      channels: of the images, 1 to 16; 1 or 3 of JPEG files.

    Raises:
      ValueError: a number is out of range.
    """
    check_no_path("synthetic", path)
    if min(size, classes, height, width) < 1:
        raise ValueError("synthetic:// needs size, classes, height and width of at least 1.")
    if not 1 <= channels <= MOST or (jpeg and channels not in (1, RGB)):
        most = "1 or 3 of JPEG files" if jpeg else f"1 to {MOST}"
        raise ValueError(f"synthetic://?channels={channels} is out of range: images have {most}.")
    count = size if split == "train" else max(size // 10, 1)
    return Synthetic(split, count, classes, height, width, channels, bool(jpeg))
