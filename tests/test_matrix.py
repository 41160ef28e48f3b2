"""The matrix of parts: every combination runs, or is refused with a way out.

By default this is tried on the rows of `Matrix.share`; with `PLATFORM_MATRIX=all`, on all of them.
"""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from matrix import LENGTH, VOCABULARY, Matrix, Options, Row, Trial, formula, pairs

from platform_core.cli import TOOLS
from platform_core.component import KINDS
from platform_core.composition.choice import FALLBACK, process_names
from platform_core.composition.compose import compose
from platform_core.errors import IncompatibleError, UsageError
from platform_core.registry.loading import find_plugins
from platform_core.registry.parts import FIRST_PARTY, FIRST_PARTY_OPTIONS

MATRIX = Matrix(find_plugins({}))
ROWS = MATRIX.rows if os.environ.get("PLATFORM_MATRIX") == "all" else MATRIX.share()
PROCESSES = MATRIX.plugins.names("process")
DISTRIBUTIONS = sorted(
    plugin.distribution for plugin in MATRIX.plugins.plugins if plugin.name != "core"
)

Record = Callable[[str, object], None]


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_combination_runs_or_is_refused_with_a_way_out(
    row: Row, record_property: Record
) -> None:
    """A row trains once: objectives know no sampler. Each of its samplers draws from what came of
    it.
    """
    trial, valid, misleading = Trial(MATRIX, row), 0, set()
    for sampler in MATRIX.samplers:
        refusal = MATRIX.refusal(row, sampler)
        if not MATRIX.pairs_go_together(row, sampler):
            assert isinstance(refusal, IncompatibleError), sampler
        if refusal is None:
            require_run(trial, sampler)
            valid += 1
        elif "\n" in str(refusal) or not MATRIX.names_a_way_out(row, sampler, str(refusal)):
            misleading.add(str(refusal))
    record_property("combinations valid", valid)
    record_property("combinations refused", len(MATRIX.samplers) - valid)
    assert not misleading, "refused with an alternative that does not work"


def test_the_share_of_the_rows_has_all_that_it_is_to_have() -> None:
    """Every pair of parts and all that a loss can be made of, in few rows."""
    shared, rows = MATRIX.share(), MATRIX.rows
    assert len(shared) < len(rows) / 16
    assert set().union(*map(pairs, shared)) == set().union(*map(pairs, rows))
    valid = {formula(row) for row in rows if MATRIX.parts_go_together(row)}
    assert {formula(row) for row in shared} >= valid


def require_run(trial: Trial, sampler: str) -> None:
    bound, sample = trial.run(sampler)
    assert 0 < bound.nats_per_token < 1000, sampler
    assert sample.tokens.shape == (2, LENGTH), sampler
    assert 0 <= sample.tokens.min() <= sample.tokens.max() < VOCABULARY, sampler
    assert (sample.tokens[:, 0] == 2).all(), sampler
    assert sample.nfe > 0, sampler


@pytest.mark.parametrize(("process", "options"), list(MATRIX.forms()), ids=str)
def test_every_family_runs_in_each_of_its_forms(process: str, options: Options) -> None:
    row, sampler = MATRIX.family(process, options)
    require_run(Trial(MATRIX, row), sampler)


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_goes_with_its_own_defaults(process: str) -> None:
    composition, _ = compose(["--process", process], MATRIX.plugins, prog="x", environ={})
    defaults = {**FALLBACK, **process_names(MATRIX.plugins, process)}
    assert composition.names == {**defaults, "process": process}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_without_one_distribution_all_other_parts_are_there(distribution: str) -> None:
    left = find_plugins({"PLATFORM_DISABLE_PLUGINS": distribution})
    everything = {(part.role, part.component.name): part for part in MATRIX.plugins.parts(KINDS)}
    others = {key for key, part in everything.items() if part.plugin.distribution != distribution}
    assert {(part.role, part.component.name) for part in left.parts(KINDS)} == others
    assert left.metrics() == {
        metric.name: metric
        for plugin in MATRIX.plugins.plugins
        if plugin.distribution != distribution
        for metric in plugin.metrics
    }
    for role, name in everything.keys() - others:
        with pytest.raises(UsageError, match=f"{distribution} .* is disabled and may provide it"):
            left.load(role, name)


@pytest.mark.slow
def test_subsets_of_the_distributions_have_their_own_parts_and_no_others() -> None:
    everything = list(MATRIX.plugins.parts(KINDS))
    for gone in left_out():
        left = find_plugins({"PLATFORM_DISABLE_PLUGINS": ",".join(gone)})
        expected = [part for part in everything if part.plugin.distribution not in gone]
        assert list(left.parts(KINDS)) == expected, gone
        assert not left.problems(), gone
        for role, name in ((part.role, part.component.name) for part in expected):
            assert left.get(role, name).component.name == name


def left_out() -> Iterator[tuple[str, ...]]:
    """Any two distributions. Of models: all but at most two, and these two with all tools."""
    of_models = {part.plugin.distribution for part in MATRIX.plugins.parts()}
    models = [name for name in DISTRIBUTIONS if name in of_models]
    tools = tuple(name for name in DISTRIBUTIONS if name not in of_models)
    yield from itertools.combinations(DISTRIBUTIONS, 2)
    for number in range(3):
        for few in itertools.combinations(models, number):
            yield (*few, *tools)
            yield tuple(name for name in models if name not in few)


APART = """
import os
import sys
import traceback

import accelerate, datasets, scipy, torch, transformers.modeling_utils


def apart(name, work, *words):
    if os.fork():
        assert os.wait()[1] == 0, name
        return
    try:
        os.mkdir(name)
        for number, file in ((1, "said"), (2, "errors")):
            os.dup2(os.open(f"{name}/{file}", os.O_WRONLY | os.O_CREAT), number)
        os.chdir(name)
        work(name, *words)
        sys.stdout.flush()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
"""
"""Runs work in a process of its own, in a folder of its own that takes its output.

The process forks from one that has imported the libraries already, which takes ten seconds.
"""

