"""How often each claim "holds" where it must not: on simulated scores whose truth lies on the line of its rule.

Five encoder seeds and 300 test galaxies; runs and galaxies both spread, as in coverage.py. Where a rule takes the worst
of several numbers, one lies on the line and the others far on the claim's side: the null that is easiest to mistake.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab import runtime
from sfnetlab.bench.compare import Row
from sfnetlab.interpret.claims import CLAIMS, SIGNIFICANT
from sfnetlab.interpret.claims.evidence import ClaimTables, Finding
from sfnetlab.methods import kinds_of
from sfnetlab.metrics.bootstrap import holm

N_TRIALS = 200
N_GALAXIES, N_RUNS, K = 300, 5, 4
RUN_SPREAD = 0.04
"""Standard deviation of a run's error, relative to its mean: that of an SFNet with two features in the demo is 0.08."""
COMMON = 0.7
"""Share of an error's variance over galaxies that all runs and methods have in common."""
AUC_SHIFT = 1.0
"""By how many standard deviations of the noise two classes are apart."""
IDS = [f"{i:03d}" for i in range(N_GALAXIES)]
TARGET, COLUMN, CLASSES = "target", "column", "classes"

Null = Callable[[np.random.Generator], ClaimTables]


def found_under_null(name: str, trial: int) -> Finding:
    """Return what one simulated experiment says of a claim whose truth lies on its line."""
    number, claim = next((i, claim) for i, claim in enumerate(CLAIMS) if claim.name == name)
    return claim.test(NULLS[name](np.random.default_rng([number, trial])))


def claims_null(device: str) -> Iterator[Row]:
    """Yield a row a claim: how often it holds under its null; at last how often any of them does, after correction."""
    held, p = np.zeros((2, len(CLAIMS), N_TRIALS))
    for i, claim in enumerate(CLAIMS):
        for trial in range(N_TRIALS):
            found = found_under_null(claim.name, trial)
            held[i, trial], p[i, trial] = found.verdict == "holds", found.p
        yield _row(f"{claim.name}, alone", held[i].mean(), device)
    corrected = np.stack([holm(of_trial) for of_trial in p.T], axis=1)
    is_any = (held.astype(bool) & (corrected < SIGNIFICANT)).any(axis=0)
    yield _row(f"any of {len(CLAIMS)} claims, corrected", is_any.mean(), device)


def _row(case: str, share: float, device: str) -> Row:
    return Row(
        name="claims-null",
        case=f"{case}; reference: the most that is allowed",
        ours=float(share),
        reference=SIGNIFICANT,
        unit="holds",
        ratio=None,
        threads=runtime.n_threads(),
        device=device,
    )


# --- predictions ------------------------------------------------------------------------------------------------------


class _Galaxies:
    """Labels of one sample of galaxies, and predictions of methods that share a part of their errors."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.label = rng.normal(size=N_GALAXIES)
        self.is_positive = (np.arange(N_GALAXIES) % 2).astype(np.float64)
        self.common = rng.normal(size=N_GALAXIES)

    def errors(self) -> NDArray[np.float64]:
        return np.sqrt(COMMON) * self.common + np.sqrt(1 - COMMON) * self.rng.normal(size=N_GALAXIES)

    def values(self, kind: str, probe: str, size: float, *, has_runs: bool = True, **about: object) -> pd.DataFrame:
        """Return predictions whose RMSE is `size`, on average over runs."""
        return self._runs(kind, probe, has_runs, about, lambda spread: self.label + size * spread * self.errors())

    def scores(self, kind: str, probe: str, *, has_runs: bool = True, **about: object) -> pd.DataFrame:
        """Return scores of classes whose AUC is the same of all methods, on average over runs."""
        blurred = 1 if has_runs else np.sqrt(2 / (2 + (AUC_SHIFT * RUN_SPREAD) ** 2))
        about |= {"target": CLASSES, "column": CLASSES, "y_true": self.is_positive}
        shift = AUC_SHIFT * blurred * self.is_positive
        return self._runs(kind, probe, has_runs, about, lambda spread: shift * spread + self.errors())

    def _runs(
        self,
        kind: str,
        probe: str,
        has_runs: bool,
        about: dict[str, object],
        predict: Callable[[float], NDArray[np.float64]],
    ) -> pd.DataFrame:
        usual = {"features": kind, "k": None, "n_features_used": 512, "target": TARGET, "column": COLUMN}
        usual |= {"y_true": self.label, "kind": kind, "probe": probe, "id_str": IDS, "participation": 9.0} | about
        usual["family"] = f"{usual['features']} {usual['k']}"
        tables = []
        for seed in range(N_RUNS) if has_runs else [None]:
            spread = 1 if seed is None else 1 + RUN_SPREAD * self.rng.normal()
            tables.append(pd.DataFrame(usual | {"y_pred": predict(spread), "seed": seed, "training": seed}))
        table = pd.concat(tables, ignore_index=True)
        return table.astype({"k": "Int64", "seed": "Int64", "training": "Int64"})


def _tables(predictions: list[pd.DataFrame], **tables: Any) -> ClaimTables:
    nothing = pd.DataFrame()
    empty = ClaimTables(
        predictions=pd.concat(predictions, ignore_index=True), valid=nothing, alignment=nothing,
        alignment_scores=nothing, associations=nothing, recovery=nothing, matching=nothing, frequencies=nothing,
        regression=TARGET, column=COLUMN, classes=CLASSES, held_fixed=nothing, pretrained=frozenset(),
    )  # fmt: skip
    return replace(empty, **tables)


def _two(a: tuple[str, str, float], b: tuple[str, str, float], rng: np.random.Generator) -> ClaimTables:
    """Two methods, an SFNet's head beside them, for without one there is no k."""
    galaxies = _Galaxies(rng)
    methods = [galaxies.values("sfnet", "head", a[2] if a[:2] == ("sfnet", "head") else 1.0, k=K)]
    for kind, probe, size in (a, b):
        if (kind, probe) != ("sfnet", "head"):
            k = K if kind in ("sfnet", "sae") else None
            methods.append(galaxies.values(kind, probe, size, k=k, has_runs=kind != "photometry"))
    return _tables(methods)


