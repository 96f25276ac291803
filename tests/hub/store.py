"""What the test Hub remembers: tokens, repos, commits and blobs.

Metadata is kept in memory, blobs on disk by their sha256. Nothing here knows about HTTP; a request that the real
Hub would refuse raises `Refusal`, which the server turns into status and headers.
"""

import base64
import hashlib
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".parquet", ".arrow", ".gguf", ".zip", ".gz", ".model", ".npy")
LFS_BYTES = 10_000_000  # larger files go by LFS whatever their name
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()


class Refusal(Exception):
    """An answer of 4xx, with the headers from which huggingface_hub chooses its exception."""

    def __init__(self, status: int, code: str = "", message: str = "", commit: str = "") -> None:
        super().__init__(message or code)
        self.status, self.code, self.message, self.commit = status, code, message, commit

    @property
    def headers(self) -> dict[str, str]:
        named = {"X-Error-Code": self.code, "X-Error-Message": self.message, "X-Repo-Commit": self.commit}
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True)
class Token:
    """role: "read" | "write" | "fineGrained"; scopes: namespace or repo -> permissions, for fine-grained tokens."""

    user: str
    role: str
    expired: bool = False
    scopes: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Blob:
    sha256: str
    size: int
    git_sha1: str
    lfs: bool

    @property
    def oid(self) -> str:
        """What preupload and ETag name: sha256 of LFS content, git's blob sha1 of anything else."""
        return self.sha256 if self.lfs else self.git_sha1


@dataclass(frozen=True)
class Commit:
    sha: str
    title: str
    message: str
    author: str
    date: str
    parent: "Commit | None"
    files: dict[str, Blob]


@dataclass
class Repo:
    kind: str  # "models" | "datasets" | "spaces", as in the routes
    id: str
    private: bool = False
    gated: bool = False
    may_read_gated: set[str] = field(default_factory=set)
    refs: dict[str, str] = field(default_factory=dict)  # refs/heads/main, refs/tags/v1, refs/pr/1 -> sha
    commits: dict[str, Commit] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)  # sha256 of what was uploaded to this repo, committed or not

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    @property
    def url_path(self) -> str:
        return self.id if self.kind == "models" else f"{self.kind}/{self.id}"

    def at(self, revision: str) -> Commit:
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if name in self.refs:
                return self.commits[self.refs[name]]
        if revision in self.commits:
            return self.commits[revision]
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def metadata(self) -> Commit:
        return self.commits[self.refs["refs/heads/main"]]


class Store:
    """Users alice (also of the org acme) and bob; `tokens` maps the token's value to what it may do."""

    def __init__(self, root: Path) -> None:
        self.blob_folder = root / "blobs"
        self.blob_folder.mkdir(parents=True, exist_ok=True)
        self.orgs = {"alice": {"acme": "write"}, "bob": {}}
        self.tokens = {
            "hf_AliceWriteToken": Token("alice", "write"),
            "hf_AliceReadToken": Token("alice", "read"),
            "hf_AliceExpiredToken": Token("alice", "write", expired=True),
            "hf_AliceFineToken": Token("alice", "fineGrained", scopes={"alice": ["repo.content.read", "repo.write"]}),
            "hf_BobWriteToken": Token("bob", "write"),
        }
        self.repos: dict[tuple[str, str], Repo] = {}
        self._serial = itertools.count()

    # Rights

    def may_read(self, repo: Repo, token: Token | None) -> bool:
        return not repo.private or (token is not None and self._belongs(repo.namespace, token.user))

    def may_write(self, namespace: str, repo_id: str, token: Token | None) -> bool:
        if token is None or token.role == "read" or not self._belongs(namespace, token.user):
            return False
        granted = token.scopes.get(namespace, []) + token.scopes.get(repo_id, [])
        return token.role == "write" or "repo.write" in granted

    def _belongs(self, namespace: str, user: str) -> bool:
        return namespace == user or namespace in self.orgs[user]

    def repo(self, kind: str, repo_id: str, token: Token | None) -> Repo:
        """The repo, or the refusal by which the Hub hides private ones: 401 to the anonymous, else 404."""
        repo = self.repos.get((kind, repo_id))
        if repo is None or not self.may_read(repo, token):
            raise Refusal(401 if token is None else 404, "RepoNotFound", "Repository not found")
        return repo

    def check_content(self, repo: Repo, token: Token | None) -> None:
        """Gated repos show their metadata to everybody and their files to nobody who did not ask."""
        if repo.gated and (token is None or token.user not in {repo.namespace, *repo.may_read_gated}):
            message = f"Access to model {repo.id} is restricted and you are not in the authorized list."
            raise Refusal(401 if token is None else 403, "GatedRepo", message)

    def check_writable(self, repo: Repo, token: Token | None) -> None:
        if not self.may_write(repo.namespace, repo.id, token):
            raise Refusal(403, message=f"You don't have write access to {repo.id} with this token.")

    # Content

    def add_blob(self, data: bytes, *, lfs: bool) -> Blob:
        digest = hashlib.sha256(data).hexdigest()
        (self.blob_folder / digest).write_bytes(data)
        git_sha1 = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return Blob(digest, len(data), git_sha1, lfs)

    def lfs_blob(self, sha256: str) -> Blob:
        size = (self.blob_folder / sha256).stat().st_size
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (sha256.encode(), size)
        return Blob(sha256, size, hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest(), lfs=True)

    def blob_path(self, blob: Blob) -> Path:
        return self.blob_folder / blob.sha256

    def create(self, kind: str, repo_id: str, *, private: bool, author: str) -> Repo:
        repo = self.repos[kind, repo_id] = Repo(kind, repo_id, private=private)
        files = {".gitattributes": self.add_blob(GITATTRIBUTES, lfs=False)}
        self.commit(repo, "refs/heads/main", files, "initial commit", "", author)
        return repo

    def commit(self, repo: Repo, ref: str, files: dict[str, Blob], title: str, message: str, author: str) -> Commit:
        parent = repo.commits.get(repo.refs.get(ref, ""))
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        sha = hashlib.sha1(f"{repo.id} {ref} {title} {next(self._serial)}".encode()).hexdigest()
        commit = repo.commits[sha] = Commit(sha, title, message, author, date, parent, files)
        repo.refs[ref] = sha
        return commit


def goes_by_lfs(path: str, sample: bytes, size: int) -> bool:
    return path.endswith(LFS_SUFFIXES) or size > LFS_BYTES or b"\0" in sample


def apply_operations(store: Store, repo: Repo, files: dict[str, Blob], lines: list[dict[str, Any]]) -> dict[str, Blob]:
    """The files after the operations of a commit's ndjson body."""
    files = dict(files)
    for line in lines:
        value = line["value"]
        match line["key"]:
            case "file":
                files[value["path"]] = store.add_blob(base64.b64decode(value["content"]), lfs=False)
            case "lfsFile":
                if value["oid"] not in repo.lfs:
                    raise Refusal(400, message=f"LFS pointer of {value['path']} points to a file that does not exist")
                files[value["path"]] = store.lfs_blob(value["oid"])
            case "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refusal(404, "EntryNotFound", "A file with this name doesn't exist")
            case "deletedFolder":
                prefix = value["path"].rstrip("/") + "/"
                files = {path: blob for path, blob in files.items() if not path.startswith(prefix)}
    return files
