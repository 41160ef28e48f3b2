"""Rows: losses, gradients and draws by chunks are those of the dense computation."""

import pytest
import torch
from torch import Tensor, nn

from platform_core import rows
from platform_core.rows import Places, chunk_rows, collect, weighted_sum
from platform_core.testing.toy import TinyNetwork

STATES, LENGTH, BATCH = 7, 5, 3
chunks = pytest.mark.parametrize("rows_at_once", [1, 4, 15, 1000])


@pytest.fixture
def chunked(rows_at_once: int, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", rows_at_once * STATES + 1)
    assert chunk_rows(STATES) == rows_at_once
    return rows_at_once


def row_loss(logits: Tensor, x0: Tensor, weight: Tensor) -> Tensor:
    """A loss that is not linear in anything."""
    entropy = nn.functional.cross_entropy(logits, x0, reduction="none")
    return weight * entropy + logits.square().mean(-1).sqrt()


def network(*, tied: bool = False) -> TinyNetwork:
    torch.manual_seed(0)
    return TinyNetwork(STATES, tied=tied).double()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x_t, x0 = torch.randint(STATES, (2, BATCH, LENGTH), generator=generator)
    return x_t, x0, torch.rand(BATCH, LENGTH, generator=generator, dtype=torch.float64)


def by_rows(backbone: TinyNetwork, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    x_t, x0, weight = inputs
    hidden = backbone.encode(x_t, None).flatten(0, 1)
    columns = (x0.flatten(), weight.flatten())
    return weighted_sum(backbone.decoder, row_loss, hidden, columns, num_states=STATES)


def dense(backbone: TinyNetwork, inputs: tuple[Tensor, ...]) -> Tensor:
    x_t, x0, weight = inputs
    return row_loss(backbone(x_t, None).flatten(0, 1), x0.flatten(), weight.flatten())


def gradients(backbone: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}


@chunks
@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("tied", [False, True])
def test_value_and_gradients_are_the_dense_ones(tied: bool):
    """Also when the embedding is the decoder: both of its gradients add up."""
    by_row, densely = network(tied=tied), network(tied=tied)
    total, values = by_rows(by_row, batch())
    expected = dense(densely, batch())
    torch.testing.assert_close(values.double(), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(total, expected.sum(), rtol=1e-6, atol=0)
    assert total.dtype == torch.float64
    total.backward()
    expected.sum().backward()
    assert gradients(by_row).keys() == dict(by_row.named_parameters()).keys()
    torch.testing.assert_close(gradients(by_row), gradients(densely), rtol=1e-10, atol=1e-12)


@chunks
@pytest.mark.usefixtures("chunked")
def test_the_gradient_of_the_hidden_rows_is_the_dense_one():
    backbone, (x_t, x0, weight) = network(), batch()
    hidden = backbone.encode(x_t, None).detach().flatten(0, 1).requires_grad_()
    columns = (x0.flatten(), weight.flatten())
    total, _ = weighted_sum(backbone.decoder, row_loss, hidden, columns, num_states=STATES)
    (by_row,) = torch.autograd.grad(total, hidden)
    (expected,) = torch.autograd.grad(row_loss(backbone.decoder(hidden), *columns).sum(), hidden)
    torch.testing.assert_close(by_row, expected, rtol=1e-10, atol=1e-12)


@chunks
@pytest.mark.usefixtures("chunked")
def test_scaled_losses_of_several_batches_accumulate():
    by_row, densely = network(tied=True), network(tied=True)
    for scale in (0.25, -3.0):
        total, _ = by_rows(by_row, batch())
        (scale * total).backward()
        (scale * dense(densely, batch()).sum()).backward()
    torch.testing.assert_close(gradients(by_row), gradients(densely), rtol=1e-10, atol=1e-12)


def test_a_second_backward_is_refused():
    total, _ = by_rows(network(), batch())
    total.backward(retain_graph=True)
    with pytest.raises(AssertionError, match="differentiated once"):
        total.backward()


def test_values_carry_no_gradient():
    _, values = by_rows(network(), batch())
    assert not values.requires_grad


@pytest.mark.parametrize("frozen", ["head", "all but head"])
def test_frozen_parts_get_no_gradient_and_leave_the_others_theirs(frozen: str):
    by_row, densely = network(), network()
    for backbone in (by_row, densely):
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name.startswith("head") == (frozen != "head"))
    by_rows(by_row, batch())[0].backward()
    dense(densely, batch()).sum().backward()
    assert len(gradients(by_row)) == (3 if frozen == "head" else 2)
    torch.testing.assert_close(gradients(by_row), gradients(densely), rtol=1e-10, atol=1e-12)


@chunks
@pytest.mark.usefixtures("chunked")
def test_without_gradients_the_values_are_the_same():
    total, values = by_rows(network(), batch())
    with torch.no_grad():
        plain_total, plain = by_rows(network(), batch())
    assert torch.equal(values, plain)
    assert total.item() == plain_total.item()
    assert not plain_total.requires_grad


def test_no_rows_cost_nothing_and_have_zero_gradients():
    backbone = network()
    hidden = backbone.encode(batch()[0], None).flatten(0, 1)[:0]
    columns = (torch.zeros(0).long(), torch.zeros(0).double())
    total, values = weighted_sum(backbone.decoder, row_loss, hidden, columns, num_states=STATES)
    assert total.item() == 0
    assert values.shape == (0,)
    total.backward()
    assert all((gradient == 0).all() for gradient in gradients(backbone).values())
    assert gradients(backbone).keys() == dict(backbone.named_parameters()).keys()


@chunks
@pytest.mark.usefixtures("chunked")
def test_collect_is_the_dense_choice():
    backbone, (x_t, x0, _) = network(), batch()
    hidden = backbone.encode(x_t, None).flatten(0, 1).detach()

    def choose(logits: Tensor, offset: Tensor) -> Tensor:
        return logits.argmax(-1) + offset

    chosen = collect(backbone.decoder, choose, hidden, (x0.flatten(),), num_states=STATES)
    assert torch.equal(chosen, backbone.decoder(hidden).argmax(-1) + x0.flatten())


def test_a_vocabulary_wider_than_a_chunk_is_decoded_row_by_row():
    assert chunk_rows(rows.CHUNK_ELEMENTS + 1) == 1


class Weighing(nn.Module):
    """A row loss with weights of its own, one of them frozen and one that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.tensor(2.0, dtype=torch.float64), requires_grad=False)
        self.unused = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def row_loss(self, logits: Tensor, x0: Tensor, weight: Tensor) -> Tensor:
        return row_loss(logits * self.scale, x0, weight * self.frozen) + self.scale.square()


@chunks
@pytest.mark.usefixtures("chunked")
def test_parameters_of_the_row_loss_and_columns_are_differentiated(monkeypatch):
    (x_t, x0, weight), found = batch(), []
    for by_row in (True, False):
        backbone, loss = network(), Weighing()
        column = weight.clone().requires_grad_()
        hidden = backbone.encode(x_t, None).flatten(0, 1)
        columns = (x0.flatten(), (column * 2).flatten())
        if by_row:
            total, _ = weighted_sum(
                backbone.decoder, loss.row_loss, hidden, columns, num_states=STATES
            )
        else:
            total = loss.row_loss(backbone.decoder(hidden), *columns).float().double().sum()
        (total * 0.5).backward()
        assert loss.unused.grad is None
        assert loss.frozen.grad is None
        found.append({**gradients(backbone), "scale": loss.scale.grad, "column": column.grad})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-5, atol=1e-6)


def test_a_tensor_made_of_parameters_must_be_a_column(monkeypatch):
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 4 * STATES)
    backbone, loss, (x_t, x0, weight) = network(), Weighing(), batch()
    hidden, made = backbone.encode(x_t, None).flatten(0, 1), loss.scale.exp()

    def captures(logits: Tensor, x0: Tensor, weight: Tensor) -> Tensor:
        return row_loss(logits, x0, weight) * made

    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        weighted_sum(
            backbone.decoder,
            captures,
            hidden,
            (x0.flatten(), weight.flatten()),
            num_states=STATES,
        )


@pytest.mark.parametrize("every", [False, True])
def test_places_are_read_and_written_as_a_mask_selects(every):
    torch.manual_seed(0)
    selected = torch.ones(3, 4, dtype=torch.bool) if every else torch.rand(3, 4) < 0.5
    places = Places.of(selected, every=every)
    values, hidden = torch.randn(3, 4), torch.randn(3, 4, 2, requires_grad=True)
    assert len(places) == int(selected.sum())
    assert torch.equal(places.rows(values), values[selected])
    assert torch.equal(
        places.rows(values[:, :1].expand(3, 4)), values[:, :1].expand(3, 4)[selected]
    )
    weights = torch.randn(len(places), 2)
    found = [
        torch.autograd.grad((rows_ * weights).sum(), hidden)[0]
        for rows_ in (places.rows(hidden), hidden[selected])
    ]
    assert torch.equal(*found)
    new = torch.randn(len(places))
    assert torch.equal(places.spread(new, values), values.masked_scatter(selected, new))


def test_nothing_is_selected_without_trouble():
    places = Places.of(torch.zeros(2, 3, dtype=torch.bool))
    assert len(places) == 0
    assert places.rows(torch.ones(2, 3, 5)).shape == (0, 5)
    assert torch.equal(places.spread(torch.ones(0), torch.ones(2, 3)), torch.ones(2, 3))
