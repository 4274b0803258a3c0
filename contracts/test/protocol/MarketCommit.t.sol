// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IMarket, Segment, SegmentState} from "../../interfaces/IMarket.sol";
import {JobId, Seal, StateRoot} from "../../types/Ids.sol";
import {JobFixture} from "./support/JobFixture.sol";
import {Trees} from "./support/Trees.sol";

contract MarketCommitTest is JobFixture {
    function test_commit_keeps_root_and_seal_and_opens_the_window() external {
        claim(solver, 0);
        pass(7);
        uint64 until = uint64(vm.getBlockTimestamp() + WINDOW);
        vm.expectEmit(address(market));
        emit IMarket.Committed(job, 0, solver, 0, outputs[0], sealOf(0, solver), CID, until);
        commit(solver, 0);
        Segment memory s = at(0);
        assertState(0, SegmentState.Committed);
        assertEq(s.until, until, "until");
        assertEq(StateRoot.unwrap(s.outputRoot), Trees.root(outputs[0]), "output root");
        assertEq(Seal.unwrap(s.seal), Seal.unwrap(sealOf(0, solver)), "seal");
        assertEq(locked(solver), STAKE, "still locked");
    }

    function test_the_last_second_of_the_lease_counts() external {
        claim(solver, 0);
        pass(LEASE);
        commit(solver, 0);
    }

    function test_after_the_lease_it_is_late() external {
        claim(solver, 0);
        uint64 until = at(0).until;
        pass(LEASE + 1);
        refusesCommit(solver, abi.encodeWithSelector(IMarket.LeaseOver.selector, until));
    }

    function test_the_deadline_does_not_shorten_a_lease() external {
        vm.warp(DEADLINE);
        claim(solver, 0);
        pass(LEASE);
        commit(solver, 0);
    }

    function test_strangers_commit_nothing() external {
        claim(solver, 0);
        refusesCommit(other, abi.encodeWithSelector(IMarket.NotSolver.selector, solver, other));
    }

    function test_commit_comes_after_claim_and_once() external {
        refusesCommit(
            solver, abi.encodeWithSelector(IMarket.WrongState.selector, job, 0, SegmentState.Open, SegmentState.Claimed)
        );
        deliver(solver, 0);
        refusesCommit(
            solver,
            abi.encodeWithSelector(IMarket.WrongState.selector, job, 0, SegmentState.Committed, SegmentState.Claimed)
        );
    }

    function test_there_are_as_many_groups_as_inputs() external {
        claim(solver, 0);
        outputs[0].push(0);
        refusesCommit(solver, abi.encodeWithSelector(IMarket.InvalidSpec.selector, "groupRoots"));
        outputs[0].pop();
        outputs[0].pop();
        refusesCommit(solver, abi.encodeWithSelector(IMarket.InvalidSpec.selector, "groupRoots"));
    }

    function test_work_on_other_inputs_is_refused() external {
        claim(solver, 0);
        Seal seal = sealOf(0, solver);
        vm.prank(solver);
        vm.expectRevert(IMarket.InputChanged.selector);
        market.commit(job, 0, StateRoot.wrap(keccak256("another")), outputs[0], seal, CID);
    }

    function test_a_long_cid_is_refused() external {
        claim(solver, 0);
        Seal seal = sealOf(0, solver);
        StateRoot inputs = at(0).inputRoot;
        vm.prank(solver);
        vm.expectRevert(abi.encodeWithSelector(IMarket.InvalidSpec.selector, "cid"));
        market.commit(job, 0, inputs, outputs[0], seal, new bytes(129));
    }

    function test_unknown_segments_are_refused() external {
        job = JobId.wrap(9);
        refusesCommit(solver, abi.encodeWithSelector(IMarket.UnknownSegment.selector, job, 0));
    }

    function refusesCommit(address account, bytes memory why) private {
        Seal seal = sealOf(0, account);
        StateRoot inputs = at(0).inputRoot;
        vm.prank(account);
        vm.expectRevert(why);
        market.commit(job, 0, inputs, outputs[0], seal, CID);
    }
}
