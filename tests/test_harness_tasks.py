"""Tasks of lm-evaluation-harness: what is asked of a model, what cannot be scored, what is kept."""

import json
import math
import sys
from argparse import ArgumentParser
from functools import partial

import datasets
import pytest
import torch
import yaml
from accelerate import Accelerator
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from platform_ar.objective import NextTokenNll
from platform_ar.parameterization import NextToken
from platform_ar.process import Ar
from platform_ar.sampler import LeftToRight
from platform_core.cli import main
from platform_core.data.tokenizer import CharacterTokenizer
from platform_core.draws import Draws
from platform_core.errors import UsageError
from platform_core.model import Model
from platform_core.record.cards import Record
from platform_core.schedule import LogLinear
from platform_core.testing.metrics import require_whole
from platform_core.testing.toy import CausalNetwork
from platform_core.types import Batch
from platform_harness import metrics as task_metrics
from platform_harness import needed
from platform_harness import tasks as harness
from platform_harness.evaluation import Tasks
from platform_harness.generation import Asked, Writer, up_to_stop
from platform_harness.likelihood import choose
from platform_harness.names import names_in, require_known
from platform_harness.needed import manager_of
from platform_harness.tasks import Reader, TrainedLm, run_tasks

TOKENIZER = CharacterTokenizer("abcd .")
LENGTH = 12
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
CHOICES = [
    {"query": "ab", "choices": ["abab", "bb"], "gold": 0},
    {"query": "bc ab bc ab bc", "choices": ["cab", "b"], "gold": 1},
    {"query": "ca", "choices": ["a", "c", "bc"], "gold": 2},
]
TASKS = {
    "choices": {
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "endings": {
        "output_type": "loglikelihood",
        "doc_to_target": " {{choices[0]}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{query}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "stories": {
        "output_type": "generate_until",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["."]},
        "metric_list": [{"metric": "exact_match"}],
    },
}


def model(length=LENGTH, *, writer=False):
    torch.manual_seed(0)
    process = Ar(TOKENIZER.vocab_size)
    network = CausalNetwork(process.num_states).double()
    objective = NextTokenNll(Model(process, LogLinear(), NextToken(), network))
    reader = Reader(TOKENIZER, (TOKENIZER.bos_id,), length)
    accelerator, likelihood = Accelerator(cpu=True), choose(objective, None, 1)
    written = Writer(objective.model, LeftToRight(), TOKENIZER, accelerator, length, facts={})
    options = {"batch_size": 4, "seed": 1, "writer": written if writer else None}
    return TrainedLm(likelihood, reader, accelerator, **options)


def ask(lm, context, *choices, task="any", number=0):
    return lm.loglikelihood(
        [
            Instance("loglikelihood", {}, (context, choice), place, (task, number, 1))
            for place, choice in enumerate(choices)
        ]
    )


def log_prob(lm, tokens, given):
    x0 = torch.tensor([tokens])
    draws = Draws.derive("any", step=0, first=0, total=1)
    with torch.no_grad():
        nats = lm.likelihood.objective.bound(
            Batch(x0, torch.ones_like(x0, dtype=torch.bool)), draws
        )
    return -float(nats.per_token[0, given:].double().sum())


def ids(text):
    return [TOKENIZER.bos_id, *map(int, TOKENIZER.encode(text))]


def test_a_choice_is_scored_behind_the_beginning_of_a_document_and_its_context():
    lm = model()
    (first, _), (second, _) = ask(lm, "ab ", "cd", "d")
    # The space goes to the choice.
    assert first == pytest.approx(log_prob(lm, ids("ab cd"), 3), abs=1e-5)
    assert second == pytest.approx(log_prob(lm, ids("ab d"), 3), abs=1e-5)
    ((alone, _),) = ask(lm, "", "cd")
    assert alone == pytest.approx(log_prob(lm, ids("cd"), 1), abs=1e-5)
    assert lm.counts["any"].summary()["items_with_cut_context"] == 0


def test_long_contexts_lose_as_many_tokens_at_the_left_before_every_choice():
    lm = model()
    (long, _), (short, _) = ask(lm, "abcd. abcd.", " bcd.", " c")
    kept = ids("abcd. abcd.")[-(LENGTH - 5) :]
    assert long == pytest.approx(log_prob(lm, kept + ids(" bcd.")[1:], len(kept)), abs=1e-5)
    assert short == pytest.approx(log_prob(lm, kept + ids(" c")[1:], len(kept)), abs=1e-5)
    assert lm.counts["any"].summary()["items_with_cut_context"] == 1


