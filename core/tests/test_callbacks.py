"""Callbacks: they end a training, keep its best checkpoint, and resume exactly."""

import json

import pytest
import yaml

from platform_core.callback import Callback, Progress, Reaction
from platform_core.cli import main
from platform_core.composition.compose import compose
from platform_core.errors import UsageError
from platform_core.registry.loading import find_plugins
from platform_core.training.callbacks import BestCheckpoint, EarlyStopping, Watchers

TINY = """
--process mdlm --backbone.hidden_size 16 --backbone.num_blocks 1 --backbone.num_heads 2
--data.length 16 --data.corpus text --data.path text.txt --train.batch_size 2
--train.warmup_steps 0 --train.precision fp32 --train.evaluate_every 2 --train.log_every 1
--evaluate.on_the_way 2 --evaluate.sequences 2 --sample.number 1 --sampler.steps 2
"""


def looked(step: int, value: float) -> Progress:
    return Progress(step, 100, {"nats_per_token": value, "bits_per_character": value * 2})


def composed(*words: str):
    return compose(list(words), find_plugins({}), prog="test", environ={})[0]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLATFORM_TRACK__AIM", "false")
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 60)
    return tmp_path


def test_early_stopping_waits_as_long_as_it_is_told():
    stopping = EarlyStopping(patience=2, min_delta=0.1)
    values = [3.0, 2.0, 1.95, 1.85, 1.8, 1.79]
    said = [stopping.after_look(looked(step, value)).stop for step, value in enumerate(values)]
    assert [bool(reason) for reason in said] == [False, False, False, False, False, True]
    assert said[-1] == "nats_per_token has not improved for 2 evaluations since 1.8500 at step 3"


def test_the_best_checkpoint_is_the_one_of_the_lowest_figure():
    best = BestCheckpoint(figure="bits_per_character")
    kept = [best.after_look(looked(step, value)).keep for step, value in enumerate([3, 2, 2.5, 1])]
    assert kept == [True, True, False, True]


@pytest.mark.parametrize("make", [EarlyStopping, BestCheckpoint])
def test_a_callback_goes_on_from_its_state(make):
    values = [3.0, 2.5, 2.6, 2.4, 2.7, 2.8, 2.9]
    whole, first = make(), make()
    expected = [whole.after_look(looked(i, value)) for i, value in enumerate(values)]
    found = [first.after_look(looked(i, value)) for i, value in enumerate(values[:3])]
    second = make()
    second.restore(json.loads(json.dumps(dict(first.state()))))
    found += [second.after_look(looked(i, v)) for i, v in enumerate(values) if i >= 3]
    assert found == expected


def test_a_figure_that_no_look_measures_is_the_users_mistake():
    with pytest.raises(UsageError, match="'nats_per_tokn', but runs measure .* did you mean"):
        EarlyStopping(figure="nats_per_tokn").after_look(looked(1, 2.0))


def test_reactions_are_joined_under_the_callbacks_names():
    class Loud(Callback):
        def after_update(self, progress):
            return Reaction({"loudness": 11.0}, stop="too loud", keep=True)

    watchers = Watchers({"loud": Loud(), "quiet": Callback()})
    found = watchers.after_update(Progress(5, 10, {}))
    assert found.figures == {"loud/loudness": 11.0}
    assert watchers.stopped == "loud: too loud"
    assert watchers.kept == {"loud": 5}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], []),
        (["--callbacks", "early-stopping"], ["early-stopping"]),
        (["--callbacks=best_checkpoint,early-stopping"], ["best-checkpoint", "early-stopping"]),
        (["--callbacks.early_stopping.patience", "7"], ["early-stopping"]),
        (["--callbacks.early-stopping.patience=7"], ["early-stopping"]),
        (["--callbacks", "early-stopping", "--callbacks", "none"], []),
    ],
)
def test_callbacks_are_chosen_by_name_or_by_an_option(words, names):
    found = composed(*words)
    assert list(found.callbacks) == names
    for name in names:
        section = yaml.safe_load(found.config)["callbacks"][name.replace("-", "_")]
        assert "figure" in section


