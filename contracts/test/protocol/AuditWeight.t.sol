// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAudit, Opening, Outcome} from "../../interfaces/IAudit.sol";
import {IStake} from "../../interfaces/IStake.sol";
import {AuditFixture} from "./support/AuditFixture.sol";

/// Enrolling and leaving, who may call what, and how often auditors come.
contract AuditWeightTest is AuditFixture {
    address private dora = makeAddr("dora");

    // ---------------------------------------------------------------- enrolling

    function test_enroll_locks_stake_as_weight() external {
        fund(dora, 100);
        deposit(dora, 100);
        vm.expectEmit(address(audit));
        emit IAudit.Enrolled(dora, 60, 60);
        vm.prank(dora);
        audit.enroll(60);
        assertWeight(dora, 60, 0);
        assertEq(audit.totalWeight(), 3 * WEIGHT + 60, "all");
        assertEq(free(dora), 40, "free");
        vm.prank(dora);
        audit.enroll(40);
        assertWeight(dora, 100, 0);
    }

    function test_enroll_needs_free_stake() external {
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(IStake.InsufficientFree.selector, alice, 0, 1));
        audit.enroll(1);
        assertEq(audit.totalWeight(), 3 * WEIGHT, "all");
    }

    function test_enroll_of_any_amount_that_is_not_there_reverts(uint256 amount) external {
        amount = bound(amount, 1, type(uint256).max - WEIGHT);
        vm.prank(alice);
        vm.expectRevert();
        audit.enroll(amount);
    }

    // ---------------------------------------------------------------- leaving

    function test_leave_takes_weight_at_once_and_stake_later() external {
        uint64 until = uint64(vm.getBlockTimestamp()) + UNBONDING;
        vm.expectEmit(address(audit));
        emit IAudit.Leaving(alice, 1000, WEIGHT - 1000, until);
        leave(alice, 1000);
        assertWeight(alice, WEIGHT - 1000, 1000);
        assertEq(audit.totalWeight(), 3 * WEIGHT - 1000, "all");
        vm.warp(until - 1);
        vm.expectRevert(abi.encodeWithSelector(IAudit.TooEarly.selector, until));
        audit.finishLeaving(alice);
        vm.warp(until);
        vm.expectEmit(address(audit));
        emit IAudit.Left(alice, 1000);
        vm.prank(stranger);
        audit.finishLeaving(alice);
        assertWeight(alice, WEIGHT - 1000, 0);
        assertEq(free(alice), 1000, "free");
        vm.expectRevert(abi.encodeWithSelector(IAudit.NothingToLeave.selector, alice));
        audit.finishLeaving(alice);
    }

    function test_leaving_again_starts_the_time_anew() external {
        leave(alice, 1000);
        pass(UNBONDING - 1);
        leave(alice, 1);
        (uint256 amount, uint64 until) = audit.leavingOf(alice);
        assertEq(amount, 1001, "both");
        assertEq(until, vm.getBlockTimestamp() + UNBONDING, "anew");
        pass(1);
        vm.expectRevert(abi.encodeWithSelector(IAudit.TooEarly.selector, until));
        audit.finishLeaving(alice);
    }

    function test_nobody_leaves_with_more_than_they_have() external {
        vm.startPrank(alice);
        vm.expectRevert(abi.encodeWithSelector(IAudit.NotEnrolled.selector, alice, WEIGHT, WEIGHT + 1));
        audit.leave(WEIGHT + 1);
        vm.expectRevert(abi.encodeWithSelector(IAudit.NotEnrolled.selector, alice, WEIGHT, 0));
        audit.leave(0);
        audit.leave(WEIGHT);
        vm.expectRevert(abi.encodeWithSelector(IAudit.NotEnrolled.selector, alice, 0, 1));
        audit.leave(1);
        vm.expectRevert(abi.encodeWithSelector(IStake.InsufficientFree.selector, alice, 0, 1));
        stake.withdraw(1);
    }

    function assertWeight(address account, uint256 weight, uint256 leaving) private view {
        (uint256 amount,) = audit.leavingOf(account);
        assertEq(audit.weightOf(account), weight, "weight");
        assertEq(amount, leaving, "leaving");
        assertEq(locked(account), weight + leaving, "locked");
    }

    // ---------------------------------------------------------------- rate

    function test_the_rate_falls_with_the_record_seen_from_the_price() external {
        assertEq(audit.rateOf(solver, PRICE, 0), 10_000, "one, without a record");
        assertEq(audit.rateOf(solver, 0, 0), 10_000, "for nothing too");
        deliver(solver, 0);
        settleLater(0);
        assertEq(audit.records(solver).unbroken, PRICE, "unbroken");
        assertEq(audit.rateOf(solver, PRICE, 0), uint256(10_000) * 8 / 9, "after one at that price");
        assertEq(audit.rateOf(solver, PRICE / 8, 0), 5000, "half at an eighth of the record");
        assertEq(
            audit.rateOf(solver, PRICE * 1000, 0), uint256(10_000) * 8000 / 8001, "a cheap record shields no dear work"
        );
        assertEq(audit.rateOf(solver, 1, 0), 500, "the floor");
        assertEq(audit.rateOf(solver, 0, 0), 500, "the floor");
        assertEq(audit.rateOf(solver, 1, 501), 501, "what the job asks for");
        assertEq(audit.rateOf(other, PRICE, 0), 10_000, "each account its own");
    }

    function test_a_fall_breaks_the_record() external {
        deliver(solver, 0);
        settleLater(0);
        deliver(solver, 1);
        overturn(1);
        assertEq(audit.rateOf(solver, PRICE, 0), 10_000, "from the start");
        assertEq(audit.records(solver).unbroken, 0, "unbroken");
        assertEq(audit.records(solver).settled, 1, "settled");
        assertEq(audit.records(solver).overturned, 1, "overturned");
    }

    /// Whatever is asked for and settled, the rate is between the floor and the most that can be asked for.
    function test_rates_have_bounds(uint128 price, uint32 asked) external {
        asked = uint32(bound(asked, 0, ALL));
        deliver(solver, 0);
        settleLater(0);
        uint256 rate = audit.rateOf(solver, price, asked);
        assertLe(500, rate, "floor");
        assertLe(rate, asked > 10_000 ? asked : 10_000, "most");
        assertLe(asked, rate, "asked");
    }

    // ---------------------------------------------------------------- who may call

    function test_only_the_market_opens_and_ends_audits() external {
        bytes memory why = abi.encodeWithSelector(IAudit.NotMarket.selector, stranger);
        Opening memory opening;
        vm.startPrank(stranger);
        vm.expectRevert(why);
        audit.open(job, 0, 0, opening);
        vm.expectRevert(why);
        audit.settle(job, 0, 0, 0, 0);
        vm.expectRevert(why);
        audit.drop(job, 0, 0, Outcome.Voided);
        vm.expectRevert(why);
        audit.expired(solver);
    }

    function test_what_is_deployed_is_whole() external {
        bytes4 why = bytes4(keccak256("ZeroAddress()"));
        vm.expectRevert(why);
        create("Audit.sol", abi.encode(address(0), market, UNBONDING));
        vm.expectRevert(why);
        create("Audit.sol", abi.encode(stake, address(0), UNBONDING));
        vm.expectRevert(abi.encodeWithSelector(bytes4(keccak256("InvalidUnbonding(uint64)")), 0));
        create("Audit.sol", abi.encode(stake, market, 0));
        vm.expectRevert(abi.encodeWithSelector(bytes4(keccak256("InvalidUnbonding(uint64)")), 365 days + 1));
        create("Audit.sol", abi.encode(stake, market, 365 days + 1));
        create("Audit.sol", abi.encode(stake, market, 365 days));
    }
}
