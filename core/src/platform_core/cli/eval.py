"""`platform eval RUN`: measure a trained network: its bound on any text, or a plugin's figures."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from platform_core.cli import points
from platform_core.cli.parser import show_help
from platform_core.composition.compose import compose_saved
from platform_core.composition.help_page import HelpPage
from platform_core.composition.words import underscored
from platform_core.errors import UsageError
from platform_core.record.directory import RunDirectory, first_argument
from platform_core.registry.loading import load_plugins

if TYPE_CHECKING:
    from platform_core.composition.compose import Composition
    from platform_core.evaluation.evaluation import Evaluation
    from platform_core.evaluation.trained import TrainedRun
    from platform_core.registry.parts import Plugins

    Evaluations = Mapping[str, type[Evaluation]]

BOUND = "bound"
"""The evaluation that runs if no other is asked for."""


def main(argv: Sequence[str]) -> int:
    """Prints the figures, and keeps them in the run's `evaluations/` and `result.json`."""
    plugins = load_plugins()
    evaluations = installed_evaluations(plugins)
    if argv[:1] in (["-h"], ["--help"]):
        return show_help("platform eval", __doc__, partial(arguments, evaluations))
    directory = first_argument(argv, "platform eval RUN")
    asked_for = requested(directory.config, argv, plugins, evaluations)
    name = chosen(evaluations, asked_for[0].asked)
    require_read(name, evaluations, [*argv, *(f"--{word}" for word in asked_for[0].words)])

    from platform_core.evaluation.trained import TrainedRun
    from platform_core.record.results import evaluations as kept
    from platform_core.runtime import accelerator as runtime

    accelerator = runtime.start(asked_for[0].composition.train.precision)
    there, evaluation = points.known(kept(directory)), evaluations[name]()
    for point in asked_for:
        digest = point.digest(name, directory)
        if point.words and not point.asked.again and digest in there:
            if accelerator.is_main_process:
                said = f"{' '.join(point.words)}: measured before, kept in {there[digest]}"
                print(said, file=sys.stderr)
            continue
        if point.words and not point.asked.json and accelerator.is_main_process:
            print(f"{' '.join(point.words)}:", flush=True)
        run = TrainedRun(directory, point.composition, accelerator)
        measure(run, evaluation, directory, point.asked, digest)
    return 0


def requested(
    saved: Path,
    argv: Sequence[str],
    plugins: "Plugins",
    evaluations: "Evaluations",
    environ: Mapping[str, str] = os.environ,
) -> list[points.Point]:
    """What the command line asks for, checked: one point, or those of its sweep.

    Raises:
        UsageError: an option, or a value of a sweep, is one that cannot be.
    """

    def compose(words: Sequence[str]) -> "tuple[Composition, Namespace]":
        return compose_saved(
            saved,
            words,
            plugins,
            prog="platform eval RUN",
            extend=partial(arguments, evaluations),
            environ=environ,
            page=HelpPage(reads=read_by(evaluations)),
        )

    composition, asked = compose(argv)
    if asked.sweep:
        return points.points(argv, asked, compose)
    if asked.again:
        raise UsageError("--again is for a sweep; give --sweep KEY=VALUE,VALUE")
    return [points.Point((), composition, asked)]


def installed_evaluations(plugins: "Plugins") -> "Evaluations":
    """The classes of all evaluations that are installed, by name."""
    return {name: plugins.load("evaluation", name) for name in plugins.names("evaluation")}


def read_by(evaluations: "Evaluations") -> tuple[str, ...]:
    """The sections and options that any evaluation reads."""
    return (*(key for each in evaluations.values() for key in each.reads), *READ_BY_ALL)


def arguments(evaluations: "Evaluations", parser: ArgumentParser) -> None:
    """Adds the options of this verb, and the options of every evaluation."""
    parser.add_argument("run", metavar="RUN", help="directory of the run")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    points.add_arguments(parser)
    for evaluation in evaluations.values():
        evaluation.arguments(parser)


def chosen(evaluations: "Evaluations", asked: Namespace) -> str:
    """The name of the one evaluation that the command line asks for.

    Raises:
        UsageError: the command line asks for several evaluations.
    """
    names = [name for name, evaluation in evaluations.items() if evaluation.is_asked(asked)]
    if len(names) > 1:
        words = " and ".join(own_words(evaluations[name])[0] for name in names)
        raise UsageError(
            f"{words} are measured one at a time ({' and '.join(names)}); leave one out"
        )
    return names[0] if names else BOUND


def require_read(name: str, evaluations: "Evaluations", argv: Sequence[str]) -> None:
    """Refuses options of the command line that the evaluation does not read.

    Raises:
        UsageError: such an option is given.
    """
    given = [word.partition("=")[0].removesuffix("+") for word in underscored(argv)]
    own, reads = own_words(evaluations[name]), (*evaluations[name].reads, *READ_BY_ALL)
    others = {w: n for n, e in evaluations.items() if n != name for w in own_words(e)}
    for word in given:
        if word in others and word not in own:
            first = own_words(evaluations[others[word]])[0]
            raise UsageError(
                f"{word} is read by the evaluation {others[word]}, not by {name}; leave it out, or "
                f"ask for {others[word]} with {first}"
            )
        section = word.removeprefix("--").partition(".")[0]
        known = word.startswith("--") and (section in SECTIONS_OF_OPTIONS or section == "seed")
        if known and not {section, word.removeprefix("--")} & set(reads):
            raise UsageError(
                f"{word} is not read by the evaluation {name}, which reads {', '.join(reads)}; "
                "leave it out"
            )


READ_BY_ALL = ("train.precision",)
"""Options that the verb itself reads, for every evaluation."""

SECTIONS_OF_OPTIONS = ("evaluate", "sample", "sampler", "data", "train", "track", "objective")
"""Sections whose options an evaluation may read; `compose_saved` refuses those of the network."""


def own_words(evaluation: "type[Evaluation]") -> list[str]:
    """The options that an evaluation adds, such as --judge, each in its first spelling."""
    parser = ArgumentParser(add_help=False)
    evaluation.arguments(parser)
    return [action.option_strings[0] for action in parser._actions]


def measure(
    run: "TrainedRun",
    evaluation: "Evaluation",
    directory: RunDirectory,
    asked: Namespace,
    digest: str,
) -> None:
    """Runs an evaluation; saves and prints each of its records, whose cards keep the digest."""
    from platform_core.evaluation import figures
    from platform_core.record.files import json_text
    from platform_core.record.results import keep_evaluation

    shown = []
    for measured in evaluation.records(run, asked):
        if not run.accelerator.is_main_process:
            continue
        record = points.answered(measured.record, digest)
        kept = keep_evaluation(directory, measured.name, record, measured.in_name)
        if measured.figure is not None:
            figures.write(measured.figure, kept.with_suffix(".svg"))
        if not asked.json:
            print(f"{measured.said}\nkept in {kept}", flush=True)
        shown.append(record.to_dict())
    if run.accelerator.is_main_process and asked.json:
        print("\n".join(map(json_text, shown)))
