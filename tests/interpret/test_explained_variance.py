"""Explained variance against a slow loop; in which order features of each kind are kept."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sfnetlab.interpret import explained_variance as question
from sfnetlab.interpret.explained_variance import explained_variance
from sfnetlab.jobs import TableSpec
from sfnetlab.methods.readers import AffineReader
from sfnetlab.metrics.reconstruction import fraction_of_variance_unexplained

RNG = np.random.default_rng(0)
VALUES = np.where(RNG.random((300, 6)) < [0.9, 0.05, 0.5, 0.7, 0, 0.3], RNG.gamma(2, size=(300, 6)), 0)
ORDER = np.argsort(-np.count_nonzero(VALUES[:200], axis=0), kind="stable")


@pytest.mark.parametrize("as_table", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("fill", [np.zeros(6), VALUES[:200].mean(axis=0)])
def test_explained_variance_is_one_minus_the_fvu_of_the_kept_features(as_table, fill, monkeypatch):
    monkeypatch.setattr("sfnetlab.interpret.explained_variance.BLOCK_VALUES", 1000)
    atoms, b_dec = RNG.normal(size=(6, 8)), RNG.normal(size=8)
    x = VALUES @ atoms + b_dec + 0.1 * RNG.normal(size=(300, 8))
    table = explained_variance(x, as_table(VALUES), atoms, b_dec, ORDER, fill)
    assert table["n_components"].tolist() == [1, 2, 4, 6]
    for row in table.itertuples():
        kept = ORDER[: row.n_components]
        values = np.tile(fill, (300, 1))
        values[:, kept] = VALUES[:, kept]
        fvu = fraction_of_variance_unexplained(x, values @ atoms + b_dec)
        assert row.explained_variance == pytest.approx(1 - fvu)
        assert row.l0 == pytest.approx(np.count_nonzero(VALUES[:, kept]) / 300)


def test_of_principal_components_it_is_the_sum_of_their_shares():
    x = RNG.normal(size=(50, 5)) * [5, 4, 3, 2, 1]
    mean = x.mean(axis=0)
    _, s, components = np.linalg.svd(x - mean, full_matrices=False)
    table = explained_variance(x, (x - mean) @ components.T, components, mean, np.arange(5), np.zeros(5))
    share = np.cumsum(s**2) / np.sum(s**2)
    np.testing.assert_allclose(table["explained_variance"], share[table["n_components"] - 1])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit together"):
        explained_variance(np.ones((3, 2)), np.ones((3, 4)), np.ones((4, 2)), np.ones(3), np.arange(4), np.zeros(4))


class Dictionary(AffineReader):
    """Atoms that make the embedding, nested or not."""

    sizes = (6,)

    @property
    def prefixes(self):
        return self.sizes


class Nested(Dictionary):
    sizes = (2, 6)


def asked(described, kind, reader):
    """The answer of a table that decomposes an embedding into the features `VALUES`."""
    atoms = RNG.normal(size=(6, 8))
    ids = [f"{i:04d}" for i in range(300)]
    embedding = pd.DataFrame(VALUES @ atoms + 1, index=ids)
    table = described(
        pd.DataFrame({"size": np.arange(300.0)}),
        VALUES,
        spec=TableSpec(features=kind, kind=kind, k=None, seed=0),
        load_reader=lambda: reader(np.ones(8), np.zeros((8, 6)), atoms),
        load_embedding=lambda of: embedding.loc[of].to_numpy(),
    )
    answer = question.ask(table).tables["explained_variance"]
    return table, atoms, embedding, answer.set_index("n_components")["explained_variance"]


def expected(table, atoms, embedding, order, fill):
    x = embedding.loc[table.test.rows["id_str"]].to_numpy()
    found = explained_variance(x, table.test.values, atoms, np.ones(8), order, fill)
    return found.set_index("n_components")["explained_variance"]


def test_components_are_kept_by_number_and_latents_by_frequency(described):
    for kind, of_kind in (("pca", lambda train: np.arange(6)), ("sae", by_frequency)):
        table, atoms, embedding, found = asked(described, kind, Dictionary)
        order, fill = of_kind(table.train.values), table.train.values.mean(axis=0)
        pd.testing.assert_series_equal(found, expected(table, atoms, embedding, order, fill))


def by_frequency(train):
    return np.argsort(-np.count_nonzero(train, axis=0), kind="stable")


def test_nested_dictionaries_keep_their_order_and_do_without_the_rest(described):
    table, atoms, embedding, found = asked(described, "sae", Nested)
    pd.testing.assert_series_equal(found, expected(table, atoms, embedding, np.arange(6), np.zeros(6)))


def test_features_that_do_not_make_the_embedding_again_explain_nothing_of_it(described):
    table = described(pd.DataFrame({"size": np.arange(300.0)}), VALUES, load_embedding=lambda of: VALUES)
    assert not question.ask(table).tables
