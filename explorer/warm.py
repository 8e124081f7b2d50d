"""Everything that is slow the first time is done before the first visitor comes."""

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from explorer import delivery, serving
from explorer.janitor import keep_house
from explorer.worker import WORKER


def warm_up() -> None:
    """Import the heavy packages, compress the files, and take all of it out of the garbage collector's sight."""
    import plotly.graph_objects  # noqa: PLC0415
    import scipy.special  # noqa: PLC0415
    import sklearn.datasets  # noqa: PLC0415
    import torch  # noqa: PLC0415

    # Small models run fastest on one thread; with more, visitors take each other's cores.
    torch.set_num_threads(1)
    plotly.graph_objects.Figure(layout={"template": None})
    _ = scipy.special, sklearn.datasets, serving.version(), serving.fonts()
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def lifespan(app: Any) -> AsyncGenerator[None, None]:
    """Warm up before the server opens, and keep house while it runs."""
    WORKER.open()
    warm_up()
    delivery.keep_all()
    housekeeping = asyncio.create_task(keep_house())
    try:
        yield
    finally:
        housekeeping.cancel()
        WORKER.close()
