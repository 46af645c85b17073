"""Quantized files run: the layouts that llama.cpp repacks weights into on some processors once crashed the process."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TINY_GGUF = Path(__file__).with_name("tiny_gguf.py")
Q8_0, Q4_0 = 7, 2  # llama_ftype
GENERATE = """
import sys
from pathlib import Path
from hearth.models.engine import LlamaEngine
from hearth.models.types import Finished, GenerationRequest, TextSegment
with LlamaEngine.load(Path(sys.argv[1])) as engine:
    request = GenerationRequest("a", (TextSegment(tuple(range(5, 60))),), max_tokens=4)
    assert isinstance(list(engine.submit(request).events())[-1], Finished)
"""


@pytest.mark.parametrize("file_type", [Q8_0, Q4_0])
def test_a_quantized_model_reads_a_prompt_of_many_tokens(tmp_path: Path, file_type: int) -> None:
    import llama_cpp

    spec = importlib.util.spec_from_file_location("tiny_gguf_for_quantizing", TINY_GGUF)
    assert spec is not None
    assert spec.loader is not None
    tiny_gguf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny_gguf)
    plain, quantized = tmp_path / "plain.gguf", tmp_path / "quantized.gguf"
    tiny_gguf.write_tiny_gguf(plain, n_embd=256, n_ff=768)
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = file_type
    assert llama_cpp.llama_model_quantize(str(plain).encode(), str(quantized).encode(), options) == 0
    # in a process of its own: a crash there is a failed test here
    done = subprocess.run([sys.executable, "-c", GENERATE, str(quantized)], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()[-500:]
