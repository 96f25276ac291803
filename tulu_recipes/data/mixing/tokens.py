"""The tokenizer that a mix counts with: its tokenizer.json, at a commit."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tulu_recipes import hub
from tulu_recipes.config.surroundings import is_local, local_path
from tulu_recipes.data.mixing.mix_file import Mix
from tulu_recipes.errors import DataError, HubError, Problem


def load_counter(file: str) -> Tokenizer:
    """A tokenizer that counts whole texts: a tokenizer.json may ask for truncation and padding."""
    tokenizer = Tokenizer.from_file(file)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def resolve_tokenizer(mix: Mix, pin: str | None = None) -> tuple[str | None, dict[str, Any] | None]:
    """Path of the tokenizer.json and the lock's entry on it; Nones when the mix names no tokenizer.

    Args:
        pin: a lock's commit, taken in place of `tokenizer_revision`.
    Raises:
        DataError: there is no such tokenizer.
    """
    if mix.tokenizer is None:
        return None, None
    commit = None
    if is_local(mix.tokenizer):
        found = local_path(mix.tokenizer)
        path = found / "tokenizer.json" if found.is_dir() else found
        if not path.is_file():
            raise DataError(_missing(mix, f"{path} does not exist"))
    else:
        path, commit = _download(mix, pin)
    try:
        load_counter(str(path))
    except Exception as error:  # what the library raises has no class of its own
        raise DataError(_missing(mix, f"{path} is no tokenizer ({error})")) from error
    return str(path), {"name": mix.tokenizer, "revision": commit, "sha256": hub.file_sha256(path)}


def _download(mix: Mix, pin: str | None) -> tuple[Path, str | None]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    name = str(mix.tokenizer)
    try:
        commit = pin or hub.resolve_revision(name, revision=mix.tokenizer_revision)
        return Path(hf_hub_download(name, "tokenizer.json", revision=commit)), commit
    except EntryNotFoundError as error:
        raise DataError(_missing(mix, f"{name} has no tokenizer.json")) from error
    except HubError as error:
        raise DataError(error.problems) from error


def _missing(mix: Mix, what: str) -> Problem:
    mend = "name a Hub id or folder with a tokenizer.json, or leave `tokenizer` out."
    return Problem("mix-tokenizer", mix.path, f"tokenizer: {what}.", mend)
