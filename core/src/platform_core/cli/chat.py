"""`platform chat RUN`: type the beginning of a text, or a template with blanks; see it written.

Each line is answered with a text that begins with it. If it has blanks (_), each is filled with one
token. A line such as `/steps 32` or `/sampler ordered` changes an option from there on; options are
composed and checked as those of `platform sample`, and /help lists them. A mistake is one line, and
the session goes on. Lines may also come from a pipe; the exit code then says whether one was a
mistake.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from textwrap import fill
from typing import TYPE_CHECKING, Any, final

from platform_core.cli.parser import show_help
from platform_core.cli.points import notes_once
from platform_core.cli.sample import PAGE, watched
from platform_core.cli.view import add_speed, can_move, require_speed
from platform_core.composition.compose import Composition, compose_saved
from platform_core.composition.options import SampleOptions
from platform_core.composition.words import underscored
from platform_core.errors import EXIT_MISTAKE, UsageError, did_you_mean, one_line, out_of_memory
from platform_core.record.directory import BETWEEN_SAMPLES, RunDirectory, first_argument
from platform_core.registry.loading import load_plugins
from platform_core.runtime import ranks

if TYPE_CHECKING:
    from platform_core.evaluation.samples import Samples
    from platform_core.registry.parts import Plugins

ALONE = ("sampler", "seed", "fps")
"""Options without a section."""

TYPED = ("prompt", "template")
"""Sample options that the lines of the session give."""

OF_TEXTS = tuple(field.name for field in fields(SampleOptions) if field.name not in TYPED)

COMMANDS = {
    "a text": "continue it; or, if it has blanks, fill each with one token",
    "an empty line": "a text from noise alone",
    "/again": "the last text once more, with the next seed",
    "/reset": "all options as at the start",
    "/help": "this page",
    "/quit": "end, as Ctrl-D does",
    "//...": "a text that begins with /",
    "/OPTION VALUE": "change an option from here on; they are now:",
}
"""What a line may be -> what it does."""


def main(argv: Sequence[str]) -> int:
    """Answers line by line until the end; exit code 2 if a line of a pipe was a mistake."""
    if argv[:1] in (["-h"], ["--help"]):
        return show_help("platform chat", __doc__, arguments)
    directory = first_argument(argv, "platform chat RUN")
    if ranks.number() > 1:
        raise UsageError("a chat has one process; leave out torchrun or accelerate launch")
    session = Session(directory, [argv[0], "--sample.number=1", *argv[1:]], load_plugins())
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if at_terminal:
        print(session.greeting())
    mistaken = False
    for line in lines(at_terminal):
        if line.strip() == "/quit":
            break
        try:
            session.answer(line)
        except (ValueError, MemoryError, RuntimeError) as error:
            said = mistake(error)
            if said is None:
                raise
            mistaken = True
            print(f"error: {one_line(said)}", file=sys.stderr)
        except KeyboardInterrupt:
            if not at_terminal:
                raise
            print("stopped; /quit ends", file=sys.stderr)
    return EXIT_MISTAKE if mistaken and not at_terminal else 0


def mistake(error: Exception) -> str | None:
    """What a line is answered with that cannot be; None of an error that is not the user's."""
    if isinstance(error, UsageError):
        return str(error)
    if not isinstance(error, ValueError):
        return out_of_memory(error)
    from platform_core.registry.blame import mistake_of_the_user

    return mistake_of_the_user(error)


def arguments(parser: ArgumentParser) -> None:
    """Adds this verb's own options, those that belong to no part and no section."""
    parser.add_argument("run", metavar="RUN", help="directory of the run")
    add_speed(parser)


def lines(at_terminal: bool) -> Iterator[str]:
    """The lines of standard input, without their ends; a terminal is asked for each."""
    if not at_terminal:
        yield from (line.removesuffix("\n") for line in sys.stdin)
        return
    with suppress(ImportError):
        import readline  # noqa: F401  # lets lines be edited and taken back
    while True:
        try:
            line = input("> ")
        except (EOFError, KeyboardInterrupt) as ended:
            print()
            if isinstance(ended, EOFError):
                return
            raise
        yield line


