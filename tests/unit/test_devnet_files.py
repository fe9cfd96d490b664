"""A devnet's files: ports that stay free, configurations that load, users that the node knows by a hash only."""

from __future__ import annotations

import asyncio
import hmac
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cli.profile import load_profile
from coordinator.config import CoordinatorConfig
from coordinator.devnet.chain import FirstBlock
from coordinator.devnet.children import build_environment
from coordinator.devnet.control import request_control, serve_control
from coordinator.devnet.creation import build_genesis, create_keys, write_configurations
from coordinator.devnet.identities import DevnetIdentities
from coordinator.devnet.layout import DevnetLayout, name_pod
from coordinator.devnet.loopback_ports import choose_ports, is_port_free
from coordinator.devnet.rpc_users import RpcUser
from coordinator.devnet.settings import MIN_PODS, DevnetOptions, DevnetPorts, DevnetSettings, find_settings
from coordinator.devnet.toml_text import build_toml
from smpc.errors import ConfigError, InvalidInput, NotFound, Unavailable
from smpc.host.config import load_config
from smpc.host.keystore import open_keystore
from smpc.host.pki import read_identity
from smpc.node.devchain.process import DevchainConfig
from smpc.node.genesis import load_genesis
from smpc.params import REGTEST
from smpc.participant.config import PodConfig
from smpc.protocol.election import find_draw
from smpc.types import BlockHash, EmergencyMode, Finality, IdentityKey, Network


def test_ports_are_free_different_and_never_taken_by_an_outgoing_connection() -> None:
    ports = choose_ports(20)

    assert len(set(ports)) == 20
    assert all(is_port_free(port) for port in ports)
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports) < ephemeral


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert not is_port_free(server.getsockname()[1])


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,10}", fullmatch=True),
        st.one_of(
            st.integers(0, 2**31),
            st.booleans(),
            st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=20),
            st.lists(st.from_regex(r"[a-z\"\\]{0,5}", fullmatch=True), max_size=3),
            st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.integers(0, 9), max_size=3),
        ),
        max_size=5,
    )
)
def test_what_is_written_as_toml_is_read_back(table: dict[str, Any]) -> None:
    assert tomllib.loads(build_toml(table)) == table


def test_the_node_learns_a_salted_hash_of_a_password_only(tmp_path: Path) -> None:
    user = RpcUser("pod-01", tmp_path / "rpc-password")
    user.create()
    password = user.password.read_bytes().strip()

    option = user.build_option()

    assert password.decode() not in option
    name, salt, digest = option.removeprefix("-rpcauth=").replace("$", ":").split(":")
    assert name == "pod-01"
    assert hmac.digest(salt.encode(), password, "sha256").hex() == digest


def test_the_fewest_pods_admitted_can_form_three_groups() -> None:
    settings = DevnetSettings(DevnetOptions(MIN_PODS), DevnetPorts(1, 2, 3, 4, tuple(range(10, 10 + MIN_PODS))))
    keys = {
        name: IdentityKey(number.to_bytes(32, "big")) for number, name in enumerate(settings.pod_endpoints, start=1)
    }
    identities = DevnetIdentities(IdentityKey(bytes(32)), IdentityKey(bytes(32)), keys)

    genesis = build_genesis(settings, identities, FirstBlock(0, BlockHash(bytes(32))))

    assert find_draw(REGTEST, genesis.validators, bytes(32)) is not None
    assert find_draw(REGTEST, genesis.validators[:-1], bytes(32)) is None


@pytest.mark.parametrize("pods", [MIN_PODS - 1, 41])
def test_too_few_pods_for_three_groups_or_too_many_for_a_machine_are_refused(pods: int) -> None:
    with pytest.raises(InvalidInput, match="13 to 40 pods"):
        DevnetOptions(pods=pods)


def test_a_devnet_arms_only_where_its_epochs_turn() -> None:
    assert DevnetOptions.choose() == DevnetOptions(emergency=EmergencyMode.ARMED)
    assert DevnetOptions.choose(finality=Finality.DEPTH).emergency is EmergencyMode.OFF
    assert DevnetOptions.choose(emergency=EmergencyMode.OFF).emergency is EmergencyMode.OFF
    armed = DevnetOptions(finality=Finality.CHECKPOINTS, emergency=EmergencyMode.ARMED)
    assert armed != DevnetOptions(finality=Finality.CHECKPOINTS)
    with pytest.raises(InvalidInput, match="turn"):
        DevnetOptions(finality=Finality.DEPTH, emergency=EmergencyMode.ARMED)


