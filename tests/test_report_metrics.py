"""`platform report` on sweeps with the metrics of judges and tasks."""

import json
import shutil

import pytest
from swept import BITS, reported, rows, three_rows

from platform_core.cli import main
from platform_core.registry.loading import find_plugins
from platform_core.testing.records import LN2, FakeSweep, of_task, result
from platform_report.reading import read_sweep
from platform_report.summary import tables

METRICS = find_plugins({}).metrics()
PERPLEXITY = "generative perplexity"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return three_rows(tmp_path_factory.mktemp("home") / "my & <sweep>")


@pytest.fixture(scope="module")
def page(sweep):
    return reported(sweep)


@pytest.mark.slow
def test_further_evaluations_and_samples_have_tables_of_their_own(sweep, page):
    assert float(rows(sweep, "bound-1")[0][BITS]) == pytest.approx(4.2 / LN2)
    samples = rows(sweep, "samples-1")
    assert [(row["process"], row["NFE"], float(row[PERPLEXITY])) for row in samples] == [
        ("mdlm", "8", 40.0),
        ("mdlm", "32", 10.0),
        ("duo", "8", 80.0),
        ("duo", "32", 20.0),
    ]
    assert {float(row["unigram entropy (nats)"]) for row in samples} == {3.0}
    assert float(samples[2][f"Δ {PERPLEXITY}"]) == 40.0


def test_generative_perplexity_never_comes_without_entropy(sweep):
    made = tables(read_sweep(sweep), [METRICS["generative_perplexity"]], {}, "")
    assert list(made) == ["samples-1", "trials"]
    assert "unigram entropy (nats)" in [column.title for column in made["samples-1"].columns]


def test_tasks_have_a_table_each(tmp_path):
    fake = FakeSweep(tmp_path / "s", {"process": ["duo", "mdlm"], "seed": ["1", "2"]})
    for process, acc in (("duo", 0.5), ("mdlm", 0.6)):
        for seed in ("1", "2"):
            asked = {name: of_task(name, acc + int(seed) / 100) for name in ("boolq", "piqa")}
            fake.add({"process": process, "seed": seed}, result(1.0), evaluations=asked)
    assert main(["report", str(fake.write()), "--baseline", "process=duo"]) == 0
    for number in (1, 2):
        duo, mdlm = rows(tmp_path / "s", f"tasks-{number}")
        assert float(duo["acc"]) == pytest.approx(0.515)
        assert float(mdlm["Δ acc"]) == pytest.approx(0.1)
    written = (tmp_path / "s/report/report.md").read_text()
    assert "**boolq, 100 items**" in written
    assert "Chance: acc 0.25." in written


def test_all_plots_are_on_the_page_and_beside_it(page, sweep):
    names = {path.stem for path in (sweep / "report" / "plots").iterdir()}
    assert names == {
        "loss",
        "bits_per_character",
        "bits_per_character-seconds",
        "bits_per_character-memory",
        "generative_perplexity-nfe-1",
        "generative_perplexity-seconds-1",
        "generative_perplexity-entropy-1",
    }
    assert page.count("<svg") == len(names)


def test_markdown_and_latex_have_every_table(page, sweep):
    markdown = (sweep / "report" / "report.md").read_text()
    latex = (sweep / "report" / "report.tex").read_text()
    assert markdown.count("\n| :--- |") == latex.count(r"\toprule") == 4
    assert (sweep / "report" / "report.csv").read_text().startswith("process,n,bits per char")
    assert r"exit code 1: loss is \textless{}NaN\textgreater{}, at 3" in latex


def test_what_is_printed_may_be_a_file_of_another_format(page, sweep):
    printed = json.loads((sweep / "printed.json").read_text())
    assert [table["title"] for table in printed] == [
        "Results at the end of training",
        "sotu, test text: exact protocol, ema weights",
        "Generated text, judged by ruler",
        "Every trial",
    ]


def test_a_misspelt_metric_of_another_package_has_the_near_one_named(sweep, capsys):
    assert main(["report", str(sweep), "--metric", "mauv"]) == 2
    err = capsys.readouterr().err
    assert "unknown metric mauv; did you mean mauve?" in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_report_is_written_again_as_it_was(sweep, tmp_path):
    copy = tmp_path / "s"
    shutil.copytree(sweep, copy)
    words = ["report", str(copy), "--baseline", "process=mdlm"]
    found = []
    for more in ([], ["--metric", "entropy"], []):
        assert main([*words, *more]) == 0
        files = [path for path in sorted((copy / "report").rglob("*")) if path.is_file()]
        found.append({path.relative_to(copy): path.read_bytes() for path in files})
    assert found[0] == found[2]
    gone = {path.name for path in found[0].keys() - found[1].keys()}
    assert {"results.csv", "loss.svg"} & gone == {"results.csv"}
