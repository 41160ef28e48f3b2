"""Contract tests of trackers for pytest: an author sets the class and reads its numbers back.

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
"""(SUBSET/NAME, step, value) of one logged number."""

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
"""The data of a figure, as a run saves it."""


class TrackerContract:
    """Tests of one tracker; subclass this class, set `tracker` and override `points`.

    Args:
        tracker: the tracker's class.
    """

    tracker: type[Tracker]

    def points(self, directory: RunDirectory, identity: str | None) -> Sequence[Point] | None:
        """The numbers that a closed tracker has kept of a run; None skips the tests of them."""
        return None

    def test_it_can_be_used_here_or_says_why_in_one_line(self) -> None:
        """`unusable` returns None or one line, and `title` is not empty."""
        missing = self.tracker.unusable()
        assert missing is None or (missing and "\n" not in missing)
        assert self.tracker.title

    def test_it_keeps_every_number_of_a_run(self, tmp_path: Path) -> None:
        """A tracker keeps each number under SUBSET/NAME and its step."""
        directory, identity = self.shown(tmp_path / "runs" / "first", range(1, 4))
        expected = {("train/loss", step): 1 / step for step in range(1, 4)}
        self._same(self._kept(directory, identity), expected)

    def test_it_takes_whatever_a_run_has_to_say(self, tmp_path: Path) -> None:
        """A tracker accepts NaN, infinities, no samples, any text and a figure, each twice."""
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
        """An identity is None or a string, and equals `new_identity()` unless that is None."""
        given = self.tracker.new_identity()
        with self.running(tmp_path / "runs" / "first", identity=given) as (_, tracker):
            assert tracker.identity is None or isinstance(tracker.identity, str)
            assert given in (None, tracker.identity)

    def test_a_resumed_run_goes_on_in_the_same_place(self, tmp_path: Path) -> None:
        """A run stopped after step 4 and resumed from the checkpoint of step 2 has each number
        once, and the same identity.
        """
        path = tmp_path / "runs" / "first"
        _, before = self.shown(path, range(1, 5))
        directory, after = self.shown(path, range(3, 7), identity=before, step=2)
        assert after == before
        expected = {("train/loss", step): 1 / step for step in range(1, 7)}
        self._same(self._kept(directory, after), expected)

    def test_two_runs_side_by_side_do_not_mix(self, tmp_path: Path) -> None:
        """Each of two runs has its own numbers only."""
        self.tracker.prepare(tmp_path / "runs")
        first, one = self.shown(tmp_path / "runs" / "first", range(1, 3))
        second, two = self.shown(tmp_path / "runs" / "second", range(3, 5))
        self._same(self._kept(first, one), {("train/loss", step): 1 / step for step in (1, 2)})
        self._same(self._kept(second, two), {("train/loss", step): 1 / step for step in (3, 4)})

    def test_it_can_prepare_twice(self, tmp_path: Path) -> None:
        """`prepare` can be called again, as a continued sweep does."""
        (tmp_path / "sweep" / "trials").mkdir(parents=True)
        for _ in range(2):
            self.tracker.prepare(tmp_path / "sweep" / "trials")

    def test_it_reaches_for_no_other_machine(self, tmp_path: Path, monkeypatch: Any) -> None:
        """A tracker connects to no other machine through Python's sockets."""
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
        """Log a run whose loss is 1 / step; return its directory and the tracker's identity.

        Args:
            path: the run directory; made if missing.
            steps: steps to log.
            identity: identity of a resumed run; None for a new identity.
            step: step of the checkpoint from which the run is resumed.
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
        """Open a tracker for a run, yield (run directory, tracker), and close the tracker."""
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

            pytest.skip("points is not overridden, so the tracker's numbers cannot be read")
        return points

    def _same(self, points: Sequence[Point], expected: dict[tuple[str, int], float]) -> None:
        assert sorted((name, step) for name, step, _ in points) == sorted(expected)
        for name, step, value in points:
            assert math.isclose(value, expected[name, step], rel_tol=1e-6)
