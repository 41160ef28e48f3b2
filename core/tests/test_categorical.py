"""Categorical draws have the right frequencies down to the rarest tokens; truncations keep what
they say.
"""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from platform_core import categorical
from platform_core.categorical import (
    CleanOnly,
    InnerNucleus,
    InTurn,
    KeepAll,
    Nucleus,
    TopK,
    truncation,
)
from platform_core.testing.toy import chi_square, seeded

VOCABULARY = 50257


def log(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).log()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-12, 7.0])
def test_frequencies_are_the_probabilities(dtype: torch.dtype, scale: float):
    law = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.29, 0.01, 0.0], dtype=torch.float64)
    drawn = categorical.draw((law * scale).to(dtype).expand(30_000, -1), seeded())
    assert chi_square(drawn, law) > 0.01


def test_every_row_has_its_own_law():
    law = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 2.0], [0.5, 0.0]]])
    assert categorical.draw(law, seeded()).tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize("width", [5, 1000])
def test_no_rows_give_no_tokens(width: int):
    assert categorical.draw(torch.zeros(0, width), seeded()).shape == (0,)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_uniform_draw_no_impossible_category(uniform: float, monkeypatch):
    monkeypatch.setattr(
        torch, "rand", lambda shape, **_: torch.full(shape, uniform, dtype=torch.float64)
    )
    law = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.7, 1e-30, 0.0, 0.0])
    rows = law * torch.linspace(0.5, 2, 1000)[:, None]
    drawn = categorical.draw(rows, seeded())
    assert (law[drawn] > 0).all()


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_no_impossible_category_is_drawn_from_a_wide_row_either(uniform: float, monkeypatch):
    monkeypatch.setattr(
        torch, "rand", lambda shape, **_: torch.full(shape, uniform, dtype=torch.float64)
    )
    torch.manual_seed(0)
    for width in (513, 768, 1000):
        law = torch.where(torch.arange(width) % 3 == 1, torch.randn(200, width).exp(), 0.0)
        law[:, :260] = 0
        law[100:, 400:] = 0
        drawn = categorical.draw(law, seeded())
        assert (law.gather(-1, drawn[:, None]) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [512, 513, 700, 1024])
def test_a_wide_row_is_looked_up_as_a_narrow_one_is(dtype, width, monkeypatch):
    """In two steps and in one: the same uniform number finds the same category."""
    law = torch.randn(500, width, generator=seeded(1), dtype=torch.float64).mul(3).exp().to(dtype)
    in_steps = categorical.draw(law, seeded(2))
    monkeypatch.setattr(categorical, "BLOCK", width)
    at_once = categorical.draw(law, seeded(2))
    assert (in_steps == at_once).double().mean() > 0.99
    assert ((in_steps - at_once).abs() <= 1).all()


def rare_tail(probability: float) -> torch.Tensor:
    """A vocabulary-sized row: one common token in the first place, all others equally rare."""
    law = torch.full((VOCABULARY,), probability, dtype=torch.float64)
    law[0] = 1 - probability * (VOCABULARY - 1)
    return law


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("probability", [1e-7, 1e-8])
def test_rare_tokens_of_a_wide_row_are_drawn_as_often_as_they_should(
    probability: float, place: str, monkeypatch: pytest.MonkeyPatch
):
    """A float32 Gumbel race draws tokens of probability 1e-7 at 73 % of their rate, of 1e-8 at 2 %:
    q y / (e^y - 1) with y = 2^-24 / q. Float32 sums or uniforms cannot tell them apart either.

    Uniform numbers are confined to the end of the row where the rare tokens are, so that half of
    the draws should be rare: the law of a billion draws from a few thousand.
    """
    law, tail, real = rare_tail(probability), probability * (VOCABULARY - 1), torch.rand
    if place == "first":
        law = law.flip(0)

    def confined(*args: object, **kwargs: object) -> torch.Tensor:
        close = 2 * tail * real(*args, **kwargs)
        return close if place == "first" else 1 - close

    monkeypatch.setattr(torch, "rand", confined)
    chunks = [categorical.draw(law.expand(100, -1), seeded(seed)) for seed in range(16)]
    drawn = torch.cat(chunks)
    rare = drawn[law[drawn] == probability]
    assert stats.binomtest(len(rare), len(drawn), 0.5).pvalue > 0.01
    assert stats.kstest(rare.double() / VOCABULARY, "uniform").pvalue > 0.01
    # Some 6 coincidences are expected; 40 where float32 lumps six neighbours of 1e-8 together.
    assert len(rare) - len(rare.unique()) < 20


@pytest.mark.slow
def test_rare_tokens_of_a_wide_row_are_drawn_without_any_help():
    """Expected 8 draws of tokens of probability 1e-8 each; a float32 race would give 0.1."""
    rows = 100
    law = rare_tail(1e-8).expand(rows, -1)
    generator = seeded(1)
    tail = 1e-8 * (VOCABULARY - 1)
    rounds = round(8 / (rows * tail))
    hits = sum(int((categorical.draw(law, generator) > 0).sum()) for _ in range(rounds))
    assert stats.binomtest(hits, rows * rounds, tail).pvalue > 0.01


