"""The files of the jobs that a process works on."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from crowdtrain.chain import Job, JobId
from crowdtrain.jobs import JobFiles
from crowdtrain.manifest import MAX_MANIFEST, Manifest
from crowdtrain.stores import Store
from crowdtrain.watch import Book

__all__ = ["Shelf"]

KEPT = 2
"""jobs whose files are kept though nothing is done with them"""


class Shelf:
    """Files of jobs by job, each fetched when it is first asked for. May be used from several threads.

    No dataset or state of more than ``max_bytes`` is loaded.
    """

    def __init__(self, store: Store, max_bytes: int) -> None:
        self.store = store
        self._max_bytes = max_bytes
        self._files: dict[JobId, JobFiles] = {}
        self._books: dict[JobId, Book] = {}

    def get(self, job: Job) -> JobFiles:
        """The job's files. Raises PlanError if they contradict its terms, and what the store raises."""
        files = self._files.get(job.id)
        if files is None:
            manifest = Manifest.decode(self.store.get(job.manifest, MAX_MANIFEST))
            files = JobFiles(self.store, job, manifest, max_bytes=self._max_bytes)
            self._files[job.id] = files
            self._books[job.id] = Book(files.plan, manifest.initial.group_roots)
        return files

    @property
    def books(self) -> Mapping[JobId, Book]:
        """Plans of the jobs whose files were fetched."""
        return dict(self._books)

    def trim(self, used: Collection[JobId], known: Collection[JobId]) -> None:
        """Frees the files of most jobs that are not ``used``, and everything of those not even ``known``."""
        idle = [job for job in self._files if job not in used]
        for job in idle[: max(0, len(idle) - KEPT)]:
            del self._files[job]
        for job in self._books.keys() - set(known):
            del self._books[job]
