"""Nothing but a name of the hub ever opens a connection: every verb, on files of this machine."""

import ipaddress
import json
import socket
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest

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
