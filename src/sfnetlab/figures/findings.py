"""What figures may see of results: tables and arrays, never a path. `sfnetlab.results` is made to fit.

`draw(findings)` of a figure's file yields the figures that these findings have data for, by name.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.jobs import TableSpec
from sfnetlab.methods import Traits
from sfnetlab.metrics.method_scores import with_method_intervals
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
