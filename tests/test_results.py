"""The index of a finished run: which tables there are, what is known of each, and that nothing is read before that."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save
from scipy import sparse

from sfnetlab.artifacts import FORMAT, write_csr_features, write_dense_features, write_rows
from sfnetlab.errors import ArtifactError, DataError
from sfnetlab.jobs import Job, TableSpec, Task
from sfnetlab.methods.sae import sae_directory
from sfnetlab.models.sae import SparseAutoencoder, save_sae
from sfnetlab.results import Record, Results, TableResult
from sfnetlab.settings import Target

N, D, N_LATENTS, K = 12, 4, 6, 2
RNG = np.random.default_rng(0)
CATALOG = pd.DataFrame(
    {
        "id_str": [f"12376458795784601{i:02d}" for i in range(N)],
        "split": ["train"] * 6 + ["valid"] * 2 + ["test"] * 4,
        "y": RNG.normal(8.8, 0.2, N),
    }
)
TEST = CATALOG.loc[CATALOG["split"] == "test", "id_str"].tolist()
IMAGES = RNG.integers(0, 255, (N, 8, 8, 3), dtype=np.uint8)
EMBEDDING = RNG.normal(size=(N, D)).astype(np.float32)
TARGETS = {"metallicity": {"columns": ["y"], "cut": "none", "quantiles": [0.16, 0.5, 0.84]}}
PHOTOMETRY = TableSpec(features="photometry", kind="photometry", k=None, seed=None)
DENSE = TableSpec(features="dense", kind="encoder", k=None, seed=0)
COARSE = TableSpec(features="dense-px16", kind="encoder", k=None, seed=0)
PCA = TableSpec(features="pca", kind="pca", k=None, seed=0)
SAE = TableSpec(features="sae", kind="sae", k=K, seed=0)
SAE_1 = TableSpec(features="sae", kind="sae", k=K, seed=1)


class Run:
    """Results as stages write them: a manifest, and the files that a test needs."""

    def __init__(self, root):
        self.root = root
        self.jobs = []

    def made(self, stage, name, settings=None, **inputs):
        job = Job(
            stage=stage, version=1, name=name, spec={"name": name} if settings is None else settings, inputs=inputs
        )
        directory = job.directory(self.root)
        directory.mkdir(parents=True)
        manifest = {"format": FORMAT, "stage": stage, "name": name, "key": job.key, "recipe": job.recipe}
        (directory / "manifest.json").write_text(json.dumps(manifest))
        self.jobs.append(job)
        return job, directory

    def features(self, stage, name, values, **inputs):
        job, directory = self.made(stage, name, **inputs)
        write_rows(directory, CATALOG)
        (write_csr_features if sparse.issparse(values) else write_dense_features)(directory, values)
        return job, directory

    def probed(self, table, survey, features, **inputs):
        about = {"table": table, "targets": TARGETS, "classes": {}, "head_target": None}
        job, directory = self.made("fit-probes", table.name, about, survey=survey, features=features, **inputs)
        rows = pd.DataFrame({"id_str": TEST, "y_pred": 8.0, "probe": "ridge"})
        rows.to_parquet(directory / "predictions.parquet")
        identity = {"features": table.features, "kind": table.kind, "k": table.k, "seed": table.seed}
        pd.DataFrame([identity | {"metric": "rmse", "value": 0.1}]).to_parquet(directory / "metrics.parquet")
        return job

    def described(self, table, features, **inputs):
        about = {"table": table, "targets": TARGETS, "head_target": None}
        _, directory = self.made("interpret-features", table.name, about, features=features, **inputs)
        features = pd.DataFrame({"feature": [0, 1], "best_label": "y", "rho": [0.4, -0.2]})
        features.to_parquet(directory / "features.parquet")
        pd.DataFrame({"feature": [0, 1], "label": "y", "spearman": [0.4, -0.2]}).to_parquet(
            directory / "associations.parquet"
        )
        examples = pd.DataFrame({"feature": [1, 0, 0, 0], "rank": [0, 2, 0, 1], "id_str": [TEST[3], *TEST[:3]]})
        examples.to_parquet(directory / "examples.parquet")
        np.save(directory / "maps.npy", np.ones((2, 3)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with photometry, an encoder and its coarse view, PCA and an SAE of two seeds."""
    run = Run(tmp_path_factory.mktemp("small") / "small")
    survey, directory = run.made("prepare-survey", "survey")
    CATALOG.to_parquet(directory / "catalog.parquet")
    np.save(directory / "images.npy", IMAGES)
    (directory / "metrics.json").write_text('{"pixel_scale_arcsec": 0.4}')

    photometry, directory = run.features("fit-baselines", "photometry", np.ones((N, 2)), survey=survey)
    (directory / "model.json").write_text('{"columns": ["mag_g", "mag_r"]}')
    network, directory = run.made("train-sfnet", "dense-seed0", survey=survey)
    (directory / "progress.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n')
    dense, _ = run.features("embed-images", "dense-seed0", EMBEDDING, survey=survey, network=network)
    coarse, _ = run.features("embed-images", "dense-px16-seed0", EMBEDDING, survey=survey)
    pca, directory = run.features("fit-baselines", "pca-seed0", EMBEDDING[:, :2], embedding=dense)
    model = {"components": np.eye(2, D), "mean": np.zeros(D)}
    (directory / "model.safetensors").write_bytes(save(model))
    pd.DataFrame({"k": [1, 2], "split": "test", "fvu": [0.5, 0.3]}).to_parquet(directory / "reconstruction.parquet")
    saes, directory = run.made("train-sae", "sae", embedding=dense)
    torch.manual_seed(0)
    sae = SparseAutoencoder(D, N_LATENTS, K)
    codes = []
    for seed in (0, 1):
        sae_directory(directory, K, seed).mkdir()
        save_sae(sae_directory(directory, K, seed), sae)
        codes.append(
            run.features(
                "encode-embeddings", f"sae-k2-seed{seed}", sae.encode_csr(EMBEDDING), embedding=dense, saes=saes
            )[0]
        )

    of_saes = {"embedding": dense, "saes": saes}
    probed = [
        run.probed(PHOTOMETRY, survey, photometry),
        run.probed(DENSE, survey, dense, network=network),
        run.probed(COARSE, survey, coarse),
        run.probed(SAE, survey, codes[0], **of_saes),
        run.probed(SAE_1, survey, codes[1], **of_saes),
        run.probed(PCA, survey, pca, embedding=dense),
    ]
    about = {"targets": TARGETS, "classes": {}}
    comparison, directory = run.made(
        "fit-probes", "comparison", about, survey=survey, **{str(job): job for job in probed}
    )
    pd.DataFrame({"metric": ["rmse"] * 6}).to_parquet(directory / "metrics.parquet")
    run.described(PCA, pca, survey=survey, embedding=dense)
    run.described(SAE, codes[0], survey=survey, **of_saes)
    run.made("interpret-features", "sae-k2-seeds", {"features": "sae", "k": K, "seeds": [0, 1]}, seed0=codes[0])
    views = {name: {"view": name, "is_first": name == "full"} for name in ("full", "px16")}
    run.made(
        "compare-views", "views", {"tables": {"full": DENSE, "px16": COARSE}, "views": views}, comparison=comparison
    )
    _, directory = run.made("compare-features", "relations", {"tables": {SAE.name: SAE, PCA.name: PCA}}, survey=survey)
    pd.DataFrame({"table_a": ["sae-k2-seed0"], "table_b": ["pca-seed0"]}).to_parquet(directory / "matching.parquet")
    return run


@pytest.fixture(scope="module")
def results(made):
    return Results.open(made.root)


# --- which results there are ------------------------------------------------------------------------------------------


def test_tables_stand_in_the_order_of_the_configuration(results):
    names = ["photometry", "dense-seed0", "dense-px16-seed0", "sae-k2-seed0", "sae-k2-seed1", "pca-seed0"]
    assert [table.name for table in results.tables] == names


def test_a_plan_and_the_folder_that_it_made_are_the_same_results(results, made):
    planned = Results.of_plan(made.jobs, made.root)
    assert [table.key for table in planned.tables] == [table.key for table in results.tables]
    pd.testing.assert_frame_equal(
        planned.table("pca-seed0").need("features"), results.table("pca-seed0").need("features")
    )


def test_a_stage_reads_its_inputs_alone_and_knows_what_is_behind_them(made, tmp_path):
    by_name = {str(job): job for job in made.jobs}
    inputs = {name: by_name[name] for name in ("interpret-features/sae-k2-seed0", "fit-probes/comparison")}
    job = Job(stage="build-atlas", version=1, name="atlas", spec=None, inputs=inputs)
    paths = {name: needed.directory(made.root) for name, needed in inputs.items()}
    (table,) = Results.of_task(Task(inputs=paths, work=tmp_path, device="cpu", job=job)).tables
    assert table.need("features")["rho"].tolist() == [0.4, -0.2]
    assert table.key == by_name["encode-embeddings/sae-k2-seed0"].key
    assert not table.has("features")
    with pytest.raises(ArtifactError, match="encode-embeddings/sae-k2-seed0 is not among the results that may be read"):
        table.array()


def test_nothing_is_read_before_it_is_asked_for(made, tmp_path):
    """With the manifests alone it is known what there is."""
    for path in made.root.glob("*/*/manifest.json"):
        to = tmp_path / path.relative_to(made.root)
        to.parent.mkdir(parents=True)
        shutil.copy(path, to)
    results = Results.open(tmp_path)
    assert [table.label for table in results.typical()] == ["photometry", "dense", "sae k=2", "pca"]
    assert "sae-k2-seed0: sae" in repr(results)
    assert "sae-k2-seed0" in results._repr_html_()
    assert results.targets == {"metallicity": Target(columns=("y",), quantiles=(0.16, 0.5, 0.84))}
    assert results.table("sae-k2-seed0").read("associations") is None
    with pytest.raises(FileNotFoundError):
        _ = results.survey


def test_work_in_progress_and_shards_are_no_results(made, tmp_path):
    shutil.copytree(made.root / "prepare-survey", tmp_path / "prepare-survey")
    for name in (".survey.0123456789ab", ".survey.replaced", "survey.shard-0-of-2"):
        shutil.copytree(tmp_path / "prepare-survey/survey", tmp_path / "prepare-survey" / name)
    assert [record.path.name for record in Results.open(tmp_path).records("prepare-survey")] == ["survey"]


def test_a_folder_without_results_is_an_error_that_says_how_to_make_some(tmp_path):
    with pytest.raises(ArtifactError, match=r"no results here; give the folder of an experiment.*sfnetlab run CONFIG"):
        Results.open(tmp_path)


def test_an_unknown_table_is_an_error_that_names_the_known_ones(results):
    with pytest.raises(DataError, match="no table 'sae'; there are photometry, dense-seed0, "):
        results.table("sae")


def test_a_stage_without_result_is_an_error_that_names_its_command(results):
    with pytest.raises(ArtifactError, match="no result of make-figures; run `sfnetlab make-figures CONFIG` first"):
        results.record("make-figures")


def test_one_table_of_each_method_is_typical_and_other_views_count_when_asked(results):
    assert [table.name for table in results.typical()] == ["photometry", "dense-seed0", "sae-k2-seed0", "pca-seed0"]
    every = [table.name for table in results.typical(every_view=True)]
    assert every == ["photometry", "dense-seed0", "dense-px16-seed0", "sae-k2-seed0", "pca-seed0"]
    sparse_ones = results.typical(of=lambda table: table.spec.k is not None)
    assert [table.name for table in sparse_ones] == ["sae-k2-seed0"]


def test_people_are_told_what_there_is(results):
    assert repr(results).splitlines()[0].endswith("small: 6 feature tables")
    assert "  <pca-seed0: pca, features, embedding, probes, description>" in repr(results).splitlines()
    assert "<tr><td>pca-seed0</td><td>PCA</td><td></td><td>probes, description</td></tr>" in results._repr_html_()


def test_the_notebook_in_the_readme_runs(made):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    code = readme.split("## In a notebook")[1].split("```python\n")[1].split("```")[0]
    names = {}
    exec(code.replace("results/demo", str(made.root)).replace("sae-k4-seed0", SAE.name), names)
    assert names["Z"].shape == (len(TEST), N_LATENTS)
    assert len(names["images"]) == len(names["strongest"]) == len(names["X_hat"]) > 0
    assert len(names["errors"]) == 6


# --- the survey -------------------------------------------------------------------------------------------------------


def test_cutouts_are_those_of_the_ids_in_their_order(results):
    assert results.has_images
    assert results.pixel_scale_arcsec == 0.4
    ids = [CATALOG["id_str"][i] for i in (7, 2, 7)]
    np.testing.assert_array_equal(results.cutouts(ids), IMAGES[[7, 2, 7]])


def test_a_galaxy_that_is_not_in_the_survey_is_an_error(results):
    with pytest.raises(DataError, match=r"1 galaxies are not in the survey \(first: stranger\)"):
        results.cutouts([CATALOG["id_str"][0], "stranger"])


# --- one feature table ------------------------------------------------------------------------------------------------


def test_a_frame_is_of_one_part_of_the_split_by_id(results):
    frame = results.table("dense-seed0").frame("test")
    assert frame.index.tolist() == TEST
    assert frame.columns.tolist() == [f"feature_{i}" for i in range(D)]
    np.testing.assert_array_equal(frame, EMBEDDING[8:])


def test_columns_of_a_frame_are_called_as_where_they_come_from(results):
    assert results.table("photometry").frame().columns.tolist() == ["mag_g", "mag_r"]


def test_arrays_of_sparse_tables_are_dense(results):
    table = results.table("sae-k2-seed0")
    assert sparse.issparse(table.stored.values)
    assert table.array("train").shape == (6, N_LATENTS)
    np.testing.assert_array_equal(table.array(), table.stored.values.toarray())
    assert (np.count_nonzero(table.array(), axis=1) <= K).all()


def test_values_are_those_of_the_ids_in_their_order(results):
    np.testing.assert_array_equal(results.table("dense-seed0").values(TEST[::-1]), EMBEDDING[:7:-1])


def test_a_reader_reads_and_writes_the_embedding(results):
    table = results.table("sae-k2-seed0")
    codes = table.reader.encode(EMBEDDING)
    np.testing.assert_array_equal(codes.toarray(), table.array())
    assert table.reader.decode(codes).shape == EMBEDDING.shape
    np.testing.assert_array_equal(table.embedding.values, EMBEDDING)
    assert table.embedding_key == results.table("dense-seed0").key


def test_an_embedding_decomposes_nothing(results):
    table = results.table("dense-seed0")
    assert table.embedding is None
    assert table.embedding_key == table.key
    assert table.head is None


def test_the_history_is_of_the_network_behind_the_features(results):
    assert results.table("dense-seed0").history["loss"].tolist() == [0.5, 0.25]
    assert results.table("photometry").history is None
    ((record, history),) = results.histories("train-sfnet")
    assert (record.name, len(history)) == ("dense-seed0", 2)


# --- what was found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metrics", "predictions", "associations", "examples"])
def test_tidy_tables_say_whose_they_are_with_types(results, name):
    rows = results.table("sae-k2-seed0").need(name)
    assert rows[["features", "kind", "k", "seed"]].drop_duplicates().to_numpy().tolist() == [["sae", "sae", 2, 0]]
    assert (rows["k"].dtype, rows["seed"].dtype) == ("Int64", "Int64")


def test_k_of_a_reconstruction_by_components_is_their_number(results):
    rows = results.table("pca-seed0").need("reconstruction")
    assert rows["k"].tolist() == [1, 2]
    assert rows["features"].unique().tolist() == ["pca"]


def test_a_table_that_is_not_there_is_none_or_an_error(results):
    table = results.table("photometry")
    assert table.read("associations") is None
    with pytest.raises(DataError, match="photometry: there is no table 'associations'"):
        table.need("associations")


def test_tables_of_all_features_are_gathered_with_nullable_types(results):
    rows = results.gathered("metrics")
    assert rows["features"].tolist() == ["photometry", "dense", "dense-px16", "sae", "sae", "pca"]
    assert rows["k"].tolist() == [pd.NA, pd.NA, pd.NA, 2, 2, pd.NA]
    assert rows["seed"].dtype == "Int64"
    assert len(results.gathered("metrics", results.typical())) == 4
    assert results.gathered("no such table") is None


def test_the_strongest_galaxies_are_test_galaxies_strongest_first(results):
    strongest = results.table("sae-k2-seed0").strongest(0, n=2)
    assert strongest.tolist() == [TEST[1], TEST[2]]
    assert len(results.cutouts(strongest)) == 2


def test_arrays_are_mapped_from_disk(results):
    found = results.table("pca-seed0").read_array("maps")
    assert isinstance(found, np.memmap)
    assert found.shape == (2, 3)
    assert results.table("dense-seed0").read_array("maps") is None


def test_what_was_found_of_all_tables_is_known(results):
    assert len(results.comparison()) == 6
    assert results.relations("matching")["table_b"].tolist() == ["pca-seed0"]
    assert results.related == {"sae-k2-seed0": SAE, "pca-seed0": PCA}
    assert results.views("scores") is None


def test_what_was_found_across_seeds_is_of_each_of_them(results):
    for name in ("sae-k2-seed0", "sae-k2-seed1"):
        assert results.across_seeds(results.table(name)).name == "sae-k2-seeds"
    assert results.across_seeds(results.table("pca-seed0")) is None


def test_predictions_say_on_which_training_their_features_stand(results):
    rows = results.predictions().drop_duplicates(["features", "seed"])
    on = {(row["features"], row["family"], row["training"]) for row in rows.to_dict("records")}
    # both seeds of the autoencoder decompose one training of the encoder, as its components do
    assert {(name, "dense", 0) for name in ("dense", "sae", "pca")} <= on
    assert ("dense-px16", "dense-px16", 0) in on
    assert rows.loc[rows["features"] == "photometry", "training"].isna().all()
    assert len(on) == 5


def test_autoencoders_of_one_embedding_without_seed_are_trainings_of_their_own():
    made = [
        TableResult(
            TableSpec(features=features, kind="sae", k=4, seed=3),
            {"saes": Record("train-sae", saes, "key", {}, {}, None)},
            head_target=None,
            on=TableSpec(features="dino", kind="external", k=None, seed=None),
        ).stands_on
        for features, saes in (("sae", "sae"), ("sae-refit", "sae"), ("other", "other-seed3"))
    ]
    assert made[0] == made[1] == {"family": "sae k=4", "training": 3}
    assert made[2] == {"family": "other k=4", "training": 3}


def test_pairs_of_one_method_say_whether_they_stand_on_one_encoder_or_on_two(tmp_path):
    run = Run(tmp_path / "nested")
    survey, _ = run.made("prepare-survey", "survey")
    specs = [replace(SAE, seed=seed) for seed in (0, 1_000_000, 1)] + [PCA]
    tables = {spec.name: spec for spec in specs}
    _, directory = run.made("compare-features", "relations", {"tables": tables}, survey=survey)
    first, *others = tables
    pd.DataFrame({"table_a": first, "table_b": others}).to_parquet(directory / "matching.parquet")
    matching = Results.open(run.root).relations("matching")
    assert matching["table_b"].tolist() == ["sae-k2-seed0-dictionary1", "sae-k2-seed1", "pca-seed0"]
    assert matching["runs"].tolist() == ["one encoder", "two encoders", None]
