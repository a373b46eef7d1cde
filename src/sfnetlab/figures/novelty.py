"""How much of the features that recur no label explains: densities over features, beside permuted galaxies."""

import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.alignment import By, Quantity, differ, methods_of, plot_unit_densities
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.figures.kinds import TRAINED_DICTIONARIES


def draw(findings: Findings) -> Figures:
    """Draw all methods in one figure, and dictionaries by their prefixes, where features of some group differ."""
    alignment = findings.gathered("alignment", findings.typical())
    if alignment is None:
        return
    by_feature = methods_of(alignment)
    if differ(by_feature, "features", "novelty"):
        yield "novelty", plot_novelty(by_feature, "features")
    latents = alignment[alignment["kind"].isin(TRAINED_DICTIONARIES)]
    if differ(latents, "matryoshka_group", "novelty"):
        yield "novelty_by_prefix", plot_novelty(latents, "matryoshka_group")


@style.paper_figure
def plot_novelty(table: pd.DataFrame, by: By) -> Figure:
    """Draw the density over features of the variance that all labels together do not explain on test galaxies.

    Curves and panels are those of `plot_alignment`. Dotted lines, near 1, are of galaxies permuted against labels.

    Parameters
    ----------
    table : DataFrame
        Rows of `interpret.alignment.align_features` (`novelty`, `null_novelty`) with `features` and `kind`; seeds are
        pooled.
    by : {"features", "group", "matryoshka_group"}
        What a curve is.

    Raises
    ------
    ValueError
        If columns or rows are missing, or no curve has two different values.
    """
    words = Quantity(
        "novelty",
        "null_novelty",
        "variance that labels do not explain of features\nthat another seed finds (1 - R², test)",
        "the novelty table",
    )
    return plot_unit_densities(table, by, words)
