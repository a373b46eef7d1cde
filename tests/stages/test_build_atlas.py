"""The stage that builds the atlas: from the directories of a small experiment to a folder that adds up."""

import base64
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save
from scipy import sparse
from sklearn import decomposition

from sfnetlab.artifacts import read_features, write_csr_features, write_dense_features, write_rows
from sfnetlab.errors import DataError
from sfnetlab.interpret.catalog import associate_features, describe_features
from sfnetlab.jobs import Job, TableSpec, Task
from sfnetlab.methods.networks import TrainedEmbeddingSpec
from sfnetlab.methods.sae import sae_directory
from sfnetlab.metrics.tables import checked_table
from sfnetlab.models.backbones import make_backbone
from sfnetlab.models.sae import SparseAutoencoder, save_sae
from sfnetlab.models.sfnet import SparseFeatureNetwork, save_network
from sfnetlab.plan import AtlasSpec, ComparisonSpec, InterpretSpec, ProbeSpec, RelationsSpec, StabilitySpec
from sfnetlab.schema import Interpretation, Probes
from sfnetlab.settings import Target
from sfnetlab.stages import build_atlas

N, SIDE, N_LATENTS, K = 60, 64, 24, 3
OWN_CELLS = 2
"""Cells across the last map of a ResNet18 of cutouts of this side; what is shown is finer."""
SPLIT = np.array(["train"] * 25 + ["valid"] * 5 + ["test"] * 30)
IDS = [str(1237645879578460160 + i) for i in range(N)]
RNG = np.random.default_rng(0)
CATALOG = pd.DataFrame(
    {
        "id_str": IDS,
        "split": SPLIT,
        "ra": RNG.uniform(0, 360, N),
        "dec": RNG.uniform(-5, 60, N),
        "y": RNG.normal(8.8, 0.2, N),
        "z": RNG.uniform(0.02, 0.1, N),
        "petroR50_r": RNG.uniform(1, 9, N),
    }
)
TARGETS = {"metallicity": Target(columns=("y",))}
SFNET = TableSpec(features="sfnet", kind="sfnet", k=K, seed=0)
SAE = TableSpec(features="sae", kind="sae", k=K, seed=0)
NULL_SAE = TableSpec(features="null", kind="null_sae", k=K, seed=0)
PCA = TableSpec(features="pca", kind="pca", k=None, seed=0)
DENSE = TableSpec(features="dense", kind="encoder", k=None, seed=0)
MEAN = TableSpec(features="mean", kind="mean", k=None, seed=None)
COMMON = {"prepare-survey/survey": "survey", "fit-probes/comparison": "comparison",
          "compare-features/relations": "relations", "hold-claims/claims": "claims"}  # fmt: skip


