"""SAEs that another library trained, as features: `weights` of kind "sae"."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from sfnetlab import cli, config
from sfnetlab.artifacts import read_features, write_dense_features, write_rows
from sfnetlab.errors import ConfigError, DataError
from sfnetlab.jobs import Job, Task
from sfnetlab.methods.sae import SAE, EncodeSpec, ImportSAESpec, sae_directory
from sfnetlab.models.foreign import import_sae
from sfnetlab.models.sae import load_sae
from sfnetlab.plan import make_plan
from sfnetlab.stages import encode_embeddings, make_figures, train_sae

N, D_IN, N_LATENTS, K = 60, 6, 12, 3
ROWS = pd.DataFrame({"id_str": [str(i) for i in range(N)], "split": ["train"] * 30 + ["valid"] * 10 + ["test"] * 20})
X = np.random.default_rng(0).standard_normal((N, D_IN)).astype(np.float32)


def state(seed=0):
    """Atoms of length 1 and an encoder that reads them."""
    atoms = torch.nn.functional.normalize(
        torch.randn((N_LATENTS, D_IN), generator=torch.Generator().manual_seed(seed)), dim=1
    )
    return {
        "W_enc": 0.5 * atoms.T.contiguous(),
        "b_enc": torch.zeros(N_LATENTS),
        "W_dec": atoms,
        "b_dec": torch.from_numpy(X.mean(axis=0)),
    }


def write_sae_lens(folder, seed=0, **settings):
    """A top-k, or with `threshold` a BatchTopK as SAELens saves it for inference: a JumpReLU."""
    folder.mkdir(parents=True)
    tensors = state(seed)
    config = {"architecture": "topk", "d_in": D_IN, "d_sae": N_LATENTS, "k": K, "normalize_activations": "none"}
    if "threshold" in settings:
        tensors["threshold"] = torch.full((N_LATENTS,), settings.pop("threshold"))
        config |= {"architecture": "jumprelu"}
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config | settings))
    return folder


def write_dictionary_learning(folder, seed=0, **settings):
    folder.mkdir(parents=True)
    tensors = state(seed)
    linear = {"encoder.weight": tensors["W_enc"].T, "encoder.bias": tensors["b_enc"]}
    linear |= {"decoder.weight": tensors["W_dec"].T, "b_dec": tensors["b_dec"]}
    torch.save(linear | {"k": torch.tensor(K), "threshold": torch.tensor(-1.0)}, folder / "ae.pt")
    trainer = {"dict_class": "AutoEncoderTopK", "activation_dim": D_IN, "dict_size": N_LATENTS, "k": K}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer | settings}))
    return folder


def task(folder, name, inputs):
    work = folder / name
    work.mkdir()
    job = Job(stage="", version=1, name="sae", spec=None, inputs={})
    return Task(inputs=inputs, work=work, device="cpu", job=job)


def imported(folder, *paths, x=X, row_top_k=False):
    """What the stage makes of checkpoints, one a seed: its metrics, the folder of SAEs, and that of the embedding."""
    embedding = folder / "embedding"
    embedding.mkdir()
    write_rows(embedding, ROWS)
    write_dense_features(embedding, x)
    sae = SAE(name="sae", on="e", k=(K,), weights=paths, row_top_k=row_top_k)
    seeds = tuple(range(len(paths)))
    spec = ImportSAESpec(sae=sae, seeds=seeds, row_top_k=row_top_k, sha256=("",) * len(paths), paths=paths)
    made = task(folder, "saes", {"embedding": embedding})
    return train_sae.build(spec, made), made.work, embedding


WRITERS = {
    "SAELens": write_sae_lens,
    "SAELens, BatchTopK": lambda folder, **rest: write_sae_lens(folder, threshold=0.4, **rest),
    "dictionary_learning": write_dictionary_learning,
    "dictionary_learning, BatchTopK": lambda folder, **rest: write_dictionary_learning(
        folder, dict_class="BatchTopKSAE", **rest
    ),
}


@pytest.mark.parametrize("format_", WRITERS)
@pytest.mark.parametrize("codes", ["topk", "omp"])
def test_features_are_what_the_checkpoint_says_of_the_embedding(tmp_path, format_, codes):
    path = WRITERS[format_](tmp_path / "checkpoint")
    row_top_k = format_ == "dictionary_learning, BatchTopK"
    metrics, saes, embedding = imported(tmp_path, path, row_top_k=row_top_k)
    made = task(tmp_path, "features", {"embedding": embedding, "saes": saes})
    encode_embeddings.build(EncodeSpec(k=K, seed=0, codes=codes), made)
    expected = import_sae(path, row_top_k=K if row_top_k else None)
    expected.k = K
    assert (read_features(made.work).values != expected.encode_csr(X, codes)).nnz == 0
    assert metrics["n_saes"] == 1
    assert 0 < metrics["train_fvu_mean"] < 1


def test_each_seed_has_its_checkpoint(tmp_path):
    paths = [write_sae_lens(tmp_path / "a", 0), write_dictionary_learning(tmp_path / "b", 1)]
    _, saes, _ = imported(tmp_path, *paths)
    for seed in (0, 1):
        np.testing.assert_array_equal(load_sae(sae_directory(saes, K, seed)).W_dec.detach(), state(seed)["W_dec"])


def test_a_checkpoint_of_another_embedding_is_refused(tmp_path):
    path = write_sae_lens(tmp_path / "checkpoint")
    with pytest.raises(DataError, match="expected an SAE of the 4 columns of 'e', found one of 6; name in `on`"):
        imported(tmp_path, path, x=X[:, :4])


@pytest.mark.parametrize("write", [write_sae_lens, write_dictionary_learning])
def test_another_k_than_that_of_the_checkpoint_is_refused(tmp_path, write):
    path = write(tmp_path / "checkpoint", k=5)
    if write is write_dictionary_learning:
        torch.save(torch.load(path / "ae.pt") | {"k": torch.tensor(5)}, path / "ae.pt")
    with pytest.raises(DataError, match=r"expected k = 3 as in the settings, found 5; write k = \[5\]"):
        imported(tmp_path, path)


@pytest.mark.parametrize("change", [lambda x: 100 * x, lambda x: x + 50])
def test_a_checkpoint_of_other_units_is_told(tmp_path, caplog, change):
    path = write_sae_lens(tmp_path / "checkpoint")
    imported(tmp_path, path, x=change(X[:, ::-1]) if change(0) else X)
    assert ("worse than their mean" in caplog.text) == bool(change(0))


# --- settings and keys ------------------------------------------------------------------------------------------------

TOML = """
name = "test"
seeds = [0, 1]
[survey]
kind = "embeddings"
catalog = "{folder}/catalog.csv"
[targets.mass]
columns = ["mass"]
[[features]]
name = "mae"
kind = "external"
path = "{folder}/x.npy"
ids = "{folder}/ids.txt"
[[features]]
name = "theirs"
kind = "sae"
on = "mae"
k = [3]
weights = {weights}
[probes]
kinds = ["ridge"]
n_bootstrap = 100
"""


@pytest.fixture
def experiment(tmp_path):
    """A function from paths of checkpoints to a file of an experiment."""
    ids = [f"g{i}" for i in range(200)]
    x = np.random.default_rng(0).standard_normal((200, D_IN)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    pd.DataFrame({"id_str": ids, "mass": x @ np.arange(D_IN)}).to_csv(tmp_path / "catalog.csv", index=False)

    def make(*paths):
        path = tmp_path / "test.toml"
        path.write_text(TOML.format(folder=tmp_path, weights=json.dumps([str(path) for path in paths])))
        return path

    return make


def keys(path, *overrides):
    return {str(job): job.key for job in make_plan(config.load(path, overrides))}


def test_checkpoints_count_by_what_they_hold_and_not_by_where_they_are(tmp_path, experiment):
    first = keys(experiment(write_sae_lens(tmp_path / "a")))
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    assert keys(experiment(tmp_path / "moved")) == first
    other = keys(experiment(write_sae_lens(tmp_path / "b", seed=1)))
    changed = {name for name in first if other[name] != first[name]}
    assert {"train-sae/theirs", "encode-embeddings/theirs-k3-seed0"} <= changed
    assert "import-embeddings/mae" not in changed


def test_reading_rows_by_top_k_is_another_result(tmp_path, experiment):
    path = experiment(write_sae_lens(tmp_path / "a"))
    assert keys(path)["train-sae/theirs"] != keys(path, "features.theirs.row_top_k=true")["train-sae/theirs"]


def test_saes_that_are_trained_here_have_the_recipe_without_weights():
    spec = Job(stage="", version=1, name="", spec=SAE(name="s", on="e"), inputs={}).recipe["settings"]
    assert "weights" not in spec
    assert "row_top_k" not in spec


def test_fewer_checkpoints_than_seeds_are_of_the_first_seeds(tmp_path, experiment):
    paths = [write_sae_lens(tmp_path / "a"), write_sae_lens(tmp_path / "b", 1)]
    tables = [name for name in keys(experiment(paths[0])) if name.startswith("encode-embeddings")]
    assert tables == ["encode-embeddings/theirs-k3-seed0"]
    assert "interpret-features/theirs-k3-seeds" in keys(experiment(*paths))


def test_more_checkpoints_than_seeds_are_refused(tmp_path, experiment):
    path = experiment(*[write_sae_lens(tmp_path / str(seed), seed) for seed in range(3)])
    with pytest.raises(ConfigError, match=r"for each of the seeds \[0, 1\], got 3 weights"):
        make_plan(config.load(path))


def test_a_missing_checkpoint_is_refused_before_anything_is_made(tmp_path, experiment):
    with pytest.raises(DataError, match="absent: no readable file"):
        make_plan(config.load(experiment(tmp_path / "absent")))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=3", "epochs must be left out: weights are trained already"),
        ("n_latents=12", "n_latents must be left out"),
        ('standardize="columns"', "standardize must be left out"),
        ("k=[3, 4]", "k must be the one of the checkpoints in weights"),
    ],
)
def test_what_is_said_of_a_training_is_refused_beside_weights(tmp_path, experiment, override, message):
    path = experiment(write_sae_lens(tmp_path / "a"))
    with pytest.raises(ConfigError, match=message):
        config.load(path, [f"features.theirs.{override}"])


def test_row_top_k_is_refused_without_weights():
    with pytest.raises(ValueError, match="row_top_k is for weights"):
        replace(SAE(name="s", on="e"), row_top_k=True)


def test_checkpoints_of_both_peers_run_to_the_atlas_like_saes_that_are_trained_here(tmp_path, experiment, monkeypatch):
    monkeypatch.setattr(make_figures, "save_figure", lambda figure, directory, name: (directory / name).touch())
    path = experiment(write_sae_lens(tmp_path / "a"), write_dictionary_learning(tmp_path / "b", 1))
    assert cli.main(["run", str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    metrics = pd.read_parquet(tmp_path / "out" / "fit-probes" / "comparison" / "metrics.parquet")
    of_saes = metrics[metrics["kind"] == "sae"]
    assert (set(of_saes["features"]), set(of_saes["k"]), set(of_saes["seed"].dropna())) == ({"theirs"}, {3}, {0, 1})
