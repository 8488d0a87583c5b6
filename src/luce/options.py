"""What a training can be told, each option described once: what it may be, and what it is for.

The estimators check their parameters by these descriptions, a `Request` what it is asked for, and
the command line reads its text and prints its help from them. Nothing heavy is imported here, so
that a slip of the finger is answered before any library is.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

from luce.errors import ArgumentError

__all__ = [
    "DISTIL",
    "EXPORT",
    "HEADINGS",
    "LINEAR",
    "NETWORK",
    "PLAN",
    "RUN",
    "SCALING",
    "STREAM",
    "TUNE",
    "Kind",
    "Option",
    "check",
    "check_sizes",
    "named",
    "one_of",
    "read",
    "received",
]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Values of a kind.

    Attributes
    ----------
    words : str
        What is allowed: ends the sentence "epochs must be …".
    allows : callable
        Whether a value is allowed; it takes any object.
    read : callable
        The value that a text of the command line stands for; ValueError where it is none.
    text : str
        `words` for the command line, where they differ.
    form : str
        How help shows the value.
    choices : tuple of str
        The names that it may be, where it must be one of them.
    """

    words: str
    allows: Callable[[Any], bool]
    read: Callable[[str], Any] = str
    text: str = ""
    form: str = "TEXT"
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Option:
    """An option: the kind of its values, what it does, and the heading that help has it under.

    One without words is Python's alone. The words name the default where there is one. What only
    one loss has an option for names that, and is refused beside another.
    """

    kind: Kind
    does: str = ""
    group: str = ""
    loss: str = ""

    @property
    def help(self) -> str:
        """What help says of it: which names it may be, if it is one of some, and what it does."""
        *names, last = self.kind.choices or ("",)
        return f"{', '.join(names)} or {last}. {self.does}" if names else self.does


def check(called: str, value: object, kind: Kind) -> None:
    """Raise ArgumentError unless the kind allows the value; `called` is the option's name."""
    if not kind.allows(value):
        raise ArgumentError(f"{called} must be {kind.words}, got {received(value)}.")


def check_sizes(validation_size: float, test_size: float) -> None:
    """Raise ArgumentError unless the fractions for validation and test leave rows to train on."""
    check("validation_size", validation_size, FRACTION)
    check("test_size", test_size, FRACTION)
    if validation_size + test_size >= 1:
        raise ArgumentError(
            f"validation_size and test_size together must be below 1, got {validation_size} and "
            f"{test_size}: nothing would be left to train on."
        )


def named(name: str) -> list[Option]:
    """Return the options of that name, of the networks first."""
    everywhere = (RUN, STREAM, PREDICT, EXPORT, PLAN, DISTIL, TUNE, NETWORK, LINEAR)
    return [options[name] for options in everywhere if name in options]


def read(name: str, text: str, *, called: str) -> Any:
    """Return the value that a text of the command line stands for.

    Raises
    ------
    ArgumentError
        If it stands for none that is allowed; the message calls the option `called`.
    """
    kinds = list(dict.fromkeys(option.kind for option in named(name)))
    for kind in kinds:
        try:
            value = kind.read(text)
        except (ValueError, RecursionError):
            continue
        if kind.allows(value):
            return value
    if all(kind.choices for kind in kinds):
        kinds = [one_of(*dict.fromkeys(name for kind in kinds for name in kind.choices))]
    words = " or ".join(kind.text or kind.words for kind in kinds)
    raise ArgumentError(f"{called} must be {words}, got {received(text)}.")


def received(value: object) -> str:
    """Return a value as a message shows it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no whole number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}…"


# -------------------------------------------------------------------------------------------------
# Kinds
# -------------------------------------------------------------------------------------------------


def _real(value: object) -> float:
    """Return a real number as a float; NaN, which fails every comparison, for anything else."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def number(
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    or_infinite: bool = False,
) -> Kind:
    """Return the kind of numbers within bounds, finite unless `or_infinite`."""
    bounds = {"above": above, "of at least": at_least, "below": below}
    words = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if abs(bound) < 1e9)
    return Kind(
        words=f"a number {words}",
        allows=lambda value: (
            above < (real := _real(value))
            and real >= at_least
            and (real < below or (or_infinite and real == math.inf))
        ),
        read=float,
        form="NUMBER",
    )