class Lab:
    """Jobs of a small experiment and their directories."""

    def __init__(self, root):
        self.root = root
        self.inputs = {}

    def job(self, stage, name, spec=None, **inputs):
        job = Job(stage=stage, version=1, name=name, spec=spec, inputs=inputs)
        job.directory(self.root).mkdir(parents=True)
        self.inputs[str(job)] = job
        return job, job.directory(self.root)

    def interpreted(self, table, features, weights=None, **inputs):
        spec = InterpretSpec(
            table=table,
            targets=TARGETS,
            head_target="metallicity" if weights is not None else None,
            interpretation=Interpretation(),
            mock=None,
        )
        _, directory = self.job("interpret-features", table.name, spec, features=features, **inputs)
        test = CATALOG[SPLIT == "test"]
        values = checked_table(read_features(features.directory(self.root)).of(test["id_str"]))
        labels = test[["y", "z", "petroR50_r"]].reset_index(drop=True)
        describe_features(values, labels, {} if weights is None else {"y": weights}).to_parquet(
            directory / "features.parquet"
        )
        associate_features(values, labels).to_parquet(directory / "associations.parquet")

    def predicted(self, table, features, *predictions):
        """Predictions of test galaxies: for each probe and number of features one value for all."""
        spec = ProbeSpec(table=table, targets=TARGETS, classes={}, probes=Probes(), head_target=None)
        _, directory = self.job("fit-probes", table.name, spec, features=features)
        test = CATALOG[SPLIT == "test"].reset_index(drop=True)
        about = {"target": "metallicity", "column": "y", "y_true": test["y"], "id_str": test["id_str"]}
        rows = [
            pd.DataFrame(about | {"probe": probe, "n_features_used": n_used, "y_pred": value})
            for probe, n_used, value in predictions
        ]
        pd.concat(rows).to_parquet(directory / "predictions.parquet")

    def build(self, **spec):
        by_role = {COMMON.get(name, name): job for name, job in self.inputs.items()}
        settings = {
            "experiment": "small",
            "targets": TARGETS,
            "is_real": True,
            "names": None,
            "names_sha256": None,
        } | spec
        job = Job(stage="build-atlas", version=1, name="atlas", spec=AtlasSpec(**settings), inputs=by_role)
        work = self.root / "work"
        work.mkdir(exist_ok=True)
        paths = {role: needed.directory(self.root) for role, needed in by_role.items()}
        return build_atlas.build(job.spec, Task(inputs=paths, work=work, device="cpu", job=job)), work

    # --- what every experiment has, and what some have ---

    def surveyed(self, images):
        survey, directory = self.job("prepare-survey", "survey")
        CATALOG.to_parquet(directory / "catalog.parquet")
        np.save(directory / "images.npy", images)
        (directory / "metrics.json").write_text('{"pixel_scale_arcsec": 0.4}')
        return survey

    def compared(self, tables):
        _, directory = self.job("fit-probes", "comparison", ComparisonSpec(targets=TARGETS, classes={}))
        row = {"target": "metallicity", "column": "y", "features": "sfnet", "kind": "sfnet", "supervised": True,
               "k": K, "probe": "head", "n_features_used": 512, "n_seeds": 1, "rmse": 0.1,
               "low": 0.09, "high": 0.11}  # fmt: skip
        pd.DataFrame([row]).to_csv(directory / "comparison.csv", index=False)
        self.job("compare-features", "relations", RelationsSpec(tables=tables, rare={}))
        _, directory = self.job("hold-claims", "claims")
        (directory / "claims.json").write_text('{"claims": []}')

    def embedded(self, spec, survey, network, values):
        trained, directory = self.job("train-sfnet", spec.name, {"name": spec.name})  # else keys would be the same
        save_network(directory, network)
        embedding, directory = self.job(
            "embed-images", spec.name, TrainedEmbeddingSpec(), survey=survey, network=trained
        )
        write_rows(directory, CATALOG)
        if spec.k is None:
            write_dense_features(directory, values)
        else:
            write_csr_features(directory, sparse.csr_array(values))
        return embedding

    def encoded(self, spec, embedding, dense):
        """An SAE with random atoms, described."""
        sae = SparseAutoencoder(dense.shape[1], N_LATENTS, K)
        with torch.no_grad():
            sae.W_enc.normal_(generator=torch.Generator().manual_seed(0))
            sae.W_dec.copy_(sae.W_enc.T / sae.W_enc.T.norm(dim=1, keepdim=True))
            sae.mean.copy_(torch.from_numpy(dense.mean(axis=0)))
            sae.scale.fill_(float(dense.std()))
        saes, directory = self.job("train-sae", spec.features, embedding=embedding)
        sae_directory(directory, K, 0).mkdir()
        save_sae(sae_directory(directory, K, 0), sae)
        encoded, directory = self.job("encode-embeddings", spec.name, embedding=embedding, saes=saes)
        write_rows(directory, CATALOG)
        write_csr_features(directory, sae.encode_csr(dense))
        self.interpreted(spec, encoded, embedding=embedding, saes=saes)

    def decomposed(self, embedding, dense):
        pca = decomposition.PCA(4).fit(dense[SPLIT == "train"].astype(float))
        fitted, directory = self.job("fit-baselines", PCA.name, embedding=embedding)
        write_rows(directory, CATALOG)
        write_dense_features(directory, pca.transform(dense))
        (directory / "model.safetensors").write_bytes(
            save({"components": np.ascontiguousarray(pca.components_), "mean": pca.mean_})
        )
        self.interpreted(PCA, fitted, embedding=embedding)


@pytest.fixture(scope="module")
def networks():
    made = {}
    images = np.random.default_rng(1).integers(0, 255, (N, SIDE, SIDE, 3), dtype=np.uint8)
    for name, k in (("sfnet", K), ("dense", None)):
        network = SparseFeatureNetwork(make_backbone("resnet18", "random", len(name)), "resnet18", 1, k).eval()
        with torch.no_grad():
            network.set_statistics(
                pixel_mean=np.full(3, 0.5),
                pixel_std=np.full(3, 0.3),
                target_mean=np.array([8.8]),
                target_std=np.array([0.2]),
            )
            made[name] = network, network.features(torch.from_numpy(images)).numpy()
    return images, made


