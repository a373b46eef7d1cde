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
_COLORS = (style.BLUE, style.ORANGE, style.GREEN, style.VERMILION, style.SKY, style.PURPLE, style.BLACK)
_LINESTYLES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v")


def draw(findings: Findings) -> Figures:
    """Draw all trainings of networks and of dictionaries in one figure."""
    parts = [
        history.assign(run=training.name.removesuffix(f"-seed{training.settings['seed']}"))
        for training, history in findings.histories(*_NETWORKS)
    ]
    parts += [
        history.assign(run=[f"{training.settings['sae']['name']}-k{k}" for k in history["k"]])
        for training, history in findings.histories(*_DICTIONARIES)
    ]
    if parts:
        yield "training_curves", plot_training_curves(pd.concat(parts, ignore_index=True))


@style.paper_figure
def plot_training_curves(history: pd.DataFrame) -> Figure:
    """Draw curves against epoch, a row of two panels for networks and one for SAEs, whichever are present.

    A line is the mean over the seeds of a run; its band reaches from the least to the largest of them.

    Parameters
    ----------
    history : DataFrame
        Columns `run` (name in the legend) and `epoch`, a row a seed. Networks have `train_loss`, and `valid_rmse` in
        units of the target; SAEs are the rows with `train_fvu`, and have `dead_fraction`. NaN where a quantity was not
        taken.

    Raises
    ------
    ValueError
        If columns or rows are missing.
    """
    style.require_columns(history, ("run", "epoch"), "the training history")
    is_dictionary = history["train_fvu"].notna() if "train_fvu" in history else np.zeros(len(history), dtype=bool)
    networks, dictionaries = history[~is_dictionary], history[is_dictionary]
    parts = [
        (rows, panels) for rows, panels in ((networks, _OF_NETWORKS), (dictionaries, _OF_DICTIONARIES)) if len(rows)
    ]
    heights = [max(2.1, 0.6 + 0.16 * _n_legend_lines(rows)) for rows, _ in parts]
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
    for i, run in enumerate(rows["run"].unique()):
        of_run = rows[(rows["run"] == run) & rows[name].notna()].groupby("epoch")[name].agg(["mean", "min", "max"])
        color = _COLORS[i % len(_COLORS)]
        ax.fill_between(of_run.index, of_run["min"], of_run["max"], color=color, alpha=0.2, linewidth=0)
        ax.plot(
            of_run.index,
            of_run["mean"],
            color=color,
            linestyle=_LINESTYLES[i % len(_LINESTYLES)],
            marker=_MARKERS[i % len(_MARKERS)],
            markevery=max(1, len(of_run) // 10),
            linewidth=1.0,
            markersize=2.5,
            label=_legend_text(run),
        )


def _legend_text(run: str) -> str:
    return style.wrapped(run, 26)


def _n_legend_lines(rows: pd.DataFrame) -> int:
    return int(np.sum([_legend_text(run).count("\n") + 1 for run in rows["run"].unique()]))
