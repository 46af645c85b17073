"""The speech recipe: what is said, how batches are made, that training resumes, and that whisper reads the result."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import whisper
from whisper.tokenizer import get_tokenizer

from training.speech import SpeechTrainer, SpeechTraining
from training.speech_batches import LETTERS, BatchOptions, Noises, SpeechBatches, log_mel, record, without_speech
from training.speech_eval import edit_distance, normal_words
from training.speech_model import SpeechModel, SpeechShape, export
from training.speech_text import (
    everyday_sentence,
    frequent_words,
    held_out_sentence,
    is_held_out,
    number_in_words,
    spelled,
    training_sentence,
)
from training.speech_voices import SAMPLE_RATE, Utterance, Voice, draw_voice, held_out_voices, read_shard

SMALL = SpeechShape(n_state=32, n_head=2, n_audio_layer=1, n_text_layer=1)
SENTENCES = ("What is this?", "Where is the red apple?", "How many dogs are there?", "Yes.")
TOKENIZER = get_tokenizer(multilingual=False)


def token_ids() -> tuple[int, ...]:
    used = {TOKENIZER.sot, TOKENIZER.eot, TOKENIZER.no_speech, TOKENIZER.no_timestamps}
    used.update(range(TOKENIZER.timestamp_begin, TOKENIZER.timestamp_begin + 1501))
    for sentence in SENTENCES:
        used.update(TOKENIZER.encode(" " + sentence))
    return tuple(sorted(used))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """One shard of 400 stretches of noise that pretend to be speech."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "shards"
    folder.mkdir()
    lengths = [int(rng.integers(6_000, 20_000)) for _ in range(400)]
    np.save(folder / "00000.npy", rng.integers(-9000, 9000, sum(lengths)).astype(np.int16))
    texts = [SENTENCES[i % len(SENTENCES)] for i in range(400)]
    (folder / "00000.json").write_text(json.dumps({"texts": texts, "lengths": lengths}))
    return folder


def test_training_never_says_a_held_out_sentence() -> None:
    rng = random.Random(1)
    assert not any(is_held_out(training_sentence(rng, world_share=0.5)) for _ in range(2000))
    assert all(is_held_out(held_out_sentence(rng)) for _ in range(20))
    assert is_held_out("WHAT is in the library of Rome") == is_held_out("What is in the library of Rome?")


def test_held_out_voices_are_not_drawn_for_training() -> None:
    rng = random.Random(2)
    drawn = {draw_voice(rng).name for _ in range(5000)}
    assert not drawn & set(held_out_voices())
    variants = {voice.partition("+")[2] for voice in held_out_voices()} - {""}
    assert not {name.partition("+")[2] for name in drawn} & variants
    assert not any(name.startswith("en-gb-x-rp") for name in drawn)


def test_the_same_seed_says_the_same() -> None:
    first, second = random.Random(7), random.Random(7)
    said = [training_sentence(first, world_share=0.5) for _ in range(50)]
    assert said == [training_sentence(second, world_share=0.5) for _ in range(50)]


def test_sentences_are_written_as_people_write() -> None:
    rng = random.Random(3)
    for sentence in (everyday_sentence(rng) for _ in range(300)):
        assert sentence[0].isupper()
        assert sentence[-1] in ".?"
        assert "{" not in sentence
    assert len(frequent_words()) > 5000


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (19, "nineteen"),
        (40, "forty"),
        (57, "fifty seven"),
        (300, "three hundred"),
        (1234, "one two three four"),
    ],
)
def test_numbers_in_words(number: int, words: str) -> None:
    assert number_in_words(number) == words


def test_letters_of_the_ctc_head() -> None:
    assert spelled("Don't go to room 12!") == "don't go to room twelve"
    assert set(spelled("What is 345, Zoë-Anne?")) <= set(LETTERS)


def test_edit_distance_and_normal_words() -> None:
    assert edit_distance(["a", "b", "c"], ["a", "x", "c", "d"]) == 2
    assert edit_distance([], ["a"]) == 1
    assert normal_words("What colour is it?") == normal_words("what color is it")
    assert normal_words("There are five.") == normal_words("there are 5")


def test_recordings_are_finite_and_within_range() -> None:
    rng = np.random.default_rng(5)
    noises = Noises(rng, clips=2, clip_s=12)
    spoken = Utterance((rng.standard_normal(20_000) * 5000).astype(np.int16), "Yes.")
    for _ in range(30):
        made = record(rng, noises, [spoken, spoken])
        assert np.isfinite(made.samples).all()
        assert np.abs(made.samples).max() <= 1.0001
        assert made.text == "Yes. Yes."
        assert 0 <= made.start_s < made.end_s <= len(made.samples) / SAMPLE_RATE
        assert without_speech(rng, noises, 16_000).text == ""


def test_features_are_whispers_own() -> None:
    samples = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 16_000)).astype(np.float32) * 0.1)
    ours = log_mel(samples)
    for row in range(2):
        torch.testing.assert_close(ours[row], whisper.log_mel_spectrogram(samples[row]), rtol=1e-3, atol=1e-3)


