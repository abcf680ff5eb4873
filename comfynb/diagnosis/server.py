"""What a server is and has: release, devices, node classes, models."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from urllib.parse import quote

from comfynb import loop
from comfynb.backends.comfyui.releases import INTERRUPTS_BY_ID, Release
from comfynb.diagnosis.notes import Notes, clean, count, size, span
from comfynb.diagnosis.visit import Visit, listed, mapping, number
from comfynb.errors import BackendError, ServerError

MODELS = ("checkpoints", "diffusion_models", "unet", "unet_gguf")
"""Folders of which one must hold something, or nothing can be drawn."""
MOST_FOLDERS = 60
AT_ONCE = 4
"""Requests at a time."""


async def release(visit: Visit, notes: Notes) -> None:
    """Which ComfyUI, and what that means."""
    system = visit.system
    engine, version = system.get("comfynb_engine"), system.get("comfyui_version")
    if engine:
        notes.fact("Server", f"comfynb's engine {engine}", engine=clean(engine, 40))
        notes.fact("Protocol", f"as ComfyUI {version}", comfyui=clean(version, 40))
    else:
        shown = clean(version, 40) if version else "does not say"
        notes.fact("ComfyUI", shown, comfyui=shown if version else None)
    python = clean(system.get("python_version") or "", 40).partition(" ")[0]
    torch = "" if engine else clean(system.get("pytorch_version") or "", 40)
    runs = [f"Python {python}" if python else "", f"PyTorch {torch}" if torch else ""]
    if text := ", ".join(filter(None, runs)):
        notes.fact("Runs on", text, python=python, pytorch=torch)
    known = Release.of(clean(version or "", 40))
    if not known.interrupts_by_id:
        notes.warn(
            "it is an old release, which cannot interrupt one prompt by its id: what runs is left "
            "to its end when you cancel",
            f"update it to {'.'.join(map(str, INTERRUPTS_BY_ID))} or newer",
        )
    if not known.takes_ids:
        notes.note("it chooses prompt ids by itself; comfynb marks its own to find them again")
    if not version:
        notes.note("it does not say its release, so a recent one is assumed")
    if not engine and visit.flags and visit.flag("--preview-method") in (None, "none"):
        notes.note(
            "it sends no previews while it draws",
            "start it with --preview-method auto to see pictures as they come",
        )


async def devices(visit: Visit, notes: Notes) -> None:
    """What it computes on, and how much memory is left."""
    system = visit.system
    total, free = number(system.get("ram_total")), number(system.get("ram_free"))
    found = [mapping(device) for device in listed(visit.stats.get("devices"))[:16]]
    data = []
    for device in found:
        name = clean(re.sub(r"\s*:\s*cudaMallocAsync$", "", str(device.get("name") or "?")), 80)
        whole, left = number(device.get("vram_total")), number(device.get("vram_free"))
        text = f"{size(left)} of {size(whole)} free" if whole else "memory not told"
        data.append(
            {"name": name, "type": clean(device.get("type"), 20), "memory_bytes": int(whole),
             "free_bytes": int(left)}
        )  # fmt: skip
        notes.fact(name, text)
        if device.get("type") != "cpu" and 0 < left < whole / 10:
            notes.warn(
                f"{name} has {size(left)} of {size(whole)} left",
                "close what else uses it; ComfyUI gives its models back with POST /free",
            )
    if total:
        notes.fact("Main memory", f"{size(free)} of {size(total)} free")
        if 0 < free < total / 20:
            notes.warn(
                f"its machine has {size(free)} of {size(total)} main memory left",
                "close what else runs there",
            )
    notes.data(devices=data, ram_bytes=int(total), ram_free_bytes=int(free))
    slow = found and all(device.get("type") == "cpu" for device in found)
    if slow and not system.get("comfynb_engine"):
        notes.note("it computes on the CPU, which takes minutes where a GPU takes seconds")


async def nodes(visit: Visit, notes: Notes) -> None:
    """Which node classes it knows, and how many packs of custom nodes they come from."""
    begun = time.monotonic()
    classes = mapping(await visit.http.get_json("/object_info"))
    took = time.monotonic() - begun
    visit.nodes = frozenset(classes)
    modules = Counter(
        module.split(".")[1]
        for entry in classes.values()
        if (module := str(mapping(entry).get("python_module") or "")).startswith("custom_nodes.")
    )
    outputs = sum(bool(mapping(entry).get("output_node")) for entry in classes.values())
    notes.fact(
        "Node classes", f"{len(classes):,}, of which {outputs} give outputs",
        classes=len(classes), output_classes=outputs,
    )  # fmt: skip
    notes.fact(
        "Custom nodes",
        f"{sum(modules.values()):,} of them, in {count(len(modules), 'pack')}"
        if modules
        else "none",
        custom_packs=len(modules), custom_classes=sum(modules.values()),
    )  # fmt: skip
    told = len(await loop.in_worker(json.dumps, classes))
    notes.fact("Told", f"{size(told)} in {span(took)}", object_info_ms=round(took * 1000, 1))
    if not classes:
        notes.problem("it knows no node class", "look at its log: its nodes could not be loaded")


async def models(visit: Visit, notes: Notes) -> None:
    """How many models each folder has."""
    try:
        folders = [str(name) for name in listed(await visit.http.get_json("/models"))]
    except ServerError as exc:
        if exc.status is None or exc.status >= 500:
            raise
        notes.skip("it is too old to list its models")
        return
    limit = asyncio.Semaphore(AT_ONCE)

    async def how_many(folder: str) -> int | None:
        async with limit:
            try:
                answer = await visit.http.get_json(f"/models/{quote(folder, safe='')}")
            except BackendError:
                return None  # a folder that is named and not there
            return len(listed(answer))

    folders = folders[:MOST_FOLDERS]
    counts = dict(zip(folders, await asyncio.gather(*map(how_many, folders)), strict=True))
    held = {clean(folder, 60): n for folder, n in counts.items() if n and folder != "custom_nodes"}
    for folder, n in sorted(held.items(), key=lambda item: (item[0] not in MODELS, item[0]))[:12]:
        notes.fact(folder, f"{n:,}")
    embeddings = listed(await visit.http.get_json("/embeddings"))
    if embeddings and "embeddings" not in held:
        notes.fact("embeddings", f"{len(embeddings):,}")
    notes.fact(
        "Folders", f"{len(held)} of {len(folders)} hold something",
        models=held, embeddings=len(embeddings),
    )  # fmt: skip
    if not any(counts.get(folder) for folder in MODELS):
        notes.warn(
            "it has neither a checkpoint nor a diffusion model",
            "put one into its models/checkpoints folder; workflows that call a service or load "
            "a model in another way do without",
        )
