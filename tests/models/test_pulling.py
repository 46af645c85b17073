"""Pulls from a server that answers as the hub does: resume, checksums, pins, the disk, and what goes wrong."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hearth.models.catalogue import CatalogueEntry, CatalogueFile
from hearth.models.errors import ModelFileError, PullError, PullStoppedError
from hearth.models.pulled import PulledRecord, read_record
from hearth.models.pulling import PullProgress, pull
from tests.models import tiny_architectures, tiny_mmproj
from tests.models.fake_hub import COMMIT, NEWER, FakeHub, reach, serving

REPOSITORY = "someone/tiny-GGUF"
ENTRY = CatalogueEntry(
    name="tiny-1b",
    kind="vision",
    title="Tiny",
    repository=REPOSITORY,
    sees=True,
    files=(
        CatalogueFile(("tiny-Q8_0.gguf",), 1000, "Q8_0", approximate=True),
        CatalogueFile(("sub/tiny-F16-00001-of-00002.gguf", "sub/tiny-F16-00002-of-00002.gguf"), 2000, "F16"),
    ),
    mmproj=CatalogueFile(("mmproj-tiny.gguf",), 500),
    companions=(CatalogueFile(("config.json",), 10),),
)


class Files(NamedTuple):
    model: bytes
    mmproj: bytes


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("files")
    model = tiny_architectures.write_llama(folder / "tiny.gguf")
    return Files(model.read_bytes(), tiny_mmproj.write_llava(folder / "mmproj.gguf").read_bytes())


@pytest.fixture
def hub(files: Files, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    content = {
        "tiny-Q8_0.gguf": files.model,
        "sub/tiny-F16-00001-of-00002.gguf": files.model,
        "sub/tiny-F16-00002-of-00002.gguf": files.model + b"\0",
        "mmproj-tiny.gguf": files.mmproj,
        "config.json": b"{}\n",
        "README.md": b"# tiny",
    }
    hub = FakeHub({REPOSITORY: {COMMIT: content}}, small={"config.json", "README.md"})
    with serving(hub):
        reach(hub, monkeypatch)
        yield hub


def record_of(models_dir: Path) -> PulledRecord:
    record = read_record(models_dir / ENTRY.name / "pulled.json")
    assert record is not None
    return record


@pytest.mark.usefixtures("hub")
def test_a_pull_brings_model_encoder_and_companions_and_writes_them_down(files: Files, tmp_path: Path) -> None:
    seen: list[PullProgress] = []
    result = pull(ENTRY, tmp_path, on_progress=seen.append)
    assert [path.read_bytes() for path in result.paths] == [files.model]
    assert result.mmproj is not None
    assert result.mmproj.read_bytes() == files.mmproj
    assert (result.commit, result.quant) == (COMMIT, "Q8_0")
    assert (tmp_path / "tiny-1b" / "config.json").read_bytes() == b"{}\n"
    recorded = {file.name: file for file in record_of(tmp_path).files}
    assert recorded["tiny-Q8_0.gguf"].sha256 == hashlib.sha256(files.model).hexdigest()
    assert recorded["mmproj-tiny.gguf"].is_mmproj
    done = [progress.done_bytes for progress in seen if progress.step == "fetching"]
    assert done == sorted(done)
    assert done[-1] == seen[-1].total_bytes == len(files.model) + len(files.mmproj) + 3
    assert {path.suffix for path in (tmp_path / "tiny-1b").iterdir() if path.is_file()} >= {".gguf", ".json"}
    assert not list((tmp_path / "tiny-1b").glob("*.part"))


def test_what_is_whole_is_not_asked_for_again(hub: FakeHub, tmp_path: Path) -> None:
    pull(ENTRY, tmp_path)
    before = len(hub.requests)
    result = pull(ENTRY, tmp_path, offline=True)
    assert result.fetched_bytes == 0
    assert len(hub.requests) == before


def test_a_model_in_parts_comes_whole_and_shares_the_encoder(hub: FakeHub, tmp_path: Path) -> None:
    pull(ENTRY, tmp_path)
    before = len(hub.fetched())
    result = pull(ENTRY, tmp_path, quant="f16")
    assert [path.name for path in result.paths] == ["tiny-F16-00001-of-00002.gguf", "tiny-F16-00002-of-00002.gguf"]
    assert len(hub.fetched()) == before + 2
    assert record_of(tmp_path).quants == ("Q8_0", "F16")


def test_a_later_pull_keeps_to_the_commit_until_it_is_to_update(hub: FakeHub, files: Files, tmp_path: Path) -> None:
    pull(ENTRY, tmp_path)
    newer = dict(hub.repositories[REPOSITORY][COMMIT])
    newer["mmproj-tiny.gguf"] = files.mmproj + b"\0" * 8
    hub.repositories[REPOSITORY][NEWER] = newer
    hub.refs["main"] = NEWER
    assert pull(ENTRY, tmp_path, quant="F16").commit == COMMIT
    before = len(hub.fetched())
    updated = pull(ENTRY, tmp_path, update=True)
    assert updated.commit == NEWER
    assert [path.rsplit("/", 1)[-1] for path in hub.fetched()[before:]] == ["mmproj-tiny.gguf"]  # the rest is the same
    assert updated.mmproj is not None
    assert updated.mmproj.stat().st_size == len(files.mmproj) + 8
    assert pull(ENTRY, tmp_path).fetched_bytes == 0


def test_a_cut_connection_is_taken_up_where_it_broke(hub: FakeHub, files: Files, tmp_path: Path) -> None:
    hub.cut_after["tiny-Q8_0.gguf"] = [300_000]
    result = pull(ENTRY, tmp_path)
    assert result.paths[0].read_bytes() == files.model
    ranges = [headers.get("Range") for _, path, headers in hub.requests if path.endswith("tiny-Q8_0.gguf")]
    assert ranges == [None, "bytes=262144-"]


def test_a_stopped_pull_keeps_its_part_and_the_next_goes_on(hub: FakeHub, files: Files, tmp_path: Path) -> None:
    hub.stall = threading.Event()
    stopped = threading.Event()
    seen: list[PullProgress] = []

    def watch(progress: PullProgress) -> None:
        seen.append(progress)
        if progress.step == "fetching" and progress.done_bytes > 0:
            stopped.set()
            assert hub.stall is not None
            hub.stall.set()

    with pytest.raises(PullStoppedError, match="goes on from there"):
        pull(ENTRY, tmp_path, on_progress=watch, cancelled=stopped.is_set)
    part = next((tmp_path / "tiny-1b").glob("tiny-Q8_0.gguf.*.part"))
    kept_bytes = part.stat().st_size
    assert 0 < kept_bytes < len(files.model)
    hub.stall = None
    assert pull(ENTRY, tmp_path).paths[0].read_bytes() == files.model
    assert hub.requests[-3][2]["Range"] == f"bytes={kept_bytes}-"


@pytest.mark.usefixtures("hub")
def test_ctrl_c_leaves_a_part_that_can_be_gone_on_with(files: Files, tmp_path: Path) -> None:
    def interrupt(progress: PullProgress) -> None:
        if progress.step == "fetching":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(ENTRY, tmp_path, on_progress=interrupt)
    assert next((tmp_path / "tiny-1b").glob("*.part")).stat().st_size > 0
    assert pull(ENTRY, tmp_path).paths[0].read_bytes() == files.model


def test_what_is_not_as_announced_is_deleted(hub: FakeHub, files: Files, tmp_path: Path) -> None:
    wrong = bytearray(files.model)
    wrong[-1] ^= 1
    hub.lies["tiny-Q8_0.gguf"] = bytes(wrong)
    with pytest.raises(PullError, match=r"tiny-Q8_0\.gguf: its SHA-256 is .* announced was .* deleted"):
        pull(ENTRY, tmp_path)
    hub.lies = {"config.json": b"[]\n"}
    with pytest.raises(PullError, match=r"config\.json: its git hash"):
        pull(ENTRY, tmp_path)
    names = {path.name for path in (tmp_path / "tiny-1b").iterdir() if not path.name.startswith(".")}
    assert names == {"pulled.json", "tiny-Q8_0.gguf"}


def test_what_is_no_gguf_is_refused_though_its_checksum_is_right(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories[REPOSITORY][COMMIT]["tiny-Q8_0.gguf"] = b"<!doctype html><p>quota exceeded" * 9
    with pytest.raises(PullError, match="not a GGUF file but an HTML page"):
        pull(ENTRY, tmp_path)


def test_too_small_a_disk_is_told_before_anything_is_fetched(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=300 * 2**20))
    with pytest.raises(PullError, match=r"0\.0 GiB to fetch, and 0\.5 GiB to stay free, .* has 0\.3 GiB; free"):
        pull(ENTRY, tmp_path)
    assert hub.fetched() == []


def test_a_gated_repository_asks_for_a_token_and_takes_it(
    hub: FakeHub, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add(REPOSITORY)
    with pytest.raises(PullError, match=r"gated: accept its licence .* HF_TOKEN"):
        pull(ENTRY, tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert pull(ENTRY, tmp_path).paths[0].read_bytes() == files.model
    assert hub.requests[-1][2]["authorization"] == "Bearer hf_secret"


def test_a_token_is_not_told_to_where_the_hub_sends_one_on(
    hub: FakeHub, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    store = FakeHub({"plain": {COMMIT: {"tiny-Q8_0.gguf": files.model}}})
    with serving(store):
        hub.elsewhere["tiny-Q8_0.gguf"] = f"{store.url}/plain/tiny-Q8_0.gguf"
        assert pull(ENTRY, tmp_path).paths[0].read_bytes() == files.model
    (_, _, headers), *_ = store.requests
    assert "authorization" not in {name.lower() for name in headers}


def test_what_is_not_there_is_named(hub: FakeHub, tmp_path: Path) -> None:
    unknown = CatalogueEntry("none", "chat", "None", ENTRY.files, repository="someone/none")
    with pytest.raises(PullError, match=r"someone/none@main: not there \(HTTP 401\); if it is private, .*HF_TOKEN"):
        pull(unknown, tmp_path)
    del hub.repositories[REPOSITORY][COMMIT]["tiny-Q8_0.gguf"]
    with pytest.raises(PullError, match=r"no tiny-Q8_0\.gguf at commit aaaaaaaa \(there are: .*mmproj-tiny\.gguf"):
        pull(ENTRY, tmp_path)
    hub.refs.clear()
    with pytest.raises(PullError, match="no such revision"):
        pull(ENTRY, tmp_path / "other")
    with pytest.raises(ModelFileError, match="no quantization 'Q2_K' in the catalogue; there are Q8_0, F16"):
        pull(ENTRY, tmp_path, quant="Q2_K")


def test_a_name_in_another_case_is_found(hub: FakeHub, tmp_path: Path) -> None:
    content = hub.repositories[REPOSITORY][COMMIT]
    content["TINY-q8_0.gguf"] = content.pop("tiny-Q8_0.gguf")
    assert pull(ENTRY, tmp_path).paths[0].name == "tiny-Q8_0.gguf"
    assert pull(ENTRY, tmp_path).fetched_bytes == 0


@pytest.mark.usefixtures("hub")
def test_no_connection_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(PullError, match="no connection"):
            pull(ENTRY, tmp_path)


def test_offline_refuses_before_anything_is_asked(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PullError, match="offline = true"):
        pull(ENTRY, tmp_path, offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PullError, match="HF_HUB_OFFLINE is set"):
        pull(ENTRY, tmp_path)
    assert hub.requests == []


@pytest.mark.usefixtures("hub")
def test_two_pulls_of_one_model_do_not_meet(tmp_path: Path) -> None:
    other_error: list[BaseException] = []

    def again(progress: PullProgress) -> None:
        if progress.step == "looking up" and not other_error:
            with contextlib.suppress(PullError):
                other_error.append(RuntimeError("it began"))
                pull(ENTRY, tmp_path)
                return
            other_error[0] = PullError("refused")

    pull(ENTRY, tmp_path, on_progress=again)
    assert isinstance(other_error[0], PullError)


@pytest.mark.usefixtures("hub")
def test_a_damaged_record_is_named_not_guessed_at(tmp_path: Path) -> None:
    pull(ENTRY, tmp_path)
    path = tmp_path / "tiny-1b" / "pulled.json"
    for text in ("", "[]", '{"schema": 7}', path.read_text().replace("tiny-Q8_0.gguf", "../../escape.gguf")):
        path.write_text(text)
        with pytest.raises(ModelFileError, match=r"pulled\.json: .*delete it and pull"):
            pull(ENTRY, tmp_path)


def speech(hub: FakeHub, content: bytes, **changes: Any) -> CatalogueEntry:
    file = CatalogueFile(
        ("base.pt",),
        changes.pop("size_bytes", len(content)),
        "F16",
        sha256=changes.pop("sha256", hashlib.sha256(content).hexdigest()),
        url=f"{hub.url}/plain/base.pt",
        **changes,
    )
    return CatalogueEntry("whisper-base", "speech", "Whisper", (file,))


@pytest.mark.parametrize("approximate", [False, True])
def test_a_checkpoint_by_address_lands_where_speech_is_looked_for(
    hub: FakeHub, tmp_path: Path, approximate: bool
) -> None:
    content = bytes(range(256)) * 100
    hub.repositories["plain"] = {COMMIT: {"base.pt": content}}
    size_bytes = 30_000 if approximate else len(content)
    entry = speech(hub, content, approximate=approximate, size_bytes=size_bytes)
    part = tmp_path / "speech" / f"whisper-base.pt.{entry.files[0].sha256 or ''!s:.16}.part"
    part.parent.mkdir()
    part.write_bytes(content)  # cut off between the last byte and its check
    assert pull(entry, tmp_path).paths == (tmp_path / "speech" / "whisper-base.pt",)
    assert (tmp_path / "speech" / "whisper-base.pt").read_bytes() == content
    assert pull(entry, tmp_path, offline=True).fetched_bytes == 0
    assert "authorization" not in {name.lower() for _, _, headers in hub.requests for name in headers}
    with pytest.raises(PullError, match="SHA-256"):
        pull(speech(hub, content, sha256="0" * 64), tmp_path, update=True)


def test_a_killed_process_leaves_a_part_that_another_goes_on_with(hub: FakeHub, files: Files, tmp_path: Path) -> None:
    hub.stall = threading.Event()
    code = (
        "import sys; from pathlib import Path; from tests.models.test_pulling import ENTRY, pull\n"
        "pull(ENTRY, Path(sys.argv[1]), on_progress=lambda p: print(p.step, flush=True))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    assert any(line.strip() == "fetching" for line in child.stdout)
    time.sleep(0.05)
    child.kill()
    child.wait()
    child.stdout.close()
    hub.stall.set()
    hub.stall = None
    assert pull(ENTRY, tmp_path).paths[0].read_bytes() == files.model
    assert any("Range" in headers for _, _, headers in hub.requests)
