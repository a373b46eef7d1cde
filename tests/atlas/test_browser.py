"""The atlas in a real Chromium, opened from disk: every page, keys, sorting, a phone, a catalogue that means ill."""

import csv
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sfnetlab.atlas.site import write_site
from sfnetlab.methods import TRAITS

from .conftest import HOSTILE

PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}


def names_on(page):
    return page.locator(".wall .card-name b").all_text_contents()


def features_of(table):
    return table.evidence.features


def first_feature(table):
    return int(features_of(table)["feature"].iloc[0])


def routes(made_up):
    ids = made_up.galaxies.catalog["id_str"]
    sfnet, sae = made_up.tables
    return [
        "#/",
        "#/features/sfnet-k4-seed0",
        "#/features/sae-k6-seed0",
        f"#/feature/sfnet-k4-seed0/{first_feature(sfnet)}",
        f"#/feature/sae-k6-seed0/{first_feature(sae)}",
        f"#/galaxy/{ids.iloc[5]}",
        "#/query/sae-k6-seed0",
        "#/outliers",
    ]


def test_every_page_opens_from_disk_without_an_error(visit, site, made_up):
    at = visit(site)
    for route in routes(made_up):
        page = at.open(route)
        assert page.locator("h1").count() == 1, route
        assert "Not found" not in page.locator("h1").text_content(), route


@pytest.mark.parametrize("options", [PHONE, PHONE | {"color_scheme": "dark"}])
def test_no_page_is_wider_than_a_phone(visit, site, made_up, options):
    at = visit(site, **options)
    for route in routes(made_up):
        page = at.open(route)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, route


def test_cards_are_sorted_by_any_number_and_either_way(visit, site, made_up):
    page = visit(site).open("#/features/sae-k6-seed0")
    table = features_of(made_up.tables[1])
    for key in ("frequency", "novelty"):
        page.select_option("#sort", key)
        expected = table.sort_values(key, ascending=False, kind="stable")["name"].tolist()
        assert names_on(page) == expected[: len(names_on(page))]
    page.click("button.turn")
    assert names_on(page)[0] == table.sort_values("novelty", kind="stable")["name"].iloc[0]


def test_cards_are_sorted_by_the_size_of_a_labels_correlation(visit, site, made_up):
    page = visit(site).open("#/features/sae-k6-seed0")
    label = list(made_up.galaxies.labels).index("lgm_tot_p50")
    page.select_option("#sort", f"rho:{label}")
    own = made_up.tables[1].evidence.associations
    own = own[own["label"] == "lgm_tot_p50"].set_index("feature")["spearman"].abs()
    strongest = own.loc[features_of(made_up.tables[1])["feature"]].idxmax()
    assert names_on(page)[0] == f"F{strongest}"


def test_cards_are_found_by_name_label_and_the_users_own_name(visit, site):
    page = visit(site).open("#/features/sae-k6-seed0")
    everything = page.locator(".found").text_content()
    page.fill("#search", "dust lane")
    assert page.locator(".wall .card").count() == 1
    assert page.locator(".card-name .own").text_content() == "my dust lane"
    page.fill("#search", "no such feature")
    assert page.locator(".wall .card").count() == 0
    page.fill("#search", "")
    assert page.locator(".found").text_content() == everything


def test_cards_with_a_warning_can_be_left_out(visit, site, made_up):
    page = visit(site).open("#/features/sae-k6-seed0")
    n_warned = int((features_of(made_up.tables[1])["warning"] != "").sum())
    page.select_option('select[aria-label="Warnings"]', "with")
    assert page.locator(".found").text_content() == f"{n_warned} features"
    assert page.locator(".wall .card .warning").count() == n_warned


