import inspect
import pickle
import tracemalloc
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from sfnetlab.estimators import (
    ArchetypalSAE,
    BatchTopKSAE,
    FrozenDecoderSAE,
    FrozenEncoderSAE,
    JumpReLUSAE,
    MatryoshkaSAE,
    PretrainedSAE,
    RandomDictionarySAE,
    ReLUSAE,
    TopKSAE,
    fit_many,
)
from sfnetlab.methods.sae import SAE
from sfnetlab.metrics.reconstruction import fraction_of_variance_unexplained
from sfnetlab.models.sae import SparseAutoencoder, load_sae, save_sae
from sfnetlab.training.sae import recipe
from sfnetlab.training.sae.rows import UnevenSpreadWarning
from sfnetlab.training.sae.trainer import LargeMeanWarning

ALL = [
    ReLUSAE,
    TopKSAE,
    BatchTopKSAE,
    MatryoshkaSAE,
    JumpReLUSAE,
    ArchetypalSAE,
    FrozenDecoderSAE,
    FrozenEncoderSAE,
    RandomDictionarySAE,
]
SMALL = {"n_latents": 32, "k": 4, "epochs": 3, "batch_size": 64, "device": "cpu", "random_state": 0}


def planted(n=600, d_in=16, n_atoms=32, n_active=3):
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((n_atoms, d_in))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    active = rng.random((n, n_atoms)).argsort(axis=1) < n_active
    return (np.where(active, rng.gamma(4, 0.25, active.shape), 0) @ atoms + 2).astype(np.float32)


X = planted()


def sae(variant=TopKSAE, **changes):
    return variant(**SMALL | changes)


@pytest.fixture(scope="module")
def fitted():
    return sae(epochs=20).fit(X)


def assert_same(a, b):
    for name, value in a.model_.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), b.model_.state_dict()[name].numpy(), err_msg=name)


# --- scikit-learn's contract ------------------------------------------------------------------------------------------

TINY = {"n_latents": 8, "k": 2, "epochs": 1, "batch_size": 64, "device": "cpu"}
CHECKED = [
    *(variant(**TINY) for variant in ALL if variant is not MatryoshkaSAE),
    MatryoshkaSAE(**TINY, group_sizes=(2, 6)),
    MatryoshkaSAE(**TINY, group_sizes=(2, 6), selection="batch_topk"),
]


@parametrize_with_checks(CHECKED)
def test_keeps_scikit_learns_contract(estimator, check):
    check(estimator)


SIZE = "n_latents: int = 2048, k: int = 32, *, "
TRAINING = "epochs: int = 50, batch_size: int | None = None, learning_rate: float | None = None, "
AUXK = "auxk: float = 0.0, "
START = "start: Literal['random', 'centroids'] = 'random', "
HELD_OUT = "validation_fraction: float = 0.1, "
GROUP_SIZES = inspect.formatannotation(Literal["euclid"] | Sequence[int])  # versions of Python write it differently
GROUPS = f"group_sizes: {GROUP_SIZES} = 'euclid', selection: Literal['topk', 'batch_topk'] = 'topk', "
CODES = "codes: Literal['topk', 'refit', 'omp'] = 'topk'"
LAST = (
    f"center: bool = True, standardize: Literal['one scale', 'columns'] = 'one scale', "
    f"max_distance: float | None = None, {CODES}, random_state: int | numpy.random.mtrand.RandomState | None = None, "
    "device: str = 'auto'"
)


@pytest.mark.parametrize(
    ("estimator", "parameters"),
    [
        (ReLUSAE, SIZE + TRAINING + AUXK + HELD_OUT + LAST),
        (TopKSAE, SIZE + TRAINING + AUXK + START + LAST),
        (BatchTopKSAE, SIZE + TRAINING + AUXK + HELD_OUT + LAST),
        (MatryoshkaSAE, SIZE + GROUPS + TRAINING + AUXK + HELD_OUT + LAST),
        (JumpReLUSAE, SIZE + TRAINING + AUXK + HELD_OUT + LAST),
        (ArchetypalSAE, SIZE + TRAINING + AUXK + LAST),
        (FrozenDecoderSAE, SIZE + TRAINING + LAST),
        (FrozenEncoderSAE, SIZE + TRAINING + LAST),
        (RandomDictionarySAE, SIZE + TRAINING + LAST),
        (PretrainedSAE, f"model: sfnetlab.models.sae.SparseAutoencoder, *, {CODES}"),
    ],
)
def test_signatures_stay(estimator, parameters):
    assert str(inspect.signature(estimator)) == f"({parameters}) -> None"


