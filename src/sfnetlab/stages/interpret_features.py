"""Stage interpret-features: `features.parquet`, a row a feature, and `examples.parquet`, its strongest galaxies.

Scored on test galaxies, which neither the features nor their names were fitted on.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from sfnetlab.artifacts import Metrics, read_features, read_survey
from sfnetlab.interpret.catalog import describe_features, strongest_galaxies
from sfnetlab.metrics.sparsity import activation_frequency, usage_entropy
from sfnetlab.plan import InterpretSpec
from sfnetlab.runner import Task, stage_main
from sfnetlab.surveys.catalog import measured_labels, target_rows

N_EXAMPLES = 10


def build(spec: InterpretSpec, task: Task) -> Metrics:
    catalog = read_survey(task.inputs["survey"]).catalog
    of_interest = (catalog["split"] == "test").to_numpy()
    if spec.head_target is not None:
        # Features that were learnt for a target are described on the galaxies that have it.
        of_interest = of_interest & target_rows(catalog, spec.targets[spec.head_target], str(task.inputs["survey"]))
    test = catalog[of_interest]
    values = read_features(task.inputs["features"]).of(test["id_str"])
    table = describe_features(values, measured_labels(test), _head_weights(spec, task))
    identity = {"features": spec.table.features, "seed": spec.table.seed, "k": spec.table.k}
    table = table.assign(**identity).astype({"seed": "Int64", "k": "Int64"})
    table.to_parquet(task.work / "features.parquet", index=False)

    examples = strongest_galaxies(values, table["feature"].to_numpy(), N_EXAMPLES)
    examples["id_str"] = test["id_str"].to_numpy()[examples.pop("row")]
    examples.to_parquet(task.work / "examples.parquet", index=False)
    return {
        "n_alive": len(table),
        "effective_number": float(np.exp(usage_entropy(activation_frequency(values)))),
    }


def _head_weights(spec: InterpretSpec, task: Task) -> dict[str, NDArray[np.float64]]:
    if spec.head_target is None:
        return {}
    from sfnetlab.models.sfnet import load_network

    weights, _ = load_network(task.inputs["network"]).head_weights()
    return dict(zip(spec.targets[spec.head_target].columns, weights, strict=True))


main = partial(stage_main, "interpret-features")

if __name__ == "__main__":
    raise SystemExit(main())
