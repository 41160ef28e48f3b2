"""What `platform check` offers to authors: options of parts, and laws that parts do not claim."""

import pytest

from platform_core.cli import main
from platform_core.cli.check import verdict_on
from platform_core.errors import UsageError
from platform_core.registry.loading import find_plugins
from platform_core.testing.check import cases, named
from platform_core.testing.given import given

PLUGINS = find_plugins({"PLATFORM_PLUGINS": "author_parts,platform_core.testing.stubs"})


def verdicts(part: str, *laws: str, options: tuple[str, ...] = ()):
    parts = named([part], PLUGINS)
    found = cases(parts, PLUGINS, given(options, parts, PLUGINS))
    return {case.law.id: (case, case.verdict()) for case in found if case.law.id in laws}


def test_an_option_of_the_part_reaches_every_law_that_makes_it():
    laws = ("corrupt-draws", "signal", "config-round-trip")
    without = verdicts("process:blocks", *laws)
    assert without["corrupt-draws"][1].outcome == "broken"
    assert "2 tokens are no blocks of 4" in without["corrupt-draws"][1].says
    with_option = verdicts("process:blocks", *laws, options=("--process.block_size=1",))
    assert {verdict.outcome for _, verdict in with_option.values()} == {"passed"}


def test_an_option_reaches_a_part_that_is_only_a_partner():
    parts = named(["author_parts"], PLUGINS)
    found = given(["--process.block_size=1"], parts, PLUGINS)
    assert found == {("process", "blocks"): {"block_size": 1}}
    subject = next(iter(cases(named(["greedy"], PLUGINS), PLUGINS, found))).subject
    from platform_core.testing.partners import candidates

    (blocks,) = [it for it in candidates(subject, "process") if it.name == "blocks"]
    assert blocks.make(vocab_size=3).block_size == 1


def test_an_option_that_selects_a_form_leaves_only_that_form():
    parts = named(["process:d3pm"], PLUGINS)
    found = cases(parts, PLUGINS, given(["--process.states=uniform"], parts, PLUGINS))
    assert {case.subject.form for case in found} == {"states uniform"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--process.block_sise", "1"], "did you mean"),
        (["--process.block_size", "one"], "process.block_size is one; expected"),
        (["--process.vocab_size", "9"], "computed from the other parts"),
        (["--process.block_size"], "needs a value"),
        (["--backbone.hidden_size", "1"], "no backbone is among the parts to check"),
        (["--data.length", "1"], "unrecognized arguments: --data.length"),
    ],
)
def test_an_option_that_no_part_has_is_refused(words, message, capsys):
    loaded = ["-p", "author_parts", "-p", "platform_core.testing.stubs"]
    assert main([*loaded, "check", "process:blocks", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_law_that_is_not_claimed_is_not_broken():
    found = verdicts("greedy", "same-seed-same-sample", "keeps-the-prompt", "unclaimed-laws")
    assert found["keeps-the-prompt"][1].outcome == "passed"
    assert found["unclaimed-laws"][1].outcome == "passed"
    case, verdict = found["same-seed-same-sample"]
    assert verdict.outcome == "unclaimed"
    assert verdict.says.startswith("no draw is random; with ")
    said = verdict_on([(case, verdict)], verbose=False)
    assert ": 0 passed, 0 broken, 1 not claimed, 0 not applicable" in said
    assert "\n  not claimed same-seed-same-sample: no draw is random; " in said


def test_a_law_that_is_not_claimed_but_holds_is_said():
    found = verdicts("modest", "keeps-the-prompt", "same-seed-same-sample")
    case, verdict = found["keeps-the-prompt"]
    assert verdict.outcome == "passed"
    assert verdict.says.startswith("it is not claimed, but it holds")
    said = verdict_on([(case, verdict)], verbose=False)
    assert "\n  not claimed, but holds: keeps-the-prompt" in said
    assert found["same-seed-same-sample"][1].outcome == "broken", "this one it does claim"


def test_options_of_a_role_without_parts_are_refused_before_laws_are_tested():
    with pytest.raises(UsageError, match="no schedule is among the parts"):
        given(["--schedule.eps=1"], named(["greedy"], PLUGINS), PLUGINS)
