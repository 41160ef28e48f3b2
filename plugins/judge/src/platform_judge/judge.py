"""Judges: trained causal language models that compute how likely a text is.

    read    text -> the judge's own tokens, once, cut at a length
    score   -log p(token | all tokens before it), in nats, and the features behind it

A judge is a run of this platform whose bound is exact (process ar), or a network of the
transformers library (`pretrained`). Used by `generative`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, final

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from platform_core.data.tokenizer import Tokenizer
from platform_core.data.tokenizer.base import Encoded
from platform_core.draws import Draws
from platform_core.errors import UsageError
from platform_core.evaluation.trained import TrainedRun
from platform_core.objective import Objective
from platform_core.record.directory import RunDirectory
from platform_core.record.files import digest
from platform_core.registry.parts import Plugins
from platform_core.types import Batch, Hidden, Nats, Selected, Tokens

POSSIBLE = (
    "a judge is a run of process ar, a folder or name of transformers with safetensors weights, or "
    "a .gguf file"
)


@dataclass(frozen=True)
class Identity:
    """Facts that identify a judge in records.

    Args:
        kind: run, transformers (a folder), hub or gguf.
        name: last part of the judge's path or name.
        network: process and backbone of a run, else the class of transformers.
        digest: SHA-256 of the weights' file, or of the digests of several files.
        tokenizer: kind of the tokenizer and number of its tokens.
        context: tokens in the longest text that the judge was made for, where that is known.
        dtype: type in which the judge computes.
    """

    kind: str
    name: str
    network: str
    digest: str
    tokenizer: str
    context: int | None
    dtype: str

    def summary(self) -> dict[str, Any]:
        """Every fact by name."""
        return asdict(self)


class Reading(NamedTuple):
    """A text in a judge's tokens."""

    ids: list[int]
    characters: list[int]
    """Characters of text that each token adds to those before it; a special token adds none."""
    is_cut: bool
    """Whether the text is longer than `ids`."""


class Scores(NamedTuple):
    """Scores of a batch of texts under a judge."""

    nats: Nats
    """-log p of each token given all tokens before it, `[batch, length]`; of the first token, the
    judge's value or 0.
    """
    features: Hidden
    """Input of the judge's last layer at the last token of each text, `[batch, width]`."""


class Judge(ABC):
    """A causal language model with a tokenizer.

    Args:
        identity: facts that identify the judge.
        marks: text with which the judge writes the beginning and the end of a document.
        end_id: id of the judge's end token, if it has one.
    """

    def __init__(self, identity: Identity, marks: tuple[str, str], end_id: int | None) -> None:
        self.identity, self.marks, self.end_id = identity, marks, end_id

    @abstractmethod
    def read(self, texts: Sequence[str], length: int) -> list[Reading]:
        """Texts in the judge's tokens, at most `length` of each.

        Marks in the texts become special tokens.

        Raises:
            UsageError: the judge has no token for a character.
        """

    @abstractmethod
    def score(self, ids: Tokens, mask: Selected) -> Scores:
        """Score every token given the tokens before it; `mask` is false where a text has ended."""

    @property
    @abstractmethod
    def logits_per_token(self) -> int:
        """Number of logits that are held at once for each token of a batch."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device on which the judge computes."""


