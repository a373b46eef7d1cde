"""Stage compare-features: which features of different methods and seeds are the same, and which find what is rare.

`pairs.parquet`, `matching.parquet` and `null.parquet` (every two tables, features matched one to one, with their null
and, where both read the same embedding, the cosines of their directions in it),
`reading.parquet` (what ridge reads of one table's features in another), `yield.parquet` (rare galaxies found).
"""

import logging
from collections.abc import Iterator
from functools import partial
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import FeatureTable, read_features, read_survey
from sfnetlab.errors import DataError
from sfnetlab.interpret.matching import match_tables
from sfnetlab.interpret.reading import Parts, read_across, summarise_reading
from sfnetlab.interpret.yields import MIN_RARE, find_rare
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods import kinds_of
from sfnetlab.methods.sae import sae_directory
from sfnetlab.metrics.matching import pair_cosines, split_latents
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.plan import RelationsSpec
from sfnetlab.runner import stage_main
from sfnetlab.schema import Rare
from sfnetlab.surveys.catalog import measured_labels

if TYPE_CHECKING:
    from sfnetlab.models.sae import SparseAutoencoder

log = logging.getLogger(__name__)

N_PERMUTATIONS = 20
"""Of the galaxies, for the null of matched correlations: each permutation is a matching of its own."""
INSPECTED = (10, 20, 50, 100, 200)
N_BOOTSTRAP = 500
SEED = 0


def build(spec: RelationsSpec, task: Task) -> Metrics:
    catalog = read_survey(task.inputs["survey"]).catalog
    tables = {name: read_features(task.inputs[name]) for name in spec.tables}
    ids = {part: catalog.loc[catalog["split"] == part, "id_str"] for part in ("train", "valid", "test")}
    written: dict[str, pd.DataFrame] = {}
    if len(tables) > 1:
        fit_and_test = {name: (table.of(ids["train"]), table.of(ids["test"])) for name, table in tables.items()}
        matched = match_tables(fit_and_test, N_PERMUTATIONS, SEED)
        pairs = _with_cosines(matched.pairs, {name: _directions(spec, task, name, tables[name]) for name in tables})
        written |= {"pairs": pairs, "matching": matched.summary, "null": matched.null}
        written["reading"] = _readings(spec, tables, ids)
    splits = list(_splits(spec, task, tables, ids))
    if splits:
        written["splitting"] = pd.concat(splits, ignore_index=True)
    if spec.rare:
        written["yield"] = _yields(spec, task, catalog, tables)
    for name, table in written.items():
        table.to_parquet(task.work / f"{name}.parquet", index=False)
    return {"n_tables": len(tables), "n_pairs_of_tables": len(written.get("matching", ()))}


class _Directions(NamedTuple):
    """What a table's features stand for in an embedding: (n_features, d_in), and which embedding that is."""

    embedding: str
    vectors: NDArray[np.floating]


def _directions(spec: RelationsSpec, task: Task, name: str, table: FeatureTable) -> _Directions | None:
    """Atoms of an SAE, components of PCA, for an embedding itself its axes; None where there is no such thing."""
    from safetensors.numpy import load_file

    job = task.job.inputs[name]
    match spec.tables[name].kind:
        case "sae" | "null_sae":
            return _Directions(job.inputs["embedding"].key, _sae(spec, task, name).W_dec.numpy(force=True))
        case "pca":
            model = load_file(task.inputs[name] / "model.safetensors")
            return _Directions(job.inputs["embedding"].key, model["components"])
        case kind if kind in kinds_of("embedding"):
            return _Directions(job.key, np.eye(np.asarray(table.values).shape[1], dtype=np.float32))
        case _:
            return None


def _with_cosines(pairs: pd.DataFrame, directions: dict[str, _Directions | None]) -> pd.DataFrame:
    """The pairs with `cosine`, NaN where the two tables share no embedding."""
    cosine = pd.Series(np.nan, index=pairs.index)
    for (name_a, name_b), own in pairs.groupby(["table_a", "table_b"], sort=False):
        a, b = directions[str(name_a)], directions[str(name_b)]
        if a is not None and b is not None and a.embedding == b.embedding:
            cosine[own.index] = pair_cosines(own, a.vectors, b.vectors)
    return pairs.assign(cosine=cosine)


