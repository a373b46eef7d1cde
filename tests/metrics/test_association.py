import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm, pearsonr, rankdata, spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score, roc_auc_score

from sfnetlab.metrics import association
from sfnetlab.metrics.association import (
    association_test,
    benjamini_hochberg,
    closest_feature,
    correlation_interval,
    correlation_matrix,
    held_out_r2,
    labels_as_predictors,
    partial_correlation,
    pearson,
    single_feature_auc,
    spearman,
)

few_values = st.sampled_from([-1.5, 0, 0, 0, 1, 2])


def oracle(features, labels):
    rho = np.full((features.shape[1], labels.shape[1]), np.nan)
    for i, feature in enumerate(features.T):
        for j, label in enumerate(labels.T):
            known = ~np.isnan(label)
            if len(set(feature[known])) > 1 and len(set(label[known])) > 1:
                rho[i, j] = spearmanr(feature[known], label[known]).statistic
    return rho


@pytest.fixture
def tied():
    """Sparse features with ties, negative values and a constant column; labels with ties and missing values."""
    rng = np.random.default_rng(0)
    features = np.where(rng.random((80, 7)) < 0.3, rng.integers(-3, 6, (80, 7)), 0).astype(np.float32)
    features[:, 4], features[:, 5], features[:, 6] = 0, 0.1, rng.normal(size=80)
    labels = np.round(rng.normal(size=(80, 5)) + features[:, :5], 1)
    labels[:30, 1] = labels[5:9, 3] = labels[5:9, 4] = np.nan
    return features, labels


@pytest.mark.parametrize("storage", [np.asarray, sp.csr_array, sp.csr_matrix])
def test_rho_agrees_with_scipy_pair_by_pair(tied, storage):
    features, labels = tied
    np.testing.assert_allclose(spearman(storage(features), labels), oracle(features, labels), atol=1e-12)


def test_rho_does_not_depend_on_the_block_width(tied, monkeypatch):
    features, labels = tied
    whole = spearman(features, labels)
    monkeypatch.setattr(association, "BLOCK_VALUES", 170)
    np.testing.assert_array_equal(spearman(features, labels), whole)


@given(arrays(np.float64, (12, 3), elements=few_values))
def test_sparse_ranks_give_the_rho_of_dense_ones(features):
    labels = np.arange(24.0).reshape(12, 2) % 7
    np.testing.assert_allclose(spearman(sp.csr_array(features), labels), spearman(features, labels), atol=1e-12)


@given(arrays(np.float64, (12, 3), elements=few_values))
def test_rho_is_invariant_under_monotone_maps(features):
    labels = np.arange(24.0).reshape(12, 2) % 7
    np.testing.assert_allclose(spearman(np.exp(features), labels**3), spearman(features, labels), atol=1e-12)


def test_constant_feature_is_nan(tied):
    features, labels = tied
    for table in (features, sp.csr_array(features)):
        assert np.isnan(spearman(table, labels)[4:6]).all()


def test_label_without_values_is_nan(tied):
    features, labels = tied
    labels[:, 2] = np.nan
    rho = spearman(features, labels)
    assert np.isnan(rho[:, 2]).all()
    assert np.isfinite(rho[0, 0])


def test_the_callers_table_is_left_alone(tied):
    features = sp.csr_array(tied[0])
    features.data[3] = 0
    before = features.copy()
    spearman(features, tied[1])
    np.testing.assert_array_equal(features.data, before.data)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((3, 1)), np.zeros((4, 1)), "a row a row of features"),
        (np.zeros((3, 1)), np.zeros(3), "a row a row of features"),
        (np.full((3, 1), np.nan), np.zeros((3, 1)), "features: 3 of 3"),
        (np.zeros((3, 1)), np.full((3, 1), np.inf), "infinite"),
        (sp.csc_array((3, 1)), np.zeros((3, 1)), "tocsr"),
    ],
)
def test_bad_arrays_are_refused(features, labels, message):
    with pytest.raises(ValueError, match=message):
        spearman(features, labels)


def test_pearson_agrees_with_scipy_pair_by_pair(tied):
    features, labels = tied
    expected = np.full((7, 5), np.nan)
    for i, feature in enumerate(features.astype(np.float64).T):
        for j, label in enumerate(labels.T):
            known = ~np.isnan(label)
            if len(set(feature[known])) > 1:
                expected[i, j] = pearsonr(feature[known], label[known]).statistic
    for table in (features, sp.csr_array(features)):
        np.testing.assert_allclose(pearson(table, labels), expected, atol=1e-6)


