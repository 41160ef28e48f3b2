"""`platform sample RUN`: generate texts with a trained network."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_core.cli.parser import show_help
from platform_core.cli.view import View, add_speed, require_speed
from platform_core.composition.compose import compose_saved
from platform_core.composition.help_page import HelpPage
from platform_core.errors import UsageError
from platform_core.record.directory import BETWEEN_SAMPLES, first_argument
from platform_core.record.files import write_text
from platform_core.registry.loading import load_plugins

if TYPE_CHECKING:
    from platform_core.evaluation.samples import Samples
    from platform_core.evaluation.trained import TrainedRun
    from platform_core.evaluation.trajectory import Trajectory

PAGE = HelpPage(reads=("sampler", "sample", "seed", "train.precision"))
"""The options that have an effect on samples."""


def main(argv: Sequence[str]) -> int:
    """Prints the texts, or writes them to a file."""
    if argv[:1] in (["-h"], ["--help"]):
        return show_help("platform sample", __doc__, arguments)
    directory = first_argument(argv, "platform sample RUN")
    composition, asked = compose_saved(
        directory.config,
        argv,
        load_plugins(),
        prog="platform sample RUN",
        extend=arguments,
        page=PAGE,
    )
    fps = require_speed(asked.fps)

    from platform_core.evaluation.animation import FORMATS
    from platform_core.evaluation.figures import require_format
    from platform_core.evaluation.trained import TrainedRun
    from platform_core.runtime import accelerator as runtime

    drawn = require_format(Path(asked.trajectory), FORMATS) if asked.trajectory else None
    accelerator = runtime.start(composition.train.precision)
    run = TrainedRun(directory, composition, accelerator, average=composition.sample.weights)
    watching = asked.watch and accelerator.is_main_process
    keep = asked.to is not None or not sys.stdout.isatty()
    samples = watched(run, fps, keep=keep) if watching else run.sample(watched=drawn is not None)
    if not accelerator.is_main_process:
        return 0
    if samples.trajectory is None and (drawn is not None or (watching and samples.texts)):
        raise UsageError(
            f"sampler {composition.names['sampler']} does not denoise all tokens together, "
            f"so there is no --{'watch' if drawn is None else 'trajectory'}; choose another "
            "sampler of a diffusion process"
        )
    if drawn is not None and samples.trajectory is not None:
        write_trajectory(run, samples.trajectory, drawn, fps)
    output = written(samples, asked.format)
    if asked.to is None:
        sys.stdout.write(output)
    else:
        write_text(Path(asked.to), output)
    print(
        f"{len(samples.texts)} samples, {run.average} weights of step {run.step}, "
        f"{samples.nfe_per_text:.4g} network evaluations each, {samples.seconds:.1f} s",
        file=sys.stderr,
    )
    return 0


def watched(run: "TrainedRun", fps: float, *, keep: bool, **options: Any) -> "Samples":
    """Samples of a run, the first of which is shown while it is denoised.

    Args:
        run: the run, whose options say what is drawn.
        fps: frames in a second.
        keep: leave the last frame on the terminal.
        options: as of `TrainedRun.sample`.

    Returns:
        The samples; their seconds are without those in which a frame was only looked at.
    """
    with View(run.tokenizer, run.sample_length, fps=fps, keep=keep) as view:
        samples = run.sample(onlooker=view.see, **options)
        samples = replace(samples, seconds=samples.seconds - view.waited)
        if samples.trajectory is not None:
            view.end(samples.tokens[0])
    return samples


def write_trajectory(run: "TrainedRun", way: "Trajectory", path: Path, fps: float) -> None:
    """Writes how a sample came about: an animation, a plot or data, as the file's ending says."""
    from platform_core.evaluation import animation, figures

    if path.suffix in animation.FORMATS:
        title = f"{run.directory.path.absolute().name}, step {run.step}: from noise to text"
        animation.write(way, path, run.tokenizer, title=title, fps=fps)
    else:
        figures.write({"step": run.step, **way.record()}, path)


def written(samples: "Samples", form: str) -> str:
    """The texts in the format that was asked for."""
    if form == "jsonl":
        rows = zip(samples.texts, samples.tokens, strict=True)
        lines = (json.dumps({"text": t, "tokens": ids}, ensure_ascii=False) for t, ids in rows)
        return "".join(f"{line}\n" for line in lines)
    return BETWEEN_SAMPLES.join(samples.texts) + "\n"


def arguments(parser: ArgumentParser) -> None:
    """Adds this verb's own options, those that belong to no part and no section."""
    parser.add_argument("run", metavar="RUN", help="directory of the run")
    parser.add_argument("--format", choices=["text", "jsonl"], default="text", help="output format")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show in the terminal how the first sample comes out of the noise",
    )
    add_speed(parser)
    parser.add_argument(
        "--trajectory",
        metavar="FILE",
        help="write how the first sample was denoised: an animation (.html, .gif), a plot (.svg, "
        ".png, .pdf) or data (.json)",
    )
    parser.add_argument("--to", metavar="FILE", help="write the texts there, not to stdout")
