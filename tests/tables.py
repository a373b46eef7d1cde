"""Tables of the lab in files of other programs, as astropy's users read them."""

from pathlib import Path

import numpy as np
import pandas as pd
from astropy.table import Table


def read_by_astropy(path: Path) -> Table:
    """The table of a file; of CSV astropy must be told the dialect, for there it guesses."""
    settings = {"format": "ascii.csv", "guess": False, "fast_reader": False} if path.suffix == ".csv" else {}
    return Table.read(path, **settings)


def values_of(column: object) -> list[object]:
    """The values of a column of astropy or pandas, None where missing, numbers as floats where they are numbers."""
    values = []
    for value in column:  # type: ignore[attr-defined]
        if value is np.ma.masked or value is None or pd.isna(value) or value == "":
            values.append(None)
        else:
            try:
                values.append(float({"True": 1, "False": 0}.get(str(value), value)))
            except ValueError:
                values.append(str(value))
    return values


def assert_holds(path: Path, frame: pd.DataFrame) -> None:
    """Assert that astropy reads the columns and values of a table from a file."""
    table = read_by_astropy(path)
    assert table.colnames == [str(name) for name in frame], path
    for name in frame:
        found, expected = values_of(table[str(name)]), values_of(frame[name])
        if frame[name].dtype == np.float32:  # CSV has the shortest text that gives the same number of 32 bits
            found = [None if value is None else float(np.float32(value)) for value in found]  # type: ignore[arg-type]
        assert found == expected, (path, name)
