"""The doctor: it finds what is wrong, says what to do, ends in time and leaves no trace."""

from __future__ import annotations

import asyncio
import json
import time
from html.parser import HTMLParser

import pytest
import trustme
from aiohttp import web
from fake_servers import HTML, STATS, FakeServer, RawServer, closed_port, dripping, silent
from reverse_proxy import ReverseProxy, wants
from support import Engine, tasks_on_our_loop, until

import comfynb
from comfynb.cli import main
from comfynb.diagnosis import examine, work
from comfynb.errors import BackendError
from comfynb.testing import FaultProxy
from comfynb.testing.rules import Fail, LateAnswer

SECRET = "sekret-0f-the-d00r"


def find(diagnosis, words: str):
    """The finding that says these words."""
    for finding in diagnosis.findings:
        if words in finding.what:
            return finding
    raise AssertionError(f"nobody says {words!r}:\n{diagnosis}")


def of_stats(**system):
    return {"system": {**STATS["system"], **system}, "devices": STATS["devices"]}


@pytest.fixture
async def drawn(engine):
    """The engine, after one picture."""
    engine.post_prompt()
    await until(lambda: not engine.prompts())
    return engine


# -- a server that is well


async def test_a_healthy_server_is_examined_in_every_part_and_left_as_it_was(drawn):
    before = drawn.get("/history"), drawn.get("/queue")
    diagnosis = await comfynb.diagnose(drawn.url)
    assert diagnosis.ok
    assert diagnosis.reached
    assert (diagnosis.verdict, diagnosis.exit_status) == ("all is well", 0)
    assert [part.status for part in diagnosis.parts] == ["good"] * len(examine.PARTS)
    assert (drawn.get("/history"), drawn.get("/queue")) == before
    parts = diagnosis.to_dict()["parts"]
    assert parts["round_trip"]["round_trip_ms"] > parts["round_trip"]["fetch_ms"] > 0
    assert parts["websocket"]["handshake_ms"] > parts["websocket"]["ping_ms"] > 0
    assert parts["websocket"]["flags"]["supports_preview_metadata"] == "True"
    assert abs(parts["websocket"]["clock_skew_ms"]) < 2000
    assert parts["release"]["comfyui"] == "0.3.75"
    assert parts["devices"]["devices"][0]["memory_bytes"] > 10**9
    assert parts["history"]["images"] >= 1
    assert (parts["retrieval"]["mime"], parts["retrieval"]["width_px"]) == ("image/png", 64)
    assert parts["nodes"]["classes"] == len(drawn.get("/object_info"))
    assert parts["models"]["models"] == {"checkpoints": 1}
    assert parts["access"] == {
        "status": "good", "seconds": parts["access"]["seconds"], "findings": [], "ways": [],
        "open_beyond": False,
    }  # fmt: skip


async def test_nothing_is_sent_where_nothing_is_to_be_sent(drawn):
    with FaultProxy(drawn.url) as proxy:
        diagnosis = await comfynb.diagnose(proxy.url, round_trip=False)
        assert not [route for route in proxy.requests if route.startswith("POST")]
    assert diagnosis["round_trip"].status == "skipped"
    assert diagnosis.ok


async def test_no_prompt_is_sent_to_a_server_at_work(engine):
    prompt = engine.post_prompt(**{"Guard.seconds": 30.0})
    diagnosis = await comfynb.diagnose(engine.url)
    assert diagnosis["round_trip"].status == "skipped"
    assert "nobody should wait" in str(diagnosis)
    assert diagnosis["queue"].data["running"] + diagnosis["queue"].data["pending"] == 1
    assert engine.prompts() == {prompt}


async def test_without_an_address_the_environment_says_where(drawn, monkeypatch):
    monkeypatch.setenv("COMFYUI_URL", drawn.url)
    assert (await comfynb.diagnose(round_trip=False)).server == drawn.url.removeprefix("http://")


async def test_where_connect_would_use_the_engine_that_is_said(monkeypatch):
    monkeypatch.setattr(examine, "DEFAULT_URL", f"http://127.0.0.1:{closed_port()}")
    diagnosis = await comfynb.diagnose()
    assert find(diagnosis, "uses the embedded engine").severity == "note"


async def test_the_embedded_engine_is_started_for_it_and_ended_again():
    diagnosis = await comfynb.diagnose("embedded")
    assert diagnosis.ok
    assert repr(diagnosis) == "<Diagnosis of embedded engine: all is well>"
    assert diagnosis["access"].data["ways"] == ["bearer token"]
    assert diagnosis["access"].data["needed"]
    assert tasks_on_our_loop() == []


