"""Whatever is handed in: one clear sentence, and the conversation that was running goes on unharmed."""

import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

import personaplex_lite as pp
from personaplex_lite import audio
from personaplex_lite.talk.persona import Voice
from personaplex_lite.weights.writer import save

CODES = torch.zeros(8, dtype=torch.int64)
NAN = torch.zeros(1920).index_fill(0, torch.tensor([7]), float("nan"))
NOISE = torch.randn(4, 1920, generator=torch.Generator().manual_seed(1)) * 0.1


@pytest.fixture(scope="module")
def undisturbed(tiny_agent):
    """A conversation, the moment after its 4 frames, and the 4 frames that follow if nobody disturbs it."""
    session = tiny_agent.chat(seed=3)
    for sound in NOISE:
        session.step(sound)
    return session, session.save(), [session.step(sound) for sound in NOISE]


@pytest.fixture
def refused(undisturbed):
    """refused(bad, words, error): bad(session) in the middle of a conversation raises one sentence with these
    words (a regular expression), and the frames after it are what they would have been, to the last bit.
    """
    def check(bad, words, error=ValueError):
        session, moment, expected = undisturbed
        session.restore(moment)
        with pytest.raises(error, match=words) as caught:
            bad(session)
        said = str(caught.value)
        assert 20 < len(said) < 500 and "\n" not in said
        for sound, theirs in zip(NOISE, expected):
            ours = session.step(sound)
            assert torch.equal(ours.codes, theirs.codes) and torch.equal(ours.pcm, theirs.pcm)
            assert ours.t == theirs.t
    return check


def stream(source, rate=None):
    return lambda session: list(session.stream(source, rate))


# --- sound --------------------------------------------------------------------------------------------------

def tone(rate=24_000, seconds=1.0, level=0.1, hz=997):
    return (level * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("source, words", [
    ([], "empty.*at least one sample"), (torch.zeros(0, 2), "empty"),
    (np.full(5000, np.nan, np.float32), "NaN or infinite"), (np.array([0.1, np.inf]), "NaN or infinite"),
    (np.zeros((2, 2, 100)), r"shape \[2, 2, 100\].*channels"), (np.float32(0.5), "shape"), (None, "shape"),
    (np.zeros(100, bool), "float samples"), (["hello"], "float samples"),
    (np.zeros(9, complex), "float samples"), (tone() * 3e5, r"peaks at 30000.*\[-1, 1\].*32768"),
], ids=range(11))
def test_arrays_that_are_no_sound(refused, source, words):
    refused(stream(source), words, audio.AudioError)


@pytest.mark.parametrize("rate", [10, -8000, 1_000_000])
def test_strange_rates(refused, rate):
    refused(stream(tone(), rate), f"claims {rate} Hz.*make sense", audio.AudioError)


def test_files_that_are_no_sound(refused, tmp_path):
    whole = tmp_path / "whole.wav"
    soundfile.write(whole, tone(), 24_000)
    bad = {"empty.wav": b"", "text.wav": b"this is no sound at all, honestly",
           "cut.wav": whole.read_bytes()[:30], "text.mp3": b"neither is this",
           "cut.flac": b"fLaC" + bytes(20), "raw.raw": bytes(100)}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        refused(stream(tmp_path / name), rf"{name} (is not a sound file|is empty)", audio.AudioError)
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0, np.float32), 24_000)
    refused(stream(tmp_path / "nothing.wav"), "is empty", audio.AudioError)
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan, np.float32), 24_000, "FLOAT")
    refused(stream(str(tmp_path / "nan.wav")), "nan.wav holds NaN", audio.AudioError)
    refused(stream(tmp_path / "nowhere.wav"), "no sound file at .*nowhere.wav", FileNotFoundError)
    refused(stream(tmp_path), "no sound file at", FileNotFoundError)
    refused(lambda s: s.run(str(tmp_path / "nowhere.wav")), "no sound file at", FileNotFoundError)


def test_a_file_cut_short_is_still_heard(tmp_path):
    path = tmp_path / "cut.wav"
    soundfile.write(path, tone(), 24_000)
    path.write_bytes(path.read_bytes()[:-20_000])
    assert len(audio.read(path)) == 14_000


