"""HATS catalogues, which LSDB reads: the survey and each feature table, partitioned by place on the sky."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sfnetlab.artifacts import FeatureTable
from sfnetlab.errors import ConfigError, DataError
from sfnetlab.exporting.items import Item
from sfnetlab.results import Results, TableResult

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

PARTITION_ROWS = 100_000
"""A partition has at most so many galaxies."""


def hats_items(results: Results, tables: Sequence[TableResult]) -> Iterator[Item]:
    """Yield `hats/catalog`, and `hats/<table>` with the positions, the split and the features of each galaxy.

    Dense features are one column of lists, `features`. Of sparse ones `feature` lists the numbers of the features that
    are active in a galaxy, and `activation` their values. Galaxies without a position are left out, which is logged.

    Raises
    ------
    ConfigError
        If LSDB is not installed.
    DataError
        If the survey has no positions.
    """
    try:
        import lsdb  # noqa: F401 - it takes seconds, and is asked for before anything is written
    except ModuleNotFoundError:
        raise ConfigError("--format hats needs LSDB: uv sync --extra hats") from None
    source, catalog = results.record("prepare-survey"), results.survey.catalog
    if not {"ra", "dec"} <= set(catalog):
        raise DataError("--format hats: a HATS catalogue is sorted by position, and the survey has no ra and dec")
    has_position = catalog[["ra", "dec"]].notna().all(axis=1)
    if not has_position.all():
        log.warning("%d of %d galaxies have no position and are left out", (~has_position).sum(), len(catalog))
    placed = catalog[has_position].reset_index(drop=True)
    yield Item("hats/catalog", source, partial(_write, frame=placed))
    for table in tables:
        yield Item(f"hats/{table.name}", table.source, partial(_write_features, table=table, catalog=placed))


def _write_features(path: Path, table: TableResult, catalog: pd.DataFrame) -> None:
    rows, values = table.stored.rows, table.stored.values
    catalog = catalog[catalog["id_str"].isin(rows["id_str"])].reset_index(drop=True)
    frame = catalog[["id_str", "ra", "dec", "split"]]
    _write(path, frame.assign(**_lists(FeatureTable(rows, values).of(catalog["id_str"]))))


def _lists(values: Any) -> dict[str, "pd.Series[Any]"]:
    """Columns of lists that hold the features (n, d) of n galaxies, dense or sparse."""
    import pyarrow as pa

    if not sparse.issparse(values):
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
        return {"features": _series(pa.FixedSizeListArray.from_arrays(flat, values.shape[1]))}
    csr = sparse.csr_array(values)
    csr.eliminate_zeros()
    ends = pa.array(csr.indptr.astype(np.int64))
    columns = {"feature": csr.indices.astype(np.int32), "activation": csr.data}
    return {name: _series(pa.LargeListArray.from_arrays(ends, pa.array(each))) for name, each in columns.items()}


def _series(array: "pa.Array") -> "pd.Series[Any]":
    return pd.Series(array, dtype=pd.ArrowDtype(array.type))


def _write(path: Path, frame: pd.DataFrame) -> None:
    """Write a catalogue with `ra` and `dec`, whole in memory, into a new folder."""
    import lsdb

    with (
        warnings.catch_warnings(),
        open(os.devnull, "w") as silent,
        contextlib.redirect_stdout(silent),
        contextlib.redirect_stderr(silent),
    ):
        warnings.simplefilter("ignore")  # of the library about pandas
        catalog = lsdb.from_dataframe(
            frame, ra_column="ra", dec_column="dec", catalog_name=path.name, partition_rows=PARTITION_ROWS
        )
        catalog.write_catalog(path, catalog_name=path.name, as_collection=False, progress_bar=False)
