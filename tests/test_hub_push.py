"""tulu_recipes.hub, pushing, against the test Hub through the real huggingface_hub client."""

from pathlib import Path

import pytest

from tests.hub.calls import ask, ask_one, call
from tests.hub.fixtures import RunningHub


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


@pytest.mark.integration
def test_a_token_quoted_by_the_server_is_struck_out(hub: RunningHub, folder: Path) -> None:
    hub.quote_token = True
    write = ask_one(hub, call("push_folder", folder, "bob/m"))
    assert write["slugs"] == ["hub-push-failed", "hub-write-refused"]
    assert "token hf_***" in write["text"]
    assert hub.tokens["write"] not in write["text"]
