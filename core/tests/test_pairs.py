"""Prompts with their answers: rows, what counts, what is given, and answers that are drawn."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from platform_core.composition.options import DataOptions
from platform_core.data.corpus import Columns, Corpus, Pair, open_corpus
from platform_core.data.pairs import paired_rows
from platform_core.data.tokenizer import CharacterTokenizer
from platform_core.errors import UsageError
from platform_core.evaluation.matching import Answers, up_to_end
from platform_core.types import Batch, TopTokens

TOKENIZER = CharacterTokenizer("0123456789+=;")
PAIRS = [Pair("21=", "12", ";"), Pair("3=", "3", ";")]


class Column(Corpus):
    def __init__(self, name):
        self.name = name

    def documents(self, split):
        return (getattr(pair, self.name) for pair in PAIRS)

    def fingerprint(self):
        return self.name


def rows(pairs=PAIRS, length=9, *, infills=False):
    if not infills:
        pairs = [pair._replace(suffix="") for pair in pairs]
    (found,) = paired_rows(pairs, "train", TOKENIZER, length, infills=infills)
    return found


def shown(found, row):
    ids = found.ids[row]
    counted = slice(found.first[row], found.counted[row])
    return TOKENIZER.decode(ids), TOKENIZER.decode(ids[counted])


def test_an_answer_and_the_ends_after_it_count():
    found = rows()
    assert shown(found, 0) == ("[BOS]21=12[EOS][EOS][EOS]", "12[EOS][EOS][EOS]")
    assert shown(found, 1) == ("[BOS]3=3[EOS][EOS][EOS][EOS][EOS]", "3[EOS][EOS][EOS][EOS][EOS]")
    assert found.characters.tolist() == [2, 1]


def test_with_text_after_the_answer_only_the_answer_counts():
    found = rows(infills=True)
    assert shown(found, 0) == ("[BOS]21=12;[EOS]", "12")
    assert found.ids[0, -1] == TOKENIZER.pad_id
    assert shown(found, 1) == ("[BOS]3=3;[EOS]", "3")


@pytest.mark.parametrize(
    ("pairs", "said"),
    {
        "too long": ([Pair("1=", "1"), Pair("1234=", "1234")], "pair 2 of the train text has 11"),
        "empty": ([Pair("1=", "")], "pair 1 of the train text has an empty answer"),
    }.values(),
)
def test_a_pair_that_makes_no_row_is_refused(pairs, said):
    with pytest.raises(UsageError, match=said):
        rows(pairs)


def test_columns_of_a_corpus_are_pairs():
    corpus = Columns([Column("prompt"), Column("answer"), Column("suffix")])
    assert list(corpus.pairs("train")) == PAIRS
    assert list(corpus.documents("train")) == ["21=12;", "3=3;"]
    assert corpus.infills
    two = Columns([Column("prompt"), Column("answer")])
    assert not two.infills
    assert two.fingerprint() != corpus.fingerprint()


@pytest.mark.parametrize(
    ("options", "said"),
    {
        "no answers": (dict(prompt_column="a"), "pairs need --data.prompt_column and"),
        "only suffixes": (dict(suffix_column="a"), "pairs need --data.prompt_column and"),
        "packed": (dict(packing="packed"), "data.packing is packed, but each pair"),
        "marks": (dict(marks="none"), "data.marks is none, but each pair"),
        "a label": (dict(label="century"), "data.label is century, but each pair"),
        "a mix": (dict(mix="text=a.txt"), "data.mix is text=a.txt, but each pair"),
        "a stream": (dict(streaming=True), "data.streaming is True, but each pair"),
    }.values(),
)
def test_options_that_pairs_cannot_have_are_refused(options, said):
    both = {} if "pairs need" in said else dict(prompt_column="p", answer_column="a")
    with pytest.raises(UsageError, match=said):
        DataOptions(corpus="text", **both, **options)


def test_a_corpus_without_columns_has_no_pairs():
    with pytest.raises(UsageError, match="corpus sotu has no --data.column"):
        open_corpus(DataOptions(prompt_column="p", answer_column="a"))


def batch():
    x0 = torch.tensor([[0, 1, 2], [2, 1, 0]])
    given = torch.tensor([[True, False, False], [True, True, False]])
    return Batch(x0, ~given, given=given)


def test_given_tokens_stay_clean_in_every_kind_of_input():
    own = batch()
    noisy = torch.full((2, 3), 3)
    assert own.kept(noisy).tolist() == own.kept_tokens(noisy).tolist() == [[0, 3, 3], [2, 1, 3]]
    dense = own.kept(torch.full((2, 3, 4), 0.25))
    assert dense[0, 0].tolist() == [1, 0, 0, 0]
    assert dense[0, 1].tolist() == [0.25] * 4
    soft = TopTokens(torch.full((2, 3, 2), 3), torch.full((2, 3, 2), 0.5))
    kept = own.kept(soft)
    assert (kept.ids[1, 0].tolist(), kept.weights[1, 0].tolist()) == ([2, 2], [1, 0])
    assert (kept.ids[1, 2].tolist(), kept.weights[1, 2].tolist()) == ([3, 3], [0.5, 0.5])
    assert own._replace(given=None).kept(noisy) is noisy


class Twice:
    """Inputs of an author's own kind, which hold the tokens twice."""

    def __init__(self, ids):
        self.ids = ids

    def kept(self, batch):
        return Twice(torch.cat([batch.kept_tokens(half) for half in self.ids.chunk(2, dim=1)], 1))


def test_inputs_of_an_author_s_kind_keep_given_tokens_themselves():
    found = batch().kept(Twice(torch.full((2, 6), 3)))
    assert found.ids.tolist() == [[0, 3, 3, 0, 3, 3], [2, 1, 3, 2, 1, 3]]
    with pytest.raises(TypeError, match="does not read inputs of the kind SimpleNamespace"):
        batch().kept(SimpleNamespace(ids=torch.zeros(2, 3)))


def test_a_batch_moves_with_what_is_given():
    moved = batch().to(torch.device("cpu"))
    assert torch.equal(moved.given, batch().given)


def test_answers_are_compared_as_text_up_to_their_first_end():
    found = rows()
    x0 = torch.from_numpy(found.ids.astype(np.int64))
    mask = torch.arange(9) >= torch.from_numpy(found.first)[:, None]
    drawn = x0.clone()
    drawn[0, 7:] = TOKENIZER.pad_id  # behind the end
    drawn[1, 3] = 5
    answers = Answers.of(Batch(x0, mask), drawn.tolist(), TOKENIZER)
    assert answers.references == ["12", "3"]
    assert answers.right == [True, False]
    summary = answers.summary()
    assert (summary["share"], summary["standard_error"]) == (0.5, 0.5)
    assert summary["tokens_right"] == pytest.approx(4 / 5)  # 1 2 END, END of the second


def test_up_to_end():
    assert up_to_end([1, 2, 9, 3, 9], 9) == [1, 2]
    assert up_to_end([1, 2], 9) == [1, 2]
