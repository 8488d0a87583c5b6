"""A run teaches a smaller one: what is learnt from, compared, resumed and refused."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss

import luce
from luce.errors import ArgumentError, DataError, RunError
from luce.progress import Display
from luce.training import distilling


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Hold the runs that teach; nothing is changed in them."""
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture(scope="module")
def digits(folder):
    """A linear teacher of images."""
    return luce.train("digits", model="linear", out=folder)


def people(rows, seed=0):
    """A table whose label follows from its two columns."""
    draw = np.random.default_rng(seed)
    size, colour = draw.normal(size=rows), draw.choice(["red", "blue", "grey"], rows)
    score = size + (colour == "red")
    label = np.where(score > 0.6, "high", np.where(score < -0.4, "low", "middle"))
    return pl.DataFrame({"size": size, "colour": colour, "label": label})


@pytest.fixture(scope="module")
def table(folder):
    """A linear teacher of a table."""
    people(1500).write_csv(folder / "table.csv")
    return luce.train(folder / "table.csv", target="label", model="linear", out=folder)


QUICK = {"hidden": (8,), "epochs": 3}


@pytest.fixture(scope="module")
def student(digits, tmp_path_factory):
    return luce.distil(digits, "digits", out=tmp_path_factory.mktemp("student"), **QUICK)


def sides(run):
    return {each["who"]: each for each in run.metrics["distillation"]["models"]}


@pytest.fixture
def ragged(tmp_path):
    """A table that is damaged after its first rows: whoever reads it all raises DataError."""
    (tmp_path / "t.csv").write_text("a,y\n" + 30_000 * "1,2\n" + "1,2,ragged\n")
    return tmp_path / "t.csv"


def test_the_student_is_what_the_estimator_learns_from_the_same_teacher(digits, student):
    """Its weights are those of NeuralClassifier.fit(teacher=) on the same rows and options."""
    data = luce.load_dataset("digits")
    training, validation, _ = luce.data.three_way(data.labels, **student.config["split"])
    asked = digits.predict_proba(data.features[training])

    class Teacher:
        classes_ = np.arange(10)

        def predict_proba(self, X):  # noqa: ARG002
            return asked

    encoded = student.schema.encode(data.features)[0]
    options = {**student.config["options"], "seed": 0}
    by_hand = luce.NeuralClassifier("mlp", **options)
    by_hand.fit(
        encoded[training],
        data.labels[training],
        validation=(encoded[validation], data.labels[validation]),
        teacher=Teacher(),
        temperature=2.0,
        alpha=0.9,
    )
    for name, tensor in by_hand.network_.state_dict().items():
        np.testing.assert_array_equal(student.estimator.network_.state_dict()[name], tensor)


def test_the_one_without_a_teacher_is_what_train_gives(digits, student, tmp_path):
    """It scores as `luce train` does with the same options and seed."""
    options = {k: student.config["options"][k] for k in ("hidden", "epochs", "dropout", "l2")}
    plain = luce.train("digits", model="mlp", out=tmp_path, **options)
    alone = sides(student)["alone"]
    for figure in ("accuracy", "log_loss", "ece"):
        assert alone[figure] == plain.metrics["test"][figure]
    assert digits.classes == student.classes


def test_the_teacher_teaches(digits, tmp_path):
    """On few labels a student is better with its teacher's word for the other rows."""
    data = luce.load_dataset("digits")
    labels = data.labels.astype(object)
    labels[np.random.default_rng(0).permutation(len(labels))[300:]] = None
    source = (data.features.reshape(len(data), -1), labels)
    teacher = luce.train(
        (source[0], data.labels), model="linear", name="teacher", out=tmp_path, normalise="none"
    )
    run = luce.distil(teacher, source, name="student", out=tmp_path, epochs=30, bins=0, members=1)
    assert run.config["data"]["unlabelled_rows"] == len(labels) - 300
    assert sides(run)["student"]["log_loss"] < 0.8 * sides(run)["alone"]["log_loss"]


