"""The plan: which jobs an experiment needs, in which order, and what a changed setting touches."""

from pathlib import Path

import pytest

from sfnetlab import config
from sfnetlab.errors import ConfigError, DataError
from sfnetlab.plan import STAGES, make_plan

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


def keys(path: Path, *overrides: str) -> dict[str, str]:
    return {str(job): job.key for job in make_plan(config.load(path, overrides))}


def test_every_job_comes_after_its_inputs(path):
    seen = set()
    for job in make_plan(config.load(path)):
        assert {needed.key for needed in job.inputs.values()} <= seen
        seen.add(job.key)


def test_a_sweep_is_a_job_for_each_value_and_seed(path):
    assert {name for name in keys(path) if name.startswith("encode-embeddings/")} == {
        f"encode-embeddings/sae-k{k}-seed{seed}" for k in (2, 4) for seed in (0, 1)
    }


def test_each_seed_of_an_sae_stands_on_the_embedding_of_that_seed(path):
    jobs = {str(job): job for job in make_plan(config.load(path))}
    assert jobs["train-sae/sae-seed1"].inputs["embedding"] is jobs["embed-images/dense-seed1"]
    assert jobs["encode-embeddings/sae-k2-seed1"].inputs["saes"] is jobs["train-sae/sae-seed1"]


def test_seeds_that_share_an_embedding_are_trained_in_one_pass(shared):
    jobs = {str(job): job for job in make_plan(config.load(shared))}
    assert jobs["train-sae/sae"].spec.seeds == (0, 1)
    assert jobs["interpret-features/sae-k2-seeds"].spec.seeds == (0, 1)


def test_seeds_that_start_alike_are_trained_in_passes_of_their_own(shared):
    jobs = {str(job): job for job in make_plan(config.load(shared, ['features.sae.start="centroids"']))}
    assert [jobs[f"train-sae/sae-seed{seed}"].spec.seeds for seed in (0, 1)] == [(0,), (1,)]


def test_codes_do_not_train_again(shared):
    before, after = keys(shared), keys(shared, 'features.sae.codes=["topk", "omp"]')
    assert before.items() <= after.items() | {
        (name, before[name]) for name in ("fit-probes/comparison", "make-figures/figures")
    }
    assert "encode-embeddings/sae-omp-k2-seed0" in after


def test_an_sae_setting_touches_only_what_depends_on_it(path):
    before, after = keys(path), keys(path, "features.sae.epochs=3")
    changed = {name for name in before if before[name] != after[name]}
    saes = {f"sae-k{k}-seed{seed}" for k in (2, 4) for seed in (0, 1)}
    stages = ("encode-embeddings", "fit-probes", "interpret-features")
    assert changed == {f"{stage}/{name}" for stage in stages for name in saes} | {
        "train-sae/sae-seed0",
        "train-sae/sae-seed1",
        "fit-probes/comparison",
        "make-figures/figures",
    }


def test_a_training_setting_leaves_the_survey_alone(path):
    before, after = keys(path), keys(path, "training.epochs=3")
    assert before["prepare-survey/survey"] == after["prepare-survey/survey"]
    assert before["train-sfnet/sfnet-k2-seed0"] != after["train-sfnet/sfnet-k2-seed0"]


def test_another_value_of_k_leaves_the_others_alone(path):
    before, after = keys(path), keys(path, "features.sfnet.k=[2, 3]")
    assert before["fit-probes/sfnet-k2-seed0"] == after["fit-probes/sfnet-k2-seed0"]


def test_two_results_of_one_name_are_refused(path):
    with pytest.raises(ConfigError, match="two results would be called fit-probes/comparison"):
        make_plan(config.load(path, ['features.mean.name="comparison"']))


def test_a_missing_weights_file_is_named(path):
    with pytest.raises(DataError, match=r"gone\.safetensors: weights file not found"):
        make_plan(config.load(path, ['training.weights="gone.safetensors"']))


def test_each_stage_has_a_module():
    for stage in STAGES.values():
        assert (Path(__file__).parents[1] / "src" / f"{stage.module.replace('.', '/')}.py").is_file()
