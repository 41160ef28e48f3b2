"""How a bound was made: the card that goes with its numbers wherever they are written."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from platform_core.composition.options import DataOptions, EvaluateOptions
from platform_core.data.sequences import Data
from platform_core.data.tokenizer import Tokenizer
from platform_core.evaluation.bound import Bound
from platform_core.record.files import digest_of


def bound_card(
    bound: Bound, options: EvaluateOptions, text: DataOptions, data: Data, *, step: int
) -> dict[str, Any]:
    """What two bounds must share to be compared, and what else a reader wants to know.

    Args:
        bound: the numbers.
        options: of the evaluation.
        text: what was read.
        data: that text as sequences.
        step: updates of the network.
    """
    split = data.split(options.split).spread(options.sequences)
    unknown = data.tokenizer.unknown_id
    return {
        "kind": "bound" if bound.noise_levels else "value",
        "step": step,
        "evaluate": asdict(options),
        "data": asdict(text),
        "text": data.text,
        "fingerprint": data.fingerprint,
        "tokenizer": tokenizer_card(data.tokenizer),
        "unknown_tokens": int((split.tokens() == unknown).sum()) if unknown is not None else 0,
        "label": text.label,
        "conditional": bool(data.labels),
        "sequences": bound.sequences,
        "noise_levels_per_sequence": bound.noise_levels,
    }


def tokenizer_card(tokenizer: Tokenizer) -> Mapping[str, Any]:
    """Which tokens figures per token are of."""
    values = tokenizer.to_dict()
    return {
        "kind": values["kind"],
        "vocab_size": tokenizer.vocab_size,
        "digest": digest_of(values),
    }
