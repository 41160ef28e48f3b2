"""Which corpus `--data.corpus` means: one of the platform's own, of your files, or of the hub."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from platform_core import catalogue
from platform_core.corpus import Corpus, Sotu, TextFiles
from platform_core.errors import UsageError
from platform_core.options import DataOptions
from platform_core.wording import did_you_mean


def open_corpus(options: DataOptions) -> Corpus:
    """The corpus that the options name.

    Raises:
        UsageError: there is none of that name, or the options do not suit it.
    """
    if options.corpus in CORPORA:
        return CORPORA[options.corpus](options)
    entry = catalogue.find(options.corpus)
    if entry is None:
        known = (*CORPORA, *catalogue.names())
        raise UsageError(
            f"unknown corpus {options.corpus} (there are {', '.join(known)}, and .yaml files)"
            f"{did_you_mean(options.corpus, known)}"
        )
    from platform_core import library

    return library.from_hub(replace(entry, column=options.column or entry.column), options.path)


def _sotu(options: DataOptions) -> Corpus:
    if options.path is not None:
        raise UsageError(
            f"corpus sotu has no --data.path; for {options.path} add --data.corpus text"
        )
    _require_plain(options)
    return Sotu()


def _text(options: DataOptions) -> Corpus:
    if options.path is None:
        raise UsageError(
            "corpus text needs --data.path: a file, a directory of .txt files, or a glob"
        )
    _require_plain(options)
    return TextFiles(options.path)


def _require_plain(options: DataOptions) -> None:
    if options.column is not None:
        raise UsageError(
            f"corpus {options.corpus} has no --data.column; for a table, choose --data.corpus json,"
            " parquet or saved"
        )
    if options.streaming:
        raise UsageError(
            f"corpus {options.corpus} is not streamed; leave out --data.streaming, or choose "
            "--data.corpus json, parquet, saved or one of the hub"
        )


def _files(options: DataOptions) -> Corpus:
    from platform_core import library

    return library.from_files(options.corpus, options)


def _saved(options: DataOptions) -> Corpus:
    from platform_core import library

    return library.from_saved(options)


CORPORA: Mapping[str, Callable[[DataOptions], Corpus]] = {
    "sotu": _sotu,
    "text": _text,
    "json": _files,
    "parquet": _files,
    "saved": _saved,
}
"""Those with a rule of their own; the others are in the `catalogue`."""
