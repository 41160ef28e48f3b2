"""Tokens of several characters: trained, from files, from transformers; lossless and counted."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.cli import main
from platform_core.composition.options import DataOptions
from platform_core.data.sequences import load_data
from platform_core.data.tokenizer import (
    LEFT_OVER,
    ByteLevelTokenizer,
    CharacterTokenizer,
    SubwordTokenizer,
    library,
    load_tokenizer,
    tokenizer_from_dict,
)
from platform_core.data.tokenizer.library import byte_characters
from platform_core.data.tokenizer.sources import open_tokenizer
from platform_core.data.tokenizer.training import END, train_byte_pairs
from platform_core.errors import UsageError

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
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


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


def test_long_texts_are_cut_where_no_token_changes(
    trained: ByteLevelTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["the", " ", "\n", "  ", "cat's", "naïve", "😀", " \n ", "12", "...", "\t", "\xa0"]
    drawn = random.Random(0)
    texts = ["".join(drawn.choices(words, k=60)) for _ in range(50)]
    whole = [trained.library.encode(t, add_special_tokens=False).ids for t in texts]
    monkeypatch.setattr(library, "PIECE_CHARACTERS", 3)
    monkeypatch.setattr(library, "BATCH_CHARACTERS", 40)
    assert len(list(trained._cut(texts[0]))) > 5
    assert [ids.tolist() for ids in trained.encode_all(texts)] == whole


def test_every_text_has_its_ids_also_an_empty_one(trained: ByteLevelTokenizer) -> None:
    texts = ["", "the cat", "", "hat", ""]
    encoded = list(trained.encode_all(texts))
    assert [trained.decode(ids) for ids in encoded] == texts
    assert {ids.dtype for ids in encoded} == {np.dtype(np.uint16)}


def test_a_saved_tokenizer_needs_nothing_else(trained: ByteLevelTokenizer, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(trained.to_dict()))
    for loaded in (load_tokenizer(file), open_tokenizer(str(file)), open_tokenizer(str(tmp_path))):
        assert isinstance(loaded, ByteLevelTokenizer)
        assert loaded.to_dict() == trained.to_dict()
        assert loaded.encode(TEXTS[0]).tolist() == trained.encode(TEXTS[0]).tolist()


def write_gpt2_files(tokenizer: ByteLevelTokenizer, folder: Path) -> None:
    """As GPT-2 has them: the end is the last token."""
    model = tokenizer.model["model"]
    vocabulary = {token: i - 1 for token, i in model["vocab"].items() if token != END}
    vocabulary[END] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = "".join(f"{' '.join(pair)}\n" for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}")


def test_the_two_files_of_gpt2_are_a_tokenizer(trained: ByteLevelTokenizer, tmp_path: Path) -> None:
    write_gpt2_files(trained, tmp_path)
    found = open_tokenizer(str(tmp_path))
    assert isinstance(found, ByteLevelTokenizer)
    assert found.vocab_size == trained.vocab_size
    assert found.bos_id == found.eos_id == found.pad_id == trained.vocab_size - 1
    assert (found.encode(TEXTS[0]) + 1).tolist() == trained.encode(TEXTS[0]).tolist()
    assert found.decode(found.encode(TEXTS[0])) == TEXTS[0]


def test_a_folder_of_transformers_is_a_tokenizer(
    trained: ByteLevelTokenizer, tmp_path: Path
) -> None:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=trained.library, bos_token=END, eos_token=END
    ).save_pretrained(tmp_path)
    found = open_tokenizer(str(tmp_path))
    assert isinstance(found, ByteLevelTokenizer)
    assert (found.bos_id, found.eos_id, found.pad_id) == (0, 0, 0)
    assert found.encode(TEXTS[0]).tolist() == trained.encode(TEXTS[0]).tolist()


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    from transformers import BertTokenizerFast

    folder = tmp_path / "bert"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "."]
    BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)}).save_pretrained(folder)
    return folder


def test_word_pieces_are_read_as_bert_reads_them(bert: Path) -> None:
    found = open_tokenizer(str(bert))
    assert isinstance(found, SubwordTokenizer)
    assert (found.pad_id, found.bos_id, found.eos_id, found.vocab_size) == (0, 2, 3, 10)
    ids = found.encode("The cats sat.")
    assert ids.tolist() == [5, 6, 7, 8, 9]
    assert found.decode([2, *ids, 3, 0, 0]) == "[CLS] the cats sat. [SEP]"
    assert found.decode([5, 10, 8]) == f"the{LEFT_OVER}sat"
    assert found.count_characters(np.array([2, *ids, 3], np.uint8)) == len("the cats sat.")
    again = tokenizer_from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.encode("the cats").tolist() == [5, 6, 7]


def test_text8_is_a_to_z_and_space() -> None:
    tokenizer = open_tokenizer("text8")
    assert isinstance(tokenizer, CharacterTokenizer)
    assert tokenizer.vocab_size == 27 + 4
    assert tokenizer.decode(tokenizer.encode("anarchism originated")) == "anarchism originated"
    with pytest.raises(UsageError, match=r"27 characters lack '\.' \(U\+002E\), 'A' \(U\+0041\);"):
        tokenizer.encode("A b.")


def broken_files(folder: Path) -> str:
    (folder / "vocab.json").write_text("{}")
    (folder / "merges.txt").write_text("a b\n")
    return str(folder)


def no_end(folder: Path) -> str:
    (folder / "vocab.json").write_text('{"a": 0}')
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return str(folder)


def broken_model(folder: Path) -> str:
    values = {"kind": "byte-level", "begin": END, "end": END, "pad": END, "model": {}}
    (folder / "tokenizer.json").write_text(json.dumps(values))
    return str(folder)


def no_such_special(folder: Path) -> str:
    values = {**train_byte_pairs(["a"], 257).to_dict(), "pad": "[PAD]"}
    (folder / "tokenizer.json").write_text(json.dumps(values))
    return str(folder)


MISTAKES: dict[str, tuple[Callable[[Path], str], str]] = {
    "misspelt": (lambda _: "character", "no tokenizer character; did you mean characters"),
    "no such file": (lambda f: str(f / "no.json"), r"no tokenizer .*no\.json; a tokenizer is"),
    "empty folder": (str, "holds no tokenizer; a tokenizer is characters, text8"),
    "no such name": (lambda _: "acme/none", "transformers cannot load the tokenizer acme/none"),
    "broken files": (broken_files, "merges.txt are no tokenizer: the tokenizers library"),
    "files without an end": (no_end, r"lacks the token <\|endoftext\|>"),
    "broken model": (broken_model, "tokenizer.json is no tokenizer .*cannot read the model"),
    "special token that is not there": (no_such_special, r"lacks the token \[PAD\]"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_no_tokenizer_is_named(tmp_path: Path, mistake: str) -> None:
    make, said = MISTAKES[mistake]
    with pytest.raises(UsageError, match=said):
        open_tokenizer(make(tmp_path))


def test_any_text_is_known_so_nothing_is_replaced(trained: ByteLevelTokenizer) -> None:
    assert trained.with_unknown("error") is trained
    with pytest.raises(UsageError, match=r"--data\.unknown replace is for characters and text8"):
        trained.with_unknown("replace")
    with pytest.raises(UsageError, match=r"U\+DCFF at character 1, which UTF-8 cannot encode"):
        trained.encode("a\udcff")


def packed(text: Path, tokenizer: str) -> DataOptions:
    return DataOptions(corpus="text", path=str(text), length=16, tokenizer=tokenizer)


def test_data_are_packed_in_the_chosen_tokens_with_the_characters_of_the_text(
    trained: ByteLevelTokenizer, text: Path, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(trained.to_dict()))
    data, plain = (load_data(packed(text, t)) for t in (str(tmp_path), "characters"))
    assert data.fingerprint != plain.fingerprint
    for split in ("train", "validation", "test"):
        ids = data.split(split).tokens()
        assert ids.dtype == np.uint16
        characters = plain.split(split).num_characters()
        assert data.split(split).num_characters() == characters
        assert data.split(split).num_tokens() < characters
        assert data.tokenizer.decode(ids).count(END) == 2


def test_one_token_for_beginning_and_end_stands_once_between_documents(
    trained: ByteLevelTokenizer, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text(f"the {name} cat. " * 40)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(trained.to_dict()))
    data = load_data(packed(tmp_path, str(file)))
    read = data.tokenizer.decode(data.split("train").tokens())
    parts = read.split(END)
    assert (parts[0], parts[-1]) == ("", "")
    assert [part[:6] for part in parts[1:-1]] == ["the a ", "the b ", "the c "]


def train(*words: str) -> int:
    return main(["tokenizer", "train", *words])


def test_train_reads_the_training_split_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("ab" * 450 + "xy" * 50)
    words = [f"--data.path={file}", "--data.corpus=text", "--size=258"]
    assert train(*words, f"--output={tmp_path / 'out'}") == 0
    printed = capsys.readouterr().out
    assert "258 tokens from the train split of text, 1.000 characters per token" in printed
    assert f"platform run --data.tokenizer {tmp_path / 'out'}" in printed
    tokenizer = open_tokenizer(str(tmp_path / "out"))
    assert isinstance(tokenizer, ByteLevelTokenizer)
    assert tokenizer.pieces[257:] == [b"ab"]


REFUSED = {
    "too small": (["--size=256"], "256 bytes and <|endoftext|> alone are 257 tokens"),
    "output exists": (["--output={here}/old"], "old/tokenizer.json exists; give another --output"),
    "a run's": (["--output={here}/run", "--overwrite"], "run/tokenizer.json belongs to a run"),
    "no such corpus": (["--data.corpus=txet"], "unknown corpus 'txet'"),
    "no such option": (["--data.length=3"], "data.length"),
    "size that is no number": (["--size=big"], "size"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_training_that_cannot_be_is_one_line_and_changes_nothing(
    tmp_path: Path, text: Path, mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, name in (("old", "tokenizer.json"), ("run", "config.yaml")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("kept")
    words, said = REFUSED[mistake]
    usual = [f"--data.path={text}", "--data.corpus=text", f"--output={tmp_path / 'new'}"]
    assert train(*usual, *(word.format(here=tmp_path) for word in words)) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "old/tokenizer.json").read_text() == "kept"


def test_overwrite_replaces_and_a_file_may_have_any_name(tmp_path: Path, text: Path) -> None:
    words = [f"--data.path={text}", "--data.corpus=text", f"--output={tmp_path / 'mine.json'}"]
    assert train(*words, "--size=260") == 0
    assert train(*words, "--size=261", "--overwrite") == 0
    assert open_tokenizer(str(tmp_path / "mine.json")).vocab_size == 261


@pytest.mark.parametrize("words", [[], ["trian"]])
def test_the_verb_says_what_it_does(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", *words]) == 2
    assert "platform tokenizer train --size 4096 --output DIR" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main(["tokenizer", "--help"])


def saved_library(folder: Path, kind: str) -> str:
    """A folder with a tokenizer of one kind, trained on `DOCUMENTS`."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    said: dict[str, str] = {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    marks = ["<unk>", "<s>", "</s>"]
    if kind == "wordpiece":
        made = Library(models.WordPiece(unk_token="<unk>"))
        made.normalizer = normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece(prefix="##")
        trainer: object = trainers.WordPieceTrainer(vocab_size=60, special_tokens=marks)
    elif kind == "sentencepiece":
        made = Library(models.BPE(unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        made.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=marks)
    else:
        made = Library(models.BPE())
        made.normalizer = normalizers.NFC() if kind == "normalised bytes" else None
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=290, special_tokens=marks, initial_alphabet=alphabet
        )
    made.train_from_iterator(DOCUMENTS[:20], trainer)
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **said}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


