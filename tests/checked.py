"""Check of annotations while testing, by beartype, made once for each signature.

jaxtyping decorates a function within a function each time it is defined: those within a model's
modules each time the model is traced. What it hands over has the same name, types and defaults and
an empty body, so that the check made for the first definition serves all later ones.
"""

from collections.abc import Callable
from typing import Any

import beartype

_CHECK = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
_KEPT: dict[Any, Callable[..., Any]] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add a check of its annotations to a function; an int passes for a float."""
    if "<locals>" not in function.__qualname__:
        return _CHECK(function)
    defaults = len(function.__defaults__ or ()), tuple(function.__kwdefaults__ or ())
    types = tuple(function.__annotations__.items())
    key = (function.__module__, function.__qualname__, function.__code__, defaults, types)
    if key not in _KEPT:
        _KEPT[key] = _CHECK(function)
    return _KEPT[key]
