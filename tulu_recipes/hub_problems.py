"""Problems with the Hub, in words: what was refused or lost, where the user asked for it, how to mend it.

Everything that huggingface_hub raises passes through `explain`, and no text that leaves here holds a token.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from tulu_recipes.errors import HubError, Problem

RepoType = Literal["model", "dataset"]


@dataclass(frozen=True)
class Repo:
    """What is asked about, and where the user wrote it."""

    id: str
    type: RepoType = "model"
    revision: str | None = None
    where: str = ""

    def __str__(self) -> str:
        at = f" at revision {self.revision}" if self.revision else ""
        return f"the {self.type} {self.id!r}{at}"

    @property
    def url(self) -> str:
        return f"{shown_endpoint()}/{'datasets/' if self.type == 'dataset' else ''}{self.id}"

    @property
    def api_path(self) -> str:
        return f"/api/{self.type}s/{self.id}"


def obstacles(repo: Repo) -> list[Problem]:
    """What makes any request pointless, seen before one is sent."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo.id)
    except HFValidationError as error:
        what = f"{repo.id!r} is no local path and cannot be the name of a Hub repo: {error}"
        return [Problem("hub-repo-name", repo.where, what, "write namespace/name, or a path that exists.")]
    if urlsplit(constants.ENDPOINT).scheme not in ("http", "https"):
        what = f"HF_ENDPOINT is {shown_endpoint()!r}, which is not a web address."
        return [Problem("hub-endpoint", repo.where, what, "write it with its scheme, e.g. https://huggingface.co")]
    token = get_token()
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        # Sent, it would be quoted in full in the HTTP library's complaint.
        what = "The Hugging Face token holds a character that no token has (a space, a control or a non-ASCII one)."
        return [Problem("hub-token-malformed", repo.where, what, "copy it again into HF_TOKEN or `hf auth login`.")]
    return []


def push_obstacles(repo: Repo) -> list[Problem]:
    from huggingface_hub import get_token, is_offline_mode

    if is_offline_mode():
        what = f"HF_HUB_OFFLINE is set, so nothing can be pushed to {repo}."
        return [Problem("hub-offline-push", repo.where, what, "unset HF_HUB_OFFLINE, or set push_to_hub: false.")]
    if get_token() is None:
        what = f"A push to {repo} needs a token, and there is none."
        mend = "set HF_TOKEN to a token with write access, or run `hf auth login`."
        return [Problem("hub-token-missing", repo.where, what, mend)]
    return []


def offline_problems(repo: Repo) -> list[Problem]:
    if cached_commit(repo) is not None:
        return []
    from huggingface_hub import constants

    what = f"HF_HUB_OFFLINE is set and {repo} is not in the local cache ({constants.HF_HUB_CACHE})."
    mend = f"download it where there is a network (hf download {repo.id}), or unset HF_HUB_OFFLINE."
    return [Problem("hub-offline", repo.where, what, mend)]


def public_instead(repo: Repo) -> Problem:
    what = f"A private repo was asked for, but {repo} exists and is public: everybody would see what is pushed."
    mend = f"make it private at {repo.url}/settings, push under another name, or do not ask for a private repo."
    return Problem("hub-repo-public", repo.where, what, mend)


@contextmanager
def explained(repo: Repo) -> Iterator[None]:
    """Turn what the client raises about the Hub into a HubError. JSONDecodeError: something else answered."""
    try:
        yield
    except (http_error(), json.JSONDecodeError) as error:
        raise HubError(explain(error, repo)) from error


