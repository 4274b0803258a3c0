// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Money} from "../../devnet/Money.sol";
import {IBurner} from "../../interfaces/IBurner.sol";
import {IStake} from "../../interfaces/IStake.sol";
import {Funds} from "../../libraries/Funds.sol";
import {Deployment} from "./support/Deployment.sol";
import {FeeMoney} from "./support/Tokens.sol";

contract StakeTest is Deployment {
    address private alice = makeAddr("alice");
    address private bob = makeAddr("bob");
    address private theMarket = makeAddr("market");
    address private theDispute = makeAddr("dispute");
    address private theAudit = makeAddr("audit");

    function setUp() external {
        money = new Money();
        stake = newStake(money);
        money.mint(alice, 1000);
        vm.startPrank(alice);
        money.approve(address(stake), 1000);
        stake.deposit(600);
        vm.stopPrank();
    }

    function test_deposit_credits_what_arrives() external view {
        assertBalance(alice, 600, 0);
        assertEq(money.balanceOf(address(stake)), 600, "held");
        assertEq(money.balanceOf(alice), 400, "purse");
    }

    function test_deposit_tells() external {
        vm.expectEmit(address(stake));
        emit IStake.Deposited(alice, 5);
        vm.prank(alice);
        stake.deposit(5);
    }

    function test_deposit_of_a_token_with_a_fee_reverts() external {
        FeeMoney dear = new FeeMoney();
        IStake other = newStake(dear);
        dear.mint(alice, 1000);
        vm.startPrank(alice);
        dear.approve(address(other), 1000);
        vm.expectRevert(abi.encodeWithSelector(Funds.WrongAmount.selector, 990, 1000));
        other.deposit(1000);
    }

    function test_deposit_without_allowance_reverts() external {
        vm.prank(bob);
        vm.expectRevert();
        stake.deposit(1);
    }

    function test_withdraw_pays_free_balance_once() external {
        vm.startPrank(alice);
        vm.expectEmit(address(stake));
        emit IStake.Withdrawn(alice, 600);
        stake.withdraw(600);
        assertEq(money.balanceOf(alice), 1000, "purse");
        vm.expectRevert(abi.encodeWithSelector(IStake.InsufficientFree.selector, alice, 0, 1));
        stake.withdraw(1);
    }

    function test_locked_cannot_be_withdrawn_or_locked_twice() external {
        vm.prank(theMarket);
        stake.lock(alice, 500);
        assertBalance(alice, 100, 500);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(IStake.InsufficientFree.selector, alice, 100, 101));
        stake.withdraw(101);
        vm.prank(theDispute);
        vm.expectRevert(abi.encodeWithSelector(IStake.InsufficientFree.selector, alice, 100, 101));
        stake.lock(alice, 101);
    }

    function test_lock_of_more_than_any_balance_reverts(uint256 amount) external {
        amount = bound(amount, 601, type(uint256).max);
        vm.prank(theMarket);
        vm.expectRevert(abi.encodeWithSelector(IStake.InsufficientFree.selector, alice, 600, amount));
        stake.lock(alice, amount);
    }

    function test_unlock_frees() external {
        vm.startPrank(theDispute);
        vm.expectEmit(address(stake));
        emit IStake.Locked(alice, 500);
        stake.lock(alice, 500);
        vm.expectEmit(address(stake));
        emit IStake.Unlocked(alice, 200);
        stake.unlock(alice, 200);
        assertBalance(alice, 300, 300);
    }

    function test_unlock_of_more_than_locked_reverts() external {
        vm.startPrank(theMarket);
        stake.lock(alice, 500);
        vm.expectRevert();
        stake.unlock(alice, 501);
    }

    function test_slash_pays_half_rounded_down_and_burns_the_rest() external {
        vm.startPrank(theDispute);
        stake.lock(alice, 300);
        vm.expectEmit(address(stake));
        emit IStake.Slashed(alice, 101, bob, 50);
        stake.slash(alice, 101, bob);
        assertBalance(alice, 300, 199);
        assertBalance(bob, 50, 0);
        assertEq(stake.burned(), 51, "burned");
        assertEq(money.balanceOf(address(stake)), 600, "held until it is swept");
    }

    function test_slash_of_oneself_loses_the_burned_half(uint256 amount) external {
        amount = bound(amount, 1, 600);
        vm.startPrank(theDispute);
        stake.lock(alice, amount);
        stake.slash(alice, amount, alice);
        assertBalance(alice, 600 - amount + amount / 2, 0);
        assertEq(stake.burned(), amount - amount / 2, "burned");
    }

    function test_slash_of_more_than_locked_reverts() external {
        vm.startPrank(theDispute);
        stake.lock(alice, 300);
        vm.expectRevert();
        stake.slash(alice, 301, bob);
    }

    function test_strangers_touch_no_balance() external {
        bytes memory refusal = abi.encodeWithSelector(IStake.NotAuthorised.selector, alice);
        vm.startPrank(alice);
        vm.expectRevert(refusal);
        stake.lock(alice, 1);
        vm.expectRevert(refusal);
        stake.unlock(alice, 1);
        vm.expectRevert(refusal);
        stake.slash(alice, 1, bob);
    }

    function test_market_dispute_and_audit_may_do_the_same() external {
        address[3] memory protocol = [theMarket, theDispute, theAudit];
        for (uint256 i = 0; i < 3; ++i) {
            vm.startPrank(protocol[i]);
            stake.lock(alice, 10);
            stake.unlock(alice, 4);
            stake.slash(alice, 6, bob);
            vm.stopPrank();
        }
        assertBalance(alice, 600 - 18, 0);
        assertBalance(bob, 9, 0);
    }

    function test_sweep_sends_away_what_is_burned_and_no_more() external {
        vm.startPrank(theDispute);
        stake.lock(alice, 300);
        stake.slash(alice, 101, bob);
        vm.stopPrank();
        vm.expectEmit(address(stake));
        emit IBurner.Swept(51);
        vm.prank(bob);
        stake.sweep();
        assertEq(money.balanceOf(BURNED), 51, "swept");
        assertEq(stake.burned(), 0, "nothing is left to sweep");
        stake.sweep();
        assertEq(money.balanceOf(address(stake)), 549, "held");
    }

    function test_no_address_is_zero() external {
        bytes4 why = bytes4(keccak256("ZeroAddress()"));
        vm.expectRevert(why);
        create("Stake.sol", abi.encode(address(0), theMarket, theDispute, theAudit));
        vm.expectRevert(why);
        create("Stake.sol", abi.encode(money, address(0), theDispute, theAudit));
        vm.expectRevert(why);
        create("Stake.sol", abi.encode(money, theMarket, address(0), theAudit));
        vm.expectRevert(why);
        create("Stake.sol", abi.encode(money, theMarket, theDispute, address(0)));
    }

    function newStake(Money token) private returns (IStake) {
        return IStake(create("Stake.sol", abi.encode(token, theMarket, theDispute, theAudit)));
    }

    function assertBalance(address account, uint256 free, uint256 locked) private view {
        (uint256 actualFree, uint256 actualLocked) = stake.balances(account);
        assertEq(actualFree, free, "free");
        assertEq(actualLocked, locked, "locked");
    }
}
