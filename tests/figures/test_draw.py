"""What `draw` of each figure takes from results that are made up: which figures there are, and of what."""

import importlib
import io
import pkgutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sfnetlab import figures
from sfnetlab.figures import (
    alignment,
    autoencoder_training,
    confounders,
    confusion_matrices,
    contact_sheet,
    differences,
    equations,
    equivariance,
    fvu_vs_l0,
    gains,
    l0_distribution,
    label_scores,
    latent_traversal,
    latent_walk,
    localisation,
    mass_metallicity,
    predicted_vs_true,
    prediction_examples,
    prediction_summary,
    prior_samples,
    reconstruction_quality,
    reconstructions,
    recovery,
    resolution,
    rmse_vs_k,
    seed_stability,
    strongest_galaxies,
    training_curves,
)
from sfnetlab.interpret.latents import TRAVERSED_SIGMAS
from sfnetlab.jobs import TableSpec

SFNET = TableSpec(features="sfnet", kind="sfnet", k=4, seed=0)
SAE = TableSpec(features="sae", kind="sae", k=4, seed=0)
PCA = TableSpec(features="pca", kind="pca", k=None, seed=0)
DENSE = TableSpec(features="dense", kind="encoder", k=None, seed=0)
VAE = TableSpec(features="mmd", kind="vae", k=None, seed=0)
MEAN = TableSpec(features="mean", kind="mean", k=None, seed=None)


def texts(fig):
    return [text.get_text() for ax in fig.axes for text in ax.texts]


def shown_pixels(fig):
    """The value of the first pixel of each cutout."""
    return [int(np.asarray(image.get_array())[0, 0, 0]) for ax in fig.axes for image in ax.get_images()]


def labels_of(ax):
    return {str(line.get_label()) for line in ax.lines if not str(line.get_label()).startswith("_")}


def test_every_file_with_a_draw_is_registered_once():
    modules = [
        importlib.import_module(f"sfnetlab.figures.{each.name}") for each in pkgutil.iter_modules(figures.__path__)
    ]
    draws = [module.draw for module in modules if hasattr(module, "draw")]
    assert len(set(figures.FIGURES)) == len(figures.FIGURES)
    assert set(figures.FIGURES) == set(draws)


def test_nothing_is_drawn_of_tables_without_findings(made_up):
    made_up.survey(6, images=False, oh_p50=9.0)
    made_up.table(SFNET, described={"features": pd.DataFrame({"feature": [1], "name": ["Z1"]})})
    made_up.comparison(two_classes=["agn"], many_classes=["type"])
    unneeded = (
        alignment, confounders, confusion_matrices, contact_sheet, equivariance, fvu_vs_l0, label_scores,
        latent_traversal, latent_walk, localisation, prediction_examples, prior_samples,
        reconstruction_quality, reconstructions, recovery, resolution, rmse_vs_k, seed_stability, strongest_galaxies,
        training_curves,
    )  # fmt: skip
    assert [name for module in unneeded for name in made_up.drawn(module.draw)] == []


# --- which tables -----------------------------------------------------------------------------------------------------


def confusions(features, kind, k=None):
    counts = {"true_negative": 9, "false_positive": 1, "false_negative": 1, "true_positive": 9, "f1": 0.9, "auc": 0.9}
    return pd.DataFrame(
        [
            {
                "features": features, "kind": kind, "k": k, "seed": 0, "probe": "logistic", "n_features_used": n,
                "target": "agn", "split": "test", "metric": metric, "value": value,
            }
            for n in (4, 32)
            for metric, value in counts.items()
        ]
    )  # fmt: skip


KINDS = ("external", "photometry", "encoder", "null_sae", "pls", "pca", "vae", "sae", "zoobot", "sfnet")


def rows_of(fig):
    """What stands left of each row of matrices."""
    return [ax.get_ylabel().removesuffix("\ntrue class") for ax in fig.axes if ax.get_ylabel()]


def test_confusion_matrices_show_a_table_of_each_kind_from_networks_to_controls(made_up):
    tables = [confusions(f"my {kind}", kind, 4 if kind in ("sfnet", "sae", "null_sae") else None) for kind in KINDS]
    made_up.comparison(two_classes=["agn"], metrics=pd.concat(tables))
    made_up.table(SFNET)
    (fig,) = made_up.drawn(confusion_matrices.draw).values()
    assert [name.removeprefix("my ") for name in rows_of(fig)] == [
        "sfnet", "sae", "null_sae", "vae", "pls", "pca", "external", "zoobot", "encoder", "photometry",
    ]  # fmt: skip


