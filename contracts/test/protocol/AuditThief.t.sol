// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAudit, Opening, Outcome} from "../../interfaces/IAudit.sol";
import {IMarket, JobTerms, SegmentSpec} from "../../interfaces/IMarket.sol";
import {IStake} from "../../interfaces/IStake.sol";
import {GameId, JobId, Seal} from "../../types/Ids.sol";
import {AuditFixture} from "./support/AuditFixture.sol";

/// What those try who want an auditor's pay without a replay, an auditor's stake, or a draw of their own.
contract AuditThiefTest is AuditFixture {
    address private mallory = makeAddr("mallory");

    // ---------------------------------------------------------------- pay without a replay

    function test_who_is_not_drawn_attests_nothing() external {
        open(0);
        refusesAttest(stranger, 0, abi.encodeWithSelector(IAudit.NotDrawn.selector, stranger));
        refusesAttest(solver, 0, abi.encodeWithSelector(IAudit.NotDrawn.selector, solver));
    }

    /// A copied attestation names the auditor it was copied from.
    function test_a_copied_attestation_earns_nothing_and_costs() external {
        open(0);
        attest(alice, 0);
        attest(bob, 0, audit.attestationOf(job, 0, 0, alice));
        settleLater(0);
        assertEq(market.owed(alice), pot(0), "all of it");
        assertEq(market.owed(bob), 0, "copy");
        punish(stranger, 0, bob);
    }

    /// The seal names the solver: it is not an auditor's attestation.
    function test_the_seal_is_no_attestation() external {
        open(0);
        attest(bob, 0, at(0).seal);
        settleLater(0);
        assertEq(market.owed(bob), 0, "copy");
    }

    function test_guesses_earn_nothing(bytes32 guess) external {
        vm.assume(guess != 0 && guess != Seal.unwrap(sealOf(0, bob)));
        open(0);
        attest(bob, 0, Seal.wrap(guess));
        settleLater(0);
        assertEq(market.owed(bob), 0, "guess");
        punish(stranger, 0, bob);
    }

    function test_nobody_attests_twice() external {
        open(0);
        attest(bob, 0, Seal.wrap(keccak256("a guess")));
        refusesAttest(bob, 0, abi.encodeWithSelector(IAudit.AlreadyAttested.selector, bob));
    }

    /// A right attestation of an attempt that fell says nothing about the next.
    function test_an_attestation_is_not_carried_over() external {
        open(0);
        attest(alice, 0);
        overturn(0);
        deliver(challenger, 0);
        roll(2);
        settleLater(0);
        assertEq(market.owed(alice), 0, "owed");
    }

    /// The trace root is out when attestations are in, whoever shows it and however: reveal, settle or a game.
    function test_the_trace_root_is_out_too_late_for_copies() external {
        open(0);
        uint48 until = round(0).attestUntil;
        vm.prank(solver);
        vm.expectRevert(abi.encodeWithSelector(IAudit.TooEarly.selector, until));
        audit.reveal(job, 0, 0, traceRoot(0));
        (SegmentSpec memory s, uint64 end) = (spec(0), at(0).until);
        vm.expectRevert(abi.encodeWithSelector(IMarket.NotYet.selector, end));
        market.settle(job, 0, s, traceRoot(0));
        challenge(challenger);
        assertEq(dispute.games(lastGame()).since, until + 1, "games begin later");
    }

    // ---------------------------------------------------------------- a draw of one's own

    function test_who_enrols_with_or_after_the_commit_is_not_drawn() external {
        claim(solver, 0);
        enroll(mallory, 1_000_000 * WEIGHT); // in the block of the commit, and before it
        commit(solver, 0);
        roll(1);
        enroll(mallory, 1_000_000 * WEIGHT);
        roll(1);
        assertFalse(isDrawn(0, mallory), "too late");
        for (uint256 label = 0; label < 50; ++label) {
            setSeed(0, label);
            assertFalse(isDrawn(0, mallory), "whatever the hash");
            assertTrue(isDrawn(0, alice), "nor diluted");
        }
    }

    function test_joining_and_leaving_in_one_block_leaves_no_weight() external {
        enroll(mallory, 10 * WEIGHT);
        leave(mallory, 10 * WEIGHT);
        roll(1);
        open(0);
        assertFalse(isDrawn(0, mallory), "no weight");
        (, uint64 until) = audit.leavingOf(mallory);
        assertEq(until, vm.getBlockTimestamp() + UNBONDING, "and locked all the same");
    }

    /// A flash loan cannot buy a draw: weight of a block counts for commits of later blocks, and is locked by then.
    function test_what_is_lent_for_a_block_cannot_leave_in_it() external {
        enroll(mallory, 10 * WEIGHT);
        leave(mallory, 10 * WEIGHT);
        vm.expectRevert();
        audit.finishLeaving(mallory);
        vm.prank(mallory);
        vm.expectRevert(abi.encodeWithSelector(IStake.InsufficientFree.selector, mallory, 0, 1));
        stake.withdraw(1);
    }

    function test_weight_moved_when_the_seed_is_known_changes_nothing(uint256 label) external {
        job = JobId.wrap(1); // one expected: each of the three is drawn in a third of cases
        open(0);
        setSeed(0, label);
        bool[3] memory before = [isDrawn(0, alice), isDrawn(0, bob), isDrawn(0, carol)];
        leave(alice, WEIGHT);
        leave(bob, WEIGHT / 2);
        enroll(carol, 100 * WEIGHT);
        enroll(mallory, 100 * WEIGHT);
        roll(1);
        bool[3] memory later = [isDrawn(0, alice), isDrawn(0, bob), isDrawn(0, carol)];
        assertEq(keccak256(abi.encode(later)), keccak256(abi.encode(before)), "drawn");
        assertFalse(isDrawn(0, mallory), "late");
    }

    /// Nor does what was slashed of it.
    function test_a_slashed_auditor_is_drawn_by_the_weight_of_then() external {
        open(0);
        audit.draw(job, 0, 0);
        pass(WINDOW / 2);
        deliver(solver, 1);
        settleLater(0);
        punish(stranger, 0, alice);
        roll(2);
        assertTrue(isDrawn(1, alice), "drawn");
        assertEq(audit.weightOf(alice), WEIGHT - penalty(0), "slashed");
    }

    // ---------------------------------------------------------------- statistics of the draw

    /// Of 2,000 draws with one auditor expected, an account is drawn in its part of the weight: 1, 3 and 6 tenths. Six
    /// standard deviations are allowed; hashes are fixed, so that the test always gives the same.
    function test_an_account_is_drawn_in_its_part_of_the_weight() external {
        enroll(bob, 2 * WEIGHT);
        enroll(carol, 5 * WEIGHT);
        roll(1);
        job = JobId.wrap(1);
        open(0);
        uint256[3] memory times;
        for (uint256 label = 0; label < 2000; ++label) {
            setSeed(0, label);
            if (isDrawn(0, alice)) ++times[0];
            if (isDrawn(0, bob)) ++times[1];
            if (isDrawn(0, carol)) ++times[2];
        }
        log("drawn of 2,000, a tenth of the weight", times[0]);
        log("three tenths", times[1]);
        log("six tenths", times[2]);
        vm.assertApproxEqAbs(times[0], 200, 6 * 14, "a tenth");
        vm.assertApproxEqAbs(times[1], 600, 6 * 21, "three tenths");
        vm.assertApproxEqAbs(times[2], 1200, 6 * 22, "six tenths");
    }

    /// Ten accounts with a tenth of the weight each sit down as often as one account with all of it.
    function test_splitting_weight_gains_no_seats() external {
        address[10] memory sybils;
        for (uint256 i = 0; i < 10; ++i) {
            sybils[i] = makeAddr(string.concat("sybil ", vm.toString(i)));
            enroll(sybils[i], WEIGHT / 10);
        }
        roll(1);
        job = JobId.wrap(1);
        open(0);
        (uint256 whole, uint256 split) = (0, 0);
        for (uint256 label = 0; label < 1000; ++label) {
            setSeed(0, label);
            if (isDrawn(0, alice)) ++whole;
            for (uint256 i = 0; i < 10; ++i) {
                if (isDrawn(0, sybils[i])) ++split;
            }
        }
        log("seats of one account, of 1,000", whole);
        log("of ten with as much together", split);
        vm.assertApproxEqAbs(whole, 250, 6 * 14, "a quarter");
        vm.assertApproxEqAbs(split, 250, 6 * 16, "a quarter");
    }

    // ---------------------------------------------------------------- an auditor's stake

    function test_the_penalty_outlasts_leaving() external {
        roll(1);
        deliver(solver, 0);
        leave(bob, WEIGHT); // in the block of the commit, which draws by the weight before it
        roll(2);
        audit.draw(job, 0, 0);
        assertTrue(isDrawn(0, bob), "drawn");
        pass(WINDOW + 2 * CLOCK); // the longest a dispute takes
        vm.expectPartialRevert(IAudit.TooEarly.selector);
        audit.finishLeaving(bob);
        pass(1);
        settle(0);
        punish(stranger, 0, bob);
        assertEq(locked(bob), WEIGHT - penalty(0), "locked");
        pass(UNBONDING);
        audit.finishLeaving(bob);
        assertEq(free(bob), WEIGHT - penalty(0), "the rest");
    }

    /// A buyer who is the solver too may post work that nobody can replay, and report the silent. It pays fees for that:
    /// even with all four auditors silent that can be expected, the reporter gains less than the fee.
    function test_nobody_lives_on_penalties(uint128 pot_, uint128 fee_) external {
        Opening memory opening;
        (opening.pot, opening.fee) = (pot_, fee_);
        vm.prank(address(market));
        audit.open(job, 0, 0, opening);
        uint256 most = audit.rounds(job, 0, 0).penalty;
        assertLe(4 * (most / 2), fee_ / 5, "four bounties");
        assertLe(most, pot_ / 10, "small beside the pot");
    }

    function test_work_that_nobody_can_audit_loses_money() external {
        uint256 before = wealth(solver) + wealth(buyer) + wealth(stranger) + ESCROW;
        open(0);
        audit.draw(job, 0, 0);
        settleLater(0);
        punish(stranger, 0, alice);
        punish(stranger, 0, bob);
        punish(stranger, 0, carol);
        vm.warp(DEADLINE + 1);
        market.refund(job);
        uint256 later = wealth(solver) + wealth(buyer) + wealth(stranger);
        assertEq(before + 3 * (penalty(0) / 2) - fee(0), later, "penalties less the fee");
        assertLe(later, before, "together they lose");
    }

    /// A solver may lose the game of a right commitment on purpose. It hurts nobody who attested what is right.
    function test_a_game_thrown_away_takes_nothing_from_auditors() external {
        open(0);
        attest(alice, 0);
        fund(mallory, STAKE);
        deposit(mallory, STAKE);
        challenge(mallory);
        pass(WINDOW + CLOCK);
        dispute.timeout(lastGame());
        assertOutcome(0, 0, Outcome.Overturned);
        vm.expectPartialRevert(IAudit.WrongOutcome.selector);
        audit.punish(job, 0, 0, alice);
        assertEq(locked(alice), WEIGHT, "alice's stake");
        assertEq(free(mallory) + free(solver), PURSE / 2 + STAKE - (STAKE - STAKE / 2), "half a stake is lost");
    }

    // ---------------------------------------------------------------- a solver's stake

    /// Whatever the buyer does, who reveals in time is paid.
    function test_honest_work_is_neither_forfeited_nor_overturned() external {
        open(0);
        SegmentSpec memory s = spec(0);
        challenge(buyer);
        pass(WINDOW / 2 + 1);
        vm.prank(solver);
        audit.reveal(job, 0, 0, traceRoot(0));
        pass(WINDOW + 2 * CLOCK);
        vm.expectRevert(abi.encodeWithSelector(IMarket.DisputesOpen.selector, 1));
        market.forfeit(job, 0, s);
        vm.prank(address(dispute));
        market.upheld(job, 0, 0); // the game that the honest side always wins
        vm.expectRevert(IMarket.Revealed.selector);
        market.forfeit(job, 0, s);
        settle(0);
        assertEq(market.owed(solver), pay(0), "paid");
        assertEq(free(solver), PURSE / 2, "stake");
    }

    function test_forfeiting_to_oneself_loses_money() external {
        JobTerms memory t = terms();
        vm.prank(solver);
        job = market.post(t, CID);
        uint256 before = wealth(solver) + locked(solver);
        deliver(solver, 0);
        pass(WINDOW + CLOCK + 1);
        market.forfeit(job, 0, spec(0));
        assertEq(wealth(solver) + locked(solver), before - (STAKE - STAKE / 2), "half a stake");
    }

    // ---------------------------------------------------------------- with oneself

    /// Buyer, solver, auditor and reporter in one hand: all that comes back is what was put in, less the fee.
    function test_working_for_oneself_costs_the_fee(bool silent) external {
        enroll(mallory, 100 * WEIGHT);
        roll(1);
        address[3] memory hands = [buyer, solver, mallory];
        uint256 before = ESCROW;
        for (uint256 i = 0; i < 3; ++i) {
            before += wealth(hands[i]) + locked(hands[i]);
        }
        open(0);
        if (silent) audit.draw(job, 0, 0);
        else attest(mallory, 0);
        settleLater(0);
        if (silent) punish(buyer, 0, mallory);
        vm.warp(DEADLINE + 1);
        market.refund(job);
        uint256 later = 0;
        for (uint256 i = 0; i < 3; ++i) {
            later += wealth(hands[i]) + locked(hands[i]);
        }
        uint256 lost = fee(0) + (silent ? penalty(0) - penalty(0) / 2 : 0);
        assertEq(later, before - lost, "lost");
    }

    /// What solver and auditor can take together is the pot and the price: never more than was reserved for the segment.
    function test_solver_and_auditors_get_no_more_than_was_reserved(uint8 attested) external {
        address[3] memory auditors = [alice, bob, carol];
        uint256 reserve = cost(0);
        open(0);
        for (uint256 i = 0; i < 3; ++i) {
            if (attested >> i & 1 == 1) attest(auditors[i], 0);
        }
        settleLater(0);
        uint256 owed = market.owed(solver) + market.owed(alice) + market.owed(bob) + market.owed(carol);
        assertLe(owed + market.burned(), reserve, "within the reserve");
        assertEq(spent(), owed + market.burned(), "spent");
    }

    // ---------------------------------------------------------------- first come

    /// Every public call of another does to the victim just what their own would have done, or reverts.
    function test_running_in_front_gains_nothing() external {
        open(0);
        vm.prank(mallory);
        audit.draw(job, 0, 0); // alice's own draw would have given the same
        attest(alice, 0);
        Seal right = sealOf(0, alice);
        refusesAttest(mallory, 0, 0, at(0).seal, right, abi.encodeWithSelector(IAudit.NotDrawn.selector, mallory));
        pass(WINDOW + 1);
        vm.startPrank(mallory);
        audit.reveal(job, 0, 0, traceRoot(0)); // the solver's settle may name the trace root all the same
        vm.stopPrank();
        vm.prank(solver);
        settle(0);
        assertEq(market.owed(solver), pay(0), "solver");
        assertEq(market.owed(alice), pot(0), "alice");
        assertEq(market.owed(mallory) + free(mallory), 0, "mallory");
    }

    /// A reporter in front of another takes the bounty; the auditor pays once.
    function test_two_reporters_share_no_penalty() external {
        open(0);
        audit.draw(job, 0, 0);
        settleLater(0);
        punish(mallory, 0, bob);
        vm.expectRevert(abi.encodeWithSelector(IAudit.AlreadyPunished.selector, bob));
        punish(stranger, 0, bob);
        assertEq(locked(bob), WEIGHT - penalty(0), "once");
    }

    /// An auditor who reports itself still loses the burned half.
    function test_reporting_oneself_costs_half() external {
        open(0);
        audit.draw(job, 0, 0);
        settleLater(0);
        punish(bob, 0, bob);
        assertEq(free(bob) + locked(bob), WEIGHT - (penalty(0) - penalty(0) / 2), "half");
    }

    // ---------------------------------------------------------------- helpers

    function lastGame() private view returns (GameId) {
        return GameId.wrap(dispute.gameCount());
    }

    function challenge(address account) private {
        (SegmentSpec memory s, Seal seal) = (spec(0), at(0).seal);
        vm.prank(account);
        dispute.challenge(job, 0, s, seal);
    }

    /// All that an account has or is owed, but for what is locked.
    function wealth(address account) private view returns (uint256) {
        return money.balanceOf(account) + free(account) + market.owed(account);
    }
}
