"""Confusion matrices of classifiers on test galaxies, a row a feature table and a column a classifier."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, compared
from sfnetlab.figures.kinds import predicts_the_mean
from sfnetlab.methods import TRAITS
from sfnetlab.probes import ProbeKind, probes_of

_COLUMNS = ("features", "k", "seed", "probe", "n_features_used", "target", "split", "metric", "value")
_COUNTS = ("true_negative", "false_positive", "false_negative", "true_positive")
BUDGET = 4
"""Features of the matrices at the right, where classifiers were fitted on so many."""
N_TABLES = 5
"""Feature tables of a figure; more only where there are more kinds."""


def draw(findings: Findings) -> Figures:
    """Draw a figure for each two classes, of a few feature tables."""
    metrics = compared(findings)
    if metrics is None:
        return
    for name in findings.two_classes:
        of_target = metrics[metrics["target"] == name]
        shown = _shown(of_target)
        budgets = sorted(set(of_target["n_features_used"]) & set(findings.budgets))
        if shown and budgets:
            budget = BUDGET if BUDGET in budgets else budgets[-1]
            figure = plot_confusion_matrices(metrics, name, shown, budget, (f"not {name}", name))
            yield f"confusion-{name}", figure


def _shown(metrics: pd.DataFrame) -> list[str]:
    """Return a feature table of each kind, and more while there is room, from networks to controls."""
    rows = metrics[metrics["probe"].isin([kind.name for kind in _classifiers()]) & metrics["kind"].isin(list(TRAITS))]
    tables = rows[~predicts_the_mean(rows)].drop_duplicates("features")
    nth = tables.groupby("kind").cumcount()
    tables = tables.assign(nth=nth, rank=[-TRAITS[kind].rank for kind in tables["kind"]])
    n = max(N_TABLES, tables["kind"].nunique())
    return tables.sort_values(["nth", "rank"]).head(n).sort_values(["rank", "nth"])["features"].tolist()


def _classifiers() -> list[ProbeKind]:
    """Return the classifiers that look at features, in the order of columns."""
    return [kind for kind in probes_of("two_classes") if not kind.is_control]


@style.paper_figure
def plot_confusion_matrices(
    metrics: pd.DataFrame, target: str, features: Sequence[str], budget: int, class_names: tuple[str, str]
) -> Figure:
    """Draw the shares of each true class by predicted class, a row a feature table and a column a classifier.

    Classifiers at the left use all features, those at the right the best `budget` of them. Cells show the share of the
    true class and the number of galaxies, means over seeds; above each matrix stand F1 and AUC. Of several k the
    largest is drawn. Tables without that budget (photometry) have empty places.

    Parameters
    ----------
    metrics : DataFrame
        `metrics.parquet` of fit-probes with the confusion counts, f1 and auc of the classes.
    target : str
        Name of the classes.
    features : sequence of str
        Which feature tables, top to bottom.
    budget : int
        Number of features of the right-hand columns.
    class_names : (str, str)
        Names of the negative and of the positive class.

    Raises
    ------
    ValueError
        If columns are missing or a feature table has no classifiers.
    """
    style.require_columns(metrics, _COLUMNS, "the metrics table")
    kinds = _classifiers()
    rows = metrics[(metrics["target"] == target) & (metrics["split"] == "test")]
    rows = rows[rows["probe"].isin([kind.name for kind in kinds])]
    panels: list[list[pd.DataFrame]] = []
    shown = [
        (kind, is_budget)
        for is_budget in (False, True)
        for kind in kinds
        if (rows["probe"] == kind.name).any() and (kind.on_budgets if is_budget else kind.on_all)
    ]
    for name in features:
        of_method = rows[rows["features"] == name]
        if of_method.empty:
            raise ValueError(
                f"{name!r} has no classifiers for {target!r}; the table has {sorted(set(rows['features']))}"
            )
        of_method = of_method[of_method["k"].isna() | (of_method["k"] == of_method["k"].max())]
        most = of_method.groupby("seed", dropna=False)["n_features_used"].transform("max")
        on_budget = (of_method["n_features_used"] == budget) & (of_method["n_features_used"] < most)
        parts = {False: of_method[of_method["n_features_used"] == most], True: of_method[on_budget]}
        panels.append([parts[is_budget][parts[is_budget]["probe"] == kind.name] for kind, is_budget in shown])
    width_in = style.PAGE_WIDTH_IN if len(shown) > 3 else 0.7 * style.PAGE_WIDTH_IN
    side_in = min(1.25, (width_in - 1.1) / len(shown))
    fig = Figure(figsize=(width_in, (side_in + 0.34) * len(features) + 0.75), layout="constrained")
    axes = fig.subplots(len(features), len(shown), squeeze=False)
    headed: set[int] = set()
    for i, name in enumerate(features):
        for j, (kind, is_budget) in enumerate(shown):
            ax = axes[i, j]
            if not _draw_matrix(ax, panels[i][j], class_names):
                ax.axis("off")
                continue
            if j not in headed:
                headed.add(j)
                which = f"best {budget}" if is_budget else "all features"
                ax.set_title(f"{kind.heading},\n{which}\n{ax.get_title()}")
            if j == 0:
                ax.set_ylabel(f"{style.wrapped(name, 16)}\ntrue class")
            else:
                ax.set_yticklabels([])
            if i == len(features) - 1:
                ax.set_xlabel("predicted class")
    return fig


def _draw_matrix(ax: Axes, rows: pd.DataFrame, class_names: tuple[str, str]) -> bool:
    means = rows.groupby("metric")["value"].mean()
    if not set(_COUNTS) <= set(means.index):
        return False
    counts = means[list(_COUNTS)].to_numpy(dtype=float).reshape(2, 2)
    shares = counts / counts.sum(axis=1, keepdims=True)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), share in np.ndenumerate(shares):
        color = "white" if share > 0.55 else "black"
        text = f"{100 * share:.0f} %\n{counts[i, j]:,.0f}"
        ax.text(j, i, text, ha="center", va="center", color=color, fontsize=style.SMALL_PT)
    ax.set_xticks([0, 1], labels=class_names)
    ax.set_yticks([0, 1], labels=class_names, rotation=90, va="center")
    ax.tick_params(length=0)
    ax.set_title(f"AUC {means['auc']:.2f}, F1 {means['f1']:.2f}", fontsize=style.SMALL_PT)
    return True
