"""Cards of figures: how figures were made, stored wherever the figures are written.

facts of every card: kind, step, parts, options of the objective, seed,
                     tokenizer, units, machine                            (card_of)
further facts of a bound                                                  (bound_facts)
a fact of every card of a run that was trained on a mix                   (mix_facts)
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from accelerate import Accelerator

from platform_core.composition.compose import Composition
from platform_core.composition.options import DataOptions, EvaluateOptions
from platform_core.data.sequences import Data
from platform_core.data.tokenizer import Tokenizer
from platform_core.evaluation.bound import Bound
from platform_core.record.cards import Card
from platform_core.record.files import digest_of
from platform_core.runtime import accelerator as runtime

MIX = "mix"
"""What environment.json of a run, and its cards, call the corpora that it was trained on."""


def card_of(
    composition: Composition,
    tokenizer: Tokenizer,
    accelerator: Accelerator,
    *,
    kind: str,
    step: int,
    units: str,
    facts: Mapping[str, Any],
) -> Card:
    """The card of any measurement of a run; `TrainedRun.card` calls this function.

    Args:
        composition: composition of the run, with the options of the measurement.
        tokenizer: tokenizer of the run.
        accelerator: where the figures were measured.
        kind: what was measured, such as "bound" or "judged".
        step: number of updates of the network.
        units: a sentence on the units of the figures.
        facts: further facts on which figures of this kind depend.

    Raises:
        ValueError: `facts` has a name that all cards use already.
    """
    return Card.made(
        kind,
        step=step,
        parts=dict(composition.names),
        seed=composition.seed,
        tokenizer=tokenizer_card(tokenizer),
        units=units,
        machine=runtime.describe(accelerator, composition.provenance()),
        facts={"objective": composition.options("objective"), **facts},
    )


def bound_kind(bound: Bound) -> str:
    """The kind of a bound's card: `value` if the bound is the negative log-likelihood itself."""
    return "bound" if bound.noise_levels else "value"


def bound_facts(
    bound: Bound, options: EvaluateOptions, text: DataOptions, data: Data
) -> dict[str, Any]:
    """The facts that two bounds must share to be compared, and others that a reader may need.

    Args:
        bound: the bound.
        options: options of the evaluation.
        text: options of the evaluated text.
        data: the evaluated text as sequences.
    """
    split = data.split(options.split).spread(options.sequences)
    unknown = data.tokenizer.unknown_id
    return {
        "evaluate": asdict(options),
        "data": asdict(text),
        "text": data.text,
        "fingerprint": data.fingerprint,
        "unknown_tokens": int((split.tokens() == unknown).sum()) if unknown is not None else 0,
        "label": text.label,
        "conditional": bool(data.labels),
        "sequences": bound.sequences,
        "noise_levels_per_sequence": bound.noise_levels,
    }


def mix_facts(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The shares of the corpora in a run's training, by name; nothing where it had one corpus.

    Args:
        environment: what the run keeps in environment.json.
    """
    mix = environment.get(MIX, {})
    return {MIX: {name: of["share"] for name, of in mix.items()}} if mix else {}


def tokenizer_card(tokenizer: Tokenizer) -> Mapping[str, Any]:
    """The kind, vocabulary size and digest of the tokenizer on which figures per token depend."""
    values = tokenizer.to_dict()
    return {
        "kind": values["kind"],
        "vocab_size": tokenizer.vocab_size,
        "digest": digest_of(values),
    }
