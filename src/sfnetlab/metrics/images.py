"""How near a reconstructed cutout is to its original: FVU of pixels, PSNR, SSIM; and what each latent contributes.

Cutouts are float arrays (n, height, width, 3), black 0 and white 1.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.bootstrap import sample_and_resamples

ACTIVE_VARIANCE = 0.01
"""A latent is active whose posterior mean varies more than this over galaxies (Burda et al. 2016, section 5.2)."""
SSIM_SIGMA_PX = 1.5


def squared_error(x: NDArray[np.floating], x_hat: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the sum of squared errors over the values of each cutout, (n,)."""
    _require_pairs(x, x_hat)
    return np.square(x_hat - x, dtype=np.float64).sum(axis=(1, 2, 3))


def peak_signal_to_noise(x: NDArray[np.floating], x_hat: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the PSNR of each cutout in dB, (n,): -10 log10 of its mean squared error; infinite where equal."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(squared_error(x, x_hat) / x[0].size)


def structural_similarity(x: NDArray[np.floating], x_hat: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the mean SSIM of each cutout over its channels, (n,); 1 where equal.

    With the Gaussian window and the constants of the paper, as scikit-image computes it.

    Raises
    ------
    ValueError
        If cutouts are smaller than the window of 11 pixels.

    References
    ----------
    Wang et al. 2004, IEEE Transactions on Image Processing 13, 600.
    """
    from skimage.metrics import structural_similarity as ssim

    _require_pairs(x, x_hat)
    settings = {"gaussian_weights": True, "sigma": SSIM_SIGMA_PX, "use_sample_covariance": False}
    pairs = zip(x, x_hat, strict=True)
    return np.array([ssim(a, b, channel_axis=2, data_range=1.0, **settings) for a, b in pairs], dtype=np.float64)


def reconstruction_quality(
    x: NDArray[np.floating],
    reconstructions: Mapping[str, NDArray[np.floating]],
    mean: NDArray[np.floating],
    *,
    reference: str,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return every measure of several reconstructions of the same cutouts, with 95 % bootstrap intervals.

    Parameters
    ----------
    x : ndarray of shape (n, height, width, 3)
    reconstructions : mapping of name to ndarray of that shape
    mean : ndarray of shape (height, width, 3)
        The mean train cutout: the fraction of variance unexplained compares with it.
    reference
        The name of the one that FVUs of the others are compared with, on the same galaxies.

    Returns
    -------
    DataFrame
        `method, metric, value, low, high, n`; metrics `fvu` (sums over all galaxies: 1 is what the mean cutout
        achieves), `fvu_difference` (minus that of the reference), `squared_error_per_image`,
        `squared_error_per_pixel`, `psnr_db` and `ssim` (means over galaxies).
    """
    weights = np.vstack(list(sample_and_resamples(len(x), n_resamples, seed)))
    total = squared_error(x, np.broadcast_to(mean, x.shape)) @ weights.T
    if not total[0] > 0:
        raise ValueError("every cutout equals the mean cutout: there is no variance to explain")
    errors = {name: squared_error(x, x_hat) for name, x_hat in reconstructions.items()}
    fvus = {name: error @ weights.T / total for name, error in errors.items()}
    rows = []
    for name, x_hat in reconstructions.items():
        numbers = {
            "fvu": fvus[name],
            "fvu_difference": fvus[name] - fvus[reference],
            "squared_error_per_image": errors[name] @ weights.T,
            "squared_error_per_pixel": errors[name] @ weights.T / x[0].size,
            "psnr_db": peak_signal_to_noise(x, x_hat) @ weights.T,
            "ssim": structural_similarity(x, x_hat) @ weights.T,
        }
        if name == reference:
            del numbers["fvu_difference"]
        for metric, (value, *resampled) in numbers.items():
            low, high = np.quantile(resampled, (0.025, 0.975))
            rows.append({"method": name, "metric": metric, "value": value, "low": low, "high": high, "n": len(x)})
    return pd.DataFrame(rows)


def latent_contributions(
    decode: Callable[[NDArray[np.float32]], NDArray[np.floating]],
    latents: NDArray[np.float32],
    mean_latents: NDArray[np.floating],
    x: NDArray[np.floating],
    mean: NDArray[np.floating],
) -> pd.DataFrame:
    """Return what the reconstruction of some cutouts loses when one latent is set to its mean.

    Parameters
    ----------
    decode
        Latents (n, n_latents) to cutouts (n, height, width, 3).
    latents : ndarray of shape (n, n_latents)
        The latents of the cutouts `x`.
    mean_latents : ndarray of shape (n_latents,)
        Their means over the train cutouts.
    mean : ndarray of shape (height, width, 3)
        The mean train cutout.

    Returns
    -------
    DataFrame
        A row a latent: `latent`, `fvu_without` (with this one at its mean) and `fvu_gain` (what less the whole leaves).
    """
    total = squared_error(x, np.broadcast_to(mean, x.shape)).sum()
    whole = squared_error(x, decode(latents)).sum() / total
    rows = []
    for latent, value in enumerate(mean_latents):
        ablated = latents.copy()
        ablated[:, latent] = value
        without = squared_error(x, decode(ablated)).sum() / total
        rows.append({"latent": latent, "fvu_without": without, "fvu_gain": without - whole})
    return pd.DataFrame(rows)


def _require_pairs(x: NDArray[np.floating], x_hat: NDArray[np.floating]) -> None:
    if x.shape != x_hat.shape or x.ndim != 4 or len(x) == 0:
        raise ValueError(f"expected two arrays of one shape (n, height, width, 3), got {x.shape} and {x_hat.shape}")
    for name, values in (("x", x), ("x_hat", x_hat)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: values are not finite")
