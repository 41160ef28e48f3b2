"""`platform import PATH --output DIR`: a run directory made of a checkpoint from elsewhere."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from platform_core.cli.parser import Parser
from platform_core.record.directory import RunDirectory
from platform_core.registry.loading import load_plugins

EPILOG = """\
PATH is a Lightning checkpoint of the DUO or MDLM code, a folder of the hub with config.json and
model.safetensors, or a folder of `platform export`. Any option of `platform run` may follow and
replaces the checkpoint's own: --process mdlm, --data.length 1024. No code of a checkpoint is
executed."""


def main(argv: Sequence[str]) -> int:
    """Make the run directory, and print what was read."""
    asked, words = _arguments().parse_known_args(list(argv))
    with RunDirectory.new(asked.output, default="", overwrite=asked.overwrite) as directory:
        return _import(asked, words, directory)


def _import(asked: Namespace, words: list[str], directory: RunDirectory) -> int:
    from platform_published.importing import Source, import_run

    if asked.process is not None:
        words.append(f"--process={asked.process}")
    source = Source(asked.path, words, asked.process, asked.tokenizer, asked.mask_id)
    imported = import_run(source, directory, load_plugins())
    for note in imported.card["notes"]:
        print(f"note: {note}")
    names = imported.composition.names
    print(
        f"{imported.card['layout']}: {names['process']} on {names['backbone']}, "
        f"{imported.tokenizer.vocab_size} tokens, step {imported.checkpoint.state['step']}; "
        f"kept in {directory.path}"
    )
    return 0


def _arguments() -> Parser:
    parser = Parser(prog="platform import", epilog=EPILOG, description=__doc__, allow_abbrev=False)
    parser.add_argument("path", metavar="PATH", type=Path, help="the checkpoint")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="run directory to make"
    )
    parser.add_argument("--process", metavar="NAME", help="family: ar, d3pm, duo, mdlm, sedd")
    parser.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="tokenizer, as for --data.tokenizer; without one, tokens are ids without text",
    )
    parser.add_argument(
        "--mask_id", metavar="N", type=int, help="id of the mask, if the checkpoint lacks it"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier run in --output"
    )
    return parser
