"""The modes, profiles, segments and presets of Psi-samplers have their printed values."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from platform_core.sampler import LAST_TIME, even_times
from platform_core.schedule import Cosine, LogLinear, Polynomial, Schedule
from platform_core.testing.golden import Golden
from platform_duo.kappa import mixing_of
from platform_duo.profile import Segments, profile_of
from platform_duo.sampler import PRESETS, Psi

GOLDEN = Golden(Path(__file__).parent / "golden")
tensors, tolerance = GOLDEN.tensors, GOLDEN.tolerance

CPU = torch.device("cpu")
SCHEDULES: dict[str, Schedule] = {"log-linear": LogLinear(1e-3), "cosine": Cosine(1e-3)}
named = pytest.mark.parametrize("name", list(SCHEDULES))
MODES = [
    "pure-posterior",
    "pure-pc",
    "constant-0.5",
    "max-capped-0.05",
    "max-rescale-squared-0.05",
    "constant-remdm-0.01",
]


def level(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def shares(sampler: Psi, alphas: Tensor) -> Tensor:
    """Kappa of each step."""
    ends = zip(sampler.mixings, pairwise(alphas), strict=True)
    return torch.cat([mixing.kappa(s, t) for mixing, (t, s) in ends]).flatten()


def kappas(schedule: Schedule, **options) -> Tensor:
    sampler = Psi(steps=16, **options)
    return shares(sampler, sampler.alphas(schedule, CPU))


def published(name: str, output: str) -> Tensor:
    case = tensors(f"m.schedule_{name}")
    return case[f"output/{output}"].double()


@named
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("segments", ["whole", "three"])
def test_kappas_are_the_reference_s_but_for_the_ends_of_segments(name, mode, segments):
    """There the reference leaves a correction out; we have the value of the undivided walk."""
    fractions = {"high_frac": 0.2, "middle_frac": 0.6} if segments == "three" else {}
    found = kappas(SCHEDULES[name], mode=mode, **fractions)
    asked = mode.replace("-squared", "")
    whole, expected = (
        published(name, f"kappas_{asked}_{kind}")[:16] for kind in ("whole", segments)
    )
    ends = torch.zeros(16, dtype=torch.bool)
    if segments == "three" and "constant-0.5" not in mode and "pure" not in mode:
        ends[[2, 12]] = True
        assert (expected[ends] == 1).all()
    within = tolerance(f"m.schedule_{name}")
    torch.testing.assert_close(found[~ends], expected[~ends], **within)
    torch.testing.assert_close(found, whole, **within)


@named
def test_max_rescale_is_the_right_one(name: str):
    times = tensors(f"m.schedule_{name}")["t_linear"].double()
    alphas = SCHEDULES[name].alpha(times).view(-1, 1, 1)
    found = shares(Psi(steps=16, mode="max-rescale-0.05"), alphas)
    expected = published(name, "kappas_max-rescale-0.05_corrected_f64")[:16]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    wrong = published(name, "kappas_max-rescale-0.05_whole")[:16]
    assert not torch.allclose(found, wrong, **tolerance(f"m.schedule_{name}"))


def test_max_rescale_and_what_the_reference_makes_of_it_have_the_printed_values():
    step = level(0.41), level(0.40)
    for mode, expected in [("max-rescale-0.05", 0.915254), ("max-rescale-squared-0.05", 0.995763)]:
        assert mixing_of(mode).kappa(*step).item() == pytest.approx(expected, abs=5e-7)


@named
def test_the_loop_is_the_reference_s_and_ends_where_it_should(name: str):
    """With so few steps the reference's grid never leaves the pause."""
    found = kappas(SCHEDULES[name], preset="owt-loop")
    expected = published(name, "kappas_loop")
    # Its inverse of the schedule forgets eps, so that it pauses at .9001.
    torch.testing.assert_close(found[7:15], expected[8].expand(8), rtol=2e-4, atol=0)
    torch.testing.assert_close(
        found[7:15], torch.full((8,), 0.9, dtype=torch.float64), rtol=1e-12, atol=0
    )
    assert (found[:7] == 1).all()
    assert found[15] == 1
    assert expected[15] == 1, "a correction that is left out"


