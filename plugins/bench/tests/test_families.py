"""The bench's comparisons: equal losses, and counts of what torch dispatches."""

import pytest
import torch

import platform_bench as bench
from platform_bench import counts, families
from platform_bench.counting import Counting

SIZE = bench.Size(states=50, batch=2, length=8, network="tiny", width=16)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_plain_step_is_the_same_loss_with_the_same_gradients(family):
    found = {}
    for way in ("ours", "plain"):
        objective, batch = families.prepared(family, SIZE)
        total = families.backward(objective, batch, family, way)
        found[way] = total, [w.grad for w in objective.parameters() if w.grad is not None]
    torch.testing.assert_close(found["ours"][0], found["plain"][0], rtol=1e-5, atol=1e-5)
    assert found["plain"][1]
    for ours, plain in zip(found["ours"][1], found["plain"][1], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(
    not hasattr(torch.nn.functional, "linear_cross_entropy"), reason="torch is older than 2.13"
)
def test_the_cross_entropy_of_torch_is_the_loss_of_ar():
    objective, batch = families.prepared("ar", SIZE)
    ours, theirs = (families.backward(objective, batch, "ar", way) for way in ("ours", "torch"))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_views_and_memory_are_no_kernels():
    x = torch.ones(4, 3)
    with Counting() as counting:
        x.t().view(3, 2, 2).detach()
        torch.empty(5)
    assert (counting.kernels, counting.syncs, counting.moved) == (0, 0, 0)


def test_kernels_and_their_bytes_are_counted_backwards_too():
    x, weight = torch.ones(4, 3), torch.ones(3, 2, requires_grad=True)
    with Counting() as counting:
        loss = (x @ weight).sum()
    assert (counting.kernels, counting.syncs) == (2, 0)
    assert counting.moved == 4 * (12 + 6 + 8) + 4 * (8 + 1)
    with Counting() as counting:
        loss.backward()
    assert counting.kernels >= 1


@pytest.mark.parametrize(
    ("read", "waits"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: x[torch.tensor([0])], 0),
        (lambda x: x + 1, 0),
    ],
)
def test_what_the_host_waits_for_is_counted(read, waits):
    x = torch.ones(4)
    with Counting() as counting:
        read(x)
    assert counting.syncs == waits


@pytest.mark.parametrize("path", ["mdlm, update", "mdlm, sample", "ar, sample"])
def test_a_count_is_the_same_twice(path):
    case = bench.Case("counts", path, SIZE)
    assert bench.measure(case) == bench.measure(case)
    assert counts.measure(case)["kernels"] > 0


MOST_WAITS = {
    "ar": (0, 0),
    "duo": (0, 2),
    "mdlm": (1, 2),
    "sedd": (1, 1),
    "d3pm": (1, 2),
}
"""Family -> waits of the host in an update and in a sampling step, where all tokens count."""


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_host_waits_no_more_than_it_must(family):
    update, sample = (
        counts.measure(counts.Case("counts", f"{family}, {path}", SIZE))["syncs"]
        for path in ("update", "sample")
    )
    assert update == MOST_WAITS[family][0]
    assert sample <= MOST_WAITS[family][1]


def test_a_table_fits_a_terminal(monkeypatch):
    monkeypatch.setattr(bench, "measure_apart", lambda case: dict.fromkeys(COLUMNS, 12345.0))
    for name in bench.SUITES:
        lines = list(bench.table(name, bench.Size(100_514, 64, 1024, "small", None)))
        assert max(map(len, lines)) <= 80


COLUMNS = [key for name in bench.SUITES for key in bench.suite(name).COLUMNS]
