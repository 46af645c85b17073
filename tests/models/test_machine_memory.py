"""What of the RAM is left, as the system and the limits of containers have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.models.machine_memory import ram, rooms

KIB = 1024


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "meminfo").write_text("MemTotal:  8000 kB\nMemFree: 100 kB\nMemAvailable: 6000 kB\n")
    return folder


def group(folder: Path, limit: str, used: int, cold: int, names: tuple[str, str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cold}\n")


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_what_is_available_counts_not_what_is_free(proc: Path, tmp_path: Path) -> None:
    room = ram(proc, tmp_path / "none")
    assert room is not None
    assert (room.name, room.free_bytes, room.total_bytes) == ("RAM", 6000 * KIB, 8000 * KIB)


def test_the_tightest_group_above_a_process_counts(proc: Path, tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    (proc / "self" / "cgroup").write_text("0::/user.slice/app\n")
    group(groups / "user.slice", str(3000 * KIB), 2500 * KIB, 500 * KIB, V2)
    group(groups / "user.slice" / "app", "max", 0, 0, V2)
    room = ram(proc, groups)
    assert room is not None
    assert room.total_bytes == 3000 * KIB
    assert room.free_bytes == 1000 * KIB  # pages of files that nobody used lately would go


def test_a_container_sees_its_own_group_as_the_root(proc: Path, tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    (proc / "self" / "cgroup").write_text("0::/../../elsewhere\n")
    group(groups, str(2000 * KIB), 500 * KIB, 0, V2)
    room = ram(proc, groups)
    assert room is not None
    assert room.free_bytes == 1500 * KIB


def test_the_first_version_of_groups(proc: Path, tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    (proc / "self" / "cgroup").write_text("5:cpu:/x\n4:memory:/docker/1\n")
    group(groups / "memory" / "docker" / "1", str(1000 * KIB), 1500 * KIB, 0, V1)
    group(groups / "memory", str(9223372036854771712), 1, 0, V1)
    room = ram(proc, groups)
    assert room is not None
    assert (room.free_bytes, room.total_bytes) == (0, 1000 * KIB)


def test_damaged_answers_of_the_system_are_no_limits(proc: Path, tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    (proc / "self" / "cgroup").write_text("nonsense\n0::/\n")
    groups.mkdir()
    (groups / "memory.max").write_text("many")
    room = ram(proc, groups)
    assert room is not None
    assert room.free_bytes == 6000 * KIB


def test_this_machine_has_some() -> None:
    first = rooms()[0]
    assert first.name == "RAM"
    assert 0 < first.free_bytes <= first.total_bytes
