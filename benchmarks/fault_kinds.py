"""Names of the campaign of faults: commands, kinds of faults, outcomes of a trial."""

COMMANDS = {
    "train": "training one experiment",
    "stream": "training that streams its data",
    "processes": "training by two processes",
    "sweep": "a trade-off with a sweep, whose runs train as one program",
    "tradeoff": "a trade-off of two members under PGD and AutoAttack",
    "evaluate": "PGD on a finished run",
    "autoattack": "AutoAttack on a finished run",
}
# Signals and how often each is sent within a second.
STOPS = {
    "SIGKILL": ("SIGKILL", 1),
    "SIGTERM": ("SIGTERM", 1),
    "Ctrl-C": ("SIGINT", 1),
    "Ctrl-C twice": ("SIGINT", 2),
    "Ctrl-C three times": ("SIGINT", 3),
}
DAMAGE = ("deleted", "truncated", "one bit flipped", "older version", "unreadable")
SURROUNDINGS = (
    *("full disk", "slow disk", "read-only folder", "read-only parent", "clock jumps back"),
    *("no HOME", "no terminal", "40 columns", "locale C", "output in ASCII", "odd path"),
)
AT_RANDOM = ("full disk", "slow disk", "clock jumps back")  # sizes or moments are drawn
TOGETHER = ("twice at once", "evaluated meanwhile")
KINDS = (*STOPS, *DAMAGE, *SURROUNDINGS, *TOGETHER)

SAME, TOLD, REFUSED = "same", "told", "refused"
LOST, WRONG, TRACEBACK, NOISE = "lost", "wrong", "traceback", "noise"
OUTCOMES = {
    SAME: "same result",
    TOLD: "fallback told in one line",
    REFUSED: "refused in one line",
    LOST: "lost",
    WRONG: "another number",
    TRACEBACK: "traceback",
    NOISE: "more than one line",
}
UNWANTED = (LOST, WRONG, TRACEBACK, NOISE)
