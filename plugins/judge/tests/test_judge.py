"""Judges and what they make of texts: by hand, against their own networks, and at the command."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from tiny_judge import END, transformers_tokenizer, write_judge
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
)

from platform_core.data.hub import quiet
from platform_core.data.packing import Rows
from platform_core.data.sequences import LabelledSplit, PackedRows, table
from platform_core.data.tokenizer import ByteLevelTokenizer, CharacterTokenizer, SubwordTokenizer
from platform_core.errors import UsageError
from platform_core.evaluation.bound import widened
from platform_core.record.files import digest
from platform_core.registry.loading import load_plugins
from platform_judge import evaluation, generative, pretrained
from platform_judge.generative import counted, entropy, judge_texts, shuffled, written
from platform_judge.judge import Identity, Judge, Reading, RunJudge, Scores
from platform_judge.opening import open_judge


def opened(source: object, *, plugins: object = None) -> Judge:
    return open_judge(str(source), Accelerator(cpu=True), plugins or load_plugins({}))


def identity(**changes: object) -> Identity:
    facts = {"kind": "run", "name": "toy", "network": "toy", "digest": "0", "tokenizer": "toy"}
    return Identity(**{**facts, "context": None, "dtype": "float64", **changes})


class Bigram(Judge):
    """Reads characters, and knows the law of the next one given the last."""

    def __init__(self, characters, table):
        self.tokenizer = CharacterTokenizer(characters)
        super().__init__(identity(), ("[BOS]", "[EOS]"), self.tokenizer.eos_id)
        self.table = table
        self.sizes = []

    def read(self, texts, length):
        found = [list(map(int, self.tokenizer.encode(text))) for text in texts]
        return [Reading(ids[:length], [1] * len(ids[:length]), len(ids) > length) for ids in found]

    def score(self, ids, mask):
        self.sizes.append(len(ids))
        nats = torch.zeros(ids.shape)
        nats[:, 1:] = -self.table[ids[:, :-1], ids[:, 1:]].log()
        return Scores(nats * mask, mask.sum(1, keepdim=True).float())

    logits_per_token = 0
    device = torch.device("cpu")


@pytest.fixture
def bigram():
    table = torch.full((7, 7), 0.05)
    table[4, 5], table[5, 6] = 0.5, 0.25  # b after a, c after b
    return Bigram("abc", table)


def judged(judge, words, **options):
    texts = [judge.tokenizer.encode(word).tolist() for word in words]
    return judge_texts(judge, texts, judge.tokenizer, **{"length": 9, "batch_size": 2, **options})


def test_the_perplexity_is_that_of_the_tokens_after_the_first_of_all_texts_together(bigram):
    found = judged(bigram, ["ab", "abc", "b"]).summary()
    nats = 2 * math.log(2) + math.log(4)
    assert found["tokens"] == 3
    assert found["characters"] == 3
    assert found["perplexity"] == pytest.approx(math.exp(nats / 3))
    assert found["bits_per_character"] == pytest.approx(4 / 3)
    # sqrt( n / (n - 1) sum (nats_i - mean tokens_i)^2 ) / tokens
    mean, (first, second) = nats / 3, (math.log(2), math.log(8))
    left = torch.tensor([first - mean, second - 2 * mean, 0.0], dtype=torch.float64)
    plain = math.sqrt(3 / 2 * float(left.square().sum()))
    # Three texts: the error is widened, see `platform_core.evaluation.bound`.
    freedom = float(3 * left.square().sum() ** 2 / left.pow(4).sum()) * 2 / 3
    error = widened(plain, float(left.pow(3).sum()), freedom) / 3
    assert error > plain / 3
    assert found["standard_error"] == pytest.approx(error)
    assert found["perplexity_error"] == pytest.approx(error * math.exp(mean))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 64])
def test_the_last_incomplete_batch_counts_and_padding_never_does(bigram, batch_size):
    words = ["abcabc", "", "ab", "cab", "bc"]
    found = judged(bigram, words, batch_size=batch_size)
    assert sum(bigram.sizes) == 4
    assert found.summary() == judged(bigram, words, batch_size=1).summary()
    assert found.likelihood.tokens == 5 + 1 + 2 + 1
    assert found.features.flatten().tolist() == [6, 2, 3, 2]


def test_texts_are_cut_at_a_length(bigram):
    found = judged(bigram, ["abcabc", "ab", "abc"], length=3)
    assert found.summary()["texts_cut"] == 1
    assert found.likelihood.tokens == 2 + 1 + 2


def test_texts_without_a_second_token_have_no_perplexity(bigram):
    with pytest.raises(UsageError, match="the 2 texts hold no two tokens of judge toy"):
        judged(bigram, ["a", "b"])


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([5, 6, 7], "011"),
        ([5, 0, 6], "011"),  # the first EOS counts, and text after it
        ([5, 0, 0, 6, 0], "01010"),  # no later one does
        ([0, 5, 6, 0, 7], "01101"),  # and none where the text begins with one
        ([0, 0, 0], "000"),
        ([], ""),
    ],
)
def test_of_tokens_that_end_a_document_only_the_first_counts(ids, expected):
    """valid = token != EOS or cumsum(EOS) == 1, of tokens 2.."""
    mask = torch.tensor([[True] * len(ids) + [False] * 2])
    row = torch.tensor([[*ids, 0, 0]])  # padding is EOS, as in the published code
    assert "".join(str(int(c)) for c in counted(row, mask, 0)[0]) == expected + "00"


def test_a_judge_without_an_end_counts_all_tokens():
    ids = torch.tensor([[0, 0, 1]])
    assert counted(ids, ids >= 0, None).tolist() == [[False, True, True]]


def test_the_entropy_is_of_the_tokens_of_one_text():
    assert entropy([3, 3, 8, 8]) == pytest.approx(math.log(2))
    assert entropy([1, 1, 1, 2]) == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    assert entropy([7]) == entropy([]) == 0


def test_entropies_are_averaged_over_texts(bigram):
    found = judged(bigram, ["aabb", "aaaa"])
    assert found.entropy == pytest.approx(math.log(2) / 2)
    assert found.entropy_error == pytest.approx(math.log(2) / 2)  # (h / sqrt 2) / sqrt 2
    assert math.isnan(judged(bigram, ["aabb"]).entropy_error)


def test_shuffling_keeps_the_tokens_of_each_text():
    texts = [list(range(30)), [1, 1, 2]]
    mixed = shuffled(texts, seed=3)
    assert [sorted(text) for text in mixed] == texts
    assert mixed[0] != texts[0]
    assert mixed == shuffled(texts, seed=3) != shuffled(texts, seed=4)


def test_the_marks_of_documents_become_those_of_the_judge():
    tokenizer = CharacterTokenizer("ab")
    text = [tokenizer.bos_id, 4, tokenizer.eos_id, tokenizer.bos_id, 5, tokenizer.pad_id]
    assert written(text, tokenizer, ("<", ">")) == "<a><b"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_judge(tmp_path_factory.mktemp("judges") / "tiny")


@pytest.fixture(scope="module")
def judge(folder) -> Judge:
    return opened(folder)


TEXTS = ("the people form a union", f"états: the {END}people{END}", "we", "", "order" * 20)


@pytest.fixture(scope="module")
def texts() -> tuple[list[list[int]], ByteLevelTokenizer]:
    """The same as tokens of a run that has GPT-2's way with marks."""
    own = json.loads(transformers_tokenizer().backend_tokenizer.to_str())
    tokenizer = ByteLevelTokenizer(own, begin=END, end=END, pad=END)
    ids = []
    for text in TEXTS:
        pieces = [tokenizer.encode(piece).tolist() for piece in text.split(END)]
        ids.append([i for n, piece in enumerate(pieces) for i in [tokenizer.eos_id][:n] + piece])
    return ids, tokenizer


