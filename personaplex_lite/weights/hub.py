"""Checkpoint folders: found here or on the Hugging Face hub, looked through, checked.

What departs from the textbook: nothing that was downloaded is trusted. Names in a config are file names and
never paths, voices.tgz is unpacked file by file into a folder of ours, and every failure is one sentence that
says what to do next.

Two layouts. Ours: config.json with "lm" and "mimi", lm.safetensors, mimi.safetensors, tokenizer.model,
voices/. The official one: config.json, model.safetensors, Mimi, a tokenizer, voices.tgz.
"""
from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from ..model.config import LMConfig, MimiConfig, SamplingConfig, from_dict, moshiko, personaplex_7b
from .checkpoint import CheckpointError, shapes

KNOWN = {"nvidia/personaplex-7b-v1": personaplex_7b, "kyutai/personaplex-rl-seamless": personaplex_7b,
         "kyutai/moshiko-pytorch-bf16": moshiko, "kyutai/moshika-pytorch-bf16": moshiko}
OFFICIAL = {"moshi_name": "model.safetensors", "mimi_name": "tokenizer-e351c8d8-checkpoint125.safetensors",
            "tokenizer_name": "tokenizer_spm_32k_3.model"}      # a config may give other names
OURS = {"moshi_name": "lm.safetensors", "mimi_name": "mimi.safetensors", "tokenizer_name": "tokenizer.model"}
SUMS = "SHA256SUMS"                                  # a converted folder's, as `sha256sum` writes it
SPARE = 2e9                                          # bytes of a disk that a download leaves free
MOST_FILES, MOST_BYTES = 200, 2 * 2**30              # in a voices.tgz, unpacked


class HubError(OSError):
    """A checkpoint that cannot be had; the message says what to do next."""


@dataclass(frozen=True)
class Files:
    """A checkpoint on this machine."""
    lm_config: LMConfig
    mimi_config: MimiConfig
    sampling: SamplingConfig
    lm: Path
    mimi: Path
    tokenizer: Path
    voices: dict[str, Path]


def fetch(source, revision: str | None = None) -> Path:
    """The folder of a checkpoint: a local one as it is, a hub id ("owner/name") by way of the hub's cache.

    revision : branch, tag or commit of a hub id. HF_TOKEN, HF_HOME, HF_HUB_OFFLINE work as everywhere.
    Raises HubError.
    """
    if Path(source).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        if revision is not None:
            raise ValueError(f"revision={revision!r} is for models on the hub, and {source} is a folder")
        return Path(source)
    try:
        return _download(str(source), revision)
    except HubError:
        raise
    except Exception as error:      # the hub's own kinds, its HTTP library's and the disk's
        raise HubError(_explain(error, str(source), revision)) from None


def _download(repo: str, revision: str | None) -> Path:
    import huggingface_hub as hub
    try:
        files = hub.HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=10).siblings
    except hub.errors.HfHubHTTPError:
        raise
    except Exception:               # no network, or told to stay offline: what the cache has must do
        files = []
    how = {"revision": revision, "local_files_only": not files}
    about = json.loads(Path(hub.hf_hub_download(repo, "config.json", **how)).read_text())
    names = ["config.json", SUMS, "voices.tgz", "voices/*", *_names(about).values()]
    wanted = [file for file in files if any(fnmatch(file.rfilename, name) for name in names)]
    need = sum(file.size or 0 for file in wanted
               if not isinstance(hub.try_to_load_from_cache(repo, file.rfilename, revision=revision), str))
    check_room(need, Path(hub.constants.HF_HUB_CACHE), "set HF_HOME to a folder on a larger disk")
    return Path(hub.snapshot_download(repo, allow_patterns=names, **how))


