"""Commands that serve pages on this machine: ``studio lesson``."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaelid.cli.arguments import Device, Json, Quiet, opened, whole
from vaelid.cli.output import Output
from vaelid.errors import InputError

if TYPE_CHECKING:
    from vaelid.serving import Site

_Port = Annotated[int | None, typer.Option("--port", metavar="P", parser=whole, help="Port on 127.0.0.1.")]
_Open = Annotated[bool, typer.Option("--open", help="Show it in the browser.")]


def studio(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.")],
    port: _Port = None,
    open_: _Open = False,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look around in the latent space of runs, in the browser.

    Serves on 127.0.0.1 until Ctrl-C. The address holds a token of this launch; nobody gets in without it.
    """
    for path in paths:
        opened(path, device)
    _serve("studio", paths, device, port, open_, Output(json, quiet))


def lesson(
    path: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="Run folder; a model that comes along if none.")
    ] = None,
    port: _Port = None,
    open_: _Open = False,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bayesian inference and the VAE, told over a model, in the browser.

    Every figure is computed from the run; without one, from a small model of digits that comes with vaelid.
    """
    if path is not None:
        opened(path, device)
    _serve("lesson", [] if path is None else [path], device, port, open_, Output(json, quiet))


def _serve(home: str, paths: list[Path], device: str | None, port: int | None, open_: bool, output: Output) -> None:
    """Serve both pages over runs, until Ctrl-C."""
    if port is not None and not 0 <= port < 1 << 16:
        raise InputError(f"--port {port}", "0 to 65535, 0 for any that is free")

    def ready(site: Site) -> None:
        table = {"page": home, "address": site.address, "port": site.port, "runs": [str(path) for path in paths]}
        output.result(table, [site.address])
        output.say("Ctrl-C stops it.")
        if open_:
            webbrowser.open(site.address)

    from vaelid import lesson as lessons  # other commands need none of these
    from vaelid import studio as studios
    from vaelid.serving import Page, serve

    if home == "studio":  # whose first page and first drag shall not wait
        output.say(f"opening {paths[0]} …")
        desk = studios.Desk(paths, device)
        desk.open(0)
        desk.drag(0.0, 0.0)
    pages = {
        "studio": Page("vaelid studio", lambda: studios.Desk(paths or [lessons.MODEL], device)),
        "lesson": Page("vaelid lesson", lambda: lessons.Desk(paths, device)),
    }
    try:
        serve(pages, home, port, ready)
    except KeyboardInterrupt:  # the way to stop it
        output.say("stopped")
