"""Reading one table by another: equal to scikit-learn's ridge, perfect for linear images, nothing for noise."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from sfnetlab.interpret import reading
from sfnetlab.interpret.reading import Parts, read_across, relate, summarise_reading
from sfnetlab.interpret.related import RelatedTable, RelatedTables
from sfnetlab.jobs import TableSpec
from sfnetlab.methods.readers import IdentityReader
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


# --- nulls ------------------------------------------------------------------------------------------------------------

SEEN = np.random.default_rng(3).standard_normal((900, 2))
"""What any network sees."""
FOUND = np.random.default_rng(4).standard_normal((900, 3))
"""What two trained networks find."""


def mixed(values, d, seed):
    rng = np.random.default_rng(seed)
    return values @ rng.standard_normal((values.shape[1], d)) + 0.2 * rng.standard_normal((len(values), d))


def related(tables, untrained=("random",), trivial=SEEN):
    ids = pd.Index([f"g{i:03d}" for i in range(900)])
    catalog = pd.DataFrame({"id_str": ids, "split": np.repeat(["train", "valid", "test"], 300)})

    def table(name, values):
        spec = TableSpec(features=name, kind="encoder", k=None, seed=0)
        return RelatedTable(
            spec=spec, embedding=name, values_of=lambda of: values[ids.get_indexer(of)],
            load_reader=lambda: IdentityReader(values.shape[1]),
        )  # fmt: skip

    return RelatedTables(
        catalog=catalog, tables={name: table(name, values) for name, values in tables.items()}, untrained=untrained,
        trivial=pd.DataFrame(trivial, index=catalog.index), rare={},
    )  # fmt: skip


def read_between(tables, **more):
    return relate(related(tables, **more))["reading"].set_index(["reader", "target"])


def test_what_is_read_of_trained_networks_is_beyond_an_untrained_one():
    found = read_between({"a": mixed(FOUND, 5, 0), "b": mixed(FOUND, 4, 1), "random": mixed(SEEN, 12, 2)}).loc["a", "b"]
    assert found["share_read"] == 1
    assert found[["permuted_read", "untrained_read"]].tolist() == [0, 0]
    assert (found["excess_read"], found["held_fixed_read"]) == (1, 1)


def test_what_any_network_sees_is_read_as_well_of_an_untrained_one_and_not_at_fixed_labels():
    found = read_between({"a": mixed(SEEN, 5, 0), "b": mixed(SEEN, 4, 1), "random": mixed(SEEN, 12, 2)}).loc["a", "b"]
    assert found["share_read"] == found["untrained_read"] == 1
    assert (found["excess_read"], found["held_fixed_read"]) == (0, 0)


def test_an_untrained_reader_has_no_excess():
    found = read_between({"b": mixed(np.hstack([SEEN, FOUND]), 6, 1), "random": mixed(SEEN, 12, 2)})
    assert found.loc[("random", "b"), "excess_read"] == 0
    assert np.isnan(found.loc[("b", "random"), "excess_read"])


def test_without_an_untrained_network_and_labels_there_is_no_null_but_permuted_galaxies():
    found = read_between({"a": mixed(FOUND, 5, 0), "b": mixed(FOUND, 4, 1)}, untrained=(), trivial=np.empty((900, 0)))
    assert found[["untrained_read", "excess_read", "held_fixed_read"]].isna().all(axis=None)
    assert (found["permuted_read"] == 0).all()
