"""What an experiment found, for other programs: tables as parquet, CSV or FITS, SAEs for SAELens, cutouts for Zoobot.

Only results that are current leave the house; the folder they go to is whole or absent.
"""

import argparse
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sfnetlab import runner, runtime
from sfnetlab.artifacts import FeatureTable, read_features, read_survey, state_of
from sfnetlab.errors import ArtifactError, DataError
from sfnetlab.jobs import Job
from sfnetlab.methods.sae import EncodeSpec, sae_directory
from sfnetlab.plan import SurveySpec, make_plan
from sfnetlab.surveys.catalog import read_catalog
from sfnetlab.surveys.crossmatch import joined_table, match_by_id, match_by_position
from sfnetlab.surveys.files import (
    Format,
    TableBlocks,
    column_list,
    form_of,
    rows_of_frame,
    text_widths,
    write_json,
    write_table,
)
from sfnetlab.surveys.folder import FolderSurvey, image_path

log = logging.getLogger(__name__)

Cutouts = Literal["jpg", "png"]

_BLOCK_ROWS = 8192
_MANIFEST = "export.json"
_SPELT = str.maketrans({"°": " deg", "×": "x", "–": "-", "−": "-", "ρ": "rho", "σ": "sigma", "±": "+-", "≥": ">="})
"""Signs of our labels of transforms and warnings."""


@dataclass(frozen=True)
class Request:
    """What to export, and how."""

    to: Path
    form: Format = "parquet"
    tables: tuple[str, ...] = ()
    """Names of feature tables (sae-k4-seed0) or of [[features]] (sae); empty: all."""
    wide: bool = False
    """Sparse tables as a column a feature that is active anywhere, instead of a row an activation."""
    cutouts: Cutouts | None = None
    """Write the cutouts too, as such files."""
    force: bool = False
    """Replace an earlier export."""


def export_command(arguments: argparse.Namespace) -> str:
    """Do what `sfnetlab export` was asked for; returns what to print."""
    request = Request(
        to=arguments.to,
        form=arguments.format,
        tables=tuple(arguments.tables),
        wide=arguments.wide,
        cutouts=arguments.cutouts,
        force=arguments.force,
    )
    files = export(runner.options(arguments), request)
    return f"{len(files)} files: {request.to}"


