"""What an experiment found, for other programs: tables as parquet, CSV, FITS or HATS, SAEs for SAELens, cutouts.

Only results that are current leave the house; the folder they go to is whole or absent.
"""

import argparse
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from sfnetlab import runner, runtime
from sfnetlab.artifacts import state_of
from sfnetlab.descriptions import About
from sfnetlab.errors import ArtifactError, DataError
from sfnetlab.exporting.catalog import Cutouts, catalog_items
from sfnetlab.exporting.hats import hats_items
from sfnetlab.exporting.saes import sae_items
from sfnetlab.exporting.tables import description_items, evidence_items, feature_items, prediction_items
from sfnetlab.files import move
from sfnetlab.plan import STAGES, make_plan
from sfnetlab.results import Record, Results, TableResult
from sfnetlab.surveys.files import Format, column_list, write_json
from sfnetlab.surveys.messages import first_few

log = logging.getLogger(__name__)

_MANIFEST = "export.json"
_N_NAMED = 5
"""Results that are not current are named one by one up to here."""


@dataclass(frozen=True)
class Request:
    """What to export, and how."""

    to: Path
    form: Format = "parquet"
    hats: bool = False
    """Write the catalogue and the feature tables as HATS catalogues too."""
    tables: tuple[str, ...] = ()
    """Names of feature tables (sae-k4-seed0) or of [[features]] (sae); empty: all."""
    wide: bool = False
    """Sparse tables as a column a feature that is active anywhere, instead of a row an activation."""
    cutouts: Cutouts | None = None
    """Write the cutouts too, as such files."""
    force: bool = False
    """Replace an earlier export."""


def export_command(arguments: argparse.Namespace) -> str:
    """Do what `sfnetlab export` was asked for; return what to print."""
    request = Request(
        to=arguments.to,
        form="parquet" if arguments.format == "hats" else arguments.format,
        hats=arguments.format == "hats",
        tables=tuple(arguments.tables),
        wide=arguments.wide,
        cutouts=arguments.cutouts,
        force=arguments.force,
    )
    files = export(runner.options(arguments), request)
    return f"{len(files)} files: {request.to}"


