"""The plan: which jobs an experiment needs, in which order, and what a changed setting touches."""

from pathlib import Path

import pytest

from sfnetlab import config
from sfnetlab.errors import ConfigError, DataError
from sfnetlab.jobs import Job
from sfnetlab.plan import STAGES, make_plan

LAST = ("hold-claims/claims", "make-figures/figures", "build-atlas/atlas")
LAST_STAGES = {name.partition("/")[0] for name in LAST}

TOML = """
name = "test"
seeds = [0, 1]
[targets.metallicity]
columns = ["oh_p50"]
cut = "metallicity"
[[features]]
name = "sae"
kind = "sae"
on = "dense"
n_latents = 64
k = [2, 4]
[[features]]
name = "pca"
kind = "pca"
on = "dense"
[[features]]
name = "dense"
kind = "encoder"
target = "metallicity"
[[features]]
name = "sfnet"
kind = "sfnet"
target = "metallicity"
k = [2]
[[features]]
kind = "mean"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "test.toml"
    file.write_text(TOML)
    return file


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """SAEs of both seeds on one embedding: a pretrained one, which has no seed."""
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"only hashed")
    encoder = f'weights = "{weights}"'
    file = tmp_path / "shared.toml"
    file.write_text(TOML.replace('kind = "encoder"\ntarget = "metallicity"', f'kind = "encoder"\n{encoder}'))
    return file


def jobs_of(path: Path, *overrides: str) -> dict[str, Job]:
    return {str(job): job for job in make_plan(config.load(path, overrides))}


def keys(path: Path, *overrides: str) -> dict[str, str]:
    return {name: job.key for name, job in jobs_of(path, *overrides).items()}


def changed(path: Path, *overrides: str) -> set[str]:
    """Names of the jobs that overrides make anew."""
    before, after = keys(path), keys(path, *overrides)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def test_every_job_comes_after_its_inputs(path):
    seen = set()
    for job in make_plan(config.load(path)):
        assert {needed.key for needed in job.inputs.values()} <= seen
        seen.add(job.key)


def test_features_of_equal_settings_and_two_names_are_both_made(path):
    twin = '[[features]]\nname = "twin"\nkind = "sfnet"\ntarget = "metallicity"\nk = [2]\n'
    path.write_text(path.read_text() + twin)
    plan = make_plan(config.load(path))
    assert {"train-sfnet/sfnet-k2-seed0", "train-sfnet/twin-k2-seed0"} <= set(map(str, plan))
    assert {needed for job in plan for needed in job.inputs.values()} <= set(plan)


def test_a_sweep_is_a_job_for_each_value_and_seed(path):
    assert {name for name in keys(path) if name.startswith("encode-embeddings/")} == {
        f"encode-embeddings/sae-k{k}-seed{seed}" for k in (2, 4) for seed in (0, 1)
    }


def test_each_seed_of_an_sae_stands_on_the_embedding_of_that_seed(path):
    jobs = jobs_of(path)
    assert jobs["train-sae/sae-seed1"].inputs["embedding"] is jobs["embed-images/dense-seed1"]
    assert jobs["encode-embeddings/sae-k2-seed1"].inputs["saes"] is jobs["train-sae/sae-seed1"]


def test_seeds_that_share_an_embedding_are_trained_in_one_pass(shared):
    jobs = jobs_of(shared)
    assert jobs["train-sae/sae"].spec.seeds == (0, 1)
    assert jobs["interpret-features/sae-k2-seeds"].spec.seeds == (0, 1)


def test_seeds_that_start_alike_are_trained_in_passes_of_their_own(shared):
    jobs = jobs_of(shared, 'features.sae.start="centroids"')
    assert [jobs[f"train-sae/sae-seed{seed}"].spec.seeds for seed in (0, 1)] == [(0,), (1,)]


def test_codes_do_not_train_again(shared):
    before, after = keys(shared), keys(shared, 'features.sae.codes=["topk", "omp"]')
    assert before.items() <= after.items() | {(name, before[name]) for name in ("fit-probes/comparison", *LAST)}
    assert "encode-embeddings/sae-omp-k2-seed0" in after


def test_an_sae_setting_touches_only_what_depends_on_it(path):
    saes = {f"sae-k{k}-seed{seed}" for k in (2, 4) for seed in (0, 1)}
    stages = ("encode-embeddings", "fit-probes", "interpret-features")
    assert changed(path, "features.sae.epochs=3") == {f"{stage}/{name}" for stage in stages for name in saes} | {
        "train-sae/sae-seed0",
        "train-sae/sae-seed1",
        "fit-probes/comparison",
        "compare-features/relations",
        *LAST,
    }


def test_a_training_setting_leaves_the_survey_alone(path):
    before, after = keys(path), keys(path, "training.epochs=3")
    assert before["prepare-survey/survey"] == after["prepare-survey/survey"]
    assert before["train-sfnet/sfnet-k2-seed0"] != after["train-sfnet/sfnet-k2-seed0"]


def test_another_value_of_k_leaves_the_others_alone(path):
    before, after = keys(path), keys(path, "features.sfnet.k=[2, 3]")
    assert before["fit-probes/sfnet-k2-seed0"] == after["fit-probes/sfnet-k2-seed0"]


# --- what is told of tables, and of all tables together -------------------------------------------------------------

AFTER_RELATIONS = {"compare-features/relations", *LAST}


def named(jobs: dict[str, Job], stage: str) -> set[str]:
    return {name.removeprefix(f"{stage}/") for name in jobs if name.startswith(f"{stage}/")}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Every kind of features, and rare galaxies."""
    file = tmp_path / "whole.toml"
    more = '[[features]]\nkind = "photometry"\n[[features]]\nname = "pls"\nkind = "pls"\non = "dense"\n'
    more += 'target = "metallicity"\n[rare.mergers]\ncolumn = "factor_disturbance"\nabove = 0.6\n'
    file.write_text(TOML + more)
    return file


