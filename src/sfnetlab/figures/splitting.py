"""What becomes of the latents of a small dictionary in a larger one: kept, lost or split."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.metrics.matching import children_per_latent

_MOST = 6
"""Children beyond which latents are counted together."""


def draw(findings: Findings) -> Figures:
    """Draw a figure for each two dictionaries that differ in their size."""
    splitting = findings.relations("splitting")
    if splitting is not None:
        for (small, large), split in splitting.groupby(["small", "large"]):
            children = children_per_latent(split, int(split["n_alive_small"].iloc[0]))
            yield f"splitting-{small}-{large}", plot_splitting(split, children, str(small), str(large))


@style.paper_figure
def plot_splitting(split: pd.DataFrame, children: pd.DataFrame, small: str, large: str) -> Figure:
    """Draw how many latents of the larger dictionary share each latent of the small one (left), and how closely.

    Parameters
    ----------
    split : DataFrame
        `metrics.matching.split_latents`, with the columns `decoder_cosine`, `is_child`, `within`, `within_chance`.
    children : DataFrame
        `metrics.matching.children_per_latent`: columns `n_children`, `n_latents`.
    small, large : str
        Names of the two dictionaries.

    Raises
    ------
    ValueError
        If columns or rows are missing.
    """
    style.require_columns(split, ("decoder_cosine", "is_child", "within", "within_chance"), "the table of splitting")
    style.require_columns(children, ("n_children", "n_latents"), "the table of children")
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, 2.9), layout="constrained")
    left, right = fig.subplots(1, 2)
    counted = np.bincount(np.minimum(children["n_children"], _MOST), weights=children["n_latents"], minlength=_MOST + 1)
    shares = counted / counted.sum()
    left.bar(range(_MOST + 1), shares, color=[style.GREY, style.BLUE, *[style.ORANGE] * (_MOST - 1)])
    for n in np.flatnonzero(counted):
        left.text(n, shares[n], f"{counted[n]:.0f}", ha="center", va="bottom", fontsize=style.SMALL_PT)
    left.set_xticks(range(_MOST + 1), [*map(str, range(_MOST)), f"{_MOST}+"])
    left.set_ylim(0, 1.12 * max(shares))
    left.set_xlabel(style.wrapped(f"latents of {large} that share its direction", 44))
    left.set_ylabel(style.wrapped(f"share of the latents of {small}", 34))
    for is_child, color, marker, label in (
        (True, style.BLUE, "o", "shares its parent's direction"),
        (False, style.GREY, "x", "new direction"),
    ):
        group = split[split["is_child"] == is_child]
        right.plot(
            group["decoder_cosine"], group["within"], linestyle="none", marker=marker, markersize=2.4, color=color,
            alpha=0.6, markeredgewidth=0.0 if is_child else 0.6, label=f"{label} ({len(group)})",
        )  # fmt: skip
    chance = float(split["within_chance"].median())
    right.axhline(chance, color=style.BLACK, linestyle=":", linewidth=0.9, label="independent latents (median)")
    right.set(xlim=(min(0.0, split["decoder_cosine"].min()), 1.03), ylim=(-0.03, 1.05))
    right.set_xlabel(style.wrapped(f"decoder cosine of a latent of {large} to its parent", 44))
    right.set_ylabel("share of its galaxies in which\nthe parent is active")
    fig.legend(handles=right.get_legend_handles_labels()[0], loc="outside lower center", ncols=3, columnspacing=1)
    return fig
