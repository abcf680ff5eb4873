"""The committed bundle in a page of its own, and a kernel that says what a test wants said."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import Locator, Page

HERE = Path(__file__).parent
STATIC = HERE.parents[1] / "comfynb" / "widgets" / "static"
URL = "http://localhost/"  # served from here by a route; a secure context, so with a clipboard
FILES = {
    "": (HERE / "host.html", "text/html"),
    "host.js": (HERE / "host.js", "text/javascript"),
    "scene_grid.css": (STATIC / "scene_grid.css", "text/css"),
}
HEAD: dict[str, Any] = {
    "made": 0,
    "failed": 0,
    "elapsed_s": 12.0,
    "left_s": 30.0,
    "active": True,
    "running": 1,
    "paused": False,
    "server": "embedded engine",
    "connection": "connected",
    "sheet": "fresh",
    "can": {"stop": True, "retry": True, "mark": True},
}


def draw(number: int, size: tuple[int, int] = (96, 96), kind: str = "webp") -> bytes:
    """Return a picture that differs for each number."""
    picture = Image.new("RGB", size, (40 * number % 256, 90, 255 - 25 * number % 256))
    ImageDraw.Draw(picture).text((8, 8), str(number), fill="white")
    data = io.BytesIO()
    picture.save(data, kind)
    return data.getvalue()


class GridPage:
    """One grid in a page.

    Attributes:
        page: Playwright's page.
        errors: What the page threw or complained about on its console.
        client: The id that the front end chose.
        version: Of the board, as last told.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.client = ""
        self.version = 0
        self.seq = 0
        self.count = 0
        self._messages: list[dict[str, Any]] = []
        page.route(URL + "**", self._serve)
        page.on("pageerror", self._note)
        page.on("console", self._note)

    def close(self) -> None:
        """Leave the page to the next grid."""
        self.page.remove_listener("pageerror", self._note)
        self.page.remove_listener("console", self._note)
        self.page.unroute(URL + "**", self._serve)

    def _note(self, event: Any) -> None:
        if getattr(event, "type", "error") == "error":
            self.errors.append(getattr(event, "text", str(event)))

    def _serve(self, route: Any) -> None:
        path, mime = FILES.get(route.request.url.removeprefix(URL), (None, ""))
        if path is None:
            route.fulfill(status=204)
        else:
            route.fulfill(body=path.read_bytes(), content_type=mime)

    # -- the page

    def open(self, count: int = 9, *, ratio: float = 1.0, title: str = "", **options: Any) -> None:
        """Load the page, and the bundle with a new model in one view."""
        self.page.goto(URL)
        script = (STATIC / "scene_grid.js").read_text(encoding="utf-8")
        traits = {"count": count, "ratio": ratio, "title": title, "protocol": 1}
        self.page.evaluate(
            "([script, traits, options]) => host.open(script, traits, options)",
            [script, traits, options],
        )
        self.count, self.version, self.seq = count, 0, 0
        self._messages.clear()
        self.client = self.wait_for("hello")["client"]
        self.show()

    def show(self) -> None:
        """Display the grid once more."""
        self.page.evaluate("host.show()")

    def tile(self, index: int) -> Locator:
        """Return a cell's tile in the first view."""
        return self.page.locator(f"[data-cell='{index}']").first

    def urls(self) -> int:
        """Count the object URLs that are not revoked."""
        return self.page.evaluate("host.urls.size")

    # -- hearing

    def sent(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return all messages to the kernel so far, of a kind."""
        self._messages += self.page.evaluate("host.model.sent.splice(0)")
        return [m for m in self._messages if kind is None or m["kind"] == kind]

    def forget(self) -> None:
        """Count from here."""
        self.sent()
        self._messages.clear()

    def wait_for(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Return the first message of a kind with these fields; wait until it comes."""

        def found() -> dict[str, Any] | None:
            return next((m for m in self.sent(kind) if m.items() >= fields.items()), None)

        return until(found, f"{kind} {fields} was not sent")

    # -- saying

    def say(self, kind: str, buffers: Sequence[bytes] = (), **fields: Any) -> None:
        """Send a message to the front end."""
        content = {"v": 1, "kind": kind, "client": self.client, **fields}
        encoded = [base64.b64encode(data).decode() for data in buffers]
        self.page.evaluate("([m, buffers]) => host.deliver(m, buffers)", [content, encoded])

    def batch(
        self,
        cells: Sequence[Mapping[str, Any]] = (),
        *,
        previews: Mapping[int, bytes] | None = None,
        skip: int = 0,
        **head: Any,
    ) -> int:
        """Send the next batch and return its number.

        Args:
            cells: What changed; `status` and what else differs from the rule.
            previews: Rough pictures, by index.
            skip: So many versions were lost before it.
            head: What differs from `HEAD`.
        """
        start, self.version = self.version + skip, self.version + skip + 1
        self.seq += 1
        self.say(
            "batch",
            list((previews or {}).values()),
            seq=self.seq,
            head={**HEAD, "total": self.count, **head},
            cells=list(cells),
            previews=[{"i": i, "mime": "image/jpeg"} for i in previews or {}],
            **{"from": start, "to": self.version},
        )
        return self.seq

    def about(self, *cells: Mapping[str, Any]) -> None:
        """Describe cells; what is not given is made up."""
        self.say("about", cells=[{**description(cell["i"]), **cell} for cell in cells])

    def thumb(self, index: int, data: bytes | None = None, sha256: str = "") -> None:
        """Send a small picture."""
        self.say(
            "thumb",
            [data or draw(index)],
            i=index,
            sha256=sha256 or f"{index:064x}",
            mime="image/webp",
            width_px=512,
            height_px=512,
        )

    def make(self, index: int, **fields: Any) -> None:
        """Bring a cell to its end, with all that belongs to it."""
        outputs = [output(index, n) for n in range(fields.get("n", 1))]
        self.batch([{"i": index, "status": "done", "ms": 2100.0, "n": 1, **fields}])
        self.about({"i": index, "outputs": outputs, "keyframe": f"keyframe-{index}"})
        self.thumb(index)


def output(index: int, n: int = 0, **fields: Any) -> dict[str, Any]:
    """Describe an output of a cell: a picture, unless the fields say otherwise."""
    return {
        "kind": "image",
        "sha256": f"{index + 10_000 * n:064x}",
        "mime": "image/png",
        "width_px": 512,
        "height_px": 512,
        "bytes": 412_345,
        **fields,
    }


def description(index: int) -> dict[str, Any]:
    """Make up what there is to say about a cell."""
    return {
        "i": index,
        "id": f"scene-{index + 1}",
        "number": index + 1,
        "title": f"Scene number {index + 1}",
        "prompt": f"a picture of the number {index + 1}",
        "negative": "blurry",
        "seed": str(2**64 - 1 - index),
        "knobs": {"steps": "20", "cfg": "6.5"},
        "status": "queued",
        "warnings": [],
        "outputs": [],
        "timings": {"queued_ms": 120.0, "executing_ms": 2100.0, "total_ms": 2400.0},
        "server": "embedded engine",
        "version": "1.0",
    }


def until(condition: Callable[[], Any], what: str, timeout: float = 5.0) -> Any:
    """Return what the condition gives once that is true."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"after {timeout:g} s {what}"
        time.sleep(0.01)
    return value
