// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {GroupProof, IMarket, JobTerms, SegmentSpec, SegmentState, Source} from "../../interfaces/IMarket.sol";
import {PlanRoot} from "../../types/Ids.sol";
import {JobFixture} from "./support/JobFixture.sol";
import {Trees} from "./support/Trees.sol";

/// Segments 0 and 1 begin at the initial state; 2 takes a group of each, or the initial one, and needs one of them;
/// 3 builds on 2.
contract MarketElasticTest is JobFixture {
    function spec(uint32 segment) internal pure override returns (SegmentSpec memory s) {
        s = super.spec(segment);
        if (segment == 1) (s.inputs[0], s.inputs[1]) = (Source(INITIAL, 0), Source(INITIAL, 2));
        if (segment != 2) return s;
        (s.inputs[0], s.inputs[1], s.inputs[2]) = (Source(0, 1), Source(1, 0), Source(INITIAL, 0));
        s.fallbacks = new Source[](3);
        (s.fallbacks[0], s.fallbacks[1], s.fallbacks[2]) = (Source(INITIAL, 1), Source(INITIAL, 2), Source(INITIAL, 0));
        s.quorum = 1;
    }

    bool private leftOut;

    /// What the chain would take; or, with `leftOut`, fallbacks in spite of who is there.
    function sourcesOf(uint32 segment) internal view override returns (Source[] memory sources) {
        SegmentSpec memory s = spec(segment);
        sources = s.inputs;
        for (uint256 i = 0; i < s.fallbacks.length; ++i) {
            uint32 source = s.inputs[i].segment;
            bool isThere = source == INITIAL || at(source).state >= SegmentState.Committed;
            if (!isThere || leftOut) sources[i] = s.fallbacks[i];
        }
    }

    function test_who_is_there_is_taken() external {
        deliver(solver, 0);
        deliver(other, 1);
        claim(solver, 2);
        assertEq(at(2).absent, 0, "nobody is absent");
    }

    function test_who_is_not_there_has_a_fallback() external {
        deliver(other, 1);
        claim(solver, 2);
        assertEq(at(2).absent, 1, "the first is absent");
        // its commitment comes too late for this claim, and changes nothing
        deliver(other, 0);
        commit(solver, 2);
        pass(2 * WINDOW);
        settle(1);
        settle(2);
        assertState(2, SegmentState.Settled);
        assertState(0, SegmentState.Committed);
    }

    function test_finished_work_cannot_be_left_out() external {
        deliver(solver, 0);
        deliver(other, 1);
        leftOut = true;
        refusesClaim(abi.encodeWithSelector(IMarket.BadProof.selector));
    }

    function test_a_quorum_must_be_there() external {
        refusesClaim(abi.encodeWithSelector(IMarket.QuorumMissed.selector, 0, 1));
    }

    function test_what_was_taken_and_fell_voids_the_claim() external {
        deliver(solver, 0);
        claim(other, 2);
        assertEq(at(2).absent, 2, "the second is absent");
        overturn(0);
        market.void(job, 2, spec(2));
        assertState(2, SegmentState.Open);
    }

    function test_what_was_not_taken_may_fall() external {
        deliver(other, 1);
        claim(other, 2);
        deliver(solver, 0);
        overturn(0);
        SegmentSpec memory s = spec(2);
        vm.expectRevert(IMarket.InputsStand.selector);
        market.void(job, 2, s);
        commit(other, 2);
        pass(2 * WINDOW);
        settle(1);
        settle(2);
    }

    function test_who_was_absent_may_be_there_at_the_next_claim() external {
        deliver(other, 1);
        claim(other, 2);
        deliver(solver, 0);
        pass(LEASE + 1);
        market.expire(job, 2);
        claim(solver, 2);
        assertEq(at(2).absent, 0, "nobody is absent");
    }

    // ---------------------------------------------------------------- specifications that cannot be

    function test_fallbacks_are_for_all_inputs_or_none() external {
        SegmentSpec memory s = spec(2);
        s.fallbacks = new Source[](2);
        refuses(s, "fallbacks");
    }

    function test_a_fallback_comes_before_its_segment() external {
        SegmentSpec memory s = spec(2);
        s.fallbacks[0] = Source(2, 0);
        refuses(s, "source");
    }

    function test_a_quorum_is_of_optional_inputs() external {
        SegmentSpec memory s = spec(2);
        s.quorum = 3; // the last input is the same as its fallback
        refuses(s, "quorum");
    }

    function refuses(SegmentSpec memory s, string memory what) private {
        JobTerms memory t = terms();
        bytes32[] memory leaves = planLeaves();
        leaves[2] = Trees.leaf(abi.encode(s));
        t.planRoot = PlanRoot.wrap(Trees.root(leaves));
        job = post(t);
        bytes32[] memory proof = Trees.proof(leaves, 2);
        vm.expectRevert(abi.encodeWithSelector(IMarket.InvalidSpec.selector, what));
        vm.prank(solver);
        market.claim(job, 2, s, proof, new GroupProof[](3));
    }

    function refusesClaim(bytes memory reason) private {
        (bytes32[] memory proof, GroupProof[] memory inputs) = (planProof(2), inputProofs(2));
        SegmentSpec memory s = spec(2);
        vm.expectRevert(reason);
        vm.prank(solver);
        market.claim(job, 2, s, proof, inputs);
    }
}
