"""Words that people bring from other programs get the right answer, not the nearest spelling."""

import argparse
import re

import pytest

from platform_core.cli import main, run, verbs
from platform_core.composition.compose import compose
from platform_core.composition.words import ADVICE, OTHER_NAMES
from platform_core.errors import UsageError
from platform_core.registry import parts
from platform_core.registry.loading import find_plugins

PLUGINS = find_plugins({})


def answer(*words: str) -> str:
    with pytest.raises(UsageError) as refused:
        compose(["--process", "mdlm", *words], PLUGINS, prog="platform run", environ={}, extend=own)
    return str(refused.value)


def own(parser) -> None:
    parser.add_argument("--output")
    parser.add_argument("--resume")


@pytest.mark.slow
def test_names_of_other_programs_are_known():
    for name, here in OTHER_NAMES.items():
        said = answer(f"--{name.replace('_', '-')}=1")
        assert said.endswith(f"it is --{here} here"), said


@pytest.mark.slow
def test_what_is_no_option_gets_advice():
    for name, advice in ADVICE.items():
        assert answer(f"--{name}=1").endswith(advice)
    assert answer("--train.device=cuda").endswith(ADVICE["device"])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--steps=1", "did you mean --sampler.steps or --train.steps?"),
        ("--batch-size=1", "--evaluate.batch_size, --sample.batch_size or --train.batch_size?"),
        ("--prompt=a", "did you mean --sample.prompt?"),
        ("--train.lr=1", "it is --train.learning_rate here"),
        ("--Data.corpus=text", "did you mean"),
        ("--process=MDLM", "did you mean mdlm?"),
        ("--process=masked", "did you mean mdlm or absorbing?"),
    ],
)
def test_the_last_word_of_an_option_is_enough_to_find_it(word, said):
    assert said in answer(word)


def test_other_names_of_parts_are_names_of_parts_here():
    known = {name for role in parts.ROLES for name in PLUGINS.names(role)}
    for other, here in parts.OTHER_NAMES.items():
        assert set(here) & known, other
        assert other not in known


def page(capsys, *words: str) -> str:
    try:
        code = main([*words, "--help"])
    except SystemExit as ended:
        code = ended.code
    assert code == 0
    return capsys.readouterr().out


def test_the_help_of_run_begins_with_what_matters_and_says_types_in_words(capsys):
    said = page(capsys, "run")
    first, _, rest = said.partition("All options follow")
    for option in ("--process", "--backbone", "--data.path", "--train.steps", "--output"):
        assert f"  {option} " in first
        assert f"  {option} " in rest
    for code in ("Literal", "type:", "null", "Optional", "<class"):
        assert code not in said
    assert "(whole number, default: 800)" in said


@pytest.mark.slow
def test_every_option_that_is_shown_first_exists():
    parser = argparse.ArgumentParser()
    run.arguments(parser)
    own = {action.option_strings[0] for action in parser._actions} | {"--init"}
    for option in (line.split()[0] for line in run.PAGE.first):
        if option in own:
            continue
        section, _, key = option.removeprefix("--").partition(".")
        config = compose([], PLUGINS, prog="x", environ={})[0].config
        assert re.search(rf"^{section}:$(\n  .*)*\n  {key or 'name'}:", config, re.MULTILINE)


def test_defaults_are_those_that_will_be_used(capsys, tmp_path):
    file = tmp_path / "f.yaml"
    file.write_text("train: {steps: 123}\nsample: {prompt: I am here}\n")
    said = page(capsys, "run", f"--config={file}")
    assert "(whole number, default: 123)" in said
    assert "default: I am here)" in " ".join(said.split())


def test_a_verb_of_a_run_shows_what_has_an_effect(capsys, tmp_path):
    composition, _ = compose(["--process=mdlm", "--sampler.steps=77"], PLUGINS, prog="x")
    (tmp_path / "config.yaml").write_text(composition.config)
    said = page(capsys, "sample", str(tmp_path))
    assert "default: 77)" in said
    assert "--sample.prompt" in said
    for other in ("--train.steps", "--data.path", "--schedule", "--track.to", "--evaluate."):
        assert other not in said
    assert "--evaluate.draws" in page(capsys, "eval", str(tmp_path))


def test_every_verb_helps(capsys):
    for verb in verbs():
        said = page(capsys, verb) if verb not in ("eval", "sample") else ""
        assert verb in ("eval", "sample") or "usage: platform" in said, verb
        if not said:
            assert main([verb, "--help"]) == 0
