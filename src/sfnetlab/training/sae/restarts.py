"""Latents that start again in the middle of training, at atoms that many rows miss.

A latent makes room if it is silent, or if it is worth less than such an atom on rows that neither was made from.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from sfnetlab.models.sae import Encoded, SparseAutoencoder
from sfnetlab.training.loop import RESAMPLING, generator
from sfnetlab.training.sae import recipe
from sfnetlab.training.sae.start import FIRST_THRESHOLD, Gather, matched_filters
from sfnetlab.training.sae.state import SAEState, as_model

_FINDING_ROWS, _JUDGING_ROWS = 4096, 8192
"""New atoms are found on the former number of rows, and judged, as the old ones are, on the latter number of others;
where there are fewer rows, on a third and two thirds of them."""


class _Misses(NamedTuple):
    """What an SAE leaves of n rows."""

    residuals: Tensor
    """(n, d_in)"""
    weakest: Tensor
    """(n,): the smallest active value of each row; 0 where no latent is active."""
    without_weakest: Tensor
    """(n, d_in): residuals if the latent of that value were not active."""
    encoded: Encoded


@torch.no_grad()
def restart_latents(state: SAEState, gather: Gather, n_rows: int, step: int, n_steps: int) -> None:
    """Start latents again that are silent, or worth less than an atom that other rows miss.

    Archetypal SAEs and those with a frozen part stay as they are, and so does an SAE whose values are not finite: that
    is the loop's to report.

    Parameters
    ----------
    n_rows
        Number of train rows, from which `gather` takes.
    step, n_steps
        Number of steps that were taken, and of all steps of the run.
    """
    settings = state.settings
    if settings.variant == "archetypal" or settings.frozen != "none":
        # Archetypal atoms are not free to move there: restarts at the nearest raised FVU by 5 to 45 %, and of all
        # centroids hardly one lowers the error of rows in the place of their weakest latents.
        return
    rng = generator(settings.seed, RESAMPLING, step)
    positions = rng.choice(n_rows, min(n_rows, _FINDING_ROWS + _JUDGING_ROWS), replace=False)
    model = as_model(state, recipe.k_at(settings, step, n_steps), is_final=False)
    z, other_z = (gather(part) for part in np.split(positions, [-(-len(positions) // 3)]))
    found, other = _misses(model, z), _misses(model, other_z)
    squared_errors = found.residuals.square().sum(dim=1).cpu().double().numpy()
    n_atoms = min(math.ceil(recipe.CANDIDATES * settings.n_latents), np.count_nonzero(squared_errors))
    if n_atoms == 0 or not np.isfinite(squared_errors).all() or not other.residuals.isfinite().all():
        return
    drawn = rng.choice(len(z), n_atoms, replace=False, p=squared_errors / squared_errors.sum())
    atoms = _missing_atoms(found, torch.from_numpy(drawn).to(z.device))
    atoms = atoms[atoms.norm(dim=1) > 0]
    if len(atoms) == 0:
        return
    encoders = recipe.RESTART_RESPONSE * matched_filters(atoms, z)
    gain = _gain(other, other_z @ encoders.T, atoms)
    is_silent = step - state.last_active > state.silent_after
    restarted, chosen = _swaps(gain, atoms, _value(model, other), is_silent)
    starts: dict[str, Tensor | float] = {"W_dec": atoms[chosen], "W_enc": encoders[chosen], "b_enc": 0.0}
    if settings.variant in recipe.RESTART_L0 and len(chosen):
        share = min(1.0, recipe.RESTART_L0[settings.variant] * settings.k / settings.n_latents)
        bound = (z @ encoders[chosen].T).kthvalue(max(1, round((1 - share) * len(z))), dim=0).values
        if settings.variant == "relu":
            starts["b_enc"] = -bound
        else:
            starts["log_threshold"] = bound.clamp_min(FIRST_THRESHOLD).log()
    for name, start in starts.items():
        state.weights[name][restarted] = start
        state.mean_squares[name][restarted] = 0.0  # the next gradient is as a first one


def _missing_atoms(misses: _Misses, drawn: Tensor) -> Tensor:
    """Directions (len(drawn), d_in) of some rows' residuals, each averaged over all rows whose residual is like it.

    A row counts if its residual's product with the direction is more than its weakest latent. A direction is zero if
    no row counts.
    """
    answers = misses.residuals @ normalize(misses.residuals[drawn]).T
    return normalize(torch.where(answers > misses.weakest[:, None], answers, 0.0).T @ misses.residuals)


def _swaps(gain: Tensor, atoms: Tensor, value: Tensor, is_silent: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the latents that make room, and of the new atoms that take their places.

    The best atom takes the place of the worst latent, and so on, as long as that pays. A silent latent makes room for
    any atom, one that is worth something for an atom that gains `RESTART_GAIN` times as much. Atoms that are like a
    better one share its gain: they can only have what silent latents are left.

    Parameters
    ----------
    gain : Tensor of shape (n_atoms,)
        What each new atom is worth, as by `_gain`.
    value : Tensor of shape (n_latents,)
        What each latent is worth, as by `_value`.
    """
    by_gain = gain.argsort(descending=True)
    likeness = (atoms[by_gain] @ atoms[by_gain].T).triu(1).amax(dim=0)
    by_gain, likeness = by_gain[likeness <= recipe.SAME], likeness[likeness <= recipe.SAME]
    is_like = likeness > recipe.ALIKE
    order = by_gain[is_like.int().argsort(stable=True)]
    # Latents that were active lately, but on none of these rows, cannot be judged.
    cost = torch.where(is_silent, 0.0, torch.where(value == 0, torch.inf, torch.relu(value)))
    cost, worst = cost.sort()
    cost, worst = cost[: len(order)], worst[: len(order)]
    pays = (cost == 0) | (~is_like.sort(stable=True).values & (gain[order] > recipe.RESTART_GAIN * cost))
    return worst[pays], order[pays]


