"""What a network may see in one call: which positions see which, and where each stands in its text.

    sees(text, query, key)  ->  whether position `query` of a text sees its position `key`

A `Sighted` backbone reads a `Visibility`. Documents of one sequence that do not see each other,
texts that are written block after block, and prefixes are each a function of three numbers. An
attention kernel makes of it what it reads: a dense mask, or blocks that it leaves out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from platform_core.types import Documents

Sees = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Numbers of a text in its batch, of a query and of a key, as integer tensors that broadcast; the
result is a boolean tensor. Only operations by elements, and reading a tensor at these numbers, are
allowed, so that FlexAttention can compile it.
"""

Positions = Int[Tensor, "#sequences length"]
"""Where each token of a call stands in its text, from 0."""


@dataclass(frozen=True, eq=False)
class Visibility:
    """Which positions of one call see which.

    Args:
        sees: the rule.
        positions: where each token stands in its text, `[1, length]`, or `[batch, length]` where
            texts differ; None if the tokens of a call are one text, from its beginning.
    """

    sees: Sees
    positions: Positions | None = None

    def __and__(self, other: "Visibility") -> "Visibility":
        """What both allow, with the positions of the first that gives any."""
        positions = other.positions if self.positions is None else self.positions
        return Visibility(
            lambda text, query, key: self.sees(text, query, key) & other.sees(text, query, key),
            positions,
        )

    @property
    def differs(self) -> bool:
        """Whether the texts of a batch may see differently."""
        none = torch.zeros(1, 1, 1, dtype=torch.long)
        return len(self.sees(torch.zeros(2, 1, 1, dtype=torch.long), none, none)) > 1

    def dense(
        self, shape: Sequence[int], device: torch.device
    ) -> Bool[Tensor, "#sequences length length"]:
        """The rule for every pair of positions; `[1, length, length]` if all texts have the same.

        Args:
            shape: numbers of texts and of positions.
            device: where the mask is made.
        """
        texts, length = shape
        text, place = (torch.arange(number, device=device) for number in (texts, length))
        found = self.sees(text[:, None, None], place[None, :, None], place[None, None, :])
        return found.expand(-1, length, length)


def same_document(documents: Documents) -> Visibility:
    """A position sees the positions of its own document, in which it stands as if it were alone.

    Args:
        documents: number of each token's document, `[batch, length]`; tokens of one document are
            next to each other.
    """
    place = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    begin = torch.where(starts, place, 0).cummax(dim=1).values
    return Visibility(
        lambda text, query, key: documents[text, query] == documents[text, key], place - begin
    )


def block_causal(blocks: Int[Tensor, " length"]) -> Visibility:
    """A position sees the positions of its own block and of earlier ones.

    Args:
        blocks: number of each position's block.
    """
    return Visibility(lambda text, query, key: blocks[query] >= blocks[key])


def prefix(length: int) -> Visibility:
    """A position sees the first `length` positions, itself, and what is on its left."""
    return Visibility(lambda text, query, key: (key < length) | (query >= key))
