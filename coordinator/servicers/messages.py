"""Views -> protobuf: the messages of PegService."""

from __future__ import annotations

import base64
from typing import TypeVar

from coordinator.outlook import Outlook
from coordinator.views import MoneyView, OutputView, PegInView, PegOutView
from pegbridge.v1 import peg_pb2 as pb
from smpc.bitcoin.taproot import InvoiceTree
from smpc.protocol.invoices import InvoiceTerms
from smpc.protocol.ledger_views import EpochView
from smpc.protocol.notarisation import KaonDepth
from smpc.types import Txid, to_display_hex

MessageT = TypeVar("MessageT", pb.PegIn, pb.PegOut)


def to_pegin_message(view: PegInView) -> pb.PegIn:
    """Return the protobuf form."""
    summary = view.summary
    return pb.PegIn(
        id=summary.id,
        state=summary.state,
        epoch=summary.epoch,
        index=summary.index,
        recipient=summary.recipient,
        refund_key=summary.refund_key,
        expires_btc_height=summary.expires,
        bip21=summary.bip21,
        psbt=base64.b64encode(summary.psbt).decode(),
        waiting_for=summary.waiting_for,
        outputs=[_to_output_message(output) for output in view.outputs],
    )


def to_pegout_message(view: PegOutView, depth: KaonDepth) -> pb.PegOut:
    """Return the protobuf form; `depth` is that of the burn's block.

    Where sweeps notarise, `confirmations` is what delayed proof of work's rule makes of that depth: whoever waits for
    a number of them waits for Bitcoin to bury the burn. Where they do not, it is the payout's, as ever.
    """
    summary, is_ruled = view.summary, depth.btc_needed is not None
    return pb.PegOut(
        id=summary.id,
        state=summary.state,
        burn_sats=summary.burn,
        payout_sats=summary.payout,
        fee_sats=summary.burn - summary.payout,
        address=summary.address,
        max_fee_sats=summary.max_fee,
        txids=[to_display_hex(txid) for txid in summary.txids],
        confirmations=depth.confirmations if is_ruled else summary.confirmations,
        waiting_for=summary.waiting_for,
        sender=view.sender,
        raw_confirmations=depth.raw_confirmations if is_ruled else None,
        payout_confirmations=summary.confirmations,
        kaon_height=view.height,
        notarised_txid=_show(depth.burial.txid) if depth.burial is not None and depth.is_notarised else "",
    )


def is_same_news(old: MessageT, new: MessageT) -> bool:
    """Tell whether a watcher has nothing new to hear: a depth that only grows with every block is no news."""
    return _without_depth(old) == _without_depth(new)


def to_notarised_message(depth: KaonDepth) -> pb.GetNotarisedResponse:
    """Return the protobuf form."""
    burial = depth.burial
    return pb.GetNotarisedResponse(
        kaon_height=depth.height,
        final_kaon_height=depth.final_height,
        raw_confirmations=depth.raw_confirmations,
        confirmations=depth.confirmations,
        is_notarised=depth.is_notarised,
        notarised_kaon_height=None if burial is None else burial.height,
        notarised_block_hash=b"" if burial is None else burial.block_hash,
        txid=_show(None if burial is None else burial.txid),
        btc_confirmations=depth.btc_confirmations,
    )


def to_terms_message(outlook: Outlook, terms: InvoiceTerms) -> pb.GetTermsResponse:
    """Return what an invoice issued now would say, with what the network's preset adds."""
    params = outlook.ledger.params
    return pb.GetTermsResponse(
        network=params.network,
        epoch=terms.epoch,
        min_amount_sats=terms.min_amount,
        max_amount_sats=terms.max_amount,
        fee_base_sats=terms.fee_base,
        fee_basis_points=terms.fee_bp,
        valid_blocks=params.invoice_blocks,
        refund_csv_blocks=terms.refund_csv,
        confirmations=params.confirmations,
        min_payout_sats=params.min_payout,
        max_payout_sats=params.max_payout,
        fee_rate_sat_per_kvb=outlook.ledger.fee_rate,
        kaon_height=outlook.ledger.height,
        btc_height=outlook.tip,
    )


def to_supply_message(outlook: Outlook, money: MoneyView) -> pb.PegServiceGetSupplyResponse:
    """Return the protobuf form; coverage is empty on a chain that arms nothing."""
    ledger = outlook.ledger
    return pb.PegServiceGetSupplyResponse(
        supply_sats=money.supply,
        locked_sats=money.locked,
        pegin_in_flight_sats=money.pegin_in_flight,
        pegout_in_flight_sats=money.pegout_in_flight,
        reserve_sats=money.reserve,
        difference_sats=money.difference,
        coverage=ledger.compute_coverage().text if ledger.needs_arming else "",
        kaon_height=outlook.ledger.height,
        btc_height=outlook.tip,
        credits_halted=money.halt,
        heartbeats_btc_height=ledger.median_btc_height,
    )


def to_epoch_message(epoch: EpochView) -> pb.PegServiceGetEpochResponse:
    """Return the protobuf form."""
    return pb.PegServiceGetEpochResponse(
        epoch=epoch.number,
        state=epoch.state,
        announced_kaon_height=epoch.announced,
        activated_kaon_height=epoch.activated or 0,
        preimage_hash=epoch.preimage_hash,
        groups=[
            pb.EpochGroup(
                role=group.role,
                threshold=group.threshold,
                members=group.members,
                group_key=b"" if group.info is None else group.info.group_key,
            )
            for group in epoch.groups
        ],
    )


def _without_depth(message: pb.PegIn | pb.PegOut) -> pb.PegIn | pb.PegOut:
    if not isinstance(message, pb.PegOut) or not message.HasField("raw_confirmations"):
        return message
    known = pb.PegOut()
    known.CopyFrom(message)
    known.ClearField("raw_confirmations")
    known.ClearField("confirmations")
    return known


def _to_output_message(output: OutputView) -> pb.PegInOutput:
    line = output.line
    return pb.PegInOutput(
        address=line.address,
        descriptor=line.descriptor,
        amount_sats=line.amount,
        outpoint="" if line.outpoint is None else str(line.outpoint),
        value_sats=line.value or 0,
        confirmations=line.confirmations,
        transfer_txid=_show(line.transfer),
        fee_sats=output.fee,
        credited_sats=line.credited or 0,
        refund_btc_height=line.refund_height or 0,
        state=line.state,
        refund_psbt=output.refund_psbt,
        bip21=output.invoice.bip21,
        index=output.invoice.request.terms.index,
        is_reused=line.is_reused,
        leaves=_to_leaves(output.invoice.tree),
    )


def _to_leaves(tree: InvoiceTree) -> list[pb.PegInLeaf]:
    return [
        pb.PegInLeaf(name=str(leaf.name), script=leaf.script, control_block=tree.tree.control_block(leaf.name))
        for leaf in tree.tree.leaves
    ]


def _show(txid: Txid | None) -> str:
    return "" if txid is None else to_display_hex(txid)
