"""Generative quality: figures of texts under a judge, beside real texts and shuffled texts.

    perplexity = exp( sum of nats / number of counted tokens )           over all texts
    counted    = tokens 2.. that are not EOS, or are the first EOS of their text
    entropy    = mean over texts of - sum_v (c_v / L) log(c_v / L)       of the texts' own tokens

The perplexity is that of the papers (Gen-PPL): texts are retokenised once, cut at a length, and
text after the first EOS counts. Unlike in their code, the last incomplete batch counts too, and
padding never does, so the size of batches changes nothing. A low perplexity alone means little:
text that repeats a likely word has a low perplexity, and a low entropy.

Source: the evaluation of MDLM, arXiv:2406.07524, and DUO, arXiv:2506.10892; MAUVE,
arXiv:2102.01454.
"""

import importlib.util
import math
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from platform_core.data.tokenizer import Tokenizer
from platform_core.draws import derive_generator
from platform_core.errors import UsageError
from platform_core.evaluation.bound import Bound, ratio
from platform_core.runtime.accelerator import from_all, own_share
from platform_core.types import Hidden, Selected, Tokens
from platform_judge.judge import Judge, Reading

LOGITS_AT_ONCE = 2**27
"""Most logits of a batch, for judges that make all logits: half a gigabyte in float32, and as
much again.
"""

FEWEST_TEXTS = 20
"""Fewest texts for MAUVE, which has one cluster for each ten texts."""

Text = Sequence[int]
"""Token ids of a text, of the tokenizer that wrote it."""


@dataclass(frozen=True)
class Judged:
    """Figures of some texts under a judge.

    Args:
        likelihood: negative log-likelihood of the counted tokens, per token of the judge.
        entropy: entropy of the texts' own tokens, in nats; the mean over texts.
        entropy_error: standard error of `entropy`; NaN of one text.
        cut: number of texts of which the judge read only the beginning.
        features: features of the judge at the end of each text that it read.
    """

    likelihood: Bound
    entropy: float
    entropy_error: float
    cut: int
    features: Hidden

    @property
    def perplexity_error(self) -> float:
        """The standard error of the perplexity, to first order."""
        return self.likelihood.perplexity * self.likelihood.standard_error

    def summary(self) -> dict[str, float]:
        """Every figure by name; `standard_error` is the standard error of `nats_per_token`."""
        found = self.likelihood
        return {
            **found.curves(),
            "tokens": found.tokens,
            "characters": found.characters,
            "texts": found.sequences,
            "perplexity_error": self.perplexity_error,
            "entropy": self.entropy,
            "entropy_error": self.entropy_error,
            "texts_cut": self.cut,
        }


def judge_texts(
    judge: Judge, texts: Sequence[Text], tokenizer: Tokenizer, *, length: int, batch_size: int
) -> Judged:
    """Compute the figures of texts under a judge; several processes read whole batches each.

    Args:
        judge: the judge.
        texts: token ids of the texts.
        tokenizer: tokenizer of these ids.
        length: the most tokens of each text that the judge reads.
        batch_size: texts at once, or fewer where their logits would be too many.

    Raises:
        UsageError: no token is left to judge, or the judge cannot read a character.
    """
    readings = judge.read([written(text, tokenizer, judge.marks) for text in texts], length)
    nats, tokens, characters = (torch.zeros(len(texts), dtype=torch.float64) for _ in range(3))
    features = []
    own = own_share(list(batches(readings, judge, batch_size)))
    for found in from_all([_scored(judge, rows, [readings[row] for row in rows]) for rows in own]):
        nats[found.rows] = found.nats
        tokens[found.rows] = found.tokens
        characters[found.rows] = found.characters
        features.append(found.features)
    if not tokens.sum() or not characters.sum():
        raise UsageError(
            f"the {len(texts)} texts hold no two tokens of judge {judge.identity.name} and no "
            "characters to judge; raise --sample.length or --sample.number"
        )
    entropies = torch.tensor([entropy(text) for text in texts], dtype=torch.float64)
    counts = int(tokens.sum()), int(characters.sum()), len(texts)
    return Judged(
        likelihood=Bound(*ratio(nats, tokens), *counts, noise_levels=0),
        entropy=float(entropies.mean()),
        entropy_error=float(entropies.std() / math.sqrt(len(texts)))
        if len(texts) > 1
        else math.nan,
        cut=sum(reading.is_cut for reading in readings),
        features=torch.cat(features),
    )


