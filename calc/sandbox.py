"""SQL that anyone may ask: in a process of its own, on a connection that reads the product's tables and nothing else.

The process has a limit of time, of rows, of bytes and of memory. What goes beyond is interrupted, or the process is
killed; either way whoever asked gets a sentence and the asking process goes on. Only SELECT is run, after any number
of SET VARIABLE, on a connection whose configuration is locked and that reaches no file but those of the grid.
"""

from __future__ import annotations

import io
import json
import re
import resource
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import duckdb
import polars as pl

from calc.errors import CalcError
from calc.tables import ROOT, load

ALLOWED = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
VARIABLE = re.compile(r"\s*set\s+variable\s", re.IGNORECASE)
EXPLAINED = re.compile(r"^\s*explain\s+(analyze\s+)?", re.IGNORECASE)
MOST_CHARACTERS = 100_000
KEPT = 3
"""Connections that a process keeps, each with the views that some query named."""
GRACE_S = 3.0
"""How long after an interrupt a process is killed: some work does not listen."""
START_S = 60.0


@dataclass(frozen=True)
class Limits:
    """What a query may take: seconds, rows and bytes of its answer, bytes of memory in DuckDB and in its process."""

    seconds: float = 30.0
    rows: int = 10_000
    answer_bytes: int = 50_000_000
    memory_bytes: int = 1_500_000_000
    process_bytes: int = 6_000_000_000


@dataclass(frozen=True)
class Found:
    """An answer: at most the limit's rows, whether there are more, and the seconds that it took."""

    frame: pl.DataFrame
    is_cut: bool
    seconds: float


