"""Which queries the dashboard passes on to Aim."""

import pytest

from platform_aim.queries import QueryError, check


@pytest.mark.parametrize(
    "query",
    [
        "",
        " ",
        'run.process.name == "duo" and run.train.learning_rate < 1e-2',
        '((metric.name == "loss" and metric.context.subset == "train"))',
        'run.hash in ["0123", "4567"] and run.sweep not in ("noise", None)',
        "datetime(2026, 1, 2) <= run.created_at < datetime(2026, 1, 3) and run.active == True",
        "run.created_at > datetime(2026, 1, 31) - timedelta(days=7)",
        'run.metrics["loss", {"subset": "train"}].last < 3',
        'run["train", "seed"] is None or not run.archived',
        'run.name.lower().startswith("my") and len(run.tags) > 0',
        "-run.seed + 3 * 2 // 4 % 5 >= abs(run.seed)",
        'run.name == "a"\n    and run.seed == 1',
    ],
)
def test_conditions_are_passed(query: str) -> None:
    check(query)


PWNED = "__import__('os').system('touch pwned')"
PROGRAMS = [
    f"(lambda: {PWNED})()",
    PWNED,
    f"{PWNED} == 0",
    f"select anything if {PWNED}",
    f'run.name == "a" or [{PWNED} for _ in "a"]',
    f'f"{{{PWNED}}}"',
    f"(found := {PWNED})",
    f"run.name if {PWNED} else 1",
    f'run["name", {PWNED}]',
    f"len(run.name, **{PWNED})",
    "string.Formatter().get_field('a.__class__', [run])",
    "run.__class__.__mro__",
    "run.name.format(run)",
    "run.name.startswith.__self__",
    "run.run.repo.delete_run(run.hash)",
    "metric.run.db",
    "run.train.set('seed', 1)",
    "run['delete']()",
    "print",
    "len",
    "9**9**9",
    '{**run, "a": 1}',
    "run.name.startswith(x=1)",
    "*run, 1",
    "1) or (2",
    "run.name ==",
    "a\0b",
    "not " * 5000 + "1",
]


@pytest.mark.parametrize("query", PROGRAMS, ids=range(len(PROGRAMS)))
def test_programs_are_refused_in_one_line(query: str) -> None:
    with pytest.raises(QueryError) as raised:
        check(query)
    assert str(raised.value).count("\n") == 0
    assert raised.value.line == 1


def test_a_refusal_says_what_is_refused_where_and_what_is_not() -> None:
    with pytest.raises(QueryError, match=r"^open is not known here, only abs, .*timedelta; ") as at:
        check('run.name == open("a")')
    # As Aim counts, in brackets: (run.name == open("a"))
    assert at.value.offset == len("(run.name == o")
