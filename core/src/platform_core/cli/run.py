"""`platform run`: trains, evaluates and samples, in a run directory that holds the whole record."""

import math
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_core.cli.kept_help import can_be_kept, print_help
from platform_core.composition.compose import Composition, compose, compose_saved
from platform_core.composition.help_page import HelpPage
from platform_core.errors import EXIT_INTERRUPTED, UsageError, either
from platform_core.record.directory import RunDirectory
from platform_core.record.files import read_json
from platform_core.record.intact import intact_state
from platform_core.record.progress import command, working
from platform_core.record.yaml_tree import read_tree
from platform_core.registry.loading import load_plugins
from platform_core.registry.parts import Plugins
from platform_core.runtime import ranks
from platform_core.runtime.signals import Interruption, Stopped

if TYPE_CHECKING:
    from platform_core.composition.options import EvaluateOptions
    from platform_core.training.run import Run


def main(argv: Sequence[str]) -> int:
    """Trains to the end (exit code 0), or saves at a signal and stops (75; 130 after Ctrl-C)."""
    if can_be_kept(argv):
        plugins = load_plugins()
        print_help(argv, plugins, lambda: _compose(argv, plugins))
        return 0
    working("starting")
    early = _early(argv)
    resumed: Path | None = early.resume
    if resumed is not None and early.init is not None:
        raise UsageError(
            "--resume continues a run and --init starts a new one; leave one of them out"
        )
    if resumed is not None:
        return _resume(RunDirectory.existing(resumed), argv)
    composition, asked = _compose(argv, load_plugins())
    if (
        composition.init.run
        and asked.output
        and Path(asked.output).resolve() == Path(composition.init.run).resolve()
    ):
        raise UsageError(
            f"--output {asked.output} is the run that --init starts from; give another"
        )
    name = f"{composition.names['process']}-{composition.names['backbone']}"
    if not ranks.is_main():
        return _train(composition, RunDirectory(Path(asked.output or f"runs/{name}")), resume=False)
    with RunDirectory.new(asked.output, default=name, overwrite=asked.overwrite) as directory:
        return _train(composition, directory, resume=False)


def _compose(argv: Sequence[str], plugins: Plugins) -> tuple[Composition, Namespace]:
    return compose(argv, plugins, prog="platform run", extend=arguments, page=PAGE)


def _resume(directory: RunDirectory, argv: Sequence[str]) -> int:
    # Before torch is imported, if no option is given that might ask for more.
    options = [word for word in argv if word.startswith("-")]
    variables = {name for name in os.environ if name.startswith("PLATFORM_")}
    if len(options) == 1 and variables <= {"PLATFORM_CACHE"} and (steps := _finished(directory)):
        return _say_finished(directory, steps)
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
    with directory.held() if ranks.is_main() else nullcontext():
        said = directory.config.read_text(encoding="utf-8")
        if composition.config == said and (steps := _finished(directory)):
            return _say_finished(directory, steps)
        return _train(composition, directory, resume=True)


def _finished(directory: RunDirectory) -> int:
    """The number of steps of a run that has its result; 0 of one that has something left to do."""
    try:
        result = read_json(directory.result)
        steps: int = result["steps"]
        intact_state(directory.checkpoints / f"step-{steps:07d}", steps)
        train = read_tree(directory.config, "its config")["train"]
        asked = steps if train.get("flops") else train["steps"]
    except (OSError, KeyError, TypeError, ValueError):
        return 0  # what is damaged is made anew
    whole = (directory.samples / "final.txt").is_file() and directory.tokenizer.is_file()
    return steps if whole and (steps == asked or "stopped" in result) else 0


def _say_finished(directory: RunDirectory, steps: int) -> int:
    working("")
    if not ranks.is_main():
        return 0
    print(f"{directory.path} is finished: all of its {steps:,} steps are made and evaluated")
    again = command("eval", directory.path)
    more = command("run", "--resume", directory.path, "--train.steps", 2 * steps)
    print(f"evaluate it again: {again}   train on: {more}")
    return 0


def _train(composition: Composition, directory: RunDirectory, *, resume: bool) -> int:
    """Trains and evaluates; a signal ends either with everything saved that there is."""
    words = command("run", "--resume", directory.path)
    run = None
    try:
        from platform_core.training.run import Run

        with Run(composition, directory, resume=resume) as run:
            with Interruption() as interruption:
                complete = run.train(interruption)
            # One that came with the last update: what is left may take longer than there is time.
            if not complete or run.anywhere(interruption.signal is not None):
                if ranks.is_main():
                    print(f"saved at step {run.trainer.step}; go on with: {words}")
                return interruption.exit_code
            result = run.finish()
        if ranks.is_main():
            print(summary(run, result))
    except Stopped as stopped:
        working("")
        ranks.require_all()
        if ranks.speaks(line := _stopped(stopped.name, run, directory, resume=resume)):
            print(line)
        return EXIT_INTERRUPTED
    return 0


def _stopped(name: str, run: "Run | None", directory: RunDirectory, *, resume: bool) -> str:
    """What a run says that a signal ended outside of its updates, or in want of another process."""
    words = command("run", "--resume", directory.path)
    if run is not None and run.saved_step == run.trainer.step:
        said = f"saved at step {run.saved_step}, before the end of its evaluation"
    elif run is not None and run.saved_step:
        said = f"stopped by {name}; saved at step {run.saved_step}"
    elif resume or directory.config.is_file():
        said = f"stopped by {name} before it trained"
    else:
        return f"stopped by {name} before it began; start it again with the same words"
    return f"{said}; go on with: {words}"


PAGE = HelpPage(
    {
        "--process NAME": "the family: absorbing, uniform, duo, mdlm, sedd, d3pm, gidd, ar",
        "--backbone NAME": "the network: dit, or hf for one of transformers",
        "--backbone.size tiny": "its size; small is that of the papers, for a GPU",
        "--data.corpus NAME": "the text: sotu, text, json, a corpus of the hub, ...",
        "--data.path PATH": "where your own text is",
        "--data.length N": "tokens in a sequence",
        "--train.steps N": "updates of the weights",
        "--train.batch_size N": "sequences in an update",
        "--train.learning_rate X": "step size of AdamW",
        "--sampler.steps N": "reverse steps of the samples",
        "--output DIR": "run directory to make",
        "--resume DIR": "continue a run",
        "--init RUN": "start from the weights of a run",
    }
)
"""The options that matter first."""


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
        *_figures(result, run.composition.evaluate),
        f"record: {path}   more samples: {command('sample', path)}{curves}",
    ]
    return "\n".join(lines)


def _figures(result: dict[str, Any], evaluated: "EvaluateOptions") -> list[str]:
    """The lines on the bound and the n-grams, or why there is no bound."""
    known = {
        "bits per character": "bits_per_character",
        "unigram": "unigram_bits",
        "bigram": "bigram_bits",
        "5-gram": "fivegram_bits",
    }
    lines = [f"  {name:20} {result[key]:.3f}" for name, key in known.items() if key in result]
    if "bits_per_token" not in result:
        return [result["note"], *lines]
    same = "; the n-grams predict the same tokens" if "unigram_bits" in result else ""
    error = result["standard_error"] / math.log(2) * result["tokens"] / result["characters"]
    said = f"standard error {error:.3f}" if math.isfinite(error) else "standard error unknown"
    return [
        f"{evaluated.split} text, {result['tokens']:,} tokens, {evaluated.weights} weights, "
        f"{evaluated.protocol} bound: perplexity {result['perplexity']:.2f} per token",
        *lines,
        f"  ({said}{same})",
    ]
