"""A log of 100,000 keyframes and 5,000 marks, beside the same in one .duckdb file and in SQLite.

Each question is asked by a fresh process, imports included, in turns. The rows are written as a
log writes them (lines, sealed, merged), without their pictures. The two others have marks in a
table of their own, and a view `said` of what was said last, as a log's views have it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import sqlite3
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
from PIL import Image

from bench.figures import Row
from bench.starting import process_seconds
from comfynb.keyframes import Keyframe, Output, Timings
from comfynb.log import Log, Mark, folder, records
from comfynb.scenes import Scene
from comfynb.workflows import Workflow

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
SCENES = 5000
MARKED = 20
"""Of so many keyframes one is rated, tagged or picked."""
OPEN = {
    "log": "from comfynb.log import Log; log = Log({log!r}); ask = log.sql; ",
    "duck": (
        "import duckdb; base = duckdb.connect({duck!r}, read_only=True); "
        "ask = lambda query: base.execute(query).df(); "
    ),
    "lite": (
        "import sqlite3; base = sqlite3.connect({lite!r}); "
        "ask = lambda query: base.execute(query).fetchall(); "
    ),
}
OTHERS = {"duck": "one .duckdb file", "lite": "SQLite in WAL mode"}
GROUP = "ask('select status, count(*) from keyframes group by status')"
LATEST = """ask("select scene, {} from keyframes where status = 'done' group by scene")"""
NARROW = (
    "select id, run, key, scene, title, prompt, negative, seed, knobs, axes, status, timings, "
    "error, server, server_version, outputs, warnings, created_at, rating, tags, picked "
    "from keyframes left join said on target = id"
)
RATED = (
    'ask("""select {cfg} as cfg, avg(rating) as rating from keyframes {said} '
    'where rating is not null group by 1""")'
)
SAID = """
    create view said as select target, {columns} from (
        select * from (
            select *, row_number() over (
                partition by target, field order by created_at desc, id desc
            ) as place from marks
        ) where place = 1 and value is not null
    ) group by target
"""
LASTLY = {
    "duck": (
        "max(try_cast(value as tinyint)) filter (field = 'rating') as rating, "
        "list(field[5:]) filter (field like 'tag:%') as tags, bool_or(field = 'pick') as picked"
    ),
    "lite": (
        "max(cast(value as integer)) filter (where field = 'rating') as rating, "
        "group_concat(substr(field, 5)) filter (where field like 'tag:%') as tags, "
        "max(field = 'pick') as picked"
    ),
}
QUESTIONS = {
    "group by status": dict.fromkeys(OPEN, GROUP),
    "latest of each scene": {
        "log": LATEST.format("arg_max(id, created_at)"),
        "duck": LATEST.format("arg_max(id, created_at)"),
        "lite": LATEST.format("id, max(created_at)"),
    },
    "average rating of each cfg": {
        "log": RATED.format(cfg="cfg", said=""),
        "duck": RATED.format(cfg="knobs['cfg']::double", said="join said on target = id"),
        "lite": RATED.format(
            cfg="cast(knobs ->> '$.cfg' as real)", said="join said on target = id"
        ),
    },
    "all as a frame": {
        "log": "log.df()",
        "duck": f"ask({NARROW!r})",
        "lite": f"import pandas; pandas.read_sql_query({NARROW!r}, base)",
    },
}


def measure(place: Path, *, rounds: int, quick: bool) -> list[Row]:
    """Fill all three, then ask them in turns."""
    count = 4000 if quick else 100_000
    names = {kind: str(place / f"history.{kind}") for kind in ("log", "duck", "lite")}
    fill_log(Path(names["log"]), count)
    _fill_others(names)
    rows = []
    for title, codes in QUESTIONS.items():
        times: dict[str, list[float]] = {kind: [] for kind in codes}
        for _ in range(1 + rounds):
            for kind, code in codes.items():
                times[kind].append(process_seconds(OPEN[kind].format(**names) + code) * 1000)
        what = f"log of {count:,} keyframes, fresh process, {title}"
        for kind, name in OTHERS.items():
            rows.append(Row(f"{what}, beside {name}", times["log"][1:], times[kind][1:]))
    sizes = {kind: _size(Path(name)) / 1e6 for kind, name in names.items()}
    for kind, name in OTHERS.items():
        what = f"log of {count:,} keyframes, size of the rows, beside {name}"
        rows.append(Row(what, [sizes["log"]], [sizes[kind]], unit="MB"))
    return rows


def thumbnails(place: Path, *, rounds: int, quick: bool) -> list[Row]:
    """A fresh process until it has the thumbnails of a thousand scenes."""
    count = 100 if quick else 1000
    log = Log(place / "thumbnails")
    for number, keyframe in enumerate(_keyframes(count)):
        data = _picture(number)
        output = Output("9", 0, hashlib.sha256(data).hexdigest(), "image/png", len(data), 256, 256)
        log.add_result(dataclasses.replace(keyframe, outputs=(output,), status="done"), [data])
        log.thumbnail(output.sha256)
    log.close()
    code = OPEN["log"].format(log=str(log.folder)) + (
        "made = [k for k in log.latest() if k.ok]; "
        "small = [log.thumbnail(k.outputs[0].sha256).read_bytes() for k in made]; "
        f"assert len(small) == {count}"
    )
    seconds = [process_seconds(code) for _ in range(1 + rounds)][1:]
    what = f"log, fresh process until the thumbnails of {count:,} scenes are there"
    return [Row(what, seconds, unit="s", limit=1.0)]


