"""The way of a sample from noise to text, recorded and drawn."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from platform_core.errors import UsageError
from platform_core.evaluation import figures, plots
from platform_core.evaluation.samples import Recorder
from platform_core.evaluation.trajectory import Trajectory
from platform_core.process import Absorbing, Uniform
from platform_core.sampler import Ancestral
from platform_core.testing.toy import exact_model, random_law

MASK = 3
WAY = Trajectory(
    [[MASK, MASK, MASK], [0, MASK, 1], [0, 2, MASK], [1, 2, 1]], [0.0, 0.4, 0.7, 1.0], vocab_size=3
)
LAW = random_law(4, 5, seed=1)


def recorded(process_class, batch: int = 2, **options):
    recorder = Recorder()
    model = exact_model(LAW, process_class).watched(recorder.see)
    sample = Ancestral(**options)(model, (batch, 5), torch.Generator().manual_seed(0))
    return recorder.trajectory(sample.tokens[0].tolist(), LAW.num_tokens), sample


def test_each_step_counts_what_it_changes():
    assert WAY.flips == ([2, 1, 1], [0, 1, 0], [0, 0, 1])


def test_a_token_stays_from_the_step_after_which_nothing_changes_it():
    assert figures.states(WAY) == [[0, 0, 0], [1, 0, 1], [1, 2, 0], [2, 2, 2]]


def test_a_record_is_the_trajectory():
    record = json.loads(json.dumps(WAY.record()))
    assert Trajectory.read(record) == WAY
    assert record["steps"][0] == [[0, 0], [2, 1]]
    assert (record["kind"], record["remasked"]) == ("trajectory", [0, 1, 0])


def test_masks_become_tokens_once_and_stay():
    way, sample = recorded(Absorbing, steps=8)
    assert way.tokens[0] == [LAW.num_tokens] * 5
    assert way.tokens[-1] == sample.tokens[0].tolist()
    assert sum(way.flips.unmasked) == 5
    assert sum(way.flips.remasked) + sum(way.flips.changed) == 0
    assert len(way.tokens) == len(way.alphas) == sample.nfe + 1
    assert way.alphas == sorted(way.alphas)
    assert way.alphas[-1] == 1


def test_uniform_noise_only_changes_tokens():
    way, _ = recorded(Uniform, steps=8)
    counts = [
        sum(x != y for x, y in zip(one, other, strict=True)) for one, other in pairwise(way.tokens)
    ]
    assert way.flips.changed == counts
    assert sum(counts) > 0
    assert not any(way.flips.unmasked + way.flips.remasked)


def test_a_watched_model_gives_the_same_sample():
    model = exact_model(LAW, Uniform)
    unwatched = Ancestral(steps=8)(model, (2, 5), torch.Generator().manual_seed(0))
    assert torch.equal(recorded(Uniform, steps=8)[1].tokens, unwatched.tokens)


def test_another_network_in_a_watched_model_is_watched_too():
    recorder = Recorder()
    model = exact_model(LAW, Uniform).watched(recorder.see)
    other = model.with_backbone(model.backbone)
    sample = Ancestral(steps=2)(other, (1, 5), torch.Generator().manual_seed(0))
    way = recorder.trajectory(sample.tokens[0].tolist(), LAW.num_tokens)
    assert len(way.tokens) == sample.nfe + 1


def test_there_is_no_trajectory_of_parts_or_of_nothing():
    recorder = Recorder()
    assert recorder.trajectory([0, 1], 3) is None
    recorder.see(torch.tensor([[0, 1]]), torch.tensor([[0.5]]))
    assert recorder.trajectory([0, 1, 2], 3) is None
    assert recorder.trajectory([0, 2], 3) == Trajectory([[0, 1], [0, 2]], [0.5, 1.0], 3)


def test_a_distribution_is_no_step():
    recorder = Recorder()
    recorder.see(torch.full((1, 2, 3), 1 / 3), torch.tensor([[0.5]]))
    assert recorder.trajectory([0, 2], 3) is None


@pytest.mark.slow
def test_a_figure_is_drawn_once_and_anew_after_its_data(tmp_path: Path):
    path = tmp_path / "figures" / "trajectory-final.json"
    figures.keep(WAY.record(), path)
    plot = figures.plotted(path)
    assert plot.read_bytes().startswith(b"\x89PNG")
    plot.write_bytes(b"kept")
    assert figures.plotted(path).read_bytes() == b"kept"
    figures.keep(WAY.record(), path)
    assert figures.plotted(path).read_bytes().startswith(b"\x89PNG")


def test_the_ending_of_its_name_decides_what_a_figure_is(tmp_path: Path):
    figures.write(WAY.record(), tmp_path / "way.json")
    assert Trajectory.read(json.loads((tmp_path / "way.json").read_text())) == WAY
    figures.write(WAY.record(), tmp_path / "way.svg")
    assert "<svg" in (tmp_path / "way.svg").read_text()
    with pytest.raises(UsageError, match=r"way.txt cannot hold a figure; .*\.json, \.png"):
        figures.require_format(tmp_path / "way.txt")


@pytest.mark.parametrize("form", ["svg", "pdf", "png"])
def test_a_plot_repeats_byte_for_byte(tmp_path: Path, form: str) -> None:
    for name in ("a", "b"):
        figure, axes = plots.new(title="x", x="x", y="y")
        axes.plot([0, 1], [1, 2], label="one")
        axes.legend()
        plots.write(figure, tmp_path / f"{name}.{form}")
    assert (tmp_path / f"a.{form}").read_bytes() == (tmp_path / f"b.{form}").read_bytes()
    assert b"<dc:date>" not in (tmp_path / f"a.{form}").read_bytes()