@pytest.mark.parametrize("mode", EmergencyMode)
def test_whether_a_devnet_arms_is_read_back_and_stands_in_its_genesis(tmp_path: Path, mode: EmergencyMode) -> None:
    settings = DevnetSettings(DevnetOptions(13, 250, emergency=mode), DevnetPorts.choose(13))
    settings.save(tmp_path / "devnet.json")
    assert find_settings(tmp_path / "devnet.json") == settings
    keys = {name_pod(number): IdentityKey(bytes([number]) * 32) for number in range(1, 14)}
    identities = DevnetIdentities(pods=keys, coordinator=keys["pod-01"], consensus=keys["pod-02"])
    assert build_genesis(settings, identities, FirstBlock(110, BlockHash(bytes(32)))).emergency is mode


def test_settings_are_read_back_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    settings = DevnetSettings(DevnetOptions(13, 250), DevnetPorts(1, 2, 3, 4, tuple(range(10, 23))))
    path = tmp_path / "devnet.json"

    assert find_settings(path) is None
    settings.save(path)
    assert find_settings(path) == settings
    path.write_text('{"format": 1}')
    with pytest.raises(ConfigError, match="damaged"):
        find_settings(path)


def test_children_do_not_inherit_our_configuration_variables() -> None:
    kept = build_environment({"PATH": "/bin", "PEG_POD_LISTEN": "x", "PEG_DATA_DIR": "y", "HOME": "/"})
    assert kept == {"PATH": "/bin", "HOME": "/"}


def test_every_process_of_a_new_devnet_has_a_configuration_it_can_load(tmp_path: Path) -> None:
    layout = DevnetLayout(tmp_path / "devnet")
    settings = DevnetSettings(DevnetOptions(13), DevnetPorts.choose(13))

    identities = create_keys(layout, settings)
    write_configurations(layout, settings, identities, FirstBlock(110, BlockHash(bytes(32))))

    genesis = load_genesis(layout.genesis)
    assert [item.identity for item in genesis.validators] == [identities.pods[name_pod(n)] for n in range(1, 14)]
    assert genesis.coordinators == (identities.coordinator,)
    assert load_config(CoordinatorConfig, layout.coordinator.config, "PEG_COORDINATOR", {}).store.embedded is not None
    assert load_config(DevchainConfig, layout.consensus.config, "PEG_DEVCHAIN", {}).genesis == layout.genesis
    profile = load_profile(layout.profile)
    assert profile.peg.identity == identities.coordinator.hex()
    for number, validator in enumerate(genesis.validators, start=1):
        pod = load_config(PodConfig, layout.pod(name_pod(number)).config, "PEG_POD", {})
        assert pod.listen == validator.endpoint
        assert read_identity(pod.tls.cert).identity_key == validator.identity
        assert pod.passphrase.path.stat().st_mode & 0o777 == 0o600
        assert pod.bitcoind.build_endpoint().url.endswith(str(settings.ports.bitcoind))
    opened = load_config(PodConfig, layout.pod("pod-01").config, "PEG_POD", {})
    open_keystore(opened.keystore, opened.passphrase.read_passphrase(), network=Network.REGTEST)


def test_what_an_interrupted_creation_left_is_made_anew(tmp_path: Path) -> None:
    layout = DevnetLayout(tmp_path / "devnet")
    settings = DevnetSettings(DevnetOptions(13), DevnetPorts.choose(13))

    first = create_keys(layout, settings)
    second = create_keys(layout, settings)

    assert first.coordinator != second.coordinator
    assert find_settings(layout.settings) is None


async def _echo(request: Mapping[str, Any]) -> dict[str, Any]:
    if request["verb"] == "fail":
        raise NotFound("no such thing", remedy="look elsewhere")
    return {"heard": request["verb"]}


@pytest.mark.parametrize("depth", [1, 12])
async def test_the_supervisors_socket_answers_however_deep_its_directory_lies(tmp_path: Path, depth: int) -> None:
    directory = tmp_path.joinpath(*["a-long-directory-name"] * depth)
    directory.mkdir(parents=True)
    path = directory / "control.sock"

    server = await serve_control(path, _echo)
    async with server:
        assert await request_control(path, {"verb": "status"}) == {"heard": "status"}
        with pytest.raises(NotFound, match="no such thing"):
            await request_control(path, {"verb": "fail"})


async def test_a_supervisor_that_is_gone_or_silent_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no devnet runs"):
        await request_control(tmp_path / "control.sock", {"verb": "status"})

    released = asyncio.Event()

    async def silent(_: Mapping[str, Any]) -> dict[str, Any]:
        await released.wait()
        return {}

    async with await serve_control(tmp_path / "control.sock", silent):
        with pytest.raises(Unavailable, match="does not answer"):
            await request_control(tmp_path / "control.sock", {"verb": "status"}, seconds=0.2)
        released.set()
        assert await request_control(tmp_path / "control.sock", {"verb": "status"}) == {}
