"""The participant's rule catalogue as data, which rules hold for which purpose, and verdicts (participant-rules.md).

Rules of verdicts, seeding and heartbeats join the catalogue with their flows; V36 and V54 (armings) hold only on a
chain whose genesis says that every output is armed. Gather facts first, then judge purely: every failed rule is
reported, not the first one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from smpc.protocol.pod_messages import Refusal
from smpc.types import Purpose


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its id, the fixed names of the reasons it refuses with (the first is the usual one), one sentence."""

    id: str
    reasons: tuple[str, ...]
    sentence: str


class Stage(enum.StrEnum):
    """When a participant judges: before it endorses an intent, or before it commits to signing."""

    ENDORSE = "endorse"
    SIGN = "sign"


_CATALOGUE: Final = (
    Rule("V01", ("PROTOCOL_MISMATCH",), "protocol version and parameter hash equal my own"),
    Rule(
        "V02",
        ("NODE_BEHIND", "WRONG_CHAIN", "NODE_AHEAD"),
        "my bitcoind is synced, on the right chain, its tip young enough and near the validators' median",
    ),
    Rule("V03", ("NOT_LEADER",), "the envelope is signed by the slot's leader"),
    Rule("V04", ("SESSION_ID_MISMATCH",), "the session id is the one I compute from the header"),
    Rule("V05", ("FLOW_PAUSED",), "this flow is not paused here"),
    Rule(
        "V06", ("WRONG_GROUP", "EPOCH_CLOSED", "KEY_NOT_READY"), "my own key is ready and its epoch allows the purpose"
    ),
    Rule("V07", ("CONFLICTING_SPEND",), "my signing log holds no conflicting spend of any input"),
    Rule("V08", ("DEADLINE_TOO_CLOSE",), "enough of the deadline is left"),
    Rule("V09", ("NONCE_SPENT", "SESSION_SEEN"), "the session was never seen and the nonce is unused"),
    Rule("V10", ("NOT_REBUILT",), "the transaction is what I rebuild from the intent, byte for byte"),
    Rule(
        "V11",
        ("SIGHASH_MISMATCH", "SIGHASH_TYPE"),
        "digests are computed here for the expected leaf with SIGHASH_DEFAULT, and the validators' signatures fit them",
    ),
    Rule("V12", ("TX_SHAPE", "TX_TOO_LARGE"), "version, locktime and sequences are fixed and the size is standard"),
    Rule("V13", ("DUPLICATE",), "no input, output or id stands twice"),
    Rule(
        "V14",
        (
            "AMOUNT_MISMATCH",
            "INPUT_MISSING",
            "INPUT_SPENT",
            "INPUT_NOT_BOOKED",
            "UNKNOWN_SCRIPT",
            "PARENT_MISMATCH",
        ),
        "every input exists, is unspent, is ours by its recomputed script, and holds the amount claimed",
    ),
    Rule("V15", ("CHANGE_SCRIPT",), "vault outputs pay the certified group of the right epoch"),
    Rule(
        "V16",
        ("OP_RETURN", "WRONG_NOTARISATION"),
        "an OP_RETURN stands in sweeps only, and notarises the block my own ledger says",
    ),
    Rule("V17", ("DUST",), "no output is dust and no vault output is below its least value"),
    Rule(
        "V18",
        ("FEE_CAP", "FEE_TOO_LOW", "FEE_BUDGET", "BUMP_TOO_EARLY"),
        "the fee rate is between the floor and my limit, the fee within the budget, and a bump waited long enough",
    ),
    Rule("V19", ("UNCONFIRMED_INPUT",), "no input is unconfirmed"),
    Rule(
        "V20",
        ("DOUBLE_PAY", "PAYMENT_DROPPED", "REPLACEMENT_FEE", "TOO_MANY_REPLACEMENTS", "REPLACES_WRONG"),
        "a replacement shares an input with every standing intent it meets, keeps their payments and pays enough more",
    ),
    Rule(
        "V21",
        ("INTENT_NOT_FINAL", "WINDOW_NOT_OVER", "INTENT_NOT_LIVE", "NOT_ENDORSED", "CHALLENGED"),
        "the intent is final, live, endorsed by both groups that sign, uncontested, its window over in final blocks",
    ),
    Rule(
        "V22", ("TARGET_NOT_ACTIVE",), "outputs pay the epoch active at the recording block, which is not closed since"
    ),
    Rule("V23", ("MIXED_INPUTS",), "vault inputs and refundable inputs never stand together"),
    Rule(
        "V24",
        ("NOTARISATION_CONTRADICTED", "NOTARISATION_UNKNOWN"),
        "what spends my vault on my Bitcoin chain notarises no other consensus-layer chain than mine",
    ),
    Rule(
        "V30", ("UNKNOWN_TEMPLATE",), "the deposit's leaves are built from the template and this network's locks only"
    ),
    Rule("V31", ("TERMS_MISMATCH", "INVOICE_UNKNOWN"), "the invoice is recorded and its terms match the deposit"),
    Rule("V32", ("NOT_DEEP_ENOUGH",), "the deposit has the confirmations it needs on the best chain"),
    Rule("V33", ("OUT_OF_BOUNDS", "TOTAL_CAP"), "amounts are inside the invoice's bounds and all caps"),
    Rule("V34", ("REFUND_TOO_CLOSE",), "the refund opens later than the margin"),
    Rule("V35", ("BLOCKED",), "no deposit is on my blocklist"),
    Rule("V36", ("NOT_ARMED",), "every deposit is armed in a final record, and its target is still good"),
    Rule("V37", ("ALREADY_CREDITED",), "the deposit is not credited already"),
    Rule("V40", ("BURN_NOT_OPEN", "BURN_UNKNOWN"), "the burn is final, open and not cancelled"),
    Rule("V41", ("PAYOUT_BOUNDS", "WINDOW_CAP"), "the payout is inside its bounds and the rolling cap"),
    Rule("V42", ("DESTINATION",), "the destination is the burn's, standard and not one of ours"),
    Rule("V43", ("AMOUNT_MISMATCH",), "what was burnt equals the payout plus its fee"),
    Rule("V50", ("TARGET_NOT_READY",), "the sweep goes to the active epoch, whose three group keys are certified"),
    Rule(
        "V52",
        ("COMMISSION", "NOT_CONSERVED"),
        "the sweep's inputs are worth its outputs and fee, and its commission is exactly what the ledger says",
    ),
    Rule(
        "V53",
        ("OUTPUT_LEFT_OUT", "NOT_MATURE"),
        "the sweep spends all vault outputs of the retiring epoch that are mature and free, and no others",
    ),
    Rule("V54", ("NOT_ARMED",), "every vault output it creates is armed in a final record to a target still good"),
    Rule(
        "V60",
        ("WRONG_TARGET", "NOT_ARMED"),
        "an emergency pays exactly the parallel group, in the one shape and at preset rates; W signs what E armed",
    ),
    Rule("V61", ("NOT_FINAL",), "the release of the outputs' epoch is final on the consensus layer"),
    Rule("V62", ("TRANSFER_MESSAGE",), "what is signed spends the rejection leaf, as no transfer does"),
    Rule("V63", ("INPUT_SPENT",), "each input waits for the emergency lock and is not spent otherwise for good"),
    Rule("V64", ("RUNG_SIGNED",), "each rung of an outpoint is signed once for each target"),
    Rule(
        "V65",
        ("NO_TARGET", "VALUE_TOO_SMALL", "ARMING_OFF", "EPOCH_JUDGED"),
        "the target is certified and not retired, the value bears at least one rung, no judged epoch gets new deposits",
    ),
    Rule(
        "V70",
        (
            "BOOKING_MISMATCH",
            "NOT_DEEP_ENOUGH",
            "NOT_MINED",
            "ALREADY_BOOKED",
            "INTENT_UNKNOWN",
            "NOT_ARMED",
            "RESERVE_NEGATIVE",
        ),
        "the booking is what the ledger takes, by its money table, of a transaction that my node has deep enough",
    ),
    Rule(
        "V73",
        ("NOT_DEAD", "BAD_PATH", "SHARE_RELEASED", "INTENT_NOT_LIVE"),
        "a dead intent lost an input, or an ancestor of one, to a buried spend; a withdrawn one has no share of mine",
    ),
    Rule("V75", ("TRANSCRIPT_MISMATCH", "READY_SIGNED"), "the key-ready message is of my own ceremony, once"),
    Rule("V76", ("NOT_RELEASED",), "every output rejected is an armed one of the epoch that is released"),
    Rule(
        "V77",
        ("W_CAN_SIGN", "LOCK_NOT_PASSED", "PAYS_SOMEBODY", "TARGET_NOT_ACTIVE"),
        "a final record says that W cannot sign, the recovery lock is over, and all goes to the active epoch's vault",
    ),
)

RULES: Final[Mapping[str, Rule]] = MappingProxyType({rule.id: rule for rule in _CATALOGUE})
"""Every rule by its id, in the order of the ids."""


def _expand(text: str) -> tuple[str, ...]:
    """Read `V01 V03-V17` as the catalogue's rules named there."""
    found: list[str] = []
    for part in text.split():
        first, _, last = part.partition("-")
        found.extend(rule.id for rule in _CATALOGUE if first <= rule.id <= (last or first))
    return tuple(found)


# Sign adds V02's own-node half to the list of participant-rules.md: a node that is behind cannot answer V14 (case B22).
# V36 and V54 are judged at Sign only: E signs beside the endorsements, and the ledger takes no intent before both.
_ENDORSE: Final = "V01-V07 V10-V20 V22-V24"
_SIGN: Final = "V01-V17 V19 V21-V24"

MATRIX: Final[Mapping[tuple[Stage, Purpose], tuple[str, ...]]] = MappingProxyType(
    {
        (Stage.ENDORSE, Purpose.TRANSFER): _expand(f"{_ENDORSE} V30-V35 V37"),
        (Stage.ENDORSE, Purpose.PAYOUT): _expand(f"{_ENDORSE} V40-V43"),
        (Stage.ENDORSE, Purpose.SWEEP): _expand(f"{_ENDORSE} V40-V43 V50-V53"),
        (Stage.ENDORSE, Purpose.RECOVERY): _expand(f"{_ENDORSE} V77"),
        (Stage.SIGN, Purpose.TRANSFER): _expand(f"{_SIGN} V34 V36 V54"),
        (Stage.SIGN, Purpose.PAYOUT): _expand(f"{_SIGN} V54"),
        (Stage.SIGN, Purpose.SWEEP): _expand(f"{_SIGN} V54"),
        (Stage.SIGN, Purpose.RECOVERY): _expand(f"{_SIGN} V54 V77"),
        (Stage.SIGN, Purpose.ARMING): _expand("V01-V06 V08-V15 V17 V19 V24 V60 V62 V64 V65"),
        (Stage.SIGN, Purpose.REJECTION): _expand("V01 V03-V06 V08-V13 V17 V24 V60-V64 V76"),
        (Stage.SIGN, Purpose.BOOKING): _expand("V01-V06 V08 V09 V13 V24 V70"),
        (Stage.SIGN, Purpose.WITHDRAWAL): _expand("V01 V03 V04 V06 V08 V09 V24 V73"),
        (Stage.SIGN, Purpose.DEAD): _expand("V01-V04 V06 V08 V09 V24 V73"),
        (Stage.SIGN, Purpose.READY): _expand("V01 V03 V04 V06 V08 V09 V24 V75"),
    }
)
"""Which rules hold at which stage for which purpose. A pair that is missing is refused whole."""