def test_batches_hold_prompt_text_and_end(shards: Path) -> None:
    ids = token_ids()
    batches = iter(SpeechBatches(BatchOptions(shards, ids, seed=1, noise_clips=2, batch_s=8.0, timestamps_share=0.3)))
    seen = set()
    for _ in range(20):
        batch = next(batches)
        assert batch["mel"].shape[1] == 80
        assert batch["tokens"].shape == batch["targets"].shape
        for inputs, targets, letters in zip(batch["tokens"], batch["targets"], batch["letter_lengths"], strict=True):
            kept = [ids[int(t)] for t in targets if t >= 0]
            assert ids[int(inputs[0])] == TOKENIZER.sot
            assert kept[-1] == TOKENIZER.eot
            seen.add(
                "silent" if kept[0] == TOKENIZER.no_speech else "timed" if kept[0] > TOKENIZER.no_timestamps else "said"
            )
            assert (letters == 0) == (kept[0] == TOKENIZER.no_speech)
    assert seen == {"silent", "timed", "said"}


def test_full_windows_are_30_s(shards: Path) -> None:
    batch = next(iter(SpeechBatches(BatchOptions(shards, token_ids(), seed=1, noise_clips=2, full=True))))
    assert batch["mel"].shape == (2, 80, 3000)


def test_whisper_reads_the_export_and_never_says_an_unused_token(tmp_path: Path) -> None:
    ids = token_ids()
    torch.manual_seed(0)
    model = SpeechModel(SMALL, len(ids)).eval()
    path = tmp_path / "speech.pt"
    export(model, SMALL, ids, path)
    loaded = whisper.load_model(str(path), device="cpu")
    assert not loaded.is_multilingual
    mel = torch.randn(1, 80, 3000)
    prompt = torch.tensor([[TOKENIZER.sot, TOKENIZER.no_timestamps]])
    with torch.no_grad():
        logits = loaded(mel, prompt)[0, -1]
        inside = torch.tensor([[ids.index(int(token)) for token in prompt[0]]])
        ours = model(mel, inside, torch.arange(len(ids)))[0][0, -1]
    torch.testing.assert_close(logits[list(ids)], ours, rtol=0.02, atol=0.05)
    unused = torch.ones(len(logits), dtype=torch.bool)
    unused[list(ids)] = False
    assert float(logits.softmax(-1)[unused].sum()) < 1e-6


def test_training_goes_on_from_its_checkpoint(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text(json.dumps(token_ids()))
    options = SpeechTraining(tmp_path, tmp_path / "speech.pt", batch_s=4.0, shape=SMALL)
    trainer = SpeechTrainer(options)
    batches = iter(SpeechBatches(BatchOptions(shards, trainer.token_ids, seed=1, noise_clips=2, batch_s=4.0)))
    before = trainer.model.whisper.decoder.ln.bias.detach().clone()
    figures = [trainer.update(next(batches)) for _ in range(2)]
    assert all(np.isfinite(figure["loss"]) for figure in figures)
    assert trainer.model.whisper.decoder.ln.bias[0] == before[0]
    trainer.step, trainer.spent_s = 2, 5.0
    trainer.save()
    again = SpeechTrainer(options)
    assert (again.step, again.spent_s) == (2, 5.0)
    for name, value in again.model.state_dict().items():
        torch.testing.assert_close(value, trainer.model.state_dict()[name])
    assert options.output.is_file()
    other = SpeechTraining(tmp_path, tmp_path / "speech.pt", shape=SpeechShape(n_state=64, n_head=2))
    with pytest.raises(ValueError, match="belongs to another model shape"):
        SpeechTrainer(other)


def test_training_goes_on_from_a_finished_file(tmp_path: Path) -> None:
    ids = token_ids()
    torch.manual_seed(3)
    finished = SpeechModel(SMALL, len(ids))
    export(finished, SMALL, ids, tmp_path / "finished.pt")
    options = SpeechTraining(tmp_path, tmp_path / "speech.pt", shape=SMALL, start=tmp_path / "finished.pt")
    trainer = SpeechTrainer(options)
    assert trainer.token_ids == ids
    for name, value in trainer.model.whisper.state_dict().items():
        torch.testing.assert_close(value, finished.whisper.state_dict()[name], rtol=2e-3, atol=2e-3)
    folder = tmp_path / "other"
    folder.mkdir()
    other = SpeechTraining(folder, tmp_path / "speech.pt", start=tmp_path / "finished.pt")
    with pytest.raises(ValueError, match="a speech model of other shapes"):
        SpeechTrainer(other)


def test_espeak_ng_speaks_and_shards_are_read_back(tmp_path: Path) -> None:
    from training.speech_voices import Speaker

    try:
        speaker = Speaker()
    except RuntimeError as error:
        pytest.skip(str(error))
    samples = speaker.speak("What is this?", Voice("en-us+f3"))
    assert 0.4 < len(samples) / SAMPLE_RATE < 2.5
    assert np.abs(samples).max() > 3000
    with pytest.raises(ValueError, match="no voice 'en-xx'"):
        speaker.speak("What is this?", Voice("en-xx"))
    np.save(tmp_path / "00000.npy", samples)
    (tmp_path / "00000.json").write_text(json.dumps({"texts": ["What is this?"], "lengths": [len(samples)]}))
    (utterance,) = read_shard(tmp_path / "00000.npy")
    assert utterance.text == "What is this?"
    assert np.array_equal(utterance.samples, samples)
