"""Random damage to every file that npformer reads.

python -m tests.damage -n 1000

Each trial makes a fresh copy of some files, damages one of them, and runs the commands that read
it. Two outcomes are accepted: the result of the intact files, bit by bit; or a one-line error with
status 2 and no other file changed. Either takes at most 10 seconds and 1 GB of memory.
"""
