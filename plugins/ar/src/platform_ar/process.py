"""The process of autoregression: no noise, and a start state in front of every text.

    network reads    start  x^1  x^2  ...  x^{L-1}
    and predicts     x^1    x^2  x^3  ...  x^L

Sequences are cut out of the running text, so that most begin in the middle of a document, without a
BOS token. The network therefore reads `start` in front of each sequence: a state of its own after
the vocabulary, with an embedding that is learned like any other. So the first token is predicted
too, and a likelihood counts exactly the tokens that the bound of a diffusion counts.
"""

from typing import final

import torch

from platform_core.data.tokenizer import Tokenizer
from platform_core.process import Process
from platform_core.types import Tokens


@final
class Ar(Process):
    """Every token given those to its left; no noise level, and the schedule has no effect.

    Args:
        start_id: id of the state that the network reads in front of every text; by default the one
            after the vocabulary. Networks trained by other code start with one of their tokens.
        tokenizer: of the text; None before the text is known, when any id may be one.

    Raises:
        ValueError: the network has no row for the start.
    """

    causal = True

    def __init__(
        self, vocab_size: int, start_id: int | None = None, tokenizer: Tokenizer | None = None
    ) -> None:
        super().__init__(vocab_size, num_states=vocab_size + 1, time_conditioned=False)
        if start_id is not None and start_id < 0:
            raise ValueError(f"start_id is {start_id}; it must be a token id, at least 0")
        if tokenizer is not None and start_id is not None and start_id > vocab_size:
            raise ValueError(
                f"start_id is {start_id}, and this text has tokens 0 to {vocab_size - 1}; give one "
                f"of these, or leave it out to have one more state, {vocab_size}"
            )
        self.start_id = vocab_size if start_id is None else start_id

    def inputs(self, x0: Tokens) -> Tokens:
        """Inputs that predict `[batch, length]` tokens: the start, then all but the last token."""
        start = torch.full_like(x0[:, :1], self.start_id)
        return torch.cat((start, x0[:, :-1]), dim=1)
