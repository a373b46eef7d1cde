"""The stages that tell what features respond to and which claims hold, on a small mock survey without training."""

import json
import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array

from sfnetlab.artifacts import read_features, write_csr_features, write_dense_features, write_rows
from sfnetlab.interpret.claims import CLAIMS
from sfnetlab.interpret.table import Answer
from sfnetlab.jobs import Job, TableSpec, Task
from sfnetlab.methods.decompositions import BaselineSpec
from sfnetlab.methods.networks import FrozenEmbeddingSpec, TrainedEmbeddingSpec, Weights
from sfnetlab.methods.pca import PCA
from sfnetlab.methods.sae import sae_directory
from sfnetlab.methods.vae import VAE, VAESpec
from sfnetlab.models.backbones import make_backbone
from sfnetlab.models.sae import SparseAutoencoder, save_sae
from sfnetlab.models.sfnet import SparseFeatureNetwork, save_network
from sfnetlab.plan import ClaimsSpec, InterpretSpec, ProbeSpec, RelationsSpec
from sfnetlab.schema import Interpretation, Probes
from sfnetlab.settings import CatalogColumns, Target
from sfnetlab.stages import embed_images, fit_baselines, hold_claims, interpret_features, train_vae
from sfnetlab.surveys.catalog import add_line_logs, apply_cut
from sfnetlab.surveys.columns import measured
from sfnetlab.surveys.mock import MockSurvey
from sfnetlab.surveys.mock_population import make_population
from sfnetlab.surveys.perturb import TRANSFORMS
from sfnetlab.training.pixel_pca import load_pixel_pca

N, D_IN, N_LATENTS, K = 240, 8, 16, 3
MOCK = MockSurvey(n_galaxies=N, image_size=32)
TARGETS = {"metallicity": Target(columns=("oh_p50",), cut="metallicity"), "mass": Target(columns=("lgm_tot_p50",))}
SETTINGS = Interpretation(n_permutations=20)
IDENTITY = ["features", "kind", "k", "seed"]


def job(stage, spec, inputs=None, name="x"):
    return Job(stage=stage, version=1, name=name, spec=spec, inputs=inputs or {})


def task(work, inputs, of=None):
    work.mkdir()
    return Task(inputs=inputs, work=work, device="cpu", job=of or job("", None))


def write_survey(directory, catalog):
    directory.mkdir()
    catalog.to_parquet(directory / "catalog.parquet")
    images = np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
    np.save(directory / "images.npy", images)
    (directory / "metrics.json").write_text("{}")


def catalog_of_mock():
    population = make_population(N, MOCK.seed, MOCK.field_arcsec)
    catalog = add_line_logs(measured(population, CatalogColumns(), "mock").catalog)
    return catalog.assign(split=np.resize(["train", "valid", "test"], N))


def embedding_of(catalog):
    """What an encoder might give: a few factors, mixed, and noise."""
    rng = np.random.default_rng(1)
    factors = catalog[["factor_disc_gr", "factor_r_mag", "factor_bulge_to_total", "lgm_tot_p50"]].to_numpy()
    factors = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    mixed = factors @ rng.standard_normal((4, D_IN)) + 0.3 * rng.standard_normal((N, D_IN))
    return mixed.astype(np.float32)


