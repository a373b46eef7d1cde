"""Training of autoencoders: the objectives, their terms against oracles, resuming, what is learnt."""

import numpy as np
import pytest
import torch

from sfnetlab.errors import ArtifactError, DataError
from sfnetlab.models.vae import ConvVAE, Posterior
from sfnetlab.training import loop
from sfnetlab.training.vae import (
    BANDWIDTHS,
    VAELoss,
    decode_batches,
    encode_batches,
    kl_divergence,
    squared_mmd,
    train_vae,
)

SIDE, N = 16, 96


@pytest.fixture(scope="module")
def images():
    """Blobs of two factors: where along a row, and how bright."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    centre, flux = rng.uniform(4, 11, N), rng.uniform(0.3, 1, N)
    blobs = flux[:, None, None] * np.exp(-((x - centre[:, None, None]) ** 2 + (y - 7.5) ** 2) / 8)
    return np.repeat((255 * blobs).astype(np.uint8)[..., None], 3, axis=3)


def trained(
    images,
    tmp_path,
    seed=0,
    report=lambda history: None,
    name="checkpoint",
    objective="elbo",
    pixel_variance=None,
    epochs=3,
):
    vae = ConvVAE(SIDE, 4, objective != "none", seed)
    history = train_vae(
        vae, images, np.arange(64), np.arange(64, N), epochs=epochs, batch_size=16, learning_rate=3e-3,
        loss=VAELoss(objective=objective, pixel_variance=pixel_variance), label="vae",
        seed=seed, device="cpu", checkpoint=tmp_path / name, report=report,
    )  # fmt: skip
    return vae, history


# --- terms ------------------------------------------------------------------------------------------------------------


def test_kl_is_that_of_torch_distributions():
    rng = torch.Generator().manual_seed(0)
    posterior = Posterior(torch.randn(5, 3, generator=rng), torch.randn(5, 3, generator=rng))
    normal = torch.distributions.Normal(posterior.mean, torch.exp(posterior.log_variance / 2))
    prior = torch.distributions.Normal(torch.zeros(5, 3), torch.ones(5, 3))
    expected = torch.distributions.kl_divergence(normal, prior).sum(dim=1)
    torch.testing.assert_close(kl_divergence(posterior), expected)


def test_mmd_is_that_of_a_slow_loop_with_many_draws_from_the_prior():
    rng = np.random.default_rng(1)
    latents, prior = rng.normal(0.7, 0.5, (12, 3)), rng.normal(size=(2000, 3))

    def kernel(a, b, variance):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=2) / (2 * variance))

    def without_diagonal(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    expected = np.mean(
        [
            without_diagonal(kernel(latents, latents, 3 * h))
            - 2 * kernel(latents, prior, 3 * h).mean()
            + without_diagonal(kernel(prior, prior, 3 * h))
            for h in BANDWIDTHS
        ]
    )
    assert float(squared_mmd(torch.from_numpy(latents))) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("n", [8, 64])
def test_mmd_of_draws_from_the_prior_is_zero_on_average_whatever_their_number(n):
    rng = torch.Generator().manual_seed(0)
    values = torch.stack([squared_mmd(torch.randn(n, 5, generator=rng)) for _ in range(400)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / 20


@pytest.mark.parametrize("shift", [0.5, 3.0, 30.0])
def test_mmd_has_a_slope_near_to_the_prior_and_far_from_it(shift):
    rng = torch.Generator().manual_seed(0)
    latents = (torch.randn(64, 4, generator=rng) + shift).requires_grad_()
    squared_mmd(latents).backward()
    if shift < 30:
        assert float(latents.grad.sum()) > 1e-3  # down the slope is towards the prior
    else:
        assert torch.isfinite(latents.grad).all()


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["elbo", "mmd", "none"])
def test_every_objective_learns_to_reconstruct(images, tmp_path, objective):
    vae, history = trained(images, tmp_path, objective=objective, epochs=40)
    x = images[64:].astype(np.float64) / 255
    mean = images[:64].mean(axis=0) / 255
    x_hat = decode_batches(vae, encode_batches(vae, images[64:], "cpu"), "cpu")
    assert ((x - x_hat) ** 2).sum() < 0.3 * ((x - mean) ** 2).sum()
    assert history[-1]["valid_squared_error_per_image"] < history[0]["valid_squared_error_per_image"]


def test_records_hold_losses_per_image_and_per_pixel_of_both_parts(images, tmp_path):
    _, history = trained(images, tmp_path)
    n_values = 3 * SIDE**2
    for record in history:
        for part in ("train", "valid"):
            for name in ("loss", "squared_error"):
                assert record[f"{part}_{name}_per_pixel"] == pytest.approx(
                    record[f"{part}_{name}_per_image"] / n_values
                )
        variance = record["pixel_variance"]
        expected = n_values / 2 * np.log(2 * np.pi * variance) + record["valid_kl_per_image"]
        expected += record["valid_squared_error_per_image"] / (2 * variance)
        assert record["valid_loss_per_image"] == pytest.approx(expected, rel=1e-5)


def test_train_and_valid_rows_are_scored_alike(images, tmp_path):
    same = np.concatenate([images[:32], images[:32], images[:32]])
    _, history = trained(same, tmp_path)
    assert history[-1]["train_mmd"] == pytest.approx(history[-1]["valid_mmd"], abs=0.1)
    assert history[-1]["train_squared_error_per_image"] == pytest.approx(
        history[-1]["valid_squared_error_per_image"], rel=0.05
    )


def test_a_pixel_variance_that_is_given_stays(images, tmp_path):
    _, history = trained(images, tmp_path, pixel_variance=0.5)
    assert {record["pixel_variance"] for record in history} == {0.5}


def test_a_greater_pixel_variance_lets_the_prior_weigh_more(images, tmp_path):
    _, own = trained(images, tmp_path, epochs=10, name="a")
    _, plain = trained(images, tmp_path, epochs=10, name="b", pixel_variance=0.5)
    assert plain[-1]["valid_kl_per_image"] < own[-1]["valid_kl_per_image"]


@pytest.mark.parametrize("objective", ["elbo", "mmd"])
def test_resumed_training_equals_uninterrupted(images, tmp_path, monkeypatch, objective):
    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL_S", 0.0)
    whole, expected = trained(images, tmp_path, name="whole", objective=objective)

    class KilledError(Exception):
        pass

    def kill(history):
        if len(history) == 2:
            raise KilledError

    with pytest.raises(KilledError):
        trained(images, tmp_path, report=kill, name="cut", objective=objective)
    resumed, history = trained(images, tmp_path, name="cut", objective=objective)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    timed = ("images_per_s", "seconds")
    assert [{k: v for k, v in record.items() if k not in timed} for record in history] == [
        {k: v for k, v in record.items() if k not in timed} for record in expected
    ]


def test_a_checkpoint_of_other_settings_is_refused(images, tmp_path):
    trained(images, tmp_path)
    with pytest.raises(ArtifactError, match="objective"):
        trained(images, tmp_path, objective="mmd")


def test_seeds_differ(images, tmp_path):
    (a, _), (b, _) = (trained(images, tmp_path, seed=seed, name=str(seed)) for seed in (0, 1))
    assert not torch.equal(a.encoder[0].weight, b.encoder[0].weight)


def test_too_few_rows_are_an_error_that_says_so(images, tmp_path):
    with pytest.raises(DataError, match="2 valid galaxies, got 1"):
        train_vae(
            ConvVAE(SIDE, 2, True), images, np.arange(4), np.array([5]), epochs=1, batch_size=2, learning_rate=1e-3,
            loss=VAELoss(objective="elbo", pixel_variance=None), label="vae",
            seed=0, device="cpu", checkpoint=tmp_path / "c", report=lambda history: None,
        )  # fmt: skip


def test_decoding_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        decode_batches(ConvVAE(8, 2, True), np.zeros((1, 2)), "cpu")
