"""Where a benchmark's folder comes from: the user's disk, or a pinned snapshot of the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cambrian_eval.errors import DataError


@dataclass(frozen=True)
class HubDataset:
    """A dataset repository and the files that a task reads from it."""

    repo: str
    files: tuple[str, ...]
    revision: str = "main"


class DataFolder(NamedTuple):
    """A local folder and, if it came from the hub, the commit it is a snapshot of."""

    path: Path
    commit: str | None


def locate(dataset: HubDataset, data: Path | None, revision: str | None) -> DataFolder:
    """The folder to read: `data` if given, else the hub's snapshot at `revision` (downloaded once, then cached).

    Raises:
        DataError: There is no such folder, or the snapshot is neither cached nor reachable.
    """
    if data is None:
        return _snapshot(dataset, revision or dataset.revision)
    if revision is not None:
        raise DataError(f"both a folder ({data}) and a hub revision ({revision}) were given; give one of them.")
    if not data.is_dir():
        kind = "a file" if data.exists() else "nothing"
        raise DataError(f"{data}: found {kind}, expected a folder with {' and '.join(dataset.files)}.")
    return DataFolder(data, None)


def _snapshot(dataset: HubDataset, revision: str) -> DataFolder:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(dataset.repo, repo_type="dataset", revision=revision, allow_patterns=list(dataset.files))
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if constants.HF_HUB_OFFLINE:
            found = "is not in the local cache, and HF_HUB_OFFLINE forbids the download"
        else:
            found = f"could not be downloaded ({error})"
        raise DataError(
            f"{dataset.repo} at revision {revision} {found}. Give a local folder that holds "
            f"{' and '.join(dataset.files)}, or download it once while online."
        ) from error
    return DataFolder(folder, folder.name)