def test_very_long(refused, tmp_path, monkeypatch):
    """A header that claims two hours; then an hour's limit made one second."""
    rate, size = 8000, 2 * 3600 * 8000
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, rate, rate,
                         1, 8, b"data", size)
    with open(tmp_path / "long.wav", "wb") as file:
        file.write(header)
        file.truncate(44 + size)                # a hole in the disk: nothing is written
    refused(stream(tmp_path / "long.wav"), "120 minutes: cut it to at most 60", audio.AudioError)
    monkeypatch.setattr(audio, "LONGEST", 1)
    refused(stream(tone(seconds=1.1)), "lasts .* minutes: cut it", audio.AudioError)
    assert len(audio.read(tone())) == 24_000


@pytest.mark.parametrize("rate", [8000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "PCM_24", "FLOAT"])
def test_every_usual_file_is_the_same_sound(tmp_path, rate, subtype):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(rate)] * 2, 1), rate, subtype)      # stereo
    read = audio.read(tmp_path / "a.wav")
    assert read.dtype == torch.float32 and read.shape == (24_000,)
    assert np.abs(read.numpy() - tone())[500:-500].max() < (0.02 if subtype == "PCM_U8" else 2e-3)


def test_every_usual_array_is_the_same_sound():
    wav = tone()
    same = [wav.astype(np.float64), wav.tolist(), torch.tensor(wav, requires_grad=True), np.stack([wav, wav]),
            np.stack([wav, wav], 1), wav[None], wav[:, None], (wav * 2 ** 15).astype(np.int16),
            (wav * 2 ** 31).astype(np.int32), np.asfortranarray(np.stack([wav, wav], 1)), wav[::-1][::-1]]
    for source in same:
        np.testing.assert_allclose(audio.read(source).numpy(), wav, atol=1e-4)
    np.testing.assert_allclose(audio.read(np.round(wav * 127 + 128).astype(np.uint8)).numpy(), wav, atol=0.01)
    half = audio.read(np.stack([wav, wav * 0])).numpy()                         # channels are averaged
    np.testing.assert_allclose(half, wav / 2, atol=1e-6)


def test_silent_and_clipped_are_heard_with_a_warning(tiny_agent):
    for wav, words in ((np.zeros(4000, np.int16), "silent: was the microphone muted"),
                       (np.clip(tone() * 100, -1, 1), "clipped: record it at a lower level")):
        with pytest.warns(UserWarning, match=words):
            assert len(list(tiny_agent.chat().stream(wav, wait=0.1))) > 0


def test_loudness():
    """BS.1770: a 997 Hz sine at full scale reads -3.01 LUFS."""
    assert audio.loudness(tone(seconds=5, level=1.0)) == pytest.approx(-3.01, abs=0.02)
    assert audio.loudness(tone(seconds=5, level=0.1, hz=1000)) == pytest.approx(-23.01, abs=0.02)
    assert audio.loudness(tone(48_000, 5, 0.1), 48_000) == pytest.approx(-23.01, abs=0.02)
    assert audio.loudness(np.zeros(24_000)) == -np.inf
    half = np.concatenate([tone(seconds=5), np.zeros(120_000, np.float32)])     # the gate leaves silence out
    assert audio.loudness(half) == pytest.approx(-23.01, abs=0.2)
    for level in (0.003, 0.05, 0.9):
        voice = tone(seconds=2, level=level) * np.linspace(0.5, 1, 48_000)
        assert audio.loudness(audio.normalise(voice)) == pytest.approx(-24, abs=0.1)