def test_more_tables_of_a_kind_are_confused_only_while_there_is_room(made_up):
    tables = [confusions(f"sae {i}", "sae", 4) for i in range(9)] + [confusions("pca", "pca")]
    made_up.comparison(two_classes=["agn"], metrics=pd.concat(tables))
    made_up.table(SFNET)
    (fig,) = made_up.drawn(confusion_matrices.draw).values()
    assert rows_of(fig) == ["sae 0", "sae 1", "sae 2", "sae 3", "pca"]


def test_the_dimensions_of_what_is_only_decomposed_are_no_method_but_those_of_a_vae_are(made_up):
    changes = pd.DataFrame(
        {"feature": range(9), "label": "turned", "is_symmetry": True, "change": np.linspace(0, 1, 9)}
    )
    aligned = pd.DataFrame({"n_features": [4, 16, 16], "score": 0.5, "low": 0.4, "high": 0.6})
    aligned["untrained_score"], aligned["permuted_score"] = 0.2, 0.1
    for spec in (DENSE, VAE, SAE):
        made_up.table(spec, described={"changes": changes, "alignment_nulls": aligned})
    made_up.comparison()
    fig = made_up.drawn(equivariance.draw)["equivariance"]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["mmd (9 features)", "SAE (9 features)"]
    (ax,) = made_up.drawn(alignment.draw)["alignment"].axes
    assert (ax.get_title(), labels_of(ax)) == ("16 features", {"mmd", "sae"})


def test_predictions_are_those_of_heads_and_of_probes_on_all_features_but_not_the_mean(made_up):
    ids = made_up.survey(90, oh_p50=9.0)

    def predicted(probe, n, value):
        return pd.DataFrame(
            {
                "id_str": ids, "target": "metallicity", "column": "oh_p50", "probe": probe, "n_features_used": n,
                "y_true": np.linspace(8, 9, 90), "y_pred": value,
            }
        )  # fmt: skip

    made_up.table(SFNET, probed={"predictions": pd.concat([predicted("ridge", 9, 8.0), predicted("head", 9, 8.1)])})
    made_up.table(SAE, probed={"predictions": pd.concat([predicted("ridge", 2, 8.2), predicted("ridge", 64, 8.3)])})
    made_up.table(MEAN, probed={"predictions": predicted("ridge", 0, 8.5)})
    made_up.comparison()
    (fig,) = made_up.drawn(predicted_vs_true.draw).values()
    assert [ax.get_title() for ax in fig.axes if ax.get_title()] == ["sae k=4, ridge", "sfnet k=4, head"]
    dots = {
        float(np.asarray(line.get_ydata())[0])
        for ax in fig.axes[::2]
        for line in ax.lines
        if len(line.get_xdata()) == 90
    }
    assert dots == {8.1, 8.3}


def scored(features, kind, k, probe, value):
    """Rows of one probe whose error on valid galaxies is `value`."""
    row = {"features": features, "kind": kind, "k": k, "seed": 0, "probe": probe, "n_features_used": 9, "value": value}
    row |= {"target": "metallicity", "column": "oh_p50", "metric": "rmse", "budget": None}
    return [row | {"split": split, "value": value if split == "valid" else 1 - value} for split in ("valid", "test")]


def test_the_head_of_a_figure_is_the_one_that_is_best_on_valid_galaxies(made_up):
    ids = made_up.survey(9, oh_p50=9.0)
    scores = []
    for name, kind, value in (("sfnet", "sfnet", 0.3), ("dense", "encoder", 0.2), ("other", "sfnet", 0.25)):
        rows = pd.DataFrame({"id_str": ids, "y_true": np.linspace(8, 9, 9), "y_pred": 8.5, "column": "oh_p50"})
        rows = rows.assign(target="metallicity", probe="head", n_features_used=9)
        spec = TableSpec(features=name, kind=kind, k=4 if kind == "sfnet" else None, seed=0)
        made_up.table(spec, probed={"predictions": rows}, head_target="metallicity")
        scores += scored(name, kind, spec.k, "head", value)
    made_up.comparison(metrics=pd.DataFrame(scores))
    assert set(made_up.drawn(prediction_summary.draw)) == {"summary-dense-seed0-oh_p50"}
    assert set(made_up.drawn(prediction_examples.draw)) == {"examples-dense-seed0-oh_p50"}


