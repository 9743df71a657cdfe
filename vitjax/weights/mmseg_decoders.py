"""Names of mmsegmentation's decoders that compute something else than their authors'."""

import re
from typing import Any

import numpy as np

from vitjax.models.dense import DenseModel
from vitjax.weights.libraries import Names, rename
from vitjax.weights.mmseg import LIBRARY


def _check(model: DenseModel) -> None:
    """Raise ValueError if the decoder has the authors' form."""
    options = dict(model.head.kwargs)
    theirs = options.get("norm_embeddings", False) or not (
        options.get("use_bias", True) and options.get("align_corners", True)
    )
    if not theirs:
        raise ValueError(
            "These weights are mmsegmentation's, whose decoder computes something else than the "
            "authors'; set decoder='mmsegmentation' (--config.model.decoder=mmsegmentation)."
        )


def _finish_segformer(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Refuse the authors' decoder; the names are those of our table."""
    del state_dict
    _check(model)
    return []


SEGFORMER = Names(LIBRARY, r"^decode_head\.fusion_conv\.", finish=_finish_segformer)


def _finish_up(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Number each head's classifier after its convolutions, as the authors do."""
    _check(model)
    for key in [key for key in state_dict if ".conv_seg." in key]:
        head, leaf = key.split(".conv_seg.")
        norms = [re.fullmatch(r"(.*)\.syncbn_fc_\d+\.running_mean", k) for k in state_dict]
        convs = sum(match is not None and match[1] == head for match in norms)
        state_dict[f"{head}.conv_{convs}.{leaf}"] = state_dict.pop(key)
    return []


_UP = r"^(decode_head|auxiliary_head\.\d+)\.up_convs\.(\d+)\.0\."
SETR = Names(
    LIBRARY,
    _UP,
    ((_UP + r"conv\.", r"\1.conv_\2."), (_UP + r"bn\.", r"\1.syncbn_fc_\2.")),
    finish=_finish_up,
)


def _finish_mla(state_dict: dict[str, Any], model: Any) -> list[str]:
    """Rename the parts of SETR-MLA.

    From the aggregation on, theirs count from the last map, the authors' and ours from the first.
    """
    _check(model)
    streams = [re.match(r"decode_head\.up_convs\.(\d+)\.", key) for key in state_dict]
    last = max(int(match[1]) for match in streams if match)

    def place(match: re.Match[str], part: int) -> str:
        """Number a convolution, or its norm, in one of the authors' sequences."""
        return f"{3 * part + (match[match.re.groups] == 'bn')}."

    def back(number: str) -> int:
        return last - int(number)

    rules = (
        (r"^neck\.norm\.(\d+)\.", r"backbone.norm_\1."),
        (
            r"^neck\.mla\.channel_proj\.(\d+)\.(conv|bn)\.",
            lambda m: f"backbone.mla.mla_p{int(m[1]) + 2}_1x1.{place(m, 0)}",
        ),
        (
            r"^neck\.mla\.feat_extract\.(\d+)\.(conv|bn)\.",
            lambda m: f"backbone.mla.mla_p{back(m[1]) + 2}.{place(m, 0)}",
        ),
        (
            r"^decode_head\.up_convs\.(\d+)\.(\d)\.(conv|bn)\.",
            lambda m: f"decode_head.mlahead.head{back(m[1]) + 2}.{place(m, int(m[2]))}",
        ),
        (r"^decode_head\.conv_seg\.", "decode_head.cls."),
        (r"^auxiliary_head\.(\d+)\.conv_seg\.", lambda m: f"auxiliary_head.{back(m[1])}.aux."),
    )
    for key in list(state_dict):
        value = state_dict.pop(key)
        if key == "decode_head.conv_seg.weight":
            value = np.asarray(value)
            streams_apart = value.reshape(len(value), last + 1, -1, *value.shape[2:])
            value = streams_apart[:, ::-1].reshape(value.shape)
        state_dict[rename(key, rules)] = value
    return []


SETR_MLA = Names(LIBRARY, r"^decode_head\.up_convs\.0\.1\.conv\.", finish=_finish_mla)
"""To be asked before SETR, whose names these contain."""
