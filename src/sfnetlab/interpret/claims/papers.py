"""The claims: a sentence of a paper or of ours each, with the rule by which this survey's numbers uphold it or not."""

from collections.abc import Sequence

from sfnetlab.interpret.claims import features, predictions
from sfnetlab.interpret.claims.evidence import Claim
from sfnetlab.interpret.claims.features import COMMON
from sfnetlab.interpret.claims.predictions import MARGIN
from sfnetlab.metrics.nulls import ALIKE

SFNET, EUCLID, WU_BOADA, OURS = "SFNet paper", "Euclid SAE paper", "Wu & Boada 2019", "the question of this lab"

FIRST, SINCE = "2026-11-01", "2026-12-01"
"""Since when rules stand."""
EQUAL = "At 0 both are equal."
HALF = "0.7 is half of the variance."
MARGIN_REASON = "Twice what the SFNet paper itself calls no loss (0.087 against 0.085)."

CLAIMS: Sequence[Claim] = (
    Claim(
        "accuracy",
        SFNET,
        "An SFNet does not sacrifice accuracy.",
        "RMSE 0.086 dex against 0.085 of a CNN",
        f"The RMSE of the SFNet's head (k = 4, else the largest) is less than {MARGIN:.0%} above that of the dense "
        "network's head.",
        predictions.accuracy,
        reason=MARGIN_REASON,
        version=1,
        date=FIRST,
    ),
    Claim(
        "two features",
        SFNET,
        "Two features suffice for metallicity.",
        "RMSE 0.087 dex with two features, 0.086 with all",
        "A linear probe on two features in all (chosen on train) of the SFNet that is best so on valid galaxies has an "
        f"RMSE less than {MARGIN:.0%} above that of its head.",
        predictions.two_features,
        reason=MARGIN_REASON,
        version=1,
        date=FIRST,
    ),
    Claim(
        "any k",
        SFNET,
        "Performance is robust against k.",
        "RMSE 0.0852 to 0.0875 for k = 2 to 8",
        f"The RMSEs of the heads differ by less than {MARGIN:.0%} of their mean over all k, three or more.",
        predictions.any_k,
        reason=MARGIN_REASON,
        version=2,
        date=SINCE,
    ),
    Claim(
        "components",
        SFNET,
        "Principal components of a dense network do worse than an SFNet at every small k.",
        "RMSE 0.175 against 0.086 at k = 2, 0.103 against 0.086 at k = 4",
        "At every k the linear probe on the first k components has a larger RMSE than the SFNet's head.",
        predictions.components_do_worse,
        reason=EQUAL,
        version=1,
        date=FIRST,
    ),
    Claim(
        "frozen encoder",
        SFNET,
        "No linear combination of Zoobot's features reconstructs metallicity.",
        "RMSE 0.183 of a scatter of 0.207: R2 0.22 (with weights that may have been random)",
        "Ridge on all dimensions of the encoder trained elsewhere that is best on valid galaxies explains less than "
        "half of the variance.",
        predictions.frozen_encoder,
        reason="Chosen: with less than half of the variance explained, errors are more than 0.7 of the scatter.",
        version=1,
        date=FIRST,
    ),
    Claim(
        "one feature",
        SFNET,
        "A single feature follows metallicity.",
        "r = 0.85 of feature Z61",
        "The feature that most galaxies use has |Pearson r| above 0.7 with the target, on test galaxies.",
        features.one_feature_follows,
        reason=HALF,
        version=1,
        date=FIRST,
    ),
    Claim(
        "library",
        SFNET,
        "An SFNet learns a library of features, from which it takes k for each galaxy.",
        "11 of 512 features are ever active, 4 in more than 100 of 23,444 galaxies",
        f"More than k features of an SFNet (k = 4, else the next larger) are active in more than {COMMON:.1%} of test "
        "galaxies; the interval is over runs.",
        features.library,
        reason="A fixed set of k features, all active in every galaxy, would be no library.",
        version=2,
        date=SINCE,
    ),
    Claim(
        "fewer for AGN",
        SFNET,
        "Four features tell AGN better than all of them: sparsity reduces noise.",
        "F1 0.72 against 0.70",
        "A linear SVM on four features in all has a larger AUC than one on all features.",
        predictions.fewer_is_better_for_agn,
        reason=EQUAL,
        version=2,
        date=SINCE,
    ),
    Claim(
        "AGN against photometry",
        SFNET,
        "A few features of an image tell AGN as networks do.",
        "F1 0.72; but 0.69 by logistic regression on photometry",
        "A linear SVM on four SFNet features has a larger AUC than logistic regression on photometry.",
        predictions.better_than_photometry_for_agn,
        reason=EQUAL,
        version=2,
        date=SINCE,
    ),
    Claim(
        "alignment",
        EUCLID,
        "SAE features align better with Galaxy Zoo than principal components.",
        "peaks of the densities near 0.27 against 0.10",
        "The mean over the n most frequent latents of how well a morphology label tells the 2 % of test galaxies in "
        "which a feature is strongest from the others (2 AUC - 1, of the largest possible) exceeds that of the first n "
        "components, n being the largest of 16, 64 and 256 that both have; intervals are over galaxies and runs.",
        features.latents_align_better,
        reason=EQUAL,
        version=2,
        date=SINCE,
    ),
    Claim(
        "novelty",
        EUCLID,
        "SAE features lie more outside the morphology labels than principal components.",
        "densities only, in-sample",
        "The mean of 1 - R2 from all morphology labels, fitted on valid and scored on test, is larger for the 64 most "
        "frequent latents than for the first 64 components, of either those that another seed finds too (|r| above "
        f"{ALIKE}); intervals are over features and runs.",
        features.latents_are_novel,
        reason=EQUAL,
        version=2,
        date=SINCE,
    ),
    Claim(
        "first component",
        EUCLID,
        "The first principal component is a morphology label.",
        "rho 0.85 with smooth or featured",
        "The first component has |Spearman rho| above 0.7 with the label that fits it best on valid galaxies, on test.",
        features.first_component_is_a_label,
        reason=HALF,
        version=1,
        date=FIRST,
    ),
    Claim(
        "images beat photometry",
        WU_BOADA,
        "A network on images predicts metallicity better than photometry does.",
        "RMSE 0.085 against 0.130 dex",
        "The dense network's head has a smaller RMSE than XGBoost on magnitudes, colours and sizes.",
        predictions.photometry_is_worse,
        reason=EQUAL,
        version=1,
        date=FIRST,
    ),
    Claim(
        "trained sparse",
        OURS,
        "Features that are trained sparse are better than those that an SAE finds afterwards.",
        "not tested",
        "At the smallest k that both have, ridge on all SFNet features has a smaller RMSE than on the latents of the "
        "SAE that is best so on valid galaxies.",
        predictions.trained_sparse_is_better,
        reason=EQUAL,
        version=1,
        date=FIRST,
    ),
    Claim(
        "better than null",
        OURS,
        "An SAE's latents carry more than those of SAEs of which a part stays random.",
        "not tested",
        "Ridge on SAE latents has a smaller RMSE than on those of every null arm, at the largest k that all have.",
        predictions.better_than_null,
        reason=EQUAL,
        version=1,
        date=FIRST,
    ),
    Claim(
        "recurrence above an untrained network",
        OURS,
        "Another seed finds the same features.",
        "not tested (three seeds, one table)",
        "Of every SFNet, whatever its target, more than half of the features that two seeds match on train galaxies "
        f"have |r| above {ALIKE} on test galaxies, and more than with as many features of an untrained network, on "
        "average over pairs of seeds; the interval is over seeds (jackknife; three or more).",
        features.features_recur,
        reason="Most, and more than any two networks share because they see the same galaxies.",
        version=2,
        date=SINCE,
    ),
    Claim(
        "factors",
        OURS,
        "SFNet features are closer to the factors that made the galaxies than SAE latents.",
        "not known for real galaxies",
        "MCC of the SFNet on test galaxies is larger than that of an SAE with as many features (of 4, 16, 64, 256 the "
        "most that all runs of both have); no factor counts twice; the intervals are taken as independent.",
        features.factors,
        reason=EQUAL,
        version=2,
        date=SINCE,
    ),
    Claim(
        "beyond mass and colour",
        OURS,
        "What an SFNet finds about galaxies is more than mass, colour, size and inclination.",
        "not tested",
        "The head's predictions (k = 4, else the largest) add R2 to splines of the mass, colours, size and inclination "
        "that the catalogue has, both fitted on other test galaxies than they are scored on; the interval is over "
        "galaxies and runs.",
        predictions.beyond_mass_and_colour,
        reason="At 0 the network says no more of the label than the catalogue does.",
        version=1,
        date=SINCE,
    ),
    Claim(
        "effective features",
        OURS,
        "The k features of an SFNet are k different things.",
        "not tested",
        "The participation ratio of the features of the SFNet (k = 4, else the largest) on train galaxies is larger "
        "than k; the interval is over runs.",
        features.effective_features,
        reason="Where near copies of fewer features make up the code, k is a nominal number.",
        version=1,
        date=SINCE,
    ),
)
