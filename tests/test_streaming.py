"""Streams: every document once an epoch, positions by number, and exact resumption."""

import json
import os
import signal
import subprocess
import threading
import time

import datasets
import forked
import pytest
import torch
from accelerate import Accelerator
from warm import Warm

from platform_core.cli import main
from platform_core.composition.options import DataOptions, TrainOptions
from platform_core.data import streaming
from platform_core.data.mix import load_mix
from platform_core.data.sequences import load_data
from platform_core.data.streaming import open_stream
from platform_core.data.tokenizer import CharacterTokenizer
from platform_core.errors import UsageError
from platform_core.evaluation.bound import evaluate
from platform_core.model import Model
from platform_core.objective import Nelbo
from platform_core.parameterization import Mean
from platform_core.process import Absorbing
from platform_core.schedule import LogLinear
from platform_core.testing.toy import TinyNetwork
from platform_core.training import feed as feeding
from platform_core.training.feed import Feed, Place
from platform_core.training.trainer import Trainer

datasets.disable_progress_bars()

TOKENIZER = CharacterTokenizer("0123456789 ")


@pytest.fixture(autouse=True)
def caches(tmp_path_factory, monkeypatch):
    caches = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("PLATFORM_CACHE", str(caches / "platform"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", caches / "hf")
    monkeypatch.setattr(streaming, "BLOCK", 7)


@pytest.fixture(params=["json", "parquet", "saved"])
def options(request, tmp_path):
    return DataOptions(**corpus(tmp_path, request.param), streaming=True)


def corpus(folder, format, **others):
    rows = [
        datasets.Dataset.from_dict({"text": [str(100 + i) for i in range(a, a + 20)]})
        for a in (0, 20)
    ]
    path = folder / "data"
    if format == "saved":
        datasets.concatenate_datasets(rows).save_to_disk(path)
    else:
        path.mkdir()
        for number, part in enumerate(rows):
            write = part.to_json if format == "json" else part.to_parquet
            write(f"{path}/{number}.{'jsonl' if format == 'json' else 'parquet'}")
        path = path / f"*.{'jsonl' if format == 'json' else 'parquet'}"
    return {
        "corpus": format,
        "path": str(path),
        "length": 4,
        "packing": "padded",
        "marks": "none",
        **others,
    }


def numbers(split, indices):
    ids, mask, *_ = split.batch(indices)
    return [
        int(TOKENIZER.decode(row[kept].tolist())) - 100 for row, kept in zip(ids, mask, strict=True)
    ]


def test_every_training_document_comes_once_an_epoch(options):
    stream = open_stream(options, TOKENIZER)
    train = {i for i in range(40) if i % 20 not in (9, 19)}
    epochs = [numbers(stream, range(36 * e, 36 * e + 36)) for e in range(3)]
    for epoch in epochs:
        assert set(epoch) == train
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert set(epochs[0][:7]) == set(range(7))


def test_sequences_depend_on_their_number_and_the_seed(options):
    stream, other = (open_stream(options, TOKENIZER) for _ in range(2))
    whole = numbers(stream, range(90))
    assert numbers(other, range(50, 60)) == whole[50:60]
    assert numbers(other, [3, 4]) == whole[3:5]
    assert numbers(other, [80, 3]) == [whole[80], whole[3]]
    other.begin(seed=1)
    assert numbers(other, range(90)) != whole


@pytest.mark.slow
@pytest.mark.parametrize("place", [1, 6, 7, 8, 35, 36, 37, 75])
def test_a_stream_goes_on_from_its_state(options, place):
    whole = numbers(open_stream(options, TOKENIZER), range(90))
    first, second = (open_stream(options, TOKENIZER) for _ in range(2))
    assert numbers(first, range(place)) == whole[:place]
    second.restore(json.loads(json.dumps(first.state())))
    opened = []
    original = second._cursor.take
    second._cursor.take = lambda number: opened.append(number) or original(number)
    assert numbers(second, range(place, 90)) == whole[place:]
    assert len(opened) <= (90 - place) / 7 + 6


def test_packed_rows_have_documents(tmp_path):
    options = DataOptions(
        **corpus(tmp_path, "json", length=8, packing="packed", marks="documents"),
        streaming=True,
        document_masks=True,
    )
    stream = open_stream(options, TOKENIZER)
    batch = stream.batch(range(20))
    begins = (batch.x0 == TOKENIZER.bos_id).long()
    expected = begins.cumsum(1) - begins[:, :1]
    assert torch.equal(batch.documents[batch.mask], expected[batch.mask])


def test_held_out_text_is_packed_and_training_text_is_not(options):
    data = load_data(options, TOKENIZER)
    assert list(data.splits) == ["validation", "test"]
    assert numbers(data.split("validation"), [0, 1]) == [9, 29]
    with pytest.raises(UsageError, match="training text is streamed"):
        load_data(options, TOKENIZER, splits=["train"])


def test_slices_from_the_beginning_are_streamed(tmp_path):
    corpus(tmp_path, "json")
    entry = tmp_path / "my.yaml"

    def stream(train):
        entry.write_text(
            f"path: {tmp_path / 'data'}\npacking: padded\nsplits: {{train: '{train}'}}\n"
        )
        found = DataOptions(corpus=str(entry), length=4, marks="none", streaming=True)
        return open_stream(found, TOKENIZER)

    assert set(numbers(stream("train[10:25]"), range(15))) == set(range(10, 25))
    found = stream("train[30:]")
    assert (
        set(numbers(found, range(10))) == set(numbers(found, range(10, 20))) == set(range(30, 40))
    )
    for sliced in ("train[:-10]", "train[:90%]"):
        with pytest.raises(UsageError, match="the number of rows is not known; --data.path"):
            stream(sliced).batch([0])


def test_text_without_a_sequence_is_refused(tmp_path):
    options = DataOptions(
        **corpus(tmp_path, "json", packing="packed", marks="chunks", length=90), streaming=True
    )
    with pytest.raises(UsageError, match="fills no sequence of --data.length 90"):
        open_stream(options, TOKENIZER).batch([0])


class Recording(TinyNetwork):
    """A network that remembers which documents it was told of."""

    def __init__(self, num_states):
        super().__init__(num_states)
        self.told = []

    def encode(self, inputs, sigma, labels=None, visibility=None):
        self.told.append(visibility.dense(inputs.shape, inputs.device))
        return super().encode(inputs, sigma, labels, visibility)


def apart(documents):
    """Which tokens are of the same document, `[batch, length, length]`."""
    return documents[:, :, None] == documents[:, None]


@pytest.mark.parametrize("streamed", [False, True])
def test_training_and_evaluation_tell_the_network_of_documents(tmp_path, streamed):
    text = corpus(tmp_path, "json", length=8, packing="packed", marks="documents")
    data = load_data(DataOptions(**text, document_masks=True), TOKENIZER)
    found = DataOptions(**text, document_masks=True, streaming=True)
    process = Absorbing(TOKENIZER.vocab_size)
    network = Recording(process.num_states)
    objective = Nelbo(Model(process, LogLinear(), Mean(), network))
    accelerator = Accelerator(cpu=True)
    trainer = Trainer(
        objective,
        data,
        TrainOptions(batch_size=6, accumulate=2),
        accelerator=accelerator,
        seed=0,
        stream=open_stream(found, TOKENIZER) if streamed else None,
    )
    rows = trainer.feed.order.rows(0, 6)
    expected = trainer.feed.split.batch(rows).documents
    assert expected.max() >= 1
    trainer.update()
    trainer.close()
    assert torch.equal(torch.cat(network.told), apart(expected))
    network.told.clear()
    split = data.split("validation")
    settings = {"sequences": 0, "batch_size": 1, "protocol": "exact", "seed": 0}
    evaluate(objective, split, accelerator, **settings)
    expected = split.batch(range(len(split))).documents
    assert torch.equal(torch.cat(network.told), apart(expected))


def test_a_backbone_that_sees_all_documents_is_refused(capsys):
    words = ["run", "--backbone=restless", "--data.document_masks=true"]
    assert main(["-p", "wrong_parts", *words]) == 2
    said = capsys.readouterr().err
    assert "a backbone that keeps documents apart, but backbone is restless; choose" in said
    assert "dit, hf" in said


WORDS = [
    "run",
    "--process=mdlm",
    "--backbone.hidden_size=16",
    "--backbone.num_blocks=1",
    "--backbone.num_heads=2",
    "--data.streaming=true",
    "--data.document_masks=true",
    "--train.batch_size=4",
    "--train.log_every=1",
    "--train.evaluate_every=0",
    "--train.checkpoint_every=3",
    "--sample.number=1",
    "--sampler.steps=2",
    "--track.aim=false",
]


def words(folder):
    named = corpus(folder, "json", length=8, packing="packed", marks="documents")
    return [*WORDS, *(f"--data.{key}={value}" for key, value in named.items())]


def weights(run, step):
    return (run / f"checkpoints/step-{step:07d}/model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_streamed_run_resumes_exactly(tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    common = words(tmp_path)
    assert main([*common, "--train.steps=7", f"--output={whole}"]) == 0
    assert "n-grams" not in capsys.readouterr().out
    assert main([*common, "--train.steps=3", f"--output={parts}"]) == 0
    assert main(["run", f"--resume={parts}", "--train.steps=7"]) == 0
    assert weights(whole, 7) == weights(parts, 7)
    state = json.loads((whole / "checkpoints/step-0000007/state.json").read_text())
    assert "stream" in json.dumps(state)
    assert main([*common, "--evaluate.split=train", f"--output={tmp_path / 'no'}"]) == 2
    assert main(["eval", str(whole), "--evaluate.split=test"]) == 0


def fetching():
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


@pytest.mark.parametrize(("threads", "cores", "worth"), [(1, 2, True), (2, 2, False)])
def test_a_thread_needs_a_core_that_torch_leaves_free(options, threads, cores, worth, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(feeding, "available_cores", lambda: cores)
    data, stream = load_data(options, TOKENIZER), open_stream(options, TOKENIZER)
    place = Place(0, 1, torch.device("cpu"))
    feed = Feed(data, TrainOptions(batch_size=4), place, seed=3, stream=stream)
    assert (feed.ahead is not None) == worth
    feed.close()


@pytest.mark.slow
def test_what_is_fetched_ahead_is_what_is_fetched_when_it_is_needed(tmp_path, monkeypatch):
    common = [*words(tmp_path), "--train.steps=7", "--train.accumulate=2"]
    monkeypatch.setattr(Feed, "worth_a_thread", True)
    assert main([*common, f"--output={tmp_path / 'ahead'}"]) == 0
    assert not fetching()
    monkeypatch.setattr(Feed, "worth_a_thread", False)
    assert main([*common, f"--output={tmp_path / 'plain'}"]) == 0
    for step in (6, 7):
        assert weights(tmp_path / "ahead", step) == weights(tmp_path / "plain", step)
        ahead, plain = (
            json.loads((tmp_path / f"{name}/checkpoints/step-{step:07d}/state.json").read_text())
            for name in ("ahead", "plain")
        )
        assert find(ahead, "stream") == find(plain, "stream")


def find(state, key):
    """The value of a key at any depth."""
    if key in state:
        return state[key]
    return next(found for v in state.values() if isinstance(v, dict) and (found := find(v, key)))


def test_a_checkpoint_has_the_state_of_what_was_used(options, monkeypatch):
    monkeypatch.setattr(Feed, "worth_a_thread", True)
    data = load_data(options, TOKENIZER)
    stream, plain = (open_stream(options, TOKENIZER) for _ in range(2))
    place = Place(0, 1, torch.device("cpu"))
    feed = Feed(data, TrainOptions(batch_size=4), place, seed=3, stream=stream)
    plain.begin(seed=3)
    assert feed.state == plain.state()
    for step in range(9):
        batch = plain.batch(list(range(4 * step, 4 * step + 4)))
        assert torch.equal(feed.take(step)[0].x0, batch.x0)
        assert feed.state == plain.state()
    seen = feed.state
    feed.take(9)
    feed.restore(seen)
    assert feed.state == seen
    again = feed.take(9)[0].x0
    feed.close()
    assert torch.equal(again, plain.batch(list(range(36, 40))).x0)
    assert not fetching()


@pytest.mark.slow
def test_a_mistake_in_text_that_is_fetched_ahead_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Feed, "worth_a_thread", True)
    common = words(tmp_path)
    file = tmp_path / "data" / "1.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:5], '{"text": null}', *lines[6:]]) + "\n")
    assert main([*common, "--train.steps=60", f"--output={tmp_path / 'run'}"]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "row 25" in line]
    assert len(said) == 1
    assert "has no text in column text, but None" in said[0]
    assert not fetching()


@pytest.mark.slow
def test_a_signal_ends_a_streamed_run_which_then_goes_on_exactly(tmp_path):
    common, run, whole = words(tmp_path), tmp_path / "run", tmp_path / "whole"
    common = [*common, "--train.steps=200"]
    start = [forked.python(), "-m", "platform_core.cli"]
    running = subprocess.Popen([*start, *common, f"--output={run}"])
    while not (run / "checkpoints/step-0000006").exists():
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 75
    # In processes of their own, which read larger blocks than these tests do.
    for rest in (["run", f"--resume={run}"], [*common, f"--output={whole}"]):
        subprocess.run([*start, *rest], check=True, timeout=300)
    assert weights(whole, 200) == weights(run, 200)


def other_text(folder, documents):
    """Word of a mix for a file of so many documents."""
    path = folder / "other.jsonl"
    path.write_text("".join(json.dumps({"text": str(500 + i)}) + "\n" for i in range(documents)))
    return f"json={path}"


def mixed(folder):
    """Options of a mix of two streams, of 36 and 18 documents."""
    own = corpus(folder, "json")
    return DataOptions(**own, streaming=True, mix=f"{other_text(folder, 20)}:0.5")


def mix_of(options):
    return load_mix(options, load_data(options, TOKENIZER, splits=["validation"]))


def test_a_mix_of_streams_takes_each_document_of_each_once_an_epoch(tmp_path):
    mix = mix_of(mixed(tmp_path))
    found = numbers(mix.sequences, mix.order(seed=3).rows(0, 300))
    apart = [[n for n in found if n < 400], [n for n in found if n >= 400]]
    assert 60 < len(apart[1]) < 140
    for own, size in zip(apart, (36, 18), strict=True):
        assert len(set(own[:size])) == len(set(own[size : 2 * size])) == size
    assert [mix.said(number) for number in range(2)] == ["a stream"] * 2


@pytest.mark.parametrize("place", [1, 13, 60])
def test_a_mix_of_streams_goes_on_from_its_state(tmp_path, place):
    options = mixed(tmp_path)
    first, second = mix_of(options), mix_of(options)
    rows = first.order(seed=3).rows(0, 120)
    whole = numbers(first.sequences, rows)
    first.sequences.begin(seed=0)
    numbers(first.sequences, rows[:place])
    second.sequences.restore(json.loads(json.dumps(first.sequences.state())))
    assert numbers(second.sequences, rows[place:]) == whole[place:]


@pytest.mark.slow
def test_a_streamed_run_on_a_mix_resumes_exactly(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    common = [*words(tmp_path), f"--data.mix={other_text(tmp_path, 40)}:2"]
    assert main([*common, "--train.steps=7", f"--output={whole}"]) == 0
    assert main([*common, "--train.steps=3", f"--output={parts}"]) == 0
    assert main(["run", f"--resume={parts}", "--train.steps=7"]) == 0
    assert weights(whole, 7) == weights(parts, 7)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_streamed_run_resumes_exactly(tmp_path, processes):
    common = words(tmp_path)
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "hf")}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with Warm(tmp_path, environment) as warm:

        def start(*arguments):
            if processes == 1:
                return [warm.start(*arguments)]
            return warm.launch(processes, *arguments)

        def run(*arguments):
            for done in [process.done() for process in start(*arguments)]:
                assert done.returncode == 0, done.stderr

        run(*common, "--train.steps=60", f"--output={whole}")
        killed = start(*common, "--train.steps=60", f"--output={parts}")
        while not (parts / "checkpoints/step-0000006").exists():
            time.sleep(0.01)
        for process in killed:
            process.kill()
        for process in killed:
            process.wait()
        assert not (parts / "checkpoints/step-0000060").exists()
        run("run", f"--resume={parts}")
        assert weights(whole, 60) == weights(parts, 60)


def test_the_number_of_processes_does_not_change_the_stream(options):
    stream, ranks = (
        open_stream(options, TOKENIZER),
        [open_stream(options, TOKENIZER) for _ in range(2)],
    )
    for step in range(9):
        rows = list(range(step * 8, step * 8 + 8))
        own = [numbers(ranks[rank], rows[rank * 4 : rank * 4 + 4]) for rank in range(2)]
        assert own[0] + own[1] == numbers(stream, rows)
