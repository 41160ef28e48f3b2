import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.composition.options import DataOptions
from platform_core.data.sequences import Data, load_data
from platform_core.evaluation import ngram
from platform_core.evaluation.ngram import ORDER, baselines, probabilities

VOCABULARY = 4
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=40)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path: Path) -> Data:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{number} and {number % 7}; " for number in range(300)))
    return load_data(DataOptions(corpus="text", path=str(path), length=16))


def exact(
    train: Sequence[int], context: Sequence[int], token: int, vocabulary: int = VOCABULARY
) -> Fraction:
    """The definition, by counting in a list."""
    if not context:
        return Fraction(train.count(token) + 1, len(train) + vocabulary)
    n = len(context)
    followers = [
        train[i + n] for i in range(len(train) - n) if list(train[i : i + n]) == list(context)
    ]
    lower = exact(train, context[1:], token, vocabulary)
    if not followers:
        return lower
    kinds = len(set(followers))
    return (followers.count(token) + kinds * lower) / (len(followers) + kinds)


def laws(train: Sequence[int], held_out: Sequence[int], order: int) -> list[np.ndarray]:
    arrays = (np.array(tokens, np.uint8) for tokens in (train, held_out))
    return list(probabilities(*arrays, vocab_size=VOCABULARY, order=order))


@given(TOKENS, TOKENS)
def test_probabilities_are_those_of_the_definition(train: list[int], held_out: list[int]) -> None:
    for order, law in enumerate(laws(train, held_out, ORDER), start=1):
        expected = [
            float(exact(train, held_out[max(0, i - order + 1) : i], token))
            for i, token in enumerate(held_out)
        ]
        np.testing.assert_allclose(law, expected, rtol=1e-13)


@given(TOKENS, st.lists(st.integers(0, VOCABULARY - 1), max_size=6))
def test_the_laws_of_the_next_token_sum_to_one(train: list[int], context: list[int]) -> None:
    by_token = [laws(train, [*context, token], ORDER) for token in range(VOCABULARY)]
    for of_order in zip(*by_token, strict=True):
        assert math.isclose(sum(law[-1] for law in of_order), 1, rel_tol=1e-12)


def test_wide_vocabularies_do_not_overflow() -> None:
    ids = np.array([99_999, 5, 70_000, 99_998, 3, 99_999] * 20, np.uint32)
    *_, law = probabilities(ids, ids[:12], vocab_size=100_000, order=ORDER)
    assert law[4] > 0.95
    assert (law > 0).all()
    assert (law <= 1).all()


def test_bits_are_of_the_product_of_all_tokens_per_character(data: Data) -> None:
    bits = baselines(data, "test", 3)
    train = data.split("train").tokens().tolist()
    held_out = data.split("test").spread(3).tokens().tolist()
    assert len(held_out) == 48
    assert data.split("test").spread(3).num_characters() == 47
    for order, value in ((1, bits.unigram), (2, bits.bigram), (5, bits.fivegram)):
        product = math.prod(
            exact(train, held_out[max(0, i - order + 1) : i], token, data.tokenizer.vocab_size)
            for i, token in enumerate(held_out)
        )
        assert math.isclose(value, -math.log2(product) / 47, rel_tol=1e-12)


def test_zero_sequences_are_all(data: Data) -> None:
    assert baselines(data, "test", 0) == baselines(data, "test", len(data.split("test")))
    assert baselines(data, "test", 0) != baselines(data, "test", 1)


def test_longer_contexts_predict_regular_text_better(data: Data) -> None:
    bits = baselines(data, "validation")
    assert bits.unigram > bits.bigram + 1
    assert bits.bigram > bits.fivegram


def test_bits_are_measured_once(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = [baselines(data, split) for split in ("validation", "test")]
    monkeypatch.setattr(ngram, "_measure", None)
    assert [baselines(data, split) for split in ("validation", "test")] == measured
    with pytest.raises(TypeError):
        baselines(data, "test", 2)


@pytest.mark.slow
def test_the_default_corpus_has_the_bits_it_always_had() -> None:
    bits = baselines(load_data(DataOptions()), "validation")
    assert bits.unigram == pytest.approx(4.384000, abs=1e-6)
    assert bits.bigram == pytest.approx(3.432196, abs=1e-6)
    assert bits.fivegram == pytest.approx(1.708380, abs=1e-6)
