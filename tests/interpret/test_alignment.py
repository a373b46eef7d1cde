"""Alignment and novelty against planted truth, slow versions and their nulls."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score, roc_auc_score

from sfnetlab.interpret.alignment import align_features, ask, frequency_groups
from sfnetlab.jobs import TableSpec

N = 400


@pytest.fixture(scope="module")
def galaxies() -> tuple[np.ndarray, pd.DataFrame]:
    """Eight features: 0 follows `a_fraction`, 1 is minus the flag, 2 whether `arms` was asked, 3 silent, 4-7 noise."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2 * N, 8)).astype(np.float32)
    labels = pd.DataFrame(rng.random((2 * N, 4)), columns=["a_fraction", "arms_fraction", "flag", "mass"])
    labels["flag"] = np.where(labels["flag"] > 0.7, 3.0, 1.0)
    asked = rng.random(2 * N) > 0.5
    labels.loc[~asked, "arms_fraction"] = np.nan
    labels["rare"] = np.where(np.arange(2 * N) % N < 20, labels["mass"], np.nan)
    features[:, 0] += 6 * labels["a_fraction"]
    features[:, 1] = features[:, 1] / 4 - labels["flag"]
    features[:, 2] = features[:, 2] / 4 + asked
    features[:, 3] = 0
    return np.maximum(features + 1 - (np.arange(8) == 3), 0), labels


def align(galaxies, as_table=np.asarray, **changes):
    features, labels = galaxies
    settings = {"n_permutations": 99, "seed": 0, **changes}
    return align_features(
        as_table(features[:N]), labels[:N], as_table(features[N:]), labels[N:], **settings
    )  # fmt: skip


@pytest.fixture(scope="module")
def table(galaxies):
    return align(galaxies)


def test_dense_and_csr_tables_give_the_same(galaxies, table):
    pd.testing.assert_frame_equal(align(galaxies, sparse.csr_array), table, rtol=1e-5)


def test_the_label_is_chosen_on_valid_and_scored_on_test(galaxies, table):
    features, labels = galaxies
    usable = [name for name in labels if name != "rare"]
    for feature in range(8):
        row = table.loc[feature]
        if feature == 3:
            assert row["best_label"] is None or pd.isna(row["best_label"])
            assert row[["rho", "max_rho", "p_corrected", "auc", "novelty"]].isna().all()
            continue
        rho = {part: {} for part in ("valid", "test")}
        for part, rows in (("valid", slice(0, N)), ("test", slice(N, None))):
            for name in usable:
                known = labels[name][rows].notna().to_numpy()
                rho[part][name] = spearmanr(features[rows, feature][known], labels[name][rows][known]).statistic
        best = max(rho["valid"], key=lambda name: abs(rho["valid"][name]))
        assert row["best_label"] == best
        assert row["rho"] == pytest.approx(rho["test"][best])
        assert row["low"] < row["rho"] < row["high"]
        assert row["max_rho"] == pytest.approx(max(abs(r) for r in rho["test"].values()))
        assert row["n"] == labels[best][N:].notna().sum()


def test_only_planted_features_pass_the_null(table):
    assert table.loc[:1, "p_corrected"].tolist() == [0.01, 0.01]
    assert (table.loc[:1, "max_rho"] > table.loc[:1, "null_q95"]).all()
    assert (table.loc[4:, "p_corrected"] > 0.01).all()
    assert (table["null_q95"] > table["null_mean"]).sum() == 7
    assert table["null_score"].notna().sum() == 7


def test_scores_tell_planted_features_from_others(table):
    assert table.loc[:1, "score_label"].tolist() == ["a_fraction", "flag"]
    assert (table.loc[:1, "score"] > 0.6).all()
    assert (table.loc[4:, "score"].abs() < 0.6).all()
    assert pd.isna(table.loc[3, "score_label"])
    assert np.isnan(table.loc[3, "score"])


def test_auc_is_of_the_chosen_label_where_that_has_two_classes(galaxies, table):
    features, labels = galaxies
    fraction = roc_auc_score(labels["a_fraction"][N:] > 0.5, features[N:, 0])
    assert table.loc[0, "auc"] == pytest.approx(fraction)
    assert table.loc[1, "auc"] == pytest.approx(roc_auc_score(labels["flag"][N:] == 3, features[N:, 1]))
    assert table.loc[table["best_label"] == "mass", "auc"].isna().all()


def test_novelty_is_one_minus_held_out_r2_with_the_question_asked_as_a_predictor(galaxies, table):
    features, labels = galaxies
    usable = labels.drop(columns="rare")
    design = usable.fillna(usable[:N].mean()).assign(asked=usable["arms_fraction"].notna()).to_numpy(dtype=float)
    for feature in (0, 1, 2):
        model = LinearRegression().fit(design[:N], features[:N, feature])
        expected = 1 - r2_score(features[N:, feature], model.predict(design[N:]))
        assert table.loc[feature, "novelty"] == pytest.approx(expected, abs=0.02)
    assert table.loc[2, "novelty"] < 0.4
    assert (table.loc[4:, "novelty"] > 0.95).all()
    assert (table["null_novelty"].dropna() > 0.95).all()


