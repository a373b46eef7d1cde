"""The whole lab through its command line, on a survey small enough for seconds; faults as a user meets them."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sfnetlab import cli, config, figures
from sfnetlab.figures import contact_sheet, fvu_vs_l0, rmse_vs_k, training_curves
from sfnetlab.interpret.claims import CLAIMS
from sfnetlab.interpret.claims.evidence import Verdict
from sfnetlab.plan import make_plan

SMALL = """
name = "small"
seeds = [0]

[survey]
kind = "mock"
n_galaxies = 120
image_size = 32

[targets.metallicity]
columns = ["oh_p50"]
cut = "metallicity"

[targets.lines]
columns = ["log_N2", "log_Ha"]
cut = "lines"

[training]
epochs = 2
batch_size = 16

[[features]]
kind = "mean"

[[features]]
kind = "photometry"

[[features]]
name = "dense"
kind = "encoder"
target = "metallicity"

[[features]]
name = "pca"
kind = "pca"
on = "dense"
n_components = 4

[[features]]
name = "sae"
kind = "sae"
on = "dense"
n_latents = 32
k = [2]
epochs = 2

[[features]]
name = "matryoshka"
kind = "sae"
variant = "matryoshka"
on = "dense"
n_latents = 32
k = [2]
epochs = 2

[[features]]
name = "sfnet"
kind = "sfnet"
target = "lines"
k = [2]

[probes]
budgets = [2]
n_bootstrap = 100
"""


FEW_FIGURES = (contact_sheet.draw, fvu_vs_l0.draw, rmse_vs_k.draw, training_curves.draw)
"""All of them take half of the time; the slow tests draw them all."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `run` has finished: `small.toml` and `out/`."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.toml").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "FIGURES", FEW_FIGURES)
        assert cli.main(["run", str(folder / "small.toml"), "--out", str(folder / "out"), "-q", "--device", "cpu"]) == 0
    return folder


def run(folder: Path, command: str, *arguments: str) -> int:
    return cli.main([command, str(folder / "small.toml"), "--out", str(folder / "out"), *arguments])


def test_every_stage_leaves_whole_results(finished):
    planned = {str(job) for job in make_plan(config.load(finished / "small.toml"))}
    found = [path for path in (finished / "out").glob("*/*") if not path.parent.is_symlink()]
    whole = {str(path.relative_to(finished / "out")) for path in found if (path / "manifest.json").exists()}
    assert whole == planned == {str(path.relative_to(finished / "out")) for path in found}


@pytest.mark.parametrize(("link", "made"), [("atlas", "build-atlas/atlas"), ("figures", "make-figures/figures")])
def test_what_people_look_at_has_a_short_way(finished, link, made):
    assert (finished / "out" / link).is_symlink()
    assert (finished / "out" / link).resolve() == (finished / "out" / made).resolve()


def test_a_folder_of_the_users_is_not_replaced_by_a_link(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "small", symlinks=True)
    (folder / "out/atlas").unlink()
    (folder / "out/atlas").mkdir()
    (folder / "out/atlas/mine.txt").write_text("mine")
    assert run(folder, "build-atlas", "-q", "--force", "--device", "cpu") == 0
    assert (folder / "out/atlas/mine.txt").read_text() == "mine"
    assert run(folder, "run", "-q") == 0
    assert f"atlas: {folder / 'out/build-atlas/atlas/index.html'}" in capsys.readouterr().out


def test_a_second_run_builds_nothing_and_prints_the_same_table(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in (finished / "out").rglob("*")}
    assert run(finished, "run", "-q") == 0
    table = (finished / "out/fit-probes/comparison/comparison.txt").read_text()
    assert table in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (finished / "out").rglob("*")} == before


def test_status_tells_what_a_setting_makes_stale(finished, capsys):
    assert run(finished, "status", "--set", "features.sae.epochs=3") == 0
    lines = capsys.readouterr().out.splitlines()
    stale = {line.split()[1] for line in lines if line.startswith("stale")}
    assert "stale    train-sae/sae (sae.epochs: 2 -> 3)" in lines
    assert stale == {
        "train-sae/sae",
        "encode-embeddings/sae-k2-seed0",
        "fit-probes/sae-k2-seed0",
        "fit-probes/comparison",
        "interpret-features/sae-k2-seed0",
        "compare-features/relations",
        "hold-claims/claims",
        "make-figures/figures",
        "build-atlas/atlas",
    }


