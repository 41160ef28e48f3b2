"""`platform eval RUN`: the bound of a trained network on any text, or a judge of its samples."""

import json
import math
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict

from platform_core.cli import _judging
from platform_core.compose import compose_saved
from platform_core.directory import first_argument
from platform_core.plugins import load_plugins
from platform_core.results import keep_evaluation


def main(argv: Sequence[str]) -> int:
    """Prints the bound, and keeps it in the run's `evaluations/`."""
    directory = first_argument(argv, "platform eval RUN")
    composition, asked = compose_saved(
        directory.config, argv, load_plugins(), prog="platform eval RUN", extend=arguments
    )
    if asked.judge is not None:
        return _judging.judge_samples(directory, composition, asked)

    from platform_core import runtime
    from platform_core.data import load_data
    from platform_core.evaluate import evaluate
    from platform_core.tokenizer import load_tokenizer
    from platform_core.trained import load_trained

    options = composition.evaluate
    accelerator = runtime.start(composition.train.precision)
    data = load_data(
        composition.data,
        load_tokenizer(directory.tokenizer),
        directory.label_names(),
        (options.split,),
    )
    built, step = load_trained(
        composition,
        directory,
        accelerator,
        vocab_size=data.tokenizer.vocab_size,
        average=options.weights,
    )
    bound = evaluate(
        built.objective,
        data.split(options.split),
        accelerator,
        sequences=options.sequences,
        batch_size=options.batch_size,
        protocol=options.protocol,
        seed=composition.seed,
    )
    record = {
        **bound.summary(),
        "card": {
            "step": step,
            "evaluate": asdict(options),
            "data": asdict(composition.data),
            "label": composition.data.label,
            "conditional": bool(data.labels),
            "noise_levels_per_sequence": built.objective.noise_levels,
            "units": "standard_error in nats per token",
            **runtime.describe(accelerator),
        },
    }
    if accelerator.is_main_process:
        name = f"{options.split}-{options.weights}-{options.protocol}-step-{step:07d}"
        kept = keep_evaluation(directory, name, record)
        if asked.json:
            print(json.dumps(record, indent=1))
        else:
            error = bound.standard_error / math.log(2)
            print(
                f"{options.split} text, {bound.sequences} sequences, {bound.tokens:,} tokens; "
                f"{options.weights} weights of step {step}; {options.protocol} bound\n"
                f"  nats per token       {bound.nats_per_token:.4f} +- {bound.standard_error:.4f}\n"
                f"  bits per token       {bound.bits_per_token:.4f} +- {error:.4f}\n"
                f"  bits per character   {bound.bits_per_character:.4f}\n"
                f"  perplexity           {bound.perplexity:.3f}\n"
                f"kept in {kept}"
            )
    return 0


def arguments(parser: ArgumentParser) -> None:
    """The words of this verb that are no options of a part or section."""
    parser.add_argument("run", metavar="RUN", help="directory of the run")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    _judging.arguments(parser)
