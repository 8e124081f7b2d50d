"""Visitors without a browser: they speak Streamlit's websocket as a browser does, move sliders and run races.

As a command it is the load on a server of its own: three races run while thirty others move sliders.
"""

import asyncio
import random
import time
from dataclasses import dataclass, field
from statistics import median

import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

from benchmarks.pages import ROOT, serve

PATIENCE = 20.0
"""Seconds after which a change counts as lost."""
RACE = "race?steps=3200&seeds=4"
PAGES = ("regions?method=group_norm", "regions")
"""What the visitors look at, in turn."""
VISITORS, MOVES, RACES, WAITING = 30, 14, 3, 40
FINISHED = (ForwardMsg.FINISHED_SUCCESSFULLY, ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY)


@dataclass
class Visitor:
    """One open tab: its connection, its widgets by their keys, and what the page says."""

    address: str
    page: str
    socket: websockets.ClientConnection | None = None
    ids: dict[str, str] = field(default_factory=dict)
    options: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, WidgetState] = field(default_factory=dict)
    progress: str = ""
    pictured: float = 0.0
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    again: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    listener: asyncio.Task[None] | None = None
    wrong: list[str] = field(default_factory=list)

    async def enter(self) -> float:
        """Open the page; the seconds until it stands."""
        host = self.address.removeprefix("http://")
        self.socket = await websockets.connect(
            f"ws://{host}/_stcore/stream",
            subprotocols=[websockets.Subprotocol("streamlit")],
            origin=websockets.Origin(self.address),
            max_size=None,
        )
        self.listener = asyncio.create_task(self._listen())
        return await self.run()

    async def leave(self) -> None:
        """Close the tab."""
        self._be_still()
        assert self.listener is not None and self.socket is not None
        self.listener.cancel()
        await self.socket.close()

    async def run(self, fragment: str = "", by_itself: bool = False) -> float:
        """Ask for a run of the page, or of a fragment; the seconds to its last picture, infinite when it is lost."""
        page, _, query = self.page.partition("?")
        state = ClientState(query_string=query, page_name=page, fragment_id=fragment, is_auto_rerun=by_itself)
        state.widget_states.widgets.extend(self.values.values())
        for value in [key for key, widget in self.values.items() if widget.HasField("trigger_value")]:
            del self.values[value]  # a button is pressed once
        begun = self.pictured = time.perf_counter()
        self.finished.clear()
        assert self.socket is not None
        await self.socket.send(BackMsg(rerun_script=state).SerializeToString())
        try:
            await asyncio.wait_for(self.finished.wait(), PATIENCE)
        except TimeoutError:
            return float("inf")
        return (self.pictured if self.pictured > begun else time.perf_counter()) - begun

    async def move(self, key: str, place: int) -> float:
        """Move a slider to one of its options."""
        self.values[key] = WidgetState(id=self.ids[key])
        self.values[key].string_array_value.data.append(self.options[key][place % len(self.options[key])])
        return await self.run()

    async def press(self, key: str) -> float:
        """Press a button."""
        self.values[key] = WidgetState(id=self.ids[key], trigger_value=True)
        return await self.run()

    async def _listen(self) -> None:
        """Take in what the server says; fragments that run by themselves are asked for as a browser asks for them."""
        assert self.socket is not None
        async for data in self.socket:
            message = ForwardMsg.FromString(data if isinstance(data, bytes) else data.encode())
            kind = message.WhichOneof("type")
            if kind == "script_finished" and message.script_finished in FINISHED:
                self.finished.set()
            elif kind == "auto_rerun":
                fragment = message.auto_rerun.fragment_id
                if fragment in self.again:
                    self.again[fragment].cancel()
                self.again[fragment] = asyncio.create_task(self._ask_again(fragment, message.auto_rerun.interval))
            elif kind == "stop_auto_rerun":
                self._be_still()
            elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
                self._see(message.delta.new_element)

    def _see(self, element: object) -> None:
        kind = element.WhichOneof("type")  # type: ignore[attr-defined]
        inner = getattr(element, kind)
        key = getattr(inner, "id", "").rpartition("-")[2]
        if kind in ("slider", "button") and key:
            self.ids[key] = inner.id
            self.options[key] = list(getattr(inner, "options", []))
        elif kind == "bidi_component":
            self.pictured = time.perf_counter()
        elif kind == "progress":
            self.progress = inner.text
        elif kind == "exception" or (kind == "alert" and "went wrong" in inner.body):
            self.wrong.append(str(inner)[:300])

    async def _ask_again(self, fragment: str, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            await self.run(fragment, by_itself=True)

    def _be_still(self) -> None:
        for task in self.again.values():
            task.cancel()
        self.again.clear()


def report() -> None:
    """Print how long a change takes for thirty visitors, alone and beside three races, and what was lost."""
    print(f"\n{VISITORS} visitors who each move a slider every 1 to 3 seconds: from the change to its last picture\n")
    print("| beside | changes | lost | median ms | p95 ms |\n|---|---|---|---|---|")
    with serve(str(ROOT / "app.py")) as address:
        asyncio.run(_report(address))


async def _report(address: str) -> None:
    visitors = [Visitor(address, PAGES[i % len(PAGES)]) for i in range(VISITORS)]
    for visitor in visitors:
        await visitor.enter()
    await _crowd("nobody", visitors)
    racers = [Visitor(address, RACE) for _ in range(RACES)]
    for racer in racers:
        await racer.enter()
        await racer.press("go")
    await _crowd(f"{RACES} races", visitors)
    steps = [racer.progress.partition(" of ")[0] for racer in racers]
    more = [Visitor(address, RACE) for _ in range(WAITING)]
    for visitor in more:
        await visitor.enter()
        await visitor.press("go")
    await asyncio.sleep(3)
    told = sorted(int(v.progress.rpartition("number ")[2].split()[0]) for v in more if "number" in v.progress)
    print(f"\nThe races meanwhile: {'; '.join(steps)}.")
    print(f"{WAITING} more are started: {len(told)} wait, and say to be number {told[0]} to {told[-1]} in line.")
    wrong = [words for visitor in (*visitors, *racers, *more) for words in visitor.wrong]
    print(f"Errors shown to anybody: {len(wrong)}. {' '.join(wrong[:1])}")
    for visitor in (*visitors, *racers, *more):
        await visitor.leave()


async def _crowd(beside: str, visitors: list[Visitor]) -> None:
    """All visitors move their sliders; a row of what it took."""
    taken = [seconds for found in await asyncio.gather(*map(_moves, visitors)) for seconds in found]
    done = sorted(seconds for seconds in taken if seconds < PATIENCE)
    lost, late = len(taken) - len(done), done[int(0.95 * len(done))]
    print(f"| {beside} | {len(taken)} | {lost} | {1e3 * median(done):.0f} | {1e3 * late:.0f} |")


async def _moves(visitor: Visitor) -> list[float]:
    chance, found = random.Random(id(visitor)), []
    for _ in range(MOVES):
        await asyncio.sleep(chance.uniform(1, 3))
        found.append(await visitor.move("N", chance.randrange(100)))
    return found


if __name__ == "__main__":
    report()