def test_defaults_are_those_of_the_schema():
    given = TopKSAE().get_params()
    for name in ("n_latents", "epochs", "batch_size", "learning_rate", "auxk", "start"):
        assert given[name] == getattr(SAE, name), name
    assert (given["k"], given["codes"]) == (SAE.k[0], SAE.codes[0])


@pytest.mark.parametrize("variant", [ArchetypalSAE, ReLUSAE, JumpReLUSAE])
def test_variants_without_kernels_have_the_auxiliary_loss_too(variant):
    small = {**SMALL, "n_latents": 64, "k": 2, "epochs": 20}
    without, with_it = (variant(**small, auxk=auxk).fit(X) for auxk in (0.0, 1.0))
    assert with_it.history_[-1]["train_loss"] > without.history_[-1]["train_loss"]
    assert not np.array_equal(with_it.components_, without.components_)


def test_works_in_a_pipeline_and_a_grid_search_over_k():
    y = X[:, 0]
    search = GridSearchCV(make_pipeline(sae(), Ridge()), {"topksae__k": [1, 8]}, cv=2).fit(X, y)
    assert search.best_params_ == {"topksae__k": 8}


def test_grid_search_needs_no_other_score():
    assert GridSearchCV(sae(), {"k": [1, 8]}, cv=2).fit(X).best_params_ == {"k": 8}


def test_unfitted_is_an_error():
    with pytest.raises(NotFittedError):
        sae().transform(X)
    assert not hasattr(sae(), "components_")


def test_clone_is_unfitted_and_equal(fitted):
    assert clone(fitted).get_params() == fitted.get_params()
    assert not hasattr(clone(fitted), "model_")


def test_pickled_gives_the_same_latents(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.transform(X) != fitted.transform(X)).nnz == 0


def test_columns_of_a_frame_are_remembered_and_latents_named():
    frame = pd.DataFrame(X, columns=[f"e{i}" for i in range(16)])
    estimator = sae().fit(frame)
    assert list(estimator.feature_names_in_[:2]) == ["e0", "e1"]
    assert list(estimator.get_feature_names_out()[:2]) == ["topksae0", "topksae1"]
    assert estimator.score(frame) == sae().fit(X).score(X)
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.transform(frame[frame.columns[::-1]])


def test_data_frame_output_of_sparse_latents_is_an_error(fitted):
    with pytest.raises(ValueError, match="outputs a scipy sparse matrix"):
        clone(fitted).set_output(transform="pandas").fit(X).transform(X)


# --- fit --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ALL)
def test_every_variant_encodes_and_decodes(variant):
    estimator = sae(variant).fit(X)
    latents = estimator.transform(X)
    assert isinstance(latents, csr_array)
    assert latents.shape == (600, 32)
    assert latents.dtype == np.float32
    assert latents.indices.dtype == latents.indptr.dtype == np.int32
    assert latents.data.min() > 0
    np.testing.assert_allclose(estimator.inverse_transform(latents), estimator.model_.reconstruct(X), atol=1e-4)
    dense = estimator.inverse_transform(latents.toarray())
    np.testing.assert_allclose(dense, estimator.inverse_transform(latents), atol=1e-5)


def test_topk_has_k_active_latents_at_most(fitted):
    assert np.diff(fitted.transform(X).indptr).max() == 4


@pytest.mark.parametrize("variant", [BatchTopKSAE, lambda **given: MatryoshkaSAE(selection="batch_topk", **given)])
def test_threshold_gives_k_active_latents_on_the_held_out_rows(variant):
    estimator = variant(**SMALL, validation_fraction=0.25).fit(X)
    held_out = np.random.default_rng(0).permutation(600)[:150]
    assert estimator.transform(X[held_out]).nnz == 4 * 150
    assert len(set(estimator.thresholds_)) == 1


