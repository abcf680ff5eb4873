"""Reading the rows of a log: list, ask, and list again where a file went meanwhile.

Lines that are no rows (the torn end of a killed process, a damaged block) are passed over, and
said: silence would make a loss look like a log that never had the row.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb

from comfynb.errors import LogError, QueryError
from comfynb.log import views
from comfynb.log.listing import Listing, list_segments

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pandas import DataFrame

Parameters = Sequence[Any] | Mapping[str, Any] | None

Answer = TypeVar("Answer")

_ATTEMPTS = 50


class Reader:
    """Answers questions about the rows of a log folder. Thread-safe.

    Args:
        root: The log folder; need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._counted: dict[Path, tuple[int, int]] = {}  # size in bytes, lines that are no rows
        self._damaged: set[str] = set()

    @property
    def skipped_lines(self) -> dict[str, int]:
        """Lines that were passed over, by file name; as of the last reading."""
        with self._lock:
            return {path.name: skipped for path, (_, skipped) in self._counted.items() if skipped}

    def rows(self, query: str, parameters: Parameters = None) -> list[dict[str, Any]]:
        """Ask one of our own questions.

        Raises:
            LogError: The log cannot be read.
        """

        def ask(connection: DuckDBPyConnection) -> list[dict[str, Any]]:
            answer = connection.execute(query, parameters)
            columns = [column[0] for column in answer.description]
            return [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]

        try:
            return self._ask(ask)
        except (duckdb.Error, OSError) as exc:
            raise self._unreadable(exc) from exc

    def frame(self, query: str, parameters: Parameters = None) -> DataFrame:
        """Ask a question of the user's.

        Raises:
            QueryError: It is not one SELECT, or DuckDB cannot answer it.
            LogError: The log cannot be read.
        """
        views.check(query)

        def ask(connection: DuckDBPyConnection) -> DataFrame:
            return connection.execute(query, parameters).df()

        try:
            return self._ask(ask)
        except (duckdb.IOException, OSError) as exc:
            raise self._unreadable(exc) from exc
        except duckdb.Error as exc:
            raise QueryError(f"{exc}. {views.ALLOWED}", folder=str(self.root)) from exc

    def _ask(self, ask: Callable[[DuckDBPyConnection], Answer]) -> Answer:
        listing = list_segments(self.root)
        for _ in range(_ATTEMPTS):
            try:
                with views.connect(listing) as connection:
                    self._count(listing, connection)
                    answer = ask(connection)
            except (duckdb.Error, OSError):
                before, listing = listing, list_segments(self.root)
                if listing == before:
                    raise
            else:
                return answer
        raise LogError(
            f"the log at {self.root} changes faster than it can be read", folder=str(self.root)
        )

    def _unreadable(self, exc: Exception) -> LogError:
        return LogError(f"cannot read the log at {self.root}: {exc}", folder=str(self.root))

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


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
