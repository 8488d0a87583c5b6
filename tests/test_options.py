"""The options of training: described once, and as the estimators really have them."""

import inspect
import json
import math
import re

import numpy as np
import pytest

from luce import models, options
from luce.errors import ArgumentError
from luce.linear.path import SoftmaxRegressionCV
from luce.linear.regression import SoftmaxRegression
from luce.neural import networks
from luce.neural.classifier import NeuralClassifier
from luce.neural.losses import LOSSES
from luce.neural.optimizers import OPTIMIZERS
from luce.neural.options import PRECISIONS
from luce.neural.training import SCHEDULES

TABLES = {"run": options.RUN, "linear": options.LINEAR, "network": options.NETWORK}
DESCRIBED = [
    pytest.param(name, option, id=f"{table}-{name}")
    for table, described in [
        *TABLES.items(),
        ("predict", options.PREDICT),
        ("distil", options.DISTIL),
    ]
    for name, option in described.items()
]


def defaults(*estimators):
    """Return the parameters of estimators with their defaults."""
    found = {}
    for estimator in estimators:
        parameters = inspect.signature(estimator.__init__).parameters
        found |= {k: p.default for k, p in parameters.items() if k != "self"}
    return found


LINEAR = defaults(SoftmaxRegressionCV, SoftmaxRegression)
NETWORK = defaults(NeuralClassifier)


def test_every_parameter_is_described_and_no_other():
    """The description of each model has its estimator's parameters, neither more nor fewer."""
    assert options.LINEAR.keys() == LINEAR.keys() - {"warm_start"}
    assert options.NETWORK.keys() == NETWORK.keys() - {"module"}
    assert models.MODELS["linear"].options.keys() == options.LINEAR.keys()
    assert models.MODELS["mlp"].options.keys() == options.NETWORK.keys()
    assert models.MODELS["cnn"].options.keys() == options.NETWORK.keys() - {
        "hidden",
        "members",
        "bins",
    }


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("activation", networks.ACTIVATIONS),
        ("loss", LOSSES),
        ("optimizer", OPTIMIZERS),
        ("schedule", SCHEDULES),
        ("precision", PRECISIONS),
    ],
)
def test_names_that_may_be_chosen_are_those_that_exist(name, names):
    """What help and messages list is what the code has."""
    assert options.NETWORK[name].kind.choices == tuple(names)


def test_a_model_may_be_any_that_exists():
    """--model takes auto and the models."""
    assert options.RUN["model"].kind.choices == ("auto", *models.MODELS)


def test_every_default_is_allowed():
    """The estimators' own defaults, and those of the models, pass the checks."""
    for described, own in ((options.LINEAR, LINEAR), (options.NETWORK, NETWORK)):
        for name, option in described.items():
            assert option.kind.allows(own[name]), name
    for name, model in models.MODELS.items():
        models.check_options(model.defaults, [name])


