"""How figures were made: the card that goes with them wherever they are written.

what all share: kind, step, parts, seed, tokenizer, units, machine   (card_of)
what a bound depends on besides                                      (bound_facts)
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
    """The card of anything that is measured of a run; `TrainedRun.card` calls it.

    Args:
        composition: of the run, with the options of the measurement.
        tokenizer: of the run.
        accelerator: where it was measured.
        kind: what was measured, such as "bound" or "judged".
        step: updates of the network.
        units: a sentence on the units of the figures.
        facts: what else figures of this kind depend on.

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
        facts=facts,
    )


def bound_kind(bound: Bound) -> str:
    """The kind of a bound's card: `value` where it is the negative log-likelihood itself."""
    return "bound" if bound.noise_levels else "value"


def bound_facts(
    bound: Bound, options: EvaluateOptions, text: DataOptions, data: Data
) -> dict[str, Any]:
    """The facts that two bounds must share to be compared, and others that a reader may need.

    Args:
        bound: the numbers.
        options: of the evaluation.
        text: what was read.
        data: that text as sequences.
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


def tokenizer_card(tokenizer: Tokenizer) -> Mapping[str, Any]:
    """The tokens that figures of a token are of."""
    values = tokenizer.to_dict()
    return {
        "kind": values["kind"],
        "vocab_size": tokenizer.vocab_size,
        "digest": digest_of(values),
    }
