// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Money} from "../devnet/Money.sol";
import {Test} from "./Test.sol";

contract MoneyTest is Test {
    function test_anybody_mints(address to, uint256 amount) external {
        vm.assume(to != address(0));
        Money money = new Money();
        vm.prank(makeAddr("stranger"));
        money.mint(to, amount);
        assertEq(money.balanceOf(to), amount, "balance");
    }
}
