"""What the papers claim, each with the rule by which this survey's numbers uphold it or not.

A rule puts an interval beside a line: "holds" and "does not hold" need the whole 95 % interval on one side of it, else
the claim is "undecided". Verdicts follow from the rules, never by hand.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.bootstrap import sample_and_resamples

N_RESAMPLES = 1000
SEED = 0
"""Of the resamples of galaxies: the same for every method, so that differences are paired."""

MARGIN = 0.05
"""Relative loss of accuracy that counts as none: twice what the SFNet paper itself calls none (0.087 against 0.085)."""

COMMON = 0.005
"""Share of galaxies in which a feature of the library must be active: 100 of the SFNet paper's 23,444."""

Verdict = Literal["holds", "does not hold", "undecided", "cannot be tested here"]
Sample = NDArray[np.float64]
"""A number (first) and what resamples of the galaxies make of it, shape (1 + N_RESAMPLES,)."""


class CannotTestError(Exception):
    """This survey or configuration lacks what the claim is about; the message says what."""


@dataclass(frozen=True)
class Finding:
    """A number to hold against a line."""

    what: str
    value: float
    low: float
    high: float
    line: float
    side: Literal["above", "below"]
    """On which side of the line the claim holds."""

    @property
    def verdict(self) -> Verdict:
        if not np.isfinite([self.value, self.low, self.high]).all():
            return "undecided"
        is_above, is_below = self.low > self.line, self.high < self.line
        if not is_above and not is_below:
            return "undecided"
        return "holds" if is_above == (self.side == "above") else "does not hold"


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper that numbers can uphold."""

    name: str
    source: str
    statement: str
    their_number: str
    rule: str
    test: Callable[["Evidence"], Finding]


@dataclass(frozen=True)
class Evidence:
    """Tidy tables of one experiment, as the stages wrote them; `features`, `kind`, `k` and `seed` say of what."""

    predictions: pd.DataFrame
    """Of test galaxies: `features, kind, k, seed, target, column, probe, n_features_used, id_str, y_true, y_pred`."""
    alignment: pd.DataFrame
    """Of interpret/alignment.py, a row a feature."""
    associations: pd.DataFrame
    """Of interpret/catalog.py, a row a feature and label."""
    recovery: pd.DataFrame
    """Of interpret/recovery.py; empty without known factors."""
    matching: pd.DataFrame
    """Of interpret/matching.py, a row every two tables, with `features_a, kind_a, features_b, kind_b`."""
    frequencies: pd.DataFrame
    """`features, kind, k, seed, feature, frequency` of test galaxies, features that are active in any."""
    regression: str
    """The target on which the claims about a continuous property are tested."""
    column: str
    """Its first column."""
    classes: str | None
    """The pair of classes on which those about classification are tested."""
    n_sfnet_features: int
    """How many features an SFNet may choose from."""
    pretrained: frozenset[str]
    """Names of encoders whose weights were learned elsewhere, on something else than the target."""


def hold_claims(evidence: Evidence) -> pd.DataFrame:
    """A row a claim: `name, source, statement, their_number, rule, what, value, low, high, line, verdict, why`.

    `why` says what is missing where the verdict is "cannot be tested here"; value, low and high are NaN there.
    """
    rows = []
    for claim in CLAIMS:
        about = {
            "name": claim.name,
            "source": claim.source,
            "statement": claim.statement,
            "their_number": claim.their_number,
            "rule": claim.rule,
        }
        try:
            found = claim.test(evidence)
        except CannotTestError as missing:
            nothing = {"what": "", "value": np.nan, "low": np.nan, "high": np.nan, "line": np.nan}
            rows.append(about | nothing | {"verdict": "cannot be tested here", "why": str(missing)})
            continue
        numbers = {name: getattr(found, name) for name in ("what", "value", "low", "high", "line", "verdict")}
        rows.append(about | numbers | {"why": ""})
    return pd.DataFrame(rows)


def claims_markdown(table: pd.DataFrame, title: str) -> str:
    """The report to read: a count of the verdicts, then each claim with its rule and its numbers."""
    counts = table["verdict"].value_counts()
    lines = [f"# {title}", "", ", ".join(f"{verdict}: {n}" for verdict, n in counts.items()) + ".", ""]
    lines += ["| claim | theirs | here | verdict |", "| --- | --- | --- | --- |"]
    for row in table.to_dict("records"):
        here = row["why"] if row["verdict"] == "cannot be tested here" else _numbers(row)
        cells = (f"**{row['name']}** {row['statement']} ({row['source']})", row["their_number"], here, row["verdict"])
        lines.append("| " + " | ".join(_cell(str(text)) for text in cells) + " |")
    lines += ["", "## Rules", ""]
    lines += [f"- **{row['name']}**: {row['rule']}" for row in table.to_dict("records")]
    lines += [
        "",
        'Each rule wants the whole 95 % interval on one side of its line; "undecided" means that the line lies inside. '
        "Intervals are over resampled test galaxies, or over features where the rule says so; seeds are averaged.",
    ]
    return "\n".join(lines) + "\n"


def _numbers(row: Mapping[Hashable, Any]) -> str:
    return f"{row['what']}: {row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}], line {row['line']:.3g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# --- samples ----------------------------------------------------------------------------------------------------------


def _finding(what: str, sample: Sample, line: float, side: Literal["above", "below"]) -> Finding:
    low, high = np.quantile(sample[1:], (0.025, 0.975))
    return Finding(what, float(sample[0]), float(low), float(high), line, side)


def _weights(n: int) -> NDArray[np.float64]:
    """(1 + N_RESAMPLES, n): the galaxies themselves, then resamples of them, as shares."""
    return sample_and_resamples(n, N_RESAMPLES, SEED)


def _per_galaxy(rows: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Labels (n,) and predictions (n, n_seeds) of one method, galaxies by id."""
    table = rows.assign(seed=rows["seed"].fillna(-1)).pivot_table(index="id_str", columns="seed", values="y_pred")
    truth = rows.drop_duplicates("id_str").set_index("id_str")["y_true"].loc[table.index]
    return truth.to_numpy(), table.to_numpy()


