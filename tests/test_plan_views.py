"""Views in the configuration and in the plan: one network each, the first interpreted, the others held against it."""

import pytest

from sfnetlab import config
from sfnetlab.errors import ConfigError
from sfnetlab.plan import make_plan
from sfnetlab.results import Results

TOML = """
name = "test"
seeds = [0, 1]
[targets.metallicity]
columns = ["oh_p50"]
cut = "metallicity"
[views.px4]
degrade_to = 4
[views.grey]
colours = "grey"
[[features]]
name = "dense"
kind = "encoder"
target = "metallicity"
views = ["full", "px4"]
[[features]]
name = "pca"
kind = "pca"
on = "dense"
[[features]]
name = "sfnet"
kind = "sfnet"
target = "metallicity"
views = ["full", "px4", "grey"]
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "test.toml"
    file.write_text(TOML)
    return file


def jobs_of(path, *overrides):
    return {str(job): job for job in make_plan(config.load(path, overrides))}


def named(jobs, stage):
    return {name.partition("/")[2] for name in jobs if name.startswith(f"{stage}/")}


def test_each_view_is_a_network_that_knows_it(path):
    jobs = jobs_of(path)
    methods = ("dense", "dense-px4", "sfnet-k4", "sfnet-px4-k4", "sfnet-grey-k4")
    assert named(jobs, "train-sfnet") == {f"{name}-seed{seed}" for name in methods for seed in (0, 1)}
    assert jobs["train-sfnet/dense-seed0"].spec.view is None
    assert jobs["train-sfnet/sfnet-px4-k4-seed1"].spec.view.degrade_to == 4


def test_another_view_leaves_the_networks_of_the_others_alone(path):
    before, after = jobs_of(path), jobs_of(path, "views.grey.blur_sigma_px=1.0")
    changed = {
        name
        for name in named(before, "train-sfnet")
        if before[f"train-sfnet/{name}"].key != after[f"train-sfnet/{name}"].key
    }
    assert changed == {"sfnet-grey-k4-seed0", "sfnet-grey-k4-seed1"}


def test_only_the_first_view_is_interpreted_perturbed_compared_and_stood_on(path):
    jobs = jobs_of(path)
    for stage in ("interpret-features", "perturb-images"):
        assert not any("px4" in name or "grey" in name for name in named(jobs, stage))
    assert not any("px4" in name or "grey" in name for name in jobs["compare-features/relations"].spec.tables)
    assert jobs["fit-baselines/pca-seed0"].inputs["embedding"].name == "dense-seed0"


def test_all_views_are_probed_and_held_against_each_other(path):
    jobs = jobs_of(path)
    views = jobs["compare-views/views"].spec
    assert set(views.tables) == named(jobs, "embed-images")
    assert views.views["sfnet-grey-k4-seed0"].method == "sfnet"
    assert [name for name, viewed in views.views.items() if viewed.is_first] == [
        "dense-seed0", "dense-seed1", "sfnet-k4-seed0", "sfnet-k4-seed1",
    ]  # fmt: skip


def test_results_tell_other_views_from_the_first(path, tmp_path):
    tables = Results.of_plan(jobs_of(path).values(), tmp_path).tables
    others = {table.spec.features for table in tables if table.is_another_view}
    assert others == {"dense-px4", "sfnet-grey", "sfnet-px4"}


def test_a_network_of_one_view_is_one_like_any_other(path):
    jobs = jobs_of(path, 'features.sfnet.views=["px4"]', 'features.dense.views=["full"]')
    assert not named(jobs, "compare-views")
    assert "sfnet-px4-k4-seed0" in named(jobs, "interpret-features")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ('features.sfnet.views=["px5"]', r"views must be among \['full', 'px4', 'grey'\], got \['px5'\]"),
        ("features.sfnet.views=[]", "views must name one of"),
        ('features.sfnet.views=["px4", "px4"]', "views repeat a name"),
        (
            'features.dense={name="dense", kind="encoder", weights="random", views=["px4"]}',
            'views are for weights = "target"',
        ),
        ("views.full={degrade_to=4}", '"full" is taken'),
        ("views.px4.degrade_to=0", "degrade_to must be positive"),
        ("views.grey.keep_size=false", "keep_size = false is for views with degrade_to"),
        ("targets.metallicity.quantiles=[0.5, 0.16, 0.84]", "quantiles must rise"),
        ("targets.metallicity.quantiles=[0.16, 0.5, 0.9]", "quantiles must be 0.5 and pairs"),
        ('targets.metallicity={columns=["a", "b"], quantiles=[0.16, 0.5, 0.84]}', "quantiles are of one column"),
    ],
)
def test_what_cannot_be_is_refused(path, override, problem):
    with pytest.raises(ConfigError, match=problem):
        config.load(path, [override])
