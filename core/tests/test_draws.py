"""Draws: stratified times over the global batch, and generators that follow from the step."""

import pytest
import torch
from scipy import stats

from platform_core import draws
from platform_core.draws import END_MARGIN, Draws, dealt, derive_generator, derive_seed
from platform_core.testing.toy import chi_square


def noise(row: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.rand((1, 3), generator=generator)


def global_times(sizes: list[int], *, step: int = 3, t_min: float = 0.0) -> torch.Tensor:
    """Times of one global batch that is split into consecutive parts of the given sizes."""
    total, first, times = sum(sizes), 0, []
    for size in sizes:
        made = Draws.derive("train", 0, step=step, first=first, total=total)
        times.append(made.times(size, t_min))
        first += size
    return torch.cat(times)


@pytest.mark.parametrize("sizes", [[24], [12, 12], [6, 6, 6, 6], [1] * 24, [10, 13, 1]])
@pytest.mark.parametrize("t_min", [0.0, 1e-3, 0.5])
def test_each_interval_of_the_global_batch_has_one_time(sizes: list[int], t_min: float):
    for step in range(20):
        t = global_times(sizes, step=step, t_min=t_min)
        assert t.shape == (24, 1)
        assert t.dtype == torch.float64
        intervals = ((t - t_min) / (1 - t_min) * 24).floor().flatten().long()
        assert intervals.sort().values.tolist() == list(range(24))


@pytest.mark.slow
def test_the_time_of_every_sequence_is_uniform_over_steps():
    times = torch.cat([global_times([5, 7], step=step) for step in range(1500)], dim=1)
    for of_one_sequence in times:
        assert stats.kstest(of_one_sequence.numpy(), "uniform").pvalue > 0.001
    intervals = (times[0] * 12).floor().long()
    assert chi_square(intervals, torch.full((12,), 1 / 12, dtype=torch.float64)) > 0.01


@pytest.mark.slow
def test_times_within_their_intervals_are_independent():
    times = torch.cat([global_times([2], step=step) for step in range(2000)], dim=1)
    within = (times * 2) % 1
    assert abs(torch.corrcoef(within)[0, 1]) < 3 / 2000**0.5


def parts_of(total: int, size: int, *, step: int) -> list[torch.Tensor]:
    """Sorted times of every micro-batch of so many sequences."""
    return [
        Draws.derive("train", 0, step=step, first=first, total=total)
        .times(size)
        .flatten()
        .sort()[0]
        for first in range(0, total, size)
    ]


@pytest.mark.parametrize(("total", "size"), [(512, 64), (512, 8), (24, 6), (96, 12), (40, 40)])
def test_a_micro_batch_covers_all_times_evenly(total: int, size: int):
    """Exactly one time in each of `size` equal intervals, up to the common shift."""
    for step in range(5):
        for times in parts_of(total, size, step=step):
            gaps = torch.diff(torch.cat((times, times[:1] + 1)))
            assert gaps.max() < 1 / size + 2 / total + 1e-9
    intervals = dealt(torch.arange(total), total)
    for first in range(0, total, size):
        coarse = intervals[first : first + size] * size // total
        assert coarse.sort().values.tolist() == list(range(size))


@pytest.mark.parametrize("total", [1, 2, 7, 24, 96, 509, 512, 1000])
def test_intervals_are_dealt_once_each_and_every_division_is_nearly_even(total: int):
    intervals = dealt(torch.arange(total), total)
    assert intervals.sort().values.tolist() == list(range(total))
    for size in (size for size in range(1, total + 1) if total % size == 0):
        for part in intervals.view(-1, size):
            middles = (part.sort().values.double() + 0.5) / total * size
            assert (middles - torch.arange(size) - 0.5).abs().max() < 3


@pytest.mark.parametrize(("number", "rounds"), [(100, 4), (7, 5), (16, 16), (1, 3)])
def test_a_sequence_of_several_rounds_has_a_time_in_every_part(number: int, rounds: int):
    turns = [
        Draws.derive("a", step=0, first=turn * number, total=rounds * number, rounds=rounds)
        for turn in range(rounds)
    ]
    times = torch.cat([made.times(number) for made in turns], dim=1)
    in_order = times.sort(dim=1)[0]
    gaps = torch.diff(torch.cat((in_order, in_order[:, :1] + 1), dim=1), dim=1)
    assert times.flatten().sort()[0].mul(rounds * number).floor().unique().numel() == times.numel()
    assert (gaps < 1 / rounds + 1 / (rounds * number) + 1e-9).all()


def masked(times: torch.Tensor, length: int, step: int) -> int:
    """Rows that MDLM decodes: masked tokens of sequences at these times."""
    level = torch.rand(len(times), length, generator=derive_generator("masks", step))
    return int((level < times[:, None]).sum())


def test_eight_ranks_decode_about_as_many_rows():
    """Dealt in runs, the last rank had seven times as many as the first."""
    for step in range(3):
        rows = [masked(times, 1024, step) for times in parts_of(512, 64, step=step)]
        assert max(rows) < 1.05 * sum(rows) / 8
        runs = torch.arange(512).add(0.5).div(512).view(8, 64)
        rows = [masked(times, 1024, step) for times in runs]
        assert max(rows) > 1.7 * sum(rows) / 8, "the probe sees what it looks for"


@pytest.mark.slow
def test_the_bound_keeps_its_mean_and_variance():
    """Of texts in random order, whose integrands differ, against intervals dealt in runs."""
    total, steps = 32, 4000
    slopes = torch.linspace(-1, 3, total, dtype=torch.float64)
    found: dict[str, list[float]] = {"dealt": [], "runs": []}
    for step in range(steps):
        made = Draws.derive("train", 0, step=step, first=0, total=total)
        texts = torch.randperm(total, generator=derive_generator("texts", step))
        times = made.times(total).flatten()
        place = (times * total).floor().long()
        runs = (torch.arange(total) + made.shift) % total
        in_runs = (runs + (times * total - place)) / total
        for name, t in (("dealt", times), ("runs", in_runs)):
            found[name].append(float((slopes[texts] * t.square()).mean()))
    mean = float(slopes.mean()) / 3
    one, other = (torch.tensor(found[name], dtype=torch.float64) for name in ("dealt", "runs"))
    for estimates in (one, other):
        assert abs(estimates.mean() - mean) < 4 * estimates.std() / steps**0.5
    assert abs(one.var() / other.var() - 1) < 4 * (2 * 2 / steps) ** 0.5


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_times_stay_off_both_ends(uniform: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(draws, "derive_seed", lambda *_: int(uniform * 2**63))
    t = Draws.derive("train", 0, step=0, first=0, total=2).times(2)
    assert ((t >= END_MARGIN) & (t <= 1 - END_MARGIN)).all()


def test_equal_steps_draw_equally_and_others_differently():
    def first_draws(**changed: int) -> tuple[list[float], list[float]]:
        place = {"step": 7, "first": 4, "total": 16} | changed
        made = Draws.derive("train", 0, **place)
        times = made.times(4)
        return times.flatten().tolist(), made.each(noise, times).flatten().tolist()

    assert first_draws() == first_draws()
    for changed in ({"step": 8}, {"first": 8}):
        times, noises = first_draws(**changed)
        assert not set(times) & set(first_draws()[0])
        assert not set(noises) & set(first_draws()[1])


def test_the_shift_is_shared_by_all_parts_of_a_step():
    shifts = {Draws.derive("a", 0, step=5, first=f, total=64).shift for f in range(0, 64, 8)}
    assert len(shifts) == 1
    others = {Draws.derive("a", 0, step=s, first=0, total=64).shift for s in range(50)}
    assert len(others) > 20


def test_seeds_depend_on_every_part_and_fit_a_generator():
    seeds = {
        derive_seed(*parts)
        for parts in [
            ("train", 0, 1),
            ("train", 1, 0),
            ("sample", 0, 1),
            ("train", 0),
            ("train", 10),
        ]
    }
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed("train", 0, 1) == derive_seed("train", 0, 1)


def test_derived_generators_repeat_themselves():
    first, second = (torch.rand(3, generator=derive_generator("x", 1)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("sizes", [[12], [6, 6], [3, 3, 3, 3], [1] * 12, [7, 4, 1]])
def test_what_is_drawn_of_a_sequence_depends_on_its_place_alone(sizes: list[int]):
    def drawn(first: int, size: int) -> tuple[torch.Tensor, ...]:
        made = Draws.derive("train", 0, step=3, first=first, total=12)
        rows = torch.arange(first, first + size)[:, None]
        times, one = made.times(size), made.each(lambda row, g: row + noise(row, g), rows)
        both = made.each(lambda row, g: (noise(row, g), (row, noise(row, g))), rows)
        return times, one, both[0], *both[1]

    firsts = [sum(sizes[:number]) for number in range(len(sizes))]
    parts = [drawn(*part) for part in zip(firsts, sizes, strict=True)]
    whole = drawn(0, 12)
    for one, found in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(one, torch.cat(found))
    assert len(whole[2].unique()) == whole[2].numel()


def test_one_draw_after_another_is_another():
    made = Draws.derive("train", 0, step=3, first=0, total=2)
    rows = torch.zeros(2, 1)
    seen = torch.cat([made.each(noise, rows), made.each(noise, rows)])
    assert len(seen.unique()) == seen.numel()
