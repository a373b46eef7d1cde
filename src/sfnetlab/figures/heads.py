"""What the own heads of networks predict for test galaxies: what several figures of predictions share."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from sfnetlab.figures.findings import Findings, TableFindings, best_on_valid
from sfnetlab.metrics.tidy import HEAD


@dataclass(frozen=True)
class Head:
    """The head of one network.

    Attributes
    ----------
    table : TableFindings
        The features that it reads.
    columns : tuple of str
        The label columns that it predicts.
    predictions : DataFrame
        A row a test galaxy and column: `id_str`, `column`, `y_true`, `y_pred` and others.
    """

    table: TableFindings
    columns: tuple[str, ...]
    predictions: pd.DataFrame

    @property
    def title(self) -> str:
        """What figures call the network."""
        spec = self.table.spec
        return spec.features if spec.k is None else f"{spec.features} k = {spec.k}"

    def of(self, column: str) -> pd.DataFrame:
        """Return the predictions of one label column."""
        return self.predictions[self.predictions["column"] == column]


def heads(findings: Findings) -> Iterator[Head]:
    """Yield the head of the typical table of each network that has one."""
    for table in findings.typical():
        if table.head_target is not None:
            rows = table.need("predictions")
            rows = rows[(rows["target"] == table.head_target) & (rows["probe"] == HEAD)]
            yield Head(table, findings.targets[table.head_target].columns, rows)


def best_heads(findings: Findings) -> Iterator[tuple[Head, str]]:
    """Yield each label column that heads predict, with the head that stands for all that do: see `best_on_valid`."""
    by_target: dict[str, list[Head]] = {}
    for head in heads(findings):
        by_target.setdefault(str(head.table.head_target), []).append(head)
    for target, of_target in by_target.items():
        best = best_on_valid(findings, [head.table for head in of_target], target)
        head = next(head for head in of_target if head.table is best)
        for column in head.columns:
            yield head, column
