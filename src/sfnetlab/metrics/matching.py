"""Do two dictionaries, or any two feature tables, hold the same: over seeds, against chance, against what was planted.

Cosines are signed throughout: latents are 0 or more, so an atom and its opposite mean different things. Correlations
between features of any two tables are matched by size, since the sign of a principal component means nothing.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from sfnetlab.metrics.nulls import ALIKE
from sfnetlab.metrics.tables import (
    FeatureMatrix,
    Table,
    checked_table,
    column_mean_sd,
    columns_of,
    row_blocks,
    transpose_product,
    varying_columns,
)

SHARED_COSINES = (0.7, 0.9)
"""Matched pairs above these cosines count as the same latent."""

PARTNER_BLOCK = 512
"""Features that are held against all of another table at a time."""


class Dictionary(NamedTuple):
    """The atoms and encoder that one run learned."""

    W_dec: NDArray[np.floating]
    """(n_latents, d_in)"""
    W_enc: NDArray[np.floating]
    """(d_in, n_latents)"""
    is_alive: NDArray[np.bool_] | None = None
    """(n_latents,), which latents to look at; None: all. An atom that never fires is what it started as."""


class Match(NamedTuple):
    """Pairs of latents of two dictionaries, each latent at most once; all of shape (n_pairs,), in order of `a`."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    decoder_cosine: NDArray[np.float64]
    encoder_cosine: NDArray[np.float64]


class Recovery(NamedTuple):
    """How many planted atoms were learned."""

    mmcs: float
    """Mean over planted atoms of the largest cosine to a learned one (mean max cosine similarity)."""
    rec90: float
    """Share of the planted atoms with a learned one at a cosine above 0.9."""


class Consensus(NamedTuple):
    """Atoms that several runs agree on, most recurrent first."""

    W_dec: NDArray[np.float64]
    """(n_consensus, d_in), means of the members' directions, of length 1."""
    members: NDArray[np.int64]
    """(n_consensus, n_runs), the latent of each run; -1 where the run has none."""

    @property
    def n_runs(self) -> NDArray[np.int64]:
        """In how many runs each atom recurs, (n_consensus,)."""
        return np.count_nonzero(self.members >= 0, axis=1)


class FeatureMatch(NamedTuple):
    """Pairs of features of two tables, and what pairs are found where the galaxies of one are shuffled."""

    pairs: pd.DataFrame
    """A row a pair, in order of `feature_a`: `feature_a`, `feature_b`, `correlation_fit` and `correlation_test`
    (Pearson, signed), `p` (of |correlation_test|, the pair held fixed and the test galaxies of b permuted)."""
    null: pd.DataFrame
    """A row a pair and permutation: `permutation`, `correlation_fit`, `correlation_test`, of tables b whose galaxies
    were permuted before the features were matched."""
    n_alive_a: int
    n_alive_b: int
    """Features that vary on both samples; the fewer are all matched."""


def cross_correlations(a: FeatureMatrix, b: FeatureMatrix) -> NDArray[np.float64]:
    """Return the Pearson correlation of every feature of a with every feature of b over the same rows, (d_a, d_b).

    Tables are dense or CSR, in any combination, and never densified. NaN where a feature is constant on these rows.

    Raises
    ------
    ValueError
        If the numbers of rows differ, there is none, or a value is not finite.
    """
    return _correlations(*_same_rows(a, b))


def best_partners(
    a_fit: FeatureMatrix, b_fit: FeatureMatrix, a_test: FeatureMatrix, b_test: FeatureMatrix
) -> NDArray[np.float64]:
    """Return how well each feature of a is found in b: |Pearson correlation| on test rows with its partner, (d_a,).

    The partner is the feature of b that is most alike on fit rows; several features may have the same. 0 where a
    feature is constant, or has no partner, on either sample.

    Parameters
    ----------
    a_fit, b_fit, a_test, b_test
        As for `match_features`.
    """
    d = checked_table(a_fit, "a_fit").shape[1]
    found = np.zeros(d)
    for start in range(0, d, PARTNER_BLOCK):
        columns = np.arange(start, min(start + PARTNER_BLOCK, d))
        fit, test = (
            np.nan_to_num(np.abs(cross_correlations(columns_of(a, columns), b)))
            for a, b in ((a_fit, b_fit), (a_test, b_test))
        )
        if fit.shape[1]:
            found[columns] = test[np.arange(len(columns)), fit.argmax(axis=1)]
    return found


