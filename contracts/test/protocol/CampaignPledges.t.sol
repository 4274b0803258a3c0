// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {CampaignTerms, ICampaign, Stage} from "../../interfaces/ICampaign.sol";
import {IMarket, JobTerms} from "../../interfaces/IMarket.sol";
import {JobId} from "../../types/Ids.sol";
import {CampaignFixture} from "./support/CampaignFixture.sol";

/// pledge, refund and launch.
contract CampaignPledgesTest is CampaignFixture {
    // ---------------------------------------------------------------- pledge

    function test_a_pledge_is_held() external {
        equip(ada, 60_000);
        vm.expectEmit(address(campaign));
        emit ICampaign.Pledged(ada, 60_000, 60_000);
        vm.prank(ada);
        assertEq(campaign.pledge(60_000), 60_000, "taken");
        assertEq(money.balanceOf(address(campaign)), 60_000, "held");
        assertEq(campaign.raised(), 60_000, "raised");
        assertEq(campaign.backers(ada).pledged, 60_000, "pledged");
    }

    function test_no_more_is_taken_than_is_missing() external {
        pledge(ada, 60_000);
        assertEq(pledge(ben, 60_000), 40_000, "taken");
        assertEq(money.balanceOf(ben), 20_000, "left");
        assertEq(campaign.backers(ben).pledged, 40_000, "pledged");
        assertStage(Stage.Funded);
        equip(cleo, 1);
        vm.prank(cleo);
        vm.expectRevert(abi.encodeWithSelector(ICampaign.WrongStage.selector, Stage.Funded, Stage.Pledging));
        campaign.pledge(1);
    }

    function test_pledges_add_up() external {
        pledge(ada, 60_000);
        pledge(ada, 30_000);
        assertEq(campaign.backers(ada).pledged, 90_000, "pledged");
    }

    function test_pledges_are_taken_up_to_the_deadline() external {
        vm.warp(PLEDGE_DEADLINE);
        pledge(ada, 1);
        vm.warp(PLEDGE_DEADLINE + 1);
        vm.expectRevert(abi.encodeWithSelector(ICampaign.WrongStage.selector, Stage.Failed, Stage.Pledging));
        campaign.pledge(1);
    }

    function test_nothing_is_no_pledge() external {
        vm.expectRevert(ICampaign.NothingPledged.selector);
        campaign.pledge(0);
    }

    // ---------------------------------------------------------------- refund

    function test_a_failed_campaign_refunds_once() external {
        pledge(ada, 60_000);
        vm.warp(PLEDGE_DEADLINE + 1);
        assertStage(Stage.Failed);
        vm.expectEmit(address(campaign));
        emit ICampaign.PledgeRefunded(ada, 60_000);
        vm.prank(stranger);
        campaign.refund(ada);
        assertEq(money.balanceOf(ada), 60_000, "back");
        vm.expectRevert(abi.encodeWithSelector(ICampaign.NothingDue.selector, ada));
        campaign.refund(ada);
    }

    function test_no_refund_while_it_may_succeed() external {
        pledge(ada, 60_000);
        refusesToRefund(Stage.Pledging);
        pledge(ben, 40_000);
        refusesToRefund(Stage.Funded);
        vm.warp(PLEDGE_DEADLINE + GRACE);
        refusesToRefund(Stage.Funded);
        launch();
        refusesToRefund(Stage.Launched);
    }

    function test_refunds_open_if_nobody_launches() external {
        fundAll();
        vm.warp(PLEDGE_DEADLINE + GRACE + 1);
        campaign.refund(ada);
        vm.expectRevert(abi.encodeWithSelector(ICampaign.WrongStage.selector, Stage.Failed, Stage.Funded));
        campaign.launch();
        campaign.refund(ben);
        campaign.refund(cleo);
        assertEq(money.balanceOf(address(campaign)), 0, "held");
    }

    /// Time passed, and the Market changed its mind: its limits move with the time.
    function test_refunds_open_if_the_job_cannot_be_posted() external {
        fundAll();
        vm.etch(address(market), hex"5f5ffd"); // revert(0, 0)
        vm.expectRevert();
        campaign.launch();
        vm.warp(PLEDGE_DEADLINE + GRACE + 1);
        campaign.refund(ada);
        assertEq(money.balanceOf(ada), 60_000, "back");
    }

    /// Any pledges of five, refunded in any order: each gets what they pledged, to the unit.
    function test_every_pledge_comes_back(uint128[5] calldata amounts, uint256 order) external {
        uint256[5] memory pledged;
        for (uint256 i = 0; i < 5; ++i) {
            uint128 amount = uint128(bound(amounts[i], 1, 19_000));
            pledged[i] = pledge(vm.addr(1 + i), amount);
        }
        vm.warp(PLEDGE_DEADLINE + 1);
        for (uint256 k = 0; k < 5; ++k) {
            uint256 i = (k + order % 5) % 5;
            campaign.refund(vm.addr(1 + i));
            assertEq(money.balanceOf(vm.addr(1 + i)), pledged[i], "back");
        }
        assertEq(money.balanceOf(address(campaign)), 0, "held");
    }

    // ---------------------------------------------------------------- launch

    function test_launch_posts_the_job() external {
        fundAll();
        JobTerms memory expected = terms();
        expected.deadline = uint64(vm.getBlockTimestamp()) + DURATION;
        vm.expectEmit(address(market));
        emit IMarket.Posted(JobId.wrap(2), address(campaign), expected, CID);
        vm.prank(stranger);
        launch();
        assertStage(Stage.Launched);
        assertEq(JobId.unwrap(campaign.job()), 2, "job");
        assertEq(money.balanceOf(address(campaign)), 0, "held");
        assertEq(money.allowance(address(campaign), address(market)), 0, "allowance");
        assertEq(shares.totalSupply(), SHARES / 2, "the backers' shares");
    }

    function test_launch_needs_the_goal() external {
        pledge(ada, 99_999);
        vm.expectRevert(abi.encodeWithSelector(ICampaign.WrongStage.selector, Stage.Pledging, Stage.Funded));
        campaign.launch();
    }

    function test_launch_happens_once() external {
        launchFunded();
        vm.expectRevert(abi.encodeWithSelector(ICampaign.WrongStage.selector, Stage.Launched, Stage.Funded));
        campaign.launch();
    }

    function test_volunteers_need_no_pledges() external {
        use(newCampaign(volunteerTerms()));
        assertStage(Stage.Funded);
        launch();
        (address buyer_, JobTerms memory t,,,) = market.jobs(job);
        assertEq(buyer_, address(campaign), "buyer");
        assertEq(t.escrow, 0, "escrow");
        assertEq(shares.totalSupply(), 0, "shares");
    }

    function test_a_volunteers_campaign_fails_if_nobody_launches_it() external {
        use(newCampaign(volunteerTerms()));
        vm.warp(PLEDGE_DEADLINE + GRACE + 1);
        assertStage(Stage.Failed);
        vm.expectRevert(abi.encodeWithSelector(ICampaign.WrongStage.selector, Stage.Failed, Stage.Funded));
        campaign.launch();
    }

    /// Whoever else posts a job in between, the campaign knows its own.
    function test_other_jobs_do_not_matter() external {
        post();
        launchFunded();
        assertEq(JobId.unwrap(job), 3, "job");
        post();
        assertEq(JobId.unwrap(campaign.job()), 3, "job");
    }

    // ---------------------------------------------------------------- helpers

    function assertStage(Stage stage) private view {
        assertEq(uint8(campaign.stage()), uint8(stage), "stage");
    }

    function refusesToRefund(Stage stage) private {
        assertStage(stage);
        vm.expectRevert(abi.encodeWithSelector(ICampaign.WrongStage.selector, stage, Stage.Failed));
        campaign.refund(ada);
    }
}
