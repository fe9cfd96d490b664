"""Evidence against a member of a running devnet, verified by the user's own consensus node."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from coordinator.cli.desk import Desk
from coordinator.cli.output import Output
from coordinator.cli.profile import find_profile
from coordinator.devnet.layout import DevnetLayout
from smpc.curve import SecretKey, compute_xonly_key
from smpc.host.keystore import open_keystore
from smpc.host.private_file import Passphrase, read_private_file
from smpc.participant.keystore import derive_host_secret
from smpc.protocol.ceremony_records import HostKeyAnnounced
from smpc.protocol.envelope import seal_message
from smpc.protocol.evidence import EvidenceBundle, InvalidNonce, Membership
from smpc.protocol.pod_messages import SIGNING_SUITE, CommitReply, SessionHeader, compute_protocol_hash
from smpc.protocol.records import GroupInfo
from smpc.types import Attempt, IdentityKey, KaonHeight, Network, Purpose, Role
from tests.support.devnet import RunningDevnet
from tests.support.evidence_world import report


def test_the_users_own_node_verifies_evidence_against_a_member(devnet: RunningDevnet, tmp_path: Path) -> None:
    """A member signs nonces that are none with its real host key; whoever has a node sees that it is one of us."""
    bundle, accused = asyncio.run(make_evidence(devnet.data_dir))
    file = tmp_path / "some.evidence"
    file.write_bytes(bundle.serialise())
    alone, own = devnet.peg("verify-evidence", str(file), "--offline"), devnet.peg("verify-evidence", str(file))
    assert (alone["standing"], own["standing"]) == ("consistent", "verified")
    assert (own["accused"], own["offence"], own["role"]) == (accused.hex(), "invalid_nonce", "validator")
    kept = DevnetLayout(devnet.data_dir).coordinator.directory / "evidence" / f"{bundle.bundle_id.hex()}.evidence"
    kept.parent.mkdir(exist_ok=True)
    shutil.copy(file, kept)
    try:
        assert [row["accused"] for row in devnet.peg("incident", "list")["incidents"]] == [accused.hex()]
        assert devnet.peg("incident", "show", bundle.bundle_id.hex())["standing"] == "verified"
    finally:
        kept.unlink()


async def make_evidence(data_dir: Path) -> tuple[EvidenceBundle, IdentityKey]:
    """Return evidence that the first member of V made against itself, and who it is."""
    async with Desk(data_dir, find_profile(data_dir), Output("test", "", as_json=True)) as desk:
        view = await desk.consensus.fetch_epoch()
        (info,) = [group.info for group in view.groups if group.role is Role.VALIDATOR]
        assert info is not None
        page = await desk.consensus.list_records(KaonHeight(0), (HostKeyAnnounced,))
        records = [entry.record for entry in page.entries]
        protocol = compute_protocol_hash(desk.params)
    (announced,) = [
        each for each in records if isinstance(each, HostKeyAnnounced) and each.host_key == info.host_keys[0]
    ]
    header = SessionHeader(
        protocol=protocol,
        suite=SIGNING_SUITE,
        network=Network.REGTEST,
        group=info.group,
        slot=KaonHeight(1),
        leader=IdentityKey(compute_xonly_key(open_secret(data_dir / "coordinator"))),
        purpose=Purpose.TRANSFER,
        subject=bytes(32),
        attempt=Attempt(1),
    )
    secret = find_host_secret(data_dir, info)
    envelope = seal_message(secret, "Commit/reply", header.session_id, CommitReply(0, bytes(130)), aux=bytes(32))
    evidence = InvalidNonce(Membership(announced, info.recovery_data), header, envelope)
    return report(evidence), info.members[0]


def find_host_secret(data_dir: Path, info: GroupInfo) -> SecretKey:
    """Return the first member's host secret, from its pod's own directory."""
    for directory in sorted(data_dir.glob("pod-*")):
        identity = open_secret(directory)
        if IdentityKey(compute_xonly_key(identity)) == info.members[0]:
            return derive_host_secret(identity, Network.REGTEST, info.group.epoch, info.group.role, info.attempt)
    raise AssertionError("no pod has this identity")


def open_secret(directory: Path) -> SecretKey:
    """Return the identity secret in a process's directory."""
    passphrase = Passphrase(read_private_file(directory / "passphrase").strip())
    return open_keystore(directory / "keystore.json", passphrase, network=Network.REGTEST)