def _two_features(rng: np.random.Generator) -> ClaimTables:
    galaxies = _Galaxies(rng)
    two = galaxies.values("sfnet", "linear", 1.05, k=K, n_features_used=2)
    return _tables([galaxies.values("sfnet", "head", 1.0, k=K), two])


def _any_k(rng: np.random.Generator) -> ClaimTables:
    galaxies = _Galaxies(rng)
    return _tables([galaxies.values("sfnet", "head", size, k=k) for k, size in ((2, 1.025), (4, 1.0), (8, 0.975))])


def _components(rng: np.random.Generator) -> ClaimTables:
    galaxies = _Galaxies(rng)
    heads = [galaxies.values("sfnet", "head", 1.0, k=k) for k in (2, 4, 8)]
    sizes = ((2, 1.5), (4, 1.3), (8, 1.0))
    return _tables([*heads, *(galaxies.values("pca", "linear", size, n_features_used=k) for k, size in sizes)])


def _frozen_encoder(rng: np.random.Generator) -> ClaimTables:
    galaxies = _Galaxies(rng)
    frozen = galaxies.values("encoder", "ridge", np.sqrt(0.5), features="frozen", has_runs=False)
    return _tables([frozen], pretrained=frozenset({"frozen"}))


def _classifiers(kind: str, probe: str, rng: np.random.Generator, *, has_runs: bool) -> ClaimTables:
    galaxies = _Galaxies(rng)
    few = galaxies.scores("sfnet", "linear_svm", k=K, n_features_used=4)
    k = K if kind == "sfnet" else None
    other = galaxies.scores(kind, probe, k=k, has_runs=has_runs)
    return _tables([galaxies.values("sfnet", "head", 1.0, k=K), few, other])


def _better_than_null(rng: np.random.Generator) -> ClaimTables:
    galaxies = _Galaxies(rng)
    kind = kinds_of("null")[0]
    arms = [galaxies.values(kind, "ridge", size, k=K, features=name) for name, size in (("a", 1.0), ("b", 1.3))]
    return _tables([galaxies.values("sae", "ridge", 1.0, k=K), *arms])


def _beyond_mass_and_colour(rng: np.random.Generator) -> ClaimTables:
    """The label is shuffled within mass and colour, so that the network's prediction is a function of these alone."""
    galaxies = _Galaxies(rng)
    mass, colour = rng.normal(size=(2, N_GALAXIES))
    trend = 0.7 * mass + 0.5 * np.abs(colour)
    galaxies.label = trend + 0.5 * rng.normal(size=N_GALAXIES)
    network = galaxies.values("sfnet", "head", 0.0, k=K)
    network["y_pred"] = np.tile(trend, N_RUNS) + 0.3 * rng.normal(size=N_RUNS * N_GALAXIES)
    return _tables([network], held_fixed=pd.DataFrame({"mass": mass, "g - r": colour}, index=pd.Index(IDS)))


# --- features ---------------------------------------------------------------------------------------------------------


def _per_run(kind: str, table: pd.DataFrame) -> pd.DataFrame:
    k = None if kind == "pca" else K
    return table.assign(features=kind, kind=kind, k=k).astype({"k": "Int64", "seed": "Int64"})


def _with_sfnet(rng: np.random.Generator, **tables: pd.DataFrame) -> ClaimTables:
    return _tables([_Galaxies(rng).values("sfnet", "head", 1.0, k=K)], **tables)


