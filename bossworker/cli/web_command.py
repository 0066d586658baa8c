"""``web``: the page, in a process of its own."""

from __future__ import annotations

import argparse
import errno
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any

from bossworker.cli.command_parser import FAILED, complain, make_parser, show_json
from bossworker.cli.quantities import check_with, parse_whole

PORT = 8765


def web_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "web",
        "Serve a page that shows, and steers, this user's pools (those that have opened a door by pool.listen()),\n"
        "commands and tasks. It prints the address to open, with a token in it, without which nobody gets in.",
        ["", "--port 0 --read-only", "--unix-socket ~/page.sock mill"],
    )
    add = parser.add_argument
    add(
        "pools", nargs="*", metavar="POOL", help="names of pools, or addresses of their doors; by default all there are"
    )
    add(
        "--journal",
        metavar="PATH",
        action="append",
        default=[],
        help="show this journal's jobs, too, whether or not a program has it open; those of pools are found",
    )
    add("--port", type=check_with(_port), default=PORT, metavar="N", help=f"default: {PORT}; 0: a free one")
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="default: 127.0.0.1. Another one is not only this machine's:",
    )
    add("--unix-socket", metavar="PATH", help="serve at this path instead, for this user alone: for ssh -L, or a proxy")
    add("--known-as", metavar="NAME", action="append", default=[], help="a name that browsers may call it by, too")
    add("--read-only", action="store_true", help="only show")
    return parser


def _port(text: str) -> int:
    number = parse_whole(text)
    if not 0 <= number <= 65535:
        raise ValueError("a port is a number from 0 to 65535")
    return number


def web(argv: Sequence[str]) -> int:
    options = web_parser().parse_args(argv)
    try:
        import uvicorn  # noqa: F401

        from bossworker.web.serving import PageServer
    except ImportError as error:
        complain("web", f"needs {error.name}, which comes with the extra web: pip install 'bossworker[web]'")
        return FAILED
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    try:
        server = PageServer(options.pools or None, **_settings(options))
    except (ValueError, OSError) as error:
        complain("web", _why_not(options, error))
        return FAILED
    if options.json:
        show_json({"url": server.url})
    else:
        print(server.url, flush=True)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what it has made goes
    server.run()
    return 0


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    settings = {name: getattr(options, name) for name in ("host", "port", "unix_socket", "read_only", "known_as")}
    return {**settings, "journals": options.journal}


def _why_not(options: argparse.Namespace, error: ValueError | OSError) -> str:
    if isinstance(error, ValueError) or options.unix_socket is not None:
        return str(error)
    hint = ": --port 0 takes a free one" if error.errno == errno.EADDRINUSE else ""
    return f"{options.host}, port {options.port}: {error}{hint}"
