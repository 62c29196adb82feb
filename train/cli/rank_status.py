"""What `npformer status` says of the ranks that train a run together."""

from __future__ import annotations

from collections.abc import Sequence

from train.runs.rank_files import SECONDS_BETWEEN, RankReport
from train.wording import counted, duration

_LONG = 6 * SECONDS_BETWEEN  # of silence, after which a rank may be dead

_ENDS = "ended", "failed"


def describe_ranks(
    reports: Sequence[RankReport], now: float, is_training: bool
) -> tuple[str, list[str]]:
    """A summary, and a line for each rank of which there is something to say.

    now: the time, in seconds since the epoch. is_training: whether some process is training, or
    may be.
    """
    size = reports[0].size
    if is_training:
        by_rank = {report.rank: report for report in reports}
        return f"{size}", [
            f"rank {rank:<4}{_at_work(by_rank[rank], now) if rank in by_rank else _UNHEARD}"
            for rank in range(size)
        ]
    last = f"{_ago(max(report.time for report in reports), now)} ago"
    if all(report.doing == "ended" for report in reports):
        return f"none at work: {size} ended {last}", []
    lines = [f"rank {report.rank:<4}{_at_the_end(report, now)}" for report in reports]
    return f"none at work: {counted(size, 'rank')} stopped {last}", lines


_UNHEARD = "has said nothing yet, or writes to a disk that is not seen here"


def _at_work(report: RankReport, now: float) -> str:
    silence = now - report.time
    where = f"process {report.process} on {report.host}, on {report.device}"
    if report.doing in _ENDS:
        return f"{report.doing} after step {report.step:,}, {_ago(report.time, now)} ago; {where}"
    doing = f"{report.doing} after step {report.step:,}"
    if report.is_gone():
        return f"dead, its process is gone; {_ago(report.time, now)} ago it was {doing}; {where}"
    if silence > _LONG:
        return f"silent for {duration(silence)}, perhaps dead; before, it was {doing}; {where}"
    if report.waiting_seconds >= 1:
        doing += f", waiting for the others for {duration(report.waiting_seconds)}"
    return f"{doing}{_pace(report)}; {where}; said so {_ago(report.time, now)} ago"


def _at_the_end(report: RankReport, now: float) -> str:
    doing, where = f"{report.doing} after step {report.step:,}", f"process {report.process}"
    if report.doing not in _ENDS:  # it has not come to say so
        doing = f"killed; {_ago(report.time, now)} ago it was {doing}"
    return f"{doing}; {where} on {report.host}"


def _pace(report: RankReport) -> str:
    if not report.step_seconds or report.waiting is None:
        return ""
    return f", {1 / report.step_seconds:.3g} steps a second, {report.waiting:.0%} waiting"


def _ago(time: float, now: float) -> str:
    return duration(max(0.0, now - time))
