"""Writes the folder of an atlas: page, style, script, data and sheets of cutouts."""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sfnetlab.artifacts import RUNNING
from sfnetlab.atlas.content import Atlas, ShownTable
from sfnetlab.atlas.features import ASSOCIATION_NUMBERS, describe_wall, feature_chunks
from sfnetlab.atlas.galaxies import (
    CHUNK,
    SPLITS,
    describe_galaxies,
    galaxy_chunks,
    is_sparse,
    largest_contribution_error,
    text_columns,
)
from sfnetlab.atlas.names import names_template, readable, suggestions_of
from sfnetlab.atlas.packing import finite, write_script
from sfnetlab.atlas.sprites import (
    ACROSS,
    CARDS_ACROSS,
    CARDS_PER_SHEET,
    PER_SHEET,
    write_sheets,
    write_wall,
)
from sfnetlab.methods import TRAITS

MODULES = (
    "data",
    "dom",
    "colour",
    "cutouts",
    "charts",
    "sortable",
    "overview",
    "wall",
    "feature",
    "galaxy",
    "query",
    "main",
)
"""Modules of the script, each after those that it imports."""
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|const) (\w+))", re.MULTILINE)


def write_site(directory: Path, atlas: Atlas, keys: dict[str, str]) -> dict[str, float | int]:
    """Write the atlas into an empty folder.

    Parameters
    ----------
    keys : dict
        Table to the key of its training, for names.toml.

    Returns
    -------
    dict
        Counts, bytes, and by how much contributions miss the network's prediction.
    """
    galaxies = atlas.galaxies
    labels = [str(name) for name in galaxies.labels]
    data = directory / "data"
    write_script(data / "overview.js", "overview", _overview(atlas, labels))
    write_script(data / "galaxies.js", "galaxies", describe_galaxies(atlas))
    for number, chunk in enumerate(galaxy_chunks(atlas)):
        write_script(data / "galaxies" / f"{number}.js", f"galaxies/{number}", chunk)
    if galaxies.images is not None:
        write_sheets(directory / "cutouts", galaxies.images, galaxies.places)
    n_features = 0
    for place, table in enumerate(atlas.tables):
        wall, thumbnails = describe_wall(table, galaxies, labels)
        if galaxies.images is not None:
            cutouts = np.where(thumbnails >= 0, galaxies.places[thumbnails], -1)
            write_wall(directory / "walls" / str(place), galaxies.images, cutouts)
        write_script(data / f"wall{place}.js", f"wall{place}", wall)
        for number, chunk in enumerate(feature_chunks(table, galaxies, labels)):
            write_script(data / f"features{place}" / f"{number}.js", f"features{place}/{number}", chunk)
        n_features += len(table.evidence.features)
    suggested = {table.name: suggestions_of(table.evidence.features) for table in atlas.tables}
    given = {table.name: table.names for table in atlas.tables}
    (directory / "names.toml").write_text(names_template(suggested, keys, given), encoding="utf-8")
    write_page(directory, atlas.experiment)
    errors = [largest_contribution_error(table) for table in atlas.tables if table.head is not None]
    return {
        "n_galaxies": len(galaxies.catalog),
        "n_tables": len(atlas.tables),
        "n_features": n_features,
        "largest_contribution_error": max(errors, default=0.0),
        "bytes": sum(
            path.stat().st_size for path in directory.rglob("*") if path.is_file() and path != directory / RUNNING
        ),
    }