def random_sae():
    sae = SparseAutoencoder(D_IN, N_LATENTS, K, (4, 12)).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name in ("W_enc", "W_dec", "b_dec"):
        getattr(sae, name).copy_(torch.randn(getattr(sae, name).shape, generator=generator))
    return sae


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A survey, a network of random weights with its features, an embedding, its components and its latents."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("made")
    catalog = catalog_of_mock()
    write_survey(folder / "survey", catalog)
    network = SparseFeatureNetwork(make_backbone("resnet10t", "random", 0), "resnet10t", 1, K)
    (folder / "network").mkdir()
    save_network(folder / "network", network)
    inputs = {"survey": folder / "survey", "network": folder / "network"}
    embed_images.build(TrainedEmbeddingSpec(), task(folder / "sfnet", inputs))

    x, sae = embedding_of(catalog), random_sae()
    (folder / "encoder").mkdir()
    write_rows(folder / "encoder", catalog)
    write_dense_features(folder / "encoder", x)
    pca = task(folder / "pca", {"embedding": folder / "encoder"})
    fit_baselines.build(BaselineSpec(baseline=PCA(name="pca", on="encoder", n_components=4)), pca)
    sae_directory(folder / "saes", K, 0).mkdir(parents=True)
    save_sae(sae_directory(folder / "saes", K, 0), sae)
    (folder / "sae").mkdir()
    write_rows(folder / "sae", catalog)
    write_csr_features(folder / "sae", sae.encode_csr(x))
    perturb(folder / "perturbed", x[(catalog["split"] == "test").to_numpy()])
    return folder


def perturb(directory, x):
    """Embeddings that only the last transform changes."""
    directory.mkdir()
    rows = [{name: getattr(each, name) for name in ("name", "level", "label", "is_symmetry")} for each in TRANSFORMS]
    pd.DataFrame(rows).to_parquet(directory / "transforms.parquet")
    changed = np.repeat(x[None], len(TRANSFORMS), axis=0)
    changed[-1] *= -1
    np.save(directory / "features.npy", changed)


ROLES = {
    "sfnet": ("network",),
    "encoder": (),
    "pca": ("embedding", "perturbed"),
    "sae": ("embedding", "saes", "perturbed"),
}
PLACES = {"embedding": "encoder"}


def spec_of(kind, **settings):
    k, seed = (K, 0) if kind in ("sfnet", "sae") else (None, 0 if kind == "pca" else None)
    table = TableSpec(features=kind, kind=kind, k=k, seed=seed)
    head = "metallicity" if kind == "sfnet" else None
    about = {"table": table, "targets": TARGETS, "head_target": head, "interpretation": SETTINGS, "mock": MOCK}
    return InterpretSpec(**(about | settings))


def interpret(made, kind, work, survey="survey", features=None, **settings):
    inputs = {"survey": made / survey, "features": features or made / kind}
    inputs |= {role: made / PLACES.get(role, role) for role in ROLES[kind]}
    interpret_features.build(spec_of(kind, **settings), task(work, inputs))
    return work


@pytest.fixture(scope="module")
def told(made):
    return {kind: interpret(made, kind, made / f"told-{kind}") for kind in ROLES}


def odd_features(name, n_features, split):
    """Features of which next to nothing can be said."""
    x = np.maximum(np.random.default_rng(0).normal(size=(N, n_features)), 0).astype(np.float32)
    match name:
        case "silent":
            x[:] = 0
        case "constant":
            x[:] = 1
        case "in train galaxies only":
            x[split != "train"] = 0
        case "in test galaxies only":
            x[split != "test"] = 0
        case "in one galaxy of each part":
            x[:] = 0
            x[:3, 0] = 1
    return x


@pytest.mark.parametrize(
    "name", ["silent", "constant", "in train galaxies only", "in test galaxies only", "in one galaxy of each part"]
)
@pytest.mark.parametrize(("kind", "n_features"), [("sae", N_LATENTS), ("encoder", D_IN)])
def test_features_of_which_nothing_can_be_said_are_described_too(made, tmp_path, name, kind, n_features):
    rows = read_features(made / kind).rows
    (tmp_path / "odd").mkdir()
    write_rows(tmp_path / "odd", rows)
    x = odd_features(name, n_features, rows["split"].to_numpy())
    write = write_csr_features if kind == "sae" else write_dense_features
    write(tmp_path / "odd", csr_array(x) if kind == "sae" else x)
    interpret(made, kind, tmp_path / "told", features=tmp_path / "odd")
    features = pd.read_parquet(tmp_path / "told/features.parquet")
    assert sorted(features["feature"]) == np.flatnonzero(x[rows["split"] == "test"].any(axis=0)).tolist()