@final
class Session:
    """A run, and the options that it writes texts with.

    Args:
        directory: directory of the run.
        words: the words after the verb, the run first.
        plugins: the installed plugins.
    """

    def __init__(self, directory: RunDirectory, words: Sequence[str], plugins: "Plugins") -> None:
        self._directory, self._words, self._plugins = directory, words, plugins
        self._noted: set[str] = set()
        self._changes: dict[str, str] = {}
        self._last = ""
        composition, asked = self._compose({})
        self._fps, self._seed = require_speed(asked.fps), composition.seed

        from platform_core.evaluation.trained import TrainedRun
        from platform_core.runtime import accelerator as runtime

        accelerator = runtime.start(composition.train.precision)
        average = composition.sample.weights
        self._run = TrainedRun(directory, composition, accelerator, average=average)
        _ = self._run.built  # a run without a checkpoint is refused before anything is typed

    def greeting(self) -> str:
        """What the run is, and what can be typed."""
        names, run = self._run.composition.names, self._run
        blank = run.composition.sample.blank
        return (
            f"{self._directory.path}: {names['process']} with {names['backbone']}, step {run.step};"
            f" texts of {run.sample_length} tokens\nType the beginning of a text, or one with "
            f"blanks ({blank}). More: /help. End: /quit."
        )

    def answer(self, line: str) -> None:
        """Does what a line asks for.

        Raises:
            UsageError: the line cannot be answered; the session is as before.
        """
        name, _, value = line.strip().removeprefix("/").partition(" ")
        if not line.startswith("/") or line.startswith("//"):
            self._last = line.removeprefix("/")
            self._write(self._last)
        elif name == "again":
            self._write(self._last)
        elif name == "help":
            print(self._help())
        elif name == "reset":
            self._change({}, "seed")
            print("all options are as at the start", file=sys.stderr)
        else:
            key = self._key(name)
            if not value.strip():
                raise UsageError(f"/{name} needs a value; /help shows the present one")
            # Another sampler has options of its own.
            kept = {} if key != "sampler" else {k for k in self._changes if k.startswith("sampler")}
            others = {k: v for k, v in self._changes.items() if k not in {*kept, key}}
            self._change({**others, key: value.strip()}, key)
            print(f"{key} is {value.strip()}", file=sys.stderr)

    def _key(self, name: str) -> str:
        """The whole name of an option, such as sampler.steps for steps."""
        name = underscored([f"--{name}"])[0].removeprefix("--")
        known = {option: option for option in ALONE}
        known |= {option: f"sample.{option}" for option in OF_TEXTS}
        known |= {o: f"sampler.{o}" for o in self._run.composition.options("sampler")}
        section, _, option = name.partition(".")
        if option and section in ("sample", "sampler") and option not in TYPED:
            return name
        if name not in known:
            near = did_you_mean(name, [*known, "again", "help", "quit", "reset"])
            raise UsageError(f"unknown command /{name}{near or '; /help lists them'}")
        return known[name]

    def _change(self, changes: Mapping[str, str], key: str) -> None:
        """Takes over other options; `key` is the one that was named last."""
        composition, asked = self._compose(changes)
        self._fps = require_speed(asked.fps)
        self._run = self._run.with_sampler(composition)
        self._changes = dict(changes)
        if key == "seed":
            self._seed = composition.seed

    def _compose(self, changes: Mapping[str, str]) -> tuple[Composition, Namespace]:
        words = [*self._words, *(f"--{key}={value}" for key, value in changes.items())]
        with notes_once(self._noted):
            return compose_saved(
                self._directory.config,
                words,
                self._plugins,
                prog="platform chat RUN",
                extend=arguments,
                page=PAGE,
            )

    def _write(self, text: str) -> None:
        """Writes what a text asks for, and with which seed; the next text has the next seed."""
        options = self._run.composition.sample
        samples = self._sample("template" if options.blank in text else "prompt", text)
        print(BETWEEN_SAMPLES.join(samples.texts), flush=True)
        name = self._run.composition.names["sampler"]
        print(
            f"  ({name}, seed {self._seed}, {samples.nfe_per_text:.4g} network evaluations, "
            f"{samples.seconds:.1f} s)\n",
            file=sys.stderr,
        )
        self._seed += 1

    def _sample(self, how: str, text: str) -> "Samples":
        given: dict[str, Any] = {**dict.fromkeys(TYPED), how: text or None}
        if can_move():
            return watched(self._run, self._fps, keep=False, seed=self._seed, **given)
        return self._run.sample(seed=self._seed, **given)

    def _help(self) -> str:
        """What a line may be, and the present options, on one screen."""
        composition = self._run.composition
        own = composition.options("sampler")
        options = {
            "sampler": composition.names["sampler"],
            **own,
            "seed": self._seed,
            "fps": f"{self._fps:g}",
            **{name: getattr(composition.sample, name) for name in OF_TEXTS},
        }
        said = "   ".join(f"/{name} {value}".replace(" ", "\0") for name, value in options.items())
        samplers = ", ".join(self._plugins.names("sampler"))
        return "\n".join(
            [
                *(f"  {line:15} {does}" for line, does in COMMANDS.items()),
                _wrapped(said).replace("\0", " "),
                _wrapped(f"samplers: {samplers}"),
            ]
        )


def _wrapped(text: str) -> str:
    indent = " " * 6
    return fill(text, 78, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