@pytest.fixture
def lab(tmp_path, networks):
    """PCA, an SAE and an SFNet, in another order than the atlas has them."""
    images, made = networks
    lab = Lab(tmp_path)
    survey = lab.surveyed(images)
    embedded = {spec.features: lab.embedded(spec, survey, *made[spec.features]) for spec in (SFNET, DENSE)}
    lab.decomposed(embedded["dense"], made["dense"][1])
    lab.encoded(SAE, embedded["dense"], made["dense"][1])
    weights = made["sfnet"][0].head_weights()[0][0]
    lab.interpreted(SFNET, embedded["sfnet"], weights, network=embedded["sfnet"].inputs["network"])
    lab.compared({SFNET.name: SFNET, "sfnet-k3-seed1": replace(SFNET, seed=1), SAE.name: SAE})
    return lab


@pytest.fixture
def controls(tmp_path, networks):
    """An encoder and a null SAE on it, and nothing else."""
    images, made = networks
    lab = Lab(tmp_path)
    embedding = lab.embedded(DENSE, lab.surveyed(images), *made["dense"])
    lab.interpreted(DENSE, embedding)
    lab.encoded(NULL_SAE, embedding, made["dense"][1])
    lab.compared({DENSE.name: DENSE, NULL_SAE.name: NULL_SAE})
    return lab


def data_of(work, key):
    text = (work / "data" / f"{key}.js").read_text()
    return json.loads(text[len(f"atlasData({json.dumps(key)},") : -3])


def unpack(packed):
    return np.frombuffer(base64.b64decode(packed["b"]), dtype=f"<{packed['t']}")


def pages_of(work, place):
    return [
        page
        for path in (work / "data" / f"features{place}").glob("*.js")
        for page in data_of(work, f"features{place}/{path.stem}")
    ]


