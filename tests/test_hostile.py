"""Hostile and damaged checkpoints are taken or refused in one line, in little time and memory.

`PLATFORM_HOSTILE=N` makes the slow test try N files for each reader; 16 by default.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch

from platform_core.cli import main
from platform_core.errors import UsageError
from platform_core.record.directory import RunDirectory
from platform_core.registry.loading import load_plugins
from platform_published.importing import Source, import_run

GOLDEN = Path(__file__).parents[1] / "plugins/published/tests/golden"
WORDS = ["[UNK]", "[SEP]", "[MASK]", *"abcdefgh"]


def read_import(folder: Path, name: str = "") -> object:
    words = ["--data.length=16", "--backbone.num_heads=2"]
    source = Source(folder / name, words, process=None)
    return import_run(source, RunDirectory(folder / "run"), load_plugins())


def read_judge(folder: Path) -> object:
    from accelerate import Accelerator

    from platform_judge.opening import open_judge

    return open_judge(str(folder), Accelerator(cpu=True), load_plugins())


def read_backbone(folder: Path) -> object:
    from platform_core.data.tokenizer.sources import open_tokenizer
    from platform_hf.backbone import Hf

    options: dict[str, Any] = {"config": str(folder), "pretrained": True, "description": None}
    kept = Hf.kept(options)
    tokenizer = open_tokenizer(str(folder))
    backbone = Hf(tokenizer.vocab_size + 1, False, False, **{**options, **kept})
    return backbone.start(tokenizer.library.get_vocab(True), tokenizer.vocab_size)


def network_files(folder: Path) -> None:
    """A tiny causal network of transformers with a tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(WORDS), intermediate_size=8, max_position_embeddings=16, **sizes
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    vocab = {word: i for i, word in enumerate(WORDS)}
    library = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.add_special_tokens(WORDS[:3])
    library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "eos_token": "[SEP]"}'
    )
    (folder / "generation_config.json").unlink(missing_ok=True)


def hub_files(folder: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((GOLDEN / "s_hub_duo" / name).read_bytes())


def lightning_file(folder: Path) -> None:
    (folder / "a.ckpt").write_bytes((GOLDEN / "s_mdlm.ckpt").read_bytes())


def exported_files(folder: Path) -> None:
    run = folder.with_name("of-export")
    hub = folder.with_name("of-export-hub")
    hub.mkdir()
    hub_files(hub)
    import_run(Source(hub, []), RunDirectory(run), load_plugins())
    assert main(["export", str(run), str(folder.with_name("exported"))]) == 0
    for file in folder.with_name("exported").iterdir():
        if file.suffix != ".md":
            (folder / file.name).write_bytes(file.read_bytes())


READERS: Mapping[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "lightning": (lightning_file, lambda folder: read_import(folder, "a.ckpt")),
    "hub": (hub_files, read_import),
    "exported": (exported_files, read_import),
    "judge": (network_files, read_judge),
    "backbone": (network_files, read_backbone),
}


def tried(reader: str, folder: Path, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """How often each verdict was reached, and what was wrong."""
    make, read = READERS[reader]
    folder.mkdir()
    make(folder)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    counts: Counter[str] = Counter()
    wrong = []
    for case in hostile.cases(seed, whole, count):
        (folder / case.file).write_bytes(case.content)
        outcome = hostile.attempt(lambda: read(folder), UsageError, folder, made=("run",))
        (folder / case.file).write_bytes(whole[case.file])
        shutil.rmtree(folder / "run", ignore_errors=True)
        counts[outcome.verdict] += 1
        if outcome.verdict not in ("taken", "refused"):
            took = f"{outcome.verdict} in {outcome.seconds:.0f} s"
            wrong.append(f"{case.name}: {took}: {outcome.said}")
    return counts, wrong


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_a_whole_checkpoint_is_read(reader: str, tmp_path: Path) -> None:
    make, read = READERS[reader]
    (tmp_path / "whole").mkdir()
    make(tmp_path / "whole")
    read(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_what_is_hostile_or_damaged_is_one_line(reader: str, tmp_path: Path) -> None:
    counts, wrong = tried(reader, tmp_path / "case", 16, seed=1)
    assert wrong == []
    assert sum(counts.values()) == 16


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_many_that_are_hostile_or_damaged_are_one_line(reader: str, tmp_path: Path) -> None:
    count = int(os.environ.get("PLATFORM_HOSTILE", "16"))
    counts, wrong = tried(reader, tmp_path / "case", count, seed=2)
    print(f"{reader}: {dict(counts)}")
    assert wrong == []
