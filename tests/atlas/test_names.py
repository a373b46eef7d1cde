"""Names of features: suggestions, and the user's own file, which is read and never written."""

import pandas as pd
import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from sfnetlab.atlas.names import GivenName, names_template, read_names, readable, suggest_name, suggestions_of
from sfnetlab.errors import DataError

KEYS = {"sae-k4-seed0": "abcdef0123456789", "sfnet-k2-seed0": "0" * 16}


def read(tmp_path, text):
    path = tmp_path / "names.toml"
    path.write_text(text, encoding="utf-8")
    return read_names(path, KEYS)


def test_a_name_says_what_is_high_and_what_is_low():
    assert suggest_name("factor_disc_gr", 0.7, "factor_bulge_to_total", -0.5) == "high disc g−r, low bulge to total"
    assert suggest_name("z", -0.4, "z", -0.4) == "low redshift"


def test_a_weak_association_names_nothing():
    assert suggest_name("z", 0.1, None, 0.0) == "no clear label"
    assert suggest_name("z", float("nan"), None, float("nan")) == "no clear label"


def test_columns_are_read_as_words():
    assert readable("smooth-or-featured_smooth_fraction") == "smooth or featured smooth"
    assert readable("modelMag_r") == "modelMag_r"
    assert readable("_") == "_"


def test_suggestions_need_no_morphology():
    features = pd.DataFrame({"feature": [3], "best_label": ["z"], "rho": [0.9]})
    assert suggestions_of(features) == {3: "high redshift"}


def test_the_users_names_and_notes_are_read(tmp_path):
    given_names = read(
        tmp_path, '["sae-k4-seed0".17]\nname = "dust lane ü"\n["sae-k4-seed0".3]\nnote = "two\\nlines"\n'
    )
    assert given_names["sae-k4-seed0"] == {
        17: GivenName("dust lane ü", "", False),
        3: GivenName("", "two\nlines", False),
    }
    assert given_names["sfnet-k2-seed0"] == {}


def test_names_for_another_training_are_marked(tmp_path):
    text = '[sae-k4-seed0]\nkey = "KEY"\n[sae-k4-seed0.1]\nname = "x"\n'
    assert not read(tmp_path, text.replace("KEY", "abcdef"))["sae-k4-seed0"][1].is_old
    assert read(tmp_path, text.replace("KEY", "123456"))["sae-k4-seed0"][1].is_old


def test_names_for_tables_that_the_atlas_has_not_are_left_alone(tmp_path):
    assert read(tmp_path, '["other".1]\nname = "x"\n') == {"sae-k4-seed0": {}, "sfnet-k2-seed0": {}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read as TOML"),
        ("sae-k4-seed0 = 3", r"\[sae-k4-seed0\]: expected a table of features, found 3"),
        ('[sae-k4-seed0.x]\nname = "y"', "expected the numbers of features, found 'x'"),
        ("[sae-k4-seed0]\n1 = 2", r'\[sae-k4-seed0.1\]: expected a table with "name" and "note", found 2'),
        ('[sae-k4-seed0.1]\ntitle = "y"', "unknown key 'title'"),
        ("[sae-k4-seed0.1]\nname = 3", "name: expected text, found 3"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_a_missing_file_says_where_to_get_one(tmp_path):
    with pytest.raises(DataError, match=r"not found; \[atlas\] names says .* Copy names.toml out of an atlas"):
        read_names(tmp_path / "names.toml", KEYS)


@settings(max_examples=30)
@given(st.text(), st.text())
def test_the_template_gives_back_what_was_given(name, note):
    given_names = {"sae-k4-seed0": {5: GivenName(name, note, False)}}
    text = names_template({"sae-k4-seed0": {5: "high z", 6: 'with "quotes"'}}, KEYS, given_names)
    tree = tomli.loads(text)
    assert tree == {"sae-k4-seed0": {"key": "abcdef012345", "5": {"name": name, "note": note}}}
    uncommented = "\n".join(
        line.removeprefix("# ") if line.startswith(('# ["', "# name =", "# note")) else line
        for line in text.split("\n")
    )
    assert tomli.loads(uncommented)["sae-k4-seed0"]["6"] == {"name": 'with "quotes"', "note": ""}
