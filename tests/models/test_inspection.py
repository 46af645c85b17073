"""What is read from headers, of good files and of hostile ones."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from hearth.models.errors import EngineError, ModelFileError
from hearth.models.gguf_header import array_items, read_gguf_header
from hearth.models.inspection import inspect
from hearth.models.tasks import Limits, run_task
from tests.models.tiny_architectures import write_gemma3, write_lfm2, write_qwen2moe
from tests.models.tiny_gguf import CHAT_TEMPLATE, special_id, write_tiny_gguf
from tests.models.tiny_lora import random_lora
from tests.models.tiny_mmproj import write_idefics3, write_ultravox


def look(path: Path) -> dict[str, Any]:
    return inspect(lambda *_: None, path)


def test_a_model(tiny_model: Path) -> None:
    found = look(tiny_model)
    assert (found["kind"], found["architecture"], found["name"]) == ("model", "llama", "tiny-0")
    assert (found["n_ctx_train"], found["n_layers"], found["n_embd"]) == (512, 2, 64)
    assert (found["n_heads"], found["n_heads_kv"]) == (4, 2)
    assert found["kv_bytes_per_token"] == {"f16": 256.0, "q8_0": 136.0, "q4_0": 72.0}
    assert found["chat_template"] == CHAT_TEMPLATE
    assert found["special_tokens"]["eos"] == {"id": special_id("<|end|>"), "text": "<|end|>"}
    assert found["types"][0]["type"] == "F32"
    assert sum(one["share"] for one in found["types"]) == pytest.approx(1, abs=0.01)
    assert sum(one["params"] for one in found["types"]) == found["n_params"]
    assert sum(one["tensors"] for one in found["types"]) == found["n_tensors"]


def test_layers_that_differ_are_listed(tmp_path: Path) -> None:
    assert look(write_lfm2(tmp_path / "m.gguf"))["n_heads_kv"] == [0, 2, 0]


def test_experts_and_windows(tmp_path: Path) -> None:
    assert look(write_qwen2moe(tmp_path / "moe.gguf"))["n_experts"] == 6
    assert look(write_gemma3(tmp_path / "swa.gguf"))["sliding_window"] == 32


def test_encoders_and_adapters_are_told_apart(tmp_path: Path) -> None:
    eyes = look(write_idefics3(tmp_path / "eyes.gguf"))
    assert (eyes["kind"], eyes["sees"], eyes["hears"], eyes["max_picture_tokens"]) == ("encoder", True, False, 20)
    ears = look(write_ultravox(tmp_path / "ears.gguf"))
    assert (ears["kind"], ears["sees"], ears["hears"], ears["max_picture_tokens"]) == ("encoder", False, True, None)
    lora = look(random_lora(1).write(tmp_path / "lora.gguf"))
    assert lora["kind"] == "adapter"
    assert lora["adapter_type"] == "lora"
    assert lora["n_weights_changed"] > 0


def test_a_split_model_is_counted_whole(tmp_path: Path, tiny_model: Path) -> None:
    whole = look(tiny_model)
    reader = gguf.GGUFReader(tiny_model)
    for part in (1, 2):
        writer = gguf.GGUFWriter(tmp_path / f"big-0000{part}-of-00002.gguf", "llama")
        writer.add_uint16("split.count", 2)
        for tensor in reader.tensors[part - 1 :: 2]:
            writer.add_tensor(tensor.name, tensor.data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    found = look(tmp_path / "big-00001-of-00002.gguf")
    assert (found["kind"], found["parts"], found["n_params"]) == ("model", 2, whole["n_params"])


def test_items_of_arrays(tiny_model: Path) -> None:
    header = read_gguf_header(tiny_model)
    assert array_items(header, "tokenizer.ggml.tokens", [0, special_id("<|bos|>"), 10**9]) == {
        0: "Ā",
        special_id("<|bos|>"): "<|bos|>",
    }
    assert array_items(header, "tokenizer.ggml.token_type", [special_id("<|bos|>")]) == {special_id("<|bos|>"): 3}
    assert array_items(header, "no.such.key", [1]) == {}


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The file with some of its header overwritten, most of it where sizes and types stand."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(4, min(len(data) - 8, 12_000))
        choice = rng.randrange(4)
        if choice == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif choice == 1:
            struct.pack_into("<Q", data, at, rng.choice((0, 1, 2**31, 2**63 - 1, 2**64 - 1, rng.getrandbits(64))))
        elif choice == 2:
            struct.pack_into("<I", data, at, rng.randrange(0, 16))
        else:
            del data[at : at + rng.randint(1, 64)]
    return bytes(data)


@seed(7)
@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 2**32))
def test_a_damaged_header_is_read_or_refused(tiny_model: Path, tmp_path: Path, number: int) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damaged(tiny_model.read_bytes(), random.Random(number)))
    try:
        said = f"{path} has {look(path)['size_bytes']} bytes"
    except ModelFileError as error:
        said = str(error)
    assert str(path) in said
    assert "\n" not in said


def bomb(kind: int, count: int, item: bytes) -> bytes:
    """A file of one key: an array of ``count`` items that are all the same."""
    return b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, kind, count) + item * count


@pytest.mark.parametrize(
    "content",
    [
        bomb(9, 2_000_000, struct.pack("<IQ", 4, 0)),  # arrays of nothing, millions of them
        bomb(8, 3_000_000, struct.pack("<Q", 0)),
        b"GGUF" + struct.pack("<IQQ", 3, 100_000, 0) + (struct.pack("<Q", 0) + struct.pack("<IIQ", 0, 0, 0)) * 100_000,
    ],
    ids=["arrays of arrays", "empty strings", "nameless tensors"],
)
def test_bombs_end_within_their_limits(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bomb.gguf"
    path.write_bytes(content)
    try:
        said = str(run_task("inspect", Limits(seconds=5, memory_bytes=1 << 30), path=path)["kind"])
    except (ModelFileError, EngineError) as error:
        said = str(error)
    assert said
    assert "\n" not in said


def test_a_name_as_large_as_the_file_breaks_the_memory_limit_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    size = 700 << 20
    start = b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 12) + b"general.name" + struct.pack("<IQ", 8, size)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + size)  # a hole: it takes no room on the disk
    with pytest.raises((ModelFileError, EngineError)):
        run_task("inspect", Limits(seconds=10, memory_bytes=1 << 30), path=path)


def test_numbers_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "odd.gguf", metadata={"llama.expert_count": "many", "llama.rope.freq_base": 1.0})
    assert look(path)["n_experts"] is None