async def test_what_is_no_address_is_said_at_once():
    with pytest.raises(BackendError):
        await comfynb.diagnose("ftp://gpu")


# -- a server that is not reached


def nobody_there():
    return {
        "a closed port": (Closed, "nobody listens at 127.0.0.1", "start ComfyUI"),
        "no such name": (lambda: Closed("http://nowhere.invalid"), "is not known", "spelling"),
        "a web page": (lambda: FakeServer(default=HTML), "not JSON", "address of a ComfyUI"),
        "other json": (lambda: FakeServer(default=[]), "not as a ComfyUI does", "address"),
        "closed doors": (lambda: FakeServer(default=(401, b"")), "401", "token="),
        "a bad gateway": (lambda: FakeServer(default=(502, b"")), "502", "log of the server"),
        "no http": (lambda: RawServer(mail), "broke off", "log"),
    }


def mail(connection):
    connection.sendall(b"220 mail.example.org ESMTP\r\n\r\n")
    connection.close()


class Closed:
    def __init__(self, url=None):
        self.url = url or f"http://127.0.0.1:{closed_port()}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("case", nobody_there())
async def test_each_reason_why_a_server_is_not_reached_has_its_next_step(case):
    make, what, step = nobody_there()[case]
    with make() as server:
        diagnosis = await comfynb.diagnose(server.url, token=SECRET)
    assert not diagnosis.reached
    assert diagnosis.exit_status == 2
    assert diagnosis.verdict == "not reached"
    finding = find(diagnosis, what)
    assert (finding.severity, finding.part) == ("problem", "reachability")
    assert step in finding.next_step or step in finding.what
    assert {part.status for part in diagnosis.parts[2:]} == {"skipped"}
    assert "Devices" not in str(diagnosis) + diagnosis._repr_html_(), "nothing is known of it"
    assert SECRET not in str(diagnosis) + diagnosis._repr_html_() + json.dumps(diagnosis.to_dict())


@pytest.mark.parametrize("talk", [silent, dripping(b" ", 0.02)])
async def test_a_server_that_hangs_takes_no_longer_than_it_may(talk):
    with RawServer(talk) as server:
        async with asyncio.timeout(20):
            diagnosis = await comfynb.diagnose(server.url, timeout=0.5)
    assert diagnosis.exit_status == 2
    assert diagnosis["reachability"].status == "problem"