@final
class RunJudge(Judge):
    """A run whose objective is the likelihood itself, as a judge.

    Args:
        identity: facts that identify the judge.
        objective: objective with the trained weights in place.
        tokenizer: the run's tokenizer.
    """

    def __init__(self, identity: Identity, objective: Objective, tokenizer: Tokenizer) -> None:
        begin, end = (tokenizer.decode([i]) for i in (tokenizer.bos_id, tokenizer.eos_id))
        super().__init__(identity, (begin, end), tokenizer.eos_id)
        self.objective, self.tokenizer = objective, tokenizer
        self._spelt = re.compile(f"({'|'.join(map(re.escape, tokenizer.special))})")

    @classmethod
    def open(cls, directory: RunDirectory, accelerator: Accelerator, plugins: Plugins) -> "Judge":
        """The judge of a run directory, with the weights that the run's options evaluate.

        Raises:
            UsageError: the run's bound is not exact, or the run reads labels.
            CheckpointError: the run has no whole checkpoint.
        """
        run = TrainedRun.open(directory.path, plugins=plugins, accelerator=accelerator)
        composition = run.composition
        objective: type[Objective] = composition.classes["objective"]
        if objective.noise_levels or not objective.has_bound:
            raise UsageError(
                f"{directory.path} is a run of process {composition.names['process']}, whose bound "
                f"is not the likelihood itself; {POSSIBLE}"
            )
        if run.labels:
            raise UsageError(
                f"{directory.path} reads text given a label, so it cannot judge any text; "
                f"{POSSIBLE}, without labels"
            )
        run = run.with_average(composition.evaluate.weights)
        identity = Identity(
            kind="run",
            name=directory.path.resolve().name,
            network=f"{composition.names['process']} {composition.names['backbone']}",
            digest=digest(run.weights_file),
            tokenizer=f"{type(run.tokenizer).__name__} {run.tokenizer.vocab_size}",
            context=composition.data.length,
            dtype=_dtype(run.model),
        )
        return cls(identity, run.objective, run.tokenizer)

    def read(self, texts: Sequence[str], length: int) -> list[Reading]:
        """Texts in the run's tokens; special tokens that are spelt out become special tokens."""
        return [self._read(text, length) for text in texts]

    def _read(self, text: str, length: int) -> Reading:
        special = self.tokenizer.special
        ids: list[int] = []
        characters: list[int] = []
        for piece in filter(None, self._spelt.split(text)):
            found = self._special(special[piece]) if piece in special else self._encode(piece)
            ids += found.ids.tolist()
            characters += found.characters.tolist()
        return Reading(ids[:length], characters[:length], len(ids) > length)

    def _special(self, token: int) -> Encoded:
        ids = np.array([token], dtype=np.uint32)
        is_mark = token in (self.tokenizer.bos_id, self.tokenizer.eos_id)
        number = 0 if is_mark else self.tokenizer.count_characters(ids)
        return Encoded(ids, np.array([number], dtype=np.uint32))

    def _encode(self, text: str) -> Encoded:
        try:
            return next(iter(self.tokenizer.encode_counted([text])))
        except UsageError as error:
            said = str(error).partition(";")[0]
            raise UsageError(
                f"judge {self.identity.name} cannot read the text: {said}; choose another judge"
            ) from error

    @torch.no_grad()
    def score(self, ids: Tokens, mask: Selected) -> Scores:
        """Negative log-likelihood of each token under the objective."""
        draws = Draws.derive(0, "judge", step=0, first=0, total=len(ids), device=ids.device)
        with read_by(self.objective.model.backbone.decoder) as hidden:
            nats = self.objective.bound(Batch(ids, mask), draws).per_token
        return Scores(nats, last_rows(torch.cat(hidden), mask))

    @property
    def logits_per_token(self) -> int:
        """0, because logits are made in chunks."""
        return 0

    @property
    def device(self) -> torch.device:
        return self.objective.model.device


@contextmanager
def read_by(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Record the inputs of a layer while the context lasts, one for each call."""
    found: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0].detach())

    hook = layer.register_forward_pre_hook(keep)
    try:
        yield found
    finally:
        hook.remove()


def last_rows(rows: Tensor, mask: Selected) -> Hidden:
    """The last row of each text, from one row for every token where `mask` is true, in order."""
    assert len(rows) == int(mask.sum()), "the last layer reads every token once"
    return rows[mask.sum(1).cumsum(0) - 1].float()


def _dtype(module: nn.Module) -> str:
    return str(next(module.parameters()).dtype).removeprefix("torch.")
