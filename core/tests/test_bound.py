"""Evaluation: the figure, its error, and that neither batches nor a mode leak into it."""

import math
import statistics

import pytest
import torch
from accelerate import Accelerator

from platform_core.errors import UsageError
from platform_core.evaluation.bound import Bound, evaluate, quantiles, ratio
from platform_core.objective import Nelbo, Objective
from platform_core.process import Absorbing, Uniform
from platform_core.testing.toy import TinyNetwork, exact_model, model, two_token_law
from platform_core.types import Batch


class Drawn:
    """Sequences drawn from the law of two tokens."""

    def __init__(self, number: int) -> None:
        law = two_token_law()
        chosen = torch.multinomial(
            law.probs.flatten(),
            number,
            replacement=True,
            generator=torch.Generator().manual_seed(1),
        )
        self.ids = law.sequences()[chosen]
        self.nats = -float(law.log_prob(self.ids).mean()) / 2

    def __len__(self) -> int:
        return len(self.ids)

    def spread(self, number):
        return self

    def batch(self, rows):
        rows = list(rows)
        return Batch(self.ids[rows], torch.ones(len(rows), 2, dtype=torch.bool))

    def num_characters(self):
        return 3 * len(self.ids)


def bound(process, split, **options):
    objective = Nelbo(exact_model(two_token_law(), process))
    defaults = {"sequences": 0, "batch_size": 64, "protocol": "exact", "seed": 1}
    return evaluate(objective, split, Accelerator(cpu=True), **{**defaults, **options})


@pytest.mark.slow
@pytest.mark.parametrize("process", [Uniform, Absorbing])
def test_the_bound_of_the_exact_denoiser_is_minus_log_p_within_its_error(process):
    split = Drawn(4000)
    found = bound(process, split)
    assert found.tokens == 8000
    assert 0 < found.standard_error < 0.1
    assert abs(found.nats_per_token - split.nats) < 2 * found.standard_error


@pytest.mark.slow
def test_the_standard_error_is_the_spread_of_repeated_evaluations():
    split = Drawn(200)
    repeated = [bound(Absorbing, split, seed=seed) for seed in range(20)]
    spread = torch.tensor([found.nats_per_token for found in repeated]).std()
    # Stratified times and a fixed text make the true spread smaller than the error, never larger.
    errors = [found.standard_error for found in repeated]
    assert 0.3 * min(errors) < spread < max(errors)


@pytest.mark.slow
@pytest.mark.parametrize("process", [Uniform, Absorbing])
def test_more_noise_levels_lower_the_error_of_the_noise_and_miss_the_truth_as_rarely(process):
    """In the middle of some evaluations: under uniform noise, rare ones see very large values."""
    split = Drawn(100)
    pairs = [
        (bound(process, split, seed=seed), bound(process, split, seed=seed, draws=8))
        for seed in range(9)
    ]
    assert all((one.noise_levels, eight.noise_levels) == (1, 8) for one, eight in pairs)
    assert all(math.isnan(one.noise_error) for one, _ in pairs)
    assert all(eight.noise_error <= eight.standard_error for _, eight in pairs)
    middle = [
        statistics.median(found.standard_error for found in side)
        for side in zip(*pairs, strict=True)
    ]
    assert middle[1] < middle[0]
    # Against -log p of these very texts: what is left is noise.
    near = [abs(eight.nats_per_token - split.nats) < 2 * eight.noise_error for _, eight in pairs]
    assert sum(near) >= 7


def test_the_levels_of_each_sequence_are_stratified():
    objective = Nelbo(exact_model(two_token_law(), Absorbing))
    times = []
    plain = objective.bound

    def recorded(*args, **kwargs):
        loss = plain(*args, **kwargs)
        times.append(loss.times.squeeze(-1))
        return loss

    objective.bound = recorded
    options = {"sequences": 0, "batch_size": 16, "protocol": "exact", "seed": 3, "draws": 4}
    evaluate(objective, Drawn(16), Accelerator(cpu=True), **options)
    parts = (torch.stack(times) * 4).long().sort(dim=0).values
    assert torch.equal(parts, torch.arange(4)[:, None].expand(4, 16))


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [7, 64])
def test_the_levels_add_up_to_the_bound(batch_size):
    found = bound(Uniform, Drawn(200), batch_size=batch_size, draws=5)
    assert [level.start for level in found.levels] == [part / 10 for part in range(10)]
    assert sum(level.sequences for level in found.levels) == 1000
    mean = sum(level.nats_per_token * level.sequences for level in found.levels) / 1000
    assert mean == pytest.approx(found.nats_per_token, rel=1e-12)


