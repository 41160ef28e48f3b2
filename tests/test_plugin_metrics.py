"""Metrics of several plugins, and a record of a template in a table of the plugin report."""

import json
import shutil

import pytest

from platform_core.cli import main
from platform_core.record.bounds import BOUNDS
from platform_core.record.cards import Record
from platform_core.registry.loading import find_plugins
from platform_core.testing import LawBroken
from platform_core.testing.metrics import METRIC_LAWS, metric_cases, require_whole
from platform_core.testing.records import bound, judged, of_task

PLUGINS = find_plugins({})


def test_metrics_are_those_of_the_plugin_that_is_named():
    names = {case.metric.name for case in metric_cases(PLUGINS, "judge")}
    assert names == {"generative_perplexity", "judged_bits_per_character", "entropy", "mauve"}
    assert len(metric_cases(PLUGINS, "dlm-platform-harness")) == len(METRIC_LAWS)


def test_a_record_is_whole_if_it_says_what_its_metrics_depend_on():
    every = PLUGINS.metrics().values()
    bounds = [metric.name for metric in BOUNDS]
    assert require_whole(Record.read(bound(1.0)), every) == bounds
    assert require_whole(Record.read(of_task("piqa", 0.5)), every) == ["tasks.acc"]
    assert "entropy" in require_whole(Record.read(judged(30.0, 3.0)), every)
    lacking = bound(1.0)
    del lacking["card"]["label"]
    with pytest.raises(LawBroken, match="the card lacks label, needed by bits_per_character"):
        require_whole(Record.read(lacking), every)
    with pytest.raises(LawBroken, match="none of these metrics"):
        require_whole(Record.read({"seconds": 3.0}), every)
    with pytest.raises(LawBroken, match="the error of bits_per_character is -2"):
        require_whole(Record.read(bound(1.0, -1.0)), every)


@pytest.fixture
def run(tmp_path):
    """A run of two updates."""
    sizes = ["--backbone.hidden_size=16", "--backbone.num_blocks=1", "--backbone.num_heads=2"]
    (tmp_path / "text").mkdir()
    for number in range(20):
        (tmp_path / "text" / f"{number:02d}.txt").write_text("a b c " * 20)
    words = ["--process=mdlm", *sizes, "--data.corpus=text", f"--data.path={tmp_path / 'text'}"]
    words += ["--data.length=16", "--train.batch_size=4", "--train.steps=2"]
    words += ["--sample.number=1", "--sampler.steps=2", "--track.aim=false"]
    assert main(["run", *words, f"--output={tmp_path / 'run'}"]) == 0
    return tmp_path / "run"


@pytest.mark.slow
def test_the_template_of_an_evaluation_measures_a_run_and_is_compared(
    run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PLATFORM_PLUGINS", "platform_core.templates.evaluation.plugin")
    monkeypatch.setenv("COLUMNS", "300")
    plugins = find_plugins()
    shutil.copytree(run, tmp_path / "other")
    for path in (run, tmp_path / "other"):
        assert main(["eval", str(path), "--new_part", "--sample.number=3"]) == 0
    (kept,) = (run / "evaluations").glob("new-part-*.json")
    record = Record.read(json.loads(kept.read_text()))
    assert require_whole(record, plugins.metrics().values()) == ["new_part"]
    ended = Record.read(json.loads((run / "result.json").read_text()))
    assert set(require_whole(ended, plugins.metrics().values())) == {m.name for m in BOUNDS}
    capsys.readouterr()
    assert main(["compare", str(run), str(tmp_path / "other")]) == 0
    out = capsys.readouterr().out
    assert "Variety of 3 samples" in out
    assert "distinct pairs" in out
    assert "ancestral, steps 2" in out
    assert main(["eval", str(run), "--new_part", "--sample.number=1"]) == 2
    assert "it must be at least 2" in capsys.readouterr().err
