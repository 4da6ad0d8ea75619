# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of simhost."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from simhostlib import _assets, _dify, _hosts, _images, _repository
from simhostlib._common import SimhostError, cache, say
from simhostlib._engine import answers, docker, ensure_engine, stop_own_engine
from simhostlib._fleet import ASSETS, DEFAULT_FLEET, IMAGES, Fleet, load, profile_file, with_overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="simhost", description="Starts and stops simulated GPU hosts in containers.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("--fleet", type=Path, default=DEFAULT_FLEET, help="fleet file (default: the demo fleet)")
        return added

    command("up", "start the hosts and wait until they are ready").add_argument("hosts", nargs="*", metavar="HOST")
    down = command("down", "remove the hosts and their data")
    down.add_argument("hosts", nargs="*", metavar="HOST")
    down.add_argument("--purge", action="store_true", help="also the images, the cache, and the engine that simhost started")
    command("status", "list the hosts")
    command("build", "build all images, start nothing")
    command("assets", "download what hosts get mounted, start nothing")
    execute = command("exec", "run a command in a host")
    execute.add_argument("host", metavar="HOST")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD")
    command("reboot", "reboot a host from inside and wait").add_argument("host", metavar="HOST")
    command("reset", "make a running host bare again: no driver packages, nothing of the product").add_argument("host", metavar="HOST")
    profile = command("profile", "give a running host another profile, in about a second")
    profile.add_argument("host", metavar="HOST")
    profile.add_argument("profile", metavar="NAME", help="of profiles/, or a path beside the fleet file")
    profile.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="what is to be otherwise than in the profile; KEY= takes a key away"
    )
    return parser


def _status(fleet: Fleet, _arguments: argparse.Namespace) -> None:
    for host in fleet.hosts.values():
        profile = host.profile.stem if host.profile else "-"
        ports = " ".join(f"{name}=127.0.0.1:{port}" for name, port in host.publish.items())
        print(f"{host.name:<12} {_hosts.state(host):<10} {host.system.name:<12} {profile:<12} {ports}")


def _purge() -> None:
    """Removes what simhost made on this machine, unless hosts of another fleet are still there."""
    if answers():
        others = docker("ps", "--all", "--format", "{{.Names}}", "--filter", f"label={_hosts.LABEL}").split()
        if others:
            say(f"images, cache and engine stay: hosts of another fleet are there ({', '.join(others)})")
            return
        own = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={_images.REPOSITORY}/*").split()
        for name in [*own, _images.PYTHON_IMAGE, _images.CUDA_IMAGE]:
            docker("image", "rm", name, check=False)
        docker("image", "prune", "--force", "--filter", "label=org.difyops.simhost.stage", check=False)
    stop_own_engine()
    shutil.rmtree(cache())


def _up(fleet: Fleet, arguments: argparse.Namespace) -> None:
    ensure_engine()
    _hosts.up(fleet, arguments.hosts)


def _build(_fleet: Fleet, _arguments: argparse.Namespace) -> None:
    ensure_engine()
    _images.build(list(_images.HOST_KINDS), list(IMAGES))
    _repository.ensure()
    _dify.ensure()


def _download(_fleet: Fleet, _arguments: argparse.Namespace) -> None:
    _assets.ensure(list(ASSETS))


def _down(fleet: Fleet, arguments: argparse.Namespace) -> None:
    if answers():
        _hosts.down(fleet, arguments.hosts)
    else:
        say("no Docker engine answers, so no host runs")
    if arguments.purge and not arguments.hosts:
        _purge()


def _reboot(fleet: Fleet, arguments: argparse.Namespace) -> None:
    _hosts.reboot(fleet.select([arguments.host])[0])


def _reset(fleet: Fleet, arguments: argparse.Namespace) -> None:
    host = fleet.select([arguments.host])[0]
    _hosts.reset(host)
    print(f"{host.name}: reset", flush=True)


def _profile(fleet: Fleet, arguments: argparse.Namespace) -> None:
    host = fleet.select([arguments.host])[0]
    file = profile_file(arguments.profile, arguments.fleet.parent)
    _hosts.switch(host, with_overrides(file.read_text(encoding="utf-8"), arguments.overrides))
    print(f"{host.name}: {' '.join([file.stem, *arguments.overrides])}", flush=True)


def _exec(fleet: Fleet, arguments: argparse.Namespace) -> None:
    host = fleet.select([arguments.host])[0]
    terminal = ["--tty"] if os.isatty(0) and os.isatty(1) else []
    command = ["docker", "exec", "--interactive", *terminal, host.container, *(arguments.argv or ["bash"])]
    os.execvp(command[0], command)  # noqa: S606  no shell: the words go to the host as they are


COMMANDS = {
    "up": _up,
    "build": _build,
    "assets": _download,
    "down": _down,
    "status": _status,
    "reboot": _reboot,
    "exec": _exec,
    "profile": _profile,
    "reset": _reset,
}
NEED_RUNNING = ("status", "reboot", "exec", "profile", "reset")


def _run(arguments: argparse.Namespace) -> None:
    fleet = load(arguments.fleet)
    if arguments.command in NEED_RUNNING and not answers():
        raise SimhostError("no Docker engine answers, so no host runs: start them with `simhost up`.")
    COMMANDS[arguments.command](fleet, arguments)


def main() -> int:
    arguments = _parser().parse_args()
    try:
        _run(arguments)
    except SimhostError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted; run the same command again to go on")
        return 130
    return 0
