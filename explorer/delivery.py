"""Has the browser get all that a page has said, although a fragment of it already begins anew.

When a timer's fragment begins, Streamlit throws away what that fragment has said and what has not left the server yet,
for it will say it again. If that was said in a run of the whole page, the browser still hears that this run is
complete: it removes the fragment's tabs and plots as things of the past, and mounts others a moment later. Clicks and
views are lost with them. So nothing is thrown away for a fragment; on an idle server nothing ever was.
"""

from typing import Any

from streamlit.runtime.forward_msg_queue import ForwardMsgQueue

_clear = ForwardMsgQueue.clear


def _keep(queue: Any, retain_lifecycle_msgs: bool = False, fragment_ids_this_run: list[str] | None = None) -> None:
    """Empty the queue for a run of the whole page; before a run of fragments, only begin another chapter in it."""
    if fragment_ids_this_run is None:
        _clear(queue, retain_lifecycle_msgs)
    else:
        queue._delta_index_map = {}  # what comes is not merged into what belongs to an earlier run


def keep_all() -> None:
    """Put this in the place of Streamlit's own way, which cannot be set; a test says when that moves."""
    ForwardMsgQueue.clear = _keep  # type: ignore[assignment, method-assign]
