"""Pages of help: made once, printed from the cache, made again when anything about them changes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from platform_core.cli import kept_help, main
from platform_core.cli.kept_help import can_be_kept, print_help
from platform_core.errors import UsageError
from platform_core.registry.loading import installed


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "cache"


class Page:
    """Counts how often it is made."""

    made = 0

    def __call__(self) -> None:
        self.made += 1
        print(f"page {self.made}")
        raise SystemExit(0)


def test_a_page_is_made_once_and_again_for_other_words_and_widths(capsys, monkeypatch):
    page = Page()
    for _ in range(2):
        print_help(["--help"], installed(), page)
    assert capsys.readouterr().out == "page 1\n" * 2
    print_help(["--process=x", "--help"], installed(), page)
    monkeypatch.setenv("COLUMNS", "60")
    print_help(["--help"], installed(), page)
    monkeypatch.setenv("PLATFORM_PROCESS", "mdlm")
    print_help(["--help"], installed(), page)
    assert capsys.readouterr().out == "page 2\npage 3\npage 4\n"


def test_a_page_is_made_again_after_a_change_of_a_source(capsys, monkeypatch):
    page, time = Page(), 1
    monkeypatch.setattr(kept_help, "_sources", lambda plugins: [("a.py", "", time)])
    print_help(["--help"], installed(), page)
    print_help(["--help"], installed(), page)
    time = 2
    print_help(["--help"], installed(), page)
    assert capsys.readouterr().out == "page 1\npage 1\npage 2\n"


def test_the_sources_of_core_are_among_what_determines_a_page():
    sources = {Path(path).name for path, _, _ in kept_help._sources(installed())}
    assert {"options.py", "process.py", "kept_help.py"} <= sources


def test_a_mistake_is_not_kept(cache):
    def refuse() -> None:
        raise UsageError("unknown process")

    for _ in range(2):
        with pytest.raises(UsageError, match="unknown process"):
            print_help(["--help"], installed(), refuse)
    assert not [path for path in cache.glob("help/*") if path.is_dir()]


def test_without_a_cache_the_page_is_made(cache, capsys):
    cache.write_text("a file")
    with pytest.raises(SystemExit):
        print_help(["--help"], installed(), Page())
    assert capsys.readouterr().out == "page 1\n"


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--help"], True),
        (["-h", "--process=duo"], True),
        (["--process=duo"], False),
        (["--config=a.yaml", "--help"], False),
        (["--config", "a.yaml", "--help"], False),
        (["--init.run=x", "--help"], False),
        (["--resume", "x", "-h"], False),
    ],
)
def test_pages_that_depend_on_files_are_not_kept(words, kept):
    assert can_be_kept(words) is kept


def test_the_kept_page_is_the_page(stub_parts, capsys):
    words = ["run", "--help"]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert main(words) == 0
    assert capsys.readouterr().out == first
    assert "--train.steps" in first


@pytest.mark.slow
def test_a_kept_page_is_printed_without_torch(monkeypatch):
    monkeypatch.delenv("PLATFORM_PLUGINS", raising=False)  # stubs import torch
    code = (
        "import sys; from platform_core.cli import main; main(['run', '--help']); "
        "print('torch' in sys.modules)"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
        ).stdout
        for _ in range(2)
    ]
    assert [page.endswith("True\n") for page in told] == [True, False]
    assert told[0].removesuffix("True\n") == told[1].removesuffix("False\n")
