"""What the columns of tables mean, with unit and UCD: of catalogues of galaxies, and of every table of the lab.

A column that a stage adds to a table is described here; a test asks every table of a small run whether all are.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple


class About(NamedTuple):
    """What is known of a column. A logarithm has no unit in FITS; its description says of what it is one."""

    unit: str
    ucd: str
    description: str


_LINE_FLUX = "10**-17 erg s-1 cm-2"

KNOWN_COLUMNS: dict[str, About] = {
    "id_str": About("", "meta.id;meta.main", "identifier of the galaxy, as text"),
    "split": About("", "meta.code", "part of the split: train, valid or test"),
    "ra": About("deg", "pos.eq.ra;meta.main", "right ascension (ICRS)"),
    "dec": About("deg", "pos.eq.dec;meta.main", "declination (ICRS)"),
    "z": About("", "src.redshift", "redshift"),
    "zErr": About("", "stat.error;src.redshift", "error of the redshift"),
    "redshift": About("", "src.redshift", "redshift"),
    "velDisp": About("km s-1", "phys.veloc.dispersion", "velocity dispersion"),
    "velDispErr": About("km s-1", "stat.error;phys.veloc.dispersion", "error of the velocity dispersion"),
    "modelMag_u": About("mag", "phot.mag;em.opt.U", "SDSS model magnitude in u"),
    "modelMag_g": About("mag", "phot.mag;em.opt.B", "SDSS model magnitude in g"),
    "modelMag_r": About("mag", "phot.mag;em.opt.R", "SDSS model magnitude in r"),
    "modelMag_i": About("mag", "phot.mag;em.opt.I", "SDSS model magnitude in i"),
    "modelMag_z": About("mag", "phot.mag;em.opt.I", "SDSS model magnitude in z"),
    "modelMagErr_?": About("mag", "stat.error;phot.mag", "error of the model magnitude"),
    "petroMag_r": About("mag", "phot.mag;em.opt.R", "SDSS Petrosian magnitude in r"),
    "petroR50_r": About("arcsec", "phys.angSize", "radius that holds half of the Petrosian flux in r"),
    "petroR90_r": About("arcsec", "phys.angSize", "radius that holds 90 % of the Petrosian flux in r"),
    "oh_p50_visible": About("", "phys.abund", "part of oh_p50 that the mock image may show, dex"),
    "oh_p50_hidden": About("", "", "part of oh_p50 that nothing in the mock image shows, dex"),
    **{
        f"{name}_p{percentile}": About("", ucd, f"{text} (MPA-JHU{which})")
        for name, ucd, text in (
            ("oh", "phys.abund", "12 + log10(O/H) of the gas, dex"),
            ("lgm_tot", "phys.mass", "log10 of the stellar mass, solar masses"),
            ("sfr_tot", "phys.SFR", "log10 of the star formation, solar masses a year"),
        )
        for percentile, which in (("2p5", ""), ("16", ""), ("50", ""), ("84", ""), ("97p5", ""))
    },
    "h_alpha_flux": About(_LINE_FLUX, "phot.flux;em.line.Halpha", "flux of H-alpha"),
    "h_beta_flux": About(_LINE_FLUX, "phot.flux;em.line.Hbeta", "flux of H-beta"),
    "oiii_5007_flux": About(_LINE_FLUX, "phot.flux;em.line.OIII", "flux of [OIII] 5007"),
    "nii_6584_flux": About(_LINE_FLUX, "phot.flux;em.line", "flux of [NII] 6584"),
    "h_alpha_flux_err": About(_LINE_FLUX, "stat.error;phot.flux;em.line.Halpha", "error of the flux of H-alpha"),
    "h_beta_flux_err": About(_LINE_FLUX, "stat.error;phot.flux;em.line.Hbeta", "error of the flux of H-beta"),
    "oiii_5007_flux_err": About(_LINE_FLUX, "stat.error;phot.flux;em.line.OIII", "error of the flux of [OIII] 5007"),
    "nii_6584_flux_err": About(_LINE_FLUX, "stat.error;phot.flux;em.line", "error of the flux of [NII] 6584"),
    "log_Ha": About("", "phot.flux;em.line.Halpha", "log10 of the flux of H-alpha in 1e-17 erg/s/cm2"),
    "log_Hb": About("", "phot.flux;em.line.Hbeta", "log10 of the flux of H-beta in 1e-17 erg/s/cm2"),
    "log_O3": About("", "phot.flux;em.line.OIII", "log10 of the flux of [OIII] 5007 in 1e-17 erg/s/cm2"),
    "log_N2": About("", "phot.flux;em.line", "log10 of the flux of [NII] 6584 in 1e-17 erg/s/cm2"),
    "bptclass": About("", "src.class", "BPT class (MPA-JHU): 1 and 2 star forming, 3 composite, 4 and 5 AGN"),
    "*-*_fraction": About("", "src.morph.param", "share of the votes on the question that this answer got"),
    "t[01][0-9]_*_fraction": About("", "src.morph.param", "share of the votes on the question that this answer got"),
    "smooth_fraction": About("", "src.morph.param", "share of the votes for a smooth galaxy"),
    "*-*_total-votes": About("", "meta.number", "votes on the question"),
    "factor_agn_fraction": About("", "", "share of the light that an active nucleus adds (mock)"),
    "factor_type": About("", "src.morph.type", "0 elliptical, 1 spiral, 2 irregular, 3 merger (mock)"),
    "factor_bulge_to_total": About("", "src.morph.param", "share of the bulge in the light (mock)"),
    "factor_bulge_sersic_n": About("", "src.morph.param", "Sersic index of the bulge (mock)"),
    "factor_bulge_gr": About("mag", "phot.color", "colour g - r of the bulge (mock)"),
    "factor_disc_gr": About("mag", "phot.color", "colour g - r of the disc (mock)"),
    "factor_axis_ratio": About("", "src.morph.param", "minor over major axis on the sky (mock)"),
    "factor_position_angle_deg": About("deg", "pos.posAng", "position angle of the major axis (mock)"),
    "factor_n_arms": About("", "meta.number", "number of spiral arms (mock)"),
    "factor_arm_strength": About("", "src.morph.param", "contrast of the spiral arms (mock)"),
    "factor_pitch_angle_deg": About("deg", "src.morph.param", "pitch angle of the spiral arms (mock)"),
    "factor_bar_strength": About("", "src.morph.param", "share of the bar in the light (mock)"),
    "factor_n_clumps": About("", "meta.number", "number of star-forming clumps (mock)"),
    "factor_clump_strength": About("", "src.morph.param", "share of the clumps in the light (mock)"),
    "factor_dust": About("", "src.morph.param", "strength of the dust lane (mock)"),
    "factor_disturbance": About("", "src.morph.param", "how far the disc is disturbed (mock)"),
    "factor_r_mag": About("mag", "phot.mag;em.opt.R", "true magnitude in r (mock)"),
    "factor_redshift": About("", "src.redshift", "true redshift (mock)"),
    "factor_effective_radius_arcsec": About("arcsec", "phys.angSize", "true half-light radius (mock)"),
    "factor_bulge_radius_arcsec": About("arcsec", "phys.angSize", "half-light radius of the bulge (mock)"),
    "factor_disc_scale_arcsec": About("arcsec", "phys.angSize", "scale length of the disc (mock)"),
    "factor_psf_fwhm_arcsec": About("arcsec", "instr.obsty.seeing", "full width at half maximum of the PSF (mock)"),
    "factor_sky_noise": About("", "", "noise of the sky over that of a usual night (mock)"),
    "factor_companion_flux_ratio": About("", "", "light of a companion over that of the galaxy; 0: none (mock)"),
    "factor_companion_separation_arcsec": About("arcsec", "pos.angDistance", "distance of the companion (mock)"),
    "factor_companion_angle_deg": About("deg", "pos.posAng", "position angle of the companion (mock)"),
    "factor_companion_radius_arcsec": About("arcsec", "phys.angSize", "half-light radius of the companion (mock)"),
    "factor_companion_gr": About("mag", "phot.color", "colour g - r of the companion (mock)"),
    "file_loc": About("", "meta.ref.url;meta.file", "path of the cutout's file"),
    "separation_arcsec": About("arcsec", "pos.angDistance", "distance of the pair on the sky"),
    "n_right_within": About("", "meta.number", "right galaxies within the radius of the left one"),
    "n_left_within": About("", "meta.number", "left galaxies within the radius of the right one"),
    "*_arcsec": About("arcsec", "", ""),
    "*_deg": About("deg", "", ""),
}
"""Columns of catalogues by name or pattern; of several patterns that match, the first counts. Names are those of SDSS,
MPA-JHU, Galaxy Zoo and the mock survey."""

IN_ALL_TABLES: Mapping[str, str] = {
    "experiment": "name of the experiment",
    "features": "name of the [[features]]",
    "kind": "kind of the [[features]]",
    "k": "features active for each galaxy, by the settings",
    "seed": "seed of the training; + 1,000,000 n: dictionary n on this encoder",
    "n_seeds": "number of seeds",
    "n_dictionaries": "number of dictionaries on the encoder of each seed",
    "id_str": "identifier of the galaxy, as text",
    "split": "part of the split: train, valid or test",
    "target": "name of the [targets] or [classes]",
    "column": "column of the catalogue that is predicted",
    "probe": "what predicts; columns.csv lists endings of names",
    "n_features_used": "number of features that the probe was given",
    "n_effective": "how many these are, near copies (|r| > 0.8) counted once",
    "participation": "participation ratio of the covariance of these features",
    "feature": "number of the feature: its column in the feature table, from 0",
    "label": "column of the catalogue",
    "metric": "which number this is: rmse, r2, ...; columns.csv lists them",
    "value": "the number",
    "low": "lower end of the 95 % interval",
    "high": "upper end of the 95 % interval",
    "n": "number of galaxies",
    "rho": "Spearman correlation",
    "p": "probability of such a value or a larger one by chance",
    "q": "p after Benjamini and Hochberg, over all rows",
    "latent": "number of the latent: its column in the feature table, from 0",
    "frequency": "share of galaxies in which it is active",
    "factor": "factor that made the mock galaxies",
    "component": "component of the mock galaxies: bulge, arms, ...",
}
"""Columns that mean the same wherever the lab writes them."""

_SCORES = {
    "f1": "F1 at the best valid threshold",
    "auc": "area under the ROC curve",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
}
_OF_SCORES = {
    f"{name}{ending}": f"{text}{meaning}"
    for name, text in _SCORES.items()
    for ending, meaning in (
        ("", ", mean over runs"),
        ("_low", ", low end of 95 % over galaxies, runs"),
        ("_high", ", high end of 95 % over galaxies, runs"),
        ("_seed_sd", ", scatter between runs"),
        ("_dictionary_sd", ", scatter between dictionaries"),
        ("_galaxy_sd", ", scatter between galaxy samples"),
    )
}
_SPREADS = {
    "low": "lower end of 95 % over galaxies and runs; missing: one run",
    "high": "upper end of 95 % over galaxies and runs; missing: one run",
    "run_sd": "standard deviation between runs on one sample; missing: one run",
    "dictionary_sd": "scatter between dictionaries of one encoder; missing: one on each",
    "galaxy_sd": "standard deviation from one sample of as many galaxies to the next",
}
_OF_METHODS = {
    "supervised": "whether the features were learnt with a label",
    "n_features_used": "number of features that the probe was given, median over seeds",
    "n_effective": "near copies (|r| > 0.8) counted once, median over seeds",
    "participation": "participation ratio of the features, median over seeds",
}
_PERMUTED = "over permuted galaxies"

_OF_TRANSFORMS = {
    "name": "kind of the change of the cutout",
    "level": "its strength",
    "label": "the change in words",
    "is_symmetry": "whether only place or orientation changes",
}
_OF_LATENTS = {
    "fvu_without": "FVU of the reconstruction with this latent at its mean",
    "fvu_gain": "how much of the FVU this latent takes away",
    "mean": "mean over train galaxies",
    "variance": "variance over train galaxies",
    "is_active": "whether its variance is that of a latent in use",
}

OF_TABLE: dict[str, dict[str, str]] = {
    "missing_values": {
        "column": "column of the catalogue",
        "code": "number that means not measured there",
        "n": "number of galaxies that have it",
        "share": "share of all galaxies",
    },
    "sparse": {"activation": "activation of the feature in this galaxy"},
    "predictions": {"y_true": "what is measured", "y_pred": "what is predicted"},
    "confusion": {"y_true": "class by the catalogue", "y_pred": "class by the probe", "n": "number of test galaxies"},
    "quantiles": {
        "y_true": "what is measured",
        "level": "level of the quantile",
        "raw": "quantile by the network",
        "calibrated": "quantile after conformal calibration on valid galaxies",
    },
    "metrics": {
        "low": "lower end of the 95 % interval of this run over galaxies",
        "high": "upper end of the 95 % interval of this run over galaxies",
    },
    "methods": _OF_METHODS
    | _SPREADS
    | {"budget": "number of features that were chosen; missing: all are used", "n_seeds": "number of runs"},
    "comparison": _OF_METHODS
    | _SPREADS
    | {"rmse": "test RMSE in label units, mean over runs", "seed_sd": "standard deviation of the RMSE between runs"},
    "classes": _OF_METHODS | _OF_SCORES,
    "labels": _OF_METHODS | _OF_SCORES,
    "differences": {
        "metric": "rmse (less is better) or auc",
        "budget": "number of features that both use in all; missing: all",
        **{
            f"{name}_{side}": f"{text} of the {which} method"
            for name, text in (
                ("features", "[[features]]"),
                ("k", "active features a galaxy"),
                ("probe", "probe"),
                ("n_features_used", "features used in all"),
            )
            for side, which in (("a", "first"), ("b", "second"))
        },
        "difference": "first less second method, mean over runs",
        **_SPREADS,
        "n_seeds": "number of runs, of the method that has fewer",
        "p": "two-sided p over galaxies and runs; missing: a method has one run",
        "is_bound": "whether no draw lies beyond 0: more resamples could only lower p",
        "p_holm": "p after Holm in the label column; missing: one run, trivial method",
    },
    "gains": {
        "gain": "ensemble of seeds, augmentation by symmetries, or both",
        "rmse_single": "test RMSE without it",
        "rmse": "test RMSE with it",
        "difference": "RMSE with it less RMSE without it",
    },
    "mass_metallicity_bins": {
        "log_mass": "middle of the bin, log10 of solar masses",
        "median": "median of 12 + log10(O/H)",
        "sd": "scatter about the bin's mean, dex",
        "nmad": "robust scatter about the bin's median (NMAD), dex",
        "p16": "16th percentile of 12 + log10(O/H)",
        "p84": "84th percentile of 12 + log10(O/H)",
        **{
            f"{name}_{end}": f"{which} end of the 95 % interval of {name}"
            for name in ("median", "sd", "nmad")
            for end, which in (("low", "lower"), ("high", "upper"))
        },
        "features": "name of the [[features]]; true: the catalogue",
    },
    "mass_metallicity_residuals": {
        "quantity": "what the residual from the relation is held against",
        "rho": "Spearman correlation of the residual with it",
        "features": "name of the [[features]]; true: the catalogue",
    },
    "l0": {"l0": "number of active latents", "n_rows": "number of test galaxies with so many"},
    "latents": _OF_LATENTS
    | {
        "mean_active": "mean value where it is active",
        "max_active": "largest value",
        "is_dead": "whether it is never active",
        "is_dense": "whether it is active in most galaxies",
        "max_cosine": "largest cosine of its atom with another",
    },
    "reconstruction": {
        "k": "active latents, or components kept",
        "n_latents": "latents of this nested part",
        "is_whole": "whether that is all latents",
        "fvu": "fraction of variance unexplained",
        "l0": "mean number of active latents a galaxy",
    },
    "spectrum": {
        "component": "number of the singular value, from 0",
        "singular_value": "singular value of the decoder",
    },
    "quality": {
        "features": "autoencoder, or pca of the pixels",
        "objective": "objective of the autoencoder",
        "n_latents": "number of latents",
    },
    "features": {
        "name": "short name of the feature",
        "usage_rank": "0 is the most frequent feature",
        "frequency": "share of test galaxies in which it is active",
        "mean_activation": "mean activation where it is active",
        "activation_q50": "median activation where it is active",
        "activation_q90": "90th percentile of the activation where it is active",
        "activation_q99": "99th percentile of the activation where it is active",
        "max_activation": "largest activation",
        "redundancy": "Pearson correlation of largest size with another feature",
        "redundant_with": "number of that other feature; -1: none varies",
        "weight_*": "weight of the head for this label, in its units an activation",
        "variance_share_*": "share of the head's predicted variance of this label",
        "best_label": "label of largest |Spearman rho| with the feature",
        "rho": "Spearman correlation with best_label",
        "morphology": "morphology label of largest |rho| on valid galaxies",
        "morphology_rho": "Spearman correlation with it on test galaxies",
        "p_corrected": "p of the largest |rho|, corrected for the number of labels",
        "q": "p_corrected after Benjamini and Hochberg, over features",
        "novelty": "share of variance no label predicts; missing: no seed finds it too",
        "auc": "ROC area of the feature as a classifier of morphology",
        "group": "features of like frequency, or nested group, of its null",
        "r2_nuisances": "R2 of all nuisances together, held-out galaxies",
        "worst_nuisance": "nuisance of largest |rho|",
        "worst_rho": "Spearman correlation with worst_nuisance",
        "is_confounded": "whether it follows a nuisance",
        "warning": "which nuisance it follows; empty: none",
        "worst_symmetry": "symmetry of the cutout under which it changes most",
        "symmetry_change": "its rms change there, over its standard deviation",
        "is_equivariant": "whether no symmetry changes it; missing: undecided",
        "equivariance_warning": "which symmetry changes it; empty: none",
    },
    "examples": {
        "rank": "0 is the galaxy in which the feature is strongest",
        "activation": "activation of the feature in this galaxy",
    },
    "associations": {
        "n": "number of test galaxies that have the label",
        "pearson": "Pearson correlation",
        "spearman": "Spearman correlation",
        **{
            f"{name}_{end}": f"{which} end of the 95 % interval of {name}"
            for name in ("pearson", "spearman")
            for end, which in (("low", "lower"), ("high", "upper"))
        },
        "p": "two-sided p of the Spearman correlation",
        "q": "p after Benjamini and Hochberg, over all pairs",
    },
    "alignment": {
        "frequency": "share of valid galaxies in which it is active",
        "frequency_rank": "0 is the most frequent feature",
        "group": "features that share a null: of like frequency, or a nested group",
        "matryoshka_group": "nested group of the latent",
        "best_label": "morphology label of largest |rho| on valid galaxies",
        "n": "number of test galaxies that have it",
        "rho": "Spearman correlation with best_label on test galaxies",
        "score": "how its label tells the strongest 2 % of test galaxies, -1 to 1",
        "score_label": "label of which this is, chosen on valid galaxies",
        "null_score": f"the same {_PERMUTED}",
        "max_rho": "largest |rho| over labels on test galaxies",
        "null_mean": f"mean of max_rho {_PERMUTED}",
        "null_q95": f"95th percentile of max_rho {_PERMUTED}",
        "p_corrected": "p of max_rho, corrected for the number of labels",
        "q": "p_corrected after Benjamini and Hochberg, over features",
        "auc": "ROC area of the feature as a classifier of best_label",
        "recurs": "|correlation| with its partner of another seed; missing: one seed",
        "novelty": "share of variance no label predicts; missing: recurs <= 0.7",
        "null_novelty": f"the same {_PERMUTED}",
    },
    "alignment_nulls": {
        "n_features": "features compared, the most frequent",
        **{
            f"{prefix}{name}": f"{meaning}{ending}"
            for prefix, ending in (
                ("", ""),
                ("permuted_", f", {_PERMUTED}"),
                ("untrained_", ", of as many of an untrained network"),
                ("held_fixed_", ", at fixed mass and colour"),
                ("excess_", " less the untrained"),
            )
            for name, meaning in (
                ("share_alike", "share of scores above 0.7"),
                ("score", "mean score"),
            )
        },
    },
    "nuisances": {
        "nuisance": "what is no property of the galaxy: seeing, distance, ...",
        "rho": "Spearman correlation with it on test galaxies",
    },
    "partial": {
        "target": "column of the catalogue",
        "partial_rho": "Spearman correlation at fixed mass, colour, ...",
        "partial_low": "lower end of the 95 % interval of partial_rho",
        "partial_high": "upper end of the 95 % interval of partial_rho",
    },
    "changes": _OF_TRANSFORMS
    | {
        "n_active": "galaxies in which the feature is active",
        "change": "rms change over the feature's standard deviation",
        "correlation": "Pearson correlation of before and after",
        "jaccard": "galaxies active before and after over those active in either",
        "mean_change": "mean change over the feature's standard deviation",
    },
    "ablation": {
        "rule": "which features are kept",
        "threshold": "number of features or galaxies of the rule",
        "n_kept": "features kept",
        "fill": "what stands for the others: zero or their train mean",
        "rmse": "test RMSE of the head in label units",
    },
    "equations": {
        "property": "what the law is of",
        "term": "intercept, or number of the feature",
        "coefficient": "coefficient in label units an activation",
        "scale": "scale of the activation",
        "share": "share of the prediction's variance",
        "n_effective": "features of the law, near copies (|r| > 0.8) counted once",
        "n_train": "number of train galaxies",
        "n_test": "number of test galaxies",
        "r2_test": "R2 of the law on test galaxies",
        "rmse_test": "RMSE of the law on test galaxies",
        "origin": "head: the network's own; regression: least squares",
    },
    "explained_variance": {
        "n_components": "features kept, the best first",
        "l0": "mean number of them that are active in a galaxy",
        "explained_variance": "share of the embedding's variance that they explain",
    },
    "recovery": {
        "apart": "why the factor counts for no score of all; empty: it counts",
        "feature": "the feature, or the first of several",
        "n_features_used": "number of features",
        "n_drawn": "features drawn to compare at equal numbers; missing: all",
        "permuted": f"value {_PERMUTED}",
        "untrained": "value of as many features of an untrained network",
        "excess": "value less untrained",
    },
    "absorption": {
        "parent": "label of which the other is a part",
        "child": "label that is a part of it",
        "feature_parent": "feature that goes with the parent",
        "feature_child": "feature that goes with the child",
        "auc_parent": "AUC of the parent's feature among galaxies without the child",
        "auc_child": "AUC of the child's feature among galaxies with the parent",
        "n_rows": "number of test galaxies",
        "detected": "share of the parent's galaxies that its feature finds",
        "silent_with_child": "how often it is silent where the child is there",
        "silent_without_child": "how often it is silent where the child is not",
        "absorption": "difference of the two; missing where an AUC is not above 0.8",
        "null_q95": "95th percentile of it with the child's label permuted",
    },
    "localised": {
        "inside": "share of the map's weight inside the component",
        "area": "share of the cutout that the component covers",
        "others": "share of other galaxies' maps inside the component",
        "rho": "Spearman correlation of feature and factor",
    },
    "localisation": {
        "rho": "Spearman correlation of feature and factor",
        "metric": "what the map shows; see localised",
    },
    "reconstructed": {},
    "traversed": _OF_LATENTS,
    "waypoints": {},
    "stability": {"seed_a": "first seed", "seed_b": "second seed"},
    "matching": {
        "table_a": "first feature table",
        "table_b": "second feature table",
        "mean_correlation": "mean |correlation| of matched features, test galaxies",
        "null_mean": f"the same {_PERMUTED}",
        "null_q95": "95th percentile of the null",
        "share_above_null": "share of pairs above the null's 95th percentile",
        **{
            f"{prefix}{name}": f"{meaning}{ending}"
            for prefix, ending in (("", ""), ("held_fixed_", ", at fixed mass and colour"))
            for name, meaning in (
                ("share_alike", "share of pairs with |r| above 0.7"),
                ("untrained_alike", "the same with an untrained network"),
                ("excess_alike", "share_alike less untrained_alike"),
            )
        },
        "permuted_alike": f"share of pairs with |r| above 0.7, {_PERMUTED}",
        "n_pairs": "number of matched pairs",
        "n_alive_a": "features of the first table in use",
        "n_alive_b": "features of the second table in use",
    },
    "null": {
        "table_a": "first feature table",
        "table_b": "second feature table",
        "level": "level of the quantile",
        "correlation": "quantile of matched |correlations| of permuted galaxies",
    },
    "pairs": {
        "table_a": "first feature table",
        "table_b": "second feature table",
        "feature_a": "feature of the first table",
        "feature_b": "feature of the second table",
        "correlation_fit": "|Pearson| by which they were matched",
        "correlation_test": "|Pearson| on test galaxies",
        "cosine": "cosine of their directions in one embedding",
    },
    "reading": {
        "reader": "feature table that is read",
        "target": "feature table that is predicted from it",
        "r2_of_variance": "share of the table's variance that is read",
        "r2_median": "median R2 over features",
        "share_read": "share of features with R2 above 0.5",
        "permuted_read": f"share_read {_PERMUTED}",
        "untrained_read": "share_read from as many features of an untrained network",
        "excess_read": "share_read less untrained_read",
        "held_fixed_read": "share_read at fixed label, mass, colour and size",
        "n_features": "number of features",
    },
    "splitting": {
        "latent": "latent of the larger autoencoder",
        "parent": "nearest latent of the smaller one",
        "decoder_cosine": "cosine of their atoms",
        "is_child": "whether it is a part of its parent",
        "n_siblings": "children of the same parent",
        "within": "share of its galaxies in which its parent is active",
        "within_chance": "the same by chance",
        "coverage": "share of the parent's galaxies that its children have",
        "small": "smaller autoencoder",
        "large": "larger autoencoder",
        "n_alive_small": "latents of the smaller one in use",
    },
    "yield": {
        "method": "feature table, or what else orders the galaxies",
        "sign": "whether large or small values come first",
        "n_inspected": "galaxies inspected",
        "n_rare": "rare galaxies",
        "rare": "name of the [rare]",
    },
    "scores": {
        "method": "name of the [[features]] without its view",
        "view": "name of the [views]",
        "side_px": "pixels a side that are left",
        "is_degraded": "whether the view is smaller pixels alone",
    },
    "survival": {
        "method": "name of the [[features]] without its view",
        "view": "name of the [views]",
        "feature": "feature of the full view",
        "correlation": "|Pearson| with its partner on test galaxies",
        "null_95": f"95th percentile of the same {_PERMUTED}",
    },
    "views": {"view": "name of the [views]"},
    "transforms": _OF_TRANSFORMS,
}
"""Columns of the tables of results by the table's name, where they are not those of `IN_ALL_TABLES`."""

