"""JSON-RPC to a node that restarts, refuses, stalls or talks nonsense (cases H1, I8): always a typed outcome."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from smpc.errors import BridgeError, CheckFailed, ConfigError, TimedOut, Unavailable
from smpc.node.bitcoind_endpoint import CookieFile, RpcAuth, RpcEndpoint, UserPassword
from smpc.node.bitcoind_json import JsonValue
from smpc.node.bitcoind_rpc import MAX_REPLY_BYTES, BitcoindRpc, RpcError
from tests.support.scripted_bitcoind import Answer, Request, failure, http_answer, result, scripted_bitcoind

PASSWORD = "correct horse"
HTML = b"<html><body>Service down</body></html>"


def endpoint(url: str, auth: RpcAuth | None = None, *, attempts: int = 3, seconds: float = 10.0) -> RpcEndpoint:
    return RpcEndpoint(url, auth or UserPassword("peg", PASSWORD), deadline_seconds=seconds, attempts=attempts)


def in_turn(*scripts: Callable[[Request], Answer]) -> Callable[[Request], Answer]:
    """Answer each request by its own script, and by the last one from then on."""
    return lambda request: scripts[min(request.number, len(scripts)) - 1](request)


def one(request: Request) -> Answer:
    return result(request, "1")


def always(status: int, body: bytes) -> Callable[[Request], Answer]:
    return lambda _: http_answer(status, body, "text/html")


async def ask(script: Callable[[Request], Answer], method: str = "getblockhash") -> JsonValue:
    async with scripted_bitcoind(script) as node, BitcoindRpc(endpoint(node.url)) as rpc:
        return await rpc.call(method, 0)


async def fail(script: Callable[[Request], Answer], method: str = "getblockhash") -> BridgeError:
    with pytest.raises(BridgeError) as error:
        await ask(script, method)
    return error.value


class TestRetries:
    @pytest.mark.parametrize(
        "trouble",
        [
            always(503, b"Work queue depth exceeded"),
            always(500, HTML),
            always(502, b""),
            lambda request: failure(request, -28, "Loading block index"),
            lambda _: b"",
            lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
            lambda _: b"garbage\r\n\r\n",
        ],
        ids=["work queue", "html", "empty 502", "warming up", "hang up", "cut short", "no http"],
    )
    async def test_idempotent_call_survives_a_passing_trouble(self, trouble: Callable[[Request], Answer]) -> None:
        assert await ask(in_turn(trouble, trouble, one)) == 1

    async def test_idempotent_call_gives_up_after_its_attempts(self) -> None:
        async with scripted_bitcoind(always(503, b"")) as node, BitcoindRpc(endpoint(node.url, attempts=2)) as rpc:
            with pytest.raises(Unavailable, match="work queue"):
                await rpc.call("getblockhash", 0)
        assert node.count("getblockhash") == 2

    async def test_call_that_must_not_happen_twice_is_sent_once(self) -> None:
        async with scripted_bitcoind(lambda _: b"") as node, BitcoindRpc(endpoint(node.url)) as rpc:
            with pytest.raises(Unavailable):
                await rpc.call("sendtoaddress", "bcrt1", "0.1")
        assert node.count("sendtoaddress") == 1

    async def test_refused_call_is_an_answer_and_not_repeated(self) -> None:
        refusing = scripted_bitcoind(lambda request: failure(request, -8, "out of range"))
        async with refusing as node, BitcoindRpc(endpoint(node.url)) as rpc:
            with pytest.raises(RpcError, match="out of range") as refused:
                await rpc.call("getblockhash", 0)
        assert refused.value.rpc_code == -8
        assert node.count("getblockhash") == 1

    async def test_json_rpc_2_error_with_status_200_is_a_refusal(self) -> None:
        error = await fail(lambda request: failure(request, -5, "Block not found", status=200))
        assert isinstance(error, RpcError)

    async def test_nobody_listening_is_unavailable(self) -> None:
        async with scripted_bitcoind(one) as node:
            url = node.url
        async with BitcoindRpc(endpoint(url, attempts=2)) as rpc:
            with pytest.raises(Unavailable, match="cannot reach"):
                await rpc.call("getblockhash", 0)

    async def test_one_line_at_the_first_failure_and_one_at_recovery(self) -> None:
        trouble = always(503, b"")
        with capture_logs() as lines:
            assert await ask(in_turn(trouble, trouble, one)) == 1
        assert [(line["event"], line["log_level"]) for line in lines] == [
            ("bitcoind.call_failed", "warning"),
            ("bitcoind.call_recovered", "info"),
        ]
        assert lines[1]["failures"] == 2
        assert PASSWORD not in repr(lines)


class TestDeadlines:
    async def test_silent_node_times_out(self) -> None:
        async with scripted_bitcoind(lambda _: None) as node, BitcoindRpc(endpoint(node.url, seconds=0.2)) as rpc:
            with pytest.raises(TimedOut, match="getblockhash"):
                await rpc.call("getblockhash", 0)

    async def test_deadline_bounds_all_retries_together(self) -> None:
        busy = scripted_bitcoind(always(503, b""))
        async with busy as node, BitcoindRpc(endpoint(node.url, attempts=1_000, seconds=0.5)) as rpc:
            started = time.monotonic()
            with pytest.raises(TimedOut):
                await rpc.call("getblockhash", 0)
        assert time.monotonic() - started < 30, "a thousand attempts would take far longer"

    async def test_cancelled_call_leaves_the_client_usable(self) -> None:
        async with scripted_bitcoind(in_turn(lambda _: None, one)) as node, BitcoindRpc(endpoint(node.url)) as rpc:
            call = asyncio.create_task(rpc.call("getblockhash", 0))
            await node.asked.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await rpc.call("getblockhash", 0) == 1


class TestNonsense:
    @pytest.mark.parametrize(
        "body",
        [
            HTML,
            b'{"result": 1',
            b'{"result": 1, "result": 1, "id": 1}',
            b"[" * 100_000,
            b"[]",
            b"1e400",
            b'{"result": 1, "id": 999}',
            b'{"result": 1}',
            b'{"id": 1}',
            b'{"error": 5, "id": 1}',
            b'{"error": {"code": "x", "message": "y"}, "id": 1}',
            b'{"error": {"code": 1}, "id": 1}',
        ],
        ids=repr,
    )
    async def test_answer_that_is_none_makes_the_node_untrustworthy(self, body: bytes) -> None:
        assert isinstance(await fail(always(200, body)), CheckFailed)

    async def test_huge_answer_is_dropped_before_it_fills_memory(self) -> None:
        huge = http_answer(200, b" " * (MAX_REPLY_BYTES + 1))
        assert isinstance(await fail(lambda _: huge), CheckFailed)

    async def test_compressed_answer_is_not_unpacked(self) -> None:
        bomb = gzip.compress(b" " * 10_000_000)
        reply = http_answer(200, bomb).replace(b"Connection:", b"Content-Encoding: gzip\r\nConnection:")
        assert isinstance(await fail(lambda _: reply), CheckFailed)

    async def test_page_of_another_server_is_a_configuration_error(self) -> None:
        assert isinstance(await fail(always(404, HTML)), ConfigError)

    async def test_forbidden_client_is_a_configuration_error(self) -> None:
        assert isinstance(await fail(always(403, b"")), ConfigError)

    async def test_message_with_half_a_surrogate_can_be_printed(self) -> None:
        body = b'{"error": {"code": -5, "message": "\\ud800"}, "id": 1}'
        error = await fail(always(500, body))
        assert error.message.encode()


class TestCredentials:
    async def test_cookie_is_sent(self, tmp_path: Path) -> None:
        cookie = tmp_path / ".cookie"
        cookie.write_text("__cookie__:one\n")
        async with scripted_bitcoind(one) as node, BitcoindRpc(endpoint(node.url, CookieFile(cookie))) as rpc:
            await rpc.call("getblockhash", 0)
        assert node.requests[0].headers["authorization"] == "Basic X19jb29raWVfXzpvbmU="

    async def test_cookie_of_a_restarted_node_is_read_again(self, tmp_path: Path) -> None:
        cookie = tmp_path / ".cookie"
        cookie.write_text("__cookie__:one")

        def refuse_and_restart(_: Request) -> Answer:
            cookie.write_text("__cookie__:two")
            return http_answer(401, b"")

        script = in_turn(one, refuse_and_restart, one)
        async with scripted_bitcoind(script) as node, BitcoindRpc(endpoint(node.url, CookieFile(cookie))) as rpc:
            for _ in range(3):
                assert await rpc.call("getblockhash", 0) == 1
        used = [request.headers["authorization"] for request in node.requests]
        assert used[0] == used[1] != used[2] == used[3]

    async def test_even_a_call_sent_once_only_follows_a_new_cookie(self, tmp_path: Path) -> None:
        cookie = tmp_path / ".cookie"
        cookie.write_text("__cookie__:one")

        def refuse_and_restart(_: Request) -> Answer:
            cookie.write_text("__cookie__:two")
            return http_answer(401, b"")

        script = in_turn(refuse_and_restart, one)
        async with scripted_bitcoind(script) as node, BitcoindRpc(endpoint(node.url, CookieFile(cookie))) as rpc:
            assert await rpc.call("sendtoaddress", "bcrt1", "0.1") == 1

    async def test_wrong_password_is_a_configuration_error_at_once(self) -> None:
        async with scripted_bitcoind(always(401, b"")) as node, BitcoindRpc(endpoint(node.url)) as rpc:
            with pytest.raises(ConfigError, match="401") as refused:
                await rpc.call("getblockhash", 0)
        assert len(node.requests) == 1
        assert PASSWORD not in str(refused.value)

    async def test_missing_cookie_means_that_the_node_is_not_running(self, tmp_path: Path) -> None:
        auth = CookieFile(tmp_path / ".cookie")
        async with BitcoindRpc(endpoint("http://127.0.0.1:1", auth, attempts=2)) as rpc:
            with pytest.raises(Unavailable, match="no cookie file"):
                await rpc.call("getblockhash", 0)

    @pytest.mark.parametrize("content", [b"no colon", b"\xff\xfe:x"])
    async def test_file_that_is_no_cookie_is_a_configuration_error(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / ".cookie").write_bytes(content)
        async with BitcoindRpc(endpoint("http://127.0.0.1:1", CookieFile(tmp_path / ".cookie"))) as rpc:
            with pytest.raises(ConfigError):
                await rpc.call("getblockhash", 0)

    def test_password_is_never_shown(self) -> None:
        assert PASSWORD not in repr(endpoint("http://127.0.0.1:1"))

    @pytest.mark.parametrize(
        "url", ["", "127.0.0.1:8332", "ftp://node", "http://", "http://u:secret@node:8332", "http://u:secret@node:port"]
    )
    def test_address_must_be_a_plain_url(self, url: str) -> None:
        with pytest.raises(ConfigError) as refused:
            endpoint(url)
        assert "secret" not in refused.value.message

    @pytest.mark.parametrize(("attempts", "seconds"), [(0, 1.0), (1, 0.0)])
    def test_deadline_and_attempts_are_positive(self, attempts: int, seconds: float) -> None:
        with pytest.raises(ConfigError):
            endpoint("http://127.0.0.1:1", attempts=attempts, seconds=seconds)