def whole(low: int, high: int | None = None) -> Kind:
    """Return the kind of whole numbers from `low` on; none is beyond what 64 bits hold."""
    last = 2**63 - 1 if high is None else high
    words = "a whole number above 0" if low == 1 else f"a whole number of at least {low}"
    return Kind(
        words=words if high is None else f"a whole number from {low:,} to {high:,}",
        allows=lambda value: (
            isinstance(value, Integral)
            and not isinstance(value, bool)
            and low <= int(value) <= last
        ),
        read=int,
        form="N",
    )


def count(low: int) -> Kind:
    """Return the kind of whole numbers from `low` on that may be written as 1e9."""

    def read(text: str) -> int:
        try:
            return int(text)
        except ValueError:
            real = float(text)
            return int(real) if real.is_integer() else low - 1

    kind = whole(low)
    return replace(kind, words=f"{kind.words}, such as 64 or 1e9", read=read)


def one_of(*names: str | None) -> Kind:
    """Return the kind of values that are one of a few names."""
    return Kind(
        words=f"one of {', '.join(map(str, names))}",
        allows=lambda value: isinstance(value, str | None) and value in names,
        form="NAME",
        choices=tuple(name for name in names if name is not None),
    )


def either(kind: Kind, name: str | None) -> Kind:
    """Return a kind that allows one word, or None, beside its own values."""
    text = kind.text or kind.words
    return Kind(
        words=f"{kind.words}, or {name!r}",
        allows=lambda value: (
            (isinstance(value, str | None) and value == name) or kind.allows(value)
        ),
        read=lambda given: given if given == name else kind.read(given),
        text=text if name is None else f"{text}, or {name}",
        form=kind.form if name is None else f"{kind.form}|{name}",
    )


def _are_widths(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(WIDTH.allows(width) for width in value)
    )


def _are_weights(value: object) -> bool:
    return isinstance(value, Mapping) and all(_real(weight) >= 0 for weight in value.values())


def _are_candidates(value: object) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return len(value) > 0 and all(PENALTY.allows(C) and math.isfinite(C) for C in value)
    return whole(1).allows(value)


def _are_shares(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(SHARE.allows(share) for share in value)
    )


def _is_scaling(value: object) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and math.isfinite(_real(value[0]))
        and POSITIVE.allows(value[1])
    )


def _is_image_size(value: object) -> bool:
    both = isinstance(value, tuple | list)
    sides: Sequence[Any] = value if isinstance(value, tuple | list) else (value,)
    side = whole(1, LARGEST_SIDE)
    return (
        len(sides) == 1 + both
        and all(side.allows(each) for each in sides)
        and 3 * math.prod(sides if both else (*sides, *sides)) <= MOST_NUMBERS
    )


def _read_image_size(text: str) -> int | tuple[int, ...]:
    sides = tuple(int(side) for side in text.lower().split("x"))
    return sides[0] if len(sides) == 1 else sides


def _read_bytes(text: str) -> int:
    """Return the bytes that ``50GB`` stands for, a thousand of one unit making one of the next."""
    found = re.fullmatch(r"(?i)\s*([\d.]+)\s*([kmgt]?)b?\s*", text)
    if found is None:
        raise ValueError(text)
    return int(float(found[1]) * 1000 ** " kmgt".index(found[2].lower() or " "))


def _read_scaling(text: str) -> str | tuple[float, ...]:
    return tuple(float(part) for part in text.split(",")) if "," in text else text


def _is_encoding(value: object) -> bool:
    try:
        return isinstance(value, str) and "a".encode(value).decode(value) == "a"
    except (LookupError, ValueError):
        return False


