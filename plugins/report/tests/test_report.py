"""`platform report` on sweeps in any state, and the statistics behind it."""

import errno
import os
import random
import re
from pathlib import Path

import pytest
from scipy import stats
from swept import AXES, BITS, curves, read_rows, reported, rows, three_rows

from platform_core.cli import main
from platform_core.evaluation import plots
from platform_core.record.cards import chosen_metrics
from platform_core.registry.loading import find_plugins
from platform_core.testing.records import LN2, FakeSweep, result
from platform_report import figures
from platform_report.figures import Curve, averaged, draw, frontier, series
from platform_report.reading import read_sweep
from platform_report.significance import deviation, holm, paired, two_sided, welch
from platform_report.summary import tables
from platform_report.tables import FORMATS

METRICS = find_plugins({}).metrics()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return three_rows(tmp_path_factory.mktemp("home") / "my & <sweep>")


@pytest.fixture(scope="module")
def page(sweep):
    return reported(sweep)


def tabled(fake, *metrics, **baseline):
    """The rows of the first table, without writing a report."""
    shown = chosen_metrics(metrics, METRICS, [])
    made = tables(read_sweep(fake.write()), shown, baseline, "")
    return read_rows(FORMATS["csv"](next(iter(made.values()))))


# Statistics


def test_t_tests_are_scipy_s():
    draw_from = random.Random(0)
    for _ in range(60):
        first = [draw_from.gauss(0, 1) for _ in range(draw_from.randint(2, 8))]
        centre, spread = draw_from.choice([(0, 1), (3, 0.1), (50, 5)])
        second = [draw_from.gauss(centre, spread) for _ in range(draw_from.randint(2, 8))]
        own, theirs = welch(first, second), stats.ttest_ind(first, second, equal_var=False)
        assert own.p == pytest.approx(theirs.pvalue, rel=1e-11)
        assert own.statistic == pytest.approx(theirs.statistic)
        assert own.freedom == pytest.approx(theirs.df)
        third = [draw_from.gauss(centre, spread) for _ in first]
        own, theirs = paired(first, third), stats.ttest_rel(first, third)
        assert own.p == pytest.approx(theirs.pvalue, rel=1e-11)
        assert own.freedom == len(first) - 1


@pytest.mark.parametrize("statistic", [0.0, 1e-6, 0.5, 3.0, 1e4])
@pytest.mark.parametrize("freedom", [1, 1.7, 2, 30, 1e4])
def test_tails_of_t_are_scipy_s(statistic, freedom):
    assert two_sided(statistic, freedom) == pytest.approx(2 * stats.t.sf(statistic, freedom))


