"""How much of the features no label explains, as densities beside what permuted galaxies give."""

import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.alignment import By, Quantity, plot_unit_densities


@style.paper_figure
def plot_novelty(table: pd.DataFrame, by: By) -> Figure:
    """Density over features of the variance that all labels together do not explain on test galaxies.

    Drawn and divided as in `plot_alignment`; the null (dotted, near 1) is of galaxies permuted against labels.

    Parameters
    ----------
    table : DataFrame
        Rows of `interpret.alignment.align_features` (`novelty`, `null_novelty`) with `features` and `kind`; seeds are
        pooled.
    by : {"features", "group", "matryoshka_group"}

    Raises
    ------
    ValueError
        As `plot_alignment`.
    """
    words = Quantity(
        "novelty", "null_novelty", "variance that labels do not explain\n(1 - R², test)", "the novelty table"
    )
    return plot_unit_densities(table, by, words)
