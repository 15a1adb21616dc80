"""Files in the cache of the Hugging Face Hub, where a file of a repository is a link to its bytes.

    models--anna--houses/
      blobs/4f8c51...                                       the bytes
      snapshots/91c54a.../spec.json -> ../../blobs/4f8c51...

    followed(Path(".../snapshots/91c54a.../spec.json"))     # .../blobs/4f8c51...

A link in a stranger's folder may lead to any file of this machine, so that none is followed (see `mtlkit.guarded`).
These are the one exception. What decides is the text of a link, not where it happens to lead:

- the folder, after links of the user's own that lead to it, is one in `snapshots` of a folder `models--...`;
- the link reads `../../blobs/NAME`, where NAME is one plain name and `blobs` a folder and no link: it can lead to a
  file of the same repository alone;
- what is there is a file, or a link that reads `../../blobs/ab/ab...` with 64 hexadecimal digits: newer caches keep
  what several repositories have in a folder beside them, which has to be no link either.

Any other link stays what it was: refused. What is found is opened as files in any folder are, without following links,
up to the size and with the digest that the manifest tells.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

_OWN = re.compile(r"\.\./\.\./blobs/([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})")
_SHARED = re.compile(r"\.\./\.\./blobs/(([0-9a-f]{2})/\2[0-9a-f]{62})")


def followed(path: Path) -> Path:
    """The file that a link of a snapshot leads to. Any other path as it is, also where that is a link.

    Raises:
        OSError: there is no such file.
    """
    if not _is(stat.S_ISLNK, path):
        return path
    snapshot = Path(os.path.realpath(path.parent))
    repository = snapshot.parent.parent
    if snapshot.parent.name != "snapshots" or not repository.name.startswith("models--"):
        return path
    blob = _target(path, _OWN, repository)
    if blob is None or not _is(stat.S_ISLNK, blob):
        return blob or path
    return _target(blob, _SHARED, repository.parent) or path


def _target(link: Path, allowed: re.Pattern[str], above: Path) -> Path | None:
    """What a link to `above`/blobs leads to; None where it reads otherwise, or a folder on the way is none."""
    found = allowed.fullmatch(os.readlink(link).replace(os.sep, "/"))
    if found is None:
        return None
    file = above / "blobs" / found[1]
    return file if all(_is(stat.S_ISDIR, folder) for folder in (above / "blobs", file.parent)) else None


def _is(kind: Callable[[int], bool], path: Path) -> bool:
    return kind(os.lstat(path).st_mode)
