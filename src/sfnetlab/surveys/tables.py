"""Embeddings that somebody else made, joined to a survey by id and read in blocks; embedding_files.py opens them."""

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, assert_never

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from sfnetlab.errors import DataError
from sfnetlab.surveys.catalog import ids_as_text
from sfnetlab.surveys.embedding_files import open_source
from sfnetlab.surveys.embeddings import EmbeddingSource, IdRepair
from sfnetlab.surveys.messages import first_few

_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What a damaged file raises in the libraries that read it."""


@dataclass(frozen=True)
class EmbeddingTable:
    """A table of embeddings of which only the ids were read."""

    where: str
    """Its name in messages."""
    ids: "pd.Series[str]"
    """The ids of its rows as text, repaired as the settings say. No id occurs twice."""
    columns: tuple[str, ...]
    """The names of its d features."""
    blocks: Callable[[], Iterator[NDArray[np.float32]]]
    """Reads its rows in order, in blocks of shape (any number, d). A missing value is NaN; a value that is too large
    for float32 is infinite."""
    commit: str | None = None
    """The revision of a hub dataset that was read; None for files."""


class Joined(NamedTuple):
    """Which rows of a table and of a survey are the same galaxies."""

    place: NDArray[np.intp]
    """The row of the survey for each row of the table; -1 for galaxies that only the table has."""
    is_missing: NDArray[np.bool_]
    """Whether the table lacks a galaxy, for each galaxy of the survey."""

    @property
    def counts(self) -> dict[str, int]:
        """How many galaxies are in both, only in the table, and only in the catalogue of the survey."""
        n_both = int((self.place >= 0).sum())
        return {
            "n_both": n_both,
            "n_only_in_table": len(self.place) - n_both,
            "n_only_in_catalog": int(self.is_missing.sum()),
        }


def join_by_id(table: EmbeddingTable, ids: "pd.Series[str]") -> Joined:
    """Join the rows of a table to a survey by their ids, which occur once on either side: one to one."""
    place = pd.Index(ids).get_indexer(pd.Index(table.ids))
    is_missing = np.ones(len(ids), dtype=np.bool_)
    is_missing[place[place >= 0]] = False
    return Joined(place, is_missing)


def require_every(source: EmbeddingSource, table: EmbeddingTable, ids: "pd.Series[str]") -> Joined:
    """Join a table to a survey, and refuse a table that lacks a galaxy of the survey. It may have more galaxies.

    Raises
    ------
    DataError
        If a galaxy is missing. The message says how many, names the first ones, and says whether another `id_repair`
        would find more.
    """
    joined = join_by_id(table, ids)
    if not joined.is_missing.any():
        return joined
    counts = joined.counts
    better = _better_repair(source, table, ids, counts["n_both"])
    raise DataError(
        f"{table.where}: {counts['n_only_in_catalog']:,} of {len(ids):,} galaxies of the survey have no row in it: "
        f"{first_few(ids[joined.is_missing])}; {counts['n_both']:,} are in both, {counts['n_only_in_table']:,} only in "
        f"it ({first_few(table.ids[joined.place < 0]) or 'none'}); "
        + (better or 'leave them out of the catalogue, or, with survey kind = "embeddings", by without_embedding')
    )


def read_into(table: EmbeddingTable, joined: Joined, out: NDArray[np.float32]) -> None:
    """Copy the rows of the survey's galaxies to their places in `out` (n, d), a block at a time.

    Raises
    ------
    DataError
        If a value of these galaxies is missing, NaN or infinite, or the table has not as many rows as ids. The message
        says how many values of which galaxies.
    """
    start, n_bad_values = 0, 0
    bad = [np.empty(0, dtype=np.intp)]
    with tqdm(total=len(joined.place), desc="embeddings", unit="row", disable=None) as bar:
        for block in _readable(table):
            place = joined.place[start : start + len(block)]
            if len(place) < len(block):
                raise DataError(f"{table.where}: more rows than its {len(table.ids):,} ids; is it damaged?")
            wanted = np.flatnonzero(place >= 0)
            values = block[wanted]
            is_bad = ~np.isfinite(values)
            n_bad_values += int(is_bad.sum())
            bad.append(start + wanted[is_bad.any(axis=1)])
            out[place[wanted]] = values
            start += len(block)
            bar.update(len(block))
    if start != len(joined.place):
        raise DataError(f"{table.where}: {start:,} rows but {len(joined.place):,} ids; is it damaged?")
    rows = np.concatenate(bad)
    if len(rows):
        raise DataError(
            f"{table.where}: {n_bad_values:,} values of {len(rows):,} galaxies are missing, NaN, infinite or too large "
            f"for float32: {first_few(table.ids.iloc[rows])}; embed these again or leave them out of the catalogue"
        )


def common_galaxies(catalog: pd.DataFrame, sources: Iterable[EmbeddingSource]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide a catalogue into the galaxies that every table has, and the others.

    Returns
    -------
    kept : DataFrame
        The rows of the catalogue that every table has.
    dropped : DataFrame
        `id_str` of the other rows, and `features`, the name of the first table that lacks the galaxy.

    Raises
    ------
    DataError
        If no galaxy is left.
    """
    lacks = np.full(len(catalog), "", dtype=object)
    for source in sources:
        table = open_embeddings(source)
        joined = join_by_id(table, catalog["id_str"])
        if joined.is_missing.all():
            advice = _better_repair(source, table, catalog["id_str"], 0) or "are these the same galaxies?"
            raise DataError(
                f"{table.where}: no galaxy of the catalogue ({first_few(catalog['id_str'])}) is in it "
                f"({first_few(table.ids)}); {advice}"
            )
        lacks[joined.is_missing & (lacks == "")] = source.name
    is_common = lacks == ""
    if not is_common.any():
        raise DataError("no galaxy of the catalogue is in every one of the external [[features]]; take one at a time")
    dropped = pd.DataFrame({"id_str": catalog["id_str"], "features": lacks})[~is_common]
    return catalog[is_common].reset_index(drop=True), dropped.reset_index(drop=True)


