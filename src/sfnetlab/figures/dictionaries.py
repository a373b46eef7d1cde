"""How dictionaries look in figures that hold many of them: trained variants, null arms, PCA."""

import pandas as pd

from sfnetlab.figures import style

_TRAINED_COLORS = (style.BLUE, style.ORANGE, style.GREEN, style.VERMILION, style.SKY, style.PURPLE)
_TRAINED_MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">")
_TRAINED_LINES = ("-", "--", "-.", ":")
_NULL_COLORS = (style.GREY, "#9A9A9A", style.BLACK)
_NULL_MARKERS = ("X", "d", "*", "h")
_NULL_LINES = ("--", ":", "-.")


def dictionary_looks(table: pd.DataFrame) -> dict[str, style.MethodStyle]:
    """Look of each name in `features`, by its rank among names alike: trained in colour, null arms grey, PCA black.

    `kind` tells them apart: "sae" is trained, "pca" is PCA, every other kind is a null arm.
    """
    kinds = table.groupby("features")["kind"].first().sort_index()
    looks: dict[str, style.MethodStyle] = {}
    for rank, name in enumerate(kinds.index[kinds == "sae"]):
        looks[name] = _look(rank, _TRAINED_COLORS, _TRAINED_MARKERS, _TRAINED_LINES)
    for rank, name in enumerate(kinds.index[~kinds.isin(["sae", "pca"])]):
        looks[name] = _look(rank, _NULL_COLORS, _NULL_MARKERS, _NULL_LINES)
    for rank, name in enumerate(kinds.index[kinds == "pca"]):
        looks[name] = style.MethodStyle(style.BLACK, ("s", "p", "8")[rank % 3], (":", "-.", "--")[rank % 3])
    return looks


def _look(
    rank: int, colors: tuple[str, ...], markers: tuple[str, ...], linestyles: tuple[str, ...]
) -> style.MethodStyle:
    """Colours change first, then lines: the names of one colour differ in line and marker."""
    return style.MethodStyle(
        colors[rank % len(colors)],
        markers[rank % len(markers)],
        linestyles[rank // len(colors) % len(linestyles)],
    )
