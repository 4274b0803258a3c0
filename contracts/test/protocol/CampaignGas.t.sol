// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {CampaignTerms, ICampaign} from "../../interfaces/ICampaign.sol";
import {SegmentSpec} from "../../interfaces/IMarket.sol";
import {CampaignFixture} from "./support/CampaignFixture.sol";
import {GasTable} from "./support/GasTable.sol";

/// What the calls of campaigns and of the Emission cost at the most participants: contracts/test/snapshots/Campaign.json.
contract CampaignGasTest is CampaignFixture, GasTable {
    /// Of an audit in which four auditors are expected.
    uint256 private constant SEATS = 10;

    function setUp() public override(CampaignFixture) {
        super.setUp();
    }

    function cold() internal override {
        super.cold();
        vm.cool(address(crowdfund));
        vm.cool(address(campaign));
    }

    function table(string memory name) private returns (uint256) {
        return enter("Campaign", name);
    }

    function test_gas_of_pledges() external {
        CampaignTerms memory t = volunteerTerms();
        cold();
        crowdfund.create(t, CID);
        table("create");
        equip(ada, GOAL);
        equip(ben, GOAL);
        cold();
        vm.prank(ada);
        campaign.pledge(1);
        table("pledge, the first");
        cold();
        vm.prank(ben);
        campaign.pledge(GOAL);
        table("pledge, the last");
        uint256 before = vm.snapshotState();
        cold();
        campaign.launch();
        table("launch");
        cold();
        campaign.claimShares(ada);
        table("claimShares, no income yet");
        vm.revertToState(before);
        vm.warp(PLEDGE_DEADLINE + GRACE + 1);
        cold();
        campaign.refund(ada);
        table("refund");
    }

    /// Everybody is new, and there have been income and rewards already.
    function test_gas_of_shares_and_income() external {
        useAudited();
        address[] memory auditors = enrollMany(3 * SEATS);
        deliver(solver, 0);
        vm.roll(vm.getBlockNumber() + 2);
        address[] memory drawn = drawMost(auditors);
        for (uint256 i = 0; i < SEATS; ++i) {
            attest(drawn[i], 0);
        }
        pass(WINDOW + 1);
        settle(0);
        equip(stranger, 2000);
        cold();
        vm.prank(stranger);
        campaign.payIncome(1000);
        table("payIncome");
        pass(EPOCH);
        cold();
        campaign.collectRewards(0);
        table("collectRewards");
        SegmentSpec memory s = spec(0);
        cold();
        campaign.credit(0, s);
        table("credit, ten auditors");
        assertEq(shares.balanceOf(drawn[SEATS - 1]), SHARES / 10 / 4 / SEATS, "auditor");
        cold();
        campaign.claimShares(ada);
        table("claimShares, after income and rewards");
        cold();
        vm.prank(ada);
        shares.transfer(vm.addr(1), 1);
        table("transfer of shares, after income and rewards");
        cold();
        vm.prank(ada);
        campaign.claimIncome();
        table("claimIncome");
        cold();
        vm.prank(ada);
        campaign.claimRewards();
        table("claimRewards");
        cold();
        emission.claim(0, solver);
        table("Emission.claim");
    }

    function test_gas_of_what_comes_back() external {
        launchFunded();
        deliver(solver, 0);
        pass(WINDOW + CLOCK + 1);
        market.forfeit(job, 0, spec(0));
        pass(DURATION);
        cold();
        campaign.finish();
        table("finish, a refund and compensation");
        cold();
        campaign.claimReturn(ada);
        table("claimReturn");
    }

    /// Finds a block hash that draws as many as there are seats.
    function drawMost(address[] memory auditors) private returns (address[] memory drawn) {
        drawn = new address[](auditors.length);
        for (uint256 random = 1;; ++random) {
            vm.setBlockhash(vm.getBlockNumber() - 1, bytes32(random));
            uint256 count = 0;
            for (uint256 i = 0; i < auditors.length; ++i) {
                if (audit.isDrawn(job, 0, 0, auditors[i])) drawn[count++] = auditors[i];
            }
            if (count >= SEATS) return drawn;
        }
    }
}
