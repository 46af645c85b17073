"""What of the log reaches standard error: one-line warnings, or what was asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from hearth.logging_setup import configure_logging
from hearth.models.errors import RequestError


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("hearth")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    logging.captureWarnings(False)


def test_warnings_are_one_line_and_the_rest_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    logging.getLogger("hearth.runtime").info("loading")
    logging.getLogger("hearth.runtime").warning("the index\nwas rebuilt")
    logging.getLogger("httpx").warning("chatter")
    assert capsys.readouterr().err == "hearth: warning: the index was rebuilt\n"


def test_calling_twice_does_not_print_twice(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    configure_logging()
    logging.getLogger("hearth").warning("once")
    assert capsys.readouterr().err.count("once") == 1


def test_verbose_and_the_variable_show_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logging(verbose=True)
    logging.getLogger("hearth.runtime").info("loading the model")
    logging.getLogger("hearth.llama").debug("tensor 1")
    assert "loading the model" in capsys.readouterr().err
    monkeypatch.setenv("HEARTH_LOG_LEVEL", "debug")
    configure_logging()
    logging.getLogger("hearth.llama").debug("tensor 1")
    assert "tensor 1" in capsys.readouterr().err


def test_an_unknown_level_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_LOG_LEVEL", "loud")
    with pytest.raises(RequestError, match="HEARTH_LOG_LEVEL='loud'"):
        configure_logging()
