"""Node types come from the log at once, from the server once; without them nothing is refused."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
from fake_servers import closed_port
from support import guarded_graph, scenes, wait_for

import comfynb
from comfynb.backends import embedded
from comfynb.backends.comfyui import ComfyUIBackend
from comfynb.errors import ClosedError, KnobValueError, ServerUnreachableError, WorkflowCheckError
from comfynb.log import Log
from comfynb.testing import Fail, FaultProxy
from comfynb.workflows import Workflow


def started() -> list[psutil.Process]:
    """The processes that this one started, but for the test engines."""
    return [c for c in psutil.Process().children() if "--nodes" not in c.cmdline()]


def kept(folder, server):
    return Log(folder, read_only=True).object_info(server)


async def test_what_a_server_said_is_in_the_log_for_the_next_process(engine, flow, tmp_path):
    async with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        await studio.run(scenes(1))
        wait_for(lambda: kept(tmp_path / "log", studio.server))
        assert kept(tmp_path / "log", studio.server).keys() == engine.get("/object_info").keys()


def test_knobs_know_their_ranges_while_the_server_is_away(engine, flow, tmp_path):
    place = f"http://127.0.0.1:{closed_port()}"
    with comfynb.connect(place, workflow=flow, log=tmp_path / "log") as studio:
        studio.log.keep_object_info(studio.server, engine.get("/object_info"))
        assert studio.workflow.knobs["steps"].maximum == 10_000
        assert "1 to 10000" in repr(studio.workflow.knobs)


def test_an_old_list_refuses_nothing_while_nobody_answers(engine, flow, tmp_path):
    place = f"http://127.0.0.1:{closed_port()}"
    with comfynb.connect(place, workflow=flow, log=tmp_path / "log") as studio:
        studio.log.keep_object_info(studio.server, engine.get("/object_info"))
        plan = studio.plan(["a fox"], knobs={"sampler": "brand_new"})
        assert plan.cells[0].knobs["sampler"] == "brand_new"
        with pytest.raises(ServerUnreachableError):
            studio.render(["a fox"], knobs={"sampler": "brand_new"})


def test_a_table_does_not_wait_for_a_server_that_is_away(flow, tmp_path):
    place = f"http://127.0.0.1:{closed_port()}"
    with comfynb.connect(place, workflow=flow, log=tmp_path / "log") as studio:
        assert "steps" in repr(studio.workflow.knobs)
        assert studio.workflow.knobs["steps"].type is None


def test_a_closed_studio_asks_nobody(engine, flow, tmp_path):
    studio = comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log")
    studio.close()
    assert "steps" in repr(studio.workflow.knobs)
    assert studio.workflow.knobs["steps"].type is None
    with pytest.raises(ClosedError):
        studio.check(scenes(1))


async def test_a_server_that_does_not_tell_its_node_types_is_let_judge(engine, flow, tmp_path):
    with FaultProxy(engine.url) as proxy:
        proxy.add(Fail(route="GET /object_info", nth=None, status=404, accepted=False))
        async with comfynb.connect(proxy.url, workflow=flow, log=tmp_path / "log") as studio:
            assert not studio.check(scenes(1)).checked
            given = scenes(2)
            given[1]["knobs"] = {"sampler": "no_such_sampler"}
            made, refused = await studio.run(given)
    assert made.status == "done"
    assert (refused.status, refused.error.kind) == ("failed", "rejected")
    assert "no_such_sampler" in refused.error.message


async def test_what_a_warning_is_about_is_still_drawn(engine, tmp_path):
    graph = guarded_graph()
    size = {"width": 0, "height": 64, "batch_size": 1, "color": 0}
    more = {"images": ["empty", 0], "filename_prefix": "x"}
    graph["empty"] = {"class_type": "EmptyImage", "inputs": size}
    graph["more"] = {"class_type": "SaveImage", "inputs": more}
    flow = Workflow.load(graph)
    async with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        report = studio.check(scenes(1))
        assert (report.ok, len(report.warnings)) == (True, 1)
        assert (await studio.run(scenes(1)))[0].status == "done"


async def test_cells_that_the_log_has_are_not_checked(engine, flow, tmp_path):
    async with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        await studio.run(scenes(1))
        with FaultProxy(engine.url) as proxy:
            other = comfynb.connect(proxy.url, workflow=flow, log=tmp_path / "log")
            async with other as again:
                assert (await again.run(scenes(1)))[0].status == "cached"
            assert proxy.requests["GET /object_info"] == 0


async def test_a_run_that_cannot_begin_ends_at_once_with_the_report(engine, tmp_path):
    graph = guarded_graph()
    graph["zebra"] = {"class_type": "Zebra", "inputs": {}}
    flow = Workflow.load(graph)
    async with comfynb.connect(engine.url, workflow=flow, log=tmp_path / "log") as studio:
        run = studio.run(scenes(3))
        with pytest.raises(WorkflowCheckError, match="no node type 'Zebra'"):
            await run
        assert [state.status for state in run.state.cells] == ["failed"] * 3
        assert run.state.cells[0].keyframe.error.kind == "invalid"
        assert run.state.cells[0].keyframe.error.node == "zebra (Zebra)"


class TestSeveralServers:
    """Two names for one engine, of which one is made to lack something."""

    @pytest.fixture
    def lack(self, monkeypatch):
        """Have a server that lacks a sampler, say."""
        asked = ComfyUIBackend.object_info
        lacking = {}

        async def object_info(self):
            answer = await asked(self)
            for node_type, name, without in lacking.get(self.label, ()):
                choices = answer[node_type]["input"]["required"][name]
                choices[0] = [choice for choice in choices[0] if choice != without]
            return answer

        monkeypatch.setattr(ComfyUIBackend, "object_info", object_info)

        def lack(url, *what):
            label = url.partition("//")[2]
            lacking[label] = what
            return label

        return lack

    @pytest.fixture
    def connect(self, engine, flow, tmp_path):
        with FaultProxy(engine.url) as proxy:

            def connect(**options):
                urls = [engine.url, proxy.url]
                return comfynb.connect(urls, workflow=flow, log=tmp_path / "log", **options), *urls

            yield connect

    SAMPLER = ("KSampler", "sampler_name", "heun")
    SCHEDULER = ("KSampler", "scheduler", "karras")

    @pytest.mark.parametrize("which", [0, 1])
    async def test_what_some_lack_is_a_warning_that_names_them(self, connect, lack, which):
        studio, *urls = connect()
        label = lack(urls[which], self.SAMPLER)
        async with studio:
            report = studio.check(scenes(2, sampler="heun"))
            assert report.ok
            assert report.left_out == (label,)
            (warning,) = report.warnings
            assert (warning.server, warning.input) == (label, "sampler_name")
            assert f"{label} is left out" in str(report)
            assert label in report._repr_html_()
            made = await studio.run(scenes(2, sampler="heun"))
        assert {k.status for k in made} == {"done"}
        assert label not in {k.server for k in made}

    def test_what_all_lack_is_an_error(self, connect, lack):
        studio, *urls = connect()
        for url in urls:
            lack(url, self.SAMPLER)
        with studio:
            untyped = studio.workflow.with_types(None)
            studio.workflow = untyped.with_knobs({"sampler": "heun"})
            report = studio.check(scenes(1))
            (error,) = report.errors
            assert (error.server, report.left_out) == ("", ())
            assert report.server == studio.server

    async def test_where_each_lacks_something_else_nothing_is_ok(self, connect, lack):
        studio, *urls = connect()
        labels = [lack(urls[0], self.SAMPLER), lack(urls[1], self.SCHEDULER)]
        async with studio:
            report = studio.check(scenes(1, sampler="heun", scheduler="karras"))
            assert [p.server for p in report.errors] == [labels[0]]
            assert [p.server for p in report.warnings] == [labels[1]]
            with pytest.raises(WorkflowCheckError):
                await studio.run(scenes(1, sampler="heun", scheduler="karras"))

    def test_a_knob_takes_what_any_of_them_takes(self, connect, lack):
        studio, *urls = connect()
        lack(urls[0], self.SAMPLER)
        with studio:
            assert "heun" in studio.workflow.knobs._repr_html_()
            assert studio.plan(["a fox"], knobs={"sampler": "heun"}).cells
            with pytest.raises(KnobValueError):
                studio.plan(["a fox"], knobs={"sampler": "huen"})

    def test_one_that_is_away_is_named_and_hides_nothing(self, engine, flow, tmp_path, lack):
        away = f"http://127.0.0.1:{closed_port()}"
        lack(engine.url, self.SAMPLER)
        servers = [away, engine.url]
        with comfynb.connect(servers, workflow=flow, log=tmp_path / "log") as studio:
            assert studio.workflow.knobs["steps"].maximum is None
            assert "1 to 10000" in repr(studio.workflow.knobs)
            report = studio.check(scenes(1))
            assert report.ok
            assert report.checked
            (warning,) = report.warnings
            assert warning.server in away
            assert "has not said what nodes it has" in warning.message


class TestTheEmbeddedEngine:
    def test_its_node_types_are_shipped_as_it_tells_them(self, tmp_path):
        shipped = Path(embedded.__file__).with_name("embedded_nodes.json").read_text("utf-8")
        with comfynb.connect("embedded", log=tmp_path / "log") as studio:
            studio.render(["a fox"], knobs={"steps": 1, "width": 64, "height": 64})
            wait_for(lambda: studio.log.object_info(studio.server))
            told = studio.log.object_info(studio.server)
        assert json.loads(shipped) == told

    def test_it_is_not_started_for_a_table_a_check_or_a_wrong_value(self, tmp_path):
        with comfynb.connect("embedded", log=tmp_path / "log") as studio:
            assert "64 to 512" in repr(studio.workflow.knobs)
            assert studio.check(["a fox"]).ok
            with pytest.raises(KnobValueError, match="takes 64 to 512"):
                studio.run(["a fox"], knobs={"width": 1024})
            assert not started()
