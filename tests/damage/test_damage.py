"""A short campaign, and one in which npformer ignores checksums."""

import subprocess
import sys

# In a separate process, because a campaign forks and must have no threads. If every checksum is
# accepted, flipped bits in a model are not noticed.
PROGRAM = """
from unittest.mock import patch
from tests.damage.campaign import prepared, summarized
from tests.damage.subjects import SUBJECTS

class AnyChecksum(str):
    def __ne__(self, other):
        return False

with prepared(seed=0) as campaign:
    print(*summarized(campaign.run(number) for number in range(40)), sep="\\n")
    with patch("npformer.checkpoint._checksum", lambda arrays, about: AnyChecksum()):
        trials = (campaign.run(number, SUBJECTS[:1]) for number in range(100))
        print("careless:", next(trial for trial in trials if trial.fault))
"""


def test_damage_is_refused_or_harmless_and_a_campaign_finds_ignored_checksums():
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    careful, careless = ended.stdout.split("careless:")
    assert careful.startswith("40 of 40 trials ended well"), careful
    assert "was accepted, but gave another result" in careless, careless


def test_the_campaign_is_a_command():
    command = [sys.executable, "-m", "tests.damage", "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "number of trials" in ended.stdout
