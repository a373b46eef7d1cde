"""TOML text to the frozen dataclasses of schema.py and back; every problem at once, each with its line.

The settings, their defaults and their rules stand in schema.py alone; what is here follows its type hints.
"""

import ast
import difflib
import inspect
import json
import re
import shlex
import sys
import textwrap
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tomli

from sfnetlab import schema
from sfnetlab.errors import ConfigError
from sfnetlab.files import expanded, unexpanded
from sfnetlab.settings import Choices, is_place

KeyPath = tuple[str | int, ...]
"""Way from the root of a TOML document to a value: keys of tables, indices of arrays."""


def load(path: Path, overrides: Sequence[str] = ()) -> schema.Experiment:
    """Read an experiment, apply `KEY=TOMLVALUE` overrides in order, and check all of it against the schema.

    An element of an array of tables is addressed by its name or its index: `features.sae.k=[8]`, `features.1.k=[8]`.

    Raises
    ------
    ConfigError
        One line a problem, sorted by line: `file:line: key: what was expected, what was found`, with
        `--set KEY` for `file:line` where an override is at fault. Rules between tables are checked when
        every table is right by itself.
    """
    text = _read_text(path)
    try:
        loading = _Loading(str(path), text, tomli.loads(text))
    except ValueError as error:
        raise ConfigError(_syntax_problem(path, text, str(error))) from None
    for override in overrides:
        _apply(override, loading)
    experiment = _read(schema.Experiment, loading.tree, (), loading)
    if loading.problems:
        raise ConfigError("\n".join(problem for _, problem in sorted(loading.problems, key=lambda found: found[0])))
    return experiment


def line_of(text: str, path: KeyPath) -> int:
    """Line (from 1) on which the statement begins that first gives a valid TOML text the value at `path`.

    A path that is not in the text counts as its nearest parent that is; the root is line 1. The TOML
    parser itself decides what a statement is: the line sought is the smallest n such that the first n
    lines, completed to the end of the statement they break off in, hold the path.
    """
    lines = text.replace("\r\n", "\n").split("\n")

    def holds(n: int) -> bool:
        for end in range(n, len(lines) + 1):
            try:
                return _contains(tomli.loads("\n".join(lines[:end])), path)
            except tomli.TOMLDecodeError:
                continue
        raise ValueError("text is not valid TOML")

    while path and not holds(len(lines)):
        path = path[:-1]
    return bisect_left(range(len(lines)), True, lo=1, key=holds) if path else 1


def as_toml(experiment: schema.Experiment) -> str:
    """Return the experiment as TOML with every setting, which `load` reads back to an equal experiment."""
    comment = "# Resolved by sfnetlab: every setting, defaults and --set included."
    return "\n".join([comment, *_table_lines(experiment, ()), ""])


def describe_schema() -> str:
    """Return a text of every setting with type, default and meaning, by table, at most 100 columns wide."""
    blocks = [_describe(schema.Experiment, "At the top of the file")]
    hints = get_type_hints(schema.Experiment)
    for each in fields(schema.Experiment):
        heading, table = f"[{each.name}]", hints[each.name]
        if get_origin(table) is dict:
            heading, table = f"[{each.name}.<name>]", get_args(table)[1]
        elif get_origin(table) is tuple:
            heading, table = f"[[{each.name}]]", get_args(table)[0]
        members = [member for member in _alternatives(table) if is_dataclass(member)]
        for member in members:
            kind = f" kind = {_toml(_kind_of(member))}" if len(members) > 1 else ""
            default = "      (the default)" if kind and isinstance(each.default, member) else ""
            blocks.append(_describe(member, heading + kind + default))
    return "\n\n".join(blocks)