def test_figures_are_of_the_rows_that_were_held_out(digits, student):
    """Each model's accuracy, log-loss and disagreements are those of its own predictions there."""
    test = luce.load_dataset("digits").test
    found, given = sides(student), {"teacher": digits, "student": student}
    by = {who: run.predict_proba(test.features) for who, run in given.items()}
    for who, p in by.items():
        assert found[who]["accuracy"] == pytest.approx(np.mean(p.argmax(1) == test.labels))
        assert found[who]["log_loss"] == pytest.approx(log_loss(test.labels, p), rel=1e-5)
        assert found[who]["parameters"] == given[who].info()["parameters"]
        assert found[who]["rows_per_second"] > 0
    content = student.metrics["distillation"]
    says = {who: p.argmax(1) for who, p in by.items()}
    differ = says["teacher"] != says["student"]
    assert content["disagreements"] == differ.sum()
    assert content["teacher_right"] == (says["teacher"] == test.labels)[differ].sum()
    assert content["student_right"] == (says["student"] == test.labels)[differ].sum()
    for each in content["examples"]:
        row = each["row"]
        assert (each["teacher"], each["student"]) == (says["teacher"][row], says["student"][row])
        assert each["label"] == test.labels[row]


def test_the_run_needs_no_teacher(digits, tmp_path):
    """The student is loaded, predicts and reports after its teacher is gone."""
    shutil.copytree(digits.path, tmp_path / "teacher")
    run = luce.distil(tmp_path / "teacher", "digits", out=tmp_path, **QUICK)
    shutil.rmtree(tmp_path / "teacher")
    again = luce.load_run(run.path)
    features = luce.load_dataset("digits").test.features
    np.testing.assert_array_equal(again.predict_proba(features), run.predict_proba(features))
    assert "disagreements" in again.report().summary["distillation"]
    assert again.config["request"]["teacher"] == str(tmp_path / "teacher")


@pytest.mark.parametrize("kind", ["file", "pair"])
def test_rows_without_a_label_are_learnt_from(table, tmp_path, kind):
    """They are training rows, and no others: what is scored has labels."""
    more = people(600, seed=1).with_row_index("i")
    label = pl.when(pl.col("i") % 4 == 0).then(pl.col("label"))
    more = more.with_columns(label.alias("label")).drop("i")
    more.write_csv(tmp_path / "more.csv")
    source = tmp_path / "more.csv"
    if kind == "pair":
        source = (more.drop("label"), more["label"].to_list())
    run = luce.distil(table, source, name="s", out=tmp_path, **QUICK)
    data = run.config["data"]
    assert data["unlabelled_rows"] == 450
    assert data["rows"] == {"train": 450 + 105, "validation": 15, "test": 30}
    assert run.metrics["train"]["rows"] == 105
    assert run.metrics["distillation"]["rows"] == 30
    if kind == "file":
        assert run.evaluate(source)["scored_on"].startswith("the 30 rows of more that training")


def test_no_row_needs_a_label(table, tmp_path):
    """Without a target the student has its teacher's classes, and is compared by agreement.

    No accuracy is shown meanwhile, nor kept: there is nothing that the student could be right in.
    """
    people(600, seed=1).drop("label").write_csv(tmp_path / "none.csv")
    said = io.StringIO()
    run = luce.distil(
        table, tmp_path / "none.csv", out=tmp_path, hidden=(16,), display=Display(said)
    )
    assert "epoch      loss  agreement" in said.getvalue()
    assert "accuracy" not in said.getvalue()
    assert all(line["agreement"] and "accuracy" not in line for line in run.history)
    assert run.classes == table.classes
    assert run.metrics["test"] is run.metrics["train"] is None
    assert sides(run).keys() == {"teacher", "student"}
    assert sides(run)["student"]["accuracy"] is None
    content = run.metrics["distillation"]
    assert content["rows"] == 120
    assert content["disagreements"] < 20
    test = people(500, seed=2)
    assert np.mean(run.predict(test.drop("label")) == test["label"].to_numpy()) > 0.9
    assert (run.path / "report.html").exists()


def test_one_label_of_a_class_is_enough(table, tmp_path):
    """Few labels, not of every class: the student learns, and nothing is compared without them."""
    more = people(200, seed=1)
    seen = more["label"].to_numpy() == "high"
    labels = [text if i < 40 and seen[i] else None for i, text in enumerate(more["label"])]
    run = luce.distil(table, (more.drop("label"), labels), name="s", out=tmp_path, **QUICK)
    assert sides(run).keys() == {"teacher", "student"}
    assert run.classes == table.classes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.with_columns(label=pl.lit("odd")),
            r"does not know 'odd' and knows 'high', 'l",
        ),
        (lambda t: t.drop("colour"), r"lacks columns that the teacher .* reads: 'colour'. It has"),
        (lambda t: t.select("size").to_numpy(), r"needs data of kind table, this is array"),
    ],
)
def test_what_does_not_fit_the_teacher_is_named(table, tmp_path, change, message):
    """Other classes, columns that lack, and another kind of data are one sentence, and no run."""
    with pytest.raises(DataError, match=message):
        luce.distil(table, change(people(50)), target=None, name="s", out=tmp_path)
    assert not (tmp_path / "s").exists()


