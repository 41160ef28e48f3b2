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
from jaxtyping import Int
from torch import Tensor, nn

from platform_core import last_layer
from platform_core.last_layer import Chunk, added, is_plain, leaves, rows_at_once
from platform_core.last_layer import RowLoss as RowLoss
from platform_core.types import Hidden, Nats, Selected

Index = Int[Tensor, " rows"]

BLOCKS = 8
"""Parts of a chunk on a CPU that a row loss reads one after the other, to need less memory."""

STATIC_ON = {"cuda"}
"""Kinds of devices on which samplers read every position, where there are few states."""

STATIC_STATES = 1024
"""Most states at which it costs less to read every position than to wait for those selected."""

CHUNK_ELEMENTS = 2**23
"""Number of logits decoded at once on a CPU: 32 MiB in float32, for a plain linear layer, whose
gradients replace the logits. Elsewhere half as many, not counting the few temporaries of a loss.
"""


@dataclass(frozen=True)
class Places:
    """Selected positions of a batch.

    On a GPU the host waits until selected positions are found, so they are looked for once, and
    every tensor is read there by their numbers. Or nothing is looked for: all positions are read,
    and what was not selected is thrown away.
    """

    selected: Selected
    index: Index | None
    """Numbers of the positions in the order of the batch; None where all are read."""
    every: bool
    """Whether all are known to be selected."""

    @classmethod
    def of(cls, selected: Selected, *, every: bool = False, static: bool = False) -> "Places":
        """The places where `selected` is true.

        Args:
            selected: `[batch, length]`, or of any other shape.
            every: that all are known to be selected; nothing is looked for then.
            static: to read all positions whether selected or not, so that nothing is looked for and
                the number of rows is known.
        """
        index = None if every or static else selected.flatten().nonzero().squeeze(-1)
        return cls(selected, index, every)

    def __len__(self) -> int:
        """Number of rows."""
        return self.selected.numel() if self.index is None else len(self.index)

    def rows(self, values: Tensor) -> Tensor:
        """The rows of `[batch, length, ...]` at these places, one after the other."""
        every = values.flatten(0, self.selected.ndim - 1)
        return every if self.index is None else every.index_select(0, self.index)

    def spread(self, rows: Tensor, onto: Tensor) -> Tensor:
        """A copy of `[batch, length]` with one value of `rows` at each of these places."""
        if self.index is not None:
            return onto.masked_scatter(self.selected, rows)
        found = rows.view_as(onto)
        return found if self.every else torch.where(self.selected, found, onto)


def is_static(device: torch.device, num_states: int) -> bool:
    """Whether samplers read every position, selected or not."""
    return device.type in STATIC_ON and num_states <= STATIC_STATES


def weighted_sum(
    decoder: nn.Module,
    loss: RowLoss,
    hidden: Hidden,
    columns: tuple[Tensor, ...],
    *,
    num_states: int,
    decodes: bool = False,
) -> tuple[Tensor, Nats]:
    """Sum of a row loss over all rows, in float64, and the loss of each row without gradient.

    The sum is differentiated with respect to `hidden`, to every parameter that the decoder or the
    row loss uses, and to columns that require a gradient.

    Args:
        decoder: position-wise layer from `[rows, width]` to `[rows, num_states]`.
        loss: called with the logits of some rows and the same rows of every column; it must not
            write to the logits.
        hidden: `[rows, width]`.
        columns: tensors with one entry per row, passed to `loss`.
        num_states: width of the logits, from which the size of a chunk follows.
        decodes: whether the row loss has a matrix product of its own, such as a teacher's last
            layer, so that it should read many rows at once.

    Raises:
        RuntimeError: the row loss uses a tensor that was computed from parameters and is no column;
            hand it over as a column.
    """
    if is_plain(decoder, hidden):
        chunk = Chunk(CHUNK_ELEMENTS // 2, 1) if decodes else Chunk(CHUNK_ELEMENTS, BLOCKS)
        return last_layer.weighted_sum(decoder, loss, hidden, columns, chunk)
    if not torch.is_grad_enabled():
        chunks = _chunks((hidden, *columns), chunk_rows(num_states, hidden))
        values = torch.cat([loss(decoder(h), *c).float() for h, *c in chunks])
        return values.double().sum(), values
    return by_autograd(decoder, loss, hidden, columns, num_states=num_states)


def by_autograd(
    decoder: nn.Module,
    loss: RowLoss,
    hidden: Hidden,
    columns: tuple[Tensor, ...],
    *,
    num_states: int,
) -> tuple[Tensor, Nats]:
    """`weighted_sum` through any decoder, whose gradients autograd computes chunk by chunk.

    This is the definition that tests compare the shorter way of a plain linear decoder with.
    """
    size = chunk_rows(num_states, hidden)
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
    chunks = _chunks((hidden, *columns), chunk_rows(num_states, hidden))
    found = [read(decoder(h), *c) for h, *c in chunks]
    return torch.cat(found)


def chunk_rows(num_states: int, hidden: Hidden | None = None) -> int:
    """Number of rows decoded at once, at least 1; on a GPU, the memory of the device decides."""
    if hidden is None:
        return max(1, CHUNK_ELEMENTS // num_states)
    return rows_at_once(hidden, num_states, CHUNK_ELEMENTS // 2)


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
        return leaves(self.value, self.inputs)

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
                of_parameters[place] = added(of_parameters[place], part)
        ctx.gradients = (*map(torch.cat, of_inputs), *of_parameters)
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        per_row = torch.cat(values)
        ctx.mark_non_differentiable(per_row)
        return per_row.double().sum(), per_row

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # In place: a copy of a wide decoder's gradient would be the largest tensor of a step.
        gradients, ctx.gradients = ctx.gradients, None
        assert gradients is not None, "a row loss can be differentiated once; call it again"
        scaled = [
            None if g is None else g.mul_(scale).to(dtype)
            for g, dtype in zip(gradients, ctx.dtypes, strict=True)
        ]
        return (*[None] * 6, *scaled)