def test_rows_without_active_latents_are_empty_and_their_reconstruction_is_the_bias():
    model = SparseAutoencoder(16, 8, None, rule="threshold")  # all weights are zero
    estimator = PretrainedSAE(model).fit(X)
    assert estimator.transform(X).nnz == 0
    assert (estimator.inverse_transform(estimator.transform(X)) == 0).all()


def test_only_variants_with_thresholds_have_them(fitted):
    assert not hasattr(fitted, "thresholds_")
    assert hasattr(sae(JumpReLUSAE).fit(X), "thresholds_")


def test_latents_of_a_row_do_not_depend_on_other_rows(fitted):
    np.testing.assert_allclose(fitted.transform(X[5:6]).toarray(), fitted.transform(X)[5:6].toarray(), rtol=1e-5)


def test_parameters_of_the_model_are_attributes(fitted):
    np.testing.assert_allclose(fitted.mean_, X.mean(axis=0), rtol=1e-5)
    assert fitted.scale_ == pytest.approx(np.sqrt(X.var(axis=0).mean()), rel=1e-5)
    np.testing.assert_allclose(np.linalg.norm(fitted.components_, axis=1), 1, rtol=1e-5)
    assert fitted.n_features_in_ == 16
    assert fitted.n_iter_ == 20


def test_history_has_a_record_an_epoch(fitted):
    history = pd.DataFrame(fitted.history_)
    assert list(history["epoch"]) == list(range(1, 21))
    assert history["train_fvu"].iloc[-1] < history["train_fvu"].iloc[0]


def test_same_random_state_gives_the_same_dictionary():
    assert_same(sae(random_state=3).fit(X), sae(random_state=3).fit(X))
    assert not np.array_equal(sae(random_state=3).fit(X).components_, sae(random_state=4).fit(X).components_)


def test_generator_as_random_state_is_drawn_from():
    state = np.random.RandomState(0)
    first, second = sae(random_state=state).fit(X), sae(random_state=state).fit(X)
    assert not np.array_equal(first.components_, second.components_)


def test_large_mean_without_centring_is_warned_of():
    with pytest.warns(LargeMeanWarning, match=r"mean is .* times their spread, and centring is off"):
        estimator = sae(center=False).fit(X + 10)
    assert (estimator.mean_ == 0).all()


ONE_ROW = np.vstack([X, np.full((1, 16), 1000, np.float32)])
ONE_COLUMN = X * np.r_[100, np.ones(15)].astype(np.float32)


def explained(data, back):
    return 1 - ((data - back) ** 2).sum() / ((data - data.mean(axis=0)) ** 2).sum()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ONE_ROW, r"1 of 601 rows .* hold \d+\.\d% of the variance; .*: 600 \(.*max_distance = 10"),
        (np.where(X[7, 3] == X, np.float32(1e20), X), r"1 of 600 rows .*: 7 \(100\.0%\)"),
        (np.vstack([X, 300 * X[:20]]), r"20 of 620 rows .*: .*max_distance"),
        (ONE_COLUMN, r'1 of 16 columns hold 99\.\d% of the variance; .*: 0 \(.*standardize = "columns"'),
    ],
)
def test_rows_and_columns_that_hold_the_variance_are_named_before_training(data, message):
    with pytest.warns(UnevenSpreadWarning, match=message):
        sae(epochs=1).fit(data)


