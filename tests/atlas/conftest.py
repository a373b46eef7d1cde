"""A small atlas of made-up features, and a Chromium to open it with."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from sfnetlab.atlas.names import GivenName
from sfnetlab.atlas.site import write_site
from sfnetlab.bench.atlas import CHROMIUM, made_up_atlas, mapped

N = 120


@pytest.fixture(scope="session")
def made_up():
    """An atlas of 120 galaxies, with maps: SFNet values are what the network gives."""
    plain, networks = made_up_atlas(N, 512, 64, 4, 6, 64, is_network_run=True)
    return mapped(plain, networks, "cpu")


@pytest.fixture(scope="session")
def site(made_up, tmp_path_factory):
    """Its folder; one feature of the SAE has a name of the user's."""
    sfnet, sae = made_up.tables
    feature = int(sae.evidence.features["feature"].iloc[3])
    named = replace(sae, names={feature: GivenName("my dust lane", "seen in edge-on discs", False)})
    folder = tmp_path_factory.mktemp("atlas")
    write_site(folder, replace(made_up, tables=(sfnet, named)), {"sfnet-k4-seed0": "1" * 64, "sae-k6-seed0": "2" * 64})
    return folder


HOSTILE = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">\'"`${window.pwned=1}'


@pytest.fixture(scope="session")
def hostile(made_up, tmp_path_factory):
    """The same, but what a catalogue or a user may say is written by somebody who means ill."""
    galaxies, tables = made_up.galaxies, made_up.tables
    catalog = galaxies.catalog.copy()
    test = np.flatnonzero(galaxies.is_test)
    catalog.loc[test[0], "id_str"] = HOSTILE
    catalog.loc[test[1], "id_str"] = "__proto__"
    catalog[HOSTILE] = HOSTILE
    renamed = {"z": HOSTILE, "petroR50_r": "__proto__"}

    def altered(table):
        evidence = table.evidence
        features = evidence.features.replace({"best_label": renamed}).assign(warning=HOSTILE, name=HOSTILE)
        features.loc[0, "best_label"] = HOSTILE
        return replace(
            table,
            evidence=replace(
                evidence,
                features=features,
                associations=evidence.associations.replace({"label": renamed}),
                nuisances=evidence.nuisances.replace({"nuisance": renamed}),
                partners=evidence.partners.assign(table=HOSTILE),
            ),
            names={int(features["feature"].iloc[0]): GivenName(HOSTILE, HOSTILE, True)},
        )

    folder = tmp_path_factory.mktemp("hostile")
    bad = replace(
        made_up,
        experiment=HOSTILE,
        galaxies=replace(galaxies, catalog=catalog, labels=galaxies.labels.rename(columns=renamed)),
        tables=tuple(altered(table) for table in tables),
        claims=(
            {"name": "x", "statement": HOSTILE, "source": HOSTILE, "what": HOSTILE, "verdict": HOSTILE, "why": ""},
        ),
        config_toml=HOSTILE,
    )
    write_site(folder, bad, {table.name: "0" * 64 for table in tables})
    return folder


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if chromium is None:
        pytest.skip(f"no {' or '.join(CHROMIUM)} on this machine")
    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


class Visit:
    """A page of an atlas, opened from disk; `problems` are errors, warnings and whatever leaves the disk."""

    def __init__(self, browser, folder, **options):
        self.folder = folder
        self.context = browser.new_context(accept_downloads=True, **options)
        self.page = self.context.new_page()
        self.problems = []
        self.page.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.problems.append(dialog.message), dialog.dismiss()))
        self.page.on("request", self._asked)

    def _asked(self, request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.problems.append(f"asks for {request.url}")

    def open(self, route):
        self.page.goto(f"{(self.folder / 'index.html').as_uri()}{route}")
        return self.shown(route)

    def shown(self, route):
        """Wait until the page of the route is drawn."""
        self.page.locator(f"main[data-shown={_quoted(route)}]").wait_for(state="attached")
        return self.page


def _quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@pytest.fixture
def visit(browser):
    """Opens an atlas; at the end there must have been no error on any page."""
    visits = []

    def opened(folder, **options):
        visits.append(Visit(browser, folder, **options))
        return visits[-1]

    yield opened
    problems = [problem for each in visits for problem in each.problems]
    for each in visits:
        each.context.close()
    assert problems == []
