"""Stage interpret-features: `features.parquet`, a row a feature, and `examples.parquet`, its strongest galaxies.

Scored on test galaxies, which neither the features nor their names were fitted on. Of SAEs that differ in their seed
alone also `stability.parquet`, how alike they are, and `consensus.safetensors`, the atoms that recur.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from sfnetlab.artifacts import Metrics, read_features, read_survey
from sfnetlab.interpret.catalog import describe_features, strongest_galaxies
from sfnetlab.metrics.matching import Dictionary, consensus_dictionary, seed_stability
from sfnetlab.metrics.sparsity import activation_frequency, usage_entropy
from sfnetlab.metrics.tables import FeatureTable
from sfnetlab.plan import InterpretSpec, StabilitySpec, sae_directory
from sfnetlab.runner import Task, stage_main
from sfnetlab.surveys.catalog import measured_labels, target_rows

N_EXAMPLES = 10


def build(spec: InterpretSpec | StabilitySpec, task: Task) -> Metrics:
    match spec:
        case InterpretSpec():
            return _describe_table(spec, task)
        case StabilitySpec():
            return _compare_seeds(spec, task)


def _describe_table(spec: InterpretSpec, task: Task) -> Metrics:
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


def _compare_seeds(spec: StabilitySpec, task: Task) -> Metrics:
    from safetensors.numpy import save

    from sfnetlab.models.sae import load_sae

    tables = {seed: read_features(task.inputs[f"seed{seed}"]) for seed in spec.seeds}
    rows = tables[spec.seeds[0]].rows
    train, test = (rows.loc[rows["split"] == part, "id_str"] for part in ("train", "test"))
    dictionaries: dict[int, Dictionary] = {}
    codes: dict[int, FeatureTable] = {}
    for seed, table in tables.items():
        sae = load_sae(sae_directory(task.inputs[f"saes{seed}"], spec.k, seed))
        is_alive = activation_frequency(table.of(train)) > 0
        dictionaries[seed] = Dictionary(sae.W_dec.numpy(force=True), sae.W_enc.numpy(force=True), is_alive)
        codes[seed] = table.of(test)
    stability = seed_stability(dictionaries, codes).assign(features=spec.features, k=spec.k)
    stability.to_parquet(task.work / "stability.parquet", index=False)
    consensus = consensus_dictionary(list(dictionaries.values()))
    atoms = {
        "W_dec": np.ascontiguousarray(consensus.W_dec, dtype=np.float32),
        "members": np.ascontiguousarray(consensus.members),
    }
    (task.work / "consensus.safetensors").write_bytes(save(atoms))
    means = stability.groupby("metric")["value"].mean()
    return {"n_consensus": len(consensus.members)} | {str(name): float(value) for name, value in means.items()}


def _head_weights(spec: InterpretSpec, task: Task) -> dict[str, NDArray[np.float64]]:
    if spec.head_target is None:
        return {}
    from sfnetlab.models.sfnet import load_network

    weights, _ = load_network(task.inputs["network"]).head_weights()
    return dict(zip(spec.targets[spec.head_target].columns, weights, strict=True))


main = partial(stage_main, "interpret-features")

if __name__ == "__main__":
    raise SystemExit(main())
