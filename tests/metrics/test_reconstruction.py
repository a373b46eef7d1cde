import numpy as np
import pytest
from sklearn.metrics import r2_score

from sfnetlab.metrics import tables
from sfnetlab.metrics.reconstruction import fraction_of_variance_unexplained, loss_recovered


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    return rng.normal(np.linspace(0, 20, 6), np.linspace(0.1, 2, 6), (300, 6))


def test_column_means_score_exactly_one(x):
    assert fraction_of_variance_unexplained(x, np.broadcast_to(x.mean(axis=0), x.shape)) == 1


def test_perfect_reconstruction_scores_zero(x):
    assert fraction_of_variance_unexplained(x, x.copy()) == 0


def test_fvu_is_one_minus_sklearns_variance_weighted_r2(x):
    x_hat = x + np.random.default_rng(1).normal(size=x.shape)
    expected = 1 - r2_score(x, x_hat, multioutput="variance_weighted")
    assert fraction_of_variance_unexplained(x, x_hat) == pytest.approx(expected)


def test_blocks_of_a_float32_memory_map_give_the_sum_over_all_rows(x, tmp_path, monkeypatch):
    x_hat = (x + 0.1).astype(np.float32)
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    monkeypatch.setattr(tables, "BLOCK_VALUES", 42)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = np.sum((x - x_hat) ** 2) / np.sum((x - x.mean(axis=0)) ** 2)
    assert fraction_of_variance_unexplained(mapped, x_hat) == pytest.approx(expected, rel=1e-5)


def test_train_means_score_one_about_train_means(x):
    train_mean = np.full(6, 3.0)
    assert fraction_of_variance_unexplained(x, np.full_like(x, 3.0), mean=train_mean) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x, x[:, 1:]), "one shape"),
        (lambda x: (x[:0], x[:0]), "one shape"),
        (lambda x: (x, np.where(x > 20, np.nan, x)), "x_hat: .* not finite"),
        (lambda x: (np.full_like(x, 0.1), x), "constant"),
    ],
)
def test_bad_embeddings_are_refused(x, change, message):
    with pytest.raises(ValueError, match=message):
        fraction_of_variance_unexplained(*change(x))


def test_means_of_another_width_are_refused(x):
    with pytest.raises(ValueError, match="mean: expected"):
        fraction_of_variance_unexplained(x, x, mean=np.zeros(5))


def recovered(of_embedding, of_reconstruction, y):
    table = loss_recovered(("y",), y, np.zeros(1), of_embedding, of_reconstruction, n_resamples=100, seed=0)
    return table.set_index("metric")


def test_the_loss_recovered_is_one_for_what_loses_nothing_and_zero_for_the_mean():
    y = np.random.default_rng(0).normal(size=(200, 1))
    for share, expected in ((0.9, 1.0), (0.0, 0.0)):
        table = recovered(0.9 * y, share * y, y)
        assert table.loc["loss_recovered", ["value", "low", "high"]].tolist() == pytest.approx([expected] * 3)
        assert table.loc["rmse_reconstruction", "value"] == pytest.approx((1 - share) * np.sqrt(np.mean(y**2)))


def test_where_the_embedding_tells_no_more_than_the_mean_nothing_is_recovered():
    y = np.random.default_rng(0).normal(size=(200, 1))
    assert list(recovered(-y, y, y).index) == ["rmse_reconstruction"]
