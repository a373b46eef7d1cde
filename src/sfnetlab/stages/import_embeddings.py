"""Stage import-embeddings: embeddings that somebody else made as a feature table, joined to the survey by id.

Beside the feature table: `model.json`, the names of the columns in their file, and of a hub dataset its commit.
"""

import json
import logging
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import FORMAT, read_survey, write_rows
from sfnetlab.files import create_array, finish_array
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods.external import ImportSpec
from sfnetlab.runner import stage_main
from sfnetlab.surveys.tables import open_embeddings, read_into, require_every
from sfnetlab.training.sae.rows import Rows, repeated_rows, uneven_spread

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
    features = create_array(task.work / "features.npy", (len(catalog), len(table.columns)), "float32")
    read_into(table, joined, features)
    finish_array(task.work / "features.npy", features)
    _say_what_is_odd(table.where, catalog, features)
    write_rows(task.work, catalog)
    about = {"format": FORMAT, "columns": table.columns, "commit": table.commit}
    (task.work / "model.json").write_text(json.dumps(about))
    return {"n_features": len(table.columns), **counts}


def _say_what_is_odd(where: str, catalog: pd.DataFrame, features: NDArray[np.float32]) -> None:
    """Warn of rows and columns that hold most of the variance, and of test galaxies with a train galaxy's embedding."""
    ids, split = catalog["id_str"], catalog["split"].to_numpy()
    for message in uneven_spread(Rows(features, np.arange(len(ids))), "one scale", lambda row: ids.iloc[row]):
        log.warning("%s: %s", where, message)
    test, train = (Rows(features, np.flatnonzero(split == part)) for part in ("test", "train"))
    repeated, originals = repeated_rows(test, train)
    if len(repeated):
        log.warning(
            "%s: %d of %d test galaxies have the embedding of a train galaxy, to the bit (first: %s that of %s): the "
            "same image under two ids, or images that failed alike, tell the test train labels; leave one of each out",
            *(where, len(repeated), len(test), ids.iloc[repeated[0]], ids.iloc[originals[0]]),
        )


main = partial(stage_main, "import-embeddings")

if __name__ == "__main__":
    raise SystemExit(main())