def by_hand(judge: Judge, length: int) -> tuple[float, int]:
    """Nats and tokens, one text at a time and without padding."""
    nats, tokens = 0.0, 0
    for text in TEXTS:
        ids = judge.tokenizer(text)["input_ids"][:length]
        if not ids:
            continue
        with torch.no_grad():
            logits = judge.network.double()(torch.tensor([ids])).logits[0]
        ends = 0
        for place, token in enumerate(ids):
            ends += token == judge.end_id
            if place and not (token == judge.end_id and ends > 1):
                nats -= float(logits[place - 1].log_softmax(-1)[token])
                tokens += 1
    judge.network.float()
    return nats, tokens


@pytest.mark.parametrize(("batch_size", "length"), [(1, 32), (2, 32), (64, 32), (3, 5)])
def test_a_network_of_transformers_judges_as_it_reads(judge, texts, batch_size, length):
    found = judge_texts(judge, *texts, length=length, batch_size=batch_size)
    nats, tokens = by_hand(judge, length)
    assert found.likelihood.tokens == tokens
    assert found.likelihood.nats_per_token == pytest.approx(nats / tokens, rel=1e-5)
    assert len(found.features) == 4
    assert found.cut == (1 if length == 32 else 3)


def test_few_logits_at_once_change_nothing(judge, texts, monkeypatch):
    whole = judge_texts(judge, *texts, length=32, batch_size=64).likelihood
    monkeypatch.setattr(generative, "LOGITS_AT_ONCE", 1)
    apart = judge_texts(judge, *texts, length=32, batch_size=64).likelihood
    assert apart.nats_per_token == pytest.approx(whole.nats_per_token, rel=1e-5)


