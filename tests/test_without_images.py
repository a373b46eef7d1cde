"""A survey of embeddings without images: from the files to probes, interpretation, matching, claims and figures."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sfnetlab import config, runner
from sfnetlab.artifacts import read_features, read_survey
from sfnetlab.errors import ConfigError, DataError
from sfnetlab.plan import make_plan
from sfnetlab.planted import make_planted_dictionary
from sfnetlab.stages import make_figures

N, D = 300, 16

TOML = """
name = "euclid"

[survey]
kind = "embeddings"
catalog = "CATALOG"

[split]
kind = "hash"
fractions = [0.6, 0.2, 0.2]

[targets.mass]
columns = ["lgm_tot_p50"]

[classes.smooth]
column = "is_smooth"
positive = [1]
negative = [0]

[rare.heavy]
column = "lgm_tot_p50"
above = 10.5

[[features]]
name = "mae"
kind = "external"
path = "TABLE"
columns = ["pooled_features_block_11"]

[[features]]
kind = "mean"

[[features]]
name = "pca"
kind = "pca"
on = "mae"
n_components = 4

[interpretation]
n_permutations = 20

[probes]
kinds = ["linear", "ridge"]
classifiers = ["majority", "logistic"]
budgets = [2]
n_bootstrap = 100
"""
LEARNT = """
[[features]]
name = "pls"
kind = "pls"
on = "mae"
target = "mass"
n_components = 2

[[features]]
name = "sae"
kind = "sae"
on = "mae"
n_latents = 32
k = [2]
epochs = 3

