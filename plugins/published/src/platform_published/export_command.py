"""`platform export RUN DIR`: a trained network as a folder that transformers loads."""

from collections.abc import Sequence
from pathlib import Path

from platform_core.cli.parser import Parser


def main(argv: Sequence[str]) -> int:
    """Write the folder, and print how to load it."""
    asked = _arguments().parse_args(list(argv))
    from platform_core.evaluation.trained import TrainedRun
    from platform_core.record.locks import claimed
    from platform_core.runtime import accelerator as runtime
    from platform_published.export import Trained, export_folder, require_exportable

    run = TrainedRun.open(asked.run, accelerator=runtime.start("fp32"), average=asked.weights)
    require_exportable(run.directory, asked.folder)
    folder = asked.folder.absolute()
    busy = f"{asked.folder} is being written by another process; name another folder"
    with claimed(folder.with_name(f".{folder.name}.lock"), busy=busy):
        trained = Trained(run.composition, run.built, run.tokenizer, run.step, asked.weights)
        export_folder(trained, run.directory, asked.folder)
    head = "AutoModelForCausalLM" if trained.causal else "AutoModelForMaskedLM"
    print(
        f"{asked.weights} weights of step {run.step} in {asked.folder}; load them after "
        f"`import platform_core.transformers` with {head}.from_pretrained"
    )
    return 0


def _arguments() -> Parser:
    parser = Parser(prog="platform export", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="directory of the run")
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder to make")
    parser.add_argument(
        "--weights", choices=["ema", "raw"], default="ema", help="averaged weights, or the last"
    )
    return parser
