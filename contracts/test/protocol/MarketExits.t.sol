// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {GroupProof, IMarket, Segment, SegmentSpec, SegmentState} from "../../interfaces/IMarket.sol";
import {JobId} from "../../types/Ids.sol";
import {JobFixture} from "./support/JobFixture.sol";

/// settle, expire, void, refund and withdraw: what ends things, and is open to anybody.
contract MarketExitsTest is JobFixture {
    // ---------------------------------------------------------------- settle

    function test_settle_pays_and_frees() external {
        deliver(solver, 0);
        pass(WINDOW + 1);
        vm.expectEmit(address(market));
        emit IMarket.Settled(job, 0, solver, PRICE, fee(0));
        vm.prank(stranger);
        settle(0);
        assertState(0, SegmentState.Settled);
        assertEq(market.owed(solver), pay(0), "owed");
        assertEq(market.burned(), fee(0), "the fee is burned");
        assertEq(locked(solver), 0, "locked");
        assertEq(reserved(), 0, "reserved");
        assertEq(spent(), PRICE, "spent");
        assertEq(settled(), 1, "settled");
    }

    function test_settle_waits_for_the_window() external {
        deliver(solver, 0);
        uint64 until = at(0).until;
        pass(WINDOW);
        vm.expectRevert(abi.encodeWithSelector(IMarket.NotYet.selector, until));
        settle(0);
    }

    function test_settle_waits_for_disputes() external {
        deliver(solver, 0);
        vm.startPrank(address(dispute));
        market.disputed(job, 0);
        market.disputed(job, 0);
        pass(WINDOW + 1);
        vm.expectRevert(abi.encodeWithSelector(IMarket.DisputesOpen.selector, 2));
        settle(0);
        market.upheld(job, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IMarket.DisputesOpen.selector, 1));
        settle(0);
        market.upheld(job, 0, 0);
        settle(0);
    }

    function test_settle_happens_once() external {
        deliver(solver, 0);
        pass(WINDOW + 1);
        settle(0);
        vm.expectRevert(
            abi.encodeWithSelector(IMarket.WrongState.selector, job, 0, SegmentState.Settled, SegmentState.Committed)
        );
        settle(0);
    }

    function test_settle_waits_for_its_inputs() external {
        deliver(solver, 0);
        deliver(other, 1);
        pass(WINDOW + 1);
        vm.expectRevert(abi.encodeWithSelector(IMarket.InputNotReady.selector, 0));
        settle(1);
        settle(0);
        settle(1);
        assertEq(market.owed(other), pay(1), "owed");
    }

    function test_settle_refuses_what_was_built_on_a_fallen_input() external {
        deliver(solver, 0);
        deliver(other, 1);
        overturn(0);
        deliver(challenger, 0);
        pass(WINDOW + 1);
        settle(0);
        vm.expectRevert(IMarket.InputChanged.selector);
        settle(1);
    }

    function test_settle_and_void_need_the_claimed_spec() external {
        deliver(solver, 0);
        pass(WINDOW + 1);
        bytes memory why = abi.encodeWithSelector(IMarket.WrongLeaf.selector, planLeaves()[0], planLeaves()[1]);
        SegmentSpec memory wrong = spec(1);
        vm.expectRevert(why);
        market.settle(job, 0, wrong, traceRoot(0));
        vm.expectRevert(why);
        market.void(job, 0, wrong);
    }

    // ---------------------------------------------------------------- expire

    function test_expire_opens_without_loss() external {
        claim(solver, 0);
        pass(LEASE + 1);
        vm.expectEmit(address(market));
        emit IMarket.Expired(job, 0, solver);
        vm.prank(stranger);
        market.expire(job, 0);
        assertState(0, SegmentState.Open);
        assertEq(free(solver), PURSE / 2, "free");
        assertEq(locked(solver), 0, "locked");
        assertEq(reserved(), 0, "reserved");
        claim(other, 0);
    }

    function test_who_let_a_lease_run_out_waits_for_another() external {
        claim(solver, 0);
        pass(LEASE + 1);
        market.expire(job, 0);
        uint64 until = uint64(vm.getBlockTimestamp() + LEASE);
        bytes memory why = abi.encodeWithSelector(IMarket.Lapsed.selector, solver, until);
        pass(LEASE);
        bytes32[] memory proof = planProof(0);
        GroupProof[] memory inputs = inputProofs(0);
        vm.prank(solver);
        vm.expectRevert(why);
        market.claim(job, 0, spec(0), proof, inputs);
        uint256 before = vm.snapshotState();
        claim(other, 0);
        vm.revertToState(before);
        pass(1);
        claim(solver, 0);
        assertEq(audit.records(solver).expired, 1, "on record");
    }

    function test_expire_waits_for_the_lease() external {
        claim(solver, 0);
        uint64 until = at(0).until;
        pass(LEASE);
        vm.expectRevert(abi.encodeWithSelector(IMarket.NotYet.selector, until));
        market.expire(job, 0);
    }

    function test_expire_is_for_claims() external {
        vm.expectRevert(
            abi.encodeWithSelector(IMarket.WrongState.selector, job, 0, SegmentState.Open, SegmentState.Claimed)
        );
        market.expire(job, 0);
        deliver(solver, 0);
        pass(LEASE + 1);
        vm.expectRevert(
            abi.encodeWithSelector(IMarket.WrongState.selector, job, 0, SegmentState.Committed, SegmentState.Claimed)
        );
        market.expire(job, 0);
    }

    // ---------------------------------------------------------------- void

    function test_void_opens_what_was_built_on_a_fallen_input() external {
        deliver(solver, 0);
        deliver(other, 1);
        overturn(0);
        vm.expectEmit(address(market));
        emit IMarket.Voided(job, 1, other);
        vm.prank(stranger);
        market.void(job, 1, spec(1));
        assertState(1, SegmentState.Open);
        assertEq(at(1).attempt, 1, "attempt");
        assertEq(free(other), PURSE / 2, "no stake is lost");
        assertEq(reserved(), 0, "reserved");
        assertFalse(market.barred(job, other), "in good faith");
    }

    function test_void_opens_a_claim_too() external {
        deliver(solver, 0);
        claim(other, 1);
        overturn(0);
        market.void(job, 1, spec(1));
        assertState(1, SegmentState.Open);
        assertEq(locked(other), 0, "locked");
    }

    function test_void_goes_on_from_segment_to_segment() external {
        deliver(solver, 0);
        deliver(other, 1);
        deliver(challenger, 2);
        deliver(challenger, 3);
        overturn(0);
        SegmentSpec memory third = spec(3);
        vm.expectRevert(IMarket.InputsStand.selector);
        market.void(job, 3, third);
        market.void(job, 2, spec(2));
        market.void(job, 3, third);
        market.void(job, 1, spec(1));
        assertEq(locked(other) + locked(challenger), 0, "locked");
        assertEq(reserved(), 0, "reserved");
    }

    function test_void_spares_who_built_on_what_stands() external {
        deliver(solver, 0);
        deliver(other, 1);
        SegmentSpec memory s = spec(1);
        vm.expectRevert(IMarket.InputsStand.selector);
        market.void(job, 1, s);
        overturn(0);
        market.void(job, 1, s);
        setOutputs(0, "second");
        deliver(challenger, 0);
        deliver(other, 1);
        vm.expectRevert(IMarket.InputsStand.selector);
        market.void(job, 1, s);
        pass(WINDOW + 1);
        settle(0);
        settle(1);
    }

    function test_void_is_for_claims_and_commitments() external {
        SegmentSpec memory s = spec(0);
        vm.expectRevert(
            abi.encodeWithSelector(IMarket.WrongState.selector, job, 0, SegmentState.Open, SegmentState.Committed)
        );
        market.void(job, 0, s);
        deliver(solver, 0);
        pass(WINDOW + 1);
        settle(0);
        vm.expectRevert(
            abi.encodeWithSelector(IMarket.WrongState.selector, job, 0, SegmentState.Settled, SegmentState.Committed)
        );
        market.void(job, 0, s);
    }

    // ---------------------------------------------------------------- refund and withdraw

    function test_refund_waits_for_the_deadline() external {
        vm.warp(DEADLINE);
        vm.expectRevert(abi.encodeWithSelector(IMarket.BeforeDeadline.selector, DEADLINE));
        market.refund(job);
    }

    function test_refund_of_a_job_that_nobody_touched() external {
        vm.warp(DEADLINE + 1);
        vm.expectEmit(address(market));
        emit IMarket.Refunded(job, buyer, ESCROW);
        vm.prank(stranger);
        market.refund(job);
        assertEq(market.owed(buyer), ESCROW, "owed");
        vm.expectRevert(abi.encodeWithSelector(IMarket.NothingOwed.selector, buyer));
        market.refund(job);
    }

    function test_refund_leaves_what_is_reserved_and_comes_again() external {
        vm.warp(DEADLINE);
        deliver(solver, 0);
        claim(other, 1);
        vm.warp(DEADLINE + 1);
        market.refund(job);
        assertEq(market.owed(buyer), ESCROW - cost(0) - cost(1), "all but what is reserved");
        pass(LEASE);
        market.expire(job, 1);
        market.refund(job);
        assertEq(market.owed(buyer), ESCROW - cost(0), "the expired one too");
        settle(0);
        market.refund(job);
        assertEq(market.owed(buyer), ESCROW - PRICE, "what no auditor earned");
        vm.expectRevert(abi.encodeWithSelector(IMarket.NothingOwed.selector, buyer));
        market.refund(job);
        assertEq(market.owed(buyer) + market.owed(solver) + market.burned(), ESCROW, "all");
    }

    function test_refund_of_what_was_overturned_after_the_deadline() external {
        vm.warp(DEADLINE);
        deliver(solver, 0);
        vm.warp(DEADLINE + 1);
        market.refund(job);
        overturn(0);
        market.refund(job);
        assertEq(market.owed(buyer), ESCROW, "all");
    }

    function test_refund_when_all_is_settled() external {
        for (uint32 i = 0; i < SEGMENTS; ++i) {
            deliver(solver, i);
        }
        pass(WINDOW + 1);
        for (uint32 i = 0; i + 1 < SEGMENTS; ++i) {
            settle(i);
        }
        vm.expectRevert(abi.encodeWithSelector(IMarket.BeforeDeadline.selector, DEADLINE));
        market.refund(job);
        settle(SEGMENTS - 1);
        market.refund(job);
        assertEq(market.owed(buyer), ESCROW - 4 * PRICE - 6, "the rest");
    }

    function test_refund_of_no_job_reverts() external {
        vm.expectRevert(abi.encodeWithSelector(IMarket.UnknownSegment.selector, 5, 0));
        market.refund(JobId.wrap(5));
    }

    function test_withdraw_pays_once() external {
        deliver(solver, 0);
        pass(WINDOW + 1);
        settle(0);
        uint256 purse = money.balanceOf(solver);
        vm.startPrank(solver);
        vm.expectEmit(address(market));
        emit IMarket.Withdrawn(solver, pay(0));
        market.withdraw();
        assertEq(money.balanceOf(solver), purse + pay(0), "purse");
        vm.expectRevert(abi.encodeWithSelector(IMarket.NothingOwed.selector, solver));
        market.withdraw();
    }

    // ---------------------------------------------------------------- what the Dispute may do

    function test_only_the_dispute_disputes() external {
        deliver(solver, 0);
        bytes memory why = abi.encodeWithSelector(IMarket.NotDispute.selector, stranger);
        vm.startPrank(stranger);
        vm.expectRevert(why);
        market.disputed(job, 0);
        vm.expectRevert(why);
        market.upheld(job, 0, 0);
        vm.expectRevert(why);
        market.overturn(job, 0, 0, stranger);
    }

    function test_a_dispute_begins_within_the_window() external {
        claim(solver, 0);
        vm.startPrank(address(dispute));
        vm.expectRevert(
            abi.encodeWithSelector(IMarket.WrongState.selector, job, 0, SegmentState.Claimed, SegmentState.Committed)
        );
        market.disputed(job, 0);
        vm.stopPrank();
        commit(solver, 0);
        uint64 until = at(0).until;
        pass(WINDOW);
        vm.startPrank(address(dispute));
        market.disputed(job, 0);
        assertEq(at(0).games, 1, "games");
        pass(1);
        vm.expectRevert(abi.encodeWithSelector(IMarket.WindowOver.selector, until));
        market.disputed(job, 0);
    }

    function test_overturn_opens_and_bars() external {
        deliver(solver, 0);
        vm.startPrank(address(dispute));
        market.disputed(job, 0);
        vm.expectEmit(address(market));
        emit IMarket.Overturned(job, 0, solver, challenger);
        market.overturn(job, 0, 0, challenger);
        Segment memory s = at(0);
        assertState(0, SegmentState.Open);
        assertEq(s.attempt, 1, "attempt");
        assertEq(s.games, 0, "games");
        assertEq(s.heir, challenger, "heir");
        assertEq(s.heirUntil, vm.getBlockTimestamp() + LEASE / 10, "heirUntil");
        assertEq(reserved(), 0, "reserved");
    }

    function test_an_old_attempt_cannot_be_decided_again() external {
        deliver(solver, 0);
        overturn(0);
        deliver(challenger, 0);
        vm.startPrank(address(dispute));
        vm.expectRevert(IMarket.InputChanged.selector);
        market.overturn(job, 0, 0, stranger);
        vm.expectRevert(IMarket.InputChanged.selector);
        market.upheld(job, 0, 0);
    }
}