def export(chosen: runner.Options, request: Request) -> list[Path]:
    """Write the results of an experiment into a new folder; return its files.

    - `catalog.*`: the survey's catalogue with its split.
    - `columns.csv`: units, UCDs and meanings of the columns of all tables.
    - `features/<table>.*`: `id_str`, `split` and a column a feature, called as in its own file or `feature_<i>`. A
      sparse table has a row for each activation, `id_str, feature, activation`, by default: galaxies without an active
      feature are in the catalogue alone. FITS holds at most 999 columns: a wider table has one vector, `features`.
    - `feature_catalogs/<table>.*`: what each feature is like, `features.parquet` of interpret-features.
    - `evidence/<stage>/<name>/<table>.*`: every other table of the results that are current; with `tables` chosen, of
      those.
    - `predictions/<table>.*`: test galaxies, a column a label, probe and number of features, NaN outside a cut.
    - `hats/catalog`, `hats/<table>`: HATS catalogues for LSDB, if they are asked for: see `hats.hats_items`.
    - `saelens/<sae>-k<k>-seed<seed>/`: every sparse autoencoder, for `sae_lens.SAE.load_from_disk`.
    - `zoobot.*` (parquet where the others are FITS): `id_str`, `file_loc` and the catalogue, for Zoobot, with
      `cutouts` asked for or the user's own JPEG and PNG files; `cutouts/<id>.jpg`.
    - `export.json`: which results these are.

    Raises
    ------
    ArtifactError
        If a result is missing or stale, or the folder exists and is not to be replaced.
    DataError
        If no table has such a name, or FITS cannot hold one.
    """
    experiment, root = chosen.load()
    results = Results.of_plan(make_plan(experiment), root)
    tables = _chosen_tables(results, request.tables)
    _require_current(root, results, tables)
    _require_place(request)
    evidence = _evidence(root, results, tables, is_all=not request.tables)
    partial = request.to.with_name(f".{request.to.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        written, columns = _write_items(partial, results, tables, request, evidence)
        column_list(columns).to_csv(partial / "columns.csv", index=False)
        about = {"experiment": experiment.name, "format": request.form, "results": written}
        write_json(partial / _MANIFEST, about | {"versions": runtime.versions()})
        replaced = request.to.with_name(f".{request.to.name}.replaced-{os.getpid()}")
        if request.to.exists():
            move(request.to, replaced)
        move(partial, request.to)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(path for path in request.to.rglob("*") if path.is_file())


def _chosen_tables(results: Results, names: Sequence[str]) -> list[TableResult]:
    """The tables of these names, or all."""
    known = {table.name: table.spec.features for table in results.tables}
    unknown = sorted(set(names) - {*known, *known.values()})
    if unknown:
        raise DataError(f"no table {', '.join(unknown)}; the experiment has {', '.join(dict.fromkeys(known.values()))}")
    return [table for table in results.tables if not names or {table.name, table.spec.features} & set(names)]


def _require_current(root: Path, results: Results, tables: Sequence[TableResult]) -> None:
    """Raise ArtifactError unless the survey and all that is known of the tables are as the plan wants them."""
    states = {str(record): state_of(root, record.job).kind for record in _read(results, tables) if record.job}
    wrong = [f"{name} is {kind}" for name, kind in states.items() if kind != "current"]
    if wrong:
        more = f" and {len(wrong) - _N_NAMED} more" if len(wrong) > _N_NAMED else ""
        raise ArtifactError(
            f"{root}: {', '.join(wrong[:_N_NAMED])}{more}; run `sfnetlab run CONFIG` first, or choose others with "
            f"--tables"
        )


def _read(results: Results, tables: Sequence[TableResult]) -> Iterator[Record]:
    """The results that the export reads."""
    yield results.record("prepare-survey")
    for roles in (("features", "saes", "probes"), ("description",)):
        for table in tables:
            yield from (record for role in roles if (record := table.record(role)) is not None)


def _evidence(root: Path, results: Results, tables: Sequence[TableResult], *, is_all: bool) -> list[Record]:
    """The results whose tables are evidence: those of the chosen feature tables, of all of them any that is current."""
    if not is_all:
        return list({record.key: record for record in _read(results, tables)}.values())
    every = [record for stage in STAGES for record in results.records(stage) if record.job is not None]
    current = [record for record in every if record.job and state_of(root, record.job).kind == "current"]
    if len(current) < len(every):
        left_out = [str(record) for record in every if record not in current]
        log.info("left out, for they are not current: %s", first_few(left_out, _N_NAMED))
    return current


def _require_place(request: Request) -> None:
    """Raise ArtifactError unless the folder is new, empty, or an export that may be replaced."""
    to = request.to
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not (to / _MANIFEST).is_file():
        raise ArtifactError(f"{to}: is there and is no export of this lab; choose a new folder with --to")
    if not request.force:
        raise ArtifactError(f"{to}: holds an export already; replace it with --force, or choose another --to")


def _write_items(
    folder: Path, results: Results, tables: Sequence[TableResult], request: Request, evidence: Sequence[Record]
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, About]]]:
    """Write all that is asked for; return which results it is of, by name, and what the columns of its tables mean."""
    form = request.form
    of_tables = (
        chain(feature_items(table, form, wide=request.wide), sae_items(table), prediction_items(table, form))
        for table in tables
    )
    descriptions = (description_items(table, form) for table in tables)
    written: dict[str, dict[str, str]] = {}
    columns: dict[str, dict[str, About]] = {}
    of_survey = catalog_items(results, form, request.cutouts, request.to)
    of_sky = hats_items(results, tables) if request.hats else ()
    for item in chain(of_survey, of_sky, *of_tables, *descriptions, evidence_items(evidence, form)):
        if item.name in written:  # tables of refitted codes share an autoencoder
            continue
        path = folder / item.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if (found := item.write(path)) is not None:
            columns.setdefault(_like(item.name), {}).update(found)
        if item.source is not None:
            written[item.name] = {"made_by": str(item.source), "key": item.source.key}
    return written, columns


def _like(name: str) -> str:
    """The name of a table with a star for that of the feature table: evidence/fit-probes/*/metrics.csv."""
    *folders, file = name.split("/")
    if not folders:
        return file
    return f"{folders[0]}/{folders[1]}/*/{file}" if folders[1:] else f"{folders[0]}/*{Path(file).suffix}"