def _are_names(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(each, str) and each for each in value)
    )


def _read_names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in next(csv.reader([text], skipinitialspace=True)))


def _read_types(text: str) -> dict[str, str]:
    pairs = [name.rpartition("=") for name in _read_names(text)]
    return {name.strip(): kind.strip() for name, _, kind in pairs}


def _are_types(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(each, str) and each for pair in value.items() for each in pair
    )


POSITIVE = number(above=0)
ENCODING = either(
    Kind(
        words="an encoding that Python knows, such as 'utf-8', 'latin-1', 'cp1252' or 'utf-16'",
        allows=_is_encoding,
        text="an encoding such as utf-8, latin-1, cp1252 or utf-16",
    ),
    None,
)
SEPARATOR = either(
    Kind(
        words="a single ASCII character that is no letter, digit, quote or line break",
        allows=lambda value: (
            isinstance(value, str) and re.fullmatch(r"(?a:[^\w\"\r\n\0])", value) is not None
        ),
        read=lambda text: {"tab": "\t", "\\t": "\t", "space": " "}.get(text, text),
        text="a single character, tab or space",
        form="CHARACTER",
    ),
    None,
)
SEVERAL = either(
    Kind(
        words="a text that separates labels, such as ';', or 'columns'",
        allows=lambda value: isinstance(value, str) and value != "" and len(value) < 20,
        text="what separates labels, such as ;, or columns",
        form="TEXT|columns",
    ),
    None,
)
NAMES = Kind(
    words="a sequence of names of columns",
    allows=_are_names,
    read=_read_names,
    text="names of columns, such as age,zip",
    form="COLUMN,...",
)
TYPES = Kind(
    words="a dict of kinds by column, such as {'zip': 'category'}",
    allows=_are_types,
    read=_read_types,
    text="kinds by column, such as age=number,zip=category",
    form="COLUMN=KIND,...",
)
# C is infinite for no penalty. Of the smallest numbers, 1 / C is more than a float can hold.
PENALTY = Kind(
    words="a number above 0",
    allows=lambda value: (real := _real(value)) > 0 and 1 / real < math.inf,
    read=float,
    form="NUMBER",
)
BYTES = Kind(
    words="a number of bytes above 0",
    allows=lambda value: 0 < _real(value) < 2**63,
    read=_read_bytes,
    text="a size such as 800MB, 50GB or 2TB",
    form="SIZE",
)
ADDRESS = Kind(
    words="an address such as tcp://host:8786, spark://host:7077 or ray://host:10001",
    allows=lambda value: isinstance(value, str) and value != "",
    form="ADDRESS",
)
# A wider layer is a typing error.
WIDTH = whole(1, 1 << 24)
FRACTION = number(at_least=0, below=1)
SHARE = Kind(
    words="a number from 0 to 1",
    allows=lambda value: 0 <= _real(value) <= 1,
    read=float,
    form="FRACTION",
)
SHARES = either(
    Kind(
        words="a sequence of numbers from 0 to 1",
        allows=_are_shares,
        read=lambda text: tuple(float(share) for share in text.split(",")),
        text="numbers from 0 to 1, such as 0,0.5,1",
        form="FRACTION,...",
    ),
    None,
)
ANYTHING = Kind(words="anything", allows=lambda _: True)
# Compared by name, so that NumPy's bool passes too, and NumPy is not imported.
FLAG = Kind(words="True or False", allows=lambda value: type(value).__name__ == "bool")
WIDTHS = Kind(
    words="a sequence of whole numbers above 0, up to 16,777,216, such as (256, 128)",
    allows=_are_widths,
    read=lambda text: tuple(int(width) for width in text.split(",")),
    text="whole numbers above 0, up to 16,777,216, such as 256 or 512,256",
    form="N,...",
)
CANDIDATES = Kind(
    words="a count above 0 or a sequence of numbers above 0",
    allows=_are_candidates,
    read=lambda text: tuple(float(C) for C in text.split(",")),
    text="numbers above 0, such as 0.1,1,10",
    form="NUMBER,...",
)
FOLDS = Kind(
    words="a number of folds from 2 up, 'loo', a splitter or splits",
    allows=lambda value: (
        value == "loo"
        if isinstance(value, str)
        else type(value) is not bool and (not isinstance(value, int) or value >= 2)
    ),
    read=lambda text: text if text == "loo" else int(text),
    text="a number of folds from 2 up, or loo",
    form="N|loo",
)
CLASS_WEIGHT = either(
    Kind(
        words="'balanced', a dict of weights of at least 0 by class",
        allows=lambda value: (
            (isinstance(value, str) and value == "balanced") or _are_weights(value)
        ),
        read=lambda text: text if text == "balanced" else json.loads(text),
        text='balanced or JSON of weights of at least 0 by class, such as {"yes": 2, "no": 1}',
        form="balanced|JSON",
    ),
    None,
)
SCALING = Kind(
    words="'standard', 'none' or a pair (mean, standard deviation above 0)",
    allows=lambda value: (
        (isinstance(value, str) and value in ("standard", "none")) or _is_scaling(value)
    ),
    read=_read_scaling,
    text="standard, none or MEAN,DEVIATION with a deviation above 0",
    form="HOW",
)
# The most pixels that a side of an image may have, and the most numbers that an image may have.
LARGEST_SIDE = 2**14
MOST_NUMBERS = 2**26
IMAGE_SIZE = either(
    Kind(
        words="the longer side in pixels or (height, width), at most "
        f"{MOST_NUMBERS // 3:,} pixels in all",
        allows=_is_image_size,
        read=_read_image_size,
        text="pixels, such as 96, or HEIGHTxWIDTH, such as 48x96, at most "
        f"{MOST_NUMBERS // 3:,} in all",
        form="N|HxW",
    ),
    None,
)
# PyTorch says later whether the device exists. Tensors on "meta" hold no numbers.
DEVICE = Kind(
    words="the name of a PyTorch device that computes, such as auto, cpu, cuda or cuda:1",
    allows=lambda value: (
        isinstance(value, str) and re.fullmatch(r"(?!meta\b)[a-z]+(:\d{1,3})?", value) is not None
    ),
    form="auto|cpu|cuda|...",
)

