"""Parts of error messages: the first few of many things, and the known name that an unknown one is nearest to."""

import difflib
from collections.abc import Iterable, Sequence
from itertools import islice


def first_few(items: Iterable[object], n: int = 5) -> str:
    """Return the first n items, separated by commas; dots tell that there are more."""
    shown = list(islice(items, n + 1))
    return ", ".join(map(str, shown[:n])) + (", ..." if len(shown) > n else "")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return a question that names the known names most like `name`; empty where none is like it."""
    near = difflib.get_close_matches(name, known)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""
