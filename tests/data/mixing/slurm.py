"""A stand-in for Slurm: sbatch runs the array at once, task after task, on this machine."""

import os
import sys
from pathlib import Path

# Directives are read as Slurm reads them; what a task says goes where --output says. A job that depends on one that
# failed is left out, as kill-on-invalid-dep does.
SBATCH = """#!{python}
import os, re, subprocess, sys
state = os.environ["FAKE_SLURM"]
script = sys.argv[-1]
text = open(script).read()
options = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.M))
options |= dict(argument[2:].split("=", 1) for argument in sys.argv[1:-1])
assert options["kill-on-invalid-dep"] == "yes", options
job = str(len(os.listdir(state)) + 1000)
if options["partition"] == "closed":
    sys.exit("sbatch: error: invalid partition specified: closed")
failed = False
before = options.get("dependency", "").removeprefix("afterok:")
if before and open(os.path.join(state, before)).read().startswith("failed"):
    failed = True
else:
    first, last = re.match(r"(\\d+)-(\\d+)", options["array"]).groups()
    for task in range(int(first), int(last) + 1):
        environ = os.environ | {
            "SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_ID": job, "SLURM_NODELIST": "node-1",
            **dict(pair.split("=") for pair in options["export"].split(",")[1:]),
        }
        # a compute node's shell does not have this test's virtual environment in front
        environ["PATH"] = os.environ["FAKE_SLURM_PATH"]
        with open(options["output"].replace("%A", job).replace("%a", str(task)), "w") as log:
            done = subprocess.run(["bash", script], env=environ, stdout=log, stderr=log)
        failed = failed or done.returncode != 0
with open(os.path.join(state, job), "w") as file:
    file.write(("failed " if failed else "done ") + options["job-name"] + " " + options["array"])
print("Submitted batch job", job)
"""
SRUN = '#!/bin/bash\nwhile [[ $1 == -* ]]; do [[ $1 == -n ]] && shift; shift; done\nexec "$@"\n'
SCONTROL = '#!/bin/bash\n[[ "$1 $2" == "show hostnames" ]] && echo node-1\n'
SQUEUE = '#!/bin/bash\necho 7\necho "$FAKE_QUEUED"\n'


def stand_in(folder: Path) -> dict[str, str]:
    """The fake programs in `folder`; the environment in which they are found first."""
    programs, state = folder / "bin", folder / "jobs"
    programs.mkdir(parents=True)
    state.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "squeue": SQUEUE}.items():
        (programs / name).write_text(text.replace("{python}", sys.executable), encoding="utf-8")
        (programs / name).chmod(0o755)
    bare = f"{programs}:/usr/bin:/bin"
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "FAKE_SLURM": str(state),
        "FAKE_SLURM_PATH": bare,
        "FAKE_QUEUED": "",
    }


def jobs(folder: Path) -> list[str]:
    """What became of each job, in the order of submission:  done mix-convert 0-2."""
    return [path.read_text(encoding="utf-8") for path in sorted((folder / "jobs").iterdir())]
