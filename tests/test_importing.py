"""Checkpoints from the published code become runs, and runs become folders of transformers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as FastTokenizer
from transformers import PreTrainedTokenizerFast

from platform_core.cli import main
from platform_core.data.tokenizer import LEFT_OVER, CharacterTokenizer, load_tokenizer
from platform_core.data.tokenizer.opaque import OpaqueTokenizer
from platform_core.data.tokenizer.training import train_byte_pairs
from platform_core.errors import UsageError
from platform_core.evaluation.trained import TrainedRun
from platform_core.record.directory import RunDirectory
from platform_core.record.files import write_json
from platform_core.registry.loading import load_plugins
from platform_published.export import transformers_tokenizer
from platform_published.importing import OF_STATES, Source, import_run
from platform_published.layouts import read_published

GOLDEN = Path(__file__).parents[1] / "plugins/published/tests/golden"
EXPECTED = load_file(GOLDEN / "s_expected.safetensors")
STATES = {"s_duo": 35, "s_mdlm": 35, "s_ar": 30, "s_hub_duo": 35, "s_hub_mdlm": 35}
PATHS = {name: GOLDEN / (name if "hub" in name else f"{name}.ckpt") for name in STATES}
SIGMA = "--process.time_conditioned=true"
"""The golden logits of mdlm are those of its network at a noise level, which it is not told."""

FRESH = """
import sys
import platform_core.transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
duo, ar, text = sys.argv[1:4]
given = load_file(sys.argv[4])
model = AutoModelForMaskedLM.from_pretrained(duo)
logits = {"duo": model(given["ids"], timesteps=given["sigma"]).logits}
logits["clean"] = model(given["ids"]).logits
logits["ar"] = AutoModelForCausalLM.from_pretrained(ar)(given["ar"]).logits
save_file({name: value.detach() for name, value in logits.items()}, sys.argv[5])
tokens = AutoTokenizer.from_pretrained(text)
assert tokens("ab ba").input_ids == [5, 6, 4, 6, 5], tokens("ab ba")
assert tokens.decode([5, 6, 4]) == "ab "
assert (tokens.pad_token_id, tokens.mask_token_id) == (0, 7)
"""


def imported(name: str, folder: Path, *words: str) -> RunDirectory:
    run = RunDirectory(folder / name)
    import_run(Source(PATHS[name], list(words)), run, load_plugins())
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    folder = tmp_path_factory.mktemp("runs")
    told = {"s_mdlm": [SIGMA], "s_hub_mdlm": [SIGMA]}
    return {name: imported(name, folder, *told.get(name, [])) for name in STATES}


def network(run: RunDirectory, average: str = "ema") -> torch.nn.Module:
    accelerator = Accelerator(cpu=True)
    return TrainedRun.open(run.path, accelerator=accelerator, average=average).model.backbone


def expected(name: str, output: str) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    case = name.replace("_", ".", 1)
    sigma = EXPECTED.get(f"{case}/input/sigma")
    return (
        EXPECTED[f"{case}/input/ids"],
        None if sigma is None else sigma[:, None],
        EXPECTED[f"{case}/output/{output}"],
    )


def places(run: RunDirectory, states: int) -> torch.Tensor:
    """Where each state of the checkpoint is in the run: the mask is last."""
    mask = json.loads((run.path / "import.json").read_text())["mask"]
    if mask is None:
        return torch.arange(states)
    order = [state for state in range(states) if state != mask["was"]] + [mask["was"]]
    return torch.tensor(order).argsort()


@torch.no_grad()
def compare(run: RunDirectory, name: str, output: str, *, average: str = "ema") -> None:
    ids, sigma, logits = expected(name, output)
    place = places(run, STATES[name])
    found = network(run, average)(place[ids], sigma)
    torch.testing.assert_close(found[..., place], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s_duo", "s_mdlm", "s_ar"])
@pytest.mark.parametrize("average", ["ema", "raw"])
def test_lightning_checkpoints_give_the_published_logits(runs, name, average):
    compare(runs[name], name, f"logits_{average}", average=average)


@pytest.mark.parametrize("name", ["s_hub_duo", "s_hub_mdlm"])
@pytest.mark.parametrize("average", ["ema", "raw"])
def test_hub_folders_give_the_published_logits(runs, name, average):
    compare(runs[name], name, "logits", average=average)


@pytest.mark.slow
@torch.no_grad()
def test_a_network_without_time_conditioning_reads_no_noise_level(tmp_path):
    run = imported("s_hub_mdlm", tmp_path)
    ids, _, logits = expected("s_hub_mdlm", "logits_time_conditioning_off")
    torch.testing.assert_close(network(run)(ids, None), logits, rtol=1e-4, atol=1e-5)


def test_averaged_and_last_weights_are_those_of_the_file_bit_for_bit(runs):
    checkpoint = torch.load(PATHS["s_duo"], weights_only=False, pickle_module=inert_pickle())
    newest = runs["s_duo"].checkpoints / "step-0000005"
    model, ema = load_file(newest / "model.safetensors"), load_file(newest / "ema.safetensors")
    for name, tensor in model.items():
        assert torch.equal(tensor, checkpoint["state_dict"][f"backbone.{name}"])
    names = [name.removeprefix("backbone.") for name in checkpoint["state_dict"]]
    names.remove("rotary_emb.inv_freq")
    for name, tensor in zip(names, checkpoint["ema"]["shadow_params"], strict=True):
        assert torch.equal(ema[name], tensor)
    assert not torch.equal(ema["vocab_embed.embedding"], model["vocab_embed.embedding"])


def inert_pickle():
    """Python's own unpickler with strangers' classes replaced, as an oracle for our files alone."""
    import pickle
    import types

    class Anything:
        def __new__(cls, *_, **__):
            return object.__new__(cls)

        def __init__(self, *_, **__):
            pass

        def __setstate__(self, state):
            pass

        def __setitem__(self, key, value):
            pass

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            known = module.split(".")[0] in ("torch", "collections")
            return super().find_class(module, name) if known else Anything

    return types.SimpleNamespace(
        Unpickler=Unpickler, load=pickle.load, UnpicklingError=pickle.UnpicklingError, __name__="p"
    )


def test_the_masks_rows_move_behind_the_others(runs):
    card = json.loads((runs["s_mdlm"].path / "import.json").read_text())
    assert card["mask"] == {"was": 4, "is": 34}
    file = read_published(PATHS["s_mdlm"]).ema
    run = load_file(runs["s_mdlm"].checkpoints / "step-0000005" / "ema.safetensors")
    order = [*range(4), *range(5, 35), 4]
    for name in ("vocab_embed.embedding", "output_layer.linear.weight", "output_layer.linear.bias"):
        assert torch.equal(run[name], file[name][order])
    assert torch.equal(run["blocks.1.mlp.2.bias"], file["blocks.1.mlp.2.bias"])


def test_options_are_the_checkpoints_own(runs, tmp_path):
    config = runs["s_duo"].config.read_text()
    for line in ("name: duo", "hidden_size: 16", "cond_size: 8", "length: 12", "eps: 0.001"):
        assert line in config
    assert "start_id: 28" in runs["s_ar"].config.read_text()
    assert "time_conditioned: false" in imported("s_mdlm", tmp_path).config.read_text()
    assert "dropout: 0.1" in runs["s_hub_mdlm"].config.read_text()
    card = json.loads((runs["s_duo"].path / "import.json").read_text())
    assert "optimizer_states" in card["ignored"]
    assert "backbone.blocks.1.attn_qkv.weight" in card["read"]
    assert len(card["sha256"]["s_duo.ckpt"]) == 64


def test_the_start_moves_with_the_tokens_after_the_mask():
    for mask, start in ((None, 28), (29, 28), (4, 27)):
        assert f"--process.start_id={start}" in read_published(PATHS["s_ar"], mask_id=mask).words


@pytest.mark.slow
def test_an_imported_run_samples_ids_and_says_why_it_cannot_read_text(runs, capsys):
    path = str(runs["s_duo"].path)
    assert main(["sample", path, "--sampler.steps=2", "--sample.number=1", "--format=jsonl"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["text"] == " ".join(map(str, line["tokens"]))
    assert len(line["tokens"]) == 12
    assert main(["sample", path, "--sample.prompt", "We"]) == 2
    assert "import its checkpoint again with --tokenizer FILE" in capsys.readouterr().err
    assert main(["run", "--resume", path]) == 2


@pytest.mark.slow
def test_an_imported_run_with_a_tokenizer_is_evaluated(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    characters = "abcdefghijklmnopqrstuvwxyz .,;'"
    write_json(tmp_path / "tokenizer.json", CharacterTokenizer(characters).to_dict())
    (tmp_path / "words.txt").write_text("we the people of these united states " * 40)
    words = ["import", str(PATHS["s_duo"]), "--output", str(tmp_path / "run")]
    assert main([*words, "--tokenizer", str(tmp_path / "tokenizer.json")]) == 0
    data = ["--data.corpus=text", f"--data.path={tmp_path / 'words.txt'}"]
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), *data, "--json"]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["nats_per_token"] < 20


def lightning(tmp_path: Path, tensors: dict, **more: object) -> Path:
    state = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"state_dict": state, **more}, tmp_path / "made.ckpt")
    return tmp_path / "made.ckpt"


def test_sizes_are_inferred_where_there_is_no_configuration(tmp_path):
    tensors = dict(read_published(PATHS["s_duo"]).model)
    tied = tensors["vocab_embed.embedding"]
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}
    compiled["_orig_mod.output_layer.linear.weight"] = tied
    path = lightning(tmp_path, compiled)
    words = ["import", str(path), "--output", str(tmp_path / "run"), "--data.length=12"]
    assert main([*words, "--process=duo"]) == 0
    config = RunDirectory(tmp_path / "run").config.read_text()
    for line in ("hidden_size: 16", "num_blocks: 2", "num_heads: 2", "cond_size: 8"):
        assert line in config
    kept = load_file(tmp_path / "run/checkpoints/step-0000000/ema.safetensors")
    assert torch.equal(kept["vocab_embed.embedding"], tied)
    assert "output_layer.linear.weight" not in kept


def test_tied_weights_that_a_file_holds_twice_are_kept_once(tmp_path):
    tensors = dict(read_published(PATHS["s_duo"]).model)
    tensors["output_layer.linear.weight"] = tensors["vocab_embed.embedding"].clone()
    model = {"length": 12, "tie_word_embeddings": True}
    config = {"algo": {"name": "duo"}, "model": model}
    path = lightning(tmp_path, tensors, hyper_parameters={"config": config})
    run = RunDirectory(tmp_path / "run")
    groups = import_run(Source(path, []), run, load_plugins()).checkpoint.tensors
    assert all("output_layer.linear.weight" not in group for group in groups.values())


def test_what_cannot_be_inferred_is_asked_for_by_name(tmp_path, capsys):
    tensors = dict(read_published(PATHS["s_duo"]).model)
    del tensors["rotary_emb.inv_freq"]
    words = ["import", str(lightning(tmp_path, tensors)), "--output", str(tmp_path / "run")]
    asked = []
    for option in ("--process=duo", "--data.length=12", "--backbone.num_heads=2"):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        asked.append(option.partition("=")[0] in error)
        words.append(option)
    assert asked == [True] * 3
    assert main(words) == 0
    kept = load_file(tmp_path / "run/checkpoints/step-0000000/model.safetensors")
    whole = read_published(PATHS["s_duo"]).model
    assert torch.equal(kept["rotary_emb.inv_freq"], whole["rotary_emb.inv_freq"])


CONFIGS = [
    (
        {"parameterization": "subs", "noise": {"type": "loglinear"}, "T": 0},
        ["--process=mdlm", "--schedule=log-linear", "--process.time_conditioned=false"],
    ),
    (
        {"parameterization": "d3pm", "T": 1000, "subs_masking": True, "time_conditioning": True},
        ["--process=d3pm", "--parameterization=subs", "--objective.num_steps=1000"],
    ),
    (
        {"algo": {"name": "d3pm", "T": 0}, "noise": {"type": "cosine", "eps": 0.01}},
        ["--process=d3pm", "--objective=nelbo", "--schedule=cosine", "--schedule.eps=0.01"],
    ),
    (
        {"parameterization": "sedd", "noise": {"type": "geometric", "sigma_max": 10}},
        ["--process=sedd", "--schedule=geometric", "--schedule.sigma_max=10"],
    ),
    ({"parameterization": "d3pm", "diffusion": "uniform"}, ["--process=duo"]),
    ({"algo": {"name": "distillation"}}, ["--process=duo"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("config", "words"), CONFIGS)
def test_configurations_of_every_family_are_read(config, words, tmp_path):
    """Also their composition: the options exist and the parts go together."""
    tensors = dict(read_published(PATHS["s_duo"]).model)
    config = config | {"model": {"length": 12}}
    path = lightning(tmp_path, tensors, hyper_parameters={"config": config})
    read = read_published(path)
    assert set(words) <= set(read.words)
    run = RunDirectory(tmp_path / "run")
    imported = import_run(Source(path, []), run, load_plugins())
    assert imported.composition.names["process"] == words[0].partition("=")[2]


def test_scores_that_mean_something_else_are_refused(tmp_path):
    tensors = dict(read_published(PATHS["s_duo"]).model)
    for config in (
        {"parameterization": "sedd", "diffusion": "uniform"},
        {"parameterization": "sedd", "model": {"scale_by_sigma": False}},
    ):
        path = lightning(tmp_path, tensors, hyper_parameters={"config": config})
        with pytest.raises(UsageError, match="scores"):
            read_published(path)


def test_a_shadow_of_another_network_is_refused(tmp_path):
    tensors = dict(read_published(PATHS["s_duo"]).model)
    shadow = [t for name, t in tensors.items() if not name.endswith("inv_freq")]
    for wrong in (shadow[1:], shadow[::-1]):
        path = lightning(tmp_path, tensors, ema={"shadow_params": wrong, "num_updates": 1})
        with pytest.raises(UsageError, match="averaged weights"):
            read_published(path, process="duo")


def damaged_hub(folder: Path, **changes: object) -> Path:
    shutil.copytree(PATHS["s_hub_duo"], folder / "hub")
    config = json.loads((folder / "hub/config.json").read_text())
    (folder / "hub/config.json").write_text(json.dumps(config | changes))
    return folder / "hub"


def no_network(folder: Path) -> Path:
    save_file({"weight": torch.ones(1)}, damaged_hub(folder) / "model.safetensors")
    return folder / "hub"


def without(folder: Path, name: str) -> Path:
    (damaged_hub(folder) / name).unlink()
    return folder / "hub"


def text(folder: Path, content: bytes) -> Path:
    (folder / "x.ckpt").write_bytes(content)
    return folder / "x.ckpt"


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "x.ckpt")
    return folder / "x.ckpt"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f / "nothing", "does not exist"),
        (lambda f: text(f, b"hello"), "no whole file of torch.save"),
        (lambda f: text(f, b""), "no whole file of torch.save"),
        (lambda f: text(f, PATHS["s_duo"].read_bytes()[:100_000]), "no whole file of torch.save"),
        (lambda f: saved(f, [1]), "no Lightning checkpoint"),
        (lambda f: saved(f, {"state_dict": {"w": torch.ones(1)}}), "unknown layout"),
        (lambda f: f, "no hub folder"),
        (lambda f: without(f, "model.safetensors"), "has no model.safetensors"),
        (lambda f: without(f, "config.json"), "no config.json"),
        (no_network, "unknown layout"),
        (lambda f: damaged_hub(f, model_type="bert"), "--process"),
        (lambda f: damaged_hub(f, hidden_dim=32), "of another architecture"),
        (lambda f: damaged_hub(f, n_blocks=3), "of another architecture"),
        (lambda f: damaged_hub(f, n_heads="2; rm"), "of another architecture"),
        (lambda f: damaged_hub(f, n_blocks=10**9), "of another architecture"),
        (lambda f: damaged_hub(f, model_length="1; rm"), "for a number"),
        (lambda f: damaged_hub(f, time_conditioning=False), "no noise level"),
        (lambda f: damaged_hub(f, model_type="ar"), "of another architecture"),
        (lambda f: damaged_hub(f, noise={"type": "cosine"}), "--schedule"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(make, message, tmp_path, capsys):
    assert main(["import", str(make(tmp_path)), "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("platform import: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_output_that_exists_is_left_alone(tmp_path, capsys):
    (tmp_path / "kept").write_text("x")
    for words in (
        ["import", str(PATHS["s_hub_duo"]), "--output", str(tmp_path)],
        ["import", str(PATHS["s_hub_duo"]), "--output", str(tmp_path), "--overwrite"],
    ):
        assert main(words) == 2
        assert str(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s_duo", "s_mdlm", "s_ar"])
def test_export_and_import_give_the_same_run(runs, name, tmp_path, capsys):
    folder, back = tmp_path / "hub", RunDirectory(tmp_path / "back")
    for average in ("raw", "ema"):
        shutil.rmtree(folder, ignore_errors=True)
        assert main(["export", str(runs[name].path), str(folder), "--weights", average]) == 0
        assert main(["import", str(folder), "--output", str(back.path), "--overwrite"]) == 0
        group = "model" if average == "raw" else average
        before = load_file(runs[name].checkpoints / "step-0000005" / f"{group}.safetensors")
        for file in ("model", "ema"):
            after = load_file(back.checkpoints / "step-0000005" / f"{file}.safetensors")
            assert after.keys() == before.keys()
            assert all(torch.equal(after[key], before[key]) for key in before)
    assert back.config.read_bytes() == runs[name].config.read_bytes()
    assert back.tokenizer.read_bytes() == runs[name].tokenizer.read_bytes()
    assert main(["export", str(back.path), str(folder)]) == 2
    assert "exists; name a folder that does not" in capsys.readouterr().err


def test_the_card_has_the_figures_of_the_run_and_how_they_were_made(tmp_path):
    run = imported("s_hub_duo", tmp_path)
    card = {"evaluate": {"protocol": "exact"}}
    write_json(run.result, {"perplexity": 12.5, "card": card})
    write_json(run.evaluations / "test.json", {"perplexity": 13.25, "card": card})
    assert main(["export", str(run.path), str(tmp_path / "hub")]) == 0
    text = (tmp_path / "hub/README.md").read_text()
    for line in ("| perplexity | 12.5 |", "| perplexity | 13.25 |", '"protocol": "exact"'):
        assert line in text
    assert "import platform_core.transformers" in text


def test_the_tokenizer_of_transformers_reads_as_the_platforms(tmp_path):
    tokenizer = CharacterTokenizer("abc \n\t'é.*", unknown="replace")
    files = transformers_tokenizer(tokenizer, tokenizer.vocab_size + 1)
    write_json(tmp_path / "tokenizer.json", files["tokenizer.json"])
    fast = FastTokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "a b\nc\t'é..*zz"
    assert fast.encode(text).ids == tokenizer.encode(text).tolist()
    assert fast.decode(fast.encode("ab c\né").ids) == "ab c\né"
    assert fast.token_to_id("[MASK]") == tokenizer.vocab_size


def test_a_trained_vocabulary_is_exported_with_its_mask(tmp_path):
    tokenizer = train_byte_pairs(["the cat and the hat, the bat; naïve café 😀"] * 3, 280)
    for size, mask in ((280, 280), (285, None)):
        wide = tokenizer.with_size(size)
        files = transformers_tokenizer(wide, wide.vocab_size + 1)
        for name, content in files.items():
            write_json(tmp_path / name, content)
        fast = PreTrainedTokenizerFast.from_pretrained(tmp_path)
        text = "that café, the 😀 hat"
        assert fast(text)["input_ids"] == tokenizer.encode(text).tolist()
        assert fast.decode(tokenizer.encode(text)) == text
        assert fast.eos_token_id == tokenizer.eos_id
        assert (fast.mask_token_id if mask else fast.mask_token) == mask


def test_an_opaque_vocabulary_has_no_files():
    assert transformers_tokenizer(OpaqueTokenizer(9), 10) == {}


def test_a_network_with_more_rows_than_tokens_takes_the_tokenizer(tmp_path, capsys):
    """As DUO's, which has a row for a mask that it never sees."""
    tokenizer = train_byte_pairs(["the cat and the hat, the bat; naïve café"] * 3, 260)
    write_json(tmp_path / "tokenizer.json", tokenizer.to_dict())
    rows = dict(read_published(PATHS["s_duo"]).model)
    for name in OF_STATES & rows.keys():
        rows[name] = rows[name][torch.arange(263) % len(rows[name])]
    path = lightning(tmp_path, rows)
    words = ["import", str(path), "--process=duo", "--data.length=12"]
    words += ["--output", str(tmp_path / "run")]
    assert main([*words, "--tokenizer", str(tmp_path / "tokenizer.json")]) == 0
    kept = load_tokenizer(tmp_path / "run/tokenizer.json")
    assert kept.vocab_size == tokenizer.vocab_size + 3
    assert kept.encode("the hat").tolist() == tokenizer.encode("the hat").tolist()
    assert kept.decode([*tokenizer.encode("a hat"), 262]) == f"a hat{LEFT_OVER}"
    assert kept.count_characters(np.array([262, *tokenizer.encode("a hat")])) == 5
    with pytest.raises(ValueError, match="the vocabulary has 260 tokens, more than 259"):
        tokenizer.with_size(259)