@dataclass
class _Loading:
    """One `load` under way: the text, the tree that overrides change, what they changed, and the problems so far."""

    file: str
    text: str
    tree: dict[str, Any]
    overridden: list[tuple[KeyPath, str]] = field(default_factory=list)
    problems: list[tuple[tuple[int, int], str]] = field(default_factory=list)

    def report(self, path: KeyPath, message: str, at: KeyPath | None = None) -> None:
        """Add a problem of the value at `path`, placed where `at` (usually the same) was written."""
        at = path if at is None else at
        while not _contains(self.tree, at):  # a missing key has the place of its table
            at = at[:-1]
        in_file = _contains(tomli.loads(self.text), at)
        owners = [
            number
            for number, (changed, _) in enumerate(self.overridden)
            if at[: len(changed)] == changed or (not in_file and changed[: len(at)] == at)
        ]
        key = _dotted(path, self.tree)
        if owners:
            changed, override = self.overridden[owners[-1]]
            order, place = (1, owners[-1]), f"--set {override}"
            key = "" if changed == path else key
        else:
            line = line_of(self.text, at)
            order, place = (0, line), f"{self.file}:{line}"
        self.problems.append((order, ": ".join(filter(None, (place, key, message)))))

    def report_override(self, override: str, message: str) -> None:
        """Add a problem of an override that could not be applied."""
        self.problems.append(((1, len(self.overridden)), f"--set {override}: {message}"))


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, expected the TOML file of an experiment") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a directory, expected the TOML file of an experiment") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: expected UTF-8 text, got byte 0x{raw[error.start]:02x}") from None


def _syntax_problem(path: Path, text: str, said: str) -> str:
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", said, re.DOTALL)
    if found is None:
        return f"{path}: not valid TOML: {said}"
    message, line, column = found.groups()
    place = f"column {column}" if column else "at the end of the file"
    return f"{path}:{line or text.rstrip().count(chr(10)) + 1}: not valid TOML: {message} ({place})"


def _apply(override: str, loading: _Loading) -> None:
    """Write one `KEY=TOMLVALUE` into the tree, creating tables that are absent."""
    key, equals, written = (part.strip() for part in override.partition("="))
    names = _keys_of(key)
    if not equals or not names:
        loading.report_override(override, "expected KEY=TOMLVALUE with a dotted KEY, such as training.epochs=5")
        return
    try:
        (value,) = tomli.loads(f"value = {written}").values()
    except ValueError:
        quoted = shlex.quote(f"{key}={_toml(written)}")
        loading.report_override(
            key,
            f"expected a TOML value, got {written or 'nothing'}; text needs quotes (--set {quoted}), "
            "an array brackets, true and false are lower case",
        )
        return
    node: Any = loading.tree
    path: KeyPath = ()
    for name in names:
        step = _step(node, name)
        if step is None and isinstance(node, dict):
            node[name] = {}
            step = name
        if step is None:
            problem = "is not a table"
            if isinstance(node, list):
                known = [repr(element) for element in map(_name_of, node) if element is not None]
                problem = f"no element {name!r}, expected {', '.join([*known, f'an index below {len(node)}'])}"
            loading.report_override(key, f"{_dotted(path, loading.tree)}: {problem}")
            return
        path = (*path, step)
        if len(path) == len(names):
            node[step] = value
        node = node[step]
    loading.overridden.append((path, key))


def _keys_of(dotted: str) -> list[str]:
    """Parts of a dotted TOML key, as the TOML parser splits and unquotes them; none where it is not a key."""
    names: list[str] = []
    try:
        node: Any = tomli.loads(f"{dotted} = 0")
    except tomli.TOMLDecodeError:
        return names
    while isinstance(node, dict) and node:
        ((name, node),) = node.items()
        names.append(name)
    return names


def _step(node: Any, name: str) -> str | int | None:
    """Key or index of the child of a table or array that is called `name`, None where there is none."""
    if isinstance(node, dict):
        return name if name in node else None
    if isinstance(node, list):
        names = [_name_of(element) for element in node]
        if name in names:
            return names.index(name)
        if name.isdecimal() and int(name) < len(node):
            return int(name)
    return None


def _name_of(element: Any) -> str | None:
    """Name of an element of [[features]]: the one it states, else the default of its kind."""
    if not isinstance(element, dict):
        return None
    name = element.get("name")
    for member in get_args(schema.Features):
        if "name" not in element and element.get("kind") == _kind_of(member):
            (name,) = (each.default for each in fields(member) if each.name == "name")
    return name if isinstance(name, str) else None


