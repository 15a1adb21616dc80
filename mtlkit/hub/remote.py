"""What is asked of the Hub, through huggingface_hub, and its errors with what to do about them.

    folder = fetch("anna/houses", Source(revision="v1"))                    # a snapshot in the cache
    url = upload("anna/houses", files_for, Target(private=True))            # one commit: all files, or none

The place of the cache, the address of the Hub, the token and offline mode are set as for all of huggingface_hub:
`HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` or `hf auth login`, `HF_HUB_OFFLINE`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mtlkit.errors import CheckpointError, MtlkitError, shown
from mtlkit.guarded import MANIFEST
from mtlkit.saving import SPEC, WEIGHTS

_LOG_IN = "Log in with `hf auth login`, set HF_TOKEN, or pass token=..."
_WEB = "https://huggingface.co"


@dataclass(frozen=True)
class Source:
    """From where a repository is fetched: arguments of `Model.from_pretrained`."""

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False


@dataclass(frozen=True)
class Target:
    """How files are uploaded: arguments of `Model.push_to_hub`."""

    private: bool | None = None
    token: str | None = None
    commit_message: str | None = None
    revision: str | None = None
    create_pr: bool = False


def fetch(name: str, source: Source) -> Path:
    """The folder in the cache with the files of a model, which are fetched where they are not there.

    Raises:
        CheckpointError: there is no such repository or revision, the token may not read it, or it can't be reached.
    """
    with _told(name, "fetched, and is no folder here"):
        from huggingface_hub import snapshot_download

        folder = snapshot_download(
            name,
            revision=source.revision,
            token=source.token,
            cache_dir=source.cache_dir,
            local_files_only=source.local_files_only,
            force_download=source.force_download,
            # A repository may hold anything beside.
            allow_patterns=[MANIFEST, SPEC, WEIGHTS],
            library_name="mtlkit",
            library_version=version("mtlkit"),
        )
    if not (Path(folder) / MANIFEST).exists():
        raise CheckpointError(f"{name}: holds no model of mtlkit: it has no {MANIFEST}, which push_to_hub() writes")
    return Path(folder)


def upload(
    name: str, files_for: Callable[[str], Mapping[str, bytes]], target: Target, stale: Collection[str] = ()
) -> str:
    """Make the repository where there is none, and commit files to it.

    Args:
        name: of the repository, with its owner or without.
        files_for: gives the files by their names, of a repository of a name with its owner.
        target: how.
        stale: names of files that are taken away, where there are such.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        CheckpointError: there is no token, it may not write there, or the Hub can't be reached.
    """
    files_for(name)  # what can't be made fails before the Hub hears of it
    with _told(name, "uploaded"):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

        token = get_token() if target.token is None else target.token
        if not token:
            raise CheckpointError(f"{name}: can't be uploaded: that needs a token of the Hub. {_LOG_IN}")
        api = HfApi(token=token, library_name="mtlkit", library_version=version("mtlkit"))
        repository = api.create_repo(name, private=target.private, exist_ok=True).repo_id
        # Whether a repository is private is asked for a new one alone, and silently passed over for one that is there.
        if target.private is not None and api.model_info(repository).private != target.private:
            found, asked = ("public", "private") if target.private else ("private", "public")
            raise CheckpointError(
                f"{name}: is there already and {found}, so that nothing was uploaded; expected {asked}. Change that in "
                "its settings on the Hub, or leave private out"
            )
        there = api.list_repo_files(repository, revision=target.revision)
        commit = api.create_commit(
            repository,
            [
                *(CommitOperationDelete(path) for path in stale if path in there),
                *(CommitOperationAdd(path, data) for path, data in files_for(repository).items()),
            ],
            commit_message=target.commit_message or f"Upload a model of mtlkit {version('mtlkit')}",
            revision=target.revision,
            create_pr=target.create_pr,
        )
    return str(commit.pr_url or commit.commit_url)


@contextmanager
def _told(name: str, done: str) -> Iterator[None]:
    """What huggingface_hub raises, as a CheckpointError that says what to do."""
    try:
        yield
    except MtlkitError:
        raise
    except Exception as error:  # of whichever HTTP library huggingface_hub uses
        raise CheckpointError(f"{name}: can't be {done}: {_reason(name, error)}") from error


def _reason(name: str, error: Exception) -> str:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    match error:
        case errors.HFValidationError():
            return "this can't be the name of a repository, as 'anna/houses' is"
        case errors.GatedRepoError():
            return f"its author grants access. Ask for it at {_WEB}/{name}. {_LOG_IN}"
        case errors.RepositoryNotFoundError():
            return f"there is no such repository, or none for this token. Check the name. {_LOG_IN}"
        case errors.RevisionNotFoundError():
            return f"it has no such branch, tag or commit. Leave revision out, or see {_WEB}/{name}/commits/main"
        case errors.LocalTokenNotFoundError():
            return f"there is no token. {_LOG_IN}"
        case errors.OfflineModeIsEnabled():
            return "the Hub is not to be asked. Unset HF_HUB_OFFLINE"
        case errors.LocalEntryNotFoundError():
            why = f" ({_first_line(error.__cause__)})" if error.__cause__ else ""
            return (
                f"it is not in the cache, and the Hub was not asked or did not answer{why}. Leave local_files_only "
                "out, unset HF_HUB_OFFLINE, check the network"
            )
        case errors.HfHubHTTPError() if status in (401, 403):
            return f"the token is not valid, or lacks the right. Make one at {_WEB}/settings/tokens. {_LOG_IN}"
    return f"{_first_line(error)}. Check the network and {_WEB}/{name}, and try again"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else shown(error)}"
