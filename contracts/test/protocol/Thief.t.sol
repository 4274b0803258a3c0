// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAudit} from "../../interfaces/IAudit.sol";
import {IBurner} from "../../interfaces/IBurner.sol";
import {IMarket} from "../../interfaces/IMarket.sol";
import {IReferee} from "../../interfaces/IReferee.sol";
import {IStake} from "../../interfaces/IStake.sol";
import {Funds} from "../../libraries/Funds.sol";
import {JobId} from "../../types/Ids.sol";
import {JobFixture} from "./support/JobFixture.sol";
import {Thief} from "./support/Thief.sol";
import {HookMoney} from "./support/Tokens.sol";

contract ThiefTest is JobFixture {
    Thief private thief;
    HookMoney private hooks;

    function setUp() public override {
        super.setUp();
        hooks = new HookMoney();
        deploy(hooks, IReferee(makeAddr("referee")));
        thief = new Thief();
        fund(address(thief), ESCROW);
        address[3] memory honest = [buyer, solver, other];
        for (uint256 i = 0; i < honest.length; ++i) {
            fund(honest[i], PURSE);
            deposit(honest[i], PURSE / 2);
        }
        job = post();
    }

    function test_withdraw_of_stake_pays_once() external {
        thief.execute(address(stake), abi.encodeCall(IStake.deposit, (ESCROW)));
        bytes memory again = abi.encodeCall(IStake.withdraw, (ESCROW));
        thief.arm(hooks, address(stake), again, 3);
        thief.execute(address(stake), again);
        assertEq(thief.succeeded(), 0, "again");
        assertEq(money.balanceOf(address(thief)), ESCROW, "purse");
        assertEq(free(address(thief)), 0, "free");
    }

    function test_withdraw_of_pay_pays_once() external {
        vm.startPrank(address(thief));
        market.post(terms(), CID);
        vm.stopPrank();
        vm.warp(DEADLINE + 1);
        market.refund(jobOfThief());
        bytes memory again = abi.encodeCall(IMarket.withdraw, ());
        thief.arm(hooks, address(market), again, 3);
        thief.execute(address(market), again);
        assertEq(thief.succeeded(), 0, "again");
        assertEq(money.balanceOf(address(thief)), ESCROW, "purse");
        assertEq(money.balanceOf(address(market)), ESCROW, "the other job's escrow");
    }

    /// A deposit within a deposit would count one transfer twice.
    function test_a_deposit_within_a_deposit_is_refused() external {
        thief.arm(hooks, address(stake), abi.encodeCall(IStake.deposit, (400)), 1);
        vm.expectPartialRevert(Funds.WrongAmount.selector);
        thief.execute(address(stake), abi.encodeCall(IStake.deposit, (400)));
    }

    /// What is withdrawn within a deposit has not arrived yet.
    function test_a_withdrawal_within_a_deposit_is_refused() external {
        thief.arm(hooks, address(stake), abi.encodeCall(IStake.withdraw, (400)), 1);
        vm.expectRevert();
        thief.execute(address(stake), abi.encodeCall(IStake.deposit, (400)));
        assertEq(free(address(thief)), 0, "free");
    }

    /// A sweep or a withdrawal of others' money within a deposit takes nothing that the deposit counts.
    function test_a_sweep_within_a_deposit_is_harmless() external {
        deliver(solver, 0);
        pass(WINDOW + 1);
        settle(0);
        vm.startPrank(address(market));
        stake.lock(solver, 100);
        stake.slash(solver, 100, solver);
        vm.stopPrank();
        thief.arm(hooks, address(market), abi.encodeCall(IBurner.sweep, ()), 1);
        thief.execute(address(stake), abi.encodeCall(IStake.deposit, (400)));
        assertEq(thief.succeeded(), 1, "of another contract");
        assertEq(free(address(thief)), 400, "free");
        thief.arm(hooks, address(stake), abi.encodeCall(IBurner.sweep, ()), 1);
        vm.expectPartialRevert(Funds.WrongAmount.selector);
        thief.execute(address(stake), abi.encodeCall(IStake.deposit, (400)));
    }

    /// Enrolling, claiming and posting within a withdrawal find the money gone from the books.
    function test_what_is_being_withdrawn_is_used_for_nothing_else() external {
        thief.execute(address(stake), abi.encodeCall(IStake.deposit, (400)));
        thief.arm(hooks, address(audit), abi.encodeCall(IAudit.enroll, (400)), 2);
        thief.execute(address(stake), abi.encodeCall(IStake.withdraw, (400)));
        assertEq(thief.succeeded(), 0, "enrolled");
        assertEq(audit.totalWeight(), 0, "weight");
    }

    function test_a_refund_within_a_refund_is_refused() external {
        vm.warp(DEADLINE + 1);
        market.refund(job);
        vm.expectRevert(abi.encodeWithSelector(IMarket.NothingOwed.selector, buyer));
        market.refund(job);
    }

    function jobOfThief() private view returns (JobId) {
        return JobId.wrap(market.jobCount());
    }
}