# -------------------------------------------------------------------------------------------------
# Options, in the order and under the headings of the help
# -------------------------------------------------------------------------------------------------

DATA = "Data"
STREAMS = "Tables larger than memory"
COLUMNS = "Columns and images"
EVERY_MODEL = "Models"
OF_LINEAR = "Softmax regression (--model linear)"
OF_NETWORKS = "Networks (--model mlp or cnn)"
OF_TRAINING = "Training of networks"
OF_TEACHING = "Teacher"
OF_SEARCH = "Search"
HEADINGS = (
    DATA,
    STREAMS,
    OF_TEACHING,
    COLUMNS,
    OF_SEARCH,
    EVERY_MODEL,
    OF_LINEAR,
    OF_NETWORKS,
    OF_TRAINING,
)

_COMMON = {
    "class_weight": Option(CLASS_WEIGHT, "Weights of the classes.", EVERY_MODEL),
    "device": Option(
        DEVICE,
        "Where to compute; auto takes the GPU, if any.  [default: auto]",
        EVERY_MODEL,
    ),
    "verbose": Option(ANYTHING),
}

# scikit-learn's random generators accept no larger seed.
LARGEST_SEED = 2**32 - 1

# Options of a whole training, which every model has. They are fields of a `Request`.
RUN = {
    "validation_size": Option(FRACTION, "Fraction of rows to validate on.  [default: 0.1]", DATA),
    "test_size": Option(FRACTION, "Fraction of rows to score on at the end.  [default: 0.2]", DATA),
    "drop_rare": Option(whole(0), "Leave out classes with fewer than N rows.  [default: 0]", DATA),
    "stream": Option(FLAG),
    "encoding": Option(
        ENCODING, "Of a CSV, where it is not UTF-8: latin-1, cp1252, utf-16, ...", DATA
    ),
    "separator": Option(SEPARATOR, "Between the columns of a CSV: a character or tab.", DATA),
    "decimal": Option(
        one_of(".", ",", None), "What comes before the fraction of numbers in text.", DATA
    ),
    "several": Option(
        SEVERAL,
        "Labels do not exclude each other: what separates them within the target, or columns.",
        DATA,
    ),
    "drop": Option(NAMES, "Columns to leave out.", COLUMNS),
    "keep": Option(NAMES, "Columns to use though they look like identifiers.", COLUMNS),
    "types": Option(
        TYPES, "What columns are: number, category, boolean, date, text or left out.", COLUMNS
    ),
    "normalise": Option(
        SCALING,
        "standard, none or MEAN,DEVIATION: how numbers are scaled.  [default: standard]",
        COLUMNS,
    ),
    "image_size": Option(
        IMAGE_SIZE,
        "Resize images to this longer side, or to both.  [default: at most 64]",
        COLUMNS,
    ),
    "model": Option(
        one_of("auto", "linear", "mlp", "cnn"),
        "auto trains all that suit the data and keeps the best.  [default: auto]",
        EVERY_MODEL,
    ),
    "seed": Option(
        whole(0, LARGEST_SEED), "Seed of all random numbers.  [default: 0]", EVERY_MODEL
    ),
    "report_every": Option(
        either(whole(1), None), "Also print the loss every N batches.", OF_TRAINING
    ),
}

