"""Text that a trained run writes behind a context, up to a stop string (`generate_until`).

    begin;  context  |  what the sampler draws  ->  text up to its first end or stop string

A sampler that fills blanks draws the whole length of training, since its network has learned texts
of that length; a sampler that only continues a beginning stops after as many tokens as are asked
for. Each request has a generator of its own, and so the same text whatever is asked beside it. Used
by `tasks`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from platform_core.data.tokenizer import Tokenizer
from platform_core.draws import derive_generator
from platform_core.evaluation.matching import up_to_end
from platform_core.model import Model
from platform_core.sampler import Prompt, Sampler

MOST_TOKENS = 256
"""Tokens to generate where a task does not say, as in lm_eval."""

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What tasks call the number of tokens to generate; the first that is given counts."""


class Asked(NamedTuple):
    """How a task wants a text to end."""

    stops: tuple[str, ...]
    tokens: int

    @classmethod
    def read(cls, arguments: Mapping[str, Any]) -> "Asked":
        """From `generation_kwargs` of a task; the sampler's options decide about everything else.

        Raises:
            ValueError: the number of tokens is not a whole number above 0.
        """
        until = arguments.get("until") or ()
        stops = (until,) if isinstance(until, str) else tuple(map(str, until))
        given = [arguments[name] for name in LENGTHS if arguments.get(name) is not None]
        number = given[0] if given else MOST_TOKENS
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"the task asks for {number!r} generated tokens; give at least 1")
        return cls(tuple(filter(None, stops)), number)


class Written(NamedTuple):
    """A text that was written, and what became of the request."""

    text: str
    nfe: int
    cut: bool
    """Whether the context lost tokens at the left."""
    shortened: bool
    """Whether there was room for fewer tokens than were asked for."""


@dataclass(frozen=True)
class Writer:
    """A model and the sampler that writes with it.

    Args:
        model: the trained model.
        sampler: sampler with its options.
        tokenizer: tokenizer of the run.
        accelerator: device and precision.
        length: most tokens of context and text together.
        facts: name and options of the sampler, for cards.
        guidance: label and weight of guidance, for cards.
    """

    model: Model
    sampler: Sampler
    tokenizer: Tokenizer
    accelerator: Accelerator
    length: int
    facts: Mapping[str, Any]
    guidance: Mapping[str, Any] = field(default_factory=dict)

    def write(self, context: Sequence[int], asked: Asked, seed: int) -> Written:
        """The text behind the tokens of a context; at least half the length is for the text."""
        room = max(self.length - len(context), self.length - self.length // 2)
        number = min(asked.tokens, room)
        kept = list(context)[-(self.length - number) :] if number < self.length else []
        stop = len(kept) + number
        length = self.length if self.sampler.fills_blanks else stop
        tokens, nfe = self._draw(kept, length, seed)
        answer = up_to_end(tokens[len(kept) : stop], self.tokenizer.eos_id)
        text = up_to_stop(self.tokenizer.decode(answer), asked.stops)
        return Written(text, nfe, len(kept) < len(context), number < asked.tokens)

    def _draw(self, context: Sequence[int], length: int, seed: int) -> tuple[list[int], int]:
        device = self.accelerator.device
        tokens = torch.zeros(1, length, dtype=torch.long)
        tokens[0, : len(context)] = torch.tensor(context, dtype=torch.long)
        fixed = (torch.arange(length) < len(context))[None]
        prompt = Prompt(tokens.to(device), fixed.to(device)) if len(context) else None
        generator = derive_generator(seed, device=device)
        with torch.no_grad(), self.accelerator.autocast():
            sample = self.sampler(self.model, (1, length), generator, prompt)
        return sample.tokens[0].tolist(), sample.nfe


def up_to_stop(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop strings in it; all of it if it has none."""
    return text[: min([found for stop in stops if (found := text.find(stop)) >= 0], default=None)]
