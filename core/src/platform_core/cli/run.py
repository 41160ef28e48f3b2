"""`platform run`: trains, evaluates and samples, in a run directory that holds the whole record."""

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_core.composition.compose import compose, compose_saved
from platform_core.errors import UsageError, either
from platform_core.record.directory import RunDirectory
from platform_core.registry.loading import load_plugins
from platform_core.runtime.signals import Interruption

if TYPE_CHECKING:
    from platform_core.training.run import Run


def main(argv: Sequence[str]) -> int:
    """Trains to the end (exit code 0), or saves at a signal and stops (75; 130 after Ctrl-C)."""
    early = _early(argv)
    resumed: Path | None = early.resume
    if resumed is not None and early.init is not None:
        raise UsageError(
            "--resume continues a run and --init starts a new one; leave one of them out"
        )
    if resumed is not None:
        directory = RunDirectory.existing(resumed)
        composition, asked = compose_saved(
            directory.config,
            argv,
            load_plugins(),
            prog="platform run",
            extend=arguments,
            training=True,
        )
        if asked.output or asked.overwrite:
            raise UsageError(
                "--resume continues in the run's own directory; leave out --output, --overwrite"
            )
    else:
        composition, asked = compose(argv, load_plugins(), prog="platform run", extend=arguments)
        name = f"{composition.names['process']}-{composition.names['backbone']}"
        directory = RunDirectory.named(asked.output, default=name)
        directory.refuse_existing(overwrite=asked.overwrite)
        if (
            composition.init.run
            and directory.path.resolve() == Path(composition.init.run).resolve()
        ):
            raise UsageError(
                f"--output {directory.path} is the run that --init starts from; give another"
            )

    from platform_core.training.run import Run

    with Run(composition, directory, resume=resumed is not None) as run:
        with Interruption() as interruption:
            complete = run.train(interruption)
        if not complete:
            step = run.trainer.step
            print(f"saved at step {step}; go on with: platform run --resume {directory.path}")
            return interruption.exit_code
        result = run.finish()
    if run.accelerator.is_main_process:
        print(summary(run, result))
    return 0


def arguments(parser: ArgumentParser) -> None:
    """Adds this verb's own options, those that belong to no part and no section."""
    parser.add_argument("--output", metavar="DIR", help="run directory to make (runs/PARTS-TIME)")
    parser.add_argument("--resume", metavar="DIR", help="run directory to continue")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier run in --output"
    )


def _early(argv: Sequence[str]) -> Namespace:
    """Reads --resume and --init first, because they decide how all other options are read."""
    early = ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--resume", nargs="?", type=Path)
    early.add_argument("--init", "--init.run", nargs="?")
    known, _ = early.parse_known_args(list(argv))
    return known


def summary(run: "Run", result: dict[str, Any]) -> str:
    """The figures, the samples and the costs of a finished run, for a person to read."""
    known = {
        "bits per character": "bits_per_character",
        "unigram": "unigram_bits",
        "bigram": "bigram_bits",
        "5-gram": "fivegram_bits",
    }
    figures = {name: result[key] for name, key in known.items() if key in result}
    same = "; the n-grams predict the same tokens" if "unigram_bits" in result else ""
    error = result["standard_error"] / math.log(2) * result["tokens"] / result["characters"]
    said = (
        f"standard error {error:.3f}"
        if math.isfinite(error)
        else "no standard error of one sequence"
    )
    evaluated = run.composition.evaluate
    path = run.directory.path
    viewers = [kind.viewer(path.parent) for kind in run.trackers.kinds.values()]
    named = [viewer for viewer in viewers if viewer]
    curves = f"   curves: {either(named)}" if named else ""
    lines = [
        "",
        (run.directory.samples / "final.txt").read_text(encoding="utf-8").rstrip(),
        "",
        *([f"stopped early: {result['stopped']}"] if "stopped" in result else []),
        f"{result['steps']} steps in {result['seconds']:.0f} s, {result['parameters']:,} weights, "
        f"peak memory {result['peak_rss_bytes'] / 1e9:.2f} GB",
        f"{evaluated.split} text, {result['tokens']:,} tokens, {evaluated.weights} weights, "
        f"{evaluated.protocol} bound: perplexity {result['perplexity']:.2f} per token",
        *(f"  {name:20} {value:.3f}" for name, value in figures.items()),
        f"  ({said}{same})",
        f"record: {path}   more samples: platform sample {path}{curves}",
    ]
    return "\n".join(lines)
