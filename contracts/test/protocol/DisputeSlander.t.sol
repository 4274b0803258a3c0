// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Game, Phase, Reason} from "../../interfaces/IDispute.sol";
import {GameFixture, Players} from "./support/GameFixture.sol";
import {Toy} from "./support/Toy.sol";

/// A right execution: whatever a challenger picks, the defender wins.
contract DisputeSlanderTest is GameFixture {
    /// forge-config: default.fuzz.runs = 64
    /// forge-config: slow.fuzz.runs = 2000
    function test_any_picks(uint256 seed) external {
        Players memory p = began(Toy.none());
        p.seed = bound(seed, 1, type(uint256).max);
        assertLe(playTo(p, Phase.Over), 19, "moves");
        Reason reason = at().reason;
        bool known = reason == Reason.RightWord || reason == Reason.BindingHolds || reason == Reason.PaddingHolds;
        assertTrue(known, "reason");
        assertUpheld(reason);
    }

    function test_a_word_after_the_end_is_zero() external {
        assertTrue(ends(Reason.PaddingHolds), "PaddingHolds");
    }

    function test_a_right_word_is_right() external {
        assertTrue(ends(Reason.RightWord), "RightWord");
    }

    function test_a_right_binding_holds() external {
        assertTrue(ends(Reason.BindingHolds), "BindingHolds");
    }

    /// Whether some challenger gets this end.
    function ends(Reason reason) private returns (bool) {
        uint256 start = vm.snapshotState();
        for (uint256 seed = 1; seed < 100; ++seed) {
            if (this.play(seed) == reason) return true;
            vm.revertToState(start);
        }
        return false;
    }

    /// The end of a game against a challenger who picks at random; a call of its own, to free its memory.
    function play(uint256 seed) external returns (Reason) {
        Players memory p = began(Toy.none());
        p.seed = seed;
        playTo(p, Phase.Over);
        return at().reason;
    }
}
