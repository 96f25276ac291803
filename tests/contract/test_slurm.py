"""The Slurm script against a stand-in cluster: fake srun, scontrol and accelerate on PATH, the real bash and pkill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration  # bash, processes and signals

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes/slurm/sft.sbatch"
RLVR_SCRIPT = ROOT / "recipes/slurm/rlvr.sbatch"
RECIPE = "recipes/tulu3/70b/sft.yaml"

# srun runs its command once, as on node 0 of two; scontrol keeps what it was asked
SRUN = '#!/bin/bash\nwhile [[ $1 == -* ]]; do shift; done\nSLURM_NODEID=0 exec "$@"\n'
SCONTROL = """#!/bin/bash
case "$1 $3" in
  "show node-[a-b]") printf "node-a\\nnode-b\\n" ;;
  show*) tr , "\\n" <<< "$3" ;;
  *) echo "$@" >> "$CALLS" ;;
esac
"""
# vLLM serves until it is killed; its server is there as soon as it was started
VLLM = '#!/bin/bash\necho "vllm $CUDA_VISIBLE_DEVICES $*" >> "$CALLS"\nexec sleep 60\n'
CURL = '#!/bin/bash\ngrep -q ^vllm "$CALLS"\n'
# the launcher starts one worker; SIGTERM to itself is noted, the worker "saves a checkpoint" on it and ends with 130
ACCELERATE = """#!{python}
import os, signal, subprocess, sys
calls = open(os.environ["CALLS"], "a", buffering=1)
calls.write("accelerate " + " ".join(sys.argv[1:]) + "\\n")
signal.signal(signal.SIGTERM, lambda *_: calls.write("launcher got TERM\\n"))
worker = (
    "import os, signal, sys, time; calls = open(os.environ['CALLS'], 'a', buffering=1)\\n"
    "def save(*_): time.sleep(0.3); calls.write('checkpoint saved' + chr(10)); sys.exit(130)\\n"
    "signal.signal(signal.SIGTERM, save); calls.write('worker ready' + chr(10))\\n"
    "time.sleep(float(os.environ['WORK_SECONDS'])); sys.exit(int(os.environ['WORK_CODE']))"
)
sys.exit(1 if subprocess.call([sys.executable, "-c", worker]) else 0)  # as torch's launcher: any failure is a 1
"""


@pytest.fixture
def cluster(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    stand_ins = {"srun": SRUN, "scontrol": SCONTROL, "accelerate": ACCELERATE, "vllm": VLLM, "curl": CURL}
    for name, text in stand_ins.items():
        (tools / name).write_text(text.replace("{python}", sys.executable), encoding="utf-8")
        (tools / name).chmod(0o755)
    calls = tmp_path / "calls"

    jobs: list[subprocess.Popen] = []

    def start(
        *, seconds: float, code: int = 0, recipe: str = RECIPE, script: Path = SCRIPT, **more: str
    ) -> subprocess.Popen:
        environ = os.environ | {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "CALLS": str(calls),
            "WORK_SECONDS": str(seconds),
            "WORK_CODE": str(code),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "node-[a-b]",
            **more,
        }
        command = ["bash", str(script), recipe, "--run_name", "two words"]
        job = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        jobs.append(job)
        return job

    yield start, calls
    for job in jobs:
        job.stdout.close()
    assert not (ROOT / ".tulu-launcher-4711").exists()


def wait_for(text: str, path: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.is_file() and text in path.read_text(encoding="utf-8"):
            return
        time.sleep(0.02)
    raise AssertionError(f"{text!r} never came; calls: {path.read_text(encoding='utf-8') if path.is_file() else None}")


@pytest.mark.parametrize("script", [SCRIPT, RLVR_SCRIPT], ids=lambda path: path.name)
def test_script_is_valid_bash(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_each_node_is_launched_with_all_processes_and_its_rank(cluster):
    start, calls = cluster
    job = start(seconds=0)
    assert job.wait(20) == 0
    line = calls.read_text(encoding="utf-8").splitlines()[0]
    assert line == (
        "accelerate launch --config_file recipes/machines/zero3.yaml --num_machines 2 --num_processes 16 "
        f"--machine_rank 0 --main_process_ip node-a --main_process_port 24711 -m tulu_recipes.sft {RECIPE} "
        "--run_name two words"
    )
    assert "requeue" not in calls.read_text(encoding="utf-8")


def test_term_reaches_the_workers_alone_and_the_job_is_queued_again_after_the_checkpoint(cluster):
    start, calls = cluster
    job = start(seconds=60)
    wait_for("worker ready", calls)
    job.send_signal(signal.SIGTERM)
    assert job.wait(20) == 1
    lines = calls.read_text(encoding="utf-8").splitlines()
    assert lines[-2:] == ["checkpoint saved", "requeue 4711"]
    assert "launcher got TERM" not in lines  # it would kill the workers in the middle of the checkpoint


def test_a_failed_run_is_not_queued_again(cluster):
    start, calls = cluster
    job = start(seconds=0, code=1)
    assert job.wait(20) == 1
    assert "requeue" not in calls.read_text(encoding="utf-8")


def test_a_missing_recipe_is_refused_before_anything_starts(cluster):
    start, calls = cluster
    job = start(seconds=0, recipe="recipes/absent.yaml")
    output, _ = job.communicate(timeout=20)
    assert job.returncode == 2
    assert b"recipes/absent.yaml" in output
    assert not calls.exists()


@pytest.mark.parametrize(
    ("shape", "served", "learners"),
    [
        ({"LEARNER_NODES": "1"}, ("0,1,2,3,4,5,6,7", 8, "node-b"), (1, 8)),
        ({"LEARNER_GPUS": "6"}, ("6,7", 2, "node-a"), (2, 12)),
    ],
    ids=["nodes of its own", "GPUs of the first node"],
)
def test_rlvr_serves_beside_its_learners(cluster, shape, served, learners):
    start, calls = cluster
    recipe = "recipes/tulu3/8b/rlvr.yaml"
    assert start(seconds=0, recipe=recipe, script=RLVR_SCRIPT, **shape).wait(20) == 0
    vllm, accelerate = calls.read_text(encoding="utf-8").splitlines()[:2]
    gpus, tensor_parallel, host = served
    assert vllm.startswith(f"vllm {gpus} serve allenai/Llama-3.1-Tulu-3-8B-DPO --port 8000 ")
    assert f"--tensor-parallel-size {tensor_parallel} " in vllm
    machines, processes = learners
    assert f"--num_machines {machines} --num_processes {processes} " in accelerate
    assert accelerate.endswith(
        f"-m tulu_recipes.rlvr {recipe} --run_name two words --vllm_server_host {host} --vllm_server_port 8000"
    )


def test_rlvr_saves_and_is_queued_again_like_every_stage(cluster):
    start, calls = cluster
    job = start(seconds=60, recipe="recipes/tulu3/8b/rlvr.yaml", script=RLVR_SCRIPT, LEARNER_NODES="1")
    wait_for("worker ready", calls)
    job.send_signal(signal.SIGTERM)
    assert job.wait(20) == 1
    assert calls.read_text(encoding="utf-8").splitlines()[-2:] == ["checkpoint saved", "requeue 4711"]


def test_rlvr_without_a_gpu_for_vllm_is_refused(cluster):
    start, calls = cluster
    output, _ = (job := start(seconds=0, script=RLVR_SCRIPT)).communicate(timeout=20)
    assert job.returncode == 2
    assert b"set LEARNER_NODES below 2 or LEARNER_GPUS below 8" in output
    assert not calls.exists()
