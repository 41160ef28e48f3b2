"""What an update asks of a device: kernels, waits of the host, and bytes, counted by dispatch.

Every operation that torch dispatches is seen, in the backward pass too, on any device. On a CPU the
count is what the same code would dispatch on a GPU in eager mode; copies from a GPU to the host,
which do not happen there, are then missing.
"""

from collections.abc import Iterable, Mapping
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SILENT = frozenset(
    [
        "empty",
        "empty_like",
        "empty_strided",
        "new_empty",
        "new_empty_strided",
        "detach",
        "alias",
        "lift_fresh",
        "_unsafe_view",
        "is_same_size",
        "resize_",
        "set_",
    ]
)
"""Operations without a kernel that are no views by their schema: they only make or name memory."""

WAITING = frozenset(
    [
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "equal",
        "is_nonzero",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
    ]
)
"""Operations after which the host waits, since it reads a value or a size of the device."""

BY_MASK = frozenset(["index", "index_put", "index_put_", "_index_put_impl_"])
"""Operations that look for the positions of a mask first, where an index is boolean."""


@final
class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that are dispatched within this context.

    Attributes:
        kernels: operations that launch a kernel; one that handles a list of tensors counts once.
        syncs: operations that make the host wait for the device.
        moved: bytes of the tensors that kernels read and write, each operation's added up; what a
            cache saves or a kernel reads twice is not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels = self.syncs = self.moved = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Counts one operation and runs it."""
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.syncs += waits(name, args, given, made)
        if not func.is_view and name not in SILENT:
            self.kernels += 1
            self.moved += sum(tensor.numel() * tensor.element_size() for tensor in given + made)
        return result


def waits(name: str, args: tuple[Any, ...], given: list[Tensor], made: list[Tensor]) -> bool:
    """Whether the host waits for the device at an operation."""
    if name in BY_MASK:
        return any(index is not None and index.dtype == torch.bool for index in args[1])
    on_device = any(tensor.device.type != "cpu" for tensor in given)
    copied = on_device and any(tensor.device.type == "cpu" for tensor in made)
    return name in WAITING or (copied and name in ("_to_copy", "copy_"))
