"""The commands of the README as a user types them, on a small text and a small network."""

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import forked
import pytest
from kept import numbers, record, tensors, wait_for_step
from warm import Done, Started, Warm

import platform_bench as bench
from platform_bench import objectives, sampling
from platform_core.cli import main
from platform_core.data.tokenizer import load_tokenizer
from platform_core.evaluation.trajectory import Trajectory
from platform_core.record import metrics
from platform_core.record.directory import BETWEEN_SAMPLES

TEXT = "we the people of these united states in order to form a more perfect union"

SMALL = (  # noqa: SIM905
    "--process=duo --backbone=dit --backbone.hidden_size=16 --backbone.num_blocks=1 "
    "--backbone.num_heads=2 --backbone.dropout=0.1 --data.corpus=text --data.length=16 "
    "--train.steps=12 --train.batch_size=4 --train.warmup_steps=2 --train.log_every=2 "
    "--train.evaluate_every=6 --train.checkpoint_every=4 --evaluate.on_the_way=8 "
    "--sample.number=2 --sampler.steps=3 --track.aim=false --seed=1"
).split()

Platform = Callable[..., Done]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    chosen = random.Random(0).choices(TEXT.split(), k=3000)
    (folder / "words.txt").write_text(" ".join(chosen))
    return folder


def environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PLATFORM_")}
    return {**kept, "PLATFORM_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def warm(home: Path) -> Iterator[Warm]:
    with Warm(home, environment(home)) as warm:
        yield warm


@pytest.fixture(scope="session")
def platform(warm: Warm) -> Platform:
    return warm.run


@pytest.fixture(scope="session")
def small(home: Path) -> list[str]:
    return ["run", *SMALL, f"--data.path={home / 'words.txt'}"]


@pytest.fixture(scope="session")
def finished(home: Path, platform: Platform, small: list[str]) -> Path:
    done = platform(*small, "--output=finished")
    assert done.returncode == 0, done.stderr
    return home / "finished"


def test_a_run_leaves_its_whole_record(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "checkpoints",
        "config.yaml",
        "environment.json",
        "figures",
        "metrics.jsonl",
        "result.json",
        "samples",
        "tokenizer.json",
        "tracking.json",
    }
    folders = sorted(path.name for path in (finished / "checkpoints").iterdir())
    assert folders == ["step-0000008", "step-0000012"]
    assert {path.name for path in (finished / "samples").iterdir()} == {
        "final.txt",
        "step-0000006.txt",
    }
    assert [(line["step"], line["subset"]) for line in record(finished)] == [
        (2, "train"),
        (4, "train"),
        (6, "train"),
        (6, "validation"),
        (8, "train"),
        (10, "train"),
        (12, "train"),
        (12, "final"),
    ]


@pytest.fixture(scope="session")
def shown(home: Path, platform: Platform, small: list[str]) -> Path:
    """A run that TensorBoard shows for want of Aim: to step 12, and again from step 8."""
    words = [word for word in small if not word.startswith("--track")]
    done = platform("-p", "no:aim", *words, "--output=shown/run")
    assert done.returncode == 0, done.stderr
    assert (
        "note: runs are shown by TensorBoard, because plugin aim, which brings aim, is not there: "
        "it is disabled; look with: tensorboard --logdir shown\n"
    ) in done.stderr
    assert done.stdout.endswith("curves: tensorboard --logdir shown\n")
    run = home / "shown" / "run"
    shutil.rmtree(run / "checkpoints" / "step-0000012")
    (run / "result.json").unlink()
    resumed = platform("-p", "no:aim", "run", "--resume=shown/run")
    assert resumed.returncode == 0, resumed.stderr
    return run


@pytest.mark.slow
def test_tensorboard_shows_what_the_record_says_of_a_resumed_run(shown: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(shown / "tensorboard")).Reload()
    points = {
        (name, point.step): point.value
        for name in events.Tags()["scalars"]
        for point in events.Scalars(name)
    }
    expected = {
        (f"{line['subset']}/{name}", line["step"]): value
        for line in metrics.read(shown / "metrics.jsonl")
        for name, value in line.items()
        if name not in metrics.LABELS
    }
    assert points == pytest.approx(expected, rel=1e-6, nan_ok=True)
    for name in events.Tags()["scalars"]:
        steps = [point.step for point in events.Scalars(name)]
        assert len(steps) == len(set(steps))
    assert set(events.Tags()["images"]) == {"levels", "trajectory"}
    config = (shown / "config.yaml").read_text()
    assert "track:\n  to: auto\n" in config


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--track.to=tensorbord", "unknown tracker 'tensorbord'; did you mean tensorboard?"),
        ("--track.to=auto,aim", "track.to is 'auto,aim'; it must be auto, none, or names"),
        ("--track.aim=maybe", "track.aim is 'maybe'; it was true or false, and is now --track.to"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused_before_anything_starts(
    words: str, said: str, small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [word for word in small if not word.startswith("--track")]
    assert main([*kept, words, f"--output={tmp_path / 'run'}"]) == 2
    output, error = capsys.readouterr()
    assert said in error
    assert (output, error.count("\n")) == ("", 1)
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_how_a_sample_came_about_and_where_its_bound_comes_from(finished: Path) -> None:
    kept = {path.name for path in (finished / "figures").iterdir()}
    assert kept == {
        f"{kind}-{look}.json"
        for kind in ("levels", "trajectory")
        for look in ("step-0000006", "final")
    }
    way = Trajectory.read(json.loads((finished / "figures/trajectory-final.json").read_text()))
    tokenizer = load_tokenizer(finished / "tokenizer.json")
    text = (finished / "samples/final.txt").read_text().split(BETWEEN_SAMPLES)[0]
    assert tokenizer.decode(way.tokens[-1]) == text
    levels = json.loads((finished / "figures/levels-final.json").read_text())
    result = json.loads((finished / "result.json").read_text())
    assert levels["levels"] == result["levels"]
    assert levels["nats_per_token"] == result["nats_per_token"]


@pytest.mark.slow
def test_a_trajectory_is_drawn_of_a_trained_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", str(finished), "--sample.number=1", "--sampler.steps=5"]
    assert main([*words, "--trajectory", str(tmp_path / "way.json")]) == 0
    text = capsys.readouterr().out
    assert main(words) == 0
    assert capsys.readouterr().out == text
    way = Trajectory.read(json.loads((tmp_path / "way.json").read_text()))
    assert len(way.tokens) == 5 + 2
    assert main([*words, "--trajectory", str(tmp_path / "way.txt")]) == 2
    assert "way.txt cannot hold a figure" in capsys.readouterr().err


def test_a_result_says_how_it_was_made(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert {
        "bits_per_token",
        "perplexity",
        "standard_error",
        "tokens",
        "steps",
        "seconds",
        "peak_rss_bytes",
        "unigram_bits",
        "bigram_bits",
    } <= result.keys()
    assert result["steps"] == 12
    assert result["perplexity"] == pytest.approx(2 ** result["bits_per_token"])
    assert result["unigram_bits"] > result["bigram_bits"] > result["fivegram_bits"] > 0
    assert result["card"]["evaluate"]["weights"] == "ema"
    assert result["card"]["sampler"]["nfe"] == 4
    assert "dlm-platform-duo" in result["card"]["packages"]


@pytest.mark.slow
def test_the_saved_config_repeats_the_run_byte_for_byte(
    home: Path, platform: Platform, finished: Path
) -> None:
    done = platform("run", f"--config={finished / 'config.yaml'}", "--output=again")
    assert done.returncode == 0, done.stderr
    again = home / "again"
    assert tensors(again) == tensors(finished)
    assert numbers(again) == numbers(finished)
    assert record(again) == record(finished)
    assert (again / "config.yaml").read_text() == (finished / "config.yaml").read_text()
    final = Path("samples/final.txt")
    assert (again / final).read_text() == (finished / final).read_text()


@pytest.fixture
def start(warm: Warm) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def begin(*words: str) -> Started:
        started.append(warm.start(*words))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


LONGER = ("--train.steps=120", "--train.checkpoint_every=10", "--train.evaluate_every=40")


@pytest.mark.slow
@pytest.mark.parametrize("writing", ["between", "beside"])
def test_a_run_killed_three_times_ends_bit_for_bit_as_if_it_had_not_been(
    home: Path,
    platform: Platform,
    small: list[str],
    start: Callable[..., Started],
    writing: str,
) -> None:
    """Also where a thread was writing a checkpoint, which changes no byte of any."""
    assert platform(*small, *LONGER, "--output=whole", "--overwrite").returncode == 0
    killed = home / f"killed-{writing}"
    words = [*small, *LONGER, f"--train.checkpoint_writing={writing}", f"--output={killed}"]
    for step in sorted(random.Random(2).sample(range(5, 110), 3)):
        process = start(*words)
        wait_for_step(killed, step, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
        words = ["run", f"--resume={killed}"]
    done = platform(*words)
    assert done.returncode == 0, done.stderr
    assert tensors(killed) == tensors(home / "whole")
    assert record(killed) == record(home / "whole")
    assert numbers(killed) == numbers(home / "whole")


@pytest.mark.slow
def test_a_student_killed_in_two_rounds_ends_bit_for_bit_as_if_it_had_not_been(
    home: Path,
    platform: Platform,
    small: list[str],
    finished: Path,
    start: Callable[..., Started],
) -> None:
    """With dropout, which the teacher does without, and the average as the teacher."""
    words = [
        *(word for word in small if not word.startswith(("--backbone.", "--process"))),
        *LONGER,
        "--objective=discrete-consistency",
        "--objective.teacher=ema",
        "--objective.round_steps=25",
        f"--init={finished}",
    ]
    assert platform(*words, "--output=student").returncode == 0
    killed = home / "killed-student"
    words.append(f"--output={killed}")
    for step in (15, 60):
        process = start(*words)
        wait_for_step(killed, step, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
        words = ["run", f"--resume={killed}"]
    done = platform(*words)
    assert done.returncode == 0, done.stderr
    assert "objective.safetensors" in tensors(killed)
    assert tensors(killed) == tensors(home / "student")
    assert record(killed) == record(home / "student")
    assert numbers(killed) == numbers(home / "student")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "writing"),
    [
        (signal.SIGTERM, 75, "between"),
        (signal.SIGUSR1, 75, "beside"),
        (signal.SIGINT, 130, "between"),
    ],
)
def test_a_signal_saves_the_run_and_leaves_with_its_code(
    home: Path,
    platform: Platform,
    small: list[str],
    start: Callable[..., Started],
    number: int,
    code: int,
    writing: str,
) -> None:
    run = home / f"signal-{number}"
    words = [*small, *LONGER, "--train.checkpoint_every=0", f"--output={run}"]
    words.append(f"--train.checkpoint_writing={writing}")
    process = start(*words)
    wait_for_step(run, 6, process)
    process.send_signal(number)
    assert process.wait() == code
    assert len(list((run / "checkpoints").iterdir())) == 1
    done = platform("run", f"--resume={run}", "--train.steps=40")
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "result.json").read_text())["steps"] == 40


@pytest.mark.slow
def test_eval_repeats_the_figure_of_the_run(platform: Platform, finished: Path) -> None:
    done = platform("eval", str(finished), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    result = json.loads((finished / "result.json").read_text())
    assert found["bits_per_token"] == result["bits_per_token"]
    assert found["card"]["step"] == 12
    kept = finished / "evaluations" / "validation-ema-exact-step-0000012.json"
    assert json.loads(kept.read_text()) == found
    assert result["evaluations"][kept.stem] == found


@pytest.mark.slow
def test_sample_continues_a_prompt_and_keeps_a_seed(platform: Platform, finished: Path) -> None:
    words = ("sample", str(finished), "--sample.prompt=we the", "--format=jsonl", "--seed=5")
    first, second = platform(*words), platform(*words)
    assert first.returncode == 0, first.stderr
    rows = [json.loads(line) for line in first.stdout.splitlines()]
    assert len(rows) == 2
    assert all(row["text"].startswith("we the") for row in rows)
    assert all(len(row["tokens"]) == 16 for row in rows)
    assert first.stdout == second.stdout


@pytest.mark.slow
def test_sample_fills_in_the_blanks_of_a_template(
    home: Path, platform: Platform, finished: Path
) -> None:
    done = platform("sample", str(finished), "--sample.template=we ___ people", "--to=filled.txt")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    for text in (home / "filled.txt").read_text().split("\n\n---\n\n"):
        # Special tokens, which are spelt out, may fill a blank too.
        assert text.startswith("we ")
        assert " people" in text


@pytest.mark.slow
def test_a_run_in_larger_tokens_needs_its_own_directory_alone(
    home: Path,
    small: list[str],
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("PLATFORM_CACHE", str(home / "cache"))
    text = ["--data.corpus=text", "--data.path=words.txt"]
    assert main(["tokenizer", "train", "--size=280", "--output=pieces", *text]) == 0
    assert main([*small, "--data.tokenizer=pieces", "--output=in-pieces"]) == 0
    shutil.rmtree(home / "pieces")
    before, plain = numbers(home / "in-pieces"), numbers(finished)
    # The same text but for the ends of documents and what the last sequences hold.
    assert before["characters"] == plain["characters"]
    assert before["tokens"] < 0.6 * plain["tokens"]
    assert before["bits_per_character"] * before["characters"] == pytest.approx(
        before["bits_per_token"] * before["tokens"]
    )
    capsys.readouterr()
    assert main(["eval", "in-pieces", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bits_per_token"] == before["bits_per_token"]
    assert main(["sample", "in-pieces", "--sample.prompt=we the", "--format=jsonl"]) == 0
    for line in capsys.readouterr().out.splitlines():
        assert json.loads(line)["text"].startswith("we the")
        assert len(json.loads(line)["tokens"]) == 16
    assert main(["run", "--resume=in-pieces"]) == 0
    assert numbers(home / "in-pieces") == before
    assert main(["eval", "in-pieces", "--data.tokenizer=text8"]) == 2
    assert "was trained with data.tokenizer pieces, not text8" in capsys.readouterr().err


@pytest.mark.slow
def test_a_finished_run_resumes_to_the_same_result(platform: Platform, finished: Path) -> None:
    before = numbers(finished)
    assert platform("run", f"--resume={finished}").returncode == 0
    assert numbers(finished) == before


@pytest.mark.slow
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    home: Path, platform: Platform, small: list[str]
) -> None:
    assert platform(*small, "--output=damaged").returncode == 0
    expected = tensors(home / "damaged")
    file = home / "damaged" / "checkpoints" / "step-0000012" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    done = platform("run", "--resume=damaged")
    assert done.returncode == 0, done.stderr
    assert "step-0000012 is damaged" in done.stderr
    assert tensors(home / "damaged") == expected


@pytest.mark.slow
def test_a_checkpoint_of_another_architecture_is_refused(
    home: Path, platform: Platform, finished: Path
) -> None:
    copy = home / "other"
    shutil.copytree(finished, copy)
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("hidden_size: 16", "hidden_size: 32"))
    done = platform("eval", str(copy))
    assert done.returncode == 2
    assert "is of another architecture" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_run_directory_is_never_lost_by_accident(
    home: Path, platform: Platform, finished: Path, small: list[str]
) -> None:
    before = numbers(finished)
    done = platform(*small, "--output=finished")
    assert done.returncode == 2
    assert "--resume" in done.stderr
    assert "--overwrite" in done.stderr
    foreign = home / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    assert platform(*small, "--output=foreign", "--overwrite").returncode == 2
    assert (foreign / "thesis.tex").exists()
    assert numbers(finished) == before


MISTAKES = {
    "unknown part": (["--process=dou"], "unknown process 'dou'; did you mean duo"),
    "unknown option": (["--train.step=3"], "unknown option train.step; did you mean train.steps?"),
    "wrong type": (
        ["--backbone.hidden_size=2.5"],
        "backbone.hidden_size is 2.5; expected int or null",
    ),
    "values that do not fit": (["--backbone.num_heads=3"], "hidden_size 16 does not split"),
    "incompatible parts": (["--process=absorbing", "--objective=uniform-nelbo"], "uniform"),
    "missing corpus": (["--data.path=nowhere.txt"], "nowhere.txt"),
    "empty corpus": (["--data.path=empty.txt"], "empty.txt"),
    "batch that does not divide": (["--train.accumulate=3"], "multiple of 3"),
    "prompt that does not fit": (["--sample.prompt=" + "we " * 9], "27 tokens"),
    "prompt of unknown characters": (["--sample.prompt=WE"], "'E' (U+0045)"),
    "config that is not there": (["--config=nowhere.yaml"], "nowhere.yaml"),
    "config with a key that does not exist": (["--config=wrong.yaml"], "trian"),
    "negative steps": (["--train.steps=-1"], "train.steps"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_nothing(
    home: Path,
    small: list[str],
    mistake: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("PLATFORM_CACHE", str(home / "cache"))
    (home / "empty.txt").write_text("")
    (home / "wrong.yaml").write_text("trian: {steps: 3}\n")
    words, said = MISTAKES[mistake]
    assert main([*small, *words, "--output=mistake"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("platform run: error: ")
    assert said in printed
    assert printed.count("\n") == 1, printed
    assert not (home / "mistake").exists()


def test_an_output_that_cannot_be_made_gets_one_line(
    home: Path,
    small: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("PLATFORM_CACHE", str(home / "cache"))
    assert main([*small, f"--output={home / 'words.txt' / 'run'}"]) == 2
    assert "Not a directory" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("student", [False, True])
def test_two_processes_learn_what_one_does_in_two_micro_batches(
    home: Path, platform: Platform, small: list[str], finished: Path, student: bool
) -> None:
    """And what one batch does, without dropout: all have the same noise, so that their losses are
    equal to rounding, which grows from update to update.
    """
    words = [*small, "--train.precision=fp32", "--train.log_every=1", "--overwrite"]
    if student:
        words += [f"--init={finished}", "--objective=discrete-consistency"]
        words += ["--objective.round_steps=4"]
    else:
        words += ["--backbone.dropout=0"]
    # A student keeps the dropout of its teacher's network.
    ways = {"one": 2} if student else {"whole": 1, "one": 2, "four": 4}
    for name, accumulate in ways.items():
        done = platform(*words, f"--train.accumulate={accumulate}", f"--output={name}")
        assert done.returncode == 0
    launch = [forked.python(), "-m", "torch.distributed.run", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, "--master_port=29517", "-m", "platform_core.cli", *words, "--output=two"],
        cwd=home,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    one, two = numbers(home / "one"), numbers(home / "two")
    assert two["tokens"] == one["tokens"]
    assert two["bits_per_token"] == pytest.approx(one["bits_per_token"], rel=1e-5)
    expected = losses(home / next(iter(ways)))
    assert len(expected) == one["steps"]
    for name in (*ways, "two"):
        found = losses(home / name)
        assert found[:2] == pytest.approx(expected[:2], rel=1e-6), name
        assert found == pytest.approx(expected, rel=1e-2), name


def losses(run: Path) -> list[float]:
    """The loss of every update."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["subset"] == "train"]


@pytest.mark.slow
@pytest.mark.parametrize("suite", bench.SUITES)
def test_the_bench_measures_every_case_of_a_suite(suite: str) -> None:
    """In this process; the table below measures each of its cases in a new one."""
    size = bench.Size(states=50, batch=2, length=8, network="tiny", width=64)
    for case in bench.suite(suite).cases(size):
        if sampling.MANY in sampling.PATHS.get(case.path, ()):
            continue  # a minute each
        figures = bench.measure(case)
        assert set(figures) >= set(bench.suite(suite).COLUMNS)
        if suite == "counts":
            assert figures["kernels"] > 0
            continue
        assert figures["seconds"] > 0
        assert figures["peak_gigabytes"] > 0


@pytest.mark.slow
def test_the_bench_prints_its_table(platform: Platform) -> None:
    sizes = "--states=50 --batch=2 --length=8 --width=64".split()  # noqa: SIM905
    done = platform("bench", "--what=objectives", *sizes)
    assert done.returncode == 0, done.stderr
    _, titles, *rows = done.stdout.splitlines()
    assert titles.split()[:2] == ["path", "size"]
    assert max(map(len, (titles, *rows))) <= 80
    assert [row[:22].strip() for row in rows] == list(objectives.PATHS)
    assert all(row.split()[-4] == "2x8x50" for row in rows)