def test_a_network_is_perturbed_once_whatever_stands_on_it(whole):
    jobs = jobs_of(whole, "features.sfnet.k=[2, 4]")
    assert named(jobs, "perturb-images") == {"dense-seed0", "sfnet-k4-seed0"}
    assert jobs["perturb-images/sfnet-k4-seed0"].inputs.keys() == {"survey", "embedding", "network"}


def test_only_what_is_told_of_typical_tables_reads_perturbed_images(whole):
    jobs = jobs_of(whole)
    reads = {
        name: job.inputs["perturbed"].name
        for name, job in jobs.items()
        if name.startswith("interpret-features/") and "perturbed" in job.inputs
    }
    assert reads == {
        "interpret-features/sae-k2-seed0": "dense-seed0",
        "interpret-features/pca-seed0": "dense-seed0",
        "interpret-features/pls-seed0": "dense-seed0",
        "interpret-features/dense-seed0": "dense-seed0",
        "interpret-features/sfnet-k2-seed0": "sfnet-k2-seed0",
    }
    assert {"sae-k4-seed0", "sae-k2-seed1"} <= named(jobs, "interpret-features")


def test_other_codes_of_an_sae_are_neither_perturbed_nor_compared(path):
    jobs = jobs_of(path, 'features.sae.codes=["topk", "refit", "omp"]')
    others = {name for name in named(jobs, "interpret-features") if "refit" in name or "omp" in name}
    assert len(others) == 8
    assert not any("perturbed" in jobs[f"interpret-features/{name}"].inputs for name in others)
    assert not others & jobs["compare-features/relations"].spec.tables.keys()


def test_features_are_told_of_tables_that_have_some(whole):
    assert not {"mean", "photometry"} & named(jobs_of(whole), "interpret-features")


def test_one_table_of_each_method_is_compared_and_every_seed_of_sfnets(whole):
    relations = jobs_of(whole, "features.sfnet.k=[2, 4]")["compare-features/relations"]
    tables = {"sae-k4-seed0", "pca-seed0", "pls-seed0", "dense-seed0", "sfnet-k4-seed0", "sfnet-k4-seed1"}
    assert relations.spec.tables.keys() == tables
    assert relations.inputs.keys() == tables | {"survey", "saes of sae-k4-seed0"}
    assert all(relations.inputs[name].name == name for name in tables)


