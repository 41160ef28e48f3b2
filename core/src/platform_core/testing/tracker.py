"""What every tracker must do, as tests for pytest: an author names the class and reads it back.

    from platform_core.testing import TrackerContract

    class TestMine(TrackerContract):
        tracker = Mine

        def points(self, directory, identity):
            return [("train/loss", 1, 0.5), ...]  # what the tracker has kept of that run

A tracker is opened and closed in another thread than the one that uses it, as in a run.
"""

import math
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from platform_core.record.directory import RunDirectory
from platform_core.record.files import write_json
from platform_core.record.tracker import About, Tracker

Point = tuple[str, int, float]
"""SUBSET/NAME, step and value."""

LEVELS = {
    "kind": "levels",
    "subset": "validation",
    "protocol": "exact",
    "nats_per_token": 2.0,
    "levels": [
        {"start": 0.0, "end": 0.5, "nats_per_token": 2.5, "standard_error": None},
        {"start": 0.5, "end": 1.0, "nats_per_token": 1.5, "standard_error": 0.1},
    ],
}
"""A figure, as a run keeps it."""


class TrackerContract:
    """Tests of one tracker; subclass it and say which.

    Args:
        tracker: the class.
    """

    tracker: type[Tracker]

    def points(self, directory: RunDirectory, identity: str | None) -> Sequence[Point] | None:
        """What the tracker has kept of a run, after it was closed; None: it cannot be read, and
        the tests of what is kept are skipped.
        """
        return None

    def test_it_can_be_used_here_or_says_why_in_one_line(self) -> None:
        """`unusable` is None or a line, and a title is there for messages."""
        missing = self.tracker.unusable()
        assert missing is None or (missing and "\n" not in missing)
        assert self.tracker.title

    def test_it_keeps_every_number_of_a_run(self, tmp_path: Path) -> None:
        """Numbers are found under SUBSET/NAME and their step."""
        directory, identity = self.shown(tmp_path / "runs" / "first", range(1, 4))
        expected = {("train/loss", step): 1 / step for step in range(1, 4)}
        self._same(self._kept(directory, identity), expected)

    def test_it_takes_whatever_a_run_has_to_say(self, tmp_path: Path) -> None:
        """NaN, infinities, no samples, samples of any text, a figure; each twice."""
        with self.running(tmp_path / "runs" / "first") as (directory, tracker):
            figure = directory.figures / "levels-step-0000002.json"
            write_json(figure, LEVELS)
            for _ in range(2):
                odd = {"nan": math.nan, "infinite": -math.inf, "count": 7}
                tracker.log(odd, step=2, subset="validation")
                tracker.text("samples", [], step=2)
                tracker.text("samples", ["", "# two\n\nlines\n```\n", "\u00e9\u4e2d\t|a|"], step=2)
                tracker.figure(figure, step=2)

    def test_it_begins_under_the_name_that_it_gave(self, tmp_path: Path) -> None:
        """An identity is text, and the new one where there is one."""
        given = self.tracker.new_identity()
        with self.running(tmp_path / "runs" / "first", identity=given) as (_, tracker):
            assert tracker.identity is None or isinstance(tracker.identity, str)
            assert given in (None, tracker.identity)

    def test_a_resumed_run_goes_on_in_the_same_place(self, tmp_path: Path) -> None:
        """Stopped after step 4 and resumed from the checkpoint of step 2: nothing is there twice,
        nothing is missing, and the identity is the same.
        """
        path = tmp_path / "runs" / "first"
        _, before = self.shown(path, range(1, 5))
        directory, after = self.shown(path, range(3, 7), identity=before, step=2)
        assert after == before
        expected = {("train/loss", step): 1 / step for step in range(1, 7)}
        self._same(self._kept(directory, after), expected)

    def test_two_runs_side_by_side_do_not_mix(self, tmp_path: Path) -> None:
        """Each keeps its own numbers."""
        self.tracker.prepare(tmp_path / "runs")
        first, one = self.shown(tmp_path / "runs" / "first", range(1, 3))
        second, two = self.shown(tmp_path / "runs" / "second", range(3, 5))
        self._same(self._kept(first, one), {("train/loss", step): 1 / step for step in (1, 2)})
        self._same(self._kept(second, two), {("train/loss", step): 1 / step for step in (3, 4)})

    def test_it_can_prepare_twice(self, tmp_path: Path) -> None:
        """A sweep that is continued prepares again."""
        (tmp_path / "sweep" / "trials").mkdir(parents=True)
        for _ in range(2):
            self.tracker.prepare(tmp_path / "sweep" / "trials")

    def test_it_reaches_for_no_other_machine(self, tmp_path: Path, monkeypatch: Any) -> None:
        """From within Python, at least, no connection is opened but on this machine."""
        connect = socket.socket.connect

        def refuse(this: socket.socket, address: Any) -> None:
            local = this.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
            assert local, f"a connection to {address}"
            connect(this, address)

        monkeypatch.setattr(socket.socket, "connect", refuse)
        self.shown(tmp_path / "runs" / "first", range(1, 3))

    def shown(
        self, path: Path, steps: Sequence[int], *, identity: str | None = None, step: int = 0
    ) -> tuple[RunDirectory, str | None]:
        """A run of some steps that the tracker shows; its loss is 1 / step.

        Args:
            path: of the run directory; made if missing.
            steps: at which something is logged.
            identity: of a resumed run; else a new one.
            step: of the checkpoint that the run goes on from.
        """
        identity = identity or self.tracker.new_identity()
        with self.running(path, identity=identity, step=step) as (directory, tracker):
            for number in steps:
                tracker.log({"loss": 1 / number}, step=number, subset="train")
            identity = tracker.identity
        return directory, identity

    @contextmanager
    def running(
        self, path: Path, *, identity: str | None = None, step: int = 0
    ) -> "Iterator[tuple[RunDirectory, Tracker]]":
        """The directory of a run and its tracker, which is closed in the end."""
        path.mkdir(parents=True, exist_ok=True)
        directory = RunDirectory(path)
        said = About(
            name=path.name,
            parts={"process": "mdlm"},
            hyperparameters={"train": {"steps": 6, "compile": False}, "data": {"path": None}},
            versions={"torch": "2.13.0"},
            step=step,
        )
        with ThreadPoolExecutor(1) as thread:
            tracker = thread.submit(self.tracker.open, directory, said, identity).result()
            try:
                yield directory, tracker
            finally:
                thread.submit(tracker.close).result()

    def _kept(self, directory: RunDirectory, identity: str | None) -> Sequence[Point]:
        points = self.points(directory, identity)
        if points is None:
            import pytest

            pytest.skip("the test says no way to read what the tracker keeps")
        return points

    def _same(self, points: Sequence[Point], expected: dict[tuple[str, int], float]) -> None:
        assert sorted((name, step) for name, step, _ in points) == sorted(expected)
        for name, step, value in points:
            assert math.isclose(value, expected[name, step], rel_tol=1e-6)
