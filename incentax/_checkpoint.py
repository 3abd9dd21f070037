"""Checkpoints: what a run is between two chunks, in files that are whole or not there."""

import hashlib
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ._checks import warn
from ._description import differences
from ._devices import of_all, on_host, over_devices
from ._environment import environment
from ._files import writable_folder, write_whole

# A newer layout of the files has another number.
_FORMAT = "incentax checkpoint 1"
# Environment that must be the same for a run to go on bit by bit.
_SAME = ("versions", "python", "dtype", "device")
TERMINATED = 128 + signal.SIGTERM


class Checkpoint:
    """A folder for the state of a run, and how often it is written.

    A file holds optimiser, play, history, keys and what the run is of; it appears whole or not
    at all, and the last two are kept.

    **Arguments:**

    - `folder`: its own for every run: a second run refuses it while the first one goes on.
    - `seconds`: at most so often, 0 after every chunk. The end, an interrupt and an error are
      written whatever the clock says.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp, optax, tempfile
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Reals())
        >>> scheme = ix.DesignAndPlay(optax.sgd(0.1), play_step=0.5)
        >>> keep = ix.Checkpoint(tempfile.mkdtemp(), seconds=60)
        >>> first = ix.design(problem, jnp.zeros(1), scheme, steps=50, checkpoint=keep)
        >>> more = ix.design(problem, jnp.zeros(1), scheme, steps=80, checkpoint=keep, resume=True)
        >>> int(first.steps), int(more.steps), more.history.step.size
        (50, 80, 80)
    """

    def __init__(self, folder: str | os.PathLike, *, seconds: float = 60.0):
        if not isinstance(folder, str | os.PathLike):
            raise TypeError(f"`Checkpoint(folder)` needs a path, got {folder!r}")
        if not str(folder):
            raise ValueError("`Checkpoint(folder)` needs a path, got ''")
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            raise TypeError(f"`Checkpoint(seconds=...)` needs a number, got {seconds!r}")
        if not seconds >= 0:
            raise ValueError(f"`Checkpoint(seconds=...)` needs seconds >= 0, got {seconds}")
        self.folder, self.seconds = Path(folder), float(seconds)


def as_checkpoint(owner: str, given: Any, resume: bool) -> Checkpoint | None:
    """A `Checkpoint` from what `checkpoint=` accepts."""
    if given is None and resume:
        raise ValueError(f"`{owner}(resume=True)` needs the `checkpoint` to go on from, got None")
    return given if given is None or isinstance(given, Checkpoint) else Checkpoint(given)


