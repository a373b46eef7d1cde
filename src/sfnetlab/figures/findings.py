"""What figures may see of results: tables and arrays, never a path. `sfnetlab.results` is made to fit.

`draw(findings)` of a figure's file yields the figures that these findings have data for, by name.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.figures.kinds import DICTIONARIES, EMBEDDINGS
from sfnetlab.jobs import TableSpec
from sfnetlab.methods import Traits
from sfnetlab.metrics.method_scores import with_method_intervals
from sfnetlab.metrics.selection import are_chosen, chosen_on_valid
from sfnetlab.settings import Target

Figures = Iterator[tuple[str, Figure | bytes]]
"""Names of files, without ending, and what they show; bytes are an animated GIF."""
Ids = Sequence[str] | pd.Series | NDArray[np.str_]


class TableFindings(Protocol):
    """A feature table and what was found about it; see `results.TableResult`."""

    @property
    def spec(self) -> TableSpec: ...
    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def traits(self) -> Traits: ...
    @property
    def head_target(self) -> str | None: ...
    @property
    def is_another_view(self) -> bool: ...
    @property
    def held_fixed(self) -> tuple[str, ...]: ...
    @property
    def history(self) -> pd.DataFrame | None: ...
    def values(self, ids: Ids) -> Any: ...
    def read(self, name: str) -> pd.DataFrame | None: ...
    def need(self, name: str) -> pd.DataFrame: ...
    def read_array(self, name: str) -> NDArray[Any] | None: ...
    def strongest(self, feature: int, n: int = 10) -> "pd.Series[str]": ...


class Training(Protocol):
    """A result that was trained; see `results.Record`."""

    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...


class Findings(Protocol):
    """What was found in one experiment; see `results.Results`."""

    @property
    def targets(self) -> Mapping[str, Target]: ...
    @property
    def two_classes(self) -> tuple[str, ...]: ...
    @property
    def many_classes(self) -> tuple[str, ...]: ...
    @property
    def budgets(self) -> tuple[int, ...]: ...
    @property
    def catalog(self) -> pd.DataFrame: ...
    @property
    def has_images(self) -> bool: ...
    @property
    def pixel_scale_arcsec(self) -> float | None: ...
    @property
    def tables(self) -> Sequence[TableFindings]: ...
    @property
    def related(self) -> Mapping[str, TableSpec]: ...
    def cutouts(self, ids: Ids) -> NDArray[np.uint8]: ...
    def typical(
        self, *, every_view: bool = False, of: Callable[[Any], bool] | None = None
    ) -> Sequence[TableFindings]: ...
    def gathered(self, name: str, tables: Iterable[Any] | None = None) -> pd.DataFrame | None: ...
    def comparison(self, name: str = "metrics") -> pd.DataFrame | None: ...
    def stability(self) -> pd.DataFrame | None: ...
    def histories(self, *stages: str) -> Sequence[tuple[Training, pd.DataFrame]]: ...
    def relations(self, name: str) -> pd.DataFrame | None: ...
    def views(self, name: str) -> pd.DataFrame | None: ...
    def view_examples(self) -> NDArray[np.uint8]: ...


Draw = Callable[[Findings], Figures]
"""What each figure's file has under the name `draw`."""


def compared(findings: Findings, name: str = "metrics") -> pd.DataFrame | None:
    """Return a table of the comparison without the methods that stand in the figures of views alone.

    Test rows of `metrics` have the interval of their method, over galaxies and runs. None where there is no such table;
    see `results.Results.comparison`.
    """
    table = findings.comparison(name)
    if table is None:
        return None
    if name == "metrics" and (methods := findings.comparison("methods")) is not None:
        table = with_method_intervals(table, methods)
    others = {other.spec.features for other in findings.tables if other.is_another_view}
    names = [column for column in ("features", "features_a", "features_b") if column in table]
    return table[~table[names].isin(others).any(axis=1)]


def rows_of(catalog: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the galaxies of one part of the split."""
    return catalog[(catalog["split"] == split).to_numpy()]


def dictionaries(findings: Findings) -> Sequence[TableFindings]:
    """Return the tables of all dictionaries, of every k and seed."""
    return [table for table in findings.tables if table.spec.kind in DICTIONARIES]


def every_seed(findings: Findings) -> Sequence[TableFindings]:
    """Return the typical table of each method, in every seed."""
    drawn = {(table.spec.features, table.spec.k) for table in findings.typical()}
    return [table for table in findings.tables if (table.spec.features, table.spec.k) in drawn]


def methods_of(tables: Sequence[TableFindings]) -> Sequence[TableFindings]:
    """Return the tables of methods, without embeddings that are there to be decomposed; all if there are no others."""
    return [table for table in tables if table.spec.kind not in EMBEDDINGS] or tables


def best_on_valid(
    findings: Findings, tables: Sequence[TableFindings], target: str | None = None
) -> TableFindings | None:
    """Return which of some tables stands for all of them in a figure: the one with the best probe on valid galaxies.

    The rule is `metrics.selection.chosen_on_valid`. Where no probe was scored on valid galaxies the first table stands;
    None without any.

    Parameters
    ----------
    tables
        Tables of one seed.
    target
        Of which target; None: the first one.
    """
    if not tables:
        return None
    target = target or next(iter(findings.targets))
    metrics = compared(findings)
    if metrics is None:
        return tables[0]
    shown = pd.DataFrame([{"features": table.spec.features, "k": table.spec.k} for table in tables])
    rows = metrics[metrics["target"] == target]
    rows = rows[are_chosen(rows, shown)]
    best = chosen_on_valid(rows, ("target",), ("features", "k", "probe", "n_features_used"))
    is_best = are_chosen(shown, best[["features", "k"]]).to_numpy()
    return next((table for table, chosen in zip(tables, is_best, strict=True) if chosen), tables[0])
