"""Laws of services: verbs, evaluations, trackers, corpora, tokenizers, launchers, callbacks,
optimizers and rewards.

The laws are tested without a model and without training, on texts of a few words; laws that may
write files run in a temporary directory.
"""

import inspect
import io
import json
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from platform_core.callback import Callback, Progress
from platform_core.component import ROLES
from platform_core.composition.computed import COMPUTED
from platform_core.composition.options import SPLITS, DataOptions, TrainOptions
from platform_core.composition.sources import SECTIONS, SEED
from platform_core.data.corpus import Corpus
from platform_core.data.tokenizer import CharacterTokenizer, Tokenizer
from platform_core.data.tokenizer.base import BuiltTokenizer
from platform_core.draws import derive_generator
from platform_core.errors import UsageError
from platform_core.process import Absorbing
from platform_core.record.sweep import SweepDirectory
from platform_core.registry.parts import resolve
from platform_core.reward import Graded, Reward
from platform_core.testing.law import Figures, Laws, require
from platform_core.testing.subject import Subject, parameters
from platform_core.testing.toy import TinyNetwork
from platform_core.testing.toy import model as toy_model
from platform_core.types import Tokens

COMMAND, EVALUATION, CORPUS = Laws("command"), Laws("evaluation"), Laws("corpus")
TOKENIZER, LAUNCHER, CALLBACK = Laws("tokenizer"), Laws("launcher"), Laws("callback")
OPTIMIZER, REWARD = Laws("optimizer"), Laws("reward")
ANY_SERVICE = Laws(None)
SERVICE_LAWS = {
    "command": COMMAND,
    "evaluation": EVALUATION,
    "corpus": CORPUS,
    "tokenizer": TOKENIZER,
    "launcher": LAUNCHER,
    "callback": CALLBACK,
    "optimizer": OPTIMIZER,
    "reward": REWARD,
}

TEXTS = ("to be, or not to be", "", "that is\nthe question", "be  be")
"""The texts that tokenizers are built from."""


@contextmanager
def elsewhere() -> Iterator[Path]:
    """Change to an empty temporary directory within the block."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        yield Path(folder)


def answer(main: Callable[[list[str]], int], words: list[str]) -> tuple[int, str]:
    """The exit code of a verb and everything that it prints."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            code = main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, said.getvalue()


@ANY_SERVICE.law()
def has_a_summary(subject: Subject) -> Figures:
    """A service's summary, which `platform plugins` shows, is one line."""
    summary = subject.part.component.summary
    require(bool(summary.strip()) and "\n" not in summary, f"its summary is {summary!r}")
    return summary


@COMMAND.law()
def helps(subject: Subject) -> Figures:
    """With --help, a verb prints its usage and ends with exit code 0."""
    with elsewhere():
        code, said = answer(subject.chosen, ["--help"])
    require(code == 0, f"--help ends with {code}")
    require("usage:" in said, "--help prints no usage")
    return f"{len(said.splitlines())} lines"


@COMMAND.law()
def refuses_unknown_options(subject: Subject) -> Figures:
    """An unknown option of a verb raises a one-line `UsageError`, and nothing is written."""
    with elsewhere() as folder:
        try:
            code, _ = answer(subject.chosen, ["--no_such_option=1"])
        except UsageError as error:
            require("\n" not in str(error), f"its message has several lines: {error}")
            require(not list(folder.iterdir()), "it left files behind")
            return str(error)
    require(False, f"no UsageError was raised; it ended with {code}")
    return None


@EVALUATION.law()
def own_words_parse(subject: Subject) -> Figures:
    """An evaluation's options can be added to a parser; without them, it is not asked for."""
    parser = ArgumentParser(add_help=False)
    subject.chosen.arguments(parser)
    asked = parser.parse_args([])
    require(not subject.chosen.is_asked(asked), "it is asked for without any of its options")
    words = [action.option_strings[0] for action in parser._actions]
    hyphens = [word for word in words if "-" in word[2:]]
    require(not hyphens, f"{', '.join(hyphens)} must be written with underscores")
    return ", ".join(words)


@EVALUATION.law()
def reads_what_there_is(subject: Subject) -> Figures:
    """An evaluation `reads` only sections of options, or single options of them."""
    known = {*SECTIONS, *ROLES, SEED}
    wrong = [key for key in subject.chosen.reads if key.partition(".")[0] not in known]
    require(not wrong, f"it reads {', '.join(wrong)}; the sections are {', '.join(sorted(known))}")
    return ", ".join(subject.chosen.reads)


