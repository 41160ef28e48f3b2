"""Tokenizers as complete JSON: a run needs nothing else to read its own text again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platform_core.data.tokenizer.base import Tokenizer
from platform_core.errors import UsageError
from platform_core.registry.loading import installed


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer that a run or `platform tokenizer train` saved as JSON.

    Raises:
        UsageError: there is no tokenizer, this version cannot read it, or no installed plugin
            brings its kind.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind = str(values["kind"])
    except OSError as error:
        raise UsageError(f"cannot read the tokenizer {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no tokenizer of this platform: {error!r}") from error
    try:
        return tokenizer_from_dict(values)
    except UsageError:
        raise UsageError(
            f"{path} is no tokenizer that can be read here: no plugin brings the kind {kind}; "
            "`platform plugins` lists the kinds"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no tokenizer of this platform: {error!r}") from error


def tokenizer_from_dict(values: Mapping[str, Any]) -> Tokenizer:
    """The inverse of `Tokenizer.to_dict`, whatever its kind.

    Raises:
        UsageError: no plugin brings that kind.
    """
    kind: type[Tokenizer] = installed().load("tokenizer", str(values["kind"]))
    return kind.from_dict(values)
