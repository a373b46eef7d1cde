"""Random small experiments that are valid: every one must run to its end.

    uv run tests/random_experiments.py 100         runs the draws 0 to 99 and prints those that fail, and why
    uv run tests/random_experiments.py 100 120     runs the draws 100 to 119
    uv run tests/random_experiments.py --show 7    prints the configuration of draw 7

A draw is a configuration; what is random is which kinds of features, targets, classes, rare galaxies, views and probes
it has, of what kind of survey, and of how many galaxies. Networks that are downloaded are no part of it.
"""

import argparse
import io
import os
import sys
import tempfile
import time
import traceback
import unittest.mock
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from sfnetlab import cli
from sfnetlab.probes import names_of
from sfnetlab.stages import make_figures
from sfnetlab.surveys.mock_population import make_population
from sfnetlab.surveys.mock_render import render_images

FIELD_ARCSEC = 38.0
EMBEDDING = "mae"


class Drawn(NamedTuple):
    """The survey of a draw."""

    kind: str
    """"mock", "folder" or "embeddings"."""
    n: int
    size: int
    """Side of its cutouts in pixels."""
    d: int
    """Columns of its embeddings."""
    has_positions: bool
    has_photometry: bool
    has_factors: bool
    """Whether the catalogue has the columns of morphology: that of a mock survey always has them."""
    has_gaps: bool
    """Whether labels are missing in a quarter of the galaxies."""


def _drawn(rng: np.random.Generator) -> Drawn:
    kind = str(rng.choice(["embeddings", "mock", "folder"], p=[0.65, 0.2, 0.15]))
    n = int(rng.integers(200, 301) if kind != "mock" or rng.random() < 0.7 else rng.integers(300, 901))
    return Drawn(
        kind=kind,
        n=n,
        size=int(rng.choice([32, 48, 64])) if n < 400 else 32,
        d=int(rng.integers(1, 25)),
        has_positions=bool(rng.random() < 0.7) or kind == "mock",
        has_photometry=bool(rng.random() < 0.6) or kind == "mock",
        has_factors=bool(rng.random() < 0.5) or kind == "mock",
        has_gaps=bool(rng.random() < 0.5) and kind != "mock",
    )


def experiment(seed: int) -> str:
    """Return a random configuration as TOML; it names the files that `write_files` writes, as in its own folder."""
    rng = np.random.default_rng(seed)
    survey = _drawn(rng)
    targets = _targets(rng, survey)
    views = [name for name in ("px8", "grey", "blurred") if survey.kind != "embeddings" and rng.random() < 0.25]
    features = _features(rng, survey, list(targets), views)
    parts = [
        f'name = "draw{seed}"',
        f"seeds = {[0, 1] if rng.random() < 0.25 else [0]}",
        _survey_table(survey),
        f'[split]\nkind = "{rng.choice(["hash", "random"])}"\nfractions = [0.5, 0.25, 0.25]',
        *(f"[targets.{name}]\n{settings}" for name, settings in targets.items()),
        *_classes(rng, survey),
        *_rare(rng, survey, features),
        *(f"[views.{name}]\n{_VIEWS[name]}" for name in views),
        "[training]\nepochs = 1\nbatch_size = 32",
        *(f"[[features]]\n{settings}" for settings in features),
        _probes(rng),
        _interpretation(rng),
    ]
    return "\n\n".join(parts) + "\n"


def _survey_table(survey: Drawn) -> str:
    match survey.kind:
        case "mock":
            settings = f"n_galaxies = {survey.n}\nimage_size = {survey.size}"
        case "folder":
            settings = 'catalog = "catalog.parquet"\nimages = "images"\nextension = ".png"'
        case _:
            settings = 'catalog = "catalog.parquet"'
    return f'[survey]\nkind = "{survey.kind}"\n{settings}'


def _targets(rng: np.random.Generator, survey: Drawn) -> dict[str, str]:
    known = {
        "metallicity": 'columns = ["oh_p50"]\ncut = "metallicity"',
        "mass": 'columns = ["lgm_tot_p50"]',
        "both": 'columns = ["lgm_tot_p50", "sfr_tot_p50"]',
        "lines": 'columns = ["log_N2", "log_Ha", "log_O3", "log_Hb"]\ncut = "lines"',
        "quantiles": 'columns = ["lgm_tot_p50"]\nquantiles = [0.16, 0.5, 0.84]',
        "redshift": 'columns = ["z"]',
        "error": 'columns = ["h_alpha_flux_err"]',
    }
    names = rng.permutation(list(known))[: 1 if rng.random() < 0.5 else int(rng.integers(2, 4))]
    return {str(name): known[name] for name in names}


