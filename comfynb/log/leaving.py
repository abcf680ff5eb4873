"""What a log is asked not to keep: the prompts, or the workflows, of all that goes into it.

Rows and pictures lose both on their way in, so that nothing has to be taken out later. Left out as
`workflows` are the graphs of runs and results. As `prompts`, all that says what was to be drawn:

- prompt, negative, style and notes, of scenes, storyboards, cells and keyframes, and the words
  that the model did not know. A scene is read back with `LEFT_OUT` for its prompt; it is called by
  its id where it has no title, since its prompt cannot stand for one any more;
- knobs that are texts, but for those whose role is to name a choice or a file (`sampler`,
  `checkpoint`, `lora_2`, ...): whether any other text is a prompt, nobody can tell;
- the same texts where warnings and errors quote them, whole, cut or escaped, and their words;
- the graphs, which hold all of this.

A ComfyUI writes prompt and graph into its files too. They are taken out of PNG, WebP and JPEG,
whose pixels stay bit for bit; any other file is kept as it came, and its keyframe warns of it.

What stays: ids, titles, seeds, numbers, names of files and choices, timings, what is said about
pictures later, and the files that a prompt starts from, which are the user's own, named by their
content, and sent again by later processes. The key stays as well, a hash of the graph: whoever
guesses a prompt, its seed and its knobs can check the guess.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfynb.errors import LogWriteError
from comfynb.inputs import InputFile
from comfynb.keyframes import EMPTY, Failure, Keyframe, Output
from comfynb.log import folder as files
from comfynb.log.quotations import unquoted
from comfynb.log.records import CellRecord, RunRecord
from comfynb.log.stripping import strip
from comfynb.scenes import LEFT_OUT, Scene
from comfynb.values import short

LEAVABLE = ("prompts", "workflows")

_NAMING = re.compile(
    "sampler|scheduler|checkpoint|unet|vae|image|aspect_ratio|(clip|lora)(_[0-9]+)?"
)
"""Knobs whose texts name a choice or a file (workflows/roles.py); others may hold a prompt."""

_OF_SCENE = frozenset({"id", "title", "seed", "knobs"})
_OF_STORYBOARD = frozenset({"title", "seed", "knobs"})


def chosen(leave_out: str | Iterable[str]) -> frozenset[str]:
    """Return what shall be left out, with all that goes with it.

    Raises:
        ValueError: A word is none of `LEAVABLE`.
    """
    words = {leave_out} if isinstance(leave_out, str) else set(leave_out)
    for word in words - set(LEAVABLE):
        raise ValueError(f"a log can leave out 'prompts' and 'workflows', not {short(word)}")
    return _closed(words)


def _closed(words: Collection[str]) -> frozenset[str]:
    return frozenset(LEAVABLE if "prompts" in words else words)


class Leaving:
    """What one open log leaves out: what it was told to, and what its folder says.

    The folder may be made, or made anew, by another process at any time; so its marker is looked
    at before each row that has something to leave out. What was once to be left out stays so as
    long as the log is open.

    Args:
        root: The log folder; need not exist.
        leave_out: Some of `LEAVABLE`.

    Raises:
        ValueError: `leave_out` has another word.
    """

    def __init__(self, root: Path, leave_out: str | Iterable[str]) -> None:
        self._root = root
        self._words = chosen(leave_out)
        self._unknown: frozenset[str] = frozenset()
        self._seen: tuple[int, ...] = ()

    @property
    def words(self) -> frozenset[str]:
        """Some of `LEAVABLE`.

        Raises:
            LogError: The folder is not that of a log any more.
        """
        self._look()
        return self._words

    def check(self) -> None:
        """Refuse to append where more is to be left out than this comfynb knows of.

        Goes by what was seen last: what has nothing to leave out is not held up.

        Raises:
            LogWriteError: It is so.
        """
        if not self._seen:
            self._look()
        if self._unknown:
            words = ", ".join(short(word) for word in sorted(self._unknown)[:3])
            raise LogWriteError(
                f"the log at {self._root} leaves out {words}, which this comfynb does not know "
                "how to do, so it appends nothing. Upgrade: pip install -U comfynb; or mend "
                f"'leaves_out' in {files.MARKER}",
                folder=str(self._root),
            )

    def _look(self) -> None:
        try:
            status = (self._root / files.MARKER).stat()
        except OSError:  # not made yet, or removed
            return
        seen = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            listed = files.left_out(self._root)
            self._unknown = listed - set(LEAVABLE)
            self._words |= _closed(listed & set(LEAVABLE))
            self._seen = seen


def run_without(run: RunRecord, leaves_out: Collection[str]) -> RunRecord:
    """Return a run as a log keeps it that leaves something out."""
    if not leaves_out:
        return run
    bare = replace(run, workflow=EMPTY)
    if "prompts" not in leaves_out:
        return bare
    scenes = [scene for scene in run.storyboard.get("scenes", ()) if isinstance(scene, Mapping)]
    cells = tuple(map(_cell_without, run.cells))
    known = [text for cell in run.cells for text in (cell.prompt, cell.negative)]
    return replace(
        bare,
        storyboard=_only(run.storyboard, _OF_STORYBOARD)
        | {"scenes": [_scene_dict_without(scene) for scene in scenes]},
        axes={name: _unquoted(value, known) for name, value in run.axes.items()},
        cells=cells,
    )


def keyframe_without(keyframe: Keyframe, leaves_out: Collection[str]) -> Keyframe:
    """Return a keyframe as a log keeps it that leaves something out; its outputs stay."""
    if not leaves_out:
        return keyframe
    bare = replace(keyframe, workflow=None)
    if "prompts" not in leaves_out:
        return bare
    scene, error = keyframe.scene, keyframe.error
    said = [keyframe.prompt, keyframe.negative]
    known = [*said, scene.prompt, scene.negative, scene.notes, *_texts(keyframe)]
    if error is not None:
        message, hint = unquoted(error.message, known), unquoted(error.hint, known)
        error = Failure(error.kind, message, error.node, hint)
    return replace(
        bare,
        scene=Scene.from_dict(_scene_dict_without(scene.to_dict())),
        prompt="",
        negative="",
        knobs=_knobs_without(keyframe.knobs),
        axes=_axes_without(keyframe.axes, said),
        error=error,
        warnings=tuple(unquoted(warning, known) for warning in keyframe.warnings),
        unknown_words=(),
    )


def outputs_without(
    keyframe: Keyframe, images: Sequence[bytes], leaves_out: Collection[str]
) -> tuple[Keyframe, Sequence[bytes]]:
    """Take what a server wrote into its files out of them.

    Args:
        keyframe: Its outputs describe `images`.
        images: As the server sent them.
        leaves_out: By the log.

    Returns:
        The keyframe with the outputs that are left, with a warning for each that may still hold
        what is to be left out; and those.
    """
    if not leaves_out:
        return keyframe, images
    outputs: list[Output] = []
    kept: list[bytes] = []
    warnings = list(keyframe.warnings)
    for output, data in zip(keyframe.outputs, images, strict=True):
        try:
            bare = strip(data, output.mime)
        except ValueError:  # whoever drew it wrote it in a way of their own
            bare = None
        if bare is None:
            warnings += _told(output, leaves_out)
            bare = data
        sha256 = hashlib.sha256(bare).hexdigest()
        outputs.append(replace(output, sha256=sha256, bytes=len(bare)))
        kept.append(bare)
    return replace(keyframe, outputs=tuple(outputs), warnings=tuple(warnings)), kept


def _told(output: Output, leaves_out: Collection[str]) -> Iterator[str]:
    which = f"output {output.index} of node {output.node}"
    if output.kind != "text":
        what = " and ".join(word[:-1] for word in LEAVABLE if word in leaves_out)
        yield (
            f"{which}: the {output.mime} file is kept as the server sent it and may hold the {what}"
        )
    elif "prompts" in leaves_out:
        yield f"{which}: the text is kept as the server sent it and may repeat the prompt"


# -- the parts


def _only(data: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return some of what a scene or a storyboard sets, as JSON values."""
    kept = {name: value for name, value in data.items() if name in names}
    if isinstance(kept.get("knobs"), Mapping):
        kept["knobs"] = _knobs_without(kept["knobs"])
    return kept


