"""What a training can be told, each option described once: what it may be, and what it is for.

The estimators check their parameters by these descriptions, a `Request` what it is asked for, and
the command line reads its text and prints its help from them. Nothing heavy is imported here, so
that a slip of the finger is answered before any library is.
"""

from luce.options.kinds import (
    CANDIDATES,
    IMAGE_SIZE,
    LARGEST_SIDE,
    MOST_NUMBERS,
    NAMES,
    SCALING,
    Kind,
    check,
    number,
    one_of,
    received,
)
from luce.options.tables import (
    COLUMNS,
    DATA,
    DISTIL,
    EXPORT,
    HEADINGS,
    LARGEST_SEED,
    LINEAR,
    NETWORK,
    OF_SEARCH,
    PLAN,
    PREDICT,
    RUN,
    STREAM,
    STREAMS,
    TUNE,
    Option,
    check_sizes,
    named,
    read,
)

__all__ = [
    "CANDIDATES",
    "COLUMNS",
    "DATA",
    "DISTIL",
    "EXPORT",
    "HEADINGS",
    "IMAGE_SIZE",
    "LARGEST_SEED",
    "LARGEST_SIDE",
    "LINEAR",
    "MOST_NUMBERS",
    "NAMES",
    "NETWORK",
    "OF_SEARCH",
    "PLAN",
    "PREDICT",
    "RUN",
    "SCALING",
    "STREAM",
    "STREAMS",
    "TUNE",
    "Kind",
    "Option",
    "check",
    "check_sizes",
    "named",
    "number",
    "one_of",
    "read",
    "received",
]