def _classes(rng: np.random.Generator, survey: Drawn) -> Iterator[str]:
    if survey.kind == "mock":
        known = {
            "early": 'column = "factor_type"\npositive = [0, 2, 3]\nnegative = [1]',
            "type": 'column = "factor_type"\nvalues = ["0", "1"]',
        }
        if survey.n < 450:  # one galaxy in five is of type 0
            del known["type"]
    else:
        known = {
            "round": 'column = "is_round"\npositive = [1]\nnegative = [0]',
            "seldom": 'column = "is_seldom"\npositive = [1]\nnegative = [0]',
            "type": 'column = "type"',
            "some": 'column = "type"\nvalues = ["a", "b"]',
        }
    yield from (f"[classes.{name}]\n{settings}" for name, settings in known.items() if rng.random() < 0.3)


def _rare(rng: np.random.Generator, survey: Drawn, features: Sequence[str]) -> Iterator[str]:
    is_searched = any(f'kind = "{kind}"' in each for each in features for kind in ("encoder", "external", "vae"))
    ratio = "factor_axis_ratio" if survey.kind == "mock" else "axis_ratio"
    known = {"heavy": 'column = "lgm_tot_p50"\nabove = 10.6', "thin": f'column = "{ratio}"\nbelow = 0.5'}
    for name, settings in known.items():
        if is_searched and rng.random() < 0.3:
            yield f"[rare.{name}]\n{settings}"


_VIEWS = {
    "px8": "degrade_to = 8",
    "grey": 'colours = "grey"',
    "blurred": "blur_sigma_px = 1.5",
}


def _features(rng: np.random.Generator, survey: Drawn, targets: Sequence[str], views: Sequence[str]) -> list[str]:
    """Settings of one to five [[features]], embeddings before what stands on them."""
    has_images = survey.kind != "embeddings"
    first = ["external"] if not has_images else ["encoder", "random_encoder", "vae", "external"]
    makers: dict[str, Callable[[str], str]] = {
        "pca": lambda on: f'kind = "pca"\non = "{on}"\nn_components = {_few(rng, survey.d)}',
        "ica": lambda on: f'kind = "ica"\non = "{on}"\nn_components = {_few(rng, survey.d)}\nmax_iterations = 20',
        "pls": lambda on: (
            f'kind = "pls"\non = "{on}"\ntarget = "{rng.choice(targets)}"\nn_components = {min(2, survey.d)}'
        ),
        "sae": lambda on: _sae(rng, on),
        "null_sae": lambda on: _null_sae(rng, on),
    }
    features: list[str] = []
    embeddings = [str(name) for name in rng.permutation(first)[: 1 if rng.random() < 0.8 else 2]]
    alone = has_images and rng.random() < 0.15  # a network and nothing that stands on it
    for kind in [] if alone else embeddings:
        features.append(_embedding(rng, kind, targets, views))
    if has_images and (alone or rng.random() < 0.5):
        k = sorted({int(k) for k in rng.choice([1, 2, 4, 8], 1 if rng.random() < 0.6 else 2)})
        shown = f"\nviews = {_listed(['full', *views])}" if views and rng.random() < 0.6 else ""
        features.append(f'name = "sfnet"\nkind = "sfnet"\ntarget = "{rng.choice(targets)}"\nk = {k}{shown}')
    for kind, make in makers.items():
        if features and not alone and rng.random() < 0.35:
            features.append(f'name = "{kind}"\n{make(str(rng.choice(embeddings)))}')
    if rng.random() < 0.5:
        features.append('kind = "mean"')
    if survey.has_photometry and rng.random() < 0.4:
        features.append('kind = "photometry"')
    if survey.has_photometry and not {"mass", "both", "quantiles"} & {*targets} and rng.random() < 0.3:
        features.append('kind = "mass_and_colour"')
    if has_images and rng.random() < 0.3:
        features.append('kind = "pixel_statistics"')
    if survey.kind == "mock" and rng.random() < 0.4:
        features.append('kind = "oracle"\nn_galaxies = 300')
    return [features[i] for i in rng.permutation(len(features))]