def _read(hint: Any, value: Any, path: KeyPath, loading: _Loading) -> Any:
    """The TOML value as `hint` wants it; after a reported problem the result has no meaning."""
    members = _alternatives(hint)
    if len(members) > 1 and is_dataclass(members[0]):
        return _read_alternative(members, value, path, loading)
    if len(members) > 1:
        if type(value) not in members:
            loading.report(path, f"expected {_spelt(hint)}, got {_shown(value)}")
        return value
    hint = members[0]
    origin, arguments = get_origin(hint), get_args(hint)
    expected, got = _spelt(hint), _shown(value)
    if is_dataclass(hint):
        if isinstance(value, dict):
            return _read_table(hint, value, path, loading)
    elif origin is dict:
        if isinstance(value, dict):
            return {name: _read(arguments[1], item, (*path, name), loading) for name, item in value.items()}
    elif origin is tuple:
        if isinstance(value, list):
            return tuple(_read(arguments[0], item, (*path, n), loading) for n, item in enumerate(value))
        if expected == "array of tables":
            got += f"; write [[{_dotted(path, loading.tree)}]]" if isinstance(value, dict) else ""
        elif not isinstance(value, dict):
            got += " without brackets"
    elif choices := _choices(hint):
        if value in choices:
            return value
    elif hint is float and type(value) in (int, float):
        if abs(value) <= sys.float_info.max:
            return float(value)
        expected = "finite float"
    elif isinstance(value, str) and (hint is Path or (hint is str and is_place(str(path[-1]), value))):
        try:
            if value:
                return hint(expanded(value))
        except ValueError as error:
            loading.report(path, str(error))
            return None
    elif type(value) is hint:
        return value
    loading.report(path, f"expected {expected}, got {got}")
    return None


def _read_alternative(members: Sequence[Any], value: Any, path: KeyPath, loading: _Loading) -> Any:
    """A table as the dataclass of its `kind`."""
    kinds = {_kind_of(member): member for member in members}
    expected = f"expected one of {', '.join(map(repr, kinds))}"
    if not isinstance(value, dict):
        loading.report(path, f"expected table, got {_shown(value)}")
    elif "kind" not in value:
        loading.report((*path, "kind"), f"missing, {expected}")
    elif not isinstance(value["kind"], str) or value["kind"] not in kinds:
        loading.report((*path, "kind"), f"{expected}, got {_shown(value['kind'])}")
    else:
        return _read_table(kinds[value["kind"]], value, path, loading)
    return None


def _read_table(cls: Any, table: dict[str, Any], path: KeyPath, loading: _Loading) -> Any:
    n_before = len(loading.problems)
    hints = _hints(cls)
    settings: dict[str, Any] = {}
    for key, value in table.items():
        if key in hints:
            hint = _default_kind(cls, key, value) or hints[key]
            settings[key] = _read(hint, value, (*path, key), loading)
            continue
        near = difflib.get_close_matches(key, hints, n=1)
        advice = f", did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(hints)}"
        if cls is schema.Experiment and key in schema.FORMER_TABLES:
            advice = f"; write [{schema.FORMER_TABLES[key]}.<name>]"
        loading.report((*path, key), f"unknown key{advice}")
    for each in fields(cls):
        if each.default is each.default_factory is MISSING and each.name not in table:
            loading.report((*path, each.name), "missing")
    if len(loading.problems) > n_before:
        return None
    try:
        return cls(**settings)
    except ValueError as error:
        loading.report(path, str(error), at=_blamed(str(error), table, path))
    return None


def _default_kind(cls: Any, key: str, value: Any) -> Any:
    """The kind of a table that names none: that of the default, if each of its keys is a setting of it; else None."""
    (default,) = (each.default for each in fields(cls) if each.name == key)
    if not (isinstance(value, dict) and "kind" not in value and is_dataclass(default)):
        return None
    return type(default) if set(value) <= set(_hints(type(default))) else None


def _blamed(message: str, table: dict[str, Any], path: KeyPath) -> KeyPath:
    """The key that a rule's message begins with (`k must`, `features 'sae': on must`), else its table."""
    node: Any = table
    for word in re.findall(r"[\w.-]+", message)[:3]:
        step = _step(node, word)
        if step is None:
            break
        path, node = (*path, step), node[step]
    return path


def _hints(cls: Any) -> dict[str, Any]:
    """The types of a dataclass's settings by name; what belongs to its class is no setting."""
    hints = get_type_hints(cls, include_extras=True)
    return {each.name: hints[each.name] for each in fields(cls)}