def test_the_strongest_galaxies_are_of_the_best_network_and_the_best_dictionary_and_of_no_dense_features(made_up):
    ids = made_up.survey(9)
    scores = []
    for name, kind, value in (("sae", "sae", 0.3), ("b", "sae", 0.2), ("dense", "encoder", 0.1), ("pca", "pca", 0.1)):
        described = {
            "features": pd.DataFrame({"feature": [1], "frequency": 0.5, "rho": np.nan, "best_label": None}),
            "examples": pd.DataFrame({"feature": [1], "rank": 0, "id_str": ids[8], "activation": 1.0}),
        }
        spec = TableSpec(features=name, kind=kind, k=4 if kind == "sae" else None, seed=0)
        made_up.table(spec, described=described)
        scores += scored(name, kind, spec.k, "ridge", value)
    made_up.table(SFNET, described=described)
    made_up.comparison(metrics=pd.DataFrame([*scores, *scored("sfnet", "sfnet", 4, "head", 0.5)]))
    fig = made_up.drawn(strongest_galaxies.draw)["strongest_galaxies"]
    assert {"sfnet 1", "b 1"} <= set(texts(fig))
    assert not {"sae 1", "dense 1", "pca 1"} & set(texts(fig))


def test_only_dictionaries_whose_rows_differ_in_active_latents_have_a_figure_of_them(made_up):
    made_up.comparison()
    counts = pd.DataFrame({"l0": [3, 4, 5], "n_rows": [0, 9, 0]})
    made_up.table(SAE, made={"l0": counts})
    assert made_up.drawn(l0_distribution.draw) == {}
    made_up.table(TableSpec(features="gated", kind="sae", k=4, seed=0), made={"l0": counts.assign(n_rows=3)})
    (ax,) = made_up.drawn(l0_distribution.draw)["l0_distribution"].axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["gated, k = 4"]


def test_gains_of_seeds_alone_are_no_figure(made_up):
    gain = {"n_seeds": 2, "difference": -0.1, "low": -0.2, "high": 0.0, "features": "sfnet", "k": 4, "probe": "head"}
    table = pd.DataFrame([gain | {"gain": "ensemble", "target": "metallicity", "column": "oh_p50"}])
    made_up.table(SFNET)
    made_up.comparison(gains=table)
    assert made_up.drawn(gains.draw) == {}


def test_other_views_stand_in_no_figure_but_those_of_views(made_up, metrics):
    grey = metrics[metrics["features"] == "sfnet"].assign(features="sfnet-grey")
    viewed = {"first": SFNET, "second": TableSpec(features="sfnet-grey", kind="sfnet", k=4, seed=0)}
    for spec in viewed.values():
        made_up.table(spec)
    settings = {
        "tables": {role: {"features": spec.features} for role, spec in viewed.items()},
        "views": {"first": {"is_first": True}, "second": {"is_first": False}},
    }
    made_up.add("compare-views", "views", settings)
    made_up.comparison({"metallicity": ["metallicity_1"]}, metrics=pd.concat([metrics, grey]))
    fig = made_up.drawn(rmse_vs_k.draw)["rmse_vs_k-metallicity-metallicity_1"]
    assert any(label.startswith("SFNet†") for label in labels_of(fig.axes[0]))
    assert not any("grey" in label for label in labels_of(fig.axes[0]))


# --- what they show ---------------------------------------------------------------------------------------------------


def test_components_stand_at_their_number_beside_dictionaries(made_up):
    made_up.comparison()
    fvu = pd.DataFrame({"k": [1, 2, 4], "split": "test", "fvu": [0.9, 0.6, 0.3]})
    whole = pd.DataFrame({"k": 4, "split": "test", "n_latents": [8, 16], "is_whole": [False, True], "fvu": [0.7, 0.5]})
    made_up.table(PCA, made={"reconstruction": fvu})
    made_up.table(SAE, made={"reconstruction": whole.assign(l0=[2.0, 3.5])})
    lines = {line.get_label(): line for line in made_up.drawn(fvu_vs_l0.draw)["fvu_vs_l0"].axes[0].lines}
    np.testing.assert_allclose(lines["PCA"].get_xydata(), [(1, 0.9), (2, 0.6), (4, 0.3)])
    np.testing.assert_allclose(lines["SAE"].get_xydata(), [(3.5, 0.5)])


def test_components_alone_are_no_figure_of_dictionaries(made_up):
    made_up.comparison()
    made_up.table(PCA, made={"reconstruction": pd.DataFrame({"k": [1], "split": "test", "fvu": [0.9]})})
    assert made_up.drawn(fvu_vs_l0.draw) == {}


