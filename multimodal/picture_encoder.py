"""The pocket vision encoder as users run it: open_clip's tower and the C-Abstractor, as graphs for onnxruntime.

It computes what ``hearth.multimodal.clip`` does with torch, and a test keeps the two equal. Importing torch and
open_clip takes longer than answering a question; this loads in a fraction of a second. ``training/export_graph.py``
writes the graphs. They hold no weights: those are read from ``vision.safetensors``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from PIL import Image

from hearth.models.errors import ModelFileError
from hearth.multimodal import views
from hearth.multimodal.locating import listed, looks_at
from hearth.multimodal.named_things import told_things, words_of_names
from hearth.multimodal.pixels import PREPROCESSING_VERSION, to_pixels
from hearth.multimodal.print_order import PRINT_TOKENS, PrintTokens, with_list
from hearth.multimodal.print_reading import read_print

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

Array = NDArray[np.float32]
END_TOKEN = "<|end|>"
_ONLY_TRAINING = ".num_batches_tracked"  # a counter of batch normalisation that inference does not use
_FILES = ("vision.json", "vision.safetensors", "picture.onnx", "caption.onnx", "tokenizer.json")
_TILES_FILE = "tiles.onnx"  # of an encoder that sees pictures in views
_LETTERS_FILE = "letters.onnx"  # of one that reads print
_LINES_FILE = "lines.onnx"  # of one that reads it again by lines
_LOCATOR_FILE = "locator.onnx"  # of one that tells where things stand
_NAMER_FILE = "namer.onnx"  # of one that tells their names
_PRINT = "network.print."  # weights of such a one
_NAMES_BIAS = "network.namer.names.bias"  # of nothing, then of each name


class PictureEncoder:
    """Pictures become visual tokens for the language model, or search vectors in one space with texts.

    Visual tokens have width ``n_embd``; ``dimension`` is that of the search space; ``fingerprint`` (hex) changes with
    the files and with the preprocessing. Methods may be called from any thread.
    """

    def __init__(
        self,
        picture: InferenceSession,
        tiles: InferenceSession | None,
        caption: InferenceSession,
        letters: InferenceSession | None,
        lines: InferenceSession | None,
        locator: InferenceSession | None,
        namer: InferenceSession | None,
        print_tokens: PrintTokens | None,
        tokenizer: Tokenizer,
        end_id: int,
        config: dict[str, Any],
        fingerprint: str,
    ) -> None:
        """Use ``PictureEncoder.load``."""
        self._picture = picture
        self._tiles = tiles
        self._caption = caption
        self._letters = letters
        self._lines = lines
        self._locator = locator
        self._namer = namer
        self._names: list[list[str]] = config.get("namer", {}).get("names", [])
        self._print_tokens = print_tokens
        self._tokenizer = tokenizer
        self._end = end_id
        self._side_px: int = config["vision_cfg"]["image_size"]
        self._context_length: int = config["text_cfg"]["context_length"]
        self._n_tokens: int = config["connector"].get("n_tokens", 0)  # 0: pictures are seen in views
        self.n_embd: int = config["connector"]["n_embd"]
        self.dimension: int = config["embed_dim"]
        self.fingerprint = fingerprint

    @classmethod
    def load(cls, folder: Path) -> PictureEncoder:
        """Reads the graphs, the weights and the tokenizer. Raises ModelFileError naming a missing or damaged file."""
        from tokenizers import Tokenizer

        digest = hashlib.sha256(f"preprocessing {PREPROCESSING_VERSION}".encode())
        content = {name: _read(folder / name, digest) for name in _FILES}
        try:
            config = json.loads(content["vision.json"])
            weights = {
                f"network.{name}": w for name, w in safetensors.numpy.load(content["vision.safetensors"]).items()
            }
            tokenizer = Tokenizer.from_str(content["tokenizer.json"].decode())
            end = tokenizer.token_to_id(END_TOKEN)
            if end is None:
                raise ValueError(f"tokenizer.json has no {END_TOKEN}")
            picture, caption = (_session(content[name], weights) for name in ("picture.onnx", "caption.onnx"))
            in_views = "n_places" in config["connector"]
            tiles = _session(_read(folder / _TILES_FILE, digest), weights) if in_views else None
            letters = _session(_read(folder / _LETTERS_FILE, digest), weights) if "letters" in config else None
            lines = _session(_read(folder / _LINES_FILE, digest), weights) if "lines" in config else None
            locator = _session(_read(folder / _LOCATOR_FILE, digest), weights) if "locator" in config else None
            namer = _session(_read(folder / _NAMER_FILE, digest), weights) if "namer" in config else None
            print_weights = {n.removeprefix(_PRINT): _full(w) for n, w in weights.items() if n.startswith(_PRINT)}
            names = config.get("namer", {}).get("names", [])
            if "namer" in config and len(weights[_NAMES_BIAS]) != 1 + len(names):
                raise ValueError(f"a namer of {len(weights[_NAMES_BIAS]) - 1} names, but {len(names)} are told")
            print_tokens = PrintTokens(print_weights, words_of_names(names)) if "letters" in config else None
            graphs = picture, tiles, caption, letters, lines, locator, namer
            return cls(*graphs, print_tokens, tokenizer, end, config, digest.hexdigest())
        except ModelFileError:
            raise
        except Exception as error:  # each parser has exceptions of its own; the cause is kept
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelFileError(
                f"{folder}: the vision encoder's files are damaged or of different versions ({reason}); restore them"
            ) from error

    def n_tokens(self, width: int, height: int) -> int:
        """Visual tokens of a picture of ``width`` × ``height`` pixels."""
        return self._n_tokens or views.n_tokens(width, height) + (PRINT_TOKENS if self._print_tokens else 0)

    def encode(self, image: Image.Image) -> Array:
        """Visual tokens, float32, shape (n_tokens, n_embd): of the whole, its tiles, what is printed and listed."""
        tokens: Array
        if self._tiles is None:
            tokens = self._picture.run(["tokens"], {"pixels": self._pixels(image)})[0][0]
            return tokens
        whole, tiles = views.views(image, self._side_px)
        wanted = ["tokens", "lying"] if self._namer is not None else ["tokens"]
        of_tiles, *lying = (said[0] for said in self._tiles.run(wanted, _fed(tiles)))
        parts = [self._picture.run(["tokens"], _fed(whole))[0][0], of_tiles]
        if self._print_tokens is not None:
            frame = views.tile_frame(*image.size, self._side_px)
            told = read_print(image, frame, self._said, self._told_of_lines if self._lines else None)
            if self._locator is not None:
                places = self._located(of_tiles, frame)
                told = with_list(
                    told,
                    told_things(image, frame, places, lying[0], self._look, self._names)
                    if self._namer is not None
                    else listed(places, frame),
                )
            parts.append(self._print_tokens.tokens(told, frame))
        return np.concatenate(parts)

    def _located(self, tiles: Array, frame: views.Frame) -> Array:
        assert self._locator is not None
        rows, columns = views.token_grid(frame, self._side_px)
        fed = {"tokens": tiles.reshape(1, rows, columns, -1), "looks": looks_at(frame, self._side_px)[None]}
        said: Array = self._locator.run(["said"], fed)[0][0]
        return said

    def _look(self, crops: Array) -> Array:
        assert self._namer is not None
        said: Array = self._namer.run(["names"], {"pixels": crops})[0]
        return said

    def _said(self, pixels: Array) -> Array:
        assert self._letters is not None
        said: Array = self._letters.run(["letters"], {"pixels": pixels[None]})[0][0]
        return said

    def _told_of_lines(self, strips: Array) -> Array:
        assert self._lines is not None
        told: Array = self._lines.run(["symbols"], {"ink": strips})[0]
        return told

    def embed_picture(self, image: Image.Image) -> Array:
        """Search vector, float32, shape (dimension,), unit norm."""
        fed = {"pixels": self._pixels(image)} if self._tiles is None else _fed(views.whole(image, self._side_px))
        vector: Array = self._picture.run(["vector"], fed)[0][0]
        return vector

    def embed_text(self, text: str) -> Array:
        """Search vector in the space of pictures, as ``embed_picture``. Text beyond its length is not seen."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids[: self._context_length - 1]
        row = np.zeros((1, self._context_length), np.int64)
        row[0, : len(ids) + 1] = [*ids, self._end]
        vector: Array = self._caption.run(["vector"], {"ids": row})[0][0]
        return vector

    def _pixels(self, image: Image.Image) -> Array:
        return to_pixels(image, self._side_px)[None]


def _fed(view: views.View) -> dict[str, Array]:
    return {"pixels": view.pixels[None], "places": view.places[None]}


def _session(graph: bytes, weights: dict[str, NDArray[Any]]) -> InferenceSession:
    """A session on ``graph`` with those of ``weights`` that it refers to, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only; they come as exceptions as well
    options.intra_op_num_threads = 0  # the physical cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the language model needs the cores
    names = [name for name in weights if name.encode() in graph and not name.endswith(_ONLY_TRAINING)]
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(_full(weights[name])) for name in names]
    options.add_external_initializers(names, values)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _full(weight: NDArray[Any]) -> NDArray[Any]:
    """Half precision, in which weights are stored, as single; anything else as it is."""
    return weight.astype(np.float32) if weight.dtype == np.float16 else weight


def _read(path: Path, digest: hashlib._Hash) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror}; reinstall Hearth or run `make train`") from error
    digest.update(hashlib.sha256(content).digest())
    return content
