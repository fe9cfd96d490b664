"""The users of the demonstration: each has a wallet of his own in bitcoind and a kBTC account of his own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coordinator.demo.stage import Stage
from smpc.bitcoin.amount import to_btc
from smpc.types import Sats


@dataclass(frozen=True, slots=True)
class Person:
    """A user; his wallet and his account have his name."""

    name: str
    account: str

    @classmethod
    def enter(cls, stage: Stage, name: str, coins: str) -> Person:
        """Give a new user a wallet with coins and an account."""
        stage.bitcoin("createwallet", name)
        address = str(stage.bitcoin("getnewaddress", "", "bech32m", wallet=name))
        stage.peg("devnet", "faucet", address, coins, "--blocks", "0")
        account = stage.peg("account", "new", name)["account"]
        return cls(name, str(account))

    def order(self, stage: Stage, *amounts: str) -> dict[str, Any]:
        """Ask for a peg-in with one output per amount; refund key from the own wallet, kBTC to the own account."""
        words = [word for amount in amounts for word in ("--amount", amount)]
        return stage.peg("pegin", "create", *words, "--wallet", self.name, "--recipient", self.name)

    def pay(self, stage: Stage, payments: dict[str, Sats]) -> str:
        """Pay addresses from the own wallet in one transaction; the txid."""
        outputs = [{address: to_btc(amount)} for address, amount in payments.items()]
        funded = stage.bitcoin("walletcreatefundedpsbt", [], outputs, wallet=self.name, quiet=False)
        return self.sign_and_send(stage, funded["psbt"])

    def sign_and_send(self, stage: Stage, psbt: str) -> str:
        """Let the own wallet sign and finalise a PSBT, alone, and hand it to the node; the txid."""
        signed = stage.bitcoin("walletprocesspsbt", psbt, wallet=self.name, quiet=False)
        assert signed["complete"], "the wallet could not finalise the transaction alone"
        return str(stage.bitcoin("sendrawtransaction", signed["hex"], quiet=False))

    def balance(self, stage: Stage) -> int:
        """Return the kBTC of the account, satoshi."""
        return int(stage.peg("balance", self.name, quiet=True)["balance_sats"])
