"""`platform tokenizer train`: train a byte-level BPE tokenizer on the training text."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from platform_core.errors import UsageError
from platform_core.record.progress import command

if TYPE_CHECKING:
    from platform_core.data.corpus import Corpus
    from platform_core.data.tokenizer import Tokenizer

USAGE = "platform tokenizer train --size 4096 --output DIR; it has --help"
OF_TEXT = ("corpus", "path", "column")
"""Options of `data` that select the text; its other options describe sequences."""


def main(argv: Sequence[str]) -> int:
    """Trains, writes and measures a tokenizer."""
    if argv[:1] in (["-h"], ["--help"]):
        argv = ["train", "--help"]
    if argv[:1] != ["train"]:
        raise UsageError(f"the only action is train: {USAGE}")

    from platform_core.composition.options import DataOptions
    from platform_core.composition.parser import Parser
    from platform_core.data.corpus import open_corpus
    from platform_core.data.tokenizer.training import train_byte_pairs
    from platform_core.record.files import write_json
    from platform_core.record.locks import claimed

    parser = Parser(prog="platform tokenizer train", description=__doc__, allow_abbrev=False)
    parser.add_argument("--size", type=int, default=4096, help="number of tokens.")
    parser.add_argument(
        "--output", metavar="DIR", required=True, help="folder or FILE.json to write."
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier tokenizer.")
    elsewhere = {field.name for field in fields(DataOptions)} - set(OF_TEXT)
    parser.add_class_arguments(DataOptions, "data", skip=elsewhere)
    asked = parser.instantiate(parser.parse_args(list(argv[1:])))
    path = _file(asked.output, overwrite=asked.overwrite)
    busy = f"{path} is being written by another process; wait, or give another --output"
    with claimed(path.with_name(f".{path.name}.lock"), busy=busy):
        _file(asked.output, overwrite=asked.overwrite)
        corpus = open_corpus(asked.data)
        tokenizer = train_byte_pairs(corpus.documents("train"), asked.size)
        write_json(path, tokenizer.to_dict())
    print(
        f"{tokenizer.vocab_size:,} tokens from the train split of {asked.data.corpus}, "
        f"{characters_per_token(corpus, tokenizer):.3f} characters per token of its validation "
        f"split\nuse it: {command('run', '--data.tokenizer', asked.output)}"
    )
    return 0


def characters_per_token(corpus: "Corpus", tokenizer: "Tokenizer") -> float:
    """Characters per token of the validation text, begin and end tokens not counted."""
    texts = list(corpus.documents("validation"))
    tokens = sum(map(len, tokenizer.encode_all(texts)))
    return sum(map(len, texts)) / max(tokens, 1)


def _file(output: str, *, overwrite: bool) -> Path:
    path = Path(output).expanduser()
    path = path if path.suffix == ".json" else path / "tokenizer.json"
    if path.with_name("config.yaml").exists():
        raise UsageError(f"{path} belongs to a run; give another --output")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; give another --output, or --overwrite to replace it")
    return path