def _embedding(rng: np.random.Generator, kind: str, targets: Sequence[str], views: Sequence[str]) -> str:
    match kind:
        case "encoder":
            shown = f"\nviews = {_listed(['full', *views])}" if views and rng.random() < 0.5 else ""
            return f'name = "encoder"\nkind = "encoder"\nweights = "target"\ntarget = "{rng.choice(targets)}"{shown}'
        case "random_encoder":
            return 'name = "random_encoder"\nkind = "encoder"\nweights = "random"'
        case "vae":
            objective = rng.choice(["elbo", "mmd", "none"])
            return f'name = "vae"\nkind = "vae"\nobjective = "{objective}"\nn_latents = 5\nepochs = 1'
        case _:
            return 'name = "external"\nkind = "external"\npath = "embeddings.parquet"\ncolumns = ["e_*"]'


def _sae(rng: np.random.Generator, on: str) -> str:
    variant = str(rng.choice(["topk", "matryoshka", "batch_topk", "relu", "jumprelu", "archetypal"]))
    k = sorted({int(k) for k in rng.choice([1, 2, 4, 8], 1 if rng.random() < 0.6 else 2)})
    codes = ["topk", *(name for name in ("refit", "omp") if rng.random() < 0.3)]
    latents = int(rng.choice([32, 64]))
    return (
        f'kind = "sae"\non = "{on}"\nvariant = "{variant}"\nn_latents = {latents}\nk = {k}\nepochs = 2\n'
        f"codes = {_listed(codes)}"
    )


def _null_sae(rng: np.random.Generator, on: str) -> str:
    arm = rng.choice(["frozen_decoder", "frozen_encoder", "random_dictionary"])
    return f'kind = "null_sae"\non = "{on}"\narm = "{arm}"\nn_latents = 32\nk = [{rng.choice([1, 2, 4])}]\nepochs = 1'


def _few(rng: np.random.Generator, most: int) -> int:
    return int(rng.integers(1, min(most, 5) + 1))


def _probes(rng: np.random.Generator) -> str:
    kinds = [name for name in names_of("values") if rng.random() < 0.6] or ["linear"]
    classifiers = [name for name in names_of("two_classes") if rng.random() < 0.6]
    budgets = sorted({int(n) for n in rng.choice([1, 2, 4, 8, 100, 5000], int(rng.integers(0, 4)))})
    augmented = str(bool(rng.random() < 0.2)).lower()
    return (
        f"[probes]\nkinds = {_listed(kinds)}\nclassifiers = {_listed(classifiers)}\nbudgets = {budgets}\n"
        f"n_bootstrap = 100\ntest_time_augmentation = {augmented}"
    )


def _interpretation(rng: np.random.Generator) -> str:
    lines = ["[interpretation]", "n_permutations = 20"]
    for name, other in (("morphology", '["axis_ratio"]'), ("nuisances", '["z"]'), ("held_fixed", '["z"]')):
        chosen = rng.choice(["default", "empty", "other"], p=[0.6, 0.2, 0.2])
        lines += {"default": [], "empty": [f"{name} = []"], "other": [f"{name} = {other}"]}[chosen]
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def write_files(seed: int, folder: Path) -> None:
    """Write what the configuration of a draw reads: itself, catalogue, embeddings and cutouts."""
    survey = _drawn(np.random.default_rng(seed))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "draw.toml").write_text(experiment(seed))
    population = make_population(survey.n, 0, FIELD_ARCSEC)
    rng = np.random.default_rng(seed)
    numbers = population.select_dtypes("number")
    known = ((numbers - numbers.mean()) / numbers.std().replace(0, 1)).fillna(0).to_numpy()
    x = np.tanh(known @ rng.standard_normal((known.shape[1], survey.d))) + 0.3 * rng.standard_normal(
        (survey.n, survey.d)
    )
    odd = rng.choice(["nothing", "constant", "seldom", "twins", "sparse"], p=[0.5, 0.1, 0.1, 0.1, 0.2])
    if odd == "constant" and survey.d > 5:
        x[:, 0] = 1.0
    elif odd == "seldom" and survey.d > 5:
        x[:, :3] = np.where(rng.random((survey.n, 3)) < 0.02, x[:, :3], 0)  # a part of the split may have none
    elif odd == "twins" and survey.d > 7:
        x[:, 1] = x[:, 0]
    elif odd == "sparse":
        x = np.maximum(x - 0.5, 0)
    embeddings = pd.DataFrame(x.astype(np.float32), columns=[f"e_{i}" for i in range(survey.d)])
    embeddings.insert(0, "id_str", population["id_str"])
    embeddings.to_parquet(folder / "embeddings.parquet", index=False)
    if survey.kind == "mock":
        return
    _catalogue(population, survey, rng).to_parquet(folder / "catalog.parquet", index=False)
    if survey.kind == "folder":
        from PIL import Image

        images = np.zeros((survey.n, survey.size, survey.size, 3), dtype=np.uint8)
        render_images(population, survey.size, FIELD_ARCSEC, 0, images)
        (folder / "images").mkdir(exist_ok=True)
        for id_str, image in zip(population["id_str"], images, strict=True):
            Image.fromarray(image).save(folder / "images" / f"{id_str}.png")


