"""Run directories: one writer at a time, and nothing lost that was not to be replaced."""

from pathlib import Path

import pytest

from platform_core.errors import UsageError
from platform_core.record.directory import LOCK, RunDirectory
from platform_core.record.locks import BusyError, take


def begin(output: Path | None, *, overwrite: bool = False) -> Path:
    with RunDirectory.new(output, default="mdlm-dit", overwrite=overwrite) as run:
        run.create()
        run.config.write_text("seed: 1\n")
        return run.path


def test_a_directory_has_one_writer_and_no_lock_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "r"
    with RunDirectory.new(path, default="x", overwrite=False) as run:
        for overwrite in (False, True):
            with pytest.raises(BusyError, match="written by another process"), run.held():
                pass
            with (
                pytest.raises(BusyError),
                RunDirectory.new(path, default="x", overwrite=overwrite),
            ):
                pass
    assert not (tmp_path / "new").exists(), "nothing was written, so nothing is left"


def test_default_names_are_unique(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "20260101-000000")
    with (
        RunDirectory.new(None, default="x", overwrite=False) as first,
        RunDirectory.new(None, default="x", overwrite=False) as second,
    ):
        assert first.path.name == "x-20260101-000000"
        assert second.path.name == "x-20260101-000000-2"
    assert not Path("runs").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_start_that_was_killed_is_taken(tmp_path: Path, overwrite: bool) -> None:
    path = tmp_path / "r"
    run = RunDirectory(path)
    for upto in range(6):
        run.samples.mkdir(parents=True, exist_ok=True)
        names = [LOCK, ".tokenizer.json.partial", "tokenizer.json", "labels.json", "init.json"]
        for name in names[:upto]:
            (path / name).touch()
        assert begin(path, overwrite=overwrite) == path
        run.config.unlink()


def test_what_was_being_replaced_is_replaced_only_where_that_is_asked(tmp_path: Path) -> None:
    run = RunDirectory(begin(tmp_path / "r"))
    (run.path / LOCK).touch()
    run.metrics.touch()
    run.config.unlink()
    with pytest.raises(UsageError, match="exists"):
        begin(run.path)
    assert begin(run.path, overwrite=True) == run.path
    assert not run.metrics.exists()


@pytest.mark.parametrize("name", ["thesis.tex", "tokenizer.json", "samples/one.txt"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_left_alone(tmp_path: Path, name: str, overwrite: bool) -> None:
    file = tmp_path / "r" / name
    file.parent.mkdir(parents=True)
    file.write_text("years of work")
    with pytest.raises(UsageError):
        begin(tmp_path / "r", overwrite=overwrite)
    assert file.read_text() == "years of work"
    assert not (tmp_path / "r" / LOCK).exists()


def test_a_lock_that_somebody_holds_is_found_after_a_kill_too(tmp_path: Path) -> None:
    with take(tmp_path / LOCK), pytest.raises(BusyError), RunDirectory(tmp_path).held():
        pass
    with RunDirectory(tmp_path).held():
        pass
    assert not (tmp_path / LOCK).exists()


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for name in ("step-9999999", "step-10000000", ".step-0000003.partial", "step-x"):
        (run.checkpoints / name).mkdir(parents=True)
    assert run.steps() == [9_999_999, 10_000_000]
