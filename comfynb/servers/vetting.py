"""Which servers of a run have what its cells need: node classes, models, values in range."""

from __future__ import annotations

from collections.abc import Sequence

from comfynb.cells import Cell
from comfynb.errors import WorkflowCheckError
from comfynb.log import Store
from comfynb.servers.fleet import Fleet
from comfynb.servers.lanes import Lane
from comfynb.servers.server_types import ServerTypes
from comfynb.workflows import Report, together


class Vetting:
    """Checks the cells of one run against each of its servers. Used on our loop only."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reports: dict[Lane, Report] = {}
        self._chosen = False

    async def look(self, lane: Lane, cells: Sequence[Cell], of: int) -> None:
        """Check the cells that are to be made against one server.

        Args:
            lane: The server.
            cells: Those that are to be made.
            of: How many cells the run has in all.

        Raises:
            WorkflowCheckError: It came after `choose`, and would refuse some of them.
        """
        report = await ServerTypes(lane, self._store).check(cells, of=of)
        self._reports[lane] = report
        if self._chosen and report.errors:
            raise WorkflowCheckError(report)

    def choose(self, fleet: Fleet) -> Report:
        """Leave to a fleet the servers that can make most; return what these refuse.

        Raises:
            WorkflowCheckError: Nothing at all can be drawn on any.
        """
        self._chosen = True
        reports = {lane: self._reports[lane] for lane in fleet.live}
        report = together(list(reports.values()))
        report.raise_for_shared()
        for lane, own in reports.items():
            if own.server in report.left_out:
                fleet.drop(lane, WorkflowCheckError(own))
        return report
