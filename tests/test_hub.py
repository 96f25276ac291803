"""tulu_recipes.hub against the test Hub, through the real huggingface_hub client.

Calls run in a subprocess (HF_ENDPOINT is read at import); several share one, as its start costs most of a second.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.fixtures import RunningHub

RUNNER = """
    import json, os, time
    from tulu_recipes import hub
    from tulu_recipes.errors import HubError
    result = []
    for name, args, options in json.loads(os.environ["CALLS"]):
        started, value, problems, text = time.monotonic(), None, [], ""
        try:
            value = getattr(hub, name)(*args, **options)
        except HubError as error:
            problems, text = error.problems, str(error)
        if name.startswith("check_"):
            value, problems = None, value
            text = "\\n".join(problem.render() for problem in problems)
        slugs = [problem.slug for problem in problems]
        result.append({"value": value, "slugs": slugs, "text": text, "seconds": time.monotonic() - started})
"""

Call = tuple[str, list[Any], dict[str, Any]]


def call(name: str, *args: object, **options: object) -> Call:
    return name, [str(a) if isinstance(a, Path) else a for a in args], options


def ask(hub: RunningHub, *calls: Call, token: str | None = "write", **env: str) -> list[dict[str, Any]]:
    import json

    answers: list[dict[str, Any]] = hub.run(RUNNER, env=hub.env(token, CALLS=json.dumps(calls), **env))
    return answers


def ask_one(hub: RunningHub, one: Call, token: str | None = "write", **env: str) -> dict[str, Any]:
    return ask(hub, one, token=token, **env)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small trained model as far as the Hub can tell: text, LFS, a nested file, an empty one and one to ignore."""
    content = {
        "README.md": b"---\nlicense: apache-2.0\n---\n# m\n",
        "config.json": b'{"model_type": "llama"}',
        "model.safetensors": bytes(range(256)) * 4096,
        "plots/loss.png": b"\x89PNG\0\0",
        "empty.txt": b"",
        "optimizer.pt": b"\0" * 100,
        "name with space & ü.txt": b"x",
    }
    for name, data in content.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(data)
    return tmp_path / "out"


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_import_is_light() -> None:
    code = (
        "import sys, tulu_recipes.hub; print([m for m in ('huggingface_hub', 'httpx', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Reading


@pytest.mark.integration
def test_text_revision_and_licence_of_readable_repos(hub: RunningHub, tmp_path: Path) -> None:
    card = "---\nlicense: {}\n---\n"
    sha = hub.add_repo(
        "model", "acme/m", {"config.json": '{"ü": 1}', "README.md": card.format("llama3.1")}, private=True, tags=["v1"]
    )
    rows = hub.add_repo("dataset", "acme/rows", {"README.md": card.format("[mit, cc-by-4.0]")}, branches=["a/b"])
    hub.add_repo("model", "acme/bare", {})
    (tmp_path / "README.md").write_text(card.format("mit"))
    hub.add_repo("model", "meta/gated", {"README.md": card.format("llama3.1")}, gated=True)
    answers = ask(
        hub,
        call("read_text", "acme/m", "config.json"),
        call("read_text", "acme/m", "config.json", revision=sha),
        call("read_text", "acme/m", "chat_template.jinja", revision="v1"),
        call("read_text", "acme/rows", "README.md", repo_type="dataset", revision="a/b"),
        call("read_text", tmp_path, "README.md"),
        call("read_text", tmp_path, "config.json"),
        call("resolve_revision", "acme/m", revision="v1"),
        call("resolve_revision", "acme/rows", repo_type="dataset", revision="a/b"),
        call("resolve_revision", tmp_path),
        call("licence_of", "acme/m"),
        call("licence_of", "acme/rows", repo_type="dataset"),
        call("licence_of", "acme/bare"),
        call("licence_of", "meta/gated"),
        call("licence_of", tmp_path),
        HF_HOME=str(tmp_path / "home"),
    )
    assert [answer["value"] for answer in answers] == [
        *('{"ü": 1}', '{"ü": 1}', None, card.format("[mit, cc-by-4.0]"), card.format("mit"), None),
        *(sha, rows, None),
        *("llama3.1", "mit, cc-by-4.0", None, "llama3.1", "mit"),
    ]
    assert not list((tmp_path / "home").rglob("config.json"))  # nothing goes to the cache


@pytest.mark.integration
def test_readable_repos_have_no_problem_and_others_say_why(hub: RunningHub, tmp_path: Path) -> None:
    hub.add_repo("model", "acme/m", {"a": "1"}, private=True, tags=["v1"])
    hub.add_repo("dataset", "bob/rows", {"a": "1"}, private=True)
    hub.add_repo("model", "meta/gated", {"a": "1"}, gated=True)
    fine, dataset, gated, revision, name, local = ask(
        hub,
        call("check_readable", "acme/m", repo_type="model", revision="v1", where="r.yaml line 3"),
        call("check_readable", "bob/rows", repo_type="dataset", revision=None, where="r.yaml line 4"),
        call("check_readable", "meta/gated", repo_type="model", revision=None, where="r.yaml line 3"),
        call("check_readable", "acme/m", repo_type="model", revision="v9", where="r.yaml line 3"),
        call("check_readable", "out/a/b", repo_type="model", revision=None, where="r.yaml line 3"),
        call("check_readable", tmp_path, repo_type="model", revision=None, where="r.yaml line 3"),
    )
    assert fine["slugs"] == local["slugs"] == []
    assert dataset["text"] == (
        f"hub-repo-not-found  r.yaml line 4\n    The dataset 'bob/rows' does not exist at {hub.endpoint}, or it is "
        "private and this token may not see it.\n    Mend: check the name (it is no local path either); for a private "
        "repo set HF_TOKEN to a token that may read it."
    )
    assert gated["slugs"] == ["hub-gated"]
    assert "is gated and this token is not admitted" in gated["text"]
    assert f"ask for access at {hub.endpoint}/meta/gated." in gated["text"]
    assert revision["slugs"] == ["hub-revision-not-found"]
    assert "The model 'acme/m' at revision v9: no such branch, tag or commit." in revision["text"]
    assert name["slugs"] == ["hub-repo-name"]
    assert "namespace/name, or a path that exists" in name["text"]
    assert all(answer["seconds"] < 3 for answer in (dataset, gated, revision, name))


@pytest.mark.integration
def test_without_a_token_private_and_gated_repos_ask_for_one(hub: RunningHub) -> None:
    hub.add_repo("model", "acme/m", {"a": "1"}, private=True)
    hub.add_repo("model", "meta/gated", {"a": "1"}, gated=True)
    private, gated, write, prove, text = ask(
        hub,
        call("check_readable", "acme/m"),
        call("check_readable", "meta/gated"),
        call("check_writable", "alice/new", where="hub_model_id"),
        call("prove_write", "alice/new"),
        call("read_text", "acme/m", "config.json"),
        token=None,
    )
    assert private["slugs"] == text["slugs"] == ["hub-repo-not-found"]
    assert "there is no token that may see it" in private["text"]
    assert gated["slugs"] == ["hub-gated"]
    assert "there is no token" in gated["text"]
    assert write["slugs"] == prove["slugs"] == ["hub-token-missing"]
    assert "set HF_TOKEN to a token with write access" in write["text"]


@pytest.mark.integration
@pytest.mark.parametrize(("token", "said"), [("wrong", "is not valid"), ("expired", "has expired")])
def test_a_refused_token_is_named_as_such_and_never_shown(
    hub: RunningHub, folder: Path, token: str, said: str
) -> None:
    hub.add_repo("model", "acme/open", {"a": "1"})
    answers = ask(
        hub,
        call("check_readable", "acme/open"),
        call("check_writable", "alice/m"),
        call("read_text", "acme/open", "a"),
        call("resolve_revision", "acme/open"),
        call("prove_write", "alice/m"),
        call("push_folder", folder, "alice/m"),
        token=token,
    )
    for answer in answers:
        assert answer["slugs"][-1] == "hub-token-refused"
        assert said in answer["text"]
        assert hub.tokens[token] not in answer["text"]
        assert answer["seconds"] < 3  # a 401 is final: no attempt follows


@pytest.mark.integration
def test_a_malformed_token_is_not_sent_and_not_quoted(hub: RunningHub) -> None:
    hub.add_repo("model", "acme/open", {"a": "1"})
    for token in ("hf_Alice WriteToken", "hf_Alice\x01Token", "hf_Alicé"):
        answer = ask_one(hub, call("check_readable", "acme/open", where="x"), token=token)
        assert answer["slugs"] == ["hub-token-malformed"]
        assert "copy it again into HF_TOKEN" in answer["text"]
        assert "Alic" not in answer["text"]


@pytest.mark.integration
def test_a_token_quoted_by_the_server_is_struck_out(hub: RunningHub, folder: Path) -> None:
    hub.quote_token = True
    write = ask_one(hub, call("push_folder", folder, "bob/m"))
    assert write["slugs"] == ["hub-push-failed", "hub-write-refused"]
    assert "token hf_***" in write["text"]
    assert hub.tokens["write"] not in write["text"]


@pytest.mark.integration
def test_offline_asks_the_cache_alone(hub: RunningHub, tmp_path: Path) -> None:
    sha = hub.add_repo("model", "acme/m", {"config.json": "{}", "README.md": "---\nlicense: mit\n---\n"})
    home = {"HF_HOME": str(tmp_path)}
    hub.run("from huggingface_hub import snapshot_download\nresult = snapshot_download('acme/m')", env=hub.env(**home))
    hub.requests.clear()
    cached, absent, text, none, commit, unknown, licence, write, push = ask(
        hub,
        call("check_readable", "acme/m"),
        call("check_readable", "acme/other", where="r.yaml line 3"),
        call("read_text", "acme/m", "config.json"),
        call("read_text", "acme/m", "none.json"),
        call("resolve_revision", "acme/m"),
        call("resolve_revision", "acme/m", revision="v1"),
        call("licence_of", "acme/m"),
        call("check_writable", "alice/m"),
        call("push_folder", tmp_path, "alice/m"),
        HF_HUB_OFFLINE="1",
        **home,
    )
    assert cached["slugs"] == []
    assert absent["slugs"] == unknown["slugs"] == ["hub-offline"]
    assert f"is not in the local cache ({tmp_path}/hub)" in absent["text"]
    assert "unset HF_HUB_OFFLINE" in absent["text"]
    assert (text["value"], none["value"], commit["value"], licence["value"]) == ("{}", None, sha, "mit")
    assert write["slugs"] == ["hub-offline-push"]
    assert "unset HF_HUB_OFFLINE, or set push_to_hub: false" in write["text"]
    assert push["slugs"] == ["hub-push-failed", "hub-offline-push"]
    assert hub.requests == []


@pytest.mark.integration
def test_an_unreachable_hub_is_answered_in_under_three_seconds(
    hub: RunningHub, closed_port: int, silent_port: int
) -> None:
    calls = (
        call("check_readable", "acme/m", where="x"),
        call("check_writable", "alice/m"),
        call("read_text", "a/m", "f"),
    )
    for port in (closed_port, silent_port):
        endpoint = f"http://127.0.0.1:{port}"
        for answer in ask(hub, *calls, HF_ENDPOINT=endpoint.replace("//", "//user:secret@")):
            assert answer["slugs"] == ["hub-unreachable"]
            assert f"The Hub at {endpoint} (HF_ENDPOINT) cannot be reached" in answer["text"]
            assert "check the network and HF_ENDPOINT" in answer["text"]
            assert "secret" not in answer["text"]
            assert answer["seconds"] < 3


@pytest.mark.integration
def test_what_is_not_a_hub_or_is_in_trouble_says_so(hub: RunningHub) -> None:
    hub.add_repo("model", "acme/m", {"a": "1"})
    malformed = ask_one(hub, call("check_readable", "acme/m"), HF_ENDPOINT="localhost:8080")
    assert malformed["slugs"] == ["hub-endpoint"]
    assert "write it with its scheme" in malformed["text"]
    hub.fail_next("/api/models/acme/m", status=200)  # a login page answers
    hub.fail_next("/api/models/acme/m", status=500)
    page, trouble = ask(hub, call("check_readable", "acme/m"), call("check_readable", "acme/m"))
    assert page["slugs"] == ["hub-not-a-hub"]
    assert "behind a login page or proxy, log in first" in page["text"]
    assert trouble["slugs"] == ["hub-answer"]
    assert "answered 500" in trouble["text"]
    assert "status.huggingface.co" in trouble["text"]


# Rights to write


@pytest.mark.integration
def test_who_may_push_is_told_without_changing_anything(hub: RunningHub) -> None:
    hub.add_repo("model", "alice/mine", {"a": "1"})
    hub.add_repo("model", "bob/theirs", {"a": "1"})
    new, short, org, mine, mine_private, theirs, nowhere, bad = ask(
        hub,
        call("check_writable", "alice/new"),
        call("check_writable", "new"),
        call("check_writable", "acme/new"),
        call("check_writable", "alice/mine"),
        call("check_writable", "alice/mine", private=True, where="r.yaml line 9"),
        call("check_writable", "bob/theirs", where="r.yaml line 8"),
        call("check_writable", "nobody/new"),
        call("check_writable", "alice/new model"),
    )
    assert new["slugs"] == short["slugs"] == org["slugs"] == mine["slugs"] == []
    assert mine_private["slugs"] == ["hub-repo-public"]
    assert f"make it private at {hub.endpoint}/alice/mine/settings" in mine_private["text"]
    assert theirs["slugs"] == nowhere["slugs"] == ["hub-namespace"]
    assert "write a namespace of yours: alice, acme." in theirs["text"]
    assert bad["slugs"] == ["hub-repo-name"]
    assert {request.method for request in hub.requests} == {"GET"}


@pytest.mark.integration
def test_a_token_without_write_access_is_refused_before_and_at_the_proof(hub: RunningHub) -> None:
    hub.add_repo("model", "alice/mine", {})
    calls = (
        call("check_writable", "alice/new"),
        call("check_writable", "alice/mine"),
        call("check_writable", "acme/new"),
        call("prove_write", "alice/new"),
        call("prove_write", "alice/mine"),
    )
    new, mine, org, *proofs = ask(hub, *calls, token="read")
    assert new["slugs"] == mine["slugs"] == org["slugs"] == ["hub-token-read-only"]
    assert "the token is read-only" in new["text"]
    assert [proof["slugs"] for proof in proofs] == [["hub-write-refused"]] * 2
    assert "use a token whose user may write there" in proofs[0]["text"]
    new, mine, org, *proofs = ask(hub, *calls[:3], token="fine")
    assert new["slugs"] == mine["slugs"] == []
    assert org["slugs"] == ["hub-token-read-only"]
    assert "fine-grained without write access to acme" in org["text"]
    assert not hub.has_repo("alice/new")


@pytest.mark.integration
def test_proof_makes_repo_and_branch_and_commits_nothing(hub: RunningHub) -> None:
    hub.add_repo("model", "alice/public", {})
    first, again, branch, public, dataset = ask(
        hub,
        call("prove_write", "new", private=True),
        call("prove_write", "alice/new", private=True),
        call("prove_write", "acme/new", revision="b/x"),
        call("prove_write", "alice/public", private=True),
        call("prove_write", "rows", repo_type="dataset"),
    )
    assert (first["value"], again["value"], branch["value"]) == ("alice/new", "alice/new", "acme/new")
    assert dataset["value"] == "alice/rows"
    assert hub.repo("alice/new").private
    assert not hub.repo("acme/new").private
    assert set(hub.repo("acme/new").refs) == {"refs/heads/main", "refs/heads/b/x"}
    assert public["slugs"] == ["hub-repo-public"]
    assert "A private repo was asked for" in public["text"]
    assert len(hub.repo("alice/new").commits) == 1  # the Hub's own initial commit
    assert hub.count("/preupload/") == 4
    assert hub.count("/commit/|^PUT") == 0


# Pushing


@pytest.mark.integration
def test_push_arrives_byte_for_byte_and_a_second_push_sends_nothing(hub: RunningHub, folder: Path) -> None:
    push = call(
        "push_folder", folder, "m", revision="run-1", private=True, commit_message="final", ignore_patterns=["*.pt"]
    )
    first, again = ask(hub, push, push)
    expected = {name: data for name, data in files_in(folder).items() if name != "optimizer.pt"}
    assert hub.files("alice/m", revision="run-1") == expected
    assert hub.files("alice/m") == {}
    commit = hub.repo("alice/m").at("run-1")
    assert (commit.title, first["value"]) == ("final", f"{hub.endpoint}/alice/m/commit/{commit.sha}")
    assert again["value"] == first["value"]
    assert hub.repo("alice/m").private
    assert hub.count("^PUT /lfs-storage/") == 2  # model.safetensors and plots/loss.png, once
    assert hub.count("^POST .*/commit/") == 1


@pytest.mark.integration
@pytest.mark.parametrize(
    ("route", "status", "drop"),
    [
        ("/repos/create", 503, False),
        ("/validate-yaml", 503, False),  # the client reads the answer as JSON before it looks at the status
        ("/preupload/", 520, False),
        ("/objects/batch", 520, False),
        ("^PUT /lfs-storage/", 520, False),  # 520: a status that the client does not retry itself
        ("^PUT /lfs-storage/", 0, True),
        ("/lfs-verify/", 520, False),
        ("/commit/", 503, False),
        ("/commit/", 0, True),
        ("/tree/", 520, False),
    ],
)
def test_an_outage_that_heals_is_waited_out(
    hub: RunningHub, folder: Path, route: str, status: int, drop: bool
) -> None:
    fault = hub.fail_next(route, times=2, status=status, drop=drop)
    answer = ask_one(hub, call("push_folder", folder, "alice/m", first_wait_seconds=0.05))
    assert answer["slugs"] == []
    assert fault.left == 0
    assert hub.files("alice/m") == files_in(folder)


@pytest.mark.integration
def test_the_pipeline_that_the_client_uses_with_xet_is_retried_and_verified_too(hub: RunningHub, folder: Path) -> None:
    for name in ("model.safetensors", "plots/loss.png", "optimizer.pt"):  # their content would go to a Xet server
        (folder / name).unlink()
    fault = hub.fail_next("/commit/", times=1, status=520)
    push = call("push_folder", folder, "alice/m", revision="b", first_wait_seconds=0.05)
    first, again = ask(hub, push, push, HF_HUB_DISABLE_XET="0")
    assert (first["slugs"], fault.left) == ([], 0)
    assert hub.files("alice/m", revision="b") == files_in(folder)
    assert first["value"] == again["value"] == f"{hub.endpoint}/alice/m/commit/{hub.repo('alice/m').at('b').sha}"


@pytest.mark.integration
def test_an_outage_that_stays_keeps_the_folder_and_resumes_without_sending_twice(
    hub: RunningHub, folder: Path
) -> None:
    before = files_in(folder)
    hub.fail_next("/commit/", times=None, status=503)
    command = "python -m tulu_recipes.push runs/x"
    push = call("push_folder", folder, "alice/m", attempts=3, first_wait_seconds=0.05, resume_command=command)
    failed = ask_one(hub, push)
    assert failed["slugs"] == ["hub-push-failed", "hub-answer"]
    assert f"failed after 3 attempts. Nothing is lost: everything is kept in {folder}." in failed["text"]
    assert f"run  {command}; what has arrived is not sent again" in failed["text"]
    assert "answered 503" in failed["text"]
    assert files_in(folder) == before
    assert hub.files("alice/m") == {}
    sent = hub.count("^PUT /lfs-storage/")
    hub.heal()
    resumed = ask_one(hub, push)
    assert resumed["slugs"] == []
    assert hub.files("alice/m") == before
    assert hub.count("^PUT /lfs-storage/") == sent == 3


@pytest.mark.integration
def test_a_refusal_is_final_at_once(hub: RunningHub, folder: Path) -> None:
    hub.add_repo("model", "alice/public", {})
    foreign, public, name, missing = ask(
        hub,
        call("push_folder", folder, "bob/m"),
        call("push_folder", folder, "alice/public", private=True, resume_command="again"),
        call("push_folder", folder, "alice/m/x"),
        call("push_folder", folder / "none", "alice/m"),
    )
    assert foreign["slugs"] == ["hub-push-failed", "hub-write-refused"]
    assert public["slugs"] == ["hub-push-failed", "hub-repo-public"]
    assert "run  again" in public["text"]
    assert name["slugs"] == ["hub-push-failed", "hub-repo-name"]
    assert missing["slugs"] == ["hub-push-failed", "hub-push-stopped"]
    assert "is not a directory" in missing["text"]
    assert all("after 1 attempt." in answer["text"] for answer in (foreign, public, name, missing))
    assert hub.files("alice/public") == {}


@pytest.mark.integration
def test_a_card_the_hub_refuses_is_quoted(hub: RunningHub, folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    answer = ask_one(hub, call("push_folder", folder, "alice/m"))
    assert answer["slugs"] == ["hub-push-failed", "hub-answer"]
    assert "answered 400" in answer["text"]
    assert "while parsing" in answer["text"]


@pytest.mark.integration
def test_a_push_that_arrives_incomplete_is_noticed(hub: RunningHub, folder: Path) -> None:
    hub.lose_on_commit = {"config.json": None, "README.md": b"---\nlicense: apache-2.0\n---\n# n\n", "empty.txt": b"?"}
    answer = ask_one(hub, call("push_folder", folder, "alice/m", resume_command="again"))
    assert answer["slugs"] == ["hub-push-incomplete"]
    assert "README.md has another content at the Hub" in answer["text"]
    assert "config.json is not at the Hub" in answer["text"]
    assert "empty.txt has 1 bytes at the Hub, 0 here" in answer["text"]
    assert f"Everything is kept in {folder}." in answer["text"]
    assert "To send what is lacking, run  again." in answer["text"]
