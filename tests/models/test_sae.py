import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfnetlab.errors import ArtifactError
from sfnetlab.models.sae import Encoded, SparseAutoencoder, load_sae, save_sae

D_IN, N_LATENTS = 6, 16


def random_sae(k=4, group_sizes=(), seed=0, rule="topk"):
    sae = SparseAutoencoder(D_IN, N_LATENTS, k, group_sizes, rule).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for tensor in sae.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    sae.scale.fill_(2.5)
    return sae


def random_rows(n=7, seed=0):
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed))


def dense_latents(sae, x, k):
    """The definition, row by row and dense."""
    z = (x - sae.mean) / sae.scale
    latents = torch.relu(z @ sae.W_enc + sae.b_enc)
    for row in latents:
        row[row.argsort(descending=True)[k:]] = 0
    return latents


@given(st.integers(1, N_LATENTS), st.integers(1, 9), st.integers(0, 99))
def test_codes_and_reconstruction_are_those_of_the_definition(k, n, seed):
    sae, x = random_sae(k, seed=seed), random_rows(n, seed)
    latents = dense_latents(sae, x, k)
    codes = sae.encode_csr(x.numpy(), batch_size=4)
    assert (np.diff(codes.indptr) <= k).all()
    np.testing.assert_allclose(codes.toarray(), latents, rtol=1e-4, atol=1e-5)
    x_hat = (latents @ sae.W_dec + sae.b_dec) * sae.scale + sae.mean
    np.testing.assert_allclose(sae.reconstruct(x.numpy()), x_hat, rtol=1e-4, atol=1e-4)


@given(st.integers(0, 99))
@settings(max_examples=20)
def test_rows_do_not_influence_each_other(seed):
    sae, x = random_sae(), random_rows(5, seed)
    together, alone = sae.encode(x), [sae.encode(row[None]) for row in x]
    assert torch.equal(together.indices, torch.cat([one.indices for one in alone]))
    torch.testing.assert_close(together.values, torch.cat([one.values for one in alone]))


@given(st.integers(1, N_LATENTS), st.integers(0, 99))
def test_prefix_of_matryoshka_latents_reconstructs_as_the_masked_full_set(k, seed):
    sae, x = random_sae(k, group_sizes=(2, 1, 5, 8), seed=seed), random_rows(seed=seed)
    encoded = sae.encode(x)
    prefixes = sae.decode_prefixes(encoded)
    for position, size in enumerate((2, 3, 8, 16)):
        masked = Encoded(encoded.values * (encoded.indices < size), encoded.indices)
        torch.testing.assert_close(prefixes[:, position], sae.decode(masked), rtol=1e-4, atol=1e-4)


@given(st.floats(0, 2), st.integers(0, 99))
@settings(max_examples=20)
def test_latents_above_their_threshold_are_active(lowest, seed):
    sae = random_sae(seed=seed, rule="threshold")
    sae.thresholds.uniform_(lowest, lowest + 1, generator=torch.Generator().manual_seed(seed))
    x = random_rows(seed=seed)
    pre = (x - sae.mean) / sae.scale @ sae.W_enc + sae.b_enc
    expected = torch.where(pre > sae.thresholds, pre, 0.0)
    np.testing.assert_allclose(sae.encode_csr(x.numpy(), batch_size=3).toarray(), expected, rtol=1e-4, atol=1e-5)


def test_no_latent_above_its_threshold_leaves_the_bias():
    sae = random_sae(rule="threshold")
    sae.thresholds.fill_(1e9)
    x_hat = sae.reconstruct(random_rows(3).numpy())
    np.testing.assert_allclose(x_hat, (sae.b_dec * sae.scale + sae.mean).expand(3, -1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae(random_rows(3)), torch.from_numpy(x_hat))


@pytest.mark.parametrize("group_sizes", [(), (2, 1, 5, 8)])
def test_better_codes_of_a_row_leave_less_of_it(group_sizes):
    sae, x = random_sae(group_sizes=group_sizes), random_rows(30).numpy()
    errors = [np.square(sae.reconstruct(x, codes) - x).sum(axis=1) for codes in ("topk", "refit")]
    assert (errors[1] <= errors[0] * (1 + 1e-4)).all()
    support, refitted = sae.encode_csr(x).toarray() != 0, sae.encode_csr(x, "refit").toarray() != 0
    assert not (refitted & ~support).any()


def test_matching_pursuit_takes_at_most_k_atoms():
    latents = random_sae(k=3).encode_csr(random_rows(20).numpy(), "omp")
    assert np.diff(latents.indptr).max() == 3


def test_matching_pursuit_without_k_is_an_error():
    with pytest.raises(ValueError, match="how many latents"):
        random_sae(k=None, rule="threshold").encode_csr(random_rows().numpy(), "omp")


def test_latents_of_a_prefix_decode_with_its_atoms():
    sae, x = random_sae(group_sizes=(2, 1, 5, 8)), random_rows()
    latents = sae.encode_csr(x.numpy())
    expected = sae.decode_prefixes(sae.encode(x))[:, 2]
    np.testing.assert_allclose(sae.decode_csr(latents[:, :8]), expected, rtol=1e-4, atol=1e-4)


def test_codes_of_no_rows_are_an_empty_table():
    assert random_sae().encode_csr(np.zeros((0, D_IN), dtype=np.float32)).shape == (0, N_LATENTS)


def test_codes_come_from_a_memory_map_as_from_memory(tmp_path):
    x = random_rows(9).numpy()
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert (random_sae().encode_csr(mapped) != random_sae().encode_csr(x)).nnz == 0


def test_row_that_is_not_finite_is_named():
    x = random_rows(9).numpy()
    x[7, 1] = np.nan
    with pytest.raises(ValueError, match="row 7 is not"):
        random_sae().encode_csr(x, batch_size=4)


@pytest.mark.parametrize("rule", ["topk", "threshold"])
@pytest.mark.parametrize("group_sizes", [(), (4, 4, 8)])
def test_saved_sae_is_the_same_sae(tmp_path, group_sizes, rule):
    sae, x = random_sae(k=3, group_sizes=group_sizes, rule=rule), random_rows()
    save_sae(tmp_path, sae)
    loaded = load_sae(tmp_path)
    assert torch.equal(loaded(x), sae(x))
    assert (loaded.k, loaded.group_sizes) == (3, group_sizes)


def test_damaged_weights_are_refused(tmp_path):
    save_sae(tmp_path, random_sae())
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-5])
    with pytest.raises(ArtifactError, match=r"model.safetensors: does not hold"):
        load_sae(tmp_path)


@pytest.mark.parametrize(("k", "group_sizes"), [(0, ()), (17, ()), (4, (8, 4)), (4, (16, 0))])
def test_impossible_sizes_are_an_error(k, group_sizes):
    with pytest.raises(ValueError, match="must"):
        SparseAutoencoder(D_IN, N_LATENTS, k, group_sizes)
