"""The page of `platform run --help`, printed from the cache: making it imports torch, for seconds.

A page is kept under everything that determines it: the words, the width of the terminal, the
variables of the platform, and the times of all source files of the plugins. Pages of config files
and of runs are made anew each time.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from platform_core.data.cache import CacheError, cached
from platform_core.registry.parts import Plugins

HELP = ("-h", "--help")
PAGE = "page.txt"


def print_help(words: Sequence[str], plugins: Plugins, make: Callable[[], object]) -> None:
    """Prints the page of some words, from the cache if it has been made before.

    Args:
        words: the words after the verb, `--help` among them.
        plugins: the installed plugins.
        make: prints the page, and exits.

    Raises:
        UsageError: the words ask for something that there is not.
    """

    def build(folder: Path) -> None:
        said = StringIO()
        try:
            with redirect_stdout(said):
                make()
        except SystemExit as stop:
            if stop.code:
                raise
        (folder / PAGE).write_text(said.getvalue(), encoding="utf-8")

    columns = shutil.get_terminal_size().columns
    named = sorted(pair for pair in os.environ.items() if pair[0].startswith("PLATFORM_"))
    try:
        entry = cached("help", (list(words), columns, named, list(_sources(plugins))), build)
    except CacheError:
        make()
    else:
        print((entry / PAGE).read_text(encoding="utf-8"), end="")


def can_be_kept(words: Sequence[str]) -> bool:
    """Whether words ask for a page that no file but the sources has a part in."""
    files = ("--config", "--init", "--resume", "--print_config")
    return any(word in HELP for word in words) and not any(
        word.partition("=")[0].partition(".")[0] in files for word in words
    )


def _sources(plugins: Plugins) -> Iterator[tuple[str, str, int]]:
    """Path, version and time of every source file of core and of the plugins."""
    yield "python", sys.version, 0
    places = {"platform_core": ""}
    places |= {plugin.value.partition(".")[0]: plugin.version for plugin in plugins.plugins}
    for name, version in sorted(places.items()):
        file = getattr(sys.modules.get(name), "__file__", None) or name
        path = Path(file)
        found = path.parent.rglob("*.py") if path.name == "__init__.py" else [path]
        for source in sorted(found):
            yield str(source), version, source.stat().st_mtime_ns if source.is_file() else 0