class Sandbox:
    """A process that answers queries over one data folder and, where one is given, one grid."""

    def __init__(self, folder: Path, grid: Path | None = None, limits: Limits | None = None) -> None:
        self.folder, self.grid, self.limits = folder, grid, limits or Limits()
        self.used = time.monotonic()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def ask(self, query: str) -> Found:
        """Return the answer to a query; raises CalcError with what is wrong, or which limit it went beyond."""
        with self._lock:
            self.used = time.monotonic()
            try:
                return self._asked(query)
            finally:
                self.used = time.monotonic()

    def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process, self._pipe = self._process, None, None
        if process is not None:
            process.kill()
            process.wait()

    def _asked(self, query: str) -> Found:
        was_running = self._is_running()
        pipe = self._started()
        try:
            pipe.send(query)
            if not pipe.poll(self.limits.seconds + GRACE_S):
                self.close()
                raise CalcError(f"stopped after {self.limits.seconds:g} s: ask for less")
            kind, *answer = pipe.recv()
        except (EOFError, OSError) as error:
            self.close()
            if was_running:
                # what ended it may have been an earlier query's work: a process of its own tells
                return self._asked(query)
            raise CalcError("stopped: the query took more memory than it may; ask for less") from error
        if kind == "error":
            raise CalcError(str(answer[0]))
        content, is_cut, seconds = answer
        return Found(pl.read_ipc(io.BytesIO(content)), bool(is_cut), float(seconds))

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _started(self) -> Connection:
        if self._is_running() and self._pipe is not None:
            return self._pipe
        self._pipe, theirs = Pipe()
        told = json.dumps({"folder": str(self.folder), "grid": self.grid and str(self.grid), **asdict(self.limits)})
        # not multiprocessing's own start: it would import the asking process's main script, which may be an app
        self._process = subprocess.Popen(
            [sys.executable, "-m", "calc.sandbox", str(theirs.fileno()), told], cwd=ROOT, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        if not self._pipe.poll(START_S) or self._pipe.recv() != "ready":
            self.close()
            raise CalcError("the process for queries did not start; try again")
        return self._pipe


def _serve(pipe: Connection, folder: str, grid: str | None, limits: Limits) -> None:
    """Answer queries until the asking process hangs up."""
    resource.setrlimit(resource.RLIMIT_AS, (limits.process_bytes, limits.process_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    tables = load(folder)
    # what the first query would wait for is no part of its time
    import_module("calc.database")
    connections: dict[str, duckdb.DuckDBPyConnection] = {}
    pipe.send("ready")
    while True:
        try:
            query = pipe.recv()
        except EOFError:
            return
        try:
            start = time.perf_counter()
            statements = _checked(query)
            connection = _connection(connections, tables, grid, query, limits)
            content, is_cut = _run(connection, statements, limits)
            pipe.send(("found", content, is_cut, time.perf_counter() - start))
        except (duckdb.Error, CalcError, MemoryError, pl.exceptions.PolarsError) as error:
            pipe.send(("error", _told(error, limits)))


def _checked(query: str) -> list[duckdb.Statement]:
    """Return a query's statements; raises CalcError for what is not a question."""
    if len(query) > MOST_CHARACTERS:
        raise CalcError(f"the query has {len(query):,} characters; it may have {MOST_CHARACTERS:,}")
    statements = duckdb.extract_statements(query)
    if not statements:
        raise CalcError("there is no query; try: from models limit 5")
    for place, statement in enumerate(statements):
        kind, is_last = statement.type, place == len(statements) - 1
        if kind == duckdb.StatementType.SET and VARIABLE.match(statement.query) and not is_last:
            continue
        if kind == duckdb.StatementType.EXPLAIN:
            inner = duckdb.extract_statements(EXPLAINED.sub("", statement.query, count=1))
            kind = inner[0].type if inner else kind
        if kind != duckdb.StatementType.SELECT or not is_last:
            named = str(statement.type).rpartition(".")[2]
            raise CalcError(f"{named} is refused: ask one SELECT (FROM, WITH, EXPLAIN), after SET VARIABLE if need be")
    return list(statements)


def _connection(
    known: dict[str, duckdb.DuckDBPyConnection], tables: object, grid: str | None, query: str, limits: Limits
) -> duckdb.DuckDBPyConnection:
    """Return a locked connection with the views that a query names."""
    from calc.database import IN_PYTHON, connect, views_named

    named = " ".join(sorted(views_named(query) | IN_PYTHON & set(re.findall(r"\w+", query.lower()))))
    if named in known:
        return known[named]
    while len(known) >= KEPT:
        known.pop(next(iter(known))).close()
    connection = connect(tables, grid, query=query)  # type: ignore[arg-type]
    for setting in (
        f"memory_limit = '{limits.memory_bytes}B'", "threads = 2", "temp_directory = ''",
        *([f"allowed_directories = ['{grid}']"] if grid else []), "autoinstall_known_extensions = false",
        "autoload_known_extensions = false", "allow_community_extensions = false", "enable_external_access = false",
        "lock_configuration = true",
    ):  # fmt: skip
        connection.execute(f"set {setting}")
    known[named] = connection
    return connection


def _run(
    connection: duckdb.DuckDBPyConnection, statements: list[duckdb.Statement], limits: Limits
) -> tuple[bytes, bool]:
    """Run statements and return the last one's rows as an Arrow file, and whether there are more."""
    # variables are the cursor's own, so the next query does not find them
    cursor = connection.cursor()
    timer = threading.Timer(limits.seconds, cursor.interrupt)
    timer.start()
    try:
        for statement in statements[:-1]:
            cursor.execute(statement.query)
        batches, rows, size = [], 0, 0
        for batch in cursor.sql(statements[-1].query).to_arrow_reader(2048):
            batches.append(pl.DataFrame(batch))
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows > limits.rows or size > limits.answer_bytes:
                break
    finally:
        timer.cancel()
        cursor.close()
    whole = pl.concat(batches) if batches else pl.DataFrame()
    if size > limits.answer_bytes:
        most = f"{limits.answer_bytes:,} bytes"
        raise CalcError(f"stopped: the answer is larger than {most}; ask for fewer columns or rows")
    file = io.BytesIO()
    whole.head(limits.rows).write_ipc(file)
    return file.getvalue(), rows > limits.rows


def _told(error: BaseException, limits: Limits) -> str:
    if isinstance(error, duckdb.InterruptException):
        return f"stopped after {limits.seconds:g} s: ask for less"
    if isinstance(error, duckdb.OutOfMemoryException | MemoryError):
        return f"stopped: the query took more memory than it may, {limits.memory_bytes / 1e9:.3g} GB; ask for less"
    return str(error).partition("\n\nStack Trace")[0].strip()


if __name__ == "__main__":
    asked = json.loads(sys.argv[2])
    _serve(Connection(int(sys.argv[1])), asked.pop("folder"), asked.pop("grid"), Limits(**asked))
