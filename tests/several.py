"""Run several commands in one process, as a program: its imports take longer than they do.

Reads ``{"blocked": bool, "small": bool, "prepare": [SETTING...], "commands": [[argument...]...]}``
from stdin and writes, for every command and prepared setting, its exit code, output and attempts to
reach the network as JSON. With ``blocked`` these attempts fail; with ``small`` settings are cut and
the predictor is made cheap.
"""

import contextlib
import io
import json
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

ATTEMPTS: list[str] = []


def watch(blocked: bool) -> None:
    connect = socket.socket.connect

    def noticed(self: socket.socket, address: object) -> None:
        ATTEMPTS.append(repr(address))
        if blocked:
            raise OSError("the network is blocked")
        connect(self, address)  # type: ignore[arg-type]

    socket.socket.connect = noticed  # type: ignore[assignment,method-assign]
    if blocked:
        socket.getaddrinfo = lambda *asked, **more: noticed(None, asked)  # type: ignore


def done(work: Callable[[], None]) -> dict[str, object]:
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    ATTEMPTS.clear()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            work()
        except SystemExit as stopped:
            code = stopped.code or 0
    texts = {"out": out.getvalue(), "err": err.getvalue()}
    return {"code": code, "attempts": list(ATTEMPTS)} | texts


def command(arguments: list[str]) -> None:
    from cleansteer.cli.app import main

    sys.argv = ["cleansteer", *arguments]
    main()


def prepare(name: str) -> None:
    """Load all that a setting names, and cut its contexts."""
    from cleansteer.core.runs import RunDirectory
    from cleansteer.study.catalogue import load_setting
    from cleansteer.study.inputs import Inputs
    from cleansteer.study.store import Store

    setting = load_setting(name)
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory.open(Path(folder) / "run", setting)
        Store(directory).prepare(Inputs(setting), fresh=True)


def main() -> None:
    asked = json.load(sys.stdin)
    watch(asked.get("blocked", False))
    import torch
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    torch.set_num_threads(1)
    if asked.get("small"):
        import pytest
        import quick
        import walk

        quick.cheapen(pytest.MonkeyPatch())
        walk.cut_settings()
    # SAELens writes the shape of Gemma Scope's SAEs into its code; overrides of its list win.
    gemma = get_pretrained_saes_directory()["gemma-scope-2b-pt-res-canonical"]
    gemma.config_overrides = asked["gemma_shape"]
    json.dump(
        {
            "commands": [done(partial(command, words)) for words in asked.get("commands", [])],
            "prepared": [done(partial(prepare, name)) for name in asked.get("prepare", [])],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
