"""Protocol presets (design.md section 5): one frozen object per network, checked on construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from smpc.errors import ConfigError
from smpc.types import BtcHeight, FeeRate, KaonHeight, Network, Sats

PROTOCOL_VERSION: Final = 1
"""The version every participant must share (rule V01)."""

BASIS_POINTS: Final = 10_000
"""One whole in basis points."""


@dataclass(frozen=True, slots=True)
class Params:
    """A network's protocol constants. Heights and depths are block counts, amounts satoshi, rates sat/kvB."""

    network: Network
    epoch_blocks: int
    """Consensus-layer blocks per epoch."""
    group_size: int
    min_group_size: int
    emergency_csv: int
    """Bitcoin blocks an output rests before the rejection leaf can spend it."""
    transfer_csv: int
    """Bitcoin blocks an output rests before the transfer leaf can spend it; equals `confirmations`."""
    refund_csv: int
    """Bitcoin blocks a deposit rests before its user can take it back alone."""
    refund_stop: int
    """No transfer is signed when the refund opens within this many blocks."""
    recovery_csv: int
    challenge_blocks: int
    """Final consensus-layer blocks between an intent's record and its signing."""
    endorsement_blocks: int
    """An endorsement is valid for this many consensus-layer blocks."""
    confirmations: int
    """Depth at which a deposit is accepted and a payout booked."""
    credit_confirmations: int
    """Depth of the transfer at which its deposits are credited (unless [R8] asks for `confirmations`)."""
    invoice_blocks: int
    """A deposit confirmed within this many Bitcoin blocks of issue is on time."""
    grace_blocks: int
    """Later deposits are still watched for this many Bitcoin blocks."""
    fee_floor: FeeRate
    fee_cap: FeeRate
    fee_default: FeeRate
    """The rate assumed where no estimate exists, and the bound on a proposed one."""
    bump_percent: int
    """Percent by which a replacement's rate, or a raise of a burn's fee limit, is above the one before, at least."""
    bump_min: FeeRate
    """A replacement pays at least this much more than what it replaces."""
    bump_after: int
    """Blocks a transaction stays unconfirmed before it may be bumped."""
    bump_max_count: int
    """Replacements of one payout or transfer, at most."""
    commission_bp: int
    """Basis points of a deposit or payout."""
    fee_in_vbytes: int
    fee_out_vbytes: int
    fee_margin_percent: int
    """`fee_in` and `fee_out` charge this percentage of the expected miner fee."""
    min_deposit: Sats
    max_deposit: Sats
    min_payout: Sats
    max_payout: Sats
    min_vault_output: Sats
    """Change is none or at least this; a vault output is never smaller."""
    split_vault_output: Sats
    """Value is split over up to `vault_outputs` outputs while each keeps this."""
    vault_outputs: int
    """`k`: how many outputs the vault is spread over."""
    max_batch_payouts: int
    max_batch_inputs: int
    max_total_locked: Sats
    """Deposits beyond this total are not accepted (rule V33)."""
    max_window_deposits: Sats
    """Deposits accepted per rolling window of `cap_window` consensus-layer blocks (rule V33)."""
    max_window_payouts: Sats
    """Payouts recorded per rolling window (rule V41)."""
    cap_window: int
    heartbeat_blocks: int
    silence_blocks: int
    max_tip_age_seconds: int
    """A node whose tip is older than this is behind (rule V02); 0 = no limit."""
    max_invoices_per_block: int
    """Invoices the ledger records per consensus-layer block (rate limit)."""
    finality_depth: int
    """A consensus-layer block is final when this many blocks are on top of it."""
    address_hrp: str

    def __post_init__(self) -> None:
        """Refuse contradictory presets, naming the inequality (case E13)."""
        _require(self, "emergency_csv < transfer_csv", self.emergency_csv < self.transfer_csv)
        _require(self, "transfer_csv == confirmations", self.transfer_csv == self.confirmations)
        _require(self, "confirmations < refund_csv", self.confirmations < self.refund_csv)
        _require(
            self, "confirmations + refund_stop < refund_csv", self.confirmations + self.refund_stop < self.refund_csv
        )
        _require(self, "refund_csv < recovery_csv", self.refund_csv < self.recovery_csv <= 0xFFFF)
        _require(self, "fee_floor <= fee_default <= fee_cap", self.fee_floor <= self.fee_default <= self.fee_cap)
        _require(self, "min_vault_output <= split_vault_output", self.min_vault_output <= self.split_vault_output)
        _require(self, "credit_confirmations <= confirmations", self.credit_confirmations <= self.confirmations)

    def compute_threshold(self, group_size: int) -> int:
        """Return `t = floor(2n/3) + 1` of an elected size `n`; never recomputed for a rerun."""
        return 2 * group_size // 3 + 1

    def is_window_over(self, recorded: KaonHeight, final: KaonHeight) -> bool:
        """Tell whether the challenge window of an intent recorded at `recorded` is over at final height `final`."""
        return final >= recorded + self.challenge_blocks

    def compute_invoice_expiry(self, issued: BtcHeight) -> BtcHeight:
        """Return the last Bitcoin height at which a deposit to an invoice issued at `issued` is on time."""
        return BtcHeight(issued + self.invoice_blocks)


