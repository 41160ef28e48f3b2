"""Sums, their splits and what is counted; and the laws of corpora and evaluations."""

import pytest
import torch
from platform_sums.corpus import Sums, open_sums, split_of
from platform_sums.evaluation import first_text, shares
from platform_sums.reward import RightSum

from platform_core.composition.options import DataOptions
from platform_core.data.tokenizer import CharacterTokenizer
from platform_core.errors import UsageError
from platform_core.testing import ContractTests


class TestContract(ContractTests):
    plugin = "sums"


@pytest.mark.parametrize("largest", [9, 99])
def test_every_sum_is_in_one_split_and_right(largest):
    found = {split: list(Sums(largest).documents(split)) for split in Sums.splits}
    every = sum(found.values(), [])
    assert len(every) == len(set(every)) == (largest + 1) ** 2
    assert all(min(map(len, found.values())) for _ in found)
    assert len(found["train"]) > 0.8 * len(every)
    for text in every:
        left, _, right = text.partition("=")
        assert sum(map(int, left.split("+"))) == int(right)


@pytest.mark.parametrize("path", ["x", "-3", "8", "1000", "1e2"])
def test_other_paths_are_refused(path):
    with pytest.raises(UsageError, match=f"data.path is {path}; .* from 9 to 999"):
        open_sums(DataOptions(corpus="sums", path=path))


def test_samples_are_counted():
    held_out = next((a, b) for a in range(20) for b in range(20) if split_of(a, b) != "train")
    seen = next((a, b) for a in range(20) for b in range(20) if split_of(a, b) == "train")
    texts = [f"{a}+{b}={a + b}" for a, b in (held_out, seen)] + ["1+1=3", "1+=2", "30+1=31", ""]
    found = shares(texts, 20)
    assert found["well_formed"] == 3 / 6
    assert found["right"] == 2 / 6
    assert found["unseen"] == 1 / 2
    assert found["unseen_error"] == pytest.approx((1 / 8) ** 0.5)
    assert shares(["?"], 20)["unseen"] is None


def test_right_sums_are_worth_most():
    tokenizer = CharacterTokenizer("0123456789+=")
    texts = [tokenizer.encode(text).tolist() for text in ("1+1=2", "1+1=3", "=1+1=")]
    assert RightSum(0.5, tokenizer)(torch.tensor(texts)).tolist() == [1, 0.5, 0]


def test_a_sample_ends_where_its_document_ends():
    tokenizer = CharacterTokenizer("0123456789+=")
    ids = [int(i) for i in tokenizer.encode("1+1=2")]
    marked = [tokenizer.bos_id, *ids, tokenizer.eos_id, *ids[:2]]
    assert first_text(marked, tokenizer) == first_text(ids, tokenizer) == "1+1=2"