def test_groups_are_of_ranks_by_frequency_and_of_matryoshka_prefixes(galaxies):
    table = align(galaxies, group_sizes=(2, 6))
    assert table["matryoshka_group"].tolist() == ["0-2"] * 2 + ["2-8"] * 6
    assert table.loc[3, "frequency_rank"] == 7
    assert table.loc[3, "group"] == "4-8"
    ranked = table.sort_values("frequency_rank")
    assert ranked["frequency"].is_monotonic_decreasing
    assert ranked["group"].tolist() == ["0-1", "1-2", "2-4", "2-4", *["4-8"] * 4]


def test_groups_of_2048_features_are_those_of_the_euclid_paper():
    assert frequency_groups(2048) == [0, 64, 128, 256, 512, 1024, 2048]
    assert frequency_groups(1) == [0, 1]


def test_noise_is_no_better_aligned_than_its_null():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(200, 150))
    labels = pd.DataFrame(rng.normal(size=(200, 20)))
    table = align_features(features[:100], labels[:100], features[100:], labels[100:], n_permutations=99, seed=0)
    assert np.mean(table["p_corrected"] <= 0.1) == pytest.approx(0.1, abs=0.09)
    assert np.mean(table["max_rho"] > table["null_q95"]) < 0.13
    assert abs(table["rho"].mean()) < 0.03


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_sizes": (2, 2)}, "sum to 4, the table has 8"),
        ({"labels_test": pd.DataFrame({"b": np.ones(N)})}, "differ"),
    ],
)
def test_what_does_not_fit_is_refused(galaxies, changes, message):
    features, labels = galaxies
    settings = {"labels_test": labels[N:], "n_permutations": 5, "seed": 0, **changes}
    with pytest.raises(ValueError, match=message):
        align_features(features[:N], labels[:N], features[N:], **settings)


def test_without_a_label_of_enough_galaxies_there_is_nothing_to_align(galaxies):
    features, labels = galaxies
    few = labels[["rare"]]
    with pytest.raises(ValueError, match="none of 1 labels is known for 30"):
        align_features(features[:N], few[:N], features[N:], few[N:], n_permutations=5, seed=0)


# --- what another seed finds ------------------------------------------------------------------------------------------


def told(described, galaxies, other=None, seed=0, **more):
    """The table `alignment` of the planted features by one seed, and what it says of each; `other` is another's."""
    features, labels = galaxies
    if other is not None:
        more["another_seed"] = lambda of: other[of.astype(int).to_numpy()]
    spec = TableSpec(features="sae", kind="encoder", k=None, seed=seed)
    table = described(labels.assign(size=1.0), features, morphology=("*_fraction", "flag", "mass"), spec=spec, **more)
    answer = ask(table)
    return answer.tables["alignment"], answer.of_features


def shuffled(features):
    """What another seed may find: the planted features in another order, on another scale, and noise of its own."""
    noise = np.random.default_rng(5).normal(size=(len(features), 4))
    return np.hstack([noise, -3 * features[:, [2, 1, 0]] + 0.3 * noise[:, :3]])


def test_only_features_that_another_seed_finds_are_novel(described, galaxies):
    aligned, of_features = told(described, galaxies, shuffled(galaxies[0]))
    alone, _ = told(described, galaxies, seed=None)
    assert (aligned.loc[:2, "recurs"] > 0.7).all()
    assert (aligned.loc[3:, "recurs"] < 0.3).all()
    np.testing.assert_array_equal(aligned.loc[:2, "novelty"], alone.loc[:2, "novelty"])
    assert aligned.loc[3:, ["novelty", "null_novelty"]].isna().all(axis=None)
    assert of_features.loc[4:, "novelty"].isna().all()
    assert (alone.loc[4:, "novelty"] > 0.9).all()  # noise would be the most novel


def test_noise_of_two_seeds_recurs_in_neither(described):
    noise, other = np.random.default_rng(0).normal(size=(2, N, 5))
    labels = pd.DataFrame({"a_fraction": np.random.default_rng(1).random(N)})
    aligned, _ = told(described, (noise, labels), other)
    assert aligned["novelty"].isna().all()


def test_of_one_seed_it_is_not_known_what_is_novel(described, galaxies):
    aligned, _ = told(described, galaxies)
    assert aligned[["recurs", "novelty", "null_novelty"]].isna().all(axis=None)
    assert aligned["score"].notna().any()


def test_of_what_nothing_random_made_every_run_finds_the_same(described, galaxies):
    aligned, _ = told(described, galaxies, seed=None)
    assert (aligned["recurs"] == 1).all()
    assert aligned.loc[4:, "novelty"].notna().all()


def test_sparse_features_recur_as_dense_ones(described, galaxies):
    features, labels = galaxies
    dense = told(described, galaxies, shuffled(features))[0]
    other = sparse.csr_array(shuffled(features))
    table = told(described, (sparse.csr_array(features), labels), other)[0]
    np.testing.assert_allclose(table["recurs"], dense["recurs"], atol=1e-5)
