"""The order of the acts: three epochs, with money going both ways across both turns."""

from __future__ import annotations

from coordinator.demo.books import close_books
from coordinator.demo.first_epoch import play_first_epoch, take_refund
from coordinator.demo.stage import Stage
from coordinator.demo.story import Story
from coordinator.demo.turns import Crossing, cross_turn


def play(stage: Stage, story: Story) -> None:
    """Play every act in order."""
    underpaid = play_first_epoch(stage, story)
    anna, ben, carla = story.people
    stage.title("anna sends kBTC to ben")
    stage.peg("send", "--from", "anna", "--to", "ben", "--amount", "0.1")
    cross_turn(stage, story, Crossing(late=anna, late_amount="0.4", leaver=ben, out_amount="0.25"))
    take_refund(stage, story, carla, underpaid)
    cross_turn(stage, story, Crossing(late=ben, late_amount="0.1", leaver=anna, out_amount="1.5"))
    close_books(stage, story)