@pytest.mark.parametrize(
    "data",
    [X, np.abs(X) ** 3, np.where(X > 2.5, X, 0), np.random.default_rng(0).standard_t(3, (300, 12)), np.eye(12)],
    ids=["planted", "skewed", "sparse", "heavy tails", "unit vectors"],
)
def test_nothing_is_said_of_ordinary_embeddings(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sae(epochs=1, n_latents=8, k=2).fit(data)


def test_a_broken_row_beyond_max_distance_changes_nothing():
    assert_same(sae(max_distance=10).fit(ONE_ROW), sae().fit(X))


def test_max_distance_changes_nothing_where_no_row_is_far():
    assert_same(sae(max_distance=10).fit(X), sae().fit(X))


def test_a_row_that_is_not_finite_is_an_error_with_max_distance_too():
    with pytest.raises(ValueError, match="row 600"):
        sae(max_distance=10).fit(np.vstack([X, np.full((1, 16), np.inf, np.float32)]))


def test_by_column_a_wide_column_counts_as_others_do():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wide, plain = (sae(standardize="columns", epochs=30).fit(data) for data in (ONE_COLUMN, X))
    back = [
        estimator.inverse_transform(estimator.transform(data)) for estimator, data in ((wide, ONE_COLUMN), (plain, X))
    ]
    assert explained(ONE_COLUMN[:, 1:], back[0][:, 1:]) == pytest.approx(explained(X[:, 1:], back[1][:, 1:]), abs=0.02)


def test_by_column_is_training_on_columns_scaled_by_hand():
    mean, spread = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    ours, by_hand = sae(standardize="columns").fit(X), sae(center=False).fit((X - mean) / spread)
    np.testing.assert_allclose(ours.scale_, spread, rtol=1e-6)
    np.testing.assert_allclose(ours.components_, by_hand.components_, atol=2e-3)
    z = by_hand.inverse_transform(by_hand.transform((X - mean) / spread))
    np.testing.assert_allclose(ours.inverse_transform(ours.transform(X)), mean + spread * z, atol=0.02)


@pytest.mark.parametrize("constant", [7.1, 14.62, 0.0, -1e-5])
@pytest.mark.parametrize("unit", [1e-25, 1, 1e6])
def test_by_column_a_constant_column_has_the_scale_of_the_others(unit, constant):
    """Rounding leaves a spread of numbers like 14.62, and columns of small numbers are not constant."""
    data = unit * np.c_[X, np.full(len(X), constant, np.float32)]
    estimator = sae(standardize="columns").fit(data)
    assert estimator.scale_[-1] == pytest.approx(np.median(estimator.scale_[:-1]), rel=0.1)
    np.testing.assert_allclose(estimator.inverse_transform(estimator.transform(data))[:, -1] / unit, constant, atol=2)


@pytest.mark.parametrize("center", [True, False])
def test_by_column_the_recorded_fvu_is_that_of_standardised_columns(center):
    data = X - 2
    estimator = sae(standardize="columns", center=center, epochs=30).fit(data)
    assert estimator.history_[-1]["train_fvu"] == pytest.approx(estimator.fvus(data)["fvu_by_column"], rel=0.2)


@pytest.mark.parametrize("codes", ["topk", "refit", "omp"])
def test_by_column_saving_keeps_latents_and_reconstruction(codes, tmp_path):
    estimator = sae(standardize="columns").fit(ONE_COLUMN)
    save_sae(tmp_path, estimator.model_)
    again = PretrainedSAE(load_sae(tmp_path), codes=codes).fit(ONE_COLUMN)
    latents = estimator.set_params(codes=codes).transform(ONE_COLUMN)
    np.testing.assert_array_equal(again.transform(ONE_COLUMN).toarray(), latents.toarray())
    np.testing.assert_array_equal(again.inverse_transform(latents), estimator.inverse_transform(latents))


@pytest.mark.parametrize("standardize", ["one scale", "columns"])
def test_embeddings_too_small_for_float32_are_refused(standardize):
    with pytest.raises(ValueError, match=r"spread is .*, too small for float32"):
        sae(standardize=standardize).fit(X * np.float32(1e-41))


def test_of_a_broken_row_the_median_row_tells_and_of_a_wide_column_each_column():
    with warnings.catch_warnings(action="ignore"):
        row, column = (sae(epochs=30).fit(data).fvus(data) for data in (ONE_ROW, ONE_COLUMN))
    assert row["fvu"] < 0.01
    assert row["fvu_median_row"] > 0.5
    assert column["fvu"] < 0.01
    assert column["fvu_by_column"] > 0.5


def test_of_ordinary_embeddings_all_fvus_are_alike(fitted):
    fvus = fitted.fvus(X)
    assert fvus["fvu"] == pytest.approx(1 - fitted.score(X))
    assert fvus["fvu_by_column"] == pytest.approx(fvus["fvu"], rel=0.1)
    assert fvus["fvu_median_row"] == pytest.approx(fvus["fvu"], rel=0.3)


def test_small_mean_without_centring_is_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sae(center=False).fit(X - X.mean(axis=0))


def test_recorded_fvu_is_about_the_mean_without_centring_too():
    with pytest.warns(LargeMeanWarning):
        estimator = sae(center=False, epochs=30).fit(X)
    assert estimator.history_[-1]["train_fvu"] == pytest.approx(1 - estimator.score(X), rel=0.2)


def test_centroids_are_the_same_for_every_seed(monkeypatch):
    monkeypatch.setattr(recipe, "RESAMPLED_AT", ())
    few = {"start": "centroids", "epochs": 1, "learning_rate": 1e-8}
    first, second = (sae(random_state=seed, **few).fit(X) for seed in (1, 2))
    np.testing.assert_allclose(first.components_, second.components_, atol=1e-5)


# --- codes, score -----------------------------------------------------------------------------------------------------


def test_codes_get_better_with_the_same_dictionary(fitted):
    scores = [clone(fitted).set_params(codes=codes).fit(X).score(X) for codes in ("topk", "refit", "omp")]
    assert scores == sorted(scores)
    assert scores[0] < scores[1]


def test_refit_keeps_the_support_and_leaves_residuals_orthogonal(fitted):
    refitted = clone(fitted).set_params(codes="refit").fit(X)
    latents, plain = refitted.transform(X), fitted.transform(X)
    np.testing.assert_array_equal(latents.indices, plain.indices)
    residual = (X - refitted.inverse_transform(latents))[7]
    np.testing.assert_allclose(fitted.components_[latents[7:8].indices] @ residual, 0, atol=1e-4)


def test_score_is_the_explained_share_of_variance(fitted):
    expected = 1 - fraction_of_variance_unexplained(X, fitted.inverse_transform(fitted.transform(X)))
    assert fitted.score(X) == pytest.approx(expected, rel=1e-6)


def test_score_of_one_row_is_an_error(fitted):
    with pytest.raises(ValueError, match=r"TopKSAE\.score: all 1 embeddings are the same"):
        fitted.score(X[:1])


# --- memory maps ------------------------------------------------------------------------------------------------------


def test_memory_map_is_never_copied_whole(tmp_path):
    shape = (200_000, 128)
    rows = np.memmap(tmp_path / "X", "f2", "w+", shape=shape)
    rows[:] = np.tile(np.random.default_rng(0).standard_normal((1000, 128)).astype("f2"), (200, 1))
    rows.flush()
    del rows
    rows = np.memmap(tmp_path / "X", "f2", "r", shape=shape)
    estimator = sae(epochs=1, batch_size=8192)
    tracemalloc.start()
    try:
        estimator.fit(rows).score(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.25 * 4 * rows.size  # a quarter of it in float32


def test_memory_map_gives_what_the_array_gives(tmp_path, fitted):
    rows = np.memmap(tmp_path / "X", "f4", "w+", shape=X.shape)
    rows[:] = X
    rows.flush()
    rows = np.memmap(tmp_path / "X", "f4", "r", shape=X.shape)
    again = clone(fitted).fit(rows)
    assert_same(again, fitted)
    assert (again.transform(rows) != fitted.transform(X)).nnz == 0


# --- many at once -----------------------------------------------------------------------------------------------------


def test_each_of_many_is_the_one_fitted_alone():
    made = [
        *(sae(k=k, random_state=seed) for k in (2, 4) for seed in (0, 1)),
        sae(n_latents=64),
        sae(BatchTopKSAE),
        sae(BatchTopKSAE, random_state=1),
        sae(MatryoshkaSAE),
        sae(JumpReLUSAE),
        sae(ArchetypalSAE),
        sae(epochs=2),
        sae(RandomDictionarySAE),
    ]
    together = fit_many([clone(one) for one in made], X)
    for one, other in zip(made, together, strict=True):
        assert_same(one.fit(X), other)
        assert [row["train_loss"] for row in one.history_] == [row["train_loss"] for row in other.history_]


def test_fit_many_returns_the_estimators_themselves():
    made = [sae(k=1), sae(k=2)]
    assert all(one is other for one, other in zip(made, fit_many(made, X), strict=True))


def test_fit_many_of_none_is_none():
    assert fit_many([], X) == []


# --- a model that is there already ------------------------------------------------------------------------------------


def test_saved_model_is_a_transformer_again(tmp_path, fitted):
    save_sae(tmp_path, fitted.model_)
    again = PretrainedSAE(load_sae(tmp_path)).fit(X)
    assert (again.transform(X) != fitted.transform(X)).nnz == 0
    assert again.score(X) == fitted.score(X)
    assert clone(again).get_params()["codes"] == "topk"


def test_saved_model_takes_other_codes(fitted):
    assert PretrainedSAE(fitted.model_, codes="omp").fit(X).score(X) > fitted.score(X)


def test_model_of_another_width_is_an_error(fitted):
    with pytest.raises(ValueError, match="X has 15 features, but the model takes 16"):
        PretrainedSAE(fitted.model_).fit(X[:, :15])


def test_pursuit_with_a_model_that_has_no_k_is_an_error():
    model = SparseAutoencoder(16, 8, None, rule="threshold")
    with pytest.raises(ValueError, match="matching pursuit needs to know how many latents to take"):
        PretrainedSAE(model, codes="omp").fit(X).transform(X)


# --- parameters that are out of range ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "changes", "problem"),
    [
        (
            TopKSAE,
            {"k": 33},
            r"'k' parameter of TopKSAE must be an int in the range \[1, n_latents=32\]. Got 33 instead",
        ),
        (ReLUSAE, {"k": 0}, r"'k' parameter of ReLUSAE must be an int in the range \[1, inf\). Got 0"),
        (TopKSAE, {"k": 2.0}, r"'k' parameter .* Got 2\.0"),
        (TopKSAE, {"k": True}, r"'k' parameter .* Got True"),
        (TopKSAE, {"n_latents": 0}, r"'n_latents' parameter of TopKSAE must be an int in the range \[1, inf\). Got 0"),
        (TopKSAE, {"n_latents": "many"}, r"'n_latents' .* Got 'many'"),
        (TopKSAE, {"epochs": 0}, r"'epochs' .* Got 0"),
        (TopKSAE, {"batch_size": -1}, r"'batch_size' .* Got -1"),
        (TopKSAE, {"learning_rate": 0.0}, r"'learning_rate' .* a float in the range \(0, inf\). Got 0\.0"),
        (TopKSAE, {"learning_rate": float("nan")}, r"'learning_rate' .* Got nan"),
        (TopKSAE, {"auxk": -1}, r"'auxk' .* a float in the range \[0, inf\). Got -1"),
        (TopKSAE, {"start": "pca"}, r"'start' .* one of 'random', 'centroids'. Got 'pca'"),
        (TopKSAE, {"codes": "lasso"}, r"'codes' .* one of 'topk', 'refit', 'omp'. Got 'lasso'"),
        (TopKSAE, {"standardize": "column"}, r"'standardize' .* 'one scale', 'columns'. Got 'column'"),
        (TopKSAE, {"max_distance": 1}, r"'max_distance' .* range \(1, inf\). Got 1"),
        (TopKSAE, {"center": "yes"}, r"'center' .* a bool. Got 'yes'"),
        (TopKSAE, {"device": "tpu"}, r"'device' .* 'cpu', 'cuda', 'cuda:N' or 'mps'. Got 'tpu'"),
        (TopKSAE, {"random_state": -1}, r"'random_state' .* Got -1"),
        (BatchTopKSAE, {"validation_fraction": 1.0}, r"'validation_fraction' .* in the range \(0, 1\). Got 1\.0"),
        (MatryoshkaSAE, {"group_sizes": (1, 2)}, r"'group_sizes' .* sum to n_latents=32. Got \(1, 2\)"),
        (MatryoshkaSAE, {"group_sizes": "nested"}, r"'group_sizes' .* Got 'nested'"),
        (MatryoshkaSAE, {"n_latents": 40}, r"'n_latents' .* divisible by 32 with group_sizes='euclid'. Got 40"),
        (MatryoshkaSAE, {"selection": "relu"}, r"'selection' .* Got 'relu'"),
    ],
)
def test_parameter_out_of_range_is_named_in_fit(variant, changes, problem):
    estimator = sae(variant, **changes)
    with pytest.raises(ValueError, match=problem):
        estimator.fit(X)