def test_holm_by_hand_and_by_scipy():
    # 3 x .01; 2 x .02, not below the .03 before it; .5.
    assert holm([0.5, 0.01, 0.02]) == pytest.approx([0.5, 0.03, 0.04])
    assert holm([0.01, 0.011, 0.9]) == pytest.approx([0.03, 0.03, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    ps = [random.Random(1).random() ** 3 for _ in range(9)]
    # Scipy has Benjamini and Hochberg's alone; Holm's smallest is Bonferroni's.
    assert min(holm(ps)) == pytest.approx(min(1.0, 9 * min(ps)))


def test_no_test_without_two_seeds_or_any_spread():
    assert welch([1.0], [1.0, 2.0]) is None
    assert paired([1.0], [2.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None
    assert paired([1.0, 2.0], [2.0, 3.0]) is None
    assert deviation([1.0]) is None
    assert deviation([1.0, 2.0, 3.0]) == 1.0


# The table of results


@pytest.mark.slow
def test_rows_are_means_and_sample_deviations_over_seeds(sweep, page):
    mdlm, duo, sedd = rows(sweep)
    assert [row["process"] for row in (mdlm, duo, sedd)] == ["mdlm", "duo", "sedd"]
    assert [row["n"] for row in (mdlm, duo, sedd)] == ["3", "1 of 3", "0 of 3"]
    assert float(mdlm[BITS]) == pytest.approx(2.2 / LN2)
    assert float(mdlm[f"{BITS}: standard deviation"]) == pytest.approx(0.2 / LN2)
    assert float(mdlm["training seconds"]) == pytest.approx(110)
    assert float(mdlm["peak memory (GB)"]) == pytest.approx(1.1)
    assert mdlm["parameters"] == "1000000"
    assert float(duo[BITS]) == pytest.approx(4.0 / LN2)
    assert duo[f"{BITS}: standard deviation"] == ""
    assert sedd[BITS] == ""


def test_cells_say_why_trials_are_missing(sweep, page):
    mdlm, duo, sedd = rows(sweep)
    assert mdlm["notes"] == ""
    assert duo["notes"] == (
        "process=duo,seed=2: failed: exit code 1: loss is <NaN>, at 3; "
        "not all trials are there yet: waiting"
    )
    assert "process=sedd,seed=1: failed: exit code -9" in sedd["notes"]
    assert "not all trials are there yet: running" in sedd["notes"]
    assert re.search(r"<td class=\"number\">failed<sup>", page)


def test_one_seed_has_a_difference_but_no_p(sweep, page):
    mdlm, duo, _ = rows(sweep)
    assert float(duo[f"Δ {BITS}"]) == pytest.approx(1.8 / LN2)
    assert (duo["p"], duo["p (Holm)"], duo["test"]) == ("", "", "no p")
    assert mdlm["test"] == "baseline"


def test_equal_seeds_are_compared_in_pairs_and_others_by_welch(tmp_path):
    fake = FakeSweep(tmp_path / "s", AXES)
    values = {
        "mdlm": {"1": 1.0, "2": 1.2, "3": 1.1},
        "duo": {"1": 1.11, "2": 1.29, "3": 1.22},
        "sedd": {"1": 1.3, "2": 1.5, "4": 1.35},
    }
    for process, by_seed in values.items():
        for seed, nats in by_seed.items():
            fake.add({"process": process, "seed": seed}, result(nats, seed=int(seed)))
    fake.add({"process": "sedd", "seed": "3"}, status="waiting")
    found = {row["process"]: row for row in tabled(fake, process="mdlm")}
    base = list(values["mdlm"].values())
    pair = stats.ttest_rel(list(values["duo"].values()), base).pvalue
    apart = stats.ttest_ind(list(values["sedd"].values()), base, equal_var=False).pvalue
    assert pair < apart < 2 * apart < 1
    assert float(found["duo"]["p"]) == pytest.approx(pair)
    assert found["duo"]["test"] == "paired t, 2 df"
    assert float(found["sedd"]["p"]) == pytest.approx(apart)
    assert found["sedd"]["test"].startswith("Welch's t, ")
    assert float(found["duo"]["p (Holm)"]) == pytest.approx(2 * pair)
    assert float(found["sedd"]["p (Holm)"]) == pytest.approx(apart)


def test_a_baseline_of_one_axis_is_that_of_the_same_labels_on_the_others(tmp_path):
    fake = FakeSweep(tmp_path / "s", {"process": ["a", "b"], "size": ["s", "l"], "seed": ["1"]})
    for process, size, nats in (("a", "s", 1), ("a", "l", 2), ("b", "s", 4), ("b", "l", 8)):
        fake.add({"process": process, "size": size, "seed": "1"}, result(float(nats)))
    found = tabled(fake, "nats_per_token", process="a")
    assert [row["Δ nats per token"] for row in found] == ["", "", "3.0", "6.0"]
    found = tabled(fake, "nats_per_token", process="a", size="s")
    assert [row["Δ nats per token"] for row in found] == ["", "1.0", "3.0", "7.0"]


def test_unlike_cells_are_marked_and_not_tested(tmp_path):
    fake = FakeSweep(tmp_path / "s", {"length": ["128", "256"], "seed": ["1", "2"]})
    for length in ("128", "256"):
        for seed in ("1", "2"):
            changes = {"fingerprint": length * 20, "data__length": int(length)}
            labels = {"length": length, "seed": seed}
            fake.add(labels, result(1 + int(seed) / int(length), seed=int(seed), **changes))
    short, long = tabled(fake, "perplexity", length="128")
    assert short["notes"] == ""
    assert long["notes"].endswith("data.length 256 (length=128,seed=1: 128)")
    assert (long["test"], long["p"]) == ("unlike", "")
    assert "notes" not in tabled(fake, "bits_per_character")[0]


def test_exact_values_beside_bounds_are_marked(tmp_path):
    fake = FakeSweep(tmp_path / "s", {"process": ["ar", "duo"]})
    fake.add({"process": "ar"}, result(1.0, noise_levels_per_sequence=0))
    fake.add({"process": "duo"}, result(1.0))
    ar, duo = tabled(fake)
    assert ar["notes"].startswith("the value itself")
    assert duo["notes"] == ""


def test_a_card_that_lacks_a_fact_is_told_with_what_to_do(tmp_path):
    fake = FakeSweep(tmp_path / "s", {"process": ["duo", "mdlm"]})
    for process in ("duo", "mdlm"):
        lacking = result(1.0)
        del lacking["card"]["text"]
        fake.add({"process": process}, lacking)
    _, mdlm = tabled(fake, "bits_per_character", process="duo")
    assert (mdlm["test"], mdlm["p"]) == ("unlike", "")
    assert mdlm["notes"].endswith("text not said (process=duo: not said)")
    made = tables(read_sweep(fake.path), [METRICS["bits_per_character"]], {}, "")
    (line,) = [line for line in made["results"].remarks if "not say" in line]
    assert line.startswith("The cards of process=duo, process=mdlm do not say text; measure again")
    assert f"`platform eval {fake.path}/trials/RUN`" in line


# Files and page


def test_the_page_stands_alone_and_escapes_what_users_write(page):
    assert page.startswith("<!DOCTYPE html>")
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\((?!#)", page)
    outside = set(re.findall(r'(?:src|href)="(https?://[^"/]+)', page))
    assert outside == {"http://127.0.0.1:43800"}
    assert "<h1>my &amp; &lt;sweep&gt;</h1>" in page
    assert "process: [&lt;duo&gt;, mdlm]" in page
    assert "loss is &lt;NaN&gt;, at 3" in page
    assert "9 trials: 4 finished, 3 failed, 1 waiting, 1 running." in page


def test_the_page_links_to_runs_and_to_aim(page, sweep):
    assert '<a href="http://127.0.0.1:43800/runs/hash2">' in page
    links = re.findall(r'href="(\.\./trials/[^"]+)"', page)
    # The waiting trial has no directory.
    assert len(links) == 8
    assert (sweep / "report" / links[0].replace("%3D", "=").replace("%2C", ",")).is_dir()
    assert "platform report" in page
    assert "--baseline process=mdlm" in page


@pytest.mark.parametrize("full", ["tables/results.csv", "index.html"])
def test_a_report_that_has_no_room_names_the_file_and_leaves_the_old_one(
    full, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(figures, "draw", lambda *_: {})  # drawing takes seconds
    sweep = three_rows(tmp_path / "sweep")
    reported(sweep)
    (sweep / "report" / "notes.txt").write_text("mine")
    (sweep / "report" / "notes").mkdir()
    (sweep / "report" / "index.html").write_text("old")
    before = {p: p.read_bytes() for p in sweep.rglob("*") if p.is_file()}
    write = Path.write_bytes

    def write_bytes(path, content):
        if full in f"{path.parent.name}/{path.name.removeprefix('.')}":
            write(path, content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        assert main(["report", str(sweep)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"platform report: error: cannot write {sweep}/report/{full}")
    assert line.endswith("(No space left on device)")
    assert {p: p.read_bytes() for p in sweep.rglob("*") if p.is_file()} == before
    assert reported(sweep) != "old"
    assert (sweep / "report" / "notes.txt").read_text() == "mine"
    assert (sweep / "report" / "notes").is_dir()


def test_a_sweep_without_any_result_has_a_report(tmp_path):
    fake = FakeSweep(tmp_path / "s", AXES)
    for seed in AXES["seed"]:
        fake.add({"process": "duo", "seed": seed}, status="waiting")
    assert main(["report", str(fake.write()), "--baseline", "process=mdlm"]) == 0
    (row,) = rows(tmp_path / "s")
    assert (row["n"], row[BITS]) == ("0 of 3", "")
    assert "Nothing to draw yet" in (tmp_path / "s/report/index.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--baseline", "mdlm"], "--baseline mdlm must be AXIS=LABEL"),
        (["--baseline", "proces=mdlm"], "no axis proces (its axes are process); did you mean"),
        (["--baseline", "process=mdl"], "axis process has no mdl (there are duo, mdlm, sedd)"),
        (["--baseline", "seed=1"], "no axis seed"),
    ],
)
def test_mistakes_are_told_in_one_line(words, message, sweep, capsys):
    assert main(["report", str(sweep), *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_another_directory_is_no_sweep(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no sweep (it has no trials.json)" in capsys.readouterr().err
    (tmp_path / "trials.json").write_text('{"format": 2}')
    assert main(["report", str(tmp_path)]) == 2
    assert "has format 2, and this version reads 1" in capsys.readouterr().err


# Plots


def test_the_frontier_is_what_nothing_beats_in_both():
    points = [(1, 9.0), (2, 5.0), (2, 4.0), (3, 4.0), (4, 6.0), (5, 1.0)]
    assert frontier(points, lower=True) == [(1, 9.0), (2, 4.0), (5, 1.0)]
    assert frontier(points, lower=False) == [(1, 9.0)]


def test_curves_are_means_over_trials_and_thinned_by_parts():
    pair = [Curve([10, 20], [1.0, 2.0]), Curve([10, 20, 30], [3.0, 4.0, 5.0])]
    assert averaged(pair) == Curve([10, 20, 30], [2.0, 3.0, 5.0])
    long = Curve(range(1, 1001), [float(step) for step in range(1, 1001)])
    thin = averaged([long], most=10)
    assert thin.steps == thin.values
    assert thin.values[0] == pytest.approx(50.5)
    assert len(thin.values) == 10
    assert averaged([]) == Curve([], [])


def test_curves_leave_out_what_is_not_finite(tmp_path):
    lines = [*curves(1.0), {"step": 210, "subset": "train", "time": 1.0, "loss": "NaN"}]
    fake = FakeSweep(tmp_path / "s", {"process": ["duo"]})
    fake.add({"process": "duo"}, status="failed", metrics=lines)
    figure = draw(read_sweep(fake.write()), [METRICS["bits_per_character"]])["loss"]
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == list(range(10, 210, 10))


def test_many_rows_share_the_colours_of_the_first_axis(tmp_path):
    sizes = [str(size) for size in range(11)]
    fake = FakeSweep(tmp_path / "s", {"process": ["duo", "mdlm"], "size": sizes})
    for process in ("duo", "mdlm"):
        for size in sizes:
            fake.add({"process": process, "size": size}, result(1.0 + int(size)))
    read = read_sweep(fake.write())
    assert {name: len(groups) for name, groups in series(read).items()} == {"duo": 11, "mdlm": 11}
    figure = draw(read, [METRICS["bits_per_character"]])["bits_per_character-seconds"]
    labels = [text.get_text() for text in figure.legends[0].texts]
    assert labels == ["duo", "mdlm", "best trade-off"]
    assert len(figure.axes[0].lines) == 23


def test_labels_are_no_mathematics_and_stay_in_the_legend():
    figure, axes = plots.new(title="", x="", y="")
    axes.plot([1], [1], label=plots.plain("_$a$_b"))
    figure.legend()
    assert "$a$_b" in plots.svg(figure)