def test_the_runs_of_one_training_have_one_name(made_up):
    made_up.table(TableSpec(features="sae", kind="sae", k=4, seed=0))
    for seed in (0, 1):
        made_up.table(TableSpec(features="sfnet", kind="sfnet", k=4, seed=seed))
        steps = [{"epoch": 1, "train_loss": 1.0 + seed, "valid_rmse": 0.2}]
        made_up.add("train-sfnet", f"sfnet-k4-seed{seed}", {"seed": seed}, progress=steps)
    step = {"epoch": 1, "seed": 0, "train_loss": 9.0, "train_fvu": 0.5, "dead_fraction": 0.0}
    steps = [step | {"k": k} for k in (2, 4)]
    made_up.add("train-sae", "sae-seed0", {"sae": {"name": "sae"}, "seeds": [0]}, progress=steps)
    networks, _, dictionaries, _ = made_up.drawn(training_curves.draw)["training_curves"].axes
    assert [
        (line.get_label(), float(line.get_ydata()[0])) for line in networks.lines if line.get_label() != "_seed"
    ] == [("SFNet, k = 4", 1.5)]
    assert labels_of(dictionaries) == {"SAE, k = 2", "SAE, k = 4"}


def test_seeds_are_compared_for_each_k(made_up):
    made_up.comparison()
    pair = {"seed_a": 0, "seed_b": 1, "metric": "decoder_cosine"}
    for k, value in ((2, 0.9), (4, 0.5)):
        made_up.table(TableSpec(features="sae", kind="sae", k=k, seed=0))
        stability = pd.DataFrame([pair | {"value": value, "features": "sae", "k": k}])
        settings = {"features": "sae", "k": k, "seeds": [0, 1]}
        made_up.add("interpret-features", f"sae-k{k}-seeds", settings, stability=stability)
    (ax,) = made_up.drawn(seed_stability.draw)["seed_stability"].axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["SAE, k = 4", "SAE, k = 2"]


def test_the_sheet_of_a_survey_shows_a_label_under_each_cutout(made_up):
    made_up.survey(5, oh_p50=[8.0, 8.1, 8.2, np.nan, 8.4])
    made_up.comparison()
    fig = made_up.drawn(contact_sheet.draw)["survey"]
    assert shown_pixels(fig) == [0, 1, 2, 3, 4]
    assert {"8.00", "8.10", "8.20", "–", "8.40"} <= set(texts(fig))


def test_the_strongest_galaxies_of_the_most_used_features_are_shown(made_up):
    ids = made_up.survey(9)
    features = pd.DataFrame(
        {"feature": [7, 3], "frequency": 0.5, "rho": 0.4, "best_label": "factor_age", "weight_oh_p50": 0.1}
    )
    examples = pd.DataFrame(
        {"feature": [3, 7, 7], "rank": [0, 0, 1], "id_str": [ids[5], ids[8], ids[2]], "activation": [1.0, 3.0, 2.0]}
    )
    made_up.table(SFNET, described={"features": features, "examples": examples})
    made_up.comparison()
    fig = made_up.drawn(strongest_galaxies.draw)["strongest_galaxies"]
    assert shown_pixels(fig) == [8, 2, 5]
    assert {"sfnet 7", "3.00", "2.00", "1.00"} <= set(texts(fig))
    assert any("oh_p50: +0.100" in text and "ρ = +0.40 age" in text for text in texts(fig))


def test_confounders_say_what_was_held_fixed(made_up):
    features = pd.DataFrame(
        {"feature": [1, 2], "name": ["Z1", "Z2"], "r2_nuisances": [0.1, 0.9], "is_confounded": [False, True]}
    )
    nuisances = pd.DataFrame({"feature": [1, 2], "nuisance": "z", "rho": 0.5})
    partial = pd.DataFrame({"feature": [1, 2], "target": "oh_p50"})
    partial = partial.assign(**dict.fromkeys(("rho", "low", "high", "partial_rho", "partial_low", "partial_high"), 0.3))
    made_up.table(SFNET, described={"features": features, "nuisances": nuisances, "partial": partial})
    made_up.comparison()
    fig = made_up.drawn(confounders.draw)["confounders-sfnet"]
    assert "at fixed lgm_tot_p50 and a - b" in {text.get_text() for text in fig.legends[0].get_texts()}


