"""The command `platform`: finds the verb and reports mistakes in one line.

Imports nothing heavy, so that `platform --help` answers at once. Core's own verbs are modules of
this package with `main(argv) -> exit code`; other verbs come from plugins through the hook
`platform_commands`. The verbs of the platform's own plugins are listed here, so that the help
imports no plugin.
"""

import atexit
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from signal import SIG_IGN, SIGTERM, SIGUSR1, signal
from typing import Any

from platform_core.cli.terminal import without_failing
from platform_core.errors import (
    EXIT_BROKEN_PIPE,
    EXIT_CTRL_C,
    EXIT_INTERRUPTED,
    EXIT_MISTAKE,
    SeveralMistakesError,
    UsageError,
    did_you_mean,
    one_line,
    out_of_memory,
)
from platform_core.record.progress import working
from platform_core.registry.verbs import OWN_VERBS
from platform_core.runtime import ranks
from platform_core.runtime.signals import Stopped, ignored, stoppable

TOOLS = {
    "sweep": ("sweep", "train many models that differ in a few options, checked before any starts"),
    "compare": ("report", "show numbers of several runs, if measured alike, in one table"),
    "report": ("report", "make tables, plots and a web page of a sweep"),
    "import": ("published", "make a run directory from a published checkpoint"),
    "export": ("published", "export a run as a folder for transformers"),
    "dashboard": ("aim", "show the curves of runs in Aim's web interface"),
    "bench": ("bench", "measure time and memory of training and sampling, side by side"),
}
"""Verb -> (the platform's plugin that provides the verb, the verb's line in `platform --help`)."""

USAGE = """\
usage: platform VERB [options]     platform VERB --help says more

verbs:
{verbs}

options of every verb:
  -p FILE.py     load a plugin from a file; -p PACKAGE.MODULE from a module; may be repeated
  -p no:NAME     leave out the plugin, or the distribution, called NAME
  --strict-plugins
                 stop if a plugin is broken or in conflict
  --version      print versions

Plugins may bring more verbs: `platform plugins` lists them.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; a user's mistake is reported in one line."""
    command = "platform"
    without_failing()
    if argv is None:
        atexit.register(_finish_undisturbed)
    try:
        words, settings = split_global_options(sys.argv[1:] if argv is None else argv)
        verb = words[0] if words else "--help"
        command = f"platform {verb}" if verb in verbs() else command
        with stoppable(SIGTERM, SIGUSR1), environment(settings):
            code = _dispatch(verb, words[1:])
            ranks.let_go()
            sys.stdout.flush()
            if argv is None:
                _leave_with(code)
    except ranks.LeftError as error:
        return _mistake(str(error), last=argv is None)
    except UsageError as error:
        lines = str(error).splitlines() if isinstance(error, SeveralMistakesError) else [str(error)]
        shown = [f"{'  ' if line.startswith(' ') else ''}{one_line(line)}" for line in lines]
        return _mistake(f"{command}: error: {os.linesep.join(shown)}", last=argv is None)
    except Stopped as stopped:
        _complain(f"{command}: stopped by {stopped.name}")
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        return EXIT_CTRL_C
    except BrokenPipeError:
        # The reader closed the pipe; flushing the rest of the buffer at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except OSError as error:
        # A full disk or an unwritable directory is the machine's state, not a defect.
        line = f"{command}: error: {one_line(out_of_memory(error) or error)}"
        return _mistake(line, last=argv is None)
    except (MemoryError, RuntimeError) as error:
        with _undisturbed():
            said = out_of_memory(error)
            why = f"{command}: error: {one_line(said)}" if said else ranks.lost(error, command)
            if why is None:
                raise
            return _mistake(why, last=argv is None, patience=ranks.LAST_WORDS)
    return code


def _complain(line: str) -> None:
    working("")
    if ranks.speaks(line):
        print(line, file=sys.stderr)