def tables(work):
    return {path.stem: pd.read_parquet(path) for path in sorted(work.glob("*.parquet"))}


ALWAYS = {
    "alignment",
    "alignment_nulls",
    "associations",
    "equations",
    "examples",
    "features",
    "nuisances",
    "partial",
    "recovery",
}
OWN = {
    "sfnet": {"ablation", "absorption"},
    "encoder": set(),
    "pca": {"changes", "explained_variance"},
    "sae": {"absorption", "changes", "explained_variance"},
}


@pytest.mark.parametrize("kind", ROLES)
def test_every_question_is_a_table_that_says_of_which_features(told, kind):
    found = tables(told[kind])
    assert found.keys() - {"localisation", "localised"} == ALWAYS | OWN[kind]
    for name, table in found.items():
        assert set(IDENTITY) <= set(table.columns), name
        assert (table[["features", "kind"]] == kind).all(axis=None), name
        assert table["k"].isna().all() if kind in ("pca", "encoder") else (table["k"] == K).all(), name
        assert str(table["seed"].dtype) == "Int64", name


@pytest.mark.parametrize("kind", ROLES)
def test_features_have_a_row_each_with_what_was_found_of_them(told, made, kind):
    features = pd.read_parquet(told[kind] / "features.parquet")
    columns = {"feature", "name", "frequency", "best_label", "morphology", "morphology_rho", "novelty", "auc", "group"}
    columns |= {"p_corrected", "q", "r2_nuisances", "worst_nuisance", "is_confounded", "warning"}
    assert columns <= set(features.columns)
    assert features["feature"].is_unique
    assert (features["frequency"] > 0).all()
    assert features["is_confounded"].notna().all()
    assert ((features["warning"] != "") == features["is_confounded"]).all()
    alignment = pd.read_parquet(told[kind] / "alignment.parquet")
    assert len(alignment) == read_features(made / kind).values.shape[1]
    beside = features.merge(alignment, on="feature", suffixes=("", "_aligned"))
    pd.testing.assert_series_equal(beside["novelty"], beside["novelty_aligned"], check_names=False)


def test_how_many_features_a_recovery_used_is_not_the_k_of_the_table(told):
    for kind, k in (("sfnet", K), ("pca", None)):
        recovery = pd.read_parquet(told[kind] / "recovery.parquet")
        assert set(recovery["k"].dropna()) == ({K} if k else set())
        assert set(recovery.loc[recovery["metric"] == "r2", "n_features_used"]) == {1, 2, 5, 10}


def test_features_of_a_target_are_described_on_the_galaxies_within_its_cut(told):
    catalog = catalog_of_mock()
    is_test = catalog["split"] == "test"
    within = is_test & apply_cut(catalog, "metallicity")
    assert 30 <= within.sum() < is_test.sum()
    for kind, rows in (("sfnet", within), ("encoder", is_test)):
        associations = pd.read_parquet(told[kind] / "associations.parquet")
        assert set(associations.loc[associations["label"] == "z", "n"]) == {rows.sum()}
        assert set(associations.loc[associations["label"] == "oh_p50", "n"]) == {within.sum()}
        examples = pd.read_parquet(told[kind] / "examples.parquet")
        assert set(examples["id_str"]) <= set(catalog.loc[rows, "id_str"])


def test_positions_are_nuisances_and_no_labels(told):
    found = tables(told["encoder"])
    assert {"ra", "dec"} <= set(found["nuisances"]["nuisance"])
    assert not {"ra", "dec"} & set(found["associations"]["label"])
    assert not {"ra", "dec"} & set(found["features"]["best_label"])


def test_features_of_a_network_for_metallicity_are_called_z_and_have_weights(told):
    features = pd.read_parquet(told["sfnet"] / "features.parquet")
    assert (features["name"] == "Z" + features["feature"].astype(str)).all()
    assert features["variance_share_oh_p50"].sum() == pytest.approx(1)
    other = pd.read_parquet(told["encoder"] / "features.parquet")
    assert other["name"].str.startswith("F").all()
    assert not [name for name in other if name.startswith("weight_")]