# --- one step -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("given, words", [
    ({"user": torch.zeros(1919)}, r"1920 finite samples.*\[1919\]"),
    ({"user": torch.zeros(2, 1920)}, "1920 finite"), ({"user": torch.zeros(0)}, "1920 finite"),
    ({"user": NAN}, "1920 finite"), ({"user": NAN.numpy()}, "1920 finite"),
    ({"user": NAN + float("inf")}, "finite"),
    ({"user": torch.zeros(1920, dtype=torch.int16)}, r"user: codes.*\[8\]"),
    ({"user": "question.wav"}, "user: give numbers, got str"), ({"user": [None]}, "user: give numbers"),
    ({"user": CODES[:7]}, r"codes must be \[8\].*\[7\]"), ({"user": CODES[:0]}, "codes must be"),
    ({"user": torch.zeros(2, 8).long()}, "codes must be"), ({"user": CODES - 1}, "0..31, got -1"),
    ({"user": CODES + 32}, r"user: codes must lie in 0..31, got 32"),
    ({"agent": CODES + 99}, "agent: codes must lie in 0..31"),
    ({"agent": torch.zeros(8)}, "agent: codes must be integers"),
    ({"agent": CODES.bool()}, "must be integers"), ({"agent": torch.zeros(1920)}, "agent: codes"),
    ({"text": 10 ** 6}, "text: a token id in 0..119"), ({"text": -1}, "token id"),
    ({"text": 0.5}, "token id"), ({"text": [1, 2]}, "token id"), ({"text": "hi"}, "text: give"),
    ({"active": torch.tensor([True, False])}, r"active: bool \[1\]"),
    ({"active": torch.ones(1)}, r"active: bool \[1\]"),
], ids=range(25))
def test_steps_that_cannot_be(refused, given, words):
    refused(lambda session: session.step(**{"user": CODES, **given}), words)


def test_sound_in_any_usual_form(tiny_agent):
    sound, first = NOISE[0], None
    for same in (sound, sound[None], sound.numpy(), sound.double(), sound.tolist(), sound[None, None]):
        session = tiny_agent.chat(seed=3)
        frames = [session.step(same) for _ in range(4)]
        codes = frames[-1].codes
        first = codes if first is None else first
        assert torch.equal(codes, first)
    silent = tiny_agent.chat(seed=3)
    assert not torch.equal(first[9:], [silent.step(torch.zeros(1920)) for _ in range(4)][-1].codes[9:])


def test_a_batch_wants_a_frame_for_each(tiny_agent):
    batch = tiny_agent.chat([pp.Persona()] * 2, seed=[1, 2])
    for bad in (torch.zeros(1920), torch.zeros(3, 8).long()):
        with pytest.raises(ValueError, match="user: .*2"):
            batch.step(bad)
    with pytest.raises(ValueError, match="single conversation; use step"):
        list(batch.stream(tone()))
    assert batch.calls == [0, 0] and batch.step(torch.zeros(2, 1920)) is None


# --- the codec by itself ------------------------------------------------------------------------------------

@pytest.mark.parametrize("codes, words", [
    (torch.zeros(8, 3).long(), r"codes must be integers \[b, 1..8, t\].*\[8, 3\]"),
    (torch.zeros(1, 9, 3).long(), "1..8"), (torch.zeros(1, 8, 3), "must be integers"),
    (torch.zeros(1, 0, 3).long(), "1..8"), (torch.zeros(1, 8, 0).long(), "1..8"),
    (torch.full((1, 8, 3), 32), "0..31, got 32..32"), (torch.full((1, 8, 3), -1), "0..31, got -1")],
    ids=range(7))
def test_codes_that_cannot_be_decoded(refused, codes, words):
    refused(lambda session: session.agent.mimi.decode(codes), words)
    refused(lambda session: session.agent.mimi.decode(codes, session.state.mouth), words)


@pytest.mark.parametrize("wav, words", [
    (torch.zeros(2, 100), r"sound must be float \[n\].*\[2, 100\]"),
    (torch.zeros(1, 2, 1920), "sound must be float"), (torch.zeros(0), "n > 0"),
    (torch.zeros(1920).int(), "must be float"), (NAN, "NaN or infinite")],
    ids=range(5))
def test_sound_that_cannot_be_encoded(refused, wav, words):
    refused(lambda session: session.agent.mimi.encode(wav), words)
    refused(lambda session: session.agent.mimi.encode(wav, session.state.ears), words)


