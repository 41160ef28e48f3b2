"""`platform compare` of what judges and tasks measured: what may stand in one column."""

import json
import math

import pytest
from swept import compared, measured_alike

from platform_core.record.cards import (
    Measurement,
    Record,
)
from platform_core.registry.loading import find_plugins
from platform_core.testing.records import LN2, bound, changed, judged, of_task, result, write_run
from platform_report.tables import Column, Table

METRICS = find_plugins({}).metrics()
BITS, PERPLEXITY = METRICS["bits_per_character"], METRICS["perplexity"]
JUDGED, MAUVE = METRICS["generative_perplexity"], METRICS["mauve"]


def measured(record, run="here"):
    return Measurement(run, "one", Record.read(record))


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    """So that tables are not folded."""
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two runs that were measured alike; their directories."""
    monkeypatch.chdir(tmp_path)
    return measured_alike(tmp_path)


SAMPLES = {
    "judge__digest": "9" * 64,
    "judge_length": 64,
    "perplexity": "another definition",
    "sample__number": 8,
    "sample__length": 64,
    "sample__weights": "raw",
    "sample__prompt": "My",
    "sample__template": "a_c",
    "sample__label": "19th",
    "tokenizer__digest": "9" * 64,
}


@pytest.mark.parametrize("place", SAMPLES)
def test_judged_figures_need_the_same(place):
    other = measured(judged(30.0, 3.0))
    changed(other.record.card.facts, {place: SAMPLES[place]})
    mine = measured(judged(30.0, 3.0))
    assert list(JUDGED.differences(other, mine)) == [place.replace("__", ".")]
    of_the_judge = place.startswith("judge") or place == "perplexity"
    assert bool(METRICS["entropy"].differences(other, mine)) != of_the_judge


def test_samplers_and_guidance_are_what_is_compared():
    other = measured(judged(30.0, 3.0, steps=64, sample__guidance=2.0))
    assert not JUDGED.differences(other, measured(judged(30.0, 3.0)))
    assert MAUVE.differences(measured(judged(30.0, 3.0, split="test")), other)


def test_errors_are_in_the_units_of_their_numbers():
    record = measured(bound(1.5, 0.02))
    assert METRICS["nats_per_token"].error(record) == 0.02
    assert METRICS["bits_per_token"].error(record) == pytest.approx(0.02 / LN2)
    assert BITS.error(record) == pytest.approx(0.02 / LN2 * 2)
    assert PERPLEXITY.error(record) == pytest.approx(0.02 * math.exp(1.5))
    assert JUDGED.error(measured(judged(30.0, 3.0))) == 0.5


def test_generated_text_is_shown_with_its_entropy_and_cost(two, capsys):
    for name, perplexity in (("c", 30.0), ("d", 40.0)):
        more = {f"judged-{n}": judged(perplexity + n, 3.0, steps=n) for n in (8, 32)}
        write_run(two / name, result(1.0), evaluations=more)
    code, out, _ = compared("c", "d", "--metric", "generative_perplexity", capsys=capsys)
    assert code == 0
    lines = [line.split("  ") for line in out.splitlines()]
    found = [[word.strip() for word in line if word] for line in lines if line[0] in "cd"]
    assert [line[:5] for line in found if line] == [
        ["c", "ancestral, steps 32", "32", "62.00 ± 0.50", "3.000 ± 0.010"],
        ["c", "ancestral, steps 8", "8", "38.00 ± 0.50", "3.000 ± 0.010"],
        ["d", "ancestral, steps 32", "32", "72.00 ± 0.50", "3.000 ± 0.010"],
        ["d", "ancestral, steps 8", "8", "48.00 ± 0.50", "3.000 ± 0.010"],
    ]
    assert "Real text: perplexity 20, entropy 3.1." in out


def test_generated_text_under_unlike_judges_is_refused(two, capsys):
    write_run(two / "c", result(1.0), evaluations={"j": judged(30.0, 3.0)})
    write_run(two / "d", result(1.0), evaluations={"j": judged(9.0, 3.0, judge__digest="9" * 64)})
    code, _, err = compared("c", "d", capsys=capsys)
    assert code == 2
    assert "judge.digest 99999999… (c: 44444444…)" in err
    assert compared("c", "d", "--metric", "entropy", capsys=capsys)[0] == 0


def table(*cells, columns=None, **more):
    heads = columns or (Column("what", number=False), Column("bits", "standard error"))
    return Table(more.pop("title", ""), heads, cells, more.pop("notes", {}), **more)


def test_each_task_that_all_runs_have_is_a_table(two, capsys):
    for name, acc in (("c", 0.5), ("d", 0.6)):
        more = {"piqa": of_task("piqa", acc), "boolq": of_task("boolq", acc + 0.1)}
        more["of-one"] = of_task(f"only-{name}", acc)
        write_run(two / name, result(1.0), evaluations=more)
    code, out, _ = compared("c", "d", "--metric", "tasks", "--format", "json", capsys=capsys)
    assert code == 0
    found = json.loads(out)
    assert [table["title"] for table in found] == ["boolq, 100 items", "piqa, 100 items"]
    first, second = found[1]["rows"]
    assert (first["acc"]["value"], first["acc"]["spread"]) == (0.5, 0.05)
    assert second["Δ acc"]["value"] == pytest.approx(0.1)
    assert "Chance: acc 0.25." in found[1]["remarks"]
    assert "acc_standard_error" not in out
    assert compared("c", "d", "--metric", "tasks.acc", capsys=capsys)[0] == 0
    _, out, _ = compared("c", "d", capsys=capsys)
    assert "piqa, 100 items" in out
    assert "bits per character" in out


def test_tasks_that_were_asked_unlike_are_refused(two, capsys):
    write_run(two / "c", result(1.0), evaluations={"t": of_task("piqa", 0.5)})
    write_run(two / "d", result(1.0), evaluations={"t": of_task("piqa", 0.5, num_fewshot=5)})
    code, _, err = compared("c", "d", "--metric", "tasks.acc", capsys=capsys)
    assert code == 2
    assert "tasks.acc of d does not belong in one column with c: num_fewshot 5 (c: None)" in err
    code, _, err = compared("a", "c", "--metric", "tasks", capsys=capsys)
    assert code == 2
    assert "a has no tasks.acc; measure it with `platform eval a --tasks NAME,...`" in err
    code, _, err = compared("a", "b", "--metric", "tasks", capsys=capsys)
    assert "a has no tasks; measure it with `platform eval a --tasks NAME,...`" in err


def test_a_metric_that_no_run_has_is_told_in_one_line(two, capsys):
    code, out, err = compared("a", "b", "--metric", "mauve", capsys=capsys)
    assert (code, out) == (2, "")
    assert "a has no mauve" in err
    assert err.count("\n") == 1
