"""Attention to all positions, to those on the left, or to those that a rule allows.

    softmax(q k^T / sqrt(head_size)) v

Causal attention may get fewer queries than keys; the queries are then those of the last positions.

`choose` picks the kernel once, when a network is built: torch's own, which runs everywhere, or
FlashAttention where it is installed and the inputs allow it. A rule of what is visible becomes a
dense mask, or blocks of FlexAttention on a GPU. Queries (`Newest`) and keys may have a wider dtype
than values, because of rotary positions; the result has the dtype of the values.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from platform_core.errors import UsageError
from platform_core.visibility import Visibility

Heads = Float[Tensor, "batch length heads head_size"]
Newest = Float[Tensor, "batch newest heads head_size"]
Name = Literal["auto", "sdpa", "flash"]
Visible = Bool[Tensor, "#batch newest length"]
Mask = Visible | BlockMask
"""Which keys each query may see, in the form that a kernel reads."""
FlashKernel = Callable[..., Tensor]

FLASH_DTYPES = (torch.float16, torch.bfloat16)
FLASH_MAX_HEAD_SIZE = 256
FLASH_HEAD_SIZE_STEP = 8

FLEX_ON = {"cuda"}
"""Kinds of devices on which `auto` uses FlexAttention for rules of what is visible."""
FLEX_LEAST_HEAD_SIZE = 16


class Attention(ABC):
    """An attention kernel; `visible` says which keys each query may see, None for all."""

    @abstractmethod
    def __call__(
        self,
        query: Newest,
        key: Heads,
        value: Heads,
        *,
        causal: bool,
        visible: Mask | None = None,
    ) -> Newest:
        """The attended values, `[batch, newest, heads, head_size]`."""

    @abstractmethod
    def mask(
        self, visibility: Visibility, shape: tuple[int, int], device: torch.device, *, causal: bool
    ) -> Mask:
        """What each position of `(batch, length)` may see under a rule: `visible` of a call."""


class Sdpa(Attention):
    """torch's scaled-dot-product attention, which on a GPU brings its own FlashAttention."""

    def __call__(
        self,
        query: Newest,
        key: Heads,
        value: Heads,
        *,
        causal: bool,
        visible: Mask | None = None,
    ) -> Newest:
        """The attended values, computed in their dtype; on a CPU in float32 at least."""
        assert not isinstance(visible, BlockMask), "see mask"
        if value.device.type != "cpu":
            return self._attend(
                query, key, value, causal=causal, visible=visible, dtype=value.dtype
            )
        # Autocast would choose bfloat16, in which torch's CPU kernel is up to three times slower
        # backwards than in float32 on short sequences, and about as fast on long ones.
        with torch.autocast("cpu", enabled=False):
            wide = torch.promote_types(value.dtype, torch.float32)
            attended = self._attend(query, key, value, causal=causal, visible=visible, dtype=wide)
        return attended.to(value.dtype)

    def mask(
        self, visibility: Visibility, shape: tuple[int, int], device: torch.device, *, causal: bool
    ) -> Mask:
        """A dense mask; `causal` of a call comes on top of it."""
        return visibility.dense(shape, device)

    def _attend(
        self,
        query: Newest,
        key: Heads,
        value: Heads,
        *,
        causal: bool,
        visible: Visible | None,
        dtype: torch.dtype,
    ) -> Newest:
        queries, keys = query.shape[1], key.shape[1]
        # A single query is the last position, which sees all keys.
        causal = causal and queries > 1
        # torch's own causal mask would take the queries for the first positions.
        apart = causal and (queries < keys or visible is not None)
        mask = last_rows(queries, keys, key.device) if apart else None
        if visible is not None:
            mask = (visible if mask is None else visible & mask)[:, None]
        query, key, value = (heads.to(dtype).transpose(1, 2) for heads in (query, key, value))
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal and mask is None
        ).transpose(1, 2)


class Flexible(Sdpa):
    """torch's FlexAttention for rules of what is visible on a GPU, `Sdpa` for the rest.

    It skips blocks of queries and keys of which none sees another. Its results are those of `Sdpa`
    up to rounding. torch has no backward pass of it on a CPU.
    """

    def __call__(
        self,
        query: Newest,
        key: Heads,
        value: Heads,
        *,
        causal: bool,
        visible: Mask | None = None,
    ) -> Newest:
        """The attended values; if `visible` came in blocks, it says what is causal too."""
        if not isinstance(visible, BlockMask):
            return super().__call__(query, key, value, causal=causal, visible=visible)
        heads = (each.to(value.dtype).transpose(1, 2) for each in (query, key, value))
        attended: Newest = _flex_kernel()(*heads, block_mask=visible).transpose(1, 2)
        return attended

    def mask(
        self, visibility: Visibility, shape: tuple[int, int], device: torch.device, *, causal: bool
    ) -> Mask:
        """Blocks of visible pairs where FlexAttention runs, else a dense mask."""
        if device.type not in FLEX_ON:
            return super().mask(visibility, shape, device, causal=causal)
        number, length = shape
        return create_block_mask(
            lambda b, _, q, k: visibility.sees(b, q, k) & ((q >= k) | (not causal)),
            number if visibility.differs else None,
            None,
            length,
            length,
            device=str(device),
        )


