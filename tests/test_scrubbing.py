"""What is secret is replaced in every form it takes, and nobody's logging is changed otherwise."""

from __future__ import annotations

import base64
import io
import json
import logging
import subprocess
import sys
from urllib.parse import quote, quote_plus

import httpx
import pytest
from fake_servers import FakeServer

from comfynb import scrubbing
from comfynb.backends.comfyui import Address
from comfynb.backends.comfyui.http import Http
from comfynb.scrubbing import MASK, hide, scrub

ODD = "s3kr3t/ +&='\"\\é\u2026%"


@pytest.fixture
def heard():
    """What handlers write that stand at the root, at DEBUG."""
    file = io.StringIO()
    handler = logging.StreamHandler(file)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield file
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize(
    "form",
    [
        str, quote, quote_plus, repr, json.dumps,
        lambda s: quote(s, safe=""),
        lambda s: quote(s, safe="").replace("%2F", "%2f"),
        lambda s: base64.b64encode(s.encode()).decode(),
        lambda s: repr(s.encode()),
        lambda s: str(httpx.URL("http://gpu/", params={"key": s})),
    ],
)  # fmt: skip
def test_a_secret_is_found_in_every_form(form):
    hide([ODD])
    text = scrub(f"before {form(ODD)} after")
    assert text.startswith("before ")
    assert text.endswith(" after")
    assert MASK in text
    assert "s3kr3t" not in text
    assert form(ODD)[8:-4] not in text


def test_the_longest_secret_is_replaced_whole():
    hide(["abcd1234", "abcd1234efgh"])
    assert scrub("abcd1234efgh abcd1234") == f"{MASK} {MASK}"


def test_what_is_too_short_to_be_a_secret_is_left():
    hide(["", "abc"])
    assert scrub("abc, and so on") == "abc, and so on"


def test_an_address_hides_all_that_opens_its_door():
    Address.parse(
        "http://ann:p4ss-w0rd@gpu/?key=qu3ry-k3y&b4r3-k3y", token="t0k3n-abc",
        headers={"X-Key": "h34der-k3y", "Cookie": "a=c00kie-1"}, cookies={"b": "c00kie-2"},
    )  # fmt: skip
    Address.parse("http://us3r-t0k3n@gpu")
    told = "p4ss-w0rd qu3ry-k3y b4r3-k3y t0k3n-abc h34der-k3y c00kie-1 c00kie-2 us3r-t0k3n"
    for secret in (*told.split(), base64.b64encode(b"ann:p4ss-w0rd").decode()):
        assert scrub(secret) == MASK, secret
    assert scrub("ann at gpu") == "ann at gpu"


def test_records_of_the_libraries_are_cleaned_with_their_arguments_and_tracebacks(heard):
    hide(["l0gged-s3cret"])
    for name in ("httpx", "httpcore.http11", "websockets.client"):
        logging.getLogger(name).debug("sent %s to %r", {"key": "l0gged-s3cret"}, "gpu")
        try:
            int("l0gged-s3cret")
        except ValueError:
            logging.getLogger(name).exception("failed")
    said = heard.getvalue()
    assert "l0gged-s3cret" not in said
    assert said.count("sent {'key': '***'} to 'gpu'") == 3
    assert said.count("with base 10: '***'") == 3


def test_cookies_are_cleaned_although_nobody_told_them(heard):
    for text in (
        "< Set-Cookie: session=n3w-c00kie; Path=/",
        "headers=[(b'Set-Cookie', b'session=n3w-c00kie'), (b'Date', b'today')]",
    ):
        logging.getLogger("httpcore.http11").debug(text)
    said = heard.getvalue()
    assert "n3w-c00kie" not in said
    assert "(b'Date', b'today')" in said


def test_a_record_without_secrets_and_one_that_cannot_be_formatted_pass_untouched():
    record = logging.LogRecord("httpx", logging.INFO, "", 0, "%s and %s", ("one", 2), None)
    assert scrubbing._filter.filter(record)
    assert (record.msg, record.args) == ("%s and %s", ("one", 2))
    wrong = logging.LogRecord("httpx", logging.INFO, "", 0, "%d", ("one",), None)
    assert scrubbing._filter.filter(wrong)
    assert (wrong.msg, wrong.args) == ("%d", ("one",))


def test_levels_handlers_and_propagation_stay_the_users():
    code = """
import logging
names = ("httpx", "httpcore", "httpcore.http11", "websockets", "websockets.client", "comfynb", "")
def how():
    found = (logging.getLogger(name) for name in names)
    return [(log.level, log.handlers, log.propagate, log.disabled) for log in found]
before = how()
from comfynb.backends.comfyui import Address
Address.parse("http://gpu", token="s3cret-0ne")
assert how() == before
for name in names:
    assert len(logging.getLogger(name).filters) <= 1
Address.parse("http://gpu", token="s3cret-tw0")
assert len(logging.getLogger("httpx").filters) == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


async def test_every_logger_that_the_libraries_have_is_guarded(engine):
    """A new release may have others: then they are to be named."""
    with FakeServer({"/x": {}}) as server:
        # By name and not by number, so that it goes httpx's own way.
        client = Http(Address.parse(server.url, token="s3cret"))
        client._client = httpx.AsyncClient(trust_env=False)
        await client.get_json("/x")
        await client.aclose()
    import websockets.asyncio.client  # noqa: F401 - for its loggers

    theirs = {
        name
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
        and name.partition(".")[0] in ("httpx", "httpcore", "h11", "h2", "websockets")
        and not name.startswith("websockets.server")
    }
    assert {"httpx", "httpcore.http11"} <= theirs <= set(scrubbing.LOGGERS) | {"websockets"}
    ours = {
        name for name in logging.root.manager.loggerDict if name.startswith("comfynb.backends.")
    }
    ours = {
        name for name in ours if isinstance(logging.root.manager.loggerDict[name], logging.Logger)
    }
    assert ours <= set(scrubbing.LOGGERS)
