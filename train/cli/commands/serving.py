"""Answer requests for translations over HTTP, and show a page."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import TYPE_CHECKING

from npformer.errors import UserError
from npformer.model_card import LANGUAGE
from npformer.service.limits import LIMITS, Limits
from train.cli.flags import add_model
from train.cli.lines import loaded
from train.cli.streams import tell
from train.signals import handled_by

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

_OTHER_FILES = 100  # that a process has open besides its connections


def add_flags(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--host", type=str, default="127.0.0.1", help="the address to listen at")
    parser.add_argument(
        "--port", type=int, default=8000, help="and the port; 0 is any that is free"
    )
    parser.add_argument(
        "--allow_host",
        type=str,
        nargs="+",
        default=[],
        metavar="NAME",
        help="names that clients may call the service by; on loopback its own, elsewhere all, if "
        "not given",
    )
    parser.add_argument(
        "--allow_origin",
        type=str,
        nargs="+",
        default=[],
        metavar="ORIGIN",
        help="other sites whose pages may ask, as https://example.org; * is all",
    )
    for side in ("source", "target"):
        parser.add_argument(
            f"--{side}_language",
            type=str,
            default="",
            metavar="CODE",
            help=f"code of the {side} language, if the model's card does not have it",
        )
    for limit in fields(Limits):
        parser.add_argument(
            f"--limit_{limit.name}",
            type=type(limit.default),
            default=limit.default,
            metavar="N",
            help=LIMITS[limit.name],
        )


def run(options: Namespace) -> None:
    """Answer requests until a signal comes, and then what is in flight."""
    try:
        from npformer.service.server import Address, server_of
    except ModuleNotFoundError as error:
        raise UserError(
            f"serve needs {error.name}, which is not installed: pip install 'npformer[serve]'"
        ) from error
    from npformer.service.batcher import Batching
    from npformer.service.facts import Facts
    from npformer.service.languages import Languages

    limits = Limits(**{f.name: options[f"limit_{f.name}"] for f in fields(Limits)})
    _raise_open_files(limits.connections + _OTHER_FILES)
    for side in ("source", "target"):
        code = options[f"{side}_language"]
        if code and not LANGUAGE.fullmatch(code):
            raise UserError(f"--{side}-language must be a code, as en or pt-BR; it is {code!r:.40}")
    languages = Languages(options.source_language, options.target_language)
    hosts, origins = tuple(options.allow_host), tuple(options.allow_origin)
    address = Address(options.host, options.port, hosts, origins)
    with address.listen() as own:
        translator = loaded(options)
        translator.translate(["."])  # compiles what the first client would wait for
        facts = Facts.of(translator, options.model, languages)
        server = server_of(translator, facts, address, limits, Batching())
        tell(f"npformer: {options.model} is at {address.url(own)}")
        with handled_by(server.stop):
            server.run([own])


def _raise_open_files(wanted: int) -> None:
    """Let this process have so many open files. Raises UserError if the system does not."""
    if sys.platform == "win32":  # which has no such limit for sockets
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise UserError(
                f"--limit-connections needs {wanted:,} open files, and the system allows {hard:,}; "
                "lower it, or raise ulimit -n"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
