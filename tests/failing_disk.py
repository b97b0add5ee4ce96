"""A disk that fails, or a signal that comes, at any chosen system call under a directory."""

import builtins
import contextlib
import errno
import io
import os
import pathlib
import re
import signal
import threading

NO_SPACE = (errno.ENOSPC, os.strerror(errno.ENOSPC))
_BY_DESCRIPTOR = ("write", "fsync", "ftruncate")
_BY_PATH = ("mkdir", "replace", "rename", "truncate")


class FailingDisk:
    """Watches what the process writes under `root`; does `action` at the calls that `fails` picks.

    Watched are the calls of Python. Libraries in C++ and Rust write by themselves: for those see
    `no_file_larger_than`.

    Attributes:
      calls: `(name, path)` of every call so far; digits and hashes of paths are replaced by #.
      hits: how many of them had the action.
    """

    def __init__(self, root, fails=lambda call, number: False, action=None):
        self.root = os.path.realpath(root)
        self.calls, self.hits = [], 0
        self._fails, self._action = fails, action or self._no_space
        self._lock = threading.Lock()

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        for name in _BY_DESCRIPTOR:
            self._patch(os, name, lambda fd, *_: _path_of(fd))
        for name in _BY_PATH:
            self._patch(os, name, lambda path, *_, **__: path)
        self._patch(os, "open", lambda path, flags, *_, **__: path if flags & _WRITING else None)
        self._patch(os, "sendfile", lambda out, *_: _path_of(out))
        opened = lambda file, mode="r", *_, **__: file if set(mode) & set("wax+") else None  # noqa: E731
        for module in (builtins, io):
            self._patch(module, "open", opened, wrap=self._watched)
        return self

    def __exit__(self, *error):
        self._stack.close()

    def _patch(self, module, name, path_of, wrap=None):
        real = getattr(module, name)

        def call(*args, **kwargs):
            path = self._ours(path_of(*args, **kwargs))
            if path is None:
                return real(*args, **kwargs)
            self._called(name, path)
            result = real(*args, **kwargs)
            return wrap(result, path) if wrap else result

        setattr(module, name, call)
        self._stack.callback(setattr, module, name, real)

    def _ours(self, path):
        """The path below the root, None for any other."""
        if path is None or isinstance(path, int):
            return None
        path = os.path.realpath(os.path.dirname(os.fspath(path)) or ".") + (
            os.sep + os.path.basename(os.fspath(path))
        )
        inside = path == self.root or path.startswith(self.root + os.sep)
        return os.path.relpath(path, self.root) if inside else None

    def _called(self, name, path):
        call = (name, _normal(path))
        with self._lock:
            self.calls.append(call)
            hit = self._fails(call, len(self.calls) - 1)
            self.hits += hit
        if hit:
            self._action(path)

    def _no_space(self, path):
        raise OSError(*NO_SPACE, str(pathlib.Path(self.root) / path))

    def _watched(self, stream, path):
        """A stream of Python whose data reach the disk in a call of their own."""
        return _Stream(stream, lambda: self._called("write", path))


class _Stream:
    """Delegates everything; says so before it writes."""

    def __init__(self, stream, before):
        self._stream, self._before = stream, before

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stream.close()

    def __iter__(self):
        return iter(self._stream)

    def write(self, data):
        self._before()
        return self._stream.write(data)


_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _path_of(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return None


def _normal(path):
    """The same for every step and every random name."""
    return re.sub(r"\d+", "#", re.sub(r"[0-9a-f]{16,}|(?<=-)\w{8}(?=\.tmp)", "#", path))


def interrupt(path):
    """Ctrl-C, by a real signal."""
    del path
    os.kill(os.getpid(), signal.SIGINT)


def terminate(path):
    """What a scheduler sends, by a real signal."""
    del path
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def no_file_larger_than(size):
    """Every write beyond `size` bytes of a file fails, in libraries of C++ and Rust as well."""
    import resource  # noqa: PLC0415  not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
