"""Whether a catalogue holds what an experiment wants of it: asked before cutouts are decoded and networks trained."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from sfnetlab.errors import DataError
from sfnetlab.plan import Wanted
from sfnetlab.surveys.catalog import add_line_logs, columns_as_floats, target_rows
from sfnetlab.surveys.messages import did_you_mean, first_few


def require_wanted(catalog: pd.DataFrame, wanted: Wanted) -> None:
    """Refuse a catalogue that lacks a target, classes, rare galaxies or columns of features of the experiment.

    A target is lacking if one of its columns is missing, text, without any value or constant within the target's cut;
    classes are if their column is missing or holds fewer than two of them; columns of features are if they are missing,
    text or without any value. How many galaxies each part of the split has is not asked here.

    Parameters
    ----------
    catalog : DataFrame
        With typed columns.

    Raises
    ------
    DataError
        With a line for each thing that is lacking.
    """
    problems = []
    for check in _checks(add_line_logs(catalog), wanted):
        try:
            check()
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))


def _checks(catalog: pd.DataFrame, wanted: Wanted) -> Iterator[Callable[[], object]]:
    from sfnetlab.interpret.yields import rare_flags
    from sfnetlab.stages.class_probes import numbers_and_names

    for name, target in wanted.targets.items():
        yield lambda name=name, target=target: target_rows(catalog, target, f"targets.{name}")
    for name, classes in wanted.classes.items():
        yield lambda name=name, classes=classes: numbers_and_names(catalog, name, classes)
    for name, rare in wanted.rare.items():
        yield lambda name=name, rare=rare: rare_flags(
            catalog, rare.column, above=rare.above, below=rare.below, where=f"rare.{name}"
        )
    for name, columns in wanted.features.items():
        yield lambda name=name, columns=columns: _require_columns(catalog, name, columns)


def _require_columns(catalog: pd.DataFrame, name: str, columns: tuple[str, ...]) -> None:
    absent = [column for column in columns if column not in catalog]
    if absent:
        known = catalog.columns.tolist()
        near = did_you_mean(absent[0], known) or f"known columns: {first_few(known, 30)}"
        raise DataError(
            f"features {name!r}: the catalogue has no column {', '.join(absent)}; name its own in the settings of this "
            f"[[features]] (`sfnetlab schema` lists them); {near}"
        )
    values = columns_as_floats(catalog, columns, f"features {name!r}")
    empty = [column for column, numbers in zip(columns, values, strict=True) if np.isnan(numbers).all()]
    if empty:
        raise DataError(f"features {name!r}: no galaxy has a value of {', '.join(empty)}; leave such columns out")