def written(value):
    """Return a value as the command line takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("name", sorted(options.LINEAR.keys() | options.NETWORK.keys()))
def test_help_names_the_true_defaults(name):
    """A default in the help is the one that training takes, for each model."""
    for option in options.named(name):
        found = re.search(r"\[default: (.*)\]", option.help)
        if not found or name in options.RUN:
            continue
        for model, kind in models.MODELS.items():
            if name not in kind.options:
                continue
            own = LINEAR if model == "linear" else NETWORK
            true = kind.defaults.get(name, own[name])
            said = {who: what for what, who in re.findall(r"(\S+) for (\w+)", found[1])}
            rest = said.get(model, found[1].rsplit("else ", 1)[-1])
            assert written(true) == rest, (name, model)
            preset = kind.preset({}, (5,))
            if preset:
                assert written(preset.get(name, true)) == said.get("tables", rest), name


ANY = [
    None,
    True,
    0,
    -1,
    10**400,
    10**5000,
    1.5,
    math.nan,
    math.inf,
    "",
    "é",
    "\udcff",
    b"x",
    [],
    [[]],
    (1, "a"),
    {},
    {"a": None},
    {1: 10**400},
    object(),
    np.nan,
    np.float32(3),
    np.arange(3),
    np.array("x"),
    Ellipsis,
]


@pytest.mark.parametrize(("name", "option"), DESCRIBED)
def test_no_value_is_too_strange_to_be_refused(name, option):
    """Whatever Python value comes, the answer is yes, or a sentence that names the option."""
    for value in ANY:
        try:
            options.check(name, value, option.kind)
        except ArgumentError as error:
            assert str(error).startswith(f"{name} must be {option.kind.words}, got ")  # noqa: PT017
            assert len(str(error)) < 600  # noqa: PT017


TEXTS = ["", " ", ",", "0", "-1", "1e400", "nan", "inf", "9" * 5000, "é", "\udcff", "[" * 9999]
TEXTS += ["auto", "None", "null", '{"a": 1e999}', '{"a": {"b": 1}}', "1,,2", "1;2", "standard,none"]


@pytest.mark.parametrize(("name", "option"), DESCRIBED)
def test_no_text_is_too_strange_to_be_refused(name, option):
    """Whatever the command line says, it is a value that is allowed, or a sentence."""
    for text in TEXTS:
        try:
            value = options.read(name, text, called=f"--{name}")
        except ArgumentError as error:
            assert str(error).startswith(f"--{name} must be ")  # noqa: PT017
        else:
            assert any(each.kind.allows(value) for each in options.named(name))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("hidden", "512,256", (512, 256)),
        ("epochs", "auto", "auto"),
        ("epochs", "7", 7),
        ("C", "0.5", 0.5),
        ("Cs", "auto", "auto"),
        ("Cs", "0.1,10", (0.1, 10.0)),
        ("normalise", "0.1307,0.3081", (0.1307, 0.3081)),
        ("normalise", "none", "none"),
        ("class_weight", "balanced", "balanced"),
        ("class_weight", '{"yes": 2}', {"yes": 2}),
        ("precision", "auto", "auto"),
        ("precision", "mixed", "mixed"),
        ("test_size", "0", 0.0),
        ("image_size", "96", 96),
        ("image_size", "48x96", (48, 96)),
        ("drop_rare", "5", 5),
    ],
)
def test_text_stands_for_a_value(name, text, value):
    """The command line's text becomes the value that Python takes, of the same type."""
    found = options.read(name, text, called=name)
    assert found == value
    assert type(found) is type(value)
    assert json.dumps(found)


@pytest.mark.parametrize(
    ("given", "names", "words"),
    [
        ({"hidden": (8,)}, ["linear"], "linear has no option 'hidden': it is one of mlp"),
        ({"hidden": (8,)}, ["cnn"], "cnn has no option 'hidden': it is one of mlp"),
        ({"depth": 3}, ["mlp"], "mlp has no option 'depth'. Its options are: activation, "),
        ({"depth": 3}, ["linear", "mlp"], "none of linear, mlp has an option 'depth'"),
        ({"precision": "mixed"}, ["linear", "mlp"], "precision of linear must be one of auto"),
        ({"C": 1.0, "Cs": (1.0,)}, ["linear"], "not both"),
        ({"label_smoothing": 0.1, "loss": "hinge"}, ["mlp"], "needs loss='cross_entropy'"),
        ({"focal_gamma": 1.0}, ["mlp"], "focal_gamma=1.0 needs loss='focal', got loss='cross_en"),
    ],
)
def test_options_are_checked_against_the_models(given, names, words):
    """An option of another model, a value of another model, or two at odds are refused."""
    with pytest.raises(ArgumentError, match=re.escape(words)):
        models.check_options(given, names)


def test_of_several_models_each_takes_its_own():
    """What one of the models has may be given where all are trained."""
    models.check_options({"hidden": (8,), "C": 2.0, "epochs": 3}, ["auto"])
