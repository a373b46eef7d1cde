"""Every kind says what it is, once, and what it says holds together."""

import dataclasses
from typing import get_args

import pytest

from sfnetlab.jobs import TableSpec
from sfnetlab.methods import METHODS, TRAITS, Features, kinds_of, typical
from sfnetlab.methods.contract import Role


@pytest.mark.parametrize("kind", METHODS)
def test_a_kind_is_the_default_of_its_settings_and_they_are_frozen(kind):
    method = METHODS[kind]
    assert {each.name: each.default for each in dataclasses.fields(method)}["kind"] == kind
    assert method.__dataclass_params__.frozen


def test_all_settings_of_features_are_registered_by_their_kind():
    assert set(METHODS.values()) == set(get_args(Features))


def test_no_two_kinds_have_one_place_in_tables():
    assert len({traits.rank for traits in TRAITS.values()}) == len(TRAITS)


def test_no_two_kinds_look_the_same():
    looks = [(each.look.colors[0], each.look.markers[0], each.look.linestyles[0]) for each in TRAITS.values()]
    assert len(set(looks)) == len(looks)


def test_every_role_has_a_kind_and_every_kind_a_role():
    assert sorted(kind for role in get_args(Role) for kind in kinds_of(role)) == sorted(TRAITS)


def test_what_decomposes_an_embedding_cannot_be_decomposed_itself():
    assert all(TRAITS[kind].role in ("network", "embedding") for kind in TRAITS if TRAITS[kind].can_be_decomposed)


def test_no_kind_is_both_sparse_and_ordered():
    assert not [kind for kind in TRAITS if TRAITS[kind].is_sparse and TRAITS[kind].is_ordered]


@pytest.mark.parametrize("kind", METHODS)
def test_a_kind_is_sparse_if_its_settings_name_k(kind):
    assert TRAITS[kind].is_sparse == ("k" in {each.name for each in dataclasses.fields(METHODS[kind])})


def table(features: str, kind: str, k: int | None, seed: int | None) -> TableSpec:
    return TableSpec(features=features, kind=kind, k=k, seed=seed)


def test_a_table_is_named_by_what_it_has():
    assert table("sae", "sae", 4, 0).name == "sae-k4-seed0"
    assert table("photometry", "photometry", None, None).name == "photometry"


def test_the_typical_table_has_the_first_seed_and_the_largest_k_of_a_sparse_network():
    tables = [table("sae", "sae", k, seed) for k in (2, 4, 8) for seed in (1, 0)]
    tables += [table("sfnet", "sfnet", k, 0) for k in (2, 4)] + [table("null", "null_sae", 16, 0)]
    assert typical(tables) == [
        table("sae", "sae", 4, 0),
        table("sfnet", "sfnet", 4, 0),
        table("null", "null_sae", 16, 0),
    ]
