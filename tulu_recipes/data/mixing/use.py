"""What a training stage does with a mix: hold it to its lock, build it where that is lacking, read its rows."""

from pathlib import Path

from datasets import Dataset

from tulu_recipes.data.mixing.build import Describe, RunPasses, build_mix
from tulu_recipes.data.mixing.lock import LOCK, Lock, check_files, check_mix_is_locked, lock_beside, read_lock
from tulu_recipes.data.mixing.mix_file import Mix, load_mix
from tulu_recipes.data.sources import load_dataset_rows
from tulu_recipes.errors import DataError, Problem

MIXES = Path("runs") / "mixes"


def default_folder(mix: Mix) -> Path:
    """Where a mix is built when nobody names a folder: runs/mixes/NAME."""
    return MIXES / (mix.name if mix.limit is None else f"{mix.name}-limit-{mix.limit}")


def read_built(folder: Path) -> tuple[Dataset, Lock]:
    """Rows and lock of a finished mix, its files compared with the lock.

    Raises:
        DataError: the folder holds no finished mix, or its files have changed.
    """
    if not (folder / LOCK).is_file():
        what = "The folder holds no finished mix: there is no mix.lock.json in it."
        mend = f"build it:  python -m tulu_recipes.mix MIX.yaml --output_dir {folder}"
        raise DataError(Problem("mix-unfinished", str(folder), what, mend))
    lock = read_lock(folder / LOCK)
    check_files(folder, lock)
    return load_dataset_rows(str(folder), split="train").rows, lock


def use_mix(path: str, target: str, *, passes: RunPasses, describe: Describe) -> tuple[Dataset, Lock]:
    """The rows of a mix file or of a built mix's folder, for a stage that trains on `target`.

    A mix file with a lock beside it must say what the lock says, and gives the lock's rows: sources are taken at the
    lock's commits. It is built in runs/mixes/NAME, unless it is there already.

    Raises:
        DataError: the mix is for another target, was edited since it was locked, or does not give the lock's rows.
    """
    if Path(path).is_dir():
        rows, lock = read_built(Path(path))
        _check_target(lock["target"], target, path)
        return rows, lock
    mix = load_mix(path)
    _check_target(mix.target, target, path)
    beside = lock_beside(path)
    locked = beside if beside.is_file() else None
    if locked is not None:
        check_mix_is_locked(mix, read_lock(locked), locked)
    folder = default_folder(mix)
    build_mix(mix, folder, passes=passes, describe=describe, locked=locked, byte_for_byte=False, wait=True)
    return read_built(folder)


def _check_target(found: str, wanted: str, where: str) -> None:
    if found != wanted:
        what = f"The mix has target: {found}; this stage trains on {wanted} rows."
        raise DataError(Problem("mix-target", where, what, f"name a mix with  target: {wanted}."))
