"""What the papers claim, each with the rule by which this survey's numbers uphold it or not.

A rule puts an interval beside a line: "holds" and "does not hold" need the whole 95 % interval on one side of it, else
the claim is "undecided". From one run of a method there is no interval: the claim "needs more runs". Verdicts follow
from the rules, never by hand.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from sfnetlab.interpret.claims.evidence import RUNS_WHY, CannotTestError, ClaimTables
from sfnetlab.interpret.claims.papers import CLAIMS


def judge_claims(tables: ClaimTables) -> pd.DataFrame:
    """Return the verdict on each claim.

    Returns
    -------
    DataFrame
        A row a claim: `name, source, statement, their_number, rule, what, value, low, high, line, verdict, why`. `why`
        says what is missing where the verdict is "cannot be tested here" or "needs more runs"; low and high are NaN
        in both, value in the first.
    """
    rows = []
    for claim in CLAIMS:
        about = {
            "name": claim.name,
            "source": claim.source,
            "statement": claim.statement,
            "their_number": claim.their_number,
            "rule": claim.rule,
        }
        try:
            found = claim.test(tables)
        except CannotTestError as missing:
            nothing = {"what": "", "value": np.nan, "low": np.nan, "high": np.nan, "line": np.nan}
            rows.append(about | nothing | {"verdict": "cannot be tested here", "why": str(missing)})
            continue
        numbers = {name: getattr(found, name) for name in ("what", "value", "low", "high", "line", "verdict")}
        rows.append(about | numbers | {"why": RUNS_WHY if found.verdict == "needs more runs" else ""})
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
    lines += [f"- **{row['name']}**: {row['rule']}" for row in verdicts.to_dict("records")]
    lines += [
        "",
        'Each rule wants the whole 95 % interval on one side of its line; "undecided" means that the line lies inside. '
        "Intervals are over test galaxies and runs (seeds), or over features or runs alone where the rule says so. "
        'Of one run (of recurrence, two) there is no interval: "needs more runs".',
    ]
    return "\n".join(lines) + "\n"


def _numbers(row: Mapping[Hashable, Any]) -> str:
    interval = row["why"] if row["why"] else f"[{row['low']:.3g}, {row['high']:.3g}]"
    return f"{row['what']}: {row['value']:.3g} {interval}, line {row['line']:.3g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
