"""Layouts that libraries wrote since 2023, against each library's formula in a slow loop over rows and latents."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sfnetlab.errors import ArtifactError
from sfnetlab.models.foreign import import_sae

D_IN, N_LATENTS, K = 5, 12, 3
X = 2 * np.random.default_rng(1).standard_normal((25, D_IN)) + 0.5


def tensors(**shapes):
    generator = torch.Generator().manual_seed(0)
    return {name: 0.3 + torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def direct():
    return tensors(W_enc=(D_IN, N_LATENTS), b_enc=N_LATENTS, W_dec=(N_LATENTS, D_IN), b_dec=D_IN)


def linear(**more):
    shapes = {"encoder.weight": (N_LATENTS, D_IN), "encoder.bias": N_LATENTS, "decoder.weight": (D_IN, N_LATENTS)}
    return tensors(**shapes, **more)


def slow(W_enc, b_enc, W_dec, b_dec, *, subtracts=True, threshold=0.0, k=None, x=X):
    """Latents and reconstructions by loops: active are those above a threshold, or the k largest if positive."""
    W_enc, b_enc, W_dec, b_dec = (tensor.double().tolist() for tensor in (W_enc, b_enc, W_dec, b_dec))
    latents, x_hat = np.zeros((len(x), N_LATENTS)), np.zeros((len(x), D_IN))
    for i, row in enumerate(x):
        pre = []
        for j in range(N_LATENTS):
            value = b_enc[j]
            for c in range(D_IN):
                value += (row[c] - (b_dec[c] if subtracts else 0)) * W_enc[c][j]
            pre.append(value)
        limit = threshold if k is None else sorted(pre)[-k - 1]
        for j in range(N_LATENTS):
            if pre[j] > limit and pre[j] > 0:
                latents[i, j] = pre[j]
        for c in range(D_IN):
            x_hat[i, c] = b_dec[c] + sum(latents[i, j] * W_dec[j][c] for j in range(N_LATENTS))
    return latents, x_hat


def require(sae, expected):
    latents, x_hat = expected
    assert 0 < (latents > 0).mean() < 1
    np.testing.assert_allclose(sae.encode_csr(X).toarray(), latents, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sae.reconstruct(X), x_hat, rtol=1e-5, atol=1e-5)


def of_linear(state, bias, **rule):
    W_dec = state["decoder.weight"].T
    return slow(state["encoder.weight"].T, state["encoder.bias"], W_dec, state[bias], **rule)


def write(directory, state, config=None, file="ae.pt", config_file="config.json"):
    torch.save(state, directory / file)
    if config is not None:
        (directory / config_file).write_text(json.dumps(config))


# --- how states are wrapped -------------------------------------------------------------------------------------------

TRAINER = {"trainer": {"dict_class": "AutoEncoderTopK", "activation_dim": D_IN, "dict_size": N_LATENTS, "k": K}}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
        lambda state: {f"module._orig_mod.ae.{name}": value for name, value in state.items()},
        lambda state: {name.replace("encoder.", "encoder._orig_mod."): value for name, value in state.items()},
        lambda state: {"state_dict": state, "step": 10},
        lambda state: {"model": {"ae": state}, "optimizer": {"lr": 0.1}},
        lambda state: {"epoch": 3, "model_state_dict": {f"module.{name}": value for name, value in state.items()}},
    ],
)
def test_wrapped_states_are_read_as_bare_ones(wrap, tmp_path):
    state = linear(b_dec=D_IN)
    write(tmp_path, wrap(state), TRAINER)
    require(import_sae(tmp_path), of_linear(state, "b_dec", k=K))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_are_read(dtype, tmp_path):
    state = {name: value.to(dtype) for name, value in linear(b_dec=D_IN).items()}
    write(tmp_path, state, TRAINER)
    require(import_sae(tmp_path), of_linear(state, "b_dec", k=K))


def test_a_path_to_the_weights_is_a_path_to_their_directory(tmp_path):
    state = linear(b_dec=D_IN)
    write(tmp_path, state, TRAINER)
    require(import_sae(tmp_path / "ae.pt"), of_linear(state, "b_dec", k=K))


def test_a_tensor_that_is_missing_is_named_with_those_found(tmp_path):
    state = linear(b_dec=D_IN)
    del state["encoder.bias"]
    write(tmp_path, {"state_dict": state}, TRAINER)
    with pytest.raises(ArtifactError, match=r"missing: encoder\.bias, unexpected: none"):
        import_sae(tmp_path)


def test_a_checkpoint_without_a_state_says_what_it_holds(tmp_path):
    write(tmp_path, {"step": 3, "optimizer": {"lr": 0.1}}, TRAINER)
    with pytest.raises(ArtifactError, match="expected a state_dict of tensors, found dict with step, optimizer"):
        import_sae(tmp_path)


# --- dictionary_learning ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"dict_size": N_LATENTS, "activation_dim": D_IN, "io": "out"}, {"trainer": {}}])
def test_an_autoencoder_of_2023_needs_no_class_in_its_settings(config, tmp_path):
    state = linear(bias=D_IN)
    state["decoder.weight"] /= state["decoder.weight"].norm(dim=0)
    write(tmp_path, state, config)
    require(import_sae(tmp_path), of_linear(state, "bias"))


@pytest.mark.parametrize("trainer_class", ["TopKTrainer", "TrainerTopK"])
def test_a_trainer_tells_the_class_of_settings_without_one(trainer_class, tmp_path):
    state = linear(b_dec=D_IN)
    write(tmp_path, state, {"trainer": {"trainer_class": trainer_class, "k": K}})
    require(import_sae(tmp_path), of_linear(state, "b_dec", k=K))


def test_settings_without_class_and_trainer_say_what_they_lack(tmp_path):
    write(tmp_path, linear(b_dec=D_IN), {"trainer": {"k": K}})
    with pytest.raises(ArtifactError, match=r"expected dict_class, or trainer_class as one of TopKTrainer.*found k; "):
        import_sae(tmp_path)


def test_the_first_spelling_of_matryoshka_is_read(tmp_path):
    state = direct() | {"k": torch.tensor(K), "threshold": torch.tensor(0.9), "group_sizes": torch.tensor([4, 8])}
    trainer = {"dict_class": "MatroyshkaBatchTopKSAE", "activation_dim": D_IN, "dict_size": N_LATENTS, "k": K}
    write(tmp_path, state, {"trainer": trainer})
    sae = import_sae(tmp_path)
    require(sae, slow(**{name: state[name] for name in direct()}, threshold=np.float32(0.9)))
    assert sae.group_sizes == (4, 8)


# --- SAELens ----------------------------------------------------------------------------------------------------------


def write_saelens(directory, state, **config):
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, directory / "sae_weights.safetensors")
    save_file({"sparsity": torch.zeros(N_LATENTS)}, directory / "sparsity.safetensors")
    (directory / "cfg.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", ["scaling_factor", "finetuning_scaling_factor"])
def test_the_factor_of_a_finetuned_decoder_goes_into_the_atoms(name, tmp_path):
    state, factor = direct(), torch.linspace(0.5, 2, N_LATENTS)
    write_saelens(tmp_path, state | {name: factor}, d_in=D_IN, d_sae=N_LATENTS, finetuning_scaling_factor=True)
    require(import_sae(tmp_path), slow(**state | {"W_dec": state["W_dec"] * factor[:, None]}))


@pytest.mark.parametrize(
    "config", [{}, {"activation_fn": "relu", "expansion_factor": 4}, {"d_in": D_IN, "d_sae": None}]
)
def test_settings_of_the_first_versions_lack_sizes_that_the_weights_have(config, tmp_path):
    write_saelens(tmp_path, state := direct(), **config)
    require(import_sae(tmp_path), slow(**state))


def test_a_bias_stored_as_one_row_is_a_vector(tmp_path):
    state = direct()
    write_saelens(tmp_path, state | {"b_dec": state["b_dec"][None]}, d_in=D_IN, d_sae=N_LATENTS)
    require(import_sae(tmp_path), slow(**state))


def test_shards_are_joined_by_their_index(tmp_path):
    state = direct()
    write_saelens(tmp_path, state, d_in=D_IN, d_sae=N_LATENTS)
    (tmp_path / "sae_weights.safetensors").unlink()
    shards = {name: f"sae_weights-0000{1 + name.startswith('W')}-of-00002.safetensors" for name in state}
    for shard in set(shards.values()):
        save_file({name: state[name] for name, of_name in shards.items() if of_name == shard}, tmp_path / shard)
    index = tmp_path / "sae_weights.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    require(import_sae(tmp_path), slow(**state))
    (tmp_path / "sae_weights-00002-of-00002.safetensors").unlink()
    with pytest.raises(ArtifactError, match="sae_weights-00002-of-00002"):
        import_sae(tmp_path)


# --- one file ---------------------------------------------------------------------------------------------------------

SETTINGS = {"act_size": D_IN, "dict_size": N_LATENTS, "top_k": K, "input_unit_norm": False, "activation": "relu"}


@pytest.mark.parametrize(
    ("kind", "more", "rule"),
    [
        ("vanilla", {}, {}),
        ("topk", {}, {"k": K}),
        ("batchtopk", {"threshold": torch.tensor([1.2])}, {"threshold": np.float32(1.2)}),
        ("global-matryoshka-topk", {"threshold": torch.tensor(1.2)}, {"threshold": np.float32(1.2)}),
    ],
)
def test_the_batch_top_k_repository_is_read_by_its_settings(kind, more, rule, tmp_path):
    state = direct()
    write(tmp_path, state | more, SETTINGS | {"sae_type": kind}, file="sae.pt")
    require(import_sae(tmp_path), slow(**state, **rule))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input_unit_norm": True}, "input_unit_norm = True"),
        ({"activation": "gelu"}, "activation = 'gelu'"),
        ({"sae_type": "quantile"}, "sae_type = 'quantile'.*vanilla"),
        ({"top_k": None}, "positive integer top_k, found None"),
    ],
)
def test_settings_that_are_not_expressed_are_named(changed, message, tmp_path):
    write(tmp_path, direct(), SETTINGS | {"sae_type": "topk"} | changed, file="sae.pt")
    with pytest.raises(ArtifactError, match=message):
        import_sae(tmp_path)


def test_the_first_one_layer_autoencoders_are_relu(tmp_path):
    state = direct()
    write(tmp_path, state, {"l1_coeff": 3e-4, "dict_mult": 32}, file="25.pt", config_file="25_cfg.json")
    require(import_sae(tmp_path / "25.pt"), slow(**state))


def test_four_tensors_alone_do_not_say_which_latents_are_active(tmp_path):
    state = direct()
    write(tmp_path, state, file="sae.pt")
    with pytest.raises(ArtifactError, match=r"which latents are active stands neither .* row_top_k"):
        import_sae(tmp_path)
    require(import_sae(tmp_path, row_top_k=K), slow(**state, k=K))


def openai(**more):
    return tensors(**{"encoder.weight": (N_LATENTS, D_IN)}, latent_bias=N_LATENTS, pre_bias=D_IN, **more)


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("activation", [{}, {"activation": "ReLU", "activation_state_dict": {}}])
def test_openais_relu_autoencoders_are_read(is_tied, activation, tmp_path):
    state = openai() if is_tied else openai(**{"decoder.weight": (D_IN, N_LATENTS)})
    stored = dict(state)
    if is_tied:
        stored["decoder.linear.weight"] = state["encoder.weight"]
    W_dec = state["encoder.weight"] if is_tied else state["decoder.weight"].T
    torch.save(stored | {"stats_last_nonzero": torch.arange(N_LATENTS)} | activation, tmp_path / "0.pt")
    expected = slow(state["encoder.weight"].T, state["latent_bias"], W_dec, state["pre_bias"])
    require(import_sae(tmp_path / "0.pt"), expected)


def test_openais_top_k_is_refused_as_it_normalises_each_row(tmp_path):
    state = openai(**{"decoder.weight": (D_IN, N_LATENTS)})
    kept = {"activation": "TopK", "activation_state_dict": {"k": K, "postact_fn": "ReLU"}}
    torch.save(state | kept, tmp_path / "0.pt")
    with pytest.raises(ArtifactError, match=r"activation = 'TopK' .*'k': 3.* centres and scales each row"):
        import_sae(tmp_path)


def write_saev(path, state, header):
    with path.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        torch.save(state, file)


@pytest.mark.parametrize(
    ("header", "more", "rule"),
    [
        ({"d_vit": D_IN, "exp_factor": 4, "ghost_grads": False}, {}, {}),
        ({"schema": 2, "cfg": {"activation": {"cls": "Relu", "params": {}}}}, {}, {"subtracts": False}),
        (
            {"schema": 4, "cfg": {"activation": {"cls": "TopK", "params": {"top_k": K}}}},
            {},
            {"subtracts": False, "k": K},
        ),
        (
            {"schema": 5, "cfg": {"activation": {"cls": "BatchTopK", "params": {"top_k": K}}}},
            {"activation.threshold": torch.tensor(1.2)},
            {"subtracts": False, "threshold": np.float32(1.2)},
        ),
    ],
    ids=["without schema", "relu", "top-k", "batch top-k"],
)
def test_saevs_header_tells_the_rule(header, more, rule, tmp_path):
    state = direct()
    write_saev(tmp_path / "sae.pt", state | more, header)
    require(import_sae(tmp_path / "sae.pt"), slow(**state, **rule))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"schema": 1, "cls": "Relu", "cfg": {}}, "schema = 1 cannot be imported"),
        ({"schema": 5, "cfg": {"activation": {"cls": "Odd"}}}, "activation = 'Odd'"),
        ({"schema": 5, "cfg": {"activation": {"cls": "TopK"}}}, "positive integer top_k, found None"),
        ({"schema": 5, "cfg": {"activation": "TopK"}}, "no header of saev"),
    ],
)
def test_a_header_of_saev_that_does_not_tell_is_named(header, message, tmp_path):
    write_saev(tmp_path / "sae.pt", direct(), header)
    with pytest.raises(ArtifactError, match=message):
        import_sae(tmp_path / "sae.pt")


@pytest.mark.parametrize("has_norm", [False, True])
def test_overcompletes_batch_norm_is_folded(has_norm, tmp_path):
    atoms = torch.nn.functional.normalize(direct()["W_dec"])
    encoder = torch.nn.Sequential(torch.nn.Linear(D_IN, N_LATENTS), torch.nn.BatchNorm1d(N_LATENTS))
    with torch.no_grad():
        for value in encoder.state_dict().values():
            value.copy_(0.5 + torch.rand(value.shape)) if value.ndim else None
    encoder = (encoder if has_norm else encoder[:1]).eval()
    state = {f"encoder.final_block.{name}": value for name, value in encoder.state_dict().items()}
    torch.save(state | {"dictionary._weights": atoms}, tmp_path / "sae.pt")
    with pytest.raises(ArtifactError, match="which latents are active"):
        import_sae(tmp_path)
    with torch.no_grad():
        pre = encoder(torch.from_numpy(X).float()).double()
    # The pre-activations are the library's own: as an encoder of the identity they go through the same loops.
    latents = np.zeros((len(X), N_LATENTS))
    for i, row in enumerate(pre.tolist()):
        for j in sorted(range(N_LATENTS), key=lambda j: -row[j])[:K]:
            latents[i, j] = max(row[j], 0)
    require(import_sae(tmp_path, row_top_k=K), (latents, latents @ atoms.double().numpy()))


def test_overcompletes_atoms_of_other_lengths_are_refused(tmp_path):
    state = {
        "encoder.final_block.0.weight": torch.ones(N_LATENTS, D_IN),
        "encoder.final_block.0.bias": torch.ones(N_LATENTS),
    }
    torch.save(state | {"dictionary._weights": direct()["W_dec"]}, tmp_path / "sae.pt")
    with pytest.raises(ArtifactError, match=r"atoms of length 1 .* get_dictionary"):
        import_sae(tmp_path, row_top_k=K)


def test_gemma_scope_subtracts_nothing_from_its_input(tmp_path):
    state, thresholds = direct(), torch.full((N_LATENTS,), 0.8)
    np.savez(tmp_path / "params.npz", **{name: tensor.numpy() for name, tensor in state.items()}, threshold=thresholds)
    require(import_sae(tmp_path), slow(**state, subtracts=False, threshold=np.float32(0.8)))


def test_a_file_of_no_known_layout_says_what_was_found(tmp_path):
    torch.save({"weight": torch.ones(3, 2), "bias": torch.ones(3)}, tmp_path / "x.pt")
    with pytest.raises(ArtifactError, match=r"expected the tensors W_enc.*found weight, bias"):
        import_sae(tmp_path / "x.pt")
