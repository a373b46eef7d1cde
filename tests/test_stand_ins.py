"""The experiments on surveys that must be downloaded, for a few steps each, on made-up data of the same form."""

import json
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sfnetlab import cli
from sfnetlab.surveys.galaxy10 import VARIANTS
from sfnetlab.surveys.mock_population import make_population
from sfnetlab.surveys.mock_render import render_images

CONFIGS = Path(__file__).parents[1] / "config"
FRACTION = "smooth-or-featured-euclid_featured-or-disk_fraction"
STAGES = ("prepare-survey", "train-sfnet", "train-vae", "embed-images", "import-embeddings", "fit-baselines")
LATER = ("train-sae", "encode-embeddings", "fit-probes")
SMALL = ("seeds=[0]", "probes.n_bootstrap=100", "probes.kinds=['ridge']")
SMALL_SAES = tuple(
    f"features.{name}.{setting}"
    for name in ("matryoshka", "topk", "frozen_decoder")
    for setting in ("epochs=2", "n_latents=128", "k=[8]")
)
UNREACHABLE = (
    "features.imagenet.weights='random'",
    "features.zoobot={name='zoobot', kind='encoder', weights='random'}",
)

pytestmark = pytest.mark.slow


def galaxies(n: int, size: int) -> tuple[pd.DataFrame, np.ndarray]:
    catalog = make_population(n, 0, 38.0)
    images = np.empty((n, size, size, 3), dtype=np.uint8)
    render_images(catalog, size, 38.0, 0, images)
    return catalog, images


def run(name: str, out: Path, *overrides: str) -> pd.DataFrame:
    """What the probes found."""
    settings = [text for override in (*SMALL, *overrides) for text in ("--set", override)]
    for stage in (*STAGES, *LATER):
        arguments = [stage, str(CONFIGS / f"{name}.toml"), "--out", str(out), "--device", "cpu", "-q", *settings]
        assert cli.main(arguments) == 0, stage
    metrics = pd.read_parquet(out / "fit-probes/comparison/metrics.parquet")
    assert metrics["value"].notna().all()
    return metrics


