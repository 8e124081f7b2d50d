"""What a visitor sees when something goes wrong: one sentence and an id under which the log has the rest."""

import logging
import secrets

import streamlit as st

log = logging.getLogger("normcore.explorer")


def on_script_error(error: Exception) -> bool:
    """Show a sentence instead of a traceback, and write the traceback to the log."""
    from normcore.core.errors import NormcoreError  # noqa: PLC0415  (the door must open before the engine is warm)

    name = secrets.token_hex(4)
    if isinstance(error, NormcoreError):
        log.info("error %s: %s", name, error)
        st.warning(f"{error}. If nothing here explains it, please report **{name}**.", icon=":material/info:")
    else:
        log.error("error %s", name, exc_info=error)
        st.error(
            f"Something went wrong here. Reload the page; if it comes back, please report **{name}**.",
            icon=":material/error:",
        )
    return True