def test_a_stage_alone_refuses_a_stale_input(finished, capsys):
    assert run(finished, "encode-embeddings", "-q", "--set", "features.sae.epochs=3") == 2
    message = capsys.readouterr().err
    assert "train-sae/sae: encode-embeddings/sae-k2-seed0 reads it, but it is stale (sae.epochs: 2 -> 3)" in message
    assert "run `sfnetlab train-sae CONFIG` first" in message


def test_the_metrics_table_is_tidy_and_whole(finished):
    table = pd.read_parquet(finished / "out/fit-probes/comparison/metrics.parquet")
    columns = (
        "features kind k seed probe n_features_used n_effective participation target column split metric value low "
        "high n"
    )
    assert list(table.columns) == columns.split()
    assert not table.duplicated([*columns.split()[:13]]).any()
    assert np.isfinite(table["value"]).all()
    assert (table["low"] <= table["high"]).all()
    assert set(table["features"]) == {"mean", "photometry", "dense", "pca", "sae", "matryoshka", "sfnet"}


def test_an_sfnet_has_at_most_k_features_a_galaxy(finished):
    from sfnetlab.artifacts import read_features

    values = read_features(finished / "out/embed-images/sfnet-k2-seed0").values
    assert np.diff(values.indptr).max() <= 2


def test_stored_components_are_those_that_made_the_scores(finished):
    from safetensors.numpy import load_file

    from sfnetlab.artifacts import read_features

    pca = load_file(finished / "out/fit-baselines/pca-seed0/model.safetensors")
    embedding = read_features(finished / "out/embed-images/dense-seed0").values
    scores = read_features(finished / "out/fit-baselines/pca-seed0").values
    np.testing.assert_allclose((embedding - pca["mean"]) @ pca["components"].T, scores, rtol=1e-3, atol=1e-3)


def test_the_head_reads_the_feature_table_as_the_network_predicts(finished):
    import torch

    from sfnetlab.artifacts import read_survey
    from sfnetlab.models.sfnet import load_network

    out = finished / "out"
    survey = read_survey(out / "prepare-survey/survey")
    table = pd.read_parquet(out / "fit-probes/sfnet-k2-seed0/predictions.parquet")
    table = table[(table["probe"] == "head") & (table["column"] == "log_Ha")]
    rows = pd.Index(survey.catalog["id_str"]).get_indexer(table["id_str"])
    with torch.inference_mode():
        expected = load_network(out / "train-sfnet/sfnet-k2-seed0").predict(torch.from_numpy(survey.images[rows]))
    np.testing.assert_allclose(table["y_pred"], expected[:, 1], atol=1e-5)


def test_the_mean_scores_the_scatter_of_the_labels(finished):
    survey = pd.read_parquet(finished / "out/prepare-survey/survey/catalog.parquet")
    table = pd.read_parquet(finished / "out/fit-probes/comparison/metrics.parquet")
    chosen = (table["kind"] == "mean") & (table["metric"] == "rmse") & (table["split"] == "test")
    row = table[chosen & (table["column"] == "oh_p50")].iloc[0]
    valid_label = (survey["oh_p50"] > 0) & (survey["lgm_tot_p50"] > 0) & (survey["sfr_tot_p50"] > -10)
    train, test = (survey.loc[valid_label & (survey["split"] == part), "oh_p50"] for part in ("train", "test"))
    assert row["value"] == pytest.approx(np.sqrt(np.mean((test - train.mean()) ** 2)))


def test_the_pooled_error_of_the_lines_is_the_root_of_their_mean_square(finished):
    table = pd.read_parquet(finished / "out/fit-probes/sfnet-k2-seed0/metrics.parquet")
    head = table[(table["probe"] == "head") & (table["split"] == "test") & (table["metric"] == "rmse")]
    values = head.set_index("column")["value"]
    assert set(values.index) == {"log_N2", "log_Ha", "pooled"}
    assert values["pooled"] == pytest.approx(np.sqrt(np.mean(values[["log_N2", "log_Ha"]] ** 2)))


def test_the_figures_are_there_as_pdf_and_png(finished):
    names = {path.stem for path in (finished / "out/make-figures/figures").glob("*.pdf")}
    assert names == {path.stem for path in (finished / "out/make-figures/figures").glob("*.png")}
    assert {"survey", "rmse_vs_k-metallicity-oh_p50", "fvu_vs_l0", "training_curves"} <= names


