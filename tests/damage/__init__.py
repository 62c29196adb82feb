"""Damage done at random to every file that the product reads.

python -m tests.damage -n 1000

Each trial takes a fresh copy of some files, damages one of them, and runs the commands that read
it. Two ends are accepted: what the sound files give, to the last bit; or one line that says what
is wrong, with status 2, and nothing else changed. Either within 10 seconds and 1 GB of memory.
"""
