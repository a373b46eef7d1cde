"""How much of an embedding its reconstruction from few features explains: PCA and SAEs on the same footing."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings

_X_LABELS = {"n_components": "features kept in all", "l0": "kept features active per galaxy"}


def draw(findings: Findings) -> Figures:
    """Draw all decompositions in one figure."""
    explained = findings.gathered("explained_variance", findings.typical())
    if explained is not None:
        yield "explained_variance", plot_explained_variance(explained)


@style.paper_figure
def plot_explained_variance(table: pd.DataFrame) -> Figure:
    """Draw the explained variance against the features kept in all (left) and those active per galaxy (right).

    Lines join means over seeds, small dots are the seeds. A component of PCA is active in every galaxy, so its two
    budgets are one. 0 (thin line) is what the column means achieve.

    Parameters
    ----------
    table : DataFrame
        `interpret.ablation.explained_variance` with the columns `features, kind, k, seed` added (k NaN where there is
        none). `n_components` are the features kept (the others stay at one value and nothing is fitted again), `l0` is
        the mean number of kept features that a test galaxy activates, `explained_variance` 1 - FVU of the
        reconstruction about column means on test galaxies.

    Raises
    ------
    ValueError
        If columns or rows are missing, or a budget is not positive.
    """
    columns = ("features", "kind", "k", "seed", "n_components", "l0", "explained_variance")
    style.require_columns(table, columns, "the table of explained variance")
    rows = table[table["l0"] > 0]
    if rows.empty or (table["n_components"] <= 0).any():
        raise ValueError("n_components and l0 must be positive in the table of explained variance")
    kinds = {str(name): str(kind) for name, kind in rows.groupby("features", sort=True)["kind"].first().items()}
    peers = {kind: [name for name, its_kind in kinds.items() if its_kind == kind] for kind in kinds.values()}
    n_k = rows.groupby("features")["k"].nunique()
    labels: list[str] = []
    curves: list[tuple[style.MethodStyle, pd.DataFrame]] = []
    for name, kind in kinds.items():
        look = style.method_style(name, kind, peers[kind])
        of_name = rows[rows["features"] == name]
        for rank, (k, of_k) in enumerate(of_name.groupby("k", dropna=False)):
            marker = look.marker if n_k[name] < 2 else ("o", "s", "^", "D", "v", "P", "X", "*")[rank % 8]
            curves.append((style.MethodStyle(look.color, marker, look.linestyle), of_k))
            number = "" if pd.isna(k) else f", k = {k:g}"
            labels.append(style.wrapped(style.method_name(name, kind) + number, 24))
    fig, axes = style.panel_grid(2, "explained variance (1 - FVU, test)", labels)
    for ax, (column, x_label) in zip(axes, _X_LABELS.items(), strict=True):
        for (look, of_k), label in zip(curves, labels, strict=True):
            _draw(ax, of_k, column, look, label)
        ax.axhline(0, color=style.GREY, linewidth=0.6, label="_means")
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(x_label)
    low = float(rows["explained_variance"].min())
    axes[0].set_ylim(min(-0.03, 1.1 * low), 1.03)
    style.share_legend(fig, axes)
    return fig


def _draw(ax: Axes, rows: pd.DataFrame, column: str, look: style.MethodStyle, label: str) -> None:
    mean = rows.groupby("n_components", sort=True)[["l0", "explained_variance"]].mean().reset_index()
    ax.plot(
        mean[column], mean["explained_variance"], color=look.color, marker=look.marker, linestyle=look.linestyle,
        label=label, markersize=3.2,
    )  # fmt: skip
    if len(rows["seed"].unique()) > 1:
        ax.plot(
            rows[column], rows["explained_variance"], linestyle="none", marker=".", markersize=2.5, color=look.color,
            label="_seeds",
        )  # fmt: skip