def test_correlation_matrix_agrees_with_numpy_and_gives_the_closest_feature(tied, monkeypatch):
    features = tied[0]
    varying = [0, 1, 2, 3, 6]
    expected = np.corrcoef(features[:, varying].astype(np.float64).T)
    monkeypatch.setattr(association, "BLOCK_VALUES", 170)
    for table in (features, sp.csr_array(features)):
        matrix = correlation_matrix(table)
        assert np.isnan(matrix[4:6]).all()
        assert np.isnan(matrix[:, 4:6]).all()
        np.testing.assert_allclose(matrix[np.ix_(varying, varying)], expected, atol=1e-6)
        r, partner = closest_feature(table)
        for place, feature in enumerate(varying):
            others = np.abs(np.delete(expected[place], place))
            assert abs(r[feature]) == pytest.approx(others.max(), abs=1e-6)
            assert r[feature] == matrix[feature, partner[feature]]
        assert partner[4:6].tolist() == [-1, -1]


@pytest.mark.parametrize("storage", [np.asarray, sp.csr_array])
def test_partial_correlation_agrees_with_the_inverse_of_the_rank_correlations(storage):
    rng = np.random.default_rng(0)
    held = rng.normal(size=(200, 2))
    label = held @ [1, -1] + rng.normal(size=200)
    features = np.maximum(np.column_stack([label + rng.normal(size=200), held[:, 0], rng.normal(size=200)]), 0)
    held[3, 1] = label[7] = np.nan
    known = ~np.isnan(np.column_stack([label, held])).any(axis=1)
    rho = partial_correlation(storage(features), label, held)
    for i, feature in enumerate(features.T):
        precision = np.linalg.inv(np.corrcoef(rankdata(np.column_stack([feature, label, held])[known], axis=0).T))
        expected = -precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1])
        assert rho[i] == pytest.approx(expected, abs=1e-9)


def test_partial_correlation_is_nan_where_nothing_is_left():
    rng = np.random.default_rng(0)
    held, label = rng.normal(size=(50, 1)), rng.normal(size=50)
    assert np.isnan(partial_correlation(np.column_stack([held, np.ones(50)]), label, held)).all()
    assert np.isnan(partial_correlation(rng.normal(size=(50, 1)), np.exp(held[:, 0]), held)).all()
    assert np.isnan(partial_correlation(np.ones((2, 1)), np.arange(2.0), np.ones((2, 1)))).all()


def test_without_columns_held_fixed_the_partial_correlation_is_rho(tied):
    features, labels = tied
    np.testing.assert_allclose(
        partial_correlation(features, labels[:, 1], np.empty((80, 0))), spearman(features, labels)[:, 1], atol=1e-12
    )


@pytest.mark.parametrize("storage", [np.asarray, sp.csr_array])
def test_auc_agrees_with_sklearn_feature_by_feature(tied, storage):
    features, labels = tied
    classes = np.where(np.isnan(labels), np.nan, labels > 0.2)
    auc = single_feature_auc(storage(features), classes)
    for i in range(7):
        for j in range(5):
            known = ~np.isnan(classes[:, j])
            assert auc[i, j] == pytest.approx(roc_auc_score(classes[known, j], features[known, i]), abs=1e-12)


def test_auc_without_one_of_the_classes_is_nan_and_other_codes_are_refused():
    features = np.arange(4.0)[:, None]
    assert np.isnan(single_feature_auc(features, np.ones((4, 1)))).all()
    with pytest.raises(ValueError, match="neither 0, 1 nor NaN"):
        single_feature_auc(features, np.full((4, 1), 2.0))


@pytest.mark.parametrize("kind", ["gaussian", "sparse", "fraction"])
def test_spearmans_interval_covers_the_truth_in_95_percent_of_samples(kind):
    def draw(shape):
        u, v = rng.normal(size=(2, *shape))
        x, y = u, 0.6 * u + 0.8 * v
        if kind != "gaussian":
            x = np.where(u > 0.8, u - 0.8, 0)  # active in 21 %
        return x, (np.round(norm.cdf(2 * y - 1), 1) if kind == "fraction" else y)

    rng = np.random.default_rng(0)
    n, n_samples = 300, 2000
    x, y = draw((300_000,))
    truth = spearman(x[:, None], y[:, None])[0, 0]
    a, b = (rankdata(part, axis=0) for part in draw((n, n_samples)))
    a, b = (part - part.mean(axis=0) for part in (a, b))
    rho = np.sum(a * b, axis=0) / np.sqrt(np.sum(a**2, axis=0) * np.sum(b**2, axis=0))
    low, high = correlation_interval(rho, n, "spearman")
    assert 0.92 < np.mean((low <= truth) & (truth <= high)) < 0.98


