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
from sfnetlab.plan import AtlasSpec, InterpretSpec, RelationsSpec, StabilitySpec
from sfnetlab.schema import Interpretation
from sfnetlab.settings import Target
from sfnetlab.stages import build_atlas

N, SIDE, N_LATENTS, K = 60, 64, 24, 3
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
PCA = TableSpec(features="pca", kind="pca", k=None, seed=0)


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
        _, directory = self.job("interpret-features", features.name, spec, features=features, **inputs)
        test = CATALOG[SPLIT == "test"]
        values = checked_table(read_features(features.directory(self.root)).of(test["id_str"]))
        labels = test[["y", "z", "petroR50_r"]].reset_index(drop=True)
        describe_features(values, labels, {} if weights is None else {"y": weights}).to_parquet(
            directory / "features.parquet"
        )
        associate_features(values, labels).to_parquet(directory / "associations.parquet")

    def build(self, **spec):
        roles = {"survey": "prepare-survey/survey", "comparison": "fit-probes/comparison"}
        roles |= {"relations": "compare-features/relations", "claims": "hold-claims/claims"}
        by_role = {role: self.inputs[name] for role, name in roles.items()}
        by_role |= {name: job for name, job in self.inputs.items() if name not in roles.values()}
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
        paths = {role: own.directory(self.root) for role, own in by_role.items()}
        return build_atlas.build(job.spec, Task(inputs=paths, work=work, device="cpu", job=job)), work


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
    images, made = networks
    lab = Lab(tmp_path)
    survey, directory = lab.job("prepare-survey", "survey")
    CATALOG.to_parquet(directory / "catalog.parquet")
    np.save(directory / "images.npy", images)
    (directory / "metrics.json").write_text('{"pixel_scale_arcsec": 0.4}')
    embedded = {}
    for name, (network, values) in made.items():
        trained, directory = lab.job("train-sfnet", name, {"name": name})  # else their keys would be the same
        save_network(directory, network)
        embedded[name], directory = lab.job(
            "embed-images", name, TrainedEmbeddingSpec(), survey=survey, network=trained
        )
        write_rows(directory, CATALOG)
        if name == "sfnet":
            write_csr_features(directory, sparse.csr_array(values))
        else:
            write_dense_features(directory, values)
    weights = made["sfnet"][0].head_weights()[0][0]
    lab.interpreted(SFNET, embedded["sfnet"], weights, network=embedded["sfnet"].inputs["network"])
    dense = made["dense"][1]

    sae = SparseAutoencoder(dense.shape[1], N_LATENTS, K)
    with torch.no_grad():
        sae.W_enc.normal_(generator=torch.Generator().manual_seed(0))
        sae.W_dec.copy_(sae.W_enc.T / sae.W_enc.T.norm(dim=1, keepdim=True))
        sae.mean.copy_(torch.from_numpy(dense.mean(axis=0)))
        sae.scale.fill_(float(dense.std()))
    saes, directory = lab.job("train-sae", "sae", embedding=embedded["dense"])
    sae_directory(directory, K, 0).mkdir()
    save_sae(sae_directory(directory, K, 0), sae)
    encoded, directory = lab.job("encode-embeddings", "sae", embedding=embedded["dense"], saes=saes)
    write_rows(directory, CATALOG)
    write_csr_features(directory, sae.encode_csr(dense))
    lab.interpreted(SAE, encoded, embedding=embedded["dense"], saes=saes)

    pca = decomposition.PCA(4).fit(dense[SPLIT == "train"].astype(float))
    fitted, directory = lab.job("fit-baselines", "pca", embedding=embedded["dense"])
    write_rows(directory, CATALOG)
    write_dense_features(directory, pca.transform(dense))
    (directory / "model.safetensors").write_bytes(
        save({"components": np.ascontiguousarray(pca.components_), "mean": pca.mean_})
    )
    lab.interpreted(PCA, fitted, embedding=embedded["dense"])

    _, directory = lab.job("fit-probes", "comparison")
    pd.DataFrame({"target": ["metallicity"], "column": ["y"], "features": ["sfnet"], "rmse": [0.1]}).to_csv(
        directory / "comparison.csv"
    )
    tables = {"sfnet": SFNET, "sfnet-seed1": replace(SFNET, seed=1), "sae": SAE}
    _, directory = lab.job("compare-features", "relations", RelationsSpec(tables=tables, rare={}))
    (directory / "pairs.parquet").unlink(missing_ok=True)
    _, directory = lab.job("hold-claims", "claims")
    (directory / "claims.json").write_text('{"claims": []}')
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


