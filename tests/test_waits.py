"""How often training makes the host wait for a GPU, counted by the bench."""

from test_trainer import trainer

from platform_bench.counting import Counting
from platform_core.training import deferred


def test_an_update_of_the_trainer_waits_only_for_the_positions_that_count(monkeypatch):
    """And looks once at the mask of the batch, which is still on the CPU."""
    monkeypatch.setattr(deferred, "DEFERRED_ON", {"cpu"})
    trained = trainer()
    trained.launch()
    with Counting() as counting:
        trained.launch()
    assert counting.syncs == 2
