"""Kinds of clips: a number of frames of a video, at a stride, which are cropped and moved alike.

In training the first frame is drawn, so that it is a function of (seed, epoch, video) as crops are.
"""

import dataclasses
import functools
import logging
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vitjax.data.codecs.image import Picture
from vitjax.data.codecs.video import Video
from vitjax.data.kinds import ArraySpec, Image, Size, pad
from vitjax.data.transforms.crops import Window
from vitjax.data.transforms.moves import Move, View

_log = logging.getLogger(__name__)


def frame_places(length: int, start: int, frames: int, stride: int) -> list[int]:
    """List the frames of a clip of a video of this length; the last one stands for those beyond."""
    return [min(start + i * stride, length - 1) for i in range(frames)]


@dataclasses.dataclass(frozen=True)
class Clip(Image):
    """Clip of 8 bits, `[T, H, W, c]`, of a video or of an array of frames.

    Attributes:
      frames: T; `stride`: from one frame to the next, in frames of the video.
    """

    frames: int = dataclasses.field(default=16, kw_only=True)
    stride: int = dataclasses.field(default=1, kw_only=True)

    def spec(self) -> dict[str, ArraySpec]:
        return {"": ArraySpec((self.frames, *self.shape, self.channels), np.uint8)}

    def open(self, value: Any) -> Any:
        return value

    def draw(
        self, value: Video | UInt8[np.ndarray, "N H W c"], rng: np.random.Generator | None
    ) -> UInt8[np.ndarray, "T H W c"]:
        """Read a clip that begins anywhere, or without a generator the one in the middle."""
        free = self._free(len(value))
        start = (free + 1) // 2 if rng is None else int(rng.integers(free + 1))
        return self._read(value, start)

    def _free(self, length: int) -> int:
        """Return the last frame at which a clip can begin; it warns once of a video too short."""
        span = (self.frames - 1) * self.stride + 1
        if length < span:
            _tell_of_short(self.frames, self.stride)
        return max(length - span, 0)

    def _read(self, value: Any, start: int) -> UInt8[np.ndarray, "T H W c"]:
        places = frame_places(len(value), start, self.frames, self.stride)
        return value[places] if isinstance(value, np.ndarray) else value.read(places)

    def extent(self, value: UInt8[np.ndarray, "T H W c"]) -> tuple[Size, Size]:  # type: ignore[override]
        return (value.shape[1], value.shape[2]), self.shape

    def view(self, value: UInt8[np.ndarray, "T H W c"], view: View) -> UInt8[np.ndarray, "T h w c"]:  # type: ignore[override]
        see = super().view
        return np.stack([see(Picture(frame, channels=self.channels), view) for frame in value])

    def move(self, value: UInt8[np.ndarray, "T H W c"], move: Move) -> UInt8[np.ndarray, "T h w c"]:
        apply = super().move
        return np.stack([apply(frame, move) for frame in value])

    def encode(self, value: UInt8[np.ndarray, "T h w c"]) -> dict[str, Any]:
        return {"": np.stack([pad(frame, self.shape, 0) for frame in value])}


@dataclasses.dataclass(frozen=True)
class Views(Clip):
    """Several clips of a video, and crops of each, for evaluation: `[V, T, H, W, c]`.

    Attributes:
      clips: of a video, spread evenly over it.
      crops: of each clip: 1, or 3 along its longer side: both ends and the middle.
    """

    clips: int = dataclasses.field(default=1, kw_only=True)
    crops: int = dataclasses.field(default=1, kw_only=True)

    def spec(self) -> dict[str, ArraySpec]:
        (one,) = super().spec().values()
        return {"": one._replace(shape=(self.clips * self.crops, *one.shape))}

    def draw(self, value: Any, rng: Any) -> UInt8[np.ndarray, "V T H W c"]:
        """Read the clips; nothing is drawn."""
        starts = self._free(len(value)) + 1
        places = ((2 * i + 1) * starts // (2 * self.clips) for i in range(self.clips))
        return np.stack([self._read(value, start) for start in places])

    def extent(self, value: UInt8[np.ndarray, "V T H W c"]) -> tuple[Size, Size]:  # type: ignore[override]
        return super().extent(value[0])

    def view(self, value: UInt8[np.ndarray, "V T H W c"], view: View) -> np.ndarray:  # type: ignore[override]
        see = super().view
        views = [view]
        if self.crops == 3 and isinstance(view.box, Window):
            views = [view._replace(box=box) for box in three_windows(view.box, view.frame)]
        return np.stack([see(clip, one) for clip in value for one in views])

    def move(self, value: np.ndarray, move: Move) -> np.ndarray:
        apply = super().move
        return np.stack([apply(clip, move) for clip in value])

    def encode(self, value: UInt8[np.ndarray, "V T h w c"]) -> dict[str, Any]:
        return {"": np.stack([super(Views, self).encode(clip)[""] for clip in value])}


def three_windows(window: Window, frame: Size) -> tuple[Window, Window, Window]:
    """Return three windows along the longer side of a frame; of the other side the middle."""
    height, width = frame
    if height > width:
        return tuple(window._replace(top=share * (height - window.height)) for share in (0, 0.5, 1))  # type: ignore[return-value]
    return tuple(window._replace(left=share * (width - window.width)) for share in (0, 0.5, 1))  # type: ignore[return-value]


@functools.cache
def _tell_of_short(frames: int, stride: int) -> None:
    """Warn of a video that is shorter than a clip, once for clips of this kind."""
    _log.warning(
        "A video has fewer frames than a clip of %d at a stride of %d spans; its last frame is "
        "repeated. Further videos like it are not named.",
        frames,
        stride,
    )
