"""What an engine would take of memory with given options: planned by llama.cpp from the very options it would load."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from pathlib import Path

from hearth.models.encoder_plan import EncoderPlan, plan_encoder
from hearth.models.engine.draft import draft_context_options
from hearth.models.engine.options import EngineOptions
from hearth.models.engine.sizes import context_options, token_threads
from hearth.models.fit import MemoryPlan
from hearth.models.gguf_header import GgufHeader, check_gguf, read_gguf_header, tensor_bytes
from hearth.models.llama import LlamaModel
from hearth.models.llama_context import LlamaContext
from hearth.models.llama_plan import BufferPlan, output_bytes, planned_buffers

# Measured: what llama.cpp keeps of a vocabulary beside its file, which its own plan leaves out
VOCABULARY_TOKEN_BYTES = 170
VOCABULARY_MERGE_BYTES = 160
CONTEXT_BYTES = 1140 << 10  # of any context
GRAPH_NODE_BYTES = 420  # of an operation that a graph has room for
CELL_BYTES = 150  # of a KV cell: its position and who shares it; layers with a sliding window have cells of their own
TOKEN_BYTES = 30  # of a token of a chat in the engine's own records
ENCODER_BYTES = 8 << 20  # of an encoder: descriptions of its graph
SOUND_BYTES = 12 << 20  # of half a minute of sound: samples, spectrogram
PICTURE_COPIES = 2  # of a picture as it comes, uint8, while it is made smaller
WORK_ROW_FACTOR = 34 / 32  # activations are quantized to q8_0 before they meet quantized weights


# operations in a graph for every token of a batch, by architecture: what these compute grows token by token
_NODES_PER_TOKEN = dict.fromkeys(
    (
        *("qwen3next", "qwen35", "qwen35moe", "qwen4exp", "kimi-linear", "deepseek4", "bailingmoe3", "hy_v4"),
        *("minimax-01", "minimax-m3", "nanbeige"),
    ),
    40,
) | {"hrm_text": 80, "kimi-k3": 160, "glm5-next": 160}


class Planner:
    """Plans for one model file. Holds no weights, but a vocabulary: close it before the model is loaded."""

    def __init__(self, path: Path, header: GgufHeader) -> None:
        """``header`` is that of all parts of the file."""
        self._path = path
        self._header = header
        self._models: dict[Path, tuple[int, LlamaModel]] = {}  # of each file with the layers it was planned for last
        self._encoders: dict[tuple[Path, bool], EncoderPlan] = {}
        self._headers = {path: header}
        self._plans: dict[EngineOptions, MemoryPlan] = {}

    def plan(self, options: EngineOptions) -> MemoryPlan:
        """Raises ModelFileError, RequestError and EngineError as loading with these options would."""
        if options not in self._plans:
            self._plans[options] = self._plan(options)
        return self._plans[options]

    def _plan(self, options: EngineOptions) -> MemoryPlan:
        with ExitStack() as contexts:
            model = self._model(self._path, options.n_gpu_layers)
            context = LlamaContext(model, context_options(model, options, self._header, quiet=True))
            contexts.callback(context.close)
            buffers = planned_buffers(context, self._header, options.n_gpu_layers)
            other = _unplanned_bytes(context, self._header) + sum(self._file_bytes(one.path) for one in options.lora)
            draft = self._draft(context, options, contexts)
            encoder = self._encoder(options)
            on_gpu = _by_device((*buffers, *draft))
            if encoder is not None and encoder.on_gpu and on_gpu:
                first = next(iter(on_gpu))
                on_gpu[first] += encoder.total_bytes
            draft_bytes = sum(buffer.total_bytes for buffer in draft)
            return MemoryPlan(
                n_ctx=context.n_ctx_seq,
                n_gpu_layers=options.n_gpu_layers,
                n_layers=model.n_layer + 1,
                weights_bytes=sum(buffer.weights_bytes for buffer in buffers),
                kv_bytes=sum(buffer.kv_bytes for buffer in buffers),
                compute_bytes=sum(buffer.compute_bytes for buffer in buffers),
                encoder_bytes=0 if encoder is None else encoder.total_bytes + _encoder_extra(encoder),
                draft_bytes=draft_bytes + self._draft_extra(options),
                other_bytes=other,
                mapped_bytes=sum(one.weights_bytes for one in (*buffers, *draft) if one.is_mapped),
                gpu_bytes=tuple(on_gpu.items()),
                media_tokens=None if encoder is None else encoder.max_tokens,
            )

    def close(self) -> None:
        while self._models:
            self._models.popitem()[1][1].close()
        _give_memory_back()

    def _model(self, path: Path, n_gpu_layers: int) -> LlamaModel:
        n_layers, model = self._models.get(path, (None, None))
        if model is not None and n_layers == n_gpu_layers:
            return model
        if model is not None:
            self._models.pop(path)
            model.close()
        model = LlamaModel.load(path, n_gpu_layers=n_gpu_layers, no_alloc=True)
        self._models[path] = (n_gpu_layers, model)
        return model

    def _draft(self, target: LlamaContext, options: EngineOptions, contexts: ExitStack) -> tuple[BufferPlan, ...]:
        path = options.draft_model
        if path is None:
            return ()
        model = self._model(path, options.n_gpu_layers)
        context = LlamaContext(model, draft_context_options(model, target, token_threads(model, options)))
        contexts.callback(context.close)
        return planned_buffers(context, self._header_of(path), options.n_gpu_layers)

    def _draft_extra(self, options: EngineOptions) -> int:
        path = options.draft_model
        return 0 if path is None else _vocabulary_bytes(self._header_of(path)) + CONTEXT_BYTES

    def _encoder(self, options: EngineOptions) -> EncoderPlan | None:
        if options.mmproj is None:
            return None
        key = (options.mmproj, options.n_gpu_layers != 0)
        if key not in self._encoders:
            header = read_gguf_header(options.mmproj)
            self._encoders[key] = plan_encoder(options.mmproj, header, on_gpu=key[1])
        return self._encoders[key]

    def _file_bytes(self, path: Path) -> int:
        return sum(tensor_bytes(tensor) for tensor in read_gguf_header(path).tensors.values())

    def _header_of(self, path: Path) -> GgufHeader:
        if path not in self._headers:
            self._headers[path] = check_gguf(path)
        return self._headers[path]


def _give_memory_back() -> None:
    """The C library keeps what was freed, some 20 MB after a large graph was planned, and fragments it."""
    if not hasattr(ctypes, "windll"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
        if trim is not None:
            trim(0)


def _by_device(buffers: tuple[BufferPlan, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for buffer in buffers:
        if buffer.device is not None:
            found[buffer.device] = found.get(buffer.device, 0) + buffer.total_bytes
    return found


def _encoder_extra(encoder: EncoderPlan) -> int:
    return ENCODER_BYTES + (SOUND_BYTES if encoder.max_tokens is None else PICTURE_COPIES * encoder.picture_bytes)


def _unplanned_bytes(context: LlamaContext, header: GgufHeader) -> int:
    """What llama.cpp's plan leaves out."""
    widest = max((max(tensor.shape, default=1) for name, tensor in header.tensors.items() if "blk." in name), default=1)
    work = int(context.n_ubatch * widest * WORK_ROW_FACTOR)
    model = context.model
    # the one that was reserved, the last one, and the last of a batch that nothing is answered to
    n_graphs = 3 if context.n_ctx > context.n_ubatch or model.is_recurrent or model.is_hybrid else 2
    graph = CONTEXT_BYTES + n_graphs * GRAPH_NODE_BYTES * _n_graph_nodes(context, header)
    n_caches = 0 if model.is_recurrent else 2 if model.n_swa else 1
    cells = (TOKEN_BYTES + n_caches * CELL_BYTES) * context.n_ctx
    return _vocabulary_bytes(header) + output_bytes(context) + work + graph + cells


def _n_graph_nodes(context: LlamaContext, header: GgufHeader) -> int:
    """That llama.cpp has room for."""
    per_token, n_tensors = _NODES_PER_TOKEN.get(header.architecture), len(header.tensors)
    if per_token is None:
        return max(1024, 8 * n_tensors)
    return max(per_token * min(context.n_ubatch, context.n_ctx), (32 if per_token == 40 else 64) * n_tensors)


def _vocabulary_bytes(header: GgufHeader) -> int:
    n_tokens = header.lengths.get("tokenizer.ggml.tokens", 0)
    return VOCABULARY_TOKEN_BYTES * n_tokens + VOCABULARY_MERGE_BYTES * header.lengths.get("tokenizer.ggml.merges", 0)
