"""What is said of a name that is not there."""

import difflib
from collections.abc import Iterable


def unknown(kind: str, name: str, known: Iterable[str], limit: int = 40) -> str:
    """One sentence for a name that is not on a menu: what was given, the nearest, what there is.

    Args:
      limit: how many of a long menu are shown.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    shown = ", ".join(known[:limit]) or "(there are none)"
    more = f", … ({len(known)} in all)" if len(known) > limit else ""
    return f"Unknown {kind} {name!r}{hint} Choose from: {shown}{more}."


def check_choice(kind: str, name: str, allowed: Iterable[str]) -> None:
    """Raises ValueError, with the sentence of `unknown`, unless the name is allowed."""
    if name not in (allowed := list(allowed)):
        raise ValueError(unknown(kind, name, allowed))
