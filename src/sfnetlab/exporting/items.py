"""What an export is made of."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from sfnetlab.descriptions import About
from sfnetlab.results import Record


class Item(NamedTuple):
    """A file or folder of an export."""

    name: str
    """Its path in the export."""
    source: Record | None
    """The result that it holds, which goes on record; None for what only goes with another item."""
    write: Callable[[Path], Mapping[str, About] | None]
    """Writes it to a path. Of a table it returns what is known of the columns."""
