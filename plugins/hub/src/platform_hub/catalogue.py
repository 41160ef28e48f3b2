"""The catalogue: named corpora of the Hugging Face hub, one small YAML file each.

    path: Salesforce/wikitext       a name on the hub, or a folder
    config: wikitext-2-raw-v1       one of several configs that the hub has under that name
    revision: main                  revision on the hub
    files: {train: a/*.parquet}     files on the hub, where they are not found by their names
    splits: {train: train[100:], validation: train[:100], test: test}      in notation of datasets
    column: text
    detokenizer: wikitext           one of `detokenizers`
    packing: packed                 unless --data.packing says otherwise
    marks: documents                unless --data.marks says otherwise

Only `path` is required. Without `splits`, the corpus's own splits are read, and missing splits are
held out of its training text, see `corpus`. The package's files are in `corpora/`, further files in
the directory that PLATFORM_CORPORA names; --data.corpus takes the name of a file without .yaml, or
its path.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from platform_core.composition.options import MARKS, PACKINGS, SPLITS
from platform_core.errors import UsageError, did_you_mean, either
from platform_core.record.yaml_tree import read_tree
from platform_hub.detokenizers import DETOKENIZERS


@dataclass(frozen=True)
class Entry:
    """One corpus as described by its file."""

    name: str
    path: str
    config: str | None = None
    revision: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    column: str = "text"
    detokenizer: str | None = None
    packing: str = "packed"
    marks: str = "documents"


def read(file: Path) -> Entry:
    """Read the entry in a file.

    Raises:
        UsageError: the file cannot be read, or has keys or values that no entry can have.
    """
    content = read_tree(file, "corpus")
    if not isinstance(content, dict) or not isinstance(content.get("path"), str):
        raise UsageError(
            f"corpus {file} has no path; it needs one line at least: path: NAME/ON-THE-HUB"
        )
    for key, value in content.items():
        _check(key, value, f"corpus {file}")
    return Entry(file.stem, **content)


def _check(key: Any, value: Any, where: str) -> None:
    known = [field.name for field in fields(Entry) if field.name != "name"]
    if key not in known:
        near = did_you_mean(str(key), known) or f"; known: {', '.join(known)}"
        raise UsageError(f"{where}: unknown key {key!r}{near}")
    if key in ("files", "splits"):
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise UsageError(f"{where}: {key} is {value!r}; it must be a text for each split")
        allowed: Iterable[str] = SPLITS
        value = next((name for name in value if name not in SPLITS), SPLITS[0])
    elif not isinstance(value, str):
        raise UsageError(f"{where}: {key} is {value!r}; it must be a text")
    else:
        choices: Mapping[str, Iterable[str]] = {
            "detokenizer": DETOKENIZERS,
            "packing": PACKINGS,
            "marks": MARKS,
        }
        allowed = choices.get(key, (value,))
    if value not in allowed:
        raise UsageError(
            f"{where}: {key} has {value!r}; it must be {either([*allowed])}"
            f"{did_you_mean(value, allowed)}"
        )
