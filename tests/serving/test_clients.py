"""Other servers' own clients, where they are installed, asked of a running `luce serve`."""

import asyncio
import json

import numpy as np
import pandas as pd
import polars as pl
import pytest

import luce
from tests.serving.conftest import Server

# What they warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

ROWS = pd.DataFrame(
    {"age": [40.0, np.nan], "city": ["Graz", "Wien"], "member": [True, False]}
).assign(day="2024-05-01", remark="a letter")
IMAGES = np.arange(128, dtype=np.uint8).reshape(2, 1, 8, 8)


@pytest.fixture(scope="module")
def served(runs):
    """A server of a run on a table and of one on images."""
    started = Server(runs / "people", runs / "digits")
    yield started
    started.stop()


@pytest.fixture(scope="module")
def expected(runs):
    """Labels and probabilities of `ROWS` and `IMAGES`, by the runs themselves."""
    people, digits = (luce.load_run(runs / name) for name in ("people", "digits"))
    rows = pl.from_pandas(ROWS)
    return {
        "people": (people.predict(rows).tolist(), people.predict_proba(rows)),
        "digits": (digits.predict(IMAGES).tolist(), digits.predict_proba(IMAGES)),
    }


def client_of(name, package):
    """Return a client's module, or skip with how to install it."""
    return pytest.importorskip(
        name, reason=f"{name.partition('.')[0]} is not installed: pip install '{package}'"
    )


def test_kserves_client(served, expected):
    """KServe's REST client asks by the Open Inference Protocol: health, a table, images."""
    kserve = client_of("kserve", "kserve")

    def column(name, kind):
        return kserve.InferInput(name, [2], kind, data=ROWS[name].tolist())

    tensors = [column("age", "FP64"), column("member", "BOOL")]
    tensors += [column(name, "BYTES") for name in ("city", "day", "remark")]
    pixels = kserve.InferInput("rows", [2, 1, 8, 8], "UINT8")
    pixels.set_data_from_numpy(IMAGES, binary_data=False)

    async def ask():
        config = kserve.RESTConfig(protocol="v2")
        async with kserve.InferenceRESTClient(config) as client:
            assert await client.is_server_live(served.address)
            assert await client.is_server_ready(served.address)
            assert await client.is_model_ready(served.address, "people")
            assert not await client.is_model_ready(served.address, "nobody")
            for name, inputs in (("people", tensors), ("digits", [pixels])):
                asked = kserve.InferRequest(name, inputs, request_id="7")
                answer = await client.infer(served.address, asked, model_name=name)
                label, probabilities = (each.as_numpy() for each in answer.outputs)
                assert answer.id == "7"
                assert label.tolist() == expected[name][0]
                np.testing.assert_allclose(probabilities, expected[name][1], rtol=1e-6)

    asyncio.run(ask())


def test_tritons_client(served, expected):
    """Triton's HTTP client does, too, with tensors as JSON."""
    http = client_of("tritonclient.http", "tritonclient[http]")
    client = http.InferenceServerClient(served.address.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_model_ready("digits")
    (described,) = client.get_model_metadata("digits")["inputs"]
    pixels = http.InferInput(described["name"], list(IMAGES.shape), described["datatype"])
    pixels.set_data_from_numpy(IMAGES, binary_data=False)
    answer = client.infer("digits", [pixels])
    assert answer.as_numpy("label").tolist() == expected["digits"][0]
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected["digits"][1], rtol=1e-6)
    client.close()


def test_mlflows_client(runs, expected):
    """MLflow's scoring client sends a data frame, with NaN for what is missing."""
    scoring = client_of("mlflow.pyfunc.scoring_server.client", "mlflow")
    started = Server(runs / "people")
    try:
        client = scoring.ScoringServerClient("127.0.0.1", started.port)
        client.wait_server_ready()
        assert client.get_version() == luce.__version__
        answer = client.invoke(ROWS).get_predictions()
    finally:
        started.stop()
    assert answer.to_numpy().ravel().tolist() == expected["people"][0]


def test_sagemakers_runtime_client(served, expected):
    """boto3's client of SageMaker's runtime, with the server as its endpoint_url."""
    boto3 = client_of("boto3", "boto3")
    client = boto3.client(
        "sagemaker-runtime",
        endpoint_url=served.address,
        region_name="eu-central-1",
        aws_access_key_id="none",
        aws_secret_access_key="none",
    )
    for kind, body in (
        ("text/csv", ROWS.to_csv(index=False)),
        ("application/json", json.dumps({"instances": json.loads(ROWS.to_json(orient="records"))})),
    ):
        answer = client.invoke_endpoint(EndpointName="people", ContentType=kind, Body=body)
        assert json.loads(answer["Body"].read()) == {"predictions": expected["people"][0]}


def test_sagemakers_client_of_local_endpoints(runs):
    """The client that SageMaker's SDK has for local mode."""
    local = client_of("sagemaker.core.local.local_session", "sagemaker")
    started = Server(runs / "matrix")
    try:
        client = local.LocalSagemakerRuntimeClient({"local": {"serving_port": started.port}})
        answer = client.invoke_endpoint(
            b"3,0,0\n-3,0,0\n", "any", ContentType="text/csv", Accept="application/json"
        )
        assert json.loads(answer["Body"].read()) == {"predictions": [1, 0]}
    finally:
        started.stop()