def _require(params: Params, inequality: str, holds: bool) -> None:
    if not holds:
        raise ConfigError(
            f"parameters for {params.network} break the inequality: {inequality}",
            remedy="use the preset unchanged; timelocks must keep emergency < transfer = confirmations < refund",
        )


MAINNET: Final = Params(
    network=Network.MAINNET,
    epoch_blocks=80,
    group_size=100,
    min_group_size=50,
    emergency_csv=3,
    transfer_csv=6,
    refund_csv=36,
    refund_stop=12,
    recovery_csv=4320,
    challenge_blocks=6,
    endorsement_blocks=20,
    confirmations=6,
    credit_confirmations=2,
    invoice_blocks=18,
    grace_blocks=54,
    fee_floor=FeeRate(2_000),
    fee_cap=FeeRate(300_000),
    fee_default=FeeRate(10_000),
    bump_percent=25,
    bump_min=FeeRate(1_000),
    bump_after=3,
    bump_max_count=12,
    commission_bp=10,
    fee_in_vbytes=250,
    fee_out_vbytes=150,
    fee_margin_percent=150,
    min_deposit=Sats(20_000),
    max_deposit=Sats(100 * 100_000_000),
    min_payout=Sats(10_000),
    max_payout=Sats(100 * 100_000_000),
    min_vault_output=Sats(10_000),
    split_vault_output=Sats(100_000),
    vault_outputs=8,
    max_batch_payouts=100,
    max_batch_inputs=500,
    max_total_locked=Sats(10_000 * 100_000_000),
    max_window_deposits=Sats(1_000 * 100_000_000),
    max_window_payouts=Sats(1_000 * 100_000_000),
    cap_window=8_640,
    heartbeat_blocks=10,
    silence_blocks=360,
    max_tip_age_seconds=7_200,
    max_invoices_per_block=200,
    finality_depth=2,
    address_hrp="bc",
)

REGTEST: Final = Params(
    network=Network.REGTEST,
    epoch_blocks=80,
    group_size=4,
    min_group_size=4,
    emergency_csv=1,
    transfer_csv=3,
    refund_csv=36,
    refund_stop=6,
    recovery_csv=144,
    challenge_blocks=2,
    endorsement_blocks=20,
    confirmations=3,
    credit_confirmations=1,
    invoice_blocks=24,
    grace_blocks=60,
    fee_floor=FeeRate(2_000),
    fee_cap=FeeRate(300_000),
    fee_default=FeeRate(10_000),
    bump_percent=25,
    bump_min=FeeRate(1_000),
    bump_after=3,
    bump_max_count=12,
    commission_bp=10,
    fee_in_vbytes=250,
    fee_out_vbytes=150,
    fee_margin_percent=150,
    min_deposit=Sats(20_000),
    max_deposit=Sats(100 * 100_000_000),
    min_payout=Sats(10_000),
    max_payout=Sats(100 * 100_000_000),
    min_vault_output=Sats(10_000),
    split_vault_output=Sats(100_000),
    vault_outputs=2,
    max_batch_payouts=100,
    max_batch_inputs=500,
    max_total_locked=Sats(10_000 * 100_000_000),
    max_window_deposits=Sats(1_000 * 100_000_000),
    max_window_payouts=Sats(1_000 * 100_000_000),
    cap_window=8_640,
    heartbeat_blocks=4,
    silence_blocks=60,
    max_tip_age_seconds=0,
    max_invoices_per_block=200,
    finality_depth=2,
    address_hrp="bcrt",
)

PRESETS: Final = {Network.MAINNET: MAINNET, Network.REGTEST: REGTEST}
"""The preset of each network that has one."""


def find_preset(network: Network) -> Params:
    """Return the network's preset; ConfigError when it has none."""
    try:
        return PRESETS[network]
    except KeyError:
        raise ConfigError(f"no parameter preset for {network}", remedy="use mainnet or regtest") from None