def _rmse(rows: pd.DataFrame) -> Sample:
    """RMSE of one method, averaged over its seeds."""
    truth, predictions = _per_galaxy(rows)
    return np.sqrt(_weights(len(truth)) @ np.square(predictions - truth[:, None])).mean(axis=1)


def _f1(rows: pd.DataFrame) -> Sample:
    """F1 of the positive class at score 0, averaged over seeds."""
    truth, scores = _per_galaxy(rows)
    is_found = (scores > 0).astype(np.float64)
    weights, is_true = _weights(len(truth)), truth[:, None]
    hits = weights @ (is_found * is_true)
    return (2 * hits / (2 * hits + weights @ (is_found * (1 - is_true)) + weights @ ((1 - is_found) * is_true))).mean(1)


def _explained(rows: pd.DataFrame) -> Sample:
    """Share of the labels' variance that predictions explain, R2, averaged over seeds."""
    truth, predictions = _per_galaxy(rows)
    weights = _weights(len(truth))
    variance = weights @ truth**2 - (weights @ truth) ** 2
    return 1 - (weights @ np.square(predictions - truth[:, None])).mean(axis=1) / variance


# --- methods ----------------------------------------------------------------------------------------------------------


def _predictions(
    evidence: Evidence,
    kind: str,
    probe: str,
    *,
    k: int | None = None,
    budget: int | None = None,
    features: str | None = None,
    of_classes: bool = False,
) -> pd.DataFrame:
    """Predictions of one method of a kind, the first by name of several; without a budget on all its features."""
    target = evidence.classes if of_classes else evidence.regression
    if target is None:
        raise CannotTestError("no [classes] are configured")
    of_target = evidence.predictions[evidence.predictions["target"] == target]
    if not of_classes:
        of_target = of_target[of_target["column"] == evidence.column]
    chosen = _own(evidence, of_target[of_target["probe"] == probe], kind)
    if features is not None:
        chosen = chosen[chosen["features"] == features]
    if k is not None:
        chosen = chosen[chosen["k"] == k]
    if budget is not None:
        chosen = chosen[chosen["n_features_used"] == budget]
    if len(chosen) == 0:
        at = "".join([f", k = {k}" if k is not None else "", f", {budget} features in all" if budget else ""])
        raise CannotTestError(f"no {probe} of features of kind {kind!r}{at}")
    chosen = chosen[chosen["features"] == chosen["features"].min()]
    if k is None and chosen["k"].notna().any():
        chosen = chosen[chosen["k"] == chosen["k"].min()]
    by_seed = chosen.groupby("seed", dropna=False)
    chosen = chosen[chosen["n_features_used"] == by_seed["n_features_used"].transform("max")]
    n_galaxies, n_runs = of_target["id_str"].nunique(), by_seed.ngroups
    if len(chosen) != n_galaxies * n_runs:
        raise ValueError(
            f"{probe} of {chosen['features'].iloc[0]}: expected predictions of the {n_galaxies} galaxies of {target} "
            f"by each of {n_runs} runs, found {len(chosen)}: methods of different galaxies cannot be compared"
        )
    return chosen


