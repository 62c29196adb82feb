"""A short campaign, and one against a product that looks at no checksum."""

import subprocess
import sys

# In a process of its own, for a campaign forks, and must have no threads when it does. Where any
# checksum is taken for the right one, flipped bits in a model go through.
PROGRAM = """
from unittest.mock import patch
from tests.damage.campaign import account, prepared
from tests.damage.subjects import SUBJECTS

class AnyChecksum(str):
    def __ne__(self, other):
        return False

with prepared(seed=0) as campaign:
    print(*account(campaign.run(number) for number in range(40)), sep="\\n")
    with patch("npformer.checkpoint._checksum", lambda arrays, about: AnyChecksum()):
        trials = (campaign.run(number, SUBJECTS[:1]) for number in range(100))
        print("careless:", next(trial for trial in trials if trial.fault))
"""


def test_damage_is_refused_in_a_line_or_changes_nothing_and_else_it_is_noticed():
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    careful, careless = ended.stdout.split("careless:")
    assert careful.startswith("40 of 40 trials ended well"), careful
    assert "was taken for sound, and gave another result" in careless, careless


def test_the_campaign_is_a_command():
    command = [sys.executable, "-m", "tests.damage", "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "how many trials" in ended.stdout