@pytest.fixture(scope="module")
def sdss(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("sdss")
    (directory / "images").mkdir()
    catalog, images = galaxies(320, 160)
    catalog["bptclass"] = np.where(np.arange(len(catalog)) % 2, 4, 1)  # enough AGN in every part
    catalog["id_str"] = [f"12376{i:014d}" for i in range(len(catalog))]
    catalog.to_parquet(directory / "catalog.parquet")
    for id_str, image in zip(catalog["id_str"], images, strict=True):
        Image.fromarray(image).save(directory / "images" / f"{id_str}.jpg", quality=92)
    facts = {"format": 1, "layer": "sdss", "pixel_scale_arcsec": 0.262, "size": 160, "finished": "2026-01-01"}
    (directory / "download.json").write_text(json.dumps(facts))
    return directory


@pytest.mark.parametrize("name", ["sdss_metallicity", "sdss_lines"])
def test_the_sparse_feature_networks_of_the_paper(name, sdss, tmp_path):
    metrics = run(
        name,
        tmp_path,
        f"survey.directory='{sdss}'",
        "survey.crop=144",
        "training.weights='random'",
        "training.epochs=1",
        "features.sfnet.k=[2]",
        *UNREACHABLE,
        "features.pca.n_components=8",
        "features.pls.n_components=4",
        *(f"features.{name}.{setting}" for name in ("sae", "matryoshka") for setting in ("n_latents=64", "k=[2]")),
        "features.sae.epochs=2",
        "features.matryoshka.epochs=2",
    )
    assert {"sfnet", "dense", "pca", "pls", "sae", "matryoshka", "photometry", "mean"} <= set(metrics["features"])


def test_saes_of_an_encoder_of_euclid_galaxies(tmp_path):
    from datasets import Dataset, DatasetDict, Features, Value
    from datasets import Image as ImageColumn

    catalog, images = galaxies(240, 64)
    columns = {
        "id_str": [f"102018{i:03d}_NEG51077489{i:07d}" for i in range(240)],
        "image": [Image.fromarray(image) for image in images],
        FRACTION: catalog["factor_bulge_to_total"].tolist(),
    }
    typed = Features({"id_str": Value("string"), "image": ImageColumn(), FRACTION: Value("float64")})
    parts = {"train": slice(0, 200), "test": slice(200, 240)}
    DatasetDict(
        {part: Dataset.from_dict({k: v[rows] for k, v in columns.items()}, typed) for part, rows in parts.items()}
    ).save_to_disk(tmp_path / "gz_euclid")
    metrics = run(
        "euclid_zoobot",
        tmp_path / "out",
        f"survey={{kind='hub', directory='{tmp_path / 'gz_euclid'}', on_bad_image='drop'}}",
        UNREACHABLE[1],
        *SMALL_SAES,
    )
    assert {"zoobot", "pca", "matryoshka", "topk", "frozen_decoder", "mean"} == set(metrics["features"])


def test_saes_of_published_embeddings_without_images(tmp_path):
    rng = np.random.default_rng(0)
    ids = [f"102018{i:03d}_-51077489{i:07d}" for i in range(400)]
    embedding = (rng.standard_normal((400, 384)) / np.arange(1, 385)).astype(np.float32)
    share = 1 / (1 + np.exp(-embedding[:, 0]))
    pd.DataFrame({"id_str": ids, FRACTION: share}).to_parquet(tmp_path / "morphology.parquet")
    published = {
        "id_str": [i.replace("-", "NEG") for i in ids[:380]],
        "pooled_features_block_11": list(embedding[:380]),
    }
    pd.DataFrame(published).sample(frac=1, random_state=0).to_parquet(tmp_path / "embeddings.parquet")
    metrics = run(
        "euclid_mae",
        tmp_path / "out",
        f"survey.catalog='{tmp_path / 'morphology.parquet'}'",
        f"features.mae={{name='mae', kind='external', path='{tmp_path / 'embeddings.parquet'}', "
        "columns=['pooled_features_block_11'], id_repair='neg_to_minus'}",
        *SMALL_SAES,
    )
    of_all = metrics.query(
        "features == 'mae' and probe == 'ridge' and n_features_used == 384 and metric == 'rmse' and split == 'test'"
    )
    assert (of_all["value"] < 0.7 * share.std()).all()
    assert len(of_all) == 1


def test_the_classes_of_galaxy10(tmp_path, monkeypatch):
    catalog, images = galaxies(600, 256)
    file = tmp_path / "Galaxy10_DECals.h5"
    with h5py.File(file, "w") as h5:
        h5["images"] = images
        h5["ans"] = (np.arange(600) % 4).astype(np.uint8)
        h5["ra"], h5["dec"] = catalog["ra"].to_numpy(), catalog["dec"].to_numpy()
        h5["redshift"], h5["pxscale"] = catalog["z"].to_numpy(), np.full(600, 0.262)
    monkeypatch.setitem(VARIANTS, "decals", VARIANTS["decals"]._replace(n_galaxies=600))
    metrics = run(
        "galaxy10",
        tmp_path / "out",
        f"survey={{kind='galaxy10', file='{file}', variant='decals', resize=32, "
        f"sha256='{sha256(file.read_bytes()).hexdigest()}'}}",
        *UNREACHABLE,
        *(
            f"features.{name}.{setting}"
            for name in ("elbo", "mmd", "autoencoder")
            for setting in ("epochs=1", "n_latents=4")
        ),
        "features.sae.epochs=2",
        "features.sae.n_latents=64",
        "features.sae.k=[8]",
        "features.pca.n_components=8",
    )
    scores = metrics[metrics["metric"] == "balanced_accuracy"]
    assert {"elbo", "mmd", "autoencoder", "pca", "sae", "random", "zoobot"} <= set(scores["features"])
