"""The two listening servers: PegService for users (TLS), OperatorService for the operator (mutual TLS)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from coordinator.config import CoordinatorConfig
from coordinator.epoch_turn import EpochTurn
from coordinator.inspection import Inspector
from coordinator.invoice_desk import InvoiceDesk
from coordinator.links import Links
from coordinator.outlook import Outlook
from coordinator.pause import PauseSwitch
from coordinator.pod_inquiry import PodInquiry
from coordinator.servicers import operator, peg
from coordinator.servicers.operator import OperatorServicer
from coordinator.servicers.peg import PegServicer
from coordinator.standing import Standing, StandingGate
from coordinator.sweep_desk import SweepDesk
from coordinator.term import Term
from pegbridge.v1.operator_pb2_grpc import add_OperatorServiceServicer_to_server
from pegbridge.v1.peg_pb2_grpc import add_PegServiceServicer_to_server
from smpc.host.counters import Counters
from smpc.host.gates import PUBLIC, AccessGate, Gate, RateGate
from smpc.host.grpc_server import OWN_PUBLIC_SERVICES, OWN_SERVICES, RpcServer
from smpc.host.interceptors import GuardedCalls
from smpc.host.peer import PeerRole
from smpc.participant.app import split_address

CREATE_SECONDS: Final = 60.0
"""The longest a call may take: an invoice is answered when its record is final."""

QUESTIONS_PER_SECOND: Final = 200
QUESTION_BURST: Final = 2_000
"""What one caller may ask in all; a watch is one call."""

LISTS_PER_SECOND: Final = 5
LIST_BURST: Final = 50
"""A list may draw a thousand entries."""


class Front:
    """Both servers, with one health: SERVING while the coordinator is at work."""

    def __init__(
        self,
        *,
        config: CoordinatorConfig,
        links: Links,
        outlook: Outlook,
        standing: Standing,
        pause: PauseSwitch,
        desk: InvoiceDesk,
        sweeps: SweepDesk,
        turn: EpochTurn,
        find_term: Callable[[], Term | None],
    ) -> None:
        self._config = config
        self._standing = standing
        self._counters = Counters()
        inquiry = PodInquiry(links.transport, [validator.identity for validator in links.genesis.validators])
        inspector = Inspector(
            links=links,
            outlook=outlook,
            standing=standing,
            pause=pause,
            inquiry=inquiry,
            certificate=config.tls.cert,
            find_term=find_term,
        )
        self._peg = self._build_peg_server(PegServicer(outlook, desk, links.replica))
        self._operator = self._build_operator_server(
            OperatorServicer(
                outlook=outlook,
                inspector=inspector,
                pause=pause,
                inquiry=inquiry,
                sweeps=sweeps,
                standing=standing,
                list_ceremonies=turn.list_status,
            )
        )

    async def start(self) -> tuple[int, int]:
        """Listen, NOT_SERVING; return the ports of the peg and the operator service."""
        peg_port = await self._peg.start(*split_address(self._config.listen_peg), serving=False)
        operator_port = await self._operator.start(*split_address(self._config.listen_operator), serving=False)
        return peg_port, operator_port

    async def show_health(self) -> None:
        """Report for ever whether the coordinator works."""
        async for _ in self._standing.changed.watch():
            for server in (self._peg, self._operator):
                await server.set_every_service(serving=self._standing.is_promising)

    async def stop(self, grace_seconds: float) -> bool:
        """Report NOT_SERVING, let running calls end, close; False when one was cut off."""
        async with asyncio.TaskGroup() as group:
            stopping = [group.create_task(server.stop(grace_seconds)) for server in (self._peg, self._operator)]
        return all(task.result() for task in stopping)

    def _build_peg_server(self, servicer: PegServicer) -> RpcServer:
        network = self._config.network
        gates: list[Gate] = [
            AccessGate(network, {peg.SERVICE: PUBLIC, **OWN_PUBLIC_SERVICES}),
            RateGate(network, per_second=QUESTIONS_PER_SECOND, burst=QUESTION_BURST),
            RateGate(network, per_second=LISTS_PER_SECOND, burst=LIST_BURST, methods=peg.LIST_METHODS),
            RateGate(
                network,
                per_second=self._config.invoices_per_second,
                burst=self._config.invoices_burst,
                methods=frozenset({peg.CREATE_METHOD}),
            ),
            StandingGate(self._standing),
        ]
        calls = GuardedCalls(gates, self._counters, max_call_seconds=CREATE_SECONDS)
        server = RpcServer(calls, self._config.tls, mutual=False)
        add_PegServiceServicer_to_server(servicer, server.grpc)
        server.announce([peg.SERVICE])
        return server

    def _build_operator_server(self, servicer: OperatorServicer) -> RpcServer:
        rules = {operator.SERVICE: frozenset({PeerRole.OPERATOR}), **OWN_SERVICES}
        server = RpcServer(GuardedCalls([AccessGate(self._config.network, rules)], self._counters), self._config.tls)
        add_OperatorServiceServicer_to_server(servicer, server.grpc)
        server.announce([operator.SERVICE])
        return server
