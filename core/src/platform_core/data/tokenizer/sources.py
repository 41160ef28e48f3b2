"""Tokenizers that `--data.tokenizer` can name: names, kinds of plugins, files, folders, models."""

import json
from pathlib import Path

from platform_core.data.tokenizer.base import Tokenizer
from platform_core.data.tokenizer.character import TEXT8, CharacterTokenizer
from platform_core.data.tokenizer.library import LibraryTokenizer, tokenizer_of
from platform_core.data.tokenizer.saved import load_tokenizer
from platform_core.data.tokenizer.training import byte_pairs_of_files
from platform_core.errors import UsageError, did_you_mean
from platform_core.registry.loading import installed

CHARACTERS = "characters"
"""Name of the tokenizer of every character of the corpus, which `data` makes."""

NAMED = {"text8": lambda: CharacterTokenizer(TEXT8)}

POSSIBLE = (
    "a tokenizer is characters, text8, a kind that a plugin brings, a tokenizer.json of `platform "
    "tokenizer train` or of a run, a folder with it or with vocab.json and merges.txt, or a name "
    "or folder of transformers"
)


def open_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a name, file or folder.

    Raises:
        UsageError: there is no such tokenizer, or it cannot be read.
    """
    if name in NAMED:
        return NAMED[name]()
    path = Path(name).expanduser()
    if path.is_file():
        return load_tokenizer(path)
    if path.is_dir():
        return _of_folder(path)
    kinds = [p.component.name for p in installed().parts(["tokenizer"]) if p.plugin.name != "core"]
    near = did_you_mean(name, [CHARACTERS, *NAMED, *kinds])
    if near or path.suffix or name.startswith((".", "/", "~")):
        raise UsageError(f"there is no tokenizer {name}{near or f'; {POSSIBLE}'}")
    return read_transformers(name)


def _of_folder(folder: Path) -> Tokenizer:
    whole = folder / "tokenizer.json"
    if _is_ours(whole):
        return load_tokenizer(whole)
    if whole.exists() or (folder / "tokenizer_config.json").exists():
        return read_transformers(str(folder))
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
    except (OSError, ValueError):
        return False


def read_transformers(name: str) -> LibraryTokenizer:
    """The tokenizer of a model that the transformers library knows, or of its folder.

    Documents begin with its BOS, [CLS] or else EOS token, and end with its EOS or [SEP]; the token
    that ends documents is also the padding if there is no padding token.

    Raises:
        UsageError: the library is not installed, cannot read the tokenizer, or has it only in
            Python.
    """
    try:
        from transformers import AutoTokenizer

        from platform_core.data.hub import quiet, reachable
    except ImportError as error:
        raise UsageError(
            f"tokenizer {name} needs the transformers library, which plugin hf brings: "
            "pip install dlm-platform-hf"
        ) from error
    try:
        with quiet():
            found = AutoTokenizer.from_pretrained(
                name, trust_remote_code=False, local_files_only=not reachable()
            )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        said = " ".join(str(error).split()).partition(". ")[0][:200]
        raise UsageError(
            f"transformers cannot load the tokenizer {name} ({said}); {POSSIBLE}"
        ) from error
    if not found.is_fast:
        raise UsageError(f"transformers has tokenizer {name} in Python only; choose another")
    end = found.eos_token or found.sep_token
    if end is None:
        raise UsageError(f"tokenizer {name} has no token that ends a text; choose another")
    begin = found.bos_token or found.cls_token or end
    model = json.loads(found.backend_tokenizer.to_str())
    return tokenizer_of(model, begin=begin, end=end, pad=found.pad_token or end)
