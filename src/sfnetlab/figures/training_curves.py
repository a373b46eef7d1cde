"""How training went: loss and validation RMSE of networks, FVU and dead latents of sparse autoencoders."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings

_NETWORKS, _DICTIONARIES = ("train-sfnet", "finetune-zoobot"), ("train-sae",)
"""Stages that train."""
_OF_NETWORKS = (("train_loss", "train loss (target scatter)"), ("valid_rmse", "valid RMSE (target units)"))
_OF_DICTIONARIES = (("train_fvu", "train FVU (fraction of variance)"), ("dead_fraction", "dead latents (fraction)"))


def draw(findings: Findings) -> Figures:
    """Draw all trainings of networks and of dictionaries in one figure."""
    kinds = {table.spec.features: table.spec.kind for table in findings.tables}
    of_run = {table.name: (table.spec.features, table.spec.k) for table in findings.tables}
    parts: list[pd.DataFrame] = []
    for training, history in findings.histories(*_NETWORKS):
        features, k = of_run.get(training.name, (training.name.removesuffix(f"-seed{training.settings['seed']}"), None))
        parts.append(history.assign(features=features, k=k, seed=training.settings["seed"]))
    for training, history in findings.histories(*_DICTIONARIES):
        parts.append(history.assign(features=training.settings["sae"]["name"]))
    if parts:
        history = pd.concat([part.astype({"k": "Float64"}) for part in parts], ignore_index=True)
        history["kind"] = history["features"].map(kinds).fillna("encoder")  # of a network that is no table of its own
        yield "training_curves", plot_training_curves(style.named_with_k(history))


@style.paper_figure
def plot_training_curves(history: pd.DataFrame) -> Figure:
    """Draw curves against epoch, a row of two panels for networks and one for SAEs, whichever are present.

    A thick line is the mean over the seeds of a method, the thin ones are the seeds.

    Parameters
    ----------
    history : DataFrame
        Columns `features` (name in the legend), `kind`, `seed` and `epoch`, a row a seed. Networks have `train_loss`,
        and `valid_rmse` in units of the target; SAEs are the rows with `train_fvu`, and have `dead_fraction`. NaN where
        a quantity was not taken.

    Raises
    ------
    ValueError
        If columns or rows are missing.
    """
    style.require_columns(history, ("features", "kind", "seed", "epoch"), "the training history")
    is_dictionary = history["train_fvu"].notna() if "train_fvu" in history else np.zeros(len(history), dtype=bool)
    networks, dictionaries = history[~is_dictionary], history[is_dictionary]
    parts = [
        (rows, panels) for rows, panels in ((networks, _OF_NETWORKS), (dictionaries, _OF_DICTIONARIES)) if len(rows)
    ]
    heights = [max(2.1, 0.6 + style.legend_height_in(_labels(rows).values())) for rows, _ in parts]
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, sum(heights)), layout="constrained")
    axes = fig.subplots(len(parts), 2, squeeze=False, height_ratios=heights)
    for row, (rows, panels) in zip(axes, parts, strict=True):
        style.require_columns(rows, [name for name, _ in panels], "the training history")
        for ax, (name, label) in zip(row, panels, strict=True):
            _draw_runs(ax, rows, name)
            ax.set_xlabel("epoch")
            ax.set_ylabel(label)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        row[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), borderaxespad=0)
    return fig


def _draw_runs(ax: Axes, rows: pd.DataFrame, name: str) -> None:
    labels = _labels(rows)
    for features, look in style.looks_of(rows).items():
        of_method = rows[(rows["features"] == features) & rows[name].notna()]
        runs = [run for _, run in of_method.groupby("seed")]
        if len(runs) > 1:
            for run in runs:
                ax.plot(run["epoch"], run[name], color=look.color, linewidth=0.5, alpha=0.7, label="_seed")
        mean = of_method.groupby("epoch")[name].mean()
        ax.plot(
            mean.index, mean, color=look.color, linestyle=look.linestyle, marker=look.marker,
            markevery=max(1, len(mean) // 10), linewidth=1.1, markersize=2.5, label=labels[features],
        )  # fmt: skip


def _labels(rows: pd.DataFrame) -> dict[str, str]:
    """Return what the legend calls each name in `features`."""
    kinds = rows.groupby("features")["kind"].first()
    return {str(name): style.wrapped(style.method_name(str(name), str(kind)), 26) for name, kind in kinds.items()}