def explain(error: BaseException, repo: Repo) -> Problem:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if not isinstance(error, HfHubHTTPError):
        return _explain_unanswered(error, repo)
    status, sent_token = error.response.status_code, "authorization" in error.response.request.headers
    if isinstance(error, GatedRepoError):
        who = "this token is not admitted" if sent_token else "there is no token"
        mend = f"ask for access at {repo.url}" + ("." if sent_token else " and set HF_TOKEN, or run `hf auth login`.")
        return Problem("hub-gated", repo.where, f"{_capital(repo)} is gated and {who}.", mend)
    if isinstance(error, RevisionNotFoundError):
        mend = f"choose one of {repo.url}/tree/main, or leave the revision out."
        return Problem("hub-revision-not-found", repo.where, f"{_capital(repo)}: no such branch, tag or commit.", mend)
    if status == 401 and sent_token:
        old = "has expired" if "expired" in str(error).lower() else "is not valid"
        mend = "make a new one at https://huggingface.co/settings/tokens and set HF_TOKEN to it, or `hf auth login`."
        return Problem("hub-token-refused", repo.where, f"{shown_endpoint()} refuses the token: it {old}.", mend)
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        hidden = "this token may not see it" if sent_token else "there is no token that may see it"
        what = f"{_capital(repo)} does not exist at {shown_endpoint()}, or it is private and {hidden}."
        mend = (
            "check the name (it is no local path either); for a private repo set HF_TOKEN to a token that may read it."
        )
        return Problem("hub-repo-not-found", repo.where, what, mend)
    if status == 403:
        what = f"The Hub refuses write access to {repo}: {reason(error)}."
        mend = "use a token whose user may write there, or push under a namespace of yours."
        return Problem("hub-write-refused", repo.where, what, mend)
    what = f"{shown_endpoint()} answered {status} when asked for {repo}: {reason(error)}."
    return Problem("hub-answer", repo.where, what, "try again later; https://status.huggingface.co tells of outages.")


def _explain_unanswered(error: BaseException, repo: Repo) -> Problem:
    """No answer of the Hub: no connection, another server, or a folder that cannot be pushed."""
    endpoint = shown_endpoint()
    if isinstance(error, json.JSONDecodeError):
        mend = "check HF_ENDPOINT; behind a login page or proxy, log in first."
        return Problem("hub-not-a-hub", repo.where, f"What answers at {endpoint} is not a Hugging Face Hub.", mend)
    if isinstance(error, lost_connection()):
        what = f"The Hub at {endpoint} (HF_ENDPOINT) cannot be reached: {reason(error)}."
        mend = (
            "check the network and HF_ENDPOINT; on a slow line raise HF_HUB_ETAG_TIMEOUT (seconds); without a network "
            "set HF_HUB_OFFLINE=1 and use what is cached."
        )
        return Problem("hub-unreachable", repo.where, what, mend)
    return Problem(
        "hub-push-stopped",
        repo.where,
        f"The client stopped: {reason(error)}.",
        "mend what this names, then push again.",
    )


def root(error: BaseException) -> BaseException:
    """The Hub's answer or the lost connection under the client's wrappers; the error itself when there is none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (*lost_connection(), json.JSONDecodeError)):
            return cause
        cause = cause.__cause__
    return error


def lost_connection() -> tuple[type[Exception], ...]:
    return (http_error(), ConnectionError, TimeoutError)


def reason(error: BaseException) -> str:
    """The error in one line, without the token's value, should a server or a library have quoted it."""
    from huggingface_hub import get_token

    said = getattr(error, "server_message", None) or str(error)
    token = get_token()
    said = said.replace(token, "hf_***") if token else said
    return f"{type(error).__name__}: {' '.join(said.split())[:300]}".rstrip(".: ")


def shown_endpoint() -> str:
    """HF_ENDPOINT without a user name and password."""
    from huggingface_hub import constants

    scheme, separator, rest = constants.ENDPOINT.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _capital(repo: Repo) -> str:
    return f"T{str(repo)[1:]}"


def raise_any(problems: list[Problem]) -> None:
    if problems:
        raise HubError(problems)


def http_error() -> type[Exception]:
    """The base of what the client's HTTP library raises: httpx under huggingface_hub 1, httpx2 under 2."""
    from huggingface_hub.errors import HfHubHTTPError

    base: type[Exception] = HfHubHTTPError.__bases__[0]
    return base


def cached_commit(repo: Repo) -> str | None:
    """The commit of the repo's revision that lies in the local cache.

    Downloads by commit leave no note of the branch: where the cache holds one commit alone, it is taken for main.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo.id, repo_type=repo.type)
    revision = repo.revision or "main"
    ref = folder / "refs" / revision
    commit = ref.read_text().strip() if ref.is_file() else revision
    if (folder / "snapshots" / commit).is_dir():
        return commit
    there = [path.name for path in (folder / "snapshots").glob("*")]
    return there[0] if revision == "main" and not ref.is_file() and len(there) == 1 else None
