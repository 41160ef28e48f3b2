"""Labels of data: packing, names, the cache, refusals; and a labelled run from end to end."""

import json
import re
import sys
from types import ModuleType

import pytest
import torch
import yaml

from platform_core.cli import main
from platform_core.component import Component
from platform_core.composition.options import DataOptions
from platform_core.data.corpus import SPLITS, LabelledCorpus, Sotu
from platform_core.data.sequences import load_data
from platform_core.errors import UsageError
from platform_core.hookspecs import hookimpl


class Letters(LabelledCorpus):
    """Documents of one letter each, whose labels come in turn; `extra` is held out alone."""

    kinds = {"letter": None, "case": None, "extra": None}

    def documents(self, split):
        return iter([letter * (20 + 7 * number) for number, letter in enumerate("abAbaB")])

    def labels(self, split, kind):
        if kind == "extra":
            return iter(["new" if split == "test" else "old"] * 6)
        found = {"letter": str.lower, "case": lambda c: "upper" if c.isupper() else "lower"}[kind]
        return map(found, "abAbaB")

    def fingerprint(self):
        return "letters"


@pytest.fixture(autouse=True)
def letters(tmp_path, monkeypatch):
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    plugin = ModuleType("letters_plugin")
    plugin.open_letters = lambda options: Letters()
    component = Component("letters", "letters_plugin:open_letters")
    plugin.platform_corpora = hookimpl(specname="platform_corpora")(lambda: [component])
    monkeypatch.setitem(sys.modules, "letters_plugin", plugin)
    monkeypatch.setenv("PLATFORM_PLUGINS", "letters_plugin,platform_core.testing.stubs")


def options(label="letter", **others):
    return DataOptions(corpus="letters", length=16, label=label, **others)


@pytest.mark.parametrize("label", ["letter", "case"])
def test_sequences_have_one_label_and_lose_nothing(label):
    data = load_data(options(label))
    split = data.split("train")
    ids, counted, drawn, *_ = split.batch(range(len(split)))
    named = dict(zip("abAbaB", Letters().labels("train", label), strict=True))
    for row, kept, number in zip(ids, counted, drawn, strict=True):
        text = re.sub(r"\[\w+\]", "", data.tokenizer.decode(row[kept].tolist()))
        assert {named[letter] for letter in text} <= {data.labels[number]}
    assert (drawn.diff() >= 0).all()
    plain = load_data(options(None)).split("train")
    assert split.num_tokens() == plain.num_tokens()
    assert split.num_characters() == plain.num_characters()


def test_a_part_of_a_split_keeps_its_labels():
    split = load_data(options()).split("train")
    some = split.spread(4)
    places = [number * len(split) // 4 for number in range(4)]
    assert torch.equal(some.batch(range(4)).labels, split.batch(places).labels)
    assert set(some.batch(range(4)).labels.tolist()) == {0, 1}


def test_the_cache_is_keyed_by_the_label_and_its_names():
    kinds = [load_data(options(label)).fingerprint for label in ("letter", "case", None)]
    other = load_data(options(), labels=("b", "a"))
    assert len({*kinds, other.fingerprint}) == 4
    assert other.labels == ("b", "a")
    assert load_data(options()).labels == ("a", "b")
    assert load_data(options(None)).labels == ()


def test_labels_that_are_not_there_are_refused():
    with pytest.raises(UsageError, match="letters has no label lettre; .* did you mean letter?"):
        load_data(options("lettre"))
    with pytest.raises(UsageError, match="test split has text of extra 'new', which training"):
        load_data(options("extra"))
    with pytest.raises(UsageError, match="corpus text has no labels; leave out --data.label case"):
        load_data(DataOptions(corpus="text", path=__file__, label="case"))


def test_addresses_have_a_president_and_a_century():
    labels = {
        kind: {split: list(Sotu().labels(split, kind)) for split in SPLITS} for kind in Sotu.kinds
    }
    assert labels["president"]["train"][0] == "George Washington"
    assert set(labels["century"]["train"]) == {"18th", "19th", "20th", "21st"}
    for kind, of in labels.items():
        assert set(of["validation"]) | set(of["test"]) <= set(of["train"]), kind
        assert len(of["train"]) == sum(1 for _ in Sotu().documents("train"))


WORDS = [
    "--process=first",
    "--backbone=small",
    "--backbone.hidden_size=16",
    "--data.corpus=letters",
    "--data.length=16",
    "--data.label=letter",
    "--train.batch_size=4",
    "--train.evaluate_every=2",
    "--train.checkpoint_every=3",
    "--sample.number=2",
    "--sampler.steps=2",
    "--track.aim=false",
]


@pytest.mark.slow
def test_a_labelled_run_resumes_evaluates_and_samples(tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["run", *WORDS, "--train.steps=6", f"--output={whole}"]) == 0
    assert main(["run", *WORDS, "--train.steps=3", f"--output={parts}"]) == 0
    assert main(["run", f"--resume={parts}", "--train.steps=6"]) == 0
    files = [run / "checkpoints/step-0000006/model.safetensors" for run in (whole, parts)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert json.loads((whole / "labels.json").read_text()) == {
        "label": "letter",
        "names": ["a", "b"],
    }
    card = json.loads((whole / "result.json").read_text())["card"]
    assert (card["label"], card["conditional"]) == ("letter", True)
    assert yaml.safe_load((whole / "config.yaml").read_text())["data"]["label"] == "letter"
    capsys.readouterr()
    assert main(["eval", str(whole), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)["card"]
    assert (card["label"], card["conditional"]) == ("letter", True)
    for words in ([], ["--sample.label=b"], ["--sample.label=b", "--sample.guidance=2"]):
        assert main(["sample", str(whole), *words]) == 0
        nfe = int(re.search(r"(\d+) network evaluations", capsys.readouterr().err)[1])
        assert nfe in ((2, 4, 6) if "--sample.guidance=2" in words else (1, 2, 3))
    for words, message in (
        (["--sample.label=c"], "unknown label 'c'; known: a, b"),
        (["--data.label=case"], "trained with data.label letter, not case"),
    ):
        assert main(["sample", str(whole), *words]) == 2
        assert message in capsys.readouterr().err
    assert main(["run", *WORDS, "--sample.label=c", f"--output={tmp_path / 'no'}"]) == 2
    assert not (tmp_path / "no").exists()
