"""Fields of another library's config, read one by one, and the model that they describe."""

import fnmatch
from collections.abc import Mapping
from typing import Any

from vitjax.models import MODELS, model_options

Options = dict[str, Any]
Model = tuple[str, Options]
"""Name and options, as `create_model` takes them."""


class Fields:
    """Fields of a config; those that were read are recorded.

    Args:
      content: of the file.
      where: what messages call it.
      defaults: of the library, for what its file leaves out.
    """

    def __init__(
        self, content: Mapping[str, Any], where: str, defaults: Mapping[str, Any] | None = None
    ) -> None:
        self.where, self.content = where, {**(defaults or {}), **content}
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        if key not in self.content:
            raise ValueError(f"{self.where} has no {key!r}, which its model needs; add it there.")
        value = self.content[key]
        return tuple(value) if isinstance(value, list) else value

    def refuse(self, key: str, value: Any, allowed: str) -> ValueError:
        """Build the error for a hyperparameter that ours cannot express."""
        return ValueError(
            f"{self.where} has {key}={value!r}, which models here do not have, only {allowed}: "
            f"choose other weights, or name a model that you know to fit them."
        )

    def only(self, **allowed: Any) -> None:
        """Raise ValueError unless each field that is there has its value, or one of a list."""
        for key, values in allowed.items():
            values = values if isinstance(values, list) else [values]
            if key in self.content and self[key] not in values:
                raise self.refuse(key, self[key], " or ".join(map(repr, values)))

    def choice(self, key: str, table: Mapping[Any, Any]) -> Any:
        """Translate a field's value to ours."""
        if (value := self[key]) not in table:
            raise self.refuse(key, value, ", ".join(map(repr, table)))
        return table[value]

    def unread(self) -> list[str]:
        """List the fields that nothing read and whose value is set."""
        return [k for k, v in self.content.items() if v and k not in self.read and not _general(k)]


_GENERAL = (
    "_*", "*drop*", "architectures", "torch_dtype", "dtype", "transformers_version", "model_type",
    "initializer_*", "id2label", "label2id", "num_labels", "problem_type", "out_*", "output_*",
    "stage_names", "num_channels", "encoder_stride", "pooler_*", "num_layers", "use_mask_token",
    "return_dict", "use_cache", "text_config*", "vision_config_dict", "logit_scale_init_value",
    "semantic_loss_ignore_index", "decoder_*", "mask_ratio", "norm_pix_loss", "path_norm",
    "downsampling_rates", "apply_layernorm", "reshape_*", "hidden_size", "num_encoder_blocks",
    "projection_dim", "finetuning_task", "is_*", "gradient_checkpointing",
    "top_*", "temperature", "typical_p", "num_beam*", "num_return_sequences", "max_length",
    "*_penalty", "tie_*",
)  # fmt: skip
"""Fields of training, of other heads, of generated text, or that follow from others."""


def _general(key: str) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in _GENERAL)


def nearest(pattern: str, options: Mapping[str, Any]) -> Model:
    """Find the model with these options that differs least from them, and the differences.

    Args:
      pattern: of its names, as of a shell.
    """
    found = []
    for name in MODELS:
        if fnmatch.fnmatchcase(name, pattern):
            own = model_options(name)
            if not options.keys() <= own.keys():  # of another factory
                continue
            differing = {k: v for k, v in options.items() if not same(k, own[k], v)}
            found.append((len(differing), name, differing))
    _, name, differing = min(found, key=lambda entry: entry[0])  # the first of several
    return name, differing


def same(key: str, one: Any, other: Any) -> bool:
    """Return whether two values of a hyperparameter are equivalent, as ratios 4 and (4, 4) are."""

    def plain(value: Any) -> Any:
        if not isinstance(value, tuple) or key in ("dims", "depths", "num_heads", "image_size"):
            return value
        return value[0] if len(set(value)) == 1 else value

    return plain(one) == plain(other)


ACTS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_tanh": "gelu_tanh", "quick_gelu": "quick_gelu",
}  # fmt: skip


def side(value: Any) -> int | tuple[int, int]:
    """Convert an image size: one number for a square."""
    height, width = (value, value) if isinstance(value, int) else value
    return height if height == width else (height, width)


def ratios(value: tuple[int, ...]) -> tuple[int, ...] | None:
    """Convert the reductions of each stage; None for the mixer's default."""
    return None if value == (8, 4, 2, 1) else value  # None is the mixer's own
