"""The table of docs/serving.md: the service under load, as it was measured.

python -m docs.fill    puts it there
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.markdown import NOTHING, Table, head, line
from benchmarks.table import MACHINES, load

_ENGINES = {"ours": "npformer", "ctranslate2": "CTranslate2"}


def served() -> Table:
    """A row for each engine behind the service, by machine and model."""
    rows = head(
        [
            "machine, model, beam",
            "engine",
            "clients",
            "sentences a second",
            "offline",
            "of offline",
            "p50, ms",
            "p99, ms",
        ]
    )
    for machine, results in load("numpy").items():
        for result in results:
            if result["benchmark"] == "service":
                where = f"{MACHINES.get(machine, machine)}, {result['config']}, {result['beam']}"
                for engine, of_engine in {"ours": result["ours"], **result["peers"]}.items():
                    cells = [where, _ENGINES[engine], f"{result['clients']}"]
                    rows.append(line([*cells, *_figures(of_engine)]))
    return rows if len(rows) > 2 else [*rows, line([NOTHING] * 8)]


def _figures(found: Mapping[str, Any]) -> list[str]:
    low, high = found["of_offline_quartiles"]
    return [
        f"{found['sentences_per_s']:,.0f}",
        f"{found['offline_sentences_per_s']:,.0f}",
        f"{found['of_offline']:.2f} ({low:.2f} to {high:.2f})",
        f"{found['p50_ms']:,.0f}",
        f"{found['p99_ms']:,.0f}",
    ]


TABLES = {"service": served}
