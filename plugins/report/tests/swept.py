"""Sweeps and runs that several files of tests read; made of files alone."""

import csv
import io

from platform_core.cli import main
from platform_core.testing.records import FakeSweep, bound, judged, result, write_run

AXES = {"process": ["duo", "mdlm", "sedd"], "seed": ["1", "2", "3"]}
BITS = "bits per character"


def curves(loss):
    lines = [
        {"step": step, "subset": "train", "time": 1.0, "loss": loss} for step in range(10, 210, 10)
    ]
    on_the_way = {"subset": "validation", "time": 1.0, "bits_per_character": loss}
    return [*lines, {"step": 100, **on_the_way}, {"step": 200, **on_the_way}]


def measured(nats, seed, *, perplexity):
    """What a finished trial has written."""
    judging = {
        f"judged-{steps}": judged(perplexity / steps, 3.0, steps=steps, seconds=steps / 10)
        for steps in (8, 32)
    }
    test = {"test-ema": bound(nats + 1, evaluate__split="test", seed=seed)}
    return {
        "ended": result(nats, seconds=100 * nats, memory=1e9 * nats, seed=seed),
        "evaluations": judging | test,
        "metrics": curves(nats),
        "aim": f"hash{seed}",
    }


def three_rows(path):
    """A sweep of three rows: whole; one seed failed and one waits; nothing but failures."""
    fake = FakeSweep(path, AXES)
    for seed, nats in (("1", 1.0), ("2", 1.2), ("3", 1.1)):
        labels = {"process": "mdlm", "seed": seed}
        fake.add(labels, **measured(nats, int(seed), perplexity=320.0))
    fake.add({"process": "duo", "seed": "1"}, **measured(2.0, 1, perplexity=640.0))
    fake.add(
        {"process": "duo", "seed": "2"}, status="failed", code=1, message="loss is <NaN>,\nat 3"
    )
    fake.add({"process": "duo", "seed": "3"}, status="waiting")
    fake.add({"process": "sedd", "seed": "1"}, status="failed", code=-9, metrics=curves(3.0))
    fake.add({"process": "sedd", "seed": "2"}, status="running")
    fake.add({"process": "sedd", "seed": "3"}, status="failed", code=1)
    return fake.write()


def reported(sweep):
    """The page of a sweep of `three_rows`, against mdlm."""
    printed = ["--format", "json", "--to", str(sweep / "printed.json")]
    assert main(["report", str(sweep), "--baseline", "process=mdlm", *printed]) == 0
    return (sweep / "report" / "index.html").read_text()


def read_rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def rows(sweep, name="results"):
    return read_rows((sweep / "report" / "tables" / f"{name}.csv").read_text())


def measured_alike(path):
    """Writes two runs, a and b, that were measured alike; returns their folder."""
    write_run(path / "a", result(1.0, 0.03))
    write_run(path / "b", result(1.2, 0.04, seed=2))
    return path


def compared(*words, capsys):
    """The exit code of `platform compare`, and what it prints."""
    code = main(["compare", *words])
    out = capsys.readouterr()
    return code, out.out, out.err