def test_pearsons_interval_covers_the_truth_in_95_percent_of_gaussian_samples():
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 50, 4000))
    a, b = (part - part.mean(axis=0) for part in (u, 0.7 * u + np.sqrt(0.51) * v))
    r = np.sum(a * b, axis=0) / np.sqrt(np.sum(a**2, axis=0) * np.sum(b**2, axis=0))
    low, high = correlation_interval(r, 50, "pearson")
    assert 0.93 < np.mean((low <= 0.7) & (high >= 0.7)) < 0.97


def test_an_interval_needs_four_rows_and_a_correlation():
    low, high = correlation_interval(np.array([0.5, np.nan, 1.0]), np.array([3, 10, 10]), "pearson")
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [True, True, False]


def slow_test(features, labels, n_permutations, seed):
    """The definition: feature ranks among all galaxies, correlated with the label where it is known."""
    ranks = rankdata(features, axis=0)
    rng = np.random.default_rng(seed)
    orders = [np.arange(len(labels)), *(rng.permutation(len(labels)) for _ in range(n_permutations))]
    size = np.zeros((len(orders), features.shape[1], labels.shape[1]))
    for t, order in enumerate(orders):
        for j, label in enumerate(labels[order].T):
            known = ~np.isnan(label)
            for i in range(features.shape[1]):
                if len(set(ranks[known, i])) > 1:
                    size[t, i, j] = abs(pearsonr(ranks[known, i], rankdata(label[known])).statistic)
    return size


@pytest.mark.parametrize("storage", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("width", [None, 170])
def test_the_permutation_test_agrees_with_a_loop(tied, storage, width, monkeypatch):
    features, labels = tied
    features = features[:, [0, 1, 2, 3, 6]]
    if width:
        monkeypatch.setattr(association, "BLOCK_VALUES", width)
    test = association_test(storage(features), labels, n_permutations=19, seed=3)
    size = slow_test(features, labels, 19, 3)
    np.testing.assert_allclose(test.rho, oracle(features, labels), atol=1e-12)
    np.testing.assert_allclose(test.p, (1 + np.sum(size[1:] >= size[0] - 1e-5, axis=0)) / 20)
    np.testing.assert_allclose(test.null_max, size[1:].max(axis=2), atol=1e-6)
    weighted = (size * np.sqrt(np.count_nonzero(~np.isnan(labels), axis=0) - 1)).max(axis=2)
    np.testing.assert_allclose(test.p_corrected, (1 + np.sum(weighted[1:] >= weighted[0] - 1e-4, axis=0)) / 20)
    np.testing.assert_allclose(test.null_mean, size[1:].max(axis=2).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(test.null_q95, np.quantile(size[1:].max(axis=2), 0.95, axis=0), atol=1e-6)


@pytest.mark.parametrize("storage", [np.asarray, sp.csr_array])
def test_p_values_are_uniform_under_the_null(storage):
    """Correlated labels, missing together; sparse features; whether a label was asked depends on another label."""
    rng = np.random.default_rng(0)
    p, p_corrected = [], []
    for seed in range(200):
        labels = rng.normal(size=(100, 1)) + rng.normal(size=(100, 6))
        labels[labels[:, 0] < -0.3, 3:] = np.nan
        features = np.maximum(rng.normal(size=(100, 5)) - 0.5, 0).astype(np.float32)
        test = association_test(storage(features), labels, n_permutations=39, seed=seed)
        p.append(test.p)
        p_corrected.append(test.p_corrected)
    levels = np.arange(1, 41) / 40
    for values, n_independent in ((np.array(p), 400), (np.array(p_corrected), 800)):
        # labels are correlated, so pairs count as fewer than there are: five standard errors
        gap = np.abs([np.mean(values <= level + 1e-9) - level for level in levels])
        assert np.all(gap < 5 * np.sqrt(0.25 / n_independent))
        assert np.mean(values <= 0.05) == pytest.approx(0.05, abs=0.025)


def test_a_planted_association_is_found_among_many_labels_and_the_others_are_not():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(400, 40)), rng.normal(size=(400, 20))
    labels[:, 7] += features[:, 3]
    test = association_test(features, labels, n_permutations=199, seed=0)
    assert np.abs(test.rho[3]).argmax() == 7
    assert test.p_corrected[3] == 1 / 200
    assert (test.null_q95 > test.null_mean).all()
    # 1 / 200 times 40 features: q cannot be less than 0.2 with so few permutations
    assert test.q[3] == pytest.approx(np.nanmin(test.q))
    assert np.mean(test.p_corrected < 0.05) < 0.2


def test_a_label_of_few_galaxies_is_not_tested_and_does_not_drown_the_others():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 3))
    labels = np.column_stack([features[:, 0] + 3 * rng.normal(size=500), rng.normal(size=500), rng.normal(size=500)])
    labels[40:, 1] = labels[29:, 2] = np.nan
    test = association_test(features, labels, n_permutations=199, seed=0)
    assert np.isnan(test.rho[:, 2]).all()
    assert np.isnan(test.p[:, 2]).all()
    assert test.p_corrected[0] == 1 / 200
    with pytest.raises(ValueError, match="no label is known on 30 rows, the most is 29"):
        association_test(features, labels[:, 2:], n_permutations=5, seed=0)