class _Scored(NamedTuple):
    """The figures of some texts, `[texts]`, and their features, on the CPU."""

    rows: list[int]
    nats: Tensor
    tokens: Tensor
    characters: Tensor
    features: Hidden


def _scored(judge: Judge, rows: list[int], batch: Sequence[Reading]) -> _Scored:
    ids, mask = padded([reading.ids for reading in batch], judge.device)
    scores = judge.score(ids, mask)
    valid = counted(ids, mask, judge.end_id)
    spelt, _ = padded([reading.characters for reading in batch], judge.device)
    return _Scored(
        rows,
        (scores.nats.double() * valid).sum(-1).cpu(),
        valid.sum(-1).double().cpu(),
        (spelt * valid).sum(-1).double().cpu(),
        scores.features.cpu(),
    )


def written(text: Text, tokenizer: Tokenizer, marks: tuple[str, str]) -> str:
    """A text with its special tokens, in which BOS and EOS are replaced by the judge's marks."""
    begin, end = marks
    foreign = {tokenizer.bos_id: begin, tokenizer.eos_id: end}
    return "".join(
        "".join(foreign[token] for token in run) if mark else tokenizer.decode(list(run))
        for mark, run in groupby(text, key=foreign.__contains__)
    )


def counted(ids: Tokens, mask: Selected, end_id: int | None) -> Selected:
    """The tokens that the perplexity counts, as defined in the module's docstring."""
    ends = ids == (-1 if end_id is None else end_id)
    valid = ~ends | (ends.cumsum(-1) == 1)
    valid[:, :1] = False
    return valid & mask


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Selected]:
    """Rows of numbers as one padded tensor, and a mask that is false on the padding."""
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    numbers = torch.zeros(mask.shape, dtype=torch.long)
    numbers[mask] = torch.tensor([number for row in rows for number in row], dtype=torch.long)
    return numbers.to(device), mask.to(device)


def batches(readings: Sequence[Reading], judge: Judge, batch_size: int) -> Iterator[list[int]]:
    """Indices of the texts that the judge reads together, without texts that have no tokens."""
    rows = [row for row, reading in enumerate(readings) if reading.ids]
    longest = max((len(reading.ids) for reading in readings), default=1)
    most = LOGITS_AT_ONCE // max(1, judge.logits_per_token * longest)
    size = max(1, min(batch_size, most) if judge.logits_per_token else batch_size)
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def entropy(text: Text) -> float:
    """Entropy of the distribution of a text's tokens, in nats; at most log of their number."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log(count / len(text)) for count in counts)


def shuffled(texts: Sequence[Text], seed: int) -> list[list[int]]:
    """The same texts with the tokens of each in a random order."""
    generator = derive_generator(seed, "shuffle")
    return [
        [text[place] for place in torch.randperm(len(text), generator=generator).tolist()]
        for text in texts
    ]


def without_mauve(number: int) -> str | None:
    """The reason why MAUVE of `number` texts is not computed; None where it is."""
    if importlib.util.find_spec("mauve") is None:
        return 'mauve-text is not installed: pip install "dlm-platform-core[mauve]"'
    if number < FEWEST_TEXTS:
        return f"{number} texts; MAUVE needs {FEWEST_TEXTS}"
    return None


def mauve(texts: Hidden, reference: Hidden) -> float:
    """MAUVE of the features of texts and of reference texts; 1 for the most similar.

    There is one cluster for each ten texts, and the package's other defaults apply.
    """
    from mauve import compute_mauve

    # MAUVE's library faiss warns of fewer than 39 texts per cluster, and there are always ten.
    with silent():
        found: Any = compute_mauve(p_features=texts.numpy(), q_features=reference.numpy())
    return float(found.mauve)


@contextmanager
def silent() -> Iterator[None]:
    """Discard everything printed on standard error meanwhile, even by libraries in C++."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
