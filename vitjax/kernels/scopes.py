"""Scopes that mark parts of a program, so that multiply-adds are counted as papers count them.

A layer runs such a part inside of `lookup()` or `share_of(…)`; `vitjax.analysis.cost` reads the
names from the traced program.
"""

import re
from typing import Any

import jax

_LOOKUP = "lookup"
_SHARE = re.compile(r"\b(\d+)_of_(\d+)\b")


def lookup() -> Any:
    """Mark products that implement a lookup (bilinear samples, one-hot rows); they are not counted.

    Use it as a context manager or as the decorator of a function.
    """
    return jax.named_scope(_LOOKUP)


def share_of(part: int, whole: int) -> Any:
    """Mark products of which `part` of `whole` are needed and the others are masked."""
    return jax.named_scope(f"{part}_of_{whole}")


def recomputed() -> Any:
    """Mark products that another place counts already; they are not counted."""
    return share_of(0, 1)


def counted(operations: int, scope: str) -> int:
    """Count those of an equation's operations that count, by its scope."""
    if _LOOKUP in scope:
        return 0
    for part, whole in _SHARE.findall(scope):
        operations = operations * int(part) // int(whole)
    return operations
