"""How autoencoders trained: the error of a pixel and the distance of latents from the prior, by epoch."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.figures.reconstruction_quality import autoencoders

PANELS = (
    ("squared_error_per_pixel", "mean squared error of a pixel\n(black 0, white 1)"),
    ("kl_per_image", "KL divergence of an image\n(nats)"),
    ("mmd", "squared MMD of latents\nto the prior"),
)


def draw(findings: Findings) -> Figures:
    """Draw the training of the first seed of each autoencoder."""
    parts = [
        table.history.assign(features=table.spec.features, kind=table.spec.kind)
        for table, _, _ in autoencoders(findings)
        if table.history is not None
    ]
    if parts:
        yield "autoencoder_training", plot_autoencoder_training(pd.concat(parts, ignore_index=True))


@style.paper_figure
def plot_autoencoder_training(history: pd.DataFrame) -> Figure:
    """Draw each quantity of `PANELS` against epoch: solid on valid galaxies, dotted on as many train galaxies.

    Parameters
    ----------
    history : DataFrame
        `features` (name in the legend), `kind`, `epoch`, and `train_` and `valid_` of each quantity of `PANELS`. An
        autoencoder without KL has zeros, which are left out.

    Raises
    ------
    ValueError
        If columns or rows are missing.
    """
    wanted = [f"{part}_{name}" for part in ("train", "valid") for name, _ in PANELS]
    style.require_columns(history, ("features", "kind", "epoch", *wanted), "the history of autoencoders")
    kinds = {str(name): str(kind) for name, kind in history.groupby("features")["kind"].first().items()}
    looks = {name: style.method_style(name, kind, kinds) for name, kind in kinds.items()}
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, 2.6), layout="constrained")
    for ax, (name, label) in zip(fig.subplots(1, len(PANELS)), PANELS, strict=True):
        for run, look in looks.items():
            of_run = history[history["features"] == run].sort_values("epoch")
            for part, linestyle in (("valid", "-"), ("train", ":")):
                values = of_run[f"{part}_{name}"].where(of_run[f"{part}_{name}"] > 0)
                ax.plot(of_run["epoch"], values, color=look.color, linestyle=linestyle, linewidth=1.0)
        ax.set(xlabel="epoch", ylabel=label, yscale="log")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    handles = [
        Line2D([], [], color=look.color, label=style.method_name(run, kinds[run])) for run, look in looks.items()
    ]
    handles += [
        Line2D([], [], color=style.GREY, linestyle=linestyle, label=part)
        for part, linestyle in (("valid", "-"), ("train", ":"))
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=5)
    return fig
