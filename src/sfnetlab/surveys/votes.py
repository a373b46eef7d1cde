"""Galaxy Zoo votes as labels: the fraction of votes for each answer, NaN where the question was not asked.

Volunteers follow a decision tree: most questions are asked of some of them only, and a fraction of few votes is noise.
"""

import logging

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FRACTION = "_fraction"
TOTAL = "_total-votes"
_FIRST_QUESTION = "smooth-or-featured"

_logger = logging.getLogger(__name__)


def vote_columns(columns: "pd.Index[str]") -> list[str]:
    """Return the columns that count votes and are no labels: totals, and counts that have a column of fractions."""
    names = set(columns)
    return [name for name in columns if name.endswith(TOTAL) or f"{name}{FRACTION}" in names]


def with_vote_fractions(catalog: pd.DataFrame, min_asked: float) -> pd.DataFrame:
    """Return the catalogue with a column `<question>_<answer>_fraction` for every answer of a Galaxy Zoo tree.

    Names are those of galaxy-datasets: counts are `<question>_<answer>` and totals `<question>_total-votes`. A
    question ends in its campaign, as in `has-spiral-arms-gz2_yes`, and an answer holds no underscore. Fractions that
    the catalogue has keep their values, except for the rule below. The others are count / total; where the catalogue
    has no total, it is the sum of the counts. A column holds counts if it has a fraction, or a total of its question,
    or a hyphen in the question's name. A question has two answers or more.

    A question was asked of as many volunteers as voted on it, and the first question of a campaign was asked of all
    its volunteers. Where that share is less than `min_asked`, or nobody voted, the fractions of the question are NaN.
    Fractions without counts or totals cannot be judged: they stay, and the log names them.

    Parameters
    ----------
    min_asked : float
        The least share of volunteers, 0 to 1. With 0, only fractions of questions without a vote are NaN.

    References
    ----------
    A share of at least a half: Galaxy Zoo DESI, Walmsley et al. 2023, arXiv:2309.11425, and zoobot's
    `load_predictions`.
    """
    questions = _questions(catalog)
    totals = {question: _total(catalog, question, answers) for question, answers in questions.items()}
    everybody: dict[str, NDArray[np.float64]] = {}
    for question, total in totals.items():
        campaign = _campaign(question, totals)
        everybody[campaign] = np.maximum(everybody.get(campaign, 0.0), total)
    fractions: dict[str, NDArray[np.float64]] = {}
    for question, answers in questions.items():
        total, asked = totals[question], everybody[_campaign(question, totals)]
        is_asked = (total > 0) & (total >= min_asked * asked)
        for answer in answers:
            counts, name = f"{question}_{answer}", f"{question}_{answer}{FRACTION}"
            if name in catalog:
                fraction = _floats(catalog, name)
            else:
                fraction = np.divide(_floats(catalog, counts), total, out=np.zeros_like(total), where=total > 0)
            fractions[name] = np.where(is_asked, fraction, np.nan)
    unjudged = [name for name in catalog.columns if name.endswith(FRACTION) and name not in fractions]
    if unjudged:
        _logger.warning(
            "min_asked = %g cannot be applied to %d columns, fractions without counts of votes: %s",
            min_asked, len(unjudged), ", ".join(unjudged[:5]) + (", ..." if len(unjudged) > 5 else ""),
        )  # fmt: skip
    others = catalog.drop(columns=[name for name in fractions if name in catalog])
    return pd.concat([others, pd.DataFrame(fractions, index=catalog.index)], axis=1)


def _questions(catalog: pd.DataFrame) -> dict[str, list[str]]:
    """The questions whose votes are known, each with its answers."""
    numeric = catalog.select_dtypes("number").columns
    names = set(numeric)
    found: dict[str, list[str]] = {}
    for stem in dict.fromkeys(name.removesuffix(FRACTION) for name in numeric if not name.endswith(TOTAL)):
        question, _, answer = stem.rpartition("_")
        is_counted = stem in names and ("-" in question or f"{stem}{FRACTION}" in names)
        if question and (is_counted or f"{question}{TOTAL}" in names):
            found.setdefault(question, []).append(answer)
    return {question: answers for question, answers in found.items() if len(answers) > 1}


def _total(catalog: pd.DataFrame, question: str, answers: list[str]) -> NDArray[np.float64]:
    if f"{question}{TOTAL}" in catalog:
        return np.nan_to_num(_floats(catalog, f"{question}{TOTAL}"))
    return np.nansum([_floats(catalog, f"{question}_{answer}") for answer in answers], axis=0)


def _campaign(question: str, totals: dict[str, NDArray[np.float64]]) -> str:
    """The campaign of a question: the last part of its name, if the first question of a tree ends so too; else "".

    A galaxy can be in several campaigns.
    """
    campaign = question.rpartition("-")[2]
    return campaign if f"{_FIRST_QUESTION}-{campaign}" in totals else ""


def _floats(catalog: pd.DataFrame, name: str) -> NDArray[np.float64]:
    return catalog[name].to_numpy(dtype=np.float64, na_value=np.nan)