def test_keys_lead_through_wall_and_features(visit, site, made_up):
    at = visit(site)
    page = at.open("#/features/sae-k6-seed0")
    names = features_of(made_up.tables[1])["name"].tolist()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.querySelector('b').textContent") == names[2]
    across = page.evaluate(
        "[...document.querySelectorAll('.wall li')].filter((li, _, all) => li.offsetTop === all[0].offsetTop).length"
    )
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.querySelector('b').textContent") == names[2 + across]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    features = features_of(made_up.tables[1])["feature"].tolist()
    at.shown(f"#/feature/sae-k6-seed0/{features[2]}")
    page.keyboard.press("ArrowRight")
    at.shown(f"#/feature/sae-k6-seed0/{features[3]}")
    page.keyboard.press("ArrowLeft")
    at.shown(f"#/feature/sae-k6-seed0/{features[2]}")
    page.keyboard.press("Escape")
    at.shown("#/features/sae-k6-seed0")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("q")
    at.shown("#/query")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()


def test_every_control_can_be_reached_by_the_tab_key_and_shows_it(visit, site):
    page = visit(site).open("#/features/sae-k6-seed0")
    seen = []
    for _ in range(14):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate("[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]")
        )
    assert {"A", "BUTTON", "INPUT", "SELECT"} <= {tag for tag, _ in seen}
    assert all(style == "solid" for tag, style in seen if tag != "BODY")  # after the last one the browser has its own


def test_maps_are_laid_over_cutouts_on_demand(visit, site, made_up):
    feature = first_feature(made_up.tables[0])
    page = visit(site).open(f"#/feature/sfnet-k4-seed0/{feature}")
    assert page.locator(".overlay").count() == 0
    page.click("button.maps")
    assert page.locator(".overlay").count() == int((made_up.tables[0].maps.features == feature).sum())
    pixels = "(canvas) => canvas.getContext('2d').getImageData(0, 0, 64, 64).data.some((value) => value > 0)"
    painted = page.locator(".overlay").first.evaluate(pixels)
    assert painted
    page.keyboard.press("m")
    assert page.locator(".overlay").count() == 0


def test_a_map_is_largest_at_the_first_pixel_of_its_largest_cell(visit, site, made_up):
    """There a ResNet's cells are centred."""
    maps = made_up.tables[0].maps
    assert maps.how == "exact"
    feature = first_feature(made_up.tables[0])
    page = visit(site).open(f"#/feature/sfnet-k4-seed0/{feature}")
    page.click("button.maps")
    peaks = """(canvases) => canvases.map((canvas) => {
      const alpha = canvas.getContext('2d').getImageData(0, 0, 64, 64).data.filter((_, i) => i % 4 === 3);
      const largest = alpha.indexOf(Math.max(...alpha));
      return [Number(canvas.closest('.galaxy').dataset.row), Math.floor(largest / 64), largest % 64];
    })"""
    found = page.locator(".overlay").evaluate_all(peaks)
    assert found
    for row, y, x in found:
        (at,) = np.flatnonzero((maps.features == feature) & (maps.rows == row))
        cells = np.abs(maps.maps[at])
        down, right = np.unravel_index(cells.argmax(), cells.shape)
        assert abs(y - down * 64 / cells.shape[0]) <= 1
        assert abs(x - right * 64 / cells.shape[1]) <= 1


def test_cutouts_are_drawn_with_scale_and_compass(visit, site, made_up):
    page = visit(site).open(f"#/feature/sfnet-k4-seed0/{first_feature(made_up.tables[0])}")
    first = page.locator(".galaxy").first
    assert first.locator(".marks .ink text").all_text_contents() == ["10″", "N", "E"]
    page.wait_for_timeout(100)
    assert "cutouts/" in first.locator(".image").evaluate("(image) => image.style.backgroundImage")
    assert first.locator('[role="img"]').get_attribute("aria-label").startswith("Cutout of galaxy ")


def test_a_galaxy_says_why_and_the_sum_is_the_prediction(visit, site, made_up):
    head = made_up.tables[0].head
    at = visit(site)
    for row in (0, 17, 80):
        page = at.open(f"#/galaxy/{made_up.galaxies.catalog['id_str'].iloc[row]}")
        steps = page.locator(".waterfall .value").all_text_contents()
        assert float(steps[-1]) == pytest.approx(head.predictions[row, 0], abs=1e-4)
        total = sum(float(step.replace("−", "-")) for step in steps[:-1])
        assert total == pytest.approx(head.predictions[row, 0], abs=0.01)
        said = page.locator(".check").text_content()
        assert float(re.search(r"the sum is (\S+) off", said)[1]) < 1e-5
        assert page.locator(".contribution-map .overlay").count() == 1