def _contains(tree: Any, path: KeyPath) -> bool:
    try:
        for step in path:
            tree = tree[step]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def _dotted(path: KeyPath, tree: Any) -> str:
    """A path as people write it: `features.sae.k`, and `features[1].k` where the element has no name."""
    dotted = ""
    for step in path:
        if isinstance(step, int):
            tree = tree[step]
            name = _name_of(tree)
        else:
            tree = tree.get(step)
            name = step
        dotted += f"[{step}]" if name is None else f".{_toml_key(name)}"
    return dotted.removeprefix(".")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Members of a union without None, for TOML has no null: an optional setting is left out."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(member for member in members if member is not NoneType)


def _choices(hint: Any) -> tuple[Any, ...]:
    """The only values that a setting may have, by a Literal or by `Choices`; empty where there is no such list."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) is Annotated:
        (choices,) = (about for about in get_args(hint) if isinstance(about, Choices))
        return choices.values
    return ()


def _kind_of(cls: Any) -> str:
    return get_args(get_type_hints(cls)["kind"])[0]


def _spelt(hint: Any) -> str:
    """A type in the words of someone who writes TOML."""
    members = _alternatives(hint)
    member = members[0]
    if is_dataclass(member) or get_origin(member) is dict:
        return "table"
    if len(members) > 1:
        return " or ".join(map(_spelt, members))
    if choices := _choices(member):
        return "one of " + ", ".join(map(repr, choices))
    if get_origin(member) is tuple:
        inner = _spelt(get_args(member)[0]).removeprefix("one of ")
        return f"array of {inner}{'s' if inner == 'table' else ''}"
    return "path" if member is Path else member.__name__


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    shown = str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, str) else str(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _toml(value: Any) -> str:
    """A scalar or an array of scalars as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | Path):
        # JSON's escapes are TOML's but for DEL, which TOML wants escaped and JSON leaves.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _table_lines(table: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Lines of a dataclass below its heading; its own settings first, for TOML ends a table at the next heading."""
    nested: list[tuple[str, str, Any]] = []
    for each in fields(table):
        value = getattr(table, each.name)
        if value is None:
            yield f"# {each.name} is not set"
        elif is_dataclass(value):
            nested.append(("[{}]", each.name, value))
        elif isinstance(value, Mapping):
            nested += [("[{}]", f"{each.name}.{_toml_key(name)}", item) for name, item in value.items()]
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            nested += [("[[{}]]", each.name, item) for item in value]
        else:
            yield f"{each.name} = {_toml(unexpanded(str(value)) if is_place(each.name, value) else value)}"
    for heading, key, item in nested:
        yield from ("", heading.format(".".join((*path, key))), *_table_lines(item, (*path, key)))


def _describe(cls: Any, heading: str) -> str:
    """One table: heading, class docstring, then each setting with its type, default and meaning."""

    def wrapped(text: str, first: str, rest: str) -> list[str]:
        return textwrap.wrap(text, 98, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)

    docs, hints = _field_docs(cls), _hints(cls)
    lines = [heading, *wrapped(inspect.cleandoc(cls.__doc__ or ""), "# ", "# ")]
    for each in sorted(
        fields(cls), key=lambda each: each.name not in cls.__annotations__
    ):  # what kinds share comes last
        kind_of_value = _spelt(hints[each.name])
        if each.name == "kind" or kind_of_value in ("table", "array of tables"):
            continue
        need = "required" if each.default is MISSING else "optional"
        default = need if each.default in (MISSING, None) else f"default {_toml(each.default)}"
        lines += wrapped(f"{each.name}: {kind_of_value}; {default}", "  ", "      ")
        lines += wrapped(docs[each.name], "      ", "      ")
    return "\n".join(lines)


def _field_docs(cls: type) -> dict[str, str]:
    """The string below each field of a dataclass and of those that it inherits from; Python itself does not keep it."""
    docs = {name: text for base in cls.__bases__ if is_dataclass(base) for name, text in _field_docs(base).items()}
    (definition,) = (node for node in ast.parse(inspect.getsource(cls)).body if isinstance(node, ast.ClassDef))
    for pair in pairwise(definition.body):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = " ".join(text.split())
            case _:
                pass
    return docs
