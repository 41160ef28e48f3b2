"""`platform export RUN DIR`: a trained network as a folder that transformers loads."""

from collections.abc import Sequence
from pathlib import Path

from platform_core.cli._parser import Parser
from platform_core.compose import compose_saved
from platform_core.directory import RunDirectory
from platform_core.plugins import load_plugins


def main(argv: Sequence[str]) -> int:
    """Writes the folder and says how it is loaded."""
    asked = _arguments().parse_args(list(argv))
    directory = RunDirectory.existing(asked.run)
    composition, _ = compose_saved(directory.config, [], load_plugins(), prog="platform export")

    from platform_core import runtime
    from platform_core.export import Trained, export_folder, require_exportable
    from platform_core.tokenizer import load_tokenizer
    from platform_core.trained import load_trained

    require_exportable(directory, asked.folder)
    tokenizer = load_tokenizer(directory.tokenizer)
    built, step = load_trained(
        composition,
        directory,
        runtime.start("fp32"),
        vocab_size=tokenizer.vocab_size,
        average=asked.weights,
    )
    trained = Trained(composition, built, tokenizer, step, asked.weights)
    export_folder(trained, directory, asked.folder)
    head = "AutoModelForCausalLM" if trained.causal else "AutoModelForMaskedLM"
    print(
        f"{asked.weights} weights of step {step} in {asked.folder}; load them after "
        f"`import platform_core.transformers` with {head}.from_pretrained"
    )
    return 0


def _arguments() -> Parser:
    parser = Parser(prog="platform export", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="directory of the run")
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder to make")
    parser.add_argument(
        "--weights", choices=["ema", "raw"], default="ema", help="the average, or the last ones"
    )
    return parser