def test_what_is_told_and_matched_stands_beside_an_untrained_network_of_another_seed(path):
    path.write_text(TOML + '[[features]]\nname = "random"\nkind = "encoder"\nweights = "random"\n')
    jobs = {str(job): job for job in make_plan(config.load(path))}
    told = {name: job.inputs.get("untrained") for name, job in jobs.items() if name.startswith("interpret-features")}
    nulls = {name.removeprefix("interpret-features/"): job and job.name for name, job in told.items()}
    assert nulls["sfnet-k2-seed0"] == nulls["dense-seed1"] == nulls["random-seed1"] == "random-seed0"
    assert nulls["random-seed0"] == "random-seed1"
    spec = jobs["compare-features/relations"].spec
    assert spec.untrained == ("random-seed0",)
    assert {"oh_p50", "lgm_tot_p50"} <= set(spec.trivial)


def test_without_an_untrained_network_there_is_no_null_of_one(path):
    jobs = make_plan(config.load(path))
    assert not any("untrained" in job.inputs for job in jobs)


def test_the_claims_read_the_comparison_the_relations_all_probes_and_all_that_is_told(whole):
    jobs = jobs_of(whole)
    claims = jobs["hold-claims/claims"]
    assert claims.inputs["comparison"] is jobs["fit-probes/comparison"]
    assert claims.inputs["relations"] is jobs["compare-features/relations"]
    for stage in ("fit-probes", "interpret-features"):
        assert named(jobs, stage) == {job.name for job in claims.inputs.values() if job.stage == stage}


def test_features_have_seen_labels_where_a_network_here_or_pls_learnt_from_them(whole):
    seen = {job.spec.table.features: job.spec.has_seen_labels for job in jobs_of(whole).values() if is_probe(job)}
    taught = {"sfnet", "dense", "pca", "sae", "pls"} & set(seen)
    assert {"sfnet", "dense", "pls"} <= taught
    assert all(seen[name] for name in taught)
    controls = {"photometry", "mean"} & set(seen)
    assert controls
    assert not any(seen[name] for name in controls)


def is_probe(job: Job) -> bool:
    return job.stage == "fit-probes" and job.name != "comparison"


def test_features_of_a_method_are_held_against_those_of_its_next_seed(path):
    told = {job.name: job for job in jobs_of(path, "seeds=[0,1,2]").values() if job.stage == "interpret-features"}
    another = {name: job.inputs["another_seed"].name for name, job in told.items() if "another_seed" in job.inputs}
    assert [another[f"pca-seed{seed}"] for seed in range(3)] == ["pca-seed1", "pca-seed2", "pca-seed0"]
    assert not [job for job in jobs_of(path, "seeds=[0]").values() if "another_seed" in job.inputs]


def test_pls_sees_the_labels_of_its_target(whole):
    job = jobs_of(whole)["fit-baselines/pls-seed1"]
    assert {role: str(needed) for role, needed in job.inputs.items()} == {
        "survey": "prepare-survey/survey",
        "embedding": "embed-images/dense-seed1",
    }
    assert job.spec.target.columns == ("oh_p50",)


def test_how_features_are_read_leaves_alone_what_was_trained_and_probed(whole):
    anew = changed(whole, 'interpretation.morphology=["smooth_fraction"]')
    assert {name.partition("/")[0] for name in anew} == {"interpret-features", *LAST_STAGES}


def test_what_is_rare_only_matters_where_tables_are_compared(whole):
    assert changed(whole, "rare.mergers.above=0.5") == AFTER_RELATIONS


def test_classes_leave_alone_what_was_trained_and_told(whole):
    classes = ('classes.agn={column="bptclass", positive=[4], negative=[1]}',)
    assert {name.partition("/")[0] for name in changed(whole, *classes)} == {
        "fit-probes",
        *LAST_STAGES,
    }


def test_two_results_of_one_name_are_refused(path):
    with pytest.raises(ConfigError, match="two results would be called fit-probes/comparison"):
        make_plan(config.load(path, ['features.mean.name="comparison"']))


def test_a_missing_weights_file_is_named(path):
    with pytest.raises(DataError, match=r"gone\.safetensors: weights file not found"):
        make_plan(config.load(path, ['training.weights="gone.safetensors"']))


