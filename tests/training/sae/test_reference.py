"""The plain step's optimizer against its formulas: a row for each latent to be active on, gradients by hand."""

import pytest
import torch
from torch import Tensor

from sfnetlab.training.sae import reference
from sfnetlab.training.sae.settings import SAESettings
from sfnetlab.training.sae.state import DECODER_SPEED, MEAN_ROWS, SQUARE_ROWS, Rates, SAEState, new_state

RATE, D_IN = 0.01, 3
Z = torch.eye(2, D_IN).repeat_interleave(40, dim=0)
"""Rows along the first axis, on which latent 0 is active, then rows along the second, for latent 1."""


def state_of_two() -> SAEState:
    """Each encoder row answers 2 to its own axis and nothing to the other; atoms lie near their axes."""
    atoms = torch.nn.functional.normalize(torch.eye(2, D_IN) + torch.tensor([0.0, 0.0, 0.5]), dim=1)
    weights = {"W_enc": 2 * torch.eye(2, D_IN), "b_enc": torch.zeros(2), "W_dec": atoms, "b_dec": torch.zeros(D_IN)}
    settings = SAESettings(variant="topk", n_latents=2, k=1, seed=0)
    return new_state(settings, weights, silent_after=100, column_speeds=torch.tensor([2.0, 1.0, 0.5]))


def encoder_gradient(state: SAEState, rows: Tensor, latent: int) -> Tensor:
    """Of the mean squared error of these rows, all of them with this latent alone, by column speeds; (D_IN,)."""
    W_enc, b_enc, W_dec, b_dec = (state.weights[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    codes = rows @ W_enc[latent] + b_enc[latent]
    errors = codes[:, None] * W_dec[latent] + b_dec - rows
    return (2 / rows.numel()) * (errors @ W_dec[latent]) @ rows * state.column_speeds


def test_first_gradient_sets_both_means_and_moves_by_the_rate():
    state, before = state_of_two(), state_of_two()
    reference.make_step([state])(Z[:40], [Rates(1, RATE)], 0)
    gradient = encoder_gradient(before, Z[:40], 0)
    mean_square = gradient.square().mean()
    torch.testing.assert_close(state.means["W_enc"][0], gradient)
    torch.testing.assert_close(state.mean_squares["W_enc"][0], mean_square)
    moved = state.weights["W_enc"][0] - before.weights["W_enc"][0]
    torch.testing.assert_close(moved, -RATE * gradient / mean_square.sqrt())
    assert moved.square().mean().sqrt() == pytest.approx(RATE, rel=1e-4)


def test_latents_that_are_silent_stay_and_their_means_decay_with_the_steps_that_they_missed():
    state = state_of_two()
    step = reference.make_step([state])
    step(Z[:40], [Rates(1, RATE)], 0)
    weight, mean, square = (part["W_enc"][0].clone() for part in (state.weights, state.means, state.mean_squares))
    for number in (1, 2):
        step(Z[40:], [Rates(1, RATE)], number)
    assert torch.equal(state.weights["W_enc"][0], weight)
    assert torch.equal(state.means["W_enc"][0], mean)
    gradient = encoder_gradient(state, Z[:40], 0)
    step(Z[:40], [Rates(1, RATE)], 3)
    share = 40 / MEAN_ROWS
    mean = (1 - share) ** 3 * mean + share * gradient
    share = 40 / SQUARE_ROWS
    square = (1 - share) ** 3 * square + share * gradient.square().mean()
    torch.testing.assert_close(state.means["W_enc"][0], mean)
    torch.testing.assert_close(state.mean_squares["W_enc"][0], square)
    torch.testing.assert_close(state.weights["W_enc"][0], weight - RATE * mean / square.sqrt())


def test_decoder_moves_without_momentum_across_the_atom_and_keeps_its_length():
    state, before = state_of_two(), state_of_two()
    reference.make_step([state])(Z[:40], [Rates(1, RATE)], 0)
    atom = before.weights["W_dec"][0]
    errors = 2 * atom - Z[0]
    gradient = (2 / D_IN) * 2 * errors
    gradient -= (gradient @ atom) * atom
    moved = atom - DECODER_SPEED * RATE * gradient / gradient.square().mean().sqrt()
    torch.testing.assert_close(state.weights["W_dec"][0], moved / moved.norm())
    assert "W_dec" not in state.means


@pytest.mark.parametrize("variant", ["relu", "jumprelu"])
def test_variants_without_kernels_have_momentum_in_all_weights(variant):
    weights = state_of_two().weights
    settings = SAESettings(variant=variant, n_latents=2, k=1, seed=0)
    assert set(new_state(settings, weights, silent_after=100).means) == set(weights)
