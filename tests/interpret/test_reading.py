"""Reading one table by another: equal to scikit-learn's ridge, perfect for linear images, nothing for noise."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from sfnetlab.interpret import reading
from sfnetlab.interpret.reading import Parts, read_across, summarise_reading
from sfnetlab.probes.paths import Decomposed


def parts(values) -> Parts:
    return Parts(values[:120], values[120:180], values[180:])


def planted(seed: int = 0):
    """A reader, and a target: two linear images of it (one sparse), pure noise, a silent feature."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((260, 6))
    b = np.column_stack([a @ rng.standard_normal(6), np.maximum(a[:, 0], 0), rng.standard_normal(260), np.zeros(260)])
    return a, b


def test_r2_is_that_of_sklearns_ridge_at_the_chosen_penalty():
    a, b = planted()
    table = read_across(parts(a), parts(sp.csr_array(b)))
    assert table["feature"].tolist() == [0, 1, 2]
    scaler = StandardScaler().fit(a[:120])
    for row in table.itertuples():
        model = Ridge(alpha=row.alpha).fit(scaler.transform(a[:120]), b[:120, row.feature])
        expected = r2_score(b[180:, row.feature], model.predict(scaler.transform(a[180:])))
        assert row.r2 == pytest.approx(expected, abs=1e-8)


def test_linear_image_is_read_and_noise_is_not():
    a, b = planted()
    table = read_across(parts(a), parts(b)).set_index("feature")
    assert table.loc[0, "r2"] > 0.999
    assert 0.5 < table.loc[1, "r2"] < 0.95
    assert table.loc[2, "r2"] < 0.1
    assert table.loc[1, "frequency"] == np.mean(b[180:, 1] > 0)


@pytest.mark.parametrize("as_table", [np.asarray, sp.csr_array])
def test_blocks_change_nothing(as_table, monkeypatch):
    a, b = planted()
    whole = read_across(parts(as_table(a)), parts(as_table(b)))
    monkeypatch.setattr(reading, "BLOCK_VALUES", 1)
    in_blocks = read_across(parts(as_table(a)), parts(as_table(b)))
    np.testing.assert_allclose(in_blocks, whole, rtol=1e-9)


def test_r2_of_variance_is_that_of_all_features_together():
    a, b = planted()
    b = b[:, :3] * [10, 1, 0.1]
    table = read_across(parts(a), parts(b))
    residual = (1 - table["r2"]) * table["variance"]
    assert summarise_reading(table)["r2_of_variance"] == pytest.approx(1 - residual.sum() / b[180:].var(axis=0).sum())
    assert summarise_reading(table)["share_read"] == pytest.approx(2 / 3)


def test_tables_of_other_galaxies_are_refused():
    a, b = planted()
    with pytest.raises(ValueError, match="test: reader and target have 80 and 79 rows"):
        read_across(parts(a), parts(b[:-1]))


def test_a_reader_is_decomposed_once_whatever_is_read_of_it(monkeypatch):
    a, b = planted()
    decomposed = Decomposed(a[:120])
    monkeypatch.setattr(reading, "BLOCK_VALUES", 1)  # each target feature is a block of its own
    monkeypatch.setattr(reading, "Decomposed", None)  # called again it would be an error
    again = read_across(parts(a), parts(b), decomposed)
    monkeypatch.undo()
    np.testing.assert_allclose(again, read_across(parts(a), parts(b)), rtol=1e-9)
