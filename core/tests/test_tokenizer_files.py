"""tokenizer.json of other programs: read as it is, with an end, and damaged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from platform_core.data.tokenizer import ByteLevelTokenizer
from platform_core.data.tokenizer.library import byte_characters
from platform_core.data.tokenizer.sources import library_files, open_tokenizer
from platform_core.errors import UsageError

TEXT = "alpha beta  gamma\ndelta"


def byte_level(special: tuple[str, ...] = ("<s>", "</s>")) -> dict[str, Any]:
    """The library's JSON of 256 bytes behind the special tokens, without merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = [*special, *byte_characters()]
    library = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(list(special))
    model: dict[str, Any] = json.loads(library.to_str())
    return model


def write(folder: Path, config: object = None, model: object = None) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(byte_level() if model is None else model))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return file


CLASSES = ["LlamaTokenizerFast", "LlamaTokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast"]


@pytest.mark.parametrize("named", CLASSES)
def test_the_file_itself_is_read_whatever_class_the_folder_names(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def never(*_: object, **__: object) -> None:
        raise AssertionError("transformers made the tokenizer")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", never)
    config = {"tokenizer_class": named, "bos_token": "<s>", "eos_token": {"content": "</s>"}}
    found = open_tokenizer(str(write(tmp_path, config).parent))
    assert isinstance(found, ByteLevelTokenizer)
    assert found.decode(found.encode(TEXT)) == TEXT
    assert (found.bos_id, found.eos_id, found.pad_id) == (0, 1, 1)


def test_a_kept_repository_of_the_hub_is_read_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    kept = tmp_path / "models--acme--net"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs/main").write_text("0" * 40)
    (kept / "snapshots").mkdir()
    write(kept / "snapshots" / ("0" * 40), {"eos_token": "</s>", "tokenizer_class": "Unheard"})
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert open_tokenizer("acme/net").decode([2, 3]) == open_tokenizer(
        str(kept / "snapshots" / ("0" * 40))
    ).decode([2, 3])


def test_the_file_is_read_as_its_folder_is(tmp_path: Path) -> None:
    for number, config in enumerate([None, {"eos_token": "<s>", "pad_token": "</s>"}]):
        file = write(tmp_path / str(number), config)
        by_file, by_folder = open_tokenizer(str(file)), open_tokenizer(str(file.parent))
        assert by_file.to_dict() == by_folder.to_dict()
    assert (by_file.eos_id, by_file.pad_id) == (0, 1)
    other = file.with_name("other.json")
    other.write_text(file.read_text())
    assert open_tokenizer(str(other)).to_dict() == by_file.to_dict()


def test_a_token_that_only_the_config_has_is_added(tmp_path: Path) -> None:
    added = {"258": {"content": "<pad>", "special": True, "lstrip": False}}
    config = {"eos_token": "</s>", "pad_token": "<pad>", "added_tokens_decoder": added}
    found = open_tokenizer(str(write(tmp_path, config)))
    assert (found.pad_id, found.vocab_size) == (258, 259)


def test_without_an_end_it_is_named_or_not_needed(tmp_path: Path) -> None:
    file = write(tmp_path, model=byte_level(("<start>", "<stop>")))
    with pytest.raises(UsageError, match=r"--data\.end_token TOKEN, .*tokens are <start>, <stop>"):
        open_tokenizer(str(file))
    assert open_tokenizer(str(file), end_token="<stop>").eos_id == 1
    with pytest.raises(UsageError, match="has no token 'stop' for --data.end_token"):
        open_tokenizer(str(file), end_token="stop")
    unmarked = open_tokenizer(str(file), needs_end=False)
    assert unmarked.decode(unmarked.encode(TEXT)) == TEXT
    ids = unmarked.encode(TEXT)
    assert unmarked.count_characters(np.asarray(ids)) == len(TEXT)
    with pytest.raises(UsageError, match=r"--data\.end_token is for tokenizers of transformers"):
        open_tokenizer("text8", end_token="a")


def without(key: str) -> dict[str, Any]:
    model = byte_level()
    del model["model"][key]
    return model


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "no JSON": lambda _: b"\x00" * 100,
    "no UTF-8": lambda whole: b"\xff" + whole,
    "a list": lambda _: b"[1]",
    "null": lambda _: b"null",
    "no model": lambda _: b'{"version": "1.0"}',
    "a model that is no object": lambda _: b'{"model": [1]}',
    "nested": lambda _: b'{"model": ' + b"[" * 200_000,
    "no vocabulary": lambda _: json.dumps(without("vocab")).encode(),
    "an unknown type": lambda whole: whole.replace(b'"BPE"', b'"XYZ"'),
    "no tokens": lambda _: b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}',
    "added tokens that are none": lambda whole: whole.replace(b'"content"', b'"contents"'),
    "ids that are none": lambda whole: whole.replace(b": 7,", b": -7,"),
    "ids that are text": lambda whole: whole.replace(b": 7,", b': "7",'),
    "digits": lambda whole: whole.replace(b": 7,", b": 7" + b"0" * 5000 + b","),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_one_line_that_names_it(damage: str, tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_bytes(DAMAGED[damage](file.read_bytes()))
    for name in (str(file), str(tmp_path)):
        with pytest.raises(UsageError) as raised:
            open_tokenizer(name)
        assert str(file) in str(raised.value)
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 600


@pytest.mark.parametrize("content", [b"", b"[", b"[]", b"\xff", b'{"eos_token": 5}', b"[" * 9999])
def test_a_damaged_config_beside_it_is_one_line(content: bytes, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(UsageError, match="tokenizer") as raised:
        open_tokenizer(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_special_tokens_by_their_usual_names(tmp_path: Path) -> None:
    files = library_files(str(write(tmp_path, model=byte_level(("[MASK]", "[SEP]", "[CLS]")))))
    assert files.special == {"mask_token": "[MASK]", "sep_token": "[SEP]", "cls_token": "[CLS]"}
