"""What features are called: a suggestion from their associations, and the names and notes that the user gives them.

The user's `names.toml` is only ever read. The atlas holds one to start from, with suggestions as comments.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tomli

from sfnetlab.errors import DataError

CLEAR_RHO = 0.2
"""Below this |rho| a label does not name a feature."""
KEY_DIGITS = 12
"""Digits of a table's key that names.toml holds, to know the training that names were given to."""
_DECORATION = re.compile(r"^factor_|_fraction$|_p50$")
_WORDS = {
    "z": "redshift",
    "oh_p50": "metallicity",
    "oh_p50_visible": "visible metallicity",
    "lgm_tot_p50": "stellar mass",
    "sfr_tot_p50": "star formation rate",
    "h_alpha_flux": "Hα flux",
    "h_beta_flux": "Hβ flux",
    "nii_6584_flux": "[N II] flux",
    "oiii_5007_flux": "[O III] flux",
    "log_Ha": "log Hα",
    "log_Hb": "log Hβ",
    "log_N2": "log [N II]",
    "log_O3": "log [O III]",
    "factor_disc_gr": "disc g−r",
    "factor_bulge_gr": "bulge g−r",
    "factor_companion_gr": "companion g−r",
}
"""Columns whose names say little; other names are read as they stand."""


@dataclass(frozen=True)
class GivenName:
    """What the user calls a feature; `is_old` if the table was another one when the name was given."""

    name: str
    note: str
    is_old: bool


GivenNames = dict[str, dict[int, GivenName]]
"""Names by table and feature."""


def suggest_name(label: str | None, rho: float, morphology: str | None, morphology_rho: float) -> str:
    """Return a name from the label that a feature follows best and its best morphology label; or "no clear label"."""
    known = [(text, r) for text, r in ((label, rho), (morphology, morphology_rho)) if text and abs(r) >= CLEAR_RHO]
    words = dict.fromkeys(f"{'high' if r > 0 else 'low'} {readable(text)}" for text, r in known)
    return ", ".join(words) or "no clear label"


def readable(label: str) -> str:
    """Return a column's name in words: "factor_bulge_to_total" is "bulge to total"; "modelMag_r" stays as it is."""
    if label in _WORDS:
        return _WORDS[label]
    if any(letter.isupper() for letter in label):
        return label
    return _DECORATION.sub("", label).replace("_", " ").replace("-", " ").strip() or label


def read_names(path: Path, keys: Mapping[str, str]) -> GivenNames:
    """Return the names and notes in the user's file, for the tables of the atlas.

    Parameters
    ----------
    path : Path
        TOML: a table for each feature, `["sae-k4-seed0".17]` with `name` and `note`, both optional; in the table above
        it `key`, which says to which training the names were given.
    keys : mapping
        Table of the atlas to its key. Names for other tables are left alone.

    Raises
    ------
    DataError
        If the file is missing or not such a table.
    """
    try:
        tree = tomli.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path}: not found; [atlas] names says that your names of features are there. Copy names.toml out of an "
            f"atlas to there, or leave the setting out"
        ) from None
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
        raise DataError(f"{path}: cannot be read as TOML: {error}") from None
    given: GivenNames = {}
    for table, key in keys.items():
        section = tree.get(table, {})
        where = f"{path}: [{table}]"
        if not isinstance(section, dict):
            raise DataError(f"{where}: expected a table of features, found {section!r}")
        old_key = section.get("key", "")
        is_old = bool(old_key) and not key.startswith(str(old_key))
        given[table] = {
            _feature_number(name, where): _given_name(entry, f"{path}: [{table}.{name}]", is_old)
            for name, entry in section.items()
            if name != "key"
        }
    return given


def names_template(suggestions: Mapping[str, Mapping[int, str]], keys: Mapping[str, str], given: GivenNames) -> str:
    """Return the text of a names.toml with what is given, and suggestions as comments for the rest."""
    lines = [
        "# Names and notes of features, shown in the atlas.",
        "# Copy this file beside your configuration, uncomment and change what you like, and say in the configuration",
        "#   [atlas]",
        '#   names = "<path of your copy>"',
        "# It is read at every build and never written.",
    ]
    for table, suggested in suggestions.items():
        quoted = _quoted(table)
        lines += ["", f"[{quoted}]", f"key = {_quoted(keys[table][:KEY_DIGITS])}"]
        for feature, name in suggested.items():
            known = given.get(table, {}).get(feature)
            if known is None:
                lines += [f"# [{quoted}.{feature}]", f"# name = {_quoted(name)}", '# note = ""']
            else:
                lines += [f"[{quoted}.{feature}]", f"name = {_quoted(known.name)}", f"note = {_quoted(known.note)}"]
    return "\n".join(lines) + "\n"


def suggestions_of(features: pd.DataFrame) -> dict[int, str]:
    """Return a suggested name for each feature of a `features.parquet`, by its number."""
    has_morphology = "morphology" in features
    return {
        int(row["feature"]): suggest_name(
            _text(row["best_label"]),
            row["rho"],
            _text(row["morphology"]) if has_morphology else None,
            row["morphology_rho"] if has_morphology else 0.0,
        )
        for row in features.to_dict("records")
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _feature_number(name: str, where: str) -> int:
    if not name.isascii() or not name.isdigit():
        raise DataError(f"{where}: expected the numbers of features, found {name!r}")
    return int(name)


def _given_name(entry: Any, where: str, is_old: bool) -> GivenName:
    if not isinstance(entry, dict):
        raise DataError(f'{where}: expected a table with "name" and "note", found {entry!r}')
    unknown = sorted(set(entry) - {"name", "note"})
    if unknown:
        raise DataError(f'{where}: unknown key {unknown[0]!r}; expected "name" and "note"')
    for key, value in entry.items():
        if not isinstance(value, str):
            raise DataError(f"{where}: {key}: expected text, found {value!r}")
    return GivenName(entry.get("name", ""), entry.get("note", ""), is_old)


def _quoted(text: str) -> str:
    """Return a TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'