def test_localisation_shows_the_maps_and_outlines_that_were_stored(made_up):
    ids = made_up.survey(9)
    rows = pd.DataFrame(
        {
            "component": ["clumps", "clumps", "arms"], "feature": [3, 3, 5], "id_str": [ids[8], ids[5], ids[2]],
            "inside": [np.nan, 0.6, 0.7], "area": [np.nan, 0.1, 0.2],
        }
    )  # fmt: skip
    means = pd.DataFrame(
        {"component": np.repeat(["clumps", "arms"], 2), "metric": ["inside", "area"] * 2, "value": 0.5}
    )
    maps = np.arange(3, dtype=np.float32)[:, None, None] * np.array([[0, 0], [0, 1]], dtype=np.float32)
    masks = np.zeros((3, 8, 8), dtype=bool)
    masks[:, :4] = True
    described = {"localised": rows, "localisation": means, "localised_maps": maps, "localised_masks": masks}
    described["features"] = pd.DataFrame({"feature": [3], "name": ["Z3"]})
    made_up.table(SFNET, described=described)
    made_up.comparison()
    fig = made_up.drawn(localisation.draw)["localisation-sfnet"]
    assert shown_pixels(fig) == [5, 2]
    assert {"60 % in 10 %", "70 % in 20 %", "clumps", "arms"} <= set(texts(fig))
    assert any(text.startswith("Z5") for text in texts(fig))
    contours = [path.vertices for drawn in fig.axes[0].collections for path in drawn.get_paths() if len(path.vertices)]
    corners = np.concatenate(contours)
    assert np.ptp(corners[:, 0]) > 0.5


def law(name, terms, origin="regression"):
    numbers = {"coefficient": 0.5, "low": 0.4, "high": 0.6, "scale": 1.0, "share": 0.2}
    quality = {"n_test": 9, "r2_test": 0.5, "rmse_test": 0.1, "n_effective": 2}
    terms = ["intercept", *map(str, terms)]
    return pd.DataFrame({"property": name, "term": terms, "origin": origin, **numbers, **quality})


def test_equations_are_of_line_ratios_where_lines_are_predicted_and_have_few_terms(made_up):
    ids = made_up.survey(9)
    laws = [
        law("log_N2", [1]),
        law("log([NII]/Hα)", range(1, 8)),
        law("log([NII]/Hα)", [8], "head"),
        law("oh_p50", [2]),
    ]
    examples = pd.DataFrame({"feature": range(9), "rank": 0, "id_str": ids, "activation": 1.0})
    features = pd.DataFrame({"feature": range(9), "name": [f"SL{i}" for i in range(9)]})
    described = {"equations": pd.concat(laws), "examples": examples, "features": features}
    made_up.table(SFNET, head_target="lines", described=described)
    made_up.comparison({"lines": ["log_N2", "log_Ha", "log_O3", "log_Hb"]})
    fig = made_up.drawn(equations.draw)["equations-sfnet"]
    assert shown_pixels(fig) == [1, 2, 3, 4]
    assert any(text.startswith("SL4") for text in texts(fig))
    assert "log_N2" not in texts(fig)


def test_a_feature_of_a_law_that_no_test_galaxy_activates_has_an_empty_frame(made_up):
    ids = made_up.survey(9)
    examples = pd.DataFrame({"feature": [1], "rank": 0, "id_str": ids[2], "activation": 1.0})
    features = pd.DataFrame({"feature": [1], "name": ["Z1"]})
    described = {"equations": law("oh_p50", [1, 2]), "examples": examples, "features": features}
    made_up.table(SFNET, head_target="metallicity", described=described)
    made_up.comparison()
    fig = made_up.drawn(equations.draw)["equations-sfnet"]
    assert shown_pixels(fig) == [2]
    assert "in no test\ngalaxy" in texts(fig)
    assert any(text.startswith("Z2") for text in texts(fig))


def test_near_copies_in_a_law_are_shown_as_different_galaxies(made_up):
    ids = made_up.survey(9)
    same = pd.DataFrame(
        {"feature": [1, 1, 2, 2, 3], "rank": [0, 1, 0, 1, 0], "id_str": [ids[i] for i in (4, 5, 4, 6, 4)]}
    )
    features = pd.DataFrame({"feature": [1, 2, 3], "name": ["Z1", "Z2", "Z3"]})
    described = {"equations": law("oh_p50", [1, 2, 3]), "examples": same.assign(activation=1.0), "features": features}
    made_up.table(SFNET, head_target="metallicity", described=described)
    made_up.comparison()
    fig = made_up.drawn(equations.draw)["equations-sfnet"]
    assert shown_pixels(fig) == [4, 6, 4]  # the third is strong in no other galaxy
    assert any(text.endswith("2 effective") for text in texts(fig))


