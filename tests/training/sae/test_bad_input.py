"""Unusual or wrong input: the exact error, or what the same numbers give in a plain array. Never a silent NaN."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from sfnetlab.errors import DataError, TrainingError
from sfnetlab.estimators import (
    ArchetypalSAE,
    BatchTopKSAE,
    FrozenDecoderSAE,
    JumpReLUSAE,
    MatryoshkaSAE,
    RandomDictionarySAE,
    ReLUSAE,
    TopKSAE,
)
from sfnetlab.training.sae.trainer import Rows, fit_standardisation

VARIANTS = [
    ReLUSAE,
    TopKSAE,
    BatchTopKSAE,
    MatryoshkaSAE,
    JumpReLUSAE,
    ArchetypalSAE,
    FrozenDecoderSAE,
    RandomDictionarySAE,
]
X = np.random.default_rng(0).integers(-50, 50, (300, 8)).astype(np.float32)
"""Whole numbers: the same in every type."""


def sae(variant=TopKSAE, **changes):
    given = {"n_latents": 32, "k": 4, "epochs": 2, "batch_size": 64, "device": "cpu", "random_state": 0}
    return variant(**given | changes)


def assert_all_finite(estimator, x):
    for name, tensor in estimator.model_.state_dict().items():
        assert np.isfinite(tensor.numpy()).all(), name
    for record in estimator.history_:
        assert np.isfinite([value for value in record.values() if isinstance(value, float)]).all()
    for codes in ("topk", "refit", "omp"):
        x_hat = estimator.set_params(codes=codes).inverse_transform(estimator.transform(x))
        assert np.isfinite(x_hat).all()
    estimator.set_params(codes="topk")


def assert_same(estimator, expected, x=X):
    for name, tensor in estimator.model_.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), expected.model_.state_dict()[name].numpy(), err_msg=name)
    assert (estimator.transform(x) != expected.transform(X)).nnz == 0


@pytest.fixture(scope="module")
def fitted():
    return sae().fit(X)


def with_value(value, dtype=np.float32):
    x = X.astype(dtype)
    x[5, 2] = x[7, 0] = value
    return x


# --- values -----------------------------------------------------------------------------------------------------------

NOT_FINITE = [
    with_value(np.nan),
    with_value(np.inf),
    with_value(-np.inf),
    with_value(1e300, np.float64),
    with_value(np.nan, np.float16),
]


@pytest.mark.parametrize("x", NOT_FINITE)
def test_rows_that_are_not_finite_are_counted_in_fit(x):
    problem = r"2 of 300 train rows hold NaN, inf or values too large for float32 \(first: row 5\); leave them out"
    with pytest.raises(ValueError, match=problem):
        sae().fit(x)
    with pytest.raises(DataError, match=problem):
        fit_standardisation(Rows(x, np.arange(300)))


@pytest.mark.parametrize("codes", ["topk", "refit", "omp"])
@pytest.mark.parametrize("x", NOT_FINITE)
def test_rows_that_are_not_finite_are_named_in_transform(fitted, x, codes):
    estimator = sae(codes=codes)
    estimator.model_, estimator.n_features_in_ = fitted.model_, 8
    with pytest.raises(ValueError, match="X contains NaN, inf or values too large for float32: row 5"):
        estimator.transform(x)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_latents_that_are_not_finite_are_an_error(fitted, value):
    latents = fitted.transform(X)
    latents.data[3] = value
    with pytest.raises(ValueError, match="Input X contains"):
        fitted.inverse_transform(latents)


@pytest.mark.parametrize("row", range(0, 300, 20))
def test_held_out_rows_must_be_finite_too(row):
    x = X.copy()
    x[row, 0] = np.nan
    with pytest.raises(ValueError, match=rf"1 of \d+ (train|valid) rows hold NaN.*first: row {row}\)"):
        sae(BatchTopKSAE, validation_fraction=0.5).fit(x)


def test_row_is_named_by_its_place_among_all_rows():
    chosen = np.flatnonzero(np.arange(300) % 2)
    with pytest.raises(DataError, match=r"2 of 150 train rows .* \(first: row 5\)"):
        fit_standardisation(Rows(with_value(np.nan), chosen))


def test_rows_that_were_not_chosen_may_hold_anything():
    chosen = np.delete(np.arange(300), [5, 7])
    assert np.isfinite(fit_standardisation(Rows(with_value(np.nan), chosen)).mean).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("constant", [0, 0.1, 1e7])
def test_constant_columns_are_reconstructed(variant, constant):
    x = X.copy()
    x[:, [0, 3]] = constant
    estimator = sae(variant, epochs=20).fit(x)
    assert_all_finite(estimator, x)
    if variant not in (FrozenDecoderSAE, RandomDictionarySAE):
        x_hat = estimator.inverse_transform(estimator.transform(x))
        assert np.abs(x_hat[:, [0, 3]] - constant).max() < max(40, 1e-6 * constant)


@pytest.mark.parametrize("constant", [0, 0.1, 1e7])
def test_rows_that_are_all_the_same_are_an_error(constant):
    x = np.full((100, 8), constant, dtype=np.float32)
    with pytest.raises(ValueError, match="TopKSAE: all 100 embeddings are the same: there is nothing to decompose"):
        sae().fit(x)


def test_rows_that_differ_in_one_value_are_enough():
    x = np.zeros((100, 8), dtype=np.float32)
    x[17, 3] = 1e-20
    assert_all_finite(sae().fit(x), x)


@pytest.mark.parametrize("variant", VARIANTS)
def test_duplicate_rows_give_finite_results(variant):
    x = np.repeat(X[:40], 10, axis=0)
    estimator = sae(variant).fit(x)
    assert_all_finite(estimator, x)
    latents = estimator.transform(x).toarray()
    np.testing.assert_allclose(latents[::10], latents[9::10], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-25, 1e-6, 1e6, 1e25])
def test_units_change_nothing_but_the_scale(fitted, factor):
    estimator = sae().fit(X.astype(np.float64) * factor)
    assert estimator.scale_ == pytest.approx(factor * fitted.scale_, rel=1e-5)
    np.testing.assert_allclose(estimator.components_, fitted.components_, atol=0.01)


def test_columns_scaled_far_apart_give_finite_results():
    x = X * np.logspace(-6, 6, 8, dtype=np.float32)
    assert_all_finite(sae().fit(x), x)


def test_loss_that_is_not_finite_stops_with_its_step():
    with pytest.raises(TrainingError, match=r"sae: the (loss|weights) .*step \d+ of 10 (is|are) not finite"):
        sae(learning_rate=1e30).fit(X)


# --- types and layouts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "g", ">f4", ">f8", ">i2", "i1", "i2", "i4", "i8"])
def test_same_numbers_in_any_type_give_the_same(fitted, dtype):
    x = X.astype(dtype)
    assert_same(sae().fit(x), fitted, x)


@pytest.mark.parametrize("dtype", ["u1", "u8", "?"])
def test_unsigned_and_truth_values_are_numbers(dtype):
    x = (X > 0).astype(dtype)
    assert_same(sae().fit(x), sae().fit(x.astype(np.float32)), X)


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "columns first": np.asfortranarray,
    "every second column of a wider one": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "every second row of a longer one": lambda x: np.repeat(x, 2, axis=0)[::2],
    "backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "read only": read_only,
    "a field of records": lambda x: np.rec.fromarrays([x], names="x", dtype=[("x", "f4", (8,))])["x"],
    "a list of lists": lambda x: x.tolist(),
    "objects": lambda x: x.astype(object),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_numbers_in_any_layout_give_the_same(fitted, layout):
    x = LAYOUTS[layout](X)
    assert_same(sae().fit(x), fitted, x)


@pytest.mark.parametrize("layout", ["columns first", "every second column of a wider one", "read only"])
@pytest.mark.parametrize("variant", [MatryoshkaSAE, JumpReLUSAE, ArchetypalSAE])
def test_layout_does_not_matter_to_other_variants(variant, layout):
    x = LAYOUTS[layout](X)
    assert_same(sae(variant).fit(x), sae(variant).fit(X), x)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_input_is_left_as_it_was(layout):
    x = LAYOUTS[layout](X.copy())
    sae().fit(x).transform(x)
    np.testing.assert_array_equal(np.array(x, dtype=np.float32), X)


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "problem"),
    [
        (X[:0], r"Found array with 0 sample\(s\) \(shape=\(0, 8\)\) while a minimum of 2 is required by TopKSAE"),
        (X[:1], r"Found array with 1 sample\(s\) \(shape=\(1, 8\)\) while a minimum of 2 is required by TopKSAE"),
        (X[:, :0], r"Found array with 0 feature\(s\)"),
        (X[0], "Expected 2D array, got 1D array instead"),
        (X[None], "Found array with dim 3"),
        (np.float32(3), "Expected 2D array, got scalar array instead"),
        (X.astype(complex), "Complex data not supported"),
        (np.array([["a", "b"], ["c", "d"]]), "not compatible with arrays of bytes/strings"),
        (np.array([["a", 1], [2, 3]], dtype=object), "could not convert string to float"),
    ],
)
def test_what_is_no_table_of_numbers_is_an_error(x, problem):
    with pytest.raises(ValueError, match=problem):
        sae().fit(x)


def test_objects_that_are_no_numbers_are_an_error():
    with pytest.raises(TypeError, match="argument must be a string or a real number"):
        sae().fit(np.array([[{}, 1], [2, 3]], dtype=object))


def test_sparse_input_is_an_error():
    with pytest.raises(TypeError, match="Sparse data was passed for X, but dense data is required"):
        sae().fit(csr_array(X))


@pytest.mark.parametrize("width", [7, 9])
def test_another_width_in_transform_is_an_error(fitted, width):
    with pytest.raises(ValueError, match=f"X has {width} features, but TopKSAE is expecting 8 features as input"):
        fitted.transform(np.zeros((3, width)))


@pytest.mark.parametrize("width", [31, 33])
def test_another_number_of_latents_is_an_error(fitted, width):
    with pytest.raises(ValueError, match=f"X has {width} latents, but TopKSAE has a dictionary of 32"):
        fitted.inverse_transform(np.zeros((3, width)))


def test_no_rows_in_transform_are_an_error(fitted):
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
        fitted.transform(X[:0])


def test_trainer_needs_a_row_and_a_column():
    for x in (X[:0], X[:, :0], X[0]):
        with pytest.raises(
            DataError, match=r"expected embeddings \(n_samples, d_in\) with at least one train row and one column"
        ):
            fit_standardisation(Rows(x, np.arange(len(x))))


@pytest.mark.parametrize("codes", ["topk", "refit", "omp"])
def test_one_row_is_transformed_as_among_others(fitted, codes):
    estimator = sae(codes=codes).fit(X)
    one, all_rows = estimator.transform(X[9:10]).toarray(), estimator.transform(X)[9:10].toarray()
    np.testing.assert_allclose(one, all_rows, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", [one for one in VARIANTS if one is not ArchetypalSAE])
@pytest.mark.parametrize("n_rows", [3, 63])
def test_fewer_rows_than_the_batch_are_one_batch(variant, n_rows):
    estimator = sae(variant).fit(X[:n_rows])
    assert [row["step"] for row in estimator.history_] == [1, 2]
    assert_all_finite(estimator, X[:n_rows])


def test_fewer_rows_than_centroids_are_an_error():
    with pytest.raises(ValueError, match=r"ArchetypalSAE: a start at centroids needs at least n_latents=32 .* got 20"):
        sae(ArchetypalSAE).fit(X[:20])


@pytest.mark.parametrize("variant", [BatchTopKSAE, MatryoshkaSAE])
def test_held_out_rows_leave_two_to_train_on(variant):
    selection = {"selection": "batch_topk"} if variant is MatryoshkaSAE else {}
    estimator = sae(variant, validation_fraction=0.99, **selection).fit(X[:3])
    assert_all_finite(estimator, X[:3])
    with pytest.raises(ValueError, match=r"Found array with 2 sample\(s\) .* while a minimum of 3 is required"):
        estimator.fit(X[:2])


def test_two_rows_are_enough_where_none_is_held_out():
    assert_all_finite(sae().fit(X[:2]), X[:2])


@pytest.mark.parametrize("variant", VARIANTS)
def test_k_may_be_all_latents_and_more_than_columns(variant):
    assert_all_finite(sae(variant, k=32).fit(X), X)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_column_is_enough(variant):
    assert_all_finite(sae(variant).fit(X[:, :1]), X[:, :1])


@pytest.mark.parametrize("variant", [TopKSAE, ReLUSAE, JumpReLUSAE])
def test_one_latent_is_enough(variant):
    assert_all_finite(sae(variant, n_latents=1, k=1).fit(X), X)