def test_a_config_with_callbacks_repeats_itself_and_can_be_overruled(tmp_path):
    first = composed(
        "--callbacks.early-stopping.patience=7", "--callbacks.best_checkpoint.figure=x"
    )
    file = tmp_path / "config.yaml"
    file.write_text(first.config)
    again = composed(f"--config={file}")
    assert again.config == first.config
    assert again.make_callbacks()["early-stopping"].patience == 7
    assert not composed(f"--config={file}", "--callbacks=none").callbacks
    file.write_text("callbacks: early-stopping\n")
    assert list(composed(f"--config={file}").callbacks) == ["early-stopping"]


def test_the_environment_chooses_callbacks():
    environ = {"PLATFORM_CALLBACKS__EARLY_STOPPING__PATIENCE": "9"}
    found, _ = compose([], find_plugins({}), prog="test", environ=environ)
    assert found.make_callbacks()["early-stopping"].patience == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--callbacks=early-stoping"],
            "unknown callback 'early-stoping'; did you mean early-stop",
        ),
        (["--callbacks"], "--callbacks needs a value"),
        (
            ["--callbacks.early-stopping.pacience=3"],
            "did you mean callbacks.early_stopping.patience",
        ),
        (
            ["--callbacks.early-stopping.patience=0"],
            "callback early-stopping: patience is 0; it must",
        ),
        (["--callbacks.early-stopping.patience=two"], "patience is two; expected int"),
        (
            ["--callbacks.early-stopping.min_delta=.nan"],
            "min_delta is .nan; it must be a finite number",
        ),
    ],
)
def test_a_mistake_about_callbacks_is_one_clear_line(words, message):
    with pytest.raises(UsageError) as error:
        composed(*words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_ends_early_keeps_its_best_and_is_then_complete(home, capsys):
    # Nothing is learned, so the first look is the best and the third ends the training.
    words = [
        *TINY.split(),
        "--train.learning_rate=0",
        "--train.steps=40",
        "--train.keep_checkpoints=1",
    ]
    words += ["--callbacks=best-checkpoint", "--callbacks.early-stopping.patience=2"]
    assert main(["run", *words, "--output=run"]) == 0
    said = capsys.readouterr().out
    assert "stopped early: early-stopping: nats_per_token has not improved for 2 " in said
    result = json.loads((home / "run/result.json").read_text())
    assert result["steps"] == 6
    assert result["stopped"].startswith("early-stopping: ")
    steps = sorted(path.name for path in (home / "run/checkpoints").iterdir())
    assert steps == ["step-0000002", "step-0000006"]
    logged = [json.loads(line) for line in (home / "run/metrics.jsonl").read_text().splitlines()]
    own = [record for record in logged if record["subset"] == "callbacks"]
    assert own[-1]["early-stopping/looks_without_improvement"] == 2
    assert main(["run", "--resume=run"]) == 0
    assert json.loads((home / "run/result.json").read_text())["steps"] == 6
    assert main(["eval", "run"]) == 0


def test_a_run_with_callbacks_resumes_as_if_it_had_never_stopped(home):
    words = [
        *TINY.split(),
        "--callbacks=best-checkpoint,early-stopping",
        "--train.checkpoint_every=5",
    ]
    assert main(["run", *words, "--train.steps=12", "--output=whole"]) == 0
    assert main(["run", *words, "--train.steps=5", "--output=parts"]) == 0
    assert main(["run", "--resume=parts", "--train.steps=12"]) == 0
    whole, parts = (
        json.loads((home / name / "checkpoints/step-0000012/state.json").read_text())
        for name in ("whole", "parts")
    )
    assert whole["callbacks"]["own"] == parts["callbacks"]["own"]
    assert whole["files"]["model.safetensors"] == parts["files"]["model.safetensors"]
