// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Game, IDispute, Phase, ProgramLeaf, Reason} from "../../interfaces/IDispute.sol";
import {SegmentSpec} from "../../interfaces/IMarket.sol";
import {GameId, Seal, StateRoot} from "../../types/Ids.sol";
import {GameFixture, Players} from "./support/GameFixture.sol";
import {Fault, Toy} from "./support/Toy.sol";
import {Trees} from "./support/Trees.sol";

/// Early ends: bad bindings, bad children, padding, silence, and games that became moot.
contract DisputeEndsTest is GameFixture {
    function fault() private pure returns (Fault memory) {
        return Fault({step: 2, next: false, value: 6, word: 2, iteration: 0, mask: 8});
    }

    /// A dispute of the right output with a seal over other checkpoints.
    function beginWith(Players memory p, bytes32[] memory checkpoints) private {
        SegmentSpec memory s = spec(p);
        claimed(p, s);
        commit(p.claim[steps], checkpoints);
        challenge(challenger, s);
    }

    function reveal(bytes32[] memory checkpoints) private {
        bytes32 here = position();
        vm.prank(solver);
        dispute.revealTrace(game, here, checkpoints);
    }

    // ---------------------------------------------------------------- bindings

    function test_a_trace_begins_with_the_input() external {
        Players memory p = players(small(), Toy.none());
        bytes32[] memory checkpoints = Toy.stateRoots(p.claim, 0, steps, interval);
        checkpoints[0] = keccak256("another input");
        beginWith(p, checkpoints);
        reveal(checkpoints);
        assertOverturned(Reason.BadBinding);
    }

    function test_a_trace_ends_with_the_committed_output() external {
        Players memory p = players(small(), fault());
        bytes32[] memory checkpoints = Toy.stateRoots(p.truth, 0, steps, interval);
        beginWith(p, checkpoints);
        reveal(checkpoints);
        assertOverturned(Reason.BadBinding);
    }

    function test_step_states_begin_and_end_with_the_checkpoints() external {
        for (uint256 end = 0; end < 2; ++end) {
            uint256 start = vm.snapshotState();
            Players memory p = began(fault());
            playTo(p, Phase.RevealStates);
            bytes32[] memory states = Toy.stateRoots(p.claim, 0, 2, 1);
            states[2 * end] = keccak256("another end");
            bytes32 here = position();
            vm.prank(solver);
            dispute.revealStates(game, here, states);
            assertOverturned(Reason.BadBinding);
            vm.revertToState(start);
        }
    }

    // ---------------------------------------------------------------- children

    function test_a_trace_that_is_not_under_the_seal() external {
        Players memory p = began(fault());
        reveal(Toy.stateRoots(p.truth, 0, steps, interval));
        assertOverturned(Reason.BadChildren);
    }

    function test_a_trace_under_anothers_seal() external {
        Players memory p = players(small(), Toy.none());
        bytes32[] memory checkpoints = Toy.stateRoots(p.claim, 0, steps, interval);
        SegmentSpec memory s = spec(p);
        claimed(p, s);
        Seal stolen = Seal.wrap(sha256(abi.encodePacked(Trees.root(checkpoints), stranger)));
        bytes32[] memory groups = Toy.groups(p.claim[steps]);
        StateRoot inputs = market.segments(job, 0).inputRoot;
        vm.prank(solver);
        market.commit(job, 0, inputs, groups, stolen, "");
        challenge(challenger, s);
        reveal(checkpoints);
        assertOverturned(Reason.BadChildren);
    }

    function test_children_that_do_not_hash_to_their_node() external {
        Players memory p = began(fault());
        playTo(p, Phase.RevealChildren);
        bytes32[] memory shown = children(p, at(), false);
        shown[1] = keccak256("another child");
        bytes32 here = position();
        vm.prank(solver);
        dispute.revealChildren(game, here, shown);
        assertOverturned(Reason.BadChildren);
    }

    function test_a_page_that_does_not_hash_to_its_leaf() external {
        Players memory p = began(fault());
        playTo(p, Phase.RevealPage);
        bytes memory right = Toy.page(p.right[6], 0);
        bytes32 here = position();
        vm.prank(solver);
        dispute.revealPage(game, here, right);
        assertOverturned(Reason.BadChildren);
    }

    // ---------------------------------------------------------------- padding of the nests

    function test_a_nest_that_the_program_does_not_have() external {
        Players memory p = began(fault());
        playTo(p, Phase.RevealStep);
        uint32[][] memory values = Toy.run(p.shape, p.data, p.claim[at().first], at().first + 1, p.fault);
        bytes32[] memory shown = Trees.levels(nestRoots(values))[0];
        shown[7] = keccak256("a sixth nest");
        ProgramLeaf memory header = programLeaf(p.shape, 0);
        bytes32 here = position();
        vm.prank(solver);
        dispute.revealStep(game, here, header, shown);
        pickChild(shown, 7);
        assertOverturned(Reason.BadPadding);
    }

    function test_the_padding_of_the_nests_is_zero() external {
        Players memory p = began(Toy.none());
        p.seed = 1;
        playTo(p, Phase.PickChild);
        pickChild(children(p, at(), false), 5);
        assertUpheld(Reason.PaddingHolds);
    }

    function pickChild(bytes32[] memory shown, uint32 child) private {
        bytes32[] memory proof = Trees.proof(shown, child);
        bytes32 here = position();
        vm.prank(challenger);
        dispute.pickChild(game, here, child, shown[child], proof, noLeaf());
    }

    // ---------------------------------------------------------------- clocks

    /// At each turn of a game: silence loses it, and not a second earlier.
    function test_silence_loses_at_every_turn() external {
        silenceLoses(Fault({step: 2, next: false, value: 7, word: 2, iteration: 40, mask: 8}));
        silenceLoses(fault());
        silenceLoses(Fault({step: 2, next: true, value: 2, word: 0, iteration: 0, mask: 8}));
    }

    function silenceLoses(Fault memory wrong) private {
        uint256 before = vm.snapshotState();
        Players memory p = began(wrong);
        uint256 seen = 0;
        while (at().phase != Phase.Over) {
            uint256 turn = vm.snapshotState();
            silence(p);
            vm.revertToState(turn);
            play(p);
            ++seen;
        }
        assertEq(seen, 11, "turns");
        vm.revertToState(before);
    }

    function silence(Players memory p) private {
        Game memory g = at();
        bool byDefender = isDefenders(g.phase);
        vm.warp(g.since + CLOCK);
        vm.expectRevert(abi.encodeWithSelector(IDispute.ClockRunning.selector, g.since, CLOCK));
        dispute.timeout(game);
        vm.warp(g.since + CLOCK + 1);
        bytes memory call = lateMove(p, g);
        vm.prank(byDefender ? solver : challenger);
        vm.expectRevert(abi.encodeWithSelector(IDispute.ClockOver.selector, g.since, CLOCK));
        (bool reverted,) = address(dispute).call(call);
        assertTrue(reverted, "a late move");
        vm.prank(stranger);
        dispute.timeout(game);
        if (byDefender) assertOverturned(Reason.Timeout);
        else assertUpheld(Reason.Timeout);
    }

    /// A move of the awaited player.
    function lateMove(Players memory p, Game memory g) private view returns (bytes memory) {
        if (!isDefenders(g.phase)) {
            ProgramLeaf memory header = programLeaf(p.shape, 0);
            return abi.encodeCall(IDispute.proveInvalidHeader, (game, g.position, header, 0, header));
        }
        bytes32[] memory list;
        if (g.phase == Phase.RevealTrace) return abi.encodeCall(IDispute.revealTrace, (game, g.position, list));
        if (g.phase == Phase.RevealStates) return abi.encodeCall(IDispute.revealStates, (game, g.position, list));
        if (g.phase == Phase.RevealPage) return abi.encodeCall(IDispute.revealPage, (game, g.position, ""));
        if (g.phase == Phase.RevealPartials) return abi.encodeCall(IDispute.revealPartials, (game, g.position, ""));
        if (g.phase == Phase.RevealStep) {
            return abi.encodeCall(IDispute.revealStep, (game, g.position, programLeaf(p.shape, 0), list));
        }
        return abi.encodeCall(IDispute.revealChildren, (game, g.position, list));
    }

    function test_a_clock_runs_over_all_moves_together() external {
        Players memory p = began(fault());
        for (uint256 i = 0; i < 3; ++i) {
            vm.warp(vm.getBlockTimestamp() + 99);
            play(p);
            vm.warp(vm.getBlockTimestamp() + 50);
            play(p);
        }
        Game memory g = at();
        assertEq(g.defenderLeft, CLOCK - 297, "defender's clock");
        assertEq(g.challengerLeft, CLOCK - 150, "challenger's clock");
        vm.warp(g.since + 4);
        dispute.timeout(game);
        assertOverturned(Reason.Timeout);
    }

    function test_the_last_second_counts() external {
        Players memory p = began(fault());
        vm.warp(at().since + CLOCK);
        play(p);
        assertEq(at().defenderLeft, 0, "defender's clock");
    }

    // ---------------------------------------------------------------- over, and moot

    function test_what_is_over_is_over() external {
        Players memory p = began(fault());
        playTo(p, Phase.Over);
        bytes memory why = abi.encodeWithSelector(IDispute.WrongPhase.selector, Phase.Over, Phase.Over);
        vm.expectRevert(why);
        dispute.timeout(game);
        vm.expectRevert(why);
        dispute.close(game);
    }

    function test_there_is_no_game_before_a_challenge() external {
        bytes memory why = abi.encodeWithSelector(IDispute.WrongPhase.selector, Phase.None, Phase.Over);
        vm.expectRevert(why);
        dispute.timeout(GameId.wrap(7));
        vm.expectRevert(why);
        dispute.close(GameId.wrap(7));
    }

    function test_a_running_game_is_not_moot() external {
        began(fault());
        vm.expectRevert(IDispute.NotMoot.selector);
        dispute.close(game);
    }

    function test_an_overturned_attempt_makes_other_games_moot() external {
        GameId other = overturnedWithAnotherGame();
        vm.expectEmit(address(dispute));
        emit IDispute.Closed(other, address(0), address(0), Reason.Moot);
        dispute.close(other);
        assertMoot(other);
    }

    function test_silence_in_a_moot_game_costs_nothing() external {
        GameId other = overturnedWithAnotherGame();
        vm.warp(vm.getBlockTimestamp() + CLOCK + 1);
        dispute.timeout(other);
        assertMoot(other);
    }

    function test_a_moot_game_overturns_no_other_attempt() external {
        GameId other = overturnedWithAnotherGame();
        bytes32 here = dispute.games(other).position;
        vm.prank(solver);
        dispute.revealTrace(other, here, new bytes32[](4)); // not under the seal
        assertMoot(other);
        assertEq(market.segments(job, 0).attempt, 1, "attempt");
    }

    /// Two games, of which the challenger's overturned the attempt; the other is the stranger's.
    function overturnedWithAnotherGame() private returns (GameId other) {
        Players memory p = began(fault());
        GameId first = game;
        challenge(stranger, spec(p));
        (other, game) = (game, first);
        assertEq(market.segments(job, 0).games, 2, "games");
        playTo(p, Phase.Over);
    }

    function assertMoot(GameId other) private view {
        assertEq(uint8(dispute.games(other).reason), uint8(Reason.Moot), "moot");
        assertEq(free(stranger), PURSE / 2, "bond is back");
        assertEq(locked(stranger), 0, "nothing is locked");
        assertEq(free(solver), PURSE / 2 - STAKE, "slashed once");
    }

    function test_a_lost_game_leaves_the_others_open() external {
        Players memory p = began(fault());
        challenge(stranger, spec(p));
        GameId other = game;
        game = GameId.wrap(1);
        play(p);
        vm.warp(at().since + CLOCK);
        bytes32 here = dispute.games(other).position;
        bytes32[] memory checkpoints = p.list;
        vm.prank(solver);
        dispute.revealTrace(other, here, checkpoints);
        vm.warp(at().since + CLOCK + 1);
        dispute.timeout(game);
        assertEq(uint8(at().reason), uint8(Reason.Timeout), "lost by silence");
        assertEq(market.segments(job, 0).games, 1, "the other is open");
        game = other;
        challenger = stranger;
        playTo(p, Phase.Over);
        assertEq(uint8(at().reason), uint8(Reason.WrongWord), "won by the other");
        assertEq(market.segments(job, 0).attempt, 1, "attempt");
    }

    // ---------------------------------------------------------------- against oneself

    function test_a_dispute_against_oneself_loses_money() external {
        challenger = solver;
        Players memory p = began(fault());
        playTo(p, Phase.Over);
        assertEq(free(solver), PURSE / 2 - STAKE + STAKE / 2, "free");
        assertEq(locked(solver), 0, "locked");
        assertEq(stake.burned(), STAKE - STAKE / 2, "burned");
    }

    function test_a_lost_dispute_against_oneself_loses_money() external {
        challenger = solver;
        Players memory p = began(fault());
        play(p);
        vm.warp(at().since + CLOCK + 1);
        dispute.timeout(game);
        assertEq(free(solver) + locked(solver), PURSE / 2 - STAKE + STAKE / 2, "all");
        assertEq(locked(solver), STAKE, "locked");
    }
}
