"""Configuration: every mistake is reported where it was made, and what was resolved reads back the same."""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from sfnetlab import config, methods, schema
from sfnetlab.errors import ConfigError
from sfnetlab.settings import CutName, Target, Training
from sfnetlab.surveys.folder import FolderSurvey
from sfnetlab.surveys.mock import MockSurvey
from sfnetlab.surveys.split import HashSplit, RandomSplit

SURVEY_KINDS = "'mock', 'folder', 'sdss', 'hub', 'galaxy10', 'embeddings'"
FEATURE_KINDS = ", ".join(map(repr, methods.METHODS))

GOOD = """\
# a comment
name = "demo"
seeds = [0, 1]

[targets.metallicity]
columns = ["oh_p50"]

[[features]]
name = "dense"
kind = "encoder"
target = "metallicity"

[[features]]
name = "sae"
kind = "sae"
on = "dense"
variant = "topk"
n_latents = 512
k = [
  2,
  4,
]

[[features]]
kind = "photometry"
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(text: str, *overrides: str) -> list[str]:
    Path("x.toml").write_text(text, encoding="utf-8", newline="")
    with pytest.raises(ConfigError) as caught:
        config.load(Path("x.toml"), overrides)
    return str(caught.value).split("\n")


def loaded(text: str, *overrides: str) -> schema.Experiment:
    Path("x.toml").write_text(text, encoding="utf-8", newline="")
    return config.load(Path("x.toml"), overrides)


def test_a_good_file_becomes_the_dataclasses(directory: Path) -> None:
    assert loaded(GOOD) == schema.Experiment(
        name="demo",
        seeds=(0, 1),
        targets={"metallicity": Target(columns=("oh_p50",))},
        features=(
            methods.Encoder(name="dense", target="metallicity"),
            methods.SAE(name="sae", on="dense", n_latents=512, k=(2, 4)),
            methods.Photometry(),
        ),
    )


def test_an_int_is_a_float_and_a_string_is_a_path(directory: Path) -> None:
    survey = loaded(GOOD + '[survey]\nkind = "folder"\ncatalog = "a/b.csv"\nimages = "i"\nfits_q = 8\n').survey
    assert isinstance(survey, FolderSurvey)
    assert survey.catalog == Path("a/b.csv")
    assert isinstance(survey.fits_q, float)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~/cat.csv", "/home/me/cat.csv"),
        ("$DATA/cat.csv", "/data/cat.csv"),
        ("${DATA}_2/$DATA", "/data_2//data"),
        ("a$$DATA/b$", "a$DATA/b$"),
        ("../cat.csv", "../cat.csv"),
        ("./~cat.csv", "~cat.csv"),
    ],
)
def test_home_and_variables_are_replaced_in_paths(directory, monkeypatch, written: str, meant: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    survey = f'[survey]\nkind = "folder"\ncatalog = "{written}"\nimages = "i"\n'
    experiment = loaded(GOOD + survey, f'training.weights="{written}.pt"')
    assert experiment.survey.catalog == Path(meant)
    assert Path(experiment.training.weights) == Path(f"{meant}.pt")
    assert loaded(config.as_toml(experiment)) == experiment


@pytest.mark.parametrize("name", ["~.pt", "./~.pt", "././~a/b.pt", "./b.pt", "a/~$.pt"])
def test_weights_in_a_file_of_an_odd_name_are_written_as_they_are_read(directory, name: str) -> None:
    good = loaded(GOOD)
    experiment = dataclasses.replace(good, training=dataclasses.replace(good.training, weights=name))
    assert loaded(config.as_toml(experiment)).training.weights == name


def test_a_variable_that_is_not_set_is_reported_at_its_line(directory, monkeypatch) -> None:
    monkeypatch.delenv("DATA", raising=False)
    (problem,) = problems(GOOD + '[survey]\nkind = "embeddings"\ncatalog = "$DATA/cat.csv"\n')
    assert problem.endswith(
        "survey.catalog: $DATA is not set in the environment, in the path '$DATA/cat.csv'; $$ stands for one $"
    )


def test_crlf_and_byte_order_mark_are_no_problem(directory: Path) -> None:
    assert loaded("\ufeff" + GOOD.replace("\n", "\r\n")) == loaded(GOOD)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("seeds = [0, 1]", "seeds = 3", "3: seeds: expected array of int, got 3 without brackets"),
        ("seeds = [0, 1]", "seeds = [0, true]", "3: seeds[1]: expected int, got true"),
        ("seeds = [0, 1]", "seeds = [0, 1.0]", "3: seeds[1]: expected int, got 1.0"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "3: seeds repeat: [0, 0]"),
        ('name = "demo"', "name = 7", "2: name: expected str, got 7"),
        ('name = "demo"', "name = 2024-01-01", "2: name: expected str, got 2024-01-01"),
        ('name = "demo"\n', "", "1: name: missing"),
        ("n_latents = 512", "n_latents = '32'", "18: features.sae.n_latents: expected int, got '32'"),
        ("n_latents = 512", "n_latent = 512", "18: features.sae.n_latent: unknown key, did you mean 'n_latents'?"),
        (
            "n_latents = 512",
            "zzz = 512",
            "18: features.sae.zzz: unknown key; known keys: name, kind, on, variant, n_latents, k, group_sizes, "
            "selection, start, auxk, codes, epochs, batch_size, learning_rate, standardize, max_distance, runs, "
            "weights, row_top_k",
        ),
        ("n_latents = 512", "n_latents = 3", "19: features.sae: k must lie in [1, 3] (n_latents), got [4]"),
        (
            "n_latents = 512",
            "learning_rate = inf",
            "18: features.sae.learning_rate: expected finite float, got inf",
        ),
        ("  4,", "  '4',", "19: features.sae.k[1]: expected int, got '4'"),
        ("k = [\n  2,\n  4,\n]", "k = 2", "19: features.sae.k: expected array of int, got 2 without brackets"),
        (
            'variant = "topk"',
            'variant = "top-k"',
            "17: features.sae.variant: expected one of 'relu', 'topk', 'batch_topk', 'jumprelu', 'matryoshka', "
            "'archetypal', got 'top-k'",
        ),
        ('on = "dense"\n', "", "13: features.sae.on: missing"),
        (
            'on = "dense"',
            'on = "dens"',
            "16: features 'sae': on must name an encoder, one of ['dense'], got 'dens'",
        ),
        (
            'kind = "sae"',
            'kind = "soe"',
            f"15: features.sae.kind: expected one of {FEATURE_KINDS}, got 'soe'",
        ),
        (
            'kind = "photometry"',
            "",
            f"24: features[2].kind: missing, expected one of {FEATURE_KINDS}",
        ),
        (
            'columns = ["oh_p50"]',
            "columns = []",
            "6: targets.metallicity: columns must name at least one catalogue column",
        ),
        (
            'columns = ["oh_p50"]',
            'columns = "oh_p50"',
            "6: targets.metallicity.columns: expected array of str, got 'oh_p50' without brackets",
        ),
        (
            "[targets.metallicity]\n",
            '[targets."a b"]\ncut = 1\n',
            "6: targets.\"a b\".cut: expected one of 'none', 'metallicity', 'lines', got 1",
        ),
    ],
)
def test_a_mistake_is_reported_at_its_line(directory: Path, old: str, new: str, problem: str) -> None:
    assert GOOD.count(old) == 1
    assert problems(GOOD.replace(old, new)) == [f"x.toml:{problem}"]


@pytest.mark.parametrize(
    ("tail", "problem"),
    [
        ('[survey]\nimages = "i"\n', f"26: survey.kind: missing, expected one of {SURVEY_KINDS}"),
        ("[survey]\nkind = 3\n", f"27: survey.kind: expected one of {SURVEY_KINDS}, got 3"),
        ('[survey]\nkind = "mock"\nn_galaxies = 9\n', "28: survey: n_galaxies must be at least 10, got 9"),
        ('[survey]\nkind = "folder"\ncatalog = ""\nimages = "i"\n', "28: survey.catalog: expected path, got ''"),
        (
            '[survey]\nkind = "mock"\nis_real = true\n',
            "28: survey.is_real: unknown key; known keys: kind, n_galaxies, image_size, field_arcsec, seed",
        ),
        ("[training]\naugment = 1\n", "27: training.augment: expected bool, got 1"),
        ("[training]\nlearning_rate = true\n", "27: training.learning_rate: expected float, got true"),
        ("[[training]]\n", "26: training: expected table, got [{}]"),
        ("[trainig]\nepochs = 1\n", "26: trainig: unknown key, did you mean 'training'?"),
        ("[labels.x]\ncolumn = 'c'\n", "26: labels: unknown key; write [classes.<name>]"),
        (
            "[classes.x]\ncolumn = 'c'\npositive = [1]\n",
            "28: classes.x: positive and negative must name a code each",
        ),
        (
            "[classes.x]\ncolumn = 'c'\npositive = [1]\nnegative = [0]\nvalues = ['a', 'b']\n",
            "30: classes.x: values are for many classes, positive and negative for two",
        ),
        (
            "[classes.x]\ncolumn = 'c'\nvalues = ['a']\n",
            "28: classes.x: values must name at least two classes, got ['a']",
        ),
    ],
)
def test_a_wrong_table_is_reported_at_its_line(directory: Path, tail: str, problem: str) -> None:
    assert problems(GOOD + tail) == [f"x.toml:{problem}"]


def test_an_integer_too_large_for_a_float_is_not_finite(directory: Path) -> None:
    (problem,) = problems(GOOD + f"[training]\nlearning_rate = 1{'0' * 400}\n")
    assert problem.startswith("x.toml:27: training.learning_rate: expected finite float, got 10000")
    assert len(problem) < 200


def test_all_problems_come_at_once_sorted_by_line(directory: Path) -> None:
    text = (
        GOOD.replace("n_latents = 512", 'n_latent = "x"').replace('name = "demo"', "name = 1") + "[probes]\nkind = 1\n"
    )
    assert problems(text, "training.epochs=0", "seeds=[-1.5]") == [
        "x.toml:2: name: expected str, got 1",
        "x.toml:18: features.sae.n_latent: unknown key, did you mean 'n_latents'?",
        "x.toml:27: probes.kind: unknown key, did you mean 'kinds'?",
        "--set training.epochs: training: epochs must be at least 1, got 0",
        "--set seeds: seeds[0]: expected int, got -1.5",
    ]


def test_single_brackets_where_an_array_of_tables_belongs_are_explained(directory: Path) -> None:
    text = 'name = "a"\n[targets.t]\ncolumns = ["c"]\n[features]\nkind = "mean"\n'
    assert problems(text) == ["x.toml:4: features: expected array of tables, got a table; write [[features]]"]


def test_an_empty_file_lacks_what_is_required(directory: Path) -> None:
    assert problems("") == ["x.toml:1: name: missing", "x.toml:1: targets: missing", "x.toml:1: features: missing"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name = demo\n", "x.toml:1: not valid TOML: Invalid value (column 8)"),
        ('name = "a"\nname = "b"\n', "x.toml:2: not valid TOML: Cannot overwrite a value (column 11)"),
        ('name = "a"\nseeds = [0,\n\n', "x.toml:2: not valid TOML: Invalid value (at the end of the file)"),
    ],
)
def test_a_syntax_error_has_its_line(directory: Path, text: str, problem: str) -> None:
    assert problems(text) == [problem]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: None, "x.toml: no such file, expected the TOML file of an experiment"),
        (lambda path: path.mkdir(), "x.toml: is a directory, expected the TOML file of an experiment"),
        (lambda path: path.write_bytes(b'name = "a"\n# \xe9\n'), "x.toml:2: expected UTF-8 text, got byte 0xe9"),
        (lambda path: path.symlink_to(path), "x.toml: cannot be read: Too many levels of symbolic links"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(directory: Path, make: Any, problem: str) -> None:
    make(Path("x.toml"))
    with pytest.raises(ConfigError) as caught:
        config.load(Path("x.toml"))
    assert str(caught.value) == problem


def test_an_override_by_name_and_one_by_index_set_the_same(directory: Path) -> None:
    by_name = loaded(GOOD, "features.sae.k=[8]", "features.photometry.sizes = []")
    assert by_name == loaded(GOOD, "features.1.k=[8]", "features.2.sizes = []")
    assert by_name.features[1] == methods.SAE(name="sae", on="dense", n_latents=512, k=(8,))


def test_an_override_creates_the_table_that_is_absent(directory: Path) -> None:
    assert loaded(GOOD, "training.epochs=1").training == Training(epochs=1)


def test_a_later_override_wins(directory: Path) -> None:
    assert loaded(GOOD, "seeds=[4]", "seeds=[5]").seeds == (5,)


def test_an_override_of_a_whole_table_is_a_toml_table(directory: Path) -> None:
    assert loaded(GOOD, "training={epochs = 2}", "training.batch_size=8").training == Training(epochs=2, batch_size=8)


def test_a_name_with_a_dot_is_addressed_in_quotes(directory: Path) -> None:
    text = GOOD.replace('name = "sae"', 'name = "sae.v2"')
    assert loaded(text, 'features."sae.v2".epochs=3').features[1] == methods.SAE(
        name="sae.v2", on="dense", n_latents=512, k=(2, 4), epochs=3
    )
    assert problems(text, 'features."sae.v2".epochs=""') == ["""--set features."sae.v2".epochs: expected int, got ''"""]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("features.sae.n_latents='32'", "features.sae.n_latents: expected int, got '32'"),
        ("features.1.n_latents=''", "features.1.n_latents: expected int, got ''"),
        ("features.sae.n_latent=3", "features.sae.n_latent: unknown key, did you mean 'n_latents'?"),
        ("features.sae.k=[600]", "features.sae.k: features.sae: k must lie in [1, 512] (n_latents), got [600]"),
        ("features.sae.on='x'", "features.sae.on: features 'sae': on must name an encoder, one of ['dense'], got 'x'"),
        (
            "features.sea.k=[2]",
            "features.sea.k: features: no element 'sea', expected 'dense', 'sae', 'photometry', an index below 3",
        ),
        (
            "features.3.k=[2]",
            "features.3.k: features: no element '3', expected 'dense', 'sae', 'photometry', an index below 3",
        ),
        ("seeds.2=1", "seeds.2: seeds: no element '2', expected an index below 2"),
        ("name.x=1", "name.x: name: is not a table"),
        ("trainig.epochs=1", "trainig.epochs: trainig: unknown key, did you mean 'training'?"),
        ("split.seed=1", "split.seed: split.kind: missing, expected one of 'hash', 'random'"),
        (
            "name=x",
            "name: expected a TOML value, got x; text needs quotes (--set 'name=\"x\"'), an array brackets, "
            "true and false are lower case",
        ),
        (
            "name=",
            "name: expected a TOML value, got nothing; text needs quotes (--set 'name=\"\"'), an array brackets, "
            "true and false are lower case",
        ),
        ("name", "name: expected KEY=TOMLVALUE with a dotted KEY, such as training.epochs=5"),
        ("=3", "=3: expected KEY=TOMLVALUE with a dotted KEY, such as training.epochs=5"),
        ("a b=3", "a b=3: expected KEY=TOMLVALUE with a dotted KEY, such as training.epochs=5"),
    ],
)
def test_a_wrong_override_is_reported_at_its_key(directory: Path, override: str, problem: str) -> None:
    assert problems(GOOD, override) == [f"--set {problem}"]


def test_an_override_that_smuggles_in_a_second_key_is_refused(directory: Path) -> None:
    first, *_ = problems(GOOD, "training.epochs=1\nbatch_size=2")
    assert first.startswith("--set training.epochs: expected a TOML value")


FAKE = st.sampled_from(["# [x] key0 = 1", "", "   ", "#\u2028 key1 = 2", "# '''"])
VALUES = st.sampled_from(
    [
        "1",
        '"\u2028 # no comment"',
        "[\n  1, # key0 = 1\n\n  2,\n]",
        '"""\nkey0 = 1\n[table0]\n"""',
        "'''\n\n# [[tables]]'''",
        "{ inner = [1,\n2], deep.er = 1 }",
    ]
)


@given(data=st.data(), newline=st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=150, deadline=None)
def test_line_of_agrees_with_where_a_key_was_put(data: st.DataObject, newline: str) -> None:
    lines: list[str] = []
    expected: dict[config.KeyPath, int] = {}
    prefix: config.KeyPath = ()
    n_elements = 0
    for n in range(data.draw(st.integers(1, 8))):
        lines += data.draw(st.lists(FAKE, max_size=2))
        here = len(lines) + 1
        kind = data.draw(st.sampled_from(["key", "dotted", "table", "array"]))
        if kind == "table":
            prefix = (f"table{n}", "sub")
            expected[prefix[:1]] = expected[prefix] = here
            lines.append(f"[table{n}.sub]")
        elif kind == "array":
            prefix = ("tables", n_elements)
            expected.setdefault(("tables",), here)
            expected[prefix] = here
            n_elements += 1
            lines.append("[[tables]]")
        else:
            path = (f"key{n}",) if kind == "key" else (f"key{n}", "leaf")
            value = data.draw(VALUES)
            lines += f"{'.'.join(path)} = {value}".split("\n")
            for end in range(1, len(path) + 1):
                expected[(*prefix, *path[:end])] = here
            inside = tomli.loads(f"value = {value}")["value"]
            for step in inside if isinstance(inside, dict) else range(len(inside) if isinstance(inside, list) else 0):
                expected[(*prefix, *path, step)] = here
    text = newline.join(lines)
    assert {path: config.line_of(text, path) for path in expected} == expected


def test_line_of_an_absent_key_is_that_of_its_nearest_parent() -> None:
    text = "a = 1\n\n[b.c]\nd = 2\n"
    assert config.line_of(text, ("b", "c", "x", "y")) == 3
    assert config.line_of(text, ("x",)) == 1


def test_line_of_text_that_is_not_toml_is_refused() -> None:
    with pytest.raises(ValueError, match="not valid TOML"):
        config.line_of("a = ", ("a",))


NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
POSITIVE = st.floats(1e-300, 1e300)
FRACTIONS = st.sampled_from([(0.7, 0.1, 0.2), (0.25, 0.25, 0.5)])
PATHS = st.text(min_size=1).map(Path)


def sweeps(largest: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(1, largest), min_size=1, max_size=4, unique=True).map(tuple)


SURVEYS = st.one_of(
    st.builds(MockSurvey, n_galaxies=st.integers(10), image_size=st.integers(16), field_arcsec=POSITIVE),
    st.builds(
        FolderSurvey,
        catalog=PATHS,
        images=PATHS,
        id_column=st.text(),
        pixel_scale_arcsec=st.none() | POSITIVE,
        resize=st.none() | st.integers(16, 99),
        crop=st.just(16) | st.none(),
        fits_q=POSITIVE,
    ),
)
SPLITS = st.one_of(
    st.builds(
        HashSplit,
        salt=st.text(),
        fractions=FRACTIONS,
        neighbour_radius_arcsec=st.none() | POSITIVE,
        probe_share=st.floats(0, 0.9),
    ),
    st.builds(RandomSplit, seed=st.integers(), fractions=FRACTIONS),
)
TARGETS = st.builds(
    Target,
    columns=st.lists(st.text(), min_size=1, max_size=4, unique=True).map(tuple),
    cut=st.sampled_from(get_args(CutName)),
)


@st.composite
def experiments(draw: st.DrawFn) -> schema.Experiment:
    targets = draw(st.dictionaries(NAMES, TARGETS, min_size=1, max_size=3))
    names = iter(draw(st.lists(NAMES, min_size=6, max_size=6, unique=True)))
    dense = methods.Encoder(name=next(names), target=draw(st.sampled_from(sorted(targets))))
    features: list[methods.Features] = [
        dense,
        methods.Encoder(name=next(names), weights=draw(st.text()) + ".safetensors", image_size=draw(st.integers())),
        methods.SFNet(name=next(names), target=draw(st.sampled_from(sorted(targets))), k=draw(sweeps(512))),
        methods.PCA(name=next(names), on=dense.name),
        methods.SAE(
            name=next(names),
            on=dense.name,
            k=draw(sweeps(2048)),
            learning_rate=draw(st.none() | POSITIVE),
            runs=draw(st.integers(1, 9)),
        ),
        methods.Photometry(name=next(names), sizes=tuple(draw(st.lists(st.text(), max_size=2)))),
    ]
    return schema.Experiment(
        name=draw(NAMES),
        seeds=tuple(draw(st.lists(st.integers(0, 999_999), min_size=1, max_size=3, unique=True))),
        survey=draw(SURVEYS),
        split=draw(SPLITS),
        targets=targets,
        training=Training(augment=draw(st.booleans()), learning_rate=draw(POSITIVE)),
        features=tuple(draw(st.permutations(features))),
    )


@given(experiment=experiments())
@settings(max_examples=60, deadline=None)
def test_the_resolved_toml_loads_back_to_the_same_experiment(
    tmp_path_factory: pytest.TempPathFactory, experiment: schema.Experiment
) -> None:
    path = tmp_path_factory.getbasetemp() / "resolved.toml"
    path.write_bytes(config.as_toml(experiment).encode())
    # As dictionaries, for settings that are no part of a key, such as runs, are none of == either.
    assert dataclasses.asdict(config.load(path)) == dataclasses.asdict(experiment)


def test_the_resolved_toml_spells_out_every_setting(directory: Path) -> None:
    text = config.as_toml(loaded(GOOD))
    assert text.startswith("# ")
    assert 'kind = "mock"\nn_galaxies = 4000\n' in text
    assert "# group_sizes" not in text
    assert "group_sizes = []\n" in text
    assert "# image_size is not set\n" in text


def test_every_setting_has_type_default_and_meaning_in_the_schema_text() -> None:
    text = config.describe_schema()
    assert '[survey] kind = "mock"      (the default)\n# Rendered galaxies' in text
    assert '[[features]] kind = "sae"\n# Sparse autoencoder' in text
    assert "[targets.<name>]\n" in text
    assert "  k: array of int; default [32]\n      Latents active for each galaxy" in text
    assert "  selection: one of 'topk', 'batch_topk'; default \"topk\"\n" in text
    assert "  catalog: path; required\n" in text
    assert "  learning_rate: float; optional\n" in text


def test_the_schema_text_fits_a_terminal_of_100_columns() -> None:
    assert max(map(len, config.describe_schema().split("\n"))) <= 100


def tables_in(hint: Any) -> list[type]:
    """Tables of the file that a value of the type is made of, the outermost first."""
    if not dataclasses.is_dataclass(hint):
        return [table for part in get_args(hint) for table in tables_in(part)]
    hints = get_type_hints(hint)
    return [hint, *(table for each in dataclasses.fields(hint) for table in tables_in(hints[each.name]))]


@pytest.mark.parametrize("table", dict.fromkeys(tables_in(schema.Experiment)), ids=lambda table: table.__name__)
def test_every_setting_stands_with_its_meaning_in_the_schema_text(table: type) -> None:
    about, hints = " ".join(str(table.__doc__).split()), get_type_hints(table)
    (described,) = (block for block in config.describe_schema().split("\n\n") if about in unwrapped(block))
    names = {each.name for each in dataclasses.fields(table) if not tables_in(hints[each.name])} - {"kind"}
    # The line of a setting, then, further to the right, what it means.
    assert names == set(re.findall(r"^  (\w+): .*\n      +\S", described, re.MULTILINE))


def unwrapped(block: str) -> str:
    """The comment of a table of the schema text, in one line."""
    comment = " ".join(line.removeprefix("#") for line in block.splitlines() if line.startswith("#"))
    return " ".join(comment.split())


@pytest.mark.parametrize(
    ("table", "kind"), [("[survey]\nn_galaxies = 500", "mock"), ("[split]\nfractions = [0.5, 0.2, 0.3]", "hash")]
)
def test_a_table_without_kind_is_of_the_default_kind(table, kind, tmp_path):
    name = table[1 : table.index("]")]
    (tmp_path / "t.toml").write_text(
        f'name = "t"\n{table}\n[targets.y]\ncolumns = ["oh_p50"]\n[[features]]\nkind = "mean"\n'
    )
    assert getattr(config.load(tmp_path / "t.toml"), name).kind == kind


def test_a_table_without_kind_that_has_settings_of_another_kind_asks_for_it(tmp_path):
    (tmp_path / "t.toml").write_text('name = "t"\n[survey]\ncatalog = "a.csv"\n')
    with pytest.raises(ConfigError, match=r"survey.kind: missing, expected one of 'mock', 'folder'"):
        config.load(tmp_path / "t.toml")
