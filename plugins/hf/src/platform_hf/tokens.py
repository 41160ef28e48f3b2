"""Whose tokens the rows of pretrained weights are for.

Row i of an embedding is the token with id i of the tokenizer beside the weights. A run whose
tokenizer has another token there would start from rows that mean something else.
"""

from collections.abc import Mapping
from pathlib import Path

from platform_core.data.tokenizer.files import LibraryFiles
from platform_core.data.tokenizer.sources import is_of_library, library_files, vocabulary
from platform_core.errors import UsageError


def tokenizer_beside(folder: Path) -> LibraryFiles | None:
    """The tokenizer in a folder of weights; None where there is none.

    Raises:
        UsageError: there is one, but it is damaged.
    """
    return library_files(str(folder)) if is_of_library(folder) else None


def require_same(source: str, files: LibraryFiles, own: Mapping[str, int] | None) -> None:
    """Check that every token of a run's tokenizer has the id that it has beside the weights.

    The run's tokenizer may have fewer tokens, or more behind those of the weights.

    Raises:
        UsageError: a token differs.
    """
    if difference := first_difference(vocabulary(files), own):
        raise UsageError(
            f"the weights of {source} are for the tokens of its own tokenizer, and the run's "
            f"tokenizer has others ({difference}); give --data.tokenizer {source}, or "
            "--backbone.other_tokenizer true to start from these rows nevertheless"
        )


def first_difference(theirs: Mapping[str, int], own: Mapping[str, int] | None) -> str:
    """The first id under which two tokenizers have different tokens, in words; empty if none."""
    if own is None:
        return "it is none of the tokenizers library"
    ours = {i: token for token, i in own.items()}
    for token, i in sorted(theirs.items(), key=lambda item: item[1]):
        if i in ours and ours[i] != token:
            return f"id {i} is {token[:30]!r} there and {ours[i][:30]!r} here"
    if known := sorted(i for i, token in ours.items() if theirs.get(token, i) != i):
        return f"{ours[known[0]][:30]!r} has id {theirs[ours[known[0]]]} there and {known[0]} here"
    return ""


def mask_row(files: LibraryFiles | None) -> int | None:
    """The id of the mask that the tokenizer of the weights has; None where it has none."""
    if files is None or "mask_token" not in files.special:
        return None
    return vocabulary(files).get(files.special["mask_token"])
