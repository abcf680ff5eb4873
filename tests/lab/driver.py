"""A real JupyterLab and a page in a real Chromium, driven by JupyterLab's own commands.

Commands and not pixels: `LabApp.expose_app_in_browser` gives the page `window.jupyterapp`, which
stays the same where menus and selectors change.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import nbformat
from support import wait_for

PANEL = "window.jupyterapp.shell.currentWidget"

QUIET = {
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}


class LabServer:
    """JupyterLab on a free loopback port, its files below one folder.

    Args:
        root: The folder.
        theme: None: as JupyterLab likes.
        overlay: A folder of packages that its kernels find before the installed ones.
    """

    def __init__(
        self, root: Path, *, theme: str | None = None, overlay: Path | None = None
    ) -> None:
        self.root, self.token = root, secrets.token_hex(16)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        state = root / ".lab"
        settings = dict(QUIET)
        if theme:
            settings["@jupyterlab/apputils-extension/themes"] = {"theme": theme}
        for name, values in settings.items():
            file = state / "settings" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        environment = {
            **os.environ,
            "JUPYTERLAB_SETTINGS_DIR": str(state / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces"),
            "JUPYTER_RUNTIME_DIR": str(state / "runtime"),
            "JUPYTER_CONFIG_DIR": str(state / "config"),
            "IPYTHONDIR": str(state / "ipython"),
            "JUPYTER_PLATFORM_DIRS": "1",
        }
        if overlay is not None:
            paths = [str(overlay), os.environ.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        command = [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
            f"--port={self.port}", "--ServerApp.port_retries=0",
            f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={root}",
            "--LabApp.expose_app_in_browser=True", "--LanguageServerManager.autodetect=False",
        ]  # fmt: skip
        self._log = (state / "server.log").open("wb")
        self.process = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=self._log, start_new_session=True
        )
        wait_for(self._answers, 60)

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.root / ".lab/server.log").read_text()[-3000:]
        try:
            self._api("status")
        except OSError:
            return False
        return True

    def _api(self, path: str, method: str = "GET"):
        request = urllib.request.Request(
            f"{self.url}/api/{path}",
            method=method,
            headers={"Authorization": f"token {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def end_kernels(self) -> None:
        for session in self._api("sessions"):
            self._api(f"sessions/{session['id']}", "DELETE")

    def stop(self) -> None:
        self.end_kernels()
        self.process.terminate()
        self.process.wait(20)
        self._log.close()

    def notebook(self, name: str, *cells: str) -> Path:
        """Write a notebook of code cells."""
        book = nbformat.v4.new_notebook(
            metadata={
                "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
                "language_info": {"name": "python"},
            },
            cells=[nbformat.v4.new_code_cell(text) for text in cells],
        )
        path = self.root / name
        nbformat.write(book, str(path))
        return path


class LabPage:
    """One notebook, open in one page."""

    def __init__(self, server: LabServer, page, name: str) -> None:
        self.server, self.page, self.name = server, page, name
        self.console: list[tuple[str, str]] = []
        page.on("console", lambda message: self.console.append((message.type, message.text)))
        page.on("pageerror", lambda error: self.console.append(("pageerror", str(error))))
        page.on("requestfailed", lambda r: self.console.append(("failed", f"{r.url} {r.failure}")))
        try:
            self.open()
        except Exception:
            print(self.report())
            raise

    def open(self) -> None:
        """Open it, or open it again as a reload does."""
        address = f"{self.server.url}/lab/tree/{self.name}?token={self.server.token}&reset"
        self.page.goto(address)
        if not self._started(30):
            # Seen once in hundreds of loads: JupyterLab itself never comes up. A person reloads.
            print(f"JupyterLab did not start; loading it once more\n{self.report()}")
            self.page.goto(address)
            assert self._started(60), "JupyterLab did not start twice"
        self.ready()

    def _started(self, timeout: float) -> bool:
        from playwright.sync_api import TimeoutError as PageTimeoutError

        script = "window.jupyterapp && window.jupyterapp.restored.then(() => true)"
        try:
            self.page.wait_for_function(script, timeout=timeout * 1000)
        except PageTimeoutError:
            return False
        return True

    def report(self) -> str:
        """Say what page and server said last, for a test that failed."""
        said = "\n".join(f"  {kind}: {text[:300]}" for kind, text in self.console[-30:])
        shown = self.page.evaluate("document.body.innerText.slice(0, 3000)")
        server = (self.server.root / ".lab/server.log").read_text(errors="replace")[-4000:]
        return f"page {self.page.url}\n{shown}\nconsole:\n{said}\nserver:\n{server}"

    def ready(self, timeout: float = 60) -> None:
        """Wait until the notebook stands and its kernel is idle."""
        self.page.wait_for_function(
            f"""(() => {{ const w = {PANEL};
              return w && w.context && w.context.isReady && w.sessionContext.isReady
                && w.sessionContext.session?.kernel?.status === 'idle'
                && w.content.widgets.length > 0 }})()""",
            timeout=timeout * 1000,
        )

    def run(self, cell: int, *, wait: bool = True, timeout: float = 60) -> None:
        """Run a cell."""
        self.page.evaluate(
            f"""cell => {{ const n = {PANEL}.content; n.deselectAll(); n.activeCellIndex = cell;
              window.jupyterapp.commands.execute('notebook:run-cell'); return true }}""",
            cell,
        )
        if wait:
            self.wait_ran(cell, timeout)

    def wait_ran(self, cell: int, timeout: float = 60) -> None:
        """Wait until a cell has ended."""
        self.page.wait_for_function(
            f"""cell => {{ const c = {PANEL}.content.widgets[cell];
              return c.model.executionCount !== null && c.model.executionState !== 'running'
                && !c.promptNode.textContent.includes('*') }}""",
            arg=cell,
            timeout=timeout * 1000,
        )

    def busy(self, cell: int) -> bool:
        """Whether a cell is running."""
        return self.page.evaluate(
            f"cell => {PANEL}.content.widgets[cell].promptNode.textContent.includes('*')", cell
        )

    def python(self, code: str) -> str:
        """Run code in the kernel outside of any cell; return what it prints."""
        return self.page.evaluate(
            f"""code => new Promise((resolve, reject) => {{
              const kernel = {PANEL}.sessionContext.session.kernel; let said = '';
              const f = kernel.requestExecute({{code, store_history: false}});
              f.onIOPub = m => {{ const t = m.header.msg_type;
                if (t === 'stream') said += m.content.text;
                if (t === 'error') said += m.content.traceback.join('\\n') }};
              f.done.then(() => resolve(said), reject) }})""",
            code,
        )

    def interrupt(self) -> None:
        """Press Interrupt."""
        self.page.evaluate(f"{PANEL}.sessionContext.session.kernel.interrupt().then(() => true)")

    def restart(self) -> None:
        """Restart the kernel; return when the new one answers.

        "idle" may still be the old one's word. And ipykernel 7.0 to 7.3 may not see what is sent
        first on a new connection, until there is another (its issue 1554): so it is asked until
        it answers, each time on a new one.
        """
        self.page.evaluate(f"{PANEL}.sessionContext.restartKernel().then(() => true)")
        self.ready()
        wait_for(self._answers, 60)

    def _answers(self) -> bool:
        answered = self.page.evaluate(
            f"""() => Promise.race([
              {PANEL}.sessionContext.session.kernel
                .requestExecute({{code: 'pass', store_history: false}}).done
                .then(() => true, () => false),
              new Promise(resolve => setTimeout(() => resolve(false), 3000))])"""
        )
        if not answered:
            print("the kernel does not answer; connecting to it anew")
            self.page.evaluate(f"{PANEL}.sessionContext.session.kernel.reconnect().then(() => 1)")
            self.ready()
        return answered

    def save(self) -> Path:
        """Save the notebook and return its file."""
        self.page.evaluate("window.jupyterapp.commands.execute('docmanager:save').then(() => true)")
        return self.server.root / self.name

    def text(self, cell: int) -> str:
        """What a cell's output says."""
        return self.page.evaluate(
            f"cell => {PANEL}.content.widgets[cell].outputArea.node.innerText", cell
        )
