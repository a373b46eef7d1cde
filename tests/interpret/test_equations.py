"""Linear laws: planted ones are found, intervals cover, and what is printed can be read."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.linear_model import LinearRegression

from sfnetlab.interpret.equations import (
    INTERCEPT,
    activation_scales,
    equation_latex,
    equation_text,
    head_equation,
    line_ratios,
    normalised_activations,
    printed_terms,
    regression_equation,
)


def sparse_features(n: int, d: int = 6, seed: int = 0) -> np.ndarray:
    return np.maximum(np.random.default_rng(seed).normal(0, np.arange(1, d + 1), (n, d)), 0)


def planted(n: int, seed: int = 0, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    X = sparse_features(n, seed=seed)
    residual = np.random.default_rng(seed + 1).normal(size=n) * noise
    return X, 8.7157 + 0.503 * X[:, 1] - 0.593 * X[:, 4] + residual


def fitted(n_resamples: int = 50, features: tuple[int, ...] = (1, 4, 5)) -> pd.DataFrame:
    X, y = planted(600)
    return regression_equation(
        "oh_p50", np.array(features), X[:400], y[:400], X[400:], y[400:], n_resamples=n_resamples, seed=0
    )


def test_planted_law_is_recovered() -> None:
    law = fitted(400).set_index("term")
    for term, truth in ((INTERCEPT, 8.7157), ("1", 0.503), ("4", -0.593), ("5", 0.0)):
        assert law.loc[term, "low"] < law.loc[term, "coefficient"] < law.loc[term, "high"]
        assert law.loc[term, "coefficient"] == pytest.approx(truth, abs=0.02)


def test_regression_equals_sklearn_fitted_on_train_and_scored_on_test() -> None:
    X, y = planted(600)
    oracle = LinearRegression().fit(X[:400][:, [1, 4, 5]], y[:400])
    law = fitted().set_index("term")
    np.testing.assert_allclose(law.loc[["1", "4", "5"], "coefficient"], oracle.coef_, rtol=1e-9)
    assert law.loc[INTERCEPT, "coefficient"] == pytest.approx(oracle.intercept_, rel=1e-9)
    assert law["r2_test"].iloc[0] == pytest.approx(oracle.score(X[400:][:, [1, 4, 5]], y[400:]), rel=1e-9)
    residual = oracle.predict(X[400:][:, [1, 4, 5]]) - y[400:]
    assert law["rmse_test"].iloc[0] == pytest.approx(np.sqrt(np.mean(residual**2)), rel=1e-9)


def test_intervals_cover_the_truth_in_about_95_percent_even_with_unequal_scatter() -> None:
    n_cover, n_trials = np.zeros(3), 120
    for seed in range(n_trials):
        rng = np.random.default_rng(seed)
        X = np.maximum(rng.normal(size=(300, 2)), 0)
        y = 1 + 0.5 * X[:, 0] - 0.3 * X[:, 1] + rng.normal(size=300) * (0.2 + X[:, 0])
        law = regression_equation("y", np.arange(2), X, y, X, y, n_resamples=200, seed=seed)
        for i, (term, truth) in enumerate(((INTERCEPT, 1.0), ("0", 0.5), ("1", -0.3))):
            row = law[law["term"] == term].iloc[0]
            n_cover[i] += row["low"] <= truth <= row["high"]
    # 120 trials know one coverage to 2 %, the three together to 1.2 %
    assert 0.92 <= n_cover.mean() / n_trials <= 0.98


def test_resamples_that_leave_a_feature_constant_do_not_count_for_the_interval(caplog) -> None:
    x, y = planted(60)
    x[:, 0], x[7, 0] = 1.0, 2.0  # constant but for one galaxy, which a third of the resamples lack
    with caplog.at_level("INFO"):
        law = regression_equation("oh_p50", np.array([0, 1]), x, y, x, y, n_resamples=200, seed=0)
    assert np.isfinite(law[["coefficient", "low", "high"]].to_numpy()).all()
    assert "resamples leave a feature constant and do not count" in caplog.text


def test_csr_and_dense_features_give_the_same_law() -> None:
    X, y = planted(300)
    arguments = {"n_resamples": 20, "seed": 0}
    dense = regression_equation("y", np.array([4, 1]), X, y, X, y, **arguments)
    csr = sparse.csr_array(X)
    pd.testing.assert_frame_equal(dense, regression_equation("y", np.array([4, 1]), csr, y, csr, y, **arguments))
    weights = np.arange(6.0)
    pd.testing.assert_frame_equal(
        head_equation("y", weights, 1.0, X, X, y), head_equation("y", weights, 1.0, csr, csr, y)
    )


def test_galaxies_without_the_label_are_left_out() -> None:
    X, y = planted(300)
    y[:100] = np.nan
    law = regression_equation("y", np.array([1]), X, y, X, y, n_resamples=20, seed=0)
    expected = regression_equation("y", np.array([1]), X[100:], y[100:], X[100:], y[100:], n_resamples=20, seed=0)
    pd.testing.assert_frame_equal(law, expected)


def test_head_law_predicts_what_the_head_does() -> None:
    X, y = planted(300)
    weights = np.array([0, 0.503, 0, 0.2, -0.593, 0])
    law = head_equation("oh_p50", weights, 8.7157, X[:200], X[200:], y[200:])
    terms = law.iloc[1:]
    prediction = law["coefficient"].iloc[0] + X[200:][:, terms["term"].astype(int)] @ terms["coefficient"]
    np.testing.assert_allclose(prediction, X[200:] @ weights + 8.7157)
    assert law["rmse_test"].iloc[0] == pytest.approx(np.sqrt(np.mean((prediction - y[200:]) ** 2)))
    assert law[["low", "high"]].isna().all(axis=None)


def test_shares_are_covariances_with_the_prediction_and_sum_to_one() -> None:
    X, y = planted(300)
    weights = np.array([0.1, 0.503, -0.2, 0.2, -0.593, 0.3])
    law = head_equation("y", weights, 0.0, X, X, y).iloc[1:]
    prediction = X @ weights
    for term, share in zip(law["term"].astype(int), law["share"], strict=True):
        assert share == pytest.approx(np.cov(X[:, term] * weights[term], prediction)[0, 1] / np.var(prediction, ddof=1))
    assert law["share"].sum() == pytest.approx(1)
    assert law["share"].abs().is_monotonic_decreasing


def test_scale_is_a_quantile_of_the_active_train_galaxies_and_one_for_all_parts() -> None:
    X = sparse_features(500)
    X[:, 2] = 0
    scales = activation_scales(sparse.csr_array(X), np.array([5, 2, 0]))
    assert scales[0] == pytest.approx(np.quantile(X[X[:, 5] > 0, 5], 0.99))
    assert np.isnan(scales[1])
    other = sparse_features(50, seed=9)
    np.testing.assert_allclose(
        normalised_activations(other, np.array([5, 0]), scales[[0, 2]])[:, 0] * scales[0], other[:, 5]
    )


def test_feature_that_no_train_galaxy_activates_is_not_in_the_law() -> None:
    X, y = planted(300)
    train = X.copy()
    train[:, 3] = 0
    law = head_equation("y", np.ones(6), 0.0, train, X, y)
    assert "3" not in law["term"].tolist()
    assert law["share"].sum() < 1


def test_normalised_law_is_the_same_law() -> None:
    law = fitted()
    np.testing.assert_allclose(
        printed_terms(law)["value"] / law["scale"], printed_terms(law, normalised=False)["value"]
    )


def test_text_reads_like_the_papers() -> None:
    X, y = planted(300)
    law = head_equation("Z", np.array([0, 0.503, 0, 0, -0.593, 0]), 8.7157, X, X, y)
    text = equation_text(law, normalised=False)
    assert text.startswith("Z = 8.72 - 0.593 A4 + 0.503 A1 (test R² ")
    assert equation_text(law, n_terms=1, normalised=False).startswith("Z = 8.72 - 0.593 A4 + 1 weaker (")
    assert "99th percentile" in equation_text(law)


@pytest.mark.parametrize(
    ("value", "half_width", "n_decimals"),
    [
        (0.50312, np.nan, 3),
        (0.50312, 0.2, 2),
        (0.50312, 0.0004, 3),
        (8.7157, np.nan, 2),
        (1234.5, np.nan, 0),
        (0.0, 0.01, 2),
    ],
)
def test_digits_are_three_or_as_many_as_the_interval_bears(value: float, half_width: float, n_decimals: int) -> None:
    row = {"coefficient": value, "low": -half_width, "high": half_width, "scale": 1.0}
    assert printed_terms(pd.DataFrame([row]))["n_decimals"].iloc[0] == n_decimals


@pytest.mark.parametrize("name", ["oh_p50", "log([NII]/Hα)", "50 % {more} #1 \\ a^b ~"])
def test_latex_is_escaped_so_that_it_can_be_set(name: str) -> None:
    from matplotlib.mathtext import MathTextParser

    latex = equation_latex(fitted().assign(property=name), n_terms=2)
    MathTextParser("path").parse(f"${latex}$")
    assert r"\pm" in latex
    assert latex.endswith(r"\ldots")
    assert r"\mathrm{a\&b}" in equation_latex(fitted().assign(property="a&b"))


def test_line_ratios_are_differences_of_logarithms() -> None:
    labels = pd.DataFrame({"log_N2": [1.0, np.nan], "log_Ha": [1.5, 1], "log_O3": [0.2, 1], "log_Hb": [0.1, 1]})
    ratios = line_ratios(labels)
    np.testing.assert_allclose(ratios.iloc[0], [-0.5, 0.1])
    assert np.isnan(ratios.iloc[1, 0])


def test_unusable_regressors_are_refused() -> None:
    X, y = planted(300)
    X[:, 0] = 0
    X[:5, 0] = 1
    X[:, 2] = 2 * X[:, 1] + 1
    X[:, 3] = 7
    for features, message in (([0], "fewer than 10"), ([1, 2], "collinear"), ([3], "constant"), ([1, 1], "once")):
        with pytest.raises(ValueError, match=message):
            regression_equation("y", np.array(features), X, y, X, y, n_resamples=10, seed=0)
    with pytest.raises(ValueError, match="more than"):
        regression_equation("y", np.array([1, 4]), X[:3], y[:3], X, y, n_resamples=10, seed=0)
    with pytest.raises(ValueError, match="labels"):
        regression_equation("y", np.array([1, 4]), X, y[:3], X, y, n_resamples=10, seed=0)
    with pytest.raises(ValueError, match="weights"):
        head_equation("y", np.ones(3), 0.0, X, X, y)
    with pytest.raises(ValueError, match="one property"):
        equation_text(pd.concat([fitted(), fitted().assign(property="b")]))