def _correlations(rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """A correlation of each run whose mean over runs and samples is 0.7, and its interval by Fisher's transform."""
    error = 1 / np.sqrt(N_GALAXIES - 3)
    common, alone = rng.normal(), rng.normal(size=N_RUNS)
    z = np.arctanh(0.7 + RUN_SPREAD * rng.normal(size=N_RUNS))
    z = z + error * (np.sqrt(COMMON) * common + np.sqrt(1 - COMMON) * alone)
    return {"value": np.tanh(z), "low": np.tanh(z - 1.96 * error), "high": np.tanh(z + 1.96 * error)}


def _scores(rng: np.random.Generator, galaxy_sd: float = 0.02) -> pd.DataFrame:
    """A score of each run with its interval over galaxies, whose truth is 0.3."""
    value = 0.3 + RUN_SPREAD * rng.normal(size=N_RUNS) + galaxy_sd * rng.normal()
    table = pd.DataFrame({"seed": range(N_RUNS), "value": value})
    return table.assign(low=value - 1.96 * galaxy_sd, high=value + 1.96 * galaxy_sd)


def _one_feature(rng: np.random.Generator) -> ClaimTables:
    about = pd.DataFrame({"seed": range(N_RUNS), "feature": 0, "frequency": 0.5, "label": COLUMN})
    rows = about.assign(**{f"pearson_{name}": values for name, values in _correlations(rng).items()})
    rows = rows.rename(columns={"pearson_value": "pearson"})
    return _with_sfnet(rng, frequencies=_per_run("sfnet", about), associations=_per_run("sfnet", rows))


def _first_component(rng: np.random.Generator) -> ClaimTables:
    about = pd.DataFrame({"seed": range(N_RUNS), "feature": 0, "best_label": "label"})
    rows = about.assign(**_correlations(rng)).rename(columns={"value": "rho"})
    return _with_sfnet(rng, alignment=_per_run("pca", rows))


def _library(rng: np.random.Generator) -> ClaimTables:
    counts = K + rng.integers(-1, 2, N_RUNS)
    tables = [pd.DataFrame({"seed": seed, "feature": range(n), "frequency": 0.5}) for seed, n in enumerate(counts)]
    return _with_sfnet(rng, frequencies=_per_run("sfnet", pd.concat(tables)))


def _effective_features(rng: np.random.Generator) -> ClaimTables:
    tables = _with_sfnet(rng)
    participation = np.repeat(K + 0.5 * rng.normal(size=N_RUNS), N_GALAXIES)
    return replace(tables, predictions=tables.predictions.assign(participation=participation))


def _alignment(rng: np.random.Generator) -> ClaimTables:
    tables = [_per_run(kind, _scores(rng).rename(columns={"value": "score"})) for kind in ("sae", "pca")]
    return _with_sfnet(rng, alignment_scores=pd.concat(tables).assign(n_features=64))


def _novelty(rng: np.random.Generator, n: int = 64) -> ClaimTables:
    tables = []
    for kind in ("sae", "pca"):
        seeds, places = np.repeat(range(N_RUNS), n), np.tile(range(n), N_RUNS)
        novelty = 0.6 + RUN_SPREAD * np.repeat(rng.normal(size=N_RUNS), n) + 0.1 * rng.normal(size=N_RUNS * n)
        about = {"seed": seeds, "feature": places, "frequency_rank": places, "novelty": novelty}
        tables.append(_per_run(kind, pd.DataFrame(about)))
    return _with_sfnet(rng, alignment=pd.concat(tables))


def _recurrence(rng: np.random.Generator) -> ClaimTables:
    """An SFNet no more like another seed than an untrained network is: the referee's case."""
    effect = 0.03 * rng.normal(size=N_RUNS)
    rows = []
    for a, b in combinations(range(N_RUNS), 2):
        alike, untrained = 0.8 + effect[a] + effect[b] + 0.02 * rng.normal(size=2)
        null = untrained - effect[a] - effect[b]
        rows.append({"table_a": str(a), "table_b": str(b), "share_alike": alike, "untrained_alike": null})
    table = pd.DataFrame(rows).assign(kind_a="sfnet", features_a="sfnet", features_b="sfnet", k_a=K, k_b=K)
    table["excess_alike"] = table["share_alike"] - table["untrained_alike"]
    return _with_sfnet(rng, matching=table)


def _factors(rng: np.random.Generator) -> ClaimTables:
    tables = [_per_run(kind, _scores(rng)) for kind in ("sfnet", "sae")]
    return _with_sfnet(rng, recovery=pd.concat(tables).assign(factor="all", metric="correlation", n_drawn=16))


HEAD, DENSE = ("sfnet", "head", 1.0), ("encoder", "head", 1.0)
NULLS: dict[str, Null] = {
    "accuracy": partial(_two, ("sfnet", "head", 1.05), DENSE),
    "two features": _two_features,
    "any k": _any_k,
    "components": _components,
    "frozen encoder": _frozen_encoder,
    "one feature": _one_feature,
    "library": _library,
    "fewer for AGN": partial(_classifiers, "sfnet", "linear_svm", has_runs=True),
    "AGN against photometry": partial(_classifiers, "photometry", "logistic", has_runs=False),
    "alignment": _alignment,
    "novelty": _novelty,
    "first component": _first_component,
    "images beat photometry": partial(_two, ("photometry", "xgboost", 1.0), DENSE),
    "trained sparse": partial(_two, ("sfnet", "ridge", 1.0), ("sae", "ridge", 1.0)),
    "better than null": _better_than_null,
    "recurrence above an untrained network": _recurrence,
    "factors": _factors,
    "beyond mass and colour": _beyond_mass_and_colour,
    "effective features": _effective_features,
}
"""Of each claim, by name, an experiment whose truth lies on its line."""
