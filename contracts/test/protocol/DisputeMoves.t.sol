// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Game, IDispute, Phase, ProgramLeaf, Tree, ValueProof} from "../../interfaces/IDispute.sol";
import {IMarket, Segment, SegmentSpec} from "../../interfaces/IMarket.sol";
import {IReferee, Page} from "../../interfaces/IReferee.sol";
import {IStake} from "../../interfaces/IStake.sol";
import {GameId, ProgramRoot, Seal, StateRoot} from "../../types/Ids.sol";
import {GameFixture, Players} from "./support/GameFixture.sol";
import {Fault, Shape, Toy} from "./support/Toy.sol";
import {Trees} from "./support/Trees.sol";

/// What each move refuses.
contract DisputeMovesTest is GameFixture {
    bytes private badProof = abi.encodePacked(IDispute.BadProof.selector);

    function fault() private pure returns (Fault memory) {
        return Fault({step: 2, next: false, value: 7, word: 2, iteration: 40, mask: 8});
    }

    function wrongNext() private pure returns (Fault memory) {
        return Fault({step: 2, next: true, value: 2, word: 0, iteration: 0, mask: 8});
    }

    /// A game that waits for a move of `phase`.
    function reach(Phase phase) private returns (Players memory p) {
        p = began(phase == Phase.ProveNext ? wrongNext() : fault());
        playTo(p, phase);
    }

    function refuses(address account, bytes memory call, bytes memory why) private {
        vm.prank(account);
        vm.expectRevert(why);
        (bool reverted,) = address(dispute).call(call);
        assertTrue(reverted, "reverts as expected");
    }

    function outOfRange(uint256 index, uint256 count) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IDispute.OutOfRange.selector, index, count);
    }

    function wrongLength(uint256 actual, uint256 needed) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IDispute.WrongLength.selector, actual, needed);
    }

    // ---------------------------------------------------------------- challenge

    function test_challenge_locks_the_bond_and_tells() external {
        Players memory p = players(small(), fault());
        SegmentSpec memory s = spec(p);
        claimed(p, s);
        commit(p.claim[steps], Toy.stateRoots(p.claim, 0, steps, interval));
        vm.expectEmit(address(dispute));
        emit IDispute.Challenged(GameId.wrap(1), job, 0, 0, challenger, solver);
        challenge(challenger, s);
        Game memory g = at();
        assertEq(dispute.gameCount(), 1, "count");
        assertEq(uint8(g.phase), uint8(Phase.RevealTrace), "phase");
        assertEq(locked(challenger), STAKE, "bond");
        assertEq(g.bond, STAKE, "bond of the game");
        assertEq(g.defenderLeft, CLOCK, "defender's clock");
        assertEq(g.challengerLeft, CLOCK, "challenger's clock");
        assertEq(StateRoot.unwrap(g.before), Toy.stateRoot(p.truth[0]), "agreed");
        assertEq(StateRoot.unwrap(g.afterRoot), Toy.stateRoot(p.claim[steps]), "claimed");
        assertEq(market.segments(job, 0).games, 1, "games");
    }

    function test_challenge_needs_the_claimed_spec() external {
        Players memory p = began(fault());
        SegmentSpec memory s = spec(p);
        s.programRoot = ProgramRoot.wrap(keccak256("another"));
        refuses(challenger, abi.encodeCall(IDispute.challenge, (job, 0, s, sealNow())), badProof);
    }

    function test_challenge_names_the_commitment() external {
        Players memory p = began(fault());
        Seal another = Seal.wrap(keccak256("another"));
        bytes memory why = abi.encodeWithSelector(IDispute.SealChanged.selector, sealNow(), another);
        refuses(stranger, abi.encodeCall(IDispute.challenge, (job, 0, spec(p), another)), why);
    }

    /// The trace stays hidden while attestations are taken: no game begins before.
    function test_a_game_begins_when_attestations_are_in() external {
        Players memory p = players(small(), fault());
        SegmentSpec memory s = spec(p);
        claimed(p, s);
        p.list = Toy.stateRoots(p.claim, 0, steps, interval);
        commit(p.claim[steps], p.list);
        Segment memory c = market.segments(job, 0);
        uint64 attestUntil = c.until - WINDOW / 2;
        vm.prank(challenger);
        game = dispute.challenge(job, 0, s, c.seal);
        assertEq(at().since, attestUntil + 1, "since");
        bytes memory move = abi.encodeCall(IDispute.revealTrace, (game, position(), p.list));
        refuses(solver, move, abi.encodeWithSelector(IDispute.NotBegun.selector, attestUntil + 1));
        vm.warp(attestUntil);
        refuses(solver, move, abi.encodeWithSelector(IDispute.NotBegun.selector, attestUntil + 1));
        refuses(challenger, move, abi.encodeWithSelector(IDispute.NotPlayer.selector, solver, challenger));
        vm.expectRevert(abi.encodeWithSelector(IDispute.ClockRunning.selector, attestUntil + 1, CLOCK));
        dispute.timeout(game);
        vm.warp(attestUntil + 1);
        play(p);
        assertEq(at().defenderLeft, CLOCK, "no time was lost by waiting");
    }

    function test_challenge_needs_a_bond() external {
        Players memory p = began(fault());
        address poor = makeAddr("poor");
        bytes memory why = abi.encodeWithSelector(IStake.InsufficientFree.selector, poor, 0, STAKE);
        refuses(poor, abi.encodeCall(IDispute.challenge, (job, 0, spec(p), sealNow())), why);
        assertEq(market.segments(job, 0).games, 1, "games");
    }

    function test_challenge_comes_within_the_window() external {
        Players memory p = began(fault());
        uint64 until = market.segments(job, 0).until;
        vm.warp(until + 1);
        bytes memory why = abi.encodeWithSelector(IMarket.WindowOver.selector, until);
        refuses(stranger, abi.encodeCall(IDispute.challenge, (job, 0, spec(p), sealNow())), why);
    }

    function test_equal_games_have_different_positions() external {
        Players memory p = began(fault());
        bytes32 first = position();
        challenge(challenger, spec(p));
        assertTrue(position() != first, "position");
    }

    // ---------------------------------------------------------------- any move

    function test_a_move_waits_for_its_phase() external {
        reach(Phase.PickCheckpoint);
        bytes[] memory calls = anyMoves(position());
        for (uint8 phase = uint8(Phase.RevealTrace); phase < uint8(Phase.Over); ++phase) {
            if (phase == uint8(Phase.PickCheckpoint)) continue;
            bytes memory why = abi.encodeWithSelector(IDispute.WrongPhase.selector, Phase.PickCheckpoint, phase);
            refuses(challenger, calls[phase], why);
        }
    }

    function test_a_move_names_the_position() external {
        reach(Phase.PickCheckpoint);
        bytes[] memory calls = anyMoves("other");
        bytes memory why = abi.encodeWithSelector(IDispute.WrongPosition.selector, position(), bytes32("other"));
        refuses(challenger, calls[uint8(Phase.PickCheckpoint)], why);
        ProgramLeaf memory none;
        refuses(challenger, abi.encodeCall(IDispute.proveInvalidHeader, (game, bytes32("other"), none, 0, none)), why);
    }

    function test_a_move_is_made_by_its_player() external {
        Players memory p = began(fault());
        while (at().phase != Phase.Over) {
            Game memory g = at();
            bool byDefender = isDefenders(g.phase);
            bytes memory call = anyMoves(g.position)[uint8(g.phase)];
            address mover = byDefender ? solver : challenger;
            address opponent = byDefender ? challenger : solver;
            refuses(stranger, call, abi.encodeWithSelector(IDispute.NotPlayer.selector, mover, stranger));
            refuses(opponent, call, abi.encodeWithSelector(IDispute.NotPlayer.selector, mover, opponent));
            play(p);
        }
    }

    function test_the_program_is_attacked_at_the_challengers_turns_only() external {
        Players memory p = began(fault());
        ProgramLeaf memory header = programLeaf(p.shape, 0);
        bytes memory call = abi.encodeCall(IDispute.proveInvalidHeader, (game, position(), header, 0, noLeaf()));
        refuses(challenger, call, abi.encodeWithSelector(IDispute.NotPlayer.selector, solver, challenger));
        play(p);
        call = abi.encodeCall(IDispute.proveInvalidHeader, (game, position(), header, 0, noLeaf()));
        refuses(solver, call, abi.encodeWithSelector(IDispute.NotPlayer.selector, challenger, solver));
    }

    function test_a_move_changes_the_position_by_what_it_says() external {
        Players memory p = began(fault());
        bytes32 before = position();
        bytes32[] memory checkpoints = Toy.stateRoots(p.claim, 0, steps, interval);
        bytes memory call = abi.encodeCall(IDispute.revealTrace, (game, before, checkpoints));
        vm.expectEmit(address(dispute));
        emit IDispute.TraceRevealed(game, keccak256(abi.encodePacked(before, call)), checkpoints);
        play(p);
        assertEq(position(), keccak256(abi.encodePacked(before, call)), "position");
        refuses(
            solver, call, abi.encodeWithSelector(IDispute.WrongPhase.selector, Phase.PickCheckpoint, Phase.RevealTrace)
        );
    }

    /// A move for each phase that says nothing in particular.
    function anyMoves(bytes32 p) private view returns (bytes[] memory calls) {
        bytes32[] memory none;
        ProgramLeaf memory leaf;
        ValueProof memory value;
        calls = new bytes[](uint8(Phase.Over));
        calls[uint8(Phase.RevealTrace)] = abi.encodeCall(IDispute.revealTrace, (game, p, none));
        calls[uint8(Phase.PickCheckpoint)] = abi.encodeCall(IDispute.pickCheckpoint, (game, p, 0, 0, none, 0, none));
        calls[uint8(Phase.RevealStates)] = abi.encodeCall(IDispute.revealStates, (game, p, none));
        calls[uint8(Phase.PickStep)] = abi.encodeCall(IDispute.pickStep, (game, p, 0, 0, none, 0, none));
        calls[uint8(Phase.RevealStep)] = abi.encodeCall(IDispute.revealStep, (game, p, leaf, none));
        calls[uint8(Phase.RevealChildren)] = abi.encodeCall(IDispute.revealChildren, (game, p, none));
        calls[uint8(Phase.PickChild)] = abi.encodeCall(IDispute.pickChild, (game, p, 0, 0, none, leaf));
        calls[uint8(Phase.RevealPage)] = abi.encodeCall(IDispute.revealPage, (game, p, ""));
        calls[uint8(Phase.PickWord)] = abi.encodeCall(IDispute.pickWord, (game, p, 0, ""));
        calls[uint8(Phase.RevealPartials)] = abi.encodeCall(IDispute.revealPartials, (game, p, ""));
        calls[uint8(Phase.PickPartial)] = abi.encodeCall(IDispute.pickPartial, (game, p, 0, ""));
        calls[uint8(Phase.Prove)] =
            abi.encodeCall(IDispute.prove, (game, p, leaf, leaf, new ValueProof[](0), new Page[](0)));
        calls[uint8(Phase.ProveNext)] = abi.encodeCall(IDispute.proveNext, (game, p, leaf, value));
    }

    // ---------------------------------------------------------------- trace and interval

    function test_revealTrace_shows_all_checkpoints() external {
        reach(Phase.RevealTrace);
        bytes32[] memory few = new bytes32[](3);
        refuses(solver, abi.encodeCall(IDispute.revealTrace, (game, position(), few)), wrongLength(3, 4));
    }

    function test_pickCheckpoint_picks_one_after_the_input() external {
        Players memory p = reach(Phase.PickCheckpoint);
        refuses(challenger, pick(p, 0, p.list[0], p.list[0], 0), outOfRange(0, 4));
        refuses(challenger, pick(p, 4, p.list[3], 0, 0), outOfRange(4, 4));
    }

    function test_pickCheckpoint_names_what_was_shown() external {
        Players memory p = reach(Phase.PickCheckpoint);
        refuses(challenger, pick(p, 1, p.list[0], p.rightList[1], 0), badProof);
        refuses(challenger, pick(p, 1, p.list[1], p.list[1], 0), badProof);
        refuses(challenger, pick(p, 2, p.list[0], p.list[1], 0), badProof);
    }

    function test_pickCheckpoint_takes_proofs_of_the_trees_height() external {
        Players memory p = reach(Phase.PickCheckpoint);
        refuses(challenger, pick(p, 1, p.list[0], p.list[1], 1), badProof);
        refuses(challenger, pick(p, 1, p.list[0], p.list[1], -1), badProof);
        bytes32[] memory one = new bytes32[](1);
        one[0] = Trees.levels(p.list)[1][1];
        bytes32 inner = Trees.levels(p.list)[1][0];
        bytes memory call = abi.encodeCall(IDispute.pickCheckpoint, (game, position(), 1, inner, one, inner, one));
        refuses(challenger, call, badProof);
    }

    function test_revealStates_shows_all_steps() external {
        reach(Phase.RevealStates);
        bytes32[] memory many = new bytes32[](4);
        refuses(solver, abi.encodeCall(IDispute.revealStates, (game, position(), many)), wrongLength(4, 3));
    }

    function test_pickStep_picks_from_the_interval() external {
        Players memory p = reach(Phase.PickStep);
        bytes32[] memory proof = Trees.proof(p.list, 0);
        bytes memory call = abi.encodeCall(IDispute.pickStep, (game, position(), 3, 0, proof, 0, proof));
        refuses(challenger, call, outOfRange(3, 3));
        call = abi.encodeCall(IDispute.pickStep, (game, position(), 1, p.list[0], proof, p.list[0], proof));
        refuses(challenger, call, badProof);
    }

    /// pickCheckpoint with proofs that are longer or shorter by `change`.
    function pick(Players memory p, uint32 i, bytes32 before, bytes32 afterRoot, int256 change)
        private
        view
        returns (bytes memory)
    {
        bytes32[] memory first = Trees.proof(p.list, i == 0 ? 0 : i - 1);
        bytes32[] memory second = Trees.proof(p.list, i % p.list.length);
        if (change > 0) second = Trees.concat(second, new bytes32[](1));
        if (change < 0) {
            assembly {
                mstore(second, sub(mload(second), 1))
            }
        }
        return abi.encodeCall(IDispute.pickCheckpoint, (game, position(), i, before, first, afterRoot, second));
    }

    // ---------------------------------------------------------------- step and tensor

    function test_revealStep_shows_the_programs_header() external {
        Players memory p = reach(Phase.RevealStep);
        bytes32[] memory shown = new bytes32[](8);
        ProgramLeaf memory header = programLeaf(p.shape, 0);
        header.data = Toy.header(Shape({wide: 301, long: 1}));
        refuses(solver, abi.encodeCall(IDispute.revealStep, (game, position(), header, shown)), badProof);
        header = programLeaf(p.shape, 0);
        header.proof = Trees.concat(header.proof, new bytes32[](1));
        refuses(solver, abi.encodeCall(IDispute.revealStep, (game, position(), header, shown)), badProof);
        header = programLeaf(p.shape, 2);
        bytes32 here = position();
        vm.prank(solver);
        vm.expectPartialRevert(IReferee.InvalidHeader.selector);
        dispute.revealStep(game, here, header, shown);
    }

    function test_revealStep_shows_all_children() external {
        Players memory p = reach(Phase.RevealStep);
        ProgramLeaf memory header = programLeaf(p.shape, 0);
        bytes memory call = abi.encodeCall(IDispute.revealStep, (game, position(), header, new bytes32[](5)));
        refuses(solver, call, wrongLength(5, 8));
    }

    function test_revealChildren_shows_all_children() external {
        Players memory p = began(Fault({step: 2, next: false, value: 6, word: 2, iteration: 0, mask: 8}));
        playTo(p, Phase.RevealChildren);
        bytes32[] memory many = new bytes32[](4);
        refuses(solver, abi.encodeCall(IDispute.revealChildren, (game, position(), many)), wrongLength(4, 2));
    }

    function test_pickChild_picks_what_was_shown() external {
        Players memory p = reach(Phase.PickChild);
        bytes32[] memory shown = children(p, at(), false);
        bytes32[] memory proof = Trees.proof(shown, 1);
        ProgramLeaf memory nest = programLeaf(p.shape, 3);
        bytes memory call = abi.encodeCall(IDispute.pickChild, (game, position(), 8, shown[1], proof, nest));
        refuses(challenger, call, outOfRange(8, 8));
        call = abi.encodeCall(IDispute.pickChild, (game, position(), 2, shown[1], proof, nest));
        refuses(challenger, call, badProof);
        call = abi.encodeCall(IDispute.pickChild, (game, position(), 1, bytes32("other"), proof, nest));
        refuses(challenger, call, badProof);
        bytes32[] memory deep = Trees.concat(proof, proof);
        call = abi.encodeCall(IDispute.pickChild, (game, position(), 1, shown[1], deep, nest));
        refuses(challenger, call, badProof);
    }

    function test_pickChild_takes_the_nest_of_the_program() external {
        Players memory p = reach(Phase.PickChild);
        bytes32[] memory shown = children(p, at(), false);
        bytes32[] memory proof = Trees.proof(shown, 1);
        ProgramLeaf memory nest = programLeaf(p.shape, 2);
        bytes memory call = abi.encodeCall(IDispute.pickChild, (game, position(), 1, shown[1], proof, nest));
        refuses(challenger, call, badProof);
    }

    function test_disputeNext_comes_before_a_nest_is_picked() external {
        Players memory p = began(Fault({step: 2, next: false, value: 6, word: 2, iteration: 0, mask: 8}));
        playTo(p, Phase.RevealChildren);
        playTo(p, Phase.PickChild);
        ProgramLeaf memory header = programLeaf(p.shape, 0);
        bytes memory why = abi.encodeWithSelector(IDispute.NotAtRoot.selector, Tree.Pages, 1);
        refuses(challenger, abi.encodeCall(IDispute.disputeNext, (game, position(), header)), why);
    }

    function test_disputeNext_takes_the_header_of_the_program() external {
        Players memory p = reach(Phase.PickChild);
        ProgramLeaf memory header = programLeaf(p.shape, 0);
        header.data = Toy.header(Shape({wide: 301, long: 1}));
        refuses(challenger, abi.encodeCall(IDispute.disputeNext, (game, position(), header)), badProof);
    }

    function test_revealPage_shows_a_whole_page() external {
        reach(Phase.RevealPage);
        bytes memory call = abi.encodeCall(IDispute.revealPage, (game, position(), new bytes(1023)));
        refuses(solver, call, wrongLength(1023, 1024));
    }

    // ---------------------------------------------------------------- word and fold

    function test_pickWord_picks_from_the_page_that_was_shown() external {
        Players memory p = reach(Phase.PickWord);
        bytes memory page = Toy.page(p.shown[at().value], 0);
        refuses(challenger, abi.encodeCall(IDispute.pickWord, (game, position(), 256, page)), outOfRange(256, 256));
        page = Toy.page(p.right[at().value], 0);
        refuses(challenger, abi.encodeCall(IDispute.pickWord, (game, position(), 2, page)), badProof);
    }

    function test_revealPartials_shows_all_inner_ends() external {
        reach(Phase.RevealPartials);
        bytes memory call = abi.encodeCall(IDispute.revealPartials, (game, position(), new bytes(20)));
        refuses(solver, call, wrongLength(20, 72));
    }

    function test_pickPartial_picks_from_what_was_shown() external {
        Players memory p = reach(Phase.PickPartial);
        bytes memory call = abi.encodeCall(IDispute.pickPartial, (game, position(), 19, p.partials));
        refuses(challenger, call, outOfRange(19, 19));
        call = abi.encodeCall(IDispute.pickPartial, (game, position(), 1, partials(p, at(), true)));
        refuses(challenger, call, badProof);
    }

    // ---------------------------------------------------------------- last moves

    function test_prove_takes_the_disputed_nest_only() external {
        Players memory p = reach(Phase.Prove);
        ProgramLeaf memory header = programLeaf(p.shape, 0);
        ProgramLeaf memory nest = programLeaf(p.shape, 2);
        ValueProof[] memory values = valueProofs(p, at());
        Page[] memory pages = openings(p, at());
        refuses(challenger, abi.encodeCall(IDispute.prove, (game, position(), header, nest, values, pages)), badProof);
    }

    function test_prove_takes_values_with_their_proofs() external {
        Players memory p = reach(Phase.Prove);
        ValueProof[] memory values = valueProofs(p, at());
        values[0].root = keccak256("another");
        refuses(challenger, prove(p, values, openings(p, at())), badProof);
        values = valueProofs(p, at());
        values[0].proof = Trees.concat(values[0].proof, new bytes32[](1));
        refuses(challenger, prove(p, values, openings(p, at())), badProof);
        values = valueProofs(p, at());
        values[0].value = 5;
        refuses(challenger, prove(p, values, openings(p, at())), badProof);
    }

    function test_prove_takes_state_and_data_with_their_proofs() external {
        Players memory p = began(Fault({step: 2, next: false, value: 10, word: 1, iteration: 0, mask: 8}));
        playTo(p, Phase.Prove);
        for (uint32 value = 0; value < 8; ++value) {
            ValueProof[] memory values = new ValueProof[](1);
            values[0] = valueProof(p, at(), value);
            bytes memory missing = abi.encodeWithSelector(IReferee.MissingPage.selector, 1, 0);
            refuses(challenger, prove(p, values, new Page[](0)), missing);
            values[0].value = (value + 1) % 8;
            refuses(challenger, prove(p, values, new Page[](0)), badProof);
            values[0].value = value;
            values[0].proof = new bytes32[](0);
            refuses(challenger, prove(p, values, new Page[](0)), badProof);
        }
    }

    function test_prove_takes_only_what_comes_before_the_nest() external {
        Players memory p = reach(Phase.Prove);
        ValueProof[] memory values = new ValueProof[](1);
        values[0] = valueProof(p, at(), 7);
        refuses(challenger, prove(p, values, new Page[](0)), outOfRange(7, 7));
    }

    function test_proveNext_takes_the_value_that_the_program_names() external {
        Players memory p = reach(Phase.ProveNext);
        ProgramLeaf memory header = programLeaf(p.shape, 0);
        ValueProof memory value = valueProof(p, at(), 10);
        refuses(challenger, abi.encodeCall(IDispute.proveNext, (game, position(), header, value)), badProof);
        value = valueProof(p, at(), 9);
        value.root = keccak256("another");
        refuses(challenger, abi.encodeCall(IDispute.proveNext, (game, position(), header, value)), badProof);
    }

    function prove(Players memory p, ValueProof[] memory values, Page[] memory pages)
        private
        view
        returns (bytes memory)
    {
        ProgramLeaf memory header = programLeaf(p.shape, 0);
        ProgramLeaf memory nest = programLeaf(p.shape, 2 + at().value - Toy.FIRST_NEST);
        return abi.encodeCall(IDispute.prove, (game, position(), header, nest, values, pages));
    }

    function sealNow() private view returns (Seal) {
        return market.segments(job, 0).seal;
    }
}
