"""Words, and the laws of tokenizers and verbs."""

from collections import Counter

import pytest
from platform_words.tokenizer import Words, words_of
from platform_words.vocabulary import parts, table

from platform_core.errors import UsageError
from platform_core.testing import ContractTests


class TestContract(ContractTests):
    plugin = "words"


def test_words_keep_their_apostrophes_and_text_comes_back():
    text = "Don't  say\n\n“1,200 o’clock”_x"
    assert words_of(text) == ["Don't", "say", "1", "200", "o’clock", "x"]
    tokenizer = Words.of_texts([text])
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.count_characters(tokenizer.encode(text)) == len(text)


def test_unknown_words_are_refused_or_replaced():
    tokenizer = Words.of_texts(["a b"])
    with pytest.raises(UsageError, match=r"lacks 'c'; --data.unknown replace"):
        tokenizer.encode("a c")
    replaced = tokenizer.with_unknown("replace")
    assert isinstance(replaced, Words)
    assert replaced.decode(replaced.encode("a c")) == "a [UNK]"


def test_marks_are_no_words():
    tokenizer = Words.of_texts(["a b"])
    a, space, b = (int(i) for i in tokenizer.encode("a b"))
    row = [tokenizer.bos_id, a, space, tokenizer.eos_id, b, tokenizer.pad_id]
    assert parts(row, tokenizer) == ["a ", "b"]


def test_the_table_says_what_the_text_lacks():
    said = table(Counter(a=3, b=1, c=1), Counter(a=9), top=1)
    assert said.splitlines() == [
        "word  in samples  in training text",
        "a              3                 9",
        "5 words, 3 different; the training text lacks 2 of these: b and 1 more",
    ]
