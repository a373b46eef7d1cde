"""Files built by hand in the layouts of sae-lens 6.54.12, dictionary-learning 0.1.0, eai-sparsify 1.3.3 and the Euclid
repository (its src/models/matryoshka_sae.py), against each library's formula written out in NumPy."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sfnetlab.errors import ArtifactError
from sfnetlab.models.foreign import export_saelens, import_sae
from sfnetlab.models.sae import SparseAutoencoder

D_IN, N_LATENTS, K = 6, 16, 3


def random_tensors(seed=0, **shapes):
    """Weights of the given names and shapes, off zero, so that nothing forgotten goes unseen."""
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.3 + torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def direct(**more):
    """SAELens' orientation; the Matryoshka and JumpReLU classes of dictionary_learning have it too."""
    return random_tensors(
        W_enc=(D_IN, N_LATENTS), b_enc=N_LATENTS, W_dec=(N_LATENTS, D_IN), b_dec=D_IN, **dict.fromkeys(more, N_LATENTS)
    )


def linear(encoder_bias=True, **more):
    """torch.nn.Linear's orientation."""
    names = {"encoder.weight": (N_LATENTS, D_IN), "decoder.weight": (D_IN, N_LATENTS), **more}
    return random_tensors(**names | ({"encoder.bias": N_LATENTS} if encoder_bias else {}))


def write_saelens(directory, state, **config):
    directory.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, directory / "sae_weights.safetensors")
    settings = {"d_in": D_IN, "d_sae": N_LATENTS, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True}
    settings |= {"normalize_activations": "none", "reshape_activations": "none"}
    settings |= {"metadata": {"sae_lens_version": "6.54.12"}, **config}
    (directory / "cfg.json").write_text(json.dumps(settings))


def write_dictionary_learning(directory, state, dict_class, **config):
    torch.save(state, directory / "ae.pt")
    trainer = {"dict_class": dict_class, "activation_dim": D_IN, "dict_size": N_LATENTS, "lr": 1e-3, **config}
    (directory / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))


