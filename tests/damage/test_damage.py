"""A short campaign, and one against a product that looks at no checksum."""

import subprocess
import sys


def campaign(*words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """A campaign in a process of its own, for it forks, and must have no threads when it does."""
    program = f"{before}\nimport sys\nfrom tests.damage.__main__ import main\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=300
    )


def test_damage_is_refused_in_a_line_or_changes_nothing():
    ended = campaign("-n", "40")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "40 of 40 trials ended well" in ended.stdout


def test_damage_that_is_taken_for_sound_is_noticed():
    """Without checksums of arrays, flipped bits in them go through, and the campaign says so."""
    careless = (
        "from npformer import checkpoint\n"
        "from tests.damage.subjects import SUBJECTS\n"
        "checkpoint._checksum = lambda arrays, about: 'the same for all'\n"
        "del SUBJECTS[1:]"  # a model alone
    )
    ended = campaign("-n", "25", before=careless)
    assert ended.returncode == 1
    assert "was taken for sound, and gave another result" in ended.stdout, ended.stdout
