"""What networks make of changed cutouts: the identity is what embed-images gives, rows and transforms are named."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sfnetlab.artifacts import read_features
from sfnetlab.errors import DataError
from sfnetlab.jobs import Job, Task
from sfnetlab.methods.networks import FrozenEmbeddingSpec, TrainedEmbeddingSpec, Weights
from sfnetlab.models.backbones import make_backbone
from sfnetlab.models.sfnet import SparseFeatureNetwork, save_network
from sfnetlab.plan import PerturbSpec
from sfnetlab.stages import embed_images, perturb_images
from sfnetlab.surveys.perturb import TRANSFORMS

N = 12
SPLIT = np.array(["train"] * 4 + ["valid"] * 2 + ["test"] * 6)
FROZEN = FrozenEmbeddingSpec(backbone="resnet10t", weights=Weights(source="random", path=None), image_size=None, seed=0)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def survey(folder: Path, split: np.ndarray = SPLIT) -> Path:
    directory = folder / "survey"
    directory.mkdir()
    rng = np.random.default_rng(0)
    ids = [str(1237645879578460160 + i) for i in rng.permutation(N)]
    pd.DataFrame({"id_str": ids, "split": split}).to_parquet(directory / "catalog.parquet")
    np.save(directory / "images.npy", rng.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8))
    (directory / "metrics.json").write_text("{}")
    return directory


def embedding_job(spec: TrainedEmbeddingSpec | FrozenEmbeddingSpec) -> Job:
    return Job(stage="embed-images", version=1, name="x", spec=spec, inputs={})


def task(work: Path, inputs: dict[str, Path], job_inputs: dict[str, Job]) -> Task:
    work.mkdir()
    job = Job(stage="perturb-images", version=1, name="x", spec=PerturbSpec(), inputs=job_inputs)
    return Task(inputs=inputs, work=work, device="cpu", job=job)


def perturbed(folder: Path, inputs: dict[str, Path], spec: object, n_galaxies: int = 400) -> Path:
    made = task(folder / f"perturbed{n_galaxies}", inputs, {"embedding": embedding_job(spec)})  # type: ignore[arg-type]
    perturb_images.build(PerturbSpec(n_galaxies=n_galaxies), made)
    return made.work


def test_identity_is_what_a_frozen_encoder_embeds(tmp_path: Path) -> None:
    inputs = {"survey": survey(tmp_path)}
    embedded = task(tmp_path / "embedded", inputs, {})
    embed_images.build(FROZEN, embedded)
    work = perturbed(tmp_path, inputs, FROZEN)
    features, rows = np.load(work / "features.npy"), pd.read_parquet(work / "rows.parquet")
    assert features.shape == (len(TRANSFORMS), 6, 512)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[0], read_features(embedded.work).of(rows["id_str"]), atol=1e-5)


def test_identity_is_what_a_trained_sfnet_embeds_after_its_top_k(tmp_path: Path) -> None:
    network = SparseFeatureNetwork(make_backbone("resnet10t", "random", 0), "resnet10t", 1, 3)
    (tmp_path / "network").mkdir()
    save_network(tmp_path / "network", network)
    inputs = {"survey": survey(tmp_path), "network": tmp_path / "network"}
    embedded = task(tmp_path / "embedded", inputs, {})
    embed_images.build(TrainedEmbeddingSpec(), embedded)
    work = perturbed(tmp_path, inputs, TrainedEmbeddingSpec())
    features, rows = np.load(work / "features.npy"), pd.read_parquet(work / "rows.parquet")
    np.testing.assert_allclose(features[0], read_features(embedded.work).of(rows["id_str"]).toarray(), atol=1e-5)
    assert (np.count_nonzero(features, axis=2) <= 3).all()


def test_transforms_are_named_in_the_order_of_the_array(tmp_path: Path) -> None:
    work = perturbed(tmp_path, {"survey": survey(tmp_path)}, FROZEN)
    transforms = pd.read_parquet(work / "transforms.parquet")
    assert transforms["label"].tolist() == [transform.label for transform in TRANSFORMS]
    assert transforms.columns.tolist() == ["name", "level", "label", "is_symmetry"]
    assert transforms["name"].iloc[0] == "identity"


def test_fewer_galaxies_are_a_choice_of_test_galaxies_by_their_ids(tmp_path: Path) -> None:
    work = perturbed(tmp_path, {"survey": survey(tmp_path)}, FROZEN, n_galaxies=4)
    catalog = pd.read_parquet(tmp_path / "survey" / "catalog.parquet")
    rows = pd.read_parquet(work / "rows.parquet")
    assert len(rows) == 4
    assert (rows["split"] == "test").all()
    shuffled = catalog.sample(frac=1, random_state=1)
    chosen = shuffled["id_str"].iloc[perturb_images.chosen_places(shuffled, 4, 0)]
    assert set(chosen) == set(rows["id_str"])
    assert set(catalog["id_str"].iloc[perturb_images.chosen_places(catalog, 4, 1)]) != set(rows["id_str"])


def test_survey_without_test_galaxies_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no test galaxies"):
        perturbed(tmp_path, {"survey": survey(tmp_path, np.array(["train"] * N))}, FROZEN)