def test_command_and_script_of_a_stage_do_the_same(finished):
    script = Path(__file__).parents[1] / "src/sfnetlab/stages/train_sae.py"
    shared = [str(finished / "small.toml"), "--out", str(finished / "out")]
    said = [
        subprocess.run([sys.executable, *command, *shared], capture_output=True, text=True, check=True).stderr[9:]
        for command in ([str(script)], ["-m", "sfnetlab", "train-sae"])
    ]
    assert said[0] == said[1]
    assert "2 results are current" in said[0]


def loaded_by(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


HELP = "import contextlib\nfrom sfnetlab import cli\nwith contextlib.suppress(SystemExit): cli.main(['--help'])"


def test_importing_the_command_line_loads_neither_numpy_nor_torch():
    assert not loaded_by("import sfnetlab.cli") & {"numpy", "torch"}


def test_help_loads_nothing_heavy():
    heavy = {"numpy", "torch", "timm", "pandas", "sklearn", "matplotlib", "astropy"}
    assert not loaded_by(HELP) & heavy


def test_help_needs_no_stage_module():
    loaded = loaded_by(HELP)
    assert "sfnetlab.cli" in loaded
    assert not [name for name in loaded if name.startswith("sfnetlab.stages")]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("statsu", "unknown command 'statsu', did you mean 'status'?"),
        ("train-saes", "did you mean 'train-sae'?"),
        ("qqq", "unknown command 'qqq', known are run, prepare-survey,"),
    ],
)
def test_an_unknown_command_gets_a_suggestion(typed, says, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main([typed])
    assert says in capsys.readouterr().err


# --- faults ---------------------------------------------------------------------------------------------------------

FOLDER = """
name = "folder"
[survey]
kind = "folder"
catalog = "{folder}/galaxies.csv"
images = "{folder}/images"
[targets.metallicity]
columns = ["oh_p50"]
[[features]]
name = "sfnet"
kind = "sfnet"
target = "metallicity"
k = [2]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty small cutouts, their catalogue, and a config that reads them."""
    rng = np.random.default_rng(0)
    ids = [str(1237650000000000000 + i) for i in range(40)]
    pd.DataFrame({"id_str": ids, "oh_p50": rng.normal(8.9, 0.2, 40)}).to_csv(tmp_path / "galaxies.csv", index=False)
    (tmp_path / "images").mkdir()
    for name in ids:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"images/{name}.jpg")
    (tmp_path / "folder.toml").write_text(FOLDER.format(folder=tmp_path))
    return tmp_path


def edit_catalog(folder: Path, change) -> None:
    catalog = pd.read_csv(folder / "galaxies.csv", dtype={"id_str": str})
    change(catalog).to_csv(folder / "galaxies.csv", index=False)


