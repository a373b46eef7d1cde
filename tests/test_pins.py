"""Plans of all configurations. Keys change when somebody means it; then `uv run tests/pins.py` writes the new ones."""

import json

import pytest

import pins

CONFIGS = sorted((pins.ROOT / "config").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_result_of_a_configuration_has_the_key_that_it_had(path):
    assert pins.pins_of(path) == json.loads(pins.PINS.read_text())[path.name]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_a_job_reads_is_itself_a_job_of_the_plan(path):
    plan = pins.plan_of(path)
    assert {needed for job in plan for needed in job.inputs.values()} <= set(plan)
    assert all(plan.index(needed) < place for place, job in enumerate(plan) for needed in job.inputs.values())