def check_room(need: float, folder: Path, otherwise: str) -> None:
    """Raise HubError unless `need` bytes fit on the disk of `folder`, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    short = need + SPARE - shutil.disk_usage(folder).free
    if need and short > 0:
        raise HubError(f"{need / 1e9:.1f} GB are to be written and the disk of {folder} is too full: "
                       f"free {short / 1e9:.1f} GB there, or {otherwise}")


def _explain(error: Exception, repo: str, revision: str | None) -> str:
    from huggingface_hub import errors, get_token
    page = f"https://huggingface.co/{repo}"
    if isinstance(error, errors.GatedRepoError):
        if get_token():
            return f"your HF_TOKEN may not read {repo}: accept the licence at {page} with the token's account"
        return (f"{repo} is gated: accept the licence at {page}, make a token at "
                "https://huggingface.co/settings/tokens, and set HF_TOKEN to it")
    if getattr(getattr(error, "response", None), "status_code", None) == 401 and get_token():
        return "the hub does not know your HF_TOKEN: make a new one at https://huggingface.co/settings/tokens"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{repo} is neither a folder here nor a model on the hub: check the spelling"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}: choose one of {page}/commits"
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError)):
        why = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "the hub cannot be reached"
        return (f"{repo} is not in this machine's cache and {why}: connect once, "
                "or copy a converted folder here and give its path")
    if isinstance(error, errors.EntryNotFoundError):
        return f"{repo} has no config.json: it is not a model of this kind"
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{repo} could not be downloaded ({why}): try again, what has arrived is kept"


def look(folder) -> Files:
    """What a folder holds. Raises FileNotFoundError or CheckpointError with what is wrong."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no checkpoint in {folder}: it must hold config.json and the files "
                                "that it names")
    try:
        about = json.loads((folder / "config.json").read_text())
        names = _names(about)
        lm, mimi = _configs(about, folder / names["moshi_name"])
        sampling = SamplingConfig(**about.get("sampling", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder}/config.json is not a config of this project: {error!r}") from None
    return Files(lm, mimi, sampling, *(folder / names[key] for key in OURS), _voices(folder))


def _names(about: dict) -> dict[str, str]:
    """The files that a config speaks of."""
    if "lm" in about:
        return OURS
    return {key: Path(str(about.get(key) or name)).name for key, name in OFFICIAL.items()}


def _configs(about: dict, weights: Path) -> tuple[LMConfig, MimiConfig]:
    """Sizes. The official PersonaPlex config gives none; how many depth steps there are, the weights tell."""
    if "lm" in about:
        return from_dict(LMConfig, about["lm"]), from_dict(MimiConfig, about["mimi"])
    lm, mimi = personaplex_7b()
    if "dim" in about:
        lm = LMConfig.from_official(about)
    elif not weights.is_file():
        raise KeyError("lm")
    mimi = from_dict(MimiConfig, about["mimi"]) if "mimi" in about else mimi
    steps = sum(bool(re.fullmatch(r"linears\.\d+\.weight", name)) for name in shapes(weights)) or 16
    return replace(lm, depth_steps=steps, depth=replace(lm.depth, context=steps)), mimi


def _voices(folder: Path) -> dict[str, Path]:
    here = folder / "voices"
    if not here.is_dir() and (folder / "voices.tgz").is_file():
        here = unpack(folder / "voices.tgz")
    return {p.stem: p for p in sorted(here.glob("*")) if p.suffix in (".safetensors", ".pt")}


def unpack(archive: Path) -> Path:
    """The `.pt` files of a voices.tgz, in a folder of ours. Raises CheckpointError if it misbehaves."""
    from huggingface_hub import constants
    home = Path(constants.HF_HOME) / "personaplex_lite"
    voices = home / f"voices-{hashlib.sha256(archive.read_bytes()).hexdigest()[:16]}"
    if voices.is_dir():
        return voices
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        whole = Path(scratch) / "voices"
        whole.mkdir()
        try:
            with tarfile.open(archive, "r:gz") as tar:
                _unpack(tar, whole)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise CheckpointError(f"{archive} is not a whole archive ({error}): download it again") from None
        os.replace(whole, voices)
    return voices


def _unpack(tar: tarfile.TarFile, folder: Path) -> None:
    total = 0
    for count, member in enumerate(tar):
        path, total = Path(member.name), total + member.size
        if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
            raise CheckpointError(f"{tar.name} is not to be trusted: {member.name!r} in it is a link, "
                                  "a device or leads out of the folder")
        if count >= MOST_FILES or total > MOST_BYTES:
            raise CheckpointError(f"{tar.name} is not to be trusted: it unpacks to more than {MOST_FILES} "
                                  f"files or {MOST_BYTES / 2**30:.0f} GiB")
        if member.isfile() and path.suffix == ".pt" and not path.name.startswith("."):
            (folder / path.name).write_bytes(tar.extractfile(member).read())
