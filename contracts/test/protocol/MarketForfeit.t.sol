// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAudit, Outcome} from "../../interfaces/IAudit.sol";
import {IMarket, SegmentSpec, SegmentState} from "../../interfaces/IMarket.sol";
import {Seal, StateRoot} from "../../types/Ids.sol";
import {AuditFixture} from "./support/AuditFixture.sol";

/// The exit from commitments whose trace root stays hidden.
contract MarketForfeitTest is AuditFixture {
    function test_a_hidden_trace_root_costs_the_stake() external {
        open(0);
        pass(WINDOW + CLOCK + 1);
        uint256 before = free(buyer);
        vm.expectEmit(address(market));
        emit IMarket.Forfeited(job, 0, solver);
        vm.prank(stranger);
        market.forfeit(job, 0, spec(0));
        assertState(0, SegmentState.Open);
        assertEq(at(0).attempt, 1, "attempt");
        assertEq(locked(solver), 0, "locked");
        assertEq(free(solver), PURSE / 2 - STAKE, "stake");
        assertEq(free(buyer), before + STAKE / 2, "half to the buyer");
        assertEq(stake.burned(), STAKE - STAKE / 2, "half is burned");
        assertEq(reserved(), 0, "reserved");
        assertTrue(market.barred(job, solver), "barred");
        assertOutcome(0, 0, Outcome.Forfeited);
        assertEq(audit.records(solver).forfeited, 1, "on record");
        deliver(other, 0);
        settleLater(0);
    }

    function test_forfeit_waits_for_window_and_clock() external {
        open(0);
        uint64 until = at(0).until + CLOCK;
        pass(WINDOW + CLOCK);
        SegmentSpec memory s = spec(0);
        vm.expectRevert(abi.encodeWithSelector(IMarket.NotYet.selector, until));
        market.forfeit(job, 0, s);
    }

    function test_forfeit_is_for_commitments() external {
        SegmentSpec memory s = spec(0);
        vm.expectRevert(
            abi.encodeWithSelector(IMarket.WrongState.selector, job, 0, SegmentState.Open, SegmentState.Committed)
        );
        market.forfeit(job, 0, s);
        claim(solver, 0);
        vm.expectRevert(
            abi.encodeWithSelector(IMarket.WrongState.selector, job, 0, SegmentState.Claimed, SegmentState.Committed)
        );
        market.forfeit(job, 0, s);
        commit(solver, 0);
        settleLater(0);
        pass(CLOCK);
        vm.expectRevert(
            abi.encodeWithSelector(IMarket.WrongState.selector, job, 0, SegmentState.Settled, SegmentState.Committed)
        );
        market.forfeit(job, 0, s);
    }

    function test_forfeit_waits_for_disputes() external {
        open(0);
        vm.prank(address(dispute));
        market.disputed(job, 0);
        pass(WINDOW + CLOCK + 1);
        SegmentSpec memory s = spec(0);
        vm.expectRevert(abi.encodeWithSelector(IMarket.DisputesOpen.selector, 1));
        market.forfeit(job, 0, s);
        vm.prank(address(dispute));
        market.upheld(job, 0, 0);
        market.forfeit(job, 0, s);
    }

    function test_what_is_revealed_is_not_forfeited() external {
        open(0);
        deliver(other, 1);
        pass(WINDOW / 2 + 1);
        audit.reveal(job, 1, 0, traceRoot(1)); // cannot settle yet: its input has not
        pass(WINDOW + CLOCK);
        SegmentSpec memory s = spec(1);
        vm.expectRevert(IMarket.Revealed.selector);
        market.forfeit(job, 1, s);
        settle(0);
        market.settle(job, 1, s, 0);
    }

    function test_what_was_built_on_a_fallen_input_is_voided_and_not_forfeited() external {
        open(0);
        deliver(other, 1);
        pass(WINDOW + CLOCK + 1);
        market.forfeit(job, 0, spec(0));
        SegmentSpec memory s = spec(1);
        vm.expectRevert(IMarket.InputChanged.selector);
        market.forfeit(job, 1, s);
        market.void(job, 1, s);
        assertEq(free(other), PURSE / 2, "no stake is lost");
    }

    function test_forfeit_needs_the_claimed_spec() external {
        open(0);
        pass(WINDOW + CLOCK + 1);
        SegmentSpec memory wrong = spec(1);
        vm.expectRevert(abi.encodeWithSelector(IMarket.WrongLeaf.selector, planLeaves()[0], planLeaves()[1]));
        market.forfeit(job, 0, wrong);
    }

    /// A seal that hides nothing is like one that is never opened.
    function test_a_seal_of_nothing_is_forfeited() external {
        open(0);
        pass(WINDOW + 1);
        vm.expectRevert(abi.encodeWithSelector(IAudit.WrongTrace.selector, keccak256("nothing")));
        market.settle(job, 0, spec(0), keccak256("nothing"));
        pass(CLOCK);
        market.forfeit(job, 0, spec(0));
    }

    /// Nothing is no trace root, even if the seal is of nothing.
    function test_a_seal_of_zero_is_forfeited_too() external {
        claim(solver, 0);
        Seal seal = Seal.wrap(sha256(abi.encodePacked(bytes32(0), solver)));
        StateRoot inputs = at(0).inputRoot;
        vm.prank(solver);
        market.commit(job, 0, inputs, outputs[0], seal, CID);
        pass(WINDOW + 1);
        SegmentSpec memory s = spec(0);
        bytes memory why = abi.encodeWithSelector(IAudit.WrongTrace.selector, bytes32(0));
        vm.expectRevert(why);
        market.settle(job, 0, s, 0);
        vm.expectRevert(why);
        audit.reveal(job, 0, 0, 0);
        pass(CLOCK);
        market.forfeit(job, 0, s);
    }
}
