"""Stage interpret-features: what each feature of a table responds to, told by galaxies that it was not fitted on.

`features.parquet`, a row a feature, and beside it a tidy table for each question (results/README.md lists them). Of
SAEs that differ in their seed alone `stability.parquet`, how alike they are, and `consensus.safetensors`, the atoms
that recur.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sfnetlab.artifacts import FeatureTable, SurveyTable, read_embedding, read_features, read_survey
from sfnetlab.interpret.ablation import ablate_features, explained_variance
from sfnetlab.interpret.alignment import align_features
from sfnetlab.interpret.catalog import associate_features, describe_features, strongest_galaxies, summarise_usage
from sfnetlab.interpret.confounders import column_or_difference, find_confounders
from sfnetlab.interpret.equations import (
    N_LEAST_ACTIVE,
    equation_latex,
    equation_text,
    head_equation,
    line_ratios,
    regression_equation,
)
from sfnetlab.interpret.equivariance import feature_changes, summarise_changes
from sfnetlab.interpret.localisation import FACTOR_OF_COMPONENT, localise, summarise_localisation
from sfnetlab.interpret.recovery import factor_table, family_absorption, family_labels, recover_factors
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods.sae import sae_directory
from sfnetlab.metrics.association import MIN_ROWS, spearman
from sfnetlab.metrics.matching import Dictionary, consensus_dictionary, seed_stability
from sfnetlab.metrics.selection import select_forward
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import FeatureMatrix, checked_table, column_mean_sd, columns_of, rows_of
from sfnetlab.plan import InterpretSpec, StabilitySpec
from sfnetlab.runner import stage_main
from sfnetlab.surveys.catalog import LINE_FLUXES, measured_labels, target_rows
from sfnetlab.surveys.mock import MockSurvey

if TYPE_CHECKING:
    from sfnetlab.models.sae import SparseAutoencoder

log = logging.getLogger(__name__)

N_EXAMPLES = 10
N_TERMS = 4
"""Features of a fitted equation, as many as the SFNet paper's."""
N_LOCALISED = 100
"""Galaxies whose activation maps are held against the mask of a component."""
N_BOOTSTRAP = 1000
SEED = 0
POSITION = ("ra", "dec")
"""No label of a galaxy, but a nuisance."""
LETTERS = {"metallicity": "Z", "lines": "SL"}
"""What features of SFNets for these targets are called, as in the SFNet paper; others are called F."""


def build(spec: InterpretSpec | StabilitySpec, task: Task) -> Metrics:
    match spec:
        case InterpretSpec():
            return _describe_table(spec, task)
        case StabilitySpec():
            return _compare_seeds(spec, task)


@dataclass(frozen=True)
class _Part:
    """Galaxies of one part of the split: their catalogue, labels (NaN: not measured) and features."""

    rows: pd.DataFrame
    labels: pd.DataFrame
    values: FeatureMatrix


