"""How long the feature atlas takes to build, how large it is and how fast it shows, at the size it is made for.

The references are demands, not other programs: 20,000 galaxies with 512 SFNet and 2,048 SAE features are built in 5
minutes on two cores and take 150 MB; the first view appears in 2 s, a feature's page in 0.5 s; memory does not grow.
"""

import contextlib
import json
import logging
import math
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sfnetlab import runtime
from sfnetlab.atlas.content import Atlas, Evidence, Galaxies, Predictions, ShownTable
from sfnetlab.atlas.site import write_site
from sfnetlab.bench.compare import Row
from sfnetlab.interpret.catalog import associate_features, describe_features
from sfnetlab.jobs import TableSpec
from sfnetlab.metrics.tables import rows_of
from sfnetlab.settings import CatalogColumns
from sfnetlab.surveys.catalog import measured_labels
from sfnetlab.surveys.columns import measured
from sfnetlab.surveys.mock_population import make_population

log = logging.getLogger(__name__)

N_GALAXIES, N_SFNET, N_SAE, K_SFNET, K_SAE, IMAGE_SIZE = 20_000, 512, 2048, 8, 32, 64
MAX_BUILD_S, MAX_MB, MAX_FIRST_VIEW_S, MAX_PAGE_S, MAX_GROWTH = 300.0, 150.0, 2.0, 0.5, 1.1
N_BROWSED = 200
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
COLUMN = "oh_p50"


