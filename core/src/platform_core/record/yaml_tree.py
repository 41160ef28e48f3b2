"""YAML as trees of plain values: mappings with text keys, lists, texts, numbers, true, false, null.

Every YAML file that a person writes (configs, sweeps, corpora) is read here. Only decimal numbers
are numbers and only true and false are booleans; `yes`, `1:30` and 2024-01-01 are texts. All other
YAML is refused with a message of one line: two values under one key, tags, keys that are no text,
and nesting, sizes and aliases that no config needs.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from platform_core.errors import UsageError

LARGEST_FILE = 2**21
"""Largest size of a file, in bytes."""
DEEPEST = 50
"""Largest number of nested levels."""
MOST_VALUES = 100_000
"""Largest number of values in one file, where each use of an alias counts."""
LONGEST_NUMBER = 300
"""Largest number of characters of a whole number."""

_TAG = "tag:yaml.org,2002:"
_WORDS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    ("merge", r"<<", ["<"]),
)
"""Kinds of unquoted words that are no texts: the tag, the pattern, possible first letters."""


class _Reader(yaml.SafeLoader):
    """A loader that reads nodes, not values, and only knows the words of `_WORDS`."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}
    levels = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Composes the next node; refuses one that is nested too deep."""
        self.levels += 1
        if self.levels > DEEPEST:
            raise _mistake(f"it nests deeper than {DEEPEST} levels", self.peek_event())  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self.levels -= 1
        return node


class _Writer(yaml.SafeDumper):
    """A dumper that quotes exactly those texts that `_Reader` would not read as texts."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}

    def ignore_aliases(self, data: Any) -> bool:
        """Always True: a value that is used twice is written twice."""
        return True


for _name, _pattern, _letters in _WORDS:
    for _class in (_Reader, _Writer):
        _whole = re.compile(f"(?:{_pattern})$")
        _class.add_implicit_resolver(_TAG + _name, _whole, _letters)


def read_tree(path: Path, name: str) -> Any:
    """The values in a YAML file; None if the file is empty.

    Args:
        path: the file.
        name: kind of the file in messages: "config file", "sweep".

    Raises:
        UsageError: the file cannot be read, or is no tree of plain values.
    """
    try:
        if path.is_file() and path.stat().st_size > LARGEST_FILE:
            raise UsageError(f"{name} {path} is larger than {LARGEST_FILE // 2**20} MB")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{name} {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} {path} is not UTF-8 text") from error
    return parse_tree(text, f"{name} {path}")


def parse_tree(text: str, where: str) -> Any:
    """The values in a text of YAML; `where` is the name of the text in messages.

    Raises:
        UsageError: the text is no tree of plain values.
    """
    try:
        reader = _Reader(text)
        try:
            node = reader.get_single_node()
        finally:
            reader.dispose()
        return None if node is None else _Values().of(node, ())
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        said = " ".join(str(error.problem or error.context).split())
        kind = "" if isinstance(error, _Mistake) else " is not YAML"
        raise UsageError(f"{where}{kind}: {line}{said}") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        said = str(error).splitlines()[0]
        raise UsageError(f"{where} is not YAML: {said}") from error


def tree_text(values: object) -> str:
    """Values as YAML, in their order; `parse_tree` reads the same values again."""
    return str(yaml.dump(values, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=100))


def word_value(word: str) -> Any:
    """The number, boolean or null that a word of a command line spells, else the word as a text."""
    for name, pattern, _ in _WORDS[:4]:
        if re.fullmatch(pattern, word):
            return _scalar(name, word)
    return word


class _Values:
    """A converter of nodes to values, which counts the values."""

    def __init__(self) -> None:
        self.number = 0

    def of(self, node: yaml.Node, around: tuple[yaml.Node, ...]) -> Any:
        """The value of a node, given the nodes that enclose it."""
        self.number += 1
        if self.number > MOST_VALUES:
            raise _mistake(f"it holds more than {MOST_VALUES:,} values", node)
        if any(node is other for other in around):
            raise _mistake("it holds itself", node)
        if len(around) > DEEPEST:
            raise _mistake(f"it nests deeper than {DEEPEST} levels", node)
        name = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and name == "map":
            return self._mapping(node, (*around, node))
        if isinstance(node, yaml.SequenceNode) and name == "seq":
            return [self.of(inner, (*around, node)) for inner in node.value]
        if isinstance(node, yaml.ScalarNode) and name in ("null", "bool", "int", "float", "str"):
            return self._plain(node, name)
        raise _mistake(f"the tag {node.tag[:60]!r} is not read here", node)

    def _plain(self, node: yaml.ScalarNode, name: str) -> Any:
        pattern = next((pattern for known, pattern, _ in _WORDS if known == name), r"(?s:.*)")
        if not re.fullmatch(pattern, node.value):
            raise _mistake(f"{node.value[:60]!r} is no {name}", node)
        try:
            return _scalar(name, node.value)
        except ValueError as error:
            raise _mistake(str(error), node) from error

    def _mapping(self, node: yaml.MappingNode, around: tuple[yaml.Node, ...]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                for values in self._merged(value_node, around):
                    merged = {**values, **merged}
                continue
            key = self.of(key_node, around)
            if not isinstance(key, str):
                raise _mistake(f"the key {str(key)[:60]} is no text; put it in quotes", key_node)
            if key in own:
                raise _mistake(f"{key!r} is given twice; leave one out", key_node)
            own[key] = self.of(value_node, around)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, around: tuple[yaml.Node, ...]) -> Iterator[dict[str, Any]]:
        values = self.of(node, around)
        for each in values if isinstance(values, list) else [values]:
            if not isinstance(each, dict):
                raise _mistake("<< takes mappings", node)
            yield each


def _scalar(name: str, text: str) -> Any:
    if name == "null":
        return None
    if name == "bool":
        return text.lower() == "true"
    if name == "int":
        if len(text) > LONGEST_NUMBER:
            raise ValueError(f"a number of {len(text)} digits is too large")
        return int(text)
    if name == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    text.encode()  # raises an error for half a surrogate pair
    return text


class _Mistake(yaml.MarkedYAMLError):
    """An error for valid YAML that is refused here."""


def _mistake(problem: str, place: Any) -> _Mistake:
    """An error about a problem at the beginning of a node or event."""
    return _Mistake(problem=problem, problem_mark=place.start_mark)