def write_page(directory: Path, experiment: str) -> None:
    """Write index.html, atlas.css and atlas.js."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("sfnetlab.atlas"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("index.html").render(experiment=experiment)
    (directory / "index.html").write_text(page, encoding="utf-8")
    (directory / "atlas.css").write_text(_asset("atlas.css"), encoding="utf-8")
    (directory / "atlas.js").write_text(bundle(), encoding="utf-8")


def bundle() -> str:
    """Return the modules of the script as one classic script, because browsers load no module from disk.

    Each module is a function that returns what it exports.
    """
    parts = []
    for name in MODULES:
        source = _asset(f"{name}.js").strip()
        exported = ", ".join(match[2] for match in _EXPORT.finditer(source))
        body = _EXPORT.sub(r"\1", _IMPORT.sub(r"const \1 = modules.\2;", source))
        parts.append(f"modules.{name} = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();")
    return '"use strict";\n(() => {\nconst modules = {};\n\n' + "\n\n".join(parts) + "\n})();\n"


def _asset(name: str) -> str:
    return (files("sfnetlab.atlas") / "assets" / name).read_text(encoding="utf-8")


def _overview(atlas: Atlas, labels: list[str]) -> dict[str, Any]:
    galaxies = atlas.galaxies
    images, scale = galaxies.images, galaxies.pixel_scale_arcsec
    return {
        "experiment": atlas.experiment,
        "labels": labels,
        "words": [readable(label) for label in labels],
        "texts": text_columns(galaxies),
        "splits": list(SPLITS),
        "galaxies": {
            "n": len(galaxies.catalog),
            "n_test": int(galaxies.is_test.sum()),
            "n_survey": galaxies.n_survey,
            "chunk": CHUNK,
            "field_arcsec": finite(scale * images.shape[1]) if scale is not None and images is not None else None,
            "is_real": galaxies.is_real and {"ra", "dec"} <= set(galaxies.catalog),
        },
        "has_images": images is not None,
        "sheets": {"across": ACROSS, "per_sheet": PER_SHEET},
        "walls": {"across": CARDS_ACROSS, "cards_per_sheet": CARDS_PER_SHEET},
        "associations": list(ASSOCIATION_NUMBERS),
        "tables": [_about(table, galaxies.is_test) for table in atlas.tables],
        "kinds": {
            kind: {"label": traits.label, "colours": list(traits.look.colors)} for kind, traits in TRAITS.items()
        },
        "predictions": [
            {"target": each.target, "column": each.column, "unit": each.unit, "methods": list(each.methods)}
            for each in atlas.predictions
        ],
        "comparison": _rows(atlas.comparison),
        "levels": list(_levels(atlas.comparison)),
        "classes": _rows(atlas.classes),
        "claims": list(atlas.claims),
        "config": atlas.config_toml,
    }


def _about(table: ShownTable, is_test: Any) -> dict[str, Any]:
    return {
        "name": table.name,
        "features": table.spec.features,
        "kind": table.spec.kind,
        "k": table.spec.k,
        "seed": table.spec.seed,
        "n_features": len(table.evidence.features),
        "n_all": table.n_features,
        "n_described": int((is_test & table.of_interest).sum()),
        "is_sparse": is_sparse(table),
        "maps": table.maps.how if table.maps is not None else None,
        "columns": list(table.head.columns) if table.head is not None else [],
        "best": _best(table.evidence.features),
    }


def _levels(comparison: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the errors of controls without a feature, which are drawn as lines."""
    if comparison.empty:
        return
    rows = comparison[comparison["n_features_used"] == 0].drop_duplicates(["target", "column", "features"])
    for row in rows.to_dict("records"):
        traits = TRAITS[row["kind"]]
        if traits.role == "control":
            name = f"predicting the {traits.label}"
            yield {"target": row["target"], "column": row["column"], "name": name, "rmse": finite(row["rmse"])}


def _best(features: pd.DataFrame) -> list[str]:
    """Return the labels that most features follow best, in words."""
    return [readable(label) for label in features["best_label"].value_counts().head(3).index]


def _rows(table: pd.DataFrame) -> dict[str, Any]:
    """Return a small table for a page to sort: column names and rows."""
    rows = [
        [finite(value) if isinstance(value, float) else None if pd.isna(value) else value for value in row]
        for row in table.itertuples(index=False, name=None)
    ]
    return {"columns": [str(name) for name in table.columns], "rows": rows}
