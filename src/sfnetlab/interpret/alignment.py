"""How well each feature goes with what galaxies look like, and how much of it no such label explains.

Labels are chosen on valid galaxies and scored on test galaxies; every maximum over labels has its permutation null.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.interpret.table import NOTHING, SEED, Answer, DescribedTable, known_columns, usable_labels
from sfnetlab.metrics.alignment import align
from sfnetlab.metrics.association import (
    association_test,
    correlation_interval,
    held_out_r2,
    labels_as_predictors,
    single_feature_auc,
    spearman,
)
from sfnetlab.metrics.matching import best_partners
from sfnetlab.metrics.nulls import ALIKE
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import FeatureMatrix, checked_table

N_FREQUENCY_GROUPS = 6
"""Ranks by frequency fall into nested powers of two: of 2,048 features 0-64, 64-128, 128-256, ..., 1024-2048."""


def ask(table: DescribedTable) -> Answer:
    """Return the table `alignment`, and of each feature its label, how strong that is, and its novelty.

    Nothing where the catalogue has no usable label of [interpretation] morphology.
    """
    labels = usable_labels(table, table.morphology, "labels of [interpretation] morphology")
    if labels is None:
        return NOTHING
    prefixes = table.reader.prefixes
    aligned = align_features(
        table.valid.values,
        labels[0],
        table.test.values,
        labels[1],
        n_permutations=table.n_permutations,
        seed=SEED,
        group_sizes=np.diff(prefixes, prepend=0).tolist() if len(prefixes) > 1 else None,
    )
    aligned = _of_what_recurs(table, aligned)
    columns = {"best_label": "morphology", "rho": "morphology_rho", "p_corrected": "p_corrected", "q": "q"}
    columns |= {"novelty": "novelty", "auc": "auc", "group": "group"}
    of_features = aligned[["feature", *columns]].rename(columns=columns)
    return Answer(tables={"alignment": aligned}, of_features=of_features)


def _of_what_recurs(table: DescribedTable, aligned: pd.DataFrame) -> pd.DataFrame:
    """The table with `recurs`, and novelty only of features that another seed finds too: noise is told by no label."""
    if table.spec.seed is None:
        return aligned.assign(recurs=1.0)  # nothing random made it: every other run is the same
    if table.another_seed is None:
        recurs = np.full(len(aligned), np.nan)
    else:
        valid, test = (table.another_seed(part.rows["id_str"]) for part in (table.valid, table.test))
        recurs = best_partners(table.valid.values, valid, table.test.values, test)
    is_found = recurs > ALIKE
    return aligned.assign(
        recurs=recurs, novelty=aligned["novelty"].where(is_found), null_novelty=aligned["null_novelty"].where(is_found)
    )


def align_features(
    values_valid: FeatureMatrix,
    labels_valid: pd.DataFrame,
    values_test: FeatureMatrix,
    labels_test: pd.DataFrame,
    *,
    n_permutations: int,
    seed: int,
    group_sizes: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Return with which label each feature goes, how strongly, what chance gives, and how much no label explains.

    Novelty is 1 - R² of the feature regressed on all labels at once (ridge), fitted on valid and scored on test
    galaxies, clipped to [0, 1]: worse than the mean counts as wholly unexplained. There a missing label becomes the
    valid mean and which are missing is a predictor too; everywhere else galaxies without a label are left out for it.
    Linear in the labels: a feature that is a product of two of them is novel.

    Parameters
    ----------
    values_valid, values_test : (n_valid, d), (n_test, d)
        Features of the galaxies that choose and of those that score.
    labels_valid, labels_test : DataFrame, n_valid and n_test rows
        The same numeric columns; NaN where a question was not asked. A label known for fewer than
        `association.MIN_ROWS` galaxies of either part is left out.
    n_permutations, seed
        Permutations of the galaxies for the null of the largest |rho|, and their seed.
    group_sizes : sequence of int, optional
        Sizes of Matryoshka groups, which sum to d; adds `matryoshka_group`.

    Returns
    -------
    DataFrame
        - `feature`, `frequency` (share of valid galaxies in which it is active), `frequency_rank` (0 is the most
          frequent, ties by number), `group` (of ranks, "0-64"), `matryoshka_group` (of numbers, "0-64").
        - `best_label` (of largest |Spearman rho| on valid), `n` (test galaxies that have it), `rho`, `low`, `high`
          (of that label on test): free of selection.
        - `score` (how well it goes with `score_label` on test, -1 to 1, see `metrics.alignment.align`: a rare feature
          can score 1 as well as a dense one), `null_score` (of the same features, galaxies permuted in both parts).
        - `max_rho` (largest |rho| over labels on test), `null_mean`, `null_q95` (of the same under permutation),
          `p_corrected`, `q`. The largest rho possible falls with the frequency: these are for tests, not to compare.
        - `auc` (of the feature alone as a classifier of `best_label` on test; a fraction counts where above one half,
          of a two-valued label the larger value; NaN for other labels).
        - `novelty`, `null_novelty` (the same, galaxies permuted against their labels).

        NaN (None for a label) where a feature is constant on the part concerned.

    Raises
    ------
    ValueError
        If columns or sizes do not fit, or no label is known for enough galaxies of both parts.
    """
    names = known_columns(labels_valid, labels_test, "labels").to_numpy()
    d = checked_table(values_test, "values_test").shape[1]
    table = _grouped(activation_frequency(values_valid), group_sizes)
    valid, test = (labels[names].to_numpy(dtype=np.float64) for labels in (labels_valid, labels_test))

    association = association_test(values_test, test, n_permutations=n_permutations, seed=seed)
    strength = np.nan_to_num(np.abs(spearman(values_valid, valid)), nan=-1.0)
    best, is_known = strength.argmax(axis=1), strength.max(axis=1) >= 0
    of_best = (np.arange(d), best)
    rho = np.where(is_known, association.rho[of_best], np.nan)
    n = np.count_nonzero(~np.isnan(test), axis=0)[best]
    low, high = correlation_interval(rho, n, "spearman")
    auc = single_feature_auc(values_test, _as_classes(names, valid, test))
    is_tested = ~np.isnan(association.p_corrected)
    novelty, null_novelty = _novelty(values_valid, valid, values_test, test, seed)
    scored = align(values_valid, valid, values_test, test)
    rng = np.random.default_rng(seed)
    null = align(values_valid, rng.permutation(valid, axis=0), values_test, rng.permutation(test, axis=0))
    return table.assign(
        best_label=_named(names, best, is_known),
        score_label=_named(names, scored.label, scored.label >= 0),
        score=scored.score,
        null_score=null.score,
        n=n,
        rho=rho,
        low=low,
        high=high,
        max_rho=np.where(is_tested, np.nan_to_num(np.abs(association.rho)).max(axis=1), np.nan),
        null_mean=np.where(is_tested, association.null_mean, np.nan),
        null_q95=np.where(is_tested, association.null_q95, np.nan),
        p_corrected=association.p_corrected,
        q=association.q,
        auc=np.where(is_known & ~np.isnan(rho), auc[of_best], np.nan),
        novelty=novelty,
        null_novelty=null_novelty,
    )