async def test_certificates_are_looked_at(engine, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with ReverseProxy(engine.url, authority=authority) as proxy:
        refused = await comfynb.diagnose(proxy.url)
        assert "ca='that.pem'" in find(refused, "nobody this machine trusts").next_step
        assert refused.exit_status == 2
        trusted = await comfynb.diagnose(proxy.url, ca=tmp_path / "ca.pem")
        assert trusted.ok
        assert trusted["reachability"].data["certificate_days"] > 30
        with pytest.warns(UserWarning, match="not checked"):
            unchecked = await comfynb.diagnose(proxy.url, verify=False)
        assert "ca='that.pem'" in find(unchecked, "not checked").next_step
        assert unchecked.exit_status == 0


# -- a server that is reached and not well


async def test_a_dead_worker_is_recognised(monkeypatch):
    monkeypatch.setattr(work, "DEAD_SECONDS", 0.3)
    made = int((time.time() - 900) * 1000)
    waiting = [[n, f"p{n}", {}, {"create_time": made}, []] for n in range(3)]
    queue = {"queue_running": [], "queue_pending": waiting}
    with FakeServer({"/system_stats": STATS, "/queue": queue}, default={}) as server:
        diagnosis = await comfynb.diagnose(server.url)
        assert not [request for request in server.requests if request[0] == "POST"]
    finding = find(diagnosis, "3 prompts waiting and none running")
    assert finding.severity == "problem"
    assert "restart" in finding.next_step
    assert diagnosis.exit_status == 1
    assert "15 min ago" in str(diagnosis)


@pytest.mark.parametrize(("version", "chooses"), [("0.3.40", True), ("v0.3.50-dev", False)])
async def test_an_old_release_says_what_it_cannot_do(version, chooses):
    answers = {"/system_stats": of_stats(comfyui_version=version)}
    with FakeServer(answers, default={}) as server:
        diagnosis = await comfynb.diagnose(server.url)
    finding = find(diagnosis, "cannot interrupt one prompt")
    assert finding.severity == "warning"
    assert "update it to 0.3.57" in finding.next_step
    assert ("it chooses prompt ids by itself" in str(diagnosis)) is chooses


async def test_a_part_that_hangs_or_fails_costs_no_other(drawn, monkeypatch):
    monkeypatch.setattr(examine, "PART_SECONDS", 0.5)
    with FaultProxy(drawn.url) as proxy:
        proxy.add(LateAnswer("GET /history", seconds=3600, times=None))
        proxy.add(Fail("GET /models", status=500, body="out of <b>paper</b>", times=None))
        diagnosis = await comfynb.diagnose(proxy.url)
    assert diagnosis["history"].status == "problem"
    assert "no answer within" in find(diagnosis, "no answer").what
    assert diagnosis["models"].status == "problem"
    assert [diagnosis[name].status for name in ("queue", "nodes", "round_trip")] == ["good"] * 3
    assert diagnosis.exit_status == 1


async def test_a_prompt_that_outlasts_its_time_is_taken_back(drawn, monkeypatch):
    """Cut off in the middle of the round trip, the doctor still leaves nothing behind."""
    before = drawn.ended()
    monkeypatch.setattr(examine, "PART_SECONDS", 0.5)
    with FaultProxy(drawn.url) as proxy:
        proxy.add(LateAnswer("GET /view", seconds=3600, nth=2))  # the first is the history's
        diagnosis = await comfynb.diagnose(proxy.url)
    assert diagnosis["round_trip"].status == "problem"
    assert not drawn.prompts()
    assert drawn.ended() == before


async def test_a_proxy_that_passes_no_sockets_is_named(drawn):
    with ReverseProxy(drawn.url) as proxy:
        proxy.gate = lambda r: web.Response(status=404) if "Upgrade" in r.headers else None
        diagnosis = await comfynb.diagnose(proxy.url)
    finding = find(diagnosis, "answered the WebSocket at /ws with 404")
    assert "pass WebSockets on" in finding.next_step
    assert diagnosis["queue"].status == "good"


async def test_a_clock_that_differs_is_told(drawn):
    with ReverseProxy(drawn.url) as proxy:
        proxy.date = "Thu, 01 Jan 2032 00:00:00 GMT"
        diagnosis = await comfynb.diagnose(proxy.url, round_trip=False)
    assert "ahead of ours" in find(diagnosis, "its clock").what
    assert "NTP" in find(diagnosis, "its clock").next_step


async def test_failures_and_missing_files_of_the_history_are_told():
    failed = {"node_type": "KSampler", "exception_message": "CUDA out of memory"}
    picture = {"filename": "a.png", "subfolder": "", "type": "output"}
    entry = {
        "outputs": {"9": {"images": [picture], "gifs": [{**picture, "filename": "b.mp4"}]}},
        "status": {"status_str": "error", "messages": [["execution_error", failed]]},
    }
    answers = {
        "/system_stats": STATS, "/history": {"a": entry, "b": entry}, "/view": (404, b""),
        "/queue": {}, "/object_info": {},
    }  # fmt: skip
    with FakeServer(answers) as server:
        diagnosis = await comfynb.diagnose(server.url)
        views = [path for _, path, _ in server.requests if path.startswith("/view")]
    assert "KSampler: CUDA out of memory" in find(diagnosis, "each of the last 2").what
    assert find(diagnosis, "no longer there").severity == "note"
    assert (diagnosis["history"].data["images"], diagnosis["history"].data["videos"]) == (2, 2)
    assert views == ["/view?filename=a.png&subfolder=&type=output"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--listen"], "lets anybody in"),
        (["--listen", "0.0.0.0"], "lets anybody in"),
        (["--enable-cors-header"], "any web page"),
        (["--enable-cors-header", "*"], "any web page"),
    ],
)
async def test_open_doors_are_warned_of(flags, words):
    answers = {"/system_stats": of_stats(argv=["main.py", *flags])}
    with FakeServer(answers, default={}) as server:
        diagnosis = await comfynb.diagnose(server.url)
    assert find(diagnosis, words).severity == "warning"


@pytest.mark.parametrize(
    "flags",
    [["--listen", "127.0.0.1"], ["--listen=127.0.0.1,::1"], ["--enable-cors-header", "https://a"]],
)
async def test_closed_doors_are_not(flags):
    answers = {"/system_stats": of_stats(argv=["main.py", *flags])}
    with FakeServer(answers, default={}) as server:
        diagnosis = await comfynb.diagnose(server.url)
    assert diagnosis["access"].findings == ()


