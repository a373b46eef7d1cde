"""How well the features of each method tell many classes apart, and which class is taken for which."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, compared
from sfnetlab.probes import probes_of, standing_for

_SHIFT = 0.12
"""How far the outer classifiers are from the middle of a method's row."""
N_CONFUSED = 6
"""Methods whose confusions are shown."""


def draw(findings: Findings) -> Figures:
    """Draw scores and confusions for each set of labels, confusions of the methods that are best on valid galaxies."""
    metrics, confusions = compared(findings), findings.gathered("confusion", findings.typical())
    if metrics is None:
        return
    (shown_probe, *_) = standing_for("many_classes")
    for name in findings.many_classes:
        yield from style.drawn(f"label_scores-{name}", plot_label_scores, metrics, name)
        if confusions is not None:
            of_target = metrics[
                (metrics["target"] == name) & (metrics["split"] == "valid") & (metrics["probe"] == shown_probe)
            ]
            scores = of_target[of_target["metric"] == "balanced_accuracy"].groupby("features")["value"].max()
            best = scores.sort_values(ascending=False).index
            shown = [features for features in best if features in set(confusions["features"])][:N_CONFUSED]
            yield f"label_confusion-{name}", plot_label_confusion(confusions, name, shown)


@style.paper_figure
def plot_label_scores(metrics: pd.DataFrame, target: str) -> Figure:
    """Draw the test balanced accuracy of each method on all its features: mean over seeds, interval over both.

    The first classifier has filled markers, the others open ones; of several k the largest is drawn. The line is the
    score of always naming the majority, one over the number of classes.

    Parameters
    ----------
    metrics : DataFrame
        `metrics.parquet` of fit-probes with the balanced accuracies of the labels.
    target : str
        Name of the labels.

    Raises
    ------
    ValueError
        If columns are missing, or there is no such target.
    """
    wanted = ("features", "kind", "k", "seed", "probe", "n_features_used", "target", "split", "metric", "value")
    style.require_columns(metrics, (*wanted, "low", "high"), "the metrics table")
    rows = metrics[
        (metrics["target"] == target) & (metrics["split"] == "test") & (metrics["metric"] == "balanced_accuracy")
    ]
    probes = [kind for kind in probes_of("many_classes") if kind.on_all]
    (control,) = (kind for kind in probes_of("many_classes") if kind.is_control)
    chance = rows.loc[rows["probe"] == control.name, "value"]
    rows = _on_all_features(rows[rows["probe"].isin([kind.name for kind in probes])])
    if rows.empty or chance.empty:
        raise style.EmptyFigureError(f"the metrics table has no balanced accuracies of {target!r}")
    best = rows.groupby("features")["value"].max().sort_values(ascending=False)
    kinds = rows.groupby("features")["kind"].first()
    fig = Figure(figsize=(0.75 * style.PAGE_WIDTH_IN, 1.0 + 0.24 * len(best)), layout="constrained")
    ax = fig.subplots()
    for place, name in enumerate(best.index):
        look = style.method_style(str(name), kinds[name], kinds.index[kinds == kinds[name]])
        for shift, probe in zip(np.linspace(-_SHIFT, _SHIFT, len(probes)), probes, strict=True):
            mean = rows[(rows["features"] == name) & (rows["probe"] == probe.name)][["value", "low", "high"]].mean()
            ax.hlines(place + shift, mean["low"], mean["high"], color=look.color, linewidth=1.0)
            ax.plot(
                mean["value"], place + shift, marker=look.marker, color=look.color, linestyle="none",
                markerfacecolor=look.color if probe == probes[0] else "white", label=f"{name}, {probe.name}",
            )  # fmt: skip
    ax.axvline(chance.iloc[0], color=style.GREY, linewidth=0.8, linestyle=":", label="_chance")
    labels = [style.wrapped(style.method_name(str(name), kinds[name]), 24) for name in best.index]
    ax.set_yticks(range(len(best)), labels=labels)
    ax.set(xlabel=f"balanced accuracy of {target} (fraction)", ylim=(len(best) - 0.5, -0.5))
    handles = [
        Line2D(
            [],
            [],
            color=style.GREY,
            marker="o",
            linestyle="none",
            label=probe.label,
            markerfacecolor=style.GREY if probe == probes[0] else "white",
        )
        for probe in probes
    ]
    handles.append(Line2D([], [], color=style.GREY, linewidth=0.8, linestyle=":", label=control.label))
    fig.legend(handles=handles, loc="outside lower center", ncols=3)
    return fig


@style.paper_figure
def plot_label_confusion(confusion: pd.DataFrame, target: str, names: Sequence[str]) -> Figure:
    """Draw the shares of each true class by what the first classifier on all features calls it, a panel a method.

    Parameters
    ----------
    confusion : DataFrame
        `confusion.parquet` of fit-probes, of one run of each method, with `features` added: columns `features, probe,
        n_features_used, target, y_true, y_pred, n`.
    target : str
        Name of the labels.
    names : sequence of str
        Which methods, in order.

    Raises
    ------
    ValueError
        If columns are missing, or a method has no confusion.
    """
    wanted = ("features", "probe", "n_features_used", "target", "y_true", "y_pred", "n")
    style.require_columns(confusion, wanted, "the confusion table")
    rows = confusion[(confusion["target"] == target) & (confusion["probe"] == standing_for("many_classes")[0])]
    labels = list(dict.fromkeys(rows["y_true"]))
    n_columns = min(3, len(names))
    n_rows = -(-len(names) // n_columns)
    side_in = style.PAGE_WIDTH_IN / 3
    fig = Figure(figsize=(side_in * n_columns + 0.3, (side_in + 0.1) * n_rows + 0.2), layout="constrained")
    axes = fig.subplots(n_rows, n_columns, squeeze=False)
    for i, ax in enumerate(axes.flat):
        if i >= len(names):
            ax.remove()
            continue
        of_method = rows[rows["features"] == names[i]]
        if of_method.empty:
            raise ValueError(
                f"{names[i]!r} has no confusion of {target!r}; the table has {sorted(set(rows['features']))}"
            )
        of_method = of_method[of_method["n_features_used"] == of_method["n_features_used"].max()]
        counts = of_method.pivot_table(index="y_true", columns="y_pred", values="n", aggfunc="sum").loc[labels, labels]
        shares = counts.to_numpy() / counts.to_numpy().sum(axis=1, keepdims=True)
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            if len(labels) <= 12:
                color = "white" if share > 0.55 else "black"
                ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=5.5)
        ax.set_xticks(range(len(labels)), labels=labels, rotation=90 if max(map(len, labels)) > 3 else 0)
        ax.set_yticks(range(len(labels)), labels=labels)
        ax.tick_params(length=0)
        ax.set_title(f"{style.wrapped(names[i], 28)}\n{np.mean(np.diag(shares)):.2f} balanced")
        if i % n_columns == 0:
            ax.set_ylabel(f"true {target}")
        if i >= len(names) - n_columns:
            ax.set_xlabel(f"predicted {target} (% of true)")
    return fig


def _on_all_features(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows[rows["k"].isna() | (rows["k"] == rows.groupby("features")["k"].transform("max"))]
    return rows[
        rows["n_features_used"] == rows.groupby(["features", "seed"], dropna=False)["n_features_used"].transform("max")
    ]
