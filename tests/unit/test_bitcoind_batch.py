"""Calls of one moment share a request, and each caller still gets its own answer, error or cancellation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

import pytest

from smpc.errors import CheckFailed, ConfigError, Unavailable
from smpc.node.bitcoind_batch import MAX_BATCH, CallBatcher
from smpc.node.bitcoind_endpoint import RpcEndpoint, UserPassword
from smpc.node.bitcoind_json import JsonValue
from smpc.node.bitcoind_reply import Call, Outcome, RpcError, Unauthorized, read_outcomes
from smpc.node.bitcoind_rpc import BitcoindRpc
from tests.support.scripted_bitcoind import Request, http_answer, scripted_bitcoind


def call(number: int) -> Call:
    return Call(number, "gettxout", (number,))


class Postman:
    """Records the batches it is given and answers each call with its own number."""

    def __init__(self, *, hold: asyncio.Event | None = None, error: Exception | None = None) -> None:
        self.batches: list[list[int]] = []
        self.taken = asyncio.Event()
        self._hold = hold
        self._error = error

    async def send(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        self.batches.append([call.request_id for call in calls])
        self.taken.set()
        if self._hold is not None:
            await self._hold.wait()
        if self._error is not None:
            raise self._error
        return [Outcome(call.request_id) for call in calls]


async def ask_all(ask: Callable[[Call], Awaitable[JsonValue]], numbers: Sequence[int]) -> list[JsonValue]:
    async def one(number: int) -> JsonValue:
        return await ask(call(number))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in numbers]
    return [task.result() for task in tasks]


class TestBatcher:
    async def test_calls_of_one_moment_share_a_request(self) -> None:
        postman = Postman()
        assert await ask_all(CallBatcher(postman.send).call, range(5)) == list(range(5))
        assert postman.batches == [list(range(5))]

    async def test_calls_one_after_the_other_do_not_wait_for_each_other(self) -> None:
        postman = Postman()
        batcher = CallBatcher(postman.send)
        assert [await batcher.call(call(number)) for number in range(3)] == [0, 1, 2]
        assert postman.batches == [[0], [1], [2]]

    @pytest.mark.parametrize(("count", "sizes"), [(MAX_BATCH, [MAX_BATCH]), (MAX_BATCH + 1, [MAX_BATCH, 1])])
    async def test_batch_is_bounded(self, count: int, sizes: list[int]) -> None:
        postman = Postman()
        await ask_all(CallBatcher(postman.send).call, range(count))
        assert [len(batch) for batch in postman.batches] == sizes

    async def test_error_of_the_whole_batch_is_every_callers(self) -> None:
        postman = Postman(error=ConfigError("no"))
        with pytest.raises(ExceptionGroup) as errors:
            await ask_all(CallBatcher(postman.send).call, range(2))
        assert errors.group_contains(ConfigError)

    async def test_cancelled_caller_does_not_disturb_the_others(self) -> None:
        hold = asyncio.Event()
        postman = Postman(hold=hold)
        batcher = CallBatcher(postman.send)
        first, second = (asyncio.create_task(batcher.call(call(number))) for number in (1, 2))
        await postman.taken.wait()
        first.cancel()
        hold.set()
        assert await second == 2
        with pytest.raises(asyncio.CancelledError):
            await first

    async def test_caller_cancelled_before_the_request_is_not_asked_for(self) -> None:
        postman = Postman()
        batcher = CallBatcher(postman.send)
        first, second = (asyncio.create_task(batcher.call(call(number))) for number in (1, 2))
        asyncio.get_running_loop().call_soon(first.cancel)
        assert await second == 2
        assert first.cancelled()

    async def test_closing_ends_what_is_on_its_way_with_an_error(self) -> None:
        postman = Postman(hold=asyncio.Event())
        batcher = CallBatcher(postman.send)
        waiting = asyncio.create_task(batcher.call(call(1)))
        await postman.taken.wait()
        await batcher.aclose()
        with pytest.raises(Unavailable, match="closed"):
            await waiting


class TestReply:
    CALLS = (call(1), call(2))

    def read(self, answer: object, status: int = 200) -> tuple[Outcome, ...]:
        return read_outcomes(self.CALLS, status, json.dumps(answer).encode())

    def test_answers_may_come_in_any_order(self) -> None:
        outcomes = self.read([{"id": 2, "result": "b"}, {"id": 1, "result": "a"}])
        assert [outcome.unwrap() for outcome in outcomes] == ["a", "b"]

    def test_refusal_of_one_call_is_its_own(self) -> None:
        refusal = {"id": 2, "error": {"code": -5, "message": "no"}}
        first, second = self.read([{"id": 1, "result": None, "error": None}, refusal])
        assert first.unwrap() is None
        with pytest.raises(RpcError):
            second.unwrap()

    def test_warming_up_is_unavailable_for_each(self) -> None:
        warming = {"error": {"code": -28, "message": "Loading"}}
        for outcome in self.read([{"id": 1} | warming, {"id": 2} | warming]):
            assert isinstance(outcome.error, Unavailable)
            assert not isinstance(outcome.error, RpcError)

    def test_batch_refused_as_a_whole_is_refused_to_each(self) -> None:
        for outcome in self.read({"id": None, "error": {"code": -32600, "message": "Invalid"}}, 400):
            assert isinstance(outcome.error, RpcError)

    @pytest.mark.parametrize("entry", [None, 5, {}, {"id": 9, "result": 1}, {"id": True, "result": 1}, {"id": 2}])
    def test_call_without_an_answer_is_not_believed_while_the_other_is(self, entry: object) -> None:
        first, second = self.read([{"id": 1, "result": 1}, entry])
        assert first.unwrap() == 1
        with pytest.raises(CheckFailed):
            second.unwrap()

    @pytest.mark.parametrize("answer", ["text", 5, None])
    def test_answer_that_is_no_list_is_not_believed(self, answer: object) -> None:
        with pytest.raises(CheckFailed):
            self.read(answer)

    def test_unauthorized_is_told_apart(self) -> None:
        with pytest.raises(Unauthorized):
            self.read([], 401)


async def test_batch_is_sent_again_call_by_call_after_a_passing_trouble() -> None:
    def script(request: Request) -> bytes:
        if request.number == 1:
            return http_answer(503, b"")
        calls = request.calls
        results = [{"id": entry["id"], "result": entry["params"][0]} for entry in calls]
        return http_answer(200, json.dumps(results if len(results) > 1 else results[0]).encode())

    async with scripted_bitcoind(script) as server:
        endpoint = RpcEndpoint(server.url, UserPassword("peg", "x"), attempts=3)
        async with BitcoindRpc(endpoint) as rpc:
            assert await ask_all(lambda asked: rpc.call(asked.method, *asked.params), range(4)) == [0, 1, 2, 3]
    assert len(server.requests[0].calls) == 4
    assert sum(len(request.calls) for request in server.requests[1:]) == 4