def _own(evidence: Evidence, table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Rows of a kind; of SFNets only those that were trained on the target."""
    if len(table) == 0 or kind != "sfnet":
        return table[table["kind"] == kind] if len(table) else table
    every = evidence.predictions
    heads = every[(every["kind"] == kind) & (every["probe"] == "head") & (every["target"] == evidence.regression)]
    return table[(table["kind"] == kind) & table["features"].isin(heads["features"])]


def _ks(evidence: Evidence, kind: str) -> list[int]:
    return sorted(int(k) for k in _own(evidence, evidence.predictions, kind)["k"].dropna().unique())


def _shared_ks(evidence: Evidence, kind: str) -> list[int]:
    shared = sorted(set(_ks(evidence, "sfnet")) & set(_ks(evidence, kind)))
    if not shared:
        raise CannotTestError(f"no k that features of kind 'sfnet' and {kind!r} share")
    return shared


def _main_k(evidence: Evidence) -> int:
    """The paper's k = 4, else the largest."""
    ks = _ks(evidence, "sfnet")
    if not ks:
        raise CannotTestError("no features of kind 'sfnet' for this target")
    return 4 if 4 in ks else ks[-1]


def _loss(ours: pd.DataFrame, theirs: pd.DataFrame) -> Sample:
    """By how much the RMSE of one method is above another's, relative."""
    return _rmse(ours) / _rmse(theirs) - 1


# --- the claims about predictions -------------------------------------------------------------------------------------


def _accuracy(evidence: Evidence) -> Finding:
    k = _main_k(evidence)
    sample = _loss(_predictions(evidence, "sfnet", "head", k=k), _predictions(evidence, "encoder", "head"))
    return _finding(f"relative RMSE of the SFNet with k = {k} above the dense network's", sample, MARGIN, "below")


def _two_features(evidence: Evidence) -> Finding:
    k = min(_ks(evidence, "sfnet"), default=None)
    head = _predictions(evidence, "sfnet", "head", k=k)
    sample = _loss(_predictions(evidence, "sfnet", "linear", k=k, budget=2), head)
    return _finding(
        f"relative RMSE of two features in all above all of the SFNet with k = {k}", sample, MARGIN, "below"
    )


def _any_k(evidence: Evidence) -> Finding:
    ks = _ks(evidence, "sfnet")
    if len(ks) < 2:
        raise CannotTestError("fewer than two k of SFNets")
    errors = np.stack([_rmse(_predictions(evidence, "sfnet", "head", k=k)) for k in ks])
    what = f"spread of the RMSE over k = {', '.join(map(str, ks))}, relative to its mean"
    return _finding(what, np.ptp(errors, axis=0) / errors.mean(axis=0), MARGIN, "below")


def _components_do_worse(evidence: Evidence) -> Finding:
    losses = []
    for k in _ks(evidence, "sfnet"):
        try:
            components = _predictions(evidence, "pca", "linear", budget=k)
        except CannotTestError:
            continue
        losses.append(_loss(components, _predictions(evidence, "sfnet", "head", k=k)))
    if not losses:
        raise CannotTestError("no k at which there are an SFNet and as many principal components; see probes.budgets")
    what = f"least over {len(losses)} values of k: relative RMSE of k principal components above the SFNet's"
    return _finding(what, np.min(losses, axis=0), 0.0, "above")


def _frozen_encoder(evidence: Evidence) -> Finding:
    if not evidence.pretrained:
        raise CannotTestError("no encoder that was trained elsewhere (weights from a file or a hub)")
    shares = [
        _explained(_predictions(evidence, "encoder", "ridge", features=name)) for name in sorted(evidence.pretrained)
    ]
    return _finding("R2 of ridge on all dimensions, best encoder", np.max(shares, axis=0), 0.5, "below")


def _photometry_is_worse(evidence: Evidence) -> Finding:
    sample = _loss(_predictions(evidence, "encoder", "head"), _predictions(evidence, "photometry", "xgboost"))
    return _finding("relative RMSE of the dense network above XGBoost on photometry", sample, 0.0, "below")


def _fewer_is_better_for_agn(evidence: Evidence) -> Finding:
    k = _main_k(evidence)
    few = _f1(_predictions(evidence, "sfnet", "linear_svm", k=k, budget=4, of_classes=True))
    every = _f1(_predictions(evidence, "sfnet", "linear_svm", k=k, of_classes=True))
    return _finding("F1 of a linear SVM on four features minus on all", few - every, 0.0, "above")


def _better_than_photometry_for_agn(evidence: Evidence) -> Finding:
    k = _main_k(evidence)
    few = _f1(_predictions(evidence, "sfnet", "linear_svm", k=k, budget=4, of_classes=True))
    colours = _f1(_predictions(evidence, "photometry", "logistic", of_classes=True))
    return _finding(
        "F1 of a linear SVM on four features minus logistic regression on photometry", few - colours, 0.0, "above"
    )


def _trained_sparse_is_better(evidence: Evidence) -> Finding:
    k = _shared_ks(evidence, "sae")[0]
    saes = _own(evidence, evidence.predictions, "sae")
    names = sorted(saes.loc[saes["k"] == k, "features"].unique())
    ours = _predictions(evidence, "sfnet", "ridge", k=k)
    losses = [_loss(ours, _predictions(evidence, "sae", "ridge", k=k, features=name)) for name in names]
    what = f"largest over {len(losses)} SAEs: relative RMSE of ridge on SFNet features above SAE latents, both k = {k}"
    return _finding(what, np.max(losses, axis=0), 0.0, "below")


def _better_than_null(evidence: Evidence) -> Finding:
    arms = _own(evidence, evidence.predictions, "null_sae")
    shared = set(_ks(evidence, "sae"))
    for _, arm in arms.groupby("features"):
        shared &= set(arm["k"])
    if len(arms) == 0 or not shared:
        raise CannotTestError("no SAE and null arms of the same k")
    k = max(shared)
    losses = []
    for name in sorted(arms["features"].unique()):
        null = _predictions(evidence, "null_sae", "ridge", k=k, features=name)
        losses.append(_loss(_predictions(evidence, "sae", "ridge", k=k), null))
    what = f"largest over {len(losses)} null arms: relative RMSE of ridge on SAE latents above the arm's, k = {k}"
    return _finding(what, np.max(losses, axis=0), 0.0, "below")


# --- the claims about features ----------------------------------------------------------------------------------------


def _of_kind(evidence: Evidence, table: pd.DataFrame, kind: str, what: str) -> pd.DataFrame:
    """One table of a kind: the first by name, its smallest k of 4 or more (else the largest), its first seed."""
    chosen = _own(evidence, table, kind)
    if len(chosen) == 0:
        raise CannotTestError(f"no {what} of features of kind {kind!r}")
    chosen = chosen[chosen["features"] == chosen["features"].min()]
    if chosen["k"].notna().any():
        ks = sorted(chosen["k"].unique())
        chosen = chosen[chosen["k"] == next((k for k in ks if k >= 4), ks[-1])]
    return chosen[chosen["seed"].isna() | (chosen["seed"] == chosen["seed"].min())]


def _mean_over_features(values: NDArray[np.floating]) -> Sample:
    known = values[np.isfinite(values)]
    if len(known) < 2:
        raise CannotTestError("fewer than two features vary")
    return _weights(len(known)) @ known


def _independent_mean(values: NDArray[np.floating]) -> Sample:
    """As `_mean_over_features`, resampled apart from another table's."""
    known = values[np.isfinite(values)]
    if len(known) < 2:
        raise CannotTestError("fewer than two features vary")
    draws = np.random.default_rng(SEED + 1).integers(len(known), size=(N_RESAMPLES, len(known)))
    return np.concatenate([[known.mean()], known[draws].mean(axis=1)])


def _latents_and_components(evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The 64 most frequent latents of an SAE and the first 64 principal components, as the Euclid paper takes them."""
    latents = _of_kind(evidence, evidence.alignment, "sae", "alignment with morphology").nsmallest(64, "frequency_rank")
    components = _of_kind(evidence, evidence.alignment, "pca", "alignment with morphology").nsmallest(64, "feature")
    return latents, components


def _latents_align_better(evidence: Evidence) -> Finding:
    latents, components = _latents_and_components(evidence)
    above_null = [(table["max_rho"] - table["null_mean"]).to_numpy() for table in (latents, components)]
    sample = _mean_over_features(above_null[0]) - _independent_mean(above_null[1])
    return _finding("mean largest |rho| above its null, latents minus components", sample, 0.0, "above")


def _latents_are_novel(evidence: Evidence) -> Finding:
    latents, components = (table["novelty"].to_numpy() for table in _latents_and_components(evidence))
    sample = _mean_over_features(latents) - _independent_mean(components)
    return _finding("mean novelty (1 - R2), latents minus components", sample, 0.0, "above")


def _first_component_is_a_label(evidence: Evidence) -> Finding:
    components = _of_kind(evidence, evidence.alignment, "pca", "alignment with morphology")
    first = components[components["feature"] == 0].iloc[0]
    return _of_correlation(f"|rho| of the first component with {first['best_label']}", first, "rho", "low", "high", 0.7)


def _of_correlation(what: str, row: pd.Series, value: str, low: str, high: str, line: float) -> Finding:
    ends = (abs(row[low]), abs(row[high]))
    crosses = row[low] * row[high] <= 0
    return Finding(what, abs(float(row[value])), 0.0 if crosses else min(ends), max(ends), line, "above")


def _one_feature_follows(evidence: Evidence) -> Finding:
    usage = _of_kind(evidence, evidence.frequencies, "sfnet", "catalogue")
    most_used = int(usage["feature"].to_numpy()[usage["frequency"].to_numpy().argmax()])
    own = _of_kind(evidence, evidence.associations, "sfnet", "associations")
    row = own[(own["feature"] == most_used) & (own["label"] == evidence.column)]
    if len(row) == 0:
        raise CannotTestError(f"{evidence.column} is not among the labels")
    what = f"|Pearson r| of the most used feature ({most_used}) with {evidence.column}"
    return _of_correlation(what, row.iloc[0], "pearson", "pearson_low", "pearson_high", 0.7)


def _library(evidence: Evidence) -> Finding:
    usage = _of_kind(evidence, evidence.frequencies, "sfnet", "catalogue")
    n_used = int((usage["frequency"] > COMMON).sum())
    # Wilson's interval for a share of the dictionary
    n, z = evidence.n_sfnet_features, 1.96
    share = n_used / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    what = f"share of {n} features active in more than {COMMON:.1%} of test galaxies"
    return Finding(what, share, centre - half, centre + half, 0.5, "above")


def _features_recur(evidence: Evidence) -> Finding:
    if len(evidence.matching) == 0:
        raise CannotTestError("no two feature tables were compared")
    same = evidence.matching[
        (evidence.matching["kind_a"] == "sfnet") & (evidence.matching["features_a"] == evidence.matching["features_b"])
    ]
    if len(same) == 0:
        raise CannotTestError("fewer than two seeds of an SFNet")
    share = same["share_above_null"].to_numpy(dtype=np.float64)
    return Finding(
        f"share of matched features above the null's 95 %, over {len(same)} pairs of seeds",
        float(share.mean()),
        float(share.min()),
        float(share.max()),
        0.5,
        "above",
    )


def _factors(evidence: Evidence) -> Finding:
    if len(evidence.recovery) == 0:
        raise CannotTestError("the factors behind these galaxies are not known")
    scores = []
    for kind in ("sfnet", "sae"):
        own = _of_kind(evidence, evidence.recovery, kind, "recovery of factors")
        scores.append(own[(own["factor"] == "all") & (own["metric"] == "correlation")].iloc[0])
    ours, theirs = scores
    difference = ours["value"] - theirs["value"]
    # Intervals of two scores on the same galaxies, taken as independent: too wide rather than too narrow.
    low = difference - np.hypot(ours["value"] - ours["low"], theirs["high"] - theirs["value"])
    high = difference + np.hypot(ours["high"] - ours["value"], theirs["value"] - theirs["low"])
    what = "mean correlation of matched features and factors (MCC), SFNet minus SAE"
    return Finding(what, float(difference), float(low), float(high), 0.0, "above")


SFNET, EUCLID, WU_BOADA, OURS = "SFNet paper", "Euclid SAE paper", "Wu & Boada 2019", "the question of this lab"

CLAIMS: Sequence[Claim] = (
    Claim(
        "accuracy",
        SFNET,
        "An SFNet does not sacrifice accuracy.",
        "RMSE 0.086 dex against 0.085 of a CNN",
        f"The RMSE of the SFNet's head (k = 4, else the largest) is less than {MARGIN:.0%} above that of the dense "
        "network's head.",
        _accuracy,
    ),
    Claim(
        "two features",
        SFNET,
        "Two features suffice for metallicity.",
        "RMSE 0.087 dex with two features, 0.086 with all",
        "A linear probe on two features in all (chosen on train) of the sparsest SFNet has an RMSE less than "
        f"{MARGIN:.0%} above that of its head.",
        _two_features,
    ),
    Claim(
        "any k",
        SFNET,
        "Performance is robust against k.",
        "RMSE 0.0852 to 0.0875 for k = 2 to 8",
        f"The RMSEs of the heads differ by less than {MARGIN:.0%} of their mean over all k.",
        _any_k,
    ),
    Claim(
        "components",
        SFNET,
        "Principal components of a dense network do worse than an SFNet at every small k.",
        "RMSE 0.175 against 0.086 at k = 2, 0.103 against 0.086 at k = 4",
        "At every k the linear probe on the first k components has a larger RMSE than the SFNet's head.",
        _components_do_worse,
    ),
    Claim(
        "frozen encoder",
        SFNET,
        "No linear combination of Zoobot's features reconstructs metallicity.",
        "RMSE 0.183 of a scatter of 0.207: R2 0.22 (with weights that may have been random)",
        "Ridge on all dimensions of every encoder that was trained elsewhere explains less than half of the variance.",
        _frozen_encoder,
    ),
    Claim(
        "one feature",
        SFNET,
        "A single feature follows metallicity.",
        "r = 0.85 of feature Z61",
        "The feature that most galaxies use has |Pearson r| above 0.7 with the target, on test galaxies.",
        _one_feature_follows,
    ),
    Claim(
        "library",
        SFNET,
        "An SFNet learns a library of features.",
        "11 of 512 features are ever active, 4 in more than 100 of 23,444 galaxies",
        f"More than half of the pooled features are active in more than {COMMON:.1%} of test galaxies.",
        _library,
    ),
    Claim(
        "fewer for AGN",
        SFNET,
        "Four features tell AGN better than all of them: sparsity reduces noise.",
        "F1 0.72 against 0.70",
        "A linear SVM on four features in all has a larger F1 than one on all features.",
        _fewer_is_better_for_agn,
    ),
    Claim(
        "AGN against photometry",
        SFNET,
        "A few features of an image tell AGN as networks do.",
        "F1 0.72; but 0.69 by logistic regression on photometry",
        "A linear SVM on four SFNet features has a larger F1 than logistic regression on photometry.",
        _better_than_photometry_for_agn,
    ),
    Claim(
        "alignment",
        EUCLID,
        "SAE features align better with Galaxy Zoo than principal components.",
        "peaks of the densities near 0.27 against 0.10",
        "The mean over the 64 most frequent latents of the largest |Spearman rho| with a morphology label, above its "
        "permutation null, exceeds that of the first 64 components; intervals are over features.",
        _latents_align_better,
    ),
    Claim(
        "novelty",
        EUCLID,
        "SAE features lie more outside the morphology labels than principal components.",
        "densities only, in-sample",
        "The mean of 1 - R2 from all morphology labels, fitted on valid and scored on test, is larger for the 64 most "
        "frequent latents than for the first 64 components; intervals are over features.",
        _latents_are_novel,
    ),
    Claim(
        "first component",
        EUCLID,
        "The first principal component is a morphology label.",
        "rho 0.85 with smooth or featured",
        "The first component has |Spearman rho| above 0.7 with the label that fits it best on valid galaxies, on test.",
        _first_component_is_a_label,
    ),
    Claim(
        "images beat photometry",
        WU_BOADA,
        "A network on images predicts metallicity better than photometry does.",
        "RMSE 0.085 against 0.130 dex",
        "The dense network's head has a smaller RMSE than XGBoost on magnitudes, colours and sizes.",
        _photometry_is_worse,
    ),
    Claim(
        "trained sparse",
        OURS,
        "Features that are trained sparse are better than those that an SAE finds afterwards.",
        "not tested",
        "At the smallest k that both have, ridge on all SFNet features has a smaller RMSE than on the latents of every "
        "SAE.",
        _trained_sparse_is_better,
    ),
    Claim(
        "better than null",
        OURS,
        "An SAE's latents carry more than those of SAEs of which a part stays random.",
        "not tested",
        "Ridge on SAE latents has a smaller RMSE than on those of every null arm, at the largest k that all have.",
        _better_than_null,
    ),
    Claim(
        "recurrence",
        OURS,
        "Another seed finds the same features.",
        "not tested (three seeds, one table)",
        "In every two seeds of every SFNet, whatever its target, more than half of the features, matched on train "
        "galaxies, correlate on test galaxies above the 95 % of permuted galaxies; the interval is the range over "
        "pairs of seeds.",
        _features_recur,
    ),
    Claim(
        "factors",
        OURS,
        "SFNet features are closer to the factors that made the galaxies than SAE latents.",
        "not known for real galaxies",
        "MCC of the SFNet on test galaxies is larger than that of an SAE; the intervals are taken as independent.",
        _factors,
    ),
)
