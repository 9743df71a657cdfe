"""The page: views, style and program in one file that needs nothing else."""

import base64
import html
import importlib.resources
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitjax.analysis.page.view import View

FILES = importlib.resources.files("vitjax.analysis.page")
PROGRAM = ("data.js", "draw.js", "pane.js", "page.js")


class Page:
    """Page of views; `str` is its HTML, and a notebook shows it.

    Attributes:
      views: the models of each image, in the same order for all images.
      height: of the frame in a notebook, in pixels.
    """

    def __init__(self, views: Sequence[View], height: int = 860) -> None:
        if not views:
            raise ValueError("A page needs at least one view; see `make_view`.")
        self.views, self.height = list(views), height
        self.models = list(dict.fromkeys(v.said["model"] for v in views))
        self.images = list(dict.fromkeys(v.said["image"] for v in views))
        pairs = [(v.said["image"], v.said["model"]) for v in views]
        if sorted(pairs) != sorted((i, m) for i in self.images for m in self.models):
            raise ValueError("A page needs each image once from each model; give them other names.")

    def __str__(self) -> str:
        import matplotlib

        colours = (255 * matplotlib.colormaps["viridis"](np.arange(256))[:, :3]).round()
        said = {
            "models": self.models,
            "images": self.images,
            "views": [v.said for v in self.views],
            "colours": base64.b64encode(colours.astype(np.uint8).tobytes()).decode(),
        }
        arrays = "\n".join(
            f'<script type="text/plain" id="arrays-{i}">{base64.b64encode(v.arrays).decode()}'
            "</script>"
            for i, v in enumerate(self.views)
        )
        names = " and ".join(self.models)
        return _fill(
            (FILES / "page.html").read_text(),
            title=html.escape(
                f"{names}: where they look" if len(self.models) > 1 else f"{names}: where it looks"
            ),
            style=(FILES / "page.css").read_text(),
            said=json.dumps(said).replace("<", "\\u003c"),
            arrays=arrays,
            program="\n".join((FILES / name).read_text() for name in PROGRAM),
        )

    def save(self, path: pathlib.Path | str) -> pathlib.Path:
        """Write the page to a file."""
        path = pathlib.Path(path)
        path.write_text(str(self), encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        """Return a frame with the page, which keeps style and program apart from a notebook's."""
        return (
            f'<iframe title="where the model looks" sandbox="allow-scripts" width="100%" '
            f'height="{self.height}" style="border: 0" srcdoc="{html.escape(str(self))}"></iframe>'
        )


def _fill(text: str, **parts: Any) -> str:
    """Replace each `{{name}}` once; parts are not searched for others."""
    pieces = []
    for name, part in parts.items():
        before, text = text.split("{{" + name + "}}")
        pieces += [before, part]
    return "".join([*pieces, text])