class Flash(Attention):
    """The kernel of the package flash-attn: CUDA and half precision only."""

    def __init__(self, kernel: FlashKernel) -> None:
        self._kernel = kernel

    def __call__(
        self,
        query: Newest,
        key: Heads,
        value: Heads,
        *,
        causal: bool,
        visible: Mask | None = None,
    ) -> Newest:
        """The attended values.

        Raises:
            UsageError: the kernel cannot read this device or dtype, or `visible` is given.
        """
        if visible is not None:
            raise UsageError(
                "attention flash cannot hide positions from each other, as document masks and "
                "blocks do; choose attention auto or sdpa"
            )
        if not flash_reads(value):
            raise UsageError(
                "attention flash needs float16 or bfloat16 on cuda, but the network computes in "
                f"{str(value.dtype).removeprefix('torch.')} on {value.device.type}; choose "
                "precision bf16 on a GPU, or attention auto"
            )
        return self._kernel(query.to(value.dtype), key.to(value.dtype), value, causal=causal)

    def mask(
        self, visibility: Visibility, shape: tuple[int, int], device: torch.device, *, causal: bool
    ) -> Mask:
        """A mask that a call refuses."""
        return Sdpa().mask(visibility, shape, device, causal=causal)


class FlashWherePossible(Attention):
    """FlashAttention for inputs that it can read, torch's kernels for others and with `visible`."""

    def __init__(self, kernel: FlashKernel, torchs: Sdpa | None = None) -> None:
        self._flash = Flash(kernel)
        self._torchs = torchs or Sdpa()

    def __call__(
        self,
        query: Newest,
        key: Heads,
        value: Heads,
        *,
        causal: bool,
        visible: Mask | None = None,
    ) -> Newest:
        if visible is None and flash_reads(value):
            return self._flash(query, key, value, causal=causal)
        return self._torchs(query, key, value, causal=causal, visible=visible)

    def mask(
        self, visibility: Visibility, shape: tuple[int, int], device: torch.device, *, causal: bool
    ) -> Mask:
        """In the form that torch's kernels read."""
        return self._torchs.mask(visibility, shape, device, causal=causal)


def last_rows(queries: int, keys: int, device: torch.device) -> Bool[Tensor, "queries keys"]:
    """Which of `keys` positions each of the last `queries` positions sees in causal attention."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def flash_reads(heads: Heads) -> bool:
    """Whether FlashAttention can read the device and dtype of a tensor."""
    return heads.is_cuda and heads.dtype in FLASH_DTYPES


def choose(name: Name, head_size: int) -> Attention:
    """The kernel with this name, for heads of this size.

    Raises:
        UsageError: flash was requested, but is not available.
    """
    return _MAKERS[name](head_size)


def _make_auto(head_size: int) -> Attention:
    # A width that is no power of 2, or a small one, is what older versions of torch lack.
    flexible = head_size >= FLEX_LEAST_HEAD_SIZE and head_size & (head_size - 1) == 0
    torchs = Flexible() if flexible else Sdpa()
    try:
        return FlashWherePossible(_flash_kernel(head_size), torchs)
    except UsageError:
        return torchs


def _make_sdpa(head_size: int) -> Attention:
    return Sdpa()


def _make_flash(head_size: int) -> Attention:
    return Flash(_flash_kernel(head_size))


_MAKERS: dict[Name, Callable[[int], Attention]] = {
    "auto": _make_auto,
    "sdpa": _make_sdpa,
    "flash": _make_flash,
}


@functools.cache
def _flex_kernel() -> Callable[..., Tensor]:
    """FlexAttention, compiled, since what is not compiled makes the whole matrix of scores."""
    return torch.compile(flex_attention, dynamic=False)


def _flash_kernel(head_size: int) -> FlashKernel:
    if head_size > FLASH_MAX_HEAD_SIZE or head_size % FLASH_HEAD_SIZE_STEP:
        raise UsageError(
            f"attention flash takes head sizes up to {FLASH_MAX_HEAD_SIZE} in steps of "
            f"{FLASH_HEAD_SIZE_STEP}, but hidden_size / num_heads is {head_size}; choose attention "
            "auto, or other sizes"
        )
    if not torch.cuda.is_available():
        raise UsageError(
            "attention flash needs an NVIDIA GPU, and torch finds none; choose attention auto"
        )
    try:
        from flash_attn import flash_attn_func
    except ImportError as error:
        raise UsageError(
            f"attention flash needs the package flash-attn, which does not import ({error}); "
            "install it, or choose attention auto"
        ) from error
    kernel: FlashKernel = flash_attn_func
    return kernel