def test_streams_that_do_not_fit(refused):
    """Half a frame, two frames where one was announced, another number of rows."""
    for n, rows in ((960, 1), (3840, 1), (1920, 2)):
        refused(lambda s, n=n, rows=rows: s.agent.mimi.encode(torch.zeros(rows, 1, n), s.state.ears),
                "stream takes 1 row")
    for t, rows in ((2, 1), (1, 2)):
        refused(lambda s, t=t, rows=rows: s.agent.mimi.decode(torch.zeros(rows, 8, t).long(), s.state.mouth),
                "stream takes")


# --- personas -----------------------------------------------------------------------------------------------

def chat(**persona):
    return lambda session: session.agent.chat(pp.Persona(**persona))


def test_personas_that_cannot_be(refused, tiny_agent):
    long = "you are a very long story " * 50
    refused(chat(role=long),
            r"takes \d+ frames \(\d+ s\), more than the model remembers \(22\).*shorten the role")
    refused(lambda session: session.fork(persona=pp.Persona(role=long)), "shorten the role")
    refused(lambda session: session.reset(0, pp.Persona(role=long)), "shorten the role")
    refused(chat(voice="nobody"), "unknown voice 'nobody': this checkpoint has none; a path to a .wav")
    named = replace(tiny_agent, voices={"anna": Path("anna.safetensors")})
    refused(lambda session: named.chat(pp.Persona("nobody")), "this checkpoint has anna")
    refused(chat(voice="nowhere.wav"), "no sound file at nowhere.wav", FileNotFoundError)
    refused(chat(voice="nowhere.pt"), "no voice at nowhere.pt", FileNotFoundError)


def voice(**tensors):
    return lambda session: session.agent.chat(pp.Persona(Voice(**tensors, name="mine")))


def test_voices_that_cannot_be(refused):
    refused(voice(codes=torch.zeros(8, 30).long()), "shorten the role .* or the voice")
    for shape in ((7, 4), (8,), (1, 8, 4), (4, 8)):
        refused(voice(codes=torch.zeros(shape).long()), r"the voice 'mine': codes must be integers \[8, n\]")
    refused(voice(codes=torch.zeros(8, 4)), "the voice 'mine': codes must be integers")
    refused(voice(codes=torch.full((8, 4), 32)), "the voice 'mine': codes must lie in 0..31, got 32")
    cache = torch.zeros(1, 17, 4).long()
    refused(voice(embeddings=torch.zeros(3, 1, 1, 4096), cache=cache),
            "recorded with another model.*4096.*32")
    refused(voice(embeddings=torch.zeros(0, 1, 1, 32), cache=cache), "recorded with another model")
    refused(voice(embeddings=torch.zeros(3, 1, 1, 32), cache=cache[:, :9]), "recorded with another model")
    refused(voice(embeddings=torch.full((3, 1, 1, 32), float("nan")), cache=cache), "not finite")
    refused(voice(embeddings=torch.zeros(3, 1, 1, 32), cache=cache + 33), "ids that this model does not have")
    refused(voice(), "'mine' is not a voice: it must hold `codes`, or")


def test_samples_that_are_no_voice(refused, tmp_path, tiny_agent):
    for name, wav, words in (("short", tone(seconds=0.2), "lasts 0.20 s: give at least half a second"),
                             ("loud", np.full(24_000, np.nan), "loud.wav holds NaN")):
        soundfile.write(tmp_path / f"{name}.wav", wav, 24_000, "FLOAT")
        refused(chat(voice=tmp_path / f"{name}.wav"), words, audio.AudioError)
    with pytest.warns(UserWarning, match="silent"), pytest.raises(audio.AudioError, match="silent: give"):
        Voice.from_wav(np.zeros(24_000), tiny_agent.mimi)
    soundfile.write(tmp_path / "fine.wav", tone(seconds=0.5), 24_000)
    assert tiny_agent.voice(tmp_path / "fine.wav").codes.shape == (8, 7)


