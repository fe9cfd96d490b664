"""The cross-chain mempool: the working state of every transfer in flight (design.md section 9).

Code that works with it imports `model` (what is stored), `port` (what can be asked), `faults` (what may go wrong) and
opens a store with `opening`. Everything in it can be rebuilt from Bitcoin and the consensus layer.
"""