def _keyframes(count: int) -> Iterator[Keyframe]:
    graph = dict(Workflow.load("txt2img").graph)
    for i in range(count):
        scene = Scene(id=f"scene-{i % SCENES}", prompt=f"a fox number {i % SCENES} in the snow")
        sha256 = hashlib.sha256(str(i).encode()).hexdigest()
        done = i % 20 != 19
        yield Keyframe(
            id=_id(i),
            run=f"run-{i // 500}",
            key=hashlib.sha256(sha256.encode()).hexdigest(),
            scene=scene,
            status="done" if done else "failed",
            prompt=f"{scene.prompt}, watercolor, soft light",
            negative="blur, text",
            seed=i // SCENES,
            knobs={"steps": 20, "cfg": 3 + 2 * (i % 3), "sampler": "euler", "width": 512},
            workflow=graph,
            outputs=(Output("9", 0, sha256, "image/png", 10**6, 512, 512),) if done else (),
            timings=Timings(1.0, 1000.0 + i % 100, 3.0, 1200.0),
            server="127.0.0.1:8188",
            created_at=BEGAN + timedelta(seconds=i),
        )


def fill_log(root: Path, count: int) -> None:
    """Write a log of many keyframes as its sessions would have, without pictures and syncs."""
    folder.create(root)
    session = uuid.uuid4().hex
    segment = None
    for i, keyframe in enumerate(_keyframes(count)):
        if i % 1000 == 0:
            segment = root / "seg" / f"{1795349433039 + i:013d}-{session[:8]}.jsonl"
        submitted = records.submitted_row(
            prompt_id=str(uuid.uuid4()),
            run=keyframe.run,
            key=keyframe.key,
            scene=keyframe.scene.id,
            server=keyframe.server,
            session=session,
        )
        with segment.open("ab") as file:
            file.write(records.line(submitted))
            file.write(records.line(records.keyframe_row(keyframe, session=session)))
            if i % MARKED == 0:
                file.write(records.line(records.mark_row(_mark(i), session=session)))
    Log(root).compact()


def _mark(i: int) -> Mark:
    """Return what somebody says when keyframe i is made: about it, or once more about another."""
    n = i // MARKED
    fields = (("rating", 1 + n % 5), ("tag:night", True), ("rating", 1 + n % 3), ("pick", True))
    field, value = fields[n % 4]
    about = i - 2 * MARKED if n % 8 == 2 else i  # rated already
    return Mark(
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"mark {i}")),
        keyframe=_id(about),
        field=field,
        value=value,
        created_at=BEGAN + timedelta(seconds=i + 0.5),
    )


def _id(i: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(i)))


def _fill_others(names: dict[str, str]) -> None:
    """Put the same into two tables each, nested columns as JSON in SQLite."""
    sealed = [str(path) for path in (Path(names["log"]) / "seg").glob("*.parquet")]
    with duckdb.connect(names["duck"]) as duck:
        duck.execute(
            "create table rows as select * exclude (target, field, value) "
            "from read_parquet($files) where kind <> 'mark'",
            {"files": sealed},
        )
        duck.execute(
            "create table marks as select id, target, field, value, created_at "
            "from read_parquet($files) where kind = 'mark'",
            {"files": sealed},
        )
        lite = sqlite3.connect(names["lite"])
        lite.execute("pragma journal_mode = wal")
        for table in ("rows", "marks"):
            _copy(table, duck, lite)
        lite.execute("create index by_id on rows (id)")
        lite.execute("create index by_scene on rows (scene, created_at)")
        lite.execute("create index by_target on marks (target, field, created_at, id)")
        for base, lastly in ((duck, LASTLY["duck"]), (lite, LASTLY["lite"])):
            base.execute("create view keyframes as select * from rows where kind = 'result'")
            base.execute(SAID.format(columns=lastly))
        lite.commit()
        lite.close()


def _copy(table: str, duck: duckdb.DuckDBPyConnection, lite: sqlite3.Connection) -> None:
    described = duck.execute(f"describe {table}").fetchall()
    columns = [
        f'to_json("{name}")::varchar' if "(" in kind or "[" in kind else f'"{name}"'
        for name, kind, *_ in described
    ]
    lite.execute(f"create table {table} ({', '.join(row[0] for row in described)})")
    answer = duck.execute(f"select {', '.join(columns)} from {table}")
    places = ", ".join("?" * len(columns))
    while batch := answer.fetchmany(5000):
        plain = ([v if v is None or isinstance(v, int) else str(v) for v in r] for r in batch)
        lite.executemany(f"insert into {table} values ({places})", plain)


def _picture(number: int) -> bytes:
    file = io.BytesIO()
    noise = Image.effect_noise((256, 256), 40 + number % 7).convert("RGB")
    noise.putpixel((0, 0), (number % 256, number // 256, 0))
    noise.save(file, "PNG")
    return file.getvalue()


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in (path / "seg").iterdir())