def test_the_token_that_crosses_top_p_is_kept():
    kept = Nucleus(0.9)(log(0.5, 0.3, 0.15, 0.05)[None])[0]
    assert kept.isfinite().tolist() == [True, True, True, False]
    torch.testing.assert_close(kept[:3].exp(), torch.tensor([0.5, 0.3, 0.15]).double() / 0.95)


@pytest.mark.slow
@given(
    st.lists(st.floats(1e-6, 1), min_size=2, max_size=8),
    st.floats(1e-3, 0.999),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_a_nucleus_is_the_smallest_set_beyond_top_p(weights, top_p, dtype):
    law = torch.tensor(weights, dtype=torch.float64).log().log_softmax(-1).to(dtype)
    nucleus = Nucleus(top_p)(law[None])[0]
    kept = nucleus.isfinite()
    probs = law.double().exp()
    assert nucleus.double().exp().sum().item() == pytest.approx(1, abs=1e-6)
    assert probs[kept].sum().item() >= top_p - 1e-6
    assert probs[kept].sum() - probs[kept].min() <= top_p + 1e-6
    if not kept.all():
        assert probs[kept].min() >= probs[~kept].max()
    ratios = nucleus[kept] - law[kept]
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))


def test_a_nucleus_keeps_the_most_likely_token_whatever_top_p():
    assert Nucleus(1e-9)(log(0.2, 0.7, 0.1)[None])[0].exp().tolist() == pytest.approx([0, 1, 0])


def test_the_token_that_crosses_top_p_is_dropped_in_the_other_convention():
    kept = InnerNucleus(0.9)(log(0.5, 0.3, 0.15, 0.05)[None])[0]
    assert kept.isfinite().tolist() == [True, True, False, False]
    torch.testing.assert_close(kept[:2].exp(), torch.tensor([0.5, 0.3]).double() / 0.8)


@pytest.mark.parametrize(
    ("kind", "top_p", "kept"),
    [
        (Nucleus, 0.25, 1),
        (Nucleus, 0.5, 2),
        (Nucleus, 0.75, 3),
        (Nucleus, 0.875, 4),
        (InnerNucleus, 0.25, 1),
        (InnerNucleus, 0.5, 1),
        (InnerNucleus, 0.75, 2),
        (InnerNucleus, 0.875, 3),
    ],
)
def test_a_set_of_exactly_top_p_does_not_exceed_it(kind, top_p, kept):
    """Sums of powers of two are exact, so that there are ties between a mass and top_p."""
    mass = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64)
    assert int((~kind(top_p).removed(mass)).sum()) == kept


@pytest.mark.parametrize("kind", [Nucleus, InnerNucleus])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.1, 0.37, 0.8])
def test_the_mass_of_many_rare_tokens_is_counted_to_the_last(kind, dtype, share):
    """Beside 0.9, a float32 sum changes by 6e-8 or not at all, which is 60 tokens of 1e-9."""
    law = torch.full((5000,), 1e-9, dtype=torch.float64)
    law[1234] = 0.9
    law = law.log().to(dtype)
    masses = law.exp().double().sort(descending=True).values
    sums = list(itertools.accumulate(masses.tolist()))
    top_p = 0.9 + share * 5000e-9
    within = sum(mass <= top_p for mass in sums)
    kept = int(kind(top_p)(law[None])[0].isfinite().sum())
    assert abs(kept - within - (kind is Nucleus)) <= 1


laws = st.lists(st.floats(1e-6, 1), min_size=2, max_size=8).map(
    lambda weights: torch.tensor(weights, dtype=torch.float64).log().log_softmax(-1)
)


@given(laws, st.floats(1e-3, 0.999))
def test_an_inner_nucleus_is_the_largest_set_within_top_p_or_the_most_likely_token(law, top_p):
    kept = InnerNucleus(top_p)(law[None])[0].isfinite()
    probs = law.exp()
    mass = probs[kept].sum().item()
    assert kept[probs.argmax()]
    assert mass <= top_p + 1e-12 or kept.sum() == 1
    if not kept.all():
        assert probs[kept].min() >= probs[~kept].max()
        assert mass + probs[~kept].max() > top_p - 1e-12


@given(laws, st.floats(1e-3, 0.999))
def test_the_two_conventions_differ_by_the_crossing_token(law, top_p):
    outer = Nucleus(top_p)(law[None])[0].isfinite()
    inner = InnerNucleus(top_p)(law[None])[0].isfinite()
    assert (outer | ~inner).all()
    assert (outer & ~inner).sum() <= 1


