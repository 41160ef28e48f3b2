"""Files: written as a whole or not at all, and known by their digest."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Writes a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes plain values as JSON, as a whole or not at all."""
    write_text(path, json_text(values) + "\n")


def json_text(values: Mapping[str, Any]) -> str:
    """Plain values as JSON; what is no finite number is null there."""
    return json.dumps(_finite(values), indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest_of(values: object) -> str:
    """SHA-256 of plain values, whatever the order of their keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
