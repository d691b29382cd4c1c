"""One MLflow server for all tests of trackers."""

import pytest
from mlflow_server import serve_mlflow


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory):
    with serve_mlflow(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri
