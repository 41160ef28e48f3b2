"""The last layer, where it is a plain linear map: sums of row losses with its gradients by hand.

    logits = hidden W^T + b,   d = gradient of the row loss with respect to the logits
    gradient of hidden = d W,   of W = d^T hidden,   of b = sum of d over rows

Autograd differentiates the row loss alone. Its gradient is written over the logits, and the
gradient of W is added up in one buffer, in float32 or wider whatever the layer computes in. The
definition is `rows.by_autograd`, which works for every decoder; `rows.weighted_sum` chooses.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from platform_core.types import Hidden, Logits, Nats

TILE = 1024
"""States whose logits are one matrix product on a CPU: MKL is slow where one side is very wide."""

BYTES_PER_LOGIT = 24
"""Memory that a logit of a chunk needs on a GPU: itself, its gradient and what a loss keeps."""

COMPILED_ON = {"cuda"}
"""Kinds of devices on which row losses are compiled; all chunks then have one static shape."""

COMPILER = "inductor"
"""Backend of `torch.compile` for row losses."""

RowLoss = Callable[..., Nats]
"""(logits, *columns) -> nats, one value per row."""


def is_plain(decoder: nn.Module, hidden: Hidden) -> TypeGuard[nn.Linear]:
    """Whether a decoder is nothing but `torch.nn.Linear`, without hooks and sharded weights."""
    if type(decoder) is not nn.Linear or type(decoder.weight) not in (nn.Parameter, Tensor):
        return False
    if decoder._forward_hooks or decoder._forward_pre_hooks or decoder._backward_hooks:
        return False
    return "forward" not in vars(decoder) and (
        decoder.weight.dtype == hidden.dtype or _autocast_dtype(hidden) is not None
    )


def rows_at_once(hidden: Hidden, num_states: int, elements: int) -> int:
    """Number of rows to decode at once, at least 1.

    On a CPU, rows of `elements` logits; on a GPU, as `device_rows` says.
    """
    if hidden.device.type != "cuda":
        return max(1, elements // num_states)
    free = torch.cuda.mem_get_info(hidden.device)[0]
    kept = torch.cuda.memory_reserved(hidden.device) - torch.cuda.memory_allocated(hidden.device)
    number, width = hidden.shape
    return device_rows(number, width, num_states, free + kept)


def device_rows(number: int, width: int, num_states: int, free: int) -> int:
    """Rows at once on a device with so many bytes free, a power of 2.

    The logits of a chunk take about the memory of all hidden states: with V states and width H,
    the next power of 2 from number / ceil(V / H). At most a half of the free memory is used.

    Source: the rule of Liger-Kernel's fused linear cross-entropy, arXiv:2410.10989.
    """
    even = math.ceil(number / math.ceil(num_states / width))
    most = free // 2 // (BYTES_PER_LOGIT * num_states)
    return min(_power_of_2(max(1, even)), _power_of_2(most // 2 + 1) if most > 1 else 1)


def _power_of_2(least: int) -> int:
    """The lowest power of 2 that is not below a number."""
    return 1 << (least - 1).bit_length()


@dataclass(frozen=True)
class Chunk:
    """How much is decoded at once on a CPU."""

    elements: int
    """Number of logits, all in one buffer."""
    blocks: int
    """Parts of the buffer that the row loss reads one after the other."""


@torch.no_grad()
def values(
    layer: nn.Linear,
    loss: RowLoss,
    hidden: Hidden,
    columns: tuple[Tensor, ...],
    chunk: Chunk,
) -> Nats:
    """The loss of each row, float32, without gradients."""
    products = _Products(layer, hidden, chunk)
    found = []
    for rows in products.chunks():
        parts = [column[rows] for column in columns]
        blocks = _blocks(products.logits(rows), parts, products.block)
        found += [loss(logits, *parts).float() for logits, *parts in blocks]
    return torch.cat(found)


def weighted_sum(
    layer: nn.Linear,
    loss: RowLoss,
    hidden: Hidden,
    columns: tuple[Tensor, ...],
    chunk: Chunk,
) -> tuple[Tensor, Nats]:
    """`rows.weighted_sum` through a decoder that `is_plain`."""
    if not torch.is_grad_enabled():
        per_row = values(layer, loss, hidden, columns, chunk)
        return per_row.double().sum(), per_row
    products = _Products(layer, hidden, chunk)
    static = products.size if hidden.device.type in COMPILED_ON else None
    slopes = _Slopes(loss, columns, block=products.block, static=static)
    found = []
    with torch.no_grad():
        for rows in products.chunks():
            logits = products.logits(rows)
            found.append(slopes.replace(logits, rows))
            products.add(logits, rows)
    per_row = torch.cat(found)
    pairs = [*products.gradients(), *slopes.gradients()]
    tensors, gradients = [tensor for tensor, _ in pairs], [gradient for _, gradient in pairs]
    total = _Known.apply(per_row.double().sum(), gradients, *tensors)  # type: ignore[no-untyped-call]
    return total, per_row


class _Products:
    """The matrix products of a linear layer: logits of a chunk, and gradients from theirs."""

    def __init__(self, layer: nn.Linear, hidden: Hidden, chunk: Chunk) -> None:
        bias = layer._parameters["bias"]  # which torch's types say is never None
        self.given = (hidden, layer.weight, bias)
        self.size = rows_at_once(hidden, layer.out_features, chunk.elements)
        on_cpu = hidden.device.type == "cpu"
        self.block = -(-self.size // chunk.blocks) if on_cpu else self.size
        narrow = _autocast_dtype(hidden)
        self.exact = torch.autocast(hidden.device.type, enabled=False) if narrow else nullcontext()
        dtype = narrow or hidden.dtype
        # Once for all chunks; autocast alone would read the wide weight again for each product.
        self.hidden, self.weight = hidden.detach().to(dtype), layer.weight.detach().to(dtype)
        self.bias = None if bias is None else bias.detach().to(dtype)
        room = (min(self.size, max(1, len(hidden))), layer.out_features)
        self.room = self.hidden.new_empty(room if on_cpu else (0, 0))
        asked = torch.is_grad_enabled()
        self.of_hidden = torch.empty_like(hidden) if asked and hidden.requires_grad else None
        self.of_weight = _zeros(layer.weight) if asked and layer.weight.requires_grad else None
        self.of_bias = _zeros(bias) if asked and bias is not None and bias.requires_grad else None

    def chunks(self) -> Iterator[slice]:
        """Slices of the rows; one empty slice if there are none."""
        for start in range(0, max(1, len(self.hidden)), self.size):
            yield slice(start, min(start + self.size, len(self.hidden)))

    def logits(self, rows: slice) -> Logits:
        """Logits of some rows, which the next call on a CPU overwrites."""
        hidden = self.hidden[rows]
        with self.exact:
            if hidden.device.type != "cpu":
                return nn.functional.linear(hidden, self.weight, self.bias)
            logits = self.room[: len(hidden)]
            for start in range(0, logits.shape[-1], TILE):
                states = slice(start, start + TILE)
                weight, room = self.weight[states].t(), logits[:, states]
                if self.bias is None:
                    torch.mm(hidden, weight, out=room)
                else:
                    torch.addmm(self.bias[states], hidden, weight, out=room)
        return logits

    def add(self, slope: Logits, rows: slice) -> None:
        """Count the gradient of the logits of some rows."""
        with self.exact:
            if self.of_hidden is not None:
                part = self.of_hidden[rows]
                if part.dtype == slope.dtype:
                    torch.mm(slope, self.weight, out=part)
                else:
                    part.copy_(slope @ self.weight)
            if self.of_weight is not None:
                add_product(self.of_weight, slope.t(), self.hidden[rows])
            if self.of_bias is not None:
                self.of_bias.add_(slope.sum(0, dtype=self.of_bias.dtype))

    def gradients(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each tensor that requires a gradient, with its gradient."""
        found = (self.of_hidden, self.of_weight, self.of_bias)
        for tensor, gradient in zip(self.given, found, strict=True):
            if tensor is not None and gradient is not None:
                yield tensor, gradient


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to a total in place; the total may be wider than the factors."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif total.device.type == "cuda":
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total.add_(left @ right)