def complaint(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one message with which the lab refuses, exit status 2, nothing half written."""
    status = cli.main(["run", str(folder / "folder.toml"), "--out", str(folder / "out"), "-q", *arguments])
    message = capsys.readouterr().err
    assert status == 2, message
    assert "Traceback" not in message
    assert not list((folder / "out").glob("*/[!.]*")) or "train-sfnet" not in os.listdir(folder / "out")
    return message


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("survey.catalogue=1", "survey.catalogue: unknown key, did you mean 'catalog'?"),
        ('training.epochs="many"', "expected int, got 'many'"),
        ("features.sfnet.k=[513]", "k must lie in [1, 512] (the number of pooled features), got [513]"),
        ('survey.catalog="gone.csv"', "gone.csv: no readable file (survey.catalog)"),
    ],
)
def test_a_wrong_setting_is_one_message(folder, capsys, override, says):
    assert says in complaint(folder, capsys, "--set", override)


def test_a_catalogue_without_an_id_column_is_one_message(folder, capsys):
    edit_catalog(folder, lambda catalog: catalog.rename(columns={"id_str": "objID"}))
    assert "id_str" in complaint(folder, capsys)


def test_duplicate_ids_are_one_message(folder, capsys):
    edit_catalog(folder, lambda catalog: pd.concat([catalog, catalog.head(1)]))
    assert "1237650000000000000" in complaint(folder, capsys)


def test_an_id_that_leaves_the_folder_is_one_message(folder, capsys):
    edit_catalog(folder, lambda catalog: catalog.replace("1237650000000000003", "../../etc/passwd"))
    assert "'../../etc/passwd'" in complaint(folder, capsys)


def test_labels_that_are_all_nan_are_one_message(folder, capsys):
    edit_catalog(folder, lambda catalog: catalog.assign(oh_p50=np.nan))
    status = cli.main(["run", str(folder / "folder.toml"), "--out", str(folder / "out"), "-q"])
    assert status == 2
    assert "oh_p50" in capsys.readouterr().err


def test_a_truncated_cutout_is_one_message_that_names_it(folder, capsys):
    path = folder / "images/1237650000000000007.jpg"
    path.write_bytes(path.read_bytes()[:300])
    assert "1237650000000000007" in complaint(folder, capsys)


def test_a_results_folder_that_cannot_be_written_is_one_message(folder, capsys):
    (folder / "out").write_text("a file")
    status = cli.main(["run", str(folder / "folder.toml"), "--out", str(folder / "out"), "-q"])
    assert status == 2
    assert "choose another folder with --out" in capsys.readouterr().err


# --- slow -----------------------------------------------------------------------------------------------------------


def payloads(out: Path) -> dict[str, str]:
    """sha256 of every file that a manifest lists, but for those that hold times."""
    hashes = {}
    for manifest in sorted(out.rglob("manifest.json")):
        listed = json.loads(manifest.read_text())["files"]
        hashes |= {
            f"{manifest.parent.relative_to(out)}/{name}": entry["sha256"]
            for name, entry in listed.items()
            if name not in ("progress.jsonl", "config.toml")
        }
    return hashes


@pytest.mark.slow
def test_a_run_killed_five_times_ends_as_an_undisturbed_one(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL)
    command = [sys.executable, "-m", "sfnetlab", "run", "small.toml", "--out", "out", "--device", "cpu", "-q"]
    undisturbed = [part if part != "out" else "undisturbed" for part in command]
    subprocess.run(undisturbed, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    rng = np.random.default_rng(0)
    for _ in range(5):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(6, 20))
        process.kill()
        process.wait()
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert payloads(tmp_path / "out") == payloads(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_whole_run_on_workers_ends_as_one_of_as_many_threads(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL)
    for out, more in (("alone", []), ("workers", ["--workers", "2"])):
        command = [sys.executable, "-m", "sfnetlab", "run", "small.toml", "--out", out, "--device", "cpu", "-q", *more]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert payloads(tmp_path / "workers") == payloads(tmp_path / "alone")


CLAIMS_IN_SMALL = (
    "survey.n_galaxies=400",
    "survey.image_size=32",
    'split.kind="hash"',
    "split.fractions=[0.4, 0.3, 0.3]",
    "training.epochs=1",
    "seeds=[0, 1]",
    "features.sfnet.k=[2, 4, 8]",
    *(f"features.{name}.k=[4]" for name in ("sae", "matryoshka", "frozen_decoder", "random_dictionary")),
    *(f"features.{name}.n_latents=64" for name in ("sae", "matryoshka", "frozen_decoder", "random_dictionary")),
    "features.sae_small.n_latents=32",
    "interpretation.n_permutations=20",
    "probes.n_bootstrap=100",
    "probes.budgets=[2, 4]",
)


@pytest.mark.slow
def test_the_claims_of_the_papers_are_tested_from_one_config(tmp_path):
    config = Path(__file__).parents[1] / "config/claims_mock.toml"
    overrides = [part for override in CLAIMS_IN_SMALL for part in ("--set", override)]
    out = tmp_path / "out"
    assert cli.main(["run", str(config), "--out", str(out), "-q", "--device", "cpu", *overrides]) == 0

    claims = json.loads((out / "hold-claims/claims/claims.json").read_text())["claims"]
    verdicts = {claim["name"]: claim["verdict"] for claim in claims}
    assert list(verdicts) == [claim.name for claim in CLAIMS]
    assert set(verdicts.values()) <= {*get_args(Verdict)}
    assert verdicts["recurrence above an untrained network"] == "needs 5 runs"
    untested = {claim["name"]: claim["why"] for claim in claims if claim["verdict"] == "cannot be tested here"}
    assert untested.pop("frozen encoder") == "no encoder that was trained elsewhere (weights from a file or a hub)"
    assert set(untested) <= {"novelty", "beyond mass and colour"}  # of so few galaxies and epochs
    text = (out / "hold-claims/claims/claims.md").read_text()
    assert all(f"**{name}**" in text for name in verdicts)

    figures = {path.stem for path in (out / "make-figures/figures").glob("*.png")}
    names = {"alignment", "matching", "recovery", "yields", "fvu_vs_l0", "latents", "strongest_galaxies"}
    names |= {f"{name}-sfnet" for name in ("bpt", "equations", "ablation", "confounders")}
    assert names <= figures
