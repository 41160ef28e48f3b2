"""The command `platform`: finds the verb and reports mistakes in one line.

Imports nothing of weight, so that `platform --help` is immediate; a verb is the module of its name
in this package (`import_` for import, which Python keeps for itself), with `main(argv) -> exit
code`, imported when it is asked for.
"""

import keyword
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec

from platform_core.errors import UsageError
from platform_core.wording import did_you_mean

VERBS = {
    "run": "train a model, evaluate and sample it",
    "eval": "the bound of a trained network; its samples judged; tasks",
    "sample": "draw texts from a trained network",
    "sweep": "train many models that differ in a few options, checked before any starts",
    "compare": "numbers of runs in one table, if they were measured alike",
    "report": "tables, plots and a page of a sweep",
    "tokenizer": "train a vocabulary of pieces of words",
    "import": "make a run of a published checkpoint",
    "export": "make a folder for transformers of a run",
    "check": "test parts against the laws of their roles",
    "new-plugin": "write a package with a part of your own",
    "plugins": "list the parts that are installed, and what goes with what",
    "dashboard": "show the curves of runs in Aim's web interface",
    "bench": "measure what training and sampling cost, in time and memory, side by side",
}

USAGE = """\
usage: platform VERB [options]     platform VERB --help says more

verbs:
{verbs}

options of every verb:
  -p FILE.py     load a plugin from a file; -p PACKAGE.MODULE from a module; may be repeated
  -p no:NAME     leave out a plugin, by its name or its distribution's
  --strict-plugins
                 stop if a plugin is broken or in conflict
  --version      print versions
"""

BROKEN_PIPE = 141
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 2 is a mistake of the user's, reported in one line."""
    command = "platform"
    try:
        words, settings = split_global_options(sys.argv[1:] if argv is None else argv)
        verb = words[0] if words else "--help"
        command = f"platform {verb}" if verb in verbs() else command
        with environment(settings):
            code = _dispatch(verb, words[1:])
        sys.stdout.flush()
    except UsageError as error:
        print(f"{command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone; what is left in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        # A full disk, a directory that may not be written: the machine's state, not a defect.
        print(f"{command}: error: {error}", file=sys.stderr)
        return 2
    return code


def verbs() -> dict[str, str]:
    """The verbs of this installation, with a line each."""
    return {verb: line for verb, line in VERBS.items() if find_spec(module(verb))}


def module(verb: str) -> str:
    """The module of a verb."""
    name = verb.replace("-", "_")
    return f"{__name__}.{name}_" if keyword.iskeyword(name) else f"{__name__}.{name}"


def _dispatch(verb: str, argv: Sequence[str]) -> int:
    if verb in ("-h", "--help", "help"):
        print(USAGE.format(verbs="\n".join(f"  {v:<12} {line}" for v, line in verbs().items())))
        return 0
    if verb == "--version":
        print(_version())
        return 0
    if verb not in verbs():
        near = did_you_mean(verb, verbs())
        raise UsageError(f"unknown verb {verb!r}{near or '; verbs: ' + ', '.join(verbs())}")
    code: int = import_module(module(verb)).main(argv)
    return code


def _version() -> str:
    from importlib.metadata import version

    return f"platform {version('dlm-platform-core')}, Python {sys.version.split()[0]}"


def split_global_options(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words that are the verb's, and the options of every verb as environment variables.

    Variables, so that processes which a verb starts load the same plugins.

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
    """Environment variables for the time of one command."""
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
