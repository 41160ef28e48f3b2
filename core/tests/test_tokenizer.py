import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.data.tokenizer import LEFT_OVER, CharacterTokenizer, load_tokenizer
from platform_core.errors import UsageError


@pytest.mark.slow
@given(st.text())
def test_decoding_encoded_text_returns_it(text: str) -> None:
    tokenizer = CharacterTokenizer(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.count_characters(ids) == len(ids) == len(text)


def test_special_tokens_come_first_and_characters_by_code_point() -> None:
    tokenizer = CharacterTokenizer(["b", "é", "a", "a"])
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unknown_id) == (
        0,
        1,
        2,
        3,
    )
    assert tokenizer.encode("éab").tolist() == [6, 4, 5]
    assert tokenizer.vocab_size == 7


@pytest.mark.parametrize(("characters", "bits"), [(252, 8), (253, 16)])
def test_ids_have_the_smallest_type_that_holds_the_vocabulary(characters: int, bits: int) -> None:
    text = "".join(map(chr, range(1000, 1000 + characters)))
    ids = CharacterTokenizer(text).encode(text)
    assert ids.dtype == np.dtype(f"uint{bits}")
    assert ids.tolist() == list(range(4, 4 + characters))


def test_unknown_characters_are_named_with_what_to_do() -> None:
    with pytest.raises(UsageError) as caught:
        CharacterTokenizer("abc").encode("a€bcdefghi")
    message = str(caught.value)
    assert "3 characters lack 'd' (U+0064), 'e' (U+0065)" in message
    assert message.count("U+") == 5
    assert "and 2 more" in message
    assert "--data.unknown replace" in message


@pytest.mark.parametrize("character", ["`", "z", "\N{GRINNING FACE}", "\udcff"])
def test_unknown_characters_are_found_wherever_they_lie(character: str) -> None:
    with pytest.raises(UsageError, match=f"U\\+{ord(character):04X}"):
        CharacterTokenizer("ac").encode(character)


def test_replaced_characters_count_as_characters() -> None:
    tokenizer = CharacterTokenizer("ab").with_unknown("replace")
    ids = tokenizer.encode("abz")
    assert ids.tolist() == [4, 5, tokenizer.unknown_id]
    assert tokenizer.count_characters(ids) == 3


def test_special_tokens_are_no_characters() -> None:
    assert CharacterTokenizer("ab").count_characters(np.array([1, 4, 5, 2, 0], np.uint8)) == 2


def test_decoding_drops_padding_and_shows_other_special_tokens() -> None:
    assert CharacterTokenizer("ab").decode([1, 4, 3, 5, 2, 0, 0]) == "[BOS]a[UNK]b[EOS]"


def test_decoding_shows_ids_after_the_vocabulary() -> None:
    tokenizer = CharacterTokenizer("ab")
    assert tokenizer.decode([4, tokenizer.vocab_size, 5]) == f"a{LEFT_OVER}b"


@pytest.mark.parametrize("unknown", ["error", "replace"])
def test_a_saved_tokenizer_is_the_same(tmp_path: Path, unknown: str) -> None:
    tokenizer = CharacterTokenizer('a"é\n😀', unknown)  # type: ignore[arg-type]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tokenizer.to_dict()))
    loaded = load_tokenizer(path)
    assert loaded.to_dict() == tokenizer.to_dict()
    assert loaded.encode("😀a").tolist() == tokenizer.encode("😀a").tolist()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"kind": "morse"}', '{"kind": "character"}'])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"tokenizer\.json is no tokenizer"):
        load_tokenizer(path)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the tokenizer .*none.json: No such file"):
        load_tokenizer(tmp_path / "none.json")
