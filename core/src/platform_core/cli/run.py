"""`platform run`: trains, evaluates and samples, in a run directory that is the whole record."""

import math
import os
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_core.composition.compose import Composition, compose, compose_saved
from platform_core.errors import EXIT_INTERRUPTED, UsageError, either
from platform_core.record.directory import RunDirectory
from platform_core.registry.loading import load_plugins
from platform_core.runtime.signals import Interruption, Stopped

if TYPE_CHECKING:
    from platform_core.training.run import Run


def main(argv: Sequence[str]) -> int:
    """Runs to the end (0), or until a signal (75; 130 after Ctrl-C) with everything saved."""
    early = _early(argv)
    resumed: Path | None = early.resume
    if resumed is not None and early.init is not None:
        raise UsageError(
            "--resume continues from its own checkpoints and --init starts anew; leave one out"
        )
    if resumed is not None:
        return _resume(RunDirectory.existing(resumed), argv)
    composition, asked = compose(argv, load_plugins(), prog="platform run", extend=arguments)
    if (
        composition.init.run
        and asked.output
        and Path(asked.output).resolve() == Path(composition.init.run).resolve()
    ):
        raise UsageError(
            f"--output {asked.output} is the run that --init starts from; give another"
        )
    name = f"{composition.names['process']}-{composition.names['backbone']}"
    if not _is_main_process():
        return _train(composition, RunDirectory(Path(asked.output or f"runs/{name}")), resume=False)
    with RunDirectory.new(asked.output, default=name, overwrite=asked.overwrite) as directory:
        return _train(composition, directory, resume=False)


def _resume(directory: RunDirectory, argv: Sequence[str]) -> int:
    composition, asked = compose_saved(
        directory.config,
        argv,
        load_plugins(),
        prog="platform run",
        extend=arguments,
        training=True,
    )
    if asked.output or asked.overwrite:
        raise UsageError("--resume continues in its own directory; leave out --output, --overwrite")
    with directory.held() if _is_main_process() else nullcontext():
        return _train(composition, directory, resume=True)


def _train(composition: Composition, directory: RunDirectory, *, resume: bool) -> int:
    """Trains and evaluates; a signal ends either with everything saved that there is."""
    words = f"platform run --resume {shlex.quote(str(directory.path))}"
    run = None
    try:
        from platform_core.training.run import Run

        with Run(composition, directory, resume=resume) as run:
            with Interruption() as interruption:
                complete = run.train(interruption)
            # One that came with the last update: what is left may take longer than there is time.
            if not complete or run.anywhere(interruption.signal is not None):
                print(f"saved at step {run.trainer.step}; go on with: {words}")
                return interruption.exit_code
            result = run.finish()
        if run.accelerator.is_main_process:
            print(summary(run, result))
    except Stopped as stopped:
        if run is not None:
            said = f"saved at step {run.trainer.step}, before the end of its evaluation"
            print(f"{said}; go on with: {words}")
        elif resume or directory.config.is_file():
            print(f"stopped by {stopped.name} before it trained; go on with: {words}")
        else:
            print(f"stopped by {stopped.name} before it began; start it again with the same words")
        return EXIT_INTERRUPTED
    return 0


def _is_main_process() -> bool:
    """Whether this one writes the record, of the processes that `torchrun` starts."""
    return os.environ.get("RANK", "0") == "0"


def arguments(parser: ArgumentParser) -> None:
    """The words of this verb that are no options of a part or section."""
    parser.add_argument("--output", metavar="DIR", help="run directory to make (runs/PARTS-TIME)")
    parser.add_argument("--resume", metavar="DIR", help="run directory to continue")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier run in --output"
    )


def _early(argv: Sequence[str]) -> Namespace:
    """The two options that decide how all others are read."""
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
    said = f"standard error {error:.3f}" if math.isfinite(error) else "of one sequence"
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