@pytest.mark.parametrize(("top_k", "kept"), [(1, [1]), (2, [1, 3]), (3, [1, 2, 3]), (9, range(5))])
def test_top_k_keeps_the_most_likely_tokens_in_their_proportions(top_k, kept):
    law = log(0.05, 0.4, 0.2, 0.25, 0.1)
    left = TopK(top_k)(law[None])[0].exp()
    expected = torch.zeros(5).double()
    expected[list(kept)] = law.exp()[list(kept)] / law.exp()[list(kept)].sum()
    torch.testing.assert_close(left, expected)


def test_top_k_treats_equally_likely_tokens_alike():
    left = TopK(2)(log(0.4, 0.2, 0.2, 0.2)[None])[0]
    assert left.isfinite().all()
    assert TopK(1)(log(0.4, 0.2, 0.2, 0.2)[None])[0].isfinite().sum() == 1


def test_top_k_counts_no_token_that_was_removed_before():
    left = InTurn(CleanOnly(2, KeepAll()), TopK(3))(log(0.1, 0.3, 0.6)[None])[0].exp()
    torch.testing.assert_close(left, torch.tensor([0.25, 0.75, 0.0]).double())


def test_clean_only_moves_all_mass_to_the_vocabulary():
    clean = CleanOnly(2, KeepAll())(log(0.1, 0.3, 0.6)[None])[0].exp()
    torch.testing.assert_close(clean, torch.tensor([0.25, 0.75, 0.0]).double())
    best = CleanOnly(2, Nucleus(0.5))(log(0.1, 0.3, 0.6)[None])[0].exp()
    torch.testing.assert_close(best, torch.tensor([0.0, 1.0, 0.0]).double())


def test_clean_only_leaves_its_argument_alone():
    given_law = log(0.1, 0.3, 0.6)[None]
    before = given_law.clone()
    CleanOnly(2, Nucleus(0.5))(given_law)
    assert torch.equal(given_law, before)


def test_top_p_of_one_keeps_everything():
    law = log(0.1, 0.3, 0.6)[None]
    assert truncation(1.0)(law) is law
    assert isinstance(truncation(0.9), Nucleus)
    assert isinstance(truncation(0.9, crossing="dropped"), InnerNucleus)
    assert truncation(1.0, crossing="dropped")(law) is law


def test_top_p_counts_the_mass_of_what_top_k_leaves():
    law = log(0.4, 0.3, 0.2, 0.1)[None]
    # Of (4/7, 3/7), the first alone exceeds 0.5; of all four tokens it does not.
    assert truncation(0.5, 2)(law).isfinite().tolist() == [[True, False, False, False]]
    assert truncation(0.5)(law).isfinite().tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("top_k", [0, -3])
def test_a_bad_top_k_is_refused_with_what_works(top_k: int):
    with pytest.raises(ValueError, match=f"top_k is {top_k}; it must be at least 1; leave it out"):
        truncation(1.0, top_k)


@pytest.mark.parametrize("top_p", [0.0, -0.1, 1.1, float("nan")])
def test_a_bad_top_p_is_refused_with_its_range(top_p: float):
    with pytest.raises(ValueError, match="top_p is .*above 0 and at most 1"):
        truncation(top_p)


def test_a_temperature_is_a_power_of_the_law():
    law = torch.tensor([[0.5, 0.3, 0.2, 0.0]], dtype=torch.float64).log()
    cold = truncation(temperature=0.5)(law).exp()
    torch.testing.assert_close(cold, torch.tensor([[25, 9, 4, 0]], dtype=torch.float64) / 38)


def test_min_p_keeps_tokens_by_their_share_of_the_most_likely_one():
    law = torch.tensor([[0.5, 0.26, 0.24, 0.0], [0.97, 0.01, 0.01, 0.01]], dtype=torch.float64)
    kept = truncation(min_p=0.5)(law.log()).exp()
    expected = torch.tensor([[50 / 76, 26 / 76, 0, 0], [1, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(kept, expected)


def test_the_options_apply_one_after_the_other():
    """At temperature .5 the law is 25 : 9 : 4 : 1, of which top_k 3 leaves 25 : 9 : 4."""
    law = torch.tensor([[0.5, 0.3, 0.2, 0.1]], dtype=torch.float64).log().log_softmax(-1)
    sharpened = truncation(0.9, 3, temperature=0.5, min_p=0.2)(law).exp()
    # 25 + 9 of 38 are .895, so top_p .9 keeps all three; 4 is below .2 of 25.
    torch.testing.assert_close(sharpened, torch.tensor([[25 / 34, 9 / 34, 0, 0]]).double())


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bad_temperature_is_refused_with_what_to_do(temperature: float):
    with pytest.raises(ValueError, match=r"temperature is .* take top_k 1"):
        truncation(temperature=temperature)


@pytest.mark.parametrize("min_p", [-0.1, 1.5, float("nan")])
def test_a_bad_min_p_is_refused_with_its_range(min_p: float):
    with pytest.raises(ValueError, match="min_p is .* from 0"):
        truncation(min_p=min_p)