@cache
def needs_options(name: str, target: str) -> str:
    """Why a corpus cannot be opened by its name without options; empty if it can."""
    from platform_core.data.hub import offline_if_unreachable

    try:
        with offline_if_unreachable():
            opener: Any = resolve(target)
            opener(DataOptions(corpus=name))
    except UsageError as error:
        return f"it opens only with options: {error}"
    return ""


def needs_more_than_its_name(subject: Subject) -> str:
    """Why the corpus under test cannot be opened without options; `needs_options` caches this."""
    return needs_options(subject.name, subject.part.component.target)


def opened(subject: Subject) -> Corpus:
    """Open the corpus without options."""
    found = subject.chosen(DataOptions(corpus=subject.name))
    require(isinstance(found, Corpus), f"{found!r} is not a Corpus")
    assert isinstance(found, Corpus)
    return found


@CORPUS.law(against=needs_more_than_its_name)
def same_documents_each_time(subject: Subject) -> Figures:
    """A corpus has only known splits, and each gives the same texts in the same order each time."""
    corpus = opened(subject)
    require(bool(corpus.splits), "it has no splits")
    unknown = set(corpus.splits) - set(SPLITS)
    require(not unknown, f"{unknown} are none of {SPLITS}")
    counts = {}
    for split in corpus.splits:
        first = list(islice(corpus.documents(split), 50))
        require(bool(first), f"the split {split} is empty")
        require(all(isinstance(text, str) for text in first), f"a text of {split} is not a str")
        require(
            first == list(islice(opened(subject).documents(split), 50)),
            f"the texts of {split} change",
        )
        counts[split] = len(first)
    return ", ".join(f"{split}: {number} read" for split, number in counts.items())


@CORPUS.law(against=needs_more_than_its_name)
def fingerprint_stays(subject: Subject) -> Figures:
    """A corpus's fingerprint is a string that stays the same as long as its documents do."""
    first, second = opened(subject).fingerprint(), opened(subject).fingerprint()
    require(isinstance(first, str) and bool(first), f"its fingerprint is {first!r}")
    require(first == second, f"it is {first}, and then {second}")
    return first[:16]


@CORPUS.law()
def refuses_what_it_does_not_read(subject: Subject) -> Figures:
    """A path that a corpus cannot read raises a one-line `UsageError`."""
    with elsewhere():
        try:
            corpus = subject.chosen(DataOptions(corpus=subject.name, path="nowhere/at all"))
            list(corpus.documents("train"))
        except UsageError as error:
            require("\n" not in str(error), f"its message has several lines: {error}")
            return str(error)[:80]
    require(False, "it accepts --data.path 'nowhere/at all' without an error")
    return None


def built(subject: Subject) -> Tokenizer:
    """The tokenizer built from `TEXTS`."""
    found: Tokenizer = subject.chosen.of_texts(TEXTS)
    return found


@TOKENIZER.law(needs=BuiltTokenizer)
def text_comes_back(subject: Subject) -> Figures:
    """Texts that a tokenizer was built from are decoded unchanged from ids of its vocabulary."""
    tokenizer = built(subject)
    for text, ids in zip(TEXTS, tokenizer.encode_all(TEXTS), strict=True):
        require(ids.size == 0 or int(ids.max()) < tokenizer.vocab_size, f"ids of {text!r}: {ids}")
        read = tokenizer.decode(ids)
        require(read == text, f"{text!r} comes back as {read!r}")
        counted = tokenizer.count_characters(ids)
        require(counted == len(text), f"{text!r} has {len(text)} characters, counted {counted}")
    return f"{tokenizer.vocab_size} tokens"


@TOKENIZER.law(needs=BuiltTokenizer)
def marks_are_no_text(subject: Subject) -> Figures:
    """The ids of padding, beginning and end are in the vocabulary, have no characters, and never
    result from text.
    """
    tokenizer = built(subject)
    marks = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id]
    require(all(0 <= mark < tokenizer.vocab_size for mark in marks), f"marks are {marks}")
    require(tokenizer.count_characters(np.array(marks)) == 0, "marks count as characters")
    used = {int(i) for ids in tokenizer.encode_all(TEXTS) for i in ids}
    require(not used & set(marks), "text is encoded as a mark")
    return f"{marks}"


@TOKENIZER.law(needs=BuiltTokenizer)
def json_round_trip(subject: Subject) -> Figures:
    """`from_dict` restores the same tokenizer from the values of `to_dict`, through JSON."""
    tokenizer = built(subject)
    values = json.loads(json.dumps(tokenizer.to_dict()))
    require(values.get("kind") == subject.name, f"its kind is {values.get('kind')!r}")
    again = subject.chosen.from_dict(values)
    for text in TEXTS:
        same = np.array_equal(tokenizer.encode(text), again.encode(text))
        require(same, f"{text!r} is encoded differently afterwards")
    return f"{len(json.dumps(values))} bytes"