def test_keys_do_not_depend_on_how_a_path_is_written(path, tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    plans = [
        {str(job): job.key for job in make_plan(config.load(path, [f'training.weights="{written}"']))}
        for written in ("w.safetensors", "$WEIGHTS/w.safetensors", str(tmp_path / "w.safetensors"))
    ]
    assert plans[0] == plans[1] == plans[2]
    (tmp_path / "w.safetensors").write_bytes(b"other weights")
    other = {str(job): job.key for job in make_plan(config.load(path, ['training.weights="w.safetensors"']))}
    assert {name.partition("/")[0] for name in other if other[name] != plans[0][name]} >= {"train-sfnet"}


def test_each_stage_has_a_module():
    for stage in STAGES.values():
        assert (Path(__file__).parents[1] / "src" / f"{stage.module.replace('.', '/')}.py").is_file()


def test_penalty_makes_another_network_and_no_penalty_the_same(path):
    name, weight = "train-sfnet/sfnet-k2-seed0", "features.sfnet.decorrelation"
    plain, none, some = keys(path), keys(path, f"{weight}=0.0"), keys(path, f"{weight}=0.01")
    assert plain[name] == none[name] != some[name]
    assert plain["train-sfnet/dense-seed0"] == some["train-sfnet/dense-seed0"]


@pytest.mark.parametrize("penalty", ["decorrelation", "load_balance"])
def test_negative_penalties_are_refused(path, penalty):
    with pytest.raises(ConfigError, match=f"{penalty} must be a weight of 0 or more, got -1"):
        keys(path, f"features.sfnet.{penalty}=-1.0")


def nested(path, *more):
    return jobs_of(path, "features.sae.runs=3", *more)


def test_runs_are_dictionaries_on_the_encoder_of_each_seed_trained_in_one_pass(path):
    jobs = nested(path)
    assert named(jobs, "train-sae") == {"sae-seed0", "sae-seed1"}
    assert jobs["train-sae/sae-seed1"].spec.seeds == (1, 1_000_001, 2_000_001)
    of_encoder = jobs["encode-embeddings/sae-k4-seed1-dictionary2"]
    assert str(of_encoder.inputs["embedding"]) == "embed-images/dense-seed1"
    assert len(named(jobs, "encode-embeddings")) == 2 * 2 * 3


def test_more_runs_leave_the_first_ones_features_of_other_methods_as_they_are(path):
    once, thrice = keys(path), keys(path, "features.sae.runs=3")
    assert keys(path, "features.sae.runs=1") == once
    assert once["fit-probes/pca-seed1"] == thrice["fit-probes/pca-seed1"]


def test_dictionaries_of_one_encoder_and_of_two_are_compared_apart(path):
    jobs = nested(path)
    within = [job for name, job in jobs.items() if "-seeds" in name and "k4" in name]
    assert [job.name for job in within] == ["sae-k4-seeds-on-dense-seed0", "sae-k4-seeds-on-dense-seed1"]
    assert within[1].spec.seeds == (1, 1_000_001, 2_000_001)
    tables = {name for name in jobs["compare-features/relations"].spec.tables if name.startswith("sae")}
    first = {"sae-k2-seed0", "sae-k2-seed0-dictionary1", "sae-k2-seed0-dictionary2"}
    assert tables == {*first, "sae-k2-seed1"}


def test_null_sae_and_ica_have_runs_of_their_own_starts(path):
    added = """
[[features]]
name = "ica"
kind = "ica"
on = "dense"
n_components = 4
runs = 2
[[features]]
name = "null"
kind = "null_sae"
arm = "frozen_decoder"
on = "dense"
n_latents = 64
k = [4]
runs = 2
"""
    path.write_text(TOML + added)
    jobs = jobs_of(path)
    assert {"ica-seed0", "ica-seed0-dictionary1", "ica-seed1-dictionary1"} <= named(jobs, "fit-baselines")
    first, second = (jobs[f"fit-baselines/ica-seed0{run}"] for run in ("", "-dictionary1"))
    assert first.key != second.key
    assert jobs["train-sae/null-seed0"].spec.seeds == (0, 1_000_000)


def test_runs_on_an_encoder_without_seeds_are_refused(shared):
    with pytest.raises(ConfigError, match="runs = 3 are trainings on the encoder of each seed, but 'dense' has no"):
        nested(shared)


def test_runs_below_one_are_refused(path):
    with pytest.raises(ConfigError, match="runs must lie in"):
        keys(path, "features.sae.runs=0")


def test_seeds_that_would_be_those_of_dictionaries_are_refused(path):
    with pytest.raises(ConfigError, match="seeds must be below 1,000,000"):
        keys(path, "seeds=[1000000]")
