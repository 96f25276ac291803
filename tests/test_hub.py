"""tulu_recipes.hub, looking and proving, against the test Hub through the real huggingface_hub client."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.calls import ask, ask_one, call
from tests.hub.fixtures import RunningHub


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
    assert [answer["slugs"] for answer in answers] == [[]] * 14
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
    hub: RunningHub, tmp_path: Path, token: str, said: str
) -> None:
    hub.add_repo("model", "acme/open", {"a": "1"})
    answers = ask(
        hub,
        call("check_readable", "acme/open"),
        call("check_writable", "alice/m"),
        call("read_text", "acme/open", "a"),
        call("resolve_revision", "acme/open"),
        call("prove_write", "alice/m"),
        call("push_folder", tmp_path, "alice/m"),
        token=token,
    )
    for answer in answers:
        assert answer["slugs"][-1] == "hub-token-refused"
        assert said in answer["text"]
        assert hub.tokens[token] not in answer["text"]
        assert answer["seconds"] < 5  # a 401 is final: no attempt follows


@pytest.mark.integration
def test_a_malformed_token_is_not_sent_and_not_quoted(hub: RunningHub) -> None:
    hub.add_repo("model", "acme/open", {"a": "1"})
    for token in ("hf_Alice WriteToken", "hf_Alice\x01Token", "hf_Alicé"):
        answer = ask_one(hub, call("check_readable", "acme/open", where="x"), token=token)
        assert answer["slugs"] == ["hub-token-malformed"]
        assert "copy it again into HF_TOKEN" in answer["text"]
        assert "Alic" not in answer["text"]


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
