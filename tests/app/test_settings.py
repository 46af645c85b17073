"""Settings: precedence, and mistakes named with their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.settings import Settings, SettingsError


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for variable in ("HEARTH_CONFIG", "HEARTH_MODEL", "HEARTH_N_CTX", "HEARTH_DATA_DIR"):
        monkeypatch.delenv(variable, raising=False)


def test_arguments_beat_environment_beats_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hearth.toml").write_text('model = "file.gguf"\nn_ctx = 1024\nmax_tokens = 7\n')
    monkeypatch.setenv("HEARTH_N_CTX", "2048")
    monkeypatch.setenv("HEARTH_MAX_TOKENS", "8")
    settings = Settings(max_tokens=9)
    assert (settings.model, settings.n_ctx, settings.max_tokens) == ("file.gguf", 2048, 9)


def test_defaults_hold_without_any_source() -> None:
    assert Settings().model == "pocket"
    assert Settings(model=None).model == "pocket"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('modle = "x"', "unknown setting 'modle'; did you mean model"),
        ("n_ctx = 1", "n_ctx = 1: input should be greater"),
        ("n_ctx = ", "not valid TOML"),
        ("kv_disk_gib = -4", "kv_disk_gib = -4"),
    ],
)
def test_a_mistake_in_the_file_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "hearth.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        Settings()
    assert "hearth.toml" in str(caught.value)
    assert said in str(caught.value)


def test_a_mistake_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_N_CTX", "many")
    with pytest.raises(SettingsError, match="environment HEARTH_N_CTX = 'many'"):
        Settings()
    monkeypatch.setenv("HEARTH_N_CTX", "512")
    monkeypatch.setenv("HEARTH_MODDEL", "x")
    with pytest.raises(SettingsError, match="HEARTH_MODDEL; did you mean HEARTH_MODEL"):
        Settings()


def test_a_mistake_in_an_argument_names_it() -> None:
    with pytest.raises(SettingsError, match="argument temperature = -1"):
        Settings(temperature=-1)
    with pytest.raises(SettingsError, match="did you mean data_dir"):
        Settings(data_dirr="x")


def test_named_file_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(SettingsError, match=r"absent\.toml, which is not a file"):
        Settings()
