"""A law of three tokens, and what is asked of likelihoods under it."""

import torch

from platform_core.testing.toy import (
    all_sequences,
    random_law,
)
from platform_harness.likelihood import (
    Question,
    Text,
    answers,
)

LAW = random_law(3, 3, seed=1)
CONTEXT = (2,)
ENDINGS = [tuple(row) for row in all_sequences(3, 2).tolist()]
TEXTS = [Text(CONTEXT + ending, 1) for ending in ENDINGS]


def truth():
    joint = LAW.probs[CONTEXT]
    return (joint / joint.sum()).flatten().log()


def asked(likelihood, texts=TEXTS, *, seed=1, batch_size=64, number=1):
    questions = [Question(texts, seed + 1000 * place) for place in range(number)]
    return list(answers(likelihood, questions, device=torch.device("cpu"), batch_size=batch_size))


def close_to(expected, found):
    for value, estimate, error in zip(
        expected, found.log_probs, found.standard_errors, strict=True
    ):
        assert 0 < error < 0.1
        assert abs(estimate - value) < 4 * error