class Bomb:
    """Unpickling this runs code: it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_voice_files_never_run_code(refused, tmp_path):
    fuse = tmp_path / "boom"
    good = {"embeddings": torch.zeros(3, 1, 1, 32), "cache": torch.zeros(1, 17, 4).long()}
    torch.save(Bomb(fuse), tmp_path / "a.pt")
    torch.save({**good, "more": Bomb(fuse)}, tmp_path / "b.pt")
    torch.save({**good, "more": Bomb(fuse)}, tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "d.pt").write_bytes(pickle.dumps({**good, "more": Bomb(fuse)}))
    (tmp_path / "e.safetensors").write_bytes(pickle.dumps(Bomb(fuse)))
    for name in ("a.pt", "b.pt", "c.pt", "d.pt", "e.safetensors"):
        refused(chat(voice=tmp_path / name), f"{name} is not a voice: it must hold tensors and nothing else")
        assert not fuse.exists()
    pickle.loads((tmp_path / "d.pt").read_bytes())
    assert fuse.exists(), "the bomb works, so the test means something"


def test_voice_files_that_are_none(refused, tmp_path):
    torch.save({"embeddings": torch.zeros(3, 1, 1, 32), "cache": torch.zeros(1, 17, 4).long()},
               tmp_path / "fine.pt")
    fine = (tmp_path / "fine.pt").read_bytes()
    broken = b"", b"hello", b"\x80\x02.", fine[:100], fine[:-30], bytes(500), b"(" * 40, b"I1\n."
    for i, content in enumerate(broken):
        for ending in (".pt", ".safetensors"):
            (tmp_path / f"{i}{ending}").write_bytes(content)
            refused(chat(voice=tmp_path / f"{i}{ending}"), f"{i}{ending} is not a voice")
    strange = [torch.zeros(3)], {"a": torch.zeros(1)}, {"codes": [1, 2]}, {"codes": None}, 3
    for i, content in enumerate(strange):
        torch.save(content, tmp_path / f"other{i}.pt")
        refused(chat(voice=tmp_path / f"other{i}.pt"), "is not a voice: it must hold `codes`")
    save_file({"embeddings": torch.zeros(1)}, str(tmp_path / "half.safetensors"))
    refused(chat(voice=tmp_path / "half.safetensors"), "is not a voice: it must hold `codes`")


# --- everything else ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [
    {"audio_temperature": -1}, {"text_temperature": float("nan")}, {"text_temperature": float("inf")},
    {"audio_top_k": 0}, {"text_top_k": 2.5}, {"text_top_k": "many"}, {"audio_temperature": None}],
    ids=range(7))
def test_sampling_that_cannot_be(refused, options):
    refused(lambda session: pp.SamplingConfig(**options),
            "temperatures must be .*>= 0 and each top_k.*>= 1, got")


def test_seeds_and_personas_are_counted(refused):
    people = [pp.Persona()] * 2
    refused(lambda session: session.agent.chat(people, seed=[1, 2, 3]),
            "one seed for each persona: got 3 and 2")
    refused(lambda session: pp.Session(session.agent, people), "one seed for each persona: got 1 and 2")
    refused(lambda session: session.agent.chat([]), "one seed for each persona")


def test_moments_of_another_conversation(refused):
    refused(lambda s: s.restore(s.agent.chat([pp.Persona()] * 2).save()), "another model or batch")
    refused(lambda s: s.restore(replace(s.agent, mimi=None).chat().save()), "another model or batch")


def test_weights_and_checkpoints(refused, tiny_agent, tmp_path):
    save(tiny_agent.mimi, tmp_path / "mimi.safetensors")
    config = replace(tiny_agent.lm.config, temporal=replace(tiny_agent.lm.config.temporal, layers=0))
    with pytest.raises(pp.CheckpointError, match="does not hold this model"):
        pp.checkpoint.load_lm(tmp_path / "mimi.safetensors", config)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "mimi.safetensors").read_bytes()[:5000])
    refused(lambda s: pp.checkpoint.load_mimi(tmp_path / "cut.safetensors", tiny_agent.mimi.config),
            "not a whole safetensors file", pp.CheckpointError)
    refused(lambda s: pp.load(tmp_path, weights="x"), "weights='x': one of f32, bf16, fp16")
    refused(lambda s: pp.load(tmp_path / "nowhere"), "no checkpoint in", FileNotFoundError)
