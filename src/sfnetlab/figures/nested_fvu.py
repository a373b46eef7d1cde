"""How much the first latents of nested dictionaries reconstruct by themselves: test FVU against their number."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from sfnetlab.figures import style
from sfnetlab.figures.dictionaries import dictionaries, dictionary_looks
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.figures.kinds import TRAINED_DICTIONARIES


def draw(findings: Findings) -> Figures:
    """Draw all dictionaries in one figure, where some are nested."""
    table = findings.gathered("reconstruction", dictionaries(findings))
    if table is not None and not table["is_whole"].all():
        yield "nested_fvu", plot_nested_fvu(table)


@style.paper_figure
def plot_nested_fvu(table: pd.DataFrame) -> Figure:
    """Draw the fraction of variance that the first latents alone leave unexplained on test rows, a panel a k.

    Curves are of dictionaries with several prefixes (Matryoshka). Lone markers are of dictionaries without prefixes,
    trained ones (filled) or null arms (open). Lines join means over seeds, small dots are the seeds. Latents are chosen
    among all, so a prefix has fewer active latents than the whole. FVU is about column means: 1 (thin line) is what
    predicting the means achieves. A k without a curve has no panel.

    Parameters
    ----------
    table : DataFrame
        Columns `features, kind, k, seed, split, n_latents, fvu`, a row a prefix; rows of other splits are left out.

    Raises
    ------
    ValueError
        If columns or test rows are missing, `n_latents` or `fvu` is not positive, or no dictionary has several
        prefixes.
    """
    style.require_columns(
        table, ("features", "kind", "k", "seed", "split", "n_latents", "fvu"), "the table of nested dictionaries"
    )
    rows = table[table["split"] == "test"]
    if rows.empty:
        raise ValueError(f"the table of nested dictionaries has no test rows; it has {sorted(table['split'].unique())}")
    if not (rows[["n_latents", "fvu"]] > 0).all(axis=None):
        raise ValueError("n_latents and fvu must be positive in every test row of the table of nested dictionaries")
    n_prefixes = rows.groupby(["k", "features"])["n_latents"].nunique()
    budgets = sorted(n_prefixes[n_prefixes > 1].index.unique("k"))
    if not budgets:
        raise ValueError("no dictionary has more than one prefix in the table of nested dictionaries")
    looks = dictionary_looks(rows)
    rows = rows[rows["k"].isin(budgets)]
    kinds = {str(name): str(kind) for name, kind in rows.groupby("features")["kind"].first().items()}
    labels = {name: style.wrapped(style.method_name(name, kind), 24) for name, kind in kinds.items()}
    fig, axes = style.panel_grid(len(budgets), "test FVU (fraction of variance)", labels.values())
    for ax, k in zip(axes, budgets, strict=True):
        curves = []
        for name in looks:
            of_method = rows[(rows["features"] == name) & (rows["k"] == k)]
            points = pd.DataFrame(
                {"x": of_method["n_latents"].astype(float), "y": of_method["fvu"], "seed": of_method["seed"]}
            )
            if len(points):
                curves.append(style.Curve(labels[name], looks[name], points, kinds[name] in TRAINED_DICTIONARIES))
        ax.axhline(1, color=style.GREY, linewidth=0.6, label="_means")
        ax.set_yscale("log")
        style.draw_budget_panel(ax, curves, "latents in the nested dictionary")
        ax.set_title(f"k = {k:g}")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7), numticks=20))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_locator(NullLocator())
    style.share_legend(fig, axes)
    return fig
