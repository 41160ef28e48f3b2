"""Nothing but a name of the hub ever opens a connection: every verb, on files of this machine."""

import ipaddress
import json
import shutil
import socket
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest
import yaml
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from platform_core.cli import main

WORDS = [
    "--process=mdlm",
    "--backbone.hidden_size=16",
    "--backbone.num_blocks=1",
    "--backbone.num_heads=2",
    "--data.length=16",
    "--train.batch_size=4",
    "--train.steps=2",
    "--train.precision=fp32",
    "--sample.number=1",
    "--sampler.steps=2",
    "--track.to=none",
]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    """What was to be reached outside of this machine; nothing is, and nothing says "offline"."""
    found: list[object] = []

    def outside(host: object) -> bool:
        try:
            return not ipaddress.ip_address(str(host)).is_loopback
        except ValueError:
            return host not in (None, "", "localhost")

    def guarded(name: str, where: int) -> None:
        real = getattr(socket.socket, name)

        def guard(self: socket.socket, *arguments: object) -> object:
            address = arguments[where]
            if self.family in (socket.AF_INET, socket.AF_INET6) and outside(address[0]):  # type: ignore[index]
                found.append((name, address))
                raise OSError("this test reaches nothing")
            return real(self, *arguments)

        monkeypatch.setattr(socket.socket, name, guard)

    def look_up(host: object, *_: object, **__: object) -> object:
        found.append(("getaddrinfo", host))
        raise socket.gaierror("this test looks up nothing")

    for name, where in (("connect", 0), ("connect_ex", 0), ("sendto", -1)):
        guarded(name, where)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return found


def texts(folder: Path) -> dict[str, Path]:
    """The same documents as JSON Lines, Parquet, a saved folder and text."""
    rows = datasets.Dataset.from_dict({"text": [f"alpha beta {i} gamma" for i in range(60)]})
    files = {"json": folder / "a.jsonl", "parquet": folder / "a.parquet", "saved": folder / "saved"}
    rows.to_json(str(files["json"]))
    rows.to_parquet(str(files["parquet"]))
    rows.save_to_disk(str(files["saved"]))
    (folder / "a.txt").write_text("alpha beta gamma " * 200)
    return {**files, "text": folder / "a.txt"}


@pytest.mark.slow
def test_no_verb_opens_a_connection_for_files_of_this_machine(
    tmp_path: Path, tried: list[object]
) -> None:
    files = texts(tmp_path)
    runs = {name: tmp_path / f"run-{name}" for name in files}
    sweep = tmp_path / "sweep.yaml"
    options = {"process": "mdlm", "data.corpus": "json", "data.path": str(files["json"])}
    sweep.write_text(json.dumps({"set": options, "seeds": [1, 2]}))
    on = [f"{name}={file}" for name, file in files.items()]
    commands = [
        ["run", *WORDS, f"--data.corpus={name}", f"--data.path={file}", f"--output={runs[name]}"]
        for name, file in files.items()
    ]
    streamed = ["--data.corpus=json", f"--data.path={files['json']}", "--data.streaming=true"]
    commands += [
        ["run", *WORDS, *streamed, f"--output={tmp_path / 'streamed'}"],
        ["eval", str(runs["json"]), "--on", *on],
        ["sample", str(runs["json"]), "--to", str(tmp_path / "samples.txt")],
        ["compare", str(runs["json"]), str(runs["parquet"])],
        ["sweep", str(sweep), "--dry_run", f"--output={tmp_path / 'sweep'}"],
        ["export", str(runs["json"]), str(tmp_path / "exported")],
        ["tokenizer", "train", f"--data.path={files['json']}", "--data.corpus=json", "--size=270"]
        + [f"--output={tmp_path / 'trained'}"],
    ]
    failed = {}
    for words in commands:
        code = main(words)
        if code or tried:
            failed[" ".join(words)] = (code, list(tried))
            tried.clear()
    assert not failed, json.dumps(failed, indent=1)


