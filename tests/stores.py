"""Filesystems of fsspec's that need no server: one in memory that counts, fails and hangs."""

import time
from pathlib import PurePosixPath
from typing import ClassVar

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

__all__ = ["Store"]


class Store(AbstractFileSystem):
    """Objects by their keys, ``store://bucket/key``, read by ranges: as object stores are.

    What it does is the class's, since fsspec keeps instances: `objects` are contents and versions,
    `asked` what was read, (key, bytes); `refuses` is what it raises, `waits` the seconds that it
    takes to say what is there; `sizes` are sizes that are said instead of the real ones, "" for
    none at all.
    """

    protocol = "store"
    objects: ClassVar[dict[str, tuple[bytes, str]]] = {}
    asked: ClassVar[list[tuple[str, int]]] = []
    refuses: ClassVar[Exception | None] = None
    waits: ClassVar[float] = 0.0
    sizes: ClassVar[dict[str, int | str | None]] = {}

    @classmethod
    def put(cls, key, content):
        """Keep an object, in a new version."""
        cls.objects[key] = (content, f'"{len(cls.asked)}-{time.perf_counter_ns()}"')

    @classmethod
    def clear(cls):
        """Forget all."""
        cls.objects.clear()
        cls.asked.clear()
        cls.sizes.clear()
        cls.refuses, cls.waits = None, 0.0

    def _listed(self, key):
        if key in self.objects:
            content, version = self.objects[key]
            said = {"name": key, "size": len(content), "type": "file", "ETag": version}
            said["size"] = self.sizes.get(key, said["size"])
            return {name: value for name, value in said.items() if value != ""}
        return {"name": key, "size": 0, "type": "directory"}

    def ls(self, path, detail=True, **_):
        time.sleep(self.waits)
        if self.refuses is not None:
            raise self.refuses
        path = self._strip_protocol(path).strip("/")
        if path in self.objects:
            found = [path]
        else:
            above = [key for key in self.objects if key.startswith(f"{path}/") or not path]
            depth = len(PurePosixPath(path).parts) + 1
            found = sorted({"/".join(key.split("/")[:depth]) for key in above})
        if not found:
            raise FileNotFoundError(path)
        return [self._listed(key) if detail else key for key in found]

    def info(self, path, **_):
        path = self._strip_protocol(path).strip("/")
        return next((each for each in self.ls(path) if each["name"] == path), self._listed(path))

    def cat_file(self, path, start=None, end=None, **_):
        path = self._strip_protocol(path)
        if path not in self.objects:
            raise FileNotFoundError(path)
        content = self.objects[path][0][start:end]
        self.asked.append((path, len(content)))
        return content

    def _open(self, path, mode="rb", block_size=2**20, **more):
        return _File(self, path, mode, block_size=block_size, **more)


class _File(AbstractBufferedFile):
    def _fetch_range(self, start, end):
        return self.fs.cat_file(self.path, start, end)


fsspec.register_implementation("store", Store, clobber=True)