@named
@pytest.mark.parametrize("profile", ["linear", "0.9", "0.9-inv"])
def test_profiles_are_the_reference_s_up_to_their_last_segment(name: str, profile: str):
    full = profile if profile == "linear" else f"linear-constant-linear-{profile}"
    segments = Segments.share(16, 0.45, 0.5)
    times = profile_of(full).times(segments, SCHEDULES[name], CPU)
    assert times.shape == (17, 1, 1)
    expected = published(name, f"profile_{full}")
    # Its inverse of the schedule forgets eps.
    within = {"rtol": 2e-3, "atol": 1e-5} if "inv" in profile else tolerance("m.schedule_cosine")
    torch.testing.assert_close(times.flatten()[:16], expected[:16], **within)
    assert times[16] == LAST_TIME


def test_a_pause_has_its_level_under_every_schedule():
    for schedule in (LogLinear(0), Cosine(1e-3), Polynomial(2.0)):
        alphas = Psi(steps=20, preset="owt-loop").alphas(schedule, CPU).flatten()
        torch.testing.assert_close(alphas[9:20], torch.full_like(alphas[9:20], 0.9))
        assert (alphas.diff() >= 0).all()
        assert (alphas.diff()[:9] > 0).all()
        assert alphas[20] > 0.9


def test_a_level_that_the_schedule_does_not_reach_is_its_nearest():
    times = profile_of("linear-constant-linear-0.0005-inv").times(
        Segments(1, 1, 2), LogLinear(1e-3), CPU
    )
    assert times.flatten().tolist() == pytest.approx([1, 1, 1, (1 + LAST_TIME) / 2, LAST_TIME])


def test_the_published_run_of_256_steps_has_128_corrections():
    sampler = Psi(steps=256, preset="owt-loop")
    assert sampler.segments == (115, 128, 13)
    alphas = sampler.alphas(LogLinear(1e-3), CPU)
    assert (shares(sampler, alphas) < 1).sum() == 128
    assert (alphas.diff(dim=0).abs() < 1e-12).sum() == 128


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.45, 0.5), (1.0, 0.0), (0.0, 1.0), (0.7, 0.3)])
def test_segments_share_all_steps(fractions: tuple[float, float]):
    for steps in range(1, 40):
        segments = Segments.share(steps, *fractions)
        assert sum(segments) == steps
        assert min(segments) >= 0
        assert segments.high == pytest.approx(fractions[0] * steps, abs=0.5)
        assert segments.middle == pytest.approx(fractions[1] * steps, abs=1)


def test_without_a_pause_times_are_those_of_the_ancestral_sampler():
    times = profile_of("linear").times(Segments(3, 2, 2), LogLinear(), CPU)
    assert torch.equal(times, even_times(7, CPU))


def test_at_the_ends_of_a_schedule_modes_are_defined():
    noise, clean = level(0.0), level(1.0)
    for mode in [*MODES, "max-rescale-0.05"]:
        for step in [(level(0.1), noise), (clean, level(0.9)), (clean, clean), (noise, noise)]:
            assert 0 <= mixing_of(mode).kappa(*step) <= 1
    assert mixing_of("max-capped-0.2").kappa(level(0.5), noise).item() == pytest.approx(0.6)


def test_presets_are_the_published_settings():
    assert PRESETS.keys() == {
        *("none", "owt-loop", "owt-cap", "owt-rescale"),
        *("cifar-duo", "cifar-mdlm", "cifar-loop", "cifar-cap", "cifar-rescale"),
    }
    for name, mode, top_p in [
        ("none", "max-capped-0.01", 1.0),
        ("owt-cap", "max-capped-0.01", 0.9),
        ("owt-rescale", "max-rescale-0.05", 0.9),
        ("cifar-cap", "max-capped-0.005", 1.0),
        ("cifar-rescale", "max-rescale-0.01", 1.0),
    ]:
        same(name, mode=mode, top_p=top_p)
    pause = {"profile": "linear-constant-linear-0.9-inv", "high_frac": 0.45, "middle_frac": 0.5}
    for name, top_p in [("owt-loop", 0.95), ("cifar-loop", 1.0)]:
        modes = {"mode": "pure-posterior", "middle_mode": "constant-remdm-0.01"}
        same(name, top_p=top_p, **pause, **modes)
    for name, mode, high, middle in [
        ("cifar-duo", "constant-0.95", 0.5, 0.4),
        ("cifar-mdlm", "constant-0.99", 0.0, 0.9),
    ]:
        fractions = {"high_frac": high, "middle_frac": middle}
        same(name, mode="pure-posterior", middle_mode=mode, **fractions)


