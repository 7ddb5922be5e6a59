"""Model nodes behind TLS: an mTLS directory, and a gateway's key."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import grpc
import pytest
from certificates import Certified, Wallet, certify
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from model_cluster import ModelCluster, steady
from predict_cases import called, rows, store_prices, until_rows
from sqlalchemy import Engine
from test_predict import predicting

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.times import utc_now
from coordinator_node.services.predict.model_nodes import ModelNodes
from coordinator_node.services.predict.startup import check_predict

STATUSES = "SELECT DISTINCT model_id, status FROM predictions ORDER BY model_id"


def serve_with(node: Certified, clients: Certified | None = None) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(node.key_pem, node.certificate_pem)],
        root_certificates=clients.certificate_pem if clients else None,
        require_client_auth=clients is not None,
    )


async def test_mutual_tls_reaches_the_models_that_prove_their_wallet_and_refuses_an_impostor(
    engine: Engine, tmp_path: Path
) -> None:
    authority = certify("authority", authority=True)
    coordinator = certify("coordinator", authority)
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem)
    (tmp_path / "tls.crt").write_bytes(coordinator.certificate_pem)
    (tmp_path / "tls.key").write_bytes(coordinator.key_pem)
    cluster = ModelCluster(honest=steady, impostor=steady)
    wallet, stranger = Wallet(), Wallet()
    for name, node in cluster.nodes.items():
        own = certify(f"model-node-{name}.crunchdao.internal", authority)
        node.credentials = serve_with(own, authority)
        node.wallet = wallet.address
        node.proof = (wallet if name == "honest" else stranger).vouch(name, own)
    store_prices(engine, utc_now())
    async with cluster, predicting(engine, cluster, secure_cert_dir=str(tmp_path)):
        await called(engine, 2)
        await until_rows(engine, "SELECT 1 FROM predictions WHERE status = 'PENDING'", bool)
    assert {(row.model_id, row.status) for row in rows(engine, STATUSES)} == {("honest", "PENDING")}
    assert [(r["model_id"], r["failure_code"]) for r in cluster.reports] == [("impostor", "CONNECTION_FAILED")]


async def test_a_gateway_is_given_a_signed_token_with_every_call(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, coordinator = certify("gateway"), certify("coordinator")
    (tmp_path / "key.pem").write_bytes(coordinator.key_pem)
    (tmp_path / "roots.pem").write_bytes(gateway.certificate_pem)
    # What a deployment's system roots are; gRPC reads them once, at the first such connection of a process.
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(tmp_path / "roots.pem"))
    cluster = ModelCluster(a=steady)
    cluster.nodes["a"].credentials = serve_with(gateway)
    store_prices(engine, utc_now())
    async with cluster, predicting(engine, cluster, gateway_cert_dir=str(tmp_path)):
        await called(engine, 2)
    assert {row.status for row in rows(engine, STATUSES)} == {"PENDING"}
    for metadata in cluster.nodes["a"].received:
        message = base64.b64decode(metadata["x-gateway-auth-message"])
        signature = base64.b64decode(metadata["x-gateway-auth-signature"])
        coordinator.key.public_key().verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        assert json.loads(message)["model_id"] == "a"


@pytest.mark.parametrize("variable", ["gateway_cert_dir", "secure_cert_dir"])
def test_missing_files_are_said_with_the_variable(variable: str, tmp_path: Path) -> None:
    settings = Settings(**{variable: str(tmp_path)})
    with pytest.raises(ConfigurationError, match=f"^{variable.upper()}: .*{tmp_path}"):
        ModelNodes(settings, changed=lambda: None)


@pytest.mark.parametrize(
    ("variable", "files"), [("gateway_cert_dir", ["key.pem"]), ("secure_cert_dir", ["ca.crt", "tls.crt", "tls.key"])]
)
def test_files_that_are_no_credentials_are_said_with_the_variable(
    variable: str, files: list[str], tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).write_text("-----BEGIN NOTHING-----")
    with pytest.raises(ConfigurationError, match=f"^{variable.upper()}: {tmp_path} cannot be used: "):
        check_predict(CrunchConfig(), Settings(feed_source="simulated", **{variable: str(tmp_path)}))
