"""Videos whose frames are decoded when they are asked for: files, and frames that are files."""

import os
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8

from vitjax.data.codecs.image import decode
from vitjax.data.source import BadImage

EXTENSIONS = frozenset(
    ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "wmv", "flv", "3gp")
)
"""Of the files that are taken for videos."""

Frames = UInt8[np.ndarray, "T H W 3"]


@runtime_checkable
class Video(Protocol):
    """Protocol of a video of any length."""

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def read(self, places: Sequence[int]) -> Frames:
        """Decode frames, by their numbers in ascending order, each any number of times.

        Raises:
          BadImage: they cannot be decoded.
        """
        ...


class VideoFile:
    """File that OpenCV decodes (FFmpeg's formats).

    Args:
      path: the file; `name`: what an error calls it, if not by its path.
    """

    def __init__(self, path: str, name: str = ""):
        self._path, self._name = path, name or path

    def __len__(self) -> int:
        """Return the number of frames that the file claims.

        Raises:
          BadImage: it is not there, or no video.
        """
        return self._length(self._open())

    def read(self, places: Sequence[int]) -> Frames:
        """Decode frames; where the file ends earlier than it claims, its last one is repeated."""
        video = self._open()
        at = places[0]
        if at and not (
            video.set(cv2.CAP_PROP_POS_FRAMES, at) and video.get(cv2.CAP_PROP_POS_FRAMES) == at
        ):
            video, at = self._open(), 0
        found: list[np.ndarray] = []
        for i, place in enumerate(places):
            if i and place == places[i - 1]:
                found.append(found[-1])
                continue
            while at < place and video.grab():
                at += 1
            there, frame = video.read()
            at += 1
            if there:
                found.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            elif found:
                found.append(found[-1])
            else:
                raise BadImage(self._name, f"its frame {place} cannot be decoded")
        return np.stack(found)

    def _open(self) -> cv2.VideoCapture:
        if not os.path.isfile(self._path):
            raise BadImage(self._name, "there is no such file")
        video = cv2.VideoCapture(self._path)
        if not video.isOpened() or self._length(video) < 1:
            raise BadImage(
                self._name, "it is no video that OpenCV can decode; convert it, to MP4 say"
            )
        return video

    @staticmethod
    def _length(video: cv2.VideoCapture) -> int:
        return int(video.get(cv2.CAP_PROP_FRAME_COUNT))


class FrameFiles:
    """Frames that are images' bytes, as TFDS stores videos."""

    def __init__(self, frames: Sequence[bytes], name: str):
        self._frames, self._name = frames, name

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, places: Sequence[int]) -> Frames:
        """Decode frames, each once."""
        decoded = {i: decode(bytes(self._frames[i]), self._name) for i in dict.fromkeys(places)}
        return np.stack([decoded[i] for i in places])
