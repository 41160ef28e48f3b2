"""Tokens of several characters: trained, from files, from transformers; lossless and counted."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.tokenizer import (
    LEFT_OVER,
    ByteLevelTokenizer,
)
from platform_core.tokenizer.library import byte_characters
from platform_core.tokenizer.training import END, train_byte_pairs

TEXTS = [
    "the cat and the hat, the bat and the rat; naïve café 😀😀 ",
    "that is the end\n\n  of it.",
] * 3


@pytest.fixture(scope="session")
def trained() -> ByteLevelTokenizer:
    return train_byte_pairs(TEXTS, 290)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("".join(f"{n} cats 😀 and the naïve {n % 7} hats. " for n in range(200)))
    return file


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("the 😀ï\n"))


@given(ANY_TEXT)
def test_decoding_encoded_text_returns_it(trained: ByteLevelTokenizer, text: str) -> None:
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    assert trained.count_characters(ids) == len(text)


@given(ANY_TEXT, st.data())
def test_parts_of_a_text_have_its_characters_between_them(
    trained: ByteLevelTokenizer, text: str, data: st.DataObject
) -> None:
    ids = trained.encode(text)
    cut = data.draw(st.integers(0, len(ids)))
    assert trained.count_characters(ids[:cut]) + trained.count_characters(ids[cut:]) == len(text)


@given(st.lists(st.integers(0, 300), max_size=30))
def test_any_ids_can_be_read(trained: ByteLevelTokenizer, ids: list[int]) -> None:
    read = trained.decode(ids)
    assert read.count(LEFT_OVER) >= sum(i >= trained.vocab_size for i in ids)
    assert trained.decode(np.array(ids, np.uint16)) == read


def test_halves_of_a_character_are_replaced_and_stay_apart_across_masks() -> None:
    tokenizer = train_byte_pairs(["plain"], 257)
    first, second = tokenizer.encode("é").tolist()
    assert tokenizer.decode([first, second]) == "é"
    assert tokenizer.decode([second, first]) == "\ufffd\ufffd"
    assert tokenizer.decode([first, 257, second]) == f"\ufffd{LEFT_OVER}\ufffd"


def test_bytes_are_written_as_gpt2_writes_them() -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    written = byte_characters()
    assert (written[ord(" ")], written[0], written[ord("\n")], written[0xAD]) == (
        "Ġ",
        "Ā",
        "Ċ",
        "Ń",
    )
    assert sorted(written) == sorted(ByteLevel.alphabet())


def test_the_end_comes_first_then_bytes_then_the_most_frequent_pairs() -> None:
    tokenizer = train_byte_pairs(["aab aab aab ab"], 260)
    assert tokenizer.vocab_size == 260
    assert tokenizer.pieces[0] == END.encode()
    assert sorted(tokenizer.pieces[1:257]) == [bytes([byte]) for byte in range(256)]
    assert tokenizer.pieces[257:] == [b"ab", b"aab", b" aab"]
    assert tokenizer.bos_id == tokenizer.eos_id == tokenizer.pad_id == 0
    assert tokenizer.encode("aab ab").tolist() == [258, 221, 257]


def test_training_again_gives_the_same_vocabulary(trained: ByteLevelTokenizer) -> None:
    assert train_byte_pairs(iter(TEXTS), 290).to_dict() == trained.to_dict()
    assert train_byte_pairs(TEXTS, 289).to_dict() != trained.to_dict()


def test_special_tokens_that_are_spelt_out_are_text(trained: ByteLevelTokenizer) -> None:
    ids = trained.encode(f"a{END}b")
    assert trained.eos_id not in ids
    assert trained.decode(ids) == f"a{END}b"
    assert trained.decode([trained.bos_id, *trained.encode("a"), trained.eos_id]) == f"{END}a{END}"
    assert trained.count_characters(np.array([trained.bos_id], np.uint16)) == 0