def atlas(device: str) -> Iterator[Row]:
    """Build a made-up atlas, open it in Chromium and browse 200 features; yield a row for each demand.

    Without Chromium or Playwright the atlas is not opened: a warning says so, and only time and size have rows.
    """
    size = f"{N_GALAXIES} galaxies, {N_SFNET} + {N_SAE} features"
    plain, networks = made_up_atlas(N_GALAXIES, N_SFNET, N_SAE, K_SFNET, K_SAE, IMAGE_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        written = write_site(
            Path(folder), mapped(plain, networks, device), {table.name: "0" * 64 for table in plain.tables}
        )
        seconds = time.perf_counter() - started
        yield _row(f"build {size}, {IMAGE_SIZE} px, against the demand", seconds, MAX_BUILD_S, "s", device)
        yield _row(f"size of {size}, against the demand", written["bytes"] / 1e6, MAX_MB, "MB", device)
        yield from _shown(Path(folder), plain, device)


def _shown(folder: Path, plain: Atlas, device: str) -> Iterator[Row]:
    """Yield the rows of the demands on a browser, if there is one: times to show pages, and growth of memory."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        log.warning("the atlas is not opened: there is no Playwright; `uv run --group browser` brings it")
        return
    chromium = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if chromium is None:
        log.warning("the atlas is not opened: no %s was found", " or ".join(CHROMIUM))
        return
    page_url = (folder / "index.html").as_uri()
    largest = plain.tables[-1]
    features = largest.evidence.features["feature"].tolist()[:N_BROWSED]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        first = []
        for _ in range(3):
            context = browser.new_context()
            first.append(_seconds_to(context.new_page(), page_url, "#/"))
            context.close()
        yield _row("first view, from disk, against the demand", statistics.median(first), MAX_FIRST_VIEW_S, "s", device)
        page = browser.new_page()
        _seconds_to(page, page_url, "#/")
        routes = [f"#/feature/{largest.name}/{feature}" for feature in features]
        seconds = [_seconds_to(page, page_url, route) for route in routes]
        browser.close()
    yield _row(
        f"a feature's page, median of {len(seconds)}, against the demand",
        statistics.median(seconds),
        MAX_PAGE_S,
        "s",
        device,
    )
    yield _row(
        f"a feature's page, slowest of {len(seconds)}, against the demand", max(seconds), MAX_PAGE_S, "s", device
    )
    sizes = _renderer_mb(chromium, folder, routes)
    third = len(sizes) // 3
    growth = statistics.median(sizes[-third:]) / statistics.median(sizes[third : 2 * third])
    case = f"memory in the last third of {len(routes)} features over the second third, against the demand"
    yield _row(case, growth, MAX_GROWTH, "", device)


def _seconds_to(page: Any, url: str, route: str) -> float:
    """Open a page of the atlas and return the seconds until it is drawn.

    The atlas says in an attribute which page it shows.
    """
    started = time.perf_counter()
    page.goto(f"{url}{route}")
    page.wait_for_selector(f'main[data-shown="{route}"]', state="attached")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return time.perf_counter() - started


_DRIVER = """<iframe width="1280" height="720" src="index.html"></iframe><script>
const routes = {routes};
setTimeout(() => setInterval(() => {{
  if (routes.length) document.querySelector("iframe").src = `index.html${{routes.shift()}}`;
}}, {each_ms}), {first_ms});
</script>"""


def _renderer_mb(
    chromium: str, folder: Path, routes: list[str], first_s: float = 3.0, each_s: float = 0.3
) -> list[float]:
    """Return the megabytes of the largest process that draws pages, one value for each route that is shown.

    A page with a frame shows one route after another; /proc of Linux knows the resident size (NaN elsewhere).
    Playwright will not do here: a page that it looks at keeps the content of every file that was loaded.
    """
    driver = folder / "leaf-through.html"
    driver.write_text(_DRIVER.format(routes=json.dumps(routes), each_ms=1000 * each_s, first_ms=1000 * first_s))
    sizes: list[float] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,800"]
        # without a port for a debugger Chromium draws one page and ends
        command += [f"--user-data-dir={profile}", "--remote-debugging-port=0", driver.as_uri()]
        silent = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=silent, stderr=silent, start_new_session=True) as browser:
            time.sleep(first_s)
            for _ in routes:
                time.sleep(each_s)
                sizes.append(max(map(_resident_mb, _renderers(browser.pid)), default=math.nan))
            browser.terminate()
    driver.unlink()
    return sizes


def _renderers(session: int) -> Iterator[Path]:
    """Yield the /proc directories of Chromium's page-drawing processes in a session."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if os.getsid(int(process.name)) == session and b"--type=renderer" in (process / "cmdline").read_bytes():
                yield process


def _resident_mb(process: Path) -> float:
    with contextlib.suppress(OSError):
        return int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return math.nan


def _row(case: str, ours: float, demand: float, unit: str, device: str) -> Row:
    return Row(
        name="atlas",
        case=case,
        ours=ours,
        reference=demand,
        unit=unit,
        ratio=ours / demand,
        threads=runtime.n_threads(),
        device=device,
    )


# --- a made-up experiment ---------------------------------------------------------------------------------------------


def made_up_atlas(
    n_galaxies: int,
    n_sfnet: int,
    n_sae: int,
    k_sfnet: int,
    k_sae: int,
    image_size: int,
    seed: int = 0,
    *,
    is_network_run: bool = False,
) -> tuple[Atlas, dict[str, Any]]:
    """Return an atlas of random features, without maps, and the networks that `mapped` needs to add the maps.

    The catalogue is that of the mock survey. Cutouts are ellipses with noise, because noise makes the files of real
    cutouts large.

    Parameters
    ----------
    n_galaxies, image_size
        Size of the survey, and of its cutouts in pixels.
    n_sfnet, n_sae, k_sfnet, k_sae
        Numbers of features, and of those that are active in a galaxy.
    seed
        Decides everything random.
    is_network_run
        Whether the SFNet's features are those of its untrained network, few of which are ever among the k largest.
        Otherwise they are random.

    Returns
    -------
    tuple of Atlas and dict
        The dict holds "network", an SFNet with random weights, and "directions" (n_sae, n_sfnet) of the SAE's encoder.

    Raises
    ------
    ValueError
        If `n_sfnet` is not the width of a ResNet18, 512.
    """
    rng = np.random.default_rng(seed)
    catalog = make_population(n_galaxies, seed, field_arcsec=38.0)
    catalog.insert(1, "split", rng.permutation(np.resize(["train"] * 7 + ["valid"] + ["test"] * 2, n_galaxies)))
    images = _ellipses(n_galaxies, image_size, rng)
    galaxies = Galaxies(
        catalog=catalog,
        labels=measured_labels(measured(catalog, CatalogColumns(), "made-up catalogue").catalog),
        images=images,
        places=np.arange(n_galaxies),
        pixel_scale_arcsec=38.0 / image_size,
        is_real=False,
        n_survey=n_galaxies,
    )
    network = _network(n_sfnet, k_sfnet, images, catalog[COLUMN].to_numpy())
    of_network = _embedded(network, images) if is_network_run else _random_codes(n_galaxies, n_sfnet, k_sfnet, rng)
    is_measured = galaxies.labels[COLUMN].notna().to_numpy()
    sfnet_spec = TableSpec(features="sfnet", kind="sfnet", k=k_sfnet, seed=0)
    sfnet = _table(sfnet_spec, of_network, galaxies, is_measured, network)
    of_sae = _random_codes(n_galaxies, n_sae, k_sae, rng)
    sae_spec = TableSpec(features="sae", kind="sae", k=k_sae, seed=0)
    sae = _table(sae_spec, of_sae, galaxies, np.ones(n_galaxies, dtype=bool), None)
    predictions = Predictions(
        target="metallicity",
        column=COLUMN,
        unit="dex",
        y_true=galaxies.labels[COLUMN].to_numpy(),
        methods=(f"{sfnet.name}, head", f"{sae.name}, ridge"),
        values=rng.normal(8.8, 0.2, (n_galaxies, 2)),
    )
    made = Atlas(
        experiment="made up",
        galaxies=galaxies,
        tables=(sfnet, sae),
        comparison=_comparison(n_sfnet, n_sae, k_sfnet, k_sae),
        classes=pd.DataFrame(),
        predictions=(predictions,),
    )
    directions = rng.standard_normal((n_sae, n_sfnet)).astype(np.float32) / np.sqrt(n_sfnet)
    return made, {"network": network, "directions": directions}


def mapped(plain: Atlas, networks: dict[str, Any], device: str) -> Atlas:
    """Return the atlas with maps, which the networks of `made_up_atlas` make of its cutouts."""
    from sfnetlab.atlas.mapping import HeadOf, with_maps

    network = networks["network"].to(device)
    sfnet, sae = plain.tables
    d_in = network.n_features
    latents = (networks["directions"], np.zeros(len(networks["directions"])))
    identity = (np.eye(d_in, dtype=np.float32), np.zeros(d_in))
    head = HeadOf(0, network, (COLUMN,))
    tables = [
        *with_maps([sfnet], [identity], network.encoder, plain.galaxies, head, device=device),
        *with_maps([sae], [latents], network.encoder, plain.galaxies, None, device=device),
    ]
    return replace(plain, tables=tuple(tables))


def _comparison(n_sfnet: int, n_sae: int, k_sfnet: int, k_sae: int) -> pd.DataFrame:
    """Return a table of invented prediction errors, with the columns of a real comparison."""
    return pd.DataFrame(
        [
            ("metallicity", COLUMN, name, kind, kind == "sfnet", k, "ridge", n_used, 1, rmse, rmse - 0.01, rmse + 0.01)
            for name, kind, k, n_used, rmse in (
                ("mean", "mean", None, 0, 0.19),
                ("sfnet", "sfnet", k_sfnet, n_sfnet, 0.11),
                ("sfnet", "sfnet", k_sfnet, 4, 0.12),
                ("sae", "sae", k_sae, n_sae, 0.12),
                ("sae", "sae", k_sae, 4, 0.14),
            )
        ],
        columns=[
            "target", "column", "features", "kind", "supervised", "k", "probe", "n_features_used", "n_seeds", "rmse",
            "low", "high",
        ],
    ).assign(seed_sd=None)  # fmt: skip


def _ellipses(n: int, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return noisy images (n, side, side, 3) of galaxies with elliptical, exponential profiles."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    images = np.empty((n, side, side, 3), dtype=np.uint8)
    for image in images:
        angle, size, ratio = rng.uniform(0, np.pi), side * rng.uniform(0.05, 0.15), rng.uniform(0.3, 1)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        light = 220 * np.exp(-np.hypot(along, across / ratio) / size)
        noisy = light[:, :, None] * rng.uniform(0.5, 1, 3) + rng.normal(12, 5, (side, side, 3))
        image[:] = np.clip(noisy, 0, 255)
    return images


def _network(d_in: int, k: int, images: NDArray[np.uint8], target: NDArray[np.floating]) -> Any:
    from sfnetlab.models.backbones import make_backbone
    from sfnetlab.models.sfnet import SparseFeatureNetwork

    network = SparseFeatureNetwork(make_backbone("resnet18", "random", 0), "resnet18", 1, k, seed=0)
    if network.n_features != d_in:
        raise ValueError(f"the made-up network has {network.n_features} features, not {d_in}")
    some = images[:64].reshape(-1, 3) / 255
    network.set_statistics(
        pixel_mean=some.mean(axis=0),
        pixel_std=some.std(axis=0),
        target_mean=np.array([np.median(target)]),
        target_std=np.array([0.2]),
    )
    return network.eval()


def _embedded(network: Any, images: NDArray[np.uint8]) -> "sparse.csr_array":
    from sfnetlab.training.network import embed_batches

    batches = embed_batches(network.features, images, device="cpu")
    return sparse.csr_array(sparse.vstack([sparse.csr_array(batch) for batch in batches]))


def _random_codes(n: int, d: int, k: int, rng: np.random.Generator) -> "sparse.csr_array":
    """Return features (n, d), k of them active in each row: a few features in many rows, most in few rows."""
    popularity = rng.permutation(np.arange(1, d + 1) ** -0.7)
    keys = rng.gumbel(size=(n, d)).astype(np.float32) + np.log(popularity).astype(np.float32)
    columns = np.argpartition(keys, -k, axis=1)[:, -k:]
    values = rng.exponential(3, (n, k)).astype(np.float32) + 0.1
    rows = np.repeat(np.arange(n), k)
    return sparse.csr_array((values.ravel(), (rows, columns.ravel())), shape=(n, d))


def _table(
    spec: TableSpec,
    values: "sparse.csr_array",
    galaxies: Galaxies,
    of_interest: NDArray[np.bool_],
    network: Any,
) -> ShownTable:
    """Return a table of the atlas: associations are computed, all other evidence is random."""
    test = np.flatnonzero(galaxies.is_test & of_interest)
    tested, labels = rows_of(values, test), galaxies.labels.iloc[test].reset_index(drop=True)
    weights = {} if network is None else {COLUMN: network.head_weights()[0][0]}
    features = describe_features(tested, labels, weights, "F" if network is None else "Z")
    rng = np.random.default_rng(len(spec.name))
    n_features = len(features)
    features = features.assign(
        novelty=rng.uniform(0, 1, n_features),
        p_corrected=rng.uniform(0, 1, n_features),
        warning=np.where(rng.uniform(0, 1, n_features) < 0.2, "follows z (rho 0.5)", ""),
    )
    numbers = features["feature"].to_numpy()
    nuisances = pd.DataFrame(
        {"feature": np.repeat(numbers, 4), "nuisance": np.tile(["z", "ra", "dec", "petroMag_r"], n_features)}
    )
    nuisances = nuisances.assign(n=len(test), rho=rng.uniform(-0.5, 0.5, len(nuisances)))
    nuisances = nuisances.assign(low=nuisances["rho"] - 0.05, high=nuisances["rho"] + 0.05)
    partners = pd.DataFrame({"feature": numbers, "table": "pca-seed0", "partner": np.arange(n_features)})
    partners = partners.assign(correlation_fit=0.5, correlation_test=rng.uniform(-1, 1, n_features), p=0.05)
    return ShownTable(
        spec=spec,
        values=values,
        of_interest=of_interest,
        evidence=Evidence(
            features=features,
            associations=associate_features(tested, labels),
            nuisances=nuisances,
            partners=partners,
        ),
        residuals=rng.exponential(0.2, len(galaxies.catalog)) if network is None else None,
    )
