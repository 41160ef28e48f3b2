"""Words that people bring from other programs get the right answer, not the nearest spelling."""

import pytest

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


def test_names_of_other_programs_are_known():
    for name, here in OTHER_NAMES.items():
        said = answer(f"--{name.replace('_', '-')}=1")
        assert said.endswith(f"it is --{here} here"), said


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