def _mistake(line: str, *, last: bool, patience: float = ranks.PATIENCE) -> int:
    """Says what was wrong and returns the exit code; of several processes all leave with it.

    Args:
        line: what to say.
        last: whether the process ends afterwards.
        patience: seconds to wait for the others to leave.
    """
    with _undisturbed():
        _complain(line)
        ranks.part(patience)
    if last and ranks.number() > 1:
        _leave_with(EXIT_MISTAKE)
    return EXIT_MISTAKE


def _undisturbed() -> AbstractContextManager[None]:
    """One of several processes says why it leaves, though its launcher tells it to leave.

    Launchers tell all processes to leave as soon as one has left.
    """
    return ignored(SIGTERM, SIGUSR1) if ranks.number() > 1 else nullcontext()


def _leave_with(code: int) -> None:
    """A signal that comes once all is done, while the process ends, leaves it its exit code."""
    for number in (SIGTERM, SIGUSR1):
        signal(number, lambda *_: os._exit(code))


def _finish_undisturbed() -> None:
    """Ignores signals from the end of the last exit function on, where Python drops handlers."""
    for number in (SIGTERM, SIGUSR1):
        signal(number, SIG_IGN)


def verbs() -> dict[str, str]:
    """The platform's own installed verbs, each with its line of help; imports no plugin."""
    own = {verb: line for verb, (_, line) in OWN_VERBS.items()}
    tools = {v: line for v, (name, line) in TOOLS.items() if find_spec(f"platform_{name}")}
    return own | tools


def _dispatch(verb: str, argv: Sequence[str]) -> int:
    if verb in ("-h", "--help", "help"):
        print(USAGE.format(verbs="\n".join(f"  {v:<12} {line}" for v, line in verbs().items())))
        return 0
    if verb == "--version":
        print(_version())
        return 0
    try:
        code: int = _main(verb)(argv)
    except UsageError:
        raise
    except ValueError as error:
        from platform_core.registry.blame import mistake_of_the_user

        said = mistake_of_the_user(error)
        if said is None:
            raise
        raise UsageError(said) from error
    return code


def _main(verb: str) -> Any:
    """The `main` function of a verb.

    Raises:
        UsageError: there is no such verb, or its plugin cannot be used.
    """
    if verb in OWN_VERBS:
        return import_module(f"{__name__}.{OWN_VERBS[verb][0]}").main
    from platform_core.registry.loading import installed

    plugins = installed()
    if plugins.find("command", verb):
        return plugins.load("command", verb)
    known = [*OWN_VERBS, *(v for v in plugins.names("command") if v not in OWN_VERBS)]
    near = did_you_mean(verb, known) or f"; verbs: {', '.join(known)}"
    said = [f"unknown verb {verb!r}{near}"]
    if verb in TOOLS:
        name = TOOLS[verb][0]
        said = [f"the verb {verb} comes with dlm-platform-{name}: {plugins.absence(name)}"]
    said += plugins.left_out()
    raise UsageError("; ".join(said))


def _version() -> str:
    from importlib.metadata import version

    return f"platform {version('dlm-platform-core')}, Python {sys.version.split()[0]}"


def split_global_options(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Splits a command line into the verb's words and the global options.

    The global options become environment variables, so that processes which a verb starts load the
    same plugins.

    Raises:
        UsageError: -p has no value.
    """
    rest: list[str] = []
    named: list[str] = []
    disabled: list[str] = []
    settings = {}
    words = iter(argv)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word == "--strict-plugins":
            settings["PLATFORM_STRICT_PLUGINS"] = "1"
        elif word == "-p" or word.startswith("-p="):
            value = word[3:] or next(words, "")
            if not value or value.startswith("-"):
                raise UsageError("-p needs FILE.py, a module, or no:NAME")
            if value.startswith("no:"):
                disabled.append(value[3:])
            else:
                named.append(os.path.abspath(value) if value.endswith(".py") else value)
        else:
            rest.append(word)
    for variable, more in (
        ("PLATFORM_PLUGINS", named),
        ("PLATFORM_DISABLE_PLUGINS", disabled),
    ):
        if more:
            settings[variable] = ",".join([*_present(variable), *more])
    return rest, settings


def _present(variable: str) -> list[str]:
    return [os.environ[variable]] if os.environ.get(variable) else []


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for the duration of one command."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