def _sae(spec: RelationsSpec, task: Task, name: str) -> "SparseAutoencoder":
    from sfnetlab.models.sae import load_sae

    table = spec.tables[name]
    assert table.k is not None
    assert table.seed is not None
    return load_sae(sae_directory(task.inputs[f"saes of {name}"], table.k, table.seed))


def _readings(spec: RelationsSpec, tables: dict[str, FeatureTable], ids: dict[str, "pd.Series[str]"]) -> pd.DataFrame:
    """What each table, the first of its seeds, lets a ridge read of each other one."""
    first = {table.features: name for name, table in reversed(spec.tables.items())}
    parts = {
        name: Parts(*(tables[name].of(ids[part]) for part in ("train", "valid", "test"))) for name in first.values()
    }
    rows = []
    for reader, target in permutations(parts, 2):
        readings = read_across(parts[reader], parts[target])
        rows.append({"reader": reader, "target": target} | summarise_reading(readings))
    return pd.DataFrame(rows)


def _splits(
    spec: RelationsSpec, task: Task, tables: dict[str, FeatureTable], ids: dict[str, "pd.Series[str]"]
) -> Iterator[pd.DataFrame]:
    """What becomes of each SAE's latents in a larger SAE of the same embedding."""
    embeddings = {
        name: task.job.inputs[name].inputs["embedding"].key
        for name, table in spec.tables.items()
        if table.kind == "sae"
    }
    saes = {name: _sae(spec, task, name) for name in embeddings}
    for small, large in permutations(saes, 2):
        if embeddings[small] != embeddings[large] or saes[small].n_latents >= saes[large].n_latents:
            continue
        codes_small, codes_large = (tables[name].of(ids["train"]) for name in (small, large))
        W_small, W_large = (saes[name].W_dec.numpy(force=True) for name in (small, large))
        n_alive = int((activation_frequency(codes_small) > 0).sum())
        split = split_latents(W_small, W_large, codes_small, codes_large)
        yield split.assign(small=small, large=large, n_alive_small=n_alive)


def _yields(spec: RelationsSpec, task: Task, catalog: pd.DataFrame, tables: dict[str, FeatureTable]) -> pd.DataFrame:
    """For each kind of rare galaxies the first table of each method, and the first embedding."""
    encoders = [name for name, table in spec.tables.items() if table.kind in kinds_of("embedding")]
    if not encoders:
        raise DataError(
            "[rare] needs an encoder or external embeddings among the [[features]]: in them outliers are sought"
        )
    is_test = (catalog["split"] == "test").to_numpy()
    known, test = catalog.loc[~is_test, "id_str"], catalog.loc[is_test, "id_str"]
    first = {
        table.features: name for name, table in reversed(spec.tables.items()) if table.kind not in kinds_of("embedding")
    }
    rows = {name: (tables[place].of(known), tables[place].of(test)) for name, place in first.items()}
    embedding = tables[encoders[0]]
    found = []
    for name, rare in spec.rare.items():
        flags = _flags(catalog, rare, f"{task.inputs['survey']}: [rare.{name}]")
        n_known, n_test = (int(np.nansum(flags[part])) for part in (~is_test, is_test))
        if min(n_known, n_test) < MIN_RARE:
            log.info("rare %s: %d known and %d test galaxies, fewer than %d: left out", name, n_known, n_test, MIN_RARE)
            continue
        table = find_rare(
            rows,
            (np.asarray(embedding.of(known)), np.asarray(embedding.of(test))),
            (flags[~is_test], flags[is_test]),
            INSPECTED,
            n_bootstrap=N_BOOTSTRAP,
            seed=SEED,
        )
        found.append(table.assign(rare=name))
    if not found:
        raise DataError(f"none of [rare] has {MIN_RARE} test galaxies: use other limits or more galaxies")
    return pd.concat(found, ignore_index=True)


def _flags(catalog: pd.DataFrame, rare: Rare, where: str) -> NDArray[np.float64]:
    """1 rare, 0 not, NaN where it is not known."""
    labels = measured_labels(catalog)
    if rare.column not in labels:
        raise DataError(
            f"{where}: no numeric column {rare.column!r} in the catalogue; it has {', '.join(map(str, labels))}"
        )
    values = labels[rare.column].to_numpy()
    beyond = values > rare.above if rare.above is not None else values < rare.below
    return np.where(np.isnan(values), np.nan, beyond.astype(np.float64))


main = partial(stage_main, "compare-features")

if __name__ == "__main__":
    raise SystemExit(main())
