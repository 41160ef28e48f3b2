"""Every sampler draws the law it should, in the calls it reports, around any prompt."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from platform_core import rows
from platform_core.model import Model
from platform_core.parameterization import Mean, Parameterization
from platform_core.process import Absorbing
from platform_core.sampler import Ancestral, Prompt, Sampler
from platform_core.schedule import Cosine, LogLinear, Polynomial, Schedule
from platform_core.testing.allocations import LargestTensor
from platform_core.testing.toy import (
    ExactDenoiser,
    TinyNetwork,
    chi_square,
    exact_model,
    index_of,
    model,
    random_law,
    seeded,
    two_token_law,
)
from platform_mdlm.parameterization import Subs
from platform_mdlm.process import Mdlm
from platform_mdlm.reuse import Reusing
from platform_mdlm.sampler import CachedAncestral, FirstHitting, Remdm, SemiAutoregressive

SAMPLERS: dict[str, Callable[[], Sampler]] = {
    "cached-ancestral": lambda: CachedAncestral(False, steps=16),
    "cached-ancestral greedy": lambda: CachedAncestral(False, steps=16, final="greedy", top_p=0.9),
    "first-hitting": FirstHitting,
    "first-hitting top-p": lambda: FirstHitting(top_p=0.7),
    "semi-autoregressive": lambda: SemiAutoregressive(window=5, overlap=2, steps=16),
    "remdm cap": lambda: Remdm(steps=16, eta=0.1),
    "remdm rescale": lambda: Remdm(steps=16, strategy="rescale", eta=0.3, top_p=0.9),
    "remdm confidence": lambda: Remdm(steps=16, strategy="confidence", final="greedy"),
    "remdm loop": lambda: Remdm(steps=16, strategy="loop", eta=0.1),
}
PLAIN = {
    name: make
    for name, make in SAMPLERS.items()
    if name
    in {"cached-ancestral", "first-hitting", "semi-autoregressive", "remdm cap", "remdm loop"}
}
every_sampler = pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
parameterizations = pytest.mark.parametrize("parameterization", [Subs(), Mean()])


def tiny_model(
    vocab_size: int = 5,
    parameterization: Parameterization | None = None,
    *,
    time_conditioned: bool = False,
    mask_bias: float = 0.0,
) -> Model:
    torch.manual_seed(0)
    process = Mdlm(vocab_size, time_conditioned=time_conditioned)
    backbone = TinyNetwork(process.num_states)
    with torch.no_grad():
        backbone.head.bias[vocab_size] += mask_bias
    return model(process, backbone, LogLinear(), parameterization or Subs())


def read_by(built: Model, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor | None]]:
    """Everything that the network is given, as it is called."""
    read: list[tuple[Tensor, Tensor | None]] = []
    encode = built.backbone.encode

    def listen(inputs: Tensor, sigma: Tensor | None) -> Tensor:
        read.append((inputs.clone(), sigma))
        return encode(inputs, sigma)

    monkeypatch.setattr(built.backbone, "encode", listen)
    return read


@pytest.mark.slow
@every_sampler
@parameterizations
def test_no_masks_are_left_even_when_the_network_predicts_them(make, parameterization):
    built = tiny_model(parameterization=parameterization, mask_bias=4.0)
    tokens = make()(built, (16, 9), seeded()).tokens
    assert tokens.shape == (16, 9)
    assert tokens.min() >= 0
    assert tokens.max() < 5


@pytest.mark.slow
@every_sampler
def test_prompts_stay_in_place_at_every_call(make, monkeypatch):
    built = tiny_model()
    tokens = torch.randint(5, (8, 9), generator=seeded(1))
    prompt = Prompt(tokens, torch.rand(8, 9, generator=seeded(2)) < 0.4)
    read = read_by(built, monkeypatch)
    sample = make()(built, (8, 9), seeded(), prompt).tokens
    assert torch.equal(sample[prompt.fixed], tokens[prompt.fixed])
    assert not torch.equal(sample, tokens)
    assert read
    for x_t, _ in read:
        if x_t.shape == tokens.shape:
            assert torch.equal(x_t[prompt.fixed], tokens[prompt.fixed])


@every_sampler
def test_a_prompt_of_everything_needs_no_network(make):
    built = tiny_model()
    tokens = torch.randint(5, (2, 9), generator=seeded())
    sample = make()(built, (2, 9), seeded(), Prompt(tokens, torch.ones(2, 9).bool()))
    assert torch.equal(sample.tokens, tokens)
    assert sample.nfe == built.backbone.calls == 0


@pytest.mark.slow
@every_sampler
def test_equal_seeds_draw_equal_samples(make):
    built = tiny_model()
    one, same, other = (make()(built, (4, 9), seeded(seed)).tokens for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.slow
@every_sampler
def test_sampling_makes_no_tensor_of_positions_by_states(make, monkeypatch):
    built = tiny_model(1007)
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 6 * 1008)
    with LargestTensor() as made:
        make()(built, (16, 32), seeded())
    assert made.elements < 16 * 32 * 1008 / 20


EXACT: dict[str, Callable[[], Sampler]] = {
    "cached-ancestral": lambda: CachedAncestral(False, steps=128),
    "first-hitting": FirstHitting,
    "semi-autoregressive": lambda: SemiAutoregressive(steps=128),
    "remdm cap": lambda: Remdm(steps=128, eta=0.02),
    "remdm rescale": lambda: Remdm(steps=128, strategy="rescale", eta=0.03),
    "remdm loop": lambda: Remdm(steps=128, strategy="loop", eta=0.01),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", EXACT.values(), ids=EXACT)
def test_exact_predictions_sample_the_data(make):
    law = two_token_law()
    built = exact_model(law, Mdlm, parameterization=Subs())
    tokens = make()(built, (5_000, 2), seeded(1)).tokens
    assert chi_square(index_of(tokens, 3), law.probs.flatten()) > 0.01


def test_first_hitting_samples_longer_texts_exactly_too():
    law = random_law(2, 4, seed=6)
    built = exact_model(law, Mdlm, parameterization=Subs())
    tokens = FirstHitting()(built, (20_000, 4), seeded(2)).tokens
    assert chi_square(index_of(tokens, 2), law.probs.flatten()) > 0.01


@pytest.mark.parametrize("given_token", [0, 1, 2])
@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
def test_a_prompt_conditions_exactly(make, given_token: int):
    law = two_token_law()
    built = exact_model(law, Mdlm, parameterization=Subs())
    number = 4_000
    prompt = Prompt(
        torch.tensor([[given_token, 0]]).expand(number, 2),
        torch.tensor([[True, False]]).expand(number, 2),
    )
    tokens = make()(built, (number, 2), seeded(3), prompt).tokens
    assert chi_square(tokens[:, 1], law.probs[given_token] / law.probs[given_token].sum()) > 0.01


@parameterizations
@pytest.mark.parametrize("final", ["ancestral", "greedy", "none"])
@pytest.mark.parametrize("prompted", [False, True])
def test_cached_samples_are_the_uncached_ones(parameterization, final, prompted):
    built = tiny_model(parameterization=parameterization)
    fixed = torch.rand(8, 6, generator=seeded(2)) < 0.4
    prompt = Prompt(torch.randint(5, (8, 6), generator=seeded(1)), fixed) if prompted else None
    options = {"steps": 7, "final": final, "top_p": 0.9}
    plain = Ancestral(**options)(built, (8, 6), seeded(), prompt)
    cached = CachedAncestral(False, **options)(built, (8, 6), seeded(), prompt)
    assert torch.equal(cached.tokens, plain.tokens)
    assert 0 < cached.nfe <= plain.nfe


@parameterizations
def test_a_sequence_is_read_once_until_it_changes_and_never_without_masks(
    parameterization, monkeypatch
):
    built = tiny_model(parameterization=parameterization)
    read = read_by(built, monkeypatch)
    sample = CachedAncestral(False, steps=12)(built, (1, 5), seeded())
    texts = [tuple(x_t[0].tolist()) for x_t, _ in read]
    assert len(texts) == len(set(texts)) == sample.nfe
    assert all(5 in text for text in texts)
    read.clear()
    sample = CachedAncestral(False, steps=12)(built, (64, 5), seeded())
    assert min(len(x_t) for x_t, _ in read) < 32
    assert sample.nfe == math.ceil(sum(len(x_t) for x_t, _ in read) / 64) <= 5


@pytest.mark.parametrize(("steps", "length"), [(8, 6), (4, 10), (20, 3)])
def test_the_mean_number_of_evaluations_is_that_of_distinct_texts(steps: int, length: int):
    """steps (1 - (1 - 1 / steps)^length), for each sequence on its own."""
    torch.manual_seed(0)
    process, batch = Mdlm(5), 4_000
    reusing = Reusing(TinyNetwork(6), process)
    Ancestral(steps)(model(process, reusing, LogLinear(0), Subs()), (batch, length), seeded())
    expected = steps * (1 - (1 - 1 / steps) ** length)
    assert reusing.sequences / batch == pytest.approx(expected, abs=4 / batch**0.5)


def test_a_network_that_is_told_the_level_cannot_be_cached():
    with pytest.raises(ValueError, match=r"choose sampler ancestral, or process mdlm"):
        CachedAncestral(time_conditioned=True)


@pytest.mark.parametrize("schedule", [LogLinear(0), LogLinear(0.3), Cosine(0), Polynomial(2)])
def test_first_hitting_samples_the_data_under_every_schedule(schedule: Schedule):
    law = two_token_law()
    built = exact_model(law, Mdlm, schedule, Subs())
    tokens = FirstHitting()(built, (5_000, 2), seeded(2)).tokens
    assert chi_square(index_of(tokens, 3), law.probs.flatten()) > 0.01


def test_first_hitting_calls_the_network_once_for_each_token():
    built = tiny_model()
    assert FirstHitting()(built, (4, 9), seeded()).nfe == 9
    assert built.backbone.calls == 9
    fixed = torch.arange(9).expand(2, 9) >= torch.tensor([[4], [6]])
    prompt = Prompt(torch.zeros(2, 9, dtype=torch.long), fixed)
    assert FirstHitting()(built, (2, 9), seeded(), prompt).nfe == 6


@pytest.mark.parametrize("schedule", [LogLinear(0), LogLinear(0.3), Cosine(0)])
def test_tokens_appear_at_the_order_statistics_of_uniform_levels(schedule, monkeypatch):
    """The k-th of n tokens at a share of masks that is Beta(n + 1 - k, k), times the first one."""
    length, process = 4, Mdlm(3, time_conditioned=True)
    built = model(process, TinyNetwork(4), schedule, Subs())
    read = read_by(built, monkeypatch)
    FirstHitting()(built, (3_000, length), seeded(5))
    assert len(read) == length
    noise = 1 - float(schedule.alpha(torch.ones(1, dtype=torch.float64)))
    for place, (x_t, sigma) in enumerate(read, start=1):
        assert ((x_t == 3).sum(-1) == length + 1 - place).all()
        share = (1 - (-sigma.double()).exp()) / noise
        # Levels below MIN_ALPHA look alike to the network.
        share = share[share < 0.9998].flatten().numpy()
        expected = stats.beta(length + 1 - place, place)
        assert stats.kstest(share, lambda x: expected.cdf(x) / expected.cdf(0.9998)).pvalue > 0.01  # noqa: B023


def test_every_order_of_tokens_is_equally_likely(monkeypatch):
    built = tiny_model()
    read = read_by(built, monkeypatch)
    tokens = FirstHitting()(built, (6_000, 3), seeded(6)).tokens
    texts = [x_t for x_t, _ in read] + [tokens]
    order = [(now != later).long().argmax(-1) for now, later in zip(texts, texts[1:], strict=False)]
    first, second = order[0], order[1]
    assert (first != second).all()
    assert chi_square(3 * first + second, (1 - torch.eye(3)).flatten().double()) > 0.01


def test_windows_are_full_and_overlap_by_what_was_asked_or_more():
    assert SemiAutoregressive(window=8, overlap=3).windows(18) == [(0, 8), (5, 13), (10, 18)]
    assert SemiAutoregressive(window=8, overlap=3).windows(15) == [(0, 8), (5, 13), (7, 15)]
    assert SemiAutoregressive(window=8).windows(13) == [(0, 8), (4, 12), (5, 13)]
    assert SemiAutoregressive(window=8).windows(5) == [(0, 5)]
    assert SemiAutoregressive(window=2, overlap=0).windows(4) == [(0, 2), (2, 4)]


@pytest.mark.slow
def test_a_long_text_is_a_chain_of_windows(monkeypatch):
    law = two_token_law()
    built = exact_model(law, Mdlm, parameterization=Subs())
    read = read_by(built, monkeypatch)
    sampler = SemiAutoregressive(window=2, overlap=1, steps=64)
    tokens = sampler(built, (5_000, 3), seeded(7)).tokens
    following = law.probs / law.probs.sum(1, keepdim=True)
    expected = law.probs[:, :, None] * following[None]
    assert chi_square(index_of(tokens, 3), expected.flatten()) > 0.01
    assert {x_t.shape[1] for x_t, _ in read} == {2}


def test_a_text_within_the_window_is_drawn_at_once():
    built = tiny_model()
    plain = Ancestral(steps=5)(built, (4, 8), seeded())
    long = SemiAutoregressive(window=8, steps=5)(built, (4, 8), seeded())
    assert torch.equal(long.tokens, plain.tokens)
    assert long.nfe == plain.nfe


def test_the_evaluations_of_all_windows_are_counted():
    built = tiny_model()
    sample = SemiAutoregressive(window=4, overlap=2, steps=6)(built, (3, 10), seeded())
    assert sample.nfe == built.backbone.calls > 6


@pytest.mark.parametrize(("window", "overlap"), [(4, 4), (4, -1), (0, 0)])
def test_an_overlap_outside_the_window_is_refused(window: int, overlap: int):
    with pytest.raises(ValueError, match=r"overlap is .*for example half"):
        SemiAutoregressive(window=window, overlap=overlap)


def test_the_requirements_are_masks():
    for sampler in (CachedAncestral, FirstHitting, Remdm):
        assert sampler.requires["process"] is Absorbing


def test_predictions_are_those_of_one_sequence_each():
    """The reused features belong to their own sequence, whichever were read with it."""
    law, process = two_token_law(), Mdlm(3)
    network = ExactDenoiser(law, process)
    reusing = Reusing(network, process)
    first = torch.tensor([[3, 3], [0, 3], [1, 2]])
    torch.testing.assert_close(reusing.encode(first, None)[:2], network.encode(first, None)[:2])
    second = torch.tensor([[3, 1], [0, 3], [1, 3]])
    torch.testing.assert_close(reusing.encode(second, None), network.encode(second, None))
    assert reusing.sequences == 2 + 2
