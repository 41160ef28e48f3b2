"""Several processes train, evaluate and sample as one does, and end together, with one line."""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from kept import record, tensors, wait_for_step
from safetensors.torch import load_file
from warm import Done, Warm

from platform_core.record import metrics
from platform_core.record.directory import LOCK
from platform_core.record.locks import locked

TEXT = "we the people of these united states in order to form a more perfect union"

SMALL = (  # noqa: SIM905
    "run --process=mdlm --backbone=dit --backbone.hidden_size=16 --backbone.num_blocks=1 "
    "--backbone.num_heads=2 --backbone.cond_size=8 --data.corpus=text --data.path=words.txt "
    "--data.length=16 --train.steps=6 --train.batch_size=8 --train.warmup_steps=2 "
    "--train.precision=fp32 --train.log_every=1 --train.evaluate_every=3 "
    "--train.checkpoint_every=3 --evaluate.on_the_way=8 --evaluate.sequences=20 "
    "--evaluate.batch_size=6 --sample.number=5 --sample.batch_size=2 --sampler.steps=3 "
    "--track.to=none --seed=1"
).split()

Launch = Callable[..., list[Done]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    chosen = random.Random(0).choices(TEXT.split(), k=3000)
    (folder / "words.txt").write_text(" ".join(chosen))
    return folder


@pytest.fixture(scope="module")
def warm(home: Path) -> Iterator[Warm]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PLATFORM_")}
    own = {"PLATFORM_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with Warm(home, kept | own) as warm:
        yield warm


@pytest.fixture(scope="module")
def launch(warm: Warm) -> Launch:
    def ended(processes: int, *words: str) -> list[Done]:
        if processes == 1:
            return [warm.run(*words)]
        return [process.done() for process in warm.launch(processes, *words)]

    return ended


def trained(
    launch: Launch, home: Path, name: str, processes: int, *words: str, without: str = "-none"
) -> Path:
    """A run that as many processes trained without a word of complaint."""
    small = [word for word in SMALL if not word.startswith(without)]
    for done in launch(processes, *small, *words, f"--output={name}"):
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    return home / name


@pytest.fixture(scope="module")
def one(launch: Launch, home: Path) -> Path:
    return trained(launch, home, "one", 1)


def curve(run: Path, figure: str, subset: str = "train") -> list[float]:
    return [
        line[figure] for line in metrics.read(run / "metrics.jsonl") if line["subset"] == subset
    ]


def state(run: Path, step: int) -> dict[str, object]:
    """What a checkpoint says apart from digests and times."""
    found = json.loads((run / f"checkpoints/step-{step:07d}/state.json").read_text())
    return {key: value for key, value in found.items() if key not in {"files", "digest", "seconds"}}


def assert_alike(run: Path, other: Path, steps: int = 6) -> None:
    """Losses, norms, bounds and all tensors of the last checkpoint are equal up to rounding."""
    for figure in ("loss", "gradient_norm"):
        expected = curve(other, figure)
        assert len(expected) == steps
        assert curve(run, figure) == pytest.approx(expected, rel=1e-4)
    for subset in ("validation", "final"):
        found, expected = (curve(each, "nats_per_token", subset) for each in (run, other))
        assert found == pytest.approx(expected, rel=1e-5)
    assert state(run, steps) == state(other, steps)
    folders = [each / f"checkpoints/step-{steps:07d}" for each in (run, other)]
    names = {path.name for path in folders[0].iterdir()}
    assert names == {path.name for path in folders[1].iterdir()} > {"optimizer.safetensors"}
    for name in sorted(names - {"state.json"}):
        here, there = (load_file(folder / name) for folder in folders)
        assert here.keys() == there.keys()
        for key, tensor in here.items():
            # Adam divides by roots of tiny second moments, which enlarges rounding.
            torch.testing.assert_close(
                tensor, there[key], rtol=1e-3, atol=2e-4, msg=f"{name} {key}"
            )


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_learn_and_keep_what_one_does(
    launch: Launch, home: Path, one: Path, processes: int
) -> None:
    run = trained(launch, home, f"n{processes}", processes)
    assert_alike(run, one)
    assert json.loads((run / "environment.json").read_text())["processes"] == processes
    for kept in ("samples/final.txt", "samples/step-0000003.txt"):
        assert (run / kept).read_text() == (one / kept).read_text()


def test_accumulated_micro_batches_of_processes_add_up(
    launch: Launch, home: Path, one: Path
) -> None:
    assert_alike(trained(launch, home, "parts", 2, "--train.accumulate=2"), one)


def test_a_process_without_any_row_to_decode_gives_no_gradient(launch: Launch, home: Path) -> None:
    """A micro-batch is one text of two tokens, and every second one has a time below 1/2.

    Such a text has no masked token with probability 7/12, and no update of 20 has such a text with
    3e-8.
    """
    words = [
        "--data.length=2",
        "--train.batch_size=2",
        "--train.steps=20",
        "--evaluate.on_the_way=2",
    ]
    alone = trained(launch, home, "short-1", 1, *words)
    assert_alike(trained(launch, home, "short-2", 2, *words), alone, steps=20)


def test_training_goes_on_with_another_number_of_processes(
    launch: Launch, home: Path, one: Path
) -> None:
    run = trained(launch, home, "changing", 2, "--train.steps=2")
    for processes, steps in ((1, 4), (4, 6)):
        words = ["run", "--resume=changing", f"--train.steps={steps}"]
        for done in launch(processes, *words):
            assert done.returncode == 0, done.stderr
    assert curve(run, "loss") == pytest.approx(curve(one, "loss"), rel=1e-4)
    assert state(run, 6) == state(one, 6)


def said(done: list[Done]) -> list[str]:
    """What all processes printed, without empty lines."""
    return [line for each in done for line in (each.stdout + each.stderr).splitlines() if line]


@pytest.mark.parametrize("number", ["5", "1"])
def test_processes_sample_what_one_samples_and_write_it_once(
    launch: Launch, one: Path, number: str
) -> None:
    words = ["sample", str(one), f"--sample.number={number}", "--format=jsonl"]
    (alone,) = launch(1, *words)
    assert len(alone.stdout.splitlines()) == int(number)
    first, *others = launch(3, *words)
    assert first.returncode == 0, first.stderr
    assert first.stdout == alone.stdout
    assert "network evaluations each" in first.stderr
    assert [(done.returncode, done.stdout, done.stderr) for done in others] == [(0, "", "")] * 2


def figures(done: list[Done]) -> list[dict[str, object]]:
    """The records that the first process printed as JSON; the others print nothing."""
    assert [each.returncode for each in done] == [0] * len(done), done[0].stderr
    assert not any(each.stdout for each in done[1:])
    decoder, text, found = json.JSONDecoder(), done[0].stdout.strip(), []
    while text:
        record, end = decoder.raw_decode(text)
        found.append(record)
        text = text[end:].strip()
    return found


def test_processes_measure_the_bound_that_one_measures(launch: Launch, one: Path) -> None:
    words = ["eval", str(one), "--json", "--evaluate.sequences=7", "--evaluate.batch_size=3"]
    (alone,), (found,) = (figures(launch(number, *words)) for number in (1, 4))
    for name in ("nats_per_token", "standard_error", "tokens"):
        assert found[name] == pytest.approx(alone[name], rel=1e-9)


def test_processes_judge_as_one_judges(launch: Launch, home: Path, one: Path) -> None:
    trained(launch, home, "judge", 1, "--process=ar", without="--sampler")
    words = ["eval", str(one), "--judge=judge", "--json", "--evaluate.batch_size=2"]
    (alone,), (found,) = (figures(launch(number, *words)) for number in (1, 3))
    for text in ("samples", "real", "shuffled"):
        assert found[text] == alone[text]
    assert found["nfe"] == alone["nfe"]


@pytest.mark.slow
def test_processes_read_the_tasks_that_one_reads(launch: Launch, home: Path, one: Path) -> None:
    pytest.importorskip("lm_eval")
    folder = home / "tasks"
    folder.mkdir()
    items = [{"query": "we the", "choices": ["people", "union"], "gold": 0}] * 3
    items += [{"query": "a more", "choices": ["of", "perfect"], "gold": 1}] * 2
    (folder / "items.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))
    task = {
        "task": "endings",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "items.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "query",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "endings.yaml").write_text(json.dumps(task))
    words = ["eval", str(one), "--tasks=endings", f"--task_path={folder}", "--trust_tasks"]
    words += ["--json", "--draws=4"]
    (alone,), (found,) = (figures(launch(number, *words)) for number in (1, 2))
    assert found["items"] == alone["items"] == 5
    assert found["metrics"] == alone["metrics"]
    error = "mean_noise_error_of_a_score"
    assert found[error] == pytest.approx(alone[error], rel=1e-6)


REFUSALS = {
    "an option that there is not": (["--train.stepz=3"], "stepz"),
    "a part that there is not": (["--process=mdml"], "unknown process 'mdml'"),
    "a directory with a run": (["--output=one"], "one exists; give another --output"),
    "a text that there is not": (["--data.path=nowhere.txt"], "nowhere.txt"),
    "a batch that does not divide": (["--train.batch_size=7"], "does not divide into 2 process"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_mistake_is_told_once_and_every_process_ends_with_its_code(
    launch: Launch, home: Path, one: Path, case: str
) -> None:
    words, expected = REFUSALS[case]
    before = {path: path.stat().st_mtime_ns for path in one.rglob("*")}
    start = time.monotonic()
    done = launch(2, *SMALL, "--output=refused", *words)
    assert [each.returncode for each in done] == [2, 2]
    (line,) = said(done)
    assert line.startswith("platform run: error: ")
    assert expected in line
    assert time.monotonic() - start < 30
    assert not (home / "refused").exists()
    assert before == {path: path.stat().st_mtime_ns for path in one.rglob("*")}


def test_a_run_that_another_process_writes_is_refused_in_all_processes(
    launch: Launch, home: Path
) -> None:
    with locked(home / "taken" / LOCK):
        done = launch(2, *SMALL, "--output=taken")
    assert [each.returncode for each in done] == [2, 2]
    (line,) = said(done)
    assert "taken is being written by another process" in line


LONGER = ("--train.steps=60", "--train.checkpoint_every=10", "--train.evaluate_every=20")


@pytest.fixture(scope="module")
def whole(launch: Launch, home: Path) -> Path:
    return trained(launch, home, "whole", 2, *LONGER)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [(0, 1), (0,), (1,)], ids=["both", "first", "second"])
def test_processes_that_are_killed_go_on_bit_for_bit(
    warm: Warm, launch: Launch, home: Path, whole: Path, killed: tuple[int, ...]
) -> None:
    """Whoever is left ends at once, with one line."""
    run = home / f"killed-{'-'.join(map(str, killed))}"
    started = warm.launch(2, *SMALL, *LONGER, f"--output={run}")
    wait_for_step(run, 25, started[0])
    for rank in killed:
        started[rank].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    for rank, process in enumerate(started):
        done = process.done()
        if rank in killed:
            assert done.returncode == -signal.SIGKILL
            continue
        assert done.returncode == 2
        lines = [line for line in done.stderr.splitlines() if "error: " in line]
        assert lines[-1].startswith("platform run: error: another process of this launch has ended")
        assert "Traceback" not in done.stderr
    assert time.monotonic() - begun < 20
    for done in launch(2, "run", f"--resume={run}"):
        assert done.returncode == 0, done.stderr
    assert tensors(run) == tensors(whole)
    assert record(run) == record(whole)


@pytest.mark.slow
def test_a_signal_to_one_process_saves_the_run_of_all(
    warm: Warm, launch: Launch, home: Path, whole: Path
) -> None:
    started = warm.launch(2, *SMALL, *LONGER, "--output=stopped")
    wait_for_step(home / "stopped", 15, started[0])
    started[1].send_signal(signal.SIGTERM)
    done = [process.done() for process in started]
    assert [each.returncode for each in done] == [75, 75], done
    assert [each.stdout.count("saved at step") for each in done] == [1, 0]
    for each in launch(2, "run", "--resume=stopped"):
        assert each.returncode == 0, each.stderr
    assert tensors(home / "stopped") == tensors(whole)
    assert record(home / "stopped") == record(whole)


@pytest.mark.slow
def test_what_fails_in_the_first_process_alone_ends_the_other_with_its_line(
    warm: Warm, home: Path
) -> None:
    """Only the first process writes checkpoints; the second waits for it meanwhile."""
    words = [*SMALL, *LONGER, "--train.checkpoint_every=0", "--output=full"]
    started = warm.launch(2, *words)
    wait_for_step(home / "full", 2, started[0])
    (home / "full" / "checkpoints").write_text("where the folder of checkpoints would be")
    done = [process.done() for process in started]
    assert [each.returncode for each in done] == [2, 2]
    (line,) = [line for line in said(done) if "error" in line]
    assert line.startswith("platform run: error: the checkpoint of step 60 cannot be written")
    assert "Traceback" not in "".join(each.stderr for each in done)