def unusable(subject: Subject) -> str:
    """Why a launcher cannot be used on this machine; empty if it can."""
    with elsewhere() as folder:
        try:
            launcher(subject, folder)
        except UsageError as error:
            return f"it cannot be used here: {error}"
    return ""


def launcher(subject: Subject, folder: Path) -> Any:
    """The launcher of a sweep without trials."""
    # Resolved by name, because launchers belong to the plugin sweep, which core does not import.
    slurm: Any = resolve("platform_sweep.file:SlurmOptions")
    made_from: Any = resolve("platform_sweep.launcher:Setting")
    return subject.chosen(made_from(SweepDirectory(folder / "sweep"), slurm(), 1))


@LAUNCHER.law(against=unusable)
def ends_without_tasks(subject: Subject) -> Figures:
    """Without trials, a launcher's `poll` returns False and its `stop` returns a message."""
    base: Any = resolve("platform_sweep.launcher:Launcher")
    with elsewhere() as folder:
        found = launcher(subject, folder)
        require(isinstance(found, base), f"{found!r} is not a Launcher")
        require(found.interval > 0, f"its interval is {found.interval}")
        found.start([])
        require(not found.poll(), "poll returns True without trials")
        said = found.stop()
    require(isinstance(said, str) and bool(said), "stop returns no message")
    return str(said)


@CALLBACK.law()
def options_have_defaults(subject: Subject) -> Figures:
    """Each option of a callback has a type and a default, so that its name alone chooses it."""
    options = parameters(subject.chosen)
    faults = [p.name for p in options if p.annotation is p.empty or p.default is p.empty]
    require(not faults, f"{', '.join(faults)} have no type or no default")
    return ", ".join(p.name for p in options) or "no options"


def seen(callback: Callback, steps: range) -> list[Any]:
    """A callback's reactions to some updates and evaluations, as (stop, keep) each."""
    reactions = []
    for step in steps:
        loss = 3.0 + (-1) ** step / (step + 1)
        figures = {"loss": loss, "gradient_norm": 1.0, "learning_rate": 1e-3}
        bound = {"nats_per_token": loss, "bits_per_token": loss, "bits_per_character": loss}
        reactions.append(callback.after_update(Progress(step, 20, figures)))
        reactions.append(callback.after_look(Progress(step, 20, {**bound, "perplexity": loss})))
    return [(bool(reaction.stop), reaction.keep) for reaction in reactions]


@CALLBACK.law()
def goes_on_from_its_state(subject: Subject) -> Figures:
    """A callback restored from its state, through JSON, decides as one that was never stopped."""
    whole, first, second = (subject.chosen() for _ in range(3))
    expected = seen(whole, range(1, 20))
    before = seen(first, range(1, 9))
    second.restore(json.loads(json.dumps(dict(first.state()))))
    after = seen(second, range(9, 20))
    require(before + after == expected, "it decides differently after it was restored")
    stops = sum(stop for stop, _ in expected)
    return f"asked to stop {stops} times, to keep {sum(keep for _, keep in expected)} times"


