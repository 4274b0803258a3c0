// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {GroupProof, IMarket, JobTerms, Segment, SegmentSpec, SegmentState, Source} from "../../interfaces/IMarket.sol";
import {IStake} from "../../interfaces/IStake.sol";
import {JobId, PlanRoot, StateRoot} from "../../types/Ids.sol";
import {JobFixture} from "./support/JobFixture.sol";
import {Trees} from "./support/Trees.sol";

contract MarketClaimTest is JobFixture {
    function test_claim_locks_stake_and_reserves_the_price() external {
        uint256 now_ = vm.getBlockTimestamp();
        vm.expectEmit(address(market));
        emit IMarket.Claimed(job, 0, solver, 0, uint64(now_ + LEASE));
        claim(solver, 0);
        Segment memory s = at(0);
        assertState(0, SegmentState.Claimed);
        assertEq(s.solver, solver, "solver");
        assertEq(s.until, now_ + LEASE, "until");
        assertEq(s.price, PRICE, "price");
        assertEq(s.leaf, planLeaves()[0], "leaf");
        assertEq(StateRoot.unwrap(s.inputRoot), inputRoot(0), "input root");
        assertEq(locked(solver), STAKE, "locked");
        assertEq(reserved(), cost(0), "reserved");
    }

    function test_claim_builds_on_what_is_committed() external {
        deliver(solver, 0);
        deliver(other, 1);
        claim(solver, 2);
        assertEq(StateRoot.unwrap(at(2).inputRoot), inputRoot(2), "input root");
        assertEq(locked(solver), 2 * STAKE, "locked");
        assertEq(reserved(), cost(0) + cost(1) + cost(2), "reserved");
    }

    function test_claim_builds_on_what_is_settled() external {
        deliver(solver, 0);
        pass(WINDOW + 1);
        settle(0);
        claim(other, 1);
        assertState(1, SegmentState.Claimed);
    }

    function test_a_segment_is_claimed_once() external {
        claim(solver, 0);
        refusesClaim(
            other,
            0,
            abi.encodeWithSelector(IMarket.WrongState.selector, job, 0, SegmentState.Claimed, SegmentState.Open)
        );
        refusesClaim(
            solver,
            0,
            abi.encodeWithSelector(IMarket.WrongState.selector, job, 0, SegmentState.Claimed, SegmentState.Open)
        );
    }

    function test_a_source_must_be_there() external {
        refusesClaim(other, 1, abi.encodeWithSelector(IMarket.InputNotReady.selector, 0));
        claim(solver, 0);
        refusesClaim(other, 1, abi.encodeWithSelector(IMarket.InputNotReady.selector, 0));
    }

    function test_claim_ends_with_the_deadline() external {
        vm.warp(DEADLINE);
        claim(solver, 0);
        commit(solver, 0);
        vm.warp(DEADLINE + 1);
        refusesClaim(other, 1, abi.encodeWithSelector(IMarket.PastDeadline.selector, DEADLINE));
    }

    function test_unknown_jobs_and_segments_are_refused() external {
        bytes memory why = abi.encodeWithSelector(IMarket.UnknownSegment.selector, job, SEGMENTS);
        refuses(solver, SEGMENTS, spec(0), planProof(0), inputProofs(0), why);
        job = JobId.wrap(2);
        refusesClaim(solver, 0, abi.encodeWithSelector(IMarket.UnknownSegment.selector, job, 0));
        job = JobId.wrap(0);
        refusesClaim(solver, 0, abi.encodeWithSelector(IMarket.UnknownSegment.selector, job, 0));
    }

    function test_without_stake_there_is_no_claim() external {
        refusesClaim(stranger, 0, abi.encodeWithSelector(IStake.InsufficientFree.selector, stranger, 0, STAKE));
        assertEq(reserved(), 0, "reserved");
    }

    function test_the_escrow_must_cover_price_and_audit() external {
        JobTerms memory t = terms();
        t.escrow = uint128(cost(0) + cost(1) - 1);
        job = post(t);
        deliver(solver, 0);
        refusesClaim(other, 1, abi.encodeWithSelector(IMarket.EscrowShort.selector, cost(1) - 1, cost(1)));
    }

    // ---------------------------------------------------------------- proofs

    function test_another_price_is_no_leaf_of_the_plan() external {
        SegmentSpec memory s = spec(0);
        s.price += 1;
        refusesProof(0, s, planProof(0), inputProofs(0));
    }

    function test_another_segments_leaf_does_not_do() external {
        refusesProof(1, spec(0), planProof(0), inputProofs(0));
    }

    function test_proofs_have_the_trees_height() external {
        bytes32[] memory deep = Trees.concat(planProof(0), new bytes32[](1));
        bytes32[] memory shallow = new bytes32[](1);
        shallow[0] = planProof(0)[0];
        refusesProof(0, spec(0), deep, inputProofs(0));
        refusesProof(0, spec(0), shallow, inputProofs(0));
    }

    function test_an_inner_node_is_no_group() external {
        GroupProof[] memory inputs = inputProofs(0);
        bytes32[] memory groups = initialGroups();
        inputs[0].root = Trees.node(groups[0], groups[1]);
        bytes32 sibling = Trees.node(groups[2], 0);
        inputs[0].proof = new bytes32[](1);
        inputs[0].proof[0] = sibling;
        refusesProof(0, spec(0), planProof(0), inputs);
    }

    function test_another_root_is_no_input(uint256 which, bytes32 root) external {
        deliver(solver, 0);
        deliver(solver, 1);
        GroupProof[] memory inputs = inputProofs(2);
        which = bound(which, 0, inputs.length - 1);
        vm.assume(root != inputs[which].root);
        inputs[which].root = root;
        refusesProof(2, spec(2), planProof(2), inputs);
    }

    function test_every_input_is_proved() external {
        GroupProof[] memory inputs = new GroupProof[](1);
        inputs[0] = inputProofs(0)[0];
        refusesProof(0, spec(0), planProof(0), inputs);
    }

    // ---------------------------------------------------------------- specs that no plan may have

    function test_specs_out_of_range_are_refused() external {
        SegmentSpec memory s = spec(0);
        s.steps = 0;
        refusesPlan(s, "steps");
        s = spec(0);
        s.interval = 0;
        refusesPlan(s, "interval");
        s.interval = 257;
        refusesPlan(s, "interval");
        s.interval = 2;
        s.steps = 513;
        refusesPlan(s, "checkpoints");
        s = spec(0);
        s.inputs = new Source[](0);
        refusesPlan(s, "inputs");
        s.inputs = new Source[](257);
        refusesPlan(s, "inputs");
    }

    function test_the_largest_spec_is_valid() external {
        SegmentSpec memory s = spec(0);
        (s.steps, s.interval) = (65_536, 256);
        postPlan(s);
        GroupProof[] memory inputs = inputProofs(0);
        vm.prank(solver);
        market.claim(job, 0, s, new bytes32[](0), inputs);
    }

    function test_sources_are_earlier_segments() external {
        SegmentSpec memory s = spec(0);
        s.inputs[1] = Source(0, 0);
        refusesPlan(s, "source");
        s.inputs[1] = Source(1, 0);
        refusesPlan(s, "source");
        s.inputs[1] = Source(INITIAL - 1, 0);
        refusesPlan(s, "source");
    }

    function test_the_padding_of_a_state_is_no_group() external {
        SegmentSpec memory s = spec(0);
        s.inputs[0] = Source(INITIAL, 3);
        postPlan(s);
        GroupProof[] memory inputs = inputProofs(0);
        inputs[0] = GroupProof(0, Trees.proof(initialGroups(), 3));
        refuses(solver, 0, s, new bytes32[](0), inputs, abi.encodeWithSelector(IMarket.InvalidSpec.selector, "group"));
    }

    // ---------------------------------------------------------------- after an overturn

    function test_the_heir_claims_first() external {
        deliver(solver, 0);
        overturn(0);
        uint64 until = uint64(vm.getBlockTimestamp() + LEASE / 10);
        refusesClaim(other, 0, abi.encodeWithSelector(IMarket.Reserved.selector, challenger, until));
        claim(challenger, 0);
        assertEq(at(0).attempt, 1, "attempt");
    }

    function test_then_anybody_claims() external {
        deliver(solver, 0);
        overturn(0);
        pass(LEASE / 10);
        claim(other, 0);
    }

    function test_who_was_overturned_is_barred_from_the_job() external {
        deliver(solver, 0);
        deliver(other, 1);
        overturn(0);
        assertTrue(market.barred(job, solver), "barred");
        pass(LEASE);
        refusesClaim(solver, 0, abi.encodeWithSelector(IMarket.Barred.selector, job, solver));
        job = post();
        claim(solver, 0);
    }

    // ---------------------------------------------------------------- helpers

    function refusesClaim(address account, uint32 segment, bytes memory why) private {
        refuses(account, segment, spec(segment), planProof(segment), inputProofs(segment), why);
    }

    function refusesProof(uint32 segment, SegmentSpec memory s, bytes32[] memory proof, GroupProof[] memory inputs)
        private
    {
        refuses(solver, segment, s, proof, inputs, abi.encodeWithSelector(IMarket.BadProof.selector));
    }

    function refuses(
        address account,
        uint32 segment,
        SegmentSpec memory s,
        bytes32[] memory proof,
        GroupProof[] memory inputs,
        bytes memory why
    ) private {
        vm.prank(account);
        vm.expectRevert(why);
        market.claim(job, segment, s, proof, inputs);
    }

    /// A job whose only segment is `s`.
    function postPlan(SegmentSpec memory s) private {
        JobTerms memory t = terms();
        t.segments = 1;
        t.planRoot = PlanRoot.wrap(Trees.leaf(abi.encode(s)));
        job = post(t);
    }

    function refusesPlan(SegmentSpec memory s, string memory what) private {
        postPlan(s);
        bytes memory why = abi.encodeWithSelector(IMarket.InvalidSpec.selector, what);
        refuses(solver, 0, s, new bytes32[](0), inputProofs(0), why);
    }
}
