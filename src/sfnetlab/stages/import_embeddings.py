"""Stage import-embeddings: embeddings that somebody else made as a feature table, joined to the survey by id.

Beside the feature table: `model.json`, the names of the columns in their file, and of a hub dataset its commit.
"""

import json
import logging
from functools import partial

from sfnetlab.artifacts import FORMAT, read_survey, write_rows
from sfnetlab.files import create_array, finish_array
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods.external import ImportSpec
from sfnetlab.runner import stage_main
from sfnetlab.surveys.tables import open_embeddings, read_into, require_every

log = logging.getLogger(__name__)


def build(spec: ImportSpec, task: Task) -> Metrics:
    catalog = read_survey(task.inputs["survey"]).catalog
    table = open_embeddings(spec.external)
    joined = require_every(spec.external, table, catalog["id_str"])
    counts = joined.counts
    log.info(
        "%s: %d galaxies with %d features; %d more are not in the survey",
        *(table.where, counts["n_both"], len(table.columns), counts["n_only_in_table"]),
    )
    out = create_array(task.work / "features.npy", (len(catalog), len(table.columns)), "float32")
    read_into(table, joined, out)
    finish_array(task.work / "features.npy", out)
    write_rows(task.work, catalog)
    about = {"format": FORMAT, "columns": table.columns, "commit": table.commit}
    (task.work / "model.json").write_text(json.dumps(about))
    return {"n_features": len(table.columns), **counts}


main = partial(stage_main, "import-embeddings")

if __name__ == "__main__":
    raise SystemExit(main())
