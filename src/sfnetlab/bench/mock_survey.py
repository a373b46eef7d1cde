"""What the mock survey asks of a method: how far colours, pixel statistics, photometry and all factors get.

The reference of each row is what is asked of the survey; the case says how. RMSEs are those of `oh_p50`, in dex, in
galaxies to which nothing was fitted. No speed is measured here.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab import runtime
from sfnetlab.bench.compare import Row
from sfnetlab.methods.oracle import boosting
from sfnetlab.metrics.pixel_statistics import NAMES, pixel_statistics
from sfnetlab.surveys.lines import AGN, COMPOSITE, STAR_FORMING
from sfnetlab.surveys.mock_population import DISTRACTORS, INTERACTIONS, MORPHOLOGY, make_population
from sfnetlab.surveys.mock_render import IRREGULAR, MERGER, SPIRAL, render_images

N_GALAXIES, N_IMAGES, N_CHANGED = 36_000, 8_000, 100
"""How many galaxies have factors; how many of them have images; in how many of these one factor after another changes.
"""
_FIELD_ARCSEC, _SIZE, _SEED, _TRAIN_SHARE = 38.0, 64, 11, 0.7
_LABEL, _VISIBLE = "oh_p50", "oh_p50_visible"
_MAGNITUDES = [f"modelMag_{band}" for band in "ugriz"]
_GRI = _MAGNITUDES[1:4]
_RENDERED = {"factor_effective_radius_arcsec": "factor_disc_scale_arcsec"}
"""The factor that an image is made of, for one that follows from it."""


class Found(NamedTuple):
    """A number of the survey beside what was asked."""

    case: str
    value: float
    asked: float
    unit: str = ""


def mock_survey(device: str) -> Iterator[Row]:
    """Yield a row for each demand on the mock survey."""
    yield from rows_of(N_GALAXIES, N_IMAGES, N_CHANGED, device)


def rows_of(n_galaxies: int, n_images: int, n_changed: int, device: str) -> Iterator[Row]:
    """Yield the rows of `mock_survey` for these numbers of galaxies."""
    population = make_population(n_galaxies, _SEED, _FIELD_ARCSEC)
    measured = population[population[_LABEL] > 0]
    oracle = _rmse(measured.filter(like="factor_"), measured[_LABEL])
    for questions in (
        _of_catalogue(measured, oracle),
        _of_images(population.iloc[:n_images], oracle),
        [_visibility(population.iloc[:n_images], n_changed)],
        _of_shares(population),
    ):
        for found in questions:
            yield Row(
                name="mock-survey",
                case=found.case,
                ours=found.value,
                reference=found.asked,
                unit=found.unit,
                ratio=found.value / found.asked,
                threads=runtime.n_threads(),
                device=device,
            )


def _of_catalogue(measured: pd.DataFrame, oracle: float) -> Iterator[Found]:
    from sklearn.ensemble import RandomForestRegressor

    label, visible, factors = measured[_LABEL], measured[_VISIBLE], measured.filter(like="factor_")
    photometry = measured[[*_MAGNITUDES, "petroR50_r", "petroR90_r"]].join(_colours(measured))
    log_n2 = pd.Series(np.log10((measured["nii_6584_flux"] / measured["h_alpha_flux"]).clip(1e-3)))
    forest = RandomForestRegressor(200, min_samples_leaf=10, n_jobs=runtime.n_threads(), random_state=0)
    yield Found("scatter of the label (near 0.20)", float(label.std()), 0.20, "dex")
    yield Found("scatter at fixed mass (0.10 to 0.12)", _rmse(measured[["lgm_tot_p50"]], label), 0.11, "dex")
    yield Found("oracle, boosting on all factors (0.065 to 0.08)", oracle, 0.0725, "dex")
    yield Found("random forest on gri (0.125 to 0.135)", _rmse(measured[_GRI], label, forest), 0.13, "dex")
    yield Found("boosting on photometry, over the oracle (at least)", _rmse(photometry, label) / oracle, 1.35)
    at_fixed_gri = _rmse(measured[_GRI], visible)
    with_morphology = _rmse(measured[[*_GRI, *MORPHOLOGY]], visible)
    share = 1 - (with_morphology / at_fixed_gri) ** 2
    yield Found("share of visible variance at fixed gri that is morphological (at least)", share, 0.4)
    whole = _rmse(factors, visible)
    for one, other in INTERACTIONS:
        # Trees that see one factor do not see the other, nor what nearly is one of them.
        sets = [_places_without(factors, one), _places_without(factors, other)]
        apart = _rmse(factors, visible, boosting().set_params(interaction_cst=sets))
        pair = f"{_short(one)} x {_short(other)}"
        yield Found(f"visible RMSE without {pair}, over that with it (above)", apart / whole, 1.0)
    of_n2 = _rmse(factors, log_n2)
    yield Found("log [NII]/Ha from photometry, over its own oracle (above)", _rmse(photometry, log_n2) / of_n2, 1.0)


def _of_images(population: pd.DataFrame, oracle: float) -> Iterator[Found]:
    from sklearn.linear_model import LinearRegression

    is_measured = (population[_LABEL] > 0).to_numpy()
    measured = population[is_measured]
    statistics = pd.DataFrame(pixel_statistics(_images(measured)), columns=list(NAMES), index=measured.index)
    single = _colours(measured).join(statistics)
    r = single.corrwith(measured[_LABEL]).abs()
    yield Found(f"largest |r| of one colour or pixel statistic (at most): {r.idxmax()}", float(r.max()), 0.7)
    linear = _rmse(statistics, measured[_LABEL], LinearRegression())
    yield Found(f"linear fit of {len(NAMES)} pixel statistics, over the oracle (at least)", linear / oracle, 1.25)


def _visibility(population: pd.DataFrame, n: int) -> Found:
    """How much an image changes with a distractor, over that of factors that matter: medians of each, RMS over pixels.

    A factor of a spiral with arms becomes that of another one, and every random number stays.
    """
    is_armed = (population["factor_type"] == SPIRAL) & (population["factor_n_arms"] > 0)
    spirals = population[is_armed].iloc[: 20 * n]

    def change(factor: str) -> float:
        column = _RENDERED.get(factor, factor)
        rows = spirals[spirals[column] > 0].iloc[:n]
        swapped = rows.assign(**{column: np.roll(rows[column], 1)})
        before, after = (_images(each).astype(np.float64) for each in (rows, swapped))
        return float(np.sqrt(np.mean((after - before) ** 2)))

    distracting, telling = (np.median([change(factor) for factor in names]) for names in (DISTRACTORS, MORPHOLOGY))
    return Found("visibility of distractors, over factors that matter (at least)", float(distracting / telling), 1.0)


def _of_shares(population: pd.DataFrame) -> Iterator[Found]:
    kind, bpt = population["factor_type"], population["bptclass"]
    has_bar, has_companion = population["factor_bar_strength"] > 0, population["factor_companion_flux_ratio"] > 0
    for name, rows, asked in (
        ("mergers (at most)", kind == MERGER, 0.05),
        ("irregulars (at most)", kind == IRREGULAR, 0.15),
        ("bars (near)", has_bar, 0.3),
        ("companions (at most)", has_companion, 0.3),
        ("nuclei that show (at most)", population["factor_agn_fraction"] > 0, 0.15),
        ("star-forming galaxies (near)", bpt == STAR_FORMING, 0.7),
        ("composites (near)", bpt == COMPOSITE, 0.1),
        ("AGN (near)", bpt == AGN, 0.1),
    ):
        yield Found(f"share of {name}", float(rows.mean()), asked)


def _rmse(X: pd.DataFrame, y: pd.Series, regressor: Any = None) -> float:
    """RMSE in the last rows, of a regressor that is fitted to the first; boosting if none is given."""
    n_train = int(_TRAIN_SHARE * len(X))
    model = boosting() if regressor is None else regressor
    model.fit(X.iloc[:n_train], y.iloc[:n_train])
    return float(np.sqrt(np.mean((y.iloc[n_train:] - model.predict(X.iloc[n_train:])) ** 2)))


def _colours(catalog: pd.DataFrame) -> pd.DataFrame:
    pairs = combinations(_MAGNITUDES, 2)
    return pd.DataFrame({f"{blue} - {red}": catalog[blue] - catalog[red] for blue, red in pairs})


def _places_without(factors: pd.DataFrame, left_out: str) -> Sequence[int]:
    alike = {left_out, *(("factor_n_clumps",) if left_out == "factor_clump_strength" else ())}
    return [place for place, name in enumerate(factors.columns) if name not in alike]


def _images(rows: pd.DataFrame) -> NDArray[np.uint8]:
    images = np.empty((len(rows), _SIZE, _SIZE, 3), dtype=np.uint8)
    render_images(rows, _SIZE, _FIELD_ARCSEC, 0, images)
    return images


def _short(factor: str) -> str:
    return factor.removeprefix("factor_")
