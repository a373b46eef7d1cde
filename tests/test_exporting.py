"""Export of small experiments: exact tables, SAEs that SAELens reads, a catalogue for Zoobot; never over others."""

import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from PIL import Image

from sfnetlab import cli, runner
from sfnetlab.artifacts import read_features, read_survey
from sfnetlab.errors import ArtifactError, ConfigError, DataError
from sfnetlab.exporting import Request, export
from sfnetlab.exporting.tables import in_ascii
from sfnetlab.models.foreign import import_sae
from sfnetlab.models.sae import load_sae
from sfnetlab.plan import STAGES
from tables import assert_holds

TOML = """
name = "small"

[survey]
kind = "embeddings"
catalog = "CATALOG"

[split]
kind = "hash"
fractions = [0.5, 0.25, 0.25]

[targets.metallicity]
columns = ["oh_p50"]

[[features]]
name = "dense"
kind = "external"
path = "TABLE"
columns = ["pooled"]

[[features]]
name = "sae"
kind = "sae"
on = "dense"
n_latents = 32
k = [2]
epochs = 1

[[features]]
kind = "photometry"
magnitudes = ["modelMag_g", "modelMag_r"]
sizes = []

[probes]
kinds = ["ridge"]
budgets = []
n_bootstrap = 100

[interpretation]
n_permutations = 20
"""
SEEN = """
name = "seen"

[survey]
kind = "mock"
n_galaxies = 140
image_size = 32

[targets.metallicity]
columns = ["oh_p50"]

[[features]]
kind = "photometry"

[probes]
kinds = ["ridge"]
budgets = []
n_bootstrap = 100
"""
N, D = 120, 6


def run(folder: Path, toml: str) -> runner.Options:
    (folder / "small.toml").write_text(toml)
    chosen = runner.Options(
        config=folder / "small.toml", out=folder / "results", overrides=(), force=False, device="cpu"
    )
    stages = [stage for stage in STAGES if stage not in ("compare-features", "hold-claims", "make-figures")]
    runner.run(chosen, stages[: stages.index("interpret-features") + 1])
    return chosen


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> runner.Options:
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D)).astype(np.float32)
    catalog = pd.DataFrame(
        {
            "id_str": [f"1237648720{i:09d}" for i in range(N)],
            "ra": rng.uniform(0, 360, N),
            "dec": rng.uniform(-60, 60, N),
            "oh_p50": 8.9 + 0.1 * X[:, 0],
            "modelMag_g": 17 + X[:, 1],
            "modelMag_r": 16 + X[:, 2],
        }
    )
    catalog.to_parquet(folder / "catalog.parquet", index=False)
    pd.DataFrame({"id_str": catalog["id_str"], "pooled": list(X)}).to_parquet(folder / "table.parquet", index=False)
    places = {"CATALOG": folder / "catalog.parquet", "TABLE": folder / "table.parquet"}
    toml = TOML
    for name, path in places.items():
        toml = toml.replace(name, str(path))
    return run(folder, toml)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> runner.Options:
    return run(tmp_path_factory.mktemp("seen"), SEEN)


def exported(made: runner.Options, to: Path, **settings) -> Path:
    export(made, Request(to=to, **settings))
    return to


def results(made: runner.Options, *parts: str) -> Path:
    assert made.out is not None
    return made.out.joinpath(*parts)


def read(path: Path) -> pd.DataFrame:
    match path.suffix:
        case ".csv":
            return pd.read_csv(path, dtype={"id_str": str})
        case ".parquet":
            return pd.read_parquet(path)
        case _:
            table = Table.read(path)
            table.convert_bytestring_to_unicode()
            return table.to_pandas()


