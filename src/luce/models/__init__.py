"""The kinds of model by name, and what a training asks of them: candidates, options, estimators.

A new kind is one more object in `MODELS`. An average of models is a kind too, which nobody asks
for: `auto` makes it of what it has trained. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from luce.errors import ArgumentError, RunError
from luce.models.average import Average, Averaged, Member, Part
from luce.models.base import Checkpoint, Estimator, Layer, Model, Weights, anywhere
from luce.models.candidates import Candidate
from luce.models.network import Network
from luce.models.softmax_regression import Linear
from luce.options import check

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "AVERAGE",
    "MODELS",
    "Averaged",
    "Candidate",
    "Checkpoint",
    "Estimator",
    "Layer",
    "Member",
    "Model",
    "Part",
    "Weights",
    "candidates",
    "check_options",
    "check_reads",
    "explain",
    "kind_of",
    "not_tried",
    "restore",
    "student_kind",
    "suited",
]

# The defaults are what differs from the estimators'; docs/log.md has the experiments behind them.
MODELS: dict[str, Model[Any]] = {
    "linear": Linear(),
    "mlp": Network(
        "mlp",
        {"hidden": (512,), "dropout": 0.3, "learning_rate": 5e-3, "l2": 0.01, "batch_size": 256},
        for_tables={
            "members": 8,
            "bins": "auto",
            "hidden": (128, 128),
            "dropout": 0.0,
            "l2": 3e-4,
            "schedule": "constant",
            "batch_size": "auto",
            "patience": 5,
            "averaging": 1.0,
        },
        student={"hidden": (32,)},
        # Too small to learn the training rows by heart; taught, it gains for long (Beyer, 2022).
        student_of_images={"dropout": 0.0, "l2": 1e-4, "epochs": 40},
        space={
            "hidden": [[64], [128], [256], [512], [128, 128], [256, 256], [512, 256]],
            "learning_rate": {"low": 5e-4, "high": 0.02, "log": True},
            "l2": {"low": 1e-6, "high": 0.1, "log": True},
            "dropout": {"low": 0.0, "high": 0.5},
        },
    ),
    "cnn": Network(
        "cnn",
        {"learning_rate": 0.01, "l2": 0.05},
        without=["hidden", "members", "bins"],
        space={
            "learning_rate": {"low": 1e-3, "high": 0.05, "log": True},
            "l2": {"low": 1e-4, "high": 0.3, "log": True},
            "dropout": {"low": 0.0, "high": 0.5},
        },
        images_only=True,
    ),
}


# The name of the kind that an average is.
AVERAGE = "average"
_AVERAGE = Average(MODELS)


def kind_of(name: str) -> Model[Any]:
    """Return the kind of a run's model: one of `MODELS`, or an average of such.

    Raises
    ------
    ArgumentError
        If there is none of the name.
    """
    if name == AVERAGE:
        return _AVERAGE
    check_options({}, [name])
    return MODELS[name]


def candidates(
    model: str,
    options: Mapping[str, Any],
    input_shape: Sequence[int],
    *,
    sparse: bool = False,
    text: bool = False,
) -> list[Candidate]:
    """Return what is to be trained for `model`; for "auto" all models that suit the data.

    Of several, each takes the options that it has. `sparse` says whether rows are, `text` whether
    they are texts and nothing else.

    Raises
    ------
    ArgumentError
        If the model is unknown or takes no such rows, or an option is none of the candidates'.
    """
    names = [model]
    if model == "auto":
        names = suited(input_shape, sparse=sparse, text=text)
    check_options(options, names)
    check_reads(names, sparse=sparse)
    own = {name: _own(MODELS[name], options) for name in names}
    return [
        Candidate(name, name, {**MODELS[name].preset(asked, input_shape), **asked})
        for name, asked in own.items()
    ]


def check_reads(names: Sequence[str], *, sparse: bool) -> None:
    """Raise ArgumentError if rows are sparse, and one of the models reads none such."""
    out = [name for name in names if sparse and not MODELS[name].takes_sparse]
    if out:
        able = [name for name, each in MODELS.items() if each.takes_sparse]
        raise ArgumentError(
            f"{' and '.join(out)} cannot read sparse rows, which texts and columns of more than "
            f"100 categories are encoded as. Choose {' or '.join(able)}, or leave such columns out "
            "with --drop."
        )


def suited(input_shape: Sequence[int], *, sparse: bool = False, text: bool = False) -> list[str]:
    """Return the models that "auto" tries on rows of this shape."""
    return [
        name
        for name, each in MODELS.items()
        if each.suits(input_shape)
        and (each.takes_sparse or not sparse)
        and (each.suits_text or not text)
    ]


def not_tried(input_shape: Sequence[int], *, sparse: bool, text: bool) -> list[str]:
    """Say why "auto" does not try some of the models that suit the shape: a sentence each."""
    reasons = []
    for name in suited(input_shape):
        if sparse and not MODELS[name].takes_sparse:
            reasons.append(f"{name} is not tried: it cannot read sparse rows.")
        elif text and not MODELS[name].suits_text:
            reasons.append(
                f"{name} is not tried: on texts alone it takes long and gains little. "
                f"--model {name} trains it."
            )
    return reasons


def check_options(options: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise ArgumentError unless each option is one of the models', and its value allowed.

    Parameters
    ----------
    options : mapping of str to value
        By name, those of the estimators.
    names : sequence of str
        The models to be trained, or "auto" alone. Of several, each takes the options that it has.
    """
    for model in names:
        if model not in (*MODELS, "auto"):
            raise ArgumentError(f"model must be one of auto, {', '.join(MODELS)}, got {model!r}.")
    models = {name: each for name, each in MODELS.items() if name in names or "auto" in names}
    described = {name: each.options for name, each in models.items()}
    for name, value in options.items():
        kinds = {model: own[name].kind for model, own in described.items() if name in own}
        if not kinds:
            raise _unknown(name, list(models))
        alike = len({kind.words for kind in kinds.values()}) == 1
        for model, kind in kinds.items():
            check(name if alike else f"{name} of {model}", value, kind)
    for each in models.values():
        each.check_together(_own(each, options))


