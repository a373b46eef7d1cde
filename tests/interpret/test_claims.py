"""The papers' claims: rules on planted evidence, and that verdicts come of them and of nothing else."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from sfnetlab.interpret.claims import CLAIMS, claims_markdown, judge_claims
from sfnetlab.interpret.claims.evidence import N_RESAMPLES, CannotTestError, ClaimTables, Finding

N = 200
IDS = [f"{i:03d}" for i in range(N)]
TRUTH = np.random.default_rng(0).normal(8.9, 0.2, N)
IS_AGN = (np.arange(N) % 2).astype(float)
NOTHING = pd.DataFrame()


def noise(size, seed):
    return np.random.default_rng(1 + seed).normal(0, size, N)


RUNS = range(5)


def method(
    kind, probe, error, *, features=None, k=None, seeds=RUNS, draw=0, budget=512, target="metallicity", column="oh_p50"
):
    """Predictions of a method whose errors have about this size; methods of one draw share the shape of the errors."""
    predicted = TRUTH + noise(error, draw)
    tables = [rows(kind, probe, TRUTH, predicted, features, k, seed, budget, target, column) for seed in seeds]
    return pd.concat(tables, ignore_index=True)


def classifier(kind, probe, error, *, features=None, k=None, budget=512, draw=0):
    """Scores of a classifier with errors of this size around -1 and 1."""
    scores = 2 * IS_AGN - 1 + noise(error, 50 + draw)
    tables = [rows(kind, probe, IS_AGN, scores, features, k, seed, budget, "agn", "bptclass") for seed in RUNS]
    return pd.concat(tables, ignore_index=True)


def rows(kind, probe, truth, predicted, features, k, seed, budget, target, column):
    table = pd.DataFrame({"id_str": IDS, "y_true": truth, "y_pred": predicted})
    about = {"features": features or kind, "kind": kind, "k": k, "seed": seed}
    about |= {"probe": probe, "n_features_used": budget, "target": target, "column": column}
    about |= {"family": f"{features or kind} {k}", "training": seed}
    return table.assign(**about).astype({"k": "Int64", "seed": "Int64", "training": "Int64"})


def scores_on_valid(predictions):
    """Errors of these predictions, as if they were of valid galaxies."""
    by = ["features", "kind", "k", "seed", "probe", "n_features_used", "target", "column"]
    squares = predictions.assign(value=(predictions["y_pred"] - predictions["y_true"]) ** 2)
    scores = np.sqrt(squares.groupby(by, dropna=False)["value"].mean()).reset_index()
    return scores.assign(split="valid", metric="rmse")


def evidence(*predictions, **tables):
    columns = method("mean", "linear", 0.2)
    every = pd.concat([columns, *predictions], ignore_index=True)
    settings = {
        "predictions": every,
        "valid": scores_on_valid(every),
        "alignment": NOTHING,
        "alignment_scores": NOTHING,
        "associations": NOTHING,
        "recovery": NOTHING,
        "matching": NOTHING,
        "frequencies": NOTHING,
        "regression": "metallicity",
        "column": "oh_p50",
        "classes": "agn",
        "held_fixed": pd.DataFrame(index=pd.Index(IDS)),
        "pretrained": frozenset(),
    }
    return ClaimTables(**(settings | tables))


def claim(name):
    (found,) = (claim for claim in CLAIMS if claim.name == name)
    return found


def found(name, *predictions, **tables):
    return claim(name).test(evidence(*predictions, **tables))


# --- the rule of a verdict --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "side", "verdict"),
    [
        (1.1, 1.3, "above", "holds"),
        (0.7, 0.9, "above", "does not hold"),
        (0.7, 0.9, "below", "holds"),
        (1.1, 1.3, "below", "does not hold"),
        (0.9, 1.1, "above", "undecided"),
        (1.0, 1.1, "above", "undecided"),
        (0.9, 1.0, "below", "undecided"),
        (np.nan, 1.3, "above", "undecided"),
        (np.nan, np.nan, "above", "undecided"),
    ],
)
def test_a_verdict_wants_the_whole_interval_on_one_side_of_the_line(low, high, side, verdict):
    assert Finding("", (low + high) / 2, low, high, 1.0, side).verdict == verdict


def test_a_value_that_is_not_known_is_undecided():
    assert Finding("", np.nan, 2.0, 3.0, 1.0, "above").verdict == "undecided"


def test_a_number_without_interval_needs_more_runs():
    assert Finding("", 2.0, np.nan, np.nan, 1.0, "above").verdict == "needs 5 runs"


# --- claims about predictions -----------------------------------------------------------------------------------------

SFNET_HEADS = [method("sfnet", "head", 0.1, k=k) for k in (2, 4)]


@pytest.mark.parametrize(("error", "verdict"), [(0.1, "holds"), (0.12, "does not hold")])
def test_accuracy_is_kept_where_the_error_of_the_sparse_network_is_that_of_the_dense_one(error, verdict):
    dense = method("encoder", "head", 0.1)
    assert found("accuracy", method("sfnet", "head", error, k=4), dense).verdict == verdict


def test_a_difference_that_resampled_galaxies_do_not_bear_out_is_undecided():
    photometry = method("photometry", "xgboost", 0.1, draw=7, seeds=[None])
    one = found("images beat photometry", method("encoder", "head", 0.1), photometry)
    assert one.verdict == "undecided"
    assert abs(one.value) > 0.02


def test_the_accuracy_of_k_4_counts_else_of_the_largest():
    dense = method("encoder", "head", 0.1)
    four, eight = (method("sfnet", "head", error, k=k) for error, k in ((0.1, 4), (0.2, 8)))
    assert found("accuracy", four, eight, dense).value == pytest.approx(0)
    assert found("accuracy", method("sfnet", "head", 0.1, k=2), eight, dense).value == pytest.approx(1)


def test_the_k_of_an_sfnet_for_another_target_is_not_asked_for():
    other = method("sfnet", "head", 0.3, features="lines", k=4, target="lines", column="log_Ha")
    read = method("sfnet", "ridge", 0.3, features="lines", k=4)
    tables = [*(method("sfnet", "head", 0.1, k=k) for k in (2, 6, 8)), other, read, method("encoder", "head", 0.1)]
    assert "k = 8" in found("accuracy", *tables).what
    assert found("any k", *tables).value == pytest.approx(0)
    sae = method("sae", "ridge", 0.2, k=4)
    with pytest.raises(CannotTestError, match="no k that features"):
        found("trained sparse", *tables, sae)


@pytest.mark.parametrize(("error", "verdict"), [(0.101, "holds"), (0.15, "does not hold")])
def test_two_features_suffice_where_a_probe_on_them_does_as_well_as_the_head(error, verdict):
    two = method("sfnet", "linear", error, k=2, budget=2)
    more = method("sfnet", "linear", 0.01, k=2, budget=4)
    assert found("two features", *SFNET_HEADS, two, more).verdict == verdict


@pytest.mark.parametrize(("error", "verdict"), [(0.102, "holds"), (0.12, "does not hold")])
def test_k_does_not_matter_where_errors_are_alike(error, verdict):
    assert found("any k", *SFNET_HEADS, method("sfnet", "head", error, k=8)).verdict == verdict


@pytest.mark.parametrize(("at_four", "verdict"), [(0.14, "holds"), (0.08, "does not hold")])
def test_components_do_worse_only_where_they_do_at_every_k(at_four, verdict):
    components = [method("pca", "linear", error, budget=k) for k, error in ((2, 0.2), (4, at_four))]
    assert found("components", *SFNET_HEADS, *components).verdict == verdict


@pytest.mark.parametrize(("error", "verdict"), [(0.18, "holds"), (0.05, "does not hold")])
def test_a_frozen_encoder_fails_where_ridge_explains_little(error, verdict):
    frozen = method("encoder", "ridge", error, features="zoobot", seeds=[None])
    trained = method("encoder", "ridge", 0.01, features="dense")
    assert found("frozen encoder", trained, frozen, pretrained=frozenset({"zoobot"})).verdict == verdict


@pytest.mark.parametrize(("error", "verdict"), [(0.13, "holds"), (0.08, "does not hold")])
def test_images_beat_photometry_where_the_network_errs_less(error, verdict):
    photometry = method("photometry", "xgboost", error, seeds=[None])
    assert found("images beat photometry", method("encoder", "head", 0.1), photometry).verdict == verdict


@pytest.mark.parametrize(("error", "verdict"), [(0.13, "holds"), (0.08, "does not hold")])
def test_trained_sparse_is_better_where_ridge_on_its_features_errs_less(error, verdict):
    ours = [method("sfnet", "ridge", 0.1, k=k) for k in (2, 4)]
    theirs = [method("sae", "ridge", error if k == 4 else 0.01, k=k) for k in (4, 8)]
    assert found("trained sparse", *SFNET_HEADS, *ours, *theirs).verdict == verdict


def test_the_sae_that_stands_for_all_is_chosen_on_valid_galaxies_whatever_test_galaxies_say():
    saes = [method("sae", "ridge", error, features=name, k=2) for name, error in (("one", 0.08), ("two", 0.13))]
    tables = [method("sfnet", "ridge", 0.1, k=2), *SFNET_HEADS, *saes]
    valid = scores_on_valid(pd.concat(tables)).assign(value=lambda t: np.where(t["features"] == "two", 0.1, 0.5))
    assert found("trained sparse", *tables).verdict == "does not hold"
    chosen = found("trained sparse", *tables, valid=valid)
    assert chosen.verdict == "holds"
    assert "latents of two" in chosen.what


def test_two_features_are_of_the_k_that_is_best_on_valid_galaxies():
    two = [method("sfnet", "linear", error, k=k, budget=2) for k, error in ((2, 0.2), (4, 0.101))]
    one = found("two features", *SFNET_HEADS, *two)
    assert (one.verdict, "k = 4" in one.what) == ("holds", True)


def test_without_scores_on_valid_galaxies_none_of_several_methods_is_chosen():
    saes = [method("sae", "ridge", 0.1, features=name, k=2) for name in ("one", "two")]
    with pytest.raises(CannotTestError, match="by which to choose among one, two"):
        found("trained sparse", *SFNET_HEADS, method("sfnet", "ridge", 0.1, k=2), *saes, valid=NOTHING)


@pytest.mark.parametrize(("error", "verdict"), [(0.13, "holds"), (0.08, "does not hold")])
def test_latents_must_be_better_than_those_of_every_null_arm(error, verdict):
    arms = [
        method("null_sae", "ridge", 0.3, features="one", k=4),
        method("null_sae", "ridge", error, features="two", k=4),
    ]
    assert found("better than null", method("sae", "ridge", 0.1, k=4), *arms).verdict == verdict


def test_arms_are_compared_at_the_largest_k_that_all_have():
    arms = [method("null_sae", "ridge", 0.3, features=name, k=k) for name, k in (("one", 4), ("two", 4), ("two", 8))]
    saes = [method("sae", "ridge", 0.1, k=k) for k in (4, 8)]
    assert "k = 4" in found("better than null", *saes, *arms).what


@pytest.mark.parametrize(("few", "every", "verdict"), [(0.3, 1.5, "holds"), (1.5, 0.3, "does not hold")])
def test_fewer_features_are_better_for_agn_where_their_f1_is_larger(few, every, verdict):
    tables = [
        classifier("sfnet", "linear_svm", few, k=4, budget=4),
        classifier("sfnet", "linear_svm", every, k=4, draw=1),
        classifier("photometry", "logistic", every, budget=7, draw=2),
    ]
    assert found("fewer for AGN", *SFNET_HEADS, *tables).verdict == verdict
    assert found("AGN against photometry", *SFNET_HEADS, *tables).verdict == verdict


def test_classifiers_are_compared_by_their_auc_wherever_their_zero_lies():
    from sklearn.metrics import roc_auc_score

    few, every = (classifier("sfnet", "linear_svm", 1, k=4, budget=budget, draw=budget) for budget in (4, 512))
    expected = roc_auc_score(few["y_true"], few["y_pred"]) - roc_auc_score(every["y_true"], every["y_pred"])
    few = few.assign(y_pred=few["y_pred"] - 3)
    assert found("fewer for AGN", *SFNET_HEADS, few, every).value == pytest.approx(expected)


# --- how predictions are read -----------------------------------------------------------------------------------------


def test_methods_are_paired_by_id_whatever_the_order_of_rows():
    sparse, dense = method("sfnet", "head", 0.1, k=4), method("encoder", "head", 0.1)
    shuffled = dense.sample(frac=1, random_state=3)
    assert found("accuracy", sparse, shuffled) == found("accuracy", sparse, dense)
    assert found("accuracy", sparse, shuffled).high == pytest.approx(0)


def test_methods_of_different_galaxies_are_not_compared():
    with pytest.raises(
        ValueError, match="expected predictions of the 200 galaxies of metallicity by each of 5 runs, found 999"
    ):
        found("accuracy", method("sfnet", "head", 0.1, k=4), method("encoder", "head", 0.1).iloc[1:])


def test_errors_are_averaged_over_seeds():
    seeds = [method("sfnet", "head", size, k=4, seeds=[seed]) for seed, size in enumerate((0.1, 0.3))]
    dense = method("encoder", "head", 0.1)
    rmse = [np.sqrt(np.mean((table["y_pred"] - table["y_true"]) ** 2)) for table in (*seeds, dense)]
    assert found("accuracy", *seeds, dense).value == pytest.approx(np.mean(rmse[:2]) / rmse[2] - 1)


def test_seeds_that_differ_more_than_methods_decide_nothing():
    errors = (0.08, 0.1, 0.12, 0.09, 0.11)
    seeds = [method("sfnet", "head", size, k=4, seeds=[seed]) for seed, size in enumerate(errors)]
    assert found("accuracy", *seeds, method("encoder", "head", 0.1)).verdict == "undecided"


def test_one_run_of_a_method_upholds_nothing_and_says_what_it_needs():
    tables = [method("sfnet", "head", 0.1, k=4, seeds=[0]), method("encoder", "head", 0.2)]
    table = judge_claims(evidence(*tables)).set_index("name")
    assert table.loc["accuracy", "verdict"] == "needs 5 runs"
    assert "seeds = [0, 1, 2, 3, 4]" in table.loc["accuracy", "why"]
    assert table.loc["accuracy", "value"] == pytest.approx(-0.5)
    assert "-0.5 of so few runs there is no interval" in claims_markdown(table.reset_index(), "")


def test_of_two_equally_good_methods_hardly_ever_one_is_found_better():
    rng = np.random.default_rng(4)
    verdicts = []
    for _ in range(25):
        tables = [
            rows(kind, probe, TRUTH, TRUTH + rng.normal(0, 0.1, N), None, None, seed, 512, "metallicity", "oh_p50")
            for kind, probe, seeds in (("encoder", "head", RUNS), ("photometry", "xgboost", [None]))
            for seed in seeds
        ]
        verdicts.append(found("images beat photometry", *tables).verdict)
    assert sum(verdict != "undecided" for verdict in verdicts) <= 5  # 5 % of 25 is 1


# --- claims about features --------------------------------------------------------------------------------------------


def aligned(kind, strength, novelty, n=64, scatter=0.05):
    rng = np.random.default_rng(len(kind))
    table = pd.DataFrame(
        {
            "feature": np.arange(n),
            "frequency_rank": np.arange(n),
            "best_label": "smooth_fraction",
            "rho": -strength,
            "low": -strength - 0.05,
            "high": -strength + 0.05,
            "max_rho": strength + rng.normal(0, scatter, n),
            "null_mean": 0.1,
            "novelty": novelty + rng.normal(0, scatter, n),
        }
    )
    return identified(table, kind)


def identified(table, kind, seeds=RUNS):
    k = None if kind in ("pca", "encoder") else 4
    tables = [table.assign(features=kind, kind=kind, k=k, seed=seed) for seed in seeds]
    return pd.concat(tables, ignore_index=True).astype({"k": "Int64", "seed": "Int64"})


def scored(kind, *scores, numbers=(16, 64), half=0.05):
    table = pd.DataFrame({"n_features": numbers, "score": scores})
    return identified(table.assign(low=table["score"] - half, high=table["score"] + half), kind)


@pytest.mark.parametrize(
    ("latents", "half", "verdict"),
    [(0.5, 0.05, "holds"), (0.1, 0.05, "does not hold"), (0.32, 0.05, "undecided"), (0.5, 0.3, "undecided")],
)
def test_latents_align_better_where_the_interval_over_galaxies_and_runs_lies_above_0(latents, half, verdict):
    table = pd.concat([scored("sae", 0, latents, half=half), scored("pca", 0, 0.3, half=half)])
    assert found("alignment", alignment_scores=table).verdict == verdict


def test_latents_and_components_are_compared_at_the_largest_number_that_both_have():
    table = pd.concat([scored("sae", 0.2, 0.9), scored("pca", 0.4, numbers=(16,))])
    finding = found("alignment", alignment_scores=table)
    assert finding.verdict == "does not hold"
    assert "16" in finding.what
    with pytest.raises(CannotTestError, match="equal numbers"):
        found("alignment", alignment_scores=pd.concat([scored("sae", 0.2, 0.9), scored("pca", 0.4, numbers=(9,))]))


@pytest.mark.parametrize(("latents", "verdict"), [(0.9, "holds"), (0.5, "does not hold"), (0.7, "undecided")])
def test_latents_are_novel_where_labels_explain_less_of_them(latents, verdict):
    table = pd.concat([aligned("sae", 0.3, latents), aligned("pca", 0.3, 0.7)])
    assert found("novelty", alignment=table).verdict == verdict


@pytest.mark.parametrize(("rho", "verdict"), [(0.85, "holds"), (0.5, "does not hold"), (0.68, "undecided")])
def test_the_first_component_is_a_label_where_they_correlate_with_either_sign(rho, verdict):
    one = found("first component", alignment=aligned("pca", rho, 0.5))
    assert one.verdict == verdict
    assert (one.low, one.high) == pytest.approx((rho - 0.05, rho + 0.05))


def used(frequencies, kind="sfnet", features=None):
    table = pd.DataFrame({"feature": np.arange(len(frequencies)), "frequency": frequencies})
    return identified(table, kind).assign(features=features or kind)


def associated(pearson, features=None):
    table = pd.DataFrame({"feature": np.arange(3), "label": "oh_p50", "pearson": pearson})
    table = table.assign(pearson_low=table["pearson"] - 0.05, pearson_high=table["pearson"] + 0.05)
    return identified(table, "sfnet").assign(features=features or "sfnet")


@pytest.mark.parametrize(("r", "verdict"), [(-0.85, "holds"), (0.3, "does not hold"), (0.0, "does not hold")])
def test_one_feature_follows_where_the_most_used_does(r, verdict):
    tables = {"frequencies": used([0.1, 0.9, 0.2]), "associations": associated([0.9, r, 0.9])}
    assert found("one feature", *SFNET_HEADS, **tables).verdict == verdict


def test_the_one_feature_is_of_the_network_for_this_target():
    tables = {
        "frequencies": pd.concat([used([0.9, 0.1, 0.2], features="a_lines"), used([0.1, 0.9, 0.2])]),
        "associations": pd.concat([associated([0.1] * 3, features="a_lines"), associated([0.0, 0.85, 0.0])]),
    }
    other = method("sfnet", "head", 0.1, features="a_lines", k=4, target="lines", column="log_Ha")
    assert found("one feature", *SFNET_HEADS, other, **tables).verdict == "holds"


@pytest.mark.parametrize(
    ("n_used", "verdict"),
    [([11, 12, 10, 11, 11], "holds"), ([3, 3, 2, 3, 3], "does not hold"), ([3, 5, 4, 8, 5], "undecided")],
)
def test_a_library_is_more_features_than_one_galaxy_takes(n_used, verdict):
    tables = [used([0.1] * n + [0.001] * 5)[lambda t, seed=seed: t["seed"] == seed] for seed, n in enumerate(n_used)]
    one = found("library", *SFNET_HEADS, frequencies=pd.concat(tables))
    assert (one.value, one.line) == (pytest.approx(np.mean(n_used)), 4)
    assert one.verdict == verdict


@pytest.mark.parametrize(
    ("participation", "verdict"),
    [([6, 7, 6.5, 6, 7], "holds"), ([2.8, 2.9, 2.7, 2.8, 3], "does not hold"), ([3, 5, 4, 6, 4], "undecided")],
)
def test_features_are_effective_where_they_span_more_than_k_directions(participation, verdict):
    heads = [method("sfnet", "head", 0.1, k=4, seeds=[i]).assign(participation=p) for i, p in enumerate(participation)]
    assert found("effective features", *heads).verdict == verdict


def test_of_a_table_without_effective_numbers_nothing_is_said():
    with pytest.raises(CannotTestError, match="effective number"):
        found("effective features", *SFNET_HEADS)


# --- beyond mass and colour -------------------------------------------------------------------------------------------

MASS, COLOUR = np.random.default_rng(7).normal(size=(2, N))
HELD = pd.DataFrame({"mass": MASS, "g - r": COLOUR}, index=pd.Index(IDS))


def told(*parts, size=0.05):
    """Heads of five runs that predict a sum of parts of the label."""
    label = 8.9 + 0.1 * MASS + 0.1 * np.abs(COLOUR) + noise(0.1, 90)
    tables = [
        rows("sfnet", "head", label, sum(parts) + noise(size, 100 + seed), None, 4, seed, 512, "metallicity", "oh_p50")
        for seed in RUNS
    ]
    return pd.concat(tables, ignore_index=True)


def test_a_network_that_sees_what_the_catalogue_does_not_has_goes_beyond_it():
    one = found("beyond mass and colour", told(0.1 * MASS, noise(0.1, 90)), held_fixed=HELD)
    assert one.verdict == "holds"
    assert "mass, g - r" in one.what


@pytest.mark.parametrize("parts", [[0.1 * MASS], [0.1 * MASS, 0.1 * np.abs(COLOUR)], [0.1 * MASS**2]])
def test_a_network_that_sees_mass_and_colour_however_bent_does_not(parts):
    assert found("beyond mass and colour", told(*parts), held_fixed=HELD).verdict != "holds"


def test_rows_of_the_catalogue_may_have_any_order_and_gaps():
    shuffled = HELD.sample(frac=1, random_state=1)
    network = told(0.1 * MASS, noise(0.1, 90))
    here = found("beyond mass and colour", network, held_fixed=HELD)
    assert found("beyond mass and colour", network, held_fixed=shuffled) == here
    gaps = HELD.assign(size=np.nan).mask(np.arange(2 * N).reshape(N, 2)[:, [0, 1, 1]] % 17 == 0)
    assert found("beyond mass and colour", network, held_fixed=gaps).verdict == "holds"


def test_without_columns_or_with_few_galaxies_nothing_is_held_fixed():
    with pytest.raises(CannotTestError, match="no mass, colour"):
        found("beyond mass and colour", told(MASS))
    many = pd.DataFrame(np.random.default_rng(0).normal(size=(N, 8)), index=pd.Index(IDS)).add_prefix("c")
    with pytest.raises(CannotTestError, match="too few to hold 8 columns"):
        found("beyond mass and colour", told(MASS), held_fixed=many)


def matched(shares, pair=("sfnet", "sfnet"), k=4, untrained=0.1):
    """Matches of every two of three seeds."""
    names = dict(zip(("features_a", "features_b"), pair, strict=True))
    table = pd.DataFrame({"share_alike": shares, "table_a": ["0", "0", "1"], "table_b": ["1", "2", "2"]})
    table = table.assign(untrained_alike=untrained, excess_alike=table["share_alike"] - untrained)
    return table.assign(kind_a="sfnet", kind_b="sfnet", k_a=k, k_b=k, **names)


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [([0.8, 0.9, 0.85], "holds"), ([0.1, 0.2, 0.15], "does not hold"), ([0.2, 0.9, 0.9], "undecided")],
)
def test_features_recur_where_every_two_seeds_share_most(shares, verdict):
    others = matched([0.5] * 3, ("sfnet", "sfnet_lines"))
    assert (
        found("recurrence above an untrained network", matching=pd.concat([matched(shares), others])).verdict == verdict
    )


def test_the_sfnet_whose_features_recur_least_counts():
    tables = pd.concat([matched([0.8, 0.9, 0.85]), matched([0.1, 0.2, 0.15], k=8)])
    assert found("recurrence above an untrained network", matching=tables).verdict == "does not hold"


def test_features_that_an_untrained_network_shares_as_well_do_not_recur():
    shares = [0.8, 0.82, 0.81]
    assert (
        found("recurrence above an untrained network", matching=matched(shares, untrained=0.88)).verdict
        == "does not hold"
    )
    itself = matched(shares).assign(untrained_alike=shares, excess_alike=0.0)
    assert found("recurrence above an untrained network", matching=itself).verdict == "undecided"
    with pytest.raises(CannotTestError, match="no untrained network"):
        found("recurrence above an untrained network", matching=matched(shares, untrained=np.nan))


def test_two_seeds_are_one_pair_and_no_interval():
    assert (
        found("recurrence above an untrained network", matching=matched([0.8, 0.9, 0.85]).iloc[:1]).verdict
        == "needs 5 runs"
    )


def recovered(kind, value, n=16):
    row = {"factor": "all", "metric": "correlation", "value": value, "low": value - 0.05, "high": value + 0.05}
    decoys = [
        row | {"metric": "r2", "n_drawn": n, "value": 9.0},
        row | {"n_drawn": None, "value": 9.0 * (kind == "sae")},
    ]
    return identified(pd.DataFrame([row | {"n_drawn": n}, *decoys]), kind)


@pytest.mark.parametrize(("theirs", "verdict"), [(0.3, "holds"), (0.9, "does not hold"), (0.58, "undecided")])
def test_features_are_closer_to_factors_where_they_match_better(theirs, verdict):
    table = pd.concat([recovered("sfnet", 0.6), recovered("sae", theirs)])
    one = found("factors", *SFNET_HEADS, recovery=table)
    assert one.verdict == verdict
    assert "16 features each" in one.what


def test_factors_are_compared_at_numbers_of_features_that_every_run_of_both_has():
    small, large = recovered("sfnet", 0.6), pd.concat([recovered("sae", 0.3), recovered("sae", 0.9, n=64)])
    one_run = recovered("sfnet", 0.9, n=64)
    one_run = one_run[one_run["seed"] == 0]
    assert "16 features each" in found("factors", *SFNET_HEADS, recovery=pd.concat([small, one_run, large])).what
    with pytest.raises(CannotTestError, match="equal numbers"):
        found("factors", *SFNET_HEADS, recovery=pd.concat([small, recovered("sae", 0.9, n=64)]))


# --- many claims ------------------------------------------------------------------------------------------------------


def test_p_of_an_interval_is_that_of_students_t():
    assert Finding("", 1.0, 0.0, 2.0, 0.0, "above").p == pytest.approx(0.05)
    half = 2.776 / np.sqrt(5)  # of five runs with a standard deviation of 1
    alone = Finding("", 1.5, 1.5 - half, 1.5 + half, 0.0, "above", 4)
    expected = ttest_1samp(np.array([1.5, 1.5]).repeat([1, 4]) + np.array([0, -1, 1, -1, 1]), 0).pvalue
    assert alone.p == pytest.approx(expected, rel=1e-3)
    assert np.isnan(Finding("", 1.0, np.nan, np.nan, 0.0, "above").p)


@pytest.mark.parametrize(("n_others", "verdict"), [(0, "holds"), (1, "holds"), (4, "undecided"), (15, "undecided")])
def test_one_of_many_claims_wants_more_than_to_be_decided_alone(monkeypatch, n_others, verdict):
    few = Finding("", 1.0, 0.2, 1.8, 0.0, "above")  # p = 0.014
    unsure = Finding("", 0.1, -1.0, 1.2, 0.0, "above")
    claims = [replace(CLAIMS[0], test=lambda _, one=one: one) for one in [few, *[unsure] * n_others]]
    monkeypatch.setattr("sfnetlab.interpret.claims.CLAIMS", claims)
    table = judge_claims(evidence())
    assert table["verdict"].iloc[0] == verdict
    assert ("may be chance" in table["why"].iloc[0]) == (verdict == "undecided")
    assert table["p_holm"].iloc[0] == pytest.approx(min(1, few.p * (1 + n_others)))


def test_two_values_of_k_are_not_any_k():
    with pytest.raises(CannotTestError, match="three values of k"):
        found("any k", *SFNET_HEADS)


def test_there_are_draws_enough_to_decide_as_many_claims_as_there_are():
    assert 2 / (N_RESAMPLES + 1) * len(CLAIMS) < 0.05


def test_where_resamples_limit_p_the_report_says_at_most():
    heads = [method("sfnet", "head", 0.1, k=4), method("encoder", "head", 0.2)]
    table = judge_claims(evidence(*heads))
    row = table.set_index("name").loc["accuracy"]
    assert row["is_bound"]
    assert f"p ≤ {row['p']:.2g}" in claims_markdown(table, "")


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_names_of_claims_differ():
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


def test_what_cannot_be_tested_says_why():
    table = judge_claims(evidence(classes=None)).set_index("name")
    assert (table["verdict"] == "cannot be tested here").all()
    assert (table["why"] != "").all()
    assert table[["value", "low", "high"]].isna().all(axis=None)
    assert table.loc["fewer for AGN", "why"]
    assert "trained elsewhere" in table.loc["frozen encoder", "why"]
    assert "two" in table.loc["recurrence above an untrained network", "why"]
    assert "factors behind these galaxies" in table.loc["factors", "why"]


def test_classes_that_are_not_configured_are_why():
    sfnet = classifier("sfnet", "linear_svm", 0.3, k=4, budget=4)
    table = judge_claims(evidence(*SFNET_HEADS, sfnet, classes=None)).set_index("name")
    assert table.loc["fewer for AGN", "why"] == "no [classes] are configured"


def test_the_table_of_verdicts_is_plain_json():
    table = judge_claims(evidence(*SFNET_HEADS, method("encoder", "head", 0.1)))
    records = json.loads(table.to_json(orient="records"))
    json.dumps(records, allow_nan=False)
    verdicts = {row["name"]: row["verdict"] for row in records}
    assert list(verdicts) == [claim.name for claim in CLAIMS]
    assert verdicts["accuracy"] == "holds"


def test_the_report_lists_every_claim_in_a_table_of_four_columns():
    text = claims_markdown(judge_claims(evidence(alignment=aligned("pca", 0.8, 0.5))), "Claims here")
    table = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(table) == len(CLAIMS)
    assert all(line.replace("\\|", "").count("|") == 5 for line in table)
    assert any("\\|rho\\| of the first component with smooth_fraction: 0.8 [0.75, 0.85], line 0.7" in x for x in table)
    for claim in CLAIMS:
        about = f"- **{claim.name}** (version {claim.version}, {claim.date}): {claim.rule} The line: {claim.reason}"
        assert about in text
    assert f"cannot be tested here: {len(CLAIMS) - 1}" in text.splitlines()[2]
