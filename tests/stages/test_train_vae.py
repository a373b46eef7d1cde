"""The stage that trains autoencoders: what it writes, and that the plan gives its features to everything after it."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab import config
from sfnetlab.artifacts import read_features
from sfnetlab.errors import ConfigError, DataError
from sfnetlab.files import create_array
from sfnetlab.jobs import Job, Task
from sfnetlab.methods.vae import VAE, VAESpec
from sfnetlab.models.vae import load_vae
from sfnetlab.plan import make_plan
from sfnetlab.stages import train_vae
from sfnetlab.training.pixel_pca import load_pixel_pca

N, SIDE = 90, 16
SPLIT = np.array(["train"] * 60 + ["valid"] * 15 + ["test"] * 15)


def survey(folder, width=SIDE):
    folder.mkdir()
    pd.DataFrame({"id_str": [f"g{i}" for i in range(N)], "split": SPLIT}).to_parquet(folder / "catalog.parquet")
    images = create_array(folder / "images.npy", (N, SIDE, width, 3), "uint8")
    y, x = np.mgrid[:SIDE, :width]
    sizes = np.random.default_rng(0).uniform(2, 6, N)
    images[:] = (250 * np.exp(-((x - 8) ** 2 + (y - 8) ** 2) / sizes[:, None, None] ** 2))[..., None]
    (folder / "metrics.json").write_text("{}")
    return folder


def built(tmp_path, **settings):
    spec = VAESpec(vae=VAE(**({"name": "vae", "n_latents": 2, "epochs": 4, "batch_size": 10} | settings)), seed=3)
    work = tmp_path / "work"
    work.mkdir()
    job = Job(stage="train-vae", version=1, name="vae-seed3", spec=spec, inputs={})
    task = Task(inputs={"survey": survey(tmp_path / "survey")}, work=work, device="cpu", job=job)
    return work, train_vae.build(spec, task)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return built(tmp_path_factory.mktemp("vae"))


def test_the_features_are_the_posterior_means_of_every_galaxy(made):
    import torch

    work, _ = made
    table = read_features(work)
    images = np.load(work.parent / "survey/images.npy")
    with torch.no_grad():
        expected = load_vae(work).encode(torch.from_numpy(images)).numpy()
    assert list(table.rows["id_str"]) == [f"g{i}" for i in range(N)]
    np.testing.assert_allclose(table.values, expected, rtol=1e-4, atol=1e-5)


def test_quality_is_of_the_autoencoder_and_of_pca_on_every_part(made):
    work, metrics = made
    quality = pd.read_parquet(work / "quality.parquet")
    assert set(quality["objective"]) == {"elbo", "pca"}
    assert set(quality["split"]) == {"train", "valid", "test"}
    assert set(quality[["features", "n_latents", "seed"]].itertuples(index=False, name=None)) == {("vae", 2, 3)}
    own = quality[(quality["objective"] == "elbo") & (quality["split"] == "test")].set_index("metric")
    assert set(own.index) == {
        "fvu", "fvu_difference", "squared_error_per_image", "squared_error_per_pixel", "psnr_db", "ssim",
    }  # fmt: skip
    assert own.loc["fvu", "value"] == metrics["fvu_test"]
    assert own.loc["fvu_difference", "value"] == pytest.approx(metrics["fvu_test"] - metrics["fvu_pca_test"])
    assert set(own["n"]) == {15}
    assert load_pixel_pca(work).components.shape == (2, 3 * SIDE**2)


def test_latents_are_described_by_train_galaxies(made):
    work, metrics = made
    latents = pd.read_parquet(work / "latents.parquet")
    train = np.asarray(read_features(work).values)[SPLIT == "train"]
    np.testing.assert_allclose(latents["variance"], train.var(axis=0), rtol=1e-4)
    np.testing.assert_allclose(latents["mean"], train.mean(axis=0), rtol=1e-4, atol=1e-6)
    assert list(latents["is_active"]) == list(train.var(axis=0) > 0.01)
    assert metrics["n_active"] == latents["is_active"].sum()


def test_cutouts_that_are_not_square_are_refused_with_the_remedy(tmp_path):
    spec = VAESpec(vae=VAE(name="vae"), seed=0)
    job = Job(stage="train-vae", version=1, name="vae", spec=spec, inputs={})
    task = Task(inputs={"survey": survey(tmp_path / "s", width=20)}, work=tmp_path, device="cpu", job=job)
    with pytest.raises(DataError, match=r"20 x 16 px: set survey\.crop"):
        train_vae.build(spec, task)


# --- plan -------------------------------------------------------------------------------------------------------------

EXPERIMENT = """
name = "e"
seeds = [0, 1]
[targets.z]
columns = ["oh_p50"]
[classes.type]
column = "factor_type"
[[features]]
name = "vae"
kind = "vae"
n_latents = 4
[[features]]
name = "pca"
kind = "pca"
on = "vae"
n_components = 2
[[features]]
name = "sae"
kind = "sae"
on = "vae"
n_latents = 8
k = [2]
"""


def loaded(tmp_path, text):
    path = tmp_path / "e.toml"
    path.write_text(text)
    return config.load(path)


def test_there_is_an_autoencoder_a_seed_and_pca_and_saes_stand_on_it(tmp_path):
    jobs = {str(job): job for job in make_plan(loaded(tmp_path, EXPERIMENT))}
    for seed in (0, 1):
        vae = jobs[f"train-vae/vae-seed{seed}"]
        assert vae.spec.seed == seed
        assert jobs[f"fit-baselines/pca-seed{seed}"].inputs["embedding"] == vae
        assert jobs[f"fit-probes/vae-seed{seed}"].inputs["features"] == vae
        assert jobs[f"encode-embeddings/sae-k2-seed{seed}"].inputs["embedding"] == vae
        assert jobs[f"interpret-features/vae-seed{seed}"].inputs["features"] == vae
        assert str(vae) in jobs["make-figures/figures"].inputs
    assert jobs["perturb-images/vae-seed0"].inputs["embedding"] == jobs["train-vae/vae-seed0"]
    assert "vae-seed0" in jobs["compare-features/relations"].spec.tables
    assert jobs["fit-probes/vae-seed0"].spec.classes["type"].column == "factor_type"
    assert jobs["fit-probes/comparison"].spec.classes["type"].column == "factor_type"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n_latents = 4", "n_latents = 0", "n_latents must be at least 1"),
        ("n_latents = 4", "pixel_variance = 0.0", "pixel_variance must be positive"),
        ("n_latents = 4", 'objective = "kl"', "'elbo', 'mmd', 'none'"),
        ("[classes.type]", "[classes.z]", r"\[targets\] and \[classes\] share the names"),
        ('column = "factor_type"', 'column = "factor_type"\nvalues = ["1"]', "at least two classes"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, old, new, message):
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, EXPERIMENT.replace(old, new, 1))