WITHOUT = f"""{APART}
sys.path.insert(0, sys.argv[1])


def without(distribution):
    module = distribution.removeprefix("dlm-").replace("-", "_")
    sys.modules[module] = None  # importing it raises
    from matrix import Matrix, Trial, find_plugins

    matrix = Matrix(find_plugins({{"PLATFORM_DISABLE_PLUGINS": distribution}}))
    for form in matrix.forms():
        row, sampler = matrix.family(*form)
        Trial(matrix, row).run(sampler)
        print(row.process)


for distribution in sys.argv[2:]:
    apart(distribution, without)
"""


def run_apart(script: str, folder: Path, *words: str) -> None:
    """Runs a script that calls `apart`."""
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, cwd=folder)
    said = "".join(path.read_text() for path in folder.glob("*/errors"))
    assert done.returncode == 0, done.stderr + said


@pytest.mark.slow
def test_without_one_distribution_all_other_families_run(tmp_path: Path) -> None:
    """Nothing of it can be imported; families whose defaults it had run with the nearest parts.

    Tools are left out, one after another, in another test.
    """
    of_models = {part.plugin.distribution for part in MATRIX.plugins.parts()}
    distributions = [name for name in DISTRIBUTIONS if name in of_models]
    run_apart(WITHOUT, tmp_path, str(Path(__file__).parent), *distributions)
    for distribution in distributions:
        own = [
            part.component.name
            for part in MATRIX.plugins.parts()
            if part.role == "process" and part.plugin.distribution == distribution
        ]
        ran = set((tmp_path / distribution / "said").read_text().split())
        assert ran == set(PROCESSES) - set(own), distribution


WITHOUT_TOOL = f"""{APART}
import importlib.metadata
import shlex

from platform_core.cli import main, verbs
from platform_core.component import KINDS
from platform_core.registry.loading import find_plugins


def without(tool, *commands):
    distribution = f"dlm-platform-{{tool}}"
    sys.modules[f"platform_{{tool}}"] = None  # importing it raises
    everything = importlib.metadata.entry_points
    importlib.metadata.entry_points = lambda **asked: (
        [point for point in everything(**asked) if point.dist.name != distribution]
        if asked == {{"group": "platform_core.plugins"}}
        else everything(**asked)
    )
    plugins = find_plugins()
    assert not plugins.problems()
    assert distribution not in {{plugin.distribution for plugin in plugins.plugins}}
    for part in plugins.parts(KINDS):
        plugins.load(part.role, part.component.name)
    for verb in verbs():
        try:
            assert main([verb, "--help"]) == 0, verb
        except SystemExit as stop:
            assert stop.code == 0, verb
    print("helped", flush=True)
    for command in commands:
        print(main(shlex.split(command)), flush=True)


for tool, *commands in map(str.splitlines, sys.argv[1:]):
    apart(tool, without, *commands)
"""
"""Loads everything, and runs commands, where one distribution is not installed.

Each word of its command line is the name of a tool, and on the lines after it the commands.
"""

TINY = (
    "run --output run --backbone.hidden_size 16 --backbone.num_blocks 1 --backbone.num_heads 2 "
    "--data.length 16 --data.corpus text --data.path ../text.txt --train.steps 1 "
    "--train.batch_size 2 --evaluate.sequences 1 --sample.number 1 --sampler.steps 1"
)


TOOL_PLUGINS = ("aim", "bench", "harness", "hub", "judge", "published", "report", "sweep")
"""Plugins that bring no part of a model."""


def commands_of(tool: str) -> list[str]:
    """Everything that a user may ask of a tool: verbs, options of verbs, corpora."""
    options = FIRST_PARTY_OPTIONS["platform eval"]
    brought = [
        *(verb for verb, (plugin, _) in TOOLS.items() if plugin == tool),
        *(f"eval run --{option}=1" for option, plugin in options.items() if plugin == tool),
        *(f"run --data.corpus {n}" for n, by in FIRST_PARTY["corpus"].items() if by == tool),
    ]
    return [*brought, "run --data.corpus notes.yaml"] if tool == "hub" else brought


@pytest.mark.slow
def test_without_a_tool_all_else_works_and_what_it_brings_is_said_to_be_missing(
    tmp_path: Path,
) -> None:
    (tmp_path / "text.txt").write_text("No tool is needed to train. " * 40)
    untracked = {tool: "" if tool == "aim" else " --track.to none" for tool in TOOL_PLUGINS}
    words = ["\n".join([t, TINY + untracked[t], *commands_of(t)]) for t in TOOL_PLUGINS]
    run_apart(WITHOUT_TOOL, tmp_path, *words)
    for tool in TOOL_PLUGINS:
        require_missing(tool, tmp_path / tool)


def require_missing(tool: str, folder: Path) -> None:
    asked, errors = commands_of(tool), (folder / "errors").read_text()
    outcomes = (folder / "said").read_text().partition("helped\n")[2].splitlines()
    codes = [line for line in outcomes if line in ("0", "1", "2")]
    assert codes == ["0", *["2"] * len(asked)], errors
    assert (folder / "run/result.json").is_file()
    said = [line for line in errors.splitlines() if line.startswith("platform")]
    refused = [line for line in said if ": error: " in line]
    assert len(refused) == len(asked)
    for command, line in zip(asked, refused, strict=True):
        assert f"dlm-platform-{tool}" in line, command
        assert "not installed" in line, command
