// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Reason} from "../../interfaces/IDispute.sol";
import {GroupProof, JobTerms, SegmentSpec, SegmentState} from "../../interfaces/IMarket.sol";
import {GameId, PlanRoot, Seal, StateRoot} from "../../types/Ids.sol";
import {JobFixture} from "./support/JobFixture.sol";
import {Trees} from "./support/Trees.sol";

/// Many at once: no call gets dearer with the number of games, segments or challengers, and however many dispute a
/// commitment, it settles at most one game after its window.
contract ConcurrencyTest is JobFixture {
    uint256 private constant CROWD = 50;
    uint32 private constant MANY = 1000;

    address[CROWD] private challengers;
    bytes32[] private trace;

    function setUp() public override {
        super.setUp();
        for (uint256 i = 0; i < CROWD; ++i) {
            challengers[i] = makeAddr(string.concat("challenger ", vm.toString(i)));
            fund(challengers[i], STAKE);
            deposit(challengers[i], STAKE);
        }
    }

    // ---------------------------------------------------------------- fifty disputes of one segment

    /// The solver commits a trace that it can show.
    function commitTrace() private {
        claim(solver, 0);
        trace = new bytes32[](5);
        for (uint256 i = 0; i < 5; ++i) {
            trace[i] = keccak256(abi.encode("checkpoint", i));
        }
        trace[0] = StateRoot.unwrap(at(0).inputRoot);
        trace[4] = Trees.root(outputs[0]);
        Seal seal = Seal.wrap(sha256(abi.encodePacked(Trees.root(trace), solver)));
        StateRoot inputs = at(0).inputRoot;
        vm.prank(solver);
        market.commit(job, 0, inputs, outputs[0], seal, CID);
    }

    function challengeAll() private returns (uint256 first, uint256 last) {
        (SegmentSpec memory s, Seal seal) = (spec(0), at(0).seal);
        for (uint256 i = 0; i < CROWD; ++i) {
            vm.prank(challengers[i]);
            dispute.challenge(job, 0, s, seal);
            if (i == 1) first = lastGas();
        }
        last = lastGas();
        assertEq(at(0).games, CROWD, "games");
    }

    /// All challenge in the last second, all clocks run out: it settles one game after the window, not fifty.
    function test_fifty_disputes_delay_a_settlement_by_one_game() external {
        commitTrace();
        pass(WINDOW);
        uint64 until = at(0).until;
        (uint256 first, uint256 last) = challengeAll();
        assertLe(last, first + first / 20, "the last challenge costs what the second cost");
        pass(CLOCK);
        for (uint64 g = 1; g <= CROWD; ++g) {
            bytes32 here = dispute.games(GameId.wrap(g)).position;
            vm.prank(solver);
            dispute.revealTrace(GameId.wrap(g), here, trace);
        }
        pass(CLOCK + 1);
        for (uint64 g = 1; g <= CROWD; ++g) {
            dispute.timeout(GameId.wrap(g));
        }
        market.settle(job, 0, spec(0), Trees.root(trace));
        assertEq(vm.getBlockTimestamp(), until + 2 * CLOCK + 1, "one game after the window");
        assertEq(market.owed(solver), pay(0), "paid");
        assertEq(free(solver), PURSE / 2 + CROWD * (STAKE / 2), "all bounties");
        assertEq(stake.burned(), CROWD * (STAKE - STAKE / 2), "what the delay cost");
    }

    /// One wins, the others get their bonds back, each by a call of its own.
    function test_of_fifty_disputes_one_overturns() external {
        commitTrace();
        challengeAll();
        pass(WINDOW - WINDOW / 2 + 1 + CLOCK + 1);
        dispute.timeout(GameId.wrap(7));
        assertState(0, SegmentState.Open);
        uint256 dearest = 0;
        for (uint64 g = 1; g <= CROWD; ++g) {
            if (g == 7) continue;
            dispute.close(GameId.wrap(g));
            if (lastGas() > dearest) dearest = lastGas();
            assertEq(uint8(dispute.games(GameId.wrap(g)).reason), uint8(Reason.Moot), "moot");
            assertEq(free(challengers[g - 1]), STAKE, "bond");
        }
        log("close, of fifty", dearest);
        assertLe(dearest, 100_000, "close");
        assertEq(free(challengers[6]), STAKE + STAKE / 2, "bounty");
        assertEq(free(solver) + locked(solver), PURSE / 2 - STAKE, "slashed once");
        deliver(challengers[6], 0); // and work goes on at once
    }

    // ---------------------------------------------------------------- a thousand segments

    function postMany(bytes32[][] memory levels) private {
        JobTerms memory t = terms();
        t.planRoot = PlanRoot.wrap(levels[levels.length - 1][0]);
        (t.segments, t.stake, t.escrow) = (MANY, 10, uint128(MANY * cost(0)));
        fund(buyer, t.escrow);
        job = post(t);
    }

    function test_a_thousand_open_segments() external {
        (SegmentSpec memory s, GroupProof[] memory inputs) = (spec(0), inputProofs(0));
        bytes32[] memory leaves = new bytes32[](MANY);
        bytes32 leaf = Trees.leaf(abi.encode(s));
        for (uint256 i = 0; i < MANY; ++i) {
            leaves[i] = leaf;
        }
        bytes32[][] memory levels = Trees.levels(leaves);
        postMany(levels);
        (Seal seal, StateRoot inputRoot_) = (sealOf(0, solver), StateRoot.wrap(inputRoot(0)));
        uint256[4] memory first;
        uint256[4] memory last;
        for (uint32 i = 0; i < MANY; ++i) {
            vm.prank(solver);
            market.claim(job, i, s, proofOf(levels, i), inputs);
            uint256 claimed = lastGas();
            vm.prank(solver);
            market.commit(job, i, inputRoot_, outputs[0], seal, CID);
            if (i == 1) (first[0], first[1]) = (claimed, lastGas());
            (last[0], last[1]) = (claimed, lastGas());
        }
        assertEq(reserved(), MANY * cost(0), "all are open");
        pass(WINDOW + 1);
        for (uint32 i = 0; i < MANY; ++i) {
            market.settle(job, i, s, traceRoot(0));
            if (i == 1) first[2] = lastGas();
            last[2] = lastGas();
        }
        assertEq(settled(), MANY, "settled");
        assertEq(market.owed(solver), MANY * pay(0), "owed");
        for (uint256 i = 0; i < 3; ++i) {
            log("claim, commit, settle: the second and the thousandth", first[i]);
            log("", last[i]);
            assertLe(last[i], first[i] + first[i] / 20, "as dear as the second");
        }
    }

    function proofOf(bytes32[][] memory levels, uint256 index) private pure returns (bytes32[] memory proof) {
        proof = new bytes32[](levels.length - 1);
        for (uint256 level = 0; level < proof.length; ++level) {
            proof[level] = levels[level][(index >> level) ^ 1];
        }
    }

    function lastGas() private view returns (uint256 total) {
        (, total,,,) = vm.lastCallGas();
    }
}
