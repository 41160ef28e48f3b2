"""`platform eval` of other texts: names, records, the plot, what one run is refused."""

import copy
import json
import math
import shutil

import pytest

from platform_core.cli import main
from platform_core.cli.eval import installed_evaluations, require_read
from platform_core.composition.options import DataOptions
from platform_core.errors import UsageError
from platform_core.evaluation.texts import ZERO_SHOT, texts
from platform_core.evaluation.trained import TrainedRun
from platform_core.record.cards import Card, Record
from platform_core.record.results import file_name
from platform_core.registry.loading import find_plugins

WORDS = [
    "--process=first",
    "--backbone=small",
    "--backbone.hidden_size=16",
    "--data.corpus=text",
    "--data.length=16",
    "--train.batch_size=4",
    "--train.steps=2",
    "--sample.number=1",
    "--sampler.steps=2",
    "--track.aim=false",
]


def write(folder, letters):
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02d}.txt").write_text(f"{letters[number % len(letters)]} " * 20)
    return folder


@pytest.fixture(scope="module")
def run(stub_parts, tmp_path_factory):
    home = tmp_path_factory.mktemp("eval")
    own = write(home / "own", "abc")
    assert main(["run", *WORDS, f"--data.path={own}", f"--output={home / 'run'}"]) == 0
    return home / "run"


def records(capsys, *words):
    capsys.readouterr()
    assert main(["eval", *map(str, words), "--json"]) == 0
    decoder, text, found = json.JSONDecoder(), capsys.readouterr().out, []
    while text := text.strip():
        record, end = decoder.raw_decode(text)
        found.append(record)
        text = text[end:]
    return found


@pytest.mark.slow
def test_other_texts_are_evaluated_in_one_command_and_kept_apart(run, tmp_path, capsys):
    near, far = write(tmp_path / "near", "cba"), write(tmp_path / "far", "xyz")
    words = (run, "--on", f"text={near}", f"text={far}", "--data.unknown=replace")
    first, second = records(capsys, *words, "--evaluate.draws=4", "--side_by_side")[::2]
    assert first["card"]["unknown_tokens"] == 0
    assert second["card"]["unknown_tokens"] == 20
    assert first["card"]["noise_levels_per_sequence"] == 4
    assert first["card"]["fingerprint"] != second["card"]["fingerprint"]
    kept = json.loads((run / "result.json").read_text())["evaluations"]
    names = sorted(name for name in kept if "4-draws" in name)
    assert len(names) == 4
    assert sum("published" in name for name in names) == 2
    plots = [run / "evaluations" / f"{name}.svg" for name in names]
    assert all(plot.read_text().rstrip().endswith("</svg>") for plot in plots)