def difference_between(a, b):
    numbers = {"difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.1, "p_holm": 0.1, "metric": "rmse", "budget": None}
    identity = {"k_a": 2, "k_b": 2, "probe_a": "head", "probe_b": "linear", "n_features_used_a": 9}
    about = {"target": "metallicity", "column": "oh_p50", "features_a": a, "features_b": b, "n_features_used_b": 9}
    return pd.DataFrame([numbers | identity | about])


def test_a_network_that_is_compared_with_itself_alone_has_no_figure_of_differences(made_up, caplog):
    made_up.table(SFNET)
    made_up.comparison(
        metrics=pd.DataFrame({"features": ["sfnet"], "kind": "sfnet"}),
        differences=difference_between("sfnet", "sfnet"),
    )
    with caplog.at_level("INFO"):
        assert made_up.drawn(differences.draw) == {}
    assert "figure differences-sfnet-metallicity-oh_p50 left out: 'sfnet' is compared with nothing" in caplog.text


def test_an_experiment_of_controls_alone_has_no_figure_of_budgets(made_up, caplog):
    row = {"features": "mean", "kind": "mean", "k": None, "seed": None, "probe": "linear", "n_features_used": 0}
    row |= {"target": "metallicity", "column": "oh_p50", "split": "test", "metric": "rmse", "value": 0.2}
    row |= {"n_effective": 0}
    made_up.table(MEAN)
    made_up.comparison(metrics=pd.DataFrame([row]))
    with caplog.at_level("INFO"):
        assert made_up.drawn(rmse_vs_k.draw) == {}
    assert "figure rmse_vs_k-metallicity-oh_p50 left out" in caplog.text


def test_a_control_far_above_the_panel_is_named_at_its_edge(made_up):
    common = {"target": "metallicity", "column": "oh_p50", "metric": "rmse", "k": None, "seed": 0, "n_effective": 1}
    rows = [
        {"features": "mean", "kind": "mean", "probe": "ridge", "n_features_used": 0, "value": 0.2},
        {"features": "dense", "kind": "encoder", "probe": "ridge", "n_features_used": 512, "value": 9.0},
        {"features": "pca", "kind": "pca", "probe": "linear", "n_features_used": 1, "value": 0.2},
        {"features": "pca", "kind": "pca", "probe": "linear", "n_features_used": 2, "value": 7.0},
    ]
    metrics = pd.DataFrame(rows).assign(**common)
    made_up.table(PCA)
    made_up.comparison(metrics=pd.concat([metrics.assign(split=split) for split in ("valid", "test")]))
    fig = made_up.drawn(rmse_vs_k.draw)["rmse_vs_k-metallicity-oh_p50"]
    assert any(text.startswith("dense, all") for text in texts(fig))
    assert all(ax.get_position().width > 0.1 for ax in fig.axes)


def test_without_the_mean_what_is_ten_times_worse_than_the_best_is_an_arrowhead(made_up):
    common = {"target": "metallicity", "column": "oh_p50", "split": "test", "metric": "rmse", "probe": "linear"}
    rows = [
        {"features": "pca", "kind": "pca", "k": None, "seed": 0, "n_features_used": n, "value": value}
        for n, value in ((1, 0.2), (2, 700.0))
    ]
    made_up.table(PCA)
    metrics = pd.DataFrame(rows).assign(**common)
    metrics["n_effective"] = metrics["n_features_used"]
    made_up.comparison(metrics=pd.concat([metrics, metrics.assign(split="valid")]))
    fig = made_up.drawn(rmse_vs_k.draw)["rmse_vs_k-metallicity-oh_p50"]
    assert fig.axes[0].get_ylim()[1] == pytest.approx(2.0)
    assert "_above" in {str(line.get_label()) for line in fig.axes[0].lines}


def test_components_without_an_order_have_no_curve_among_dictionaries(made_up):
    ica = TableSpec(features="ica", kind="ica", k=None, seed=0)
    fvu = pd.DataFrame({"k": [1, 2], "split": "test", "fvu": [0.5, 0.4]})
    for spec in (SAE, PCA, ica):
        made_up.table(spec, made={"reconstruction": fvu.assign(is_whole=True) if spec is SAE else fvu})
    made_up.comparison()
    fig = made_up.drawn(fvu_vs_l0.draw)["fvu_vs_l0"]
    assert {text.get_text() for text in fig.axes[0].get_legend().get_texts()} == {"SAE", "PCA"}


def test_a_feature_that_does_not_vary_is_said_to_go_with_no_label(made_up):
    ids = made_up.survey(9)
    features = pd.DataFrame({"feature": [7], "frequency": 1.0, "rho": np.nan, "best_label": None})
    examples = pd.DataFrame({"feature": [7], "rank": 0, "id_str": ids[8], "activation": 1.0})
    made_up.table(SFNET, described={"features": features, "examples": examples})
    made_up.comparison()
    fig = made_up.drawn(strongest_galaxies.draw)["strongest_galaxies"]
    assert not any("ρ" in text for text in texts(fig))


def test_the_methods_that_tell_labels_apart_best_are_shown_with_their_confusions(made_up):
    columns = {
        "k": None,
        "seed": 0,
        "target": "type",
        "split": "test",
        "metric": "balanced_accuracy",
        "low": 0,
        "high": 1,
    }
    rows = [columns | {"features": "all", "kind": "mean", "probe": "majority", "n_features_used": 0, "value": 0.5}]
    counts = {
        "target": "type",
        "probe": "logistic",
        "n_features_used": 9,
        "y_true": ["a", "b"],
        "y_pred": ["a", "b"],
        "n": 5,
    }
    for i in range(8):
        spec = TableSpec(features=f"pca{i}", kind="pca", k=None, seed=0)
        score = {"features": spec.features, "kind": "pca", "probe": "logistic", "n_features_used": 9, "value": i / 10}
        rows += [columns | score, columns | score | {"split": "valid"}]
        made_up.table(spec, probed={"confusion": pd.DataFrame(counts)})
    made_up.comparison(many_classes=["type"], metrics=pd.DataFrame(rows))
    drawn = made_up.drawn(label_scores.draw)
    assert set(drawn) == {"label_scores-type", "label_confusion-type"}
    shown = [ax.get_title().split("\n")[0] for ax in drawn["label_confusion-type"].axes]
    assert shown == ["pca7", "pca6", "pca5", "pca4", "pca3", "pca2"]


def test_views_are_named_by_their_size_where_that_is_all_they_change_and_controls_stand_beside(made_up):
    made_up.survey(6)
    identity = {"target": "metallicity", "column": "oh_p50", "probe": "head", "low": 0.1, "high": 0.2}
    scores = pd.DataFrame(
        [
            identity
            | {
                "method": "sfnet", "kind": "sfnet", "k": 4, "view": view, "side_px": side, "seed": 0, "metric": metric,
                "is_degraded": view != "grey", "value": 0.15,
            }
            for view, side in (("full", 32), ("px4", 4), ("grey", 32))
            for metric in ("rmse", "nmad")
        ]
    )  # fmt: skip
    survival = pd.DataFrame(
        {"method": "sfnet", "k": 4, "view": ["px4", "grey"], "seed": 0, "feature": 1, "frequency": 1.0}
    ).assign(correlation=0.5, null_95=0.1)
    views = pd.DataFrame({"view": ["full", "px4", "grey"]})
    shown = np.zeros((3, 2, 8, 8, 3), np.uint8)
    settings = {"tables": {}, "views": {}}
    made_up.add("compare-views", "views", settings, scores=scores, survival=survival, views=views)
    np.save(made_up.root / "compare-views/views/views.npy", shown)
    controls = [
        identity | {"features": kind, "kind": kind, "probe": probe, "split": split, "metric": "rmse", "value": value,
                    "n_features_used": n}
        for kind, probe, n, value in (
            ("mean", "ridge", 0, 0.3), ("photometry", "ridge", 9, 0.25), ("photometry", "xgboost", 9, 0.2)
        )
        for split in ("valid", "test")
    ]  # fmt: skip
    made_up.comparison(metrics=pd.DataFrame(controls))
    drawn = made_up.drawn(resolution.draw)
    assert set(drawn) == {
        "views",
        "view_scores-metallicity-oh_p50",
        "resolution-metallicity-oh_p50",
        "surviving_features",
    }
    lines = drawn["view_scores-metallicity-oh_p50"].axes[0].lines
    levels = {line.get_label(): float(line.get_xdata()[0]) for line in lines if len(line.get_xdata())}
    assert levels["predict the mean"] == 0.3
    assert levels["photometry (xgboost)"] == 0.2
    ticks = [text.get_text() for text in drawn["surviving_features"].axes[0].get_xticklabels()]
    assert ticks == ["grey", "4²"]


# --- autoencoders -----------------------------------------------------------------------------------------------------


@pytest.fixture
def autoencoders(made_up):
    """Two seeds of one autoencoder of two latents, and one of three latents without a prior."""
    ids = made_up.survey(9)
    made_up.comparison()
    for features, objective, n_latents, seed in (("mmd", "mmd", 2, 0), ("mmd", "mmd", 2, 1), ("plain", "none", 3, 0)):
        score = {"seed": seed, "n_latents": n_latents, "split": "test", "value": 0.5, "low": 0.4, "high": 0.6}
        quality = pd.DataFrame(
            [
                score | {"features": features, "objective": which, "metric": metric}
                for which in (objective, "pca")
                for metric, _ in reconstruction_quality.PANELS
            ]
        )
        latents = pd.DataFrame({"latent": range(n_latents), "variance": 1.0, "fvu_gain": 0.1, "mean": 0.0})
        step = {"epoch": 1}
        for name, _ in autoencoder_training.PANELS:
            step |= {f"train_{name}": 1.0 + seed, f"valid_{name}": 2.0 + seed}
        arrays = {
            "reconstructions": np.full((2, 8, 8, 3), 100 + n_latents, np.uint8),
            "pca_reconstructions": np.full((2, 8, 8, 3), 200 + n_latents, np.uint8),
            "traversal": np.full((n_latents, len(TRAVERSED_SIGMAS), 8, 8, 3), 50, np.uint8),
            "walk": np.arange(6 * 8 * 8 * 3, dtype=np.uint8).reshape(6, 8, 8, 3),
        }
        if objective != "none":
            arrays["prior_samples"] = np.full((5, 8, 8, 3), 60, np.uint8)
        made_up.table(
            TableSpec(features=features, kind="vae", k=None, seed=seed),
            made={"quality": quality, "latents": latents, "progress": [step]},
            described={
                "reconstructed": pd.DataFrame({"id_str": [ids[4], ids[7]]}),
                "traversed": latents,
                "waypoints": pd.DataFrame({"id_str": ids[:2]}),
                **arrays,
            },
        )
    return made_up


def test_reconstructions_stand_below_the_galaxies_and_above_those_of_a_pca_of_their_size(autoencoders):
    drawn = autoencoders.drawn(reconstructions.draw)
    assert set(drawn) == {"reconstructions-d2", "reconstructions-d3"}
    assert shown_pixels(drawn["reconstructions-d2"]) == [4, 7, 102, 102, 202, 202]
    assert {"input", "mmd\nMMD, d = 2", "PCA of pixels\nd = 2"} <= set(texts(drawn["reconstructions-d2"]))
    assert "plain\nno prior, d = 3" in texts(drawn["reconstructions-d3"])


def test_the_first_seed_of_each_autoencoder_is_traversed(autoencoders):
    drawn = autoencoders.drawn(latent_traversal.draw)
    assert set(drawn) == {"latent_traversal-mmd", "latent_traversal-plain"}
    assert len(shown_pixels(drawn["latent_traversal-plain"])) == 3 * len(TRAVERSED_SIGMAS)


def test_a_walk_is_a_strip_and_an_animation(autoencoders):
    drawn = autoencoders.drawn(latent_walk.draw)
    assert {"latent_walk-mmd", "latent_walk-mmd.gif"} <= set(drawn)
    assert "galaxy 2 to 1" in texts(drawn["latent_walk-mmd"])
    with Image.open(io.BytesIO(drawn["latent_walk-mmd.gif"])) as gif:
        assert gif.n_frames == 6


def test_only_autoencoders_with_a_prior_have_samples_of_it(autoencoders):
    drawn = autoencoders.drawn(prior_samples.draw)
    assert set(drawn) == {"prior_samples-mmd"}
    assert shown_pixels(drawn["prior_samples-mmd"]) == [60] * 5


def test_the_pca_of_each_size_is_scored_once_beside_all_seeds(autoencoders):
    drawn = autoencoders.drawn(reconstruction_quality.draw)
    assert set(drawn) == {"reconstruction_quality", "latent_variances-d2", "latent_variances-d3"}
    ax = drawn["reconstruction_quality"].axes[0]
    assert [text.get_text().replace("\n", " ") for text in ax.get_yticklabels()] == [
        "PCA of pixels, d = 2", "mmd, d = 2", "PCA of pixels, d = 3", "plain, d = 3",
    ]  # fmt: skip
    (seeds,) = [line for line in ax.lines if line.get_label() == "_seeds"]
    assert len(seeds.get_xdata()) == 2


def test_the_training_of_the_first_seed_of_each_autoencoder_is_drawn(autoencoders):
    fig = autoencoders.drawn(autoencoder_training.draw)["autoencoder_training"]
    assert [float(line.get_ydata()[0]) for line in fig.axes[0].lines] == [2.0, 1.0, 2.0, 1.0]


# --- galaxies ---------------------------------------------------------------------------------------------------------


def test_features_are_shown_on_the_relation_where_enough_galaxies_have_mass_and_metallicity(made_up):
    n = 600
    mass = np.linspace(9, 11, n)
    made_up.survey(n, images=False, lgm_tot_p50=mass, oh_p50=8 + mass / 12)
    features = pd.DataFrame({"feature": [1, 0], "name": ["Z1", "Z0"]})
    values = np.stack([np.zeros(n), np.linspace(1, 2, n)], axis=1)
    made_up.table(SFNET, values=values, described={"features": features})
    made_up.comparison()
    fig = made_up.drawn(mass_metallicity.draw)["mass_metallicity-sfnet"]
    assert [ax.get_title() for ax in fig.axes if ax.get_title()] == ["Z1 (N = 200)"]
