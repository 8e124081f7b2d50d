"""What the server sends besides Streamlit's own pages: plotly.js, the plot component, fonts; and how it sends it."""

import gzip
import hashlib
import json
import re
from base64 import b64encode
from collections import OrderedDict
from functools import cache
from pathlib import Path

import anyio.to_thread
import plotly
import streamlit
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from explorer.contents import PAGES
from normcore.figures import blocks, theme

HERE = Path(__file__).parent
FONTS = HERE.parent / "static" / "fonts"
STREAMLIT_FILES = Path(streamlit.__file__).parent / "static"
FOREVER = "public, max-age=31536000, immutable"
A_DAY = "public, max-age=86400"
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".woff2": "font/woff2",
}


@cache
def _front_page() -> str:
    """Streamlit's page, told where its server is: a deep link would first look for it below its own address."""
    page = (STREAMLIT_FILES / "index.html").read_text(encoding="utf-8")
    told = '<script>window.__streamlit = { BACKEND_BASE_URL: new URL(".", location.href).href }</script>'
    return page.replace("<head>", f"<head>{told}", 1)


def _content_security_policy() -> str:
    """Allow what Streamlit and Plotly need, from this server alone; inline scripts are allowed by their hashes."""
    inline = re.findall(r"<script>(.*?)</script>", _front_page(), re.DOTALL)
    hashes = [b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in inline]
    return "; ".join(
        (
            "default-src 'self'",
            "script-src 'self' blob: " + " ".join(f"'sha256-{digest}'" for digest in hashes),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self' ws: wss: data: blob:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
        )
    )


SECURITY_HEADERS = {
    "Content-Security-Policy": _content_security_policy(),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
}


class Asset:
    """One file in memory, compressed once."""

    def __init__(self, name: str, content: bytes) -> None:
        """Compress the content if that is worth it, and name it by its hash."""
        self.content = content
        self.media_type = TYPES[Path(name).suffix]
        self.tag = hashlib.sha256(content).hexdigest()[:16]
        squeezed = gzip.compress(content, 9, mtime=0)
        self.compressed = squeezed if len(squeezed) < 0.9 * len(content) else None

    def respond(self, request: Headers, caching: str) -> Response:
        """Answer a request with the smallest form that the browser takes, or with "you have it"."""
        headers = {"Cache-Control": caching, "ETag": f'"{self.tag}"'}
        if self.compressed is not None:
            headers["Vary"] = "Accept-Encoding"
        if self.tag in request.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if self.compressed is not None and "gzip" in request.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return Response(self.compressed, media_type=self.media_type, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


@cache
def plot_assets() -> dict[str, Asset]:
    """Hold everything that the plot component loads in the browser."""
    look = theme.wire() | {"blocks": blocks.styles()}
    library = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    contents = {
        "plot.js": (HERE / "plot.js").read_bytes(),
        "theme.json": json.dumps(look, separators=(",", ":")).encode(),
        "plotly.js": library.read_bytes(),
    }
    return {name: Asset(name, content) for name, content in contents.items()}


@cache
def version() -> str:
    """Name the present state of all plot assets, so that browsers may keep them forever."""
    tags = "".join(asset.tag for asset in plot_assets().values())
    return hashlib.sha256(tags.encode()).hexdigest()[:12]


@cache
def fonts() -> dict[str, Asset]:
    """Hold the fonts in memory."""
    return {path.name: Asset(path.name, path.read_bytes()) for path in sorted(FONTS.glob("*.woff2"))}


@cache
def _front() -> Asset:
    """Hold the page that every address of the app begins with."""
    return Asset("index.html", _front_page().encode())


async def _page(request: Request) -> Response:
    return _front().respond(request.headers, "no-cache")


async def _plot_asset(request: Request) -> Response:
    asset = plot_assets().get(request.path_params["name"])
    if asset is None:
        return PlainTextResponse("Not found", status_code=404)
    current = request.path_params["version"] == version()
    return asset.respond(request.headers, FOREVER if current else "no-store")


async def _font(request: Request) -> Response:
    asset = fonts().get(request.path_params["name"])
    return asset.respond(request.headers, A_DAY) if asset else PlainTextResponse("Not found", status_code=404)


@cache
def _ahead() -> str:
    """Let a browser fetch what the first plot will ask for while Streamlit's own scripts are still at work."""
    return ", ".join(f"<plot/{version()}/{name}>; rel=prefetch" for name in plot_assets())


class ExtraHeaders:
    """Add the headers that Streamlit leaves out to every answer, and to pages what will be needed next."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap the rest of the application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on and add to the head of the answer."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if headers.get("content-type", "").startswith("text/html"):
                    headers.setdefault("Link", _ahead())
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class CompressedFiles:
    """Send Streamlit's own scripts and styles compressed: they shrink to about a third.

    Each file is compressed once, in a worker thread, and kept; Streamlit itself serves them as they are.
    """

    def __init__(self, app: ASGIApp, folder: Path = STREAMLIT_FILES, room: int = 16_000_000) -> None:
        """Wrap the rest of the application; keep at most `room` bytes."""
        self.app = app
        self.folder = folder.resolve()
        self.room = room
        self.kept: OrderedDict[str, Asset] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer requests for scripts and styles, and pass everything else on."""
        asset = await self._asset(scope) if scope["type"] == "http" else None
        if asset is None:
            await self.app(scope, receive, send)
        else:
            await asset.respond(Headers(scope=scope), FOREVER)(scope, receive, send)

    async def _asset(self, scope: Scope) -> Asset | None:
        name: str = scope["path"]
        if scope["method"] != "GET" or not name.startswith("/static/") or not name.endswith((".js", ".css")):
            return None
        if name not in self.kept:
            path = (self.folder / name.lstrip("/")).resolve()
            if not path.is_relative_to(self.folder) or not path.is_file():
                return None
            self.kept[name] = await anyio.to_thread.run_sync(lambda: Asset(name, path.read_bytes()))
        self.kept.move_to_end(name)
        asset = self.kept[name]
        while len(self.kept) > 1 and sum(map(_size, self.kept.values())) > self.room:
            self.kept.popitem(last=False)
        return asset


def _size(asset: Asset) -> int:
    return len(asset.content) + len(asset.compressed or b"")


ROUTES = [
    *(Route(f"/{address}", _page) for *_, address, _ in PAGES),
    Route("/plot/{version}/{name}", _plot_asset),
    Route("/fonts/{name}", _font),
]
MIDDLEWARE = [Middleware(ExtraHeaders), Middleware(CompressedFiles)]
