"""Checkpoint folders: found here or on the Hugging Face hub, looked through, checked.

Nothing that was downloaded is trusted: names in a config are file names and never paths, and voices.tgz is
unpacked file by file into a folder of ours. Every failure is one sentence that says what to do next.

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
from os import PathLike
from pathlib import Path
from typing import Any

from ..model.config import LMConfig, MimiConfig, SamplingConfig, moshiko, personaplex_7b
from .checkpoint import CheckpointError, Header
from .sizes import from_dict

KNOWN = {
    "nvidia/personaplex-7b-v1": personaplex_7b,
    "kyutai/personaplex-rl-seamless": personaplex_7b,
    "kyutai/moshiko-pytorch-bf16": moshiko,
    "kyutai/moshika-pytorch-bf16": moshiko,
}
OFFICIAL = {       # a config may give other names
    "moshi_name": "model.safetensors",
    "mimi_name": "tokenizer-e351c8d8-checkpoint125.safetensors",
    "tokenizer_name": "tokenizer_spm_32k_3.model",
}
OURS = {
    "moshi_name": "lm.safetensors",
    "mimi_name": "mimi.safetensors",
    "tokenizer_name": "tokenizer.model",
}
SUMS = "SHA256SUMS"              # a converted folder's, as `sha256sum` writes it
SPARE = 2e9                      # bytes of a disk that a download leaves free
MOST_FILES = 200                 # in a voices.tgz
MOST_BYTES = 2 * 2**30           # of it, unpacked


class HubError(OSError):
    """A checkpoint that cannot be had; the message says what to do next."""


@dataclass(frozen=True)
class Files:
    """A checkpoint on this machine: its sizes, what the LM's file says of itself, where the rest is."""
    lm_config: LMConfig
    mimi_config: MimiConfig
    sampling: SamplingConfig
    lm: Header
    mimi: Path
    tokenizer: Path
    voices: dict[str, Path]