async def test_it_is_seen_whether_the_token_is_needed(drawn):
    with ReverseProxy(drawn.url) as proxy:
        useless = await comfynb.diagnose(proxy.url, token=SECRET, round_trip=False)
        proxy.gate = wants(header=("Authorization", f"Bearer {SECRET}"))
        needed = await comfynb.diagnose(proxy.url, token=SECRET, round_trip=False)
    assert [d["access"].data["needed"] for d in (useless, needed)] == [False, True]
    assert needed["access"].data["ways"] == ["bearer token"]


# -- what a server says is data

EVIL = "\x1b[31mred\x1b]0;title\x07 <script>alert(1)</script> [bold]x[/bold] \u202e" + "y" * 5000


async def test_hostile_words_are_shown_cut_and_harmless():
    stats = {
        "system": {"comfyui_version": EVIL, "python_version": EVIL, "argv": [EVIL]},
        "devices": [{"name": EVIL, "type": EVIL, "vram_total": 1e400, "vram_free": "x"}] * 50,
    }
    entry = {
        "outputs": {"9": {"images": [{"filename": EVIL}]}},
        "status": {"messages": [["execution_error", {"exception_message": EVIL}]]},
    }
    answers = {
        "/system_stats": json.dumps(stats).encode(), "/history": {"a": entry}, "/view": b"no",
        "/models": [EVIL], "/object_info": {EVIL: {"python_module": f"custom_nodes.{EVIL}"}},
    }  # fmt: skip
    with FakeServer(answers, default={}) as server:
        diagnosis = await comfynb.diagnose(server.url)
    text, page = str(diagnosis), diagnosis._repr_html_()
    assert not {"\x1b", "\x07", "\u202e"} & set(text + page)
    assert "<script" not in page
    assert "[bold]x[/bold]" in text, "it is shown and not obeyed"
    assert len(text) < 40_000
    assert len(page) < 40_000
    json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    assert Balanced(page).open == []


class Balanced(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.open = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("answer", [None, 7, "x", [], [[]], {"a": 1}, {"a": {"outputs": [7]}}])
async def test_answers_of_any_shape_break_nothing(answer):
    paths = ("/queue", "/history", "/object_info", "/models", "/embeddings", "/prompt")
    answers = {"/system_stats": STATS, **dict.fromkeys(paths, answer)}
    with FakeServer(answers, default=answer) as server:
        diagnosis = await comfynb.diagnose(server.url)
    assert diagnosis.reached
    assert "could not be examined" not in str(diagnosis)


async def test_an_error_that_nobody_thought_of_costs_one_part(drawn, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(work, "_files", broken)
    diagnosis = await comfynb.diagnose(drawn.url)
    assert "ZeroDivisionError" in find(diagnosis, "could not be examined").what
    assert diagnosis["round_trip"].status == "good"


# -- the command


def test_the_command_shows_a_table_and_exits_0_when_all_is_well(engine, capsys):
    assert main(["doctor", engine.url]) == 0
    said = capsys.readouterr().out
    assert "all is well" in said
    for _, title, _ in examine.PARTS:
        assert title in said


def test_the_command_prints_json_and_nothing_else(engine, capsys):
    assert main(["doctor", engine.url, "--json", "--no-round-trip"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["exit_status"], found["verdict"]) == (True, 0, "all is well")
    assert list(found["parts"]) == [name for name, _, _ in examine.PARTS]


def test_the_command_exits_1_when_something_does_not_work_and_2_when_nobody_is_there(capsys):
    with FakeServer({"/system_stats": STATS}) as server:  # answers all else with 404
        assert main(["doctor", server.url]) == 1
    assert "→" in capsys.readouterr().out
    assert main(["doctor", f"127.0.0.1:{closed_port()}"]) == 2
    assert main(["doctor", "ftp://gpu"]) == 2
    assert capsys.readouterr().err.startswith("comfynb:")


def test_the_command_takes_every_way_in(capsys):
    with FakeServer({"/system_stats": STATS}, default={}) as server:
        given = ["--token", SECRET, "--header", "X-Key: a b", "--cookie", "session=x=y"]
        main(["doctor", server.url, *given])
        headers = server.requests[0][2]
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert (headers["x-key"], headers["cookie"]) == ("a b", "session=x=y")
    assert SECRET not in "".join(capsys.readouterr())
    assert main(["doctor", server.url, "--header", SECRET]) == 2
    assert SECRET not in "".join(capsys.readouterr())


def test_an_engine_with_a_token_is_entered_with_it():
    engine = Engine(token=SECRET)
    try:
        assert main(["doctor", engine.url]) == 2
        assert main(["doctor", engine.url, "--token", SECRET]) == 0
    finally:
        engine.stop()
