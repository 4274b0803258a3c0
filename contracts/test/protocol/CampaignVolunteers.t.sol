// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ICampaign} from "../../interfaces/ICampaign.sol";
import {SegmentSpec} from "../../interfaces/IMarket.sol";
import {CampaignFixture} from "./support/CampaignFixture.sol";

/// A job whose segments cost nothing: those who compute it own the model.
contract CampaignVolunteersTest is CampaignFixture {
    function spec(uint32 segment) internal pure override returns (SegmentSpec memory s) {
        s = super.spec(segment);
        s.price = 0;
    }

    function setUp() public override {
        super.setUp();
        use(newCampaign(volunteerTerms()));
        launch();
    }

    function test_volunteers_own_what_they_trained() external {
        for (uint32 i = 0; i < SEGMENTS; ++i) {
            address who = i == 0 ? other : solver;
            deliver(who, i);
            pass(WINDOW + 1);
            settle(i);
            campaign.credit(i, spec(i));
        }
        assertEq(shares.balanceOf(solver), SHARES * 6 / 10, "solver");
        assertEq(shares.balanceOf(other), SHARES * 2 / 10, "other");
        assertEq(shares.totalSupply(), SHARES * 8 / 10, "nobody audited");
        payIncome(stranger, 1000);
        assertEq(claimIncome(solver), 750, "solver");
        assertEq(claimIncome(other), 250, "other");
    }

    /// Nobody pledged, so compensation is income; while there are no shares it waits.
    function test_compensation_is_income() external {
        deliver(other, 0);
        pass(WINDOW + CLOCK + 1);
        market.forfeit(job, 0, spec(0));
        vm.expectRevert();
        campaign.finish();
        finishSegment(0);
        campaign.credit(0, spec(0));
        assertEq(campaign.finish(), STAKE / 2, "compensation");
        assertEq(claimIncome(solver), STAKE / 2, "solver");
        assertEq(campaign.returnOf(solver), 0, "no backers");
        vm.expectRevert(abi.encodeWithSelector(ICampaign.NothingDue.selector, solver));
        campaign.claimReturn(solver);
    }

    function test_there_are_no_pledges_and_no_rewards() external {
        vm.expectRevert();
        campaign.pledge(1);
        finishSegment(0);
        assertEq(emission.fees(0), 0, "fees");
        assertEq(emission.points(0, solver) + emission.points(0, address(campaign)), 0, "points");
    }
}