def fetch(source: str | PathLike[str], revision: str | None = None) -> Path:
    """The folder of a checkpoint: a local one as it is, a hub id ("owner/name") by way of the hub's cache.

    revision : branch, tag or commit of a hub id. HF_TOKEN, HF_HOME, HF_HUB_OFFLINE work as everywhere.
    Raises HubError, and ValueError for the revision of a folder.
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
    # which files are there, and how large
    try:
        info = hub.HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=10)
        files = info.siblings or []
    except hub.errors.HfHubHTTPError:
        raise
    except Exception:               # no network, or told to stay offline: what the cache has must do
        files = []
    offline = not files
    # the config names those that we want
    config = hub.hf_hub_download(repo, "config.json", revision=revision, local_files_only=offline)
    about = json.loads(Path(config).read_text())
    patterns = ["config.json", SUMS, "voices.tgz", "voices/*", *_names(about).values()]
    # is there room for what the cache does not have yet?
    need = 0
    for file in files:
        wanted = any(fnmatch(file.rfilename, pattern) for pattern in patterns)
        if not wanted:
            continue
        cached = hub.try_to_load_from_cache(repo, file.rfilename, revision=revision)
        if not isinstance(cached, str):
            need += file.size or 0
    check_room(need, Path(hub.constants.HF_HUB_CACHE), "set HF_HOME to a folder on a larger disk")
    return Path(hub.snapshot_download(repo, revision=revision, local_files_only=offline,
                                      allow_patterns=patterns))


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
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status == 401 and get_token():
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


def look(folder: str | PathLike[str]) -> Files:
    """What a folder holds: its config, and the header of the LM's file, which is read only here.

    Raises FileNotFoundError or CheckpointError with what is wrong.
    """
    folder = Path(folder)
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"no checkpoint in {folder}: it must hold config.json and the files "
                                "that it names")
    try:
        about = json.loads(config.read_text())
        names = _names(about)
        path = folder / names["moshi_name"]
        if not ("lm" in about or "dim" in about or path.is_file()):
            raise KeyError("lm")                 # neither sizes nor weights: somebody else's config
        lm_config, mimi_config = _configs(about)
        sampling = SamplingConfig(**about.get("sampling", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{config} is not a config of this project: {error!r}") from None
    lm = Header.of(path)
    if "lm" not in about:
        lm_config = _with_steps_of(lm, lm_config)
    return Files(
        lm_config=lm_config,
        mimi_config=mimi_config,
        sampling=sampling,
        lm=lm,
        mimi=folder / names["mimi_name"],
        tokenizer=folder / names["tokenizer_name"],
        voices=_voices(folder),
    )


def _names(about: dict[str, Any]) -> dict[str, str]:
    """The files that a config speaks of: names only, whatever folder it gives."""
    if "lm" in about:
        return OURS
    names = {}
    for key, usual in OFFICIAL.items():
        given = about.get(key) or usual
        names[key] = Path(str(given)).name
    return names


def _configs(about: dict[str, Any]) -> tuple[LMConfig, MimiConfig]:
    """Sizes. The official PersonaPlex config gives none: they are those of the 7B."""
    if "lm" in about:
        return from_dict(LMConfig, about["lm"]), from_dict(MimiConfig, about["mimi"])
    lm, mimi = personaplex_7b()
    if "dim" in about:
        lm = LMConfig.from_official(about)
    if "mimi" in about:
        mimi = from_dict(MimiConfig, about["mimi"])
    return lm, mimi


def _with_steps_of(file: Header, config: LMConfig) -> LMConfig:
    """The config with as many depth steps as the weights have: official configs may say otherwise."""
    heads = [name for name in file.shapes if re.fullmatch(r"linears\.\d+\.weight", name)]
    steps = len(heads) or 16
    return replace(config, depth_steps=steps, depth=replace(config.depth, context=steps))


def _voices(folder: Path) -> dict[str, Path]:
    here = folder / "voices"
    packed = folder / "voices.tgz"
    if not here.is_dir() and packed.is_file():
        here = unpack(packed)
    return {path.stem: path for path in sorted(here.glob("*")) if path.suffix in (".safetensors", ".pt")}


def unpack(archive: Path) -> Path:
    """The `.pt` files of a voices.tgz, in a folder of ours. Raises CheckpointError if it misbehaves."""
    from huggingface_hub import constants
    home = Path(constants.HF_HOME) / "personaplex_lite"
    # the folder's name tells the archive: another one gets another folder
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    voices = home / f"voices-{digest[:16]}"
    if voices.is_dir():
        return voices
    home.mkdir(parents=True, exist_ok=True)
    # unpacked aside, then renamed: what is there is always whole
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        whole = Path(scratch) / "voices"
        whole.mkdir()
        try:
            with tarfile.open(archive, "r:gz") as tar:
                _unpack(tar, archive, whole)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise CheckpointError(f"{archive} is not a whole archive ({error}): download it again") from None
        os.replace(whole, voices)
    return voices


def _unpack(tar: tarfile.TarFile, archive: Path, folder: Path) -> None:
    total = 0
    for count, member in enumerate(tar):
        path = Path(member.name)
        leads_out = path.is_absolute() or ".." in path.parts
        plain = member.isfile() or member.isdir()
        if leads_out or not plain:
            raise CheckpointError(f"{archive} is not to be trusted: {member.name!r} in it is a link, "
                                  "a device or leads out of the folder")
        total += member.size
        if count >= MOST_FILES or total > MOST_BYTES:
            raise CheckpointError(f"{archive} is not to be trusted: it unpacks to more than {MOST_FILES} "
                                  f"files or {MOST_BYTES / 2**30:.0f} GiB")
        content = tar.extractfile(member)        # None of a folder
        if content is not None and path.suffix == ".pt" and not path.name.startswith("."):
            (folder / path.name).write_bytes(content.read())