def test_images_of_another_size_are_refused(digits, tmp_path):
    """The teacher's images and the source's are named with their sizes."""
    with pytest.raises(DataError, match=r"8 × 8 .* got 1 × 9 × 9"):
        luce.distil(digits, np.zeros((4, 9, 9), np.uint8), name="s", out=tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0}, "temperature must be a number above 0, got 0"),
        ({"alpha": 1.5}, "alpha must be a number from 0 to 1, got 1.5"),
        ({"model": "auto"}, "model must be one of linear, mlp, cnn to learn .*, got 'auto'"),
        ({"image_size": 8}, "no option 'image_size': it is the teacher's"),
        ({"target": "label", "hidden": "many"}, "hidden must be"),
    ],
)
def test_wrong_arguments_are_refused(digits, tmp_path, wrong, message):
    """Before anything is read: the message says what is allowed."""
    with pytest.raises(ArgumentError, match=message):
        luce.distil(digits, "digits", out=tmp_path, **wrong)


@pytest.mark.parametrize("command", [luce.train, luce.tune])
@pytest.mark.parametrize("option", [{"temperature": 7.0}, {"alpha": 0.1}, {"temperature": 2.0}])
def test_options_of_teaching_are_no_options_of_others(command, option, ragged, tmp_path):
    """Nobody else takes temperature and alpha and leaves them unused."""
    with pytest.raises(ArgumentError, match=f"{command.__name__} has no option .* luce distil"):
        command(ragged, target="y", out=tmp_path, **option)


def test_tune_takes_no_teacher(ragged, digits, tmp_path):
    """A search would learn from labels alone."""
    with pytest.raises(ArgumentError, match=r"^tune: this is to learn from the teacher"):
        luce.tune(ragged, target="y", out=tmp_path, teacher=str(digits.path))


@pytest.mark.parametrize("command", ["train", "tune", "distil"])
def test_a_device_that_is_not_there_is_said_before_data_are_read(command, ragged, digits, tmp_path):
    """PyTorch knows it at once, whoever asks."""
    teacher = [digits] if command == "distil" else []
    with pytest.raises(ArgumentError, match="device='cuda:999' cannot be used here"):
        getattr(luce, command)(*teacher, ragged, target="y", device="cuda:999", out=tmp_path)


@pytest.mark.parametrize("command", ["train", "tune", "distil"])
def test_who_needs_a_source_says_its_own_name(command, digits, tmp_path):
    """The message is of the function that was called."""
    teacher = [digits] if command == "distil" else []
    with pytest.raises(ArgumentError, match=f"^{command} needs a source"):
        getattr(luce, command)(*teacher, out=tmp_path)


def test_a_teacher_is_a_finished_run(tmp_path):
    """A folder that is none, and none at all, are said."""
    with pytest.raises(RunError, match="is not a run folder"):
        luce.distil(tmp_path, "digits", out=tmp_path)
    with pytest.raises(ArgumentError, match="needs a teacher"):
        luce.distil(source="digits", out=tmp_path)


def test_the_student_never_replaces_its_teacher(digits, folder):
    """--overwrite of the teacher's own folder is refused."""
    with pytest.raises(ArgumentError, match="is the teacher"):
        luce.distil(digits, "digits", name="digits", out=folder, overwrite=True)


def test_train_does_not_go_on_with_what_a_teacher_teaches(student, tmp_path):
    """Neither --config nor --resume of `luce train` silently leave the teacher out."""
    with pytest.raises(ArgumentError, match="Use luce distil"):
        luce.train(config=student.path / "config.json", name="again", out=tmp_path)
    with pytest.raises(ArgumentError, match="Use luce distil"):
        luce.train("digits", name=student.path.name, out=student.path.parent, resume=True)


