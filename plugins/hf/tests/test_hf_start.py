"""Pretrained weights: under other names, for other tokens, damaged; and the kept configuration."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from platform_core.composition.compose import compose
from platform_core.data.tokenizer.sources import open_tokenizer
from platform_core.errors import UsageError
from platform_core.registry.loading import load_plugins
from platform_hf.backbone import Hf

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "e"]
ROWS = 12


def saved(folder: Path, kind: str = "BertForMaskedLM", words: list[str] | None = None) -> Path:
    """A small network with its tokenizer, of fewer tokens than the network has rows."""
    import transformers

    torch.manual_seed(3)
    network_class = getattr(transformers, kind)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = network_class.config_class(
        vocab_size=ROWS, intermediate_size=32, max_position_embeddings=32, pad_token_id=0, **sizes
    )
    network_class(config).save_pretrained(folder)
    write_tokenizer(folder, words or WORDS)
    return folder


def write_tokenizer(folder: Path, words: list[str]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocab = {word: i for i, word in enumerate(words)}
    library = Tokenizer(models.WordLevel(vocab, unk_token=words[1]))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.add_special_tokens([word for word in words if word.startswith("[")])
    folder.mkdir(exist_ok=True)
    library.save(str(folder / "tokenizer.json"))


def started(folder: Path, tokenizer: Path | None = None, **options: Any) -> tuple[Hf, Any]:
    own = open_tokenizer(str(tokenizer or folder))
    backbone = Hf(own.vocab_size + 1, False, False, str(folder), pretrained=True, **options)
    return backbone, backbone.start(own.library.get_vocab(True), own.vocab_size)


def renamed(folder: Path, name: Callable[[str], str]) -> None:
    file = folder / "model.safetensors"
    tensors = {name(key): tensor for key, tensor in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["BertForMaskedLM", "LlamaForCausalLM"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "net.", "model."])
def test_known_prefixes_are_left_out(kind: str, prefix: str, tmp_path: Path) -> None:
    plain, _ = started(saved(tmp_path / "plain", kind))
    renamed(saved(tmp_path / "wrapped", kind), lambda name: prefix + name)
    wrapped, record = started(tmp_path / "wrapped")
    assert record["prefix"]
    assert record["new"] == record["not_used"] == []
    for (name, one), two in zip(plain.named_parameters(), wrapped.parameters(), strict=True):
        assert torch.equal(one, two), name


@pytest.mark.parametrize(
    "name",
    [lambda name: f"{name}.weights", lambda name: f"x{hash(name)}", lambda n: n.replace(".", "/")],
)
def test_weights_of_which_too_few_fit_are_refused(
    name: Callable[[str], str], tmp_path: Path
) -> None:
    renamed(saved(tmp_path), name)
    with pytest.raises(UsageError, match=r"weights of .* are not those of BertForMaskedLM: 0 of"):
        started(tmp_path)


def test_a_part_of_the_layers_is_too_little(tmp_path: Path) -> None:
    renamed(saved(tmp_path), lambda name: name.replace("layer.1", "layer.9"))
    with pytest.raises(UsageError, match="of the numbers fit, but 75% must"):
        started(tmp_path)


def test_the_mask_takes_the_row_of_their_mask_and_the_record_says_so(tmp_path: Path) -> None:
    rows = load_file(saved(tmp_path) / "model.safetensors")[
        "bert.embeddings.word_embeddings.weight"
    ]
    backbone, record = started(tmp_path)
    table = backbone.network.get_input_embeddings().weight
    assert torch.equal(table[len(WORDS)], rows[4])
    assert torch.equal(table[: len(WORDS)], rows[: len(WORDS)])
    assert record["mask_row"] == 4
    assert record["share"] == 1
    assert record["tokenizer"] == "own"
    assert set(record["digests"]) == {"model.safetensors"}
    json.dumps(record)


OTHERS = {
    "two tokens changed places": [*WORDS[:5], "b", "a", *WORDS[7:]],
    "other words": [*WORDS[:5], "v", "w", "x", "y", "z"],
    "one more in front": ["[NEW]", *WORDS],
}


@pytest.mark.parametrize("words", OTHERS)
def test_another_tokenizer_is_refused_unless_it_is_meant(words: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "net")
    write_tokenizer(tmp_path / "other", OTHERS[words])
    with pytest.raises(UsageError, match=r"tokenizer has others \(.*other_tokenizer true"):
        started(folder, tmp_path / "other")
    _, record = started(folder, tmp_path / "other", other_tokenizer=True)
    assert record["tokenizer"] == "other"


@pytest.mark.parametrize("words", [WORDS[:8], [*WORDS, "f", "g", "h"]])
def test_fewer_tokens_or_more_behind_them_are_theirs(words: list[str], tmp_path: Path) -> None:
    folder = saved(tmp_path / "net")
    write_tokenizer(tmp_path / "own", words)
    _, record = started(folder, tmp_path / "own")
    assert record["tokenizer"] == "own"


def test_characters_are_no_tokens_of_theirs(tmp_path: Path) -> None:
    backbone = Hf(10, False, False, str(saved(tmp_path)), pretrained=True)
    with pytest.raises(UsageError, match="it is none of the tokenizers library"):
        backbone.start(None, 9)


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES = {
    "half the weights": ("model.safetensors", half),
    "empty weights": ("model.safetensors", lambda file: file.write_bytes(b"")),
    "a long header": ("model.safetensors", lambda file: file.write_bytes(b"\xff" * 64)),
    "half a config": ("config.json", half),
    "a config that is a list": ("config.json", lambda file: file.write_text("[]")),
    "a config that nests": ("config.json", lambda file: file.write_text("[" * 99999)),
    "no bytes of text": ("config.json", lambda file: file.write_bytes(b"\xff\xfe\x00")),
    "a billion layers": (
        "config.json",
        lambda file: file.write_text('{"model_type": "bert", "num_hidden_layers": 1000000000}'),
    ),
    "half a tokenizer": ("tokenizer.json", half),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_one_line_that_names_the_file(damage: str, tmp_path: Path) -> None:
    name, spoil = DAMAGES[damage]
    file = saved(tmp_path) / name
    spoil(file)
    options: dict[str, Any] = {"pretrained": True, "other_tokenizer": True}
    with pytest.raises(UsageError) as raised:
        Hf(11, False, False, str(tmp_path), **options).start(None, 10)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    whole, _ = started(saved(tmp_path))
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    for part in set(places.values()):
        of_part = {name: tensors[name] for name in names if places[name] == part}
        save_file(of_part, tmp_path / part, {"format": "pt"})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    sharded, record = started(tmp_path)
    assert len(record["digests"]) == 2
    for one, two in zip(whole.parameters(), sharded.parameters(), strict=True):
        assert torch.equal(one, two)


def composed(*words: str) -> Any:
    asked = ["--process=mdlm", "--backbone=hf", *words]
    return compose(asked, load_plugins(), prog="platform run", environ={})[0]


@pytest.mark.parametrize("pretrained", ["true", "false"])
def test_the_config_holds_the_configuration_so_the_folder_may_go(
    pretrained: str, tmp_path: Path
) -> None:
    folder, kept = saved(tmp_path / "net"), tmp_path / "config.yaml"
    words = (f"--backbone.config={folder}", f"--backbone.pretrained={pretrained}")
    first = composed(*words)
    kept.write_text(first.config)
    folder.rename(tmp_path / "elsewhere")
    again = composed("--config", str(kept))
    assert again.config == first.config
    names = [name for name, _ in first.build(10).model.backbone.named_parameters()]
    assert [name for name, _ in again.build(10).model.backbone.named_parameters()] == names
    with pytest.raises(UsageError, match="neither a model type nor a folder"):
        composed(*words)


def test_another_source_is_read_anew(tmp_path: Path) -> None:
    folder, other = saved(tmp_path / "net"), saved(tmp_path / "other", "LlamaForCausalLM")
    kept = tmp_path / "config.yaml"
    kept.write_text(composed(f"--backbone.config={folder}").config)
    changed = composed("--config", str(kept), f"--backbone.config={other}")
    assert type(changed.build(10).model.backbone.network).__name__ == "LlamaForCausalLM"
    plain = composed("--config", str(kept), "--backbone.config=gpt2")
    assert "description: null" in plain.config
