"""The command `cross-match`: the galaxies of two catalogues, joined by id or by position."""

import argparse
import os
from pathlib import Path

from sfnetlab.errors import DataError
from sfnetlab.files import move
from sfnetlab.settings import CatalogColumns
from sfnetlab.surveys.catalog import read_catalog
from sfnetlab.surveys.columns import with_positions
from sfnetlab.surveys.crossmatch import joined_table, match_by_id, match_by_position
from sfnetlab.surveys.files import form_of, rows_of_frame, write_table


def cross_match_command(arguments: argparse.Namespace) -> str:
    """Do what `sfnetlab cross-match` was asked for; return its report.

    Raises
    ------
    DataError
        If a catalogue cannot be used, nothing matches, or the file exists and is not to be replaced.
    """
    to: Path = arguments.to
    form = form_of(to)
    if to.exists() and not arguments.force:
        raise DataError(f"{to}: is there already; replace it with --force, or choose another --to")
    left_id, _, right_id = arguments.on.partition("=")
    left, right = read_catalog(arguments.left, left_id), read_catalog(arguments.right, right_id or left_id)
    by_position = arguments.radius_arcsec is not None
    if by_position:
        left = with_positions(left, CatalogColumns(), str(arguments.left))
        right = with_positions(right, CatalogColumns(), str(arguments.right))
    match = match_by_position(left, right, arguments.radius_arcsec) if by_position else match_by_id(left, right)
    partial = to.with_name(f".{to.name}.partial-{os.getpid()}")
    try:
        write_table(partial, rows_of_frame(joined_table(left, right, match)), form)
        move(partial, to)
    finally:
        partial.unlink(missing_ok=True)
    return f"{match.report}: {to}"