DOCUMENTS = [
    *["ab cd", "Ab  cd\n\nef", " ab", "ab ", "ab, (cd)!", "naïve café", "nai\u0308ve", "😀 ab"]
    * 15,
    "a word with Ω that no vocabulary has",
]
KINDS = ["characters", "wordpiece", "sentencepiece", "bytes", "normalised bytes"]


@pytest.mark.parametrize("kind", KINDS)
def test_characters_are_those_of_the_text_whatever_cuts_it(tmp_path: Path, kind: str) -> None:
    """For every way to pack them without cutting text off, and for every document alone."""
    folder = tmp_path / "text"
    folder.mkdir()
    for number, document in enumerate(DOCUMENTS):
        (folder / f"{number:03}.txt").write_text(document, encoding="utf-8")
    name = kind if kind == "characters" else saved_library(tmp_path / "tokenizer", kind)
    for packing, marks in (("packed", "documents"), ("packed", "none"), ("padded", "documents")):
        length = 8 if packing == "packed" else 64
        text = {"corpus": "text", "path": str(folder), "length": length, "tokenizer": name}
        options = DataOptions(**text, packing=packing, marks=marks)  # type: ignore[arg-type]
        data = load_data(options)
        for split, held in (("train", None), ("validation", 9), ("test", 19)):
            documents = [
                document
                for number, document in enumerate(DOCUMENTS)
                if (number % 20 == held if held else number % 20 not in (9, 19))
            ]
            assert data.split(split).num_characters() == sum(map(len, documents)), (packing, marks)
            parts = [data.split(split).spread(n) for n in (1, 2)]
            assert all(0 < part.num_characters() <= sum(map(len, documents)) for part in parts)
    for document, found in zip(DOCUMENTS, data.tokenizer.encode_counted(DOCUMENTS), strict=True):
        assert found.characters.sum() == len(document)
        assert found.ids.tolist() == data.tokenizer.encode(document).tolist()
        assert len(found.ids) == len(found.characters)
