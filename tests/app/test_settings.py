"""Settings: precedence, and mistakes named with their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hearth.settings import Settings, SettingsError


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for variable in ("HEARTH_CONFIG", "HEARTH_MODEL", "HEARTH_N_CTX", "HEARTH_DATA_DIR", "HEARTH_LORA"):
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
        ("kv_daily_write_gib = inf", "kv_daily_write_gib = inf"),
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


def test_adapters_come_from_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hearth.toml").write_text('lora = ["a.gguf", "b.gguf:0.5"]\n')
    assert Settings().lora == ["a.gguf", "b.gguf:0.5"]
    monkeypatch.setenv("HEARTH_LORA", "c.gguf=2")
    assert Settings().lora == ["c.gguf=2"]
    monkeypatch.setenv("HEARTH_LORA", '["c.gguf", "d.gguf:-1"]')
    assert Settings().lora == ["c.gguf", "d.gguf:-1"]
    assert Settings(lora=[tmp_path / "e.gguf"]).lora == [str(tmp_path / "e.gguf")]
    (adapter,) = Settings(lora="e.gguf:0.25").engine_options().lora
    assert (adapter.path, adapter.scale) == (Path("e.gguf"), 0.25)


def test_engine_settings_reach_the_engine() -> None:
    settings = Settings(rope_scaling="yarn", yarn_orig_ctx=2048, rope_freq_base=1e6, draft_model="~/draft.gguf")
    options = settings.engine_options(n_ctx=4096)
    assert (options.n_ctx, options.rope_scaling, options.yarn_orig_ctx) == (4096, "yarn", 2048)
    assert options.rope_freq_base == 1e6
    assert options.draft_model == Path.home() / "draft.gguf"
    assert Settings(n_ctx=512).engine_options(n_ctx=4096).n_ctx == 512


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lora": ["a.gguf:lots"]}, "argument lora = .*'lots' is not a number"),
        ({"lora": "[1"}, "argument lora"),
        ({"rope_scaling": "dynamic"}, "argument rope_scaling = 'dynamic'"),
        ({"rope_freq_scale": 4.0}, "rope_freq_scale is 4.0"),
        ({"yarn_orig_ctx": 4096}, "yarn_orig_ctx needs rope_scaling yarn"),
        ({"kv_type": "q8_0", "flash_attention": False}, "needs flash_attention"),
    ],
)
def test_settings_that_no_engine_can_have(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Settings(**given)
