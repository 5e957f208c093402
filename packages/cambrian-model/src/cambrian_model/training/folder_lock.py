"""One process at a time: a lock on a folder that ends with whoever holds it, and leaves no file behind."""

import errno
import fcntl
import os
import time
from pathlib import Path

from cambrian_model.errors import TrainingError

PATIENCE = 5.0  # seconds: workers of a process that was killed hold its locks until they notice
UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EBADF, errno.EINVAL)  # of file systems that lock no folders


class FolderLock:
    """Keeps other processes out of a folder.

    Some network file systems cannot lock a folder; there it keeps nobody out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> None:
        """Takes the lock, if this process does not hold it yet; the folder must exist.

        Raises:
            TrainingError: Another process holds it.
        """
        if self._descriptor is not None:
            return
        self._descriptor = os.open(self._path, os.O_RDONLY)
        deadline = time.monotonic() + PATIENCE
        while not _is_locked(self._descriptor):
            if time.monotonic() > deadline:
                self.release()
                raise TrainingError(
                    f"another process is training in {self._path}; wait until it ends, or choose another --output"
                )
            time.sleep(0.05)

    def release(self) -> None:
        """Lets others in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_locked(descriptor: int) -> bool:
    """Tells whether the lock was taken, or cannot be taken by anybody here."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    return True
