"""Without a network, the hub's libraries are told not to try."""

import socket

import pytest
from huggingface_hub import constants

from platform_core.data.hub import reachable


@pytest.fixture(autouse=True)
def neither_told_nor_proxied(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    monkeypatch.setattr("platform_core.data.hub.getproxies", dict)


def test_a_name_that_is_not_found_is_not_asked(monkeypatch):
    def unknown(*_: object) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert not reachable()
    monkeypatch.setattr("platform_core.data.hub.getproxies", lambda: {"https": "http://proxy:3128"})
    assert reachable()


def test_a_name_that_is_found_is_asked_unless_that_is_forbidden(monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address: asked.append(address))
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example:8443")
    assert reachable()
    assert asked == [("mirror.example", 8443)]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not reachable()
