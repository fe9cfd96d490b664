"""Views -> protobuf: the messages of PegService."""

from __future__ import annotations

import base64

from coordinator.outlook import Outlook
from coordinator.views import MoneyView, OutputView, PegInView, PegOutView
from pegbridge.v1 import peg_pb2 as pb
from smpc.bitcoin.taproot import InvoiceTree
from smpc.protocol.invoices import InvoiceTerms
from smpc.protocol.ledger_views import EpochView
from smpc.types import Txid, to_display_hex


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


def to_pegout_message(view: PegOutView) -> pb.PegOut:
    """Return the protobuf form."""
    summary = view.summary
    return pb.PegOut(
        id=summary.id,
        state=summary.state,
        burn_sats=summary.burn,
        payout_sats=summary.payout,
        fee_sats=summary.burn - summary.payout,
        address=summary.address,
        max_fee_sats=summary.max_fee,
        txids=[to_display_hex(txid) for txid in summary.txids],
        confirmations=summary.confirmations,
        waiting_for=summary.waiting_for,
        sender=view.sender,
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
    """Return the protobuf form; coverage stays empty until arming exists."""
    return pb.PegServiceGetSupplyResponse(
        supply_sats=money.supply,
        locked_sats=money.locked,
        pegin_in_flight_sats=money.pegin_in_flight,
        pegout_in_flight_sats=money.pegout_in_flight,
        reserve_sats=money.reserve,
        difference_sats=money.difference,
        kaon_height=outlook.ledger.height,
        btc_height=outlook.tip,
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
