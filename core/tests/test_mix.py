"""Mixes of corpora: shares, places, exact resumption, what is refused and what is recorded."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from short_training import OPTIONS

from platform_core.cli import main
from platform_core.composition.corpora import DECK, quotas, shares, with_paths
from platform_core.composition.options import DataOptions
from platform_core.data.mix import Deck, Mixed, PackedMix, load_mix
from platform_core.data.sequences import load_data
from platform_core.errors import UsageError
from platform_core.evaluation.ngram import baselines
from platform_core.record.cards import Measurement, Record, noteworthy
from platform_core.record.files import read_json
from platform_core.training.trainer import Trainer

WORDS = [
    "--process=first",
    "--backbone=small",
    "--backbone.hidden_size=16",
    "--data.corpus=text",
    "--data.length=8",
    "--train.batch_size=6",
    "--train.checkpoint_every=3",
    "--evaluate.on_the_way=2",
    "--sample.number=1",
    "--sampler.steps=2",
    "--track.to=none",
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def texts(tmp_path):
    """Three texts of the same letters, in other orders and numbers."""
    for name, line in (("a", "abc cab "), ("b", "bca "), ("c", "c b a ")):
        (tmp_path / f"{name}.txt").write_text(line * (40 if name == "b" else 90))
    return tmp_path


def options(texts, mix=None, **others):
    said = mix and ",".join(mix.format(t=texts).split())
    return DataOptions(
        **{"corpus": "text", "path": str(texts / "a.txt"), "length": 8, "mix": said, **others}
    )


def loaded(texts, mix="text={t}/b.txt:2 text={t}/c.txt:0.5"):
    chosen = options(texts, mix)
    data = load_data(chosen)
    mixed = load_mix(chosen, data)
    assert isinstance(mixed, PackedMix)
    return data, mixed


def parts(data):
    return {str(share.word): round(share.part, 3) for share in shares(data)}


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        (None, {}),
        ("none", {}),
        ("text", {"sotu": 0.5, "text": 0.5}),
        ("text=b.txt:3", {"sotu": 0.25, "text=b.txt": 0.75}),
        ("sotu:3,text=b.txt", {"sotu": 0.75, "text=b.txt": 0.25}),
        ("text=b.txt, sotu:2e0 ,my.yaml:1", {"sotu": 0.5, "text=b.txt": 0.25, "my.yaml": 0.25}),
        ("text=a:b/c.txt:1", {"sotu": 0.5, "text=a:b/c.txt": 0.5}),
        ("text=a:b", {"sotu": 0.5, "text=a:b": 0.5}),
    ],
)
def test_words_are_corpora_with_paths_and_weights(mix, expected):
    assert parts(DataOptions(mix=mix)) == expected


def test_a_corpus_with_a_path_is_another_corpus_than_the_first(texts):
    own, other = options(texts).path, str(texts / "b.txt")
    found = shares(DataOptions(corpus="text", path=own, mix=f"text={other}:3,text:2"))
    assert [(share.options.path, share.quota) for share in found] == [
        (own, round(DECK * 0.4)),
        (other, round(DECK * 0.6)),
    ]
    assert [share.options.mix for share in found[1:]] == [None]


def test_only_the_users_own_rows_have_the_users_column():
    found = shares(DataOptions(corpus="json", column="body", mix="parquet=x,ptb"))
    assert [share.options.column for share in found] == ["body", "body", None]


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        ("", r"names no corpus; give CORPUS\[=PATH\]\[:WEIGHT\]"),
        ("text=b.txt,", "names no corpus"),
        ("=b.txt", "=b.txt names no corpus"),
        ("sotu", "names only sotu, which is data.corpus"),
        ("text=b,text=b:2", "names text=b twice"),
        ("text=b,sotu,sotu:2", "names sotu twice"),
        ("text:much", "gives text the weight much; it must be a number above 0"),
        ("text=b:0", "gives text=b the weight 0; it must be"),
        ("text=b:-1", "the weight -1; it must be"),
        ("text=b:nan", "the weight nan; it must be"),
        ("text=b:inf", "the weight inf; it must be"),
        ("text=b:1e-6", "text=b the weight 1e-06 of 1, less than one sequence in 65,536"),
        ("sotu:1e9,text=b", "gives text=b the weight 1 of 1e"),
    ],
)
def test_mistakes_are_one_line(mix, said):
    with pytest.raises(UsageError, match=said) as error:
        shares(DataOptions(mix=mix))
    assert "\n" not in str(error.value)


def test_labels_are_refused():
    with pytest.raises(UsageError, match="data.mix has no labels, and data.label is century"):
        shares(DataOptions(label="century", mix="text=b.txt"))


def test_unknown_corpora_suggest_the_nearest(stub_parts, texts, capsys):
    words = ["run", *WORDS, f"--data.path={texts / 'a.txt'}", f"--output={texts / 'run'}"]
    assert main([*words, "--data.mix=sotus:2"]) == 2
    assert "unknown corpus 'sotus'; did you mean sotu?" in capsys.readouterr().err
    assert main([*words, "--data.mix=text=nowhere.txt"]) == 2
    assert "nowhere.txt does not exist" in capsys.readouterr().err
    assert main([*words, "--data.mix=text=x:-2"]) == 2
    assert "the weight -2; it must be a number above 0" in capsys.readouterr().err
    assert not (texts / "run").exists()


def test_paths_are_kept_absolute_and_weights_as_they_are():
    def absolute(path):
        return f"/home/{path}"

    mix = "text=b.txt:0.5,sotu:2,json=x:y"
    assert with_paths(mix, absolute) == "text=/home/b.txt:0.5,sotu:2,json=/home/x:y"
    assert with_paths(None, absolute) is None


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=7))
def test_quotas_fill_the_deck_and_are_off_by_less_than_one_place(weights):
    found = quotas(weights)
    assert sum(found) == DECK
    for quota, weight in zip(found, weights, strict=True):
        assert abs(quota - weight / sum(weights) * DECK) < 1 + 1e-6


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(st.integers(0, 99), st.lists(st.floats(0.1, 9), min_size=2, max_size=4))
def test_every_deck_has_exactly_the_shares_and_numbers_go_on(seed, weights):
    found = quotas(weights)
    deck = Deck(found, seed)
    dealt = [deck.at(place) for place in range(2 * DECK)]
    for block in (dealt[:DECK], dealt[DECK:]):
        assert np.bincount([corpus for corpus, _ in block]).tolist() == found
    for corpus, quota in enumerate(found):
        numbers = [number for of, number in dealt if of == corpus]
        assert numbers == list(range(2 * quota))
    assert dealt[:DECK] != [(c, n - found[c]) for c, n in dealt[DECK:]]


def test_a_place_has_its_sequence_whatever_was_asked_before():
    deck, other = (Deck(quotas([1, 2]), seed=3) for _ in range(2))
    places = [5, 2 * DECK + 1, 0, DECK - 1, DECK]
    assert [deck.at(place) for place in places] == [
        Deck(quotas([1, 2]), seed=3).at(place) for place in places
    ]
    assert [other.at(place) for place in range(50)] != [
        Deck(quotas([1, 2]), seed=4).at(place) for place in range(50)
    ]


def test_batches_are_the_corpora_s_own_sequences_in_the_order_of_the_places(texts):
    _, mix = loaded(texts)
    order, sequences = mix.order(seed=3), mix.sequences
    rows = order.rows(0, 90)
    batch = sequences.batch(rows)
    for place, (row, corpus) in enumerate(divmod(index, 3) for index in rows):
        own = mix.splits[corpus].batch([row])
        assert torch.equal(batch.x0[place], own.x0[0])
        assert torch.equal(batch.mask[place], own.mask[0])
    assert {index % 3 for index in rows} == {0, 1, 2}


def test_every_sequence_of_a_corpus_comes_once_an_epoch(texts):
    _, mix = loaded(texts)
    rows = [divmod(index, 3) for index in mix.order(seed=3).rows(0, 4000)]
    for corpus, split in enumerate(mix.splits):
        own = [row for row, of in rows if of == corpus]
        epochs = [own[i : i + len(split)] for i in range(0, len(own), len(split))]
        assert len(epochs) > 2
        for epoch in epochs[:-1]:
            assert sorted(epoch) == list(range(len(split)))
        assert epochs[0] != epochs[1]


@pytest.mark.parametrize("size", [1, 3, 10])
def test_batches_of_other_sizes_hold_the_same_sequences(texts, size):
    _, mix = loaded(texts)
    whole = mix.order(seed=3).rows(0, 60)
    order = mix.order(seed=3)
    assert sum((order.rows(step, size) for step in range(60 // size)), []) == whole


@pytest.mark.parametrize("accumulate", [2, 3])
def test_micro_batches_see_what_the_whole_batch_does(texts, accumulate):
    from accelerate import Accelerator
    from test_trainer import trainer as plain

    data, mix = loaded(texts)

    def trained(options):
        made = plain()
        accelerator = Accelerator(cpu=True)
        return Trainer(made.objective, data, options, accelerator=accelerator, seed=3, mix=mix)

    whole = trained(replace(OPTIONS, batch_size=6))
    apart = trained(replace(OPTIONS, batch_size=6, accumulate=accumulate))
    for step in range(3):
        (batch,) = whole.feed.fetch(step).batches.values()
        parts = apart.feed.fetch(step).batches
        assert list(parts) == list(range(0, 6, 6 // accumulate))
        assert torch.equal(torch.cat([part.x0 for part in parts.values()]), batch.x0)


@pytest.fixture
def words(stub_parts, texts):
    mix = f"--data.mix=text={texts / 'b.txt'}:2"
    return ["run", *WORDS, f"--data.path={texts / 'a.txt'}", mix]


def weights(run, step):
    return (run / f"checkpoints/step-{step:07d}/model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_resumes_exactly_in_the_middle_of_a_deck(words, texts, capsys):
    whole, halves = texts / "whole", texts / "halves"
    assert main([*words, "--train.steps=7", f"--output={whole}"]) == 0
    said = capsys.readouterr().err
    assert "a mix of corpora in sequences of 8 tokens, " in said
    assert f"  33.33% text={texts / 'a.txt'}: 82 sequences" in said
    assert f"  66.67% text={texts / 'b.txt'}: 19 sequences" in said
    assert main([*words, "--train.steps=3", f"--output={halves}"]) == 0
    assert main(["run", f"--resume={halves}", "--train.steps=7"]) == 0
    assert weights(whole, 7) == weights(halves, 7)
    alone = [word for word in words if not word.startswith("--data.mix")]
    assert main([*alone, "--train.steps=7", f"--output={texts / 'alone'}"]) == 0
    assert weights(whole, 7) != weights(texts / "alone", 7)


@pytest.mark.slow
def test_another_text_or_share_is_refused_and_a_moved_text_is_not(words, texts, capsys):
    run = texts / "run"
    assert main([*words, "--train.steps=3", f"--output={run}"]) == 0
    shutil.move(texts / "b.txt", texts / "moved.txt")
    moved = f"--data.mix=text={texts / 'moved.txt'}"
    resumed = ["run", f"--resume={run}", "--train.steps=4"]
    for mix in (f"{moved}:3", "--data.mix=none", f"--data.mix=text={texts / 'c.txt'}:2"):
        assert main([*resumed, mix]) == 2
        said = capsys.readouterr().err
        assert "is not the one that the run was trained on; bring it back" in said
    assert main([*resumed, f"{moved}:2"]) == 0


@pytest.mark.slow
def test_the_record_says_the_shares_and_tables_note_other_mixes(words, texts, capsys):
    run, alone = texts / "run", texts / "alone"
    assert main([*words, "--train.steps=1", f"--output={run}"]) == 0
    plain = [word for word in words if not word.startswith("--data.mix")]
    assert main([*plain, "--train.steps=1", f"--output={alone}"]) == 0
    shares = {f"text={texts / 'a.txt'}": 0.333328, f"text={texts / 'b.txt'}": 0.666672}
    shares = {name: pytest.approx(share, abs=2e-5) for name, share in shares.items()}
    result = json.loads((run / "result.json").read_text())
    assert result["card"]["mix"] == shares
    assert {
        n: of["share"] for n, of in read_json(run / "environment.json")["mix"].items()
    } == shares
    assert "mix" not in read_json(alone / "result.json")["card"]
    (texts / "b.txt").unlink()
    capsys.readouterr()
    # What is measured later needs only the first corpus, and remembers all.
    assert main(["eval", str(run), "--evaluate.split=test", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["card"]["mix"] == shares
    found = [
        Measurement(name, "result", Record.read(read_json(texts / name / "result.json")))
        for name in ("run", "alone")
    ]
    assert any(line.startswith("mix: ") for line in noteworthy(found))
    assert not any(line.startswith("mix: ") for line in noteworthy(found[1:]))


def test_ngrams_are_of_the_shares_and_kept_apart(texts):
    data, mix = loaded(texts)
    alone, mixed = baselines(data, "test"), baselines(data, "test", 0, mix)
    assert alone.fivegram != mixed.fivegram
    assert all(math.isfinite(bits) for bits in (mixed.unigram, mixed.bigram))
    _, other = loaded(texts, "text={t}/b.txt:9 text={t}/c.txt:0.5")
    assert other.fingerprint != mix.fingerprint
    assert baselines(data, "test", 0, mix) == mixed
    assert len(mix.tokens(10**6)) < sum(split.num_tokens() for split in mix.splits)
    assert len(mix.tokens(7)) <= 9 * 8


def test_the_mix_has_the_first_corpus_s_tokenizer_and_held_out_text(texts):
    data, mix = loaded(texts)
    plain = load_data(options(texts))
    assert data.tokenizer.to_dict() == plain.tokenizer.to_dict()
    assert data.fingerprint == plain.fingerprint
    assert isinstance(mix.sequences, Mixed)
    (texts / "d.txt").write_text("xyz " * 90)
    with pytest.raises(UsageError, match="--data.unknown replace"):
        loaded(texts, "text={t}/d.txt")