class Store:
    """An open checkpoint: its folder is this process's alone. `count` is that of the last file."""

    def __init__(self, checkpoint: Checkpoint, owner: str, what: dict[str, str]):
        self.folder, self.seconds = checkpoint.folder, checkpoint.seconds
        self.owner, self.what = owner, what
        self.count, self.written, self.failed = 0, time.monotonic(), False
        # The last count that was to be written, whether or not it was: the same in all processes.
        self.asked = 0
        self.environment = environment()

    def files(self) -> list[Path]:
        """The latest first."""
        return sorted(self.folder.glob("run-*.ckpt"), reverse=True)

    def due(self) -> bool:
        """Whether it is time for another file."""
        return time.monotonic() - self.written >= self.seconds

    def save(self, tree: PyTree, count: int, about: dict[str, Any]) -> None:
        """Writes `tree`; a full disk ends no run, and is told once."""
        payload = io.BytesIO()
        eqx.tree_serialise_leaves(payload, jax.tree.map(_as_plain, tree))
        about = {"count": count, **about, "environment": self.environment, "of": self.what}
        header = json.dumps(about).encode() + b"\n" + payload.getvalue()
        text = f"{_FORMAT} {hashlib.sha256(header).hexdigest()}\n".encode() + header
        path, before = self.folder / f"run-{count:012d}.ckpt", self.files()
        self.written = time.monotonic()
        try:
            write_whole(path, lambda temporary: _write_through(temporary, text))
            # Later ones are of a run from which another process was behind.
            for old in [one for one in before if _count_of(one) < count][1:]:
                old.unlink(missing_ok=True)
            for late in [one for one in before if _count_of(one) > count]:
                late.unlink(missing_ok=True)
        except OSError as error:
            if not self.failed:
                last = f"the last one is of step {self.count}" if before else "there is none yet"
                warn(
                    f"`{self.owner}(checkpoint=...)`: not written, the run goes on; {last}: {error}"
                )
            self.failed = True
        else:
            self.count, self.failed = count, False
        # Not before: what interrupts a write is followed by another one.
        self.asked = count

    def tell(self, error: BaseException, what: str, again: str) -> None:
        """Adds to what ends a run where it is saved, and how to go on."""
        if not self.count:
            return
        told = f"{self.owner}: saved in {self.folder} up to {what} {self.count}; {again}"
        error.add_note(told)
        if isinstance(error, SystemExit):  # of which Python shows nothing
            (sys.__stderr__ or sys.stderr).write(told + "\n")

    def load(self, *, together: bool = False) -> "Saved | None":
        """The latest file that is whole; `None` without any, `ValueError` for another run's.

        `together`: of a run that several processes share, the latest that all of them have.
        """
        saved = self._load(self.files())
        if not together:
            return saved
        counts = of_all(self.count)
        common = int(counts.min())
        if (counts == common).all():
            return saved
        if self.count != common and common:
            saved = self._load([path for path in self.files() if _count_of(path) <= common])
        if not (common and (of_all(self.count) == common).all()):
            told = ", ".join(str(int(count)) for count in counts.ravel())
            raise ValueError(
                f"`{self.owner}(resume=True)` needs a step that every process has kept, got "
                f"{self.folder} and its neighbours, whose last ones are {told}"
            )
        return saved

    def _load(self, files: list[Path]) -> "Saved | None":
        for path in files:
            saved = _read(path)
            if saved is None:
                last = path == files[-1]
                rest = "and there is no other" if last else "the one before is gone on with"
                warn(f"`{self.owner}(resume=True)`: {path} is cut short or damaged; {rest}")
                continue
            self._refuse_another(saved.about)
            self.count = self.asked = saved.about["count"]
            for damaged in files[: files.index(path)]:
                damaged.unlink()
            return saved
        if files:
            raise ValueError(
                f"`{self.owner}(resume=True)` needs a checkpoint that is whole, got {self.folder}, "
                f"where {', '.join(path.name for path in files)} cannot be read: to begin anew, "
                "choose another folder or delete its files"
            )
        return None

    def _refuse_another(self, about: dict[str, Any]) -> None:
        then, now = ({name: one[name] for name in _SAME}
                     for one in (about["environment"], self.environment))  # fmt: skip
        told = differences(_flat(then), _flat(now))
        told += differences(about["of"], self.what)
        if told:
            more = f", and {len(told) - 4} more" if len(told) > 4 else ""
            raise ValueError(
                f"`{self.owner}(resume=True)` needs the checkpoint of this run, got "
                f"{self.folder}, of another one: {'; '.join(told[:4])}{more}. Choose another folder"
            )


class Saved:
    """A file that is whole: `about` is its JSON, `restored(like)` its leaves in that structure."""

    def __init__(self, about: dict[str, Any], payload: bytes):
        self.about, self.payload = about, payload

    def restored(self, like: PyTree, *, on_host: bool = False) -> PyTree:
        """`like` may hold shapes in place of arrays; `on_host`: as numpy arrays."""
        plain = jax.tree.map(_plain_shape, like)
        leaves = eqx.tree_deserialise_leaves(io.BytesIO(self.payload), plain)
        if on_host:
            return jax.tree.map(lambda leaf, as_was: leaf.view(as_was.dtype), leaves, like)
        return jax.tree.map(_as_before, leaves, like)


@contextmanager
def opened(
    checkpoint: Checkpoint, owner: str, what: dict[str, str], *, resume: bool
) -> Iterator[Store]:
    """The folder of a checkpoint, for one run at a time.

    `ValueError` while another process uses it, or where it holds a run that is not to be resumed.
    """
    writable_folder(checkpoint.folder, f"{owner}(checkpoint=...)")
    with _locked(checkpoint.folder, f"{owner}(checkpoint=...)"):
        for left in checkpoint.folder.glob("tmp*.ckpt"):  # by a process that was killed
            left.unlink(missing_ok=True)
        store = Store(checkpoint, owner, what)
        if store.files() and not resume:
            raise ValueError(
                f"`{owner}(checkpoint=...)` needs a folder without a run, got {checkpoint.folder}, "
                f"which holds {store.files()[0].name}. `resume=True` goes on with it; to begin "
                "anew, choose another folder or delete its files"
            )
        yield store