class Fitted:
    """A line of two layers that an optimizer fits to noiseless examples."""

    def __init__(self, make: Callable[..., torch.optim.Optimizer], learning_rate: float) -> None:
        generator = torch.Generator().manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
        for parameter in self.network.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        self.inputs = torch.randn(64, 4, generator=generator)
        self.targets = self.inputs @ torch.randn(4, 3, generator=generator)
        self.parameters = dict(self.network.named_parameters())
        self.optimizer = make(self.parameters, TrainOptions(learning_rate=learning_rate))

    def loss(self) -> torch.Tensor:
        """Mean squared error, a scalar."""
        predicted: torch.Tensor = self.network(self.inputs)
        return (predicted - self.targets).square().mean()

    def update(self, number: int) -> None:
        """So many updates, as the trainer makes them."""
        for _ in range(number):
            self.optimizer.zero_grad()
            torch.autograd.backward(self.loss())
            self.optimizer.step()

    def take(self, other: "Fitted") -> None:
        """Another's weights and state, as a checkpoint keeps them."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(other.parameters[name].data)
            for key, value in other.optimizer.state[other.parameters[name]].items():
                self.optimizer.state[parameter][key] = value.clone()


@OPTIMIZER.law()
def lowers_a_loss(subject: Subject) -> Figures:
    """In 200 updates of a small problem, the loss falls to less than half."""
    fitted = Fitted(subject.chosen, 1e-2)
    before = fitted.loss().item()
    fitted.update(200)
    after = fitted.loss().item()
    require(after < before / 2, f"the loss is {before:.3g} before and {after:.3g} after")
    return f"{before:.3g} to {after:.3g}"


@OPTIMIZER.law()
def follows_the_learning_rate(subject: Subject) -> Figures:
    """Where the trainer sets the learning rate to 0, no weight moves."""
    fitted = Fitted(subject.chosen, 1e-2)
    fitted.update(3)
    before = {name: tensor.detach().clone() for name, tensor in fitted.parameters.items()}
    for group in fitted.optimizer.param_groups:
        require("lr" in group, "a group of its parameters has no learning rate `lr`")
        group["lr"] = 0.0
    fitted.update(1)
    moved = [n for n, tensor in fitted.parameters.items() if not torch.equal(tensor, before[n])]
    require(not moved, f"{', '.join(moved)} moved at learning rate 0")
    return "no weight moves"


@OPTIMIZER.law()
def resumes_exactly(subject: Subject) -> Figures:
    """With the weights and the tensors in `state`, another optimizer makes the same updates."""
    whole, first, second = (Fitted(subject.chosen, 1e-2) for _ in range(3))
    whole.update(6)
    first.update(3)
    tensors = [v for p in first.parameters.values() for v in first.optimizer.state[p].values()]
    require(all(isinstance(v, torch.Tensor) for v in tensors), "its state is not of tensors alone")
    second.take(first)
    second.update(3)
    same = all(torch.equal(t, second.parameters[name]) for name, t in whole.parameters.items())
    require(same, "the weights differ after it was resumed")
    return f"{len(tensors)} tensors of state"


def reward_options(subject: Subject) -> list[inspect.Parameter]:
    """The options of a reward, without what is computed from other parts."""
    return [p for p in parameters(subject.chosen) if p.name not in COMPUTED["reward"]]


@REWARD.law()
def options_have_types(subject: Subject) -> Figures:
    """Each option of a reward has a type, and none is called name."""
    options = reward_options(subject)
    untyped = [p.name for p in options if p.annotation is p.empty]
    require(not untyped, f"{', '.join(untyped)} have no type")
    require("name" not in (p.name for p in options), "name is a reserved name")
    return ", ".join(p.name for p in options) or "no options"


def needs_more_than_defaults(subject: Subject) -> str:
    """Which options of a reward have no default; empty if all have."""
    without = [p.name for p in reward_options(subject) if p.default is p.empty]
    return f"it needs the options {', '.join(without)}" if without else ""


def prepared(subject: Subject) -> tuple[Reward, Tokens, Absorbing]:
    """A reward that is ready, clean texts, and the process of a model that would draw them."""
    tokenizer = CharacterTokenizer.of_texts(TEXTS)
    process = Absorbing(tokenizer.vocab_size)
    reward: Reward = subject.make(
        vocab_size=process.vocab_size,
        num_states=process.num_states,
        tokenizer=tokenizer,
        pad_id=tokenizer.pad_id,
    )
    reward.prepare(toy_model(process, TinyNetwork(process.num_states)))
    letters = torch.tensor(tokenizer.encode("".join(TEXTS)).astype(np.int64))
    places = torch.randint(len(letters), (6, 9), generator=derive_generator("reward"))
    return reward, letters[places], process


@REWARD.law(against=needs_more_than_defaults)
def values_each_text(subject: Subject) -> Figures:
    """A reward gives one finite number in float64 for each text, whatever the other texts are."""
    reward, texts, _ = prepared(subject)
    found = reward(texts)
    require(found.shape == (6,), f"it gives {tuple(found.shape)} for 6 texts")
    require(found.dtype == torch.float64, f"its numbers are {found.dtype}")
    require(bool(found.isfinite().all()), f"a number is not finite: {found.tolist()}")
    alone = torch.cat([reward(text[None]) for text in texts])
    require(bool(torch.allclose(found, alone)), "the value of a text depends on the others")
    return ", ".join(f"{value:.3g}" for value in found.tolist())


@REWARD.law(needs=Graded, against=needs_more_than_defaults)
def values_each_state(subject: Subject) -> Figures:
    """A graded reward gives a row of numbers for each selected position: one for each state."""
    reward, texts, process = prepared(subject)
    assert isinstance(reward, Graded)
    texts[:, ::2] = process.mask_id
    level = torch.full((1, 1), 0.5, dtype=torch.float64)
    gains = reward.gains(texts, texts == process.mask_id, level, level)
    expected = (int((texts == process.mask_id).sum()), process.num_states)
    require(gains.shape == expected, f"its gains are {tuple(gains.shape)}, not {expected}")
    require(bool(gains.isfinite().all()), "a gain is not finite")
    return f"{expected[0]} rows of {expected[1]} states"