[[features]]
name = "null"
kind = "null_sae"
on = "mae"
arm = "random_dictionary"
n_latents = 32
k = [2]
epochs = 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Planted embeddings whose first atoms make the labels; ten galaxies are only in the table, which is shuffled."""
    folder = tmp_path_factory.mktemp("euclid")
    planted = make_planted_dictionary(n_train=N + 10, n_test=0, d_in=D, n_atoms=24, n_active=3)
    codes = planted.latents.toarray()
    ids = [f"1020{i:03d}_-57{i:03d}" for i in range(N + 10)]
    catalog = pd.DataFrame(
        {
            "id_str": ids,
            "ra": np.linspace(0, 300, N + 10),
            "dec": np.linspace(-60, 60, N + 10),
            "lgm_tot_p50": 10 + codes[:, 0] + 0.5 * codes[:, 1] - 0.5 * codes[:, 2],
            "smooth_fraction": codes[:, 3] / codes[:, 3].max(),
            "is_smooth": (planted.X[:, 0] > np.median(planted.X[:, 0])).astype(int),
        }
    )
    catalog.iloc[:N].to_csv(folder / "catalog.csv", index=False)
    order = np.random.default_rng(1).permutation(N + 10)
    table = pd.DataFrame({"id_str": np.array(ids)[order], "pooled_features_block_11": list(planted.X[order])})
    table.to_parquet(folder / "mae.parquet", index=False)
    np.save(folder / "truth.npy", planted.X)
    text = TOML.replace("CATALOG", str(folder / "catalog.csv")).replace("TABLE", str(folder / "mae.parquet"))
    (folder / "euclid.toml").write_text(text)
    return folder


def run(folder: Path, out: Path, stages: list[str] | None = None, *overrides: str) -> Path:
    options = runner.Options(config=folder / "euclid.toml", out=out, overrides=overrides, force=False, device="cpu")
    root, _ = runner.run(options, stages) if stages else runner.run(options)
    return root


def quickly(figure: Figure, directory: Path, name: str) -> None:
    figure.savefig(directory / f"{name}.png", dpi=30)


@pytest.fixture(scope="module")
def root(folder: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(make_figures, "save_figure", quickly)
        yield run(folder, folder / "results")


def require_whole(folder: Path, root: Path, *overrides: str) -> None:
    options = runner.Options(config=folder / "euclid.toml", out=root, overrides=overrides, force=False, device="cpu")
    assert {line.split()[0] for line in runner.describe_status(options).splitlines()} == {"current"}
    assert not list(root.rglob("images.npy"))
    assert read_survey(root / "prepare-survey/survey").images is None
    figures = {path.stem for path in (root / "make-figures/figures").glob("*.png")}
    assert {"rmse_vs_k-mass-lgm_tot_p50", "predicted_vs_true-mass-lgm_tot_p50", "matching"} <= figures
    assert not {name for name in figures if name.startswith(("survey", "strongest", "localisation", "equivariance"))}


def test_every_stage_runs_without_an_image(root, folder):
    require_whole(folder, root)


@pytest.mark.slow
def test_everything_that_is_learnt_from_embeddings_runs_without_an_image(folder, tmp_path):
    (tmp_path / "euclid.toml").write_text("seeds = [0, 1]\n" + (folder / "euclid.toml").read_text() + LEARNT)
    require_whole(tmp_path, run(tmp_path, tmp_path / "results"))
    assert (tmp_path / "results/interpret-features/sae-k2-seeds/stability.parquet").exists()


def test_imported_rows_are_those_of_their_ids(root, folder):
    rows, values = read_features(root / "import-embeddings/mae")
    catalog = pd.read_csv(folder / "catalog.csv")
    assert rows["id_str"].tolist() == catalog["id_str"].tolist()
    np.testing.assert_array_equal(values, np.load(folder / "truth.npy")[:N])


def test_embeddings_predict_what_was_planted(root):
    metrics = pd.read_parquet(root / "fit-probes/comparison/metrics.parquet")
    own = metrics[(metrics["split"] == "test") & (metrics["metric"] == "rmse") & (metrics["column"] == "lgm_tot_p50")]
    rmse = own.groupby(["kind", "probe"])["value"].mean()
    assert rmse["external", "ridge"] < 0.5 * rmse["mean", "ridge"]
    assert (metrics["kind"] == "external").any()


def test_the_plan_of_a_survey_without_images_perturbs_nothing(folder):
    stages = {job.stage for job in make_plan(config.load(folder / "euclid.toml"))}
    assert not stages & {"train-sfnet", "embed-images", "perturb-images"}


def test_features_that_need_images_are_refused_all_at_once(folder):
    path = folder / "seeing.toml"
    more = '[[features]]\nname = "sparse"\nkind = "sfnet"\ntarget = "mass"\n'
    more += '[[features]]\nname = "dense"\nkind = "encoder"\nweights = "random"\n'
    path.write_text((folder / "euclid.toml").read_text() + more)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert "seeing.toml:5: survey kind" in str(caught.value)
    assert "'sparse' (sfnet), 'dense' (encoder)" in str(caught.value)


def with_a_stranger(folder: Path, tmp_path: Path) -> str:
    """A catalogue with one more galaxy, as an override of the survey."""
    catalog = pd.read_csv(folder / "catalog.csv")
    stranger = catalog.iloc[:1].assign(id_str="stranger", ra=5.0)
    pd.concat([stranger, catalog]).to_csv(tmp_path / "more.csv", index=False)
    return f'survey.catalog="{tmp_path / "more.csv"}"'


def test_a_galaxy_without_embedding_is_an_error(folder, tmp_path):
    with pytest.raises(
        DataError, match=r"1 of 301 galaxies of the survey have no row in it: stranger; 300 are in both"
    ):
        run(folder, tmp_path, ["prepare-survey", "import-embeddings"], with_a_stranger(folder, tmp_path))


def test_a_galaxy_without_embedding_is_dropped_on_record_when_asked(folder, tmp_path):
    overrides = (with_a_stranger(folder, tmp_path), 'survey.without_embedding="drop"')
    root = run(folder, tmp_path, ["prepare-survey", "import-embeddings"], *overrides)
    dropped = pd.read_csv(root / "prepare-survey/survey/without_embedding.csv")
    assert dropped.to_dict("records") == [{"id_str": "stranger", "features": "mae"}]
    assert "stranger" not in set(read_survey(root / "prepare-survey/survey").catalog["id_str"])


def test_another_content_of_the_table_makes_its_results_stale(folder, tmp_path):
    def keys() -> dict[str, str]:
        return {str(job): job.key for job in make_plan(config.load(folder / "euclid.toml", [override]))}

    table = pd.read_parquet(folder / "mae.parquet")
    override = f'features.mae.path="{tmp_path / "mae.parquet"}"'
    table.to_parquet(tmp_path / "mae.parquet", index=False)
    before = keys()
    table.iloc[::-1].to_parquet(tmp_path / "mae.parquet", index=False)
    after = keys()
    assert before["import-embeddings/mae"] != after["import-embeddings/mae"]
    assert before["prepare-survey/survey"] == after["prepare-survey/survey"]


def test_external_features_beside_images_need_no_network_to_perturb(folder):
    path = folder / "beside.toml"
    text = (folder / "euclid.toml").read_text().replace("[rare.heavy]", "[rare.none]")
    mock = '[survey]\nkind = "mock"\n'
    path.write_text(text.replace(text[text.index("[survey]") : text.index("[split]")], mock))
    jobs = {str(job): job for job in make_plan(config.load(path))}
    assert not any(name.startswith("perturb-images") for name in jobs)
    assert "perturbed" not in jobs["interpret-features/pca"].inputs


def test_what_is_odd_about_embeddings_is_said_when_they_are_imported(root, folder, tmp_path, caplog):
    survey = read_survey(root / "prepare-survey/survey").catalog
    test, train = (survey.loc[survey["split"] == part, "id_str"].iloc[0] for part in ("test", "train"))
    column = pd.read_parquet(folder / "mae.parquet").set_index("id_str")["pooled_features_block_11"]
    column[test] = column[train]
    broken = survey.loc[survey["split"] == "valid", "id_str"].iloc[0]
    column[broken] = np.where(np.arange(D) == 2, np.float32(1e20), column[broken])
    column.to_frame().reset_index().to_parquet(tmp_path / "odd.parquet", index=False)
    text = (folder / "euclid.toml").read_text().replace(str(folder / "mae.parquet"), str(tmp_path / "odd.parquet"))
    (tmp_path / "euclid.toml").write_text(text)
    run(tmp_path, tmp_path / "results", ["prepare-survey", "import-embeddings"])
    assert "1 of 300 rows are more than 10 times as far from the columns' medians" in caplog.text
    assert f"{broken} (100.0%)" in caplog.text
    assert (
        f"test galaxies have the embedding of a train galaxy, to the bit (first: {test} that of {train})" in caplog.text
    )


def test_status_of_large_embeddings_loads_neither_pandas_nor_their_values(tmp_path):
    """As a process of its own: what takes long is what is imported and what is read."""
    np.save(tmp_path / "x.npy", np.zeros((2**18, 72), dtype=np.float32))  # 72 MiB
    (tmp_path / "ids.txt").write_text("a\n")
    (tmp_path / "catalog.csv").write_text("id_str\na\n")
    text = f"""
        name = "large"
        survey = {{kind = "embeddings", catalog = "{tmp_path}/catalog.csv"}}
        targets.y.columns = ["y"]
        [[features]]
        name = "x"
        kind = "external"
        path = "{tmp_path}/x.npy"
        ids = "{tmp_path}/ids.txt"
    """
    (tmp_path / "config.toml").write_text(text)
    (tmp_path / "cache").mkdir()
    command = (
        "import sys; from sfnetlab.surveys import fingerprints; fingerprints._RACY_NS = 0; "
        "read = []; keep = fingerprints._content; "
        "fingerprints._content = lambda file, seen: read.append(file) or keep(file, seen); "
        f"from sfnetlab.cli import main; status = main(['status', '{tmp_path}/config.toml', '--out', '{tmp_path}']); "
        "print('read', sum('x.npy' in file for file in read), {'pandas', 'numpy', 'torch'} & set(sys.modules)); "
        "sys.exit(status)"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    for n_read in (1, 0):
        done = subprocess.run(
            [sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == f"read {n_read} set()"
