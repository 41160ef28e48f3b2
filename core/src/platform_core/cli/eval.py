"""`platform eval RUN`: the bound of a trained network on any text, or a judge of its samples."""

import math
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from platform_core.cli import _judging, _tasks
from platform_core.compose import compose_saved
from platform_core.directory import RunDirectory, first_argument
from platform_core.errors import UsageError
from platform_core.plugins import load_plugins

if TYPE_CHECKING:
    from accelerate import Accelerator

    from platform_core.compose import Composition
    from platform_core.evaluate import Bound


def main(argv: Sequence[str]) -> int:
    """Prints the figures, and keeps them in the run's `evaluations/` and `result.json`."""
    directory = first_argument(argv, "platform eval RUN")
    composition, asked = compose_saved(
        directory.config, argv, load_plugins(), prog="platform eval RUN", extend=arguments
    )
    if _tasks.asked_for(asked):
        if asked.judge is not None:
            raise UsageError("--judge and --tasks are measured one at a time; leave one out")
        return _tasks.tasks(composition, directory, asked)
    if asked.judge is not None:
        return _judging.judge_samples(directory, composition, asked)
    return bounds(composition, directory, asked)


def arguments(parser: ArgumentParser) -> None:
    """The words of this verb that are no options of a part or section."""
    parser.add_argument("run", metavar="RUN", help="directory of the run")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--on",
        nargs="+",
        default=[],
        metavar="CORPUS[=PATH]",
        help="other texts, one after another: corpora of --data.corpus, each with its path if it "
        "has one; zero-shot is the seven of published tables",
    )
    parser.add_argument(
        "--side_by_side",
        action="store_true",
        help="also the bound of the other --evaluate.protocol, beside the one asked for",
    )
    _tasks.arguments(parser)
    _judging.arguments(parser)


def bounds(composition: "Composition", directory: RunDirectory, asked: Namespace) -> int:
    """The bound on each text under each protocol."""
    from platform_core import runtime
    from platform_core.results import keep_evaluation

    accelerator = runtime.start(composition.train.precision)
    shown = []
    for name, bound, record in _measured(composition, directory, asked, accelerator):
        if accelerator.is_main_process:
            kept = keep_evaluation(directory, name, record)
            if bound.levels:
                _draw_levels(bound, record["card"], kept.with_suffix(".svg"))
            if not asked.json:
                print(_said(record) + f"\nkept in {kept}", flush=True)
            shown.append(record)
    if accelerator.is_main_process and asked.json:
        from platform_core.files import json_text

        print("\n".join(map(json_text, shown)))
    return 0


def _measured(
    composition: "Composition",
    directory: RunDirectory,
    asked: Namespace,
    accelerator: "Accelerator",
) -> Iterator[tuple[str, "Bound", dict[str, Any]]]:
    """Each bound with its name and record; the network is loaded once."""
    from platform_core import runtime
    from platform_core.data import load_data
    from platform_core.evaluate import evaluate
    from platform_core.objective import Protocol
    from platform_core.provenance import bound_card
    from platform_core.texts import texts
    from platform_core.tokenizer import load_tokenizer
    from platform_core.trained import load_trained

    options = composition.evaluate
    tokenizer = load_tokenizer(directory.tokenizer)
    labels = directory.label_names()
    # All texts before the network: a corpus that is not there is found before anything is computed.
    found = [
        (text, load_data(text.options, tokenizer, labels, (options.split,)))
        for text in texts(asked.on, composition.data)
    ]
    built, step = load_trained(
        composition,
        directory,
        accelerator,
        vocab_size=tokenizer.vocab_size,
        average=options.weights,
    )
    others = [name for name in get_args(Protocol) if name != options.protocol]
    protocols: list[Protocol] = [options.protocol, *(others if asked.side_by_side else ())]
    for text, data in found:
        for protocol in protocols:
            start = time.perf_counter()
            bound = evaluate(
                built.objective,
                data.split(options.split),
                accelerator,
                sequences=options.sequences,
                batch_size=options.batch_size,
                protocol=protocol,
                seed=composition.seed,
                draws=options.draws,
            )
            way = replace(options, protocol=protocol)
            record = {
                **bound.summary(),
                "seconds": time.perf_counter() - start,
                "card": {
                    **bound_card(bound, way, text.options, data, step=step),
                    "parts": dict(composition.names),
                    "seed": composition.seed,
                    "units": "standard_error, noise_error and levels in nats per token",
                    **runtime.describe(accelerator),
                },
            }
            yield _name(text.name, composition, bound, protocol, step), bound, record


def _name(text: str, composition: "Composition", bound: "Bound", protocol: str, step: int) -> str:
    """What was measured and how, as far as it may differ between evaluations of one run."""
    options = composition.evaluate
    words = [text] if text else []
    words += [options.split, options.weights, protocol]
    words += [f"{bound.noise_levels}-draws"] if bound.noise_levels > 1 else []
    words += [f"{bound.sequences}-sequences"] if options.sequences else []
    return "-".join([*words, f"step-{step:07d}"])


def _said(record: dict[str, Any]) -> str:
    card = record["card"]
    way = card["evaluate"]
    what = f"{way['protocol']} bound" if card["kind"] == "bound" else "exact value"
    draws = card["noise_levels_per_sequence"]
    read = f" at {draws} noise levels each" if draws > 1 else ""
    unknown = card["unknown_tokens"]
    lacking = f", {unknown:,} of them [UNK]" if unknown else ""
    path = f" of {card['data']['path']}" if card["data"]["path"] else ""
    lines = [
        f"{card['data']['corpus']}{path}, {way['split']} text, {record['sequences']} sequences"
        f"{read}, {record['tokens']:,} tokens{lacking}; {way['weights']} weights of step "
        f"{card['step']}; {what}",
        f"  nats per token       {_with_error(record['nats_per_token'], record['standard_error'])}",
        f"  bits per token       "
        f"{_with_error(record['bits_per_token'], record['standard_error'] / math.log(2))}",
        f"  bits per character   {record['bits_per_character']:.4f}",
        f"  perplexity           {record['perplexity']:.3f}",
    ]
    if draws > 1:
        lines.append(f"  error from noise     {record['noise_error']:.4f} nats per token")
    return "\n".join(lines)


def _with_error(value: float, error: float) -> str:
    known = f"+- {error:.4f}" if math.isfinite(error) else "(one sequence: error unknown)"
    return f"{value:.4f} {known}"


def _draw_levels(bound: "Bound", card: dict[str, Any], path: Path) -> None:
    """Where between text and noise the bound comes from."""
    from platform_core import figures

    way = card["evaluate"]
    subset = f"{card['data']['corpus']} {way['split']}"
    figures.write(figures.levels_record(bound, subset, way["protocol"]), path)
