"""What README and user guide name exists: commands, options, make targets, settings, files, public names."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer.main

import hearth
from hearth.cli import cli
from hearth.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/user-guide.md", "docs/decisions.md", "docs/architecture.md", "CHANGELOG.md")
README = (ROOT / "README.md").read_text("utf-8")
GUIDE = (ROOT / "docs/user-guide.md").read_text("utf-8")


def options_of(*command: str) -> set[str]:
    """All options of a command, e.g. ("memory", "add")."""
    found = typer.main.get_command(cli)
    for name in command:
        found = found.commands[name]  # type: ignore[attr-defined]
    return {option for parameter in found.params for option in parameter.opts} | {"--help", "-h"}


def commands_in(text: str) -> list[list[str]]:
    """The words after `hearth` of every command in code blocks and code spans."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for language, block in blocks if not language for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", text)
    found = []
    for line in lines:
        command = line.split("   ")[0].rpartition("| ")[2].removeprefix("uv run ").strip()
        if command.split(" ")[0] == "hearth":
            found.append(shlex.split(command)[1:])
    return found


def split_command(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The names of the command and what follows them."""
    group = typer.main.get_command(cli)
    names: list[str] = []
    while words and words[0] in getattr(group, "commands", {}):
        group = group.commands[words[0]]  # type: ignore[attr-defined]
        names.append(words[0])
        words = words[1:]
    return tuple(names), words


@pytest.mark.parametrize("words", commands_in(README + "\n" + GUIDE), ids=" ".join)
def test_every_command_and_option_in_the_texts_exists(words: list[str]) -> None:
    names, rest = split_command(words)
    if words and re.fullmatch(r"[a-z]+", words[0]):
        assert names, f"hearth has no command {words[0]!r}"
    given = {word for word in rest if word.startswith("--")}
    assert given <= options_of(*names)


def test_the_texts_contain_commands() -> None:
    assert len(commands_in(README)) >= 10
    assert len(commands_in(GUIDE)) >= 5


@pytest.mark.parametrize(
    ("heading", "command"),
    [("option of `hearth` ", ()), ("option of `hearth ask` ", ("ask",)), ("option of `hearth serve` ", ("serve",))],
)
def test_the_option_tables_of_the_guide_are_complete(heading: str, command: tuple[str, ...]) -> None:
    table = GUIDE[GUIDE.index(heading) :].split("\n\n")[0]
    named = set(re.findall(r"`(--[a-z-]+)", table))
    assert named == {option for option in options_of(*command) if option.startswith("--")} - {"--help", "--version"}


def test_every_command_is_in_the_readme() -> None:
    named = {split_command(words)[0] for words in commands_in(README)}
    root = typer.main.get_command(cli)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", {})
        paths = {(name, sub) for sub in below} if below else {(name,)}
        assert paths <= named


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", "\n".join(re.findall(r"`([^`]+)`", README + GUIDE)) + README))
    assert {"run", "test"} <= named
    assert named - {"is", "up"} <= targets
    accelerators = set(re.findall(r"^CMAKE_([a-z]+)", makefile, re.MULTILINE))
    assert set(re.findall(r"ACCEL=([a-z]+)", README)) | {"vulkan", "hip", "metal"} <= accelerators


def test_an_unknown_accelerator_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    told = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), "setup", "ACCEL=abacus"], capture_output=True, text=True, cwd=tmp_path
    )
    assert told.returncode != 0
    assert "ACCEL=abacus" in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_settings_in_the_guide_exist() -> None:
    table = GUIDE[GUIDE.index("| in `hearth.toml`") :].split("\n\n")[0]
    rows = re.findall(r"^\| `([a-z_]+)` \| `HEARTH_([A-Z_]+)`", table, re.MULTILINE)
    assert len(rows) >= 8
    for name, variable in rows:
        assert name == variable.lower()
        assert name in Settings.model_fields


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_the_script_is_python_with_public_names() -> None:
    (script,) = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    for node in ast.walk(ast.parse(script)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hearth":
            assert node.attr in hearth.__all__


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    text = (ROOT / "docs/decisions.md").read_text("utf-8")
    required = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {re.split(r"[<>=~!\[; ]", line)[0] for line in required}
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_the_version_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == hearth.__version__
    assert f"## [{hearth.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
