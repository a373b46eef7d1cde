"""The stage that holds feature tables beside each other: matches, readings, splits, and who finds what is rare."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file

from sfnetlab.artifacts import write_csr_features, write_dense_features, write_rows
from sfnetlab.errors import DataError
from sfnetlab.interpret import table
from sfnetlab.jobs import Job, TableSpec, Task
from sfnetlab.methods.sae import EncodeSpec, sae_directory
from sfnetlab.models.sae import SparseAutoencoder, save_sae
from sfnetlab.plan import RelationsSpec
from sfnetlab.schema import Rare
from sfnetlab.stages import compare_features

N, D, K = 120, 6, 2
SPLIT = np.array(["train"] * 60 + ["valid"] * 20 + ["test"] * 40)
IDS = [str(1237645879578460160 + i) for i in range(N)]
X = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
DISTURBED = Rare(column="disturbance", above=1.0)


def catalog():
    table = pd.DataFrame({"id_str": IDS, "split": SPLIT, "disturbance": X[:, 2].astype(float)})
    return table.assign(axis_ratio=-table["disturbance"], asked=table["disturbance"].where(np.arange(N) % 2 == 0))


@pytest.fixture
def survey(tmp_path):
    directory = tmp_path / "survey"
    directory.mkdir()
    catalog().to_parquet(directory / "catalog.parquet")
    np.save(directory / "images.npy", np.zeros((N, 1, 1, 3), dtype=np.uint8))
    (directory / "metrics.json").write_text("{}")
    return directory


def write_table(directory, values, order=None):
    """Features of the galaxies, their rows in any order."""
    order = np.arange(N) if order is None else order
    directory.mkdir()
    write_rows(directory, pd.DataFrame({"id_str": np.array(IDS)[order], "split": SPLIT[order]}))
    (write_dense_features if isinstance(values, np.ndarray) else write_csr_features)(directory, values[order])


def spec_of(names, rare=None):
    """Tables called `<features>-seed<seed>`; the kind is what their names begin with."""
    kinds = ("sfnet", "encoder", "pca", "sae", "null_sae", "vae")
    tables = {}
    for name in names:
        features, _, seed = name.partition("-seed")
        kind = next(kind for kind in kinds if name.startswith(kind))
        k = K if kind in ("sfnet", "sae", "null_sae") else None
        tables[name] = TableSpec(features=features, kind=kind, k=k, seed=int(seed))
    return RelationsSpec(tables=tables, rare=rare or {})


def compare(survey, names, rare=None, more=None, jobs=None):
    work = survey.parent / "work"
    work.mkdir()
    inputs = {"survey": survey} | {name: survey.parent / name for name in names} | (more or {})
    jobs = jobs or {
        name: embedding_job("one") if name.startswith(("encoder", "vae")) else encoded(name) for name in names
    }
    job = Job(stage="compare-features", version=1, name="relations", spec=None, inputs=jobs)
    made = Task(inputs=inputs, work=work, device="cpu", job=job)
    metrics = compare_features.build(spec_of(names, rare), made)
    return metrics, {path.stem: pd.read_parquet(path) for path in work.glob("*.parquet")}


def embedding_job(name):
    return Job(stage="embed-images", version=1, name=name, spec=name, inputs={})


def encoded(name, embedding=None):
    spec = EncodeSpec(k=K, seed=0, codes="topk")
    inputs = {"embedding": embedding or embedding_job("one")}
    return Job(stage="encode-embeddings", version=1, name=name, spec=spec, inputs=inputs)


@pytest.fixture
def two(survey):
    """An embedding, and the same features turned about, in another order of rows and columns."""
    write_table(survey.parent / "encoder-seed0", X)
    write_table(survey.parent / "pca-seed0", X[:, ::-1], np.random.default_rng(1).permutation(N))
    components = np.ascontiguousarray(np.eye(D, dtype=np.float32)[::-1])
    model = {"components": components, "mean": np.zeros(D, dtype=np.float32)}
    save_file(model, survey.parent / "pca-seed0" / "model.safetensors")
    return survey


def test_the_same_features_are_found_again_whatever_the_order_of_rows_and_columns(two):
    metrics, found = compare(two, ["encoder-seed0", "pca-seed0"])
    assert metrics == {"n_tables": 2, "n_pairs_of_tables": 1}
    assert found.keys() == {"pairs", "matching", "null", "reading"}
    pairs = found["pairs"]
    assert set(zip(pairs["feature_a"], pairs["feature_b"], strict=True)) == {(i, D - 1 - i) for i in range(D)}
    np.testing.assert_allclose(pairs["correlation_test"], 1, atol=1e-6)
    assert found["matching"]["share_above_null"].item() == 1


def test_matched_features_of_one_embedding_have_the_cosine_of_their_directions(two):
    _, found = compare(two, ["encoder-seed0", "pca-seed0"])
    np.testing.assert_allclose(found["pairs"]["cosine"], 1)


def test_features_of_two_embeddings_have_no_cosine(two):
    jobs = {"encoder-seed0": embedding_job("one"), "pca-seed0": encoded("pca", embedding_job("other"))}
    _, found = compare(two, ["encoder-seed0", "pca-seed0"], jobs=jobs)
    assert found["pairs"]["cosine"].isna().all()


def test_each_method_is_read_from_each_other_by_its_first_seed(two):
    write_table(two.parent / "encoder-seed1", np.ascontiguousarray(X[:, :2]))
    jobs = {"encoder-seed0": embedding_job("one"), "encoder-seed1": embedding_job("two"), "pca-seed0": encoded("pca")}
    _, found = compare(two, list(jobs), jobs=jobs)
    reading = found["reading"].set_index(["reader", "target"])
    assert set(reading.index) == {("encoder-seed0", "pca-seed0"), ("pca-seed0", "encoder-seed0")}
    assert reading["r2_of_variance"].min() > 0.99
    assert set(reading["n_features"]) == {D}
    assert len(found["matching"]) == 3


def test_a_table_alone_has_nothing_to_be_compared_with(two):
    metrics, found = compare(two, ["encoder-seed0"])
    assert metrics["n_pairs_of_tables"] == 0
    assert not found


def test_a_table_without_a_feature_that_varies_is_left_out_and_named(two, caplog):
    write_table(two.parent / "sfnet-seed0", np.ones((N, D), dtype=np.float32))
    with caplog.at_level(logging.INFO):
        _, found = compare(two, ["encoder-seed0", "pca-seed0", "sfnet-seed0"])
    assert len(found["matching"]) == 1
    assert set(found["reading"]["reader"]) == {"encoder-seed0", "pca-seed0"}
    assert caplog.text.count("sfnet-seed0 is not held against others") == 1


def test_a_new_relation_is_a_function_and_a_line(two, monkeypatch):
    def relate(related):
        return {
            "widths": pd.DataFrame(
                {name: [table.values_of(related.ids("test")).shape[1]] for name, table in related.tables.items()}
            )
        }

    monkeypatch.setattr(compare_features, "RELATIONS", (*compare_features.RELATIONS, relate))
    _, found = compare(two, ["encoder-seed0", "pca-seed0"])
    assert found["widths"].to_dict("records") == [{"encoder-seed0": D, "pca-seed0": D}]


# --- what is rare -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rare", [DISTURBED, Rare(column="axis_ratio", below=-1.0)])
def test_the_feature_that_is_the_label_finds_what_lies_above_or_below(two, rare):
    _, found = compare(two, ["encoder-seed0", "pca-seed0"], {"some": rare})
    rows = found["yield"]
    assert set(rows["method"]) == {"pca", "nearest neighbours", "isolation forest", "random order"}
    assert set(rows["rare"]) == {"some"}
    n_rare = int((X[SPLIT == "test", 2] > 1).sum())
    assert set(rows["n_rare"]) == {n_rare}
    own = rows[(rows["method"] == "pca") & (rows["n_inspected"] == 20)].set_index("metric")
    assert set(own["feature"]) == {D - 1 - 2}
    assert set(own["sign"]) == {1}
    assert own.loc["recall", "value"] == 1
    assert own.loc["purity", "value"] == pytest.approx(n_rare / 20)


def test_galaxies_that_were_not_asked_are_neither_rare_nor_not(two):
    _, found = compare(two, ["encoder-seed0", "pca-seed0"], {"some": Rare(column="asked", above=0.5)})
    assert set(found["yield"]["n"]) == {20}


def test_an_absent_column_is_named_with_those_that_there_are(two):
    message = r"survey: \[rare.mergers\]: no numeric column 'merger'.*it has disturbance, axis_ratio, asked"
    with pytest.raises(DataError, match=message):
        compare(two, ["encoder-seed0", "pca-seed0"], {"mergers": Rare(column="merger", above=0.5)})


def test_matches_are_kept_where_no_kind_of_rare_galaxies_has_enough(two, caplog):
    with caplog.at_level(logging.INFO):
        _, found = compare(two, ["encoder-seed0", "pca-seed0"], {"few": Rare(column="disturbance", above=2.3)})
    assert "matching" in found
    assert "yield" not in found
    assert "[rare.few]: " in caplog.text


def test_where_every_known_galaxy_is_rare_there_is_nothing_to_find(two):
    _, found = compare(two, ["encoder-seed0", "pca-seed0"], {"all": Rare(column="disturbance", above=-99)})
    assert "yield" not in found


def test_rare_galaxies_are_sought_in_a_vae_where_there_is_no_other_embedding(survey):
    write_table(survey.parent / "vae-seed0", X)
    _, found = compare(survey, ["vae-seed0"], {"some": DISTURBED})
    assert set(found["yield"]["method"]) == {"vae", "nearest neighbours", "isolation forest", "random order"}


def test_rare_galaxies_are_sought_in_an_encoder_before_a_vae(two):
    write_table(two.parent / "vae-seed0", np.random.default_rng(5).standard_normal((N, D)).astype(np.float32))
    _, beside = compare(two, ["vae-seed0", "encoder-seed0", "pca-seed0"], {"some": DISTURBED})
    neighbours = beside["yield"][beside["yield"]["method"] == "nearest neighbours"]
    assert neighbours.loc[neighbours["metric"] == "purity", "value"].max() > 0.5


def test_too_few_rare_galaxies_are_left_out_with_their_number(two, caplog):
    rare = {"some": DISTURBED, "few": Rare(column="disturbance", above=2.3)}
    with caplog.at_level(logging.INFO):
        _, found = compare(two, ["encoder-seed0", "pca-seed0"], rare)
    assert set(found["yield"]["rare"]) == {"some"}
    assert "[rare.few]: " in caplog.text


# --- dictionaries -----------------------------------------------------------------------------------------------------


def write_sae(folder, name, atoms):
    sae = SparseAutoencoder(D, len(atoms), K, ()).requires_grad_(False)
    sae.W_dec.copy_(torch.from_numpy(atoms))
    sae.W_enc.copy_(torch.from_numpy(np.ascontiguousarray(atoms.T)))
    directory = sae_directory(folder / f"saes-{name}", K, 0)
    directory.mkdir(parents=True)
    save_sae(directory, sae)
    write_table(folder / name, sae.encode_csr(X))
    return {f"saes of {name}": folder / f"saes-{name}"}


def test_an_sae_and_a_null_arm_have_the_cosines_of_their_atoms(survey):
    atoms = np.concatenate([np.eye(D), -np.eye(D)]).astype(np.float32)
    more = write_sae(survey.parent, "sae-seed0", atoms) | write_sae(survey.parent, "null_sae-seed0", atoms[::-1].copy())
    _, found = compare(survey, ["sae-seed0", "null_sae-seed0"], more=more)
    np.testing.assert_allclose(found["pairs"]["cosine"], 1, atol=1e-6)
    np.testing.assert_array_equal(found["pairs"]["feature_b"], 2 * D - 1 - found["pairs"]["feature_a"])


def test_latents_of_a_vae_have_the_cosines_of_what_decomposes_them(survey):
    write_table(survey.parent / "vae-seed0", X)
    more = write_sae(survey.parent, "sae-seed0", np.concatenate([np.eye(D), -np.eye(D)]).astype(np.float32))
    _, found = compare(survey, ["vae-seed0", "sae-seed0"], more=more)
    np.testing.assert_allclose(found["pairs"]["cosine"].abs(), 1, atol=1e-6)


@pytest.mark.parametrize("same", [True, False])
def test_small_dictionaries_are_held_against_larger_ones_of_the_same_embedding(survey, same):
    atoms = np.concatenate([np.eye(D), -np.eye(D)]).astype(np.float32)
    more = write_sae(survey.parent, "sae_small-seed0", atoms[:D]) | write_sae(survey.parent, "sae-seed0", atoms)
    places = ("one", "one" if same else "two")
    names = ["sae_small-seed0", "sae-seed0"]
    jobs = {name: encoded(name, embedding_job(place)) for name, place in zip(names, places, strict=True)}
    _, found = compare(survey, names, more=more, jobs=jobs)
    assert ("splitting" in found) == same
    if same:
        splitting = found["splitting"]
        assert (splitting["small"] == "sae_small-seed0").all()
        assert (splitting["large"] == "sae-seed0").all()
        assert (splitting["n_alive_small"] == D).all()


def test_large_surveys_are_compared_on_galaxies_spread_evenly_over_them(two, monkeypatch):
    seen = []
    monkeypatch.setattr(compare_features, "RELATIONS", (lambda related: seen.append(related) or {},))
    monkeypatch.setattr(table, "MAX_ROWS", 30)
    compare(two, ["encoder-seed0", "pca-seed0"], {"disturbed": DISTURBED})
    (related,) = seen
    assert related.ids("train").tolist() == IDS[0:60:2]
    assert [len(related.ids(part)) for part in ("valid", "test")] == [20, 30]
    is_rare = [X[IDS.index(name), 2] > 1 for name in related.catalog["id_str"]]
    np.testing.assert_array_equal(related.rare["disturbed"], is_rare)
