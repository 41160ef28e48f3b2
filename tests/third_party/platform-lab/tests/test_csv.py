"""The CSV files of a run, stopped and continued."""

import csv

import pytest
from platform_lab.tracker import Csv

from platform_core.record.directory import RunDirectory
from platform_core.record.tracker import About
from platform_core.testing import TrackerContract


class TestCsv(TrackerContract):
    tracker = Csv

    def points(self, directory, identity):
        kept = rows(directory, "numbers")
        return [(f"{subset}/{name}", int(step), float(x)) for step, subset, name, x in kept]


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


def opened(run, step=0):
    return Csv.open(run, About("run", {}, {}, {}, step=step), Csv.new_identity())


def rows(run, name):
    with (run.path / "csv" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def test_a_repeated_number_replaces_and_text_may_have_any_sign(run):
    tracker = opened(run)
    tracker.log({"loss": 2.0, "rate": float("nan")}, step=1, subset="train")
    tracker.log({"loss": 1.5}, step=1, subset="train")
    tracker.text("samples", ['a "b",\n1', ""], step=1)
    tracker.log({"loss": 1.0}, step=2, subset="train")
    tracker.close()
    assert rows(run, "numbers") == [
        ["1", "train", "loss", "1.5"],
        ["1", "train", "rate", "nan"],
        ["2", "train", "loss", "1.0"],
    ]
    assert rows(run, "texts") == [["1", "samples", "0", 'a "b",\n1'], ["1", "samples", "1", ""]]


def test_a_resumed_run_tracks_again_what_came_after_its_checkpoint(run):
    first = opened(run)
    for step in (1, 2, 3):
        first.log({"loss": float(step)}, step=step, subset="train")
    first.close()
    second = opened(run, step=2)
    second.log({"loss": 9.0}, step=3, subset="train")
    second.close()
    assert [row[3] for row in rows(run, "numbers")] == ["1.0", "2.0", "9.0"]
