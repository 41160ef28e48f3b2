"""Laws notice what is wrong: every part of `wrong_parts` breaks the law that is about its fault."""

import json
import os
import re
import subprocess
import sys

import pytest

from platform_core.cli import main
from platform_core.cli.check import total, verdict_on
from platform_core.errors import UsageError
from platform_core.registry.loading import find_plugins
from platform_core.testing.check import Case, Verdict, cases, named

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
PLUGINS = find_plugins({"PLATFORM_PLUGINS": "wrong_parts"})

QUICK = [
    ("schedule:wrong-slope", "slope", "slope is .* and should be"),
    ("schedule:wrong-inverse", "inverse", r"inverse\(alpha\(t\)\) is"),
    ("schedule:stops-half-way", "ends", r"alpha\(1\) = 0.5"),
    ("schedule:rises", "falls", "alpha rises by"),
    ("schedule:below-zero", "range", "from -0.04 to 1"),
    ("schedule:narrow", "shapes-and-dtypes", "torch.float32"),
    ("schedule:of-the-batch", "elementwise", "alpha is"),
    ("schedule:untyped-option", "typed-options", "eps has no type"),
    ("schedule:required-option", "typed-options", "eps has no default"),
    ("schedule:named-name", "typed-options", "reserved"),
    ("schedule:unexplained", "documented", "no line under Args for curve"),
    ("process:never-clean", "clean-at-one", "is 0.9.* and should be 1"),
    ("process:unnormalised", "rows-normalise", "a sum at .* is 0.9 and should be 1"),
    ("process:forgets-the-evidence", "bayes", r"q\(x_t \| x_s\)"),
    ("process:forgets-the-evidence", "marginals-compose", "is .* and should be"),
    ("process:overconfident", "bayes-of-a-law", "should be"),
    ("process:wrong-reverse", "reverse-is-posterior", "should be"),
    ("process:always-another", "corrupt-draws", "p = 0.0e.* for "),
    ("process:all-at-once", "corrupt-draws", "pairs at alpha"),
    ("process:squared", "signal", "is 0.7225 and should be 0.85"),
    ("process:score-of-another", "score-of-itself", "log_score at x_t"),
    ("process:wrong-rate", "rate-of-jumps", "the rate at alpha"),
    ("process:wrong-noise", "noise-is-what-is-not-kept", "noise is .* and should be"),
    ("process:forgets-what-was-there", "noise-is-what-is-not-kept", "added is .* and should be"),
    ("process:drifts-another-way", "rate-of-jumps", "the rate at alpha"),
    ("process:stale-noise", "corrupt-draws", "pairs at alpha"),
    ("process:from-anywhere", "rate-of-jumps", "the rate at alpha"),
    ("process:whole-way", "bayes", r"q\(x_t \| x_s\)"),
    ("process:one-level", "levels-of-positions", "log_score at position 0 is|at position 1 is"),
    ("process:noise-of-another", "log-noised", "log_noised at alpha"),
    ("process:unmoved", "trains-its-weights", "is not the loss's; with"),
    ("schedule:held-back", "trains-its-weights", "is not the loss's; with"),
    ("process:odd-prior", "prior-draws", "p = 0.0e"),
    ("process:everything-changes", "changeable", r"true for \[0, 1, 2, 3\], should be for \[3\]"),
    ("process:hasty-draw", "reverse-draws", "from state"),
    ("process:global-noise", "draws-by-seed", "other tokens from the same generator"),
    ("parameterization:logits", "rows-normalise", "a sum with absorbing"),
    ("parameterization:mask-too", "nothing-on-the-mask", "is 1 and should be 0"),
    ("parameterization:carries-another", "carries-over", "is 0 and should be 1"),
    ("parameterization:shifted", "score-of-itself", "is 1 and should be 0"),
    ("parameterization:sharpened", "exact-when-the-network-is", "the score is off by"),
    ("parameterization:half-precision", "float32-at-least", "for torch.bfloat16 it is"),
    ("parameterization:in-place", "float32-at-least", "the logits were changed"),
    ("parameterization:no-gradient", "finite-gradients", "all gradients are 0"),
    ("parameterization:predicts-masks", "most-likely-is-a-token", "0 to 4 of 4|4 to 4 of 4"),
    ("parameterization:greedy-step", "reverse-draws", "from state"),
    ("objective:half-the-bound", "equals-nelbo", "the loss of a row"),
    ("objective:negative", "row-loss-is-no-less-than-zero", "a value is -"),
    ("objective:counts-padding", "per-token", "a token that does not count has"),
    ("objective:own-noise", "same-draws-same-loss", "equal draws give another loss"),
    ("objective:noise-of-the-batch", "parts-add-up", "forward in parts with absorbing"),
    ("objective:untold", "tells-the-network", "is not told the labels of the batch"),
    ("objective:noises-prompts", "leaves-given-tokens-clean", "reads noise in place of a token"),
    ("objective:detached", "gradients", "all gradients are 0"),
    ("sampler:global-seed", "same-seed-same-sample", "one generator, two samples"),
    ("sampler:remembers", "same-seed-same-sample", "one generator, two samples"),
    ("sampler:ignores-prompts", "keeps-the-prompt", "given tokens are changed"),
    ("sampler:miscounts", "counts-evaluations", "nfe 5, 6 calls"),
    ("sampler:leaves-masks", "tokens-of-the-vocabulary", "0 to 5"),
    ("sampler:incomplete", "complete", "lacks __call__"),
    ("sampler:requires-another-role", "requires-classes", "LogLinear is not a Process"),
    (
        "sampler:claims-less",
        "unclaimed-laws",
        "not a law of a sampler; did you mean draws-the-data",
    ),
    ("backbone:unused-weight", "gradients-everywhere", "no gradient reaches unused"),
    ("backbone:looks-ahead", "causal-does-not-look-ahead", "token 1 changes those before it"),
    ("backbone:blinkered", "sees-the-whole-text", "first position does not see the last"),
    ("backbone:double-logits", "shape-and-dtype", "torch.float64 .*weights are torch.float32"),
    ("backbone:another-forward", "decoder-by-rows", "rows differ by"),
    ("backbone:soft-as-half", "soft-inputs", "dense: logits differ by"),
    ("backbone:forgetful", "state-dict-round-trip", "logits differ"),
    ("backbone:deaf", "reads-the-noise-level", "the same at every noise level"),
    ("backbone:misses-one", "reader-reads-the-same", "features differ by"),
    ("backbone:unlabelled", "labels-are-read", "the same under label 0 and label 1"),
    ("backbone:none-is-the-first", "labels-are-read", "the same under label 0 and no label"),
    ("backbone:sees-all", "hidden-tokens-change-nothing", "is seen where the rule hides it"),
    ("backbone:sees-all", "documents-are-kept-apart", "tokens 0 to 1 differ"),
    ("backbone:places-of-the-call", "positions-are-those-of-the-text", "features differ by"),
    ("backbone:cannot-forget", "pieces-see-the-pieces-before", "looking and reading differ"),
    ("backbone:mixes-texts", "same-input-same-output", "alone it differs"),
    ("backbone:restless", "same-input-same-output", "the second time differs"),
]