def test_config_repeats_the_student(student, tmp_path):
    """`luce distil --config` gives the same bits, and needs no other argument."""
    again = luce.distil(config=student.path / "config.json", name="again", out=tmp_path)
    name = "model.safetensors"
    assert (again.path / name).read_bytes() == (student.path / name).read_bytes()


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("batches", [7, 22])
def test_killed_and_resumed_to_the_same_bits(digits, student, tmp_path, monkeypatch, batches):
    """Whether student or comparison was under way, the model and the figures are the same."""
    real, seen = distilling.fit_and_save, []

    def until(*arguments, **options):
        display = arguments[-1]

        def batch(progress):
            seen.append(1)
            if len(seen) == batches:
                raise KilledError

        monkeypatch.setattr(display, "batch", batch)
        return real(*arguments, **options)

    monkeypatch.setattr(distilling, "fit_and_save", until)
    with pytest.raises(KilledError):
        luce.distil(digits, "digits", out=tmp_path, **QUICK)
    monkeypatch.undo()
    assert not (tmp_path / "digits-student" / "model.safetensors").exists()
    run = luce.distil(digits, "digits", out=tmp_path, resume=True)
    for name in ("model.safetensors", "calibration.json"):
        assert (run.path / name).read_bytes() == (student.path / name).read_bytes()
    for who, each in sides(run).items():
        assert each["log_loss"] == sides(student)[who]["log_loss"]


def test_only_the_same_teacher_is_gone_on_with(digits, tmp_path, monkeypatch):
    """A teacher that was trained again meanwhile, or another temperature, is refused."""
    shutil.copytree(digits.path, tmp_path / "teacher")
    monkeypatch.setattr(distilling, "compared", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        luce.distil(tmp_path / "teacher", "digits", out=tmp_path, **QUICK)
    monkeypatch.undo()
    again = {"name": "digits-student", "out": tmp_path, "resume": True}
    with pytest.raises(ArgumentError, match=r"temperature was 2.0, got 5"):
        luce.distil(tmp_path / "teacher", "digits", temperature=5, **again)
    luce.train("digits", model="linear", C=0.1, name="teacher", out=tmp_path, overwrite=True)
    with pytest.raises(RunError, match="is not the teacher that"):
        luce.distil(**again)


def test_a_network_can_teach(tmp_path):
    """A convolutional network teaches another, with a share of the labels of its own."""
    teacher = luce.train("digits", model="cnn", epochs=1, out=tmp_path)
    run = luce.distil(teacher, "digits", model="cnn", epochs=1, alpha=0.5, out=tmp_path)
    assert run.config["request"]["alpha"] == 0.5
    assert {each["model"] for each in sides(run).values()} == {"cnn"}


def test_ctrl_c_and_resume_name_this_command(digits):
    """What is to be resumed is resumed by `luce distil`, with its teacher."""
    request = luce.request.Request(teacher=str(digits.path), source="digits", model="mlp")
    said = request.resume_command(digits.path.parent / "s")
    assert said.startswith(f"luce distil {digits.path} digits --name s")


def test_the_command_prints_a_table(digits, tmp_path):
    """Each of the three models is a line of it; the report has a section."""
    done = subprocess.run(
        [sys.executable, "-m", "luce", "distil", digits.path, "digits", "--epochs", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert [line.split(" (")[0] for line in lines[3:6]] == [
        "teacher",
        "student",
        "without a teacher",
    ]
    assert "disagree in" in lines[6]
    assert "Next: luce predict runs/digits-student digits" in done.stderr
    assert "epoch      loss  accuracy" in done.stderr
    page = (tmp_path / "runs" / "digits-student" / "report.html").read_text()
    assert "points compared with the same model that learnt from the labels alone" in page
    assert "Teacher and student" in page
    assert "luce distil --config" in page


def test_mistakes_have_their_exit_codes(digits, table, luce_command, tmp_path, monkeypatch):
    """2 for usage, 3 for data, 4 for a teacher that is no run: each one line."""
    monkeypatch.chdir(tmp_path)
    people(50).with_columns(label=pl.lit("odd")).write_csv("odd.csv")
    for code, arguments in (
        (2, (digits.path, "digits", "--temperature", "0")),
        (2, (digits.path, "digits", "--model", "auto")),
        (3, (table.path, "odd.csv")),
        (3, (table.path, "nowhere.csv")),
        (4, (tmp_path, "digits")),
    ):
        done = luce_command("distil", *arguments)
        assert done.code == code, done.err
        assert done.err.splitlines()[-1].startswith("luce: ")
        assert not done.out


def test_json_is_the_result(digits, luce_command, tmp_path):
    """--json prints the run's figures with the comparison."""
    done = luce_command(
        "distil", digits.path, "digits", "--epochs", "1", "--json", "--out", tmp_path
    )
    content = json.loads(done.out)
    assert content["distillation"]["models"][1]["who"] == "student"