class _Slopes:
    """Values and gradients of a row loss, for logits of which the last layer makes no graph."""

    def __init__(
        self, loss: RowLoss, columns: tuple[Tensor, ...], *, block: int, static: int | None
    ) -> None:
        self.block, self.static, self.loss = block, static, loss
        if static is not None:
            self.loss = torch.compile(loss, backend=COMPILER, dynamic=False)
        self.given = columns
        self.columns = [column.detach() for column in columns]
        self.asked = [column.requires_grad for column in columns]
        self.of_columns = [torch.zeros_like(c) if c.requires_grad else None for c in columns]
        self.parameters: list[Tensor] | None = None
        self.of_parameters: list[Tensor | None] = []

    def replace(self, logits: Logits, rows: slice) -> Nats:
        """The loss of some rows; its gradient replaces their logits."""
        parts = [column[rows] for column in self.columns]
        slopes = [None if all_ is None else all_[rows] for all_ in self.of_columns]
        if self.static is not None:
            return self._replace(logits, parts, slopes)
        number = len(parts)
        blocks = _blocks(logits, [*parts, *slopes], self.block)
        return torch.cat([self._replace(b[0], b[1 : number + 1], b[number + 1 :]) for b in blocks])

    def _replace(
        self, logits: Logits, columns: Sequence[Tensor], of_columns: Sequence[Tensor | None]
    ) -> Nats:
        number = len(logits)
        own = [_filled(tensor, self.static or number) for tensor in (logits, *columns)]
        asked = [True, *self.asked]
        inputs = [t.requires_grad_() for t, wanted in zip(own, asked, strict=True) if wanted]
        with torch.enable_grad():
            value = self.loss(*own).float()[:number]
            if self.parameters is None:
                self.parameters = leaves(value, inputs)
                self.of_parameters = [None] * len(self.parameters)
            found = _gradients(value.sum(), [*inputs, *self.parameters])
        rooms = [logits, *(room for room in of_columns if room is not None)]
        for room, slope in zip(rooms, found, strict=False):
            room.zero_() if slope is None else room.copy_(slope[:number])
        for place, slope in enumerate(found[len(inputs) :]):
            self.of_parameters[place] = added(self.of_parameters[place], slope)
        return value.detach()

    def gradients(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each column and parameter that requires a gradient, with its gradient."""
        tensors, found = [*self.given, *(self.parameters or [])], self.of_columns
        for tensor, gradient in zip(tensors, [*found, *self.of_parameters], strict=True):
            if gradient is not None:
                yield tensor, gradient


class _Known(torch.autograd.Function):
    """A sum whose gradients are known already, and are only scaled on the way back."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, gradients: list[Tensor], *tensors: Tensor) -> Tensor:
        ctx.gradients, ctx.dtypes = gradients, [tensor.dtype for tensor in tensors]
        return total.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        # In place: a copy of a wide decoder's gradient would be the largest tensor of a step.
        gradients, ctx.gradients = ctx.gradients, None
        assert gradients is not None, "a row loss can be differentiated once; call it again"
        scaled = [g.mul_(scale).to(dtype) for g, dtype in zip(gradients, ctx.dtypes, strict=True)]
        return (None, None, *scaled)


def leaves(value: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The leaves of a value's graph that are no inputs, in the order in which they are met."""
    known = {id(tensor) for tensor in inputs}
    found: dict[int, Tensor] = {}
    pending, seen = [value.grad_fn], set()
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


def added(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    """The sum of two gradients in float32 or wider, in place of the first; None counts as 0."""
    if part is None:
        return total
    wide = part.to(torch.promote_types(part.dtype, torch.float32))
    return wide if total is None else total.add_(wide)


def _gradients(total: Tensor, tensors: Sequence[Tensor]) -> Sequence[Tensor | None]:
    if not total.requires_grad:
        return [None] * len(tensors)
    return torch.autograd.grad(total, tensors, allow_unused=True)


def _blocks(logits: Logits, columns: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """The rows of a chunk, and of columns that are not None, `size` at a time."""
    for start in range(0, max(1, len(logits)), size):
        rows = slice(start, start + size)
        yield [None if tensor is None else tensor[rows] for tensor in (logits, *columns)]


def _filled(tensor: Tensor, size: int) -> Tensor:
    """A tensor detached, with its first row repeated until it has so many rows."""
    missing = size - len(tensor)
    if missing == 0 or len(tensor) == 0:
        return tensor.detach()
    return torch.cat((tensor, tensor[:1].expand(missing, *tensor.shape[1:])))


def _zeros(parameter: Tensor) -> Tensor:
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    return torch.zeros_like(parameter, dtype=dtype)


def _autocast_dtype(hidden: Hidden) -> torch.dtype | None:
    """The dtype that autocast computes products of these rows in; None without autocast."""
    kind = hidden.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return None
    return None if hidden.dtype == torch.float64 else torch.get_autocast_dtype(kind)
