"""How autoencoders trained: what they leave of a pixel, and how far their latents are from the prior, by epoch."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sfnetlab.figures import style

PANELS = (
    ("squared_error_per_pixel", "mean squared error of a pixel\n(black 0, white 1)"),
    ("kl_per_image", "KL divergence of an image\n(nats)"),
    ("mmd", "squared MMD of latents\nto the prior"),
)


@style.paper_figure
def plot_autoencoder_training(history: pd.DataFrame) -> Figure:
    """A panel a quantity, solid on valid galaxies and dotted on as many train galaxies, scored alike.

    Parameters
    ----------
    history : DataFrame
        `features` (name in the legend), `epoch`, and `train_` and `valid_` of each quantity of `PANELS`. An
        autoencoder without KL has zeros, which are left out.
    """
    wanted = [f"{part}_{name}" for part in ("train", "valid") for name, _ in PANELS]
    style.require_columns(history, ("features", "epoch", *wanted), "the history of autoencoders")
    names = sorted(history["features"].unique())
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, 2.6), layout="constrained")
    for ax, (name, label) in zip(fig.subplots(1, len(PANELS)), PANELS, strict=True):
        for run in names:
            look = style.method_style(run, "vae", names)
            own = history[history["features"] == run].sort_values("epoch")
            for part, linestyle in (("valid", "-"), ("train", ":")):
                values = own[f"{part}_{name}"].where(own[f"{part}_{name}"] > 0)
                ax.plot(own["epoch"], values, color=look.color, linestyle=linestyle, linewidth=1.0)
        ax.set(xlabel="epoch", ylabel=label, yscale="log")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    handles = [
        Line2D([], [], color=style.method_style(run, "vae", names).color, label=style.method_name(run, "vae"))
        for run in names
    ]
    handles += [
        Line2D([], [], color=style.GREY, linestyle=linestyle, label=part)
        for part, linestyle in (("valid", "-"), ("train", ":"))
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=5)
    return fig
