"""How a cell goes from one status to the next: every step, who causes it, and what ends it.

    from         to           because
{table}

Within a run nothing leaves a status that ends a cell: done, cached, failed, cancelled, lost,
unknown. On a board the cell begins anew with the next run over it (Retry, Regenerate, Resume).

Four rules stand behind the table.

* A prompt id is chosen and written down before anything is sent. So after any break (silence, a
  dropped socket, a restart or kill -9 on either side) there is somebody to ask: /queue first and
  then /history, or /api/jobs where the server has it.
* A picture that exists on a server is fetched, never made again. What a dead session sent is
  adopted: followed by asking, since its messages belong to a client id that died with it. If
  somebody stopped it meanwhile, it is wanted again now: it goes back to the queue.
* `lost` is what a server says of a prompt that it should have and does not: it was restarted, or
  somebody cleared its queue. The cell goes back to the queue for one new attempt under a new
  prompt id, but never where attempts are billed, and not with `resubmit_lost=False`.
* `unknown` is what nobody can say: the prompt went to a server that is not connected now. It may
  be running there, so it is not made again until somebody says so.

A board of an opened log has no run of its own and takes no steps: it shows what the log knows of
each cell, and knows of no `running`. There `submitted` is what a living session has sent.
`cancelled` is also what a board shows of a picture that somebody deleted from the log.

`stale` is no status but a flag beside it, and only boards have it: the keyframe that is shown was
made for this place before its prompt or graph was changed.
"""

from __future__ import annotations

from typing import NamedTuple

from comfynb.keyframes import ENDED, Status


class Step(NamedTuple):
    """One step that a cell may take.

    Attributes:
        before: The status that it leaves.
        after: The status that it comes to.
        because: Who causes it, and when.
    """

    before: Status
    after: Status
    because: str


STEPS: tuple[Step, ...] = (
    Step("queued", "cached", "the log has its picture, or somebody else has just made it"),
    Step("queued", "submitted", "the run writes its prompt id down and sends it, or adopts it"),
    Step("queued", "failed", "its last server is gone, or the cell that it equals failed"),
    Step("queued", "cancelled", "the user, before it was sent"),
    Step("queued", "lost", "the cell that it equals was lost"),
    Step("queued", "unknown", "the cell that it equals is unknown"),
    Step("submitted", "running", "the server began with it"),
    Step("submitted", "done", "the server, between two askings, or out of its cache"),
    Step("submitted", "failed", "the server refused it, or is gone, or the log cannot be written"),
    Step("submitted", "cancelled", "the user, or somebody who took it off the server"),
    Step("submitted", "lost", "the server does not know it, and there is no attempt left"),
    Step("submitted", "unknown", "a dead session sent it to a server that is not connected"),
    Step("submitted", "queued", "the server forgot it, or is away while another makes it"),
    Step("running", "done", "every output is here, checked and durable"),
    Step("running", "failed", "a node failed, or a picture is bad, or the server is gone"),
    Step("running", "cancelled", "the user, or somebody who interrupted it"),
    Step("running", "lost", "the server was restarted, and there is no attempt left"),
    Step("running", "unknown", "its server went away while a dead session's prompt was followed"),
    Step("running", "queued", "the server forgot it, or is away while another makes it"),
)
"""All of them; the table in this module's docstring is made from it."""

_AFTER: dict[Status, frozenset[Status]] = {
    before: frozenset(step.after for step in STEPS if step.before == before)
    for before in {step.before for step in STEPS}
}


def check(before: Status, after: Status) -> None:
    """Refuse a step that is not in the table; to stay as one is, is always possible.

    Raises:
        ValueError: A cell cannot go there. It is an error of comfynb's own.
    """
    if after != before and after not in _AFTER.get(before, ()):
        ends = "which ended it" if before in ENDED else "not in one step"
        raise ValueError(f"a cell cannot become {after!r} from {before!r}, {ends}")


__doc__ = (__doc__ or "").format(
    table="\n".join(f"    {s.before:<12} {s.after:<12} {s.because}" for s in STEPS)
)
