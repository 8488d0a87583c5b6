"""PyTorch: the program in a .pt2 file gives the run's probabilities."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.export.conftest import features_of


@pytest.mark.parametrize(
    ("source", "model"), [("text", "linear"), ("text", "mlp"), ("array", "mlp"), ("colours", "cnn")]
)
def test_the_program_says_what_the_run_does(run_of, tmp_path, source, model):
    """Of images and arrays as they are, of tables as they are encoded; any number of rows."""
    run = run_of(source, model)
    exported = run.export(tmp_path / "run.pt2")
    found = {"luce.json": ""}
    program = torch.export.load(exported.path, extra_files=found)
    notes = json.loads(found["luce.json"])
    assert notes["run"] == run.sha256
    for rows in (1, 5):
        features = features_of(run_of, source, rows)
        inputs = features
        if run.schema.kind == "table":
            inputs = run.schema.encode(features)[0].toarray()
            assert notes["features"] == run.schema.feature_names
            assert "schema.encode" in exported.notes[0]
        said = program.module()(torch.from_numpy(inputs)).numpy()
        np.testing.assert_allclose(said, run.predict_proba(features), atol=1e-5, rtol=0)


def test_it_was_compared_before_it_was_written(run_of, tmp_path):
    """On made-up rows, on one and on none."""
    exported = run_of("array", "mlp").export(tmp_path / "run.pt2")
    assert [each.rows for each in exported.compared] == [400, 1, 0]
    assert exported.bytes == exported.path.stat().st_size


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_pixels_far_from_their_mean_are_as_the_run_has_them(run_of, tmp_path, ending):
    """However small a channel's deviation: no encoded number is beyond 1e18, in run and file."""
    run = run_of("colours", "linear")
    schema = replace(run.schema, scale=(1e-30, 1e-12, 1.0))
    far = replace(run, classifier=replace(run.classifier, schema=schema))
    encoded, _ = schema.encode(features_of(run_of, "colours", 20))
    assert np.abs(encoded[:, 0]).max() == np.float32(1e18)
    exported = far.export(tmp_path / f"run.{ending}")  # raises if they differ
    assert max(each.difference for each in exported.compared) < 1e-5
