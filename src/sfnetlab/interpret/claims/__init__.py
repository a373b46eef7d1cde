"""What the papers claim, each with the rule by which this survey's numbers uphold it or not.

A rule puts an interval beside a line: "holds" and "does not hold" need the whole 95 % interval on one side of it, and a
p-value below 0.05 after Holm's correction for the number of claims that are tested together; else the claim is
"undecided". From one run of a method there is no interval: the claim "needs 5 runs". Verdicts follow from the rules,
never by hand, and each rule has a version and the date since which it stands.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from sfnetlab.interpret.claims.evidence import RUNS_WHY, CannotTestError, ClaimTables, Finding
from sfnetlab.interpret.claims.papers import CLAIMS
from sfnetlab.metrics.bootstrap import holm

SIGNIFICANT = 0.05
"""Risk that any of the verdicts of a report is wrong, after the correction."""
_ABOUT = ("name", "source", "statement", "their_number", "rule", "reason", "version", "date")
_NUMBERS = ("what", "value", "low", "high", "line", "p", "is_bound")


def judge_claims(tables: ClaimTables) -> pd.DataFrame:
    """Return the verdict on each claim.

    Returns
    -------
    DataFrame
        A row a claim: `name, source, statement, their_number, rule, reason, version, date, what, value, low, high,
        line, p, is_bound, p_holm, verdict, why`. `p` is two-sided, of the value lying on the line, and `is_bound` where
        the number of resamples limits it. `why` says what is missing where the verdict is "cannot be tested here" or
        "needs 5 runs" (low, high and p are NaN in both, value in the first), and where only the correction leaves the
        claim undecided.
    """
    findings: list[Finding | CannotTestError] = []
    for claim in CLAIMS:
        try:
            findings.append(claim.test(tables))
        except CannotTestError as missing:
            findings.append(missing)
    p_holm = holm(np.array([found.p if isinstance(found, Finding) else np.nan for found in findings]))
    rows = []
    for claim, found, p in zip(CLAIMS, findings, p_holm, strict=True):
        about = {name: getattr(claim, name) for name in _ABOUT}
        if isinstance(found, CannotTestError):
            nothing = dict.fromkeys(("value", "low", "high", "line", "p"), np.nan)
            verdict, why = "cannot be tested here", str(found)
            numbers = {"what": "", **nothing, "is_bound": False}
        else:
            numbers = {name: getattr(found, name) for name in _NUMBERS}
            verdict, why = found.verdict, ""
            if verdict == "needs 5 runs":
                why = RUNS_WHY
            elif verdict in ("holds", "does not hold") and not p < SIGNIFICANT:
                n_tests = np.count_nonzero(~np.isnan(p_holm))
                why = f"alone it {verdict}; as one of {n_tests} claims it may be chance"
                verdict = "undecided"
        rows.append(about | numbers | {"p_holm": p, "verdict": verdict, "why": why})
    return pd.DataFrame(rows)


def claims_markdown(verdicts: pd.DataFrame, title: str) -> str:
    """Return the report to read: a count of the verdicts, then each claim with its rule and its numbers.

    Parameters
    ----------
    verdicts : DataFrame
        From `judge_claims`.
    """
    counts = verdicts["verdict"].value_counts()
    lines = [f"# {title}", "", ", ".join(f"{verdict}: {n}" for verdict, n in counts.items()) + ".", ""]
    lines += ["| claim | theirs | here | verdict |", "| --- | --- | --- | --- |"]
    for row in verdicts.to_dict("records"):
        here = row["why"] if row["verdict"] == "cannot be tested here" else _numbers(row)
        cells = (f"**{row['name']}** {row['statement']} ({row['source']})", row["their_number"], here, row["verdict"])
        lines.append("| " + " | ".join(_cell(str(text)) for text in cells) + " |")
    lines += ["", "## Rules", ""]
    lines += [
        f"- **{row['name']}** (version {row['version']}, {row['date']}): {row['rule']} The line: {row['reason']}"
        for row in verdicts.to_dict("records")
    ]
    lines += [
        "",
        "Each rule wants the whole 95 % interval on one side of its line, and p below 0.05 after Holm's correction for "
        'the number of claims that are tested here; "undecided" means that either fails. '
        "Intervals are over test galaxies and runs (seeds), or over features or runs alone where the rule says so. "
        'Of one run (of recurrence, two) there is no interval: "needs 5 runs", from which on intervals are known to '
        "cover.",
    ]
    return "\n".join(lines) + "\n"


def _numbers(row: Mapping[Hashable, Any]) -> str:
    if np.isnan(row["p"]):
        return f"{row['what']}: {row['value']:.3g} {row['why']}, line {row['line']:.3g}"
    sign = "≤" if row["is_bound"] else "="
    return (
        f"{row['what']}: {row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}], line {row['line']:.3g}, "
        f"p {sign} {row['p']:.2g}, corrected {row['p_holm']:.2g}" + (f"; {row['why']}" if row["why"] else "")
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
