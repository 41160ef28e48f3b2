"""Names for tensor types, with dtypes and shapes.

`*batch` is any number of leading dimensions: `[batch, length]` for whole sequences, `[rows]` for
single positions. A noise level broadcasts against `*batch`: `[batch, 1]` gives every position of a
sequence the same level.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Tokens = Int[Tensor, "*batch"]
Documents = Int[Tensor, "sequences length"]
Labels = Int[Tensor, " sequences"]
Selected = Bool[Tensor, "*batch"]
Nats = Float[Tensor, "*batch"]
Noise = Float[Tensor, "*#batch"]
Logits = Float[Tensor, "*batch states"]
LogProbs = Float[Tensor, "*batch states"]
Probs = Float[Tensor, "*batch states"]
Row = Float[Tensor, "*#batch states"]
Hidden = Float[Tensor, "*batch width"]


class TopTokens(NamedTuple):
    """A distribution over tokens of which only the largest weights are kept; the weights need not
    sum to 1.
    """

    ids: Int[Tensor, "*batch k"]
    weights: Float[Tensor, "*batch k"]


@runtime_checkable
class OtherInputs(Protocol):
    """Inputs of an author's own kind, which a backbone of the author's reads.

    The platform hands them on as they are; it needs only to know their batch and their device.
    """

    @property
    def ids(self) -> Tensor:
        """A tensor on the device of the inputs whose first dimension is the batch."""


@runtime_checkable
class Keeping(OtherInputs, Protocol):
    """Inputs of an author's own kind in which the tokens that a batch gives can be made clean."""

    @abstractmethod
    def kept(self, batch: "Batch") -> OtherInputs:
        """The same inputs, with the clean token wherever `batch.given` is true."""


Inputs = Tokens | Probs | TopTokens | OtherInputs


def tensor(inputs: Tensor | OtherInputs) -> Tensor:
    """Token ids or dense probabilities, for a backbone that reads no other kinds of inputs.

    Raises:
        TypeError: the inputs are of another kind.
    """
    if not isinstance(inputs, Tensor):
        raise TypeError(f"this network does not read inputs of the kind {type(inputs).__name__}")
    return inputs


Conditions = Mapping[str, Tensor]
"""What a network reads of each text besides tokens: arguments of `encode`, by name."""


class Batch(NamedTuple):
    """Clean texts of equal length, with their labels and documents if there are any."""

    x0: Tokens
    """Clean tokens, `[batch, length]`."""
    mask: Selected
    """Which tokens count in losses, `[batch, length]`."""
    labels: Labels | None = None
    """One label per text, or a single label for all; None where texts have no labels."""
    documents: Documents | None = None
    """Number of each token's document within its sequence, `[batch, length]`; None where documents
    are not kept apart.
    """
    full: Selected | None = None
    """The same object as `mask` where all of it is known to be true; see `every`."""
    given: Selected | None = None
    """Which tokens the model is given, such as those of a prompt, `[batch, length]`: they get no
    noise and do not count. None where no token is given.
    """

    @property
    def every(self) -> bool:
        """Whether all tokens are known to count, so that nobody need look for those that do."""
        return self.full is self.mask

    @property
    def conditions(self) -> Conditions:
        """Labels and documents by name, without those that are None."""
        known = {"labels": self.labels, "documents": self.documents}
        return {name: value for name, value in known.items() if value is not None}

    def kept(self, noisy: Inputs) -> Inputs:
        """Noisy tokens, or other inputs of the network, in which given tokens are clean.

        Args:
            noisy: tokens `[batch, length]`, dense or largest probabilities of these texts, or
                inputs of an author's own kind that are `Keeping`.

        Raises:
            TypeError: some tokens are given, and the inputs are of another kind.
        """
        given, x0 = self.given, self.x0
        if given is None:
            return noisy
        if isinstance(noisy, Keeping):
            return noisy.kept(self)
        if isinstance(noisy, TopTokens):
            first = torch.zeros_like(noisy.weights)
            first[..., 0] = 1
            ids = torch.where(given[..., None], x0[..., None].to(noisy.ids), noisy.ids)
            return TopTokens(ids, torch.where(given[..., None], first, noisy.weights))
        inputs = tensor(noisy)
        if not inputs.is_floating_point():
            return torch.where(given, x0, inputs)
        certain = nn.functional.one_hot(x0, inputs.shape[-1]).to(inputs)
        return torch.where(given[..., None], certain, inputs)

    def kept_tokens(self, noisy: Tokens) -> Tokens:
        """Noisy tokens `[batch, length]` in which given tokens are clean."""
        return noisy if self.given is None else torch.where(self.given, self.x0, noisy)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Batch":
        """The same batch on another device; from a CPU, where that is free, it looks at `mask`.

        Args:
            device: the device.
            non_blocking: do not wait for copies of pinned memory to a GPU, which come before all
                that is computed there later.
        """
        every = self.every or (self.mask.device.type == "cpu" and bool(self.mask.all()))
        return self._each(lambda values: values.to(device, non_blocking=non_blocking), every=every)

    def pinned(self) -> "Batch":
        """The same batch in memory from which a GPU copies by itself."""
        return self._each(lambda values: values.pin_memory(), every=self.every)

    def _each(self, change: Callable[[Tensor], Tensor], *, every: bool) -> "Batch":
        known = {name: change(values) for name, values in self.conditions.items()}
        mask = change(self.mask)
        given = None if self.given is None else change(self.given)
        full = mask if every else None
        return Batch(change(self.x0), mask, **known, full=full, given=given)
