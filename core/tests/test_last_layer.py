"""The plain linear last layer: its sums and gradients are those of the general path."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from platform_core import last_layer, rows
from platform_core.last_layer import add_product, device_rows, is_plain
from platform_core.rows import by_autograd, weighted_sum

WIDTH, STATES, NUMBER = 6, 1100, 37
"""The states are more than a tile, so that logits are put together."""

both_biases = pytest.mark.parametrize("bias", [True, False])
Sum = Callable[..., tuple[Tensor, Tensor]]


def row_loss(logits: Tensor, tokens: Tensor, weight: Tensor) -> Tensor:
    """A weighted cross-entropy in float32 or wider."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return weight * nn.functional.cross_entropy(wide, tokens, reduction="none")


def found(sum_: Sum, dtype: torch.dtype, *, bias: bool = True, number: int = NUMBER):
    """Total, values and the gradients of the hidden rows, the layer and a column."""
    torch.manual_seed(0)
    layer = nn.Linear(WIDTH, STATES, bias=bias, dtype=dtype)
    hidden = torch.randn(number, WIDTH, dtype=dtype, requires_grad=True)
    weight = torch.rand(number, dtype=dtype, requires_grad=True)
    columns = (torch.randint(STATES, (number,)), weight)
    total, values = sum_(layer, row_loss, hidden, columns, num_states=STATES)
    (0.5 * total).backward()
    return total, values, [hidden.grad, weight.grad, *(p.grad for p in layer.parameters())]


def assert_equal(one, other, **tolerance: float) -> None:
    torch.testing.assert_close(one[0], other[0], **tolerance)
    torch.testing.assert_close(one[1], other[1], **tolerance)
    for first, second in zip(one[2], other[2], strict=True):
        assert first.dtype == second.dtype
        scale = float(second.abs().max())
        torch.testing.assert_close(first / scale, second / scale, rtol=0, atol=tolerance["rtol"])


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 rows and blocks of 2."""
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 16 * STATES)


@both_biases
@pytest.mark.usefixtures("few_rows")
def test_float32_is_the_general_path(bias: bool):
    plain, general = (found(s, torch.float32, bias=bias) for s in (weighted_sum, by_autograd))
    assert_equal(plain, general, rtol=2e-6, atol=1e-6)


@both_biases
@pytest.mark.usefixtures("few_rows")
def test_autocast_to_bfloat16_is_the_general_path_and_adds_up_in_float32(bias: bool):
    with torch.autocast("cpu", torch.bfloat16):
        plain, general = (found(s, torch.float32, bias=bias) for s in (weighted_sum, by_autograd))
    assert_equal(plain, general, rtol=1e-2, atol=1e-3)
    assert {gradient.dtype for gradient in plain[2]} == {torch.float32}


@pytest.mark.parametrize("sum_", [weighted_sum, by_autograd])
def test_bfloat16_weights_have_gradients_added_up_in_float32(sum_: Sum, monkeypatch):
    """Row by row and rounded to bfloat16 each time, small parts of a gradient would be lost."""
    whole = found(sum_, torch.bfloat16, number=600)[2][2]
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 2 * STATES)
    by_row = found(sum_, torch.bfloat16, number=600)[2][2]
    assert by_row.dtype == torch.bfloat16
    torch.testing.assert_close(by_row, whole, rtol=2e-2, atol=1e-2 * float(whole.abs().max()))


@pytest.mark.slow
@pytest.mark.usefixtures("few_rows")
def test_a_compiled_loss_has_one_shape_and_the_same_gradients(monkeypatch):
    """The last chunk is padded; with a compiler that calls the same kernels."""
    shapes = []

    def seen(graph, inputs):
        shapes.append([tuple(tensor.shape) for tensor in inputs])
        return graph

    general = found(by_autograd, torch.float32)
    monkeypatch.setattr(last_layer, "COMPILED_ON", {"cpu"})
    monkeypatch.setattr(last_layer, "COMPILER", seen)
    plain = found(weighted_sum, torch.float32)
    assert_equal(plain, general, rtol=2e-6, atol=1e-6)
    assert len(shapes) == 1
    assert {shape[0] for shape in shapes[0]} == {16}


def test_only_a_linear_layer_without_hooks_is_plain():
    class Other(nn.Linear):
        """Might do anything."""

    hidden, layer = torch.zeros(1, WIDTH), nn.Linear(WIDTH, STATES)
    assert is_plain(layer, hidden)
    assert not is_plain(Other(WIDTH, STATES), hidden)
    assert not is_plain(nn.Identity(), hidden)
    assert not is_plain(layer, hidden.double())
    layer.register_forward_hook(lambda *_: None)
    assert not is_plain(layer, hidden)


@pytest.mark.parametrize(
    ("number", "width", "states", "free", "expected"),
    [
        (65_536, 768, 50_257, 2**36, 1024),
        (65_536, 768, 50_257, 2**30, 256),
        (4096, 256, 31, 2**36, 4096),
        (5, 768, 50_257, 2**36, 1),
        (0, 768, 50_257, 2**36, 1),
        (65_536, 768, 50_257, 0, 1),
    ],
)
def test_rows_at_once_on_a_gpu_follow_its_memory(number, width, states, free, expected):
    found = device_rows(number, width, states, free)
    assert found == expected
    assert found == 1 or found * states * last_layer.BYTES_PER_LOGIT <= free / 2


def test_a_product_of_narrow_factors_is_added_to_a_wide_total():
    total = torch.ones(8, 4)
    left, right = torch.full((8, 16), 0.5).bfloat16(), torch.full((16, 4), 0.25).bfloat16()
    add_product(total, left, right)
    assert torch.equal(total, torch.full((8, 4), 3.0))
    # What the same call needs on a GPU, which does not run here.
    assert "dtype_out" in torch.ops.aten.addmm.overloads()
