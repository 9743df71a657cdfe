"""vitjax: every attention mechanism of the vision transformers, in JAX, through one loop."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitjax.models import create_model, list_models
    from vitjax.weights.load import load_pretrained

__version__ = "0.2.0.dev0"
__all__ = ["create_model", "list_models", "load_pretrained"]

_HOMES = {
    "create_model": "vitjax.models",
    "list_models": "vitjax.models",
    "load_pretrained": "vitjax.weights.load",
}


def __getattr__(name: str) -> Any:
    # Imported by those who ask: processes that only decode images need no jax.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in ("models", "weights"):
        return importlib.import_module(f"vitjax.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