@pytest.mark.parametrize("form", ["parquet", "csv", "fits"])
def test_tables_hold_the_very_values_of_the_results(form, made, tmp_path):
    to = exported(made, tmp_path / "out", form=form)
    catalog = read_survey(results(made, "prepare-survey/survey")).catalog
    pd.testing.assert_frame_equal(read(to / f"catalog.{form}").astype(catalog.dtypes), catalog, check_exact=True)
    rows, values = read_features(results(made, "import-embeddings/dense"))
    features = read(to / f"features/dense.{form}")
    assert features["id_str"].tolist() == rows["id_str"].tolist()
    assert features.columns[2] == "pooled_0"
    np.testing.assert_array_equal(features.iloc[:, 2:].to_numpy(np.float32), values)
    sparse = read_features(results(made, "encode-embeddings/sae-k2-seed0"))
    long = read(to / f"features/sae-k2-seed0.{form}")
    place = pd.Series(range(len(rows)), index=sparse.rows["id_str"])[long["id_str"]].to_numpy()
    again = np.zeros(sparse.values.shape, dtype=np.float32)
    again[place, long["feature"]] = long["activation"]
    np.testing.assert_array_equal(again, sparse.values.toarray())
    assert len(long) == sparse.values.nnz
    assert read(to / f"features/photometry.{form}").columns[2] == "modelMag_g"


def test_a_wide_table_has_a_column_for_each_feature_in_use(made, tmp_path):
    to = exported(made, tmp_path / "out", wide=True, tables=("sae",))
    values = read_features(results(made, "encode-embeddings/sae-k2-seed0")).values.toarray()
    wide = pd.read_parquet(to / "features/sae-k2-seed0.parquet")
    used = np.flatnonzero((values != 0).any(axis=0))
    assert wide.columns.tolist() == ["id_str", "split", *(f"feature_{i}" for i in used)]
    np.testing.assert_array_equal(wide.iloc[:, 2:], values[:, used])


def test_predictions_are_a_row_a_galaxy(made, tmp_path):
    to = exported(made, tmp_path / "out", tables=("dense",))
    found = pd.read_parquet(to / "predictions/dense.parquet").set_index("id_str")
    stored = pd.read_parquet(results(made, "fit-probes/dense/predictions.parquet"))
    own = stored[(stored["probe"] == "ridge") & (stored["column"] == "oh_p50")].set_index("id_str")
    name = f"metallicity_oh_p50_ridge_{own['n_features_used'].iloc[0]}"
    assert sorted(found.index) == sorted(own.index)
    np.testing.assert_array_equal(found.loc[own.index, name], own["y_pred"])
    np.testing.assert_array_equal(found.loc[own.index, "metallicity_oh_p50_true"], own["y_true"])