LINEAR = {
    "C": Option(
        either(PENALTY, "auto"),
        "Inverse strength of the penalty. auto is 1; for sparse rows (texts, hundreds of "
        "categories) what does best on rows held out.  [default: auto]",
        OF_LINEAR,
    ),
    "Cs": Option(
        either(CANDIDATES, "auto"), "Choose C among these by cross-validation.", OF_LINEAR
    ),
    "l1_ratio": Option(
        SHARE,
        "L1's share of the penalty: 1 makes most coefficients zero, and fewer as it nears 0, which "
        "is L2.  [default: 0]",
        OF_LINEAR,
    ),
    "l1_ratios": Option(SHARES, "Choose it among these, beside C.", OF_LINEAR),
    "penalty": Option(ANYTHING),
    "fit_intercept": Option(FLAG),
    "tol": Option(number(at_least=0, or_infinite=True)),
    "max_iter": Option(whole(0)),
    "solver": Option(one_of("auto", "lbfgs", "newton-cg")),
    "link": Option(
        one_of("softmax", "ovr", "ovo", "ecoc"),
        "One softmax, or binary problems: each class against the rest, each pair of classes, or "
        "the columns of an error-correcting code.  [default: softmax]",
        OF_LINEAR,
    ),
    "code": Option(ANYTHING),
    "cv": Option(
        FOLDS,
        "How --Cs are compared: by so many folds, or by leave-one-out, which takes one fit for "
        "each C.  [default: 5]",
        OF_LINEAR,
    ),
    "scoring": Option(ANYTHING),
    "refit": Option(FLAG),
    "precision": Option(one_of("auto", "float32", "float64")),
    **_COMMON,
}

