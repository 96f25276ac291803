"""The test Hub against the real clients: what they may do, what they are refused, and outages."""

import os
import subprocess
import sys

import pytest

from tests.hub.fixtures import RunningHub

pytestmark = pytest.mark.integration

REFUSALS = """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    def refused(call, *args, **kwargs):
        try:
            call(*args, **kwargs)
        except HfHubHTTPError as error:
            return type(error).__name__, error.response.status_code
        return None
    api = HfApi()
"""


def test_hub_client_creates_pushes_pulls_and_refers(hub: RunningHub) -> None:
    result = hub.run("""
        from pathlib import Path
        import os
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem
        from huggingface_hub import hf_hub_download, snapshot_download
        api, folder = HfApi(), Path(os.environ["HF_HOME"]) / "up"
        (folder / "sub").mkdir(parents=True)
        (folder / "a.txt").write_text("one")
        (folder / "sub/w.safetensors").write_bytes(bytes(range(256)) * 4000)
        url = api.create_repo("m", private=True)
        api.create_repo("alice/m", exist_ok=True)
        first = api.upload_folder(repo_id="alice/m", folder_path=folder)
        again = api.upload_folder(repo_id="alice/m", folder_path=folder)
        api.create_tag("alice/m", tag="v1")
        api.create_branch("alice/m", branch="b/x")
        operations = [CommitOperationAdd("b.txt", b"two"), CommitOperationDelete("a.txt")]
        api.create_commit("alice/m", operations, commit_message="swap", revision="b/x")
        pull = api.create_commit("alice/m", [CommitOperationAdd("c.txt", b"3")], commit_message="pr", create_pr=True)
        pulled = Path(snapshot_download("alice/m", revision="v1"))
        # Not ModelCard.push_to_hub: huggingface_hub 1.33 validates cards at huggingface.co, whatever HF_ENDPOINT says.
        card = b"---\\nlicense: mit\\n---\\nhello"
        api.upload_file(repo_id="alice/m", path_or_fileobj=card, path_in_repo="README.md")
        result = {
            "url": str(url), "id": url.repo_id, "no_op": first.oid == again.oid, "pr": pull.pr_revision,
            "equal": (pulled / "sub/w.safetensors").read_bytes() == (folder / "sub/w.safetensors").read_bytes(),
            "branch": open(hf_hub_download("alice/m", "b.txt", revision="b/x")).read(),
            "pr_file": open(hf_hub_download("alice/m", "c.txt", revision=pull.pr_revision)).read(),
            "tree": sorted(entry.path for entry in api.list_repo_tree("alice/m", revision="b/x", recursive=True)),
            "branches": [branch.name for branch in api.list_repo_refs("alice/m").branches],
            "history": [commit.title for commit in api.list_repo_commits("alice/m", revision="b/x")],
            "part": HfFileSystem().cat_file("alice/m/sub/w.safetensors", start=3, end=6).hex(),
            "licence": api.model_info("alice/m").card_data.license,
            "listed": [model.id for model in api.list_models(author="alice")],
        }
        """)
    assert result == {
        "url": f"{hub.endpoint}/alice/m",
        "id": "alice/m",
        "no_op": True,
        "pr": "refs/pr/1",
        "equal": True,
        "branch": "two",
        "pr_file": "3",
        "tree": [".gitattributes", "b.txt", "sub", "sub/w.safetensors"],
        "branches": ["main", "b/x"],
        "history": ["swap", "Upload folder using huggingface_hub", "initial commit"],
        "part": "030405",
        "licence": "mit",
        "listed": ["alice/m"],
    }
    assert hub.repo("alice/m").private
    assert hub.files("alice/m", revision="v1")["sub/w.safetensors"] == bytes(range(256)) * 4000
    assert hub.count("^PUT /lfs-storage/") == 1  # the second push sent no blob


def test_who_may_not_is_refused_as_by_the_hub(hub: RunningHub) -> None:
    hub.add_repo("model", "alice/private", {"a.txt": "1"}, private=True)
    hub.add_repo("model", "meta/gated", {"README.md": "---\nlicense: llama3.1\n---\n", "a.txt": "1"}, gated=True)
    hub.add_repo("model", "alice/open", {"a.txt": "1"})
    anonymous = hub.run(
        REFUSALS
        + """
    result = [refused(api.model_info, "alice/private"), refused(api.auth_check, "meta/gated"),
              api.model_info("meta/gated").card_data.license, refused(api.model_info, "alice/none")]
        """,
        token=None,
    )
    # A private repo and a missing one look alike.
    missing = ["RepositoryNotFoundError", 401]
    assert anonymous == [missing, ["GatedRepoError", 401], "llama3.1", missing]
    reader = hub.run(
        REFUSALS
        + """
    result = [refused(api.upload_file, path_or_fileobj=b"x", path_in_repo="x", repo_id="alice/open"),
              refused(api.create_repo, "new"), refused(api.auth_check, "alice/open", write=True),
              refused(api.auth_check, "meta/gated"), refused(api.model_info, "alice/open", revision="v9"),
              open(hf_hub_download("alice/private", "a.txt")).read(), refused(hf_hub_download, "alice/open", "none")]
        """,
        token="read",
    )
    forbidden, revision, entry = ["HfHubHTTPError", 403], "RevisionNotFoundError", "RemoteEntryNotFoundError"
    assert reader == [forbidden] * 3 + [["GatedRepoError", 403], [revision, 404], "1", [entry, 404]]
    for token in ("wrong", "expired"):
        code = REFUSALS + '    result = [refused(api.whoami), refused(api.model_info, "alice/open")]'
        assert hub.run(code, token) == [["HfHubHTTPError", 401]] * 2, token
    code = REFUSALS + '    result = [refused(api.model_info, "alice/private"), refused(api.create_repo, "acme/new")]'
    assert hub.run(code, "stranger") == [["RepositoryNotFoundError", 404], forbidden]
    assert not hub.has_repo("acme/new")


