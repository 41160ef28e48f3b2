"""SDTT: what the teacher says of each mask on its grid of times is what the student learns."""

import pytest
import torch
from torch import Tensor

from platform_core import rows
from platform_core.categorical import KeepAll
from platform_core.draws import Draws
from platform_core.schedule import Cosine, LogLinear, Polynomial, Schedule
from platform_core.testing.allocations import LargestTensor
from platform_core.testing.objective import AtOnce
from platform_core.testing.toy import TinyNetwork, exact_model, index_of, model, two_token_law
from platform_core.types import Batch
from platform_mdlm.objective import Sdtt, step_times
from platform_mdlm.parameterization import Subs
from platform_mdlm.process import Mdlm

MASK = 5


def sdtt(vocab_size: int = MASK, told: bool = False, schedule=None, **options) -> Sdtt:
    """The objective of a small network, which is told the noise level or not."""
    torch.manual_seed(0)
    process, network = Mdlm(vocab_size, time_conditioned=told), TinyNetwork(vocab_size + 1)
    return Sdtt(model(process, network, schedule or LogLinear(), Subs()), **options)


def times(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def masks(batch: int, length: int) -> Tensor:
    """Texts of which about two thirds is masked."""
    generator = torch.Generator().manual_seed(3)
    text = torch.randint(MASK, (batch, length), generator=generator)
    return torch.where(torch.rand(batch, length, generator=generator) < 0.7, MASK, text)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()])
def test_a_mask_is_taught_from_the_text_in_which_the_teacher_opens_it_or_from_the_last(
    steps: int, told: bool, schedule: Schedule
):
    """Against a chain of the generic sampler's steps that decodes everything, draw for draw."""
    objective = sdtt(told=told, schedule=schedule, teacher_steps=steps, first_dt=0.1, rounds=1)
    reads, levels = objective.teacher_reads, objective.teacher_reads.schedule
    x_t, t = masks(16, 8), torch.linspace(0.5, 1, 16, dtype=torch.float64)[:, None]
    taught = objective.taught(x_t, t, 0.1, Draws.derive("sdtt", step=0, first=0, total=16))
    found = reads.parameterization.log_x0(
        objective.teacher.backbone.decoder(taught), x_t, t, reads.process
    )

    draws = Draws.derive("sdtt", step=0, first=0, total=16)
    x, expected = x_t, torch.zeros_like(found)
    for number in range(steps):
        alpha_t, alpha_s = (levels.alpha(t - 0.1 * n) for n in (number, number + 1))
        logits = objective.teacher.backbone.decoder(reads.encode(x, alpha_t))
        masked = x == MASK
        expected[masked] = reads.parameterization.log_x0(
            logits, x, torch.tensor(0.5), reads.process
        )[masked]
        if number < steps - 1:
            x = draws.each(
                lambda *row: reads.draw_reverse(*row[:3], truncation=KeepAll(), generator=row[3]),
                x,
                alpha_s,
                alpha_t,
            )
    masked = x_t == MASK
    assert (x[masked] != MASK).any() == (steps > 1)
    assert (x == MASK).any()
    torch.testing.assert_close(found[masked], expected[masked], rtol=1e-6, atol=1e-7)


def test_an_exact_teacher_says_on_average_what_it_says_at_once():
    """Its predictions are a martingale along its own steps, so the mean of p is p given x_t."""
    law = two_token_law()
    objective = Sdtt(exact_model(law, Mdlm, LogLinear(eps=0), Subs()), first_dt=0.4, rounds=1)
    process, number = objective.model.process, 40_000
    x_t = torch.full((number, 2), process.mask_id)
    draws = AtOnce.derive(0, step=0, first=0, total=number)
    taught = objective.taught(x_t, times(0.9).expand(number, 1), 0.4, draws)
    said, at_once = taught.exp().mean(0), law.log_x0(x_t[:1], torch.tensor(0.1), process).exp()[0]
    torch.testing.assert_close(said, at_once, rtol=0, atol=4e-3)
    assert taught[:, 0].std(0).max() > 0.1, "it was never asked about another text"


@pytest.mark.parametrize("schedule", [LogLinear(), Cosine(), Polynomial(3.0)])
def test_student_and_teacher_are_told_the_level_of_the_text_that_they_read(schedule, monkeypatch):
    objective = sdtt(told=True, schedule=schedule, teacher_steps=3, first_dt=0.2, rounds=1)
    told: dict[str, list[Tensor]] = {}
    for name, asked in (("student", objective.model), ("teacher", objective.teacher)):
        levels = told[name] = []
        encode = asked.backbone.encode

        def listen(inputs, sigma, levels=levels, encode=encode):
            levels.append((-sigma).exp())
            return encode(inputs, sigma)

        monkeypatch.setattr(asked.backbone, "encode", listen)
    x0 = torch.zeros(8, 4, dtype=torch.long)
    batch = Batch(x0, torch.ones_like(x0, dtype=torch.bool))
    objective(batch, Draws.derive("test", step=0, first=0, total=8))
    t = Draws.derive("test", step=0, first=0, total=8).times(8, 0.6)
    expected = [schedule.alpha(t - 0.2 * step).float() for step in range(3)]
    torch.testing.assert_close(told["student"], expected[:1])
    torch.testing.assert_close(told["teacher"], expected)


def test_times_fall_by_one_step_each():
    assert torch.cat(step_times(times(0.5), 0.125, 3)).flatten().tolist() == [0.5, 0.375, 0.25]


