"""Stage test-claims: `claims.md` and `claims.json`, which claims of the papers hold on this survey by written rules."""

import json
from functools import partial
from pathlib import Path

import pandas as pd

from sfnetlab.files import write_text
from sfnetlab.interpret.claims import Evidence, claims_markdown, hold_claims
from sfnetlab.jobs import Job, Metrics, Task
from sfnetlab.methods.networks import FrozenEmbeddingSpec
from sfnetlab.methods.sfnet import N_SFNET_FEATURES
from sfnetlab.plan import ClaimsSpec, InterpretSpec
from sfnetlab.runner import stage_main


def build(spec: ClaimsSpec, task: Task) -> Metrics:
    interpreted = {
        job: path for job, path in task.inputs_of("interpret-features").items() if isinstance(job.spec, InterpretSpec)
    }
    regression = next(iter(spec.targets))
    evidence = Evidence(
        predictions=pd.concat([_predictions(job, path) for job, path in _probed(task).items()], ignore_index=True),
        alignment=_gathered(interpreted, "alignment"),
        associations=_gathered(interpreted, "associations"),
        recovery=_gathered(interpreted, "recovery"),
        matching=_matching(task),
        frequencies=_gathered(interpreted, "features"),
        regression=regression,
        column=spec.targets[regression].columns[0],
        classes=next((name for name, classes in spec.classes.items() if classes.are_two), None),
        n_sfnet_features=N_SFNET_FEATURES,
        pretrained=frozenset(
            job.spec.table.features
            for job in interpreted
            if isinstance(network := job.inputs["features"].spec, FrozenEmbeddingSpec)
            and network.weights.source != "random"
        ),
    )
    table = hold_claims(evidence)
    records = json.loads(table.to_json(orient="records"))
    about = {"experiment": spec.experiment, "survey": spec.survey, "target": evidence.column}
    write_text(task.work / "claims.json", json.dumps(about | {"claims": records}, indent=1) + "\n")
    title = f"Claims on the {spec.survey} survey of {spec.experiment}: {evidence.column}"
    write_text(task.work / "claims.md", claims_markdown(table, title))
    return {str(verdict).replace(" ", "_"): int(n) for verdict, n in table["verdict"].value_counts().items()}


def _probed(task: Task) -> dict[Job, Path]:
    return {job: path for job, path in task.inputs_of("fit-probes").items() if hasattr(job.spec, "table")}


def _predictions(job: Job, path: Path) -> pd.DataFrame:
    table = job.spec.table
    identity = {"features": table.features, "kind": table.kind, "k": table.k, "seed": table.seed}
    rows = pd.read_parquet(path / "predictions.parquet").assign(**identity)
    return rows.astype({"k": "Int64", "seed": "Int64"})


def _gathered(interpreted: dict[Job, Path], name: str) -> pd.DataFrame:
    """One table of all feature tables that have it."""
    files = [path / f"{name}.parquet" for path in interpreted.values()]
    parts = [pd.read_parquet(file) for file in files if file.exists()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _matching(task: Task) -> pd.DataFrame:
    file = task.inputs["relations"] / "matching.parquet"
    if not file.exists():
        return pd.DataFrame()
    matching = pd.read_parquet(file)
    tables = task.job.inputs["relations"].spec.tables
    for side in ("a", "b"):
        for name in ("features", "kind"):
            matching[f"{name}_{side}"] = [getattr(tables[table], name) for table in matching[f"table_{side}"]]
    return matching


main = partial(stage_main, "test-claims")

if __name__ == "__main__":
    raise SystemExit(main())
