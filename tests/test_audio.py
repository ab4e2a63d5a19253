"""Sound in whatever form people hand it over, and sound written so that nothing is lost."""

import io

import numpy as np
import pytest
import soundfile
import torch

from personaplex_lite import audio, cli

TONE = (0.3 * np.sin(np.arange(16_000) * 0.05)).astype("float32")


def encoded(samples=TONE, rate=16_000):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.mark.parametrize("source", [
    (16_000, TONE), (np.int32(16_000), torch.from_numpy(TONE)),
    {"array": TONE, "sampling_rate": 16_000}, {"array": TONE, "sampling_rate": 16_000.0, "path": None},
    encoded(), bytearray(encoded()), io.BytesIO(encoded())], ids=lambda source: type(source).__name__)
def test_the_rate_comes_along(source):
    assert torch.equal(audio.read(source), audio.read(TONE, 16_000))


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "uint8", "uint16"])
def test_integers_of_any_width(kind):
    info = np.iinfo(kind)
    middle, scale = (info.max + 1) / 2 if info.min == 0 else 0, 2.0 ** (info.bits - 1)
    whole = np.clip(np.round(TONE * scale + middle), info.min, info.max).astype(kind)
    assert (audio.read(whole) - torch.from_numpy(TONE)).abs().max() < 1.5 / scale


@pytest.mark.parametrize("layout", ["[n, 2]", "[2, n]", "file"])
def test_opposite_phases_do_not_cancel(layout):
    stereo = np.stack([TONE, -TONE], 1)
    sources = {"[n, 2]": (24_000, stereo), "[2, n]": (24_000, stereo.T), "file": encoded(stereo, 24_000)}
    assert torch.allclose(audio.read(sources[layout]).abs(), torch.from_numpy(TONE).abs(), atol=1e-6)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 3999, 384_001, True, "16000"])
def test_a_rate_that_makes_no_sense(rate):
    for source, given in ((TONE, rate), ({"array": TONE, "sampling_rate": rate}, None)):
        with pytest.raises(audio.AudioError, match="make sense"):
            audio.read(source, given)


def test_two_rates_that_contradict():
    with pytest.raises(audio.AudioError, match="one of them"):
        audio.read((16_000, TONE), 8000)


@pytest.mark.parametrize("source", [b"", b"RIFF", io.BytesIO(b"no sound"), {"array": TONE}, object(), None])
def test_what_is_no_sound(source):
    with pytest.raises(audio.AudioError):
        audio.read(source)


def test_too_many_channels():
    with pytest.raises(audio.AudioError, match="channels"):
        audio.read(np.zeros((100, 40), "float32"))


@pytest.mark.slow
@pytest.mark.parametrize("ending", audio.FORMATS)
def test_long_sounds_are_written_in_blocks(tmp_path, ending):
    long = np.tile(TONE, 140)                               # 93 s: libsndfile's ogg died of it in one piece
    path = audio.write(tmp_path / f"x{ending}", long)
    assert abs(len(audio.read(path)) - len(long)) < 5000
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = audio.write(tmp_path / "x.wav", TONE)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    with pytest.raises(OSError, match="No space"):
        audio.write(path, TONE)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name, why", [("x.xyz", "must end in"), ("folder.wav", "is a folder"),
                                       ("nowhere/x.wav", "no folder")])
def test_a_place_that_cannot_be_written(tmp_path, name, why):
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises((ValueError, OSError), match=why):
        audio.write(tmp_path / name, TONE)


def test_the_command_never_overwrites_its_question(tmp_path, capsys):
    path = audio.write(tmp_path / "q.wav", TONE)
    before = path.read_bytes()
    assert cli.main(["run", str(path), "-o", str(path)]) == 2
    assert "the recording itself" in capsys.readouterr().err and path.read_bytes() == before
    (tmp_path / "a.wav").mkdir()
    assert cli.main(["run", str(path), "-o", str(tmp_path / "a.wav")]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_a_tuple_is_one_sound_and_a_list_is_a_batch(tiny_agent):
    chat = tiny_agent.chat(seed=1)
    here = chat.save()
    one = chat.run((16_000, TONE), wait=0, progress=False)
    chat.restore(here)
    [same] = chat.run([(16_000, TONE)], wait=0, progress=False)
    assert (one.codes == same.codes).all()
