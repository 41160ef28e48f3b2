"""`platform sample RUN`: generate texts with a trained network."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from platform_core.cli.parser import show_help
from platform_core.composition.compose import compose_saved
from platform_core.composition.help_page import HelpPage
from platform_core.errors import UsageError
from platform_core.record.directory import first_argument
from platform_core.record.files import write_text
from platform_core.registry.loading import load_plugins


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
        page=HelpPage(reads=("sampler", "sample", "seed", "train.precision")),
    )

    from platform_core.evaluation.figures import require_format, write
    from platform_core.evaluation.trained import TrainedRun
    from platform_core.runtime import accelerator as runtime

    options = composition.sample
    drawn = require_format(Path(asked.trajectory)) if asked.trajectory else None
    accelerator = runtime.start(composition.train.precision)
    run = TrainedRun(directory, composition, accelerator, average=options.weights)
    samples, step = run.sample(watched=drawn is not None), run.step
    if not accelerator.is_main_process:
        return 0
    if drawn is not None:
        if samples.trajectory is None:
            raise UsageError(
                f"sampler {composition.names['sampler']} does not denoise all tokens together, "
                "so there is no --trajectory; choose another sampler of a diffusion process"
            )
        write({"step": step, **samples.trajectory.record()}, drawn)
    if asked.format == "jsonl":
        rows = zip(samples.texts, samples.tokens, strict=True)
        lines = (json.dumps({"text": t, "tokens": ids}, ensure_ascii=False) for t, ids in rows)
        output = "".join(f"{line}\n" for line in lines)
    else:
        output = "\n\n---\n\n".join(samples.texts) + "\n"
    if asked.to is None:
        sys.stdout.write(output)
    else:
        write_text(Path(asked.to), output)
    print(
        f"{len(samples.texts)} samples, {options.weights} weights of step {step}, "
        f"{samples.nfe_per_text:.4g} network evaluations each, {samples.seconds:.1f} s",
        file=sys.stderr,
    )
    return 0


def arguments(parser: ArgumentParser) -> None:
    """Adds this verb's own options, those that belong to no part and no section."""
    parser.add_argument("run", metavar="RUN", help="directory of the run")
    parser.add_argument("--format", choices=["text", "jsonl"], default="text", help="output format")
    parser.add_argument(
        "--trajectory",
        metavar="FILE",
        help="write how the first sample was denoised: a plot (.svg, .png, .pdf) or data (.json)",
    )
    parser.add_argument("--to", metavar="FILE", help="write the texts there, not to stdout")