def _catalogue(population: pd.DataFrame, survey: Drawn, rng: np.random.Generator) -> pd.DataFrame:
    catalog = population.copy()
    n = len(catalog)
    catalog["axis_ratio"] = catalog["factor_axis_ratio"]
    catalog["is_round"] = (catalog["axis_ratio"] > catalog["axis_ratio"].median()).astype(int)
    catalog["is_seldom"] = (rng.random(n) < 0.4).astype(int)
    catalog["type"] = np.resize(["a", "b", "c"] if n > 240 and not survey.has_gaps else ["a", "b"], n)[
        rng.permutation(n)
    ]
    if not survey.has_factors:
        catalog = catalog.drop(columns=[name for name in catalog if name.startswith("factor_")])
    if not survey.has_photometry:
        catalog = catalog.drop(columns=[name for name in catalog if "Mag" in name or "petro" in name])
    if not survey.has_positions:
        catalog = catalog.drop(columns=["ra", "dec"])
    if survey.has_gaps:
        for name in ("z", "lgm_tot_p50", "axis_ratio", "type"):
            catalog[name] = catalog[name].astype(object if name == "type" else float)
            catalog.loc[rng.random(n) < 0.25, name] = None
    return catalog


# --- by hand ----------------------------------------------------------------------------------------------------------


@contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Work in a folder, for paths in configurations are relative to it."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run(seed: int, folder: Path) -> int:
    """Run a draw in a folder and export all of it; return the first exit status that is not 0, else 0.

    Figures are drawn, but not written: that takes longer than all the rest.
    """
    write_files(seed, folder)
    common = ["draw.toml", "--out", "out", "-q"]
    exports = [["export", *common, "--to", form, "--format", form] for form in ("parquet", "csv", "fits")]
    with in_folder(folder), unittest.mock.patch.object(make_figures, "save_figure"):
        status = cli.main(["run", *common, "--device", "cpu"])
        return status or next(filter(None, map(cli.main, exports)), 0)


def main() -> int:
    """Run many draws and print which fail."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", type=int, nargs="+")
    parser.add_argument("--only", help="draws of this kind of survey alone: mock, folder or embeddings")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--keep", type=Path, help="a folder for the results, which are thrown away without it")
    arguments = parser.parse_args()
    if arguments.show:
        sys.stdout.write(experiment(arguments.numbers[0]))
        return 0
    warnings.simplefilter("error")  # as pytest does: a flood of warnings is a failure
    seeds = [
        seed for seed in range(*arguments.numbers) if arguments.only in (None, _drawn(np.random.default_rng(seed)).kind)
    ]
    failed = []
    for seed in seeds:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            try:
                status: int | str = run(seed, Path(folder) if arguments.keep is None else arguments.keep / str(seed))
            except Exception:  # noqa: BLE001 - what fails is printed, and the next draw follows
                status = traceback.format_exc()
        sys.stdout.write(f"draw {seed}: {status} in {time.monotonic() - started:.0f} s\n")
        sys.stdout.flush()
        if status != 0:
            failed.append(seed)
    sys.stdout.write(f"{len(seeds) - len(failed)} of {len(seeds)} draws ran whole; failed: {failed}\n")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
