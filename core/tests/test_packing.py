"""Packing: the published wrap, marks, padding, and the documents of each token."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.composition.options import MARKS, PACKINGS, DataOptions
from platform_core.data import packing
from platform_core.data.packing import choose
from platform_core.data.sequences import load_data
from platform_core.data.tokenizer import CharacterTokenizer
from platform_core.errors import UsageError

TOKENIZER = CharacterTokenizer("abcdefghij")
PAD, BOS, EOS, A = TOKENIZER.pad_id, TOKENIZER.bos_id, TOKENIZER.eos_id, 4


def ids(texts):
    return [TOKENIZER.encode(text) for text in texts]


def made(texts, length=8, **way):
    parts = list(choose(TOKENIZER, length, **way).rows(ids(texts)))
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def text(row):
    names = {PAD: ".", BOS: "<", EOS: ">"}
    return "".join(names.get(i) or TOKENIZER.decode([i]) for i in row.tolist())


WAYS = {
    ("packed", "documents"): ["<abc><de", "><f>...."],
    ("packed", "none"): ["abcdef.."],
    ("packed", "published"): ["<abc>de>"],
    ("packed", "chunks"): ["<abcdef>"],
    ("padded", "documents"): ["<abc>...", "<de>....", "<f>....."],
    ("padded", "none"): ["abc.....", "de......", "f......."],
}


@pytest.mark.parametrize("way", WAYS)
def test_documents_become_rows(way):
    rows, counted, _ = made(["abc", "de", "f"], packing=way[0], marks=way[1])
    assert [text(row) for row in rows] == WAYS[way]
    assert counted.tolist() == [8 - row.count(".") for row in WAYS[way]]


def test_long_documents_are_cut_where_each_has_a_row():
    rows, counted, _ = made(["abcdefghij"], packing="padded", marks="documents")
    assert [text(row) for row in rows] == ["<abcdef>"]
    rows, _, _ = made(["abcdefghij", ""], packing="padded", marks="none")
    assert [text(row) for row in rows] == ["abcdefgh"]
    rows, _, _ = made(["abc", ""], length=1, packing="padded", marks="documents")
    assert [text(row) for row in rows] == ["<", "<"]


def test_the_wrap_is_the_published_one():
    tokenizer = SimpleNamespace(vocab_size=200, pad_id=199, bos_id=0, eos_id=1)
    golden = Path(__file__).parent / "golden" / "r_group_texts.json"
    for case in json.loads(golden.read_text()):
        documents = [np.array(row[:-1], dtype=np.uint8) for row in case["input_ids"]]
        way = choose(tokenizer, case["block_size"], packing="packed", marks="published")
        rows = [row for part in way.rows(documents) for row in part.ids.tolist()]
        assert rows == case["output_input_ids"]


def test_the_wrap_leaves_out_the_rest_of_each_group(monkeypatch):
    monkeypatch.setattr(packing, "GROUP", 2)
    rows, _, _ = made(["abc"] * 5, length=5, packing="packed", marks="chunks")
    assert [text(row) for row in rows] == ["<abc>", "<abc>", "<abc>", "<abc>", "<abc>"]
    rows, _, _ = made(["ab"] * 5, length=5, packing="packed", marks="published")
    assert [text(row) for row in rows] == ["<ab>>", "<ab>>", "<ab>>", "<ab>>", "<ab>>"]


@given(
    st.lists(st.text("abc", max_size=9), max_size=12),
    st.integers(3, 12),
    st.sampled_from(PACKINGS),
    st.sampled_from(MARKS),
    st.integers(1, 40),
)
def test_every_token_knows_its_document(texts, length, way, marks, block):
    numbered = [
        text.translate(str.maketrans("abc", "abcdefghij"[i % 10] * 3))
        for i, text in enumerate(texts)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BLOCK_TOKENS", block)
        parts = list(choose(TOKENIZER, length, packing=way, marks=marks).rows(ids(numbered)))
    for rows, counted, documents in parts:
        assert rows.shape == documents.shape == (len(counted), length)
        for row, number, of in zip(rows, counted, documents, strict=True):
            assert of[0] == 0
            assert set(np.diff(of)) <= {0, 1}
            assert (row[number:] == PAD).all()
            if number < length:
                assert len(set(of[number:])) == 1
                assert of[number] == of[number - 1] + 1
            letters = row[:number] >= A
            for left, right in zip(row[:number], of[:number], strict=True):
                same = row[:number][letters & (of[:number] == right)]
                assert len(set(same)) <= 1, (left, same)


@given(st.lists(st.text("abc", max_size=9), max_size=12), st.integers(1, 9), st.integers(1, 40))
def test_blocks_of_rows_do_not_show(texts, length, block):
    whole = made([*texts, "a"], length=length, packing="packed", marks="documents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BLOCK_TOKENS", block)
        parts = made([*texts, "a"], length=length, packing="packed", marks="documents")
    for one, other in zip(whole, parts, strict=True):
        assert one.tolist() == other.tolist()


def test_one_mark_for_both_ends_stands_once_between_documents():
    class Gpt(CharacterTokenizer):
        bos_id = EOS

    (part,) = choose(Gpt("abc"), 8, packing="packed", marks="documents").rows(ids(["ab", "c"]))
    assert text(part.ids[0]) == ">ab>c>.."


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    for number in range(20):
        (tmp_path / f"{number:02}.txt").write_text("ab" * 9)
    return {"corpus": "text", "path": str(tmp_path), "length": 12}


def test_the_options_decide_and_each_way_has_its_own_cache(options):
    data = {
        key: load_data(DataOptions(**options, packing=key[0], marks=key[1])) for key in WAYS
    } | {"plain": load_data(DataOptions(**options))}
    assert len({d.fingerprint for d in data.values()}) == len(WAYS)
    assert data["plain"].fingerprint == data["packed", "documents"].fingerprint
    padded = data["padded", "documents"].split("train")
    assert len(padded) == 18
    assert padded.num_tokens() == 18 * 12
    assert padded.batch([0]).documents is None


def test_documents_are_kept_with_document_masks(options):
    split = load_data(DataOptions(**options, document_masks=True)).split("train")
    batch = split.batch([0, 1, 2])
    documents, begins = batch.documents, batch.x0 == BOS
    assert documents.tolist() == (begins.cumsum(1) - begins[:, :1].long()).tolist()


def test_a_wrap_without_room_is_refused(options):
    with pytest.raises(UsageError, match="it must be at least 3"):
        load_data(DataOptions(**{**options, "length": 2}, marks="chunks"))
    with pytest.raises(UsageError, match="corpus text has 0 tokens in its validation split"):
        load_data(DataOptions(**{**options, "length": 99}, marks="chunks"), splits=["validation"])
