"""Gives back what closed tabs leave behind.

Streamlit keeps the session of a closed tab for a while, drops it only when another tab closes, and then relies on the
garbage collector. The app turns the collection after every run off because it stops everybody, so this task does both.
"""

import asyncio
import gc
import logging

from streamlit.runtime import Runtime

log = logging.getLogger("normcore.explorer")


def sweep() -> int:
    """Forget sessions that nobody can come back to, collect garbage, and say how many sessions went."""
    # A private corner of Streamlit, which has no public way to do this: a test says when it moves.
    expired = Runtime.instance()._session_mgr._session_storage._cache.expire()  # type: ignore[attr-defined]
    count = len(expired)
    del expired
    gc.collect()
    return count


async def keep_house(seconds: float = 10) -> None:
    """Sweep again and again until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        count = sweep()
        if count:
            log.debug("forgot %d closed sessions", count)
