"""Tasks of lm-evaluation-harness for a trained run: the only module that imports lm_eval.

    task -> (context, continuation) -> tokens -> Question -> likelihood -> (log p, guessed)

The choices of one item are one question; `likelihood` defines the scores. Texts are

    beginning of a document, if the run's sequences have one;  context;  continuation

without an end, since a training sequence can continue or stop anywhere. Spaces at a context's end
move to the continuation, and both are tokenized together, as lm_eval's own models do it.

A text longer than the training sequences loses tokens at the left. All choices of an item lose them
up to the same room, so that they keep a common context. A choice that is too long by itself, has no
token, or has characters that the tokenizer lacks, cannot be scored. Such a choice is ranked below
all others, also per character and per byte, and its item counts as wrong whatever the other choices
are. Unknown characters in contexts become the unknown token, the same for all choices. Items with
cut contexts, unknown characters or choices that cannot be scored are counted.

Tasks of generated text (generate_until) get what the run's sampler writes (`generation`).
"""

import logging
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import datasets
import lm_eval
from accelerate import Accelerator
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from tqdm import tqdm

from platform_core.data import hub
from platform_core.data.tokenizer import Ids, Tokenizer
from platform_core.draws import derive_seed
from platform_core.errors import UsageError, did_you_mean
from platform_core.guidance import guided
from platform_core.runtime.accelerator import from_all, own_share
from platform_harness.generation import Asked, Writer, Written
from platform_harness.likelihood import Answer, Likelihood, Question, Text, answers
from platform_harness.names import names_below, require_known
from platform_harness.needed import manager_of

if TYPE_CHECKING:
    from platform_core.evaluation.trained import TrainedRun

VERSION: str = lm_eval.__version__

ACCURACIES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match")
"""Metrics of single items, 1 or 0; their mean is recomputed with unscored items as wrong."""

LOCAL_FORMATS = ("json", "csv", "parquet", "text", "arrow", "pandas")
"""What `dataset_path` of a task says if its data are files."""

Key = tuple[str, int]
"""Name of a task and number of an item."""


@dataclass(frozen=True)
class Reader:
    """Converter of text to tokens for the model.

    Args:
        tokenizer: tokenizer of the run.
        begin: token before each document, or none.
        length: tokens in a training sequence.
    """

    tokenizer: Tokenizer
    begin: tuple[int, ...]
    length: int

    def readable(self, text: str) -> bool:
        """Whether the tokenizer knows every character of the text."""
        try:
            self.tokenizer.with_unknown("error").encode(text)
        except UsageError:
            return False
        return True

    def tokens(self, text: str) -> tuple[int, ...]:
        """Tokens of any text; characters that the tokenizer lacks become unknown ones."""
        return tuple(int(token) for token in self._encode(text))

    def pair(self, context: str, continuation: str) -> Text:
        """A continuation after its context, of any length."""
        kept = context.rstrip()
        continuation, context = context[len(kept) :] + continuation, kept
        known = self.begin + self.tokens(context)
        return Text(self.begin + self.tokens(context + continuation), len(known))

    def _encode(self, text: str) -> Ids:
        try:
            return self.tokenizer.with_unknown("replace").encode(text)
        except UsageError:
            # A tokenizer that can encode every text refuses to replace unknown characters.
            return self.tokenizer.encode(text)