def test_an_experiment_becomes_a_folder_that_opens(lab):
    metrics, work = lab.build()
    assert (metrics["n_galaxies"], metrics["n_tables"]) == (N, 3)
    assert metrics["largest_contribution_error"] < 1e-5
    assert (work / "index.html").exists()
    overview = data_of(work, "overview")
    assert [table["name"] for table in overview["tables"]] == ["sfnet", "sae", "pca"]
    assert overview["galaxies"]["is_real"]
    assert overview["galaxies"]["field_arcsec"] == pytest.approx(0.4 * SIDE)


def test_maps_of_every_kind_of_table_have_the_activation_as_their_mean(lab):
    _, work = lab.build()
    for place in range(3):
        for page in pages_of(work, place):
            values = unpack(page["values"])
            rows = np.arange(N) if page["rows"] is None else unpack(page["rows"])
            at = dict(zip(rows.tolist(), values.tolist(), strict=True))
            packed = page["maps"]
            assert packed["how"] == "exact"
            cells = unpack(packed["cells"]).reshape(-1, packed["h"] * packed["w"])
            means = unpack(packed["low"]) + unpack(packed["step"]) * cells.mean(axis=1)
            expected = [at[row] for row in unpack(packed["rows"]).tolist()]
            np.testing.assert_allclose(means, expected, rtol=1e-3, atol=1e-3)


def test_galaxies_of_which_an_sae_gives_nothing_back_stand_out(lab):
    _, work = lab.build()
    odd = {each["name"]: unpack(each["values"]) for each in data_of(work, "galaxies")["oddities"]}
    assert set(odd) == {
        "large residual of y (sfnet)",
        "rare combination (sfnet)",
        "rare combination (sae)",
        "poor reconstruction (sae)",
    }
    residual = odd["large residual of y (sfnet)"]
    assert np.isnan(residual[SPLIT != "test"]).all()
    assert np.isfinite(residual[SPLIT == "test"]).all()
    assert (odd["poor reconstruction (sae)"] > 0).all()


def test_partners_are_found_from_either_side_and_other_seeds_say_how_stable(lab):
    sfnet = data_of(lab.build()[1], "wall0")
    feature = int(unpack(sfnet["feature"])[0])
    pair = {"correlation_fit": 0.9, "correlation_test": 0.8, "p": 0.05}
    directory = lab.root / "compare-features" / "relations"
    pd.DataFrame(
        [
            {"table_a": "sfnet", "table_b": "sae", "feature_a": feature, "feature_b": 7} | pair,
            {"table_a": "sfnet-seed1", "table_b": "sfnet", "feature_a": 3, "feature_b": feature} | pair,
        ]
    ).to_parquet(directory / "pairs.parquet")
    _, work = lab.build()
    (page,) = [page for page in pages_of(work, 0) if page["feature"] == feature]
    assert {(each["table"], each["partner"]) for each in page["partners"]} == {("sae", 7), ("sfnet-seed1", 3)}
    (stability,) = [each for each in data_of(work, "wall0")["numbers"] if each["key"] == "stability"]
    assert unpack(stability["values"]).tolist() == pytest.approx([0.8] + [0] * (len(unpack(sfnet["feature"])) - 1))


def test_the_latents_that_other_seeds_have_are_stable(lab):
    members = np.array([[4, 1], [6, -1]])
    _, directory = lab.job("interpret-features", "sae-seeds", StabilitySpec(features="sae", k=K, seeds=(0, 1)))
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
    own.write_text(text.replace(f'# ["sae".{feature}]', f'["sae".{feature}]\nname = "knots"'))
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