NETWORK = {
    "hidden": Option(
        WIDTHS,
        "Widths of the hidden layers of mlp.  [default: 128,128 for tables, else 512]",
        OF_NETWORKS,
    ),
    "activation": Option(
        one_of("sigmoid", "tanh", "relu", "relu6", "leaky_relu", "elu", "silu", "mish", "gelu"),
        "[default: relu]",
        OF_NETWORKS,
    ),
    "members": Option(
        whole(1, 1024),
        "Networks in one, their probabilities averaged, of mlp.  [default: 8 for tables, else 1]",
        OF_NETWORKS,
    ),
    "bins": Option(
        either(whole(0, 1024), "auto"),
        "Bins for each number, 0 for none, of mlp.  [default: auto for tables, else 0]",
        OF_NETWORKS,
    ),
    "dropout": Option(
        FRACTION,
        "Fraction of units dropped in training.  [default: 0.3 for mlp, 0 for tables, else 0]",
        OF_NETWORKS,
    ),
    "loss": Option(
        one_of(
            "cross_entropy",
            "hinge",
            "squared_error",
            "huber",
            "focal",
            "generalised_cross_entropy",
            "logit_adjusted",
            "contrastive",
        ),
        "What is minimised.  [default: cross_entropy]",
        OF_TRAINING,
    ),
    "label_smoothing": Option(
        FRACTION,
        "Fraction of each target spread over all classes, of cross_entropy.  [default: 0]",
        OF_TRAINING,
        loss="cross_entropy",
    ),
    "huber_delta": Option(
        POSITIVE,
        "Errors beyond it count by their size, not its square.  [default: 0.5]",
        OF_TRAINING,
        loss="huber",
    ),
    "focal_gamma": Option(
        number(at_least=0),
        "How much less what is right already counts.  [default: 2]",
        OF_TRAINING,
        loss="focal",
    ),
    "generalised_q": Option(
        Kind(
            words="a number above 0 and at most 1",
            allows=lambda value: 0 < _real(value) <= 1,
            read=float,
            form="NUMBER",
        ),
        "Near 0 as cross-entropy; at 1 wrong labels count least.  [default: 0.7]",
        OF_TRAINING,
        loss="generalised_cross_entropy",
    ),
    "adjusted_tau": Option(
        number(at_least=0),
        "How far rare classes are helped; at 1 all count as equally common.  [default: 1]",
        OF_TRAINING,
        loss="logit_adjusted",
    ),
    "contrastive_temperature": Option(
        POSITIVE,
        "The lower, the more the nearest of another class count.  [default: 0.1]",
        OF_TRAINING,
        loss="contrastive",
    ),
    "contrastive_weight": Option(
        number(at_least=0),
        "Of the contrastive part beside cross-entropy.  [default: 1]",
        OF_TRAINING,
        loss="contrastive",
    ),
    "optimizer": Option(one_of("sgd", "adam", "adamw"), "[default: adamw]", OF_TRAINING),
    "learning_rate": Option(
        POSITIVE,
        "The highest rate.  [default: 0.005 for mlp, 0.01 for cnn]",
        OF_TRAINING,
    ),
    "momentum": Option(number(at_least=0), "Momentum of sgd.  [default: 0.9]", OF_TRAINING),
    "l2": Option(
        number(at_least=0),
        "L2 penalty of the weights.  [default: 0.01 for mlp, 0.05 for cnn, 0.0003 for tables]",
        OF_TRAINING,
    ),
    "schedule": Option(
        one_of("constant", "exponential", "cosine", "one_cycle"),
        "How the rate changes.  [default: constant for tables, else one_cycle]",
        OF_TRAINING,
    ),
    "decay": Option(
        POSITIVE, "Factor on the rate per epoch, for exponential.  [default: 0.95]", OF_TRAINING
    ),
    "batch_size": Option(
        either(whole(1), "auto"),
        "Rows per step.  [default: 256 for mlp, 128 for cnn, auto for tables]",
        OF_TRAINING,
    ),
    "epochs": Option(
        either(whole(1), "auto"), "Passes over the training rows.  [default: auto]", OF_TRAINING
    ),
    "patience": Option(
        either(whole(1), None),
        "Stop when the validation log-loss fell by less than 0.0001 in N epochs.  "
        "[default: 5 for tables, else None]",
        OF_TRAINING,
    ),
    "minutes": Option(
        either(POSITIVE, None), "Stop a network's training after so long.", OF_TRAINING
    ),
    "averaging": Option(
        number(at_least=0),
        "Average the weights over about N epochs.  [default: 1 for tables, else 0]",
        OF_TRAINING,
    ),
    "clip_norm": Option(either(POSITIVE, None), "The largest gradient norm.", OF_TRAINING),
    "precision": Option(
        one_of("auto", "float32", "float64", "mixed"),
        "Number format; mixed is for networks.  [default: auto]",
        EVERY_MODEL,
    ),
    "step": Option(
        one_of("plain", "graph"),
        "How a GPU is given a step; graph is one CUDA graph.  [default: plain]",
        OF_TRAINING,
    ),
    "validation_fraction": Option(number(above=0, below=1)),
    "seed": Option(RUN["seed"].kind),
    **_COMMON,
}