def find_rules(stage: Stage, purpose: Purpose) -> tuple[str, ...]:
    """Return the ids of the rules that hold; empty for a purpose this stage never serves."""
    return MATRIX.get((stage, purpose), ())


@dataclass(frozen=True, slots=True)
class Finding:
    """How one rule came out. `reason` is empty when it holds, else one of the rule's fixed names."""

    rule: str
    ok: bool
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Every check of one review, in the order of the rule ids; a rule may fail for several reasons."""

    stage: Stage
    purpose: Purpose
    findings: tuple[Finding, ...]

    @property
    def is_accepted(self) -> bool:
        """Tell whether every rule holds; a verdict without findings accepts nothing."""
        return bool(self.findings) and all(finding.ok for finding in self.findings)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """Return the findings that refuse."""
        return tuple(finding for finding in self.findings if not finding.ok)

    def refusal(self) -> Refusal | None:
        """Return the answer to give, or None. `rule` is the lowest id other than V10, V10 if nothing else failed."""
        if self.is_accepted:
            return None
        if not self.findings:
            text = f"nothing is ever signed for {self.purpose} at {self.stage}"
            return Refusal(rule="V06", rules=("V06",), reason="EPOCH_CLOSED", message=text)
        first = min(self.failures, key=lambda finding: (finding.rule == "V10", finding.rule))
        rules = tuple(dict.fromkeys(finding.rule for finding in self.failures))
        message = first.detail or RULES[first.rule].sentence
        return Refusal(rule=first.rule, rules=rules, reason=first.reason, message=message)


class Review:
    """Collects findings for one stage and purpose; checks of rules that do not hold there are left out."""

    def __init__(self, stage: Stage, purpose: Purpose) -> None:
        self._stage = stage
        self._purpose = purpose
        self._failed: list[Finding] = []

    @property
    def stage(self) -> Stage:
        """Return the stage judged."""
        return self._stage

    @property
    def purpose(self) -> Purpose:
        """Return the purpose judged."""
        return self._purpose

    def holds(self, rule: str) -> bool:
        """Tell whether the rule holds at this stage for this purpose."""
        return rule in find_rules(self._stage, self._purpose)

    def require(self, rule: str, condition: bool, detail: str = "", *, reason: str = "") -> bool:
        """Note a failure unless `condition`; `reason` defaults to the rule's usual one. Returns `condition`."""
        if not condition and self.holds(rule):
            names = RULES[rule].reasons
            assert not reason or reason in names, f"{reason} is no reason of {rule}"
            self._failed.append(Finding(rule, ok=False, reason=reason or names[0], detail=detail))
        return condition

    def to_verdict(self) -> Verdict:
        """Return every rule that holds here with its outcome."""
        findings: list[Finding] = []
        for rule in find_rules(self._stage, self._purpose):
            failed = [finding for finding in self._failed if finding.rule == rule]
            findings.extend(dict.fromkeys(failed) or [Finding(rule, ok=True)])
        return Verdict(self._stage, self._purpose, tuple(findings))
