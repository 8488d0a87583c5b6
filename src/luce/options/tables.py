"""Every option, in the order and under the headings of the help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from luce.errors import ArgumentError
from luce.options.kinds import (
    ADDRESS,
    ANYTHING,
    BYTES,
    CANDIDATES,
    CLASS_WEIGHT,
    DEVICE,
    ENCODING,
    FLAG,
    FOLDS,
    FRACTION,
    IMAGE_SIZE,
    L1_SHARE,
    NAMES,
    PENALTIES,
    PENALTY,
    POSITIVE,
    SCALING,
    SEPARATOR,
    SEVERAL,
    SHARE,
    SHARES,
    TYPES,
    WIDTHS,
    Kind,
    check,
    count,
    either,
    number,
    one_of,
    received,
    whole,
)


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
        L1_SHARE,
        "L1's share of the penalty: 1 makes most coefficients zero, and fewer as it nears 0, which "
        "is L2.  [default: 0]",
        OF_LINEAR,
    ),
    "l1_ratios": Option(SHARES, "Choose it among these, beside C.", OF_LINEAR),
    "penalty": Option(
        PENALTIES,
        "What of L2 and L1 or groups holds coefficients near 0: group keeps or drops a feature for "
        "all classes together.  [default: l2]",
        OF_LINEAR,
    ),
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
            allows=lambda value: SHARE.allows(value) and value > 0,
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
        "Rows per step; auto takes 32 to 512, more with more rows.  "
        "[default: 256 for mlp, 128 for cnn, auto for tables]",
        OF_TRAINING,
    ),
    "epochs": Option(
        either(whole(1), "auto"),
        "Passes over the training rows; with early stopping, auto cuts those over 2,097,152 rows "
        "or more.  [default: auto]",
        OF_TRAINING,
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
        "Who sums up rows for --model linear, read as with --stream.  [default: local]",
        STREAMS,
    ),
    "address": Option(
        ADDRESS, "Where the engine runs.  [default: one is started on this machine]", STREAMS
    ),
    "timeout": Option(
        POSITIVE, "Seconds that a host and port has to answer.  [default: 30]", STREAMS
    ),
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