def test_a_galaxy_is_found_by_its_id_and_by_a_part_of_it(visit, site, made_up):
    at = visit(site)
    page = at.open("#/")
    galaxy = made_up.galaxies.catalog["id_str"].iloc[33]
    for text in (galaxy, galaxy[4:]):
        page.fill(".find input", text)
        page.press(".find input", "Enter")
        at.shown(f"#/galaxy/{galaxy}")
        at.open("#/")
    page.fill(".find input", "no such galaxy")
    page.press(".find input", "Enter")
    page.locator('.find input[aria-invalid="true"]').wait_for()


def test_mock_galaxies_have_no_links_into_the_sky(visit, site, made_up):
    page = visit(site).open(f"#/galaxy/{made_up.galaxies.catalog['id_str'].iloc[0]}")
    assert page.locator(".links").count() == 0


def test_a_query_finds_the_galaxies_with_the_combination(visit, site, made_up):
    table = made_up.tables[1]
    dense = table.values.toarray()
    a, b, c = features_of(table)["feature"].iloc[[0, 1, 2]].tolist()
    largest = dense.max(axis=0)
    expected = (dense[:, a] >= np.float32(0.1) * largest[a]) & (dense[:, b] == 0) & (dense[:, c] == 0)
    page = visit(site).open(f"#/query/sae-k6-seed0?f={a}:0.1,{b}:0")
    page.fill("#search", f"F{c}")
    page.press("#search", "Enter")
    slider = page.locator(".sliders input").nth(2)
    slider.fill("0")
    found = page.locator(".page .found").text_content()
    assert int(found.split(" galaxies")[0]) == expected.sum() > 0
    ids = page.locator(".galaxies .galaxy").evaluate_all("(links) => links.map((link) => link.title)")
    assert set(ids) <= set(made_up.galaxies.catalog["id_str"][expected])
    assert page.evaluate("location.hash").startswith(f"#/query/sae-k6-seed0?f={a}:0.1,{b}:0,{c}:")


def test_outliers_are_sorted_by_how_far_out_they_are(visit, site, made_up):
    table = made_up.tables[1]
    page = visit(site).open("#/outliers/poor%20reconstruction%20(sae-k6-seed0)")
    first = page.locator(".galaxies .galaxy").first.get_attribute("title")
    assert first == made_up.galaxies.catalog["id_str"].iloc[int(np.argmax(table.residuals))]


def test_a_table_is_sorted_filtered_and_saved(visit, site, tmp_path):
    page = visit(site).open("#/")
    page.locator("details summary").first.click()
    table = page.locator("details .sortable").first
    table.get_by_role("button", name="RMSE").click()
    assert table.locator('th[aria-sort="descending"]').text_content() == "RMSE"
    errors = [float(text) for text in table.locator("tbody tr td:nth-child(6)").all_text_contents()]
    assert errors == sorted(errors, reverse=True)
    table.get_by_role("searchbox").fill("sae 0.14")
    with page.expect_download() as waiting:
        table.get_by_role("button", name="Download CSV").click()
    waiting.value.save_as(tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["features"] for row in rows] == ["sae"]
    assert rows[0]["rmse"] == "0.14"


def rgb(colour):
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


def colours_of_curves(page):
    """By the text of the legend."""
    script = "(items) => Object.fromEntries(items.map((li) => [li.textContent, li.querySelector('svg').style.color]))"
    return page.locator(".legend li").evaluate_all(script)