def write_sparsify(directory, state, **config):
    save_file(state, directory / "sae.safetensors")
    settings = {"activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": N_LATENTS}
    settings |= {"k": K, "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D_IN, **config}
    (directory / "cfg.json").write_text(json.dumps(settings))


def arrays(state):
    return {name: tensor.double().numpy() for name, tensor in state.items()}


def top_k(latents, k=K):
    """The k largest of each row."""
    kept = np.zeros_like(latents)
    for row, chosen in zip(latents, kept, strict=True):
        best = np.argsort(-row)[:k]
        chosen[best] = row[best]
    return kept


def relu(pre):
    return np.maximum(pre, 0)


# Each case writes its files and returns x -> (latents, x_hat), as the library's own encode and decode say.


def saelens_standard(directory):
    write_saelens(directory, state := direct(), architecture="standard")
    w = arrays(state)

    def formula(x):
        latents = relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        return latents, latents @ w["W_dec"] + w["b_dec"]

    return formula


def saelens_without_b_dec_in_the_input(directory):
    write_saelens(directory, state := direct(), architecture="standard", apply_b_dec_to_input=False)
    w = arrays(state)

    def formula(x):
        latents = relu(x @ w["W_enc"] + w["b_enc"])
        return latents, latents @ w["W_dec"] + w["b_dec"]

    return formula


def saelens_expected_average(directory):
    """A checkpoint amid training: the activation scaler lies beside it."""
    write_saelens(
        directory, state := direct(), architecture="standard", normalize_activations="expected_average_only_in"
    )
    (directory / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.37, "has_whitening": False}))
    w = arrays(state)

    def formula(x):
        latents = relu((0.37 * x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        return latents, (latents @ w["W_dec"] + w["b_dec"]) / 0.37

    return formula


def saelens_topk(directory, rescale=False):
    write_saelens(directory, state := direct(), architecture="topk", k=K, rescale_acts_by_decoder_norm=rescale)
    w = arrays(state)
    norms = np.linalg.norm(w["W_dec"], axis=1) if rescale else 1

    def formula(x):
        latents = relu(top_k(((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms))
        return latents, (latents / norms) @ w["W_dec"] + w["b_dec"]

    return formula


def saelens_topk_rescaled(directory):
    return saelens_topk(directory, rescale=True)


def saelens_topk_before_6(directory):
    state = {**direct(), "scaling_factor": torch.ones(N_LATENTS)}
    old = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "normalize_activations": False}
    write_saelens(directory, state, metadata=None, **old)
    w = arrays(state)

    def formula(x):
        latents = relu(top_k((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]))
        return latents, latents @ w["W_dec"] + w["b_dec"]

    return formula


def saelens_jumprelu(directory):
    write_saelens(directory, state := direct(threshold=True), architecture="jumprelu")
    w = arrays(state)
    assert (w["threshold"] < 0).any()

    def formula(x):
        pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
        latents = relu(pre) * (pre > w["threshold"])
        return latents, latents @ w["W_dec"] + w["b_dec"]

    return formula


def saelens_jumprelu_log_threshold(directory):
    write_saelens(directory, state := direct(log_threshold=True), architecture="jumprelu")
    w = arrays(state)

    def formula(x):
        pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
        latents = relu(pre) * (pre > np.exp(w["log_threshold"]))
        return latents, latents @ w["W_dec"] + w["b_dec"]

    return formula


def saelens_batchtopk(directory, architecture="batchtopk", **config):
    state = {**direct(), "topk_threshold": torch.tensor(1.1, dtype=torch.double)}
    write_saelens(directory, state, architecture=architecture, k=float(K), rescale_acts_by_decoder_norm=True, **config)
    w = arrays(state)
    norms = np.linalg.norm(w["W_dec"], axis=1)

    def formula(x):
        pre = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms
        latents = relu(pre) * (pre > 1.1)
        return latents, (latents / norms) @ w["W_dec"] + w["b_dec"]

    return formula


def saelens_matryoshka_batchtopk(directory):
    return saelens_batchtopk(directory, "matryoshka_batchtopk", matryoshka_widths=[2, 7])


def saelens_gated(directory):
    state = direct(b_gate=True, b_mag=True, r_mag=True)
    del state["b_enc"]
    write_saelens(directory, state, architecture="gated")
    w = arrays(state)

    def formula(x):
        z = x - w["b_dec"]
        latents = (z @ w["W_enc"] + w["b_gate"] > 0) * relu(z @ (w["W_enc"] * np.exp(w["r_mag"])) + w["b_mag"])
        return latents, latents @ w["W_dec"] + w["b_dec"]

    return formula


def dictionary_learning_relu(directory):
    write_dictionary_learning(directory, state := linear(bias=D_IN), "AutoEncoder")
    w = arrays(state)
    norms = np.linalg.norm(w["decoder.weight"], axis=0)

    def formula(x):
        # load_dictionary calls normalize_decoder
        latents = norms * relu((x - w["bias"]) @ w["encoder.weight"].T + w["encoder.bias"])
        return latents, (latents / norms) @ w["decoder.weight"].T + w["bias"]

    return formula


def dictionary_learning_relu_new(directory):
    write_dictionary_learning(directory, state := linear(**{"decoder.bias": D_IN}), "AutoEncoderNew")
    w = arrays(state)

    def formula(x):
        latents = relu(x @ w["encoder.weight"].T + w["encoder.bias"])
        return latents, latents @ w["decoder.weight"].T + w["decoder.bias"]

    return formula


def dictionary_learning_gated(directory):
    state = linear(encoder_bias=False, decoder_bias=D_IN, r_mag=N_LATENTS, gate_bias=N_LATENTS, mag_bias=N_LATENTS)
    write_dictionary_learning(directory, state, "GatedAutoEncoder")
    w = arrays(state)

    def formula(x):
        encoded = (x - w["decoder_bias"]) @ w["encoder.weight"].T
        latents = (encoded + w["gate_bias"] > 0) * relu(np.exp(w["r_mag"]) * encoded + w["mag_bias"])
        return latents, latents @ w["decoder.weight"].T + w["decoder_bias"]

    return formula


def dictionary_learning_topk(directory):
    state = linear(b_dec=D_IN) | {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(0.4)}
    write_dictionary_learning(directory, state, "AutoEncoderTopK", k=K)
    w = arrays(state)

    def formula(x):
        latents = top_k(relu((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]))
        return latents, latents @ w["decoder.weight"].T + w["b_dec"]

    return formula


def dictionary_learning_batchtopk(directory):
    state = linear(b_dec=D_IN) | {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(1.4)}
    write_dictionary_learning(directory, state, "BatchTopKSAE", k=K)
    w = arrays(state)

    def formula(x):
        latents = relu((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"])
        latents = latents * (latents > np.float32(1.4))
        return latents, latents @ w["decoder.weight"].T + w["b_dec"]

    return formula


def dictionary_learning_matryoshka(directory):
    state = direct() | {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(1.4)}
    state["group_sizes"] = torch.tensor([2, 5, 9])
    write_dictionary_learning(directory, state, "MatryoshkaBatchTopKSAE", k=K)
    w = arrays(state)

    def formula(x):
        latents = relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        latents = latents * (latents > np.float32(1.4))
        return latents, latents @ w["W_dec"] + w["b_dec"]

    return formula


def dictionary_learning_jumprelu(directory):
    write_dictionary_learning(directory, state := direct(threshold=True), "JumpReluAutoEncoder")
    w = arrays(state)

    def formula(x):
        pre = x @ w["W_enc"] + w["b_enc"]
        latents = relu(pre * (pre > w["threshold"]))
        return latents, latents @ w["W_dec"] + w["b_dec"]

    return formula


def sparsify_topk(directory):
    shapes = {"encoder.weight": (N_LATENTS, D_IN), "encoder.bias": N_LATENTS, "W_dec": (N_LATENTS, D_IN), "b_dec": D_IN}
    write_sparsify(directory, state := random_tensors(**shapes))
    w = arrays(state)

    def formula(x):
        latents = top_k(relu((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]))
        return latents, latents @ w["W_dec"] + w["b_dec"]

    return formula


CASES = [
    saelens_standard,
    saelens_without_b_dec_in_the_input,
    saelens_expected_average,
    saelens_topk,
    saelens_topk_rescaled,
    saelens_topk_before_6,
    saelens_jumprelu,
    saelens_jumprelu_log_threshold,
    saelens_batchtopk,
    saelens_matryoshka_batchtopk,
    saelens_gated,
    dictionary_learning_relu,
    dictionary_learning_relu_new,
    dictionary_learning_gated,
    dictionary_learning_topk,
    dictionary_learning_batchtopk,
    dictionary_learning_matryoshka,
    dictionary_learning_jumprelu,
    sparsify_topk,
]


def rows(n=40, seed=1):
    return 2 * np.random.default_rng(seed).standard_normal((n, D_IN)) + 0.5


def assert_same(sae, x, latents, x_hat):
    np.testing.assert_allclose(sae.encode_csr(x).toarray(), latents, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sae.reconstruct(x), x_hat, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_an_imported_checkpoint_encodes_and_decodes_by_its_own_formula(case, tmp_path):
    formula, x = case(tmp_path), rows()
    latents, x_hat = formula(x)
    assert 0 < (latents > 0).mean() < 1
    assert_same(import_sae(tmp_path), x, latents, x_hat)


def write_euclid(path):
    state = direct() | {"num_batches_not_active": torch.arange(N_LATENTS)}
    torch.save(state, path)
    return arrays(state)


def test_euclid_weights_are_read_as_top_k_of_each_row_with_the_groups_given(tmp_path):
    w, x = write_euclid(tmp_path / "matryoshka_sae_final.pth"), rows()
    sae = import_sae(tmp_path, row_top_k=K, group_sizes=(4, 4, 8))
    # With one row, the repository's top (k n) of a batch of n rows is top-k of the row.
    latents = top_k(relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]))
    assert_same(sae, x, latents, latents @ w["W_dec"] + w["b_dec"])
    assert sae.group_sizes == (4, 4, 8)
    prefix = (latents[:, :4] @ w["W_dec"][:4]) + w["b_dec"]
    levels = sae.decode_prefixes(sae.encode(torch.tensor(x, dtype=torch.float32))).detach()
    np.testing.assert_allclose(levels[:, 0], prefix, rtol=1e-5, atol=1e-5)


def test_batch_top_k_with_a_threshold_is_read_by_row_when_asked(tmp_path):
    saelens_batchtopk(tmp_path)
    sae = import_sae(tmp_path, row_top_k=K)
    assert (sae.rule, sae.k) == ("topk", K)
    assert int((sae.encode_csr(rows()) > 0).sum(axis=1).max()) == K


@pytest.mark.parametrize(
    ("case", "rule", "k", "group_sizes"),
    [
        (saelens_topk, "topk", K, ()),
        (saelens_batchtopk, "threshold", K, ()),
        (saelens_matryoshka_batchtopk, "threshold", K, (2, 5, 9)),
        (saelens_jumprelu, "threshold", None, ()),
        (dictionary_learning_batchtopk, "threshold", K, ()),
        (dictionary_learning_matryoshka, "threshold", K, (2, 5, 9)),
    ],
)
def test_rule_k_and_groups_come_over(case, rule, k, group_sizes, tmp_path):
    case(tmp_path)
    sae = import_sae(tmp_path)
    assert (sae.rule, sae.k, sae.group_sizes) == (rule, k, group_sizes)


@pytest.mark.parametrize("buffers", [(), ("k",), ("threshold",)])
def test_a_top_k_of_before_its_buffers_encodes_as_one_with_them(buffers, tmp_path):
    formula, x = dictionary_learning_topk(tmp_path), rows()
    state = torch.load(tmp_path / "ae.pt")
    torch.save({name: value for name, value in state.items() if name in buffers or value.ndim}, tmp_path / "ae.pt")
    assert_same(import_sae(tmp_path), x, *formula(x))


def test_a_batch_top_k_of_before_its_threshold_is_read_by_row_when_asked(tmp_path):
    dictionary_learning_batchtopk(tmp_path)
    state = torch.load(tmp_path / "ae.pt")
    torch.save({name: value for name, value in state.items() if value.ndim}, tmp_path / "ae.pt")
    with pytest.raises(ArtifactError, match="without a calibrated threshold"):
        import_sae(tmp_path)
    assert import_sae(tmp_path, row_top_k=K).k == K


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_become_float32(dtype, tmp_path):
    state = {name: tensor.to(dtype) for name, tensor in direct().items()}
    write_saelens(tmp_path, state, architecture="standard")
    sae = import_sae(tmp_path)
    assert {tensor.dtype for tensor in sae.state_dict().values()} == {torch.float32}
    assert torch.equal(sae.W_enc, state["W_enc"].float())


def test_an_atom_of_length_zero_leaves_its_latent_silent(tmp_path):
    state = direct()
    state["W_dec"][K - 1 :] = 0  # so that fewer than k can be active, and silent ones fill the row
    write_saelens(tmp_path, state, architecture="topk", k=K, rescale_acts_by_decoder_norm=True)
    sae, x = import_sae(tmp_path), rows()
    assert np.isfinite(sae.reconstruct(x)).all()
    assert sae.encode_csr(x)[:, K - 1 :].sum() == 0


def test_a_negative_threshold_becomes_none(tmp_path):
    write_saelens(tmp_path, state := direct(threshold=True), architecture="jumprelu")
    assert torch.equal(import_sae(tmp_path).thresholds, torch.relu(state["threshold"]))


def our_sae(rule, group_sizes=(), seed=0, spread=1.0):
    sae = SparseAutoencoder(D_IN, N_LATENTS, K, group_sizes, rule=rule)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in sae.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        sae.scale.fill_(spread)
        sae.thresholds.abs_()
    return sae


@settings(max_examples=25)
@given(st.sampled_from(["topk", "threshold"]), st.integers(0, 99), st.sampled_from([1e-3, 1.0, 250.0]))
def test_export_keeps_latents_and_reconstruction(tmp_path_factory, rule, seed, spread):
    directory, sae = tmp_path_factory.mktemp("export"), our_sae(rule, seed=seed, spread=spread)
    export_saelens(directory, sae)
    z = np.random.default_rng(seed).standard_normal((20, D_IN))
    x = z * spread + sae.mean.numpy()
    again = import_sae(directory)
    latents = sae.encode_csr(x).toarray()
    np.testing.assert_allclose(again.encode_csr(x).toarray(), latents, atol=2e-5 * max(1, 1 / spread))
    np.testing.assert_allclose(again.reconstruct(x), sae.reconstruct(x), atol=2e-5 * max(1, spread))


@pytest.mark.parametrize("rule", ["topk", "threshold"])
def test_export_keeps_latents_and_reconstruction_of_columns_with_scales_of_their_own(rule, tmp_path):
    sae = our_sae(rule)
    sae.scale = torch.logspace(-2, 2, D_IN)
    export_saelens(tmp_path, sae)
    x = rows() * sae.scale.numpy() + sae.mean.numpy()
    again = import_sae(tmp_path)
    np.testing.assert_allclose(again.encode_csr(x).toarray(), sae.encode_csr(x).toarray(), atol=1e-3)
    np.testing.assert_allclose((again.reconstruct(x) - sae.reconstruct(x)) / sae.scale.numpy(), 0, atol=1e-3)


@pytest.mark.parametrize("rule", ["topk", "threshold"])
def test_export_keeps_rule_k_and_groups(rule, tmp_path):
    export_saelens(tmp_path / "new", our_sae(rule, (4, 12)))
    again = import_sae(tmp_path / "new")
    assert (again.rule, again.k, again.group_sizes) == (rule, K, (4, 12))


def test_export_keeps_latents_where_the_mean_is_large(tmp_path):
    """1,000 spreads from zero, where x W_enc itself would be off by 1e-4."""
    sae = our_sae("threshold", spread=0.5)
    sae.mean.fill_(500.0)
    export_saelens(tmp_path, sae)
    x = (500 + 0.5 * rows()).astype(np.float32)
    np.testing.assert_allclose(import_sae(tmp_path).encode_csr(x).toarray(), sae.encode_csr(x).toarray(), atol=1e-5)


# What cannot be read


@pytest.mark.parametrize("setting", ["layer_norm", "constant_norm_rescale", "covariance_whitening"])
def test_normalisation_that_one_scale_cannot_express_is_named(setting, tmp_path):
    write_saelens(tmp_path, direct(), architecture="standard", normalize_activations=setting)
    with pytest.raises(ArtifactError, match=f"normalize_activations = '{setting}'"):
        import_sae(tmp_path)


def test_a_normalisation_factor_kept_elsewhere_is_an_error(tmp_path):
    write_saelens(tmp_path, direct(), architecture="standard", normalize_activations="expected_average_only_in")
    with pytest.raises(ArtifactError, match="fold_activation_norm_scaling_factor"):
        import_sae(tmp_path)


def uncalibrated_saelens(directory):
    state = direct() | {"topk_threshold": torch.tensor(0.0)}
    write_saelens(directory, state, architecture="batchtopk", k=K, rescale_acts_by_decoder_norm=False)


def uncalibrated_dictionary_learning(directory):
    state = linear(b_dec=D_IN) | {"k": torch.tensor(K), "threshold": torch.tensor(-1.0)}
    write_dictionary_learning(directory, state, "BatchTopKSAE", k=K)


def uncalibrated_euclid(directory):
    write_euclid(directory / "sae.pth")


@pytest.mark.parametrize("write", [uncalibrated_saelens, uncalibrated_dictionary_learning, uncalibrated_euclid])
def test_batch_top_k_without_a_threshold_is_read_only_when_told_how(write, tmp_path):
    write(tmp_path)
    with pytest.raises(ArtifactError, match=r"without a calibrated threshold.*row_top_k"):
        import_sae(tmp_path)
    assert import_sae(tmp_path, row_top_k=K).k == K


@pytest.mark.parametrize(
    ("write", "arguments", "message"),
    [
        (saelens_topk, {"row_top_k": K}, "row_top_k is for batch-top-k, this is top_k"),
        (saelens_batchtopk, {"row_top_k": K + 1}, "trained with k = 3, row_top_k is 4"),
        (saelens_matryoshka_batchtopk, {"group_sizes": (8, 8)}, r"expected group_sizes \[8, 8\], it holds \[2, 5, 9\]"),
        (saelens_topk, {"group_sizes": (8, 9)}, "sum to n_latents=16"),
        (uncalibrated_euclid, {"row_top_k": N_LATENTS + 1}, "k must lie in"),
        (uncalibrated_euclid, {"row_top_k": 0}, "k must lie in"),
    ],
)
def test_arguments_that_contradict_the_checkpoint_are_refused(write, arguments, message, tmp_path):
    write(tmp_path)
    with pytest.raises(ArtifactError, match=message):
        import_sae(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda d: write_saelens(d, direct(), architecture="transcoder"), "'transcoder'.*jumprelu, gated"),
        (lambda d: write_saelens(d, direct(), activation_fn="tanh-relu"), "activation_fn = 'tanh-relu'"),
        (lambda d: write_dictionary_learning(d, linear(), "IdentityDict"), "'IdentityDict'.*AutoEncoderTopK"),
        (lambda d: write_sparsify(d, linear(), activation="groupmax"), "activation = 'groupmax'.*topk"),
        (lambda d: write_sparsify(d, linear(), transcode=True), "transcode = True"),
        (lambda d: write_sparsify(d, linear(), skip_connection=True), "skip_connection = True"),
        (lambda d: write_saelens(d, direct(), architecture="topk"), "positive integer k, found None"),
        (lambda d: write_saelens(d, direct(), architecture="topk", k=2.5), "positive integer k, found 2.5"),
        (lambda d: write_saelens(d, direct(), architecture="standard", d_in=7), r"shape \(7, 16\), found \(6, 16\)"),
        (
            lambda d: write_saelens(
                d, direct() | {"topk_threshold": torch.tensor(1.0)}, architecture="batchtopk", k=float(K)
            ),
            "expected rescale_acts_by_decoder_norm",
        ),
        (lambda d: write_saelens(d, direct(), architecture="jumprelu"), "missing: threshold"),
        (lambda d: write_saelens(d, direct(threshold=1), architecture="standard"), "unexpected: threshold"),
    ],
)
def test_what_does_not_fit_is_named(write, message, tmp_path):
    write(tmp_path)
    with pytest.raises(ArtifactError, match=message):
        import_sae(tmp_path)


def test_a_finetuning_factor_is_not_dropped(tmp_path):
    write_saelens(tmp_path, direct() | {"scaling_factor": torch.full((N_LATENTS,), 1.2)}, architecture="standard")
    with pytest.raises(ArtifactError, match="unexpected: scaling_factor"):
        import_sae(tmp_path)


def test_k_that_differs_between_weights_and_settings_is_an_error(tmp_path):
    dictionary_learning_topk(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["trainer"]["k"] = K + 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=r"expected k = 3 as in ae\.pt, found 4"):
        import_sae(tmp_path)


def test_weights_that_are_not_finite_are_an_error(tmp_path):
    state = direct()
    state["W_dec"][0, 0] = torch.nan
    write_saelens(tmp_path, state, architecture="standard")
    with pytest.raises(ArtifactError, match="W_dec holds NaN"):
        import_sae(tmp_path)


class Intruder:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("wrap", [lambda intruder: intruder, lambda intruder: {"b_dec": intruder}])
def test_code_in_a_checkpoint_does_not_run(wrap, tmp_path):
    torch.save(wrap(Intruder(tmp_path / "ran")), tmp_path / "sae.pth")
    with pytest.raises(ArtifactError, match="never loaded"):
        import_sae(tmp_path, row_top_k=K)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_no_state_dict_is_an_error(tmp_path):
    torch.save([torch.ones(3)], tmp_path / "sae.pth")
    with pytest.raises(ArtifactError, match="expected a state_dict of tensors, found list"):
        import_sae(tmp_path, row_top_k=K)


@settings(max_examples=40)
@given(st.sampled_from([saelens_topk, dictionary_learning_topk, sparsify_topk]), st.floats(0, 0.999))
def test_a_file_cut_short_is_an_error(tmp_path_factory, case, share):
    directory = tmp_path_factory.mktemp("cut")
    case(directory)
    file = next(file for file in directory.iterdir() if file.suffix != ".json")
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArtifactError, match=file.name):
        import_sae(directory)


@settings(max_examples=60)
@given(st.binary(max_size=60), st.booleans())
def test_bytes_that_are_no_checkpoint_are_an_error(tmp_path_factory, content, is_zipped):
    path = tmp_path_factory.mktemp("bytes") / "sae.pth"
    path.write_bytes(content)
    if is_zipped:  # as torch packs its pickle
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", "3")
    with pytest.raises(ArtifactError, match=r"sae\.pth"):
        import_sae(path, row_top_k=K)


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
@pytest.mark.parametrize("case", [saelens_topk, dictionary_learning_topk, sparsify_topk])
def test_settings_that_cannot_be_read_are_an_error(case, content, tmp_path):
    case(tmp_path)
    file = next(file for file in tmp_path.iterdir() if file.suffix == ".json")
    file.write_text(content)
    with pytest.raises(ArtifactError, match=file.name):
        import_sae(tmp_path)


@pytest.mark.parametrize("case", [saelens_topk, dictionary_learning_topk, sparsify_topk])
def test_weights_without_settings_are_an_error(case, tmp_path):
    case(tmp_path)
    next(file for file in tmp_path.iterdir() if file.suffix == ".json").unlink()
    with pytest.raises(ArtifactError, match="the weights alone do not say what they are"):
        import_sae(tmp_path)


def test_a_directory_with_none_or_several_checkpoints_says_what_it_holds(tmp_path):
    with pytest.raises(ArtifactError, match=r"sae_weights\.safetensors.*found nothing"):
        import_sae(tmp_path)
    write_euclid(tmp_path / "a.pth")
    write_euclid(tmp_path / "b.pth")
    with pytest.raises(ArtifactError, match=r"found a\.pth, b\.pth"):
        import_sae(tmp_path, row_top_k=K)


def test_a_path_to_nothing_is_an_error(tmp_path):
    with pytest.raises(ArtifactError, match=r"expected a directory or a file \.pth, \.pt, \.npz, found nothing"):
        import_sae(tmp_path / "absent")
