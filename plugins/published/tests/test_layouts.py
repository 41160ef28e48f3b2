"""The layouts in which the same network may lie, and the mask of an export."""

import errno
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from platform_core.cli import main
from platform_core.errors import UsageError
from platform_core.evaluation.trained import TrainedRun
from platform_core.record.directory import RunDirectory
from platform_core.registry.loading import load_plugins
from platform_published.importing import Source, import_run
from platform_published.layouts import read_published

HUB = Path(__file__).parent / "golden/s_hub_mdlm"
WHOLE = load_file(HUB / "model.safetensors")
SIZES = {
    "hidden_size": 16,
    "cond_dim": 8,
    "n_heads": 2,
    "n_blocks": 2,
    "length": 12,
    "dropout": 0.1,
}


def bare(name: str) -> str:
    return name.removeprefix("backbone.")


def hub(folder: Path, name: Callable[[str], str], shards: int = 1) -> Path:
    """The published folder under other names, in so many files."""
    folder.mkdir()
    (folder / "config.json").write_bytes((HUB / "config.json").read_bytes())
    tensors = {name(key): tensor for key, tensor in WHOLE.items()}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    places = {key: f"part-{i % shards}.safetensors" for i, key in enumerate(tensors)}
    for part in set(places.values()):
        of_part = {key: tensors[key] for key in tensors if places[key] == part}
        save_file(of_part, folder / part)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "bare names": lambda f: hub(f, bare),
    "module.": lambda f: hub(f, lambda name: f"module.{name}"),
    "module. of bare names": lambda f: hub(f, lambda name: f"module.{bare(name)}"),
    "compiled": lambda f: hub(f, lambda name: name.replace("backbone.", "backbone._orig_mod.")),
    "module. within": lambda f: hub(f, lambda name: name.replace("backbone.", "backbone.module.")),
    "shards": lambda f: hub(f, str, shards=3),
    "shards of bare names": lambda f: hub(f, bare, shards=2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_is_read_in_every_layout(layout: str, tmp_path: Path) -> None:
    expected = read_published(HUB)
    found = read_published(LAYOUTS[layout](tmp_path / "hub"))
    assert found.words == expected.words
    assert found.model.keys() == expected.model.keys()
    assert all(torch.equal(found.model[name], expected.model[name]) for name in found.model)
    run = RunDirectory(tmp_path / "run")
    import_run(Source(tmp_path / "hub", []), run, load_plugins())
    assert len(json.loads((run.path / "import.json").read_text())["sha256"]) >= 2


FILES: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "checkpoint of the SEDD code": lambda bare: {
        "optimizer": {},
        "model": {f"module.{name}": tensor for name, tensor in bare.items()},
        "ema": {
            "decay": 0.9,
            "num_updates": 7,
            "shadow_params": [t + 1 for n, t in bare.items() if not n.endswith("inv_freq")],
        },
        "step": 9,
    },
    "file of weights": lambda bare: bare,
}


@pytest.mark.parametrize("layout", FILES)
def test_files_of_the_sedd_code_and_of_weights_alone_are_read(layout: str, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    torch.save(FILES[layout]({bare(name): tensor for name, tensor in WHOLE.items()}), file)
    found = read_published(file, process="sedd")
    assert found.layout == layout
    for name, tensor in WHOLE.items():
        assert torch.equal(found.model[bare(name)], tensor)
        moved = layout != "file of weights" and not name.endswith("inv_freq")
        assert torch.equal(found.ema[bare(name)], tensor + 1 if moved else tensor)
    if layout != "file of weights":
        assert (found.step, found.ema_updates, found.ignored) == (9, 7, ["optimizer", "step"])
    with pytest.raises(UsageError, match="name its family with --process"):
        read_published(file)


def test_a_folder_of_the_sedd_code_says_its_process_and_length(tmp_path: Path) -> None:
    folder = hub(tmp_path / "hub", bare)
    shapes = {name: list(tensor.shape) for name, tensor in WHOLE.items()}
    sizes = {
        **SIZES,
        "hidden_size": shapes["backbone.vocab_embed.embedding"][1],
        "cond_dim": shapes["backbone.sigma_map.mlp.0.weight"][0],
        "n_blocks": len({name.split(".")[2] for name in shapes if ".blocks." in name}),
    }
    config = {"graph": {"type": "absorb"}, "noise": {"type": "loglinear"}, "model": sizes}
    (folder / "config.json").write_text(json.dumps(config))
    words = read_published(folder).words
    assert {"--process=sedd", "--data.length=12", "--schedule=log-linear"} <= set(words)
    config["graph"] = {"type": "uniform"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="scores for uniform noise"):
        read_published(folder)


def tokenizer(folder: Path) -> Path:
    """34 tokens, one of which is called [MASK]."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "[SEP]", "[CLS]", "[MASK]", *(f"w{i}" for i in range(29))]
    library = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.add_special_tokens(words[:5])
    folder.mkdir()
    library.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    "last", ["model.safetensors", "platform_tokenizer.json", "README.md", "config.json"]
)
def test_an_export_onto_a_full_disk_names_the_file_and_leaves_nothing(
    last: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(["import", str(HUB), "--output", str(run)]) == 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if last in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    capsys.readouterr()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if "safetensors" in last else -1, before[1]))
    code = main(["export", str(run), str(out)])
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (line,) = capsys.readouterr().err.splitlines()
    named = str(out) if "safetensors" in last else f"{out}/{last} (No space left on device)"
    assert code == 2, line
    assert line.startswith(f"platform export: error: cannot write {named}"), line
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_mask_of_an_export_is_the_networks_though_the_tokenizer_has_another(
    tmp_path: Path,
) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    import platform_core.transformers  # noqa: F401  # registers the classes

    words = ["--tokenizer", str(tokenizer(tmp_path / "words"))]
    run = str(tmp_path / "run")
    assert main(["import", str(HUB), "--output", run, *words]) == 0
    assert main(["export", run, str(tmp_path / "out")]) == 0
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    read = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (read.mask_token, read.mask_token_id, model.config.mask_token_id) == ("<mask>", 34, 34)
    assert read.convert_tokens_to_ids("[MASK]") == 4
    ids = read(f"w1 w2 {read.mask_token} w3", return_tensors="pt")["input_ids"]
    assert ids.tolist() == [[6, 7, 34, 8]]
    logits = model(ids).logits
    own = TrainedRun.open(run).model.backbone(ids, None)
    torch.testing.assert_close(logits, own, rtol=1e-4, atol=1e-4)
    assert read.decode(logits[0, 2, :34].argmax()) in read.get_vocab()