def test_the_law_of_the_head_stands_beside_fitted_laws(told):
    laws = pd.read_parquet(told["sfnet"] / "equations.parquet")
    assert set(zip(laws["property"], laws["origin"], strict=True)) == {
        ("oh_p50", "head"),
        ("oh_p50", "regression"),
        ("lgm_tot_p50", "regression"),
    }
    assert len((told["sfnet"] / "equations.txt").read_text().splitlines()) == 3
    assert (told["sfnet"] / "equations.tex").read_text().count("\\[") == 3


def test_a_table_of_two_features_has_laws_of_two_terms(made, tmp_path):
    (tmp_path / "narrow").mkdir()
    write_rows(tmp_path / "narrow", catalog_of_mock())
    write_dense_features(tmp_path / "narrow", embedding_of(catalog_of_mock())[:, :2])
    work = interpret(made, "encoder", tmp_path / "told", features=tmp_path / "narrow")
    laws = pd.read_parquet(work / "equations.parquet")
    assert set(laws.groupby("property").size()) == {3}
    assert set(laws["term"]) == {"intercept", "0", "1"}


def test_components_and_latents_are_encoded_from_perturbed_embeddings_as_from_plain_ones(told):
    for kind in ("pca", "sae"):
        changes = pd.read_parquet(told[kind] / "changes.parquet")
        last = changes["label"] == TRANSFORMS[-1].label
        assert changes.loc[~last, "change"].abs().max() < 1e-3, kind
        assert changes.loc[last, "change"].max() > 0.5, kind


def test_all_components_explain_what_the_stored_reconstruction_does(told, made):
    found = pd.read_parquet(told["pca"] / "explained_variance.parquet").set_index("n_components")
    stored = pd.read_parquet(made / "pca/reconstruction.parquet").set_index(["split", "k"])
    for n in (1, 2, 4):
        assert found.loc[n, "explained_variance"] == pytest.approx(1 - stored.loc[("test", n), "fvu"], abs=1e-4)


def test_groups_of_a_matryoshka_sae_are_named(told):
    alignment = pd.read_parquet(told["sae"] / "alignment.parquet")
    assert alignment["matryoshka_group"].tolist() == ["0-4"] * 4 + ["4-16"] * 12
    assert "matryoshka_group" not in pd.read_parquet(told["pca"] / "alignment.parquet")


def test_a_survey_without_morphology_has_no_alignment_and_says_so(made, tmp_path, caplog):
    catalog = catalog_of_mock()
    plain = catalog.drop(columns=[name for name in catalog if name.startswith("factor_")])
    write_survey(tmp_path / "survey", plain)
    with caplog.at_level(logging.INFO):
        work = interpret(made, "sae", tmp_path / "told", survey=tmp_path / "survey", mock=None)
    found = tables(work)
    assert not {"alignment", "recovery"} & found.keys()
    assert "no labels of [interpretation] morphology" in caplog.text
    assert "morphology" not in found["features"]
    assert "is_confounded" in found["features"]


def test_a_label_that_too_few_galaxies_have_is_no_morphology(made, tmp_path):
    catalog = catalog_of_mock()
    redness = catalog["factor_disc_gr"]  # all features follow it
    asked = redness.where(np.arange(N) < 60)
    catalog = catalog.assign(
        spiral_fraction=asked, smooth_fraction=redness + np.random.default_rng(2).normal(0, 0.2, N)
    )
    write_survey(tmp_path / "survey", catalog)
    settings = Interpretation(n_permutations=20, morphology=("*_fraction",))
    work = interpret(made, "encoder", tmp_path / "told", survey=tmp_path / "survey", interpretation=settings)
    known = set(pd.read_parquet(work / "alignment.parquet")["best_label"])
    assert known <= {"smooth_fraction", "factor_agn_fraction"}
    assert "smooth_fraction" in known


