"""The folder of an atlas: what stands in its scripts is what the tables say, and contributions add up."""

import base64
import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import tomli

from sfnetlab.atlas.site import MODULES, bundle, write_site
from sfnetlab.methods import TRAITS


def data_of(folder, key):
    text = (folder / "data" / f"{key}.js").read_text(encoding="ascii")
    return json.loads(text[len(f"atlasData({json.dumps(key)},") : -3])


def unpack(packed):
    return np.frombuffer(base64.b64decode(packed["b"]), dtype=f"<{packed['t']}")


def unpack_maps(packed):
    low, step, cells = (unpack(packed[name]).astype(np.float64) for name in ("low", "step", "cells"))
    return (low[:, None] + step[:, None] * cells.reshape(len(low), -1)).reshape(len(low), packed["h"], packed["w"])


def mean_of_own_cells(packed):
    """Of maps of cutouts of 64 px, of which a ResNet18 itself has 2 x 2 cells."""
    assert (packed["h"], packed["w"]) == (8, 8)
    return unpack_maps(packed)[:, ::4, ::4].mean(axis=(1, 2))


def galaxies_of(folder):
    """Chunks of galaxies in order."""
    chunks = sorted((folder / "data" / "galaxies").glob("*.js"), key=lambda path: int(path.stem))
    return [data_of(folder, f"galaxies/{path.stem}") for path in chunks]


def features_of(folder, place):
    chunks = sorted((folder / "data" / f"features{place}").glob("*.js"), key=lambda path: int(path.stem))
    return [page for path in chunks for page in data_of(folder, f"features{place}/{path.stem}")]


def test_contributions_and_the_bias_are_the_networks_prediction(site, made_up):
    """From what the page reads alone: weights times codes, against the network run from pixels to label."""
    head = data_of(site, "wall0")["head"]
    weights, bias = unpack(head["weights"]), unpack(head["bias"])
    for chunk in galaxies_of(site):
        stored = chunk["tables"][0]
        ends, features, values = (unpack(stored[name]) for name in ("ends", "features", "values"))
        parts = values.astype(np.float64) * weights[features]
        sums = bias[0] + np.array([parts[a:b].sum() for a, b in pairwise(ends)])
        rows = np.arange(chunk["first"], chunk["first"] + len(sums))
        predicted = unpack(stored["predictions"])
        np.testing.assert_array_equal(predicted, made_up.tables[0].head.predictions[rows, 0])
        np.testing.assert_allclose(sums, predicted, atol=1e-5)


def test_the_map_of_contributions_has_the_prediction_less_the_bias_as_its_mean(site):
    bias = unpack(data_of(site, "wall0")["head"]["bias"])[0]
    for chunk in galaxies_of(site):
        stored = chunk["tables"][0]
        np.testing.assert_allclose(mean_of_own_cells(stored["maps"]) + bias, unpack(stored["predictions"]), atol=1e-5)


def test_the_mean_of_an_activation_map_is_the_activation(site):
    n_maps = 0
    for page in features_of(site, 0):
        at = dict(zip(unpack(page["rows"]), unpack(page["values"]), strict=True))
        rows = unpack(page["maps"]["rows"])
        means = mean_of_own_cells(page["maps"])
        np.testing.assert_allclose(means, [at[row] for row in rows], rtol=1e-4, atol=1e-5)
        n_maps += len(rows)
    assert n_maps > 50


def test_every_feature_of_the_tables_has_a_card_and_a_page(site, made_up):
    for place, table in enumerate(made_up.tables):
        expected = table.evidence.features["feature"].tolist()
        assert unpack(data_of(site, f"wall{place}")["feature"]).tolist() == expected
        assert [page["feature"] for page in features_of(site, place)] == expected


def test_the_values_of_a_feature_are_those_of_its_table(site, made_up):
    for place, table in enumerate(made_up.tables):
        dense = table.values.toarray()
        for page in features_of(site, place)[:20]:
            column = np.zeros(len(dense), dtype=np.float32)
            column[unpack(page["rows"])] = unpack(page["values"])
            np.testing.assert_array_equal(column, dense[:, page["feature"]])