def open_embeddings(source: EmbeddingSource) -> EmbeddingTable:
    """Open the table that the settings name, and read its ids.

    Raises
    ------
    DataError
        If it is missing, damaged or of another kind, if a column is not there or not numeric, or if ids are floats or
        repeat.
    """
    where = f"{source.path or source.dataset}"
    try:
        ids, columns, blocks, commit = open_source(source, where)
    except _DAMAGED as error:
        raise DataError(f"{where}: cannot be read: {error}") from error
    text = _repaired(ids_as_text(ids, f"{where}: ids"), source.id_repair).reset_index(drop=True)
    if len(text) == 0 or len(columns) == 0:
        raise DataError(f"{where}: expected embeddings (n, d), found {len(text)} rows of {len(columns)} columns")
    repeats = text.duplicated()
    if repeats.any():
        raise DataError(
            f"{where}: {text[repeats].nunique():,} ids occur more than once, {repeats.sum():,} rows too many: "
            f"{first_few(text[repeats].drop_duplicates())}; keep one row a galaxy"
        )
    return EmbeddingTable(where, text, columns, blocks, commit)


def _readable(table: EmbeddingTable) -> Iterator[NDArray[np.float32]]:
    try:
        yield from table.blocks()
    except _DAMAGED as error:
        raise DataError(f"{table.where}: cannot be read to its end, fetch it again: {error}") from error


def _repaired(ids: "pd.Series[str]", repair: IdRepair) -> "pd.Series[str]":
    match repair:
        case "none":
            return ids
        case "neg_to_minus":
            return ids.str.replace("NEG", "-", regex=False)
        case "minus_to_neg":
            return ids.str.replace("-", "NEG", regex=False)
        case _ as never:
            assert_never(never)


def _better_repair(source: EmbeddingSource, table: EmbeddingTable, ids: "pd.Series[str]", n_both: int) -> str:
    """Advice to repair the ids, if that would find more galaxies; else empty."""
    repairs: tuple[IdRepair, ...] = ("neg_to_minus", "minus_to_neg")
    for repair in repairs:
        n = int(_repaired(table.ids, repair).isin(ids).sum())
        if n > n_both and source.id_repair == "none":
            return f'with id_repair = "{repair}", {n:,} would be in both'
    return ""
