"""Rows: decode single positions in chunks, so that no `[batch, length, states]` tensor is made.

Every loss and every reverse step is a function of one row (hidden state of one position, its
tokens, its noise level). `weighted_sum` turns rows into a loss whose gradients are computed chunk
by chunk in the forward pass, where the logits are at hand, and only scaled in the backward pass.
`collect` turns rows into tokens or other values.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from platform_core.types import Hidden, Nats

CHUNK_ELEMENTS = 2**22
"""Number of logits decoded at once: about 16 MB in float32, not counting the few temporaries of a
loss.
"""

RowLoss = Callable[..., Nats]
"""(logits, *columns) -> nats, one value per row."""


def weighted_sum(
    decoder: nn.Module,
    loss: RowLoss,
    hidden: Hidden,
    columns: tuple[Tensor, ...],
    *,
    num_states: int,
) -> tuple[Tensor, Nats]:
    """Sum of a row loss over all rows, in float64, and the loss of each row without gradient.

    The sum is differentiated with respect to `hidden`, to every parameter that the decoder or the
    row loss uses, and to columns that require a gradient.

    Args:
        decoder: position-wise layer from `[rows, width]` to `[rows, num_states]`.
        loss: called with the logits of some rows and the same rows of every column.
        hidden: `[rows, width]`.
        columns: tensors with one entry per row, passed to `loss`.
        num_states: width of the logits, from which the size of a chunk follows.

    Raises:
        RuntimeError: the row loss uses a tensor that was computed from parameters and is no column;
            hand it over as a column.
    """
    size = chunk_rows(num_states)
    if not torch.is_grad_enabled():
        chunks = _chunks((hidden, *columns), size)
        values = torch.cat([loss(decoder(h), *c).float() for h, *c in chunks])
        return values.double().sum(), values
    chunks = _chunks(tuple(t.detach() for t in (hidden, *columns)), size)
    asked = [tensor.requires_grad for tensor in (hidden, *columns)]
    first = _Chunk.of(decoder, loss, next(chunks), asked)
    given = [tensor for tensor in (hidden, *columns) if tensor.requires_grad]
    total, values = _WeightedSum.apply(  # type: ignore[no-untyped-call]
        decoder, loss, first, chunks, asked, len(given), *given, *first.parameters()
    )
    return total, values


def collect(
    decoder: nn.Module,
    read: Callable[..., Tensor],
    hidden: Hidden,
    columns: tuple[Tensor, ...],
    *,
    num_states: int,
) -> Tensor:
    """Values that `read` takes from each row's logits: a token, or a few numbers."""
    chunks = _chunks((hidden, *columns), chunk_rows(num_states))
    found = [read(decoder(h), *c) for h, *c in chunks]
    return torch.cat(found)


def chunk_rows(num_states: int) -> int:
    """Number of rows decoded at once, at least 1."""
    return max(1, CHUNK_ELEMENTS // num_states)


def _chunks(tensors: tuple[Tensor, ...], size: int) -> Iterator[tuple[Tensor, ...]]:
    for start in range(0, max(1, len(tensors[0])), size):
        yield tuple(tensor[start : start + size] for tensor in tensors)


@dataclass(frozen=True)
class _Chunk:
    """The loss of some rows, with the graph that it was computed by."""

    inputs: tuple[Tensor, ...]
    """Hidden states and columns, those that require a gradient."""
    value: Nats

    @classmethod
    @torch.enable_grad()
    def of(
        cls, decoder: nn.Module, loss: RowLoss, rows: tuple[Tensor, ...], asked: Sequence[bool]
    ) -> "_Chunk":
        own = [
            row.requires_grad_() if wanted else row for row, wanted in zip(rows, asked, strict=True)
        ]
        value = loss(decoder(own[0]), *own[1:]).float()
        return cls(tuple(row for row, wanted in zip(own, asked, strict=True) if wanted), value)

    def parameters(self) -> list[Tensor]:
        """The leaves of the graph that are no inputs, in the order in which they are met."""
        known = {id(tensor) for tensor in self.inputs}
        found: dict[int, Tensor] = {}
        pending, seen = [self.value.grad_fn], set()
        while pending:
            node = pending.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if isinstance(leaf := getattr(node, "variable", None), Tensor):
                if id(leaf) not in known:
                    found[id(leaf)] = leaf
            else:
                pending += [following for following, _ in node.next_functions]
        return list(found.values())

    @torch.enable_grad()
    def gradients(self, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Gradients of the sum, first of the inputs and then of the parameters."""
        if not self.value.requires_grad:
            return [None] * (len(self.inputs) + len(parameters))
        return torch.autograd.grad(self.value.sum(), (*self.inputs, *parameters), allow_unused=True)


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        decoder: nn.Module,
        loss: RowLoss,
        first: _Chunk,
        rest: Iterator[tuple[Tensor, ...]],
        asked: Sequence[bool],
        number: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, Nats]:
        given, parameters = tensors[:number], tensors[number:]
        values: list[Tensor] = []
        of_inputs: list[list[Tensor]] = [[] for _ in given]
        of_parameters: list[Tensor | None] = [None] * len(parameters)
        for chunk in itertools.chain(
            [first], (_Chunk.of(decoder, loss, rows, asked) for rows in rest)
        ):
            found = chunk.gradients(parameters)
            values.append(chunk.value.detach())
            for parts, row, part in zip(of_inputs, chunk.inputs, found, strict=False):
                parts.append(torch.zeros_like(row) if part is None else part)
            for place, part in enumerate(found[number:]):
                before = of_parameters[place]
                of_parameters[place] = part if before is None or part is None else before.add_(part)
        ctx.gradients = (*map(torch.cat, of_inputs), *of_parameters)
        per_row = torch.cat(values)
        ctx.mark_non_differentiable(per_row)
        return per_row.double().sum(), per_row

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # In place: a copy of a wide decoder's gradient would be the largest tensor of a step.
        gradients, ctx.gradients = ctx.gradients, None
        assert gradients is not None, "a row loss can be differentiated once; call it again"
        scaled = [None if g is None else g.mul_(scale) for g in gradients]
        return (*[None] * 6, *scaled)