def match_features(
    a_fit: FeatureMatrix,
    b_fit: FeatureMatrix,
    a_test: FeatureMatrix,
    b_test: FeatureMatrix,
    n_permutations: int,
    seed: int,
) -> FeatureMatch:
    """Return one-to-one pairs of features of two tables with the largest sum of |Pearson correlation|.

    The Hungarian method chooses the pairs on the fit rows, and they are measured on the test rows, so that chance has
    no part in what is reported.
    Features that are constant, for example silent, on either sample are left out. What unrelated tables would give
    is seen by permuting the galaxies of b, on both samples, and matching anew: a correlation of test rows that
    unrelated features reach depends on how often they are active.

    Parameters
    ----------
    a_fit, b_fit : (n_fit, d_a) and (n_fit, d_b)
        The same galaxies in the same order, train or valid rows.
    a_test, b_test : (n_test, d_a) and (n_test, d_b)
        The same galaxies in the same order, not among the fit rows.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, `n_permutations` is less than 1, or a table has no feature that
        varies on both samples.
    """
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1, got {n_permutations}")
    (x_fit, y_fit), (x_test, y_test) = _same_rows(a_fit, b_fit), _same_rows(a_test, b_test)
    alive_a, alive_b = varying_features(a_fit, a_test, "a"), varying_features(b_fit, b_test, "b")
    x_fit, x_test = x_fit[:, alive_a], x_test[:, alive_a]
    y_fit, y_test = y_fit[:, alive_b], y_test[:, alive_b]
    i, j, correlation_fit = _best_pairs(x_fit, y_fit)
    correlation_test = _pair_correlations(x_test, y_test, i, j)
    rng = np.random.default_rng(seed)
    n_as_strong = np.zeros(len(i), dtype=np.int64)
    null: list[pd.DataFrame] = []
    for permutation in range(n_permutations):
        shuffled_fit = y_fit[rng.permutation(y_fit.shape[0])]
        shuffled_test = y_test[rng.permutation(y_test.shape[0])]
        null_i, null_j, null_fit = _best_pairs(x_fit, shuffled_fit)
        null_test = _pair_correlations(x_test, shuffled_test, null_i, null_j)
        null.append(
            pd.DataFrame({"permutation": permutation, "correlation_fit": null_fit, "correlation_test": null_test})
        )
        # the pairs do not depend on the test rows: with them permuted this is an exact test of each pair
        n_as_strong += np.abs(_pair_correlations(x_test, shuffled_test, i, j)) >= np.abs(correlation_test)
    pairs = pd.DataFrame(
        {
            "feature_a": alive_a[i],
            "feature_b": alive_b[j],
            "correlation_fit": correlation_fit,
            "correlation_test": correlation_test,
            "p": (n_as_strong + 1) / (n_permutations + 1),
        }
    )
    return FeatureMatch(pairs, pd.concat(null, ignore_index=True), len(alive_a), len(alive_b))


def summarise_match(match: FeatureMatch) -> dict[str, float]:
    """Return how much two tables share, in a few numbers, all of |correlation| on the test rows.

    Returns
    -------
    dict
        `mean_correlation` over the pairs; `null_mean` and `null_q95` of permuted tables, all pairs together; `p` of
        the mean (a permutation's mean is as large; counts plus one); `share_above_null`, of the pairs above
        `null_q95` (0.05 by chance); `permuted_alike`, of the pairs of permuted tables above `nulls.ALIKE`; `n_pairs`,
        `n_alive_a`, `n_alive_b`.
    """
    observed, null = match.pairs["correlation_test"].abs(), match.null["correlation_test"].abs()
    null_means = null.groupby(match.null["permutation"]).mean()
    q95 = float(null.quantile(0.95))
    return {
        "mean_correlation": float(observed.mean()),
        "null_mean": float(null.mean()),
        "null_q95": q95,
        "p": float((np.count_nonzero(null_means >= observed.mean()) + 1) / (len(null_means) + 1)),
        "share_above_null": float((observed > q95).mean()),
        "permuted_alike": float((null > ALIKE).mean()),
        "n_pairs": len(observed),
        "n_alive_a": match.n_alive_a,
        "n_alive_b": match.n_alive_b,
    }


