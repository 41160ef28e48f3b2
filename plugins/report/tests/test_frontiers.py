"""Curves of samples: which points make a curve, in which order, and reports of single runs."""

import pytest

from platform_core.cli import main
from platform_core.registry.loading import find_plugins
from platform_core.testing.records import FakeSweep, judged, result, write_run
from platform_report.figures import draw
from platform_report.frontiers import draw_frontier, frontier_curves
from platform_report.reading import read_runs, read_sweep
from platform_report.summary import sampled

METRICS = find_plugins({}).metrics()
BITS, ENTROPY = METRICS["judged_bits_per_character"], METRICS["entropy"]


def point(bits, entropy, **sampler):
    """A judged record of a sampler with these options."""
    record = judged(2.0**bits, entropy)
    own = {"name": "ancestral", "steps": 8, "temperature": 1.0, **sampler}
    for kind, value in (("samples", bits), ("real", 2.5)):
        record[kind]["bits_per_character"] = value
    return {**record, "card": {**record["card"], "sampler": own}}


def run(path, *records):
    evaluations = {f"judged-{number}": record for number, record in enumerate(records)}
    return write_run(path, result(1.0), evaluations=evaluations)


def curves(sweep):
    (rows,) = sampled(sweep, [BITS])
    return frontier_curves(rows, ENTROPY, BITS)


@pytest.fixture
def runs(tmp_path):
    first = [point(3 - t, 2 + t, temperature=t) for t in (1.0, 0.6, 0.8)]
    other = [point(3.5 - t, 2 + t, temperature=t, name="ordered") for t in (0.6, 0.8)]
    return run(tmp_path / "one", *first, *other), run(tmp_path / "two", point(1, 1), point(2, 2.5))


def test_a_curve_is_the_points_of_one_sampler_in_the_order_of_the_value(runs):
    found = curves(read_runs(runs[:1]))
    assert {name: [spot.value for spot in spots] for name, spots in found.items()} == {
        "ancestral": ["0.6", "0.8", "1.0"],
        "ordered": ["0.6", "0.8"],
    }
    assert [(spot.x, spot.y) for spot in found["ancestral"]] == [(2.6, 2.4), (2.8, 2.2), (3, 2)]


def test_several_runs_have_curves_of_their_own_and_other_options_too(tmp_path, runs):
    both = curves(read_runs(runs))
    assert list(both) == ["one, ancestral", "one, ordered", "two, ancestral"]
    records = [
        point(3, 2, temperature=t, steps=steps) for steps in (8, 32) for t in (0.6, 0.8, 1.0)
    ]
    found = curves(read_runs([run(tmp_path / "steps", *records)]))
    assert {name: len(spots) for name, spots in found.items()} == {
        "ancestral, steps 8": 3,
        "ancestral, steps 32": 3,
    }


def test_the_plot_labels_points_and_marks_real_text(runs):
    sweep = read_runs(runs)
    (rows,) = sampled(sweep, [BITS])
    (axes,) = draw_frontier(rows, ENTROPY, BITS).axes
    assert [text.get_text() for text in axes.texts][:3] == ["0.6", "0.8", "1.0"]
    assert axes.lines[-1].get_label() == "real text"
    assert axes.lines[-1].get_data() == ([3.1], [2.5])
    assert draw_frontier(rows[:1], ENTROPY, BITS) is None
    assert "judged_bits_per_character-entropy-1" in draw(sweep, list(METRICS.values()))


def test_seeds_of_a_sweep_are_averaged_in_each_point(tmp_path):
    fake = FakeSweep(tmp_path / "s", {"process": ["mdlm"], "seed": ["1", "2"]})
    for seed, more in (("1", 0.0), ("2", 1.0)):
        records = {f"j{t}": point(t + more, 2 + t, temperature=t) for t in (0.5, 1.0)}
        fake.add({"process": "mdlm", "seed": seed}, result(1.0), evaluations=records)
    found = curves(read_sweep(fake.write()))
    assert [(spot.x, spot.y) for spot in found["ancestral"]] == [(2.5, 1.0), (3, 1.5)]


def test_a_report_of_runs_goes_to_the_first_of_them(runs, tmp_path, capsys):
    words = ["--metric", "judged_bits_per_character"]
    assert main(["report", *map(str, runs), *words, "--to", str(tmp_path / "table.txt")]) == 0
    folder = runs[0] / "report"
    assert (folder / "plots" / "judged_bits_per_character-entropy-1.svg").is_file()
    assert "platform sweep" not in (folder / "index.html").read_text()
    assert main(["report", str(runs[0]), *words]) == 0
    fake = FakeSweep(tmp_path / "s", {"process": ["mdlm"]})
    capsys.readouterr()
    assert main(["report", str(runs[0]), str(fake.write())]) == 2
    assert "is a sweep, which is reported alone" in capsys.readouterr().err


def test_options_of_a_sampler_inside_another_make_a_curve(tmp_path):
    records = [
        point(3, 2 + t, name="blocks", inner={"name": inner, "temperature": t})
        for inner in ("ancestral", "ordered")
        for t in (0.6, 0.8, 1.0)
    ]
    found = curves(read_runs([run(tmp_path / "inside", *records)]))
    assert {name: [spot.value for spot in spots] for name, spots in found.items()} == {
        "blocks, inner.name ancestral": ["0.6", "0.8", "1.0"],
        "blocks, inner.name ordered": ["0.6", "0.8", "1.0"],
    }