def cleared(folder: Path, owner: str) -> None:
    """Removes what a folder holds; `ValueError` while a run uses it."""
    if folder.is_dir():
        with _locked(folder, owner):
            for path in folder.glob("run-*.ckpt"):
                path.unlink()


@contextmanager
def _locked(folder: Path, owner: str) -> Iterator[None]:
    """The system gives the lock back when the process ends, however it does."""
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:  # on Windows there is no lock
        yield
        return
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"`{owner}` needs a folder of its own, got {folder}, which another run uses now"
            ) from None
        except OSError as error:  # of file systems that know no locks
            warn(f"`{owner}`: {folder} cannot be locked: see that one run uses it ({error})")
        yield


def own_share(checkpoint: Checkpoint, owner: str) -> Checkpoint:
    """Each process has a folder of its own."""
    count, folder = jax.process_count(), checkpoint.folder
    share = "run-*.ckpt" if count == 1 else f"process-*-of-{count}"
    there = {path.name for path in (*folder.glob("run-*.ckpt"), *folder.glob("process-*-of-*"))}
    others = there - {path.name for path in folder.glob(share)}
    if others:
        raise ValueError(
            f"`{owner}(checkpoint=...)` needs as many processes as have begun in its folder, got "
            f"{count} for {folder}, which holds {', '.join(sorted(others))}"
        )
    if count == 1:
        return checkpoint
    own = folder / f"process-{jax.process_index()}-of-{count}"
    return Checkpoint(own, seconds=checkpoint.seconds)


def _count_of(path: Path) -> int:
    return int(path.stem.removeprefix("run-"))


def _flat(tree: dict[str, Any]) -> dict[str, str]:
    """A dictionary of dictionaries, as lines."""
    flat = {}
    for name, one in tree.items():
        parts = one.items() if isinstance(one, dict) else [(None, one)]
        flat |= {name if part is None else f"{name} of {part}": str(value) for part, value in parts}
    return flat


def _write_through(path: Path, content: bytes) -> None:
    """To the disk, and not only to the system's memory."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> Saved | None:
    first, _, rest = path.read_bytes().partition(b"\n")
    if not first.startswith(_FORMAT.encode()) and first.startswith(b"incentax checkpoint"):
        raise ValueError(
            f"`checkpoint=...` needs files of this version, got {path}, {first[:40].decode()!r}"
        )
    if first.decode(errors="replace") != f"{_FORMAT} {hashlib.sha256(rest).hexdigest()}":
        return None
    header, _, payload = rest.partition(b"\n")
    return Saved(json.loads(header), payload)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_plain(leaf: Any) -> np.ndarray:
    plain = on_host(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    return plain.view(_bits(plain.dtype))


def _plain_shape(leaf: Any) -> np.ndarray:
    shape = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return np.empty(shape.shape, _bits(np.dtype(shape.dtype)))


def _bits(dtype: np.dtype) -> np.dtype:
    """Of numbers that numpy's files do not know, such as bfloat16: whole ones of their length."""
    return np.dtype(f"u{dtype.itemsize}") if dtype.kind == "V" else dtype


def _as_before(saved: np.ndarray, like: Any) -> Any:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(saved), impl=like.dtype)
    saved = saved.view(np.dtype(like.dtype))
    sharding = getattr(like, "sharding", None)
    if isinstance(sharding, jax.sharding.NamedSharding):
        return over_devices(saved, sharding)
    # A place that was not asked for before is not asked for now: programs are told apart by it.
    return jax.device_put(saved)


@contextmanager
def terminable(*, at_once: bool = True) -> Iterator[Callable[[], bool]]:
    """Within it the signal to terminate, which clusters send, raises `SystemExit(TERMINATED)`.

    Where it is not `at_once` to do so, what this gives says whether it came.
    """
    came = threading.Event()
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield came.is_set
        return

    def end(number: int, frame: Any) -> None:
        del number, frame
        came.set()
        if at_once:
            raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, end)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