def test_a_constant_feature_has_no_p_value():
    rng = np.random.default_rng(0)
    features = np.column_stack([np.zeros(50), rng.normal(size=50)])
    for table in (features, sp.csr_array(features)):
        test = association_test(table, rng.normal(size=(50, 2)), n_permutations=9, seed=0)
        assert np.isnan([*test.p[0], test.p_corrected[0], test.q[0]]).all()
        assert np.isfinite([*test.p[1], test.p_corrected[1], test.q[1]]).all()


def test_q_is_benjamini_and_hochbergs_over_what_is_known():
    p = np.array([[0.01, np.nan], [0.04, 0.03]])
    np.testing.assert_allclose(benjamini_hochberg(p), [[0.03, np.nan], [0.04, 0.04]])
    assert np.isnan(benjamini_hochberg(np.array([np.nan]))).all()


@pytest.mark.parametrize("storage", [np.asarray, sp.csr_array])
def test_held_out_r2_agrees_with_sklearns_ridge_at_the_best_penalty_of_gcv(storage):
    rng = np.random.default_rng(0)
    Z, Z_score = rng.normal(size=(60, 8)), rng.normal(size=(50, 8))
    noise, noise_score = rng.normal(size=(60, 3)), rng.normal(size=(50, 3))
    mix = np.column_stack([rng.normal(size=8), np.zeros(8), [3] + 7 * [0]])
    features, features_score = np.maximum(Z @ mix + noise + 1, 0), np.maximum(Z_score @ mix + noise_score + 1, 0)
    r2 = held_out_r2(storage(features), Z, storage(features_score), Z_score)
    for i in range(3):
        # sklearn's GCV does not count the intercept as a parameter, so the choice is repeated here by its definition
        centred, f = Z - Z.mean(axis=0), features[:, i] - features[:, i].mean()
        scores = []
        for alpha in 60 * association.PENALTIES:
            hat = centred @ np.linalg.solve(centred.T @ centred + alpha * np.eye(8), centred.T)
            scores.append(np.sum((f - hat @ f) ** 2) / (1 - (np.trace(hat) + 1) / 60) ** 2)
        model = Ridge(alpha=60 * association.PENALTIES[np.argmin(scores)]).fit(Z, features[:, i])
        assert r2[i] == pytest.approx(r2_score(features_score[:, i], model.predict(Z_score)), abs=1e-8)


def test_held_out_r2_is_nan_for_constant_features_and_about_zero_for_noise():
    rng = np.random.default_rng(0)
    features = np.column_stack([np.ones(300), rng.normal(size=300)])
    r2 = held_out_r2(features, rng.normal(size=(300, 40)), features, rng.normal(size=(300, 40)))
    assert np.isnan(r2[0])
    assert -0.1 < r2[1] < 0.02


def test_missing_labels_become_the_mean_and_a_column_that_says_so():
    fit = np.array([[1.0, 5], [3, 5], [np.nan, 5], [2, 5]])
    score = np.array([[np.nan, 7.0], [2, np.nan]])
    train, test = labels_as_predictors(fit, score)
    assert train.shape == (4, 2)
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(train.std(axis=0), 1)
    np.testing.assert_allclose(test[:, 0], 0, atol=1e-12)
    assert test[0, 1] > 0 > test[1, 1]