def _misses(model: SparseAutoencoder, z: Tensor) -> _Misses:
    values, indices = model.encode(z)
    residuals = z - model.decode(Encoded(values, indices))
    weakest, slot = torch.where(values > 0, values, torch.inf).min(dim=1)
    weakest = torch.where(weakest.isinf(), 0.0, weakest)
    removed = weakest[:, None] * model.W_dec[indices.gather(1, slot[:, None])[:, 0]]
    return _Misses(residuals, weakest, residuals + removed, Encoded(values, indices))


def _value(model: SparseAutoencoder, misses: _Misses) -> Tensor:
    """By how much the summed squared error rises if one latent is left out and the others stay, (n_latents,).

    Some standard errors are added: a latent that few rows show may be worth more than it seems.
    """
    values, indices = misses.encoded
    along = _products(misses.residuals, model.W_dec, indices)
    rises = (values * (2 * along + values)).flatten()
    nothing = torch.zeros(len(model.W_dec), device=values.device)
    sums, squares = (nothing.index_add(0, indices.flatten(), each) for each in (rises, rises.square()))
    return sums + recipe.STANDARD_ERRORS * squares.sqrt()


def _products(rows: Tensor, table: Tensor, indices: Tensor) -> Tensor:
    """rows[i] . table[indices[i, m]], (n_rows, m).

    They are computed as gradients of a sparse decoder's codes, which reads those rows of the table alone.
    """
    codes = torch.zeros(indices.shape, device=rows.device, requires_grad=True)
    with torch.enable_grad():
        sums = embedding_bag(indices, table, per_sample_weights=codes, mode="sum")
    return torch.autograd.grad(sums, codes, rows)[0]


def _gain(misses: _Misses, answers: Tensor, atoms: Tensor) -> Tensor:
    """By how much the summed squared error falls if one atom takes the place of rows' weakest latents, (n_atoms,).

    It takes the place in those rows where its encoder's answer, of `answers` (n, n_atoms), is larger than the weakest
    value.
    """
    before, without = misses.residuals.square().sum(dim=1), misses.without_weakest.square().sum(dim=1)
    change = (before - without)[:, None] + answers * (2 * misses.without_weakest @ atoms.T - answers)
    change = torch.where(answers > misses.weakest[:, None], change, 0.0)
    return change.sum(dim=0)
