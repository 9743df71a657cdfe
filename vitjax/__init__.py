"""vitjax: every attention mechanism of the vision transformers, in JAX, through one loop."""

import importlib
from typing import TYPE_CHECKING, Any

from vitjax.models import create_model, list_models

if TYPE_CHECKING:
    from vitjax.weights.load import load_pretrained

__version__ = "0.1.0"
__all__ = ["create_model", "list_models", "load_pretrained"]


def __getattr__(name: str) -> Any:
    # The readers and tables are imported only by those who load.
    if name == "load_pretrained":
        return importlib.import_module("vitjax.weights.load").load_pretrained
    if name == "weights":
        return importlib.import_module("vitjax.weights")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
