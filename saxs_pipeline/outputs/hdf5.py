"""HDF5 files made in memory and written at once: on a full disk the HDF5 library crashes instead of raising."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py


@contextmanager
def written_at_once(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file to fill, stored at `path` when all is in it; OSError if the path cannot be written."""
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        path.write_bytes(file.id.get_file_image())
