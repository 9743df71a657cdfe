"""`Family`: what a family registers in its file, read by the menu, weights and docs/models.md."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from vitjax.layers.spec import Spec
from vitjax.models.preprocessing import Preprocessing


class Family(NamedTuple):
    """Models of one paper, where they were published, and what they are tested against.

    Attributes:
      models: name on the menu → factory with the variant's hyperparameters.
      weights: factory → the module of `vitjax.weights` with its table of names.
      paper: links, as docs/models.md has them.
      code: the official code and its license.
      source: of the published figures.
      golden: what the tests compare with the official code's numbers.
      published: name → (parameters in millions, multiply-adds in G, top-1 in %, remark); figures
        that the source does not give are None.
      preprocessing: shell pattern of names → how the authors evaluate; the first that matches.
      takes: what its models see: "images" `[B, H, W, c]` or "clips" `[B, T, H, W, c]`, of as many
        frames as their field `num_frames`.
    """

    models: Mapping[str, Spec]
    weights: Mapping[Any, str]
    paper: str
    code: str
    source: str
    golden: str
    published: Mapping[str, tuple[float | None, float | None, float | None, str]]
    preprocessing: Mapping[str, Preprocessing]
    takes: str = "images"


I21K = "ImageNet-21k first, fine-tuned"
JFT = "JFT-300M first, fine-tuned at higher resolution"
