"""How dictionaries look in figures that hold many of them: trained ones, null ones, components."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from sfnetlab.figures import style
from sfnetlab.figures.findings import Findings, TableFindings
from sfnetlab.figures.kinds import COMPONENTS, DICTIONARIES, NULL_DICTIONARIES, TRAINED_DICTIONARIES
from sfnetlab.methods.contract import Look

_TRAINED = Look(
    colors=(style.BLUE, style.ORANGE, style.GREEN, style.VERMILION, style.SKY, style.PURPLE),
    markers=("o", "s", "^", "D", "v", "P", "<", ">"),
    linestyles=("-", "--", "-.", ":"),
)
_NULL = Look(colors=(style.GREY, style.SILVER, style.BLACK), markers=("X", "d", "*", "h"), linestyles=("--", ":", "-."))
_COMPONENTS = Look(colors=(style.BLACK,), markers=("s", "p", "8"), linestyles=(":", "-.", "--"))


def dictionaries(findings: Findings) -> Sequence[TableFindings]:
    """Return the tables of all dictionaries, of every k and seed."""
    return [table for table in findings.tables if table.spec.kind in DICTIONARIES]


def named_with_k(table: pd.DataFrame) -> pd.DataFrame:
    """Return a tidy table whose `features` say k too, so that the dictionaries of each k have a name of their own."""
    pairs = zip(table["features"], table["k"], strict=True)
    return table.assign(features=[name if pd.isna(k) else f"{name} k={k}" for name, k in pairs])


def dictionary_looks(table: pd.DataFrame) -> dict[str, style.MethodStyle]:
    """Return the look of each name in `features`: trained dictionaries in colour, null ones grey, components black.

    Names of one family differ by their rank among them. Colours of dictionaries change first, then lines: those of one
    colour differ in line and marker.

    Parameters
    ----------
    table : DataFrame
        Columns `features` and `kind`.
    """
    by_name = table.groupby("features")["kind"].first().sort_index()
    looks: dict[str, style.MethodStyle] = {}
    for family, members in ((_TRAINED, TRAINED_DICTIONARIES), (_NULL, NULL_DICTIONARIES)):
        for rank, name in enumerate(by_name.index[by_name.isin(members)]):
            line = family.linestyles[rank // len(family.colors) % len(family.linestyles)]
            looks[name] = replace(style.member_style(family, rank), linestyle=line)
    for rank, name in enumerate(by_name.index[by_name.isin(COMPONENTS)]):
        looks[name] = style.member_style(_COMPONENTS, rank)
    return looks