def pair_cosines(
    pairs: pd.DataFrame, directions_a: NDArray[np.floating], directions_b: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the cosine of the directions of each pair's features, (n_pairs,), where both tables share an embedding.

    Parameters
    ----------
    pairs : DataFrame
        `FeatureMatch.pairs`.
    directions_a, directions_b : (d_a, d_in) and (d_b, d_in)
        Rows are decoder atoms, principal components; for raw dimensions the unit matrix.
    """
    a, b = (_directions(vectors) for vectors in (directions_a, directions_b))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"directions of d_in {a.shape[1]} and {b.shape[1]} share no space")
    return np.sum(a[pairs["feature_a"].to_numpy()] * b[pairs["feature_b"].to_numpy()], axis=1)


def match_dictionaries(a: Dictionary, b: Dictionary) -> Match:
    """Return one-to-one pairs of alive latents with the largest sum of decoder cosines (the Hungarian method).

    Where one dictionary has more alive latents than the other, some of its stay without a partner. An atom of zeros
    has cosine 0 with everything.

    Raises
    ------
    ValueError
        If the dictionaries' `d_in` differ, shapes do not fit, or one has no latent alive.

    References
    ----------
    Paulo & Belrose 2025, arXiv:2501.16615 (matching over seeds; decoder and encoder looked at); Song et al. 2025,
    arXiv:2505.20254 (the mean decoder cosine of the pairs is PW-MCC).
    """
    alive_a, decoder_a, encoder_a = _alive_directions(a)
    alive_b, decoder_b, encoder_b = _alive_directions(b)
    if decoder_a.shape[1] != decoder_b.shape[1]:
        raise ValueError(f"dictionaries of d_in {decoder_a.shape[1]} and {decoder_b.shape[1]} cannot be matched")
    i, j = linear_sum_assignment(decoder_a @ decoder_b.T, maximize=True)
    return Match(
        alive_a[i],
        alive_b[j],
        np.sum(decoder_a[i] * decoder_b[j], axis=1),
        np.sum(encoder_a[i] * encoder_b[j], axis=1),
    )


def activation_correlation(match: Match, codes_a: FeatureMatrix, codes_b: FeatureMatrix) -> NDArray[np.float64]:
    """Return the Pearson correlation of the activations of each matched pair over the same rows, (n_pairs,).

    Codes are CSR and are never densified. NaN where a latent is constant, for example silent, on these rows.

    Raises
    ------
    ValueError
        If the numbers of rows differ, or there is none.
    """
    x, y = (_sparse(codes, name) for codes, name in ((codes_a, "codes_a"), (codes_b, "codes_b")))
    if x.shape[0] != y.shape[0] or x.shape[0] == 0:
        raise ValueError(f"expected codes of the same rows, at least one, got {x.shape[0]} and {y.shape[0]} rows")
    return _pair_correlations(x, y, match.a, match.b)


def unrelated_dictionary(dictionary: Dictionary, seed: int) -> Dictionary:
    """Return atoms drawn at random with the mean and covariance of a dictionary's own, which agree by chance alone.

    Every new latent is a Gaussian mixture of the alive ones, the same mixture in decoder and encoder. Atoms of one
    embedding crowd its few directions of large variance, where even unrelated ones are alike; atoms drawn in all
    directions alike, or turned by a random rotation, would not share them and would put chance too low.
    """
    alive, decoder, encoder = _alive_directions(dictionary)
    mixture = np.random.default_rng(seed).standard_normal((len(alive), len(alive))) / np.sqrt(len(alive))
    new_decoder, new_encoder = (part.mean(axis=0) + mixture @ (part - part.mean(axis=0)) for part in (decoder, encoder))
    return Dictionary(new_decoder, new_encoder.T)


def seed_stability(
    dictionaries: Mapping[int, Dictionary], codes: Mapping[int, FeatureMatrix] | None = None
) -> pd.DataFrame:
    """Return how alike the dictionaries of every two seeds are, with the level that chance reaches.

    Parameters
    ----------
    dictionaries : mapping
        Seed to what it learned; two or more.
    codes : mapping, optional
        Seed to the CSR codes of the same rows.

    Returns
    -------
    DataFrame
        `seed_a, seed_b, metric, value`. Metrics are over the matched pairs of two seeds: `decoder_cosine` (mean;
        PW-MCC), `encoder_cosine` (mean), `shared_0.7` and `shared_0.9` (shares of pairs with a decoder cosine above),
        and with codes `activation_correlation` (mean over pairs that both vary). `<metric>_chance`: the same for one
        seed against atoms like the other's but unrelated (`unrelated_dictionary`); of the correlation, for pairs
        that are shuffled.

    Raises
    ------
    ValueError
        If there are fewer than two dictionaries, codes of other seeds, or dictionaries that do not fit together.
    """
    if len(dictionaries) < 2:
        raise ValueError(f"stability over seeds needs two dictionaries or more, got {len(dictionaries)}")
    if codes is not None and set(codes) != set(dictionaries):
        raise ValueError(f"expected codes of the seeds {sorted(dictionaries)}, got {sorted(codes)}")
    table: list[dict[str, int | str | float]] = []
    unrelated = {seed: unrelated_dictionary(dictionaries[seed], seed) for seed in sorted(dictionaries)[1:]}
    for seed_a, seed_b in combinations(sorted(dictionaries), 2):
        match = match_dictionaries(dictionaries[seed_a], dictionaries[seed_b])
        chance = match_dictionaries(dictionaries[seed_a], unrelated[seed_b])
        numbers = _agreement(match) | {f"{name}_chance": value for name, value in _agreement(chance).items()}
        if codes is not None:
            shuffled = match._replace(b=np.random.default_rng(seed_b).permutation(match.b))
            for name, pairs in (("activation_correlation", match), ("activation_correlation_chance", shuffled)):
                correlation = activation_correlation(pairs, codes[seed_a], codes[seed_b])
                is_known = ~np.isnan(correlation)
                numbers[name] = float(correlation[is_known].mean()) if is_known.any() else np.nan
        table += [{"seed_a": seed_a, "seed_b": seed_b, "metric": name, "value": v} for name, v in numbers.items()]
    return pd.DataFrame(table)


def _agreement(match: Match) -> dict[str, float]:
    shared = {f"shared_{level}": float(np.mean(match.decoder_cosine > level)) for level in SHARED_COSINES}
    return {
        "decoder_cosine": float(match.decoder_cosine.mean()),
        "encoder_cosine": float(match.encoder_cosine.mean()),
    } | shared


def consensus_dictionary(
    dictionaries: Sequence[Dictionary], min_cosine: float = 0.7, min_share: float = 0.5
) -> Consensus:
    """Return atoms that recur in at least a share of the *other* runs, averaged over the runs that have them.

    Runs are taken in turn: the alive latents of each are matched one-to-one (Hungarian) with the mean directions found
    so far, and join where the cosine is above `min_cosine`; the others found new directions. So no run is the
    reference, and an atom has at most one latent of each run.

    Parameters
    ----------
    dictionaries : sequence
        One for each run, two or more.
    min_cosine
        Two latents are the same above it.
    min_share
        An atom of r runs is kept if (r - 1) / (n_runs - 1) is at least this; 0 keeps every alive latent.

    Raises
    ------
    ValueError
        If there are fewer than two dictionaries, or they do not fit together.
    """
    n_runs = len(dictionaries)
    if n_runs < 2:
        raise ValueError(f"a consensus needs two dictionaries or more, got {n_runs}")
    d_in = {dictionary.W_dec.shape[1] for dictionary in dictionaries}
    if len(d_in) > 1:
        raise ValueError(f"dictionaries of d_in {sorted(d_in)} have no consensus")
    sums = np.empty((0, *d_in))
    members = np.empty((0, n_runs), dtype=np.int64)
    for run, dictionary in enumerate(dictionaries):
        alive, atoms, _ = _alive_directions(dictionary)
        cosine = atoms @ _directions(sums).T
        # a pair below the bound counts nothing, so it never costs a pair above it
        latent, known = linear_sum_assignment(np.where(cosine > min_cosine, cosine, 0), maximize=True)
        joins = cosine[latent, known] > min_cosine
        latent, known = latent[joins], known[joins]
        sums[known] += atoms[latent]
        members[known, run] = alive[latent]
        is_new = np.ones(len(alive), dtype=bool)
        is_new[latent] = False
        new = np.full((np.count_nonzero(is_new), n_runs), -1)
        new[:, run] = alive[is_new]
        sums, members = np.concatenate([sums, atoms[is_new]]), np.concatenate([members, new])
    count = np.count_nonzero(members >= 0, axis=1)
    kept = np.flatnonzero(count - 1 >= min_share * (n_runs - 1) - 1e-9)
    kept = kept[np.argsort(-count[kept], kind="stable")]
    return Consensus(_directions(sums[kept]), members[kept])


def recovery(atoms: NDArray[np.floating], W_dec: NDArray[np.floating]) -> Recovery:
    """Return how well learned atoms (n_latents, d_in) cover planted ones (n_true, d_in); one may serve several.

    References
    ----------
    Sharkey, Braun & Millidge 2022, "Taking features out of superposition with sparse autoencoders" (MMCS).
    """
    best = _cosines(atoms, W_dec).max(axis=1)
    return Recovery(float(best.mean()), float(np.mean(best > 0.9)))


def splitting(atoms: NDArray[np.floating], W_dec: NDArray[np.floating], min_cosine: float = 0.5) -> NDArray[np.int64]:
    """Return how many latents share each planted atom, shape (n_true,): 1 is right, 0 is lost, more is split.

    A latent belongs to the atom of the largest cosine, if that is above `min_cosine`; pass only alive latents.

    Parameters
    ----------
    atoms : ndarray of shape (n_true, d_in)
    W_dec : ndarray of shape (n_latents, d_in)

    References
    ----------
    Feature splitting: Bricken et al. 2023, "Towards monosemanticity"; Chanin et al. 2024, arXiv:2409.14507.
    """
    cosine = _cosines(atoms, W_dec)
    owner = cosine.argmax(axis=0)
    return np.bincount(owner[cosine.max(axis=0) > min_cosine], minlength=len(atoms))


def split_latents(
    small: NDArray[np.floating],
    large: NDArray[np.floating],
    codes_small: FeatureMatrix,
    codes_large: FeatureMatrix,
    min_cosine: float = 0.5,
) -> pd.DataFrame:
    """Return what becomes of the latents of a small dictionary in a larger one on the same embedding.

    Each latent of the large dictionary has as its parent the latent of the small one with the largest decoder cosine.

    Parameters
    ----------
    small, large : ndarray of shape (n_small, d_in) and (n_large, d_in)
        `W_dec` of the two.
    codes_small, codes_large : (n, n_small) and (n, n_large)
        Their latents on the same galaxies; only latents that are active on one of them at least are looked at.
    min_cosine
        Above this a latent counts as a child of its parent.

    Returns
    -------
    DataFrame
        A row for each alive latent of the large dictionary: `latent`, `parent`, `decoder_cosine`, `is_child`,
        `n_siblings` (children of the parent, itself included), `within` (share of its galaxies in which the parent is
        active too), `within_chance` (share of all galaxies in which the parent is active, what independent latents
        would give), `coverage` (share of the parent's galaxies in which it is active).

    Raises
    ------
    ValueError
        If shapes do not fit, or a dictionary has no latent alive.
    """
    x, y = _same_rows(codes_small, codes_large)
    if x.shape[1] != len(small) or y.shape[1] != len(large):
        raise ValueError(f"codes of {x.shape[1]} and {y.shape[1]} latents, but {len(small)} and {len(large)} atoms")
    active_small, active_large = (_activity(table) for table in (x, y))
    count_small, count_large = (np.asarray(active.sum(axis=0)) for active in (active_small, active_large))
    alive_small, alive_large = np.flatnonzero(count_small), np.flatnonzero(count_large)
    if not (len(alive_small) and len(alive_large)):
        raise ValueError(f"{len(alive_small)} and {len(alive_large)} latents are alive on these {x.shape[0]} rows")
    cosine = _cosines(small[alive_small], large[alive_large])
    parent = alive_small[cosine.argmax(axis=0)]
    largest = cosine.max(axis=0)
    both = active_small[:, parent].multiply(active_large[:, alive_large]).sum(axis=0)
    is_child = largest > min_cosine
    n_children = np.bincount(parent[is_child], minlength=len(small))
    return pd.DataFrame(
        {
            "latent": alive_large,
            "parent": parent,
            "decoder_cosine": largest,
            "is_child": is_child,
            "n_siblings": n_children[parent],
            "within": both / count_large[alive_large],
            "within_chance": count_small[parent] / x.shape[0],
            "coverage": both / count_small[parent],
        }
    )


def children_per_latent(split: pd.DataFrame, n_alive_small: int) -> pd.DataFrame:
    """Return how many latents of the small dictionary have how many children: `n_children` (0 up), `n_latents`.

    Parameters
    ----------
    split : DataFrame
        From `split_latents`.
    n_alive_small
        Alive latents of the small dictionary; those that are nobody's parent have no child.
    """
    per_parent = split.loc[split["is_child"], "parent"].value_counts()
    counts = np.bincount(per_parent.to_numpy(dtype=np.int64), minlength=1)
    counts[0] = n_alive_small - len(per_parent)
    return pd.DataFrame({"n_children": np.arange(len(counts)), "n_latents": counts})


def absorption(
    codes: FeatureMatrix,
    true_codes: FeatureMatrix,
    atoms: NDArray[np.floating],
    W_dec: NDArray[np.floating],
    parent: NDArray[np.integer],
    min_weight: float = 0.3,
) -> pd.DataFrame:
    """Return where the latent of a general atom is silent because latents of its children say it too.

    Chanin et al. ask on which rows a feature is present, its latent silent, and another latent, along the feature's
    direction, fires instead. They find feature and latent with a probe; here both are known. A parent's *own* latent
    is that with the largest cosine to it. A latent *carries* parent p with child c if the least-squares weights of its
    unit direction on the two atoms both exceed `min_weight`: a latent along c alone has weight 0 on p even if the
    two atoms are alike. Rows on which a parent is truly active fall into three parts: `detected` (its own latent
    fires), `absorbed` (that is silent, and a latent fires that carries the parent with a descendant that is truly
    active), `missed` (neither).

    Parameters
    ----------
    codes : CSR of shape (n, n_latents)
        The codes of the SAE; a latent fires where its value is not zero.
    true_codes : CSR of shape (n, n_true)
        The planted coefficients of the same rows.
    atoms : ndarray of shape (n_true, d_in)
    W_dec : ndarray of shape (n_latents, d_in)
    parent : ndarray of shape (n_true,)
        The parent of each atom; -1 at a root.

    Returns
    -------
    DataFrame
        A row for each atom with children: `atom`, `latent` (its own), `cosine`, `n_rows` (truly active), `detected`,
        `absorbed`, `missed` (shares of these rows; NaN where there is none). The rate over a tree is the mean of
        `absorbed` weighted by `n_rows`.

    Raises
    ------
    ValueError
        If shapes do not fit, or `parent` is not a forest.

    References
    ----------
    Chanin et al. 2024, arXiv:2409.14507; as a benchmark: Karvonen et al. 2025, arXiv:2503.09532 (SAEBench).
    """
    fires, present = _sparse(codes, "codes"), _sparse(true_codes, "true_codes")
    if fires.shape != (present.shape[0], len(W_dec)) or present.shape[1] != len(atoms) or len(parent) != len(atoms):
        raise ValueError(
            f"expected codes (n, {len(W_dec)}), true_codes (n, {len(atoms)}) of the same rows and {len(atoms)} "
            f"parents, got {fires.shape}, {present.shape} and {len(parent)}"
        )
    ancestors = _ancestors(np.asarray(parent))
    along, alike = _cosines(atoms, W_dec), _cosines(atoms, atoms)
    fires, present = fires.tocsc(), present.tocsc()
    table = []
    for p in np.unique(ancestors[:, 0]):
        latent = int(along[p].argmax())
        active = _is_active(present, [p])
        silent = active & ~_is_active(fires, [latent])
        is_said = np.zeros_like(silent)
        for child in ancestors[ancestors[:, 0] == p, 1]:
            carries = _weights(along[p], along[child], alike[p, child]).min(axis=0) > min_weight
            is_said |= _is_active(present, [child]) & _is_active(fires, np.flatnonzero(carries))
        n_rows, n_silent, n_absorbed = (np.count_nonzero(part) for part in (active, silent, silent & is_said))
        shares = np.array([n_rows - n_silent, n_absorbed, n_silent - n_absorbed]) / (n_rows or np.nan)
        table.append((p, latent, along[p, latent], n_rows, *shares))
    return pd.DataFrame(table, columns=["atom", "latent", "cosine", "n_rows", "detected", "absorbed", "missed"])


def _is_active(by_column: Any, columns: ArrayLike) -> NDArray[np.bool_]:
    """On which rows of a CSC any of the columns is not zero, (n,)."""
    part = by_column[:, columns]
    return np.bincount(part.indices[part.data != 0], minlength=part.shape[0]) > 0


def _weights(along_p: NDArray[np.float64], along_c: NDArray[np.float64], alike: float) -> NDArray[np.float64]:
    """Least-squares weights of directions on two unit atoms, from cosines; (2, n), zero where the atoms are one."""
    left = 1 - alike**2
    if left < 1e-12:
        return np.zeros((2, len(along_p)))
    return np.stack([along_p - alike * along_c, along_c - alike * along_p]) / left


def _ancestors(parent: NDArray[np.integer]) -> NDArray[np.integer]:
    """Every pair (ancestor, descendant), shape (n_pairs, 2)."""
    n = len(parent)
    if n and not (parent.min() >= -1 and parent.max() < n):
        raise ValueError(f"parents must lie in [-1, {n}), got {parent.min()} to {parent.max()}")
    above, atom = parent, np.arange(n)
    pairs: list[NDArray[np.integer]] = [np.empty((0, 2), dtype=np.int64)]
    for _ in range(n + 1):
        atom, above = atom[above >= 0], above[above >= 0]
        if not len(atom):
            break
        pairs.append(np.stack([above, atom], axis=1))
        above = parent[above]
    else:
        raise ValueError("parents go round in a circle: expected a forest, with -1 at its roots")
    return np.concatenate(pairs)


def _alive_directions(dictionary: Dictionary) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Indices of the alive latents, and their decoder and encoder directions (n_alive, d_in), of length 1."""
    W_dec, W_enc, is_alive = dictionary
    alive = np.arange(len(W_dec)) if is_alive is None else np.flatnonzero(is_alive)
    if W_enc.shape != W_dec.shape[::-1] or (is_alive is not None and is_alive.shape != W_dec.shape[:1]):
        raise ValueError(
            f"expected W_dec (n_latents, d_in), W_enc (d_in, n_latents) and is_alive (n_latents,), got "
            f"{W_dec.shape}, {W_enc.shape} and {None if is_alive is None else is_alive.shape}"
        )
    if len(alive) == 0:
        raise ValueError(f"none of the {len(W_dec)} latents is alive: there is nothing to match")
    return alive, _directions(W_dec[alive]), _directions(W_enc[:, alive].T)


def _directions(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows of length 1 in float64; rows of zeros stay."""
    rows = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def _cosines(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    return _directions(a) @ _directions(b).T


def _same_rows(a: FeatureMatrix, b: FeatureMatrix) -> tuple[Table, Table]:
    x, y = checked_table(a, "a"), checked_table(b, "b")
    if x.shape[0] != y.shape[0] or x.shape[0] == 0:
        raise ValueError(
            f"expected two tables of the same galaxies, at least one, got {x.shape[0]} and {y.shape[0]} rows"
        )
    return x, y


def varying_features(a: FeatureMatrix, b: FeatureMatrix, name: str) -> NDArray[np.int64]:
    """Return the features that vary on both of two samples, rising.

    Raises
    ------
    ValueError
        If there is none, or the samples have different numbers of features; `name` says of which table.
    """
    fit, test = checked_table(a), checked_table(b)
    if fit.shape[1] != test.shape[1]:
        raise ValueError(
            f"table {name} has {fit.shape[1]} features in its fit rows and {test.shape[1]} in its test rows"
        )
    varying = varying_columns(a, b)
    if len(varying) == 0:
        raise ValueError(f"none of the {fit.shape[1]} features of table {name} varies on both samples")
    return varying


def _correlations(x: Table, y: Table) -> NDArray[np.float64]:
    (mean_x, sd_x), (mean_y, sd_y) = column_mean_sd(x), column_mean_sd(y)
    if isinstance(x, np.ndarray):
        covariance = _centred_product(x, mean_x, y, mean_y)
    elif isinstance(y, np.ndarray):
        covariance = _centred_product(y, mean_y, x, mean_x).T
    else:
        covariance = (x.T @ y.astype(np.float64)).toarray() - x.shape[0] * np.outer(mean_x, mean_y)
    norm = x.shape[0] * np.outer(sd_x, sd_y)
    return np.clip(np.divide(covariance, norm, out=np.full_like(norm, np.nan), where=norm > 0), -1, 1)


def _best_pairs(a: Table, b: Table) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    correlation = _correlations(a, b)
    i, j = linear_sum_assignment(np.abs(correlation), maximize=True)
    return i, j, correlation[i, j]


def _pair_correlations(a: Table, b: Table, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pearson correlation of column i of a with column j of b, pair by pair; NaN where one is constant."""
    x, y = a[:, i], b[:, j]
    (mean_x, sd_x), (mean_y, sd_y) = column_mean_sd(x), column_mean_sd(y)
    n = x.shape[0]
    if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
        products = np.zeros(len(i))
        for rows, block in row_blocks(x):
            other = y[rows]
            dense = other if isinstance(other, np.ndarray) else other.toarray()
            products += np.sum((block - mean_x) * (dense - mean_y), axis=0)
    else:
        product: Any = x
        products = product.astype(np.float64).multiply(y).sum(axis=0) - n * mean_x * mean_y
    norm = n * sd_x * sd_y
    return np.clip(np.divide(products, norm, out=np.full_like(norm, np.nan), where=norm > 0), -1, 1)


def _centred_product(
    x: NDArray[np.floating], mean_x: NDArray[np.float64], y: Table, mean_y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(x - mean_x).T @ (y - mean_y); of a CSR, whose means are small, nothing need be taken off."""
    product = np.zeros((x.shape[1], y.shape[1]))
    for rows, block in row_blocks(x):
        other = y[rows]
        product += transpose_product(other - mean_y if isinstance(other, np.ndarray) else other, block - mean_x).T
    return product


def _activity(table: Table) -> Any:
    """1 where a latent is active, as CSC."""
    active = sparse.csc_array(table).astype(bool)
    active.eliminate_zeros()
    return active.astype(np.float64)


def _sparse(codes: FeatureMatrix, name: str) -> Any:  # scipy's sparse arrays have no types
    table = checked_table(codes, name)
    if isinstance(table, np.ndarray):
        raise ValueError(f"{name}: expected CSR codes, got a dense array")
    return table.astype(np.float64)