def test_a_text_with_unknown_characters_stops_before_anything_is_kept(run, tmp_path, capsys):
    far = write(tmp_path / "far", "xyz")
    before = sorted((run / "evaluations").glob("*"))
    assert main(["eval", str(run), "--on", f"text={far}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--data.unknown replace" in said
    assert sorted((run / "evaluations").glob("*")) == before


def test_what_is_printed_says_how_it_was_made(run, capsys):
    assert main(["eval", str(run), "--evaluate.draws=2", "--evaluate.sequences=1"]) == 0
    said = capsys.readouterr().out
    assert "1 sequences at 2 noise levels each" in said
    assert "(one sequence: error unknown)" in said
    assert "error from noise" in said
    name = "validation-ema-exact-2-draws-1-sequences-step-0000002.json"
    record = json.loads((run / "evaluations" / name).read_text())
    assert record["standard_error"] is None


def test_the_suite_is_the_seven_corpora_and_words_may_repeat():
    own = DataOptions(packing="padded", document_masks=True)
    found = texts(["ptb", "zero-shot"], own)
    assert [text.name for text in found] == list(ZERO_SHOT)
    assert found[0].options.packing is None
    assert found[0].options.document_masks
    assert texts([], own) == [("", own)]
    assert texts(["text=a b/c*.txt"], own)[0].name == "text-a-b-c-.txt"


def test_only_rows_of_the_user_are_read_from_the_column_of_the_options():
    found = texts(["json=a", "parquet=a", "saved=a", "ptb", "text=a"], DataOptions(column="body"))
    assert [text.options.column for text in found] == ["body"] * 3 + [None] * 2


def test_texts_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="--on =x names no corpus; give CORPUS or CORPUS=PATH"):
        texts(["=x"], DataOptions())
    with pytest.raises(UsageError, match="given its century, which other corpora lack"):
        texts(["ptb"], DataOptions(label="century"))


def test_json_has_no_number_that_is_none(tmp_path):
    from platform_core.record.files import json_text

    said = json_text({"a": [math.nan, {"b": -math.inf}], "c": 1.5, "d": "NaN"})
    assert json.loads(said) == {"a": [None, {"b": None}], "c": 1.5, "d": "NaN"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sampler.steps=2"], "--sampler.steps is not read by the evaluation bound"),
    ],
)
def test_an_option_that_is_not_read_is_refused(run, capsys, words, message):
    capsys.readouterr()
    assert main(["eval", str(run), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_names_of_options_may_have_hyphens(run, capsys):
    hyphens = records(capsys, run, "--side-by-side", "--evaluate.batch-size=2")
    underscores = records(capsys, run, "--side_by_side", "--evaluate.batch_size=2")
    assert [record["nats_per_token"] for record in hyphens] == [
        record["nats_per_token"] for record in underscores
    ]


@pytest.mark.slow
def test_a_run_opened_in_python_measures_and_writes_as_the_verbs_do(run, capsys):
    (record,) = records(capsys, run)
    opened = TrainedRun.open(run)
    bound = opened.evaluate()
    assert bound.nats_per_token == record["nats_per_token"]
    assert opened.step == record["card"]["step"] == 2
    assert opened.evaluate(sequences=2).sequences == 2
    capsys.readouterr()
    assert main(["sample", str(run), "--sample.number=2", "--format=jsonl"]) == 0
    written = [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
    assert opened.sample(2).texts == written
    assert opened.sample(1, prompt="ab", seed=5).texts[0].startswith("ab")
    raw = opened.with_average("raw")
    assert raw.with_average("raw") is raw
    assert raw.evaluate().nats_per_token != bound.nats_per_token
    with pytest.raises(UsageError, match="sample.number is -1; it must be at least 0"):
        opened.sample(-1)
    with pytest.raises(UsageError, match="is no run directory"):
        TrainedRun.open(run.parent)


def test_options_of_the_objective_and_the_precision_are_read():
    evaluations = installed_evaluations(find_plugins({}))
    require_read("bound", evaluations, ["RUN", "--objective.steps=4", "--train.precision", "fp32"])
    with pytest.raises(UsageError, match="--train.steps is not read"):
        require_read("bound", evaluations, ["RUN", "--train.steps=4"])


def test_a_network_is_measured_in_the_precision_that_is_asked_for(run, capsys):
    (record,) = records(capsys, run, "--train.precision=fp32")
    assert record["card"]["precision"] == "no"


BOUNDLESS = """
from platform_core.component import Component
from platform_core.hookspecs import hookimpl
from platform_core.objective import Nelbo

class Boundless(Nelbo):
    "A loss that is no bound."
    has_bound = False

    def bound(self, batch, draws, protocol="exact"):
        raise AssertionError("it is never called")

@hookimpl
def platform_objectives():
    return [Component("boundless", f"{__name__}:Boundless", "no bound")]
"""


@pytest.mark.slow
def test_a_run_whose_objective_has_no_bound_has_no_figures_of_one(
    run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "boundless.py").write_text(BOUNDLESS)
    plugin, home = ["-p", str(tmp_path / "boundless.py")], tmp_path / "run"
    own = write(tmp_path / "own", "abc")
    words = [*WORDS, "--objective=boundless", f"--data.path={own}", f"--output={home}"]
    assert main([*plugin, "run", *words, "--train.evaluate_every=1"]) == 0
    note = "the objective boundless has no bound on -log p, so none was measured"
    said = capsys.readouterr().out
    assert note in said
    assert "perplexity" not in said
    result = json.loads((home / "result.json").read_text())
    assert result["note"] == note
    assert not {"perplexity", "bits_per_character", "standard_error"} & set(result)
    assert main([*plugin, "eval", str(home)]) == 2
    refused = capsys.readouterr().err
    assert "Boundless says that it has no bound" in refused
    assert refused.count("\n") == 1
    assert main([*plugin, "sample", str(home)]) == 0
    capsys.readouterr()
    assert main(["compare", str(run), str(home)]) == 0
    said = capsys.readouterr().out
    assert f"{home}: the objective has no bound on -log p." in said
    rows = [line.split() for line in said.splitlines() if line.startswith(f"{home} ")]
    assert {"\N{EN DASH}"} in [set(row[1:]) for row in rows]


WAYS = [
    [],
    ["--seed=7"],
    ["--data.length=8"],
    ["--data.packing=padded"],
    ["--data.marks=none"],
    ["--data.path={other}"],
    ["--on", "text={other}"],
    ["--evaluate.batch_size=2"],
    ["--evaluate.split=test"],
    ["--evaluate.weights=raw"],
    ["--evaluate.protocol=published"],
    ["--evaluate.draws=3"],
    ["--evaluate.sequences=1"],
    ["--data.document_masks=true"],
]


@pytest.mark.slow
def test_evaluations_that_were_made_unlike_are_all_kept_and_like_ones_once(run, tmp_path, capsys):
    """The name follows the card: no option that an evaluation reads leaves it as it was."""
    other = write(tmp_path / "other", "cab")
    kept = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(kept / "evaluations", ignore_errors=True)
    for ways in (WAYS, WAYS[::3]):
        for words in ways:
            assert main(["eval", str(kept), *(word.format(other=other) for word in words)]) == 0
        names = sorted(file.stem for file in (kept / "evaluations").glob("*.json"))
        assert len(names) == len(WAYS)
    assert "validation-ema-exact-step-0000002" in names
    (other / "00.txt").write_text("another text of the same name")
    assert main(["eval", str(kept), "--on", f"text={other}"]) == 0
    assert len([*(kept / "evaluations").glob("*.json")]) == len(WAYS) + 1


FACTS = {"evaluate": {"split": "test", "draws": 1}, "seed": 1, "parts": {"sampler": "a"}, "x": None}


@pytest.mark.parametrize("place", ["evaluate.split", "evaluate.draws", "seed", "parts.sampler"])
def test_one_fact_that_differs_gives_another_name(place):
    changed = copy.deepcopy(FACTS)
    holder, _, key = place.rpartition(".")
    (changed[holder] if holder else changed)[key] = "other"
    names = {
        file_name("words", Record({}, Card(facts)), own, in_name)
        for facts in (FACTS, changed)
        for own, in_name in ((FACTS, ()), (FACTS, (place,)))
    }
    assert len(names) == 2
    assert "words" in names
    assert file_name("words", Record({}, Card({**FACTS, "threads": 3})), FACTS) == "words"


def swept(capsys, run, *words):
    """The exit code of a sweep, what it printed, and its last line of errors."""
    capsys.readouterr()
    code = main(["eval", str(run), *words])
    out = capsys.readouterr()
    return code, out.out, out.err.splitlines()


@pytest.mark.slow
def test_a_sweep_measures_once_for_each_value_and_goes_on_where_it_stopped(run, capsys, tmp_path):
    own = tmp_path / "run"
    shutil.copytree(run, own, ignore=shutil.ignore_patterns("evaluations"))
    alone = records(capsys, own, "--evaluate.draws=2")[0]
    draws = "--sweep=evaluate.draws=1,2,3,1"
    code, said, errors = swept(capsys, own, draws)
    assert code == 0
    assert [line for line in said.splitlines() if line.startswith("evaluate.draws=")] == [
        "evaluate.draws=1:",
        "evaluate.draws=3:",
    ]
    assert any(line.startswith("evaluate.draws=2: measured before, kept in") for line in errors)
    kept = own / "evaluations"
    assert len(list(kept.glob("*.json"))) == 3
    assert "kept in" not in swept(capsys, own, draws)[1]
    again = records(capsys, own, "--sweep", "evaluate.draws=2", "--again")
    assert again[0]["nats_per_token"] == alone["nats_per_token"]
    assert again[0]["card"]["asked"] == alone["card"]["asked"]
    assert len(list(kept.glob("*.json"))) == 3


@pytest.mark.slow
def test_a_sweep_of_two_options_measures_every_combination(run, capsys):
    words = ["--sweep", "evaluate.draws=4,5", "evaluate.split=validation,test"]
    found = records(capsys, run, *words, "--evaluate.sequences=4")
    ways = [(r["card"]["evaluate"]["draws"], r["card"]["evaluate"]["split"]) for r in found]
    assert ways == [(4, "validation"), (4, "test"), (5, "validation"), (5, "test")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    {
        "no values": (["--sweep", "evaluate.draws"], "--sweep evaluate.draws names no values"),
        "an empty value": (["--sweep", "evaluate.draws=1,,2"], "names no values"),
        "a bad value": (["--sweep", "evaluate.draws=1,0"], "evaluate.draws is 0"),
        "an unknown option": (["--sweep", "evaluate.drawz=1"], "did you mean evaluate.draws"),
        "not read": (["--sweep", "train.steps=1,2"], "--train.steps is not read by"),
        "twice": (["--sweep", "seed=1", "seed=2"], "--sweep names an option twice"),
        "also given": (["--seed=3", "--sweep", "seed=1,2"], "--seed is given as well"),
        "its own": (["--sweep", "json=1,2"], "--json is no option to sweep"),
        "of the process": (["--sweep", "train.precision=fp32,bf16"], "is no option to sweep"),
        "again alone": (["--again"], "--again is for a sweep"),
    }.values(),
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_is_measured(run, capsys, words, said):
    before = sorted((run / "evaluations").glob("*")) if (run / "evaluations").exists() else []
    code, printed, errors = swept(capsys, run, *words)
    assert (code, printed) == (2, "")
    assert said in errors[-1]
    after = sorted((run / "evaluations").glob("*")) if (run / "evaluations").exists() else []
    assert before == after
