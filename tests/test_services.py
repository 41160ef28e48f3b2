"""Laws of services: every one can be broken, and the platform's own services keep them."""

import pytest

from platform_core.component import ROLES, SERVICES
from platform_core.registry.loading import find_plugins
from platform_core.testing.check import cases, named

PLUGINS = find_plugins({"PLATFORM_PLUGINS": "wrong_services"})
WRONG = {
    ("command:silent", "helps"): "--help prints no usage",
    ("command:greedy", "refuses-unknown-options"): "no UsageError was raised; it ended with 0",
    ("command:mute", "has-a-summary"): "its summary is ''",
    ("evaluation:always", "own-words-parse"): "it is asked for without any of its options",
    ("evaluation:reads-nonsense", "reads-what-there-is"): "it reads evalaute.split",
    ("corpus:shuffled", "same-documents-each-time"): "the texts of train change",
    ("corpus:restless", "fingerprint-stays"): "and then 0.",
    ("corpus:takes-any-path", "refuses-what-it-does-not-read"): "without an error",
    ("tokenizer:loses-spaces", "text-comes-back"): "comes back as",
    ("tokenizer:ends-in-text", "marks-are-no-text"): "marks count as characters",
    ("tokenizer:forgets", "json-round-trip"): "is encoded differently afterwards",
    ("launcher:endless", "ends-without-tasks"): "poll returns True without trials",
    ("callback:needs-an-option", "options-have-defaults"): "extra have no type or no default",
    ("callback:forgetful", "goes-on-from-its-state"): "it decides differently",
    ("optimizer:standing", "lowers-a-loss"): "the loss is",
    ("optimizer:own-rate", "follows-the-learning-rate"): "moved at learning rate 0",
    ("optimizer:counts-itself", "resumes-exactly"): "the weights differ",
    ("reward:untyped", "options-have-types"): "weight have no type",
    ("reward:ranked", "values-each-text"): "the value of a text depends on the others",
    ("reward:ranked", "values-each-state"): "its gains are (30, ",
    ("callback:absent", "complete"): "has no attribute 'Absent'",
    ("callback:forgetful", "registers-lightly"): "imports torch",
}
"""Component and law -> what is said of it."""


def verdict(name: str, law: str):
    (case,) = (c for c in cases(named([name], PLUGINS), PLUGINS) if c.law.id == law)
    return case.verdict()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "law"), WRONG)
def test_a_wrong_service_breaks_the_law_of_its_fault(name, law):
    found = verdict(name, law)
    assert found.outcome == "broken"
    assert WRONG[name, law] in found.says


def test_every_law_of_services_can_be_broken():
    services = list(PLUGINS.parts(SERVICES))
    laws = {case.law.id for case in cases(services, PLUGINS)}
    assert {law for _, law in WRONG} == laws


OWN = [
    case
    for case in cases(list(find_plugins({}).parts(SERVICES)), find_plugins({}))
    if not case.law.heavy and not (case.subject.role == "corpus" and case.subject.name == "sotu")
]


@pytest.mark.parametrize("case", OWN, ids=lambda case: f"{case.subject}-{case.law.id}")
def test_our_services_keep_the_laws(case):
    found = case.verdict()
    assert found.outcome != "broken", found.says


def test_parts_and_services_are_kept_apart():
    assert not set(ROLES) & set(SERVICES)
    assert {part.role for part in PLUGINS.parts()} <= set(ROLES)