def test_pages_show_test_galaxies_alone(site, made_up):
    is_test = made_up.galaxies.is_test
    for page in features_of(site, 1):
        for group in page["groups"]:
            assert is_test[unpack(group["rows"])].all()


def test_associations_are_those_of_the_table(site, made_up):
    table, page = made_up.tables[1], features_of(site, 1)[0]
    names = data_of(site, "overview")["associations"]
    labels = list(made_up.galaxies.labels)
    found = unpack(page["associations"]).reshape(len(labels), len(names))
    own = table.evidence.associations
    expected = own[own["feature"] == page["feature"]].set_index("label").loc[labels, names]
    np.testing.assert_allclose(found, expected.to_numpy(dtype=float), rtol=1e-6)


def test_the_folder_holds_a_names_file_with_what_was_given(site):
    tree = tomli.loads((site / "names.toml").read_text(encoding="utf-8"))
    (feature,) = set(tree["sae-k6-seed0"]) - {"key"}
    assert tree["sae-k6-seed0"][feature] == {"name": "my dust lane", "note": "seen in edge-on discs"}
    assert tree["sae-k6-seed0"]["key"] == "2" * 12


def test_an_atlas_is_the_same_at_every_build(made_up, site, tmp_path):
    write_site(tmp_path, made_up, {"sfnet-k4-seed0": "1" * 64, "sae-k6-seed0": "2" * 64})
    for path in site.rglob("*"):
        if path.is_file() and path.name not in ("names.toml", "wall1.js"):  # the site has a name of the user's
            assert (tmp_path / path.relative_to(site)).read_bytes() == path.read_bytes(), path


def test_a_survey_without_images_has_an_atlas_without_cutouts(made_up, tmp_path):
    galaxies = replace(made_up.galaxies, images=None, pixel_scale_arcsec=None)
    tables = tuple(replace(table, maps=None, head=None) for table in made_up.tables)
    plain = replace(made_up, galaxies=galaxies, tables=tables, comparison=pd.DataFrame(), predictions=())
    metrics = write_site(tmp_path, plain, {table.name: "0" * 64 for table in tables})
    assert metrics["largest_contribution_error"] == 0
    assert not list(tmp_path.rglob("*.webp"))
    assert not data_of(tmp_path, "overview")["has_images"]


def test_the_script_is_one_classic_script_of_all_modules():
    text = bundle()
    for name in MODULES:
        assert f"modules.{name} = (() => {{" in text
    assert "\nimport " not in text
    assert "\nexport " not in text


def test_colours_and_labels_of_kinds_are_those_of_the_figures(site):
    kinds = data_of(site, "overview")["kinds"]
    assert kinds.keys() == TRAITS.keys()
    for kind, traits in TRAITS.items():
        assert kinds[kind] == {"label": traits.label, "colours": list(traits.look.colors)}


def test_the_script_tells_no_kind_from_another():
    text = bundle()
    for kind in TRAITS:
        assert f'"{kind}"' not in text
        assert not re.search(rf"^\s*{kind}:", text, re.MULTILINE)


def test_errors_that_take_no_feature_are_levels(made_up, tmp_path):
    rows = made_up.comparison
    dead = rows[rows["kind"] == "sfnet"].iloc[:1].assign(n_features_used=0)
    write_site(tmp_path, replace(made_up, tables=(), comparison=pd.concat([rows, dead])), {})
    levels = data_of(tmp_path, "overview")["levels"]
    assert [(level["name"], level["rmse"]) for level in levels] == [("predicting the mean", 0.19)]


def test_no_page_makes_html_of_text():
    """Catalogues are data: nothing of them may be parsed as a document or run."""
    text = bundle()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"):
        assert way not in text


@pytest.mark.parametrize("name", ["index.html", "atlas.css", "atlas.js"])
def test_nothing_is_loaded_from_elsewhere(site, name):
    text = (site / name).read_text(encoding="utf-8")
    assert 'src="http' not in text
    assert "@import" not in text
    assert "url(http" not in text