def test_saes_are_those_of_the_experiment(made, tmp_path):
    to = exported(made, tmp_path / "out", tables=("sae-k2-seed0",))
    ours, again = load_sae(results(made, "train-sae/sae/k2-seed0")), import_sae(to / "saelens/sae-k2-seed0")
    embedding = np.asarray(read_features(results(made, "import-embeddings/dense")).values)
    np.testing.assert_allclose(again.encode_csr(embedding).toarray(), ours.encode_csr(embedding).toarray(), atol=1e-4)
    assert not (to / "features/dense.parquet").exists()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_zoobot_finds_every_cutout(suffix, seen, tmp_path):
    to = exported(seen, tmp_path / "out", cutouts=suffix)
    zoobot = pd.read_parquet(to / "zoobot.parquet")
    assert zoobot.columns[:2].tolist() == ["id_str", "file_loc"]
    survey = read_survey(results(seen, "prepare-survey/survey"))
    for (_, row), image in zip(zoobot.iterrows(), survey.cutouts, strict=True):
        assert Path(row["file_loc"]).is_absolute()
        decoded = np.asarray(Image.open(row["file_loc"]), dtype=float)
        assert np.abs(decoded - image).mean() < (1e-9 if suffix == "png" else 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_data_set_of_zoobot_reads_its_catalogue(seen, tmp_path):
    dataset = pytest.importorskip("galaxy_datasets.pytorch.galaxy_dataset", reason="needs the extra zoobot")
    zoobot = pd.read_parquet(exported(seen, tmp_path / "out", cutouts="jpg") / "zoobot.parquet")
    first = dataset.CatalogDataset(zoobot, label_cols=["oh_p50"], transform=None)[0]
    assert first["id_str"] == zoobot["id_str"].iloc[0]
    assert first["image"].size == (32, 32)


def test_what_was_exported_is_on_record(made, tmp_path):
    to = exported(made, tmp_path / "out", form="csv", tables=("dense",))
    record = json.loads((to / "export.json").read_text())
    others = {name for name in record["results"] if not name.startswith("evidence/")}
    assert others == {
        "catalog.csv", "features/dense.csv", "feature_catalogs/dense.csv", "predictions/dense.csv",
    }  # fmt: skip
    assert {name.split("/")[2] for name in record["results"] if name.startswith("evidence/")} == {"survey", "dense"}
    manifest = json.loads((results(made, "import-embeddings/dense/manifest.json")).read_text())
    assert record["results"]["features/dense.csv"]["key"] == manifest["key"]
    known = pd.read_csv(to / "columns.csv").set_index("column")
    assert known.loc["modelMag_r", "ucd"] == "phot.mag;em.opt.R"


@pytest.mark.parametrize("form", ["parquet", "csv", "fits"])
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
def test_every_table_is_exported_and_astropy_reads_its_values(form, made, tmp_path):
    to = exported(made, tmp_path / "out", form=form)
    assert_all_tables_are_there(to, results(made), form)


def test_every_exported_column_is_described(made, tmp_path):
    to = exported(made, tmp_path / "out")
    assert_all_columns_are_described(to)
    known = pd.read_csv(to / "columns.csv").set_index("column")
    assert {"redundancy", "seed_sd", "nmad", "metallicity_oh_p50_true", "pooled_0"} <= set(known.index)


def assert_all_tables_are_there(to: Path, root: Path, form: str) -> None:
    """Of every table of the results there is a file with its values."""
    for path in sorted([*root.glob("[!.]*/[!.]*/*.parquet"), *root.glob("fit-probes/comparison/*.csv")]):
        stage, name = path.parts[-3:-1]
        of_itself = {"catalog": f"catalog.{form}", "features": f"feature_catalogs/{name}.{form}"}
        there = to / of_itself.get(path.stem, f"evidence/{stage}/{name}/{path.stem}.{form}")
        if path.stem in ("rows", "predictions"):  # in other words in the features and predictions
            assert not there.exists()
            continue
        frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
        assert_holds(there, in_ascii(frame) if form == "fits" else frame)


def assert_all_columns_are_described(to: Path) -> None:
    """`columns.csv` has what every column of every table means."""
    listed = pd.read_csv(to / "columns.csv", keep_default_na=False)
    assert listed[listed["description"] == ""].empty
    known = set(listed["column"])
    for path in to.rglob("*.parquet"):
        names = {re.sub(r"^feature_\d+$", "feature_<i>", name) for name in pq.read_schema(path).names}
        assert names <= known, path


def test_nothing_is_written_over_without_being_told(made, tmp_path):
    to = exported(made, tmp_path / "out", tables=("photometry",))
    with pytest.raises(ArtifactError, match="holds an export already; replace it with --force"):
        export(made, Request(to=to, tables=("photometry",)))
    exported(made, to, form="csv", tables=("photometry",), force=True)
    assert (to / "catalog.csv").exists()
    assert not (to / "catalog.parquet").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    with pytest.raises(ArtifactError, match="is no export of this lab"):
        export(made, Request(to=tmp_path / "mine", force=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_stale_and_unknown_results_are_refused(made, tmp_path):
    changed = runner.Options(
        config=made.config, out=made.out, overrides=("features.sae.epochs=2",), force=False, device="cpu"
    )
    with pytest.raises(ArtifactError, match=r"encode-embeddings/sae-k2-seed0 is stale.*choose others with --tables"):
        export(changed, Request(to=tmp_path / "out"))
    export(changed, Request(to=tmp_path / "out", tables=("dense",)))
    with pytest.raises(DataError, match="no table pca; the experiment has dense, sae, photometry"):
        export(made, Request(to=tmp_path / "other", tables=("pca",)))


def test_the_command_line_exports_and_cross_matches(made, tmp_path, capsys):
    to = tmp_path / "out"
    common = [str(made.config), "--out", str(made.out), "--to", str(to), "--tables", "photometry", "--format", "fits"]
    assert cli.main(["export", *common]) == 0
    assert f"files: {to}" in capsys.readouterr().out
    catalog = read_survey(results(made, "prepare-survey/survey")).catalog
    catalog[["id_str", "ra", "dec"]].iloc[::-1].rename(columns={"id_str": "objID"}).to_csv(
        tmp_path / "b.csv", index=False
    )
    files = [str(to / "catalog.fits"), str(tmp_path / "b.csv"), "--on", "id_str=objID", "--to"]
    assert cli.main(["cross-match", *files, str(tmp_path / "pairs.fits"), "--radius-arcsec", "1"]) == 0
    assert "120 pairs within 1 arcsec" in capsys.readouterr().out
    assert Table.read(tmp_path / "pairs.fits")["separation_arcsec"].unit == "arcsec"
    assert cli.main(["cross-match", *files, str(tmp_path / "pairs.csv")]) == 0
    assert "120 galaxies are in both by id" in capsys.readouterr().out
    assert cli.main(["cross-match", *files, str(tmp_path / "pairs.csv")]) == 2
    assert "is there already; replace it with --force" in capsys.readouterr().err


def test_signs_of_our_own_words_are_spelt_out_for_fits():
    table = pd.DataFrame({"worst_symmetry": ["rotation 90°", None], "n": [1, 2]})
    spelt = in_ascii(table)
    assert spelt["worst_symmetry"].fillna("").tolist() == ["rotation 90 deg", ""]
    assert spelt["n"].tolist() == [1, 2]


def test_warnings_about_nuisances_are_spelt_out_for_fits():
    table = pd.DataFrame({"warning": ["follows z (rho +0.57); all nuisances: R² 0.57"]})
    assert in_ascii(table)["warning"].iloc[0] == "follows z (rho +0.57); all nuisances: R2 0.57"


def test_a_survey_without_images_has_no_cutouts_to_write(made, tmp_path):
    with pytest.raises(DataError, match="a survey of embeddings has no images"):
        export(made, Request(to=tmp_path / "out", cutouts="png"))
    assert not list(tmp_path.iterdir())


def test_catalogues_are_matched_by_position_however_their_columns_are_called_and_keep_their_codes(tmp_path):
    a = {
        "id_str": ["a", "b"],
        "RAJ2000": ["00:00:04", "12:00:00"],
        "DEJ2000": ["+10:00:00", "-20:30:00"],
        "g": [-99, 1],
    }
    b = {"id_str": ["x", "y"], "TARGET_RA": [180.0, 1 / 60], "TARGET_DEC": [-20.5, 10.0], "seen": [True, None]}
    pd.DataFrame(a).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame(b).astype({"seen": "boolean"}).to_parquet(tmp_path / "b.parquet")
    files = [str(tmp_path / name) for name in ("a.csv", "b.parquet")]
    assert cli.main(["cross-match", *files, "--to", str(tmp_path / "c.csv"), "--radius-arcsec", "1"]) == 0
    pairs = pd.read_csv(tmp_path / "c.csv")
    assert pairs[["id_str", "id_str_right"]].to_numpy().tolist() == [["a", "y"], ["b", "x"]]
    assert pairs["g"].tolist() == [-99, 1]
    assert pairs["ra"].tolist() == pytest.approx([1 / 60, 180])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_table_of_every_kind_is_exported_described_and_read_by_astropy(tmp_path):
    pytest.importorskip("zoobot", reason="needs the extra zoobot")
    config = Path(__file__).parents[1] / "config/every_kind.toml"
    small = (
        "survey.n_galaxies=360",
        "survey.image_size=48",
        "probes.n_bootstrap=100",
        "interpretation.n_permutations=20",
    )
    chosen = runner.Options(config=config, out=tmp_path / "out", overrides=small, force=False, device="cpu")
    runner.run(chosen, [stage for stage in STAGES if stage not in ("make-figures", "build-atlas")])
    for form in ("parquet", "fits"):  # CSV: the tables of the small run
        to = exported(chosen, tmp_path / form, form=form)
        assert_all_tables_are_there(to, tmp_path / "out", form)
    assert_all_columns_are_described(tmp_path / "parquet")


# --- HATS -------------------------------------------------------------------------------------------------------------


def test_lsdb_reads_the_catalogue_and_the_features_of_every_galaxy(made, tmp_path):
    lsdb = pytest.importorskip("lsdb")
    export(made, Request(to=tmp_path / "out", hats=True))
    catalog = read_survey(made.out / "prepare-survey/survey").catalog.set_index("id_str")
    features = read_features(made.out / "import-embeddings/dense")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library about pandas
        found = lsdb.open_catalog(tmp_path / "out/hats/catalog").compute().set_index("id_str")
        dense = lsdb.open_catalog(tmp_path / "out/hats/dense").compute()
    assert len(found) == len(catalog)
    np.testing.assert_array_equal(found.loc[catalog.index, ["ra", "oh_p50"]], catalog[["ra", "oh_p50"]])
    np.testing.assert_array_equal(np.stack(dense["features"]), features.of(dense["id_str"].astype(str)))


def test_active_features_of_a_galaxy_are_lists_in_hats(made, tmp_path):
    pytest.importorskip("lsdb")
    export(made, Request(to=tmp_path / "out", hats=True, tables=("sae",)))
    table = pq.read_table(tmp_path / "out/hats/sae-k2-seed0/dataset", partitioning=None).to_pandas()
    assert set(table.columns) >= {"id_str", "ra", "dec", "split", "feature", "activation"}
    codes = read_features(made.out / "encode-embeddings/sae-k2-seed0").of(table["id_str"]).toarray()
    for row, feature, activation in zip(codes, table["feature"], table["activation"], strict=True):
        np.testing.assert_array_equal(row[feature], activation)
        assert np.count_nonzero(row) == len(feature)


def test_features_in_hats_are_embeddings_of_another_experiment(made, tmp_path):
    pytest.importorskip("lsdb")
    export(made, Request(to=tmp_path / "out", hats=True, tables=("dense",)))
    toml = TOML.replace("CATALOG", str(made.config.parent / "catalog.parquet"))
    toml = toml.replace("TABLE", str(tmp_path / "out/hats/dense"))
    again = run(tmp_path, toml.replace('"pooled"', '"features"'))
    first, second = (read_features(each.out / "import-embeddings/dense") for each in (made, again))
    np.testing.assert_array_equal(second.of(first.rows["id_str"]), first.values)


def test_without_positions_there_is_no_hats_catalogue(made, tmp_path):
    pytest.importorskip("lsdb")
    catalog = pd.read_parquet(made.config.parent / "catalog.parquet").drop(columns=["ra", "dec"])
    catalog.to_parquet(tmp_path / "catalog.parquet")
    toml = TOML.replace("CATALOG", str(tmp_path / "catalog.parquet"))
    without = run(tmp_path, toml.replace("TABLE", str(made.config.parent / "table.parquet")))
    with pytest.raises(DataError, match="the survey has no ra and dec"):
        export(without, Request(to=tmp_path / "out", hats=True))
    assert not (tmp_path / "out").exists()


def test_hats_without_lsdb_is_one_message(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lsdb", None)
    with pytest.raises(ConfigError, match="--format hats needs LSDB: uv sync --extra hats"):
        export(made, Request(to=tmp_path / "out", hats=True))