@dataclass
class Counts:
    """Items of one task by what happened to them, and the noise errors of scores."""

    items: set[Key] = field(default_factory=set)
    cut: set[Key] = field(default_factory=set)
    unknown: set[Key] = field(default_factory=set)
    unscored: set[Key] = field(default_factory=set)
    compared: set[Key] = field(default_factory=set)
    undecided: set[Key] = field(default_factory=set)
    shortened: set[Key] = field(default_factory=set)
    evaluations: list[int] = field(default_factory=list)
    """Network evaluations of each text that was generated."""
    errors: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Every count by name."""
        drawn = {
            "nfe": max(self.evaluations, default=0),
            "nfe_per_text": sum(self.evaluations) / max(1, len(self.evaluations)),
            "items_with_less_room": len(self.shortened),
        }
        return {
            **(drawn if self.evaluations else {}),
            "items_with_cut_context": len(self.cut),
            "items_with_unknown_characters": len(self.unknown),
            "items_that_cannot_be_scored": len(self.unscored),
            "items_compared": len(self.compared),
            "items_undecided_by_noise": len(self.undecided),
            "mean_noise_error_of_a_score": sum(self.errors) / max(1, len(self.errors)),
        }


@final
class TrainedLm(LM):  # type: ignore[misc]  # lm_eval's types are not read
    """A trained model with the interface that lm_eval queries.

    Args:
        likelihood: way to compute a score.
        reader: converter of text to tokens.
        accelerator: device and precision.
        batch_size: noisy texts at once.
        seed: seed of all noise.
        label: label of all texts, where the network reads labels.
        writer: what generates text; None to refuse tasks of generated text.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        reader: Reader,
        accelerator: Accelerator,
        *,
        batch_size: int,
        seed: int,
        label: int | None = None,
        writer: Writer | None = None,
    ) -> None:
        super().__init__()
        self.writer = writer
        self.likelihood, self.reader, self.accelerator = likelihood, reader, accelerator
        self.batch_size, self.seed, self.label = batch_size, seed, label
        self.counts: dict[str, Counts] = defaultdict(Counts)
        self.seconds = 0.0

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """log p of each continuation after its context, and whether it is the likeliest one."""
        items: dict[Key, list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            items[request.task_name, request.doc_id].append(place)
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        prepared = [self._item(key, [requests[p] for p in items[key]]) for key in items]
        asked = [item for item in prepared if item.texts]
        by_key = dict(zip((item.key for item in asked), self._answers(asked), strict=True))
        for item in prepared:
            scores = self._scores(item, by_key.get(item.key))
            for place, score in zip(items[item.key], scores, strict=True):
                found[place] = score
        return found

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """log p of each text; longer texts are read in windows that overlap in one token."""
        items = []
        for request in requests:
            key, (text,) = (request.task_name, request.doc_id), request.args
            self.counts[key[0]].items.add(key)
            if not self.reader.readable(text):
                self.counts[key[0]].unknown.add(key)
            items.append(_Item(key, self._windows(text), [], seed=self._seed(key)))
        asked = [item for item in items if item.texts]
        by_key = dict(zip((item.key for item in asked), self._answers(asked), strict=True))
        for key, answer in by_key.items():
            self.counts[key[0]].errors.append(answer.sum_error)
        return [sum(by_key[item.key].log_probs) if item.texts else 0.0 for item in items]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What the sampler writes behind each context, up to a stop string.

        Several processes write every n-th text each.

        Raises:
            UsageError: this model has no sampler, or a task asks for no tokens.
        """
        if self.writer is None:
            raise UsageError(
                f"task {requests[0].task_name} asks for generated text, and this model has no "
                "sampler; choose a task that scores given text"
            )
        began, show = time.perf_counter(), self.accelerator.is_main_process
        seeds = self._text_seeds(requests)
        places = own_share(list(range(len(requests))))
        bar = tqdm(places, unit="text", dynamic_ncols=True, disable=not show)
        own = [(place, self._written(requests[place], seeds[place], self.writer)) for place in bar]
        found = sorted(from_all(own), key=lambda pair: pair[0])
        for place, written in found:
            self._count(requests[place], written)
        self.seconds += time.perf_counter() - began
        return [written.text for _, written in found]

    def _text_seeds(self, requests: Sequence[Instance]) -> list[int]:
        """A seed for each text; a task may ask for several texts behind one context."""
        seen: dict[Key, int] = defaultdict(int)
        seeds = []
        for request in requests:
            key = (request.task_name, request.doc_id)
            seeds.append(derive_seed(self._seed(key), "text", seen[key]))
            seen[key] += 1
        return seeds

    def _written(self, request: Instance, seed: int, writer: Writer) -> Written:
        context, arguments = request.args
        try:
            asked = Asked.read(arguments)
        except ValueError as error:
            raise UsageError(f"task {request.task_name}: {error}") from error
        tokens = self.reader.begin + self.reader.tokens(context)
        return writer.write(tokens, asked, seed)

    def _count(self, request: Instance, written: Written) -> None:
        counts, key = self.counts[request.task_name], (request.task_name, request.doc_id)
        counts.items.add(key)
        counts.evaluations.append(written.nfe)
        for happened, items in ((written.cut, counts.cut), (written.shortened, counts.shortened)):
            if happened:
                items.add(key)
        if not self.reader.readable(request.args[0]):
            counts.unknown.add(key)

    def _item(self, key: Key, requests: Sequence[Instance]) -> "_Item":
        """The texts of one item that can be scored, cut together to the length of training."""
        counts = self.counts[key[0]]
        counts.items.add(key)
        pairs = [tuple(map(str, request.args[:2])) for request in requests]
        if not all(self.reader.readable(context) for context, _ in pairs):
            counts.unknown.add(key)
        whole = [self.reader.pair(*pair) for pair in pairs]
        scored = [
            0 < len(text.tokens) - text.given <= self.reader.length and self.reader.readable(choice)
            for text, (_, choice) in zip(whole, pairs, strict=True)
        ]
        if not all(scored):
            counts.unscored.add(key)
        texts = [text for text, fits in zip(whole, scored, strict=True) if fits]
        room = self.reader.length - max((len(t.tokens) - t.given for t in texts), default=0)
        if any(text.given > room for text in texts):
            counts.cut.add(key)
        places = iter(range(len(texts)))
        return _Item(
            key,
            [_behind(text, room) for text in texts],
            [
                (next(places) if fits else None, pair[1])
                for fits, pair in zip(scored, pairs, strict=True)
            ],
            seed=self._seed(key),
        )

    def _scores(self, item: "_Item", answer: Answer | None) -> list[tuple[float, bool]]:
        counts = self.counts[item.key[0]]
        log_probs = answer.log_probs if answer else []
        if answer:
            counts.errors += answer.standard_errors
            if len(log_probs) > 1:
                counts.compared.add(item.key)
            if answer.margin < 2 * answer.margin_error:
                counts.undecided.add(item.key)
        # Below all scores, even after division by the choice's characters or bytes.
        lowest = min([0.0, *log_probs]) - 1
        return [
            (lowest * max(1, len(choice.encode())), False)
            if place is None or answer is None
            else (answer.log_probs[place], answer.guessed[place])
            for place, choice in item.choices
        ]

    def _windows(self, text: str) -> list[Text]:
        """Windows that score every token once; the first token of each later window is given."""
        tokens, length = self.reader.begin + self.reader.tokens(text), self.reader.length
        given, windows = len(self.reader.begin), []
        start = 0
        while start + given < len(tokens):
            windows.append(Text(tokens[start : start + length], given))
            start, given = start + length - 1, 1
        return windows

    def _answers(self, items: Sequence["_Item"]) -> list[Answer]:
        """The answers for all items; several processes read every n-th item each."""
        began = time.perf_counter()
        asked = [Question(item.texts, item.seed) for item in own_share(items)]
        show = self.accelerator.is_main_process
        with self.accelerator.autocast():
            found = answers(
                self.likelihood,
                asked,
                device=self.accelerator.device,
                batch_size=self.batch_size,
                label=self.label,
            )
            bar = tqdm(found, total=len(asked), unit="item", dynamic_ncols=True, disable=not show)
            read = from_all(list(bar))
        self.seconds += time.perf_counter() - began
        return read

    def _seed(self, key: Key) -> int:
        return derive_seed(self.seed, "harness", *key)


@dataclass(frozen=True)
class _Item:
    """The texts of an item, and for each request the place of its text and its continuation."""

    key: Key
    texts: list[Text]
    choices: list[tuple[int | None, str]]
    seed: int


def _behind(text: Text, room: int) -> Text:
    """The same continuation after as much of its context as there is room for."""
    dropped = max(0, text.given - room)
    return Text(text.tokens[dropped:], text.given - dropped)


@dataclass(frozen=True)
class Outcome:
    """The results of one task; `generated` says whether its answers were drawn."""

    task: str
    version: Any
    items: int
    metrics: dict[str, float]
    """Metrics by name, with `NAME_standard_error` where an error is known."""
    counts: dict[str, Any]
    generated: bool = False

    @property
    def place(self) -> str:
        """Where a record keeps the metrics; drawn answers are compared by sampler."""
        return "drawn" if self.generated else "metrics"


def written_by(run: "TrainedRun") -> Writer:
    """The run's own sampler, as a writer of text."""
    composition = run.composition
    wish = composition.sample
    return Writer(
        guided(run.model, run.labels, wish),
        run.sampler,
        run.tokenizer,
        run.accelerator,
        run.sample_length,
        facts={"name": composition.names["sampler"], **composition.options("sampler")},
        guidance={"label": wish.label, "guidance": wish.guidance} if run.labels else {},
    )


def _unreadable(names: Sequence[str], error: OSError) -> UsageError:
    why = "" if hub.reachable() else "; the hub cannot be reached from here"
    return UsageError(
        f"the data of {', '.join(names)} cannot be read: {str(error).splitlines()[0]}{why}; "
        "give tasks of local files with --task_path DIR"
    )


def run_tasks(
    model: TrainedLm,
    names: Sequence[str],
    *,
    folder: Path | None,
    limit: int | None,
    num_fewshot: int | None,
) -> list[Outcome]:
    """Run every task that the names stand for.

    Args:
        model: the model to query.
        names: names of tasks, groups or tags.
        folder: folder of the user's own tasks; if it has all the names, lm_eval's are not read.
        limit: items of each task; None for all.
        num_fewshot: solved examples before each item; None for the task's own number.

    Raises:
        UsageError: there is no such task, its data cannot be read, it has a mistake, or it needs
            something that this model cannot do.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    manager = _manager(names, folder)
    try:
        with redirect_stdout(StringIO()), _reaching(manager, names):
            results = lm_eval.simple_evaluate(
                model=model,
                tasks=list(names),
                task_manager=manager,
                limit=limit,
                num_fewshot=num_fewshot,
                bootstrap_iters=0,
                log_samples=True,
            )
    except OSError as error:
        raise _unreadable(names, error) from error
    except UsageError:
        raise
    except Exception as error:  # Tasks are programs, which may raise anything.
        if _is_ours(error):
            raise
        raise _mistake(names, error, folder) from error
    if results is None:  # this is one of several processes, and the first has them
        return []
    return [_outcome(task, results, model.counts[task]) for task in results["samples"]]


def _reaching(manager: TaskManager, names: Sequence[str]) -> AbstractContextManager[None]:
    """Tasks of files on this machine open no connection; others do if the hub can be reached."""
    index = manager.task_index
    alone = set(names) <= set(manager.all_subtasks)  # Groups and tags are of other tasks.
    read = [data for name in (names if alone else index) for data in _data(index[name].cfg)]
    here = bool(read) and all(map(_is_local, read))
    return hub.offline() if here else hub.offline_if_unreachable()


def _data(config: object) -> Iterator[Mapping[str, Any]]:
    """The tasks in a task file, or in the list of a group, that say where their data are."""
    if isinstance(config, list):
        yield from (task for child in config for task in _data(child))
    elif isinstance(config, dict):
        if config.keys() & {"dataset_path", "custom_dataset", "class"}:
            yield config
        yield from _data(config.get("task"))


def _is_local(task: Mapping[str, Any]) -> bool:
    """Whether a task reads nothing but files of this machine, as far as its YAML file says."""
    place, arguments = str(task.get("dataset_path")), task.get("dataset_kwargs") or {}
    if task.keys() & {"custom_dataset", "class"} or "://" in str(arguments):
        return False
    return place in LOCAL_FORMATS or Path(place).is_dir()


def _mistake(names: Sequence[str], error: Exception, folder: Path | None) -> UsageError:
    said = " ".join(str(error).split())[:300]
    return UsageError(
        f"task {', '.join(names)}: {type(error).__name__}: {said or 'no more is said'}; correct "
        f"its YAML file{' or its data' if folder else ''}, or leave the task out"
    )


def _is_ours(error: Exception) -> bool:
    """Whether an error that `run_tasks` caught was raised while lm_eval queried the model."""
    frame = error.__traceback__.tb_next if error.__traceback__ else None
    while frame is not None:
        if frame.tb_frame.f_globals.get("__name__") == __name__:
            return True
        frame = frame.tb_next
    return False


def _manager(names: Sequence[str], folder: Path | None) -> TaskManager:
    """The tasks of a folder; also lm_eval's thousands of tasks, but only if they are needed.

    Raises:
        UsageError: there is no such folder, or no such task.
    """
    own: list[str] = []
    if folder is not None:
        if not folder.is_dir():
            raise UsageError(
                f"--task_path {folder} is no directory; give one that holds tasks as YAML files"
            )
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        own = manager.all_tasks
        if set(names) <= set(own):
            return manager
    require_known(names, own, folder)
    inner = names_below(folder) if folder is not None else set()
    narrow = manager_of({*names, *inner}, folder)
    if narrow is not None and set(names) <= set(narrow.all_tasks):
        return narrow
    manager = TaskManager(include_path=None if folder is None else str(folder))
    for name in names:
        if name not in manager.all_tasks:
            near = did_you_mean(name, manager.all_tasks)
            raise UsageError(
                f"no task {name!r} in lm_eval {VERSION}"
                + (f" or {folder}" if folder else "")
                + (near or "; give a task of your own with --task_path DIR")
            )
    return manager


def _outcome(task: str, results: Mapping[str, Any], counts: Counts) -> Outcome:
    """Accuracies that count items without a score as wrong; other metrics as lm_eval has them."""
    samples = results["samples"][task]
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    metrics: dict[str, float] = {}
    for name, value in results["results"][task].items():
        metric, _, kind = name.partition(",")
        if kind not in filters or metric.endswith("_stderr") or not isinstance(value, (int, float)):
            continue
        shown = metric if len(filters) == 1 else f"{metric}/{kind}"
        if metric not in ACCURACIES:
            metrics[shown] = float(value)
            continue
        of_filter = [sample for sample in samples if sample["filter"] == kind]
        scored = [(task, sample["doc_id"]) not in counts.unscored for sample in of_filter]
        right = [float(sample[metric]) for sample in of_filter]
        counted = [value * can for value, can in zip(right, scored, strict=True)]
        metrics |= _mean(shown, counted)
        if any(scored) and not all(scored):
            metrics |= _mean(f"{shown}_where_scored", list(compress(right, scored)))
    choices = [len(sample["resps"]) for sample in samples]
    if "acc" in metrics and min(choices) > 1 and "acc_mutual_info" not in metrics:
        metrics["chance"] = statistics.fmean(1 / number for number in choices)
    number = len({sample["doc_id"] for sample in samples})
    generated = bool(counts.evaluations)
    return Outcome(task, results["versions"][task], number, metrics, counts.summary(), generated)


def _mean(name: str, values: Sequence[float]) -> dict[str, float]:
    """A mean over items, and its standard error if there are at least two items."""
    found = {name: statistics.fmean(values)}
    if len(values) > 1:
        found[f"{name}_standard_error"] = statistics.stdev(values) / math.sqrt(len(values))
    return found
