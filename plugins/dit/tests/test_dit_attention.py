import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from platform_core.errors import UsageError
from platform_dit import attention
from platform_dit.attention import Flash, FlashWherePossible, Sdpa


def heads(dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 5, 3, 8, generator=generator).to(dtype) for _ in range(3))


def never(*tensors: Tensor, causal: bool) -> Tensor:
    raise AssertionError("flash-attn cannot read these tensors")


@pytest.fixture
def with_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_func=never))


@pytest.fixture
def without_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "flash_attn", None)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_a_softmax_over_the_visible_positions(causal: bool) -> None:
    query, key, value = heads()
    scores = torch.einsum("bihd,bjhd->bhij", query, key) / 8**0.5
    if causal:
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    expected = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), value)
    torch.testing.assert_close(Sdpa()(query, key, value, causal=causal), expected)


def test_on_a_cpu_half_precision_is_attended_in_float32_and_returned_as_it_came() -> None:
    query, key, value = heads(torch.bfloat16)
    wide = Sdpa()(query.float(), key.float(), value.float(), causal=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attended = Sdpa()(query, key, value, causal=False)
    assert attended.dtype == torch.bfloat16
    assert torch.equal(attended, wide.bfloat16())


@pytest.mark.usefixtures("with_flash")
def test_auto_is_flash_where_it_is_installed_and_sdpa_for_what_it_cannot_read() -> None:
    chosen = attention.choose("auto", 64)
    assert isinstance(chosen, FlashWherePossible)
    torch.testing.assert_close(chosen(*heads(), causal=True), Sdpa()(*heads(), causal=True))


@pytest.mark.usefixtures("without_flash")
def test_auto_is_sdpa_where_flash_is_not_installed() -> None:
    assert isinstance(attention.choose("auto", 64), Sdpa)


@pytest.mark.usefixtures("with_flash")
@pytest.mark.parametrize("head_size", [12, 264])
def test_auto_is_sdpa_for_heads_that_flash_cannot_read(head_size: int) -> None:
    assert isinstance(attention.choose("auto", head_size), Sdpa)


@pytest.mark.usefixtures("with_flash")
def test_flash_that_is_asked_for_is_taken_and_says_what_it_cannot_read() -> None:
    chosen = attention.choose("flash", 64)
    assert isinstance(chosen, Flash)
    with pytest.raises(UsageError, match="bfloat16 on cuda, but .* float32 on cpu"):
        chosen(*heads(), causal=False)


def test_flash_gets_queries_and_keys_in_the_dtype_of_the_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "flash_reads", lambda value: value.dtype == torch.bfloat16)
    seen = []

    def kernel(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> Tensor:
        seen.append((query.dtype, key.dtype, value.dtype, causal))
        return value

    query, key, value = heads()
    for kernel_choice in (Flash(kernel), FlashWherePossible(kernel)):
        kernel_choice(query, key, value.bfloat16(), causal=True)
    assert seen == [(torch.bfloat16,) * 3 + (True,)] * 2


@pytest.mark.usefixtures("without_flash")
def test_flash_that_is_not_installed_is_an_error_that_says_so() -> None:
    with pytest.raises(UsageError, match="flash-attn, which does not import"):
        attention.choose("flash", 64)


@pytest.mark.usefixtures("with_flash")
def test_flash_with_heads_that_it_cannot_read_is_an_error_with_the_numbers() -> None:
    with pytest.raises(UsageError, match="up to 256 in steps of 8, but .* is 12"):
        attention.choose("flash", 12)


def test_flash_without_a_gpu_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="needs an NVIDIA GPU"):
        attention.choose("flash", 64)
