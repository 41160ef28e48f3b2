"""Tokenizers that `--data.tokenizer` can name: names, kinds of plugins, files, folders, models."""

import json
import os
from pathlib import Path
from typing import NoReturn

from platform_core.data.tokenizer.base import Tokenizer
from platform_core.data.tokenizer.character import TEXT8, CharacterTokenizer
from platform_core.data.tokenizer.files import ROLES, LibraryFiles, read_files
from platform_core.data.tokenizer.library import LibraryTokenizer, read_library, tokenizer_of
from platform_core.data.tokenizer.saved import load_tokenizer
from platform_core.data.tokenizer.training import byte_pairs_of_files
from platform_core.errors import UsageError, did_you_mean
from platform_core.foreign import read_object
from platform_core.registry.loading import installed

CHARACTERS = "characters"
"""Name of the tokenizer of every character of the corpus, which `data` makes."""

NAMED = {"text8": lambda: CharacterTokenizer(TEXT8)}

POSSIBLE = (
    "a tokenizer is characters, text8, a kind that a plugin brings, a tokenizer.json of `platform "
    "tokenizer train`, of a run or of transformers, a folder with it or with vocab.json and "
    "merges.txt, or a name or folder of transformers"
)

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""The files of a repository that describe a tokenizer of the tokenizers library."""


def open_tokenizer(name: str, *, end_token: str | None = None, needs_end: bool = True) -> Tokenizer:
    """The tokenizer of a name, file or folder.

    Args:
        name: as `--data.tokenizer` takes it.
        end_token: the token that ends a text, for a tokenizer of transformers.
        needs_end: whether a tokenizer of transformers without a token that ends a text is refused.

    Raises:
        UsageError: there is no such tokenizer, or it cannot be read.
    """
    path = Path(name).expanduser()
    if name not in NAMED and (is_of_library(path) or not path.exists() and _is_hub_name(name)):
        return _tokenizer(library_files(name), end_token, needs_end=needs_end)
    if end_token is not None:
        raise UsageError(
            f"--data.end_token is for tokenizers of transformers, and {name} says itself what ends "
            "a text; leave it out"
        )
    if name in NAMED:
        return NAMED[name]()
    if path.is_file():
        return load_tokenizer(path)
    if path.is_dir():
        return _of_folder(path)
    return _refuse(name)


def is_of_library(path: Path) -> bool:
    """Whether a path is a tokenizer of the library transformers: its folder or tokenizer.json."""
    if path.is_file():
        return path.suffix == ".json" and not _is_ours(path) and _has_model(path)
    whole = path / "tokenizer.json"
    if _is_ours(whole):
        return False
    return whole.is_file() or (path / "tokenizer_config.json").is_file()


def library_files(name: str) -> LibraryFiles:
    """The tokenizer of a folder or tokenizer.json of transformers, or of a repository of the hub.

    tokenizer.json is read as it is; transformers itself makes the tokenizer only where there is
    none.

    Raises:
        UsageError: there is none that can be read.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return read_files(path)
    file = (path if path.is_dir() else _downloaded(name)) / "tokenizer.json"
    return read_files(file) if file.is_file() else read_transformers(name)


def _is_hub_name(name: str) -> bool:
    return not (_near(name) or Path(name).suffix or name.startswith((".", "/", "~")))


def _near(name: str) -> str:
    kinds = [p.component.name for p in installed().parts(["tokenizer"]) if p.plugin.name != "core"]
    return did_you_mean(name, [CHARACTERS, *NAMED, *kinds])


def _refuse(name: str) -> NoReturn:
    raise UsageError(f"there is no tokenizer {name}{_near(name) or f'; {POSSIBLE}'}")


def _of_folder(folder: Path) -> Tokenizer:
    whole = folder / "tokenizer.json"
    if _is_ours(whole):
        return load_tokenizer(whole)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.exists() and merges.exists()):
        raise UsageError(f"{folder} holds no tokenizer; {POSSIBLE}")
    try:
        return byte_pairs_of_files(str(vocabulary), str(merges))
    except ValueError as error:
        raise UsageError(f"{vocabulary} and {merges} are no tokenizer: {error}") from error


