"""A tokenizer.json of the tokenizers library, and what other files beside it say of its tokens.

    tokenizer.json             how text is cut; the vocabulary
    tokenizer_config.json      which tokens begin, end and fill up texts, and which is the mask
    special_tokens_map.json    the same in older folders

tokenizer.json is read as it is. The classes of transformers are not asked, because some of their
versions (5.3 to 5.15) make another tokenizer of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platform_core.errors import UsageError
from platform_core.foreign import read_object

ROLES = ("bos_token", "eos_token", "cls_token", "sep_token", "pad_token", "mask_token")

USUAL = {
    "eos_token": ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|eos|>", "[EOS]"),
    "sep_token": ("[SEP]",),
    "bos_token": ("<s>", "<|begin_of_text|>", "<bos>", "<|bos|>", "[BOS]"),
    "cls_token": ("[CLS]",),
    "pad_token": ("<pad>", "[PAD]", "<|pad|>"),
    "mask_token": ("[MASK]", "<mask>", "<|mask|>"),
}
"""Usual names of special tokens, for a tokenizer.json without files beside it that name them."""


@dataclass(frozen=True)
class LibraryFiles:
    """A tokenizer of the tokenizers library, and its special tokens.

    Args:
        source: where it is from, for messages.
        model: the library's JSON.
        special: role (one of `ROLES`) -> token; roles without a token are left out.
    """

    source: str
    model: Mapping[str, Any]
    special: Mapping[str, str]

    def added(self) -> list[str]:
        """The special tokens in the vocabulary, in its order."""
        return [token["content"] for token in self.model["added_tokens"] if token["special"]]


def read_files(file: Path) -> LibraryFiles:
    """The tokenizer of a tokenizer.json and of the files beside it.

    Raises:
        UsageError: one of the files is damaged, or tokenizer.json is none of the library.
    """
    model = read_object(file)
    if not isinstance(model.get("model"), dict):
        raise UsageError(f"{file} is no tokenizer.json of the tokenizers library: it has no model")
    beside = file.with_name("tokenizer_config.json")
    older = file.with_name("special_tokens_map.json")
    config = read_object(beside) if beside.is_file() else {}
    told = {**(read_object(older) if older.is_file() else {}), **config}
    model["added_tokens"] = _added(model, config, file)
    special = {role: token for role in ROLES if (token := _content(told.get(role)))}
    if not told.keys() & set(ROLES):
        names = {token["content"] for token in model["added_tokens"] if token["special"]}
        usual = {
            role: next((t for t in tokens if t in names), "") for role, tokens in USUAL.items()
        }
        special = {role: token for role, token in usual.items() if token}
    return LibraryFiles(str(file), model, special)


def _content(token: object) -> str:
    """A token that tokenizer_config.json writes as text, or as an object with its content."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _added(model: Mapping[str, Any], config: Mapping[str, Any], file: Path) -> list[Any]:
    """The added tokens of tokenizer.json, and those that only tokenizer_config.json has."""
    added = model.get("added_tokens") or []
    if not isinstance(added, list) or not all(_is_token(token) for token in added):
        raise UsageError(f"{file} is damaged: its added_tokens are no tokens")
    there = {token["content"] for token in added}
    decoder = config.get("added_tokens_decoder")
    numbered = decoder.items() if isinstance(decoder, dict) else ()
    more = [
        {**NEW_TOKEN, **token, "id": int(number)}
        for number, token in numbered
        if number.isdecimal()
        and len(number) < 10
        and _content(token)
        and token["content"] not in there
    ]
    return [*added, *sorted(more, key=lambda token: token["id"])]


NEW_TOKEN = {
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": False,
}


def _is_token(token: object) -> bool:
    return (
        isinstance(token, dict)
        and isinstance(token.get("content"), str)
        and isinstance(token.get("special"), bool)
    )
