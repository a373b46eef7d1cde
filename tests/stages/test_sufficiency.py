"""What a survey lacks for an experiment is told when it is prepared, all of it at once, before anything is trained."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sfnetlab import config, runner
from sfnetlab.errors import ConfigError, DataError
from sfnetlab.stages.sufficiency import lacking

N = 80
SPLIT = np.resize(["train", "train", "valid", "test"], N)
HEAD = 'name = "small"\n[survey]\nkind = "mock"\n[targets.mass]\ncolumns = ["mass"]\n'
MEAN = '[[features]]\nkind = "mean"\n'
DENSE = '[[features]]\nname = "dense"\nkind = "encoder"\nweights = "random"\n'


def lacks(folder: Path, text: str, n: int = N, **columns) -> str:
    """What a survey of n galaxies with these columns lacks for a configuration, as text."""
    survey = folder / "survey"
    survey.mkdir(exist_ok=True)
    catalog = pd.DataFrame({"id_str": [f"g{i}" for i in range(n)], "split": SPLIT[:n], "mass": np.arange(n) / 7})
    catalog.assign(**columns).to_parquet(survey / "catalog.parquet")
    np.save(survey / "images.npy", np.zeros((n, 16, 16, 3), dtype=np.uint8))
    (survey / "metrics.json").write_text("{}")
    (folder / "small.toml").write_text(HEAD + text)
    return "\n".join(lacking(config.load(folder / "small.toml"), survey))


def test_a_survey_that_has_all_lacks_nothing(tmp_path):
    assert lacks(tmp_path, MEAN) == ""


def test_all_that_is_missing_is_told_at_once(tmp_path):
    text = (
        '[targets.age]\ncolumns = ["age"]\n[classes.bar]\ncolumn = "bar"\npositive = [1]\nnegative = [0]\n'
        '[rare.blue]\ncolumn = "mass"\nabove = 99\n' + DENSE
    )
    found = lacks(tmp_path, text, bar=np.arange(N) == 0).splitlines()
    assert [line.split(":")[0] for line in found] == ["target 'age'", "classes 'bar'", "[rare.blue]"]


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_a_target_that_few_galaxies_of_a_part_have_is_told_with_their_number(tmp_path, part):
    is_known = (part != SPLIT) | (np.cumsum(part == SPLIT) <= 7)
    found = lacks(tmp_path, MEAN, mass=np.where(is_known, np.arange(N), np.nan))
    assert found.startswith(f"target 'mass': only 7 {part} galaxies have it")


def test_a_target_that_does_not_vary_among_train_galaxies_is_told(tmp_path):
    found = lacks(tmp_path, MEAN, mass=np.where(SPLIT == "train", 10.0, np.arange(N)))
    assert found.startswith("target 'mass': 'mass' has one and the same value in all 40 train galaxies")


def test_quantiles_that_too_few_valid_galaxies_can_calibrate_are_told(tmp_path):
    quantiles = '[targets.wide]\ncolumns = ["mass"]\nquantiles = [0.01, 0.5, 0.99]\n'
    found = lacks(tmp_path, quantiles + MEAN)
    assert found.startswith("target 'wide': quantiles [0.01, 0.5, 0.99] need 49 valid galaxies")
    assert "there are 20" in found


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('kind = "pca"\non = "dense"\nn_components = 41', r"at most 40 \(40 train rows of 512 dimensions\), got 41"),
        ('kind = "ica"\non = "dense"\nn_components = 41', r"at most 40 \(40 train rows of 512 dimensions\), got 41"),
        ('kind = "pls"\non = "vae"\ntarget = "mass"\nn_components = 4', r"at most 3 \(40 train rows of 3 dimensions\)"),
        ('kind = "sae"\non = "dense"\nvariant = "archetypal"\nn_latents = 64', "n_latents=64 train rows, got 40"),
    ],
)
def test_features_that_the_survey_does_not_suffice_for_are_told(tmp_path, settings, message):
    vae = '[[features]]\nname = "vae"\nkind = "vae"\nn_latents = 3\n'
    found = lacks(tmp_path, f'{DENSE}{vae}[[features]]\nname = "asking"\n{settings}\n')
    assert found.startswith("features 'asking': ")
    assert pd.Series(found).str.contains(message).all()


def test_an_autoencoder_with_more_latents_than_galaxies_is_told(tmp_path):
    found = lacks(tmp_path, '[[features]]\nname = "vae"\nkind = "vae"\nn_latents = 41\n')
    assert found == "features 'vae': n_latents must be at most the 40 train rows, got 41"


def test_a_view_of_more_pixels_than_a_cutout_has_is_told_where_it_is_used(tmp_path):
    views = "[views.large]\ndegrade_to = 17\n[views.unused]\ndegrade_to = 99\n"
    network = '[[features]]\nname = "sparse"\nkind = "sfnet"\ntarget = "mass"\nviews = ["large"]\n'
    assert lacks(tmp_path, views + network) == (
        "view 'large': degrade_to must be at most 16, the side of a cutout, got 17"
    )


def test_one_kind_of_rare_galaxies_of_two_may_be_too_seldom(tmp_path, caplog):
    rare = '[rare.heavy]\ncolumn = "mass"\nabove = 5\n[rare.all]\ncolumn = "mass"\nabove = -1\n'
    assert lacks(tmp_path, rare + DENSE) == ""
    assert "[rare.all]: 60 of 60 train and valid galaxies and 20 of 20 test galaxies are rare" in caplog.text


def test_rare_galaxies_without_an_embedding_are_refused_by_the_configuration(tmp_path):
    with pytest.raises(ConfigError, match=r"\[rare\] needs an encoder, a VAE or external embeddings"):
        lacks(tmp_path, '[rare.heavy]\ncolumn = "mass"\nabove = 5\n' + MEAN)


# --- when it is told ------------------------------------------------------------------------------------------------


def options(folder: Path) -> runner.Options:
    """A mock survey with few mergers."""
    text = (
        'name = "early"\n[survey]\nkind = "mock"\nn_galaxies = 160\nimage_size = 16\n'
        '[targets.mass]\ncolumns = ["lgm_tot_p50"]\n'
        '[classes.large]\ncolumn = "factor_type"\npositive = [3]\nnegative = [1]\n' + DENSE
    )
    (folder / "early.toml").write_text(text)
    return runner.Options(config=folder / "early.toml", out=folder / "out", overrides=(), force=False, device="cpu")


def test_a_run_stops_after_the_survey_which_stays_and_says_so_again(tmp_path):
    for _ in range(2):
        with pytest.raises(DataError, match=r"(?s)the survey lacks what the experiment asks for.*classes 'large'"):
            runner.run(options(tmp_path))
        states = {line.split()[1]: line.split()[0] for line in runner.describe_status(options(tmp_path)).splitlines()}
        assert {name for name, state in states.items() if state == "current"} == {"prepare-survey/survey"}


def test_the_stage_alone_warns_of_what_later_stages_will_lack(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        runner.run(options(tmp_path), ["prepare-survey"])
    assert "later stages will stop: classes 'large'" in caplog.text
