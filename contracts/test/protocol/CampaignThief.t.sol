// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {CampaignTerms, ICampaign, Stage} from "../../interfaces/ICampaign.sol";
import {IMarket, JobTerms} from "../../interfaces/IMarket.sol";
import {Funds} from "../../libraries/Funds.sol";
import {CampaignFixture} from "./support/CampaignFixture.sol";
import {Thief} from "./support/Thief.sol";
import {BlacklistMoney, FeeMoney, HookMoney, MeddlingMoney, SilentMoney} from "./support/Tokens.sol";

/// Those who would take more than is theirs, and tokens that are not as they should be.
contract CampaignThiefTest is CampaignFixture {
    Thief private thief;
    HookMoney private hooks;

    /// A campaign whose token calls the thief during transfers. The thief has pledged a tenth.
    function useHooks() private {
        hooks = new HookMoney();
        useMoney(hooks);
        thief = new Thief();
        money.mint(address(thief), 20_000);
        thief.execute(address(money), abi.encodeCall(money.approve, (address(campaign), type(uint256).max)));
        thief.execute(address(campaign), abi.encodeCall(ICampaign.pledge, (10_000)));
    }

    function again(bytes memory call, uint256 times) private {
        thief.arm(hooks, address(campaign), call, times);
    }

    function launchOthers() private {
        pledge(ada, GOAL - 10_000);
        launch();
    }

    // ---------------------------------------------------------------- calling again within a call

    function test_a_refund_pays_once() external {
        useHooks();
        pledge(ada, 30_000);
        vm.warp(PLEDGE_DEADLINE + 1);
        again(abi.encodeCall(ICampaign.refund, (address(thief))), 3);
        campaign.refund(address(thief));
        assertEq(thief.succeeded(), 0, "again");
        assertEq(money.balanceOf(address(thief)), 20_000, "purse");
        assertEq(money.balanceOf(address(campaign)), 30_000, "ada's");
    }

    function test_a_pledge_within_a_pledge_is_refused() external {
        useHooks();
        again(abi.encodeCall(ICampaign.pledge, (1000)), 1);
        vm.expectPartialRevert(Funds.WrongAmount.selector);
        thief.execute(address(campaign), abi.encodeCall(ICampaign.pledge, (1000)));
        assertEq(campaign.raised(), 10_000, "raised");
    }

    /// The last pledge arrives, and the launch is called before it has.
    function test_a_launch_within_the_last_pledge_is_refused() external {
        useHooks();
        pledge(ada, GOAL - 20_000);
        again(abi.encodeCall(ICampaign.launch, ()), 1);
        thief.execute(address(campaign), abi.encodeCall(ICampaign.pledge, (10_000)));
        assertEq(thief.succeeded(), 0, "launched");
        assertEq(uint8(campaign.stage()), uint8(Stage.Funded), "stage");
        launch();
        assertEq(money.balanceOf(address(market)), GOAL, "escrow");
    }

    /// Somebody's job that comes between is not taken for the campaign's.
    function test_a_job_posted_within_the_launch_is_refused() external {
        MeddlingMoney meddling = new MeddlingMoney();
        useMoney(meddling);
        fundAll();
        JobTerms memory t = terms();
        t.escrow = 0;
        meddling.arm(address(market), abi.encodeCall(IMarket.post, (t, CID)));
        vm.expectRevert(abi.encodeWithSelector(ICampaign.JobMismatch.selector, 1, 2));
        campaign.launch();
        assertEq(money.balanceOf(address(campaign)), GOAL, "held");
    }

    function test_income_is_paid_once() external {
        useHooks();
        launchOthers();
        campaign.claimShares(address(thief));
        payIncome(stranger, 1000);
        bytes memory call = abi.encodeCall(ICampaign.claimIncome, ());
        again(call, 3);
        thief.execute(address(campaign), call);
        assertEq(thief.succeeded(), 0, "again");
        assertEq(money.balanceOf(address(thief)), 10_100, "purse");
        assertEq(money.balanceOf(address(campaign)), 900, "ada's");
    }

    function test_what_came_back_is_paid_once() external {
        useHooks();
        launchOthers();
        pass(DURATION + 1);
        campaign.finish();
        bytes memory call = abi.encodeCall(ICampaign.claimReturn, (address(thief)));
        again(call, 3);
        campaign.claimReturn(address(thief));
        assertEq(thief.succeeded(), 0, "again");
        assertEq(money.balanceOf(address(campaign)), GOAL - 10_000, "ada's");
    }

    /// What is taken out while income arrives makes it look smaller than it is, what is put in makes it look greater.
    function test_income_within_income_is_refused() external {
        useHooks();
        launchOthers();
        campaign.claimShares(address(thief));
        again(abi.encodeCall(ICampaign.payIncome, (100)), 1);
        vm.expectPartialRevert(Funds.WrongAmount.selector);
        thief.execute(address(campaign), abi.encodeCall(ICampaign.payIncome, (100)));
    }

    /// Income is credited before it has arrived; to claim it then stops the payment.
    function test_income_is_not_claimed_before_it_arrives() external {
        useHooks();
        launchOthers();
        campaign.claimShares(address(thief));
        payIncome(stranger, 50_000);
        again(abi.encodeCall(ICampaign.claimIncome, ()), 1);
        vm.expectPartialRevert(Funds.WrongAmount.selector);
        thief.execute(address(campaign), abi.encodeCall(ICampaign.payIncome, (10_000)));
        assertEq(campaign.incomeOf(address(thief)), 5000, "what is due");
        assertEq(money.balanceOf(address(campaign)), 50_000, "held");
    }

    // ---------------------------------------------------------------- first, last, in between

    /// The first to claim shares is not alone with the income.
    function test_being_first_gains_nothing() external {
        pledge(stranger, 1);
        pledge(ada, GOAL - 1);
        launch();
        campaign.claimShares(stranger);
        payIncome(other, 100_000);
        assertEq(claimIncome(stranger), 1, "a hundred-thousandth");
        campaign.claimShares(ada);
        assertEq(claimIncome(ada), 99_999, "the rest");
    }

    /// Joining with the last unit, launching and claiming in one transaction buys a unit's worth.
    function test_being_last_gains_nothing() external {
        pledge(ada, GOAL - 1);
        equip(stranger, 50_000);
        vm.prank(stranger);
        assertEq(campaign.pledge(50_000), 1, "taken");
        launch();
        assertEq(campaign.claimShares(stranger), SHARES / 2 / GOAL, "shares");
    }

    /// A donation before the launch is no pledge, whatever the balance says.
    function test_a_donation_is_no_pledge() external {
        pledge(ada, 10_000);
        money.mint(address(campaign), GOAL);
        vm.expectPartialRevert(ICampaign.WrongStage.selector);
        campaign.launch();
        vm.warp(PLEDGE_DEADLINE + 1);
        campaign.refund(ada);
        assertEq(money.balanceOf(ada), 10_000, "back");
    }

    /// A donation of the rewards' token before there are shares waits for those who will have them.
    function test_donated_rewards_wait_for_shares() external {
        vm.prank(address(emission));
        rewards.mint(address(campaign), 1000);
        vm.expectRevert();
        campaign.collectRewards(0);
        launchFunded();
        campaign.collectRewards(0);
        assertEq(campaign.claimShares(ada), SHARES * 3 / 10, "shares");
        assertEq(campaign.rewardsOf(ada), 600, "ada");
    }

    /// Rewards come as another token than pledges, so none can be taken for the other.
    function test_rewards_are_not_mixed_with_income() external {
        launchFunded();
        campaign.claimShares(ada);
        payIncome(stranger, 1000);
        vm.expectPartialRevert(ICampaign.NothingDue.selector);
        campaign.collectRewards(0);
        vm.prank(ada);
        vm.expectPartialRevert(ICampaign.NothingDue.selector);
        campaign.claimRewards();
    }

    /// The creator is nobody: there is no call that only they can make, nor one that pays them.
    function test_the_creator_has_nothing() external {
        launchFunded();
        payIncome(stranger, 1000);
        pass(DURATION + 1);
        campaign.finish();
        bytes4[3] memory theirs =
            [ICampaign.claimIncome.selector, ICampaign.claimRewards.selector, ICampaign.launch.selector];
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(buyer);
            (bool ok,) = address(campaign).call(abi.encodePacked(theirs[i]));
            assertFalse(ok, "paid");
        }
        vm.expectRevert(abi.encodeWithSelector(ICampaign.NothingDue.selector, buyer));
        campaign.claimReturn(buyer);
    }

    // ---------------------------------------------------------------- odd tokens

    function test_a_token_that_keeps_a_fee_is_refused() external {
        useMoney(new FeeMoney());
        equip(ada, 1000);
        vm.prank(ada);
        vm.expectRevert(abi.encodeWithSelector(Funds.WrongAmount.selector, 990, 1000));
        campaign.pledge(1000);
    }

    function test_a_token_that_returns_nothing_works() external {
        useMoney(new SilentMoney());
        launchFunded();
        campaign.claimShares(ada);
        payIncome(stranger, 1000);
        assertEq(claimIncome(ada), 600, "income");
        pass(DURATION + 1);
        campaign.finish();
        assertEq(campaign.claimReturn(ada), 60_000, "came back");
        use(newCampaign(termsOf(uint64(vm.getBlockTimestamp() + 1))));
        pledge(ben, 70);
        pass(2);
        campaign.refund(ben);
        assertEq(money.balanceOf(ben), 70, "refund");
    }

    function test_a_blacklisted_backer_harms_only_themselves() external {
        BlacklistMoney list = new BlacklistMoney();
        useMoney(list);
        fundAll();
        list.blacklist(ada);
        launch();
        campaign.claimShares(ada);
        campaign.claimShares(ben);
        payIncome(stranger, 1000);
        pass(DURATION + 1);
        campaign.finish();
        vm.expectRevert(abi.encodeWithSelector(BlacklistMoney.Blacklisted.selector, ada));
        campaign.claimReturn(ada);
        assertEq(campaign.claimReturn(ben), 30_000, "ben's");
        assertEq(claimIncome(ben), 300, "ben's");
        vm.prank(ada);
        vm.expectRevert(abi.encodeWithSelector(BlacklistMoney.Blacklisted.selector, ada));
        campaign.claimIncome();
        transfer(ada, ben, SHARES * 3 / 10);
        assertEq(campaign.incomeOf(ada), 600, "still ada's");
    }

    function test_a_blacklisted_backer_does_not_stop_refunds() external {
        BlacklistMoney list = new BlacklistMoney();
        useMoney(list);
        pledge(ada, 10_000);
        pledge(ben, 10_000);
        list.blacklist(ada);
        vm.warp(PLEDGE_DEADLINE + 1);
        vm.expectRevert(abi.encodeWithSelector(BlacklistMoney.Blacklisted.selector, ada));
        campaign.refund(ada);
        campaign.refund(ben);
        assertEq(money.balanceOf(ben), 10_000, "ben's");
    }

    function termsOf(uint64 pledgeDeadline) private pure returns (CampaignTerms memory t) {
        t = campaignTerms();
        t.pledgeDeadline = pledgeDeadline;
    }
}
