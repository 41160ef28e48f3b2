"""Draws: stratified times over the global batch, and generators that follow from the step."""

import pytest
import torch
from scipy import stats

from platform_core import draws
from platform_core.draws import END_MARGIN, Draws, derive_generator, derive_seed
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


def test_the_time_of_every_sequence_is_uniform_over_steps():
    times = torch.cat([global_times([5, 7], step=step) for step in range(1500)], dim=1)
    for of_one_sequence in times:
        assert stats.kstest(of_one_sequence.numpy(), "uniform").pvalue > 0.001
    intervals = (times[0] * 12).floor().long()
    assert chi_square(intervals, torch.full((12,), 1 / 12, dtype=torch.float64)) > 0.01


def test_times_within_their_intervals_are_independent():
    times = torch.cat([global_times([2], step=step) for step in range(2000)], dim=1)
    within = (times * 2) % 1
    assert abs(torch.corrcoef(within)[0, 1]) < 3 / 2000**0.5


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
