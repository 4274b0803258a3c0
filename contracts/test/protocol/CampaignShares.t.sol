// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {CampaignTerms, ICampaign} from "../../interfaces/ICampaign.sol";
import {SegmentSpec} from "../../interfaces/IMarket.sol";
import {CampaignFixture} from "./support/CampaignFixture.sol";

/// credit, finish and claimReturn: what follows from the job.
contract CampaignSharesTest is CampaignFixture {
    uint256 private constant SOLVERS = SHARES * 4 / 10;
    uint256 private constant AUDITORS = SHARES / 10;

    function setUp() public override {
        super.setUp();
        launchFunded();
    }

    // ---------------------------------------------------------------- credit

    function test_a_settled_segment_gives_shares_to_its_solver() external {
        finishSegment(0);
        vm.expectEmit(address(campaign));
        emit ICampaign.Credited(0, solver, 10, SOLVERS / 4, 0, new address[](0));
        vm.prank(stranger);
        campaign.credit(0, spec(0));
        assertEq(shares.balanceOf(solver), SOLVERS / 4, "solver");
        assertEq(shares.totalSupply(), SHARES / 2 + SOLVERS / 4, "the auditors' are nobody's");
        assertTrue(campaign.credited(0), "credited");
        assertEq(campaign.creditedSteps(), 10, "steps");
    }

    function test_a_segment_is_credited_once() external {
        finishSegment(0);
        campaign.credit(0, spec(0));
        SegmentSpec memory s = spec(0);
        vm.expectRevert(abi.encodeWithSelector(ICampaign.AlreadyCredited.selector, 0));
        campaign.credit(0, s);
    }

    function test_only_settled_segments_are_credited() external {
        SegmentSpec memory s = spec(0);
        refusesToCredit(0, s);
        claim(solver, 0);
        refusesToCredit(0, s);
        commit(solver, 0);
        refusesToCredit(0, s);
        pass(WINDOW + 1);
        settle(0);
        campaign.credit(0, s);
    }

    function test_only_what_was_planned_is_credited() external {
        finishSegment(0);
        SegmentSpec memory s = spec(0);
        s.steps *= 2;
        vm.expectRevert();
        campaign.credit(0, s);
    }

    /// Another job's segments of the same content are not the campaign's.
    function test_only_the_campaigns_job_is_credited() external {
        job = post();
        finishSegment(0);
        refusesToCredit(0, spec(0));
        use(newCampaign(volunteerTerms()));
        refusesToCredit(0, spec(0));
    }

    function test_auditors_who_attested_right_share() external {
        useAudited();
        address[] memory auditors = enrollMany(3);
        deliver(solver, 0);
        vm.roll(vm.getBlockNumber() + 2);
        for (uint256 i = 0; i < 3; ++i) {
            attest(auditors[i], i < 2 ? 0 : 1);
        }
        pass(WINDOW + 1);
        settle(0);
        campaign.credit(0, spec(0));
        assertEq(shares.balanceOf(auditors[0]), AUDITORS / 8, "first");
        assertEq(shares.balanceOf(auditors[1]), AUDITORS / 8, "second");
        assertEq(shares.balanceOf(auditors[2]), 0, "wrong");
        assertEq(shares.balanceOf(solver), SOLVERS / 4, "solver");
    }

    /// A plan of more steps than the terms say gives no more shares than there are.
    function test_shares_are_capped() external {
        CampaignTerms memory t = campaignTerms();
        t.steps = 25;
        use(newCampaign(t));
        launchFunded();
        for (uint32 i = 0; i < SEGMENTS; ++i) {
            finishSegment(i);
            campaign.credit(i, spec(i));
        }
        assertEq(shares.balanceOf(solver), SOLVERS, "all");
        assertEq(campaign.creditedSteps(), 25, "steps");
    }

    function test_credited_shares_earn_from_then_on() external {
        payIncome(stranger, 1000);
        finishSegment(0);
        campaign.credit(0, spec(0));
        assertEq(campaign.incomeOf(solver), 0, "before");
        payIncome(stranger, 1200);
        assertEq(campaign.incomeOf(solver), 200, "a tenth of all beside five tenths");
    }

    // ---------------------------------------------------------------- money that comes back

    function test_what_the_job_leaves_is_the_backers() external {
        uint256 spent_ = 0;
        for (uint32 i = 0; i < SEGMENTS; ++i) {
            finishSegment(i);
            spent_ += spec(i).price;
        }
        vm.prank(stranger);
        assertEq(campaign.finish(), GOAL - spent_, "came back");
        assertEq(campaign.returned(), GOAL - spent_, "returned");
        assertEq(campaign.claimReturn(ada), (GOAL - spent_) * 6 / 10, "ada");
        assertEq(money.balanceOf(ada), (GOAL - spent_) * 6 / 10, "ada");
        campaign.claimReturn(ben);
        campaign.claimReturn(cleo);
        assertLe(money.balanceOf(address(campaign)), 2, "dust");
        vm.expectRevert(abi.encodeWithSelector(ICampaign.NothingDue.selector, ada));
        campaign.claimReturn(ada);
        vm.expectRevert(ICampaign.NothingReturned.selector);
        campaign.finish();
    }

    function test_nothing_comes_back_while_the_job_runs() external {
        vm.expectRevert(ICampaign.NothingReturned.selector);
        campaign.finish();
    }

    function test_a_job_that_nobody_takes_comes_back() external {
        pass(DURATION + 1);
        campaign.finish();
        assertEq(campaign.claimReturn(ada), 60_000, "ada");
        assertEq(campaign.claimReturn(ben), 30_000, "ben");
        assertEq(campaign.claimReturn(cleo), 10_000, "cleo");
    }

    /// Whoever lets the Market owe it to the campaign first has hidden nothing.
    function test_a_refund_that_others_asked_for_comes_back() external {
        pass(DURATION + 1);
        vm.prank(stranger);
        market.refund(job);
        assertEq(campaign.finish(), GOAL, "came back");
    }

    function test_money_comes_back_in_parts() external {
        claim(solver, 0);
        pass(DURATION + 1);
        uint256 first = campaign.finish();
        assertEq(campaign.claimReturn(ada), first * 6 / 10, "ada");
        market.expire(job, 0);
        uint256 second = campaign.finish();
        assertEq(first + second, GOAL, "all of it");
        assertEq(campaign.claimReturn(ada), GOAL * 6 / 10 - first * 6 / 10, "ada");
    }

    /// A solver that hides its trace loses its stake: half of that is compensation.
    function test_compensation_is_the_backers() external {
        claim(solver, 0);
        commit(solver, 0);
        pass(WINDOW + CLOCK + 1);
        market.forfeit(job, 0, spec(0));
        assertEq(campaign.finish(), STAKE / 2, "compensation");
        assertEq(campaign.claimReturn(ada), uint256(STAKE / 2) * 6 / 10, "ada");
    }

    function test_those_who_pledged_nothing_get_nothing_back() external {
        pass(DURATION + 1);
        campaign.finish();
        vm.expectRevert(abi.encodeWithSelector(ICampaign.NothingDue.selector, stranger));
        campaign.claimReturn(stranger);
    }

    /// Shares are another thing than pledges.
    function test_sold_shares_leave_what_comes_back() external {
        campaign.claimShares(ada);
        transfer(ada, stranger, SHARES * 3 / 10);
        pass(DURATION + 1);
        campaign.finish();
        assertEq(campaign.claimReturn(ada), 60_000, "ada");
    }

    function test_nothing_comes_back_before_the_launch() external {
        use(newCampaign(volunteerTerms()));
        vm.expectPartialRevert(ICampaign.WrongStage.selector);
        campaign.finish();
    }

    /// However pledges divide: all but dust comes back, and never more.
    function test_returns_are_bounded(uint128[3] calldata amounts, uint256 goal) external {
        goal = bound(goal, 40_000 + 3 * 5000, GOAL - 1);
        use(newCampaign(termsWithGoal(uint128(goal))));
        uint256 left = goal;
        for (uint256 i = 0; i < 3; ++i) {
            left -= pledge(vm.addr(1 + i), uint128(bound(amounts[i], 1, 5000)));
        }
        pledge(vm.addr(4), uint128(left));
        launch();
        claim(solver, 0);
        pass(DURATION + 1);
        for (uint256 round = 0; round < 2; ++round) {
            campaign.finish();
            for (uint256 i = 0; i < 4; ++i) {
                if (campaign.returnOf(vm.addr(1 + i)) > 0) campaign.claimReturn(vm.addr(1 + i));
            }
            if (round == 0) market.expire(job, 0);
        }
        assertLe(money.balanceOf(address(campaign)), 3, "dust");
    }

    // ---------------------------------------------------------------- helpers

    function refusesToCredit(uint32 segment, SegmentSpec memory s) private {
        vm.expectRevert(abi.encodeWithSelector(ICampaign.NotSettled.selector, segment));
        campaign.credit(segment, s);
    }
}