SLOW = [
    ("schedule:refuses-itself", "config-round-trip", "eps is 2"),
    ("process:homeless", "defaults-go-together", "unknown sampler 'nowhere'"),
    ("schedule:wrong-slope", "registers-lightly", "imports torch"),
    ("objective:half-the-bound", "never-below", "for at least"),
    ("objective:half-the-bound", "tight-for-each-text", "a bound with absorbing"),
    ("objective:too-high", "tight", "nats for"),
    ("sampler:biased", "draws-the-data", "total variation 0.0[2-9]"),
    ("sampler:twins", "texts-are-independent", "of the pairs are equal"),
    ("sampler:pastes-prompts", "conditions-on-a-prompt", "total variation"),
]


def case(part: str, law: str) -> Case:
    found = [case for case in cases(named([part], PLUGINS), PLUGINS) if case.law.id == law]
    assert len(found) == 1
    return found[0]


def require_noticed(part: str, law: str, figures: str) -> None:
    verdict = case(part, law).verdict()
    assert verdict.outcome == "broken", verdict
    assert re.search(figures, verdict.says), verdict.says


def each(broken: list[tuple[str, str, str]]):
    """A test for each fault."""
    ids = [f"{part}-{law}" for part, law, _ in broken]
    return pytest.mark.parametrize(("part", "law", "figures"), broken, ids=ids)


@each(QUICK)
def test_a_wrong_part_breaks_the_law_of_its_fault(part: str, law: str, figures: str):
    require_noticed(part, law, figures)


@pytest.mark.slow
@each(SLOW)
def test_a_wrong_part_breaks_the_slower_law_of_its_fault(part: str, law: str, figures: str):
    require_noticed(part, law, figures)