def _is_ours(file: Path) -> bool:
    try:
        return "kind" in json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _has_model(file: Path) -> bool:
    """Whether a file is JSON that may be of the tokenizers library, damaged or not."""
    return file.name == "tokenizer.json" or isinstance(read_object(file).get("model"), dict)


def _tokenizer(files: LibraryFiles, named: str | None, *, needs_end: bool) -> LibraryTokenizer:
    """The tokenizer of such files.

    Documents begin with its BOS, [CLS] or else EOS token, and end with its EOS or [SEP]; EOS also
    is the padding if there is no padding token.
    """
    ids = vocabulary(files)
    told = {role: token for role, token in files.special.items() if token in ids}
    if named is not None and named not in ids:
        raise UsageError(f"{files.source} has no token {named[:60]!r} for --data.end_token to name")
    end = named or told.get("eos_token") or told.get("sep_token")
    if end is None and needs_end:
        special = [token for token in files.added() if token in ids][:8]
        choice = f"; its special tokens are {', '.join(special)}" if special else ""
        raise UsageError(
            f"tokenizer {files.source} does not say which token ends a text; name one with "
            f"--data.end_token TOKEN, or leave marks out with --data.marks none{choice}"
        )
    # Without a token that ends texts there are no marks, and any token fills up the last sequence.
    end = end or told.get("pad_token") or min(ids, key=lambda token: ids[token])
    begin = told.get("bos_token") or told.get("cls_token") or end
    try:
        return tokenizer_of(files.model, begin=begin, end=end, pad=told.get("pad_token") or end)
    except ValueError as error:
        raise UsageError(f"{files.source} is no tokenizer: {error}") from error


def vocabulary(files: LibraryFiles) -> dict[str, int]:
    """Token -> id, special tokens among them.

    Raises:
        UsageError: the library cannot read the tokenizer, or it has no tokens.
    """
    try:
        ids = read_library(files.model).get_vocab(with_added_tokens=True)
    except ValueError as error:
        raise UsageError(f"{files.source} is no tokenizer: {error}") from error
    if not ids:
        raise UsageError(f"{files.source} is no tokenizer: it has no tokens")
    return ids


def _downloaded(name: str) -> Path:
    """The folder that holds the tokenizer files of a repository of the hub, which may be empty."""
    try:
        from huggingface_hub import snapshot_download

        from platform_core.data.hub import quiet, reachable
    except ImportError as error:
        raise _needs_transformers(name) from error
    try:
        with quiet():
            return Path(
                snapshot_download(
                    name, allow_patterns=list(FILES), local_files_only=not reachable()
                )
            )
    except (OSError, ValueError):
        return Path(os.devnull)  # transformers says what is wrong


def _needs_transformers(name: str) -> UsageError:
    return UsageError(
        f"tokenizer {name} needs the transformers library, which plugin hf brings: "
        "pip install dlm-platform-hf"
    )


def read_transformers(name: str) -> LibraryFiles:
    """The tokenizer that transformers makes of files other than tokenizer.json.

    Raises:
        UsageError: the library is not installed, cannot read the tokenizer, or has it only in
            Python.
    """
    try:
        from transformers import AutoTokenizer

        from platform_core.data.hub import quiet, reachable
    except ImportError as error:
        raise _needs_transformers(name) from error
    try:
        folder = Path(name).expanduser()
        here = folder.is_dir()
        with quiet():
            found = AutoTokenizer.from_pretrained(
                folder if here else name,
                trust_remote_code=False,
                local_files_only=here or not reachable(),
            )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        said = " ".join(str(error).split()).partition(". ")[0][:200]
        raise UsageError(
            f"transformers cannot load the tokenizer {name} ({said}); {POSSIBLE}"
        ) from error
    if not found.is_fast:
        raise UsageError(f"transformers has tokenizer {name} in Python only; choose another")
    special = {role: token for role in ROLES if (token := getattr(found, role, None))}
    return LibraryFiles(name, json.loads(found.backend_tokenizer.to_str()), special)
