"""Every test has an empty data folder, no settings from outside, and no network beyond this machine."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; what tests start inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)

_connect = socket.socket.connect
_LOCAL_NAMES = ("localhost", "")


@pytest.fixture(autouse=True)
def surroundings_of_a_new_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("HEARTH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HEARTH_DATA_DIR", str(tmp_path / "hearth-data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "hearth-config"))
    for variable in ("HF_HUB_CACHE", "LLAMA_CACHE", "OLLAMA_MODELS"):  # models that whoever runs the tests has
        monkeypatch.setenv(variable, str(tmp_path / "none"))


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A handler that a test sets up must not outlive it: its stream is closed by then."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    for handler in [one for one in root.handlers if one not in before]:
        root.removeHandler(handler)


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """A connection that leaves this machine fails with an error that names the address."""

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            raise OSError(f"tests may not connect to {address}")
        _connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        yield


def _is_local(host: str) -> bool:
    if host in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