@pytest.mark.slow
def test_levels_know_how_single_sequences_are_spread():
    found = bound(Uniform, Drawn(500), draws=4)
    for level in found.levels:
        lowest, low, median, high, highest = level.quantiles
        assert 0 <= lowest <= low <= median <= high <= highest
        assert lowest <= level.nats_per_token
    ordered = torch.arange(101, dtype=torch.float64)[torch.randperm(101)]
    assert quantiles(ordered) == (5, 25, 50, 75, 95)
    assert quantiles(ordered[:1]) == (float(ordered[0]),) * 5


def test_the_error_of_one_sequence_is_unknown():
    found = bound(Uniform, Drawn(1), draws=3)
    assert math.isnan(found.standard_error)
    assert found.noise_error > 0


def test_units_follow_from_nats_and_counts():
    found = bound(Uniform, Drawn(64))
    assert found.bits_per_token == pytest.approx(found.nats_per_token / math.log(2))
    assert found.bits_per_character == pytest.approx(found.bits_per_token * 2 / 3)
    assert found.perplexity == pytest.approx(math.exp(found.nats_per_token))
    assert found.summary()["sequences"] == 64


def test_an_evaluation_repeats_itself_and_leaves_the_mode_of_the_network():
    objective = Nelbo(exact_model(two_token_law(), Uniform)).train()
    split = Drawn(64)
    options = {"sequences": 0, "batch_size": 16, "protocol": "exact", "seed": 4}
    first = evaluate(objective, split, Accelerator(cpu=True), **options)
    assert evaluate(objective, split, Accelerator(cpu=True), **options) == first
    assert objective.training


def test_text_without_characters_is_refused():
    split = Drawn(4)
    split.num_characters = lambda: 0
    with pytest.raises(UsageError, match="the 4 sequences to evaluate hold no characters"):
        bound(Uniform, split)


def test_a_bound_of_nothing_has_no_bits():
    """Under masks, where none fell on the text."""
    nothing = Bound(0.0, 0.0, tokens=4, characters=4, sequences=1)
    assert nothing.bits_per_token == nothing.bits_per_character == 0
    assert nothing.perplexity == 1


@pytest.mark.parametrize("process", [Uniform, Absorbing])
@pytest.mark.parametrize("batch_size", [1, 7, 40])
def test_the_figures_do_not_depend_on_how_many_sequences_are_read_at_once(process, batch_size):
    split = Drawn(40)
    whole = bound(process, split, batch_size=100, draws=2)
    parts = bound(process, split, batch_size=batch_size, draws=2)
    assert parts.nats_per_token == pytest.approx(whole.nats_per_token, rel=1e-9)
    assert parts.standard_error == pytest.approx(whole.standard_error, rel=1e-9)
    for one, other in zip(whole.levels, parts.levels, strict=True):
        assert (one.start, one.sequences) == (other.start, other.sequences)


def measured(objective: Objective) -> Bound:
    options = {"sequences": 0, "batch_size": 16, "protocol": "exact", "seed": 1}
    return evaluate(objective, Drawn(40), Accelerator(cpu=True), **options)


def tiny() -> Nelbo:
    process = Absorbing(3, time_conditioned=True)
    return Nelbo(model(process, TinyNetwork(process.num_states)))


def test_a_network_with_a_weight_that_is_not_finite_is_not_measured():
    objective = tiny()
    names = [name for name, _ in objective.named_parameters()]
    with torch.no_grad():
        objective.get_parameter(names[-1]).fill_(math.nan)
    with pytest.raises(UsageError, match=f"the weight {names[-1]} is not finite"):
        measured(objective)


def test_a_value_that_is_not_finite_of_finite_weights_is_named(monkeypatch):
    objective, plain = tiny(), Nelbo.row_loss

    def broken(self, logits, x_t, x0, alpha, slope):
        return plain(self, logits, x_t, x0, alpha, slope) / 0

    monkeypatch.setattr(Nelbo, "row_loss", broken)
    with pytest.raises(
        UsageError, match=r"sequence \d+ is (inf|nan) nats, and all weights are fin"
    ):
        measured(objective)


class Boundless(Nelbo):
    has_bound = False


def test_an_objective_without_a_bound_is_not_measured():
    objective = Boundless(exact_model(two_token_law(), Absorbing))
    with pytest.raises(UsageError, match="Boundless says that it has no bound"):
        measured(objective)


def test_errors_of_normal_values_hold_what_they_say():
    """Of few as of many: 95 % of the means are within 1.96 of them; in expectation, not less."""
    generator = torch.Generator().manual_seed(0)
    for number in (5, 20, 400):
        values = torch.randn(600, number, generator=generator, dtype=torch.float64)
        found = [ratio(row, torch.ones_like(row)) for row in values]
        covered = sum(abs(mean) <= 1.96 * error for mean, error in found) / len(found)
        assert 0.93 <= covered <= 0.99, number
    wide = [error * math.sqrt(400) for _, error in found]
    assert sum(wide) / len(wide) == pytest.approx(1, abs=0.02)
