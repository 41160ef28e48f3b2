"""Names of the corpora: the YAML files of this package and of PLATFORM_CORPORA.

This module is separate from `catalogue`, which reads the files, so that registering the names
imports next to nothing.
"""

import os
from pathlib import Path

from platform_core.errors import UsageError

SUFFIXES = (".yaml", ".yml")


def names() -> dict[str, Path]:
    """The file of each corpus, by its name; files of PLATFORM_CORPORA replace the package's.

    Names are those of the files with hyphens for underscores, as components are named.

    Raises:
        UsageError: PLATFORM_CORPORA is no directory.
    """
    folders = [Path(__file__).parent / "corpora"]
    if more := os.environ.get("PLATFORM_CORPORA"):
        folders.append(Path(more).expanduser())
        if not folders[-1].is_dir():
            raise UsageError(f"PLATFORM_CORPORA is {more}, which is no directory")
    files = (file for folder in folders for file in sorted(folder.iterdir()))
    return {file.stem.replace("_", "-"): file for file in files if file.suffix in SUFFIXES}
