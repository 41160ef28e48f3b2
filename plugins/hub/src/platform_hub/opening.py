"""Functions that open the corpora that this plugin brings to `--data.corpus`.

This module and the library datasets are imported when such a corpus is chosen.
"""

from dataclasses import replace
from pathlib import Path

from platform_core.composition.options import DataOptions
from platform_core.data.corpus import Corpus
from platform_core.errors import UsageError
from platform_hub import catalogue
from platform_hub.corpus import from_files, from_hub, from_saved
from platform_hub.names import SUFFIXES, names


def open_files(options: DataOptions) -> Corpus:
    """Open the user's own JSON Lines or Parquet files."""
    return from_files(options.corpus, options)


def open_saved(options: DataOptions) -> Corpus:
    """Open a folder that `save_to_disk` of datasets wrote."""
    return from_saved(options)


def open_entry(options: DataOptions) -> Corpus:
    """Open a corpus of the catalogue by its name, or one that a YAML file describes."""
    if options.corpus.endswith(SUFFIXES):
        entry = catalogue.read(Path(options.corpus).expanduser())
    elif f".{options.corpus}" in SUFFIXES:
        raise UsageError(
            f"corpus {options.corpus} is a file that describes one: --data.corpus FILE."
            f"{options.corpus}"
        )
    else:
        entry = catalogue.read(names()[options.corpus.replace("_", "-")])
    return from_hub(replace(entry, column=options.column or entry.column), options.path)