def test_a_network_that_reads_labels_is_not_exported(tmp_path, capsys):
    run = imported("s_hub_duo", tmp_path)
    write_json(run.labels, {"label": "century", "names": ["18th", "19th"]})
    assert main(["export", str(run.path), str(tmp_path / "hub")]) == 2
    assert "reads one of 2 labels with each text" in capsys.readouterr().err
    assert not (tmp_path / "hub").exists()


@pytest.mark.slow
def test_transformers_loads_an_export_in_a_fresh_process(runs, tmp_path):
    folders = {name: tmp_path / name for name in ("s_duo", "s_ar")}
    for name, folder in folders.items():
        assert main(["export", str(runs[name].path), str(folder)]) == 0
    text = tmp_path / "text"
    shutil.copytree(folders["s_duo"], text)
    for name, content in transformers_tokenizer(CharacterTokenizer("ab "), 8).items():
        write_json(text / name, content)
    ids, sigma, _ = expected("s_duo", "logits_ema")
    left, _, _ = expected("s_ar", "logits_ema")
    save_file({"ids": ids, "sigma": sigma[:, 0], "ar": left}, tmp_path / "given.safetensors")
    command = [*folders.values(), text, tmp_path / "given.safetensors", tmp_path / "found"]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *map(str, command)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "found")
    with torch.no_grad():
        duo = network(runs["s_duo"])
        assert torch.equal(found["duo"], duo(ids, sigma))
        assert torch.equal(found["clean"], duo(ids, torch.zeros(len(ids), 1)))
        assert torch.equal(found["ar"], network(runs["s_ar"])(left, None))
