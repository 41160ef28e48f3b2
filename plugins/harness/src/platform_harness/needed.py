"""The task files of lm-evaluation-harness that some names need, without those of all others.

The library parses its 14,000 files, which takes ten seconds, whenever it is asked for a task. What
it found is kept here once for each state of these files: the file of each name, and the names that
a group or a tag stands for. The library is then given a folder of links to the needed files only.
"""

import importlib.metadata
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.tasks import TaskManager

from platform_core.data.cache import cached
from platform_core.record.files import write_json

FOLDER = Path(lm_eval.tasks.__file__).parent


def manager_of(names: Iterable[str], folder: Path | None) -> TaskManager | None:
    """The library's tasks of these names, and the user's own; None if not all are found so.

    Args:
        names: names of tasks, groups or tags, also those that the user's own groups may hold.
        folder: where the user's own tasks are.
    """
    known = _index()
    if not set(names) & known.keys():
        return None
    own = [] if folder is None else [str(folder)]
    with _links(_files(names, known)) as links:
        manager = TaskManager(include_path=[str(links), *own], include_defaults=False)
        for entry in manager.task_index.values():
            if entry.yaml_path is not None:
                entry.yaml_path = entry.yaml_path.resolve()  # the links are gone when it is read
    return manager


def _files(names: Iterable[str], known: Mapping[str, Any]) -> set[str]:
    """The files of names, and of all that these names stand for."""
    waiting, seen, files = list(names), set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in known:
            continue
        seen.add(name)
        waiting += known[name]["of"]
        files |= {known[name]["file"]} - {None}
    return files


@contextmanager
def _links(files: Iterable[str]) -> Iterator[Path]:
    """A folder for the time of the block, with links to files in the places that they have."""
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            link = Path(folder) / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(FOLDER / file)
        yield Path(folder)


def _index() -> Mapping[str, Any]:
    """Name -> its file below `FOLDER`, and the names that it stands for."""

    def build(path: Path) -> None:
        manager = TaskManager()
        tags = set(manager.all_tags)
        found = {
            name: {
                "file": entry.yaml_path and str(entry.yaml_path.relative_to(FOLDER)),
                "of": sorted(entry.tags) if name in tags else sorted(_children(entry.cfg)),
            }
            for name, entry in manager.task_index.items()
        }
        write_json(path / "index.json", found)

    seen = [path.stat() for path in FOLDER.rglob("*.y*ml")]
    state = [len(seen), sum(s.st_size for s in seen), max(s.st_mtime_ns for s in seen)]
    version = importlib.metadata.version("lm_eval")
    entry = cached("tasks", ("lm_eval index", version, str(FOLDER), state), build)
    index: Mapping[str, Any] = json.loads((entry / "index.json").read_text(encoding="utf-8"))
    return index


def _children(config: object) -> Iterator[str]:
    """The names in the lists of a group, at any depth."""
    if isinstance(config, dict):
        yield from (config[key] for key in ("task", "group") if isinstance(config.get(key), str))
        config = config.get("task")
    for child in config if isinstance(config, list) else ():
        yield from [child] if isinstance(child, str) else _children(child)
