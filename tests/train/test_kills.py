"""A short campaign of kills; `python -m tests.kill_campaign` runs a long one."""

from pathlib import Path

from tests.kill_campaign import Campaign, account


def test_killed_and_resumed_runs_equal_an_uninterrupted_one(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, seed=1)
    ended = [campaign.trial(number) for number in range(5)]
    assert [one.fault for one in ended] == [""] * len(ended)
    said = account(ended, 0.0, 1)
    assert said.startswith("5 runs were killed or stopped ")
    assert "all ended with the same bits" in said
    assert sum(one.kills.total() for one in ended) >= 4


def test_the_campaign_finds_a_run_that_ends_differently(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    metrics = campaign.whole[0] / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"epoch": 0', '"epoch": 1', 1))
    ended = [campaign.trial(0)]
    assert "read_metrics" in ended[0].fault
    assert "1 ended differently" in account(ended, 0.0, 0)