def _scene_dict_without(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"title": data.get("id", ""), **_only(data, _OF_SCENE), "prompt": LEFT_OUT}


def _cell_without(cell: CellRecord) -> CellRecord:
    axes = _axes_without(cell.axes, [cell.prompt, cell.negative])
    return replace(cell, prompt="", negative="", knobs=_knobs_without(cell.knobs), axes=axes)


def _knobs_without(knobs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in knobs.items() if _may_stay(name, value)}


def _may_stay(name: str, value: Any) -> bool:
    if isinstance(value, str):
        return _NAMING.fullmatch(name) is not None
    if isinstance(value, Mapping):
        return isinstance(value, InputFile) or InputFile.of_kept(value) is not None
    return value is None or isinstance(value, int | float)


def _texts(keyframe: Keyframe) -> Iterator[str]:
    """Yield the texts that were sent beside the prompt: of knobs, and prose of the graph."""
    stays = set()
    for knobs in (keyframe.knobs, keyframe.scene.knobs):
        for name, value in knobs.items():
            if isinstance(value, str):
                if _may_stay(name, value):
                    stays.add(value)
                else:
                    yield value
    for node in (keyframe.workflow or EMPTY).values():
        for value in node.get("inputs", EMPTY).values():
            if isinstance(value, str) and " " in value and value not in stays:
                yield value


def _axes_without(axes: Mapping[str, str], said: Sequence[str]) -> dict[str, str]:
    return {name: _unquoted(label, said) for name, label in axes.items()}


def _unquoted(value: Any, known: Sequence[str]) -> Any:
    """Return a label, or a value of an axis, that tells nothing; different ones stay different."""
    if isinstance(value, str):
        if unquoted(value, known) == value:
            return value
        return f"left out {hashlib.sha256(value.encode(errors='replace')).hexdigest()[:8]}"
    if isinstance(value, Mapping):
        return {name: _unquoted(entry, known) for name, entry in value.items()}
    return [_unquoted(entry, known) for entry in value] if isinstance(value, list) else value
