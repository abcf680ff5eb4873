"""Files over HTTP: /view and /upload/image.

Which name gets which status is ComfyUI 0.3.75's (measured, http_files and http_upload_raw).
"""

from __future__ import annotations

import asyncio
import mimetypes
from pathlib import Path

from aiohttp import web

from comfynb.engine import pictures
from comfynb.engine.files import Files, OutsideFolderError, split_annotation

# Never shown as a page of our origin, whatever was uploaded (newer ComfyUI does the same).
_PASSIVE = "application/octet-stream"
_ACTIVE = {
    "application/javascript",
    "application/xhtml+xml",
    "application/xml",
    "image/svg+xml",
    "text/css",
    "text/html",
    "text/javascript",
    "text/xml",
}


async def view(request: web.Request, files: Files) -> web.StreamResponse:
    """Answer GET /view: a file, or a small or partial version of a picture."""
    query = request.query
    if "filename" not in query:
        return web.Response(status=404)
    name, folder = split_annotation(query["filename"])
    folder = folder or query.get("type", "output")
    if not name or name.startswith("/") or ".." in name:
        return web.Response(status=400)
    try:
        directory = files.resolve(folder, query.get("subfolder", ""))
        path = files.resolve(folder, str(directory), Path(name).name)
    except KeyError:
        return web.Response(status=400)
    except OutsideFolderError:
        return web.Response(status=403)
    except ValueError:  # a null byte
        return web.Response(status=400)
    if not await asyncio.to_thread(path.is_file):
        return web.Response(status=404)
    headers = {
        "Content-Disposition": f'filename="{path.name}"',
        "X-Content-Type-Options": "nosniff",
    }
    preview, channel = query.get("preview"), query.get("channel", "")
    if preview is None and "channel" not in query:
        return web.FileResponse(path, headers={**headers, "Content-Type": _media_type(path)})
    data, media_type = await asyncio.to_thread(
        pictures.converted, path, preview=preview, channel=channel
    )
    return web.Response(body=data, headers={**headers, "Content-Type": media_type})


def _media_type(path: Path) -> str:
    media_type = mimetypes.guess_type(path.name)[0] or _PASSIVE
    return _PASSIVE if media_type in _ACTIVE else media_type


async def upload(request: web.Request, files: Files) -> web.Response:
    """Answer POST /upload/image: store any file, unchecked, under a free name."""
    form = await request.post()
    part = form.get("image")
    if part is None:
        return web.Response(status=400)
    if not isinstance(part, web.FileField) or not part.filename:
        raise web.HTTPInternalServerError(text=TROUBLE)
    folder = str(form.get("type", "input"))
    subfolder = str(form.get("subfolder", ""))
    try:
        directory = files.resolve(folder, subfolder)
        path = files.resolve(folder, str(directory), part.filename)
    except OutsideFolderError:
        # An absolute name is an error of another kind in ComfyUI.
        if Path(part.filename).is_absolute():
            raise web.HTTPInternalServerError(text=TROUBLE) from None
        return web.Response(status=400)
    except (KeyError, ValueError):
        raise web.HTTPInternalServerError(text=TROUBLE) from None
    data = await asyncio.to_thread(part.file.read)
    overwrite = form.get("overwrite") in ("true", "1")
    try:
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        stored = await asyncio.to_thread(_store, path, data, overwrite=overwrite)
    except OSError:
        raise web.HTTPInternalServerError(text=TROUBLE) from None
    name = str(Path(part.filename).with_name(stored.name).as_posix())
    return web.json_response({"name": name, "subfolder": subfolder, "type": folder})


def _store(path: Path, data: bytes, *, overwrite: bool) -> Path:
    """Write a file, or find the same bytes; another file of that name gets a number."""
    free, number = path, 1
    while not overwrite and free.exists():
        if free.read_bytes() == data:
            return free
        free = path.with_name(f"{path.stem} ({number}){path.suffix}")
        number += 1
    free.write_bytes(data)
    return free


TROUBLE = "500 Internal Server Error\n\nServer got itself in trouble"
"""The text of every 500, aiohttp's own included."""
