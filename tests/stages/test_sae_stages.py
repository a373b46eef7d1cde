"""What is found out about sparse autoencoders on the way: reconstructions, stability over seeds, loss recovered."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array, load_npz

from sfnetlab import artifacts
from sfnetlab.artifacts import read_features, write_csr_features, write_dense_features, write_rows
from sfnetlab.jobs import Job, Run, Task
from sfnetlab.methods.sae import SAE, EncodeSpec, SAESpec, sae_directory
from sfnetlab.metrics import dictionary
from sfnetlab.metrics.reconstruction import fraction_of_variance_unexplained, loss_recovered
from sfnetlab.models.sae import SparseAutoencoder, load_sae, save_sae
from sfnetlab.plan import StabilitySpec
from sfnetlab.probes import make_probe
from sfnetlab.stages import encode_embeddings, interpret_features, train_sae

N, D_IN, N_LATENTS, K = 60, 6, 12, 3
SPLIT = np.array(["train"] * 30 + ["valid"] * 10 + ["test"] * 20)
ROWS = pd.DataFrame({"id_str": [str(i) for i in range(N)], "split": SPLIT})


def random_sae(seed, group_sizes=()):
    sae = SparseAutoencoder(D_IN, N_LATENTS, K, group_sizes).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in ("W_enc", "W_dec", "b_dec"):
        getattr(sae, name).copy_(torch.randn(getattr(sae, name).shape, generator=generator))
    return sae


def embedding(seed=0):
    return np.random.default_rng(seed).standard_normal((N, D_IN)).astype(np.float32)


def task(folder, inputs):
    work = folder / "work"
    work.mkdir()
    job = Job(stage="", version=1, name="", spec=None, inputs={})
    return Task(inputs=inputs, work=work, device="cpu", job=job)


def saved_sae(folder, sae, seed):
    directory = sae_directory(folder, K, seed)
    directory.mkdir(parents=True)
    save_sae(directory, sae)
    return folder


def trained(folder, x, **settings):
    (folder / "embedding").mkdir()
    write_rows(folder / "embedding", ROWS)
    write_dense_features(folder / "embedding", x)
    sae = SAE(name="sae", on="e", n_latents=N_LATENTS, k=(K,), epochs=2, **settings)
    made = task(folder, {"embedding": folder / "embedding"})
    return train_sae.build(SAESpec(sae=sae, seeds=(0,)), made), load_sae(sae_directory(made.work, K, 0))


def test_broken_train_galaxies_are_named_before_training(tmp_path, caplog):
    x = embedding()
    x[[3, 17, 45]] = 1e4  # 45 is no train galaxy
    trained(tmp_path, x)
    assert "2 of 30 rows are more than 10 times as far" in caplog.text
    assert "with their shares: 3 (" in caplog.text


def test_broken_train_galaxies_beyond_max_distance_are_left_out_and_counted(tmp_path, caplog):
    x = embedding()
    x[[3, 17]] = 1e4
    metrics, sae = trained(tmp_path, x, max_distance=10.0)
    assert metrics["n_rows_left_out"] == 2
    assert "max_distance = 10 leaves out 2 of 30 train rows (first: 3, 17)" in caplog.text
    assert sae.scale < 2


def test_columns_are_scaled_by_their_spread_on_train_rows(tmp_path):
    x = embedding() * np.array([1, 10, 100, 1, 1, 1], dtype=np.float32)
    _, sae = trained(tmp_path, x, standardize="columns")
    np.testing.assert_allclose(sae.scale, x[SPLIT == "train"].std(axis=0), rtol=1e-5)


@pytest.mark.parametrize("codes", ["topk", "refit", "omp"])
def test_reconstruction_of_each_nested_dictionary_is_scored(tmp_path, codes):
    x, sae = embedding(), random_sae(0, (4, 8))
    (tmp_path / "embedding").mkdir()
    write_rows(tmp_path / "embedding", ROWS)
    write_dense_features(tmp_path / "embedding", x)
    made = task(tmp_path, {"embedding": tmp_path / "embedding", "saes": saved_sae(tmp_path / "saes", sae, 5)})
    metrics = encode_embeddings.build(EncodeSpec(k=K, seed=5, codes=codes), made)

    table = pd.read_parquet(made.work / "reconstruction.parquet").set_index(["split", "n_latents"])
    latents = sae.encode_csr(x, codes)
    test = SPLIT == "test"
    for prefix in (4, 12):
        expected = fraction_of_variance_unexplained(x[test], sae.decode_csr(latents[test][:, :prefix]))
        assert table.loc[("test", prefix), "fvu"] == pytest.approx(expected)
    assert metrics["fvu_test"] == table.loc[("test", 12), "fvu"]
    assert (read_features(made.work).values != latents).nnz == 0


def seeds_task(tmp_path, saes):
    inputs = {}
    for seed, sae in enumerate(saes):
        inputs[f"saes{seed}"] = saved_sae(tmp_path / f"saes{seed}", sae, seed)
        inputs[f"seed{seed}"] = tmp_path / f"seed{seed}"
        inputs[f"seed{seed}"].mkdir()
        write_rows(inputs[f"seed{seed}"], ROWS)
        write_csr_features(inputs[f"seed{seed}"], csr_array(sae.encode_csr(embedding())))
    return task(tmp_path, inputs)


def test_the_same_sae_under_two_seeds_is_stable_and_its_own_consensus(tmp_path):
    made = seeds_task(tmp_path, [random_sae(0), random_sae(0)])
    metrics = interpret_features.build(StabilitySpec(features="sae", k=K, seeds=(0, 1)), made)
    assert metrics["decoder_cosine"] == pytest.approx(1)
    assert metrics["activation_correlation"] == pytest.approx(1)
    assert metrics["decoder_cosine_chance"] < 0.9
    n_alive = np.unique(random_sae(0).encode_csr(embedding()[SPLIT == "train"]).indices).size
    assert metrics["n_consensus"] == n_alive


def test_unlike_saes_are_not_stable(tmp_path):
    made = seeds_task(tmp_path, [random_sae(0), random_sae(1)])
    metrics = interpret_features.build(StabilitySpec(features="sae", k=K, seeds=(0, 1)), made)
    assert metrics["shared_0.9"] < 0.5


def labelled():
    x = embedding()
    return x, (x @ np.arange(1.0, 1 + D_IN)[:, None] + 0.01 * embedding(1)[:, :1]).astype(np.float64)


def recovered(x, x_hat, Y):
    """What a ridge of the embedding x keeps when it is given x_hat, on test rows."""
    train, valid, test = (np.flatnonzero(part == SPLIT) for part in ("train", "valid", "test"))
    probe = make_probe("ridge").fit(x[train], Y[train], x[valid], Y[valid])
    predictions = (probe.predict(values[test]) for values in (x, x_hat))
    table = loss_recovered(("y",), Y[test], Y[train].mean(axis=0), *predictions, n_resamples=200, seed=0)
    return table.set_index("metric")


def test_a_perfect_reconstruction_loses_nothing():
    x, Y = labelled()
    row = recovered(x, x, Y).loc["loss_recovered"]
    assert row["value"] == pytest.approx(1)
    assert (row["low"], row["high"]) == (pytest.approx(1), pytest.approx(1))


def test_reconstructing_the_mean_recovers_nothing():
    x, Y = labelled()
    x_hat = np.broadcast_to(x[SPLIT == "train"].mean(axis=0), x.shape)
    table = recovered(x, x_hat, Y)
    assert table.loc["loss_recovered", "value"] == pytest.approx(0, abs=0.05)
    mean_error = np.sqrt(np.mean((Y[SPLIT == "test"] - Y[SPLIT == "train"].mean()) ** 2))
    assert table.loc["rmse_reconstruction", "value"] == pytest.approx(mean_error, rel=0.05)


def test_nothing_is_said_of_recovery_where_the_embedding_knows_nothing():
    rng = np.random.default_rng(3)
    Y = rng.standard_normal((N, 1))
    x = np.concatenate([rng.standard_normal((N, D_IN - 1)), np.where(SPLIT == "test", -1, 1)[:, None] * Y], axis=1)
    assert "loss_recovered" not in recovered(x, x, Y).index


def test_a_table_that_is_mapped_holds_what_a_compressed_one_holds(tmp_path, monkeypatch):
    latents = random_sae(0).encode_csr(embedding())
    tables = []
    for limit in (10**6, 0):
        monkeypatch.setattr(artifacts, "_MAPPED_VALUES", limit)
        directory = tmp_path / str(limit)
        directory.mkdir()
        write_rows(directory, ROWS)
        artifacts.write_csr_blocks(directory, (latents[:25], latents[25:25], latents[25:]), N_LATENTS)
        tables.append(read_features(directory).values)
        assert sorted(path.name for path in directory.iterdir()) == ["features.npz", "rows.parquet"]
        assert (load_npz(directory / "features.npz") != latents).nnz == 0
    for part in (tables[1].data, tables[1].indices, tables[1].indptr):
        assert part.flags.aligned
        assert not part.flags.owndata
    for table in tables:
        assert (table != latents).nnz == 0
        np.testing.assert_array_equal(table[[40, 3]].toarray(), latents[[40, 3]].toarray())


def test_latents_are_described_the_same_in_blocks(monkeypatch):
    sae, train = random_sae(0), np.flatnonzero(SPLIT == "train")
    latents = sae.encode_csr(embedding())
    whole = dictionary.describe_latents(latents[train], sae.W_dec.numpy())
    monkeypatch.setattr(dictionary, "_BLOCK_ROWS", 7)
    in_blocks = dictionary.describe_latents(latents, sae.W_dec.numpy(), train)
    pd.testing.assert_frame_equal(whole, in_blocks, rtol=1e-6)


def test_dictionaries_of_one_encoder_are_trained_at_once_and_differ(tmp_path):
    (tmp_path / "embedding").mkdir()
    write_rows(tmp_path / "embedding", ROWS)
    write_dense_features(tmp_path / "embedding", embedding())
    sae = SAE(name="sae", on="e", n_latents=N_LATENTS, k=(K,), epochs=2, runs=2)
    made = task(tmp_path, {"embedding": tmp_path / "embedding"})
    seeds = (Run(1).seed, Run(1, 1).seed)
    assert train_sae.build(SAESpec(sae=sae, seeds=seeds), made)["n_saes"] == 2
    first, second = (load_sae(sae_directory(made.work, K, seed)) for seed in seeds)
    assert sae_directory(made.work, K, seeds[1]).name == "k3-seed1-dictionary1"
    assert not torch.allclose(first.W_dec, second.W_dec)
