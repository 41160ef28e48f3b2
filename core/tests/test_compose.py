"""Composition: names, layers of options, messages, and what is built."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from platform_core.composition.compatibility import matrix
from platform_core.composition.compose import (
    CHANGES_NUMBERS,
    MAY_CHANGE,
    Composition,
    compose,
    compose_saved,
)
from platform_core.composition.options import TrainOptions
from platform_core.errors import IncompatibleError, UsageError
from platform_core.registry.loading import find_plugins
from platform_core.registry.parts import Plugins

STUBS = Path(__file__).parent / "stub_parts.py"


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return find_plugins({"PLATFORM_PLUGINS": str(STUBS)})


class Composer:
    """Composes with stub parts and without the environment of the test run."""

    def __init__(self, plugins: Plugins, directory: Path) -> None:
        self.plugins, self.directory = plugins, directory

    def __call__(self, *argv: str, environ: Mapping[str, str] | None = None) -> Composition:
        composition, _ = compose(argv, self.plugins, prog="platform run", environ=environ or {})
        return composition

    def file(self, content: str, name: str = "x.yaml") -> str:
        path = self.directory / name
        path.write_text(content)
        return str(path)

    def saved(self, *argv: str) -> Path:
        return Path(self.file(self(*argv).config, "config.yaml"))

    def error(self, *argv: str, environ: Mapping[str, str] | None = None) -> str:
        with pytest.raises(UsageError) as error:
            self(*argv, environ=environ)
        message = str(error.value)
        assert "\n" not in message
        return message.replace(f"{self.directory}/", "")


@pytest.fixture
def run(plugins: Plugins, tmp_path: Path) -> Composer:
    return Composer(plugins, tmp_path)


def options(composition: Composition, role: str) -> dict[str, Any]:
    return dict(composition.factories[role].keywords)


def test_roles_take_the_processes_defaults_and_then_cores(run: Composer) -> None:
    composition = run("--process", "first")
    assert composition.names["sampler"] == "quick"
    assert composition.names["objective"] == "nelbo"
    assert options(composition, "sampler")["steps"] == 7


def test_an_option_default_of_a_process_counts_only_for_the_part_it_names(run: Composer) -> None:
    composition = run("--process=first", "--sampler=ancestral")
    assert options(composition, "sampler")["steps"] == 128


def test_later_layers_win(run: Composer) -> None:
    one = run.file("process: first\ntrain: {steps: 1, batch_size: 1}\nseed: 1\n", "one.yaml")
    two = run.file("train: {steps: 2, learning_rate: 1e-3, clip: 2}\n", "two.yaml")
    environ = {"PLATFORM_TRAIN__STEPS": "3", "PLATFORM_SEED": "5"}
    composition = run("--train.steps", "4", "--config", one, "--config", two, environ=environ)
    expected = TrainOptions(steps=4, batch_size=1, learning_rate=1e-3, clip=2.0)
    assert composition.train == expected
    assert composition.seed == 5


def test_the_environment_names_parts_and_nested_options(run: Composer) -> None:
    environ = {
        "PLATFORM_PROCESS": "first",
        "PLATFORM_BACKBONE__ROTATION__BASE": "3",
        "PLATFORM_PROJECT": "of somebody else",
        "PLATFORM_PLUGINS": "",
    }
    composition = run(environ=environ)
    assert composition.names["process"] == "first"
    assert options(composition, "backbone")["rotation"].base == 3.0


@pytest.mark.parametrize(
    "text", ["process: first", "process: {name: first}", "process:\n  name: first"]
)
def test_a_part_is_read_by_its_bare_name_too(run: Composer, text: str) -> None:
    assert run("--config", run.file(text)).names["process"] == "first"


@pytest.mark.parametrize("number", ["-1e-3", "-.5", "-2", "1e3", "-1E+2"])
def test_numbers_need_no_equals_sign(run: Composer, number: str) -> None:
    composition = run("--process", "first", "--backbone.slope", number)
    assert options(composition, "backbone")["slope"] == float(number)


@pytest.mark.parametrize(
    "argv",
    [
        ["--process=first"],
        ["--process=second", "--backbone.label=1e-3", "--backbone.slope=1e-7", "--schedule=cosine"],
        ["--process=first", "--backbone.label= ü: #\n 'x' ", "--backbone.scales=[3, 0.1]"],
        ["--process=first", "--backbone=wide", "--backbone.depth=3", "--backbone.slope=-1e300"],
        ["--process=first", "--track.to=none"],
        ["--process=first", "--track.to=aim,tensorboard"],
        ["--process=first", "--sample.prompt=123", "--sample.blank=#", "--data.path=true"],
        ["--process=first", "--backbone.rotation.base=3", "--backbone.label=" + "long " * 50],
    ],
)
def test_the_config_reproduces_itself_byte_for_byte(run: Composer, argv: Sequence[str]) -> None:
    once = run(*argv)
    again = run("--config", run.file(once.config))
    assert again.config == once.config
    assert again.factories["backbone"].keywords == once.factories["backbone"].keywords


@pytest.mark.parametrize(
    ("argv", "text", "environ", "to"),
    [
        ([], "", {}, "auto"),
        (["--track.to=aim,tensorboard"], "track: {to: none}", {}, "aim,tensorboard"),
        ([], "track: {to: [aim, wandb]}", {}, "aim,wandb"),
        # The name that the option had when Aim was the only tracker.
        (["--track.aim=false"], "", {}, "none"),
        (["--track.aim", "false"], "track: {aim: true}", {}, "none"),
        (["--track.aim", "true"], "track: {aim: false}", {}, "auto"),
        ([], "track: {aim: false}", {}, "none"),
        ([], "track: {aim: true}", {}, "auto"),
        ([], "track: {aim: true}", {"PLATFORM_TRACK__AIM": "false"}, "none"),
        (["--track.to=tensorboard"], "", {"PLATFORM_TRACK__AIM": "false"}, "tensorboard"),
        ([], "track: {aim: true}", {"PLATFORM_TRACK__TO": "wandb"}, "wandb"),
    ],
)
def test_trackers_are_named_by_every_source_and_once_were_only_aim(
    run: Composer, argv: Sequence[str], text: str, environ: Mapping[str, str], to: str
) -> None:
    composition = run("--process=first", "--config", run.file(text), *argv, environ=environ)
    assert composition.track.to == to
    assert run("--config", run.file(composition.config)).config == composition.config


def test_print_config_prints_the_config_and_nothing_else(
    run: Composer, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run("--process", "first", "--print_config")
    assert exit_.value.code == 0
    assert capsys.readouterr().out == run("--process", "first").config


def test_the_config_is_complete(run: Composer) -> None:
    values = yaml.safe_load(run("--process", "first").config)
    assert values["backbone"] == {
        "name": "narrow",
        "hidden_size": 8,
        "num_heads": 2,
        "rotation": {"base": 10000.0},
        "scales": [1.0, 2.0],
        "label": None,
        "slope": 0.0,
    }
    assert values["parameterization"] == {"name": "mean"}
    assert values["train"]["steps"] == TrainOptions().steps
    assert values["seed"] == 1


def test_build_fills_in_what_is_computed(run: Composer) -> None:
    built = run("--process", "first", "--schedule", "uneven").build(vocab_size=10)
    assert built.model.process.vocab_size == 10
    assert built.model.schedule.num_states == 11
    assert built.model.backbone.embedding.num_embeddings == 11
    assert built.model.backbone.causal is False
    assert built.objective.model is built.model
    assert built.sampler.steps == 7


def test_computed_parameters_reach_a_parent_through_keyword_arguments(run: Composer) -> None:
    built = run("--process=first", "--backbone=wide", "--backbone.depth=2").build(vocab_size=10)
    assert built.model.backbone.embedding.num_embeddings == 11


def test_composing_makes_no_weights(run: Composer) -> None:
    run("--process=first", "--backbone.hidden_size=20000000", "--backbone.num_heads=1")


def test_a_verbs_own_arguments_come_back_beside_the_composition(plugins: Plugins) -> None:
    def extend(parser: ArgumentParser) -> None:
        parser.add_argument("--output", type=Path)
        parser.add_argument("--overwrite", action="store_true")

    argv = ["--process", "first", "--output", "x", "--train.steps", "3"]
    composition, own = compose(argv, plugins, prog="p", extend=extend, environ={})
    assert own.output == Path("x")
    assert own.overwrite is False
    assert "output" not in composition.config


MISTAKES = [
    (["--process", "frist"], "unknown process 'frist'; did you mean first? known: absorbing ("),
    (["--process", "narrow"], "unknown process 'narrow'; narrow is a backbone: --backbone narrow"),
    (["--process"], "--process needs a value"),
    (
        ["--backbone.hiden_size=3"],
        "unknown option backbone.hiden_size of backbone narrow; did you ",
    ),
    (["--backbone.rotation.bsae=3"], "did you mean backbone.rotation.base?"),
    (["--process.x=3", "--process=second"], "--process.x was given for process first, which a "),
    (["--process.eps", "3"], "unknown option process.eps of process first; it has process.time_"),
    (
        ["--train.lerning_rate=1"],
        "unknown option train.lerning_rate; did you mean train.learning_r",
    ),
    (["--trian.steps=1"], "unknown section 'trian'; did you mean train?"),
    (["--porcess=first"], "unknown option --porcess; did you mean --process?"),
    (["--print-confg"], "unknown option --print_confg; did you mean --print_config?"),
    (["second"], "unexpected argument 'second'; did you mean --process second?"),
    (["--backbone.hidden_size=2.5"], "backbone.hidden_size is 2.5; expected int"),
    (["--train.decay=cos"], "train.decay is cos; expected constant, cosine, linear or wsd"),
    (["--train.steps"], "--train.steps needs a value"),
    (["--seed", "x"], "seed is x; expected int"),
    (["--backbone.num_states=3"], "backbone.num_states is computed from the other parts"),
    (["--process.vocab_size=3"], "process.vocab_size is computed from the other parts"),
    (["--backbone.hidden_size=9"], "backbone narrow: hidden_size 9 is not a multiple of num_heads"),
    (["--backbone=wide"], "missing: --backbone.depth"),
    (["--train.learning_rate=.inf"], "train.learning_rate is .inf; it must be a finite number"),
    (["--backbone.slope", "-.inf"], "backbone.slope is -.inf; it must be a finite number"),
    (["--train.steps=1:30"], "train.steps is 1:30; expected int"),
    (["--train.steps=--"], "--train.steps is --, which no option takes"),
    (["--train.steps=" + "9" * 5000], "train.steps: a number of 5000 digits is too large"),
    (["--train.precision=!!int ''"], "the value of --train.precision: line 1: '' is no int"),
    (["--train.steps=0x10"], "train.steps is 0x10; expected int"),
    (["--data.document_masks=yes"], "data.document_masks is yes; expected bool"),
    (["--train.compile=yes"], 'train.compile is "yes"; expected bool or null'),
    ([f"--seed={'9' * 40}"], "the largest whole number is 9223372036854775807"),
    (["--schedule=named"], "has a parameter called name, which is reserved"),
    (["--process=careless"], "process careless (file "),
    (["--config=nowhere.yaml"], "config file nowhere.yaml cannot be read: No such file"),
]


@pytest.mark.parametrize(("argv", "message"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_on_the_command_line_is_one_clear_line(
    run: Composer, argv: Sequence[str], message: str
) -> None:
    assert message in run.error("--process=first", *argv)


FILES = [
    ("proces: first", "x.yaml: unknown section 'proces'; did you mean process?"),
    ("process: frist", "unknown process 'frist'; did you mean first?"),
    ("process: 3", "x.yaml: process is 3; it must hold options by name"),
    ("process: {name: 3}", "x.yaml: process is 3; it must be the name of a part"),
    ("train: {stpes: 3}", "x.yaml: unknown option train.stpes; did you mean train.steps?"),
    ("train: {steps: x}", "x.yaml: train.steps is x; expected int"),
    ("train: [3]", "x.yaml: train is [3]; it must hold options by name"),
    ("backbone: {rotation: 3}", "x.yaml: backbone.rotation is 3; it must hold options by name"),
    ("backbone: {num_states: 3}", "x.yaml: backbone.num_states is computed"),
    ("output: there", "x.yaml: unknown section 'output'; known: process, schedule"),
    ("train: {steps: [", "config file x.yaml is not YAML: line "),
    ("- a\n- b", "config file x.yaml holds no sections"),
]


@pytest.mark.parametrize(("content", "message"), FILES, ids=[f[0] for f in FILES])
def test_a_mistake_in_a_config_file_names_the_file(
    run: Composer, content: str, message: str
) -> None:
    argv = [] if "process" in content else ["--process=first"]
    assert message in run.error(*argv, "--config", run.file(content))


VARIABLES = [
    ("PLATFORM_BACKBONE__HIDEN_SIZE", "unknown option backbone.hiden_size of backbone narrow; did"),
    ("PLATFORM_BACKBON__HIDDEN_SIZE", "unknown section 'backbon'; did you mean backbone?"),
    ("PLATFORM_TRAIN__STEPS", "train.steps is x; expected int"),
    ("PLATFORM_PROCES", "did you mean PLATFORM_PROCESS?"),
    ("PLATFORM_DISABLE_PLUGIN", "did you mean PLATFORM_DISABLE_PLUGINS?"),
]


@pytest.mark.parametrize(("variable", "message"), VARIABLES)
def test_a_misspelt_variable_is_an_error_that_names_it(
    run: Composer, variable: str, message: str
) -> None:
    error = run.error("--process=first", environ={variable: "x"})
    assert variable in error
    assert message in error


def test_parts_that_do_not_go_together_are_refused_with_what_would(run: Composer) -> None:
    with pytest.raises(IncompatibleError) as error:
        run("--process=first", "--objective=only-uniform")
    message = str(error.value)
    start = "objective only-uniform needs a uniform process, but process is first; choose process "
    assert message.startswith(start)
    assert message.endswith("second or uniform, or another objective")
    assert "absorbing" not in message


def test_a_saved_config_follows_another_process(
    run: Composer, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = str(run.saved("--process=first", "--process.time_conditioned=true", "--seed=3"))
    composition = run("--config", saved, "--process", "second")
    assert composition.names["objective"] == "only-uniform"
    assert options(composition, "sampler")["steps"] == 3
    assert composition.seed == 3
    notes = capsys.readouterr().err.replace(saved, "FILE").splitlines()
    assert notes == [
        "note: objective is only-uniform, the default of process second; FILE had nelbo, the "
        "default of first",
        "note: sampler.steps follows process second; FILE had 7, the default of first",
        "note: process is second, so options of first in FILE were left out: "
        "process.time_conditioned",
        "note: objective is only-uniform, so options of nelbo in FILE were left out: "
        "objective.t_min",
    ]


def test_a_saved_config_keeps_what_was_not_a_default_of_its_process(run: Composer) -> None:
    saved = run.saved("--process=first", "--sampler=ancestral", "--sampler.steps=5")
    composition = run("--config", str(saved), "--process", "second")
    assert composition.names["sampler"] == "ancestral"
    assert options(composition, "sampler")["steps"] == 5


def test_options_in_a_file_for_a_part_that_was_replaced_are_left_out(
    run: Composer, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run.file("process: first\nsampler: {steps: 9}\n")
    composition = run("--config", file, "--sampler", "ancestral")
    assert options(composition, "sampler")["steps"] == 128
    assert "sampler is ancestral, so options of quick in" in capsys.readouterr().err


def test_options_in_a_file_without_names_are_for_whatever_is_chosen(run: Composer) -> None:
    composition = run("--config", run.file("sampler: {steps: 9}"), "--process", "first")
    assert options(composition, "sampler")["steps"] == 9


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--process", "second"], "trained with process first, not process second"),
        (["--backbone", "wide"], "trained with backbone narrow, not backbone wide"),
        (["--objective", "only-uniform"], "trained with objective nelbo, not objective"),
        (["--backbone.hidden_size=16"], "trained with backbone.hidden_size 8, not 16"),
        (["--schedule.eps=0.1"], "trained with schedule.eps 0.001, not 0.1"),
    ],
)
def test_a_trained_network_keeps_its_parts(
    run: Composer, plugins: Plugins, argv: Sequence[str], said: str
) -> None:
    saved = run.saved("--process=first")
    with pytest.raises(UsageError, match=said):
        compose_saved(saved, argv, plugins, prog="platform eval", environ={})


def test_a_trained_network_is_sampled_and_evaluated_in_any_way(
    run: Composer, plugins: Plugins
) -> None:
    saved = run.saved("--process=first")
    argv = ["--sampler=ancestral", "--sampler.steps=2", "--objective.t_min=0.1", "--data.length=9"]
    argv += ["--backbone.hidden_size=8", "--evaluate.split=test", "--sample.number=1"]
    composition, _ = compose_saved(saved, argv, plugins, prog="platform eval", environ={})
    assert composition.names["sampler"] == "ancestral"
    assert options(composition, "objective")["t_min"] == 0.1
    assert composition.evaluate.split == "test"


def test_help_shows_every_option_of_the_chosen_parts_with_its_origin(
    run: Composer, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run("--process", "first", "--help")
    assert exit_.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    core = f"dlm-platform-core {run.plugins.get('schedule', 'cosine').plugin.version}"
    for shown in (
        f"process = first [file {STUBS}; the command line]",
        f"backbone = narrow [file {STUBS}; default of first]",
        f"schedule = log-linear [{core}; default]",
        "--process NAME one of absorbing, ",
        "--backbone.hidden_size HIDDEN_SIZE features of a position. (whole number, default: 8)",
        "--backbone.rotation.base BASE slowest of the angles, 50% of it.",
        "--sampler.steps STEPS a few. (whole number, default: 7)",
        "--train.learning_rate",
        "--config FILE",
        "--print_config",
    ):
        assert shown in text
    assert "num_states" not in text
    assert "vocab_size" not in text


def test_a_process_is_of_the_kind_that_its_option_names(run: Composer) -> None:
    from stub_parts import AbsorbingEither, UniformEither

    assert type(run("--process=either").build(5).model.process) is AbsorbingEither
    built = run("--process=either", "--process.states=uniform").build(5)
    assert type(built.model.process) is UniformEither
    assert built.model.process.num_states == 5


def test_what_an_option_decides_is_checked_by_its_value(run: Composer) -> None:
    assert run("--process=either", "--process.states=uniform", "--objective=only-uniform")
    assert run.error("--process=either", "--objective=only-uniform").startswith(
        "objective only-uniform needs a uniform process, but process is either with states "
        "absorbing; choose --process.states uniform, or process "
    )
    message = run.error("--process=first", "--objective=only-uniform")
    assert "but process is first; choose process " in message


def test_the_matrix_has_what_goes_with_some_value_of_an_option(plugins: Plugins) -> None:
    assert "only-uniform" in matrix(plugins, "process")["either"]["objective"]
    assert "either" in matrix(plugins, "objective")["only-uniform"]["process"]
    assert "first" not in matrix(plugins, "objective")["only-uniform"]["process"]


TEXTS = ["#include <x>", "# a", "null", "~", "yes", "1:30", "0100", "[1]", "{a: 1}", "- a", "é", ""]


@pytest.mark.parametrize("text", TEXTS)
def test_an_option_of_texts_takes_the_words_as_they_are(run: Composer, text: str) -> None:
    for words in ([f"--sample.prompt={text}"], ["--sample.prompt", text]):
        composition = run("--process=first", *words)
        assert composition.sample.prompt == text
        file = run.file(composition.config)
        assert run("--config", file).sample.prompt == text


@pytest.mark.parametrize("written", ["0100", "100", "+100"])
def test_numbers_are_decimal_in_files_and_words(run: Composer, written: str) -> None:
    file = run.file(f"train: {{steps: {written}}}")
    assert run("--process=first", "--config", file).train.steps == 100
    assert run("--process=first", f"--train.steps={written}").train.steps == 100


def test_a_key_of_a_config_file_is_given_once(run: Composer) -> None:
    file = run.file("seed: 1\ntrain: {steps: 1}\nseed: 2")
    assert "line 3: 'seed' is given twice" in run.error("--process=first", "--config", file)


def resume(saved: Path, plugins: Plugins, *argv: str) -> Composition:
    composition, _ = compose_saved(
        saved, argv, plugins, prog="platform run", environ={}, training=True
    )
    return composition


@pytest.mark.parametrize(
    "word",
    [
        "--train.steps=900",
        "--train.log_every=3",
        "--train.keep_checkpoints=7",
        "--evaluate.split=test",
        "--evaluate.weights=raw",
        "--sample.number=1",
        "--sampler=ancestral",
        "--sampler.steps=2",
        "--track.to=none",
        "--data.path=moved.txt",
    ],
)
def test_what_may_change_changes_when_a_run_is_resumed(
    run: Composer, plugins: Plugins, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = run.saved("--process=first", "--data.corpus=text", "--data.path=t.txt")
    assert resume(saved, plugins, word).config != saved.read_text()
    assert "no longer" not in capsys.readouterr().err


CHANGED = {
    **dict.fromkeys(("batch_size", "warmup_steps"), "64"),
    **dict.fromkeys(("weight_decay", "beta1", "beta2", "clip", "ema_decay"), "0.125"),
    "label_dropout": "0.125",
    **dict.fromkeys(("decay_floor", "decay_share", "eps"), "0.125"),
    "decay": "cosine",
    "optimizer": "muon",
}


@pytest.mark.parametrize(
    "word",
    [
        *(f"--train.{option}={value}" for option, value in CHANGED.items()),
        "--seed=9",
        "--data.length=9",
        "--data.corpus=json",
        "--data.marks=none",
        "--data.document_masks=true",
        "--objective.t_min=0.1",
    ],
)
def test_what_a_run_was_trained_with_is_refused_when_it_is_resumed(
    run: Composer, plugins: Plugins, word: str
) -> None:
    saved = run.saved("--process=first", "--data.corpus=text", "--data.path=t.txt")
    before = saved.read_text()
    with pytest.raises(UsageError, match="leave that out. What may change: train.steps, ") as error:
        resume(saved, plugins, word)
    assert "\n" not in str(error.value)
    assert saved.read_text() == before


def test_every_option_of_training_may_change_or_may_not() -> None:
    """A new one is refused until somebody has thought about it."""
    named = {key.removeprefix("train.") for key in (*MAY_CHANGE, *CHANGES_NUMBERS)}
    known = {field.name for field in fields(TrainOptions)}
    assert known - named == set(CHANGED)


@pytest.mark.parametrize("key", CHANGES_NUMBERS)
def test_what_changes_numbers_is_said(
    run: Composer, plugins: Plugins, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = run.saved("--process=first", "--train.precision=bf16")
    value = {"train.precision": "fp32", "train.compile": "true", "train.accumulate": "2"}
    resume(saved, plugins, f"--{key}={value.get(key, '0.125')}")
    assert f"note: {key} is " in capsys.readouterr().err


def test_a_part_that_is_gone_names_where_the_run_had_it_from(
    run: Composer, plugins: Plugins, tmp_path: Path
) -> None:
    saved = run.saved("--process=first")
    composition = run("--process=first")
    environment = {"plugins": composition.provenance()}
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    said = rf"unknown process 'first'; this run had it from -p {STUBS}: give -p {STUBS} again"
    for training in (False, True):
        with pytest.raises(UsageError, match=said):
            compose_saved(saved, [], find_plugins({}), prog="x", environ={}, training=training)
    (tmp_path / "environment.json").write_text("[")
    with pytest.raises(UsageError, match="unknown process 'first'"):
        compose_saved(saved, [], find_plugins({}), prog="x", environ={})


def test_a_part_around_another_is_made_with_its_default(run: Composer):
    sampler = run("--process=first", "--sampler=doubled").build(4).sampler
    assert (sampler.times, type(sampler.inner).__name__, sampler.inner.steps) == (2, "Quick", 3)


INSIDE = {
    "command line": ["--sampler=doubled", "--sampler.inner=ancestral", "--sampler.inner.steps=9"],
    "two words": [
        "--sampler",
        "doubled",
        "--sampler.inner",
        "ancestral",
        "--sampler.inner.steps=9",
    ],
    "file": "sampler: {name: doubled, inner: {steps: 9, name: ancestral}}",
    "flat": "sampler: {name: doubled, inner: ancestral, inner.steps: 9}",
}


@pytest.mark.parametrize("source", INSIDE)
def test_a_part_inside_is_chosen_like_any_other(run: Composer, source: str):
    given = INSIDE[source]
    words = given if isinstance(given, list) else [f"--config={run.file(given)}"]
    found = run("--process=first", *words)
    sampler = found.build(4).sampler
    assert (type(sampler.inner).__name__, sampler.inner.steps) == ("Ancestral", 9)
    again = run(f"--config={run.file(found.config)}")
    assert again.config == found.config
    assert yaml.safe_load(found.config)["sampler"]["inner"]["name"] == "ancestral"


def test_a_part_inside_is_chosen_by_the_environment(run: Composer):
    environ = {"PLATFORM_SAMPLER__INNER": "ancestral", "PLATFORM_SAMPLER__INNER__STEPS": "9"}
    sampler = run("--process=first", "--sampler=doubled", environ=environ).build(4).sampler
    assert (type(sampler.inner).__name__, sampler.inner.steps) == ("Ancestral", 9)


def test_options_say_what_is_inside(run: Composer):
    found = run("--process=first", "--sampler=doubled", "--sampler.inner=doubled")
    assert found.options("sampler") == {
        "times": 2,
        "inner": {
            "name": "doubled",
            "times": 2,
            "inner": {"name": "quick", "steps": 3, "top_p": 1.0},
        },
    }


def test_parts_stand_inside_of_each_other(run: Composer):
    words = ("--sampler=doubled", "--sampler.inner=doubled", "--sampler.inner.inner=ancestral")
    options = ("--sampler.times=3", "--sampler.inner.times=4", "--sampler.inner.inner.steps=5")
    found = run("--process=first", *words, *options)
    sampler = found.build(4).sampler
    assert (sampler.times, sampler.inner.times, sampler.inner.inner.steps) == (3, 4, 5)
    assert run(f"--config={run.file(found.config)}").config == found.config


def test_options_of_a_part_that_was_inside_are_left_out(run: Composer, capsys):
    file = run.file("sampler: {name: doubled, times: 3, inner: {name: quick, steps: 5}}")
    words = (f"--config={file}", "--sampler.inner=ancestral")
    sampler = run("--process=first", *words).build(4).sampler
    assert (sampler.times, sampler.inner.steps) == (3, 128)
    assert "sampler.inner is ancestral; left out of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sampler.inner=quik",), "unknown sampler 'quik'; did you mean quick?"),
        (("--sampler.inner.stpes=3",), "unknown option sampler.inner.stpes"),
        (("--sampler.inner.steps=x",), "sampler.inner.steps is x; expected int"),
        (("--sampler.inner.steps=0",), "sampler quick: steps is 0"),
        (("--sampler.times=1",), "sampler doubled: times is 1"),
        (("--sampler.inner",), "--sampler.inner needs a value"),
        (("--sampler.inner", "--sampler.times=2"), "--sampler.inner needs a value"),
        (("--sampler.inner=doubled", "--sampler.inner.inner.inner=quick"), "unknown option"),
        (("--sampler=quick", "--sampler.inner=quick"), "unknown option sampler.inner"),
    ],
)
def test_mistakes_inside_are_named(run: Composer, words: tuple[str, ...], said: str):
    assert said in run.error("--process=first", "--sampler=doubled", *words)


def test_parts_do_not_stand_inside_of_each_other_for_ever(run: Composer):
    words = [f"--sampler{'.inner' * number}=doubled" for number in range(9)]
    assert "inside of 4 others" in run.error("--process=first", *words)