def frequency_groups(d: int) -> list[int]:
    """Return the edges of the groups of ranks by frequency of d features: 0, d / 32, d / 16, ..., d; none is empty."""
    return [0, *sorted({max(1, d >> i) for i in range(N_FREQUENCY_GROUPS)})]


def _grouped(frequency: NDArray[np.float64], group_sizes: Sequence[int] | None) -> pd.DataFrame:
    """The features with their frequencies and the groups that they fall into."""
    d = len(frequency)
    if group_sizes is not None and sum(group_sizes) != d:
        raise ValueError(f"group_sizes {list(group_sizes)} sum to {sum(group_sizes)}, the table has {d} features")
    rank = np.empty(d, dtype=np.int64)
    rank[np.lexsort((np.arange(d), -frequency))] = np.arange(d)
    table = pd.DataFrame({"feature": np.arange(d), "frequency": frequency, "frequency_rank": rank})
    table["group"] = _group_names(rank, frequency_groups(d))
    if group_sizes is not None:
        table["matryoshka_group"] = _group_names(np.arange(d), [0, *np.cumsum(group_sizes)])
    return table


def _group_names(place: NDArray[np.int64], edges: Sequence[int]) -> NDArray[np.str_]:
    names = np.array([f"{low}-{high}" for low, high in pairwise(edges)])
    return names[np.searchsorted(edges, place, side="right") - 1]


def _named(names: NDArray[np.str_], chosen: NDArray[np.intp], is_known: NDArray[np.bool_]) -> "pd.Series[str]":
    """Names of the chosen labels; None where none is known."""
    return pd.Series([name if known else None for name, known in zip(names[chosen], is_known, strict=True)])


def _as_classes(names: NDArray[np.str_], valid: NDArray[np.float64], test: NDArray[np.float64]) -> NDArray[np.float64]:
    """Test labels as 0/1: fractions split at one half, two-valued labels; all NaN for others, NaN where missing."""
    classes = np.full(test.shape, np.nan)
    for j, name in enumerate(names):
        distinct = np.unique(np.concatenate([part[~np.isnan(part[:, j]), j] for part in (valid, test)]))
        if str(name).endswith("_fraction"):
            threshold = 0.5
        elif len(distinct) == 2:
            threshold = distinct.mean()
        else:
            continue
        known = ~np.isnan(test[:, j])
        classes[known, j] = test[known, j] > threshold
    return classes


def _novelty(
    values_valid: FeatureMatrix,
    valid: NDArray[np.float64],
    values_test: FeatureMatrix,
    test: NDArray[np.float64],
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Novelty (d,), and the same with the galaxies of both parts permuted against their labels."""
    predictors, predictors_test = labels_as_predictors(valid, test)
    rng = np.random.default_rng(seed)
    shuffled, shuffled_test = (rng.permutation(part, axis=0) for part in (predictors, predictors_test))
    r2 = held_out_r2(values_valid, predictors, values_test, predictors_test)
    null = held_out_r2(values_valid, shuffled, values_test, shuffled_test)
    return np.clip(1 - r2, 0, 1), np.clip(1 - null, 0, 1)