@dataclass(frozen=True)
class _Table:
    """A feature table with all that is needed to describe it."""

    spec: InterpretSpec
    task: Task
    survey: SurveyTable
    stored: FeatureTable

    def part(self, name: str) -> _Part:
        rows = self.survey.catalog[self.of_interest & (self.survey.catalog["split"] == name).to_numpy()]
        return _Part(rows, self._with_targets(rows), self.stored.of(rows["id_str"]))

    @cached_property
    def of_interest(self) -> NDArray[np.bool_]:
        """Features that were learnt for a target are described on the galaxies that have it."""
        if self.spec.head_target is None:
            return np.ones(len(self.survey.catalog), dtype=bool)
        return self.rows_of_target(self.survey.catalog, self.spec.head_target)

    def rows_of_target(self, catalog: pd.DataFrame, target: str) -> NDArray[np.bool_]:
        return target_rows(catalog, self.spec.targets[target], str(self.task.inputs["survey"]))

    @cached_property
    def train(self) -> _Part:
        return self.part("train")

    @cached_property
    def valid(self) -> _Part:
        return self.part("valid")

    @cached_property
    def test(self) -> _Part:
        return self.part("test")

    @cached_property
    def head(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Weights (n_outputs, d) and bias of the network's own head, in label units."""
        if self.spec.head_target is None:
            return None
        from sfnetlab.models.sfnet import load_network

        return load_network(self.task.inputs["network"]).head_weights()

    @property
    def head_columns(self) -> tuple[str, ...]:
        return () if self.spec.head_target is None else self.spec.targets[self.spec.head_target].columns

    def labels_like(self, part: _Part, patterns: Sequence[str]) -> pd.DataFrame:
        chosen = [name for name in part.labels if any(fnmatchcase(str(name), pattern) for pattern in patterns)]
        return part.labels[chosen]

    def _with_targets(self, rows: pd.DataFrame) -> pd.DataFrame:
        """All labels; a column that targets name is only known for the galaxies within the cut of one of them."""
        labels = measured_labels(rows).join(rows[[name for name in POSITION if name in rows]]).reset_index(drop=True)
        whole = self.survey.catalog
        for column in {name for target in self.spec.targets.values() for name in target.columns}:
            of_column = [name for name, target in self.spec.targets.items() if column in target.columns]
            within = np.logical_or.reduce([self.rows_of_target(whole, name) for name in of_column])
            labels.loc[~within[whole.index.get_indexer(rows.index)], column] = np.nan
        return labels


def _describe_table(spec: InterpretSpec, task: Task) -> Metrics:
    table = _Table(spec, task, read_survey(task.inputs["survey"]), read_features(task.inputs["features"]))
    identity = {"features": spec.table.features, "kind": spec.table.kind, "k": spec.table.k, "seed": spec.table.seed}
    features, others = _features(table)
    for name, tidy in [("features", features), *others.items()]:
        whole = tidy.assign(**identity).astype({"seed": "Int64", "k": "Int64"})
        whole.to_parquet(task.work / f"{name}.parquet", index=False)
    return {"n_alive": len(features)} | summarise_usage(table.test.values)


def _features(table: _Table) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """The row a feature, with what the other tables say of each, and those tables by name."""
    weights = {} if table.head is None else dict(zip(table.head_columns, table.head[0], strict=True))
    labels = table.test.labels.drop(columns=list(POSITION), errors="ignore")
    prefix = LETTERS.get(table.spec.head_target or "", "F")
    features = describe_features(table.test.values, labels, weights, prefix)
    others = {
        "examples": _examples(table, features["feature"].to_numpy()),
        "associations": associate_features(table.test.values, labels),
    }
    for question in (_alignment, _confounders, _equivariance):
        found = question(table)
        others |= found.tables
        if found.of_features is not None:
            features = features.merge(found.of_features, on="feature", how="left", validate="one_to_one")
    for more in (_ablation, _equations, _explained_variance, _recovery, _localisation):
        others |= more(table)
    return features, others


def _examples(table: _Table, features: NDArray[np.intp]) -> pd.DataFrame:
    examples = strongest_galaxies(table.test.values, features, N_EXAMPLES)
    examples["id_str"] = table.test.rows["id_str"].to_numpy()[examples.pop("row")]
    return examples


# --- questions about each feature -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    tables: dict[str, pd.DataFrame]
    of_features: pd.DataFrame | None
    """What of it belongs into the row of a feature."""


_NOTHING = _Found({}, None)


def _usable(valid: pd.DataFrame, test: pd.DataFrame, what: str) -> list[str]:
    """Columns that are known and vary for enough galaxies of both parts."""
    usable = [
        str(name)
        for name in valid
        if all(part[name].count() >= MIN_ROWS and part[name].min() < part[name].max() for part in (valid, test))
    ]
    if not usable:
        log.info("the catalogue has no %s for %d valid and test galaxies each: left out", what, MIN_ROWS)
    return usable


def _alignment(table: _Table) -> _Found:
    settings = table.spec.interpretation
    valid, test = (table.labels_like(part, settings.morphology) for part in (table.valid, table.test))
    usable = _usable(valid, test, "labels of [interpretation] morphology")
    if not usable:
        return _NOTHING
    aligned = align_features(
        table.valid.values,
        valid[usable],
        table.test.values,
        test[usable],
        n_permutations=settings.n_permutations,
        seed=SEED,
        group_sizes=_group_sizes(table) or None,
    )
    columns = {"best_label": "morphology", "rho": "morphology_rho", "p_corrected": "p_corrected", "q": "q"}
    columns |= {"novelty": "novelty", "auc": "auc", "group": "group"}
    return _Found({"alignment": aligned}, aligned[["feature", *columns]].rename(columns=columns))


def _group_sizes(table: _Table) -> tuple[int, ...]:
    if table.spec.table.kind != "sae":
        return ()
    return _sae(table).group_sizes


def _confounders(table: _Table) -> _Found:
    settings = table.spec.interpretation
    valid, test = (table.labels_like(part, settings.nuisances) for part in (table.valid, table.test))
    usable = _usable(valid, test, "columns of [interpretation] nuisances")
    if not usable:
        return _NOTHING
    known = [text for text in settings.held_fixed if set(text.split(" - ")) <= set(table.test.labels)]
    held_fixed = pd.DataFrame({text: column_or_difference(table.test.labels, text) for text in known})
    held_fixed = held_fixed.reindex(table.test.labels.index)
    targets = sorted({name for target in table.spec.targets.values() for name in target.columns})
    found = find_confounders(
        table.valid.values,
        valid[usable],
        table.test.values,
        test[usable],
        table.test.labels[targets],
        held_fixed,
    )
    return _Found({"nuisances": found.nuisances, "partial": found.targets}, found.features)


def _equivariance(table: _Table) -> _Found:
    perturbed = table.task.inputs.get("perturbed")
    if perturbed is None:
        return _NOTHING
    transforms = pd.read_parquet(perturbed / "transforms.parquet")
    embeddings = np.load(perturbed / "features.npy", mmap_mode="r")
    encode = _encoding(table)
    changes = feature_changes([encode(np.asarray(each)) for each in embeddings], transforms, seed=SEED)
    summary = summarise_changes(changes).rename(columns={"warning": "equivariance_warning"})
    wanted = ["feature", "worst_symmetry", "symmetry_change", "is_equivariant", "equivariance_warning"]
    return _Found({"changes": changes}, summary[wanted])


def _encoding(table: _Table) -> Callable[[NDArray[np.float32]], FeatureMatrix]:
    """From what the network gives to the features of the table."""
    match table.spec.table.kind:
        case "sae" | "null_sae":
            return _sae(table).encode_csr
        case "pca" | "pls":
            model = _linear_model(table)
            rotations = model["components"].T if table.spec.table.kind == "pca" else model["rotations"]
            return lambda embedding: (embedding - model["mean"]) @ rotations
        case _:
            return lambda embedding: embedding


# --- questions about the table ----------------------------------------------------------------------------------------


def _ablation(table: _Table) -> dict[str, pd.DataFrame]:
    if table.head is None:
        return {}
    weights, bias = table.head
    labels = table.test.rows[list(table.head_columns)]
    return {"ablation": ablate_features(table.train.values, table.test.values, labels, weights.T, bias, seed=SEED)}


def _equations(table: _Table) -> dict[str, pd.DataFrame]:
    """Of the head for what it predicts and their line ratios, and by least squares for every label to predict."""
    laws = [*_head_laws(table), *_fitted_laws(table)]
    texts = [equation_text(law, n_terms=N_TERMS) for law in laws]
    (table.task.work / "equations.txt").write_text("".join(text + "\n" for text in texts))
    tex = [f"\\[ {equation_latex(law, n_terms=N_TERMS)} \\]\n" for law in laws]
    (table.task.work / "equations.tex").write_text("".join(tex))
    return {"equations": pd.concat(laws, ignore_index=True)} if laws else {}


def _properties(part: _Part, columns: Sequence[str]) -> pd.DataFrame:
    labels = part.labels[list(columns)]
    return pd.concat([labels, line_ratios(labels)], axis=1) if set(LINE_FLUXES) <= set(columns) else labels


def _head_laws(table: _Table) -> Iterator[pd.DataFrame]:
    if table.head is None:
        return
    labels = _properties(table.test, table.head_columns)
    weights, bias = (pd.DataFrame(np.atleast_2d(each.T), columns=list(table.head_columns)) for each in table.head)
    if set(LINE_FLUXES) <= set(table.head_columns):
        weights = pd.concat([weights, line_ratios(weights)], axis=1)
        bias = pd.concat([bias, line_ratios(bias)], axis=1)
    for name in labels:
        law = head_equation(
            str(name),
            weights[name].to_numpy(),
            float(bias[name].iloc[0]),
            table.train.values,
            table.test.values,
            labels[name].to_numpy(),
        )
        yield law.assign(origin="head")


def _fitted_laws(table: _Table) -> Iterator[pd.DataFrame]:
    for target in table.spec.targets.values():
        train, test = (_properties(part, target.columns) for part in (table.train, table.test))
        for name in train:
            y_train, y_test = train[name].to_numpy(), test[name].to_numpy()
            known = np.flatnonzero(np.isfinite(y_train))
            values = rows_of(table.train.values, known)
            usable = np.flatnonzero(activation_frequency(values) * len(known) >= N_LEAST_ACTIVE)
            if len(usable) == 0 or np.isfinite(y_test).sum() < MIN_ROWS:
                log.info("no equation for %s: no feature is active in %d galaxies that have it", name, N_LEAST_ACTIVE)
                continue
            n_terms = min(N_TERMS, len(usable))
            chosen = usable[select_forward(columns_of(values, usable), y_train[known][:, None], n_terms)]
            law = regression_equation(
                str(name),
                chosen,
                table.train.values,
                y_train,
                table.test.values,
                y_test,
                n_resamples=N_BOOTSTRAP,
                seed=SEED,
            )
            yield law.assign(origin="regression")


def _explained_variance(table: _Table) -> dict[str, pd.DataFrame]:
    """Of the reconstruction from more and more features: principal components by number, latents by frequency."""
    if "embedding" not in table.task.inputs:
        return {}
    fill, order = (
        column_mean_sd(checked_table(table.train.values))[0],
        np.arange(activation_frequency(table.train.values).size),
    )
    match table.spec.table.kind:
        case "sae" | "null_sae":
            sae = _sae(table)
            scale = float(sae.scale)
            W_dec = sae.W_dec.numpy(force=True) * scale
            b_dec = sae.mean.numpy(force=True) + sae.b_dec.numpy(force=True) * scale
            if len(sae.group_sizes) > 1:  # a nested dictionary has an order of its own, and does without the rest
                fill = np.zeros_like(fill)
            else:
                order = np.argsort(-activation_frequency(table.train.values), kind="stable")
        case "pca":
            model = _linear_model(table)
            W_dec, b_dec = model["components"], model["mean"]
        case _:
            return {}
    rows, embedding = read_embedding(table.task.inputs["embedding"])
    place = pd.Series(np.arange(len(rows)), index=rows["id_str"])
    own = np.asarray(embedding[place[table.test.rows["id_str"]].to_numpy()])
    return {"explained_variance": explained_variance(own, table.test.values, W_dec, b_dec, order, fill)}


def _linear_model(table: _Table) -> dict[str, NDArray[np.float64]]:
    from safetensors.numpy import load_file

    return load_file(table.task.inputs["features"] / "model.safetensors")


def _recovery(table: _Table) -> dict[str, pd.DataFrame]:
    if table.spec.mock is None:
        return {}
    catalog = table.survey.catalog[table.of_interest]
    factors = factor_table(catalog)
    split = catalog["split"].to_numpy()
    recovered = recover_factors(
        table.train.values,
        factors[split == "train"],
        table.test.values,
        factors[split == "test"],
        n_bootstrap=200,
        seed=SEED,
    )
    # the column k says which table this is
    found = {"recovery": recovered.rename(columns={"k": "n_features_used"})}
    if sparse.issparse(table.train.values):  # features of a dense table are never silent
        labels = family_labels(catalog)
        train, test = (labels[split == part] for part in ("train", "test"))
        absorption = family_absorption(table.train.values, train, table.test.values, test)
        found |= {"absorption": absorption} if len(absorption) else {}
    return found


def _localisation(table: _Table) -> dict[str, pd.DataFrame]:
    """For each component of mock galaxies the SFNet feature that follows its factor best, and where that one looks."""
    if table.spec.mock is None or table.spec.table.kind != "sfnet":
        return {}
    parts = []
    for component, factor in FACTOR_OF_COMPONENT.items():
        found = _localise_component(table, table.spec.mock, component, factor)
        if found is not None:
            parts.append(found)
    if not parts:
        return {}
    each = pd.concat(parts, ignore_index=True)
    by = ["component", "factor", "feature", "rho"]
    summaries = [
        summarise_localisation(rows, n_bootstrap=N_BOOTSTRAP, seed=SEED).assign(**dict(zip(by, about, strict=True)))
        for about, rows in each.groupby(by)
    ]
    return {"localised": each, "localisation": pd.concat(summaries, ignore_index=True)}


def _localise_component(table: _Table, mock: MockSurvey, component: str, factor: str) -> pd.DataFrame | None:
    import torch

    from sfnetlab.models.sfnet import load_network
    from sfnetlab.surveys.mock_render import component_masks

    known = pd.concat([table.train.rows, table.valid.rows])
    rho = spearman(table.stored.of(known["id_str"]), known[[factor]].to_numpy(dtype=np.float64))[:, 0]
    if not np.isfinite(rho).any():
        return None
    feature = int(np.nanargmax(rho))
    values = columns_of(table.test.values, np.array([feature])).sum(axis=1)
    shown = np.flatnonzero((values > 0) & (table.test.rows[factor].to_numpy() > 0))
    shown = np.sort(np.random.default_rng(SEED).permutation(shown)[:N_LOCALISED])
    if len(shown) < 2:
        return None
    rows = table.test.rows.iloc[shown]
    masks = [
        component_masks(row, mock.image_size, mock.field_arcsec, mock.seed)[component] for _, row in rows.iterrows()
    ]
    place = pd.Series(np.arange(len(table.survey.catalog)), index=table.survey.catalog["id_str"])
    images = torch.from_numpy(np.asarray(table.survey.cutouts[place[rows["id_str"]].to_numpy()]))
    with torch.no_grad():
        maps = load_network(table.task.inputs["network"]).activation_maps(images, feature).numpy()
    if maps[0].size == 1:
        return None  # of cutouts this small a map is one number, which points nowhere
    localised = localise(maps, np.stack(masks))
    if localised["inside"].notna().sum() < 2:
        return None
    about = {"component": component, "factor": factor, "feature": feature, "rho": float(rho[feature])}
    return localised.assign(id_str=rows["id_str"].to_numpy(), **about)


def _sae(table: _Table) -> "SparseAutoencoder":
    from sfnetlab.models.sae import load_sae

    spec = table.spec.table
    assert spec.k is not None
    assert spec.seed is not None
    return load_sae(sae_directory(table.task.inputs["saes"], spec.k, spec.seed))


# --- seeds ------------------------------------------------------------------------------------------------------------


def _compare_seeds(spec: StabilitySpec, task: Task) -> Metrics:
    from safetensors.numpy import save

    from sfnetlab.models.sae import load_sae

    tables = {seed: read_features(task.inputs[f"seed{seed}"]) for seed in spec.seeds}
    rows = tables[spec.seeds[0]].rows
    train, test = (rows.loc[rows["split"] == part, "id_str"] for part in ("train", "test"))
    dictionaries: dict[int, Dictionary] = {}
    codes: dict[int, FeatureMatrix] = {}
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


main = partial(stage_main, "interpret-features")

if __name__ == "__main__":
    raise SystemExit(main())
