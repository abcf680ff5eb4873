"""Reading the rows of a log: list, ask, and list again where a file went meanwhile.

A database over a listing is kept for as long as the listing stays the same; segments that grow are
read again each time.

Lines that are no rows (the torn end of a killed process, a damaged block) are passed over, and
said: silence would make a loss look like a log that never had the row.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb

from comfynb.errors import LogError, QueryError
from comfynb.log import views
from comfynb.log.listing import Listing, list_segments
from comfynb.log.schema import ROW_VERSION

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pandas import DataFrame

Parameters = Sequence[Any] | Mapping[str, Any] | None

Answer = TypeVar("Answer")

_ATTEMPTS = 50
_ABOUT_THE_QUERY = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConversionException,
    duckdb.ParserException,
    duckdb.PermissionException,
)


class _Database:
    """The database over one listing; kept, since to open one takes longer than most questions.

    Raises:
        duckdb.Error: A file of the listing is gone.
    """

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.connection = views.connect(listing)
        self._made: dict[str, views.Survey] = {}
        self._sizes: list[int] | None = None
        self._found = views.Survey(doubled=False, version=0)

    def make(self, names: Sequence[str]) -> views.Survey:
        """Make the views of these names, unless they are there; return what they rest on."""
        if names:
            sizes = [path.stat().st_size for path in self.listing.active]
            if sizes != self._sizes:
                self._found, self._sizes = views.survey(self.connection), sizes
        for name in names:
            if self._made.get(name) != self._found:
                self.connection.execute(views.view(name, self._found))
                self._made[name] = self._found
        return self._found


class Reader:
    """Answers questions about the rows of a log folder. Thread-safe.

    Args:
        root: The log folder; need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        # Re-entrant: a garbage collection that closes a log may fall into its own call.
        self._lock = threading.RLock()
        self._counted: dict[Path, tuple[int, int]] = {}  # size in bytes, lines that are no rows
        self._damaged: set[str] = set()
        self._rejected: set[Path] = set()
        self._database: _Database | None = None
        self._said_newer = False
        _readers.add(self)

    @property
    def skipped_lines(self) -> dict[str, int]:
        """Lines that were passed over, by file name; as of the last reading."""
        with self._lock:
            return {path.name: skipped for path, (_, skipped) in self._counted.items() if skipped}

    @property
    def damaged(self) -> tuple[str, ...]:
        """Names of the segments that have been left out, as they cannot be read."""
        with self._lock:
            return tuple(sorted(self._damaged))

    def rows(self, query: str, parameters: Parameters = None) -> list[dict[str, Any]]:
        """Ask a question of ours; a part of it may be the user's.

        Raises:
            QueryError: It is not one SELECT, or DuckDB cannot answer it.
            LogError: The log cannot be read.
        """

        def ask(connection: DuckDBPyConnection) -> list[dict[str, Any]]:
            answer = connection.execute(query, parameters)
            columns = [column[0] for column in answer.description]
            return [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]

        return self._answer(query, ask)

    def frame(self, query: str, parameters: Parameters = None) -> DataFrame:
        """Ask a question of the user's.

        Raises:
            QueryError: It is not one SELECT, or DuckDB cannot answer it.
            LogError: The log cannot be read.
        """

        def ask(connection: DuckDBPyConnection) -> DataFrame:
            return connection.execute(query, parameters).df()

        return self._answer(query, ask)

    def close(self) -> None:
        """Give up what is held open; another question opens it again."""
        with self._lock:
            self._database = None

    def _answer(self, query: str, ask: Callable[[DuckDBPyConnection], Answer]) -> Answer:
        try:
            return self._ask(query, ask)
        except (duckdb.IOException, OSError) as exc:
            text = f"cannot read the log at {self.root}: {exc}"
            raise LogError(text, folder=str(self.root)) from exc
        except duckdb.Error as exc:
            raise QueryError(f"{exc}. {views.ALLOWED}", folder=str(self.root)) from exc

    def _ask(self, query: str, ask: Callable[[DuckDBPyConnection], Answer]) -> Answer:
        listing = self._list()
        for _ in range(_ATTEMPTS):
            try:
                with self._lock:
                    database = self._opened(listing)
                    found = database.make(views.mentioned(query))
                with database.connection.cursor() as cursor:
                    views.check(query, cursor)
                    self._say_newer(found)
                    self._count(listing, cursor)
                    return ask(cursor)
            except (duckdb.Error, OSError) as exc:
                before, listing = listing, self._list()
                if listing == before:
                    if isinstance(exc, _ABOUT_THE_QUERY) or not self._reject(listing):
                        raise
                    listing = self._list()
        raise LogError(
            f"the log at {self.root} changes faster than it can be read", folder=str(self.root)
        )

    def _list(self) -> Listing:
        listing = list_segments(self.root)
        with self._lock:
            rejected = self._rejected.intersection((*listing.sealed, *listing.active))
        if not rejected:
            return listing
        return dataclasses.replace(
            listing,
            sealed=tuple(path for path in listing.sealed if path not in rejected),
            active=tuple(path for path in listing.active if path not in rejected),
            damaged=(*listing.damaged, *sorted(path.name for path in rejected)),
        )

    def _reject(self, listing: Listing) -> bool:
        """Find the files that look whole and cannot be read; they would fail every query."""
        bad = set(filter(_may_be_read, views.unsound(listing)))
        with self._lock:
            self._rejected |= bad
        return bool(bad)

    def _opened(self, listing: Listing) -> _Database:
        known = self._database
        if known is None or known.listing != listing:
            self._database = known = _Database(listing)
        return known

    def _say_newer(self, found: views.Survey) -> None:
        if found.version > ROW_VERSION and not self._said_newer:
            self._said_newer = True
            warnings.warn(
                f"the log at {self.root} has rows of a newer comfynb (version {found.version}; "
                f"this one knows {ROW_VERSION}), which are left out. "
                "Upgrade: pip install -U comfynb",
                stacklevel=5,
            )

    def _count(self, listing: Listing, connection: DuckDBPyConnection) -> None:
        """Find what is passed over in files that changed since they were last looked at."""
        with self._lock:
            sizes = {path: path.stat().st_size for path in listing.active if path.exists()}
            changed = {
                path: size
                for path, size in sizes.items()
                if self._counted.get(path, (None, 0))[0] != size
            }
        news = []
        if changed:
            lines = {path: _lines(path) for path in changed}
            query = views.count_rows(changed)
            rows = {Path(name): count for name, count in connection.execute(query).fetchall()}
            for path, size in changed.items():
                if path.stat().st_size != size:
                    continue  # it grew between the two counts: looked at again next time
                skipped = max(0, lines[path] - rows.get(path, 0))
                with self._lock:
                    before = self._counted.get(path, (0, 0))[1]
                    self._counted[path] = (size, skipped)
                if skipped > before:
                    news.append(f"{skipped} damaged line(s) of seg/{path.name}")
        with self._lock:
            news += [f"the damaged file seg/{n}" for n in listing.damaged if n not in self._damaged]
            self._damaged.update(listing.damaged)
        if news:
            text = f"the log at {self.root} is read without {', '.join(news)}"
            warnings.warn(f"{text}; all other rows are there", stacklevel=4)


def _may_be_read(path: Path) -> bool:
    try:
        with path.open("rb"):
            return True
    except OSError:
        return False


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


_readers: weakref.WeakSet[Reader] = weakref.WeakSet()


def _close_before_fork() -> None:
    """Close the databases: a child would have them without their threads, and die closing them."""
    for reader in list(_readers):
        reader.close()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_close_before_fork)
