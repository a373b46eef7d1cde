"""How much features change when the picture of a galaxy is turned, shifted or made worse."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, methods_of
from sfnetlab.interpret.equivariance import MAX_CHANGE

_COLUMNS = ("features", "kind", "feature", "label", "is_symmetry", "change")
_UNRELATED = float(np.sqrt(2))


def draw(findings: Findings) -> Figures:
    """Draw all methods in one figure."""
    changes = findings.gathered("changes", methods_of(findings.typical()))
    if changes is not None and changes["change"].notna().any():
        yield "equivariance", plot_equivariance(changes, MAX_CHANGE)


@style.paper_figure
def plot_equivariance(changes: pd.DataFrame, max_change: float) -> Figure:
    """Draw how features of each method change under each transform, as a distribution over features.

    Boxes are the quartiles and the median, whiskers the 5th and 95th percentiles, over features that are active often
    enough. A feature that a symmetry changes by more than the dashed line counts as not about the galaxy. The dotted
    line at 1.41 is what two unrelated galaxies differ by.

    Parameters
    ----------
    changes : DataFrame
        Tables of `interpret.equivariance.feature_changes`, one for each method, with the columns `features` (the
        method's name) and `kind` added. NaN changes are left out.
    max_change : float
        Place of the dashed line, `interpret.equivariance.MAX_CHANGE`.

    Raises
    ------
    ValueError
        If a column is missing or no change was measured.
    """
    style.require_columns(changes, _COLUMNS, "table of changes")
    measured = changes.dropna(subset="change")
    style.require_columns(measured, _COLUMNS, "table of measured changes")
    transforms = _transforms(measured)
    methods = list(measured[["features", "kind"]].drop_duplicates().itertuples(index=False, name=None))
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, 3.3), layout="constrained")
    ax = fig.subplots()
    width = 0.8 / len(methods)
    handles = []
    for rank, (name, kind) in enumerate(methods):
        of_method = measured[measured["features"] == name]
        samples = [of_method.loc[of_method["label"] == label, "change"].to_numpy() for label, _ in transforms]
        places = np.arange(len(transforms)) + width * (rank - (len(methods) - 1) / 2)
        look = style.method_style(name, kind, [other for other, of_kind in methods if of_kind == kind])
        drawn = [i for i, sample in enumerate(samples) if len(sample)]
        ax.boxplot(
            [samples[i] for i in drawn], positions=places[drawn], widths=0.82 * width, whis=(5, 95), showfliers=False,
            patch_artist=True, manage_ticks=False, boxprops={"facecolor": look.color, "linewidth": 0.5},
            medianprops={"color": "white", "linewidth": 1.1}, whiskerprops={"color": look.color, "linewidth": 0.8},
            capprops={"color": look.color, "linewidth": 0.8},
        )  # fmt: skip
        n_features = of_method["feature"].nunique()
        handles.append(Patch(color=look.color, label=f"{style.method_name(name, kind)} ({n_features:,} features)"))
    _name_transforms(ax, transforms)
    ax.set_ylabel("rms change of a feature\n(sd between galaxies)")
    ax.set_ylim(0, max(1.7, 1.05 * ax.get_ylim()[1]))
    ax.axhline(max_change, color="black", linewidth=0.8, linestyle="--", zorder=0.5)
    ax.axhline(_UNRELATED, color=style.GREY, linewidth=0.8, linestyle=":", zorder=0.5)
    style.label_levels(ax, {"rule": (max_change, "black"), "unrelated\ngalaxies": (_UNRELATED, style.GREY)})
    fig.legend(handles=handles, loc="outside lower center", ncols=3)
    return fig


def _transforms(changes: pd.DataFrame) -> list[tuple[str, bool]]:
    """Return every transform once, symmetries first, else in the order of the table."""
    each = changes[["label", "is_symmetry"]].drop_duplicates()
    each = each.sort_values("is_symmetry", ascending=False, kind="stable")
    return list(each.itertuples(index=False, name=None))


def _name_transforms(ax: Axes, transforms: Sequence[tuple[str, bool]]) -> None:
    labels = [label for label, _ in transforms]
    ax.set_xticks(range(len(transforms)), labels=labels, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.5, len(transforms) - 0.5)
    n_symmetries = sum(is_symmetry for _, is_symmetry in transforms)
    if 0 < n_symmetries < len(transforms):
        ax.axvline(n_symmetries - 0.5, color=style.BLACK, linewidth=0.8)
    groups = (
        ("symmetries: the galaxy stays as it is", 0, n_symmetries),
        ("other changes", n_symmetries, len(transforms)),
    )
    for label, start, stop in groups:
        if stop > start:
            ax.text(
                (start + stop - 1) / 2, 1.02, label, transform=ax.get_xaxis_transform(), ha="center", va="bottom",
                fontsize=style.SMALL_PT,
            )  # fmt: skip