def test_a_column_of_two_targets_has_one_law(made, tmp_path):
    targets = {"mass": Target(columns=("lgm_tot_p50",)), "again": Target(columns=("lgm_tot_p50",), cut="metallicity")}
    laws = pd.read_parquet(interpret(made, "encoder", tmp_path / "told", targets=targets) / "equations.parquet")
    assert laws["term"].tolist().count("intercept") == 1


def test_a_target_whose_column_is_called_like_an_error_has_a_law_too(made, tmp_path):
    targets = {"error": Target(columns=("h_alpha_flux_err",))}
    laws = pd.read_parquet(interpret(made, "encoder", tmp_path / "told", targets=targets) / "equations.parquet")
    assert set(laws["property"]) == {"h_alpha_flux_err"}


def test_a_new_question_is_a_function_and_a_line(made, tmp_path, monkeypatch):
    def ask(table):
        total = np.asarray(table.test.values).sum(axis=0)
        features = pd.DataFrame({"feature": np.arange(len(total)), "total": total})
        return Answer(
            tables={"totals": features}, of_features=features, arrays={"squares": total**2}, texts={"totals.txt": "few"}
        )

    monkeypatch.setattr(interpret_features, "QUESTIONS", (*interpret_features.QUESTIONS, ask))
    work = interpret(made, "encoder", tmp_path / "told")
    totals = pd.read_parquet(work / "totals.parquet")
    assert set(IDENTITY) <= set(totals)
    features = pd.read_parquet(work / "features.parquet").set_index("feature")
    np.testing.assert_array_equal(features["total"].sort_index(), totals["total"])
    np.testing.assert_array_equal(np.load(work / "squares.npy"), totals["total"] ** 2)
    assert (work / "totals.txt").read_text() == "few"


# --- autoencoders and their cutouts -----------------------------------------------------------------------------------


def test_an_autoencoder_draws_cutouts_of_the_test_galaxies(made, tmp_path):
    spec = VAESpec(vae=VAE(name="vae", objective="mmd", n_latents=4, epochs=1), seed=0)
    trained = task(tmp_path / "vae", {"survey": made / "survey"}, job("train-vae", spec))
    train_vae.build(spec, trained)
    table = TableSpec(features="vae", kind="vae", k=None, seed=0)
    of = job("interpret-features", None, {"features": trained.job})
    described = task(tmp_path / "told", {"survey": made / "survey", "features": trained.work}, of)
    interpret_features.build(replace(spec_of("encoder"), table=table), described)
    ids = pd.read_parquet(described.work / "reconstructed.parquet")["id_str"]
    catalog = catalog_of_mock().set_index("id_str")
    assert (catalog.loc[ids, "split"] == "test").all()
    images = np.load(made / "survey/images.npy")[catalog.index.get_indexer(ids)]
    decoded = np.load(described.work / "reconstructions.npy")
    assert decoded.shape == images.shape
    pca = load_pixel_pca(trained.work).reconstruct(images.astype(np.float32) / 255)
    np.testing.assert_array_equal(np.load(described.work / "pca_reconstructions.npy"), np.rint(pca * 255))
    latents = pd.read_parquet(trained.work / "latents.parquet").set_index("latent")
    traversed = pd.read_parquet(described.work / "traversed.parquet").set_index("latent")
    pd.testing.assert_frame_equal(traversed[latents.columns], latents.loc[traversed.index])
    assert {path.stem for path in described.work.glob("*.npy")} >= {"traversal", "walk", "prior_samples"}


# --- claims -----------------------------------------------------------------------------------------------------------


def probe_of(folder, table, probe, error, features):
    """A job of fit-probes and what it wrote: predictions of the metallicity of test galaxies."""
    catalog = catalog_of_mock()
    rows = catalog[(catalog["split"] == "test") & apply_cut(catalog, "metallicity")]
    wrong = error * np.random.default_rng(0).standard_normal(len(rows))
    predictions = pd.DataFrame({"id_str": rows["id_str"], "y_true": rows["oh_p50"], "y_pred": rows["oh_p50"] + wrong})
    predictions = predictions.assign(target="metallicity", column="oh_p50", probe=probe, n_features_used=16)
    directory = folder / f"probe-{table.features}"
    directory.mkdir()
    predictions.to_parquet(directory / "predictions.parquet")
    about = {"table": table, "targets": TARGETS, "classes": {}, "head_target": None}
    return job("fit-probes", ProbeSpec(probes=Probes(), **about), {"features": features}, table.name), directory


