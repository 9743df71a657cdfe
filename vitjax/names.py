"""Names that users write: error messages for unknown names, and parsers of names with options."""

import ast
import difflib
from collections.abc import Iterable
from typing import Any


def unknown(kind: str, name: str, known: Iterable[str], limit: int = 40) -> str:
    """Format the error message for an unknown name, with the nearest name and the menu.

    Args:
      limit: number of entries of a long menu that are listed.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    shown = ", ".join(known[:limit]) or "(there are none)"
    more = f", … ({len(known)} in all)" if len(known) > limit else ""
    return f"Unknown {kind} {name!r}{hint} Choose from: {shown}{more}."


def check_choice(kind: str, name: str, allowed: Iterable[str]) -> None:
    """Raise ValueError, with the message of `unknown`, unless the name is allowed."""
    if name not in (allowed := list(allowed)):
        raise ValueError(unknown(kind, name, allowed))


def parse_call(text: str) -> tuple[str, dict[str, Any]] | None:
    """Parse "name" or "name(option=1)" with Python literals as values; None for other text."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, {}
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name) or tree.args:
            return None
        return tree.func.id, {k.arg or "**": ast.literal_eval(k.value) for k in tree.keywords}
    except (SyntaxError, ValueError):
        return None


def parse_size(text: str) -> int | tuple[int, int]:
    """Parse the size of an image: "224", the side of a square, or "(32, 64)", rows and columns.

    Raises:
      ValueError: the text has neither form.
    """
    value: Any
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = None
    sides = value if isinstance(value, tuple) and len(value) == 2 else (value,)
    if not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(
            f"Image size {text!r} must be the side of a square, or rows and columns, in pixels: "
            f"224, or '(32, 64)'."
        )
    return value


def check_no_path(scheme: str, path: str) -> None:
    """Raise ValueError if a path is given to a source that makes its samples, such as digits://."""
    if path:
        raise ValueError(
            f"'{scheme}://' takes no path, and {path!r} was given; write '{scheme}://'."
        )
