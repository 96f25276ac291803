"""What a training stage does with a mix: hold it to its lock, build it where that is lacking, read its rows."""

from pathlib import Path

from datasets import Dataset

from tulu_recipes.data.mixing.build import Describe, RunPasses, build_mix
from tulu_recipes.data.mixing.lock import (
    LOCK,
    Lock,
    check_files,
    check_local_sources,
    check_mix_is_locked,
    lock_beside,
    read_lock,
)
from tulu_recipes.data.mixing.mix_file import Mix, load_mix
from tulu_recipes.data.sources import load_dataset_rows
from tulu_recipes.errors import DataError, Problem

MIXES = Path("runs") / "mixes"
TARGET_OF_STAGE = {"sft": "sft", "reward": "preference", "dpo": "preference", "rlvr": "rlvr"}


def default_folder(mix: Mix) -> Path:
    """Where a mix is built when nobody names a folder, by its path, since many are called sft.yaml.

    data_mixes/tiny/sft.yaml -> runs/mixes/tiny-sft; elsewhere folder and name: exp/a.yaml -> runs/mixes/exp-a.
    """
    return MIXES / (mix.name if mix.limit is None else f"{mix.name}-limit-{mix.limit}")


def read_built(folder: Path) -> tuple[Dataset, Lock]:
    """Rows and lock of a finished mix. Raises as `finished_lock`."""
    lock = finished_lock(folder)
    return load_dataset_rows(str(folder), split="train"), lock


def finished_lock(folder: Path) -> Lock:
    """The lock of a finished mix, its files compared with it.

    Raises:
        DataError: the folder holds no finished mix, or its files have changed.
    """
    if not (folder / LOCK).is_file():
        what = "The folder holds no finished mix: there is no mix.lock.json in it."
        mend = f"build it:  python -m tulu_recipes.mix MIX.yaml --output_dir {folder}"
        raise DataError(Problem("mix-unfinished", str(folder), what, mend))
    lock = read_lock(folder / LOCK)
    check_files(folder, lock)
    return lock


def check_mix(path: str, stage: str) -> tuple[Mix | None, Path | None]:
    """Hold a mix file to its stage and to the lock beside it; reads two small files and nothing else.

    Args:
        path: a mix file, or the folder of a built mix, whose own lock is held to the stage alone.
    Returns:
        the mix (None for a folder), and the lock beside it (None when there is none).
    Raises:
        DataError: the file is faulty, for another stage, or was edited since it was locked.
    """
    if Path(path).is_dir():
        if (Path(path) / LOCK).is_file():
            _check_target(read_lock(Path(path) / LOCK)["target"], stage, path)
        return None, None
    mix = load_mix(path)
    _check_target(mix.target, stage, path)
    beside = lock_beside(path)
    if not beside.is_file():
        return mix, None
    check_mix_is_locked(mix, read_lock(beside), beside)
    return mix, beside


def is_built(path: str, stage: str) -> bool:
    """Whether the rows of a mix are at hand without building anything.

    Raises:
        DataError: as `check_mix`.
    """
    mix, _ = check_mix(path, stage)
    folder = Path(path) if mix is None else default_folder(mix)
    return (folder / LOCK).is_file() if mix is None else _built_lock(folder, mix) is not None


def _built_lock(folder: Path, mix: Mix) -> Lock | None:
    """The lock of a finished build of just this mix."""
    if not (folder / LOCK).is_file():
        return None
    lock = read_lock(folder / LOCK)
    try:
        check_mix_is_locked(mix, lock, folder / LOCK)
    except DataError:
        return None  # of an earlier version of the file: it will be built anew
    return lock


def _same_rows(one: Lock, other: Lock) -> bool:
    return bool(one["result"]["content_sha256"] == other["result"]["content_sha256"])


def use_mix(path: str, stage: str, *, passes: RunPasses, describe: Describe) -> tuple[Dataset, Lock]:
    """The rows of a mix file or of a built mix's folder.

    A mix file with a lock beside it gives the lock's rows: sources are taken at the lock's commits. It is built in
    its default folder, unless it is there already.

    Raises:
        DataError: as `check_mix`, as `read_built`, and when the rows are not those of the lock.
    """
    mix, locked = check_mix(path, stage)
    if mix is None:
        return read_built(Path(path))
    folder = default_folder(mix)
    built = _built_lock(folder, mix)
    if built is not None and (locked is None or _same_rows(read_lock(locked), built)):
        check_local_sources(mix, built)
        return read_built(folder)
    build_mix(mix, folder, passes=passes, describe=describe, locked=locked, byte_for_byte=False, wait=True)
    return read_built(folder)


def _check_target(target: str, stage: str, where: str) -> None:
    wanted = TARGET_OF_STAGE[stage]
    if target != wanted:
        what = f"The mix has target: {target}; {stage} trains on {wanted} rows."
        raise DataError(Problem("mix-target", where, what, f"name a mix with  target: {wanted}"))