def export(chosen: runner.Options, request: Request) -> list[Path]:
    """Write the results of an experiment into a new folder; returns its files.

    - `catalog.*`: the survey's catalogue with its split; `columns.csv`: units, UCDs and meanings of its columns.
    - `features/<table>.*`: `id_str`, `split` and a column a feature, called as in its own file or `feature_<i>`. A
      sparse table has a row for each activation, `id_str, feature, activation`, by default: galaxies without an active
      feature are in the catalogue alone. FITS holds at most 999 columns: a wider table has one vector, `features`.
    - `feature_catalogs/<table>.*`: what each feature is like, `features.parquet` of interpret-features.
    - `predictions/<table>.*`: test galaxies, a column a label, probe and number of features, NaN outside a cut.
    - `saelens/<sae>-k<k>-seed<seed>/`: every sparse autoencoder, for `sae_lens.SAE.load_from_disk`.
    - `zoobot.*` (parquet where the others are FITS): `id_str`, `file_loc` and the catalogue, for Zoobot, with
      `cutouts` asked for or the user's own JPEG and PNG files; `cutouts/<id>.jpg`.
    - `export.json`: which results these are.

    Raises
    ------
    ArtifactError
        If a result is missing or stale, or the folder exists and is not to be replaced.
    DataError
        If no table has such a name, or FITS cannot hold a text.
    """
    experiment, root = chosen.load()
    plan = make_plan(experiment)
    jobs = _chosen_jobs(plan, request.tables)
    _require_current(root, jobs)
    _require_place(request)
    partial = request.to.with_name(f".{request.to.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        writer = _Writer(root, partial, request)
        for job in jobs:
            writer.write(job)
        about = {"experiment": experiment.name, "format": request.form, "results": writer.written}
        write_json(partial / _MANIFEST, about | {"versions": runtime.versions()})
        replaced = request.to.with_name(f".{request.to.name}.replaced-{os.getpid()}")
        if request.to.exists():
            request.to.rename(replaced)
        partial.rename(request.to)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(path for path in request.to.rglob("*") if path.is_file())


def _chosen_jobs(plan: Sequence[Job], names: Sequence[str]) -> list[Job]:
    """The survey, and of every table of these names its features, their catalogue and its predictions."""
    survey = next(job for job in plan if job.stage == "prepare-survey")
    probed = [job for job in plan if job.stage == "fit-probes" and hasattr(job.spec, "table")]
    known = {job.name: job.spec.table.features for job in probed}
    unknown = sorted(set(names) - {*known, *known.values()})
    if unknown:
        raise DataError(f"no table {', '.join(unknown)}; the experiment has {', '.join(dict.fromkeys(known.values()))}")
    wanted = {name for name, features in known.items() if not names or {name, features} & set(names)}
    told = [job for job in plan if job.stage == "interpret-features" and hasattr(job.spec, "table")]
    jobs = [survey]
    for job in (*probed, *told):
        if job.name in wanted:
            jobs += [each for each in (job.inputs["features"], job.inputs.get("saes"), job) if each is not None]
    return list({job.key: job for job in jobs}.values())


def _require_current(root: Path, jobs: Sequence[Job]) -> None:
    states = {job: state_of(root, job).kind for job in jobs}
    wrong = [f"{job} is {kind}" for job, kind in states.items() if kind != "current"]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ArtifactError(
            f"{root}: {', '.join(wrong[:5])}{more}; run `sfnetlab run CONFIG` first, or choose others with --tables"
        )


def _require_place(request: Request) -> None:
    to = request.to
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not (to / _MANIFEST).is_file():
        raise ArtifactError(f"{to}: is there and is no export of this lab; choose a new folder with --to")
    if not request.force:
        raise ArtifactError(f"{to}: holds an export already; replace it with --force, or choose another --to")


class _Writer:
    """Writes what a job made into the folder of the export, and keeps a list of it."""

    def __init__(self, root: Path, folder: Path, request: Request) -> None:
        self.root, self.folder, self.request = root, folder, request
        self.written: dict[str, dict[str, str]] = {}

    def write(self, job: Job) -> None:
        source = job.directory(self.root)
        match job.stage:
            case "prepare-survey":
                self._write_survey(job, source)
            case "train-sae":
                return  # written with the tables that show which of them are asked for
            case "fit-probes":
                predictions = _wide_predictions(pd.read_parquet(source / "predictions.parquet"))
                self._write_table(job, "predictions", rows_of_frame(predictions))
            case "interpret-features":
                features = pd.read_parquet(source / "features.parquet")
                if self.request.form == "fits":
                    features = _in_ascii(features)
                self._write_table(job, "feature_catalogs", rows_of_frame(features))
            case _:
                self._write_table(job, "features", _feature_rows(source, job.name, self.request.wide))
                if isinstance(job.spec, EncodeSpec):
                    self._write_sae(job, job.spec)

    def _write_table(self, job: Job, kind: str, table: TableBlocks, form: Format | None = None) -> None:
        form = form or self.request.form
        name = (
            f"{kind}/{job.name}.{form}" if kind in ("features", "feature_catalogs", "predictions") else f"{kind}.{form}"
        )
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        write_table(path, table, form)
        self.written[name] = {"made_by": str(job), "key": job.key}

    def _write_sae(self, job: Job, spec: EncodeSpec) -> None:
        from sfnetlab.models.foreign import export_saelens
        from sfnetlab.models.sae import load_sae

        saes = job.inputs["saes"]
        name = f"saelens/{saes.spec.sae.name}-k{spec.k}-seed{spec.seed}"
        if name not in self.written:
            directory = sae_directory(saes.directory(self.root), spec.k, spec.seed)
            export_saelens(self.folder / name, load_sae(directory))
            self.written[name] = {"made_by": str(saes), "key": saes.key}

    def _write_survey(self, job: Job, source: Path) -> None:
        survey = read_survey(source)
        self._write_table(job, "catalog", rows_of_frame(survey.catalog))
        column_list([survey.catalog.columns]).to_csv(self.folder / "columns.csv", index=False)
        files = self._cutout_files(job.spec, survey.catalog["id_str"], survey.images)
        if files is None:
            log.info("no catalogue for Zoobot: the survey has no JPEG or PNG files; --cutouts jpg writes them")
            return
        zoobot = survey.catalog.copy()
        zoobot.insert(1, "file_loc", files)
        self._write_table(job, "zoobot", rows_of_frame(zoobot), "csv" if self.request.form == "csv" else "parquet")

    def _cutout_files(
        self, spec: SurveySpec, ids: "pd.Series[str]", images: NDArray[np.uint8] | None
    ) -> list[str] | None:
        """Where the cutout of every galaxy lies, if anywhere."""
        suffix = self.request.cutouts
        if suffix is None:
            if isinstance(spec.survey, FolderSurvey) and spec.survey.extension != ".fits":
                return [str(image_path(spec.survey, id_str).resolve()) for id_str in ids]
            return None
        if images is None:
            raise DataError("--cutouts: a survey of embeddings has no images")
        from PIL import Image

        folder = self.folder / "cutouts"
        folder.mkdir()
        settings: dict[str, Any] = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
        for id_str, image in zip(ids, images, strict=True):
            Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{id_str}.{suffix}", **settings)
        return [str(self.request.to.resolve() / "cutouts" / f"{id_str}.{suffix}") for id_str in ids]


def _in_ascii(table: pd.DataFrame) -> pd.DataFrame:
    """With the signs of our own words spelt out, for FITS."""
    texts = table.select_dtypes(["object", "string"])
    return table.assign(**{str(name): texts[name].str.translate(_SPELT) for name in texts})


def _feature_rows(source: Path, name: str, is_wide: bool) -> TableBlocks:
    table = read_features(source)
    values: Any = table.values
    d = values.shape[1]
    described = {f"feature_{i}": f"feature {i} of {name}" for i in range(d)}
    if not sparse.issparse(values):
        return _dense_rows(table, values, _column_names(source, d), described)
    if is_wide:
        used = np.flatnonzero(np.bincount(values.indices[values.data != 0], minlength=d))
        return _dense_rows(table, values[:, used], [f"feature_{i}" for i in used], described)
    return _long_rows(table, values)


def _column_names(source: Path, d: int) -> list[str]:
    """As the features were called where they come from, else by number."""
    path = source / "model.json"
    names = json.loads(path.read_text()).get("columns") if path.exists() else None
    if names and len({"id_str", "split", *names}) == d + 2:
        return list(names)
    return [f"feature_{i}" for i in range(d)]


def _dense_rows(table: FeatureTable, values: Any, names: list[str], described: dict[str, str]) -> TableBlocks:
    """`id_str, split` and a column a feature."""
    rows = table.rows[["id_str", "split"]]

    def blocks() -> Iterator[pd.DataFrame]:
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = values[start : start + _BLOCK_ROWS]
            block = np.asarray(block.toarray() if sparse.issparse(block) else block)
            own = rows.iloc[start : start + _BLOCK_ROWS].reset_index(drop=True)
            yield pd.concat([own, pd.DataFrame(block, columns=names)], axis=1)

    return TableBlocks(len(rows), blocks(), text_widths(rows), n_scalars=2, described=described)


def _long_rows(table: FeatureTable, values: Any) -> TableBlocks:
    """`id_str, feature, activation`: a row for each feature that is active in a galaxy."""
    csr = sparse.csr_array(values)
    csr.eliminate_zeros()
    ids = table.rows["id_str"]

    def blocks() -> Iterator[pd.DataFrame]:
        for start in range(0, len(ids), _BLOCK_ROWS):
            end = min(start + _BLOCK_ROWS, len(ids))
            entries = slice(csr.indptr[start], csr.indptr[end])
            owner = np.repeat(np.arange(start, end), np.diff(csr.indptr[start : end + 1]))
            yield pd.DataFrame(
                {
                    "id_str": ids.iloc[owner].reset_index(drop=True),
                    "feature": csr.indices[entries].astype(np.int32),
                    "activation": csr.data[entries],
                }
            )

    return TableBlocks(csr.nnz, blocks(), text_widths(table.rows[["id_str"]]))


def _wide_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """A row a test galaxy: `<target>_<column>_true`, and `<target>_<column>_<probe>_<n features>` a prediction."""
    label = predictions["target"] + "_" + predictions["column"]
    probe = "_" + predictions["probe"] + "_" + predictions["n_features_used"].astype(str)
    truth = predictions.assign(name=label + "_true", value=predictions["y_true"])
    predicted = predictions.assign(name=label + probe, value=predictions["y_pred"])
    both = pd.concat([truth.drop_duplicates(["id_str", "name"]), predicted])
    wide = both.set_index(["id_str", "name"])["value"].unstack()[both["name"].drop_duplicates()]  # noqa: PD010
    return wide.rename_axis(columns=None).reset_index()


# --- cross-match ------------------------------------------------------------------------------------------------------


def cross_match_command(arguments: argparse.Namespace) -> str:
    """Do what `sfnetlab cross-match` was asked for; returns its report.

    Raises
    ------
    DataError
        If a catalogue cannot be used, nothing matches, or the file exists and is not to be replaced.
    """
    to: Path = arguments.to
    form = form_of(to)
    if to.exists() and not arguments.force:
        raise DataError(f"{to}: is there already; replace it with --force, or choose another --to")
    left_id, _, right_id = arguments.on.partition("=")
    left, right = read_catalog(arguments.left, left_id), read_catalog(arguments.right, right_id or left_id)
    by_position = arguments.radius_arcsec is not None
    match = match_by_position(left, right, arguments.radius_arcsec) if by_position else match_by_id(left, right)
    partial = to.with_name(f".{to.name}.partial-{os.getpid()}")
    try:
        write_table(partial, rows_of_frame(joined_table(left, right, match)), form)
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)
    return f"{match.report}: {to}"
