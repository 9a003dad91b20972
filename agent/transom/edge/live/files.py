"""The files of the live page, as the package brings them: a name in, bytes and their type out.

Only what stands in FILES is ever read: a path that somebody asks for is a key and never a file's name.
"""

from functools import lru_cache
from http import HTTPStatus
from importlib.resources import files

from transom.edge.listener import Answer

KINDS = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml",
         "js": "text/javascript; charset=utf-8"}  # fmt: skip
FILES = (
    "index.html", "login.html", "login.js", "live.css", "live.js", "lists.js", "charts.js", "plot.js", "words.js",
    "icon.svg", "uplot.js", "uplot.css",
)  # fmt: skip
# No script and no style but ours, nothing from elsewhere, in no frame: a name that became HTML in spite of all would
# find nothing to run.
GUARDS = (
    ("Content-Security-Policy",
     "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
     "form-action 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)  # fmt: skip


@lru_cache(len(FILES))
def _content(name: str) -> bytes:
    return (files("transom.edge.live") / "static" / name).read_bytes()


def file(name: str, status: HTTPStatus = HTTPStatus.OK, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """name: one of FILES."""
    return Answer(status, KINDS[name.rpartition(".")[2]], _content(name), (*GUARDS, *headers))