def require_exact_maps(work, place):
    """The mean of the network's own cells of every map of a table is the activation."""
    for page in pages_of(work, place):
        values = unpack(page["values"])
        rows = np.arange(N) if page["rows"] is None else unpack(page["rows"])
        at = dict(zip(rows.tolist(), values.tolist(), strict=True))
        packed = page["maps"]
        assert packed["how"] == "exact"
        cells = unpack(packed["cells"]).reshape(-1, packed["h"], packed["w"])
        own = cells[:, :: packed["h"] // OWN_CELLS, :: packed["w"] // OWN_CELLS].mean(axis=(1, 2))
        means = unpack(packed["low"]) + unpack(packed["step"]) * own
        expected = [at[row] for row in unpack(packed["rows"]).tolist()]
        np.testing.assert_allclose(means, expected, rtol=1e-3, atol=1e-3)


def oddities_of(work):
    return {odd["name"]: unpack(odd["values"]) for odd in data_of(work, "galaxies")["oddities"]}


def test_an_experiment_becomes_a_folder_that_opens(lab):
    metrics, work = lab.build()
    assert (metrics["n_galaxies"], metrics["n_tables"]) == (N, 3)
    assert metrics["largest_contribution_error"] < 1e-5
    assert (work / "index.html").exists()
    overview = data_of(work, "overview")
    assert overview["galaxies"]["is_real"]
    assert overview["galaxies"]["field_arcsec"] == pytest.approx(0.4 * SIDE)


def test_tables_stand_in_the_order_of_their_kinds_ranks(lab):
    _, work = lab.build()
    names = [table["name"] for table in data_of(work, "overview")["tables"]]
    assert names == ["sfnet-k3-seed0", "sae-k3-seed0", "pca-seed0"]


def test_tables_of_controls_stand_in_the_order_of_their_kinds_ranks(controls):
    _, work = controls.build()
    assert [table["name"] for table in data_of(work, "overview")["tables"]] == ["null-k3-seed0", "dense-seed0"]


def test_maps_of_every_kind_of_table_have_the_activation_as_their_mean(lab):
    _, work = lab.build()
    for place in range(3):
        require_exact_maps(work, place)


def test_maps_of_null_saes_have_the_activation_as_their_mean(controls):
    _, work = controls.build()
    for place in range(2):
        require_exact_maps(work, place)


def test_galaxies_of_which_a_null_sae_gives_nothing_back_stand_out(controls):
    _, work = controls.build()
    odd = oddities_of(work)
    assert set(odd) == {"rare combination (null-k3-seed0)", "poor reconstruction (null-k3-seed0)"}
    assert (odd["poor reconstruction (null-k3-seed0)"] > 0).all()


def test_predictions_are_those_of_a_networks_head_else_of_a_probe_on_all_features(lab):
    inputs = {name: job.inputs["features"] for name, job in lab.inputs.items() if name.startswith("interpret")}
    lab.predicted(SFNET, inputs[f"interpret-features/{SFNET.name}"], ("ridge", 512, 1.0), ("head", 512, 2.0))
    lab.predicted(PCA, inputs[f"interpret-features/{PCA.name}"], ("linear", 4, 3.0), ("linear", 2, 4.0))
    constant, _ = lab.job("fit-baselines", "mean")
    lab.predicted(MEAN, constant, ("ridge", 0, 5.0))
    _, work = lab.build()
    (about,) = data_of(work, "overview")["predictions"]
    assert about["methods"] == ["sfnet-k3-seed0, head", "pca-seed0, linear"]
    values = unpack(data_of(work, "galaxies/0")["predictions"][0]["values"]).reshape(N, 2)
    assert (values[SPLIT == "test"] == [2, 3]).all()
    assert np.isnan(values[SPLIT != "test"]).all()


def test_galaxies_of_which_an_sae_gives_nothing_back_stand_out(lab):
    _, work = lab.build()
    odd = oddities_of(work)
    assert set(odd) == {
        "large residual of y (sfnet-k3-seed0)",
        "rare combination (sfnet-k3-seed0)",
        "rare combination (sae-k3-seed0)",
        "poor reconstruction (sae-k3-seed0)",
    }
    residual = odd["large residual of y (sfnet-k3-seed0)"]
    assert np.isnan(residual[SPLIT != "test"]).all()
    assert np.isfinite(residual[SPLIT == "test"]).all()
    assert (odd["poor reconstruction (sae-k3-seed0)"] > 0).all()


def test_partners_are_found_from_either_side_and_other_seeds_say_how_stable(lab):
    sfnet = data_of(lab.build()[1], "wall0")
    feature = int(unpack(sfnet["feature"])[0])
    pair = {"correlation_fit": 0.9, "correlation_test": 0.8, "p": 0.05}
    directory = lab.root / "compare-features" / "relations"
    pd.DataFrame(
        [
            {"table_a": "sfnet-k3-seed0", "table_b": "sae-k3-seed0", "feature_a": feature, "feature_b": 7} | pair,
            {"table_a": "sfnet-k3-seed1", "table_b": "sfnet-k3-seed0", "feature_a": 3, "feature_b": feature} | pair,
        ]
    ).to_parquet(directory / "pairs.parquet")
    _, work = lab.build()
    (page,) = [page for page in pages_of(work, 0) if page["feature"] == feature]
    assert {(each["table"], each["partner"]) for each in page["partners"]} == {
        ("sae-k3-seed0", 7),
        ("sfnet-k3-seed1", 3),
    }
    (stability,) = [each for each in data_of(work, "wall0")["numbers"] if each["key"] == "stability"]
    assert unpack(stability["values"]).tolist() == pytest.approx([0.8] + [0] * (len(unpack(sfnet["feature"])) - 1))


def test_the_latents_that_other_seeds_have_are_stable(lab):
    members = np.array([[4, 1], [6, -1]])
    _, directory = lab.job("interpret-features", "sae-k3-seeds", StabilitySpec(features="sae", k=K, seeds=(0, 1)))
    (directory / "consensus.safetensors").write_bytes(save({"members": members}))
    _, work = lab.build()
    wall = data_of(work, "wall1")
    (stability,) = [each for each in wall["numbers"] if each["key"] == "stability"]
    by_feature = dict(zip(unpack(wall["feature"]).tolist(), unpack(stability["values"]).tolist(), strict=True))
    assert {feature: value for feature, value in by_feature.items() if value > 0} == (
        {4: 1.0} if 4 in by_feature else {}
    )


def test_names_of_the_users_file_are_shown_and_the_file_is_left_alone(lab, tmp_path):
    _, work = lab.build()
    text = (work / "names.toml").read_text()
    feature = int(unpack(data_of(work, "wall1")["feature"])[0])
    own = tmp_path / "my names.toml"
    own.write_text(text.replace(f'# ["sae-k3-seed0".{feature}]', f'["sae-k3-seed0".{feature}]\nname = "knots"'))
    before = own.read_bytes()
    _, work = lab.build(names=own, names_sha256="x")
    assert data_of(work, "wall1")["given"] == [{"feature": feature, "name": "knots", "note": "", "old": False}]
    assert own.read_bytes() == before
    assert '"knots"' in (work / "names.toml").read_text()


def test_a_names_file_that_cannot_be_read_is_the_users_to_mend(lab, tmp_path):
    (tmp_path / "names.toml").write_text("[")
    with pytest.raises(DataError, match="cannot be read as TOML"):
        lab.build(names=tmp_path / "names.toml", names_sha256="x")


def test_a_survey_without_images_has_no_maps(lab):
    (lab.root / "prepare-survey" / "survey" / "images.npy").unlink()
    _, work = lab.build()
    assert not data_of(work, "overview")["has_images"]
    assert "maps" not in pages_of(work, 0)[0]