def test_every_character_is_counted_once_and_marks_are_none(judge):
    for text, reading in zip(TEXTS, judge.read(TEXTS, 200), strict=True):
        assert sum(reading.characters) == len(text.replace(END, ""))
        assert len(reading.characters) == len(reading.ids)
    french = judge.read(["é"], 9)[0]
    assert french.characters == [1, 0]  # two bytes
    assert judge.read([" the"], 9)[0].characters == [2, 2]  # a blank belongs to what follows


def test_features_are_what_the_last_layer_reads_at_the_last_token(judge):
    first, second = (torch.tensor([ids]) for ids in ([5, 6, 7], [8, 9]))
    ids = torch.tensor([[5, 6, 7], [8, 9, 0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    expected = [judge.network.transformer(x).last_hidden_state[0, -1] for x in (first, second)]
    torch.testing.assert_close(judge.score(ids, mask).features, torch.stack(expected).detach())


def test_a_judge_says_who_it_is(judge, folder):
    facts = judge.identity.summary()
    assert facts == {
        "kind": "transformers",
        "name": "tiny",
        "network": "GPT2LMHeadModel",
        "digest": digest(folder / "model.safetensors"),
        "tokenizer": facts["tokenizer"],
        "context": 32,
        "dtype": "float32",
    }
    assert facts["tokenizer"].endswith(" 260")


def test_a_copy_of_a_hub_model_needs_no_network(folder, tmp_path, monkeypatch):
    home = tmp_path / "models--somebody--tiny"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("abc")
    (home / "snapshots").mkdir()
    (home / "snapshots" / "abc").symlink_to(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrained, "reachable", lambda: False)
    facts = opened("somebody/tiny").identity
    assert (facts.kind, facts.name) == ("hub", "tiny")
    assert facts.digest == digest(folder / "model.safetensors")


def llama_gguf(network: LlamaForCausalLM, path: Path) -> None:
    """As llama.cpp writes it: rotary pairs of each head side by side."""
    import gguf

    config = network.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = transformers_tokenizer().get_vocab()
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
    writer.add_token_merges(["h e", "Ġ t", "t he"])
    writer.add_token_types([3 if token == END else 1 for token in sorted(vocabulary)])
    writer.add_bos_token_id(vocabulary[END])
    writer.add_eos_token_id(vocabulary[END])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in network.state_dict().items():
        weight = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            rows, width = weight.shape
            heads = config.num_attention_heads
            weight = weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2)
            weight = np.ascontiguousarray(weight.reshape(rows, width))
        writer.add_tensor(names.get_name(name.removesuffix(".weight")) + ".weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_judges_as_the_network_that_it_is_of(tmp_path, texts, capfd):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    network = LlamaForCausalLM(config).eval()
    llama_gguf(network, tmp_path / "llama.F32.gguf")
    judge = opened(tmp_path / "llama.F32.gguf")
    assert capfd.readouterr().err == ""
    assert (judge.identity.kind, judge.identity.name) == ("gguf", "llama.F32")
    assert judge.identity.context == 64
    assert judge.read(TEXTS, 32) == pretrained.PretrainedJudge(
        judge.identity, network, transformers_tokenizer()
    ).read(TEXTS, 32)
    ids = torch.tensor([[1, 7, 3, 9, 2]])
    expected = torch.nn.functional.cross_entropy(network(ids).logits[0, :-1], ids[0, 1:])
    found = judge.score(ids, ids > 0).nats
    torch.testing.assert_close(found.sum() / 4, expected.detach(), rtol=1e-4, atol=1e-4)


def test_without_mauve_there_is_a_reason(monkeypatch):
    monkeypatch.setattr(generative.importlib.util, "find_spec", lambda name: None)
    assert "pip install" in generative.without_mauve(1000)
    monkeypatch.setattr(generative.importlib.util, "find_spec", lambda name: name)
    assert generative.without_mauve(19) == "19 texts; MAUVE needs 20"
    assert generative.without_mauve(20) is None


def test_what_a_library_prints_on_standard_error_is_kept_back(capfd):
    with generative.silent():
        os.write(2, b"from C++")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


@pytest.fixture(scope="module")
def strangers(folder, tmp_path_factory) -> Path:
    """Folders and files that are no judges."""
    home = tmp_path_factory.mktemp("strangers")
    (home / "text").write_text("")
    (home / "broken.gguf").write_bytes(b"GGUF")
    for name in ("t5", "bare", "headless"):
        (home / name).mkdir()
        for file in ("config.json", "model.safetensors"):
            shutil.copy(folder / file, home / name)
    T5Config().save_pretrained(home / "t5")
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.h.0.attn.c_attn.bias"]
    save_file(tensors, home / "headless" / "model.safetensors", metadata={"format": "pt"})
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    both = BertConfig(vocab_size=260, intermediate_size=16, **sizes)
    with quiet():
        BertForMaskedLM(both).save_pretrained(home / "bert")
    (home / "pickled").mkdir()
    (home / "pickled" / "pytorch_model.bin").write_bytes(b"")
    (home / "pickled" / "config.json").write_bytes((folder / "config.json").read_bytes())
    return home


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("./nowhere", "there is no judge ./nowhere; a judge is a run of process ar, a folder"),
        ("nowhere.gguf", "there is no judge nowhere.gguf; a judge is"),
        ("no/such", "there is no judge no/such here, and the hub cannot be reached; a judge is"),
        ("{}", "has no model.safetensors of its own; a judge is a run"),
        ("{}/text", "/text is no judge; a judge is a run"),
        ("{}/pickled", "/pickled has no model.safetensors of its own; a judge is a run"),
        ("{}/bert", "bert (BertLMHeadModel) sees tokens to the right; a judge is"),
        ("{}/t5", "t5 is a network of type t5, no causal language model; a judge is"),
        ("{}/bare", "bare has no tokenizer of its network's 260 tokens; choose another judge"),
        ("{}/headless", "headless lacks weights, transformer.h.0.attn.c_attn.bias for one; a "),
        ("{}/broken.gguf", "transformers cannot read judge broken ("),
    ],
)
def test_what_is_no_judge_is_refused_in_one_line(strangers, judge, message, monkeypatch, capfd):
    monkeypatch.setattr(pretrained, "reachable", lambda: False)
    with pytest.raises(UsageError) as error:
        opened(judge.format(strangers))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_judge_reads_no_more_than_it_was_made_for():
    assert evaluation._length(None, 32) == 32
    assert evaluation._length(None, 4096) == evaluation._length(None, None) == 1024
    assert evaluation._length(4096, 4096) == evaluation._length(4096, None) == 4096
    with pytest.raises(UsageError, match="--judge_length is 33, but this judge reads at most 32"):
        evaluation._length(33, 32)
    with pytest.raises(UsageError, match="--judge_length is 1; a judge reads at least 2 tokens"):
        evaluation._length(1, 32)


@pytest.mark.parametrize(
    ("number", "label", "expected"),
    [(3, None, [0, 2, 4]), (9, None, [0, 1, 2, 3, 4, 5]), (2, "new", [1, 3]), (9, "old", [0, 4])],
)
def test_real_texts_are_spread_evenly_and_of_the_label_that_was_asked_for(number, label, expected):
    tokenizer = CharacterTokenizer("abcdef")
    rows = Rows(np.arange(4, 10)[:, None].repeat(2, 1), np.array([1, 2, 2, 2, 2, 2]), None)
    columns = table(rows).append_column("label", pa.array([0, 1, 2, 1, 0, 1]))
    split = LabelledSplit(PackedRows(columns.to_batches()), tokenizer, ("old", "new", "other"))
    found = evaluation._real(split, number, label)
    assert [text[0] - 4 for text in found] == expected
    assert [len(text) for text in found] == [1 if place == 0 else 2 for place in expected]


def test_a_gguf_file_needs_its_package(tmp_path, monkeypatch):
    (tmp_path / "x.gguf").write_bytes(b"")
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'x.gguf needs .* pip install "dlm-platform-core\[gguf]"'):
        opened(tmp_path / "x.gguf")


def test_a_run_of_words_as_judge_counts_the_characters_of_the_text():
    """Alone, a word of WordPiece decodes without the blank before it."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ab", "cd", "##e"]
    model = {
        "version": "1.0",
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "lowercase": True}
        | {"handle_chinese_chars": True, "strip_accents": None},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
        | {"max_input_chars_per_word": 100, "vocab": {piece: i for i, piece in enumerate(pieces)}},
    }
    tokenizer = SubwordTokenizer(model, begin="[CLS]", end="[SEP]", pad="[PAD]")
    judge = RunJudge(identity(), None, tokenizer)
    (found,) = judge.read(["[CLS]ab cde ab[SEP]"], 99)
    assert found.ids == [2, 4, 5, 6, 4, 3]
    assert found.characters == [0, 2, 3, 1, 3, 0]


def test_a_single_text_has_no_error():
    assert evaluation._with_error("267.2", math.nan, ".2g") == "267.2 (1 text)"
    assert evaluation._with_error("267.2", 3.14, ".2g") == "267.2 +- 3.1"
