"""npformer serve: a model as a service, until a signal stops it."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import TYPE_CHECKING

from npformer.errors import UserError
from npformer.model_card import LANGUAGE
from npformer.service.limits import Limits
from train.cli.lines import load
from train.signals import handled_by

if TYPE_CHECKING:
    from jsonargparse import Namespace


def serve(options: Namespace) -> None:
    """Answer requests until a signal comes, and then what is in flight."""
    try:
        from npformer.service import server
    except ModuleNotFoundError as error:
        raise UserError(
            f"serve needs {error.name}, which is not installed: pip install 'npformer[serve]'"
        ) from error
    from npformer.service.batcher import Batching
    from npformer.service.facts import Facts
    from npformer.service.languages import Languages

    values = {f.name: getattr(options, f"limit_{f.name}") for f in fields(Limits)}
    limits = Limits(**values)
    for side in ("source", "target"):
        code = options[f"{side}_language"]
        if code and not LANGUAGE.fullmatch(code):
            raise UserError(f"--{side}-language must be a code, as en or pt-BR; it is {code!r:.40}")
    languages = Languages(options.source_language, options.target_language)
    address = server.Address(
        options.host, options.port, tuple(options.allow_host), tuple(options.allow_origin)
    )
    with address.listen() as own:
        translator = load(options)
        translator.translate(["."])  # compiles what the first client would wait for
        facts = Facts.of(translator, options.model, languages)
        running = server.server_of(translator, facts, address, limits, Batching())
        host, port = own.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        print(f"npformer: {options.model} is at http://{name}:{port}", file=sys.stderr, flush=True)
        with handled_by(running.stop):
            running.run([own])
