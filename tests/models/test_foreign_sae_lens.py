"""Checkpoints that the real sae-lens wrote, and ours that it reads.

Not a dependency, as it brings a stack for language models:
uv run --isolated --with sae-lens==6.54.12 pytest tests/models/test_foreign_sae_lens.py
"""

import json

import numpy as np
import pytest
import torch

from sfnetlab.models.foreign import SAE_LENS_VERSION, export_saelens, import_sae
from sfnetlab.models.sae import SparseAutoencoder

pytestmark = pytest.mark.filterwarnings("ignore")  # what it and its imports warn of is not ours
D_IN, N_LATENTS, K = 12, 48, 5
INFERENCE = {
    "standard": {},
    "topk": {"k": K},
    "topk-rescaled": {"k": K, "rescale_acts_by_decoder_norm": True},
    "jumprelu": {},
    "gated": {},
}
TRAINING = {
    "standard": {},
    "topk": {"k": K},
    "batchtopk": {"k": float(K)},
    "matryoshka_batchtopk": {"k": float(K), "matryoshka_widths": [8, 20, N_LATENTS]},
    "jumprelu": {},
    "gated": {},
}


@pytest.fixture(scope="module")
def sae_lens():
    return pytest.importorskip("sae_lens", reason="sae-lens is not installed", exc_type=ImportError)


def randomised(module, seed=0):
    """Its weights at random, away from the special values that they start with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5 + (0.8 if "thresh" in name else 0.1))
    return module


def rows(n=200):
    return (1.5 * np.random.default_rng(0).standard_normal((n, D_IN)) + 0.4).astype(np.float32)


@torch.no_grad()
def assert_equal(ours, theirs, x):
    latents = theirs.encode(torch.from_numpy(x))
    assert 0 < float((latents > 0).float().mean()) < 1
    np.testing.assert_allclose(ours.encode_csr(x).toarray(), latents, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.reconstruct(x), theirs.decode(latents), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
@pytest.mark.parametrize("name", INFERENCE)
def test_an_sae_that_it_saved_encodes_and_decodes_alike_here(sae_lens, name, apply_b_dec_to_input, tmp_path):
    config = {"architecture": name.split("-")[0], "d_in": D_IN, "d_sae": N_LATENTS, **INFERENCE[name]}
    theirs = randomised(sae_lens.SAE.from_dict(config | {"apply_b_dec_to_input": apply_b_dec_to_input}))
    theirs.save_model(tmp_path)
    assert_equal(import_sae(tmp_path), theirs, rows())


@pytest.mark.parametrize("name", TRAINING)
def test_a_training_checkpoint_and_its_inference_export_encode_alike_here(sae_lens, name, tmp_path):
    config = {"architecture": name, "d_in": D_IN, "d_sae": N_LATENTS, **TRAINING[name]}
    training = randomised(sae_lens.TrainingSAE.from_dict(config))
    training.save_model(tmp_path / "training")
    training.save_inference_model(tmp_path / "inference")
    inference = sae_lens.SAE.load_from_disk(tmp_path / "inference")
    sae = import_sae(tmp_path / "inference")
    assert_equal(import_sae(tmp_path / "training"), inference, rows())
    assert_equal(sae, inference, rows())
    if "matryoshka" in name:
        assert (sae.group_sizes, sae.k) == ((8, 12, 28), K)


def test_a_checkpoint_amid_training_takes_the_factor_of_its_activation_scaler(sae_lens, tmp_path):
    from sae_lens.training.activation_scaler import ActivationScaler

    config = {"architecture": "topk", "d_in": D_IN, "d_sae": N_LATENTS, "k": K}
    training = randomised(
        sae_lens.TrainingSAE.from_dict(config | {"normalize_activations": "expected_average_only_in"})
    )
    training.save_model(tmp_path / "checkpoint")
    ActivationScaler(scaling_factor=0.3).save(str(tmp_path / "checkpoint" / "activation_scaler.json"))
    training.fold_activation_norm_scaling_factor(0.3)  # as its trainer does at the end
    training.save_inference_model(tmp_path / "final")
    final, amid = sae_lens.SAE.load_from_disk(tmp_path / "final"), import_sae(tmp_path / "checkpoint")
    assert_equal(import_sae(tmp_path / "final"), final, rows())
    np.testing.assert_allclose(amid.reconstruct(rows()), final(torch.from_numpy(rows())).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("group_sizes", [(), (8, 40)])
@pytest.mark.parametrize("rule", ["topk", "threshold"])
def test_an_export_encodes_and_decodes_alike_there(sae_lens, rule, group_sizes, tmp_path):
    ours = randomised(SparseAutoencoder(D_IN, N_LATENTS, K, group_sizes, rule=rule))
    ours.scale.fill_(1.7)
    ours.thresholds.abs_()
    export_saelens(tmp_path, ours)
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    assert theirs.cfg.architecture() == {"topk": "topk", "threshold": "jumprelu"}[rule]
    assert_equal(ours, theirs, rows())
    theirs.save_model(tmp_path / "again")
    again = import_sae(tmp_path / "again")
    assert_equal(again, theirs, rows())
    assert (again.rule, again.k, again.group_sizes) == (rule, K, group_sizes)


def test_an_export_names_the_version_that_read_it_here(sae_lens, tmp_path):
    export_saelens(tmp_path, randomised(SparseAutoencoder(D_IN, N_LATENTS, K)))
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["metadata"]["sae_lens_version"] == SAE_LENS_VERSION == sae_lens.__version__