def student_kind(name: str) -> Model[Any]:
    """Return the kind of a student.

    Raises
    ------
    ArgumentError
        Unless there is a model of that name that can learn from a teacher.
    """
    taught = {each: model for each, model in MODELS.items() if model.taught}
    if name not in list(taught):
        raise ArgumentError(
            f"distil: model must be one of {', '.join(taught)} to learn from a teacher, got "
            f"{name!r}."
        )
    return taught[name]


def restore(
    name: str,
    options: Mapping[str, Any],
    classes: Sequence[Any],
    input_shape: Sequence[int],
    tensors: Mapping[str, NDArray[Any]],
    *,
    several: bool = False,
) -> Estimator:
    """Return the fitted estimator of a model, from its options and tensors as a run holds them.

    With `several`, the classes are labels that do not exclude each other.

    Raises
    ------
    RunError
        If they do not belong together.
    """
    try:
        model = kind_of(name)
        for each in options:
            if not any(each in other.options for other in (model, *MODELS.values())):
                raise _unknown(each, [name])
        # Runs of earlier versions had options that a model has no use for.
        estimator = model.make(anywhere(_own(model, options)))
        if several:
            estimator.multilabel_ = True
        restored: Estimator = model.restore(estimator, classes, input_shape, tensors)
    except (ArgumentError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"config.json and model.safetensors do not fit together: {error}") from error
    return restored


def explain(estimator: Any) -> Weights | None:
    """Return weights to look at of a fitted estimator that no run holds; None if it has none.

    Parameters
    ----------
    estimator : estimator
        A `NeuralClassifier`, or any linear one with scikit-learn's ``coef_``.
    """
    if hasattr(estimator, "coef_"):
        return MODELS["linear"].explain(estimator)
    return MODELS["mlp"].explain(estimator) if hasattr(estimator, "network_") else None


def _own(model: Model[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the options that the model has."""
    return {name: value for name, value in options.items() if name in model.options}


def _unknown(name: str, models: Sequence[str]) -> ArgumentError:
    owners = [model for model, each in MODELS.items() if name in each.options]
    if len(models) > 1:
        return ArgumentError(f"none of {', '.join(models)} has an option {name!r}.")
    if owners:
        return ArgumentError(
            f"{models[0]} has no option {name!r}: it is one of {' and '.join(owners)}."
        )
    known = ", ".join(sorted(kind_of(models[0]).options))
    return ArgumentError(f"{models[0]} has no option {name!r}. Its options are: {known}.")
