"""Scenes and storyboards: what is to be drawn, and what the scenes share.

A `Scene` is one picture in words; a `Storyboard` is an ordered set of them with a shared style,
negative prompt, seed and knob values. Both are checked when they are made, so that everything
behind them (cells, runs, the log) meets sound values only. `Storyboard.of` takes what people
have at hand: a prompt, a list of prompts or dicts, a DataFrame, a file.
`scene_input` says how a row of names and values is read.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from comfynb import storyboard_files
from comfynb.errors import SceneError
from comfynb.scene_input import (
    check_id,
    check_knobs,
    check_seed,
    check_text,
    frame_rows,
    plain_knobs,
    split_row,
    suggest,
)
from comfynb.storyboard_files import SCENE_FIELDS
from comfynb.values import describe, short

SHARED_FIELDS = ("title", "style", "negative", "seed")
"""What a storyboard holds beside scenes and knobs."""

LEFT_OUT = "(prompt left out)"
"""The prompt of a scene out of a log that leaves prompts out; it is never sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One picture in words.

    White space around texts is dropped.

    Attributes:
        id: Names the scene within its storyboard; 1 to 120 characters, any script, without
            slashes and control characters.
        prompt: What is to be seen; not empty.
        title: What to call it in grids; "" means the id.
        negative: What is not to be seen.
        seed: 0 to 2**64 - 1, or None for the storyboard's.
        knobs: Values for this scene alone, by knob name: texts, numbers, true or false; for
            knobs such as `image` also a path, bytes, a PIL image, an array (height, width, 3 or
            4; uint8, or floats from 0 to 1) or a keyframe, kept as an `InputFile`.
        notes: For people; never sent anywhere.

    Raises:
        SceneError: If one of them is not so.
    """

    id: str
    prompt: str
    title: str = ""
    negative: str = ""
    seed: int | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    notes: str = ""

    def __post_init__(self) -> None:
        _set(self, "id", check_id(self.id))
        for name in ("prompt", "title", "negative", "notes"):
            _set(self, name, check_text(name, getattr(self, name)))
        if not self.prompt:
            raise SceneError("the prompt is empty", hint="Say what is to be seen")
        if self.seed is not None:
            _set(self, "seed", check_seed(self.seed))
        _set(self, "knobs", check_knobs(self.knobs))

    @property
    def label(self) -> str:
        """What to call it: the title, or the id where there is none."""
        return self.title or self.id

    def to_dict(self) -> dict[str, Any]:
        """Return what is set, as JSON values; `from_dict` reads it back."""
        data = {
            "id": self.id,
            "title": self.title,
            "prompt": self.prompt,
            "negative": self.negative,
            "seed": self.seed,
            "knobs": plain_knobs(self.knobs),
            "notes": self.notes,
        }
        return {name: value for name, value in data.items() if value not in (None, "", {})}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, default_id: str | None = None) -> Self:
        """Read a scene from one row of names and values.

        Args:
            data: As `scene_input` describes.
            default_id: Used where `data` has no id; None: an id must be there.

        Raises:
            SceneError: It has an unknown name, or a value that is not allowed.
        """
        own, knobs = split_row(data, SCENE_FIELDS)
        own.setdefault("id", default_id)
        if own["id"] is None:
            raise SceneError("the id is missing", hint="Give the scene an 'id'")
        if "prompt" not in own:
            raise SceneError("the prompt is missing or empty", hint="Say what is to be seen")
        return cls(**own, knobs=knobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storyboard:
    """Scenes in order, and what they share.

    Attributes:
        scenes: At least one; ids are unique.
        style: Joined to every prompt, behind it.
        negative: Joined to every scene's negative, behind it.
        seed: For every scene without its own: 0 to 2**64 - 1, or "random" to draw one for the
            whole storyboard each time its cells are made. The fixed default makes asking twice
            free.
        knobs: Values for every scene that does not say otherwise.
        title: What to call it.

    Raises:
        SceneError: If one of them is not so.

    Example:
        >>> board = Storyboard.of(["a lighthouse at dawn", "a fox in the snow"], style="watercolor")
        >>> [board.prompt_of(scene) for scene in board]
        ['a lighthouse at dawn, watercolor', 'a fox in the snow, watercolor']
    """

    scenes: tuple[Scene, ...]
    style: str = ""
    negative: str = ""
    seed: int | Literal["random"] = 0
    knobs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    title: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.scenes, str | Mapping) or not isinstance(self.scenes, Iterable):
            raise SceneError(
                f"scenes must be a list of Scene, not {describe(self.scenes)}",
                hint="Storyboard.of(...) takes prompts and dicts too",
            )
        _set(self, "scenes", tuple(self.scenes))
        if not self.scenes:
            raise SceneError("the storyboard has no scenes", hint="Give it at least one prompt")
        rows: dict[str, int] = {}
        for position, scene in enumerate(self.scenes, start=1):
            if not isinstance(scene, Scene):
                raise SceneError(
                    f"this must be a Scene, not {describe(scene)}",
                    row=f"row {position}",
                    hint="Storyboard.of(...) takes prompts and dicts too",
                )
            if scene.id in rows:
                raise SceneError(
                    f"the id is already used by row {rows[scene.id]}",
                    row=f"row {position} (id {scene.id!r})",
                    hint="Ids must differ; without one, a scene is numbered by its position",
                )
            rows[scene.id] = position
        for name in ("style", "negative", "title"):
            _set(self, name, check_text(name, getattr(self, name)))
        if self.seed != "random":
            _set(self, "seed", check_seed(self.seed))
        _set(self, "knobs", check_knobs(self.knobs))

    def __len__(self) -> int:
        return len(self.scenes)

    def __iter__(self) -> Iterator[Scene]:
        return iter(self.scenes)

    def prompt_of(self, scene: Scene) -> str:
        """Return the positive text: the scene's prompt, then the style."""
        return ", ".join(part for part in (scene.prompt, self.style) if part)

    def negative_of(self, scene: Scene) -> str:
        """Return the negative text: the scene's, then the storyboard's; "" if there is none."""
        return ", ".join(part for part in (scene.negative, self.negative) if part)

    def knobs_of(self, scene: Scene) -> dict[str, Any]:
        """Return the storyboard's knob values, overridden by the scene's."""
        return {**self.knobs, **scene.knobs}

    def to_dict(self) -> dict[str, Any]:
        """Return what is set, as JSON values; `from_dict` reads it back."""
        data = {
            "title": self.title,
            "style": self.style,
            "negative": self.negative,
            "seed": self.seed or None,
            "knobs": plain_knobs(self.knobs),
            "scenes": [scene.to_dict() for scene in self.scenes],
        }
        return {name: value for name, value in data.items() if value not in (None, "", {})}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read a storyboard from a mapping with `scenes` and what they share.

        Raises:
            SceneError: It has an unknown name, or a value that is not allowed.
        """
        shared = {name: value for name, value in data.items() if name != "scenes"}
        own, knobs = split_row(shared, SHARED_FIELDS, more=("scenes",))
        scenes = data.get("scenes")
        if isinstance(scenes, str | Mapping) or not isinstance(scenes, Sequence):
            raise SceneError(
                f"'scenes' must be a list, not {describe(scenes)}"
                if "scenes" in data
                else "there is no 'scenes'",
                hint="Give a list of prompts or scenes under 'scenes'",
            )
        return cls(scenes=_scenes(scenes), **own, knobs=knobs)

    @classmethod
    def of(cls, source: Any, **shared: Any) -> Self:
        """Make a storyboard of what is at hand.

        Args:
            source: A storyboard; a scene; a prompt; a list of scenes, prompts and dicts; a
                pandas DataFrame, one scene a row; a mapping with `scenes` (or of one scene); or
                the path of a file as `pathlib.Path`. A text is always a prompt, never a path.
            **shared: `style`, `negative`, `seed`, `knobs` or `title` to set on the storyboard.

        Raises:
            SceneError: It cannot be understood; names the row.
        """
        storyboard = cls._of(source)
        if not shared:
            return storyboard
        known = [f.name for f in dataclasses.fields(cls) if f.name != "scenes"]
        for name in shared:
            if name not in known:
                raise SceneError(f"unknown key {name!r}", hint=suggest(name, known))
        return dataclasses.replace(storyboard, **shared)

    @classmethod
    def _of(cls, source: Any) -> Self:
        if isinstance(source, cls):
            return source
        if isinstance(source, str):
            if Path(source).suffix.lower() in storyboard_files.FORMATS and " " not in source:
                raise SceneError(
                    f"{source!r} looks like the name of a file, but a text is a prompt here",
                    hint=f"Write Storyboard.load({source!r}) or pathlib.Path({source!r})",
                )
            return cls(scenes=_scenes([source]))
        if isinstance(source, Scene):
            return cls(scenes=(source,))
        if isinstance(source, os.PathLike):
            return cls.load(source)
        if isinstance(source, Mapping):
            if "prompt" in source and "scenes" not in source:
                return cls(scenes=_scenes([source]))
            return cls.from_dict(source)
        pandas = sys.modules.get("pandas")  # whoever has a frame has imported it
        if pandas is not None and isinstance(source, pandas.DataFrame):
            return cls(scenes=_scenes(frame_rows(source)))
        if isinstance(source, Iterable) and not isinstance(source, bytes | bytearray):
            return cls(scenes=_scenes(list(source)))
        raise SceneError(
            f"a storyboard cannot be made of {describe(source)}",
            hint="Give a prompt, a list of prompts or dicts, a DataFrame, or a pathlib.Path",
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a `.txt`, `.csv`, `.tsv`, `.yaml`, `.yml` or `.json` file.

        Args:
            path: Its suffix says the format; `storyboard_files` tells what each holds.

        Raises:
            SceneError: It cannot be read or understood; names the file and the row.
        """
        path = Path(path)
        data = storyboard_files.read(path)
        try:
            if isinstance(data, Mapping):
                return cls.from_dict(data)
            if isinstance(data, list):
                return cls(scenes=_scenes(data))
            raise SceneError(  # noqa: TRY301 (gets the file's name below)
                f"the file holds {describe(data)}, not a list of scenes",
                hint="Write a list of prompts, or a mapping with 'scenes'",
            )
        except SceneError as error:
            raise SceneError(
                error.problem, source=str(path), row=error.row, hint=error.hint
            ) from error.__cause__

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that `load` reads back as an equal storyboard.

        YAML and JSON hold everything. Text and CSV hold no shared values (and text nothing but
        prompts): what they have no place for is refused rather than lost.

        Args:
            path: Its suffix says the format.

        Raises:
            SceneError: The format has no place for something, or the file cannot be written.
        """
        storyboard_files.write(Path(path), self.to_dict())


def _set(instance: Any, name: str, value: Any) -> None:
    """Set a field of a frozen dataclass while it is made."""
    object.__setattr__(instance, name, value)


def _scenes(entries: Iterable[Any]) -> tuple[Scene, ...]:
    """Read prompts, dicts and scenes; an error says which one it is about."""
    scenes: list[Scene] = []
    for position, entry in enumerate(entries, start=1):
        try:
            scenes.append(_scene(entry, f"scene-{position}"))
        except SceneError as error:
            given = entry.get("id") if isinstance(entry, Mapping) else None
            row = f"row {position}" if given is None else f"row {position} (id {short(given)})"
            raise SceneError(error.problem, row=row, hint=error.hint) from error.__cause__
    return tuple(scenes)


def _scene(entry: Any, default_id: str) -> Scene:
    if isinstance(entry, Scene):
        return entry
    if isinstance(entry, str):
        return Scene(id=default_id, prompt=entry)
    if isinstance(entry, Mapping):
        return Scene.from_dict(entry, default_id=default_id)
    raise SceneError(
        f"a scene must be a text or a mapping, not {describe(entry)}",
        hint="Write a prompt, or 'id', 'prompt' and so on",
    )
