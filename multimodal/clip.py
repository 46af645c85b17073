"""The pocket vision encoder, open_clip with a C-Abstractor: pictures become visual tokens or one search vector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import open_clip.model
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn

from hearth.models.errors import ModelFileError
from hearth.multimodal import views
from hearth.multimodal.connector import CAbstractor, ViewAbstractor
from hearth.multimodal.letters import LetterReader, PrintVectors
from hearth.multimodal.line_reader import LineReader
from hearth.multimodal.locating import listed, looks_at
from hearth.multimodal.locator import Locator
from hearth.multimodal.named_things import told_things, words_of_names
from hearth.multimodal.namer import Namer
from hearth.multimodal.pixels import PREPROCESSING_VERSION, to_pixels
from hearth.multimodal.print_cells import Printed
from hearth.multimodal.print_order import PRINT_TOKENS, PrintTokens, with_list
from hearth.multimodal.print_reading import read_print

END_TOKEN = "<|end|>"


class FeatureMaps(NamedTuple):
    """What the image tower sees of pictures on cells of 16 and of 32 pixels, (batch, channels, height, width)."""

    fine: Tensor
    coarse: Tensor

    @property
    def joined(self) -> Tensor:
        """On cells of 16 pixels, (batch, fine and coarse channels, height, width)."""
        enlarged = nn.functional.interpolate(self.coarse, size=self.fine.shape[-2:], mode="nearest")
        return torch.cat((self.fine, enlarged), dim=1)


class VisionNetwork(nn.Module):
    """open_clip's CLIP (convolutional image tower, small text tower) and the connector on its feature maps.

    ``config`` is the content of ``vision.json``: ``embed_dim``, ``vision_cfg`` and ``text_cfg`` as open_clip has
    them, and ``connector`` with ``channels``, ``n_embd`` and either ``n_tokens``, for pictures seen whole and once,
    or ``n_places``, for pictures seen in views. ``letters``, if there are any, are the channels of a reader of print,
    ``lines`` those of one that reads what it finds again by lines, and ``locator`` those of a network that tells where
    things stand. ``namer`` has the ``channels`` of one that tells ``names``, each a list of words. ValueError for one
    of the last three without letters or views, or for a namer without a locator.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.clip = open_clip.model.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])
        in_channels = config["vision_cfg"]["width"] * (16 + 32)
        self.in_views = "n_places" in config["connector"]
        self.connector = (ViewAbstractor if self.in_views else CAbstractor)(in_channels, **config["connector"])

        self.letters = LetterReader(tuple(config["letters"])) if "letters" in config else None
        n_embd = config["connector"]["n_embd"]
        self.names: list[list[str]] = config.get("namer", {}).get("names", [])
        self.name_words = words_of_names(self.names)
        self.print = PrintVectors(n_embd, len(self.name_words)) if "letters" in config else None
        for part in ("lines", "locator", "namer"):
            if part in config and not (self.in_views and self.letters):
                raise ValueError(f"{part} needs letters and n_places beside it")
        if "namer" in config and "locator" not in config:
            raise ValueError("namer needs locator beside it")
        self.namer = Namer(in_channels, config["namer"]["channels"], len(self.names)) if "namer" in config else None
        self.lines = LineReader(tuple(config["lines"])) if "lines" in config else None
        self.locator = Locator(n_embd, config["locator"]) if "locator" in config else None

    def feature_maps(self, pixels: Tensor) -> FeatureMaps:
        """The maps of the image tower's two deepest stages, of (batch, 3, height, width) normalised pixels."""
        tower: Any = self.clip.visual
        fine = tower.layer3(tower.layer2(tower.layer1(tower.stem(pixels))))
        return FeatureMaps(fine, tower.layer4(fine))

    def picture_vectors(self, coarse: Tensor) -> Tensor:
        """(batch, …) coarse maps → (batch, embed_dim), unit norm."""
        pooled: Tensor = self.clip.visual.attnpool(coarse)
        return nn.functional.normalize(pooled.float(), dim=-1)

    def visual_tokens(self, maps: FeatureMaps, places: Tensor | None = None) -> Tensor:
        """The tokens' places are needed if pictures are seen in views → (batch, n_tokens, n_embd)."""
        tokens: Tensor = self.connector(maps.joined) if places is None else self.connector(maps.joined, places)
        return tokens

    def names_of_crops(self, pixels: Tensor) -> Tensor:
        """(n, 3, CROP_PX, CROP_PX) normalised pixels → (n, 1 + names) logits, see ``Namer.named``."""
        assert self.namer is not None
        return self.namer.named(self.feature_maps(pixels).joined)

    def text_vectors(self, ids: Tensor) -> Tensor:
        """(batch, context_length) token ids, the end token the highest id → (batch, embed_dim), unit norm."""
        vectors: Tensor = self.clip.encode_text(ids, normalize=False)
        return nn.functional.normalize(vectors.float(), dim=-1)


