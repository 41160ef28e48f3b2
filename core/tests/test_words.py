"""What commands say: at once, of what they are given, and in words that can be pasted."""

import io
import json
import shlex
import sys
from pathlib import Path

import pytest

from platform_core.cli import run
from platform_core.cli.parser import command
from platform_core.cli.terminal import without_failing
from platform_core.errors import UsageError
from platform_core.record.directory import RunDirectory
from platform_core.record.files import digest
from platform_core.training.trackers import TensorBoard


def test_a_directory_of_a_sweep_is_called_one_and_its_trials_are_named(tmp_path: Path) -> None:
    (tmp_path / "trials.json").write_text("{}")
    with pytest.raises(UsageError, match="directory of a sweep; none of its trials has begun"):
        RunDirectory.existing(tmp_path)
    for name in ("one", "two"):
        (tmp_path / "trials" / name).mkdir(parents=True)
        (tmp_path / "trials" / name / "config.yaml").write_text("")
    with pytest.raises(UsageError, match=r"trials/NAME: one, two$"):
        RunDirectory.existing(tmp_path)


@pytest.mark.parametrize("path", ["runs/a b", "it's", "$HOME", "a;b", "plain"])
def test_commands_can_be_pasted(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("PLATFORM_PLUGINS", "/my plugins/part.py,package.module")
    monkeypatch.setenv("PLATFORM_DISABLE_PLUGINS", "aim")
    plugins = ["-p", "/my plugins/part.py", "-p", "package.module", "-p", "no:aim"]
    words = ["platform", *plugins, "sample", path]
    assert shlex.split(command("sample", path)) == words
    assert shlex.split(TensorBoard.viewer(Path(path)))[-1] == path


class Finished:
    """As much of a composition as says what a run is of."""

    config = "seed: 1\n"

    class train:  # noqa: N801  # stands for an instance
        steps = 4


def finished(path: Path) -> RunDirectory:
    directory = RunDirectory(path)
    weights = directory.checkpoints / "step-0000004" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    state = {"step": 4, "files": {weights.name: digest(weights)}}
    (weights.parent / "state.json").write_text(json.dumps(state))
    directory.config.write_text(Finished.config)
    directory.result.write_text('{"steps": 4}')
    return directory


def is_finished(directory: RunDirectory) -> bool:
    composition: object = Finished()
    return run._is_finished(directory, composition)  # type: ignore[arg-type]


def test_a_finished_run_is_known_without_loading_anything(tmp_path: Path) -> None:
    assert is_finished(finished(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", "seed: 2\n"),
        ("result.json", '{"steps": 3}'),
        ("result.json", '{"step'),
        ("result.json", "{}"),
        ("result.json", '{"steps": null}'),
        ("checkpoints/step-0000004/model.safetensors", "damaged"),
        ("checkpoints/step-0000004/state.json", "[]"),
    ],
)
def test_a_run_that_asks_for_more_or_is_damaged_is_not_finished(
    tmp_path: Path, name: str, content: str
) -> None:
    directory = finished(tmp_path)
    (tmp_path / name).write_text(content)
    assert not is_finished(directory)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_never_fails_for_want_of_a_character(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    said = "1–2 ± 3… é ∂"
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    without_failing()
    print(said, end="", flush=True)
    shown = {
        "ascii": r"1-2 +- 3... \xe9 \u2202",
        "latin-1": r"1-2 ± 3... é \u2202",
        "utf-8": said,
    }
    assert out.buffer.getvalue().decode(encoding) == shown[encoding]  # type: ignore[attr-defined]