# Who computes: arguments of `luce.train`, of predicting and of evaluating.
ENGINE = {
    "engine": Option(
        one_of("local", "dask", "spark", "ray"),
        "Who sums up rows for --model linear.  [default: local]",
        STREAMS,
    ),
    "address": Option(
        ADDRESS, "Where the engine runs.  [default: one is started on this machine]", STREAMS
    ),
    "timeout": Option(POSITIVE, "Seconds that the address has to answer.  [default: 30]", STREAMS),
    "task_timeout": Option(
        POSITIVE,
        "Seconds without a result, after which tasks go to other workers.  [default: 120]",
        STREAMS,
    ),
}

# Options of reading streams: arguments of `luce.train`.
STREAM = {
    "cache_size": Option(
        either(BYTES, None),
        "The most that encoded rows of streams may take on the disk, such as 50GB.",
        STREAMS,
    ),
    **ENGINE,
}

# Options of learning from a teacher: arguments of `NeuralClassifier.fit`.
DISTIL = {
    "temperature": Option(
        POSITIVE, "How far both softmaxes are softened.  [default: 2]", OF_TEACHING
    ),
    "alpha": Option(
        SHARE,
        "How much the teacher counts in what is learnt; the labels have the rest.  [default: 0.9]",
        OF_TEACHING,
    ),
}

# Options of `luce tune`.
TUNE = {
    "folds": Option(
        whole(2, 1000), "Score each candidate on so many folds.  [default: 5]", OF_SEARCH
    ),
    "trials": Option(
        whole(1), "Try so many candidates.  [default: every cell of a grid, else 50]", OF_SEARCH
    ),
    "processes": Option(whole(1, 1024), "Try so many at once.  [default: 1]", OF_SEARCH),
}

# Options of `luce export`.
EXPORT = {
    "to": Option(one_of("onnx", "torch", "html", "pmml"), "The format.  [default: as FILE ends]"),
    "operators": Option(
        one_of("onnx", "onnxruntime"),
        "What an ONNX file may need: the standard's operators, or also ONNX Runtime's own, which "
        "texts take.  [default: onnx]",
    ),
}

# Options of `luce plan`.
PLAN = {
    "rows": Option(count(1), "How many rows there will be, such as 1e9.  [default: SOURCE's]"),
    "columns": Option(count(1), "Encoded columns, where there is no SOURCE."),
    "classes": Option(count(2), "How many classes there will be.  [default: SOURCE's]"),
    "values": Option(POSITIVE, "Of sparse rows, how many values a row has that are not 0."),
    "dtype": Option(
        one_of("float32", "float16", "uint8", "float64"),
        "Of the cached columns, where there is no SOURCE.  [default: float32]",
    ),
    "workers": Option(count(1), "How many, each like this machine.  [default: 1]"),
    "passes": Option(count(1), "Iterations.  [default: as of a fit of SOURCE's first rows]"),
    "memory": Option(POSITIVE, "Of each worker, in GB.  [default: this machine's]"),
    "disk": Option(POSITIVE, "How fast a worker reads its disk, in MB/s.  [default: 500]"),
    "network": Option(POSITIVE, "How fast the driver's network is, in MB/s.  [default: 1000]"),
}

# Options of `luce predict`.
PREDICT = {
    "top": Option(whole(1), "Only the K most probable classes."),
    "sets": Option(
        number(above=0, below=1),
        "Add the set of classes that holds the true one this often, such as 0.95.",
    ),
}