TASK = {
    "task": "endings",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "query",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc"}],
}


def of_transformers(folder: Path, files: dict[str, Path]) -> dict[str, Path]:
    """A tokenizer as tokenizer.json and as older files only, and a network that has it."""
    train = [f"--data.path={files['json']}", "--data.corpus=json", "--size=270"]
    assert main(["tokenizer", "train", *train, f"--output={folder / 'trained'}"]) == 0
    model = json.loads((folder / "trained" / "tokenizer.json").read_text())["model"]
    whole, older, network = folder / "whole", folder / "older", folder / "network"
    for place in (whole, older):
        place.mkdir()
        special = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
        config = {"tokenizer_class": "GPT2Tokenizer", **special}
        (place / "tokenizer_config.json").write_text(json.dumps(config))
    (whole / "tokenizer.json").write_text(json.dumps(model))
    (older / "vocab.json").write_text(json.dumps(model["model"]["vocab"]))
    merges = [" ".join(pair) for pair in model["model"]["merges"]]
    (older / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    shutil.copytree(whole, network)
    size = len(AutoTokenizer.from_pretrained(whole, local_files_only=True))
    small = GPT2Config(vocab_size=size, n_positions=64, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(small).save_pretrained(network)
    return {"whole": whole, "older": older, "network": network}


@pytest.mark.slow
def test_no_folder_of_transformers_and_no_task_of_files_opens_a_connection(
    tmp_path: Path, tried: list[object]
) -> None:
    files = texts(tmp_path)
    folders = of_transformers(tmp_path, files)
    run, tasks = tmp_path / "run", tmp_path / "tasks"
    tasks.mkdir()
    items = [{"query": "alpha", "choices": [" beta", " gamma"], "gold": 0}]
    (tmp_path / "items.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))
    named = {"dataset_kwargs": {"data_files": {"test": str(tmp_path / "items.jsonl")}}}
    (tasks / "one.yaml").write_text(yaml.safe_dump({**TASK, **named}))
    (tasks / "all.yaml").write_text("group: all-endings\ntask: [endings]\n")
    text = ["--data.corpus=json", f"--data.path={files['json']}"]
    network = [f"--backbone.config={folders['network']}", "--backbone.pretrained=true"]
    small = [word for word in WORDS if word.startswith("--backbone")]
    plain = [word for word in WORDS if word not in (*small, "--process=mdlm", "--sampler.steps=2")]
    commands = [
        ["run", *WORDS, *text, f"--data.tokenizer={folders['whole']}", f"--output={run}"],
        ["run", *WORDS, *text, f"--data.tokenizer={folders['whole'] / 'tokenizer.json'}"]
        + [f"--output={tmp_path / 'of-file'}"],
        ["run", *WORDS, *text, f"--data.tokenizer={folders['older']}"]
        + [f"--output={tmp_path / 'of-older'}"],
        [
            "run",
            "--process=mdlm",
            *plain,
            *text,
            "--backbone=hf",
            *network,
            f"--data.tokenizer={folders['network']}",
        ]
        + [f"--output={tmp_path / 'pretrained'}"],
        ["eval", str(run), "--judge", str(folders["network"]), "--sample.number=2"],
        ["run", "--process=ar", *plain, *small, *text, f"--data.tokenizer={folders['whole']}"]
        + [f"--output={tmp_path / 'ar'}"],
        ["eval", str(run), "--judge", str(tmp_path / "ar"), "--sample.number=2"],
        ["eval", str(run), "--tasks=endings", f"--task_path={tasks}", "--trust_tasks"],
        ["eval", str(run), "--tasks=all-endings", f"--task_path={tasks}", "--trust_tasks"],
    ]
    failed = {}
    for words in commands:
        code = main(words)
        if code or tried:
            failed[" ".join(words)] = (code, list(tried))
            tried.clear()
    assert not failed, json.dumps(failed, indent=1)