def test_the_published_times_do_not_begin_where_the_text_was_noised():
    """multi_round_sdtt.py interpolates with 1 - t_start where 1 - space is meant."""
    start, end, space = 0.5, 0.25, torch.linspace(1, 0, 2, dtype=torch.float64)
    published = start * space + (1 - start) * end
    assert published.tolist() == [0.625, 0.125]
    meant = start * space + (1 - space) * end
    # Two steps are to end at `end`, so the second begins half-way and not there.
    assert meant.tolist() == [0.5, 0.25]
    assert torch.cat(step_times(times(start), 0.125, 2)).flatten().tolist() == [0.5, 0.375]


def test_the_teacher_always_has_time_for_all_its_steps(monkeypatch: pytest.MonkeyPatch):
    objective = sdtt(first_dt=0.2, round_steps=10, rounds=2)
    seen: list[tuple[float, float, float]] = []

    def look(x_t: Tensor, t: Tensor, dt: float, *_: object) -> Tensor:
        seen.append((float(t.min()), float(t.max()), dt))
        return torch.zeros(*x_t.shape, 8)

    monkeypatch.setattr(objective, "taught", look)
    x0 = torch.zeros(64, 4, dtype=torch.long)
    for step in (0, 9, 10, 30):
        draws = Draws.derive("test", step=step, first=0, total=64)
        objective(Batch(x0, torch.ones_like(x0, dtype=torch.bool)), draws)
    assert [dt for _, _, dt in seen] == [0.2, 0.2, 0.4, 0.4]
    for low, high, dt in seen:
        assert 2 * dt <= low < 2 * dt + 0.02
        assert 0.98 < high <= 1


def test_one_step_of_an_equal_teacher_teaches_nothing():
    objective = sdtt(teacher_steps=1, first_dt=0.1, rounds=1)
    x0 = torch.randint(MASK, (8, 6), generator=torch.Generator().manual_seed(0))
    draws = Draws.derive("test", step=0, first=0, total=8)
    loss = objective(Batch(x0, torch.ones_like(x0, dtype=torch.bool)), draws)
    assert loss.total.item() == pytest.approx(0, abs=1e-6)


def test_only_masks_that_count_are_learned_from():
    objective = sdtt(first_dt=0.3, rounds=1)
    with torch.no_grad():
        objective.teacher.backbone.head.bias[0] += 1
    x0 = torch.randint(MASK, (32, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.rand(x0.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    draws = Draws.derive("test", step=0, first=0, total=32)
    loss = objective(Batch(x0, mask), draws)
    draws = Draws.derive("test", step=0, first=0, total=32)
    alpha = objective.model.schedule.alpha(draws.times(32, 0.6))
    x_t = draws.each(objective.model.process.corrupt, x0, alpha)
    assert loss.per_token.gt(1e-7).equal(mask & (x_t == MASK))
    assert loss.total.item() == pytest.approx(loss.per_token.sum().item(), rel=1e-5)


@pytest.mark.slow
def test_a_student_learns_what_two_steps_of_its_teacher_say():
    """Trained against a fixed teacher on all texts, it comes to the mean of what is taught."""
    objective = sdtt(vocab_size=3, first_dt=0.4, rounds=1, divergence="forward-kl").double()
    with torch.no_grad():
        for parameter in objective.model.backbone.parameters():
            parameter.mul_(3)
    objective.after_update(0, {})
    optimizer = torch.optim.Adam(objective.model.parameters(), lr=0.02)
    x0 = torch.cartesian_prod(torch.arange(3), torch.arange(3)).repeat(30, 1)
    counted = torch.ones_like(x0, dtype=torch.bool)
    for step in range(120):
        draws = AtOnce.derive("test", step=step, first=0, total=len(x0))
        loss = objective(Batch(x0, counted), draws)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    x_t = torch.full((4000, 2), 3)
    t = times(0.9).expand(4000, 1)
    taught = objective.taught(x_t, t, 0.4, AtOnce.derive(1, step=0, first=0, total=len(x_t)))
    process, subs = objective.model.process, objective.model.parameterization
    laws = [
        subs.log_x0(backbone.decoder(features), x_t, t, process).exp().mean(0)[:, :3]
        for backbone, features in (
            (objective.teacher.backbone, taught),
            (objective.model.backbone, objective.student_reads.encode(x_t, t)),
            (objective.teacher.backbone, objective.teacher_reads.encode(x_t, t)),
        )
    ]
    learned, unlearned = ((law - laws[0]).abs().max().item() for law in laws[1:])
    assert learned < 0.03
    assert learned < unlearned / 2
    assert index_of(x0, 3).unique().numel() == 9


def test_a_training_step_makes_no_tensor_of_positions_by_states(monkeypatch: pytest.MonkeyPatch):
    objective = sdtt(vocab_size=1008)
    x0 = torch.randint(1008, (16, 32), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 6 * 1009)
    with LargestTensor() as made:
        draws = Draws.derive("test", step=0, first=0, total=16)
        objective(Batch(x0, torch.ones_like(x0, dtype=torch.bool)), draws).total.backward()
    assert made.elements < x0.numel() * 1009 / 50


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"teacher_steps": 0}, "teacher_steps is 0; it must be at least 1"),
        ({"teacher_steps": 9, "first_dt": 0.03, "rounds": 3}, "teacher_steps is 9"),
        ({"first_dt": 0.0}, "first_dt is 0"),
    ],
)
def test_steps_that_cannot_be_are_refused(options, said: str):
    with pytest.raises(ValueError, match=said):
        sdtt(**options)
