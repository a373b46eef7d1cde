"""Stage compare-features: which features of different methods and seeds are the same, and which find what is rare.

A table of each thing that `interpret.RELATIONS` find: `pairs.parquet`, `matching.parquet` and `null.parquet` (every two
tables, features matched one to one, with their null and, where both read the same embedding, the cosines of their
directions in it), `reading.parquet` (what ridge reads of one table's features in another), `splitting.parquet` (latents
of a dictionary in a larger one), `yield.parquet` (rare galaxies found).
"""

from functools import partial

import numpy as np
import pandas as pd

from sfnetlab.artifacts import read_features, read_survey
from sfnetlab.interpret import RELATIONS
from sfnetlab.interpret.confounders import known_columns_of
from sfnetlab.interpret.related import RelatedTable, RelatedTables
from sfnetlab.interpret.table import at_most
from sfnetlab.interpret.yields import rare_flags
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods import reader_of
from sfnetlab.plan import RelationsSpec
from sfnetlab.runner import stage_main


def build(spec: RelationsSpec, task: Task) -> Metrics:
    related = _related(spec, task)
    tables: dict[str, pd.DataFrame] = {}
    for relate in RELATIONS:
        tables |= relate(related)
    for name, table in tables.items():
        table.to_parquet(task.work / f"{name}.parquet", index=False)
    return {"n_tables": len(related.tables), "n_pairs_of_tables": len(tables.get("matching", ()))}


def _related(spec: RelationsSpec, task: Task) -> RelatedTables:
    catalog = read_survey(task.inputs["survey"]).catalog
    catalog = catalog[at_most(np.ones(len(catalog), dtype=bool), catalog["split"].to_numpy())]
    rare = {
        name: rare_flags(
            catalog, one.column, above=one.above, below=one.below, where=f"{task.inputs['survey']}: [rare.{name}]"
        )
        for name, one in spec.rare.items()
    }
    tables = {name: _related_table(spec, task, name) for name in spec.tables}
    return RelatedTables(
        catalog=catalog,
        tables=tables,
        untrained=spec.untrained,
        trivial=known_columns_of(catalog, spec.trivial),
        rare=rare,
    )


def _related_table(spec: RelationsSpec, task: Task, name: str) -> RelatedTable:
    job, behind = task.job.inputs[name], {"features": task.inputs[name]}
    if (saes := task.inputs.get(f"saes of {name}")) is not None:
        behind["saes"] = saes
    return RelatedTable(
        spec=spec.tables[name],
        embedding=job.inputs.get("embedding", job).key,
        values_of=read_features(task.inputs[name]).of,
        load_reader=partial(reader_of, spec.tables[name], behind),
    )


main = partial(stage_main, "compare-features")

if __name__ == "__main__":
    raise SystemExit(main())
