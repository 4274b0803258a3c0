// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAudit, Outcome, Round} from "../../interfaces/IAudit.sol";
import {IMarket, SegmentState} from "../../interfaces/IMarket.sol";
import {JobId, Seal} from "../../types/Ids.sol";
import {AuditFixture} from "./support/AuditFixture.sol";

/// A round from the commit to the end: draw, attestations, trace root, pay, penalty.
contract AuditRoundsTest is AuditFixture {
    // ---------------------------------------------------------------- opening

    function test_a_commit_opens_a_round() external {
        claim(solver, 0);
        uint48 here = uint48(vm.getBlockNumber());
        uint48 until = uint48(vm.getBlockTimestamp() + WINDOW - WINDOW / 2);
        vm.expectEmit(address(audit));
        emit IAudit.Opened(job, 0, 0, ALL, 10, uint128(pot(0)), here + 1, until);
        commit(solver, 0);
        Round memory r = round(0);
        assertOutcome(0, 0, Outcome.Open);
        assertEq(r.rate, ALL, "rate");
        assertEq(r.seats, 10, "seats");
        assertEq(r.solver, solver, "solver");
        assertEq(r.committedIn, here, "committedIn");
        assertEq(r.drawBlock, here + 1, "drawBlock");
        assertEq(r.attestUntil, until, "attestUntil");
        assertEq(r.penalty, penalty(0), "penalty");
        assertEq(Seal.unwrap(r.seal), Seal.unwrap(sealOf(0, solver)), "seal");
        assertEq(r.seed, 0, "seed");
        assertEq(r.traceRoot, 0, "trace root");
    }

    function test_there_are_twice_as_many_seats_as_auditors_expected_and_two() external {
        job = JobId.wrap(1); // asks for none
        open(0);
        assertEq(round(0).rate, 10_000, "rate of no record");
        assertEq(round(0).seats, 4, "seats");
        settleLater(0);
        open(1);
        assertEq(round(1).rate, uint256(80_008 * 10_000) / 90_008, "rate after one");
        assertEq(round(1).seats, 4, "seats");
    }

    // ---------------------------------------------------------------- draw

    function test_the_draw_waits_for_its_block() external {
        deliver(solver, 0);
        bytes memory why = abi.encodeWithSelector(IAudit.NoSeed.selector, vm.getBlockNumber() + 1);
        for (uint256 i = 0; i < 2; ++i) {
            vm.expectRevert(why);
            audit.draw(job, 0, 0);
            vm.expectRevert(why);
            audit.isDrawn(job, 0, 0, alice);
            refusesAttest(alice, 0, why);
            roll(1);
        }
        assertTrue(isDrawn(0, alice), "known before anybody draws");
        audit.draw(job, 0, 0);
    }

    function test_the_draw_is_fixed_by_block_and_round() external {
        open(0);
        setSeed(0, 7);
        bytes32 seed = keccak256(abi.encode(keccak256(abi.encode(7)), job, uint32(0), uint32(0)));
        vm.expectEmit(address(audit));
        emit IAudit.Drawn(job, 0, 0, seed);
        vm.prank(stranger);
        audit.draw(job, 0, 0);
        assertEq(round(0).seed, seed, "seed");
        vm.expectRevert(abi.encodeWithSelector(IAudit.AlreadyDrawn.selector, seed));
        audit.draw(job, 0, 0);
    }

    function test_a_missed_draw_is_made_again() external {
        open(0);
        roll(255);
        uint256 before = vm.snapshotState();
        audit.draw(job, 0, 0); // the last block that knows the hash
        vm.revertToState(before);
        roll(1);
        bytes memory why = abi.encodeWithSelector(IAudit.NoSeed.selector, round(0).drawBlock);
        refusesAttest(alice, 0, why);
        uint48 next = uint48(vm.getBlockNumber() + 1);
        vm.expectEmit(address(audit));
        emit IAudit.DrawMissed(job, 0, 0, next);
        audit.draw(job, 0, 0);
        assertEq(round(0).drawBlock, next, "drawBlock");
        vm.expectRevert(abi.encodeWithSelector(IAudit.NoSeed.selector, next));
        audit.draw(job, 0, 0);
        roll(2);
        attest(alice, 0);
        assertTrue(round(0).seed != 0, "seed");
    }

    function test_a_missed_draw_is_not_made_again_when_attesting_is_over() external {
        open(0);
        roll(256);
        pass(WINDOW / 2);
        uint256 before = vm.snapshotState();
        audit.draw(job, 0, 0);
        vm.revertToState(before);
        pass(1);
        vm.expectRevert(abi.encodeWithSelector(IAudit.TooLate.selector, round(0).attestUntil));
        audit.draw(job, 0, 0);
    }

    function test_nobody_is_drawn_who_could_not_attest_any_more() external {
        open(0);
        pass(WINDOW / 2 + 1);
        assertTrue(blockhash(round(0).drawBlock) != 0, "the hash is known");
        vm.expectRevert(abi.encodeWithSelector(IAudit.TooLate.selector, round(0).attestUntil));
        audit.draw(job, 0, 0);
        settleLater(0);
        vm.expectRevert(abi.encodeWithSelector(IAudit.NoSeed.selector, round(0).drawBlock));
        audit.punish(job, 0, 0, alice);
    }

    function test_there_is_nothing_to_draw_before_a_commit_or_after_the_end() external {
        bytes memory why = abi.encodeWithSelector(IAudit.UnknownRound.selector, job, 0, 0);
        vm.expectRevert(why);
        audit.draw(job, 0, 0);
        vm.expectRevert(why);
        audit.isDrawn(job, 0, 0, alice);
        vm.expectRevert(why);
        audit.reveal(job, 0, 0, 0);
        vm.expectRevert(why);
        audit.punish(job, 0, 0, alice);
        open(0);
        settleLater(0);
        why = abi.encodeWithSelector(IAudit.WrongOutcome.selector, Outcome.Settled, Outcome.Open);
        vm.expectRevert(why);
        audit.draw(job, 0, 0);
        refusesAttest(alice, 0, why);
        vm.expectRevert(why);
        audit.reveal(job, 0, 0, traceRoot(0));
    }

    // ---------------------------------------------------------------- attestations

    function test_the_drawn_attest() external {
        open(0);
        vm.expectEmit(address(audit));
        emit IAudit.Attested(job, 0, alice, 0, sealOf(0, alice));
        attest(alice, 0);
        attest(bob, 0);
        assertEq(round(0).attestations, 2, "attestations");
        assertEq(Seal.unwrap(audit.attestationOf(job, 0, 0, alice)), Seal.unwrap(sealOf(0, alice)), "attestation");
        assertEq(Seal.unwrap(audit.attestationOf(job, 0, 0, carol)), 0, "none");
        assertEq(audit.attestors(job, 0, 0).length, 2, "attestors");
        assertEq(audit.attestors(job, 0, 0)[1], bob, "in order");
    }

    function test_attestations_end_before_the_trace_root_may_be_shown() external {
        open(0);
        pass(WINDOW / 2);
        uint48 until = round(0).attestUntil;
        vm.expectRevert(abi.encodeWithSelector(IAudit.TooEarly.selector, until));
        audit.reveal(job, 0, 0, traceRoot(0));
        attest(alice, 0);
        pass(1);
        refusesAttest(bob, 0, abi.encodeWithSelector(IAudit.TooLate.selector, until));
        audit.reveal(job, 0, 0, traceRoot(0));
    }

    function test_an_attestation_is_to_the_commitment_that_was_seen() external {
        open(0);
        (Seal seal, Seal another, Seal right) = (sealOf(0, solver), sealOf(1, solver), sealOf(0, alice));
        bytes memory why = abi.encodeWithSelector(IAudit.WrongSeal.selector, seal, another);
        refusesAttest(alice, 0, 0, another, right, why);
        refusesAttest(alice, 0, 1, seal, right, abi.encodeWithSelector(IAudit.UnknownRound.selector, job, 0, 1));
    }

    function test_nothing_is_no_attestation() external {
        open(0);
        bytes memory why = abi.encodeWithSelector(IAudit.NoAttestation.selector);
        refusesAttest(alice, 0, 0, sealOf(0, solver), Seal.wrap(0), why);
    }

    function test_when_seats_are_taken_nobody_sits_down() external {
        job = JobId.wrap(1); // one auditor expected, so 4 seats
        address[40] memory crowd;
        for (uint256 i = 0; i < crowd.length; ++i) {
            crowd[i] = makeAddr(string.concat("auditor ", vm.toString(i)));
            enroll(crowd[i], WEIGHT);
        }
        roll(1);
        open(0);
        (address[] memory drawn, uint256 count) = (new address[](40), 0);
        for (uint256 label = 0; count < 5; ++label) {
            setSeed(0, label);
            count = 0;
            for (uint256 i = 0; i < crowd.length; ++i) {
                if (isDrawn(0, crowd[i])) drawn[count++] = crowd[i];
            }
        }
        for (uint256 i = 0; i < 4; ++i) {
            attest(drawn[i], 0);
        }
        refusesAttest(drawn[4], 0, abi.encodeWithSelector(IAudit.SeatsTaken.selector, 4));
        settleLater(0);
        vm.expectRevert(abi.encodeWithSelector(IAudit.NotAtFault.selector, drawn[4]));
        audit.punish(job, 0, 0, drawn[4]);
        assertEq(market.owed(drawn[3]), pot(0) / 4, "share");
    }

    // ---------------------------------------------------------------- the trace root

    function test_reveal_shows_what_the_seal_hides_and_once() external {
        open(0);
        pass(WINDOW / 2 + 1);
        bytes32 wrong = traceRoot(1);
        vm.expectRevert(abi.encodeWithSelector(IAudit.WrongTrace.selector, wrong));
        audit.reveal(job, 0, 0, wrong);
        vm.expectEmit(address(audit));
        emit IAudit.Revealed(job, 0, 0, traceRoot(0));
        vm.prank(stranger);
        audit.reveal(job, 0, 0, traceRoot(0));
        vm.expectRevert(abi.encodeWithSelector(IAudit.AlreadyRevealed.selector, traceRoot(0)));
        audit.reveal(job, 0, 0, traceRoot(0));
        pass(WINDOW);
        market.settle(job, 0, spec(0), 0); // it is known by now
        assertEq(round(0).traceRoot, traceRoot(0), "trace root");
    }

    function test_settle_needs_the_trace_root() external {
        open(0);
        pass(WINDOW + 1);
        vm.expectRevert(abi.encodeWithSelector(IAudit.WrongTrace.selector, bytes32(0)));
        market.settle(job, 0, spec(0), 0);
        vm.expectRevert(abi.encodeWithSelector(IAudit.WrongTrace.selector, traceRoot(1)));
        market.settle(job, 0, spec(0), traceRoot(1));
        vm.expectEmit(address(audit));
        emit IAudit.Revealed(job, 0, 0, traceRoot(0));
        vm.expectEmit(address(audit));
        emit IAudit.Ended(job, 0, 0, Outcome.Settled);
        market.settle(job, 0, spec(0), traceRoot(0));
    }

    // ---------------------------------------------------------------- pay

    function test_right_attestations_share_the_pot() external {
        open(0);
        attest(alice, 0);
        attest(bob, 0, sealOf(1, bob)); // of another trace
        attest(carol, 0);
        pass(WINDOW + 1);
        vm.expectEmit(address(market));
        emit IMarket.Audited(job, 0, alice, pot(0) / 2);
        vm.expectEmit(address(market));
        emit IMarket.Audited(job, 0, carol, pot(0) / 2);
        settle(0);
        assertEq(market.owed(alice), pot(0) / 2, "alice");
        assertEq(market.owed(bob), 0, "bob");
        assertEq(market.owed(carol), pot(0) / 2, "carol");
        assertEq(market.owed(solver), pay(0), "solver");
        assertEq(spent(), PRICE + 2 * (pot(0) / 2), "spent");
        assertEq(audit.records(alice).attested, 1, "attested");
        assertEq(audit.records(bob).attested, 0, "attested");
    }

    function test_what_does_not_divide_stays_in_the_escrow() external {
        open(0);
        attest(alice, 0);
        attest(bob, 0);
        attest(carol, 0);
        settleLater(0);
        uint256 paid = PRICE + 3 * (pot(0) / 3);
        assertTrue(pot(0) % 3 > 0, "rounded");
        assertEq(spent(), paid, "spent");
        vm.warp(DEADLINE + 1);
        market.refund(job);
        assertEq(market.owed(buyer), ESCROW - paid, "goes back");
    }

    function test_fees_are_burned_and_earn_points() external {
        open(0);
        attest(alice, 0);
        settleLater(0);
        assertEq(market.burned(), fee(0), "burned");
        assertEq(emission.fees(0), fee(0), "fees");
        assertEq(emission.points(0, solver), fee(0) * 60 / 100, "solver");
        assertEq(emission.points(0, buyer), fee(0) * 15 / 100, "buyer");
        assertEq(emission.points(0, alice), fee(0) * 25 / 100, "auditor");
        assertEq(emission.points(0, bob), 0, "no auditor");
        uint256 held = money.balanceOf(address(market));
        market.sweep();
        assertEq(market.burned(), 0, "swept");
        assertEq(money.balanceOf(BURNED), fee(0), "gone");
        assertEq(money.balanceOf(address(market)), held - fee(0), "held");
    }

    // ---------------------------------------------------------------- penalties

    function test_silence_costs_a_little_and_once() external {
        open(0);
        attest(alice, 0);
        settleLater(0);
        vm.expectEmit(address(audit));
        emit IAudit.Silent(job, 0, bob, 0, penalty(0), stranger);
        punish(stranger, 0, bob);
        assertEq(audit.weightOf(bob), WEIGHT - penalty(0), "weight");
        assertEq(audit.totalWeight(), 3 * WEIGHT - penalty(0), "all");
        assertEq(locked(bob), WEIGHT - penalty(0), "locked");
        assertEq(free(stranger), penalty(0) / 2, "reporter");
        assertEq(stake.burned(), penalty(0) - penalty(0) / 2, "burned");
        assertEq(audit.records(bob).silent, 1, "on record");
        vm.expectRevert(abi.encodeWithSelector(IAudit.AlreadyPunished.selector, bob));
        punish(stranger, 0, bob);
        vm.expectRevert(abi.encodeWithSelector(IAudit.NotAtFault.selector, alice));
        punish(stranger, 0, alice);
    }

    function test_a_wrong_attestation_costs_as_much() external {
        open(0);
        attest(bob, 0, sealOf(1, bob));
        settleLater(0);
        vm.expectEmit(address(audit));
        emit IAudit.Misattested(job, 0, bob, 0, penalty(0), stranger);
        punish(stranger, 0, bob);
        assertEq(audit.weightOf(bob), WEIGHT - penalty(0), "weight");
        assertEq(audit.records(bob).misattested, 1, "on record");
        vm.expectRevert(abi.encodeWithSelector(IAudit.AlreadyPunished.selector, bob));
        punish(stranger, 0, bob);
    }

    function test_nobody_is_punished_who_was_not_drawn_or_for_what_did_not_settle() external {
        open(0);
        audit.draw(job, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IAudit.WrongOutcome.selector, Outcome.Open, Outcome.Settled));
        punish(stranger, 0, bob);
        settleLater(0);
        vm.expectRevert(abi.encodeWithSelector(IAudit.NotDrawn.selector, stranger));
        punish(stranger, 0, stranger);
        vm.expectRevert(abi.encodeWithSelector(IAudit.NotDrawn.selector, solver));
        punish(stranger, 0, solver);
    }

    function test_without_a_seed_nobody_was_drawn() external {
        open(0);
        settleLater(0);
        vm.expectRevert(abi.encodeWithSelector(IAudit.NoSeed.selector, round(0).drawBlock));
        punish(stranger, 0, bob);
    }

    function test_who_is_drawn_late_may_be_silent_but_not_wrong() external {
        open(0);
        roll(256);
        audit.draw(job, 0, 0);
        roll(2);
        attest(alice, 0, sealOf(1, alice));
        settleLater(0);
        vm.expectRevert(abi.encodeWithSelector(IAudit.NotAtFault.selector, bob));
        punish(stranger, 0, bob);
        punish(stranger, 0, alice);
    }

    function test_a_penalty_takes_weight_first_and_then_what_is_leaving() external {
        open(0);
        audit.draw(job, 0, 0);
        uint256 stays = penalty(0) / 3;
        leave(bob, WEIGHT - stays);
        settleLater(0);
        punish(stranger, 0, bob);
        (uint256 leaving,) = audit.leavingOf(bob);
        assertEq(audit.weightOf(bob), 0, "weight");
        assertEq(leaving, WEIGHT - penalty(0), "leaving");
        assertEq(locked(bob), leaving, "locked");
    }

    function test_a_penalty_takes_no_more_than_there_is() external {
        address poor = makeAddr("poor");
        enroll(poor, 10);
        roll(1);
        open(0);
        for (uint256 label = 0; !isDrawn(0, poor); ++label) {
            setSeed(0, label);
        }
        audit.draw(job, 0, 0);
        settleLater(0);
        vm.expectEmit(address(audit));
        emit IAudit.Silent(job, 0, poor, 0, 10, stranger);
        punish(stranger, 0, poor);
        assertEq(locked(poor) + free(poor), 0, "all of it");
    }

    // ---------------------------------------------------------------- other ends

    function test_an_overturned_commitment_pays_and_costs_no_auditor() external {
        open(0);
        attest(alice, 0);
        overturn(0);
        assertOutcome(0, 0, Outcome.Overturned);
        assertEq(market.owed(alice), 0, "owed");
        bytes memory why = abi.encodeWithSelector(IAudit.WrongOutcome.selector, Outcome.Overturned, Outcome.Settled);
        vm.expectRevert(why);
        audit.punish(job, 0, 0, alice);
        vm.expectRevert(why);
        audit.punish(job, 0, 0, bob);
        assertEq(reserved(), 0, "reserved");
        assertState(0, SegmentState.Open);
    }

    function test_a_voided_commitment_ends_its_audit() external {
        open(0);
        deliver(other, 1);
        overturn(0);
        market.void(job, 1, spec(1));
        assertOutcome(1, 0, Outcome.Voided);
        assertEq(audit.records(other).overturned, 0, "no fault");
    }

    function test_a_voided_claim_has_no_audit() external {
        open(0);
        claim(other, 1);
        overturn(0);
        market.void(job, 1, spec(1));
        assertOutcome(1, 0, Outcome.None);
    }

    function test_each_attempt_has_its_own_audit() external {
        open(0);
        attest(alice, 0);
        overturn(0);
        deliver(challenger, 0);
        roll(2);
        attest(alice, 0);
        attest(bob, 0);
        settleLater(0);
        assertEq(market.owed(alice), pot(0) / 2, "for the second only");
        assertOutcome(0, 0, Outcome.Overturned);
        assertOutcome(0, 1, Outcome.Settled);
    }
}
