"""Rows: decode single positions in chunks, so that no `[batch, length, states]` tensor is made.

Every loss and every reverse step is a function of one row (hidden state of one position, its
tokens, its noise level). `weighted_sum` turns rows into a loss whose gradients are computed chunk
by chunk in the forward pass, where the logits are at hand, and only scaled in the backward pass.
`collect` turns rows into tokens or other values.
"""

from collections.abc import Callable, Iterator
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

    Args:
        decoder: position-wise layer from `[rows, width]` to `[rows, num_states]`.
        loss: called with the logits of some rows and the same rows of every column.
        hidden: `[rows, width]`.
        columns: tensors with one entry per row, passed to `loss`; they get no gradient.
        num_states: width of the logits, from which the size of a chunk follows.
    """
    rows_at_once = chunk_rows(num_states)
    parameters = tuple(parameter for parameter in decoder.parameters() if parameter.requires_grad)
    if torch.is_grad_enabled() and (hidden.requires_grad or parameters):
        total, values = _WeightedSum.apply(  # type: ignore[no-untyped-call]
            decoder, loss, columns, rows_at_once, hidden, *parameters
        )
        return total, values
    values = torch.cat(
        [loss(decoder(h), *c).float() for h, c in _chunks(hidden, columns, rows_at_once)]
    )
    return values.double().sum(), values


def collect(
    decoder: nn.Module,
    read: Callable[..., Tensor],
    hidden: Hidden,
    columns: tuple[Tensor, ...],
    *,
    num_states: int,
) -> Tensor:
    """Values that `read` takes from each row's logits: a token, or a few numbers."""
    found = [read(decoder(h), *c) for h, c in _chunks(hidden, columns, chunk_rows(num_states))]
    return torch.cat(found)


def chunk_rows(num_states: int) -> int:
    """Number of rows decoded at once, at least 1."""
    return max(1, CHUNK_ELEMENTS // num_states)


def _chunks(
    hidden: Hidden, columns: tuple[Tensor, ...], size: int
) -> Iterator[tuple[Hidden, tuple[Tensor, ...]]]:
    for start in range(0, max(1, hidden.shape[0]), size):
        rows = slice(start, start + size)
        yield hidden[rows], tuple(column[rows] for column in columns)


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        decoder: nn.Module,
        loss: RowLoss,
        columns: tuple[Tensor, ...],
        rows_at_once: int,
        hidden: Hidden,
        *parameters: Tensor,
    ) -> tuple[Tensor, Nats]:
        values, hidden_gradients = [], []
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        for h, c in _chunks(hidden.detach(), columns, rows_at_once):
            with torch.enable_grad():
                h.requires_grad_()
                value = loss(decoder(h), *c).float()
                of_hidden, *of_parameters = torch.autograd.grad(value.sum(), (h, *parameters))
            values.append(value.detach())
            hidden_gradients.append(of_hidden)
            for gradient, part in zip(gradients, of_parameters, strict=True):
                gradient.add_(part)
        ctx.gradients = (torch.cat(hidden_gradients), *gradients)
        per_row = torch.cat(values)
        ctx.mark_non_differentiable(per_row)
        return per_row.double().sum(), per_row

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # In place: a copy of a wide decoder's gradient would be the largest tensor of a step.
        gradients, ctx.gradients = ctx.gradients, None
        assert gradients is not None, "a row loss can be differentiated once; call it again"
        return (None, None, None, None, *(gradient.mul_(scale) for gradient in gradients))