def same(preset: str, **options) -> None:
    """Options written out come to the same walk and truncation as a preset."""
    one, other = Psi(preset=preset), Psi(**options)
    alphas = one.alphas(Cosine(), CPU)
    assert torch.equal(alphas, other.alphas(Cosine(), CPU))
    assert torch.equal(shares(one, alphas), shares(other, alphas))
    logits = torch.linspace(0, 5, 20).log_softmax(-1)[None]
    assert torch.equal(one.truncation(logits), other.truncation(logits))
    assert PRESETS[preset].top_p == options.get("top_p", 1.0)


def test_options_replace_those_of_the_preset_and_modes_of_segments_the_mode():
    sampler = Psi(
        steps=10,
        preset="owt-loop",
        profile="linear",
        mode="constant-0.5",
        low_mode="constant-0.25",
        high_frac=0.2,
        middle_frac=0.3,
        top_p=1.0,
    )
    alphas = sampler.alphas(LogLinear(), CPU)
    assert shares(sampler, alphas).tolist() == [0.5] * 5 + [0.25] * 5
    assert torch.equal(alphas, LogLinear().alpha(even_times(10, CPU)))
    assert sampler.truncation(level(0.0)).item() == 0
    high = Psi(steps=2, mode="pure-pc", high_mode="pure-posterior", high_frac=0.5)
    assert shares(high, alphas[:3]).tolist() == [1, 0]
    middle = Psi(steps=2, mode="pure-pc", middle_mode="constant-0.5", middle_frac=0.5)
    assert shares(middle, alphas[:3]).tolist() == [0.5, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "max-caped-0.1"}, "'max-caped-0.1' is unknown; choose one of pure-posterior, "),
        ({"mode": "constant"}, "is unknown; .*for example max-capped-0.01"),
        ({"mode": "constant-remdm"}, "is unknown"),
        ({"mode": "constant-nan"}, "is unknown"),
        ({"mode": "constant-1.5"}, "kappa is 1.5; it must be at least 0 and at most 1"),
        ({"low_mode": "max-rescale-2"}, "eta is 2; it must be at least 0 and at most 1"),
        ({"profile": "cubic"}, "'cubic' is unknown; choose linear, .*for example linear-const"),
        ({"profile": "linear-constant-linear"}, "is unknown"),
        ({"profile": "linear-constant-linear-1"}, "pauses at 1; it must be above 0 and below 1"),
        ({"profile": "linear-constant-linear-0-inv"}, "pauses at 0"),
        ({"high_frac": -0.1}, "high_frac is -0.1 and middle_frac 0; .* at least 0 and sum to"),
        ({"high_frac": 0.6, "middle_frac": 0.5}, "sum to at most 1"),
        ({"middle_frac": float("nan")}, "sum to at most 1"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"steps": 0}, "at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Psi(**options)


def test_small_numbers_may_be_written_with_an_exponent():
    kappa = mixing_of("max-capped-1e-3").kappa(level(0.5), level(0.4)).item()
    assert kappa == pytest.approx(1 - 1e-3 / 0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"profile": "linear-constant-linear-0.9-inv"},
        {"preset": "cifar-mdlm", "profile": "linear-constant-linear-0.9-inv"},
        {"preset": "owt-loop", "steps": 1},
    ],
)
def test_a_pause_has_steps_before_it(options):
    with pytest.raises(ValueError, match="none of the .* steps are before the pause"):
        Psi(**{"steps": 10, **options})
    Psi(steps=10, profile="linear-constant-linear-0.5", high_frac=0.5, middle_frac=0.5)
