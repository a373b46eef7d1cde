"""Matching of dictionaries and tables: permutations are undone, planted recurrence and absorption are counted."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from sfnetlab.metrics.matching import (
    Dictionary,
    absorption,
    activation_correlation,
    children_per_latent,
    consensus_dictionary,
    cross_correlations,
    match_dictionaries,
    match_features,
    pair_cosines,
    recovery,
    seed_stability,
    split_latents,
    splitting,
    summarise_match,
    unrelated_dictionary,
)


def dictionary(rng: np.random.Generator, n_latents: int = 30, d_in: int = 16) -> Dictionary:
    W_dec = rng.standard_normal((n_latents, d_in))
    return Dictionary(W_dec, (W_dec + 0.1 * rng.standard_normal(W_dec.shape)).T)


def permuted(a: Dictionary, order: np.ndarray) -> Dictionary:
    return Dictionary(a.W_dec[order], a.W_enc[:, order])


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_matching_undoes_a_permutation_and_any_scale(seed, n_latents):
    rng = np.random.default_rng(seed)
    a, order = dictionary(rng, n_latents), rng.permutation(n_latents)
    b = permuted(a, order)
    b = Dictionary(b.W_dec * rng.uniform(0.1, 9, (n_latents, 1)), b.W_enc * rng.uniform(0.1, 9, n_latents))
    match = match_dictionaries(a, b)
    np.testing.assert_array_equal(match.a, np.arange(n_latents))
    np.testing.assert_array_equal(order[match.b], match.a)
    np.testing.assert_allclose(match.decoder_cosine, 1)
    np.testing.assert_allclose(match.encoder_cosine, 1)


def test_matching_is_symmetric_and_best():
    rng = np.random.default_rng(0)
    a, b = dictionary(rng, 6), dictionary(rng, 6)
    there, back = match_dictionaries(a, b), match_dictionaries(b, a)
    assert there.decoder_cosine.sum() == pytest.approx(back.decoder_cosine.sum())
    assert set(zip(there.a, there.b, strict=True)) == set(zip(back.b, back.a, strict=True))


def test_dead_latents_are_not_matched():
    rng = np.random.default_rng(1)
    a = dictionary(rng)
    is_alive = np.arange(30) >= 10
    match = match_dictionaries(a._replace(is_alive=is_alive), permuted(a, np.arange(30)[::-1]))
    assert match.a.tolist() == list(range(10, 30))
    np.testing.assert_allclose(match.decoder_cosine, 1)


def test_opposite_atoms_do_not_match():
    a = Dictionary(np.eye(2), np.eye(2))
    match = match_dictionaries(a, Dictionary(-np.eye(2), np.eye(2)))
    np.testing.assert_allclose(match.decoder_cosine, 0)


def test_activation_correlation_is_that_of_numpy_and_nan_for_silent_latents():
    rng = np.random.default_rng(2)
    x, y = (np.maximum(rng.standard_normal((50, 30)) - 0.5, 0) for _ in range(2))
    y[:, :10] += x[:, :10]
    y[:, 3] = 0
    match = match_dictionaries(dictionary(rng), dictionary(rng))
    correlation = activation_correlation(match, sp.csr_array(x), sp.csr_array(y))
    for i, (a, b) in enumerate(zip(match.a, match.b, strict=True)):
        expected = np.nan if b == 3 else np.corrcoef(x[:, a], y[:, b])[0, 1]
        assert correlation[i] == pytest.approx(expected, nan_ok=True)


def test_unrelated_atoms_keep_mean_and_covariance():
    rng = np.random.default_rng(3)
    W_dec = rng.standard_normal((4000, 5)) * [1, 1, 2, 3, 4] + [2, 0, 0, 0, 0]
    W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
    new = unrelated_dictionary(Dictionary(W_dec, W_dec.T), seed=0)
    np.testing.assert_allclose(new.W_dec.mean(axis=0), W_dec.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(np.cov(new.W_dec.T), np.cov(W_dec.T), atol=0.02)
    np.testing.assert_allclose(new.W_enc, new.W_dec.T)


def test_unrelated_runs_agree_at_the_level_of_chance():
    rng = np.random.default_rng(4)
    spread = np.linspace(0.1, 3, 24)
    runs = {seed: Dictionary(W := rng.standard_normal((200, 24)) * spread, W.T) for seed in range(3)}
    values = seed_stability(runs).groupby("metric")["value"].mean()
    assert values["decoder_cosine"] == pytest.approx(values["decoder_cosine_chance"], abs=0.02)
    isotropic = {seed: Dictionary(W := rng.standard_normal((200, 24)), W.T) for seed in range(2)}
    assert values["decoder_cosine_chance"] > seed_stability(isotropic)["value"].iloc[0] + 0.1


def test_stability_of_half_shared_runs_is_a_half():
    rng = np.random.default_rng(5)
    shared = rng.standard_normal((100, 128))
    runs = {seed: np.concatenate([rng.standard_normal((100, 128)), shared]) for seed in (3, 1)}
    shared_codes = sp.random_array((200, 100), density=0.3, rng=rng)
    codes = {
        seed: sp.hstack([sp.random_array((200, 100), density=0.3, rng=rng), shared_codes], format="csr")
        for seed in runs
    }
    table = seed_stability({seed: Dictionary(W, W.T) for seed, W in runs.items()}, codes)
    assert table[["seed_a", "seed_b"]].drop_duplicates().to_numpy().tolist() == [[1, 3]]
    values = table.set_index("metric")["value"]
    assert values["shared_0.7"] == values["shared_0.9"] == 0.5
    assert values["shared_0.7_chance"] == 0
    assert values["activation_correlation"] == pytest.approx(0.5, abs=0.05)
    assert abs(values["activation_correlation_chance"]) < 0.05


def test_consensus_holds_what_recurs_and_says_where():
    rng = np.random.default_rng(6)
    truth = rng.standard_normal((12, 64))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    runs, held = [], np.full((12, 4), -1)
    for run in range(4):  # atoms 0-3 in every run, 4-7 in runs 1 to 3, 8-11 in run 0 and 1 only
        atoms = [i for i in range(12) if i < 4 or (i < 8 and run > 0) or (i >= 8 and run < 2)]
        order = rng.permutation(len(atoms))
        held[np.array(atoms)[order], run] = np.arange(len(atoms))
        W_dec = np.concatenate([truth[np.array(atoms)[order]], rng.standard_normal((3, 64))])
        runs.append(Dictionary(W_dec + 0.03 * rng.standard_normal(W_dec.shape), W_dec.T))
    consensus = consensus_dictionary(runs, min_share=0.5)
    assert consensus.n_runs.tolist() == [4] * 4 + [3] * 4
    cosine = consensus.W_dec @ truth.T
    which = cosine.argmax(axis=1)
    assert sorted(which) == list(range(8))
    np.testing.assert_array_equal(consensus.members, held[which])
    np.testing.assert_allclose(cosine.max(axis=1), 1, atol=0.03)
    np.testing.assert_allclose(np.linalg.norm(consensus.W_dec, axis=1), 1)
    assert len(consensus_dictionary(runs, min_share=0).W_dec) == 12 + 4 * 3
    assert len(consensus_dictionary(runs, min_share=1).W_dec) == 4


def test_consensus_leaves_dead_latents_out():
    a = Dictionary(np.eye(3), np.eye(3), np.array([True, False, True]))
    consensus = consensus_dictionary([a, a])
    assert consensus.members.tolist() == [[0, 0], [2, 2]]


def test_recovery_counts_planted_atoms():
    atoms = np.eye(4)
    W_dec = np.array([[2, 0, 0, 0], [0, 1, 1, 0]])
    assert recovery(atoms, W_dec) == pytest.approx(((1 + np.sqrt(2)) / 4, 0.25))


def test_splitting_counts_the_latents_of_each_atom():
    W_dec = np.array([[1, 0.1, 0], [1, -0.1, 0], [0, 1, 0.2], [-1, -1, -1]])
    assert splitting(np.eye(3), W_dec).tolist() == [2, 1, 0]


# Atoms: 0 is the parent of 1 and 2, and 3 is a root; every row has the parent, the third one child 2 alone with it.
TREE = np.array([-1, 0, 0, -1])
TRUE_CODES = sp.csr_array(np.array([[1, 0, 0, 1], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1.0]]))


def codes_of(*rows: list[int]) -> sp.csr_array:
    return sp.csr_array(np.array(rows, dtype=float))


@pytest.mark.parametrize("alike", [0.0, 0.6])
def test_a_faithful_dictionary_absorbs_nothing(alike):
    atoms = np.eye(4)
    atoms[1] = [alike, np.sqrt(1 - alike**2), 0, 0]
    (row,) = absorption(TRUE_CODES, TRUE_CODES, atoms, atoms, TREE).to_dict("records")
    assert row == {"atom": 0, "latent": 0, "cosine": 1, "n_rows": 4, "detected": 1, "absorbed": 0, "missed": 0}


def test_a_latent_of_parent_and_child_absorbs_the_parent():
    atoms = np.eye(4)
    W_dec = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    codes = codes_of([1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 1])
    (row,) = absorption(codes, TRUE_CODES, atoms, W_dec, TREE).to_dict("records")
    assert (row["detected"], row["absorbed"], row["missed"]) == (0.5, 0.25, 0.25)


def test_a_child_like_its_parent_does_not_absorb_it():
    atoms = np.eye(4)
    atoms[1] = [0.6, 0.8, 0, 0]
    codes = codes_of([1, 0, 0, 1], [0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1])
    (row,) = absorption(codes, TRUE_CODES, atoms, atoms, TREE).to_dict("records")
    assert (row["detected"], row["absorbed"], row["missed"]) == (0.5, 0, 0.5)


def test_a_grandchild_can_absorb_and_a_silent_parent_has_no_share():
    atoms = np.eye(4)
    W_dec = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])
    true_codes = codes_of([1, 1, 1, 0], [1, 1, 0, 0])
    chain = np.array([-1, 0, 1, -1])
    table = absorption(codes_of([0, 1, 1, 0], [1, 1, 0, 0]), true_codes, atoms, W_dec, chain).set_index("atom")
    assert table["absorbed"].to_dict() == {0: 0.5, 1: 0}
    silent = absorption(codes_of([0, 0, 0, 0]), codes_of([0, 0, 0, 1]), atoms, W_dec, chain)
    assert (silent["n_rows"] == 0).all()
    assert silent[["detected", "absorbed", "missed"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: match_dictionaries(Dictionary(np.eye(2), np.eye(2)), Dictionary(np.eye(3), np.eye(3))), "2 and 3"),
        (lambda: match_dictionaries(*[Dictionary(np.eye(2), np.eye(2), np.zeros(2, bool))] * 2), "none of the 2"),
        (lambda: match_dictionaries(*[Dictionary(np.ones((2, 3)), np.ones((2, 3)))] * 2), "expected W_dec"),
        (lambda: seed_stability({0: Dictionary(np.eye(2), np.eye(2))}), "two dictionaries or more, got 1"),
        (lambda: consensus_dictionary([Dictionary(np.eye(2), np.eye(2))]), "two dictionaries or more, got 1"),
        (lambda: absorption(TRUE_CODES, TRUE_CODES, np.eye(4), np.eye(4), np.array([1, 0, 0, 0])), "circle"),
        (lambda: absorption(TRUE_CODES, TRUE_CODES, np.eye(4), np.eye(4), np.array([-2, 0, 0, 0])), "got -2 to 0"),
        (lambda: absorption(TRUE_CODES, TRUE_CODES, np.eye(4), np.eye(3), TREE), "expected codes"),
    ],
)  # fmt: skip
def test_unusable_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def sparse_table(rng: np.random.Generator, n: int, d: int, share: float = 0.3) -> np.ndarray:
    return np.where(rng.random((n, d)) < share, rng.exponential(size=(n, d)), 0).astype(np.float32)


@pytest.mark.parametrize("as_a", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("as_b", [np.asarray, sp.csr_array])
def test_correlations_of_two_tables_equal_numpy(as_a, as_b):
    rng = np.random.default_rng(0)
    a, b = sparse_table(rng, 60, 5), sparse_table(rng, 60, 7)
    expected = np.corrcoef(a.astype(float), b.astype(float), rowvar=False)[:5, 5:]
    np.testing.assert_allclose(cross_correlations(as_a(a), as_b(b)), expected, atol=1e-12)


def test_correlation_with_a_constant_feature_is_unknown():
    a, b = np.ones((9, 2), dtype=np.float32), np.arange(9.0)[:, None]
    a[:, 1] = np.arange(9)
    np.testing.assert_allclose(cross_correlations(a, b), [[np.nan], [1.0]])


def test_large_offset_leaves_correlations_of_dense_tables_right():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((200, 3)), rng.standard_normal((200, 3))
    np.testing.assert_allclose(cross_correlations(a + 1e5, b + 1e5), cross_correlations(a, b), atol=1e-9)


@pytest.mark.parametrize("as_b", [np.asarray, sp.csr_array])
def test_features_are_matched_with_their_noisy_shuffled_and_flipped_copies(as_b):
    rng = np.random.default_rng(2)
    a = sparse_table(rng, 400, 12)
    order, sign = rng.permutation(12), rng.choice([-1, 1], 12)
    b = as_b((a[:, order] * sign + 0.05 * sparse_table(rng, 400, 12)).astype(np.float32))
    match = match_features(a[:300], b[:300], a[300:], b[300:], 20, 0)
    np.testing.assert_array_equal(order[match.pairs["feature_b"]], match.pairs["feature_a"])
    np.testing.assert_array_equal(np.sign(match.pairs["correlation_test"]), sign[match.pairs["feature_b"]])
    assert (match.pairs["p"] == 1 / 21).all()
    summary = summarise_match(match)
    assert summary["mean_correlation"] > 0.95 > 0.3 > summary["null_q95"]
    assert (summary["share_above_null"], summary["p"], summary["n_pairs"]) == (1.0, 1 / 21, 12)


def test_pairs_are_measured_on_rows_they_were_not_chosen_on():
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((80, 6)), rng.standard_normal((80, 9))
    pairs = match_features(a[:40], b[:40], a[40:], b[40:], 1, 0).pairs
    for part, rows in (("fit", slice(0, 40)), ("test", slice(40, 80))):
        expected = [
            np.corrcoef(a[rows, i], b[rows, j])[0, 1]
            for i, j in zip(pairs["feature_a"], pairs["feature_b"], strict=True)
        ]
        np.testing.assert_allclose(pairs[f"correlation_{part}"], expected)
    assert len(pairs) == 6
    assert pairs["correlation_fit"].abs().mean() > 1.5 * pairs["correlation_test"].abs().mean()


def test_features_silent_on_either_sample_are_not_matched():
    rng = np.random.default_rng(4)
    a = sparse_table(rng, 100, 4)
    a[:50, 0] = a[50:, 1] = 0
    match = match_features(sp.csr_array(a[:50]), a[:50], sp.csr_array(a[50:]), a[50:], 1, 0)
    assert match.pairs["feature_a"].tolist() == match.pairs["feature_b"].tolist() == [2, 3]
    assert (match.n_alive_a, match.n_alive_b) == (2, 2)


def test_p_values_of_unrelated_tables_are_uniform():
    ps = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        a, b = rng.standard_normal((60, 8)), rng.standard_normal((60, 8))
        ps.append(match_features(a[:30], b[:30], a[30:], b[30:], 39, seed).pairs["p"])
    p = np.concatenate(ps)
    assert np.mean(p <= 0.1) == pytest.approx(0.1, abs=0.05)
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.08)


def test_unrelated_tables_share_no_more_than_their_null():
    rng = np.random.default_rng(5)
    a, b = (sp.csr_array(sparse_table(rng, 300, 40, 0.05)) for _ in range(2))
    summary = summarise_match(match_features(a[:150], b[:150], a[150:], b[150:], 20, 0))
    assert summary["mean_correlation"] == pytest.approx(summary["null_mean"], abs=0.03)
    assert summary["share_above_null"] < 0.2


@pytest.mark.parametrize(
    ("b_rows", "b_columns", "n_permutations", "message"),
    [(9, 3, 5, "same galaxies"), (10, 2, 5, "fit rows"), (10, 3, 0, "n_permutations")],
)
def test_tables_that_cannot_be_matched_are_refused(b_rows, b_columns, n_permutations, message):
    a, b = np.random.default_rng(0).standard_normal((2, 10, 3))
    with pytest.raises(ValueError, match=message):
        match_features(a, b, a, b[:b_rows, :b_columns], n_permutations, 0)


def test_cosine_of_a_pair_is_that_of_its_directions():
    rng = np.random.default_rng(6)
    W_a, W_b, table = rng.standard_normal((4, 5)), rng.standard_normal((4, 5)), rng.standard_normal((30, 4))
    pairs = match_features(table[:15], table[:15, ::-1], table[15:], table[15:, ::-1], 1, 0).pairs
    expected = [W_a[i] @ W_b[3 - i] / np.linalg.norm(W_a[i]) / np.linalg.norm(W_b[3 - i]) for i in range(4)]
    np.testing.assert_allclose(pair_cosines(pairs, W_a, W_b), expected)


def test_split_latent_is_known_by_direction_and_galaxies():
    # latent 0 of the small dictionary is split in two, latent 1 stays, latent 2 is lost; the last is new
    small, large = np.eye(4)[:3], np.array([[1, 0, 0, 0.3], [1, 0, 0, -0.3], [0, 2, 0, 0], [0, 0, 0.1, 1.0]])
    codes_small = np.array([[1, 0, 0], [2, 0, 0], [1, 1, 0], [0, 1, 1]], dtype=np.float32)
    codes_large = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1]], dtype=np.float32)
    split = split_latents(small, large, sp.csr_array(codes_small), sp.csr_array(codes_large))
    assert split["parent"].tolist() == [0, 0, 1, 2]
    assert split["is_child"].tolist() == [True, True, True, False]
    assert split["n_siblings"].tolist() == [2, 2, 1, 0]
    np.testing.assert_allclose(split["decoder_cosine"], [1 / 1.09**0.5] * 2 + [1, 0.1 / 1.01**0.5])
    np.testing.assert_allclose(split["within"], 1)
    np.testing.assert_allclose(split["within_chance"], [0.75, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(split["coverage"], [2 / 3, 1 / 3, 1, 1])
    counts = children_per_latent(split, n_alive_small=3)
    assert counts["n_latents"].tolist() == [1, 1, 1]


def test_dictionary_splits_into_itself_one_to_one():
    rng = np.random.default_rng(7)
    W_dec, codes = rng.standard_normal((20, 16)), sp.csr_array(sparse_table(rng, 50, 20))
    split = split_latents(W_dec, W_dec, codes, codes)
    assert (split["latent"] == split["parent"]).all()
    assert (split["n_siblings"] == 1).all()
    np.testing.assert_allclose(split[["within", "coverage", "decoder_cosine"]], 1)
