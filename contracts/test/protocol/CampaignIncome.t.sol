// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ICampaign} from "../../interfaces/ICampaign.sol";
import {Income} from "../../libraries/Income.sol";
import {CampaignFixture} from "./support/CampaignFixture.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";

/// claimShares, payIncome, claimIncome, collectRewards, claimRewards, and transfers of shares.
contract CampaignIncomeTest is CampaignFixture {
    function setUp() public override {
        super.setUp();
        launchFunded();
    }

    // ---------------------------------------------------------------- the backers' shares

    function test_backers_own_by_their_pledges() external {
        vm.prank(stranger);
        assertEq(campaign.claimShares(ada), SHARES * 3 / 10, "claimed");
        claimAllBut(ada);
        assertEq(shares.balanceOf(ada), SHARES * 3 / 10, "ada");
        assertEq(shares.balanceOf(ben), SHARES * 15 / 100, "ben");
        assertEq(shares.balanceOf(cleo), SHARES * 5 / 100, "cleo");
        assertEq(shares.balanceOf(address(campaign)), 0, "kept");
    }

    function test_shares_are_claimed_once() external {
        campaign.claimShares(ada);
        vm.expectRevert(abi.encodeWithSelector(ICampaign.NothingDue.selector, ada));
        campaign.claimShares(ada);
        vm.expectRevert(abi.encodeWithSelector(ICampaign.NothingDue.selector, stranger));
        campaign.claimShares(stranger);
    }

    /// However the goal is divided: no more shares than there are, and less than one for each backer is left.
    function test_claimed_shares_are_the_backers_part(uint128[4] calldata amounts) external {
        use(newCampaign(termsWithGoal(997)));
        uint256 left = 997;
        for (uint256 i = 0; i < 4; ++i) {
            left -= pledge(vm.addr(1 + i), uint128(bound(amounts[i], 1, 200)));
        }
        pledge(vm.addr(5), uint128(left));
        launch();
        for (uint256 i = 0; i < 5; ++i) {
            campaign.claimShares(vm.addr(1 + i));
        }
        assertLe(shares.balanceOf(address(campaign)), 4, "dust");
        assertEq(shares.totalSupply(), SHARES / 2, "supply");
    }

    // ---------------------------------------------------------------- income

    function test_income_is_shared_by_shares() external {
        claimAllShares();
        payIncome(stranger, 1000);
        assertEq(claimIncome(ada), 600, "ada");
        assertEq(claimIncome(ben), 300, "ben");
        assertEq(claimIncome(cleo), 100, "cleo");
        nothingDue(ada);
        assertEq(money.balanceOf(address(campaign)), 0, "held");
    }

    /// Who claims shares late has lost nothing, and who claimed early has gained nothing.
    function test_unclaimed_shares_earn() external {
        campaign.claimShares(ada);
        payIncome(stranger, 1000);
        assertEq(campaign.incomeOf(ada), 600, "ada");
        campaign.claimShares(ben);
        payIncome(stranger, 1000);
        campaign.claimShares(cleo);
        assertEq(claimIncome(ada), 1200, "ada");
        assertEq(claimIncome(ben), 600, "ben");
        assertEq(claimIncome(cleo), 200, "cleo");
    }

    function test_income_stays_with_who_held_the_shares() external {
        claimAllShares();
        payIncome(stranger, 1000);
        transfer(ada, stranger, SHARES * 3 / 10);
        nothingDue(stranger);
        payIncome(stranger, 1000);
        assertEq(claimIncome(ada), 600, "before");
        assertEq(claimIncome(stranger), 600, "after");
    }

    /// In one block: shares that are bought after the income earn nothing of it, and shares sent round earn once.
    function test_joining_for_a_moment_earns_nothing_twice() external {
        claimAllShares();
        uint256 stake_ = SHARES * 3 / 10;
        transfer(ada, stranger, stake_);
        payIncome(buyer, 1000);
        transfer(stranger, other, stake_);
        transfer(other, ada, stake_);
        assertEq(claimIncome(stranger), 600, "who held them");
        nothingDue(other);
        nothingDue(ada);
        assertEq(claimIncome(ben), 300, "ben");
    }

    function test_a_transfer_to_oneself_changes_nothing() external {
        claimAllShares();
        payIncome(stranger, 1000);
        transfer(ada, ada, SHARES / 10);
        assertEq(claimIncome(ada), 600, "ada");
        assertEq(shares.balanceOf(ada), SHARES * 3 / 10, "shares");
    }

    function test_permitted_transfers_count() external {
        claimAllShares();
        payIncome(stranger, 10);
        vm.prank(ada);
        shares.approve(other, type(uint256).max);
        vm.prank(other);
        shares.transferFrom(ada, other, SHARES * 3 / 10);
        assertEq(claimIncome(ada), 6, "ada");
        nothingDue(other);
        assertEq(IERC20Permit(address(shares)).nonces(ada), 0, "permits are there");
    }

    /// Shares sent here would be nobody's, and look like the backers'.
    function test_shares_cannot_be_sent_to_the_campaign() external {
        campaign.claimShares(ada);
        vm.prank(ada);
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InvalidReceiver.selector, address(campaign)));
        shares.transfer(address(campaign), 1);
    }

    function test_without_shares_there_is_no_income() external {
        use(newCampaign(volunteerTerms()));
        equip(stranger, 1000);
        vm.startPrank(stranger);
        vm.expectRevert(Income.NoShares.selector);
        campaign.payIncome(1000);
        vm.stopPrank();
        launch();
        vm.prank(stranger);
        vm.expectRevert(Income.NoShares.selector);
        campaign.payIncome(1000);
    }

    /// Tokens that are sent, not paid in, change nothing.
    function test_a_donation_changes_nothing() external {
        claimAllShares();
        money.mint(address(campaign), 1_000_000);
        nothingDue(ada);
        payIncome(stranger, 1000);
        assertEq(claimIncome(ada), 600, "ada");
        assertEq(campaign.returned(), 0, "returned");
    }

    /// Payments too small to divide add up.
    function test_small_payments_add_up() external {
        claimAllShares();
        for (uint256 i = 0; i < 10; ++i) {
            payIncome(stranger, 1);
        }
        assertEq(claimIncome(ada), 6, "ada");
        assertEq(claimIncome(ben), 3, "ben");
        assertEq(claimIncome(cleo), 1, "cleo");
    }

    /// Claiming each time or once is the same: nothing is lost to rounding.
    function test_claiming_often_costs_nothing(uint128[6] calldata amounts) external {
        claimAllShares();
        uint256 sum = 0;
        for (uint256 i = 0; i < amounts.length; ++i) {
            uint128 amount = uint128(bound(amounts[i], 1, 1e30));
            sum += amount;
            payIncome(stranger, amount);
            if (campaign.incomeOf(ada) > 0) claimIncome(ada);
        }
        assertLe(sum * 6 / 10, money.balanceOf(ada) + 1, "ada");
        assertLe(money.balanceOf(ada), sum * 6 / 10, "not more");
    }

    /// A single unit of shares, and all the income there can be: nothing overflows, nothing is lost.
    function test_the_greatest_income() external {
        claimAllShares();
        payIncome(stranger, type(uint128).max - 1000);
        transfer(ada, stranger, 1);
        transfer(stranger, ada, 1);
        assertEq(claimIncome(ada), uint256(type(uint128).max - 1000) * 6 / 10, "ada");
        equip(stranger, 1001);
        vm.prank(stranger);
        vm.expectRevert();
        campaign.payIncome(1001);
        payIncome(stranger, 1000);
    }

    // ---------------------------------------------------------------- rewards

    function test_rewards_are_shared_by_shares() external {
        campaign.claimShares(ada);
        accrueFees(10_000);
        assertEq(campaign.collectRewards(0), 1500, "collected");
        assertEq(campaign.rewardsOf(ada), 900, "ada");
        campaign.claimShares(ben);
        vm.prank(ada);
        assertEq(campaign.claimRewards(), 900, "ada");
        vm.prank(ben);
        assertEq(campaign.claimRewards(), 450, "ben");
        assertEq(rewards.balanceOf(ada), 900, "ada");
        vm.prank(ada);
        vm.expectRevert(abi.encodeWithSelector(ICampaign.NothingDue.selector, ada));
        campaign.claimRewards();
    }

    /// Whoever claims them for the campaign first has hidden nothing.
    function test_rewards_that_others_claimed_are_collected() external {
        accrueFees(10_000);
        vm.prank(stranger);
        emission.claim(0, address(campaign));
        assertEq(campaign.collectRewards(0), 1500, "collected");
        vm.expectRevert(abi.encodeWithSelector(ICampaign.NothingDue.selector, address(campaign)));
        campaign.collectRewards(0);
    }

    function test_rewards_that_are_paid_out_are_not_collected_again() external {
        claimAllShares();
        accrueFees(10_000);
        campaign.collectRewards(0);
        vm.prank(ada);
        campaign.claimRewards();
        vm.expectRevert(abi.encodeWithSelector(ICampaign.NothingDue.selector, address(campaign)));
        campaign.collectRewards(0);
    }

    // ---------------------------------------------------------------- helpers

    function accrueFees(uint256 fee) private {
        vm.prank(address(market));
        emission.accrue(fee, solver, address(campaign), new address[](0));
        pass(EPOCH);
    }

    function claimAllBut(address account) private {
        address[3] memory all = [ada, ben, cleo];
        for (uint256 i = 0; i < 3; ++i) {
            if (all[i] != account) campaign.claimShares(all[i]);
        }
    }

    function nothingDue(address account) private {
        vm.prank(account);
        vm.expectRevert(abi.encodeWithSelector(ICampaign.NothingDue.selector, account));
        campaign.claimIncome();
    }
}