@pytest.mark.parametrize("choice", [" abcd abcd abcd abcd", "é", " ", ""])
def test_what_cannot_be_scored_never_wins(choice):
    lm = model()
    context = "ab" if choice.strip() or not choice else "ab c"
    others = ["", choice] if choice == " " else [choice]
    found = ask(lm, context, " a", " abcd abc.", "d" * LENGTH, *others)
    scores = [score for score, _ in found]
    lengths = [2, 10, LENGTH, *map(len, others)]
    bytes_ = [2, 10, LENGTH, *(len(other.encode()) for other in others)]
    for per in ([1] * len(scores), lengths, bytes_):
        per_unit = [score / max(1, unit) for score, unit in zip(scores, per, strict=True)]
        assert max(per_unit[:3]) > min(per_unit[:3]) > per_unit[3]
    assert all(torch.isfinite(torch.tensor(scores)))
    assert lm.counts["any"].summary()["items_that_cannot_be_scored"] == 1


def test_an_item_without_any_choice_that_can_be_scored_is_counted_all_the_same():
    lm = model()
    found = ask(lm, "ab", "é", "è" * 3)
    assert [hit for _, hit in found] == [False, False]
    assert lm.counts["any"].unscored == {("any", 0)}


def test_unknown_characters_of_a_context_are_read_as_such_and_counted():
    lm = model()
    ((score, _),) = ask(lm, "aéb", "c")
    known = [TOKENIZER.bos_id, *map(int, TOKENIZER.with_unknown("replace").encode("aéb"))]
    assert TOKENIZER.unknown_id in known
    assert score == pytest.approx(log_prob(lm, [*known, ids("c")[1]], 4), abs=1e-5)
    assert lm.counts["any"].unknown == {("any", 0)}
    assert not lm.counts["any"].unscored


def test_a_long_text_is_read_in_windows_that_count_each_token_once():
    lm, text = model(), "abcd. dcba. abcd. d"
    requests = [
        Instance("loglikelihood_rolling", {}, (words,), 0, ("any", number, 1))
        for number, words in enumerate([text, "", "ab"])
    ]
    long, empty, short = lm.loglikelihood_rolling(requests)
    tokens = ids(text)
    windows = [tokens[:12], tokens[11:]]
    assert long == pytest.approx(sum(log_prob(lm, window, 1) for window in windows), abs=1e-5)
    assert empty == 0
    assert short == pytest.approx(log_prob(lm, ids("ab"), 1), abs=1e-5)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("harness")
    texts = home / "texts"
    texts.mkdir()
    for number in range(20):
        (texts / f"{number:02d}.txt").write_text("ab bc ca " * 20)
    words = [*WORDS, f"--data.path={texts}", f"--output={home / 'run'}"]
    assert main(["run", *words]) == 0
    return home


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return write_tasks(tmp_path / "tasks", CHOICES)


