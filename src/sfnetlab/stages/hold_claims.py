"""Stage hold-claims: `claims.md` and `claims.json`, which claims of the papers hold on this survey by written rules."""

import json
from functools import partial

import pandas as pd

from sfnetlab.files import write_text
from sfnetlab.interpret.claims import claims_markdown, judge_claims
from sfnetlab.interpret.claims.evidence import ClaimTables
from sfnetlab.interpret.confounders import known_columns_of
from sfnetlab.jobs import Metrics, Task
from sfnetlab.plan import ClaimsSpec
from sfnetlab.results import Results, TableResult
from sfnetlab.runner import stage_main


def build(spec: ClaimsSpec, task: Task) -> Metrics:
    results = Results.of_task(task)
    regression = next(iter(spec.targets))
    metrics = results.comparison()
    tables = ClaimTables(
        predictions=pd.DataFrame() if (predictions := results.predictions()) is None else predictions,
        valid=pd.DataFrame() if metrics is None else metrics[metrics["split"] == "valid"],
        alignment=_gathered(results, "alignment"),
        alignment_scores=_gathered(results, "alignment_nulls"),
        associations=_gathered(results, "associations"),
        recovery=_gathered(results, "recovery"),
        matching=_matching(results),
        frequencies=_gathered(results, "features"),
        regression=regression,
        column=spec.targets[regression].columns[0],
        classes=next((name for name, classes in spec.classes.items() if classes.are_two), None),
        held_fixed=_held_fixed(results.catalog, spec.held_fixed),
        pretrained=frozenset(table.spec.features for table in results.tables if _is_pretrained(table)),
    )
    verdicts = judge_claims(tables)
    records = json.loads(verdicts.to_json(orient="records"))
    about = {"survey": spec.survey, "is_real": spec.is_real, "target": tables.column}
    write_text(task.work / "claims.json", json.dumps(about | {"claims": records}, indent=1) + "\n")
    title = f"Claims on the {spec.survey} survey: {tables.column}"
    if not spec.is_real:
        title = f"About the methods, not about galaxies. {title}"
    write_text(task.work / "claims.md", claims_markdown(verdicts, title))
    return {str(verdict).replace(" ", "_"): int(n) for verdict, n in verdicts["verdict"].value_counts().items()}


def _held_fixed(catalog: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """Those of the columns that the catalogue has, of test galaxies, by id."""
    test = catalog[catalog["split"] == "test"]
    return known_columns_of(test, columns).set_index(pd.Index(test["id_str"]))


def _gathered(results: Results, name: str) -> pd.DataFrame:
    """One table of all feature tables that have it, empty where none has."""
    found = results.gathered(name)
    return pd.DataFrame() if found is None else found


def _matching(results: Results) -> pd.DataFrame:
    """The matches of every two tables, with what the tables are."""
    matching = results.relations("matching")
    if matching is None:
        return pd.DataFrame()
    for side in ("a", "b"):
        for name in ("features", "kind", "k"):
            of_side = [getattr(results.related[table], name) for table in matching[f"table_{side}"]]
            matching[f"{name}_{side}"] = of_side
    return matching


def _is_pretrained(table: TableResult) -> bool:
    """Whether a network gives the features whose weights were learned elsewhere."""
    weights = table.source.settings.get("weights", {}) if table.source.stage == "embed-images" else {}
    return weights.get("source", "random") != "random"


main = partial(stage_main, "hold-claims")

if __name__ == "__main__":
    raise SystemExit(main())