@pytest.fixture
def held(made, told, tmp_path):
    """Where hold-claims wrote: an SFNet as good as the encoder, which has been trained elsewhere."""
    weights = FrozenEmbeddingSpec(
        backbone="resnet10t", weights=Weights(source="imagenet", path=None), image_size=None, seed=None
    )
    embedded = {
        "encoder": job("embed-images", weights),
        "sfnet": job("embed-images", TrainedEmbeddingSpec()),
    }
    embedded |= {kind: job("encode-embeddings", None) for kind in told if kind not in embedded}
    jobs, places = {}, {}
    for kind, work in told.items():
        spec = spec_of(kind)
        inputs = {"features": embedded[kind]}
        jobs[f"told of {kind}"] = job("interpret-features", spec, inputs, spec.table.name)
        places[f"told of {kind}"] = work
    for kind, probe, error in (("sfnet", "head", 0.1), ("encoder", "ridge", 0.1), ("pca", "linear", 0.2)):
        made_probe = probe_of(tmp_path, spec_of(kind).table, probe, error, embedded[kind])
        jobs[f"probe of {kind}"], places[f"probe of {kind}"] = made_probe
    seeds = {f"sfnet-{seed}": TableSpec(features="sfnet", kind="sfnet", k=K, seed=seed) for seed in (0, 1, 2)}
    jobs["survey"], places["survey"] = job("prepare-survey", None), made / "survey"
    jobs["relations"] = job("compare-features", RelationsSpec(tables=seeds, rare={}))
    places["relations"] = tmp_path / "relations"
    places["relations"].mkdir()
    pairs = {"table_a": ["sfnet-0", "sfnet-0", "sfnet-1"], "table_b": ["sfnet-1", "sfnet-2", "sfnet-2"]}
    alike = {"share_alike": [0.8, 0.82, 0.78], "untrained_alike": 0.1, "excess_alike": [0.7, 0.72, 0.68]}
    pd.DataFrame(pairs | alike).to_parquet(places["relations"] / "matching.parquet")
    spec = ClaimsSpec(survey="mock", is_real=False, targets=TARGETS, classes={}, held_fixed=("lgm_tot_p50",))
    made_claims = task(tmp_path / "claims", places, job("hold-claims", spec, jobs))
    return hold_claims.build(spec, made_claims), made_claims.work


def test_every_claim_gets_its_verdict_from_what_the_stages_wrote(held):
    _, work = held
    report = json.loads((work / "claims.json").read_text())
    assert (report["survey"], report["target"]) == ("mock", "oh_p50")
    claims = {claim["name"]: claim for claim in report["claims"]}
    assert list(claims) == [claim.name for claim in CLAIMS]
    assert claims["recurrence above an untrained network"]["verdict"] == "holds"
    assert claims["recurrence above an untrained network"]["value"] == pytest.approx(0.3)
    assert "R2 of ridge" in claims["frozen encoder"]["what"]
    assert "found by another seed" in claims["novelty"]["why"]
    for name in ("first component", "one feature", "library", "factors"):
        assert claims[name]["verdict"] != "cannot be tested here", name
    assert claims["alignment"]["why"].startswith("not enough features"), "fewer than 16 components"
    assert claims["fewer for AGN"]["why"] == "no [classes] are configured"
    assert claims["accuracy"]["value"] is None


def test_the_metrics_of_claims_count_the_verdicts(held):
    metrics, work = held
    assert sum(metrics.values()) == len(CLAIMS)
    assert (
        (work / "claims.md")
        .read_text()
        .startswith("# About the methods, not about galaxies. Claims on the mock survey: oh_p50\n")
    )
