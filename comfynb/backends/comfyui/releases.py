"""Which ComfyUI releases are supported, and what is done about older ones.

Supported in full: 0.3.57 (September 2025) and newer. Older ones draw just as well; what they lack:

* before 0.3.57 an interrupt stops whatever runs, be it a stranger's prompt: it does not look at
  the prompt id that is sent with it (upstream pull request 9607). So none is ever sent: a cancel
  deletes what waits and lets what runs come to its end.
* before 0.3.45 the server chooses prompt ids by itself and passes over ours. So ours travels in
  the prompt's extra_data as well, which /queue and /history give back, and a prompt whose POST had
  no answer, or whose sender was killed, is found again by that.

A server that does not say its release is taken for a new one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TAKES_IDS = (0, 3, 45)
"""The first ComfyUI that takes the prompt id that is sent with a prompt."""
INTERRUPTS_BY_ID = (0, 3, 57)
"""The first ComfyUI that looks at the prompt id of an interrupt."""
MARK = "comfynb_prompt_id"
"""The name of our prompt id in extra_data, where the server chooses its own."""


@dataclass(frozen=True, slots=True)
class Release:
    """What a server can do, by its release.

    Attributes:
        text: What it says, such as "0.3.75"; "" where it does not.
        takes_ids: Whether prompts get the ids that we choose.
        interrupts_by_id: Whether one prompt can be stopped without stopping another.
    """

    text: str = ""
    takes_ids: bool = True
    interrupts_by_id: bool = True

    @classmethod
    def of(cls, text: str) -> Release:
        """Read a release; what has no numbers is taken for a new one."""
        numbers = tuple(map(int, re.findall(r"\d+", text)[:3]))
        return cls(
            text,
            takes_ids=not numbers or numbers >= TAKES_IDS,
            interrupts_by_id=not numbers or numbers >= INTERRUPTS_BY_ID,
        )

    @property
    def warning(self) -> str:
        """What a user should know before drawing there, or ""."""
        if self.interrupts_by_id:
            return ""
        newest = ".".join(map(str, INTERRUPTS_BY_ID))
        return (
            f"ComfyUI {self.text} cannot interrupt one prompt by its id: what runs is left to its "
            f"end when you cancel. Update it to {newest} or newer"
        )
