"""Whether two storyboards are one and the same at two moments.

A storyboard has no id: people change a prompt, a style, a seed, and run it again. A log holds what
each run was to draw, and who looks on has to know which runs go on with what is on screen, and
which are about something else and would write over it.

* Another title is another storyboard, and the same title the same one.
* Without a title, two are one if a scene of theirs is: the one with the same id. But an id that
  says nothing but the scene's position (`scene-1`, which prompts without an id are given) names
  nothing: such a scene has to have the same prompt, too.

So whoever edits some prompts, or style, negative, seeds and knobs of all, goes on with the same
storyboard; whoever writes other prompts throughout has begun another. Where every prompt is
edited at once, as that of a single scene, nobody can tell the two apart. Then it counts as another
one: a board that does not go along is opened again, while a tile that was written over shows
something that nobody asked for there. A title, or ids, say that it is the same.

In a log that leaves prompts out all prompts are the same text; there the ids decide alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfynb.errors import SceneError
from comfynb.scenes import Storyboard


def is_same(one: Storyboard, other: Storyboard) -> bool:
    """Whether one storyboard is what has become of the other."""
    if one.title or other.title:
        return one.title == other.title
    return not _names(one).isdisjoint(_names(other))


def has_same_scenes(one: Storyboard, other: Storyboard) -> bool:
    """Whether they are the same, and a tile of one stands where that of the other stood."""
    return [s.id for s in one] == [s.id for s in other] and is_same(one, other)


def storyboard_of(data: Mapping[str, Any]) -> Storyboard | None:
    """Return the storyboard of a run out of a log; None: it is not one of ours."""
    try:
        return Storyboard.from_dict(data)
    except SceneError:
        return None


def _names(storyboard: Storyboard) -> frozenset[tuple[str, str]]:
    """Return what its scenes are known by."""
    return frozenset(
        (scene.id, scene.prompt if scene.id == f"scene-{position}" else "")
        for position, scene in enumerate(storyboard, start=1)
    )
