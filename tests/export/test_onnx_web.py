"""ONNX in a browser: onnxruntime-web says what the run says."""

import functools
import http.server
import json
import threading

import numpy as np
import pytest

from tests.browser import needs_browser, npm
from tests.export.conftest import features_of

ORT = "onnxruntime-web/dist/ort.wasm.min.js"

pytestmark = [
    needs_browser,
    pytest.mark.skipif(npm(ORT) is None, reason="onnxruntime-web is not installed: npm install"),
]

PAGE = """<!DOCTYPE html><html lang="en"><title>x</title><link rel="icon" href="data:,">
<script src="/onnxruntime-web/dist/ort.wasm.min.js"></script></html>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a folder and the address where it, and what npm installed, is served."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text(PAGE, encoding="utf-8")
    (folder / "onnxruntime-web").symlink_to(npm(ORT).parents[1])
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


TYPES = {"O": "string", "f": "float64", "u": "uint8"}

RUN = """
const feeds = Object.fromEntries(Object.entries(%s).map(([name, { type, dims, data }]) => {
  const typed = { float64: Float64Array, uint8: Uint8Array }[type];
  const values = data.map((each) => (each === null ? NaN : each));
  return [name, new ort.Tensor(type, typed ? typed.from(values) : values, dims)];
}));
ort.env.wasm.numThreads = 1;
ort.InferenceSession.create('/run.onnx')
  .then((session) => session.run(feeds))
  .then(({ label, probabilities }) =>
    done([Array.from(label.data, String), probabilities.dims, Array.from(probabilities.data)]))
  .catch((error) => done(String(error)));
"""


@pytest.mark.parametrize(
    ("source", "model"), [("dense", "linear"), ("text", "mlp"), ("colours", "cnn")]
)
def test_the_browser_runs_the_graph(run_of, site, browser, source, model):
    """Three runs, with all kinds of column, texts and images: labels and probabilities agree."""
    folder, address = site
    run = run_of(source, model)
    run.export(folder / "run.onnx", operators="onnxruntime")
    features = features_of(run_of, source, 25)
    feed = {
        name: {
            "type": TYPES[values.dtype.kind],
            "dims": values.shape,
            "data": [None if v != v else v for v in values.ravel().tolist()],  # noqa: PLR0124
        }
        for name, values in run.schema.raw(features).items()
    }
    browser.call("/url", {"url": f"{address}/index.html"})
    found = browser.run_async(RUN % json.dumps(feed))
    assert isinstance(found, list), found
    label, shape, probabilities = found
    wanted = run.predict_proba(features)
    np.testing.assert_allclose(np.reshape(probabilities, shape), wanted, atol=1e-5, rtol=0)
    assert label == [str(each) for each in run.predict(features)]
