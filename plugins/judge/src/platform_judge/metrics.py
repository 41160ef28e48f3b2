"""Metrics of samples under a judge, for tables; imports no torch.

Numbers of samples are comparable if as many texts of the same length were asked for in the same
way, and the same judge read as much of each. Tables compare the samplers that drew the samples.
"""

import math

from platform_core.record.cards import (
    NOTED,
    SOURCE,
    UNSAID,
    Family,
    Measurement,
    Metric,
    recorded,
)

SAMPLES = (
    "sample.number",
    "sample.length",
    "sample.weights",
    "sample.prompt",
    "sample.template",
    "sample.label",
    "tokenizer.digest",
)
JUDGE = ("judge.digest", "judge_length", "perplexity")
REFERENCE = ("judge.digest", "judge_length", "split", *SOURCE, "mauve")


def _title(measurement: Measurement) -> str:
    judge = measurement.fact("judge.name")
    return "Generated text" if judge == UNSAID else f"Generated text, judged by {judge}"


def controls(measurement: Measurement) -> list[str]:
    """Figures of real and of shuffled text, as lines to compare samples with."""
    lines = []
    for kind in ("real", "shuffled"):
        perplexity, entropy = (
            measurement.figure(f"{kind}.{name}") for name in ("perplexity", "entropy")
        )
        if perplexity is not None and entropy is not None:
            lines.append(
                f"{kind.capitalize()} text: perplexity {perplexity:.4g}, entropy {entropy:.4g}."
            )
    return lines


FAMILY = Family(
    "samples",
    _title,
    words="--judge MODEL",
    noted=(*NOTED, "judge.dtype"),
    remarks=controls,
    by_sampler=True,
)


def _sampled(measurement: Measurement) -> tuple[str, ...]:
    return SAMPLES


def _judged(measurement: Measurement) -> tuple[str, ...]:
    return (*JUDGE, *SAMPLES)


def _mauve(measurement: Measurement) -> tuple[str, ...]:
    return (*REFERENCE, *SAMPLES)


def _bits_error(measurement: Measurement) -> float | None:
    """Standard error of bits per character, from the error of the judge's nats per token."""
    names = ("standard_error", "tokens", "characters")
    nats, tokens, characters = (measurement.figure(f"samples.{name}") for name in names)
    if nats is None or tokens is None or not characters:
        return None
    return nats * tokens / characters / math.log(2)


ENTROPY = Metric(
    "entropy",
    "unigram entropy (nats)",
    "samples.entropy",
    recorded("samples.entropy_error"),
    _sampled,
    FAMILY,
    lower_is_better=False,
    reference="real.entropy",
)
"""Always shown beside perplexity, because text that repeats itself is likely."""

METRICS = (
    Metric(
        "generative_perplexity",
        "generative perplexity",
        "samples.perplexity",
        recorded("samples.perplexity_error"),
        _judged,
        FAMILY,
        beside=(ENTROPY,),
        reference="real.perplexity",
    ),
    # A judge cuts unusual text into shorter tokens, each of which is less unlikely.
    Metric(
        "judged_bits_per_character",
        "bits per character, judged",
        "samples.bits_per_character",
        _bits_error,
        _judged,
        FAMILY,
        beside=(ENTROPY,),
        reference="real.bits_per_character",
    ),
    ENTROPY,
    Metric(
        "mauve",
        "MAUVE",
        "samples.mauve",
        recorded("samples.mauve_error"),
        _mauve,
        FAMILY,
        lower_is_better=False,
        beside=(ENTROPY,),
    ),
)