@pytest.fixture(scope="module")
def with_embeddings(made_up, tmp_path_factory):
    """The atlas with two encoders in its comparison, which figures draw in grey and black."""
    folder = tmp_path_factory.mktemp("embeddings")
    rows = made_up.comparison
    last = rows.iloc[-1:].assign(kind="encoder", k=None, probe="ridge")
    both = [last.assign(features=name) for name in ("b", "a")]
    write_site(
        folder, replace(made_up, comparison=pd.concat([rows, *both])), {each.name: "0" for each in made_up.tables}
    )
    return folder


def test_curves_have_the_colours_of_the_figures(visit, with_embeddings):
    colours = colours_of_curves(visit(with_embeddings, color_scheme="light").open("#/"))
    expected = {"sfnet k=4": ("sfnet", 0), "sae k=6": ("sae", 0), "a": ("encoder", 0), "b": ("encoder", 1)}
    for name, (kind, rank) in expected.items():
        assert colours[name] == rgb(TRAITS[kind].look.colors[rank]), name


def test_black_and_grey_curves_are_seen_on_a_dark_page(visit, with_embeddings):
    page = visit(with_embeddings, color_scheme="dark").open("#/")
    colours = colours_of_curves(page)
    assert colours["sfnet k=4"] == rgb(TRAITS["sfnet"].look.colors[0])
    (grey, black) = (int(re.search(r"\d+", colours[name])[0]) for name in ("a", "b"))
    assert black > grey > 150


def test_an_error_far_above_that_of_the_mean_does_not_press_the_others_flat(visit, made_up, tmp_path):
    rows = made_up.comparison
    mean = rows.iloc[:1].assign(features="mean", kind="mean", k=None, n_features_used=0)
    wild = rows[rows["kind"] == "sfnet"].iloc[:1].assign(features="wild", k=None, rmse=50.0, low=np.nan, high=np.nan)
    write_site(
        tmp_path,
        replace(made_up, comparison=pd.concat([rows, mean, wild])),
        {each.name: "0" for each in made_up.tables},
    )
    page = visit(tmp_path).open("#/")
    ticks = page.locator(".chart").first.locator("text.tick").all_text_contents()
    assert max(float(text.replace("−", "-")) for text in ticks if "." in text) < 1


def test_colours_follow_the_choice(visit, site):
    page = visit(site, color_scheme="light").open("#/")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.click("#theme")
    page.click("#theme")
    assert page.evaluate(background) != light
    assert page.locator("#theme").get_attribute("aria-label") == "Colours: dark"


@pytest.mark.parametrize(
    "route", ["#/feature/sae-k6-seed0/9999", "#/galaxy/none", "#/features/none", "#/nowhere", "#/%E0%A4%A"]
)
def test_what_is_not_there_is_said(visit, site, route):
    page = visit(site).open(route)
    assert page.locator("h1").text_content() == "Not found"


def test_a_catalogue_that_means_ill_does_nothing(visit, hostile, made_up):
    at = visit(hostile)
    feature = first_feature(made_up.tables[1])
    page = at.open("#/")
    assert HOSTILE in page.locator("h1").text_content()
    for route in ("#/features/sae-k6-seed0", f"#/feature/sae-k6-seed0/{feature}", "#/query/sae-k6-seed0"):
        page = at.open(route)
        assert HOSTILE in page.locator("main").text_content(), route
    page.goto("about:blank")
    at.open("#/")
    for name in (HOSTILE, "__proto__"):
        page.fill(".find input", name)
        page.press(".find input", "Enter")
        page.locator("h1.id").wait_for()
        assert page.locator("h1.id").text_content() == name
        at.open("#/")
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("document.querySelectorAll('main script, main img').length") == 0


def test_a_survey_without_images_can_be_read(visit, made_up, tmp_path):
    galaxies = replace(made_up.galaxies, images=None, pixel_scale_arcsec=None)
    tables = tuple(replace(table, maps=None) for table in made_up.tables)
    write_site(tmp_path, replace(made_up, galaxies=galaxies, tables=tables), {table.name: "0" * 64 for table in tables})
    at = visit(tmp_path)
    for route in routes(made_up):
        page = at.open(route)
        assert "Not found" not in page.locator("h1").text_content(), route
