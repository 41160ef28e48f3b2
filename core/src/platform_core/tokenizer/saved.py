"""Tokenizers as JSON, whole: a run needs nothing else to read its own text again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platform_core.errors import UsageError
from platform_core.tokenizer.base import Tokenizer
from platform_core.tokenizer.character import CharacterTokenizer
from platform_core.tokenizer.library import ByteLevelTokenizer, SubwordTokenizer
from platform_core.tokenizer.opaque import OpaqueTokenizer

Kind = type[CharacterTokenizer | ByteLevelTokenizer | SubwordTokenizer | OpaqueTokenizer]

KINDS: Mapping[str, Kind] = {
    kind.kind: kind
    for kind in (CharacterTokenizer, ByteLevelTokenizer, SubwordTokenizer, OpaqueTokenizer)
}


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer that a run or `platform tokenizer train` saved as JSON.

    Raises:
        UsageError: there is none, or none that this version can read.
    """
    try:
        return tokenizer_from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"cannot read the tokenizer {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no tokenizer of this platform: {error!r}") from error


def tokenizer_from_dict(values: Mapping[str, Any]) -> Tokenizer:
    """The inverse of `Tokenizer.to_dict`, whatever its kind."""
    return KINDS[values["kind"]].from_dict(values)