def test_faults_strike_the_named_calls_and_heal(hub: RunningHub) -> None:
    hub.add_repo("model", "alice/m", {})
    hub.fail_next("^PUT /lfs-storage/", times=1, drop=True)  # the client itself tries again after a second
    commit = hub.fail_next("/commit/", times=None, status=503)
    code = """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    try:
        HfApi().upload_file(path_or_fileobj=b"x" * 1000, path_in_repo="w.bin", repo_id="alice/m")
        result = "done"
    except HfHubHTTPError as error:
        result = error.response.status_code
    """
    assert hub.run(code) == 503
    assert hub.files("alice/m") == {}
    assert hub.count("^PUT /lfs-storage/") == 2
    commit.heal()
    assert hub.run(code) == "done"
    assert hub.files("alice/m") == {"w.bin": b"x" * 1000}
    assert hub.count("^PUT /lfs-storage/") == 2


def test_datasets_pushes_and_loads_by_revision_and_by_stream(hub: RunningHub) -> None:
    hub.add_repo("dataset", "acme/rows", {"train.jsonl": '{"x": 1}\n{"x": 2}\n'}, tags=["v1"])
    result = hub.run("""
        from datasets import Dataset, load_dataset
        rows = Dataset.from_dict({"x": list(range(10))})
        rows.push_to_hub("alice/rows", private=True, num_shards=3)
        rows.select([0]).push_to_hub("alice/rows", private=True, revision="small")
        stream = load_dataset("alice/rows", split="train", streaming=True)
        result = [
            load_dataset("alice/rows", split="train")["x"][:],
            load_dataset("alice/rows", split="train", revision="small")["x"][:],
            [row["x"] for row in stream],
            load_dataset("acme/rows", split="train", revision="v1")["x"][:],
        ]
        """)
    assert result == [list(range(10)), [0], list(range(10)), [1, 2]]
    assert hub.repo("alice/rows", kind="dataset").private
    assert "data/train-00002-of-00003.parquet" in hub.files("alice/rows", kind="dataset")


def test_transformers_pushes_and_loads_a_private_model(hub: RunningHub) -> None:
    result = hub.run("""
        import torch
        from tokenizers import Tokenizer, models
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
        from transformers import PreTrainedTokenizerFast
        sizes = dict(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes))
        words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?", chat_template="{{ messages }}")
        model.push_to_hub("tiny", private=True)
        tokenizer.push_to_hub("alice/tiny", private=True)
        back = AutoModelForCausalLM.from_pretrained("alice/tiny")
        same = all(torch.equal(a, b) for a, b in zip(model.parameters(), back.parameters(), strict=True))
        result = [same, AutoTokenizer.from_pretrained("alice/tiny").chat_template]
        """)
    assert result == [True, "{{ messages }}"]
    assert hub.repo("alice/tiny").private


def test_long_listings_come_in_pages_and_repos_change_and_go(hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.hub.server.TREE_PAGE", 2)
    hub.add_repo("model", "alice/m", {f"{i}.txt": "x" for i in range(6)})
    hub.add_repo("dataset", "alice/d", {})
    result = hub.run("""
        from huggingface_hub import HfApi
        api = HfApi()
        api.delete_repo("alice/d", repo_type="dataset")
        api.delete_repo("alice/d", repo_type="dataset", missing_ok=True)
        paths = [entry.path for entry in api.list_repo_tree("alice/m")]
        sizes = [entry.size for entry in api.get_paths_info("alice/m", ["3.txt", "none"])]
        api.update_repo_settings("alice/m", private=True)
        api.create_tag("alice/m", tag="v1")
        api.delete_tag("alice/m", tag="v1")
        result = paths, sizes, api.revision_exists("alice/m", "v1")
        """)
    assert result == [[".gitattributes", *(f"{i}.txt" for i in range(6))], [1], False]
    assert hub.count("/tree/main") == 4
    assert hub.repo("alice/m").private
    assert not hub.has_repo("alice/d", kind="dataset")


def test_standalone_server_prints_what_a_client_needs_to_export() -> None:
    command = [sys.executable, "-m", "tests.hub.server", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            lines = [server.stdout.readline().strip().removeprefix("export ") for _ in range(7)]
            env = os.environ | dict(line.split("=", 1) for line in lines)
            code = "from huggingface_hub import HfApi; print(HfApi().create_repo('m'), HfApi().whoami()['name'])"
            done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        finally:
            server.terminate()
    assert done.stdout.split() == [f"{env['HF_ENDPOINT']}/alice/m", "alice"]
