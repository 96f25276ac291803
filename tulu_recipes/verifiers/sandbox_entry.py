"""First to run inside the sandbox: gives up what is left of its rights, sets the limits, then runs the script.

A file of its own and without imports of the package, since nothing but the interpreter is in the sandbox.
Arguments: the confinement as JSON (`sandbox.Confinement`), the script, the script's own arguments.
"""

import json
import os
import resource
import runpy
import signal
import sys
import types
from typing import Any

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4


def take_other_root(folder: str, uid: int) -> None:
    """For a sandbox that root made.

    Another uid, since neither the limit of processes nor file rights bind root; and `chroot`, because the kernel gives
    no user namespace, with its new rights, to a process whose root is not that of its mounts.
    """
    os.chroot(folder)
    os.chdir("/tmp")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def die_with(parent: int) -> None:
    """Without bubblewrap: no process outlives the one that started it, and none reads another's memory."""
    if sys.platform == "linux":
        import ctypes  # slow to load, and not needed in a sandbox

        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(PR_SET_DUMPABLE, 0)
    if os.getppid() != parent:
        sys.exit("the parent is gone")


def set_limits(limits: dict[str, int]) -> None:
    """name: value, as `resource.RLIMIT_<name>`; a limit that is lower already stays."""
    for name, value in {**limits, "CORE": 0}.items():
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is not None:
            hard = resource.getrlimit(number)[1]
            lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (lower, lower))


def stand_in_for_the_package() -> None:
    """Modules beside this file go by their full names, without what `__init__` would load and is not here."""
    for name in ("tulu_recipes", "tulu_recipes.verifiers"):
        module = types.ModuleType(name)
        module.__path__ = [os.path.dirname(__file__)]  # noqa: PTH120  pathlib is slow to load
        sys.modules[name] = module


def main(confinement: dict[str, Any], script: str, arguments: list[str]) -> None:
    if confinement["root"]:
        take_other_root(confinement["root"], confinement["uid"])
    if confinement["parent"]:
        die_with(confinement["parent"])
    set_limits(confinement["limits"])
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # what the caller blocks would stay blocked, its alarm included
    sys.path += confinement["packages"]
    stand_in_for_the_package()
    sys.argv = [script, *arguments]
    if script:  # none: the sandbox is only tried
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:])
