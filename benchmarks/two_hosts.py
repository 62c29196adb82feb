"""How a step that two ranks share slows down as their network does; needs root, on Linux.

    python -m benchmarks.two_hosts --config small --json

Two network namespaces stand for two hosts, joined by a virtual cable. For each of the rates the
kernel lets no more than that through in either direction (a token bucket, `tc-tbf`), and
`benchmarks.scaling` runs with a rank on each host, over TCP. `wire_bytes` is what the first host's
end of the cable sent in a run, which is divided by the sums of all gradients in it (`sums`).

For each rate, `expected_exposed_ms` is what the model of `benchmarks/projection.py` expects of the
exposed time, from when the buckets were sent and how long all of them take with nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.projection import Bucket, exposed
from benchmarks.report import positive, publish, result_file
from benchmarks.scaling import BATCHES
from benchmarks.training_step import SETTINGS

_NAME = f"npformer-{os.getpid()}"
_HOSTS = (f"{_NAME}-a", f"{_NAME}-b")
_CABLE = "cable"
_ADDRESSES = ("10.77.0.1", "10.77.0.2")
# What mpiexec calls in place of ssh: options, the host's address, and a command for its shell.
_SHELL = f"""#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
case $1 in {_ADDRESSES[0]}) host={_HOSTS[0]};; {_ADDRESSES[1]}) host={_HOSTS[1]};; esac
shift
exec ip netns exec $host sh -c "$*"
"""
# TCP and nothing else: the ranks could reach each other's memory. One thread a rank.
_ENVIRONMENT = {
    "UCX_TLS": "tcp,self",
    "UCX_NET_DEVICES": _CABLE,
    "MPIR_CVAR_NOLOCAL": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


def missing() -> str:
    """What this machine lacks for two hosts, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            return f"{program} is not installed (iproute2)"
    tried = subprocess.run(["ip", "netns", "add", _NAME], capture_output=True, text=True)
    if tried.returncode:
        return f"a network namespace cannot be made ({tried.stderr.strip()})"
    _run("ip", "netns", "delete", _NAME)
    return ""


@contextmanager
def two_hosts() -> Iterator[None]:
    """Two namespaces with a cable between them; they are gone afterwards."""
    made = []
    try:
        for host in _HOSTS:
            _run("ip", "netns", "add", host)
            made.append(host)
        ends = ["ip", "link", "add", _CABLE, "netns", _HOSTS[0], "type", "veth"]
        _run(*ends, "peer", "name", _CABLE, "netns", _HOSTS[1])
        for host, address in zip(_HOSTS, _ADDRESSES, strict=True):
            _run("ip", "-n", host, "address", "add", f"{address}/24", "dev", _CABLE)
            _run("ip", "-n", host, "link", "set", "lo", "up")
            _run("ip", "-n", host, "link", "set", _CABLE, "up")
        while any(_end(host)["operstate"] != "UP" for host in _HOSTS):
            time.sleep(0.05)  # the kernel takes a moment, in which UCX would not use the cable
        yield
    finally:
        for host in made:
            _run("ip", "netns", "delete", host)


def limit(megabits: int) -> None:
    """Let no more than so many Mbit/s through the cable, in either direction."""
    burst = max(64_000, megabits * 250)  # bytes: 2 ms, and more than a segment
    for host in _HOSTS:
        shape = ["root", "tbf", "rate", f"{megabits}mbit", "burst", str(burst), "latency", "50ms"]
        _run("tc", "-n", host, "qdisc", "replace", "dev", _CABLE, *shape)


def sent_bytes() -> int:
    """What the first host has sent through the cable so far."""
    return int(_end(_HOSTS[0])["stats64"]["tx"]["bytes"])


def _end(host: str) -> dict[str, Any]:
    """What the kernel says of a host's end of the cable."""
    found: list[dict[str, Any]] = json.loads(
        _run("ip", "-n", host, "-s", "-j", "link", "show", _CABLE)
    )
    return found[0]


def shared_step(mpiexec: str, arguments: list[str]) -> dict[str, Any]:
    """The result of `benchmarks.scaling` with a rank on each host."""
    with tempfile.TemporaryDirectory() as folder:
        shell = Path(folder) / "shell"
        shell.write_text(_SHELL)
        shell.chmod(0o755)
        out = Path(folder) / "result.json"
        _run(
            *["ip", "netns", "exec", _HOSTS[0], mpiexec, "-launcher", "ssh"],
            *["-launcher-exec", str(shell), "-hosts", ",".join(_ADDRESSES), "-n", "2"],
            *[sys.executable, "-m", "benchmarks.scaling", *arguments, "--out", str(out)],
        )
        return json.loads(out.read_text(encoding="utf-8"))


def expected_exposed(result: dict[str, Any]) -> float:
    """Milliseconds by the model, from when each bucket was sent and the time of all alone."""
    buckets = [Bucket(bucket["bytes"], bucket["sent_ms"]) for bucket in result["buckets"]]
    total = sum(bucket.size for bucket in buckets)
    costs = [result["communication"]["ms"] * bucket.size / total for bucket in buckets]
    return round(exposed(buckets, costs, result["backward_ms"]), 2)


def measured(mpiexec: str, megabits: int, arguments: list[str], sums: int) -> dict[str, Any]:
    """A step over a network of this rate."""
    limit(megabits)
    before = sent_bytes()
    result = shared_step(mpiexec, [*arguments, "--network", f"{megabits} Mbit/s"])
    kept = ("one_rank", "strong", "strong_apart", "weak", "weak_apart", "communication", "load")
    return {
        "megabits_per_s": megabits,
        "wire_bytes": round((sent_bytes() - before) / sums),
        "expected_exposed_ms": expected_exposed(result),
        **{key: result[key] for key in (*kept, "bytes", "backward_ms", "buckets")},
    }


def _run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **_ENVIRONMENT}
    )
    if done.returncode:
        sys.exit(f"{' '.join(command[:6])} ...: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=SETTINGS, required=True)
    parser.add_argument(
        "--rates", type=positive, nargs="+", default=[2000, 1000, 500, 250], help="Mbit/s"
    )
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each kind")
    parser.add_argument("--json", action="store_true", help="for scripts: the result is one line")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    options = parser.parse_args()
    if reason := missing():
        sys.exit(f"no result: {reason}")
    mpiexec = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if mpiexec is None:
        sys.exit("no result: mpiexec is not installed (pip install mpich)")
    arguments = ["--config", options.config, "--rounds", str(options.rounds), "--warmup", "1"]
    # Each turn of strong, weak and communication sums all gradients with every step.
    sums = 3 * BATCHES * (options.rounds + 1)
    with two_hosts():
        rates = [measured(mpiexec, rate, arguments, sums) for rate in options.rates]
    about = {"benchmark": "two_hosts", "config": options.config, "backend": "numpy", "ranks": 2}
    publish({**about, "sums": sums, "rates": rates}, options.out)


if __name__ == "__main__":
    main()
