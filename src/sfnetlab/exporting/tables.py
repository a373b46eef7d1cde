"""Feature tables, their predictions and the catalogues of their features, as tables that other programs read."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sfnetlab.artifacts import read_features
from sfnetlab.descriptions import About, about
from sfnetlab.exporting.items import Item
from sfnetlab.results import Record, TableResult
from sfnetlab.surveys import files

_BLOCK_ROWS = 8192
_SPELT = str.maketrans(
    {
        "°": " deg",
        "²": "2",
        "α": "alpha",
        "β": "beta",
        "×": "x",
        "–": "-",
        "−": "-",
        "ρ": "rho",
        "σ": "sigma",
        "±": "+-",
        "≥": ">=",
    }
)
"""Signs of our labels of transforms and warnings."""
_ELSEWHERE = {
    ("prepare-survey", "catalog"),
    ("prepare-survey", "bad_images"),
    ("prepare-survey", "without_embedding"),
    ("interpret-features", "features"),
    ("fit-probes", "predictions"),
}
"""Tables that are exported by a name of their own, and lists of what is no galaxy of the survey."""


def feature_items(table: TableResult, form: files.Format, *, wide: bool) -> Iterator[Item]:
    """Yield the features of all galaxies: a column a feature, of sparse tables that are not wide a row an activation.

    They are written in blocks, so that all of them need not fit into memory.
    """

    def write(path: Path) -> dict[str, About]:
        rows, values = read_features(table.source.directory)  # table.stored would stay in memory
        if not sparse.issparse(values):
            content = _dense_rows(table.name, rows, values, table.names)
        elif wide:
            content = _used_rows(table.name, rows, values)
        else:
            content = _long_rows(rows, values)
        return files.write_table(path, content, form)

    yield Item(f"features/{table.name}.{form}", table.source, write)


def prediction_items(table: TableResult, form: files.Format) -> Iterator[Item]:
    """Yield the predictions for test galaxies, a column a label, probe and number of features."""
    probes = table.record("probes")
    if probes is not None and (predictions := probes.read("predictions")) is not None:
        content = files.rows_of_frame(wide_predictions(predictions), _of_predictions(predictions))
        yield Item(f"predictions/{table.name}.{form}", probes, partial(files.write_table, table=content, form=form))


def description_items(table: TableResult, form: files.Format) -> Iterator[Item]:
    """Yield the catalogue of the features, a row a feature."""
    description = table.record("description")
    if description is not None and (description.directory / "features.parquet").exists():
        yield _item(f"feature_catalogs/{table.name}.{form}", description, "features.parquet", form)


def evidence_items(records: Iterable[Record], form: files.Format) -> Iterator[Item]:
    """Yield every other table of some results, `evidence/<stage>/<name>/<table>`, called as in the results folder."""
    for record in records:
        for path in sorted(chain(record.directory.glob("*.parquet"), record.directory.glob("*.csv"))):
            if (record.stage, path.stem) not in _ELSEWHERE and path.stem != "rows":
                yield _item(f"evidence/{record}/{path.stem}.{form}", record, path.name, form)


def _item(name: str, record: Record, file: str, form: files.Format) -> Item:
    """The table in a file of a result, as it is, but for signs of our own words in FITS."""

    def write(path: Path) -> dict[str, About]:
        stored = record.directory / file
        table = pd.read_csv(stored) if stored.suffix == ".csv" else pd.read_parquet(stored)
        content = files.rows_of_frame(in_ascii(table) if form == "fits" else table, name=stored.stem)
        return files.write_table(path, content, form)

    return Item(name, record, write)


def in_ascii(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the signs of our own words spelt out, for FITS."""
    texts = table.select_dtypes(["object", "string"])
    return table.assign(**{str(name): texts[name].str.translate(_SPELT) for name in texts})


def wide_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return a row a test galaxy: `<target>_<column>_true`, and `<target>_<column>_<probe>_<n features>` a prediction.

    Parameters
    ----------
    predictions : DataFrame
        `predictions.parquet` of fit-probes: a row a prediction.
    """
    label = predictions["target"] + "_" + predictions["column"]
    probe = "_" + predictions["probe"] + "_" + predictions["n_features_used"].astype(str)
    truth = predictions.assign(name=label + "_true", value=predictions["y_true"])
    predicted = predictions.assign(name=label + probe, value=predictions["y_pred"])
    both = pd.concat([truth.drop_duplicates(["id_str", "name"]), predicted])
    wide = both.set_index(["id_str", "name"])["value"].unstack()[both["name"].drop_duplicates()]  # noqa: PD010
    return wide.rename_axis(columns=None).reset_index()


def _of_predictions(predictions: pd.DataFrame) -> dict[str, str]:
    """What the columns of `wide_predictions` mean, by name."""
    described: dict[str, str] = {}
    names = predictions[["target", "column", "probe", "n_features_used"]].drop_duplicates()
    for target, column, probe, n_features in names.itertuples(index=False):
        described[f"{target}_{column}_true"] = f"{column} by the catalogue (target {target})"
        described[f"{target}_{column}_{probe}_{n_features}"] = f"{column} by {probe} on {n_features} features"
    return described


def _dense_rows(name: str, rows: pd.DataFrame, values: Any, columns: list[str]) -> files.TableBlocks:
    """`id_str, split` and a column a feature; those of which nothing else is known are described by their name."""
    rows = rows[["id_str", "split"]]
    described = {column: f"{column.replace('_', ' ')} of {name}" for column in columns if not any(about(column))}

    def blocks() -> Iterator[pd.DataFrame]:
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = values[start : start + _BLOCK_ROWS]
            block = np.asarray(block.toarray() if sparse.issparse(block) else block)
            ids = rows.iloc[start : start + _BLOCK_ROWS].reset_index(drop=True)
            yield pd.concat([ids, pd.DataFrame(block, columns=columns)], axis=1)

    return files.TableBlocks(len(rows), blocks(), files.text_widths(rows), n_scalars=2, described=described)


def _used_rows(name: str, rows: pd.DataFrame, values: Any) -> files.TableBlocks:
    """`id_str, split` and a column a feature that is active anywhere."""
    used = np.flatnonzero(np.bincount(values.indices[values.data != 0], minlength=values.shape[1]))
    return _dense_rows(name, rows, values[:, used], [f"feature_{i}" for i in used])


def _long_rows(rows: pd.DataFrame, values: Any) -> files.TableBlocks:
    """`id_str, feature, activation`: a row for each feature that is active in a galaxy."""
    csr = sparse.csr_array(values)
    csr.eliminate_zeros()
    ids = rows["id_str"]

    def blocks() -> Iterator[pd.DataFrame]:
        for start in range(0, len(ids), _BLOCK_ROWS):
            end = min(start + _BLOCK_ROWS, len(ids))
            entries = slice(csr.indptr[start], csr.indptr[end])
            owner = np.repeat(np.arange(start, end), np.diff(csr.indptr[start : end + 1]))
            yield pd.DataFrame(
                {
                    "id_str": ids.iloc[owner].reset_index(drop=True),
                    "feature": csr.indices[entries].astype(np.int32),
                    "activation": csr.data[entries],
                }
            )

    return files.TableBlocks(csr.nnz, blocks(), files.text_widths(rows[["id_str"]]), name="sparse")
