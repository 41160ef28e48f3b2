"""Corpora of core and of the plugin hub by name."""

from pathlib import Path

import pytest

from platform_core.composition.options import DataOptions
from platform_core.data.corpus import open_corpus
from platform_core.errors import UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("PLATFORM_CACHE", str(path))
    return path


def test_corpus_names_and_paths_are_checked() -> None:
    with pytest.raises(UsageError, match="unknown corpus 'sotus'; did you mean sotu\\? known: "):
        open_corpus(DataOptions(corpus="sotus"))
    with pytest.raises(
        UsageError, match=r"unknown corpus 'wikipedia'; known: .* json \(dlm-platform-hub"
    ):
        open_corpus(DataOptions(corpus="wikipedia"))
    with pytest.raises(UsageError, match=r"corpus text needs --data\.path"):
        open_corpus(DataOptions(corpus="text"))
    with pytest.raises(UsageError, match=r"for my\.txt add --data\.corpus text"):
        open_corpus(DataOptions(path="my.txt"))
