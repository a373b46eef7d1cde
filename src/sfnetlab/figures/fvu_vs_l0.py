"""How well dictionaries reconstruct embeddings at equal sparsity: test FVU against L0."""

import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style


@style.paper_figure
def plot_fvu_vs_l0(table: pd.DataFrame) -> Figure:
    """Fraction of variance unexplained on test rows, for SAEs with k active latents and PCA with k components.

    Points are means over seeds, small dots the seeds. FVU is about column means: 1 is what predicting the means
    achieves.

    Parameters
    ----------
    table : DataFrame
        Columns `features, kind, k, seed, split, fvu`; rows of other splits are left out.

    Raises
    ------
    ValueError
        If columns or test rows are missing, or `k` or `fvu` is not finite.
    """
    style.require_columns(table, ("features", "kind", "k", "seed", "split", "fvu"), "the FVU table")
    rows = table[table["split"] == "test"].astype({"k": float, "fvu": float})
    if rows.empty:
        raise ValueError(f"the FVU table has no test rows; its splits are {sorted(table['split'].unique())}")
    if not (rows["k"] > 0).all() or rows["fvu"].isna().any():
        raise ValueError("k must be positive and fvu finite in every test row of the FVU table")
    curves = []
    for kind, names in rows.groupby("kind")["features"].unique().items():
        for name in sorted(names):
            own = rows[rows["features"] == name].rename(columns={"k": "x", "fvu": "y"})
            label = style.wrapped(style.method_name(name, str(kind)), 40)
            curves.append(style.Curve(label, style.method_style(name, str(kind), names), own))
    height_in = 2.6 + style.legend_height_in(curve.label for curve in curves)
    fig = Figure(figsize=(style.COLUMN_WIDTH_IN, height_in), layout="constrained")
    ax = fig.subplots()
    style.draw_budget_panel(ax, curves, "active latents per galaxy (L0), or components")
    ax.set_ylim(0, max(1.0, ax.get_ylim()[1]))
    ax.set_ylabel("test FVU (fraction of variance)")
    return fig
