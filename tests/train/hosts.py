"""Several hosts on this machine, made of network namespaces, for tests that run as root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NETWORK = "10.213.77"


def missing() -> str | None:
    """Why hosts cannot be made here; None if they can."""
    for program in ("ip", "unshare", "hostname"):
        if shutil.which(program) is None:
            return f"needs the program {program}"
    if os.geteuid() != 0:
        return "needs root"
    tried = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True)
    if tried.returncode:
        return f"needs namespaces: {tried.stderr.decode().strip()}"
    tried = subprocess.run(
        ["unshare", "--net", "ip", "link", "add", "name", "v1", "type", "veth", "peer", "v2"],
        capture_output=True,
    )
    return f"needs veth: {tried.stderr.decode().strip()}" if tried.returncode else None


@dataclass(frozen=True)
class Hosts:
    """Two hosts, each with a network of its own and an address in the network between them.

    Attributes:
        addresses: of the hosts
        on_first: begins a command that runs on the first host
        remote_shell: a program that runs commands on a host, called as ssh is
        hidden: a directory that the second host does not see
    """

    addresses: tuple[str, str]
    on_first: list[str]
    remote_shell: Path
    hidden: Path


@contextmanager
def two_hosts(folder: Path) -> Iterator[Hosts]:
    """Make two hosts. They share all files but those in `folder`/hidden."""
    names = [f"npformer-{os.getpid()}-{i}" for i in (1, 2)]
    addresses = (f"{NETWORK}.1", f"{NETWORK}.2")
    hidden = folder / "hidden"
    hidden.mkdir()
    shell = folder / "remote_shell"
    shell.write_text(
        f"""#!/bin/sh
# HOST COMMAND, perhaps after options
while [ "${{1#-}}" != "$1" ]; do shift; done
case "$1" in
    {addresses[0]}) name={names[0]}; host=node1; hide=: ;;
    {addresses[1]}) name={names[1]}; host=node2; hide='mount -t tmpfs none "{hidden}"' ;;
    *) echo "no route to $1" >&2; exit 255 ;;
esac
shift
exec ip netns exec "$name" unshare --uts --mount sh -c "hostname $host; $hide; exec $*"
"""
    )
    shell.chmod(0o755)
    try:
        for name in names:
            _run("ip", "netns", "add", name)
        _run(
            "ip",
            "-n",
            names[0],
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "eth0",
            "netns",
            names[1],
        )
        for name, address in zip(names, addresses, strict=True):
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _run("ip", "-n", name, "link", "set", device, "up")
        yield Hosts(addresses, ["ip", "netns", "exec", names[0]], shell, hidden)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
