"""The pocket speech model while it is trained: Whisper's own modules over the used part of its vocabulary."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from whisper.model import ModelDimensions, MultiHeadAttention, Whisper
from whisper.tokenizer import get_tokenizer

from training.speech_batches import LETTERS
from training.speech_text import frequent_words, training_sentence

N_VOCAB_ENGLISH = 51_864
WINDOW_S = 12.0  # training has few longer recordings; the transcriber cuts at pauses to stay below
UNUSED_CHANNEL = 0  # of the decoder's output: constant, so that a row can have a logit far below every other
UNUSED_LEVEL = 8.0
UNUSED_WEIGHT = -12.0  # logit of a token that was never trained: 8 · -12 = -96


@dataclass(frozen=True)
class SpeechShape:
    """Sizes of the pocket speech model; the vocabulary takes most of the file."""

    n_state: int = 160
    n_head: int = 5
    n_audio_layer: int = 4
    n_text_layer: int = 2

    def dimensions(self, n_vocab: int) -> ModelDimensions:
        return ModelDimensions(
            n_mels=80,
            n_audio_ctx=1500,
            n_audio_state=self.n_state,
            n_audio_head=self.n_head,
            n_audio_layer=self.n_audio_layer,
            n_vocab=n_vocab,
            n_text_ctx=448,
            n_text_state=self.n_state,
            n_text_head=self.n_head,
            n_text_layer=self.n_text_layer,
        )


def used_tokens(seed: int, *, n_sentences: int = 150_000) -> tuple[int, ...]:
    """Ids that training may meet: of frequent words, short pieces, numbers, drawn sentences, and special ones."""
    tokenizer = get_tokenizer(multilingual=False)
    encoding = tokenizer.encoding
    used = {tokenizer.eot, tokenizer.sot, tokenizer.sot_prev, tokenizer.no_speech, tokenizer.no_timestamps}
    used.update(range(tokenizer.timestamp_begin, tokenizer.timestamp_begin + 1501))
    for number in range(1000):
        used.update(encoding.encode(f" {number}"))
    for word in frequent_words():
        used.update(encoding.encode(f" {word} {word.capitalize()}."))
    for token in range(tokenizer.eot):
        piece = encoding.decode_single_token_bytes(token)
        if len(piece.strip()) <= 3 and piece.strip().isalpha() and piece.isascii():
            used.add(token)
    rng = random.Random(f"vocabulary-{seed}")
    for _ in range(n_sentences):
        used.update(encoding.encode(" " + training_sentence(rng, world_share=0.4)))
    return tuple(sorted(used))


class _Attention(MultiHeadAttention):  # type: ignore[misc]
    """Whisper's attention in float32 under autocast: on CPU its backward pass takes a quarter of bfloat16's time."""

    def qkv_attention(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(q.device.type, enabled=False):
            out, weights = super().qkv_attention(q.float(), k.float(), v.float(), mask)
        return out.to(q.dtype), weights


class SpeechModel(nn.Module):
    """Whisper over ``len(token_ids)`` tokens, with a CTC head on the encoder that only training uses."""

    def __init__(self, shape: SpeechShape, n_vocab: int) -> None:
        super().__init__()
        self.whisper = Whisper(shape.dimensions(n_vocab))
        if not torch.cuda.is_available():
            for module in self.whisper.modules():
                if isinstance(module, MultiHeadAttention):
                    module.__class__ = _Attention
        self.ctc = nn.Linear(shape.n_state, len(LETTERS) + 1)
        decoder = self.whisper.decoder
        nn.init.normal_(decoder.token_embedding.weight, std=0.05)
        nn.init.normal_(decoder.positional_embedding, std=0.02)
        with torch.no_grad():
            decoder.token_embedding.weight[:, UNUSED_CHANNEL] = 0.0
        self.hold_unused_channel()

    @torch.no_grad()
    def hold_unused_channel(self) -> None:
        """Keeps one channel of the decoder's output constant. Call it after every optimizer step."""
        self.whisper.decoder.ln.weight[UNUSED_CHANNEL] = 0.0
        self.whisper.decoder.ln.bias[UNUSED_CHANNEL] = UNUSED_LEVEL

    def encode(self, mel: Tensor) -> Tensor:
        """Features of windows shorter than 30 s: (n, 80, n_frames) → (n, n_frames / 2, n_state)."""
        encoder = self.whisper.encoder
        x = functional.gelu(encoder.conv1(mel))
        x = functional.gelu(encoder.conv2(x)).permute(0, 2, 1)
        x = x + encoder.positional_embedding[: x.shape[1]]
        for block in encoder.blocks:
            x = block(x)
        features: Tensor = encoder.ln_post(x)
        return features

    def decode(self, tokens: Tensor, features: Tensor, candidates: Tensor) -> Tensor:
        """Logits of ``candidates`` (n_candidates,) after each token: (n, n_tokens, n_candidates)."""
        decoder = self.whisper.decoder
        x = decoder.token_embedding(tokens) + decoder.positional_embedding[: tokens.shape[1]]
        for block in decoder.blocks:
            x = block(x, features, mask=decoder.mask)
        return functional.linear(decoder.ln(x), decoder.token_embedding(candidates)).float()

    def forward(self, mel: Tensor, tokens: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the candidates, and of the letters (n, n_frames / 2, n_letters + 1)."""
        features = self.encode(mel)
        return self.decode(tokens, features, candidates), self.ctc(features)


def trained_tokens(path: Path) -> tuple[int, ...]:
    """Ids of the tokens that an exported checkpoint was trained to say."""
    embedding = torch.load(path, weights_only=True)["model_state_dict"]["decoder.token_embedding.weight"]
    return tuple(torch.nonzero(embedding[:, UNUSED_CHANNEL] != UNUSED_WEIGHT).flatten().tolist())


def start_from(model: SpeechModel, path: Path) -> None:
    """Gives ``model`` the weights of an exported checkpoint of as many ``trained_tokens``; only what hears letters for
    CTC is not in it and begins anew. ValueError if they have other shapes.
    """
    state = dict(torch.load(path, weights_only=True)["model_state_dict"])
    embedding = state["decoder.token_embedding.weight"].float()
    state["decoder.token_embedding.weight"] = embedding[list(trained_tokens(path))]
    try:
        model.whisper.load_state_dict({name: value.float() for name, value in state.items()})
    except RuntimeError as error:
        raise ValueError(f"{path} is a speech model of other shapes ({str(error).splitlines()[-1].strip()})") from error


def export(model: SpeechModel, shape: SpeechShape, token_ids: tuple[int, ...], path: Path) -> None:
    """Writes a checkpoint with the full English vocabulary in fp16 that ``whisper.load_model`` reads."""
    state: dict[str, Any] = {
        name: value.detach().to("cpu", torch.float16) for name, value in model.whisper.state_dict().items()
    }
    embedding = torch.zeros(N_VOCAB_ENGLISH, shape.n_state, dtype=torch.float16)
    embedding[:, UNUSED_CHANNEL] = UNUSED_WEIGHT
    embedding[list(token_ids)] = state["decoder.token_embedding.weight"]
    state["decoder.token_embedding.weight"] = embedding
    part = path.with_suffix(".part")
    dimensions = asdict(shape.dimensions(N_VOCAB_ENGLISH))
    torch.save({"dims": dimensions, "model_state_dict": state, "window_s": WINDOW_S}, part)
    part.replace(path)