def test_every_wrong_part_is_noticed_and_the_right_one_keeps_the_laws():
    parts = {f"{part.role}:{part.component.name}" for part in named(["wrong_parts"], PLUGINS)}
    assert {part for part, _, _ in (*QUICK, *SLOW)} == parts - {"backbone:network"}
    of_network = cases(named(["backbone:network"], PLUGINS), PLUGINS)
    verdicts = {case.law.id: case.verdict() for case in of_network if case.law.role}
    assert not [law for law, verdict in verdicts.items() if verdict.outcome == "broken"]


def test_every_law_can_be_broken():
    found = cases(list(PLUGINS.parts()), PLUGINS)
    laws = {case.law.id for case in found}
    assert {law for _, law, _ in (*QUICK, *SLOW)} == laws


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["process:duo"], {"process:duo"}),
        (["gaussian"], {"schedule:gaussian"}),
        (["next-token"], {"parameterization:next-token", "objective:next-token"}),
        (["sedd", "dit"], {"process:sedd", "schedule:geometric", "parameterization:score"}),
        (["dlm_platform_dit"], {"backbone:dit"}),
    ],
)
def test_a_name_is_a_plugin_s_a_distribution_s_or_a_part_s(names: list[str], expected: set[str]):
    found = {f"{part.role}:{part.component.name}" for part in named(names, PLUGINS)}
    assert expected <= found
    assert len(found) == len(named(names, PLUGINS))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dou", "nothing called 'dou' is installed; did you mean duo?"),
        ("process:dou", "did you mean duo?"),
        ("proces:duo", "'proces' is not a role"),
        ("zzz", "platform plugins lists all parts"),
    ],
)
def test_an_unknown_name_is_refused(name: str, message: str):
    with pytest.raises(UsageError) as refused:
        named([name], PLUGINS)
    assert message in str(refused.value)


def judged(part: str) -> list[tuple[Case, Verdict]]:
    """The verdicts of the quick laws."""
    found = cases(named([part], PLUGINS), PLUGINS)
    return [(case, case.verdict()) for case in found if not case.law.heavy]


def test_the_verdict_is_for_a_reader():
    slope, shifted = judged("schedule:wrong-slope"), judged("parameterization:shifted")
    said = verdict_on(slope, verbose=False)
    assert said.startswith("schedule:wrong-slope  (module wrong_parts): 10 passed, 1 BROKEN, 0 not")
    assert re.search(r"\n  BROKEN slope: slope is the derivative of alpha\.\n +slope is -", said)
    assert said.count("\n") == 2
    said = verdict_on(shifted, verbose=False)
    assert "\n  not applicable (it is not a MaskFree): nothing-on-the-mask" in said
    assert re.search(r"^2 parts: \d+ passed, \d BROKEN, 1 not applicable, ", total(slope + shifted))
    assert "passed         slope: " not in verdict_on(slope, verbose=True)
    assert "passed         inverse: " in verdict_on(slope, verbose=True)


@pytest.mark.slow
def test_a_broken_law_is_code_1(capsys):
    assert main(["-p", "wrong_parts", "check", "schedule:wrong-slope"]) == 1
    assert "2 BROKEN" in capsys.readouterr().out, "and it registers heavily"


def test_what_holds_is_code_0_and_programs_can_read_it(capsys):
    assert main(["check", "schedule:cosine", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["broken"] == 0
    assert found["counts"]["passed"] == len(found["verdicts"])
    (slope,) = [verdict for verdict in found["verdicts"] if verdict["law"] == "slope"]
    assert slope["says"] == "slope is the derivative of alpha."
    assert slope["figures"].startswith("largest difference")


@pytest.mark.parametrize("words", [[], ["duo", "--role", "backbone"], ["dou"]])
def test_a_request_for_nothing_is_refused(words: list[str], capsys):
    assert main(["check", *words]) == 2
    assert capsys.readouterr().err.startswith("platform check: error: ")


MINE = """
from platform_core.testing import ContractTests

class TestMine(ContractTests):
    plugin = "{name}"
    heavy = False
"""


@pytest.mark.slow
def test_an_author_s_test_file_is_a_class_of_one_line(tmp_path):
    (tmp_path / "test_mine.py").write_text(MINE.format(name="schedule:cosine"))
    (tmp_path / "test_wrong.py").write_text(MINE.format(name="schedule:wrong-slope"))
    words = ["-q", "-rA", "--import-mode=importlib", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        env={**ENVIRONMENT, "PLATFORM_PLUGINS": "wrong_parts"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "PASSED test_mine.py::TestMine::test_law[schedule:cosine-slope]" in done.stdout
    assert "FAILED test_wrong.py::TestMine::test_law[schedule:wrong-slope-slope]" in done.stdout
    assert "LawBroken: slope is -" in done.stdout
    assert re.search(r"1 failed, \d+ passed", done.stdout)
