"""A plugin of services that are wrong on purpose, each in one way that a law has to notice."""

import random
from dataclasses import replace

import torch  # which registering a plugin must not import

import platform_sweep.launcher
from platform_core.callback import Callback, Progress, Reaction
from platform_core.component import Component
from platform_core.data.corpus import Corpus
from platform_core.data.tokenizer import CharacterTokenizer
from platform_core.data.tokenizer.base import BuiltTokenizer
from platform_core.errors import UsageError
from platform_core.evaluation.evaluation import Evaluation
from platform_core.hookspecs import hookimpl
from platform_core.reward import Graded, Reward


def silent(argv):
    """Says nothing of itself."""
    if argv == ["--help"]:
        return 0
    raise UsageError(f"what is {argv}?")


def greedy(argv):
    """Takes whatever it is given."""
    print("usage: greedy")
    return 0


class Always(Evaluation):
    """Is asked for always."""

    reads = ("evaluate",)

    @classmethod
    def arguments(cls, parser):
        parser.add_argument("--always", default=True)

    @classmethod
    def is_asked(cls, asked):
        return asked.always

    def records(self, run, asked):
        yield from ()


class ReadsNonsense(Always):
    """Reads what there is not."""

    reads = ("evalaute.split",)

    @classmethod
    def is_asked(cls, asked):
        return False


class Plain(Corpus):
    """Three texts."""

    def documents(self, split):
        return iter(["one", "two", "three"])

    def fingerprint(self):
        return "three"


class Shuffled(Plain):
    """In another order each time."""

    def documents(self, split):
        texts = [str(number) for number in range(50)]
        random.shuffle(texts)
        return iter(texts)


class Restless(Plain):
    """Its fingerprint never comes back."""

    def fingerprint(self):
        return str(random.random())


def refusing(corpus):
    def open_corpus(options):
        if options.path is not None:
            raise UsageError("no paths")
        return corpus()

    return open_corpus


shuffled, restless = refusing(Shuffled), refusing(Restless)


def takes_any_path(options):
    return Plain()


class Lower(BuiltTokenizer):
    """Characters of small letters; built on `CharacterTokenizer`."""

    kind = "lower"
    forget = False

    def __init__(self, inner):
        self.inner = inner

    vocab_size = property(lambda self: self.inner.vocab_size)
    pad_id = bos_id = eos_id = property(lambda self: self.inner.eos_id)
    special = property(lambda self: self.inner.special)
    unknown_id = property(lambda self: self.inner.unknown_id)

    def encode_all(self, texts):
        return self.inner.encode_all(texts)

    def decode(self, ids):
        return self.inner.decode(ids)

    def count_characters(self, ids):
        return self.inner.count_characters(ids)

    def with_unknown(self, unknown):
        return self

    def to_dict(self):
        return {**self.inner.to_dict(), "kind": self.kind}

    @classmethod
    def from_dict(cls, values):
        return cls(CharacterTokenizer(values["characters"], "replace"))

    @classmethod
    def of_texts(cls, texts):
        return cls(CharacterTokenizer("".join(texts)))


class LosesSpaces(Lower):
    """Reads text back without its spaces."""

    kind = "loses-spaces"

    def decode(self, ids):
        return self.inner.decode(ids).replace(" ", "")


class EndsInText(Lower):
    """Its end is a letter of the text."""

    kind = "ends-in-text"
    pad_id = bos_id = eos_id = property(lambda self: int(self.inner.encode("t")[0]))


class Forgets(Lower):
    """Comes back from JSON without most of its letters."""

    kind = "forgets"

    def to_dict(self):
        return {**self.inner.to_dict(), "kind": self.kind, "characters": "abc"}


class Endless(platform_sweep.launcher.Launcher):
    """Always has something to come."""

    interval = 0.1

    def start(self, tasks):
        self.tasks = tasks

    def poll(self):
        return True

    def stop(self):
        return "never"

    def kill(self):
        self.tasks = []


def endless(setting):
    return Endless()


class NeedsAnOption(Callback):
    """Cannot be chosen by its name alone."""

    def __init__(self, limit: int = 3, *, extra=None) -> None:
        self.limit, self.extra = limit, extra


class Forgetful(Callback):
    """Counts, and forgets its count in checkpoints."""

    def __init__(self, patience: int = 12) -> None:
        self.patience, self.seen = patience, 0

    def after_update(self, progress: Progress) -> Reaction:
        self.seen += 1
        return Reaction(stop="enough" if self.seen > self.patience else "")


def component(found, summary="wrong on purpose"):
    name = "".join(f"-{c.lower()}" if c.isupper() or c == "_" else c for c in found.__name__)
    name = name.replace("-_", "-").strip("-")
    return Component(name, f"{__name__}:{found.__name__}", summary)


@hookimpl
def platform_commands():
    return [
        component(silent),
        component(greedy),
        replace(component(greedy), name="mute", summary=""),
    ]


@hookimpl
def platform_evaluations():
    return [component(Always), component(ReadsNonsense)]


@hookimpl
def platform_corpora():
    names = {"shuffled": "", "restless": "", "takes-any-path": ""}
    return [Component(n, f"{__name__}:{n.replace('-', '_')}", "wrong on purpose") for n in names]


@hookimpl
def platform_tokenizers():
    return [component(found) for found in (LosesSpaces, EndsInText, Forgets)]


@hookimpl
def platform_launchers():
    return [component(endless)]


class Standing(torch.optim.SGD):
    """Moves nothing."""

    def step(self, closure=None):
        pass


class OwnRate(torch.optim.SGD):
    """Has a learning rate of its own."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.1
        super().step()


class CountsItself(torch.optim.SGD):
    """Counts its steps where no checkpoint sees it."""

    steps = 0

    def step(self, closure=None):
        self.steps += 1
        for group in self.param_groups:
            group["lr"] *= 1 if self.steps % 2 else 0.5
        super().step()


def standing(parameters, options):
    return Standing(parameters.values(), options.learning_rate)


def own_rate(parameters, options):
    return OwnRate(parameters.values(), options.learning_rate)


def counts_itself(parameters, options):
    return CountsItself(parameters.values(), 0.3)


@hookimpl
def platform_optimizers():
    return [component(found) for found in (standing, own_rate, counts_itself)]


class Untyped(Reward):
    """Says nothing of the type of its option."""

    def __init__(self, weight=1.0):
        self.weight = weight

    def __call__(self, texts):
        return self.weight * texts.double().mean(-1)


class Ranked(Graded):
    """Compares the texts with each other, and values vocabularies without a mask."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def __call__(self, texts):
        return texts.sum(-1).argsort().argsort().double()

    def gains(self, x_t, selected, alpha_s, alpha_t):
        return torch.zeros(int(selected.sum()), self.vocab_size, dtype=torch.float64)


@hookimpl
def platform_rewards():
    return [component(Untyped), component(Ranked)]


@hookimpl
def platform_callbacks():
    absent = Component("absent", f"{__name__}:Absent", "is not there")
    return [component(NeedsAnOption), component(Forgetful), absent]