def write_tasks(folder, items):
    folder.mkdir(exist_ok=True)
    data = folder / "items.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in items))
    source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}}
    for name, task in TASKS.items():
        whole = {"task": name, "test_split": "test", "doc_to_text": "query", **source, **task}
        for metric in whole["metric_list"]:
            metric |= {"aggregation": "mean", "higher_is_better": True}
        if name == "texts":
            whole["metric_list"][0]["aggregation"] = "bits_per_byte"
        if name == "endings":
            whole["metric_list"][0]["aggregation"] = "perplexity"
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(whole))
    return folder


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
def test_tasks_are_measured_and_kept(home, tasks, capsys):
    words = (
        home / "run",
        "--tasks=choices,endings,texts,stories",
        f"--task_path={tasks}",
        "--trust_tasks",
        "--draws=4",
    )
    choices, endings, texts, stories = records(capsys, *words)
    assert stories["card"]["sampler"]["name"] == "ancestral"
    assert stories["nfe_per_text"] <= 3
    assert stories["items_with_less_room"] == 3
    assert choices["items"] == endings["items"] == texts["items"] == 3
    accuracy = choices["metrics"]["acc"]
    error = (accuracy * (1 - accuracy) / 2) ** 0.5
    assert accuracy in (0, 1 / 3, 2 / 3, 1)
    assert choices["metrics"]["acc_standard_error"] == pytest.approx(error)
    assert choices["metrics"]["chance"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
    assert choices["items_with_cut_context"] == 1
    assert choices["items_that_cannot_be_scored"] == 0
    assert choices["mean_noise_error_of_a_score"] > 0
    assert endings["metrics"]["perplexity"] > 1
    assert texts["metrics"]["bits_per_byte"] > 0
    for record in (choices, endings, texts, stories):
        found = require_whole(Record.read(record), [task_metrics.TASKS])
        assert found
        assert not any("standard_error" in name or "chance" in name for name in found)
    card = choices["card"]
    assert (card["likelihood"], card["draws"], card["step"]) == ("clean-context", 4, 2)
    assert card["evaluate"]["weights"] == "ema"
    assert card["lm_eval"].startswith("0.4.")
    assert card["tokenizer"]["kind"] == "character"
    kept = json.loads((home / "run" / "result.json").read_text())["evaluations"]
    words = "choices-ema-clean-context-4-draws-step-0000002"
    (name,) = (name for name in kept if name.startswith(words))
    assert kept[name]["metrics"] == choices["metrics"]


@pytest.mark.slow
def test_what_is_printed_says_what_is_known(home, tasks, capsys):
    """One item has no standard error, which is left out."""
    path = f"--task_path={write_tasks(tasks, [CHOICES[1]])}"
    capsys.readouterr()
    assert (
        main(["eval", str(home / "run"), "--tasks=choices", path, "--trust_tasks", "--draws=2"])
        == 0
    )
    said = capsys.readouterr().out
    assert "choices, 1 items; ema weights of step 2; clean-context likelihood at 2 noise" in said
    assert " +- " not in said
    assert "nats a choice; it leaves" in said
    assert "1 items were cut at the left to the length of training" in said
    assert "cannot be scored" not in said


@pytest.mark.slow
def test_where_nothing_is_compared_the_error_is_that_of_the_whole_text(home, tasks, capsys):
    path = f"--task_path={write_tasks(tasks, [CHOICES[1]])}"
    words = ["eval", str(home / "run"), "--tasks=texts", path, "--trust_tasks", "--draws=4"]
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mean_noise_error_of_a_score"] > 0
    assert found["items_compared"] == 0
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "nats a text\n" in said
    assert " open" not in said


@pytest.mark.slow
def test_tasks_are_asked_of_a_model_and_what_cannot_be_scored_is_wrong(tasks):
    """In two items the other choice would win, and is the right one."""
    lacking = {"query": "ab", "choices": ["é", "ca"], "gold": 1}
    alone = {"query": "ab", "choices": ["ca", "ca", "ca"], "gold": 0}
    write_tasks(tasks, [lacking, lacking, alone, lacking])
    lm = model()
    asked = {"folder": tasks, "limit": 3, "num_fewshot": None}
    choices, endings, texts = run_tasks(lm, ["choices", "endings", "texts"], **asked)
    assert choices.items == endings.items == texts.items == 3
    assert choices.metrics["acc"] == choices.metrics["acc_norm"] == pytest.approx(1 / 3)
    assert choices.metrics["acc_standard_error"] == pytest.approx(1 / 3)
    assert choices.metrics["acc_where_scored"] == 1
    assert choices.metrics["chance"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
    assert choices.counts["items_that_cannot_be_scored"] == 2
    assert choices.counts["items_undecided_by_noise"] == 0
    assert [found.counts["items_compared"] for found in (choices, endings, texts)] == [1, 0, 0]
    expected = -log_prob(lm, ids("ab"), 1) / 2 / math.log(2)
    assert texts.metrics["bits_per_byte"] == pytest.approx(expected, abs=1e-5)
    assert set(endings.metrics) >= {"perplexity", "acc"}
    assert endings.counts["items_that_cannot_be_scored"] == 2


def request(context, until, number=0, **arguments):
    arguments = {"until": until, **arguments}
    return Instance("generate_until", {}, (context, arguments), 0, ("stories", number, 1))


@pytest.mark.slow
def test_generated_text_continues_its_prompt_and_ends_at_a_stop_string():
    lm = model(writer=True)
    asked = [request("ab ", ["."], n, max_gen_toks=4) for n in range(30)]
    texts = lm.generate_until(asked)
    assert not any("." in text for text in texts)
    assert len(set(texts)) > 1
    assert lm.generate_until(asked[7:9]) == texts[7:9]
    (whole,) = lm.generate_until([request("ab ", [], 0, max_gen_toks=4)])
    assert whole.startswith(texts[0])
    counts = lm.counts["stories"].summary()
    assert (counts["nfe"], counts["nfe_per_text"]) == (4, 4)
    assert counts["items_with_cut_context"] == counts["items_with_less_room"] == 0


@pytest.mark.slow
def test_a_task_of_generated_text_is_scored_by_lm_eval(tasks):
    (found,) = run_tasks(model(writer=True), ["stories"], folder=tasks, limit=2, num_fewshot=None)
    assert (found.items, found.place) == (2, "drawn")
    assert 0 <= found.metrics["exact_match"] <= 1
    assert found.counts["nfe_per_text"] > 0


def test_long_prompts_leave_half_the_length_for_the_text():
    lm = model(writer=True)
    (text,) = lm.generate_until([request("abcd " * 9, "zzz", max_gen_toks=40)])
    assert len(lm.reader.tokens(text)) <= LENGTH - LENGTH // 2
    counts = lm.counts["stories"].summary()
    assert counts["items_with_cut_context"] == counts["items_with_less_room"] == 1
    assert counts["nfe"] == LENGTH - LENGTH // 2
    with pytest.raises(UsageError, match="task stories: the task asks for 0 generated tokens"):
        lm.generate_until([request("ab", ".", max_gen_toks=0)])


def test_the_first_stop_string_ends_a_text():
    assert up_to_stop("a.b\nc", ["\n", "."]) == "a"
    assert up_to_stop("a.b", ["x"]) == up_to_stop("a.b", []) == "a.b"
    assert Asked.read({"until": "\n", "max_new_tokens": 7}) == (("\n",), 7)
    assert Asked.read({}) == ((), 256)


def test_generated_text_and_hubs_out_of_reach_are_refused_in_one_line(tasks, monkeypatch):
    asked = {"folder": tasks, "limit": 1, "num_fewshot": None}
    with pytest.raises(UsageError, match="task stories asks for generated text"):
        run_tasks(model(), ["stories"], **asked)
    with pytest.raises(UsageError, match="none is no directory"):
        run_tasks(model(), ["choices"], **{**asked, "folder": tasks / "none"})
    monkeypatch.setattr("platform_core.data.hub.reachable", lambda: False)
    far = {**TASKS["choices"], "task": "far", "dataset_path": "nobody/nothing"}
    (tasks / "far.yaml").write_text(yaml.safe_dump({**far, "test_split": "test"}))
    with pytest.raises(UsageError, match="the hub cannot be reached from here") as refusal:
        run_tasks(model(), ["far"], **asked)
    assert "\n" not in str(refusal.value)


def refused(capsys, *words):
    capsys.readouterr()
    assert main(["eval", *map(str, words)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("platform eval: error: ")
    return said[-1]


@pytest.mark.slow
def test_mistakes_are_one_line(home, tasks, capsys):
    run, path = home / "run", f"--task_path={tasks}"
    assert "--limit is for tasks" in refused(capsys, run, "--limit=2")
    assert "--on and --tasks are measured one at a time" in refused(
        capsys, run, "--tasks=choices", path, "--trust_tasks", "--on", "sotu"
    )
    assert "--tasks names no task" in refused(capsys, run, "--tasks=,", path, "--trust_tasks")


def asked(*words):
    parser = ArgumentParser()
    Tasks.arguments(parser)
    return parser.parse_args(words)


def test_tasks_of_ones_own_are_programs_and_have_to_be_trusted():
    with pytest.raises(UsageError, match="are programs, which may do anything.*--trust_tasks"):
        Tasks.is_asked(asked("--tasks=choices", "--task_path=tasks"))
    assert Tasks.is_asked(asked("--tasks=choices", "--task_path=tasks", "--trust_tasks"))
    assert Tasks.is_asked(asked("--tasks=piqa"))
    with pytest.raises(UsageError, match="--trust_tasks is for tasks"):
        Tasks.is_asked(asked("--trust_tasks"))


BROKEN = {
    "a field that is not there": {"doc_to_text": "{{nosuch.x}}"},
    "a split that is not there": {"test_split": "dev"},
    "no split": {"test_split": None},
    "a template that cannot be read": {"doc_to_text": "{{query"},
    "no such output": {"output_type": "poem"},
    "a target too high": {"doc_to_target": "{{7}}"},
    "choices that are none": {"doc_to_choice": "gold"},
    "no such metric": {"metric_list": [{"metric": "luck"}]},
    "no such function": {"doc_to_text": "!function no.such"},
    "an unknown key": {"colour": "blue"},
    "metrics that are a word": {"metric_list": "acc"},
    "arguments that are a list": {"dataset_kwargs": [1]},
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_mistake_in_a_task_of_ones_own_is_one_line(tasks, mistake):
    path = tasks / "choices.yaml"
    task = {**yaml.safe_load(path.read_text()), "task": "mine", **BROKEN[mistake]}
    text = yaml.safe_dump({key: value for key, value in task.items() if value is not None})
    (tasks / "mine.yaml").write_text(text.replace("'!function no.such'", "!function no.such"))
    with pytest.raises(UsageError, match="mine") as refusal:
        run_tasks(model(), ["mine"], folder=tasks, limit=2, num_fewshot=None)
    assert "\n" not in str(refusal.value)


def test_a_mistake_of_the_platform_itself_is_no_mistake_of_the_task(tasks, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(TrainedLm, "_item", broken)
    with pytest.raises(ZeroDivisionError):
        run_tasks(model(), ["choices"], folder=tasks, limit=2, num_fewshot=None)


NAMED = """
task: alone
tag:
  - one_tag
  # a remark
  - "another_tag"
group: several
task:
  - inside
  - task: nested
    num_fewshot: 2
"task" : 'quoted'  # said here
tag: [flow_one, flow_two]
"""


def test_every_way_to_name_a_task_is_read():
    found = set(names_in(NAMED))
    assert found >= {"alone", "one_tag", "another_tag", "several", "inside", "nested", "quoted"}
    assert found >= {"flow_one", "flow_two"}


@pytest.mark.slow
def test_a_name_that_no_task_has_is_refused_without_the_library(monkeypatch):
    """The library needs half a minute to read its own tasks; its names are kept in the cache."""
    monkeypatch.setattr(harness, "TaskManager", None)
    with pytest.raises(UsageError, match="no task 'arc_eazy' in lm_eval .*did you mean arc_easy"):
        require_known(["piqa", "arc_eazy"])
    with pytest.raises(UsageError, match="no task 'arc_eazy' in lm_eval"):
        run_tasks(model(), ["arc_eazy"], folder=None, limit=1, num_fewshot=None)


def test_a_misspelt_task_has_a_near_one_named(tasks, monkeypatch):
    # The library's own thousands are left out, which take it half a minute to read.
    monkeypatch.setattr(harness, "TaskManager", partial(TaskManager, include_defaults=False))
    with pytest.raises(UsageError, match="did you mean choices"):
        run_tasks(model(), ["choises"], folder=tasks, limit=1, num_fewshot=None)


@pytest.mark.slow
def test_without_the_library_there_is_a_line_that_says_what_to_install(home, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "platform_harness.tasks")
    said = refused(capsys, home / "run", "--tasks=choices")
    assert "--tasks needs lm-evaluation-harness, which cannot be imported" in said


@pytest.mark.slow
def test_a_name_needs_few_files_and_means_what_it_means_among_all_of_them(tmp_path, monkeypatch):
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path))
    whole = TaskManager()  # which takes ten seconds, and is what the index is made from too
    monkeypatch.setattr(
        needed, "TaskManager", lambda **asked: TaskManager(**asked) if asked else whole
    )
    groups = [name for name in whole.all_groups if name in ("mmlu", "arithmetic", "blimp")]
    known = needed._index()
    assert known.keys() == whole.task_index.keys()
    for name in (*whole.all_tags, *groups, "piqa", "arc_easy"):
        files = needed._files([name], known)
        parts = whole.task_index[name].tags if name in whole.all_tags else {name}
        own = {whole.task_index[part].yaml_path for part in parts if part in whole.task_index}
        assert own <= {needed.FOLDER / file for file in files}, name
    for name in ("piqa", "ai2_arc", *groups):
        narrow = manager_of([name], None)
        assert len(narrow.all_tasks) < len(whole.all_tasks) / 10
        alike = [manager.task_index[name] for manager in (narrow, whole)]
        assert alike[0].cfg == alike[1].cfg
        assert alike[0].tags == alike[1].tags
        for child in known[name]["of"]:
            if child in whole.task_index:
                assert narrow.task_index[child].yaml_path == whole.task_index[child].yaml_path