WORDS: Mapping[str, str] = {
    "rmse": "root of the mean square error, label units",
    "nmad": "1.4826 times the median |error - median error|, label units",
    "r2": "coefficient of determination, about the mean of the scored galaxies",
    "bias": "mean of predicted less measured, label units",
    "pinball": "pinball loss of the quantiles, label units",
    "coverage_*": "share of galaxies inside the central interval of so many %",
    "width_*": "mean width of the central interval of so many %, label units",
    "loss_recovered": "what a probe of the embedding keeps on the reconstruction; 1: all",
    "rmse_reconstruction": "RMSE of a probe of the embedding on the reconstruction",
    **_SCORES,
    "true_positive": "positives found",
    "false_positive": "negatives taken for positives",
    "true_negative": "negatives found",
    "false_negative": "positives missed",
    "fvu": "fraction of variance unexplained",
    "fvu_difference": "the same, less that of the principal components",
    "squared_error_per_image": "squared error a cutout",
    "squared_error_per_pixel": "squared error a pixel and colour",
    "psnr_db": "peak signal to noise, decibel",
    "ssim": "structural similarity",
    "purity": "share of rare galaxies among those inspected",
    "recall": "share of the rare galaxies that were inspected",
    "correlation": "|Pearson| of the factor with its best feature",
    "rank_correlation": "|Spearman| of the factor with its best feature",
    "informativeness": "R2 of a lasso from all features",
    "completeness": "whether few features carry the factor (DCI)",
    "disentanglement": "whether features carry one factor each (DCI)",
    "inside": "share of the map's weight inside the component",
    "area": "share of the cutout that the component covers",
    "others": "share of other galaxies' maps inside the component",
    "inside_minus_area": "inside less area",
    "inside_minus_others": "inside less others",
    "decoder_cosine*": "mean cosine of matched atoms; _chance: of unrelated ones",
    "encoder_cosine*": "mean cosine of matched encoders; _chance: of unrelated ones",
    "shared_*": "share of matched atoms with a cosine above this",
    "activation_correlation*": "mean correlation of matched latents",
    "*_in_sample": "of a probe: fitted to the very test galaxies",
    "*_augmented": "of a prediction: mean over the 8 symmetries of a cutout",
    "*_ensemble": "of a prediction: mean over seeds",
    "*_calibrated": "of quantiles: calibrated on valid galaxies",
}
"""What stands in the columns `metric`, and endings of the names of probes and metrics."""


def about(column: str, table: str = "") -> About:
    """Return what is known of a column of this name; empty texts where nothing is known.

    Parameters
    ----------
    table
        Which table of the lab it is in, by the name of its file; "": a catalogue of galaxies.
    """
    if table in OF_TABLE:
        own = OF_TABLE[table]
        known = (
            own.get(column)
            or IN_ALL_TABLES.get(column)
            or next((text for name, text in own.items() if fnmatchcase(column, name)), "")
        )
        return KNOWN_COLUMNS["id_str"] if column == "id_str" else About("", "", known)
    if column in KNOWN_COLUMNS:
        return KNOWN_COLUMNS[column]
    return next((each for name, each in KNOWN_COLUMNS.items() if fnmatchcase(column, name)), About("", "", ""))
