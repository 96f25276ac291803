"""Everything this package asks of the Hugging Face Hub: may we read, may we write, push, and prove what was pushed.

The `check_` functions look without touching: one quick request each, no retries, nothing written, all problems
returned. `prove_write` and `push_folder` act, and raise HubError. Values of tokens appear in no text.

huggingface_hub is imported inside the functions: it takes most of a second, and a broken recipe is answered sooner.
"""

import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_recipes.errors import HubError, Problem
from tulu_recipes.hub_problems import (
    Repo,
    RepoType,
    cached_commit,
    explain,
    explained,
    http_error,
    lost_connection,
    obstacles,
    offline_problems,
    public_instead,
    push_obstacles,
    raise_any,
    reason,
    root,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi

QUICK_SECONDS = 2.0  # to connect, and to answer, in the checks; HF_HUB_ETAG_TIMEOUT overrides it
PASSING_STATUS = {408, 409, 412, 425, 429}  # 4xx that may be otherwise a moment later; every 5xx may
PATHS_ASKED = 500  # in one request about files
DRY_FILE = "README.md"  # always a regular file: asking for its upload mode sends no content

log = logging.getLogger(__name__)


# Looking: quick, without side effects


def read_text(
    repo_id: str, filename: str, *, revision: str | None = None, repo_type: RepoType = "model"
) -> str | None:
    """A small text file of a Hub repo, or of a local folder, read into memory; the cache is not written.

    Args:
        repo_id: Hub id or local folder. With HF_HUB_OFFLINE set, a Hub id is read from the local cache.
    Returns:
        the text; None when there is no such file.
    Raises:
        HubError: the repo or revision cannot be read.
    """
    if Path(repo_id).is_dir():
        local = Path(repo_id) / filename
        return local.read_text(encoding="utf-8") if local.is_file() else None
    from huggingface_hub import hf_hub_url, is_offline_mode, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    repo = Repo(repo_id, repo_type, revision)
    raise_any(obstacles(repo))
    if is_offline_mode():
        raise_any(offline_problems(repo))
        cached = try_to_load_from_cache(repo_id, filename, revision=revision, repo_type=repo_type)
        return Path(cached).read_text(encoding="utf-8") if isinstance(cached, str) else None
    with explained(repo):
        try:
            url = hf_hub_url(repo_id, filename, repo_type=repo_type, revision=revision)
            content: bytes = _get(url).content
        except EntryNotFoundError:
            return None
    return content.decode("utf-8")


def check_readable(
    repo_id: str, *, repo_type: RepoType = "model", revision: str | None = None, where: str = ""
) -> list[Problem]:
    """Why `repo_id` could not be loaded now; empty when it could, or when it is a local path.

    With HF_HUB_OFFLINE set, the local cache is asked instead of the Hub.
    """
    if Path(repo_id).exists():
        return []
    from huggingface_hub import HfApi, is_offline_mode

    repo = Repo(repo_id, repo_type, revision, where)
    if hindering := obstacles(repo):
        return hindering
    if is_offline_mode():
        return offline_problems(repo)
    try:
        with explained(repo):
            info = HfApi().repo_info(repo_id, repo_type=repo_type, revision=revision, timeout=_quick_seconds())
            if info.gated:  # a gated repo shows its metadata to everybody, its files only to the admitted
                _get(f"{repo.api_path}/auth-check")
    except HubError as error:
        return error.problems
    return []


def check_writable(
    repo_id: str, *, where: str = "", repo_type: RepoType = "model", private: bool | None = None
) -> list[Problem]:
    """Why a push to `repo_id` would be refused, as far as can be known without creating anything.

    Args:
        repo_id: "namespace/name", or "name" for the user's own namespace.
        private: True refuses a repo that exists and is public.
    """
    repo = Repo(repo_id, repo_type, where=where)
    if hindering := obstacles(repo) + push_obstacles(repo):
        return hindering
    try:
        with explained(repo):
            return _write_problems(repo, private)
    except HubError as error:
        return error.problems


def full_repo_id(repo_id: str) -> str:
    """The repo id with the namespace of the token's user, where it has none.

    Raises:
        HubError: the Hub cannot be asked whose the token is.
    """
    if "/" in repo_id:
        return repo_id
    with explained(Repo(repo_id)):
        return f"{_get('/api/whoami-v2').json()['name']}/{repo_id}"


def resolve_revision(repo_id: str, *, repo_type: RepoType = "model", revision: str | None = None) -> str | None:
    """The commit sha that `revision` (default: the main branch) names now; None for a local path.

    With HF_HUB_OFFLINE set, the commit that the local cache holds.

    Raises:
        HubError: the repo or revision cannot be read.
    """
    if Path(repo_id).exists():
        return None
    from huggingface_hub import is_offline_mode

    repo = Repo(repo_id, repo_type, revision)
    if is_offline_mode():
        raise_any(obstacles(repo) or offline_problems(repo))
        return cached_commit(repo)
    sha: str = _repo_info(repo).sha
    return sha


def head_of(repo_id: str, *, repo_type: RepoType, revision: str | None = None) -> str | None:
    """The commit a branch is at; None where there is no such repo or branch yet, or the Hub does not answer."""
    try:
        return resolve_revision(repo_id, repo_type=repo_type, revision=revision)
    except HubError:
        return None


def licence_of(repo_id: str, *, repo_type: RepoType = "model", revision: str | None = None) -> str | None:
    """The licence identifier in the repo's card ("apache-2.0", "llama3.1", "other"); None when it names none.

    A card with several licences gives them joined by ", ". Reads README.md where there is no Hub to ask: in a local
    folder, or in the cache with HF_HUB_OFFLINE set.

    Raises:
        HubError: the repo or revision cannot be read.
    """
    from huggingface_hub import RepoCard, is_offline_mode

    if Path(repo_id).is_dir() or is_offline_mode():
        text = read_text(repo_id, "README.md", repo_type=repo_type, revision=revision)
        data = RepoCard(text, ignore_metadata_errors=True).data if text else None
    else:
        data = _repo_info(Repo(repo_id, repo_type, revision)).card_data
    licence = data.get("license") if data else None
    return ", ".join(licence) if isinstance(licence, list) else licence


def file_hashes(repo_id: str, paths: list[str], *, revision: str | None) -> list[dict[str, Any]]:
    """Path, bytes and content hash of files of a dataset, in the order of `paths`, without a download.

    Returns:
        `sha256` is the content's for large files, and null for small ones, which have git's `blob_id`.
        With HF_HUB_OFFLINE set there is nobody to ask: bytes and hashes are null, and the commit alone vouches.
    Raises:
        HubError: the repo or revision cannot be read.
    """
    from huggingface_hub import HfApi, is_offline_mode

    if is_offline_mode():
        return [{"path": path, "bytes": None, "sha256": None} for path in paths]
    infos: dict[str, Any] = {}
    with explained(Repo(repo_id, "dataset", revision)):
        for start in range(0, len(paths), PATHS_ASKED):
            asked = paths[start : start + PATHS_ASKED]
            found = HfApi().get_paths_info(repo_id, asked, revision=revision, repo_type="dataset")
            infos |= {info.path: info for info in found}
    return [
        {"path": path, "bytes": infos[path].size}
        | ({"sha256": infos[path].lfs.sha256} if infos[path].lfs else {"sha256": None, "blob_id": infos[path].blob_id})
        for path in paths
    ]


# Acting


def prove_write(
    repo_id: str, *, private: bool | None = None, revision: str | None = None, repo_type: RepoType = "model"
) -> str:
    """Make the repo (and the branch) that a run will push to, and prove by a dry commit that it may.

    Called just before step 0, so that a refusal does not wait for the end of the training. The dry commit asks how a
    file would be uploaded, for which the Hub wants write access, and stops there.

    Args:
        private: as in transformers: only for a new repo; True refuses a repo that exists and is public.
        revision: branch to push to; made from main when missing.
    Returns:
        the full repo id, with the user's namespace when `repo_id` has none.
    Raises:
        HubError: the Hub cannot be reached or would refuse the push.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    repo = Repo(repo_id, repo_type, revision)
    raise_any(obstacles(repo) + push_obstacles(repo))
    with explained(repo):
        api = HfApi()
        full_id = _ensure_repo(api, repo, private)
        dry = CommitOperationAdd(DRY_FILE, b"# dry commit\n")
        api.preupload_lfs_files(full_id, additions=[dry], repo_type=repo_type, revision=revision)
    return full_id


def push_folder(
    folder: Path | str,
    repo_id: str,
    *,
    revision: str | None = None,
    private: bool | None = None,
    commit_message: str = "Upload folder",
    ignore_patterns: list[str] | None = None,
    attempts: int = 5,
    first_wait_seconds: float = 5.0,
    resume_command: str | None = None,
    repo_type: RepoType = "model",
) -> str:
    """Upload a folder, try again through an outage, and compare what the Hub then holds with the folder.

    Retried: 5xx, lost connections and rate limits, in any phase (huggingface_hub itself retries uploads for some 20 s,
    but not the creation or the commit). Waits between attempts: first_wait_seconds x 1, 3, 9, 27 ... Content that has
    arrived is not sent again. Files that are only at the Hub stay there.

    Args:
        ignore_patterns: globs of paths to leave out; .git and the download cache are always left out.
        attempts: whole pushes to try before giving up.
        resume_command: what the user runs to push again; shown in the error's mend.
    Returns:
        URL of the commit.
    Raises:
        HubError: the push failed, or arrived incomplete. The folder is left as it is.
    """
    folder, repo = Path(folder), Repo(repo_id, repo_type, revision)
    again = f"run  {resume_command}" if resume_command else "push the folder again"
    for attempt in range(1, attempts + 1):
        try:
            url, differences = _push_once(folder, repo, private, commit_message, ignore_patterns or [])
            break
        except (http_error(), RuntimeError, ValueError, OSError) as error:
            if isinstance(error, HubError) or attempt == attempts or not _may_pass(error):
                raise _push_failed(error, repo, folder, attempt, again) from error
            wait = first_wait_seconds * 3 ** (attempt - 1)
            log.warning("Push to %s interrupted (%s); again in %.0f s.", repo.id, reason(root(error)), wait)
            time.sleep(wait)
    if differences:
        shown = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
        what = f"The push to {repo} arrived incomplete: {shown}. Everything is kept in {folder}."
        raise HubError(Problem("hub-push-incomplete", str(folder), what, f"To send what is lacking, {again}."))
    return url


def _push_once(
    folder: Path, repo: Repo, private: bool | None, commit_message: str, ignore_patterns: list[str]
) -> tuple[str, list[str]]:
    """The commit's URL, and in what the commit differs from the folder."""
    from huggingface_hub import HfApi

    raise_any(obstacles(repo) + push_obstacles(repo))
    api = HfApi()
    full_id = _ensure_repo(api, repo, private)
    commit = api.upload_folder(
        repo_id=full_id,
        folder_path=folder,
        repo_type=repo.type,
        revision=repo.revision,
        commit_message=commit_message,
        ignore_patterns=list(ignore_patterns),  # a copy: upload_folder extends it
    )
    return str(commit.commit_url), _differences(api, full_id, commit.oid, repo, folder, ignore_patterns)


def _ensure_repo(api: "HfApi", repo: Repo, private: bool | None) -> str:
    """The full id of a repo and branch that now exist; refused when weights meant to be private would be public."""
    full_id: str = api.create_repo(repo.id, repo_type=repo.type, private=private, exist_ok=True).repo_id
    if private and not api.repo_info(full_id, repo_type=repo.type).private:
        raise HubError(public_instead(repo))
    if repo.revision not in (None, "main") and not repo.revision.startswith("refs/"):
        api.create_branch(full_id, branch=repo.revision, repo_type=repo.type, exist_ok=True)
    return full_id


def _differences(
    api: "HfApi", repo_id: str, commit: str, repo: Repo, folder: Path, ignore_patterns: list[str]
) -> list[str]:
    """What of the folder the commit does not hold, byte for byte, by the hashes the Hub computed."""
    from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects  # type: ignore[attr-defined]

    remote: dict[str, Any] = {
        entry.path: entry
        for entry in api.list_repo_tree(repo_id, recursive=True, revision=commit, repo_type=repo.type)
        if hasattr(entry, "blob_id")  # folders have none
    }
    local = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    differences = []
    for name in filter_repo_objects(local, ignore_patterns=[*ignore_patterns, *DEFAULT_IGNORE_PATTERNS]):
        entry = remote.get(name)
        if entry is None:
            differences.append(f"{name} is not at the Hub")
        elif entry.size != (size := local[name].stat().st_size):
            differences.append(f"{name} has {entry.size} bytes at the Hub, {size} here")
        elif _remote_hash(entry) != _local_hash(local[name], lfs=entry.lfs is not None):
            differences.append(f"{name} has another content at the Hub")
    return differences


def _remote_hash(entry: Any) -> str:
    return str(entry.lfs.sha256 if entry.lfs else entry.blob_id)


def _local_hash(path: Path, *, lfs: bool) -> str:
    """sha256 of the content for LFS files, git's blob id for the others, as the Hub lists them."""
    if lfs:
        return file_sha256(path)
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _may_pass(error: BaseException) -> bool:
    """Whether the same push may succeed later."""
    from huggingface_hub.errors import HfHubHTTPError

    cause = root(error)
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        return status >= 500 or status in PASSING_STATUS
    return isinstance(cause, (*lost_connection(), json.JSONDecodeError, RuntimeError))  # RuntimeError: hf_xet's own


def _push_failed(error: BaseException, repo: Repo, folder: Path, attempts: int, again: str) -> HubError:
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    what = f"The push to {repo} failed after {times}. Nothing is lost: everything is kept in {folder}."
    mend = f"When the cause below is mended, {again}; what has arrived is not sent again."
    causes = error.problems if isinstance(error, HubError) else [explain(root(error), repo)]
    return HubError([Problem("hub-push-failed", str(folder), what, mend), *causes])


# Requests


def _get(path_or_url: str) -> Any:
    """One GET with the user's token and a short timeout, no retry; the client's response, or its exception."""
    from huggingface_hub import constants, get_session, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = path_or_url if "://" in path_or_url else f"{constants.ENDPOINT}{path_or_url}"
    response = get_session().get(url, headers=build_hf_headers(), timeout=_quick_seconds())
    hf_raise_for_status(response)
    return response


def _repo_info(repo: Repo) -> Any:
    """Metadata at the repo's revision, under the client's own timeout; HubError otherwise."""
    from huggingface_hub import HfApi, constants

    raise_any(obstacles(repo))
    with explained(repo):
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        return HfApi().repo_info(repo.id, repo_type=repo.type, revision=repo.revision, timeout=timeout)


def _quick_seconds() -> float:
    from huggingface_hub import constants

    return constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else QUICK_SECONDS


def _write_problems(repo: Repo, private: bool | None) -> list[Problem]:
    """The Hub's own verdict where the repo exists; where it does not, what the token may create."""
    from huggingface_hub.errors import HfHubHTTPError

    identity = _get("/api/whoami-v2").json()
    repo_id = repo.id if "/" in repo.id else f"{identity['name']}/{repo.id}"
    full = Repo(repo_id, repo.type, where=repo.where)
    try:
        _get(f"{full.api_path}/auth-check/write")
    except HfHubHTTPError as error:
        if error.response.status_code not in (403, 404):
            raise
        reasons = _lacking_rights(identity, full)
        return reasons if error.response.status_code == 404 else reasons or [explain(error, full)]
    if private and not _get(full.api_path).json().get("private"):
        return [public_instead(full)]
    return []


def _lacking_rights(identity: dict[str, Any], repo: Repo) -> list[Problem]:
    """Rights that the token lacks to create or write the repo, as far as /whoami-v2 tells."""
    namespace = repo.id.split("/")[0]
    writable = [org["name"] for org in identity.get("orgs", []) if org.get("roleInOrg") != "read"]
    mine = [identity["name"], *writable]
    if namespace not in mine:
        what = (
            f"{repo.id!r} is under {namespace!r}, where {identity['name']!r}, to whom the token belongs, cannot write."
        )
        return [Problem("hub-namespace", repo.where, what, f"write a namespace of yours: {', '.join(mine)}.")]
    token = identity.get("auth", {}).get("accessToken", {})  # absent for OAuth: the proof before step 0 decides
    granted = [
        permission
        for scope in token.get("fineGrained", {}).get("scoped", [])
        if scope.get("entity", {}).get("name") in (namespace, repo.id)
        for permission in scope.get("permissions", [])
    ]
    if token.get("role") == "read" or (token.get("role") == "fineGrained" and "repo.write" not in granted):
        kind = "read-only" if token["role"] == "read" else f"fine-grained without write access to {namespace}"
        what = f"A push to {repo} needs write access; the token is {kind}."
        mend = "make a token with write access at https://huggingface.co/settings/tokens and set HF_TOKEN to it."
        return [Problem("hub-token-read-only", repo.where, what, mend)]
    return []
