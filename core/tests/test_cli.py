"""The command: dispatch, exit codes, options of every verb, and how little start-up imports."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import platform_core.cli as cli
from platform_core.cli import TOOLS, main, split_global_options, verbs
from platform_core.errors import UsageError

STUBS = Path(__file__).parent / "stub_parts.py"
HEAVY = ("torch", "accelerate", "datasets", "transformers", "aim", "pandas", "numpy")
COMPOSE = """
from platform_core.composition.compose import compose
from platform_core.registry.loading import load_plugins
from platform_core.errors import UsageError
try:
    compose({argv!r}, load_plugins({{}}), prog="platform run", environ={{}})
except UsageError as error:
    assert "unknown process" in str(error), error
else:
    raise SystemExit("no error")
"""


def python(code: str) -> None:
    """Runs code in a fresh interpreter and checks what it imported."""
    check = (
        f"import sys\nheavy = sorted(set(sys.modules) & set({HEAVY!r}))\nassert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["plugins"], ["plugins", "--json"]])
def test_start_up_imports_nothing_heavy(argv: Sequence[str]) -> None:
    python(f"from platform_core.cli import main\nassert main({argv!r}) == 0\n")


@pytest.mark.parametrize("argv", [["--process", "dou"], ["--process", "dou", "--help"]])
def test_an_unknown_name_is_reported_before_anything_heavy_is_imported(argv: Sequence[str]) -> None:
    python(COMPOSE.format(argv=argv))


def test_help_lists_the_verbs_that_are_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOOLS, "not-yet", ("not_yet", "a verb of a plugin that is not installed"))
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert verbs()["plugins"] in text
    assert "not-yet" not in text


def test_no_words_at_all_are_answered_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("usage: platform VERB")


def test_version_names_the_platform(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("platform 0.")


def test_an_unknown_verb_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin"]) == 2
    expected = "platform: error: unknown verb 'plugin'; did you mean plugins?\n"
    assert capsys.readouterr().err == expected


def test_a_mistake_names_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--jsno"]) == 2
    error = capsys.readouterr().err
    assert error == "platform plugins: error: unrecognized arguments: --jsno\n"


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (UsageError("x"), 2)])
def test_interruptions_and_mistakes_have_exit_codes_and_no_traceback(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(verb: str, argv: Sequence[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert main(["plugins"]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from platform_core.cli import main; sys.exit(main(['plugins']))"
    result = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert result.stderr == ""
    assert result.returncode == 141


def test_options_of_every_verb_may_stand_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_DISABLE_PLUGINS", "dit")
    monkeypatch.delenv("PLATFORM_PLUGINS", raising=False)
    argv = ["-p", "no:duo", "run", "--strict-plugins", "--process", "x", "-p", "x.py", "-p=a.b"]
    rest, settings = split_global_options(argv)
    assert rest == ["run", "--process", "x"]
    assert settings == {
        "PLATFORM_STRICT_PLUGINS": "1",
        "PLATFORM_PLUGINS": f"{Path('x.py').absolute()},a.b",
        "PLATFORM_DISABLE_PLUGINS": "dit,duo",
    }


@pytest.mark.parametrize("argv", [["plugins", "-p"], ["-p", "--json", "plugins"]])
def test_a_plugin_option_needs_a_value(
    argv: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err == "platform: error: -p needs FILE.py, a module, or no:NAME\n"


def test_settings_of_one_command_do_not_outlive_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLATFORM_DISABLE_PLUGINS", raising=False)
    assert main(["-p", "no:duo", "plugins"]) == 0
    assert "PLATFORM_DISABLE_PLUGINS" not in os.environ


def test_plugins_shows_what_is_broken_with_its_traceback_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "acme_broken_file.py"
    file.write_text("import not_installed_anywhere\n")
    assert main(["plugins", "-p", str(file)]) == 0
    text = capsys.readouterr().out
    assert "broken: plugin acme_broken_file (file " in text
    assert "Traceback" not in text
    assert main(["plugins", "-v", "-p", str(file)]) == 0
    text = capsys.readouterr().out
    assert "Traceback" in text
    assert "  platform_processes" in text


def test_strict_plugins_lists_all_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "acme_broken_file.py"
    file.write_text("import not_installed_anywhere\n")
    assert main(["plugins", "--strict-plugins", "-p", str(file)]) == 2
    printed = capsys.readouterr()
    assert "absorbing" in printed.out
    assert printed.err.startswith("platform plugins: error: plugin acme_broken_file")


def test_the_listing_is_there_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json", "-p", str(STUBS)]) == 0
    listing = json.loads(capsys.readouterr().out)
    first = next(part for part in listing["components"] if part["name"] == "first")
    assert first["role"] == "process"
    assert first["defaults"]["sampler.steps"] == 7
    assert {"core", "stub_parts"} <= {plugin["name"] for plugin in listing["plugins"]}


def test_the_matrix_says_what_goes_with_what(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--matrix", "--json", "-p", str(STUBS)]) == 0
    processes = json.loads(capsys.readouterr().out)["process"]
    assert "only-uniform" in processes["second"]["objective"]
    assert "only-uniform" not in processes["first"]["objective"]
    assert "nelbo" in processes["first"]["objective"]
    assert "unfinished" not in processes["first"]["backbone"]


def test_the_matrix_is_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--matrix", "-p", str(STUBS)]) == 0
    lines = capsys.readouterr().out.splitlines()
    header = lines[0].split()
    assert header[0] == "process"
    assert {"objective", "sampler", "parameterization"} <= set(header)
    assert "only-uniform" in next(line for line in lines if line.startswith("second "))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 7.45 GiB for an array with shape (10, 10)"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 1 GiB free"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_memory_that_cannot_be_had_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(verb: str, argv: Sequence[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert main(["run"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("platform run: error: there is not enough memory for what ")
    assert said.count("\n") == 1
    amount = re.search(r"[\d.]+ (GiB|bytes)", str(error))
    assert amount is None or amount[0] in said


def test_another_failure_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(verb: str, argv: Sequence[str]) -> int:
        raise RuntimeError("a defect")

    monkeypatch.setattr(cli, "_dispatch", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        main(["run"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_any_command_with_a_word(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait(verb: str, argv: Sequence[str]) -> int:
        os.kill(os.getpid(), number)
        return 0

    before = signal.getsignal(number)
    monkeypatch.setattr(cli, "_dispatch", wait)
    assert main(["eval"]) == 75
    assert capsys.readouterr().err == f"platform eval: stopped by {signal.Signals(number).name}\n"
    assert signal.getsignal(number) == before
