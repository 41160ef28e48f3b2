"""`platform eval` by the evaluations of plugins: the options that each reads."""

import pytest

from platform_core.cli import main
from platform_core.cli.eval import installed_evaluations, require_read
from platform_core.errors import UsageError
from platform_core.registry.loading import find_plugins

WORDS = [
    "--process=mdlm",
    "--backbone.hidden_size=16",
    "--backbone.num_blocks=1",
    "--backbone.num_heads=2",
    "--data.corpus=text",
    "--data.length=16",
    "--train.batch_size=4",
    "--train.steps=2",
    "--sample.number=1",
    "--sampler.steps=2",
    "--track.aim=false",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    home = tmp_path_factory.mktemp("eval")
    (home / "text.txt").write_text("a b c " * 400)
    words = [*WORDS, f"--data.path={home / 'text.txt'}", f"--output={home / 'run'}"]
    assert main(["run", *words]) == 0
    return home / "run"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--tasks=x", "--evaluate.draws=4"],
            "--evaluate.draws is not read by the evaluation tasks, which reads evaluate.weights, ",
        ),
        (["--judge=x", "--evaluate.protocol=exact"], "is not read by the evaluation judge"),
        (["--tasks=x", "--judge_length=9"], "--judge_length is for a judge"),
        (["--judge=x", "--limit=2"], "--limit is for tasks"),
        (["--judge=x", "--side_by_side"], "--on and --judge are measured one at a time"),
        (["--tasks=x", "--judge=y"], "--judge and --tasks are measured one at a time"),
    ],
)
def test_an_option_that_is_not_read_is_refused(run, capsys, words, message):
    capsys.readouterr()
    assert main(["eval", str(run), *words]) == 2
    assert message in capsys.readouterr().err


def test_tasks_read_the_options_of_the_objective_and_the_precision():
    evaluations = installed_evaluations(find_plugins({}))
    require_read("tasks", evaluations, ["RUN", "--objective.steps=4", "--train.precision", "fp32"])
    with pytest.raises(UsageError, match="--train.steps is not read"):
        require_read("tasks", evaluations, ["RUN", "--train.steps=4"])