class PocketVision:
    """The shipped vision encoder, loaded once, used from one thread at a time.

    Visual tokens have width ``n_embd``; ``dimension`` is that of the search space that pictures and texts share;
    ``fingerprint`` (hex) changes with the weights and with the preprocessing.
    """

    def __init__(self, network: VisionNetwork, tokenizer: Tokenizer, config: dict[str, Any], fingerprint: str) -> None:
        self._network = network.eval()
        self._tokenizer = tokenizer
        self._side_px: int = config["vision_cfg"]["image_size"]
        self._context_length: int = config["text_cfg"]["context_length"]
        self._end = int(tokenizer.token_to_id(END_TOKEN) or 0)
        self._n_tokens: int = config["connector"].get("n_tokens", 0)  # 0: pictures are seen in views
        self.n_embd: int = config["connector"]["n_embd"]
        self.dimension: int = config["embed_dim"]
        self.fingerprint = fingerprint

    @classmethod
    def load(cls, folder: Path) -> PocketVision:
        """Reads ``vision.json``, ``vision.safetensors``, ``tokenizer.json``. ModelFileError names a bad one."""
        digest = hashlib.sha256(f"preprocessing {PREPROCESSING_VERSION}".encode())
        config = json.loads(_read(folder / "vision.json", digest, check=json.loads))
        weights = _read(folder / "vision.safetensors", digest, check=safetensors.torch.load)
        tokenizer = Tokenizer.from_str(_read(folder / "tokenizer.json", digest, check=_parse_tokenizer).decode())
        try:
            network = VisionNetwork(config)
            network.load_state_dict({k: v.float() for k, v in safetensors.torch.load(weights).items()})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ModelFileError(
                f"{folder / 'vision.safetensors'} and vision.json do not belong together ({reason}): restore both files"
            ) from error
        return cls(network, tokenizer, config, digest.hexdigest())

    def n_tokens(self, width: int, height: int) -> int:
        """Visual tokens of a picture of ``width`` × ``height`` pixels."""
        return self._n_tokens or views.n_tokens(width, height) + (PRINT_TOKENS if self._network.letters else 0)

    @torch.inference_mode()
    def encode(self, image: Image.Image) -> NDArray[np.float32]:
        """Visual tokens, float32, shape (n_tokens, n_embd): of the whole, its tiles, what is printed and listed."""
        if not self._network.in_views:
            whole: NDArray[np.float32] = self._network.visual_tokens(self._network.feature_maps(self._pixels(image)))[
                0
            ].numpy()
            return whole
        seen = views.views(image, self._side_px)
        maps = [self._network.feature_maps(torch.from_numpy(view.pixels)[None]) for view in seen]
        tokens = [
            self._network.visual_tokens(of_view, torch.from_numpy(view.places)[None])[0].numpy()
            for of_view, view in zip(maps, seen, strict=True)
        ]
        if self._network.letters and self._network.print:
            weights = {name: weight.numpy() for name, weight in self._network.print.state_dict().items()}
            frame = views.tile_frame(*image.size, self._side_px)
            told = read_print(image, frame, self._said, self._told_of_lines if self._network.lines else None)
            if self._network.locator:
                told = with_list(told, self._things(image, frame, maps[1], tokens[1]))
            tokens.append(PrintTokens(weights, self._network.name_words).tokens(told, frame))
        return np.concatenate(tokens)

    def _things(
        self, image: Image.Image, frame: views.Frame, maps: FeatureMaps, tokens: NDArray[np.float32]
    ) -> list[Printed]:
        places = self._located(tokens, frame)
        if self._network.namer is None:
            return listed(places, frame)
        lying = self._network.namer.lying(maps.joined)[0].numpy()
        return told_things(image, frame, places, lying, self._look, self._network.names)

    @torch.inference_mode()
    def _look(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        said: NDArray[np.float32] = self._network.names_of_crops(torch.from_numpy(crops)).numpy()
        return said

    @torch.inference_mode()
    def _located(self, tiles: NDArray[np.float32], frame: views.Frame) -> NDArray[np.float32]:
        assert self._network.locator is not None
        rows, columns = views.token_grid(frame, self._side_px)
        tokens, looks = torch.from_numpy(tiles.reshape(rows, columns, -1)), looks_at(frame, self._side_px)
        said: NDArray[np.float32] = self._network.locator(tokens[None], torch.from_numpy(looks)[None])[0].numpy()
        return said

    @torch.inference_mode()
    def _said(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._network.letters is not None
        said: NDArray[np.float32] = self._network.letters(torch.from_numpy(pixels)[None])[0].numpy()
        return said

    @torch.inference_mode()
    def _told_of_lines(self, strips: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._network.lines is not None
        told: NDArray[np.float32] = self._network.lines(torch.from_numpy(strips)).numpy()
        return told

    @torch.inference_mode()
    def embed_picture(self, image: Image.Image) -> NDArray[np.float32]:
        """Search vector, float32, shape (dimension,), unit norm."""
        maps = self._network.feature_maps(self._pixels(image))
        vector: NDArray[np.float32] = self._network.picture_vectors(maps.coarse)[0].numpy()
        return vector

    @torch.inference_mode()
    def embed_text(self, text: str) -> NDArray[np.float32]:
        """Search vector in the space of pictures, as ``embed_picture``. Text beyond its length is not seen."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids[: self._context_length - 1]
        row = torch.zeros(1, self._context_length, dtype=torch.long)
        row[0, : len(ids) + 1] = torch.tensor([*ids, self._end])
        vector: NDArray[np.float32] = self._network.text_vectors(row)[0].numpy()
        return vector

    def _pixels(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(to_pixels(image, self._side_px))[None]


def _parse_tokenizer(content: bytes) -> None:
    tokenizer = Tokenizer.from_str(content.decode())
    if tokenizer.token_to_id(END_TOKEN) is None:
        raise ValueError(f"it has no {END_TOKEN}")


def _read(path: Path, digest: hashlib._Hash, check: Callable[[bytes], object]) -> bytes:
    """The file's content, added to ``digest`` when ``check`` accepts it. Raises ModelFileError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read ({error.strerror}): reinstall Hearth or run its training recipe"
        ) from error
    try:
        check(content)
    except (
        Exception
    ) as error:  # each parser has its own exceptions, tokenizers raises bare Exception; the cause is kept
        raise ModelFileError(f"{path} ({len(content)} bytes) is damaged: {error}; restore the file") from error
    digest.update(hashlib.sha256(content).digest())
    return content
