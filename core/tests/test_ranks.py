"""What processes of one launch tell each other, in one process that is several in turn."""

import socket
import time

import pytest

from platform_core.cli import main
from platform_core.errors import EXIT_MISTAKE
from platform_core.runtime import ranks


@pytest.fixture
def first(monkeypatch):
    """This process is the first of two, and has the store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": "0"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    monkeypatch.setattr(ranks, "_found", [])
    monkeypatch.setattr(ranks, "LAST_WORDS", 0.1)


GONE = RuntimeError("[pair.cc:547] Connection closed by peer [127.0.0.1]:41234")


def test_one_process_meets_nobody(monkeypatch):
    monkeypatch.setattr(ranks, "_store", lambda _: pytest.fail("it needs no store"))
    ranks.ready()
    ranks.part()
    ranks.require_all()
    assert ranks.speaks("a line")
    assert ranks.speaks("a line")
    assert ranks.lost(GONE, "platform run") is None


def test_a_line_is_said_by_one_process(first):
    assert ranks.speaks("a line")
    assert not ranks.speaks("a line")
    assert ranks.speaks("another line")


def test_who_waits_for_others_learns_that_one_has_left_and_why(first):
    ranks.require_all()
    ranks.speaks("platform run: error: no")
    ranks.part(0.05)
    with pytest.raises(ranks.LeftError, match="^platform run: error: no$"):
        ranks.require_all()
    with pytest.raises(ranks.LeftError, match="^platform run: error: no$"):
        ranks.ready()


def test_an_error_of_the_network_is_what_the_other_process_said(first):
    said = ranks.lost(GONE, "platform eval")
    assert said.startswith("platform eval: error: another process of this launch has ended without")
    ranks.speaks("platform eval: error: no")
    assert ranks.lost(GONE, "platform eval") == "platform eval: error: no"
    assert ranks.lost(RuntimeError("shapes do not match"), "platform eval") is None


def test_without_an_address_each_process_speaks_for_itself(first, monkeypatch):
    monkeypatch.delenv("MASTER_PORT")
    start = time.monotonic()
    ranks.ready()
    ranks.part()
    ranks.require_all()
    assert ranks.speaks("a line")
    assert ranks.speaks("a line")
    assert time.monotonic() - start < ranks.PATIENCE / 2


def test_a_command_ends_with_the_line_of_the_process_that_left(first, monkeypatch, capsys):
    monkeypatch.setattr(ranks, "PATIENCE", 0.1)
    ranks.speaks("platform run: error: no")
    ranks.part(0.05)

    def fails(verb, argv):
        raise GONE

    monkeypatch.setattr("platform_core.cli._dispatch", fails)
    assert main(["run"]) == EXIT_MISTAKE
    assert capsys.readouterr().err == "", "the other one has printed it"
