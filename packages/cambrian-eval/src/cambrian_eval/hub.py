"""Where a benchmark's folder comes from: the user's disk, or a pinned snapshot of the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cambrian_eval.errors import DataError


@dataclass(frozen=True)
class HubDataset:
    """A dataset repository and the files that a task reads from it.

    Attributes:
        repo: Its name on the hub. Public: no login is needed.
        files: Names or globs; `{split}` stands for the split that is asked.
        revision: What is read unless the user names another: of every benchmark a commit, so that its data stay the
            same. Of a branch, the commit that it stood for is recorded with the run.
    """

    repo: str
    files: tuple[str, ...]
    revision: str = "main"

    def files_of(self, split: str | None) -> list[str]:
        """The files of one split, or of all."""
        return [name.replace("{split}", split or "*") for name in self.files]


class DataFolder(NamedTuple):
    """A local folder and, if it came from the hub, the commit it is a snapshot of."""

    path: Path
    commit: str | None


def locate(dataset: HubDataset, data: Path | None, revision: str | None, split: str | None = None) -> DataFolder:
    """The folder to read: `data` if given, else the hub's snapshot at `revision` (downloaded once, then cached).

    Of the snapshot only the files of `split` are downloaded, where one is named.

    Raises:
        DataError: There is no such folder, or the snapshot is neither cached nor reachable.
    """
    files = dataset.files_of(split)
    if data is None:
        return _snapshot(dataset.repo, files, revision or dataset.revision)
    if revision is not None:
        raise DataError(f"both a folder ({data}) and a hub revision ({revision}) were given; give one of them.")
    if not data.is_dir():
        kind = "a file" if data.exists() else "nothing"
        raise DataError(f"{data}: found {kind}, expected a folder with {' and '.join(files)}.")
    return DataFolder(data, None)


def _snapshot(repo: str, files: list[str], revision: str) -> DataFolder:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=files))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        found = _UNCACHED if constants.HF_HUB_OFFLINE else f"could not be downloaded ({error})"
        raise DataError(_unreachable(repo, files, revision, found)) from error
    absent = [name for name in files if not any(folder.glob(name))]
    if absent:
        found = _UNCACHED if constants.HF_HUB_OFFLINE else f"has no {' and no '.join(absent)}"
        raise DataError(_unreachable(repo, files, revision, found))
    return DataFolder(folder, folder.name)


_UNCACHED = "is not in the local cache, and HF_HUB_OFFLINE forbids the download"


def _unreachable(repo: str, files: list[str], revision: str, found: str) -> str:
    return (
        f"{repo} at revision {revision} {found}. Give a local folder that holds {' and '.join(files)}, or download it "
        "once while online."
    )
