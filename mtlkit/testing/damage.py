"""Damage to a saved folder: changed bytes, cuts and zeroed blocks, anywhere in it.

    refused = check_damage(Path("m"), mtlkit.load, lambda model: equal(model, saved), trials=2_000)

It is for whatever reads a folder back: a model, the checkpoint of a run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mtlkit.errors import CheckpointError

T = TypeVar("T")

# As a disk writes them: what was lost of a file mostly reads as zeros from the start of one to the end of another.
_BLOCK = 512


def check_damage(
    folder: Path, load: Callable[[Path], T], same: Callable[[T], bool], trials: int = 2_000, seed: int = 0
) -> int:
    """Damage one file of a folder at a time, and load it; each file is put back as it was.

    Args:
        folder: with files alone.
        load: reads the folder; a damaged one it refuses by a CheckpointError.
        same: whether what was loaded is what was saved.
        trials: how many times.
        seed: where the damage is drawn from.

    Returns:
        How many were refused; the others were loaded as they were saved.

    Raises:
        AssertionError: what was loaded is another, or the error is no CheckpointError.
    """
    chance = random.Random(seed)
    files = {path: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    refused = 0
    for trial in range(trials):
        path = chance.choice(list(files))
        right = files[path]
        what, wrong = _damaged(right, chance)
        path.write_bytes(wrong)
        where = f"trial {trial}, {path.name}, {what}"
        try:
            loaded = load(folder)
        except CheckpointError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{where}: expected CheckpointError, found {type(error).__name__}: {error}") from error
        else:
            if not same(loaded):
                raise AssertionError(f"{where}: it was loaded, and is not what was saved")
        finally:
            path.write_bytes(right)
    return refused


def _damaged(right: bytes, chance: random.Random) -> tuple[str, bytes]:
    """A file with one kind of damage that changes it, and what that is."""
    wrong, what = right, ""
    while wrong == right:
        data, start = bytearray(right), chance.randrange(len(right))
        kind = chance.choice(("bit", "byte", "cut", "zeros", "swap", "more"))
        if kind == "bit":
            data[start] ^= 1 << chance.randrange(8)
        elif kind == "byte":
            data[start] = chance.randrange(256)
        elif kind == "cut":
            del data[start:]
        elif kind == "zeros":
            start -= start % _BLOCK
            end = min(len(data), start + _BLOCK * chance.choice((1, 1, 8)))
            data[start:end] = bytes(end - start)
        elif kind == "swap":
            other = chance.randrange(len(right))
            data[start], data[other] = data[other], data[start]
        else:
            data += bytes(chance.randrange(1, _BLOCK))
        wrong, what = bytes(data), f"{kind} at {start}"
    return what, wrong
