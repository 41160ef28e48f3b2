"""Names of the tasks that lm-evaluation-harness brings, found without importing it.

The library parses its 14,000 files whenever it is asked for a task, for up to a minute. Whether a
name can be among them is known at once from the lines of these files that name tasks, groups and
tags; these lines are read once for each version of the library.
"""

import importlib.metadata
import json
import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from platform_core.data.cache import cached
from platform_core.errors import UsageError, did_you_mean
from platform_core.record.files import write_json

_NAMING = re.compile(
    r"""^[ ]*(?:-[ ]+)?["']?(?:task|group|tag)["']?[ ]*:[ ]*(?P<value>[^\n]*)
        (?P<list>(?:\n[ ]*-[ ][^\n]*|\n[ ]*(?:\#[^\n]*)?(?=\n[ ]*-[ ]))*)""",
    re.MULTILINE | re.VERBOSE,
)
"""A key that names tasks, its value on the same line, and the lines of a list below it."""

_NAME = re.compile(r"[^\s\[\]{},\"'#:]+")


def names_in(text: str) -> Iterator[str]:
    """Every word of a YAML file that may be the name of a task, a group or a tag."""
    for found in _NAMING.finditer(text):
        yield from _NAME.findall(found["value"])
        yield from _NAME.findall(found["list"].replace("\n", " "))


def library_names() -> set[str] | None:
    """All that may be names of the library's tasks; None where the library is not found."""
    try:
        spec, version = find_spec("lm_eval"), importlib.metadata.version("lm_eval")
    except (ValueError, ImportError):
        return None
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "tasks"

    def build(path: Path) -> None:
        write_json(path / "names.json", {"names": sorted(names_below(folder))})

    entry = cached("tasks", ("lm_eval", version, str(folder)), build)
    return set(json.loads((entry / "names.json").read_text(encoding="utf-8"))["names"])


def names_below(folder: Path) -> set[str]:
    """The names in the task files of a folder, and in those without suffix that they include."""
    files = (path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml", ""))
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in files if path.is_file())
    return {name for text in texts for name in names_in(text)} - {"-"}


def require_known(
    names: Iterable[str], own: Iterable[str] = (), folder: Path | None = None
) -> None:
    """Refuse a name that no task can have.

    Args:
        names: as they were asked for.
        own: names of the user's own tasks.
        folder: where the user's own tasks are.

    Raises:
        UsageError: neither the library nor the user has a task of a name.
    """
    known = library_names()
    if known is None:
        return
    for name in names:
        if name not in known and name not in (own := list(own)):
            near = did_you_mean(name, [*own, *sorted(known)])
            raise UsageError(
                f"no task {name!r} in lm_eval {importlib.metadata.version('lm_eval')}"
                + (f" or {folder}" if folder else "")
                + (near or "; give a task of your own with --task_path DIR")
            )
